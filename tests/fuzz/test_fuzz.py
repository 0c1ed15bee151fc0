"""A share of the fuzzing for each change, and faults that are planted to be found by it."""

import contextlib
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import fastsoftmax
from fastsoftmax import _dispatch

from . import files, programs, world
from .judge import FindingError, UnbuiltError, judge
from .machine import Machine
from .programs import Call

BEST = fastsoftmax.show_config(mode="dicts")["implementation"]


def share(examples, **more):
    """Return hypothesis' settings for the same examples each time."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def try_calls(impl, examples):
    """Judge so many calls."""

    @share(examples)
    @given(programs.anything)
    def calls(call):
        with contextlib.suppress(UnbuiltError):
            judge(call, impl)

    calls()


def try_files(path, examples):
    """Judge so many commands on files."""

    @share(examples)
    @given(files.commands())
    def commands(command):
        files.judge_file(command, path)

    commands()


def try_machines(kernels, examples, steps):
    """Run so many machines."""

    class One(Machine):
        impl = kernels

    run_state_machine_as_test(One, settings=share(examples, stateful_step_count=steps))


def test_calls():
    try_calls(_dispatch.load(BEST), 80)


@pytest.fixture(scope="module")
def characters():
    """Hypothesis' table of characters, which it makes once for a clone: seconds, and no test's."""
    find(st.text(), lambda text: True)


def test_commands(tmp_path, characters):
    try_files(tmp_path / "x.npy", 4)


def test_arrays_that_live_on():
    try_machines(_dispatch.load(BEST), 2, 8)


def test_no_subclass_that_lives_on_goes_to_scipy():
    machine = Machine()
    machine.live["a"] = world.array((7,), "f4", "specials", 0, "subclass")

    @share(30)
    @given(st.data())
    def calls(data):
        call = data.draw(machine._calls())
        assert not (call.function.startswith("scipy.") and "a" in call.arguments.values())

    calls()


@pytest.mark.slow
def test_more_calls(compiled):
    try_calls(compiled, 350)


@pytest.mark.slow
def test_more_commands(tmp_path):
    try_files(tmp_path / "x.npy", 200)


@pytest.mark.slow
def test_more_arrays_that_live_on(compiled):
    try_machines(compiled, 4, 15)


@pytest.mark.weekly
def test_an_hour():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--minutes", "60"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


# ---- planted faults ------------------------------------------------------------------------------


def writes_beyond(x, out=None, **_):
    """Write one element behind `out`."""
    out[...] = fastsoftmax.softmax(x)
    np.ndarray(out.size + 1, out.dtype, out.base, out.ctypes.data - out.base.ctypes.data)[-1] = 1
    return out


def writes_input(x, **_):
    """Write to the input."""
    y = fastsoftmax.softmax(x)
    x[0] = 1
    return y


def writes_before_error(x, out=None, **_):
    """Write to `out`, and raise."""
    out[...] = 1
    raise ValueError("x is bad")


def warns(x, **_):
    """Overflow in NumPy."""
    return np.exp(x + 1e30)


def raises_other(x, **_):
    """Raise what no one can make sense of."""
    return [][len(x)] if x.ndim > 9 else {}["x"]


def says_nothing(x, **_):
    """Raise an error that names nothing."""
    raise ValueError("bad value")


def wrong_type(x, **_):
    """Return another dtype."""
    return fastsoftmax.softmax(x).astype(np.float64)


def inexact(x, **_):
    """Return what is wrong in the fifth digit."""
    return fastsoftmax.softmax(x) * np.float32(1.0001)


def accepts(x, temperature=1, **_):
    """Take a NaN."""
    return fastsoftmax.softmax(x, temperature=abs(float(np.nan_to_num(temperature))) or 1.0)


X = "array((7,), 'f4', 'normal', 1, 'C')"
PLANTED = {
    writes_beyond: {"x": X, "out": X},
    writes_input: {"x": X},
    writes_before_error: {"x": X, "out": X},
    warns: {"x": X},
    raises_other: {"x": X},
    says_nothing: {"x": X},
    wrong_type: {"x": X},
    inexact: {"x": X},
    accepts: {"x": X, "temperature": "nan"},
}


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(fault):
    call = Call("softmax", PLANTED[fault])
    judge(call, fastsoftmax)
    with pytest.raises(FindingError):
        judge(call, types.SimpleNamespace(softmax=fault))


def test_every_public_function_is_tried():
    functions = {name for name in fastsoftmax.__all__ if not issubclass_of_tuple(name)}
    assert functions == {
        *programs.FUNCTIONS, "History", "LogSumExp", "RunningTopK", "Sampler", "set_workers",
        "get_workers", "show_config", "get_include",
    }  # fmt: skip


def issubclass_of_tuple(name):
    """Return whether a public name is that of a named tuple."""
    value = getattr(fastsoftmax, name)
    return isinstance(value, type) and issubclass(value, tuple)


def test_a_crash_is_found_and_told(tmp_path, monkeypatch):
    from . import long_run

    crash = "import os, sys; open(sys.argv[-1], 'w').write('softmax(x=1)'); os.abort()"
    monkeypatch.setattr(long_run, "COMMAND", [sys.executable, "-c", crash])
    answer = long_run.child("avx2", 0, 1, tmp_path / "last")
    (finding,) = answer["findings"].values()
    assert "exit code -6" in finding
    assert "softmax(x=1)" in finding
