"""Cross entropy along an axis that is not the last: the bits of the same numbers in rows."""

import numpy as np
import pytest


def scores(outer, n, inner, dtype, seed=0):
    """Return (outer, n, inner) scores: columns with every special number, and equal maxima."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((outer, n, inner)) * 3).astype(dtype)
    for value in (np.nan, np.inf, -np.inf, 1e30, -1e30, 7.0, 0.0):
        x[rng.random(x.shape) < 0.01] = value
    x[-1, :, inner // 2] = -np.inf
    x[0, :, inner // 3] = 5
    return x


def in_rows(a):
    """Return the columns of (outer, n, inner) as contiguous rows."""
    return np.ascontiguousarray(a.swapaxes(1, 2)).reshape(-1, a.shape[1])


def assert_as_rows(impl, x, targets, **options):
    """Assert that losses and gradients of columns are those of rows, in place too."""
    is_classes = targets.dtype.kind == "i"
    with np.errstate(all="ignore"):
        losses, y = impl.cross_entropy_with_grad(x, targets, axis=1, reduction="none", **options)
        want, rows = impl.cross_entropy_with_grad(
            in_rows(x),
            targets.ravel() if is_classes else in_rows(targets),
            reduction="none",
            **options,
        )
        alone = impl.cross_entropy(x, targets, axis=1, reduction="none", **options)
        z = x.copy()
        impl.cross_entropy_with_grad(z, targets, axis=1, reduction="none", out=z, **options)
    np.testing.assert_array_equal(losses.ravel(), want)
    np.testing.assert_array_equal(alone, losses)
    np.testing.assert_array_equal(in_rows(y), rows)
    np.testing.assert_array_equal(z, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 9, 16, 17, 32, 33])
@pytest.mark.parametrize(("outer", "inner"), [(1, 8), (3, 65), (40, 13), (2, 1100)])
def test_columns_have_the_bits_of_rows(compiled, dtype, n, outer, inner):
    x = scores(outer, n, inner, dtype)
    rng = np.random.default_rng(1)
    classes = rng.integers(0, n, (outer, inner))
    assert_as_rows(compiled, x, classes)
    classes[rng.random(classes.shape) < 0.3] = -100
    classes[:, inner // 2 :] = -100
    weight = np.linspace(0, 2, n)
    assert_as_rows(compiled, x, classes, label_smoothing=0.1, weight=weight)
    assert_as_rows(compiled, x, classes, temperature=0.7)
    probabilities = rng.random(x.shape).astype(dtype)
    assert_as_rows(compiled, x, probabilities, label_smoothing=0.1, weight=weight)


@pytest.mark.parametrize("temperature", [0.0, 1e-200, np.inf])
def test_temperatures_beyond_the_kernels_go_by_rows(compiled, temperature):
    x = scores(2, 5, 40, np.float32)
    assert_as_rows(compiled, x, np.zeros((2, 40), np.int64), temperature=temperature)


@pytest.mark.slow
def test_threads_share_columns(compiled):
    x = scores(3, 21, 70001, np.float32)
    classes = np.random.default_rng(2).integers(0, 21, (3, 70001))
    loss, y = compiled.cross_entropy_with_grad(x, classes, axis=1, reduction="none", workers=1)
    for workers in (2, 3):
        some, z = compiled.cross_entropy_with_grad(
            x, classes, axis=1, reduction="none", workers=workers
        )
        np.testing.assert_array_equal(some, loss)
        np.testing.assert_array_equal(z, y)
