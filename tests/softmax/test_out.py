"""``out`` of the softmax family: any strides, in place, overlaps, and what is refused."""

import numpy as np
import pytest

from tests.arrays import LAYOUTS
from tests.softmax.numbers import SHAPE, numbers


@pytest.mark.slow_reference
@pytest.mark.parametrize("layout", ["fortran", "spaced", "swapped axes", "misaligned"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_out_of_any_strides(f, layout, dtype, axis):
    x = numbers(dtype=dtype)
    for start in (x, LAYOUTS[layout](x)):
        for out in (np.empty_like(x), LAYOUTS[layout](np.zeros_like(x)), np.flip(np.zeros_like(x))):
            assert f(start, axis=axis, out=out) is out
            np.testing.assert_array_equal(out, f(x, axis=axis))


def test_out_writes_nothing_beside_itself(f):
    for n in (1, 5, 31, 32, 33, 100):
        big = np.full((5, n + 3), 7, np.float32)
        f(numbers((3, n)), out=big[1:4, 1 : n + 1])
        big[1:4, 1 : n + 1] = 7
        assert (big == 7).all()
        flat = np.full(n + 2, 7, np.float32)
        f(numbers((n,)), out=flat[1:-1])
        assert flat[0] == flat[-1] == 7


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axis", [-1, 0, (0, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_in_place(f, dtype, axis, masked):
    options = {"axis": axis, "where": numbers() > -4 if masked else None}
    for layout in (np.copy, LAYOUTS["fortran"], LAYOUTS["spaced"], LAYOUTS["misaligned"]):
        x = layout(numbers(dtype=dtype))
        expected = f(x.copy(), **options)
        assert f(x, out=x, **options) is x
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("shift", [1, 7, 50, 51, 149])
@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 50), 0), ((4, 50), 1), ((200,), 0), ((2, 500), 1)]
)
def test_partial_overlap(f, shift, shape, axis):
    n = int(np.prod(shape))
    for first, second in ((slice(n), slice(shift, n + shift)), (slice(shift, n + shift), slice(n))):
        memory = numbers((n + shift,), np.float64)
        x, out = memory[first].reshape(shape), memory[second].reshape(shape)
        expected = f(x.copy(), axis=axis)
        f(x, axis=axis, out=out)
        np.testing.assert_array_equal(out, expected)


def test_overlap_of_other_strides(f):
    square = numbers((40, 40))
    for x, out in (
        (lambda m: m, lambda m: m.T),
        (lambda m: m.T, lambda m: m),
        (lambda m: m, lambda m: m[::-1]),
        (lambda m: m, lambda m: m[:, ::-1]),
        (lambda m: np.broadcast_to(m[0], m.shape), lambda m: m),
    ):
        for axis in (0, 1):
            memory = square.copy()
            expected = f(x(memory).copy(), axis=axis)
            f(x(memory), axis=axis, out=out(memory))
            np.testing.assert_array_equal(out(memory), expected)


def test_out_of_zero_dimensions(f):
    out = np.full((), 7.0)
    assert f(3.0, out=out) is out
    assert out == f(3.0)


def test_out_of_nothing(f):
    out = np.empty((2, 0))
    assert f(np.empty((2, 0)), out=out) is out


def make_out(kind):
    """Return an `out` that is wrong for numbers() in one way."""
    out = np.full(SHAPE, 7, np.float32)
    if kind == "read-only":
        out.flags.writeable = False
    return {
        "shape": out[:2],
        "broadcastable shape": out[None],
        "dtype": out.astype(np.int64),
        "complex": out.astype(np.complex64),
        "list": out.tolist(),
    }.get(kind, out)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("shape", ValueError, r"out has shape \(2, 4, 50\); allowed is \(3, 4, 50\)"),
        ("broadcastable shape", ValueError, r"out has shape \(1, 3, 4, 50\); allowed"),
        ("dtype", TypeError, r"out has dtype int64; allowed is float32"),
        ("complex", TypeError, r"out has dtype complex64; allowed is float32"),
        ("read-only", ValueError, r"out is read-only; allowed is a writable array"),
        ("list", TypeError, r"out is a list; allowed is a numpy\.ndarray"),
    ],
)
def test_a_wrong_out_is_not_written(f, kind, error, message):
    out = make_out(kind)
    with pytest.raises(error, match=message):
        f(numbers(), out=out)
    assert (np.asarray(out) == 7).all()


@pytest.mark.parametrize(
    "options",
    [{"axis": 5}, {"temperature": -1}, {"where": [1]}, {"where": np.ones(49, bool)}],
    ids=str,
)
def test_errors_leave_out_alone(f, options):
    out = np.full(SHAPE, 7, np.float32)
    with pytest.raises((TypeError, ValueError)):
        f(numbers(), out=out, **options)
    assert (out == 7).all()


def test_integers_need_a_float64_out(f):
    with pytest.raises(TypeError, match="out has dtype int64; allowed is float64"):
        f(np.arange(4, dtype=np.int64), out=np.zeros(4, np.int64))
    out = np.zeros(4)
    np.testing.assert_array_equal(f(np.arange(4), out=out), f(np.arange(4.0)))


def test_logsumexp_has_no_out(impl):
    with pytest.raises(TypeError):
        impl.logsumexp(numbers(), out=np.zeros((3, 4)))
