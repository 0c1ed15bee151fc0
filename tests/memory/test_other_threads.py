"""What another thread writes into a call's arrays meanwhile gives a wrong answer, no stray access.

The arrays lie between pages that nobody may touch (`guard_pages.py`), in a process of its own.
"""

import ctypes
import signal
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax import _dispatch
from tests import calls
from tests.memory.guard_pages import CALLS, WITH_OUT, Placed, Room
from tests.processes import python

ROOT = str(Path(__file__).parents[2])
SHAPES = ((2, 1500), (130, 17))

#: Functions that take classes or ids.
WITH_IDS = ("rank", "token_logprobs", "cross_entropy", "cross_entropy_with_grad")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="needs mprotect"),
]


def contents(shape):
    """Return rows between which the other thread changes."""
    x = np.random.default_rng(0).standard_normal(shape)
    odd = np.where(x > 0, -np.inf, x)
    odd[0, ::7] = np.nan
    return [x, np.zeros(shape), np.sort(x), x * 1e4, odd, np.full(shape, np.inf), -np.sort(-x)]


def call(function, *args):
    """Return whether a call comes to an end, with indices, ranks and counts that can be."""
    try:
        result = function(*args)
    except (ValueError, IndexError):  # a class or id that is none by now
        return False
    for a in map(np.asarray, calls.arrays(result)):
        if a.dtype == np.int64:
            assert a.min(initial=0) >= -1
            assert a.max(initial=0) <= 128 + max(map(max, SHAPES))  # of a part ids begin at 128
    return True


def call_all(placed, x, y, ids):
    """Make each call of x, into y and in place too; return how many came to an end."""
    count = 0
    for name, function in CALLS.items():
        outs = [None]
        if name.split()[0] in WITH_OUT:
            outs += [lambda _: y, lambda x: x]
        for placed.out in outs:
            count += call(function, placed, x)
    placed.out = None
    return count + sum(call(getattr(placed, name), x, ids) for name in WITH_IDS)


def race(f, shape, dtype, times):
    """Return how many calls came to an end while another thread wrote into their arrays."""
    rooms = Room(), Room(), Room()
    others = [o.astype(dtype) for o in contents(shape)]
    x, y = (room.place(others[0], 1, "last") for room in rooms[:2])
    ids = rooms[2].place(np.zeros(shape[:-1], np.int64), 1, "last")
    numbers = (0, shape[1] - 1, -100, shape[1], 2**62, -(2**62), 5)
    done = threading.Event()

    def write():
        while not done.is_set():
            for other, number in zip(others, numbers, strict=True):
                x[...] = other
                ids[...] = number

    writer = threading.Thread(target=write)
    writer.start()
    try:
        if isinstance(f, types.FunctionType):
            return sum(call(f, x, ids) for _ in range(times))
        return sum(call_all(Placed(f), x, y, ids) for _ in range(times))
    finally:
        done.set()
        writer.join()


def read_at(x, ids):
    """Read the element of an id that was checked, but is read once more."""
    if not 0 <= ids[0] < x.shape[-1]:
        raise ValueError(ids[0])
    np.exp(x)
    ctypes.string_at(x.ctypes.data + int(ids[0]) * x.itemsize, x.itemsize)


def main(name, times):
    """Print how many calls of an implementation, or of a planted fault, came to an end."""
    f = _dispatch.load(name) if name != "fault" else read_at
    print(sum(race(f, shape, dtype, times) for shape in SHAPES for dtype in ("f4", "f2")))


def child(*args):
    """Run `main` in a process of its own."""
    code = f"import sys\nsys.path.append({ROOT!r})\nfrom tests.memory import test_other_threads\n"
    return python(f"{code}test_other_threads.main(*{args!r})", impl="reference")


@pytest.mark.best_alone
@pytest.mark.parametrize("times", [20, pytest.param(2000, marks=pytest.mark.weekly)])
def test_nothing_beside_an_array_is_touched(compiled, times):
    result = child(compiled.NAME, times)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 100 * times


def test_a_fault_is_seen():
    assert child("fault", 100_000).returncode in (-signal.SIGSEGV, -signal.SIGBUS)
