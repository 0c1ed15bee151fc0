"""Rows that are taken in groups: the same bits as alone, and nothing beyond the array touched."""

import ctypes
import mmap

import numpy as np
import pytest

LENGTHS = [*range(1, 36), 63, 64, 65, 100, 255, 256, 257, 511, 512, 513, 1000, 1023, 1024, 1025]
ROWS = [2, 3, 63, 64, 65, 130]


def logits(rows, n, dtype):
    return (8 * np.random.default_rng(n).standard_normal((rows, n))).astype(dtype)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("deviation", [20, 60])
@pytest.mark.parametrize("n", [2, 10, 33, 100, 1000])
def test_wide_rows_have_the_same_bits_in_many(compiled, n, deviation):
    """Exponentials below the smallest normal number are 0 in many elements, and not in few."""
    x = (deviation * np.random.default_rng(n).standard_normal((9000 // n, n))).astype(np.float32)
    for t in (1.0, 0.7):
        expected = [compiled.softmax(row, temperature=t) for row in x]
        np.testing.assert_array_equal(compiled.softmax(x, temperature=t), expected)
        columns = compiled.softmax(np.ascontiguousarray(x.T), axis=0, temperature=t)
        np.testing.assert_array_equal(columns.T, expected)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n", [30, 3000])
def test_a_sum_of_subnormal_exponentials_shows_in_logarithms(impl, n, axis):
    x = np.full((700, n), -105.5, dtype=np.float32)
    x[:, 1] = 0
    y = impl.log_softmax(x if axis else np.ascontiguousarray(x.T), axis=axis)
    expected = np.float32(-(n - 1) * np.exp(-105.5))
    assert expected < 0
    np.testing.assert_array_equal(np.moveaxis(y, axis, -1)[:, 1], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", LENGTHS)
def test_a_row_has_the_same_bits_in_any_group(compiled, dtype, n):
    for rows in ROWS:
        x = logits(rows, n, dtype)
        # A row of every bad kind amid the good ones.
        for bad, value in enumerate((np.nan, np.inf, -np.inf)):
            x[(7 * bad) % rows, bad % n :: 2] = value
        temperatures = np.resize([1.0, 0.7, 3.0, 0.0, np.inf, 1e-300], rows)
        np.testing.assert_array_equal(compiled.logsumexp(x), [compiled.logsumexp(row) for row in x])
        for function in (compiled.softmax, compiled.log_softmax):
            for t in (1.0, 0.7, temperatures):
                y = function(x, temperature=t)
                ts = np.broadcast_to(t, rows)
                alone = [function(x[i], temperature=float(ts[i])) for i in range(rows)]
                np.testing.assert_array_equal(y, alone)
                z = x.copy()
                assert function(z, temperature=t, out=z) is z
                np.testing.assert_array_equal(z, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 15, 16, 40])
def test_a_group_may_be_unlike_the_one_before(compiled, dtype, n):
    for odd in (60, -60, 700, -700, 1e6, np.nan, np.inf, -np.inf):
        x = logits(320, n, dtype)
        x[100] += odd
        x[200:] += odd
        np.testing.assert_array_equal(compiled.softmax(x), [compiled.softmax(row) for row in x])


def at_end_of_page(shape, dtype):
    """Return an array whose last byte is the last that may be read, and what keeps it alive."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    page = mmap.PAGESIZE
    room = (size + page - 1) // page * page
    memory = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if protect(start + room, page, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    array = np.frombuffer(memory, dtype, count=int(np.prod(shape)), offset=room - size)
    return array.reshape(shape), memory


@pytest.mark.slow_reference
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="needs mprotect")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_beyond_the_array_is_touched(impl, dtype):
    for n in LENGTHS:
        for rows in (1, 2, 65):
            x, _keep = at_end_of_page((rows, n), dtype)
            y, _keep_too = at_end_of_page((rows, n), dtype)
            x[:] = logits(rows, n, dtype)
            impl.softmax(x, out=y)
            np.testing.assert_array_equal(y, impl.softmax(x.copy()))
            impl.log_softmax(x, out=y)
            impl.logsumexp(x)
