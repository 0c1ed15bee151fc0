"""Long rows after each other: the maximum of one is found while the one before is worked on."""

import numpy as np
import pytest

INF = np.inf
NAN = np.nan


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=[1100, 2048, 2049, 8200, 9999])
def x(request, dtype):
    """Rows far above and below each other, with their largest entry at different places."""
    n = request.param
    rng = np.random.default_rng(n)
    rows = rng.normal(size=(9, n)) + np.array([0, 900, -900, 0, 50, -50, 0, 0, 3])[:, None]
    for row, place in enumerate([0, n - 1, n // 2, 31, n - 2, n - 31, 7, 2, 1024]):
        rows[row, place] += 20
    rows[3] = -INF
    rows[5, n - 1] = INF
    rows[6, n // 3] = NAN
    return rows.astype(dtype)


@pytest.mark.slow_reference
@pytest.mark.parametrize("temperature", [1.0, 0.7, "each"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_maps_give_what_a_row_alone_gives(impl, x, name, temperature):
    ts = np.full(len(x), 1.0 if temperature == "each" else temperature)
    if temperature == "each":
        ts[:] = [1, 0, INF, 0.5, 1e-300, 2, 0, 1, 3]
    f = getattr(impl, name)
    alone = np.stack([f(row, temperature=t) for row, t in zip(x, ts, strict=True)])
    np.testing.assert_array_equal(f(x, temperature=ts), alone)
    in_place = x.copy()
    f(in_place, temperature=ts, out=in_place)
    np.testing.assert_array_equal(in_place, alone)


def test_logsumexp_gives_what_a_row_alone_gives(impl, x):
    np.testing.assert_array_equal(impl.logsumexp(x), [impl.logsumexp(row) for row in x])


@pytest.mark.slow_reference
@pytest.mark.parametrize("ignored", [(), (1, 2), (0, 3, 8)])
def test_losses_are_what_a_row_alone_gives(impl, x, ignored):
    targets = np.arange(len(x))
    targets[list(ignored)] = -100
    loss, grad = impl.cross_entropy_with_grad(x, targets, reduction="none")
    np.testing.assert_array_equal(impl.cross_entropy(x, targets, reduction="none"), loss)
    for i, target in enumerate(targets):
        own_loss, own_grad = impl.cross_entropy_with_grad(x[i], target, reduction="none")
        np.testing.assert_array_equal(loss[i], own_loss)
        np.testing.assert_array_equal(grad[i], own_grad)


# ---- guesses of the maximum ----------------------------------------------------------------------

#: The largest entry of a row, against one of 0: what a guess by the 0 can serve, and cannot.
LEAPS = [
    10, 30, 39.9, 45, 55, 70, 90, 120, 200, 300, 500, 700, 900, 2000, 2100, 1e30, -30, -100, -1e30
]  # fmt: skip


def exactly(impl, x, temperature=1.0):
    """Return softmax in place, where the maximum is never guessed."""
    y = x.copy()
    for row in y.reshape(-1, y.shape[-1]):
        impl.softmax(row, temperature=temperature, out=row)
    return y


def exact_logs(impl, x):
    """Return log_softmax and logsumexp along columns, where the maximum is never guessed."""
    times = -(-32 // len(x))  # fewer columns might be taken as rows
    across = np.repeat(x.T, times, axis=1)
    return impl.log_softmax(across, axis=0)[:, ::times].T, impl.logsumexp(across, axis=0)[::times]


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("leap", LEAPS)
def test_a_guess_by_the_first_block_leaves_no_trace(compiled, dtype, leap):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 40_000)).astype(dtype)
    x[:, 30_000] += dtype(leap)
    if leap < 0:
        x[:, :3000] += dtype(leap)
    want = exactly(compiled, x)
    np.testing.assert_array_equal(compiled.softmax(x), want)
    np.testing.assert_array_equal(compiled.softmax(x[0]), want[0])
    np.testing.assert_array_equal(compiled.softmax(x[0], workers=2), want[0])
    wide = x.astype(np.float64)
    p = np.exp(wide - wide.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(want, p, rtol=1e-5, atol=np.finfo(dtype).tiny)
    for t in (0.7, 40.0):
        want = exactly(compiled, x, t)
        np.testing.assert_array_equal(compiled.softmax(x, temperature=t), want)
        np.testing.assert_array_equal(compiled.softmax(x[0], temperature=t, workers=2), want[0])
    want, sums = exact_logs(compiled, x)
    np.testing.assert_array_equal(compiled.log_softmax(x), want)
    np.testing.assert_array_equal(compiled.logsumexp(x), sums)
    compiled.log_softmax(x, out=x)
    np.testing.assert_array_equal(x, want)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 17, 32, 100, 1000])
@pytest.mark.parametrize("leap", LEAPS)
def test_a_guess_by_the_group_before_leaves_no_trace(compiled, dtype, leap, n):
    x = np.random.default_rng(2).normal(size=(300, n)).astype(dtype)
    for row, factor in ((2, 1), (70, 0.5), (71, 1), (140, 1), (260, 0.25)):
        x[row] += dtype(leap * factor)
    x[200:] += dtype(leap)
    x[220] = NAN
    x[221] = -INF
    x[222, n // 2] = INF
    np.testing.assert_array_equal(compiled.softmax(x), exactly(compiled, x))
    for t in (0.7, 40.0):
        want = exactly(compiled, x, t)
        np.testing.assert_array_equal(compiled.softmax(x, temperature=t), want)
    want, sums = exact_logs(compiled, x)
    np.testing.assert_array_equal(compiled.log_softmax(x), want)
    np.testing.assert_array_equal(compiled.logsumexp(x), sums)


@pytest.mark.parametrize("n", [17, 40, 1000, 5000])
def test_what_a_large_entry_leaves_is_the_same_in_every_regime(compiled, dtype, n):
    """Down to where it depends on the maximum which entries are too small to be added."""
    far = np.arange(20, 120, 0.7) if dtype == np.float32 else np.arange(30, 770, 5.1)
    x = np.random.default_rng(3).normal(size=(len(far), n)) - far[:, None]
    x[:, 5] = np.linspace(0, 3, len(far))
    x = x.astype(dtype)
    want, sums = exact_logs(compiled, x)
    np.testing.assert_array_equal(compiled.log_softmax(x), want)
    np.testing.assert_array_equal(compiled.log_softmax(x[::-1]), want[::-1])
    np.testing.assert_array_equal(compiled.logsumexp(x), sums)


@pytest.mark.parametrize("n", [33, 5000, 9999])
def test_a_largest_entry_may_be_anywhere_and_more_than_once(compiled, dtype, n):
    x = np.random.default_rng(4).normal(size=(60, n)).astype(dtype)
    x[np.arange(60), np.arange(60) * 9973 % n] = 5
    x[:30, -1] = 5
    x[:15, 0] = 5
    x[50:] = np.sort(x[50:])
    want, sums = exact_logs(compiled, x)
    np.testing.assert_array_equal(compiled.log_softmax(x), want)
    np.testing.assert_array_equal(compiled.logsumexp(x), sums)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_what_is_near_nothing_is_so_in_every_regime(compiled, dtype, name):
    """Results of a few times the smallest number, beside a largest entry that is nearly all."""
    gaps = np.arange(95, 105, 0.03) if dtype == np.float32 else np.arange(735, 746, 0.03)
    f = getattr(compiled, name)
    for n in (9, 40, 5000):
        x = np.full((len(gaps), n), -np.inf, dtype)
        x[:, 0] = np.linspace(-30, 100, len(gaps))
        x[:, 3] = x[:, 0] - gaps
        x[:, 4] = x[:, 0] - gaps - 1
        alone = np.array([f(row) for row in x])
        np.testing.assert_array_equal(f(x), alone)
        np.testing.assert_array_equal(np.array([f(np.stack([row] * 4))[2] for row in x]), alone)
        across = np.ascontiguousarray(x.T)
        np.testing.assert_array_equal(f(across, axis=0).T, alone)
        if name == "softmax":
            np.testing.assert_array_equal(alone, exactly(compiled, x))
            assert (alone[:, 3] > 0).any()
            if dtype == np.float32:
                wide = compiled.softmax(x.astype(np.float64))
                atol = 0.6 * np.finfo(dtype).smallest_subnormal
                np.testing.assert_allclose(alone, wide, rtol=20 * 2.0**-24, atol=atol)
