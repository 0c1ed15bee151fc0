"""Arrays in, arrays out for cross entropy: dtypes, layouts, ``out``, and every wrong argument."""

import numpy as np
import pytest

from tests.arrays import LAYOUTS, bfloat16, read_only

SHAPE = (3, 20, 5)  # the classes are in the middle
ROWS = (3, 5)


def numbers(dtype=np.float32, shape=SHAPE):
    """Return numbers from -8 to 8 without a pattern, exact in every dtype with 8 bits."""
    n = int(np.prod(shape))
    return ((np.arange(n) * 97 % 127 - 63) / 8).astype(dtype).reshape(shape)


def classes(dtype=np.int64):
    return (np.arange(15) * 7 % 20).astype(dtype).reshape(ROWS)


def labels(dtype=np.float32):
    return (numbers(dtype) > 3) / dtype(16)


def assert_same(a, b):
    """Assert that two pairs of loss and gradient have the same types, shapes, dtypes and bits."""
    for p, q in zip(a, b, strict=True):
        assert type(p) is type(q)
        assert p.dtype == q.dtype
        np.testing.assert_array_equal(p, q, strict=True)


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [lambda: np.dtype(np.float16), bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("t", [classes(), labels()], ids=["classes", "probabilities"])
def test_halves_are_the_float32_result_rounded_once(impl, half, reduction, t):
    half = half()
    x = numbers(half)
    options = {"axis": 1, "reduction": reduction}
    loss, grad = impl.cross_entropy_with_grad(x, t, **options)
    assert grad.dtype == half
    assert loss.dtype == np.float32
    want = impl.cross_entropy_with_grad(x.astype(np.float32), t, **options)
    np.testing.assert_array_equal(grad, want.grad.astype(half))
    np.testing.assert_array_equal(loss, want.loss)
    out = np.empty_like(x)
    assert impl.cross_entropy_with_grad(x, t, out=out, **options).grad is out
    np.testing.assert_array_equal(out, grad)


def test_a_loss_overflows_without_a_warning(impl):
    x = np.array([[0, 65504]] * 3, np.float16)
    assert impl.cross_entropy(x, [0, 0, 0], reduction="sum") == 3 * 65504  # in float32
    x = np.array([[0, 3e38]] * 3, np.float32)
    assert impl.cross_entropy(x, np.zeros(3, int), reduction="sum") == np.inf


@pytest.mark.parametrize("dtype", "bBhHiIlLqQ")
def test_integer_dtypes(impl, dtype):
    want = impl.cross_entropy_with_grad(numbers(), classes(), axis=1)
    assert_same(impl.cross_entropy_with_grad(numbers(), classes(dtype), axis=1), want)
    x = abs(numbers()).astype(dtype)
    want = impl.cross_entropy_with_grad(x.astype(np.float64), classes(), axis=1)
    assert_same(impl.cross_entropy_with_grad(x, classes(), axis=1), want)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_of_labels_and_weights(impl, dtype):
    w = np.arange(20) / 4
    want = impl.cross_entropy_with_grad(numbers(), labels(), axis=1, weight=w)
    got = impl.cross_entropy_with_grad(numbers(), labels(dtype), axis=1, weight=w.astype(dtype))
    assert_same(got, want)


def test_lists_and_scalars(impl):
    loss, grad = impl.cross_entropy_with_grad([[1, 2], [3, 5]], [0, 1], weight=[1, 2])
    want = impl.cross_entropy_with_grad(
        np.array([[1.0, 2], [3, 5]]), np.array([0, 1]), weight=np.array([1.0, 2])
    )
    assert_same((loss, grad), want)
    assert isinstance(impl.cross_entropy(np.float32(3), 0), np.float32)
    assert isinstance(impl.cross_entropy([0.0, 1.0], 1, reduction="none"), np.float64)
    loss, grad = impl.cross_entropy_with_grad(3.0, 1.0)
    assert loss == grad == 0
    assert np.shape(grad) == ()


def test_the_result_is_a_named_tuple(impl):
    result = impl.cross_entropy_with_grad(numbers(), classes(), axis=1)
    assert result._fields == ("loss", "grad")


# ---- layouts -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_layout_changes_no_bit(impl, layout, dtype):
    change = LAYOUTS[layout]
    for t in (classes(), labels(dtype)):
        want = impl.cross_entropy_with_grad(numbers(dtype), t, axis=1, reduction="none")
        x, view = change(numbers(dtype)), change(t)
        before = x.tobytes(), view.tobytes()
        assert_same(impl.cross_entropy_with_grad(x, view, axis=1, reduction="none"), want)
        assert (x.tobytes(), view.tobytes()) == before
        assert want.grad.flags.c_contiguous
    weight = np.arange(20.0)
    want = impl.cross_entropy_with_grad(numbers(dtype), classes(), axis=1, weight=weight)
    got = impl.cross_entropy_with_grad(numbers(dtype), classes(), axis=1, weight=change(weight))
    assert_same(got, want)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, np.int64(0)])
def test_axis(impl, axis):
    x = np.moveaxis(numbers(), 1, axis)
    got = impl.cross_entropy_with_grad(x, classes(), axis=axis)
    want = impl.cross_entropy_with_grad(numbers(), classes(), axis=1)
    assert got.loss == want.loss
    np.testing.assert_array_equal(got.grad, np.moveaxis(want.grad, 1, axis))


def test_pieces(impl):
    """Layouts that are copied piece by piece: slices of an axis, whole axes, rows above a piece."""
    if impl.NAME == "reference":
        pytest.skip("knows no pieces")
    for shape, axis in (((5, 40_000, 3), 1), ((90, 10, 7, 60), 1), ((3, 2, 70_000), 0)):
        x = numbers(shape=shape)
        rows = np.moveaxis(x, axis, -1)
        t = (np.arange(rows[..., 0].size) * 3 % shape[axis]).reshape(rows.shape[:-1])
        want = impl.cross_entropy_with_grad(np.ascontiguousarray(rows), t, reduction="none")
        got = impl.cross_entropy_with_grad(x, t, axis=axis, reduction="none")
        np.testing.assert_array_equal(got.loss, want.loss)
        np.testing.assert_array_equal(np.moveaxis(got.grad, axis, -1), want.grad)


# ---- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["fortran", "spaced", "swapped axes", "misaligned", "subclass"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axis", [1, -1])
def test_out_and_in_place(impl, layout, dtype, axis):
    x = np.moveaxis(numbers(dtype), 1, axis).copy()
    want = impl.cross_entropy_with_grad(x, classes(), axis=axis)
    for out in (np.zeros_like(x), LAYOUTS[layout](np.zeros_like(x)), np.flip(np.zeros_like(x))):
        result = impl.cross_entropy_with_grad(x, classes(), axis=axis, out=out)
        assert result.grad is out
        assert result.loss == want.loss
        np.testing.assert_array_equal(out, want.grad)
    for start in (x.copy(), LAYOUTS[layout](x)):
        result = impl.cross_entropy_with_grad(start, classes(), axis=axis, out=start)
        assert result.grad is start
        assert result.loss == want.loss
        np.testing.assert_array_equal(start, want.grad)


@pytest.mark.parametrize("e", [0.0, 0.1])
@pytest.mark.parametrize("n", [5, 33, 2100])
def test_in_place_with_labels(impl, e, n):
    x = numbers(shape=(4, n))
    q = (numbers(shape=(4, n)) > 2) / np.float32(8)
    for t in (np.array([0, 1, 2, 3]), q):
        want = impl.cross_entropy_with_grad(x, t, label_smoothing=e)
        y = x.copy()
        assert_same(impl.cross_entropy_with_grad(y, t, label_smoothing=e, out=y), want)
    r = q.copy()
    assert_same(impl.cross_entropy_with_grad(x, r, label_smoothing=e, out=r), want)


@pytest.mark.parametrize("shift", [-20, -7, -1, 1, 7, 20])
def test_partial_overlap(impl, shift):
    for axis, rows in ((1, 4), (0, 20)):
        memory = numbers(np.float64, (120,))
        x = memory[20:100].reshape(4, 20)
        t = np.arange(rows) % x.shape[axis]
        want = impl.cross_entropy_with_grad(x.copy(), t, axis=axis)
        out = memory[20 + shift : 100 + shift].reshape(4, 20)
        assert_same(impl.cross_entropy_with_grad(x, t, axis=axis, out=out), want)
    memory = numbers(np.float64, (20, 20))
    want = impl.cross_entropy_with_grad(memory.copy(), np.arange(20))
    assert_same(impl.cross_entropy_with_grad(memory, np.arange(20), out=memory.T), want)


def test_out_over_the_other_inputs(impl):
    x = numbers(np.float64, (6, 6))
    for name in ("targets", "weight"):
        memory = np.zeros(36, np.int64 if name == "targets" else np.float64)
        memory[:6] = [1, 2, 3, 4, 5, 0]
        args = {"targets": np.arange(6), "weight": None}
        args[name] = memory[:6].copy()
        want = impl.cross_entropy_with_grad(x, **args)
        args[name] = memory[:6]
        out = memory.view(np.float64).reshape(6, 6)
        assert_same(impl.cross_entropy_with_grad(x, **args, out=out), want)


def test_out_writes_nothing_beside_itself(impl):
    for n in (1, 5, 31, 32, 33, 100):
        big = np.full((5, n + 2), 7, np.float32)
        for x in (numbers(shape=(3, n)), numbers(shape=(n, 3)).T):
            impl.cross_entropy_with_grad(x, [0, 0, n - 1], out=big[1:4, 1:-1])
            big[1:4, 1:-1] = 7
            assert (big == 7).all()


# ---- wrong arguments -----------------------------------------------------------------------------

PROBABILITIES = np.full((3, 5, 20), 0.05)


@pytest.mark.parametrize("bad", [20, -1, -101, 2**40, -(2**63)])
@pytest.mark.parametrize("way", ["fast", "slow", "list"])
def test_a_target_out_of_range_is_named_before_anything_is_written(impl, bad, way):
    t = classes()
    t[1, 3] = bad
    x = np.ascontiguousarray(np.moveaxis(numbers(), 1, -1))
    if way == "slow":
        x = np.asfortranarray(x)
    out = np.full_like(x, 7)
    message = rf"^targets\[1, 3\] is {bad}; allowed are 0 to 19 and -100 \(ignore_index\)$"
    with pytest.raises(IndexError, match=message):
        impl.cross_entropy_with_grad(x, t.tolist() if way == "list" else t, out=out)
    with pytest.raises(IndexError, match=message):
        impl.cross_entropy(x, t)
    assert (out == 7).all()


def test_a_huge_unsigned_target_is_not_the_ignored_one(impl):
    t = np.array([0, 2**64 - 100], np.uint64)
    with pytest.raises(IndexError, match=r"^targets\[1\] is 18446744073709551516; allowed are 0"):
        impl.cross_entropy(numbers(shape=(2, 3)), t)
    with pytest.raises(IndexError, match=r"^targets\[\(\)\] is 3; allowed are 0 to 2 and -1 "):
        impl.cross_entropy(numbers(shape=(3,)), 3, ignore_index=-1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"targets": classes().T}, ValueError, r"targets has shape \(5, 3\); allowed is \(3, 5\)"),
        ({"targets": 1}, ValueError, r"targets has shape \(\); allowed is \(3, 5\) for int"),
        ({"targets": labels()}, ValueError, r"targets has dtype float32 and shape \(3, 20, 5\)"),
        (
            {"targets": classes(float)},
            ValueError,
            r"targets has dtype float64 and shape \(3, 5\); allowed are integers from 0 to 19",
        ),
        (
            {"targets": [["cat"] * 5] * 3},
            TypeError,
            r"targets has dtype <U3; allowed are integers from 0 to 19, or prob",
        ),
        ({"targets": classes() > 3}, TypeError, r"targets has dtype bool; allowed are integers"),
        ({"targets": classes(complex)}, TypeError, r"targets has dtype complex128; allowed are"),
        ({"targets": np.ma.array(classes())}, TypeError, r"targets is a masked array"),
        ({"targets": None}, TypeError, r"targets has dtype object"),
        ({"logits": np.ma.array(numbers())}, TypeError, r"logits is a masked array"),
        ({"logits": numbers(complex)}, TypeError, r"logits has dtype complex128"),
        ({"axis": 3}, np.exceptions.AxisError, "axis"),
        ({"axis": (1,)}, TypeError, r"axis is \(1,\); allowed is one int"),
        ({"axis": None}, TypeError, r"axis is None; allowed is one int"),
        ({"weight": np.ones(19)}, ValueError, r"weight has shape \(19,\); allowed is \(20,\)"),
        ({"weight": 1.0}, ValueError, r"weight has shape \(\); allowed is \(20,\)"),
        ({"weight": [1] * 19 + [-0.5]}, ValueError, r"weight\[19\] is -0\.5; allowed are finite"),
        ({"weight": np.full(20, -1.0)}, ValueError, r"weight\[0\] is -1\.0; allowed are finite"),
        ({"weight": [np.nan] * 20}, ValueError, r"weight\[0\] is nan; allowed are finite"),
        ({"weight": [1, np.inf] * 10}, ValueError, r"weight\[1\] is inf; allowed are finite"),
        ({"weight": ["a"] * 20}, TypeError, r"weight has dtype <U1"),
        ({"ignore_index": 1.5}, TypeError, r"ignore_index is 1\.5; allowed are integers"),
        ({"ignore_index": None}, TypeError, r"ignore_index is None; allowed are integers"),
        ({"ignore_index": 2**63}, ValueError, r"ignore_index is 9223372036854775808; allowed is"),
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing is -0\.1; allowed is 0 to 1"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing is 1\.5; allowed is 0 to 1"),
        ({"label_smoothing": np.nan}, ValueError, r"label_smoothing is nan; allowed is 0 to 1"),
        ({"label_smoothing": "0"}, TypeError, r"label_smoothing is '0'; allowed is a number"),
        ({"label_smoothing": None}, TypeError, r"label_smoothing is None; allowed is a number"),
        ({"label_smoothing": [0.1]}, TypeError, r"label_smoothing is \[0\.1\]; allowed is"),
        ({"reduction": "avg"}, ValueError, r"reduction is 'avg'; allowed are 'none', 'mean'"),
        ({"reduction": None}, ValueError, r"reduction is None; allowed are 'none', 'mean', 'sum'"),
        ({"targets": PROBABILITIES, "ignore_index": 0}, ValueError, r"ignore_index is 0; allowed"),
    ],
    ids=lambda v: str(next(iter(v))) if isinstance(v, dict) else "",
)
def test_wrong_arguments(impl, changes, error, message):
    x = np.ascontiguousarray(np.moveaxis(numbers(), 1, -1))
    out = np.full_like(x, 7)
    args = {"logits": x, "targets": classes()} | changes
    with pytest.raises(error, match=message):
        impl.cross_entropy_with_grad(**args, out=out)
    with pytest.raises(error, match=message):
        impl.cross_entropy(**args)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: x[:2], ValueError, r"out has shape \(2, 5, 20\); allowed is \(3, 5, 20\)"),
        (lambda x: x.astype(np.int64), TypeError, r"out has dtype int64; allowed is float32"),
        (read_only, ValueError, r"out is read-only; allowed is a writable array"),
        (lambda x: x.tolist(), TypeError, r"out is a list; allowed is a numpy\.ndarray"),
    ],
)
def test_a_wrong_out_is_not_written(impl, make, error, message):
    x = np.ascontiguousarray(np.moveaxis(numbers(), 1, -1))
    out = make(np.full_like(x, 7))
    with pytest.raises(error, match=message):
        impl.cross_entropy_with_grad(x, classes(), out=out)
    assert (np.asarray(out) == 7).all()
    with pytest.raises(TypeError):
        impl.cross_entropy(x, classes(), out=x)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        impl.cross_entropy_with_grad(x, classes(), out=x)
