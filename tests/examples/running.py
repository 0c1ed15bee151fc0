"""Runs the examples as commands."""

import os
import subprocess
import sys
from pathlib import Path

import fastsoftmax

EXAMPLES = Path(__file__).parents[2] / "examples"


def command(*arguments):
    """Start Python with the very fastsoftmax that is tested here."""
    path = [str(Path(fastsoftmax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONUTF8": "1",
            "OPENBLAS_NUM_THREADS": "1",  # two run at once
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
