"""No call leaves memory allocated, of any function, in any form, from a result or an error."""

import contextlib
import ctypes
import gc

import numpy as np
import pytest

from tests.calls import CALLS


class Mallinfo(ctypes.Structure):
    """What glibc says of its heap."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@pytest.fixture(scope="module")
def in_use():
    """Return a function that says how many bytes malloc has given and not got back."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        pytest.skip("this C library is not glibc 2.33 or later")
    mallinfo2.restype = Mallinfo

    def bytes_in_use():
        info = mallinfo2()
        return info.uordblks + info.hblkhd

    return bytes_in_use


def per_row(shape):
    """Return a parameter for each of some rows."""
    return np.linspace(0.5, 1, shape[0])


#: Calls with numbers for each row, beside those of `CALLS`.
PER_ROW = {
    "softmax temperatures": lambda f, x: f.softmax(x, temperature=per_row(x.shape)),
    "softmax_backward temperatures": lambda f, x: f.softmax_backward(
        x, x, temperature=per_row(x.shape)
    ),
    "sample filters of rows": lambda f, x: f.sample(
        x, temperature=per_row(x.shape), top_p=per_row(x.shape), rng=1, on_invalid="flag"
    ),
    "token_logprobs temperatures": lambda f, x: f.token_logprobs(
        x, np.zeros(x.shape[0], int), temperature=per_row(x.shape)
    ),
    "top_logprobs temperatures": lambda f, x: f.top_logprobs(x, 2, temperature=per_row(x.shape)),
    "cross_entropy tiny T": lambda f, x: f.cross_entropy(
        x, np.zeros(x.shape[0], int), temperature=1e-42
    ),
    "a temperature below 0": lambda f, x: f.softmax(x, temperature=-per_row(x.shape)),
    "a target outside": lambda f, x: f.cross_entropy(x, np.full(x.shape[0], 10**6)),
}
ALL = CALLS | PER_ROW


def growth(call, x, impl, in_use, times):
    """Return how many more bytes are in use after so many calls."""

    def run(times):
        for _ in range(times):
            with contextlib.suppress(ValueError, IndexError):
                call(impl, x)
        gc.collect(0)

    run(3)
    before = in_use()
    run(times)
    return in_use() - before


@pytest.mark.best_alone
@pytest.mark.slow_modules
@pytest.mark.parametrize("form", ["as it stands", "packed", "columns"])
@pytest.mark.parametrize("name", ALL)
def test_nothing_is_leaked(compiled, in_use, name, form):
    x = np.random.default_rng(1).standard_normal((40, 90)).astype(np.float32)
    x = {"as it stands": x, "packed": x.astype(np.float16)[::-1, ::-1], "columns": x.T}[form]
    # The smallest block of malloc has 32 bytes; NumPy and Python keep some for later calls.
    assert min(growth(ALL[name], x, compiled, in_use, 40) for _ in range(3)) < 32 * 40
