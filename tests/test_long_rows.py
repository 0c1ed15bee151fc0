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
