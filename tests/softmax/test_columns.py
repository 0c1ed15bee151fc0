"""Axes that are not the last one: the bits of contiguous rows, whatever the panels."""

import numpy as np
import pytest

LONG = [pytest.param(n, marks=pytest.mark.slow) for n in (2048, 2081)]
SPECIAL = (np.nan, np.inf, -np.inf)


def array(shape, dtype, seed=0):
    """Return numbers with ties and, in some columns, each special value."""
    x = np.random.default_rng(seed).integers(-9, 9, shape) * 0.75
    columns = x.reshape(shape[0], shape[1], -1)
    for k, value in enumerate(SPECIAL):
        columns[:, k % shape[1], k + 1 :: 5] = value
    columns[:, :, 0] = -np.inf
    return columns.reshape(shape).astype(dtype)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 31, 32, 33, 40, 63, 65, 200, *LONG])
def test_the_bits_are_those_of_rows(compiled, dtype, n):
    for outer, inner in ((1, 8), (20, 15), (70, 4), (3, 17), (1, 260)):
        x = array((outer, n, inner), dtype, seed=n)
        rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        kept = x.copy()
        np.testing.assert_array_equal(compiled.logsumexp(x, axis=1), compiled.logsumexp(rows))
        each = np.random.default_rng(1).uniform(0.5, 3, (outer, inner))
        for function in (compiled.softmax, compiled.log_softmax):
            for t in (1.0, 0.7, each, np.inf, 0.0):
                expected = np.moveaxis(function(rows, temperature=t), -1, 1)
                np.testing.assert_array_equal(function(x, axis=1, temperature=t), expected)
                out = np.full_like(x, 7)
                assert function(x, axis=1, temperature=t, out=out) is out
                np.testing.assert_array_equal(out, expected)
                out = x.copy()
                assert function(out, axis=1, temperature=t, out=out) is out
                np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_few_finite_columns_have_the_bits_of_rows(compiled, dtype, n):
    # Without the special values of `array`, a pivot serves; one of them sends a panel another way.
    for value in (0.0, 1.5, *SPECIAL):
        x = (np.random.default_rng(n).integers(-9, 9, (3, n, 700)) * 0.75).astype(dtype)
        x[1, n - 1, 500] = value
        x[:, :, 100:200] += np.random.default_rng(n).normal(size=(3, n, 100)).astype(dtype)
        rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        np.testing.assert_array_equal(compiled.logsumexp(x, axis=1), compiled.logsumexp(rows))
        for t in (1.0, 0.7):
            expected = np.moveaxis(compiled.log_softmax(rows, temperature=t), -1, 1)
            got = compiled.log_softmax(x, axis=1, temperature=t)
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("n", [2, 3, 5, 9, 40])
def test_maxima_far_apart_and_far_ahead_have_the_bits_of_rows(compiled, n, temperature, dtype):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((3, n, 1024))
    # Panel by panel nearer to what a pivot serves, and beyond it.
    reach = np.linspace(0, 60, 1024) * temperature
    x += rng.uniform(-reach, 0.75 * reach, (3, 1, 1024))
    x[:, -1] += rng.choice([0, 26, 40, 43, 80], (3, 1024)) * temperature * (reach < 35)
    x = x.astype(dtype)
    rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.testing.assert_array_equal(compiled.logsumexp(x, axis=1), compiled.logsumexp(rows))
    for function in (compiled.softmax, compiled.log_softmax):
        expected = np.moveaxis(function(rows, temperature=temperature), -1, 1)
        np.testing.assert_array_equal(function(x, axis=1, temperature=temperature), expected)


def test_neighbouring_axes_are_one(impl):
    x = np.random.default_rng(2).standard_normal((3, 4, 5, 6, 7)).astype(np.float32)
    for axis in ((1, 2), (0, 1), (2, 1), (0, 1, 2), 0, 2, (1, 3)):
        axes = sorted({axis} if isinstance(axis, int) else axis)
        last = np.ascontiguousarray(np.moveaxis(x, axes, range(-len(axes), 0)))
        count = int(np.prod(last.shape[-len(axes) :]))
        flat = impl.softmax(last.reshape(-1, count)).reshape(last.shape)
        expected = np.moveaxis(flat, range(-len(axes), 0), axes)
        np.testing.assert_array_equal(impl.softmax(x, axis=axis), expected)
        kept = impl.logsumexp(x, axis=axis, keepdims=True)
        assert kept.shape == tuple(1 if i in axes else k for i, k in enumerate(x.shape))


@pytest.mark.slow
def test_columns_too_long_for_scratch_and_side_by_side(compiled):
    """Their rows are read again, a part after the other, and stored to some tiles at once."""
    x = np.random.default_rng(5).standard_normal((2, 262_200, 9), np.float32)
    for leap in (0, 300):  # what comes late, which a guess by the first row serves, and does not
        x[:, 200_000, 1] += leap
        rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        for function in (compiled.softmax, compiled.log_softmax)[: 2 - (leap > 0)]:
            expected = np.moveaxis(function(rows), -1, 1)
            np.testing.assert_array_equal(function(x, axis=1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_too_long_for_scratch(compiled, dtype):
    x = np.random.default_rng(4).standard_normal((1, 140_001, 33)).astype(dtype)
    x[0, 99_999, ::3] = 9
    x[0, 139_999, ::3] = 9
    x[0, 140_000, 5] = np.nan
    rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.testing.assert_array_equal(compiled.logsumexp(x, axis=1), compiled.logsumexp(rows))
    for function in (compiled.softmax, compiled.log_softmax):
        expected = np.moveaxis(function(rows, temperature=0.7), -1, 1)
        out = x.copy()
        function(out, axis=1, temperature=0.7, out=out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("shape", [(2, 700, 1030), (9000, 20, 9)])
def test_threads_share_the_columns(compiled, workers, shape):
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    for function in (compiled.softmax, compiled.log_softmax, compiled.logsumexp):
        expected = function(np.ascontiguousarray(np.moveaxis(x, 1, -1)))
        if function != compiled.logsumexp:
            expected = np.moveaxis(expected, -1, 1)
        np.testing.assert_array_equal(function(x, axis=1, workers=workers), expected)


def late(x):
    x[33:, :, 5::7] += 200


def early(x):
    x[0] += 60


def far_apart(x):
    x += np.arange(x.shape[2]) % 3 * 45


def low(x):
    x[:, :, 1::3] -= 90
    x[5::9, :, 1::3] -= 60


def high(x):
    x += 300


def wide_apart(x):
    x += np.arange(x.shape[2]) % 2 * 1e4


def masked(x):
    x[:3] = -np.inf


def nan(x):
    x[40, 0, -1] = np.nan


def infinite(x):
    x[50, 0, 200] = np.inf


@pytest.mark.parametrize("scale", [1, 11], ids=["", "scaled"])
@pytest.mark.parametrize(
    "change",
    [late, early, far_apart, low, high, wide_apart, masked, nan, infinite],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_that_the_first_row_tells_nothing_of(compiled, dtype, change, scale):
    x = np.random.default_rng(6).standard_normal((70, 2, 700))
    change(x)
    x = (x * scale).astype(dtype)
    expected = np.moveaxis(compiled.softmax(np.ascontiguousarray(np.moveaxis(x, 0, -1))), -1, 0)
    np.testing.assert_array_equal(compiled.softmax(x, axis=0), expected)
    np.testing.assert_array_equal(compiled.softmax(x, axis=0, out=x), expected)
