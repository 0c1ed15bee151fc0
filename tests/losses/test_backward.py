"""The gradients of softmax and log_softmax: oracle, differences, bounds, layouts, errors."""

import mpmath
import numpy as np
import pytest

from fastsoftmax import set_workers
from tests.arrays import LAYOUTS

INF = np.inf
PAIRS = {"softmax_backward": "softmax", "log_softmax_backward": "log_softmax"}


@pytest.fixture(params=PAIRS)
def name(request):
    return request.param


@pytest.fixture
def back(impl, name):
    """softmax_backward or log_softmax_backward of an implementation."""
    return getattr(impl, name)


@pytest.fixture
def forward(impl, name):
    return getattr(impl, PAIRS[name])


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def numbers(shape, dtype=np.float64, seed=0):
    """Return numbers from -4 to 4 without a pattern, exact in every dtype with 8 bits."""
    n = int(np.prod(shape))
    return (((np.arange(n) + seed) * 97 % 127 - 63) / 16).astype(dtype).reshape(shape)


def assert_same(a, b):
    assert type(a) is type(b)
    np.testing.assert_array_equal(a, b, strict=True)


def allowed(name, g, p, log_p, sums, u):
    """Return the error the docstrings allow at T = 1, given sum(|g| p) and the rest in float64."""
    if name == "softmax_backward":
        return 4 * u * (np.abs(g) + sums[0]) * p
    return 2 * u * (np.abs(g) + (1 + np.abs(log_p)) * p * abs(sums[1]) + p * sums[2])


@pytest.mark.parametrize("kind", ["ordinary", "confident", "uniform"])
@pytest.mark.parametrize("n", [1, 2, 33, 150])
def test_bounds(impl, back, forward, name, dtype, kind, n):
    x = {"ordinary": 2 * numbers(n), "confident": numbers(n) * 9, "uniform": np.zeros(n)}[kind]
    g = numbers(n, dtype, seed=5)
    q = forward(x.astype(dtype))
    u = np.finfo(dtype).eps / 2
    tiny = float(np.finfo(dtype).tiny)
    with mpmath.workdps(40):
        lift = np.frompyfunc(lambda v: mpmath.mpf(float(v)), 1, 1)
        exact_g, exact_q = lift(g), lift(q)
        if name == "softmax_backward":
            want = (exact_g - mpmath.fsum(exact_g * exact_q)) * exact_q
            p, log_p = q, None
        else:
            p = np.frompyfunc(mpmath.exp, 1, 1)(exact_q)
            want = exact_g - p * mpmath.fsum(exact_g)
            p, log_p = p.astype(np.float64), q
        wide = g.astype(np.float64)
        sums = (abs(wide) * p).sum(), wide.sum(), abs(wide).sum()
        error = np.abs(back(g, q) - want).astype(np.float64)
    assert (error <= allowed(name, wide, p, log_p, sums, u) + tiny).all()


@pytest.mark.parametrize("shape", [(5,), (3, 40), (4, 4100), (2, 3, 33), (64, 1)])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3])
def test_oracle(back, forward, reference, name, dtype, shape, temperature):
    g, q = numbers(shape, dtype, seed=9), forward(numbers(shape, dtype), temperature=temperature)
    result = back(g, q, temperature=temperature)
    want = getattr(reference, name)(
        g.astype(np.float64), q.astype(np.float64), temperature=temperature
    )
    assert result.shape == shape
    assert result.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(result, want, rtol=10 * eps, atol=40 * eps)


def test_float64_sums_that_cancel(back, forward, name):
    """Plain sums of float64 would be off by 0.5 here; the lanes keep most of what they lose."""
    n = 4096
    g = np.full(n, 1e-3)
    g[[5, 2005, 72, 3009]] = 1e15, -1e15, 3e15, -3e15
    result = back(g, forward(np.zeros(n)))[0]
    total = (g[0] - result * (n if name == "softmax_backward" else 1)) * n
    assert total == pytest.approx((n - 4) * 1e-3, abs=0.02)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("axis", [-1, 0, (0, 1), None])
def test_finite_differences(back, forward, temperature, axis):
    x, g = numbers((3, 4)) / 4, numbers((3, 4), seed=3)
    result = back(g, forward(x, axis, temperature=temperature), axis, temperature=temperature)
    h = 2.0**-17
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        slope = forward(up, axis, temperature=temperature)
        slope = (g * (slope - forward(down, axis, temperature=temperature))).sum() / (2 * h)
        assert slope == pytest.approx(result[i], abs=1e-8)


def test_torch(back, forward, name, dtype):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, g = numbers((4, 50), dtype), numbers((4, 50), dtype, seed=1)
    tensor = torch.tensor(x, requires_grad=True)
    getattr(torch, PAIRS[name])(tensor, -1).backward(torch.tensor(g))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(back(g, forward(x)), tensor.grad.numpy(), rtol=0, atol=100 * eps)


def test_cross_entropy_is_the_chain(impl, dtype):
    """Through log_softmax_backward, with minus one at the target."""
    x = numbers((6, 70), dtype)
    g = np.zeros_like(x)
    g[np.arange(6), np.arange(6)] = -1
    chain = impl.log_softmax_backward(g, impl.log_softmax(x))
    grad = impl.cross_entropy_with_grad(x, np.arange(6), reduction="sum").grad
    np.testing.assert_allclose(grad, chain, rtol=0, atol=20 * np.finfo(dtype).eps)


# ---- temperatures and special values -------------------------------------------------------------


def test_temperature_for_each_row(back, forward, dtype):
    t = np.array([1, 0.5, 0, INF, 3])
    g, q = numbers((5, 40), dtype), forward(numbers((5, 40), dtype), temperature=t)
    result = back(g, q, temperature=t)
    for i in range(5):
        np.testing.assert_array_equal(result[i], back(g[i], q[i], temperature=t[i]))
    assert (result[[2, 3]] == 0).all()
    assert (result[[0, 1, 4]] != 0).any(axis=1).all()


def test_inverse_temperature_is_held_at_the_largest_number(back, forward):
    q = forward([0.0, 0.0])
    result = back([1e-300, 0.0], q, temperature=5e-324)
    assert np.isfinite(result).all()
    assert result[0] > 0


def test_minus_inf(impl, dtype):
    x = np.array([1, -INF, 2, 0.5], dtype)
    g = np.array([1, 2, 3, 4], dtype)
    assert impl.softmax_backward(g, impl.softmax(x))[1] == 0
    result = impl.log_softmax_backward(g, impl.log_softmax(x))
    assert result[1] == 2
    assert np.isfinite(result).all()


def test_log_probs_above_zero_count_as_zero(impl, dtype):
    g = np.array([1, 2], dtype)
    want = impl.log_softmax_backward(g, np.array([0, -INF], dtype))
    for above in (1e-7, 5, 100, 1e30, INF):
        np.testing.assert_array_equal(
            impl.log_softmax_backward(g, np.array([above, -INF], dtype)), want
        )


@pytest.mark.parametrize("n", [3, 33, 2100])
@pytest.mark.parametrize("where", ["g", "q"])
def test_nan_stays_in_its_row(back, forward, dtype, n, where):
    g, q = numbers((3, n), dtype), forward(numbers((3, n), dtype))
    want = back(g, q)
    (g if where == "g" else q)[1, n - 1] = np.nan
    result = back(g, q)
    np.testing.assert_array_equal(result[[0, 2]], want[[0, 2]])
    assert np.isnan(result[1, n - 1])


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_empty(back, dtype, shape):
    x = np.empty(shape, dtype)
    for axis in (0, -1, None):
        assert_same(back(x, x, axis), x)


# ---- arrays --------------------------------------------------------------------------------------


SHAPE = (3, 4, 50)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axis", [-1, 1, (0, 2)])
def test_a_layout_changes_no_bit(back, forward, layout, dtype, axis):
    change = LAYOUTS[layout]
    g, q = numbers(SHAPE, dtype), forward(numbers(SHAPE, dtype, seed=1), axis)
    want = back(g, q, axis)
    assert want.dtype == dtype
    assert want.flags.c_contiguous
    for a, b in ((change(g), q), (g, change(q)), (change(g), change(q))):
        before = a.tobytes(), b.tobytes()
        assert_same(back(a, b, axis), want)
        out = np.zeros_like(g)
        assert back(a, b, axis, out=out) is out
        np.testing.assert_array_equal(out, want)
        assert (a.tobytes(), b.tobytes()) == before
        for place in (0, 1):
            pair = [a.copy(), b.copy()]
            if pair[place].dtype.isnative:
                assert back(*pair, axis, out=pair[place]) is pair[place]
                np.testing.assert_array_equal(pair[place], want)


def test_axis_agrees_with_a_last_axis(back, forward):
    g, q = numbers(SHAPE), forward(numbers(SHAPE, seed=1), 1)
    last = back(*(np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (g, q)))
    np.testing.assert_array_equal(back(g, q, axis=1), np.moveaxis(last, -1, 1))


@pytest.mark.parametrize("shift", [-50, -7, 7, 50])
@pytest.mark.parametrize("over", ["g", "q"])
@pytest.mark.parametrize("axis", [0, 1])
def test_partial_overlap(back, forward, shift, over, axis):
    memory = numbers((300,))
    a = memory[50:250].reshape(4, 50)
    b = forward(numbers((4, 50), seed=1), axis)
    if over == "q":
        a[...] = b
        b = numbers((4, 50))
    want = back(*((a, b) if over == "g" else (b, a)), axis)
    out = memory[50 + shift : 250 + shift].reshape(4, 50)
    back(*((a, b) if over == "g" else (b, a)), axis, out=out)
    np.testing.assert_array_equal(out, want)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1000, 2333, 3_000_000])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_result_beyond_the_caches(compiled, n, workers):
    # It goes around them, as it does not in place: the same bits, and nothing beside it is written.
    rows = 3_000_000 // n
    g, p = numbers((rows, n), np.float32), numbers((rows, n), np.float32, 50)
    want = g.copy()
    compiled.softmax_backward(want, p, temperature=0.5, out=want)
    for start in (0, 3, 16):
        around = np.full(rows * n + 100, 77, np.float32)
        y = around[start : start + rows * n].reshape(rows, n)
        with set_workers(workers):
            compiled.softmax_backward(g, p, temperature=0.5, out=y)
        np.testing.assert_array_equal(y, want)
        y[:] = 77
        assert (around == 77).all()


def test_a_gradient_of_another_dtype(back, forward):
    q = forward(numbers((3, 40), np.float32))
    g = numbers((3, 40))
    assert_same(back(g, q), back(g.astype(np.float32), q))
    assert_same(back(g.astype(np.int64), q), back(g.astype(np.int64).astype(np.float32), q))
    np.testing.assert_array_equal(np.isnan(back(np.full((3, 40), 1e300), q)), True)


def test_lists_and_scalars(impl):
    assert_same(impl.softmax_backward([1, 0], [0.5, 0.5]), np.array([0.25, -0.25]))
    assert_same(impl.softmax_backward(3, 1), np.float64(0))
    assert_same(impl.log_softmax_backward(3.0, 0.0), np.float64(0))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({0: np.zeros((3, 4))}, ValueError, r"grad_output has shape \(3, 4\); allowed is that of"),
        ({0: np.ma.zeros((3, 5))}, TypeError, r"grad_output is a masked array"),
        ({1: np.ma.zeros((3, 5))}, TypeError, r"probs is a masked array"),
        ({1: np.zeros((3, 5), complex)}, TypeError, r"probs has dtype complex128"),
        ({"axis": 2}, np.exceptions.AxisError, "axis"),
        ({"axis": 0.5}, TypeError, r"axis is 0\.5"),
        ({"temperature": -1.0}, ValueError, r"temperature is -1\.0; allowed is 0 to inf"),
        ({"temperature": [1.0, 2.0]}, ValueError, r"temperature has shape \(2,\)"),
        ({"out": np.full((3, 4), 7.0)}, ValueError, r"out has shape \(3, 4\); allowed is \(3, 5"),
        ({"out": np.full((3, 5), 7, "i8")}, TypeError, r"out has dtype int64; allowed is float"),
        ({"out": np.broadcast_to(7.0, (3, 5))}, ValueError, r"out is read-only"),
    ],
)
def test_wrong_arguments(back, changes, error, message):
    out = changes.get("out", np.full((3, 5), 7.0))
    args = [changes.get(i, np.ones((3, 5))) for i in (0, 1)]
    options = {k: v for k, v in changes.items() if isinstance(k, str)} | {"out": out}
    with pytest.raises(error, match=message.replace("probs", "(log_)?probs")):
        back(*args, **options)
    assert (out == 7).all()
