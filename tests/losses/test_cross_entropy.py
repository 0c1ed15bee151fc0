"""Cross entropy and its gradient: against the oracle, torch, differences and exact numbers."""

import itertools
import math
import tracemalloc

import mpmath
import numpy as np
import pytest

from benchmarks import errors, exact
from tests.conftest import FUSED

INF = np.inf
NAN = np.nan
REDUCTIONS = ["none", "mean", "sum"]
IGNORE = -100


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def numbers(shape, dtype=np.float64):
    """Return numbers from -8 to 8 without a pattern, exact in every dtype with 8 bits."""
    n = int(np.prod(shape))
    return ((np.arange(n) * 97 % 127 - 63) / 8).astype(dtype).reshape(shape)


def classes(shape, n, ignored=False):
    """Return a target for each row; a third of them ignored if asked for."""
    t = np.arange(math.prod(shape)) * 5 % n
    return np.where(ignored & (np.arange(t.size) % 3 == 1), IGNORE, t).reshape(shape)


def labels(shape, axis, dtype=np.float64):
    """Return probabilities of classes along an axis, a tenth of them 0."""
    p = np.maximum(np.cos(np.arange(math.prod(shape)) * 1.7).reshape(shape) + 0.95, 0)
    return (p / p.sum(axis=axis, keepdims=True)).astype(dtype)


def weights(n):
    return 0.25 + np.arange(n) % 5 / 4


def both(impl, *args, **kwargs):
    """Return loss and gradient, and check that cross_entropy gives that loss."""
    result = impl.cross_entropy_with_grad(*args, **kwargs)
    loss = impl.cross_entropy(*args, **{k: v for k, v in kwargs.items() if k != "out"})
    assert type(loss) is type(result.loss)
    assert loss.dtype == result.loss.dtype == result.grad.dtype
    np.testing.assert_array_equal(loss, result.loss)
    return result


def near(result, want, cancels=False):
    """Assert that two losses and gradients are within the rounding of entries from -8 to 8."""
    eps = np.finfo(result.grad.dtype).eps
    np.testing.assert_allclose(result.loss, want.loss, rtol=14 * eps)
    scale = abs(want.grad).max(initial=0) if cancels else 0
    np.testing.assert_allclose(result.grad, want.grad, rtol=14 * eps, atol=14 * eps * scale)


# ---- against others ------------------------------------------------------------------------------

SHAPES = [
    ((7,), 0),
    ((1, 1), -1),
    ((4, 33), -1),
    ((2, 3, 40), -1),
    ((3, 64, 5), 1),
    ((2, 31, 3, 4), 1),
    ((70, 9), 0),
    ((5, 4100), 1),
]


@pytest.mark.slow_reference
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["classes", "some ignored", "probabilities"])
def test_oracle(impl, reference, dtype, shape, axis, reduction, kind):
    x = numbers(shape, dtype)
    n = shape[axis]
    if kind == "probabilities":
        t = labels(shape, axis, dtype)
    else:
        t = classes(np.delete(shape, axis), n, ignored=kind == "some ignored")
    for weight, e in itertools.product((None, weights(n)), (0.0, 0.1, 1.0)):
        options = {"weight": weight, "label_smoothing": e, "reduction": reduction, "axis": axis}
        result = both(impl, x, t, **options)
        want = reference.cross_entropy_with_grad(x.astype(np.float64), t, **options)
        assert result.grad.shape == x.shape
        assert result.grad.dtype == dtype
        assert np.shape(result.loss) == np.shape(want.loss)
        near(result, want, cancels=kind == "probabilities" or e > 0)


@pytest.mark.parametrize(("shape", "axis"), [((6, 33), 1), ((3, 9, 2, 2), 1), ((10,), 0)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["classes", "some ignored", "probabilities"])
def test_torch(impl, dtype, shape, axis, reduction, kind):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = numbers(shape, dtype)
    if kind == "probabilities":
        t = labels(shape, axis, dtype)
    else:
        t = classes(np.delete(shape, axis), shape[axis], ignored=kind == "some ignored")
    for weight, e in itertools.product((None, weights(shape[axis])), (0.0, 0.1)):
        options = {"label_smoothing": e, "reduction": reduction}
        result = both(impl, x, t, axis=axis, weight=weight, **options)
        logits = torch.tensor(x, requires_grad=True)
        w = None if weight is None else torch.tensor(weight, dtype=logits.dtype)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(t), w, **options)
        loss.sum().backward()
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(result.loss, loss.detach().numpy(), rtol=200 * eps)
        np.testing.assert_allclose(result.grad, logits.grad.numpy(), rtol=0, atol=200 * eps)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["classes", "some ignored", "probabilities"])
@pytest.mark.parametrize("e", [0.0, 0.2])
def test_the_gradient_is_that_of_the_loss(impl, reduction, kind, e):
    x = numbers((4, 6)) / 4
    t = labels((4, 6), -1) * 1.5 if kind == "probabilities" else classes((4,), 6, kind[0] == "s")
    options = {"weight": weights(6), "label_smoothing": e, "reduction": reduction}
    grad = impl.cross_entropy_with_grad(x, t, **options).grad
    h = 2.0**-17
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        slope = impl.cross_entropy(up, t, **options) - impl.cross_entropy(down, t, **options)
        assert slope / (2 * h) == pytest.approx(grad[i], abs=1e-9)


# ---- accuracy ------------------------------------------------------------------------------------

ROWS = {
    "ordinary": lambda n: 4 * np.cos(np.arange(n) ** 2 * 0.7),
    "wide": lambda n: -((np.arange(n) * 37) % n) * (100 / n),
    "constant": lambda n: np.full(n, -3.3),
    "one large": lambda n: np.where(np.arange(n) == n // 3, 14.3, -0.3),
    "two large": lambda n: np.where(np.arange(n) % (n // 2) == 1, 50.3, -0.3),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(
    ("n", "temperature"), [(4, 1), (33, 1), (150, 1), (2100, 1), (4, 0.7), (33, 0.3)]
)
def test_bounds(impl, dtype, kind, n, temperature):
    """As the docstrings state them, also where the target's probability is 1 but for 1e-30."""
    x = ROWS[kind](n).astype(dtype)
    u, tiny = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).tiny)
    true, top = exact.rows(x, temperature), int(x.argmax())
    p = true.softmax
    d = (x.astype(np.float64) - float(x[top])) / temperature
    slope = 1.1 if temperature == 1 or impl.NAME in FUSED else 3.1
    bound = (4 + slope * np.abs(d)) * u * p.high
    for t in {0, top, n - 1, int(x.argmin())}:
        loss, grad = both(impl, x, t, reduction="sum", temperature=temperature)
        want = exact.Pair(*(-part[t] for part in true.log_softmax))
        allowed = (2 if temperature == 1 else 4) * u * want.high + math.fsum(np.delete(bound, top))
        assert errors.absolute_error(loss, want) <= allowed
        assert loss > 0
        want = exact.Pair(p.high.copy(), p.low.copy())
        others = exact.total(exact.Pair(*(np.delete(part, t) for part in p)))
        want.high[t], want.low[t] = -others.high[0], -others.low[0]
        quotient = (np.longdouble(want.high) + want.low) / np.longdouble(temperature)
        want = exact.Pair(quotient.astype(float), (quotient - quotient.astype(float)).astype(float))
        allowed = bound + (0 if temperature == 1 else 2 * u * p.high)
        allowed[t] = math.fsum(np.delete(allowed, t))
        allowed = allowed / temperature + tiny * (abs(want.high) < tiny)
        assert (errors.absolute_error(grad, want) <= allowed).all(), t


@pytest.mark.parametrize("kind", ROWS)
def test_bounds_with_labels(impl, dtype, kind):
    n = 40
    x = ROWS[kind](n).astype(dtype)
    q = labels((n,), 0, dtype)
    u = np.finfo(dtype).eps / 2
    with mpmath.workdps(60):
        d = np.array([mpmath.mpf(float(v)) - mpmath.mpf(float(x.max())) for v in x])
        e = np.array([mpmath.exp(v) for v in d])
        p = e / mpmath.fsum(e)
        exact = [mpmath.mpf(float(v)) for v in q]
        total = mpmath.fsum(exact)
        want = total * p - exact
        bound = (4 + 1.1 * np.abs(d.astype(np.float64))) * u
        grad = impl.cross_entropy_with_grad(x, q, reduction="sum").grad
        assert (abs(grad.astype(np.float64) - want) <= bound * (total * p + exact)).all()


def test_a_confident_right_answer_still_has_a_loss_and_a_gradient(impl, dtype):
    loss, grad = both(impl, np.array([[0, 60, 0]], dtype), [1])
    assert loss == pytest.approx(2 * math.exp(-60), rel=1e-5)
    assert grad[0, 1] == pytest.approx(-2 * math.exp(-60), rel=1e-5)


def test_many_losses_add_up(impl):
    """One large loss among small ones, which float32 would swallow."""
    x = np.zeros((20_000 if impl.NAME != "reference" else 2000, 2), np.float32)
    x[:, 0] = 12
    x[0, 0] = -3e5
    small = math.log1p(math.exp(-12))
    want = 3e5 + small * (len(x) - 1)
    assert impl.cross_entropy(x, np.zeros(len(x), int), reduction="sum") == np.float32(want)
    wide = impl.cross_entropy(x.astype(np.float64), np.zeros(len(x), int))
    assert wide == pytest.approx(want / len(x), rel=1e-15)


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[NAN, 1, 2], [1, INF, 2], [-INF] * 3, [NAN, -INF, INF], [NAN] * 3])
@pytest.mark.parametrize("e", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, [1, 0, 2.0]])
def test_rows_without_probabilities_are_nan(impl, dtype, bad, e, weight):
    x = np.array([[1, 2, 3], bad, [3, 1, 0]], dtype)
    for t in ([0, 1, 2], labels((3, 3), -1)):
        options = {"label_smoothing": e, "weight": weight}
        loss, grad = both(impl, x, t, reduction="none", **options)
        np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
        assert np.isnan(grad[1]).all()
        assert np.isfinite(grad[[0, 2]]).all()
        assert np.isnan(impl.cross_entropy(x, t, **options))


@pytest.mark.parametrize("n", [1, 3, 40, 2100])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_row_of_one_bad_number(impl, dtype, n, bad):
    loss, grad = both(impl, np.full((1, n), bad, dtype), [0])
    assert np.isnan(loss)
    assert np.isnan(grad).all()


@pytest.mark.parametrize("n", [3, 40, 2100])
def test_minus_inf(impl, dtype, n):
    x = numbers((n,), dtype)
    x[1] = x[n - 1] = -INF
    loss, grad = both(impl, x, 0)
    assert np.isfinite(loss)
    assert grad[1] == grad[n - 1] == 0
    q = labels((n,), 0, dtype)
    q[1] = q[n - 1] = 0
    loss, grad = both(impl, x, q)
    assert np.isfinite(loss)
    assert grad[1] == grad[n - 1] == 0
    weight = np.ones(n)
    weight[[1, n - 1]] = 0
    loss, grad = both(impl, x, 0, weight=weight, label_smoothing=0.1)
    assert np.isfinite(loss)
    assert grad[1] == grad[n - 1] == 0
    assert both(impl, x, 1, weight=weight, reduction="sum").loss == 0


@pytest.mark.parametrize("n", [3, 40, 2100])
def test_an_infinite_loss_has_a_finite_gradient(impl, reference, dtype, n):
    x = numbers((n,), dtype)
    x[n - 1] = -INF
    for t, e in ((n - 1, 0.0), (0, 0.1), (n - 1, 0.1), (labels((n,), 0) + 0.1, 0.0)):
        result = both(impl, x, t, label_smoothing=e)
        assert result.loss == INF
        near(result, reference.cross_entropy_with_grad(x.astype(float), t, label_smoothing=e), True)
        assert result.grad[n - 1] < 0
        assert impl.cross_entropy(np.stack([x] * 3), np.stack([t] * 3), label_smoothing=e) == INF


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("e", [0.0, 0.1])
def test_ignored_rows_are_as_if_absent(impl, dtype, reduction, e):
    x = numbers((5, 30), dtype)
    x[1], x[3, 4] = NAN, INF
    options = {"reduction": reduction, "label_smoothing": e, "weight": weights(30)}
    loss, grad = both(impl, x, [3, -7, 29, -7, 0], ignore_index=-7, **options)
    rest, rest_grad = both(impl, x[[0, 2, 4]], [3, 29, 0], **options)
    np.testing.assert_array_equal(loss[[0, 2, 4]] if reduction == "none" else loss, rest)
    np.testing.assert_array_equal(grad[[0, 2, 4]], rest_grad)
    assert (grad[[1, 3]] == 0).all()
    if reduction == "none":
        assert (loss[[1, 3]] == 0).all()


def test_ignore_index_may_be_a_class(impl):
    loss, grad = both(impl, numbers((3, 4)), [2, 0, 2], ignore_index=2, reduction="none")
    assert (loss != 0).tolist() == [False, True, False]
    assert (grad != 0).any(axis=1).tolist() == [False, True, False]


def test_nothing_that_counts(impl, dtype):
    x = numbers((2, 3), dtype)
    loss, grad = both(impl, x, [IGNORE, IGNORE])
    assert np.isnan(loss)
    assert (grad == 0).all()
    assert both(impl, x, [IGNORE, IGNORE], reduction="sum").loss == 0
    loss, grad = both(impl, x, [1, 1], weight=[1, 0, 1])
    assert np.isnan(loss)
    assert np.isnan(grad).all()


def test_no_rows_and_no_classes(impl, dtype):
    none = np.zeros((0, 5), dtype)
    for t in (np.zeros(0, int), none):
        assert np.isnan(impl.cross_entropy(none, t))
        assert impl.cross_entropy(none, t, reduction="sum") == 0
        assert impl.cross_entropy(none, t, reduction="none").shape == (0,)
        assert both(impl, none, t).grad.shape == (0, 5)
    empty = np.zeros((3, 0), dtype)
    loss, grad = both(impl, empty, empty, reduction="none", label_smoothing=0.1)
    assert loss.tolist() == [0, 0, 0]
    assert grad.shape == (3, 0)
    assert both(impl, empty, [IGNORE] * 3, reduction="sum").loss == 0


def test_one_class(impl, dtype):
    loss, grad = both(impl, numbers((4, 1), dtype), np.zeros(4, int), reduction="none")
    assert (loss == 0).all()
    assert (grad == 0).all()


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [1, 0])
@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_nothing_of_the_logits_size_is_allocated(impl, axis, kind, dtype):
    if impl.NAME == "reference":
        pytest.skip("the reference is simple instead")
    x = np.zeros((3000, 1000), dtype)
    n = x.shape[axis]
    t = np.zeros_like(x) if kind == "probabilities" else np.zeros(x.size // n, int)
    tracemalloc.start()
    try:
        impl.cross_entropy(x, t, axis=axis, label_smoothing=0.1, weight=np.ones(n))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.reset_peak()
        impl.cross_entropy_with_grad(x, t, axis=axis)
        assert tracemalloc.get_traced_memory()[1] < x.nbytes + 2_000_000
    finally:
        tracemalloc.stop()
