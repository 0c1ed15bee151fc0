"""A build for a free-threaded interpreter: FREETHREADED_PYTHON, else ``python3.14t``, ``3.13t``.

It needs `venv` and an index of packages.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("numpy", "cython>=3.1", "setuptools>=77", "pytest", "hypothesis", "ml_dtypes")

pytestmark = pytest.mark.weekly


def build(python, folder):
    """Build a copy of the sources for `python` in a `folder`; return its interpreter there."""
    sources = ("fastsoftmax", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")
    for name in sources:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.c")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    own = folder / "venv" / "bin" / "python"
    pip = [own, "-m", "pip", "install", "-q", "--only-binary=:all:", *NEEDED]
    subprocess.run(pip, check=True)
    command = [own, "setup.py", "build_ext", "--inplace"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    return own


def interpreter(variable, *names):
    """Return the path of an interpreter that the environment names, or one of these `names`."""
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"{variable} names no interpreter, and there is no {' or '.join(names)}")
    return found


def run(own, *arguments, **environment):
    done = subprocess.run(
        [own, *arguments],
        cwd=own.parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def freethreaded(tmp_path_factory):
    python = interpreter("FREETHREADED_PYTHON", "python3.14t", "python3.13t")
    return build(python, tmp_path_factory.mktemp("freethreaded"))


IMPORTS = """
import pkgutil, sys, importlib, warnings
warnings.simplefilter("error")  # also that the GIL has been enabled
import numpy
assert not sys._is_gil_enabled(), "numpy"
import fastsoftmax
from fastsoftmax import _dispatch
assert _dispatch.active.NAME != "reference"
for module in pkgutil.walk_packages(fastsoftmax.__path__, "fastsoftmax."):
    if "_kernels" not in module.name and not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ImportError as error:  # an extra that is not installed there
            assert "pip install" in str(error) or "numba" in str(error), error
for name in _dispatch.runnable():
    _dispatch.load(name)
assert not sys._is_gil_enabled()
"""


def test_no_import_enables_the_gil(freethreaded):
    run(freethreaded, "-c", IMPORTS)


def test_threads_without_the_gil(freethreaded):
    run(freethreaded, "-m", "pytest", "-q", "-m", "not weekly", "tests/concurrency", PYTHON_GIL="0")
