"""What ``import fastsoftmax`` costs beyond NumPy: only what every program needs."""

import subprocess
import sys

import pytest

import fastsoftmax
from tests.processes import output

LATE = ("numpy.random", "inspect", "fastsoftmax._reference", "fastsoftmax._sampler")
compiled = pytest.mark.skipif(
    fastsoftmax.show_config(mode="dicts")["implementation"] == "reference",
    reason="the reference needs what is late otherwise",
)


@compiled
def test_what_few_need_is_imported_late():
    code = (
        "import sys, numpy\nbefore = {*sys.modules}\nimport fastsoftmax\n"
        f"print(*({{*{LATE}}} & {{*sys.modules}} - before))"
    )
    assert output(code) == []
    ids = "print(*fastsoftmax.sample([[0, 99], [99, 0]], rng=numpy.random.default_rng(1)))"
    assert output(f"import fastsoftmax, numpy\n{ids}") == ["1", "0"]
    draws = "print(fastsoftmax.sample([0, 99], seed=1, position=2, accept=lambda row, i: True))"
    assert output(f"import fastsoftmax\n{draws}") == ["1"]


def seconds(prelude, module):
    """Return the CPU time that importing a module takes behind a line of code."""
    code = f"{prelude}; t = time.process_time(); import {module}; print(time.process_time() - t)"
    return float(subprocess.check_output([sys.executable, "-c", f"import time; {code}"]))


@compiled
@pytest.mark.weekly
def test_the_time_is_a_third_of_numpys_at_most():
    """In turns, as the machine may be slower at times; not beside tests that build packages."""
    ours, numpys = zip(
        *((seconds("import numpy", "fastsoftmax"), seconds("pass", "numpy")) for _ in range(12)),
        strict=True,
    )
    assert min(ours) < min(numpys) / 3
