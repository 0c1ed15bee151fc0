"""examples/reliability.py draws what the page on classifiers shows. Weekly: needs scikit-learn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastsoftmax

EXAMPLE = Path(__file__).parents[2] / "examples" / "reliability.py"
pytestmark = pytest.mark.weekly


def test_writes_a_picture(tmp_path):
    path = os.pathsep.join([str(Path(fastsoftmax.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(tmp_path / "picture.png")],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    before, after, loss, sets = done.stdout.splitlines()
    assert before == "T = 1, off by 10.1%"
    assert float(after.split("off by ")[1].rstrip("%")) < 3
    assert loss.startswith("loss 1.826 before, 0.271 after")
    assert 0.9 < float(sets.split(": ")[1].split("%")[0]) / 100 < 1
