"""The tests on builds and in tools that see each access to memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.calls import CALLS
from tests.memory import total_references

HERE = Path(__file__).parent


@pytest.mark.sanitize
def test_no_sanitizer_reports_anything():
    # Nothing is caught here: pytest shows what the script says where it fails.
    assert subprocess.run([HERE / "sanitize"], timeout=3 * 3600).returncode == 0


@pytest.mark.weekly
def test_what_no_function_sets_changes_nothing():
    assert subprocess.run([HERE / "uninitialised"], timeout=3600).returncode == 0


@pytest.mark.weekly
def test_the_total_of_references_stays_the_same():
    if "DEBUG_PYTHON" not in os.environ:
        pytest.skip("DEBUG_PYTHON names no interpreter made --with-pydebug")
    command = [HERE / "debug-python", os.environ["DEBUG_PYTHON"]]
    assert subprocess.run(command, timeout=3600).returncode == 0


@pytest.mark.slow
def test_a_debug_interpreter_needs_no_scipy(impl, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special._logsumexp", None)
    monkeypatch.setattr(sys, "gettotalrefcount", lambda: 0, raising=False)
    monkeypatch.setattr(total_references, "TIMES", 1)
    inputs = [np.zeros((2, 3), complex)]  # what scipy.softmax hands on
    assert total_references.grown(CALLS["scipy.softmax"], impl, inputs) == 0


@pytest.mark.slow
def test_the_references_that_numpy_keeps_are_not_counted(monkeypatch):
    kept, dtype = [], np.dtype(np.float64)
    monkeypatch.setattr(sys, "gettotalrefcount", lambda: sys.getrefcount(dtype), raising=False)
    grown = total_references.grown(lambda f, x: kept.append(dtype), None, [0])
    assert abs(grown) < total_references.NOISE
