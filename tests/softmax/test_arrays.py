"""Arrays in, arrays out: dtypes, layouts, ``axis``, ``where`` and ``out`` of the softmax family."""

import numpy as np
import pytest

from tests.arrays import LAYOUTS, bfloat16
from tests.softmax.numbers import SHAPE, numbers


def assert_same(a, b):
    """Assert that two results have the same type, shape, dtype and bits."""
    assert type(a) is type(b)
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_keep_their_dtype(g, dtype):
    assert g(numbers(dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("half", [lambda: np.dtype(np.float16), bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_halves_are_the_float32_result_rounded_once(impl, g, half, temperature):
    half = half()
    options = {} if g == impl.logsumexp else {"temperature": temperature}
    x = numbers().astype(half)
    y = g(x, **options)
    assert y.dtype == half
    np.testing.assert_array_equal(y, g(x.astype(np.float32), **options).astype(half))
    if options:
        out = np.empty_like(x)
        assert g(x, out=out, **options) is out
        np.testing.assert_array_equal(out, y)


def test_half_logsumexp_overflows_without_a_warning(impl):
    assert impl.logsumexp(np.full(1000, 65504, np.float16)) == 65504
    assert impl.log_softmax(np.array([65504, -65504], np.float16))[1] == -np.inf


@pytest.mark.parametrize("dtype", "?bBhHiIlLqQ")
def test_integers_and_bools_give_float64(g, dtype):
    x = (numbers() > 0).astype(dtype)
    assert_same(g(x), g(x.astype(np.float64)))


def test_lists_and_scalars(impl, g):
    assert_same(g([[1, 2], [3, 5]]), g(np.array([[1.0, 2.0], [3.0, 5.0]])))
    assert_same(g((1.5, True)), g(np.array([1.5, 1.0])))
    for scalar in (2, 2.0, np.float64(2), np.array(2.0), True):
        y = g(scalar)
        assert isinstance(y, np.float64)
        expected = {impl.softmax: 1, impl.log_softmax: 0, impl.logsumexp: scalar}[g]
        assert y == expected
        for axis in (0, -1, None):
            assert g(scalar, axis=axis) == y
    assert isinstance(g(np.float32(2)), np.float32)


def test_zero_dimensional_where(impl):
    assert impl.softmax(2.0, where=False) == 0
    assert impl.log_softmax(2.0, where=False) == -np.inf
    assert impl.logsumexp(2.0, where=False) == -np.inf
    assert impl.softmax(2.0, where=True, temperature=0.5) == 1


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(3, complex),
        np.zeros(3, np.complex64),
        np.zeros(3, object),
        np.array(["a", "b"]),
        np.array([b"a"]),
        np.zeros(3, "M8[s]"),
        np.zeros(3, "m8[s]"),
        np.zeros(3, [("a", "f4")]),
        np.zeros(3, "V2"),
        pytest.param(
            np.zeros(3, np.longdouble),
            marks=pytest.mark.skipif(
                np.finfo(np.longdouble).eps == np.finfo(float).eps, reason="it is float64 here"
            ),
        ),
    ],
    ids=lambda x: x.dtype.str,
)
def test_rejected_dtypes_are_named(g, x):
    with pytest.raises(TypeError) as error:
        g(x)
    message = str(error.value)
    assert message.startswith(f"x has dtype {x.dtype}; allowed are float16, bfloat16, float32")


def test_other_array_providers(g):
    class Provider:
        def __array__(self, dtype=None, copy=None):
            return numbers()

    assert_same(g(Provider()), g(numbers()))
    assert_same(g(memoryview(numbers())), g(numbers()))


def test_torch_tensors(g):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert_same(g(torch.from_numpy(numbers())), g(numbers()))
    assert_same(g(torch.from_numpy(numbers()).transpose(0, 2)), g(numbers().transpose(2, 1, 0)))


# ---- layouts -------------------------------------------------------------------------------------


@pytest.mark.slow_reference
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_no_bit(g, layout):
    for dtype in (np.float16, np.float32, np.float64, np.int32):
        x = numbers(dtype=dtype)
        view = LAYOUTS[layout](x)
        np.testing.assert_array_equal(view, x)
        before = view.tobytes()
        for axis in (-1, 0, (0, 2), None):
            assert_same(g(view, axis=axis), g(x, axis=axis))
        assert view.tobytes() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_broadcast_input(g, dtype):
    row = numbers((50,), dtype)
    for x in (np.broadcast_to(row, (3, 50)), np.broadcast_to(row[:, None], (50, 4))):
        assert 0 in x.strides
        for axis in (0, 1, None):
            assert_same(g(x, axis=axis), g(x.copy(), axis=axis))
    constant = np.broadcast_to(dtype(3), (5, 7))
    assert_same(g(constant), g(constant.copy()))


def test_results_are_contiguous_and_new(g):
    x = numbers()
    for axis in (0, 1, 2, None):
        y = np.asarray(g(x, axis=axis))
        assert y.flags.c_contiguous
        assert y.flags.writeable
        assert not np.shares_memory(y, x)


# ---- axis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axis", [0, 1, 2, -1, -3, (0,), (0, 1), (2, 0), (-1, 1), (0, 1, 2), None, np.int64(1)]
)
def test_axis(impl, axis):
    """Against the same numbers moved to one last axis by hand."""
    x = numbers(dtype=np.float64)
    axes = tuple(range(3)) if axis is None else tuple(np.atleast_1d(axis) % 3)
    kept = tuple(a for a in range(3) if a not in axes)
    order = (*kept, *sorted(axes))
    moved = x.transpose(order)
    rows = np.ascontiguousarray(moved.reshape(*(x.shape[a] for a in kept), -1))
    for f in (impl.softmax, impl.log_softmax):
        expected = f(rows).reshape(moved.shape).transpose(np.argsort(order))
        assert_same(f(x, axis=axis), np.ascontiguousarray(expected))
    assert_same(impl.logsumexp(x, axis=axis), impl.logsumexp(rows))
    keep = impl.logsumexp(x, axis=axis, keepdims=True)
    assert keep.shape == tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    np.testing.assert_array_equal(keep.ravel(), np.ravel(impl.logsumexp(rows)))


def test_axis_by_position(impl):
    x = numbers()
    assert_same(impl.softmax(x, 0), impl.softmax(x, axis=0))
    assert_same(impl.logsumexp(x, 0), impl.logsumexp(x, axis=0))


@pytest.mark.parametrize("axis", [3, -4, (0, 3), 10**6])
def test_axis_out_of_range(g, axis):
    with pytest.raises(np.exceptions.AxisError, match="axis"):
        g(numbers(), axis=axis)
    with pytest.raises(np.exceptions.AxisError):
        g(1.0, axis=1)


@pytest.mark.parametrize("axis", [(0, 0), (1, -2)])
def test_duplicate_axis(g, axis):
    with pytest.raises(ValueError, match=r"(repeated|duplicate).*axis"):
        g(numbers(), axis=axis)


@pytest.mark.parametrize("axis", [1.0, "0", (0, 1.5)])
def test_axis_of_a_wrong_type(g, axis):
    with pytest.raises(TypeError, match=r"axis is .*; allowed are int, tuple of ints and None"):
        g(numbers(), axis=axis)


def test_options_are_by_keyword_only(impl):
    for f in (impl.softmax, impl.log_softmax, impl.logsumexp):
        with pytest.raises(TypeError):
            f(numbers(), -1, 1.0)


@pytest.mark.parametrize(
    ("shape", "axis"), [((0, 3), 0), ((3, 0), 0), ((2, 0, 3), (1, 2)), ((0,), None), ((0, 3), 1)]
)
def test_empty_arrays_along_any_axis(impl, shape, axis):
    x = np.empty(shape, np.float32)
    assert_same(impl.softmax(x, axis=axis), x)
    assert_same(impl.log_softmax(x, axis=axis), x)
    lse = impl.logsumexp(x, axis=axis)
    assert lse.shape == np.max(x, axis=axis, initial=0).shape
    assert lse.dtype == np.float32
    assert np.isneginf(lse).all()


# ---- where ---------------------------------------------------------------------------------------


@pytest.mark.slow_reference
@pytest.mark.parametrize("shape", [(50,), (4, 1), (3, 1, 1), (1, 4, 50), SHAPE, ()])
@pytest.mark.parametrize("axis", [-1, 0, (0, 2)])
def test_where_broadcasts(g, shape, axis):
    where = numbers(shape) > -4
    full = np.broadcast_to(where, SHAPE)
    for order in ("C", "F"):
        assert_same(
            g(numbers(), axis=axis, where=where), g(numbers(), axis=axis, where=full.copy(order))
        )
    assert_same(g(numbers(), axis=axis, where=where.tolist()), g(numbers(), axis=axis, where=full))


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        (np.ones(49, bool), ValueError, r"where has shape \(49,\).*x's shape \(3, 4, 50\)"),
        (np.ones((1, *SHAPE), bool), ValueError, r"where has shape \(1, 3, 4, 50\)"),
        (np.ones(50), TypeError, r"where has dtype float64; allowed is bool"),
        (1, TypeError, r"where has dtype int64; allowed is bool"),
    ],
)
def test_wrong_where(g, where, error, message):
    with pytest.raises(error, match=message):
        g(numbers(), where=where)


# ---- the input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 5000])
@pytest.mark.parametrize("temperature", [1, 0.5, 0, np.inf])
def test_the_input_is_never_written(impl, n, temperature):
    x = numbers((2, n))
    where = x > -4
    t = np.full(2, temperature)
    before = x.tobytes(), where.tobytes(), t.tobytes()
    for f in (impl.softmax, impl.log_softmax):
        f(x, where=where, temperature=t)
        f(x, temperature=t)
    impl.logsumexp(x, where=where)
    assert (x.tobytes(), where.tobytes(), t.tobytes()) == before
