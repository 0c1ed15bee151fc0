"""top_k: shapes, layouts, and every wrong argument."""

import itertools

import numpy as np
import pytest

from fastsoftmax import TopK
from tests.selection.rows import MODES, best_first, row


@pytest.mark.slow_reference
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("axis", [-3, -2, -1, 0, 1, 2, np.int64(1)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64", "int16"])
def test_every_axis(impl, dtype, axis, mode):
    x = row("ties", 3 * 40 * 5, dtype).reshape(3, 40, 5)
    n = x.shape[axis]
    rows = np.moveaxis(x, axis, -1)
    order = np.apply_along_axis(lambda r: best_first(r, mode), -1, rows.astype(np.float64))
    for k, in_order in itertools.product({0, 1, n // 2, n}, (True, False)):
        got = impl.top_k(x, k, axis=axis, mode=mode, sorted=in_order)
        want = order[..., :k] if in_order else np.sort(order[..., :k], axis=-1)
        np.testing.assert_array_equal(np.moveaxis(got.indices, axis, -1), want)
        assert got.values.tobytes() == np.take_along_axis(x, got.indices, axis).tobytes()
        assert got.values.dtype == x.dtype


def layouts(x):
    """Return `x` (2-d) in every layout an array can have, by name."""
    misaligned = np.empty(x.nbytes + 1, dtype=np.uint8)[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x
    every_other = np.zeros((x.shape[0] * 2, x.shape[1] * 3), dtype=x.dtype)
    every_other[::2, ::3] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "contiguous": x,
        "Fortran": np.asfortranarray(x),
        "strided": every_other[::2, ::3],
        "negative": x[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "misaligned": misaligned,
        "byte-swapped": x.astype(x.dtype.newbyteorder()),
        "subclass": x.view(type("Subclass", (np.ndarray,), {})),
    }


@pytest.mark.slow_reference
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", layouts(np.zeros((1, 1))))
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint16"])
def test_layouts(impl, dtype, layout, mode):
    x = row("ties", 3 * 100, dtype).reshape(3, 100)
    same = layouts(x)[layout]
    for axis in (0, 1):
        for k in (1, 3):
            want = impl.top_k(x, k, axis=axis, mode=mode)
            got = impl.top_k(same, k, axis=axis, mode=mode)
            assert type(got.values) is type(got.indices) is np.ndarray
            assert got.values.dtype == x.dtype
            np.testing.assert_array_equal(got.indices, want.indices)
            np.testing.assert_array_equal(got.values, want.values)
    np.testing.assert_array_equal(same, x)  # the input is never written


def test_broadcast_rows(impl):
    x = np.broadcast_to(row("random", 200), (4, 200))
    np.testing.assert_array_equal(
        impl.top_k(x, 7).indices, np.tile(best_first(x[0], "largest")[:7], (4, 1))
    )
    constant = np.broadcast_to(np.float32(3), (4, 200))
    assert impl.top_k(constant, 2).indices.tolist() == [[0, 1]] * 4


@pytest.mark.parametrize(
    ("shape", "k", "axis", "result"),
    [
        ((0,), 0, -1, (0,)),
        ((3, 0), 0, 1, (3, 0)),
        ((0, 5), 2, 1, (0, 2)),
        ((0, 5), 0, 0, (0, 5)),
        ((2, 0, 5), 3, -1, (2, 0, 3)),
        ((4, 5), 0, -1, (4, 0)),
        ((4, 5), 0, 0, (0, 5)),
        ((4, 1), 1, -1, (4, 1)),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_empty(impl, dtype, shape, k, axis, result):
    got = impl.top_k(np.zeros(shape, dtype=dtype), k, axis=axis)
    assert got.values.shape == got.indices.shape == result
    assert got.values.dtype == dtype
    assert got.indices.dtype == np.int64


def test_named_tuple(impl):
    got = impl.top_k(np.array([1.0, 2.0]), 1)
    assert type(got) is TopK
    assert got._fields == ("values", "indices")


@pytest.mark.parametrize("k", [-1, 4, 10**30])
def test_k_out_of_range(impl, k):
    for dtype in ("float32", "int8"):
        with pytest.raises(ValueError, match=rf"k is {k}; allowed is 0 to 3"):
            impl.top_k(np.zeros((2, 3), dtype=dtype), k)
    with pytest.raises(ValueError, match="allowed is 0 to 0"):
        impl.top_k(np.zeros((2, 0)), 1)


@pytest.mark.parametrize("k", [1.0, "1", None, np.float64(2), [1, 2], True, np.bool_(True)])
def test_k_no_integer(impl, k):
    with pytest.raises(TypeError, match=r"^k is .*allowed"):
        impl.top_k(np.zeros(3), k)


@pytest.mark.parametrize("k", [np.int8(1), np.uint64(1), np.array(1)])
def test_k_as_any_integer(impl, k):
    assert impl.top_k([1.0, 3.0, 2.0], k).indices.tolist() == [1]


@pytest.mark.parametrize("mode", ["max", "", "LARGEST", None, 1])
def test_unknown_mode(impl, mode):
    with pytest.raises(ValueError, match=r"^mode is .*'largest', 'smallest'"):
        impl.top_k(np.zeros(3), 1, mode=mode)


@pytest.mark.parametrize(("shape", "axis"), [((3,), 1), ((3,), -2), ((2, 3), 2), ((), 1)])
def test_axis_out_of_range(impl, shape, axis):
    with pytest.raises(np.exceptions.AxisError):
        impl.top_k(np.zeros(shape), 1, axis=axis)


@pytest.mark.parametrize("axis", [None, (0,), 1.0, "0"])
def test_axis_no_integer(impl, axis):
    with pytest.raises(TypeError, match="axis"):
        impl.top_k(np.zeros((2, 3)), 1, axis=axis)


def test_k_has_a_name_and_the_rest_is_not_positional(impl):
    assert impl.top_k(np.zeros(3), k=1).indices == [0]
    with pytest.raises(TypeError):
        impl.top_k(np.zeros(3), 1, -1)
