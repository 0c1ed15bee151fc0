"""Where memory is refused: MemoryError alone; `out` as it was, no leak, and the next call works.

In a process of its own, whose malloc (`allocator.c`) fails at each request of a call in turn: at
this one alone, or from there on.
"""

import ctypes
import itertools
import os
import struct
import sys
import time
from functools import lru_cache
from pathlib import Path
from subprocess import run

import ml_dtypes
import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _dispatch, _threads
from tests import calls
from tests.calls import CALLS, FILTERS, bits, classes, other
from tests.memory.compiled import shared_object

HERE = Path(__file__).resolve()
BEST = fastsoftmax.show_config(mode="dicts")["implementation"]
ROOTS = [str(Path(fastsoftmax.__file__).parents[1]), str(HERE.parents[2])]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs LD_PRELOAD and glibc")


# ---- calls ---------------------------------------------------------------------------------------


@lru_cache  # NumPy's arithmetic is no part of a call: without memory it ends in a SystemError
def heat(rows):
    """Return a temperature for each row, the last of which is infinite: all of it is listed."""
    return np.append(np.linspace(0.5, 2, rows - 1), np.inf)


@lru_cache
def mask(shape):
    """Return a mask in which every third entry is False."""
    return calls.mask(np.empty(shape))


#: Calls that write into an array.
WITH_OUT = {
    "softmax": lambda f, x, y: f.softmax(x, out=y),
    "softmax where": lambda f, x, y: f.softmax(x, where=mask(x.shape), out=y),
    "softmax temperatures": lambda f, x, y: f.softmax(x, temperature=heat(len(x)), out=y),
    "softmax columns": lambda f, x, y: f.softmax(x, 0, out=y),
    "softmax of all": lambda f, x, y: f.softmax(x, None, out=y),
    "log_softmax": lambda f, x, y: f.log_softmax(x, out=y),
    "log_softmax columns": lambda f, x, y: f.log_softmax(x, 0, temperature=0.7, out=y),
    "filter_logits": lambda f, x, y: f.filter_logits(x, **FILTERS, out=y),
    "filter_logits nuclei": lambda f, x, y: f.filter_logits(
        x, temperature=heat(len(x)), top_p=0.9, out=y
    ),
    "cross_entropy_with_grad": lambda f, x, y: f.cross_entropy_with_grad(x, classes(x), out=y),
    "cross_entropy_with_grad labels": lambda f, x, y: f.cross_entropy_with_grad(
        x, other(x), reduction="none", temperature=1e-31, out=y
    ),
    "cross_entropy_with_grad columns": lambda f, x, y: f.cross_entropy_with_grad(
        x, classes(x.T), axis=0, reduction="none", out=y
    ),
    "softmax_backward": lambda f, x, y: f.softmax_backward(x, other(x), out=y),
    "log_softmax_backward columns": lambda f, x, y: f.log_softmax_backward(x, other(x), 0, out=y),
}


#: What calls NumPy's arithmetic too, which ends in a SystemError: lengths of beams, what a mask
#: leaves of rows, and the modules' Python.
OF_NUMPY = (
    *("beam_step", "Sampler", "parts race", "scipy.logsumexp"),
    *("quantized.softmax columns", "quantized.top_k"),
)
#: What indexes by arrays: without memory NumPy 2.4 crashes in that.
NOT_HERE = ("LogSumExp", "RunningTopK", "calibration.")
RESULTS = {name: call for name, call in CALLS.items() if not name.startswith(NOT_HERE)}


def written_late(f, x, y):
    """Ask for memory once y is written."""
    y.fill(0)
    return np.empty(20_000).size


def leaked(f, x, y):
    """Lose some memory."""
    if ctypes.pythonapi.PyMem_RawMalloc(64) == 0:
        raise MemoryError


def refused_otherwise(f, x, y):
    """Make another error of MemoryError."""
    try:
        np.empty(20_000)
    except MemoryError:
        raise OSError from None


FAULTS = {"out is written": written_late, "leak": leaked, "OSError": refused_otherwise}


# ---- arrays --------------------------------------------------------------------------------------


def overlapping(x):
    """Return x and a result that begins three elements later in the same memory."""
    room = np.empty(x.size + 3, x.dtype)
    shifted = room[:-3].reshape(x.shape)
    shifted[...] = x
    return shifted, room[3:].reshape(x.shape)


def spaced(x):
    """Return x, and a result, every other element of something."""
    return (np.repeat(a, 2, -1)[:, ::2] for a in (x, x))


#: What x, of float32 or float64, and a result of it may be.
FORMS = {
    "plain": lambda x: (x, x.copy()),
    "in place": lambda x: (x, x),
    "overlapping": overlapping,
    "spaced": spaced,
    "transposed": lambda x: (np.asfortranarray(x), x.copy()),
    "float16": lambda x: (x.astype(np.float16), x.astype(np.float16)),
    "bfloat16": lambda x: (x.astype(ml_dtypes.bfloat16), x.astype(ml_dtypes.bfloat16)),
}

#: Rows that are small, more than are packed at once, long ones of several pieces.
SHAPES = [(3, 7), (40, 3000), (2, 70_000)]

#: What is tried together: calls, shapes and forms.
KINDS = {
    "default": (WITH_OUT, SHAPES[:2], ("plain", "float16")),
    "out": (WITH_OUT, SHAPES, FORMS),
    "result": (RESULTS, SHAPES, ("plain",)),
    "result of float16": (RESULTS, SHAPES, ("float16",)),
    # Rows so long that they begin with room for some of it, and the last one needs more.
    "long": (
        {"filter_logits nuclei": WITH_OUT["filter_logits nuclei"]},
        [(2, 1_100_000)],
        ("plain", "float16"),
    ),
    **{fault: ({fault: call}, SHAPES[:1], ("plain",)) for fault, call in FAULTS.items()},
}


def cases(kind):
    """Yield a name, a call, x and what is written for each case of a kind."""
    functions, shapes, forms = KINDS[kind]
    for shape, form, name in itertools.product(shapes, forms, functions):
        x, y = FORMS[form](np.random.default_rng(0).standard_normal(shape, np.float32))
        x = calls.codes(x) if name.startswith("quantized.") else x
        yield f"{name}, {form} {shape}", functions[name], x, None if kind == "result" else y


# ---- the process whose malloc fails --------------------------------------------------------------


def is_refusal(error, name):
    """Return whether an error of a call says that memory was refused; of a lock, in words."""
    by_numpy = isinstance(error, SystemError) and name.startswith(OF_NUMPY)
    return by_numpy or isinstance(error, MemoryError) or str(error) == "can't allocate lock"


class Allocator:
    """The process's malloc."""

    def __init__(self):
        library = ctypes.CDLL(None)
        self.fail, self.end, self.live = library.fs_fail, library.fs_end, library.fs_live
        self.end.restype = self.live.restype = ctypes.c_long

    def run(self, call, n, all_after):
        """Return what a call returns, or raises, when request n fails; and how many there were."""
        asked = 0
        try:
            self.fail(n, all_after)
            try:
                result = call()
            finally:
                asked = self.end()
        except BaseException as error:
            error.__traceback__ = error.__context__ = None  # which refer to this frame
            result = error
        return result, asked


def check(allocator, f, name, function, x, y):
    """Raise unless a call, which writes into y unless that is None, fails as it should.

    Return how often it failed.
    """
    start = [(a, a.copy()) for a in (x, y) if a is not None]
    failed = 0

    def call():
        return function(f, x) if y is None else function(f, x, y)

    def restore():
        for array, copy in start:
            array[...] = copy

    def state():
        return [array.tobytes() for array, _ in start]

    before, want, after = state(), bits(call()), state()
    most = max(allocator.run(call, 0, 0)[1] for _ in range(3))
    for n, all_after in itertools.product(range(1, most + 2), (0, 1)):
        lives = []
        while len(lives) < 2 or lives[-1] > max(lives[:-1]):
            assert len(lives) < 12, f"leak: {name}, request {n}, {lives}"
            if len(lives) > 2:
                time.sleep(len(lives) / 100)  # a thread may free what it was handed a little later
            restore()
            got, _ = allocator.run(call, n, all_after)
            lives.append(allocator.live())
            where = f"{name}, request {n}, {'and all after' if all_after else 'alone'}: {got!r}"
            if isinstance(got, BaseException):
                assert is_refusal(got, name), where
                assert state() == before, f"out is written: {where}"
                failed += 1
            else:
                assert bits(got) == want, where
                assert state() == after, where
            del got
        restore()
        assert bits(call()) == want, f"afterwards: {where}"
    return failed


def main(impl, kind, workers):
    """Print how many calls were tried, and how often they failed."""
    _threads.LEAST = 1000  # what is read when an implementation is loaded: threads share the rows
    f, allocator = _dispatch.load(impl), Allocator()
    with fastsoftmax.set_workers(int(workers)):
        failed = [check(allocator, f, *case) for case in cases(kind)]
    print(len(failed), sum(failed))


# ---- tests ---------------------------------------------------------------------------------------


def child(tmp_path, *args):
    """Run `main` in a process of its own."""
    preload = shared_object(HERE.parent / "allocator.c", tmp_path)
    env = {**os.environ, "LD_PRELOAD": str(preload), "PYTHONPATH": ":".join(ROOTS)}
    env["FASTSOFTMAX_IMPL"] = "reference"
    return run([sys.executable, str(HERE), *args], env=env, capture_output=True, text=True)


def fail_in_turn(*args):
    """Fail where a call of a kind does not fail as it should."""
    result = child(*args)
    assert result.returncode == 0, result.stderr[-3000:]
    calls, failed = map(int, result.stdout.split())
    assert failed > 3 * calls


@pytest.mark.skipif(BEST == "reference", reason="is NumPy, which ends in a SystemError")
@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        ("default", "1"),
        pytest.param("out", "2", marks=pytest.mark.slow),
        pytest.param("result", "1", marks=pytest.mark.slow),
        pytest.param("long", "1", marks=pytest.mark.slow),
    ],
)
def test_each_request_fails_in_turn(tmp_path, kind, workers):
    fail_in_turn(tmp_path, BEST, kind, workers)


@pytest.mark.weekly
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("kind", ["out", "result", "result of float16", "long"])
def test_each_request_of_each_implementation_fails_in_turn(compiled, tmp_path, kind, workers):
    fail_in_turn(tmp_path, compiled.NAME, kind, workers)


def test_no_module_has_thread_local_storage():
    """Of a module it is made when a thread first comes to it: without memory glibc then aborts."""
    modules = [*Path(fastsoftmax.__file__).parent.rglob("*.so")]
    for module in modules:
        start = module.read_bytes()[:4096]
        (at,) = struct.unpack_from("Q", start, 32)  # of an ELF file of 64 bits
        size, count = struct.unpack_from("HH", start, 54)
        segments = [struct.unpack_from("I", start, at + i * size)[0] for i in range(count)]
        assert 1 in segments, "PT_LOAD"
        assert 7 not in segments, f"PT_TLS in {module}"
    assert modules or BEST == "reference"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(tmp_path, fault):
    assert f"AssertionError: {fault}" in child(tmp_path, "reference", fault, "1").stderr


if __name__ == "__main__":
    main(*sys.argv[1:])
