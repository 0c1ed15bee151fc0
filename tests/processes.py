"""Python code in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import fastsoftmax

PACKAGE = Path(fastsoftmax.__file__).parent


def python(code, *, impl=None, package=PACKAGE):
    """Run code in a process of its own, where `package` is the one that is imported."""
    env = {k: v for k, v in os.environ.items() if k not in ("FASTSOFTMAX_IMPL", "PYTHONWARNINGS")}
    env["PYTHONPATH"] = str(package.parent)
    if impl is not None:
        env["FASTSOFTMAX_IMPL"] = impl
    # The finder of an editable install would find the modules that a copy of the package lacks.
    alone = (
        "import sys\nsys.meta_path = [f for f in sys.meta_path if 'editable' not in f.__module__]"
    )
    command = [sys.executable, "-P", "-c", f"{alone}\n{code}"]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, cwd=package.parent
    )


def output(*args, **kwargs):
    """Return the words that code prints, which must succeed; see `python`."""
    result = python(*args, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()
