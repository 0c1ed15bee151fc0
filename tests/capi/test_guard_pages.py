"""No C function reads or writes beside the arrays it is given: they lie between two pages each."""

import ctypes
import itertools
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.capi.header import USED, compiled_alone
from tests.processes import python

ROOT = str(Path(__file__).parents[2])
LENGTHS = (1, 2, 3, 7, 9, 16, 31, 33, 65, 130)

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="needs mprotect")


def main(beyond=0):
    """Call every function with arrays flush with an end of their pages; or read `beyond` one."""
    import fastsoftmax
    from tests.capi.header import Api, from_capsule
    from tests.memory.guard_pages import ENDS, Room

    api = Api.from_address(from_capsule(fastsoftmax.capi._C_API, b"fastsoftmax.capi._C_API"))
    rooms = [Room() for _ in range(6)]
    numbers = np.random.default_rng(0).standard_normal((3, max(LENGTHS)))
    count = 0
    for dtype, n, m, end in itertools.product(("float32", "float64"), LENGTHS, (1, 3), ENDS):
        at = itertools.cycle(rooms)

        def place(a, end=end, at=at):
            return next(at).place(np.ascontiguousarray(a), 1, end).ctypes.data

        def run(name, *arguments, dtype=dtype):
            assert getattr(api, f"{name}_{dtype}")(*arguments) == 0, name

        x = numbers[:m, :n].astype(dtype)
        k = min(3, n)
        for t in (1.0, 0.7, 0.0, 1e-31):
            run("softmax", place(x), place(x), m, n + beyond, t)
            run("log_softmax", place(x), place(x), m, n, t)
            for filters in ((0, 1.0, 0.0), (k, 0.6, 0.0), (0, 0.9, 0.1)):
                u, ids = place(np.full(m, 0.9)), place(np.zeros(m, np.int64))
                run("sample", place(x), u, ids, m, n, t, *filters)
            losses, grad, loss = place(np.zeros(m)), place(x), place(np.zeros(1))
            targets = place(np.full(m, n - 1))
            run("cross_entropy", place(x), targets, losses, grad, loss, m, n, t, 0.1, -100, 1)
        run("logsumexp", place(x), place(x[:, 0]), m, n)
        for largest in (0, 1):
            values, indices = place(x[:, :k]), place(np.zeros((m, k), np.int64))
            run("top_k", place(x), values, indices, m, n, k, largest, 1)
        count += 1
    print("survived", count)


def child(*args):
    """Run `main` in a process of its own."""
    code = f"sys.path.append({ROOT!r})\nfrom tests.capi import test_guard_pages\n"
    return python(f"{code}test_guard_pages.main(*{args!r})", impl=USED)


@compiled_alone
def test_nothing_beside_an_array_is_touched():
    result = child()
    assert result.stdout.split() == ["survived", str(4 * 2 * len(LENGTHS))], result.stderr


@compiled_alone
def test_a_row_too_long_is_seen():
    assert child(16384).returncode in (-signal.SIGSEGV, -signal.SIGBUS)
