"""Rows whose maximum is there twice, or nearly, in a batch of others: the same bits as alone."""

import numpy as np
import pytest

INF = np.inf


def rows_with_equal_maxima(n, dtype):
    """Return 40 rows: every fifth as drawn, the others each with another kind of maximum."""
    x = np.random.default_rng(n).normal(size=(40, n)).astype(dtype) - 5
    x[1::5, [3, n - 1]] = 1  # twice
    x[6::10, 3 + (n - 4) // 32 * 32] = 1  # and in the lane of the first one
    x[2::5] = 0.25  # everywhere
    x[3::5, n // 2], x[3::5, 1] = 0, -1e-30  # its neighbour has the same exponential
    x[4, 2], x[9, 5], x[14], x[19, 0] = INF, np.nan, -INF, -INF
    return x


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("n", [9, 20, 33, 100, 150, 500, 1000, 1100])
def test_batch_has_the_bits_of_single_rows(impl, dtype, temperature, n):
    x = rows_with_equal_maxima(n, dtype)
    targets = np.arange(40) % n

    def results(rows):
        yield impl.log_softmax(x[rows], temperature=temperature)
        yield impl.logsumexp(x[rows])
        yield from impl.cross_entropy_with_grad(
            x[rows], targets[rows], temperature=temperature, reduction="sum"
        )[1:]
        yield impl.cross_entropy(x[rows], targets[rows], temperature=temperature, reduction="none")

    alone = [
        np.concatenate(parts) for parts in zip(*(results([i]) for i in range(40)), strict=True)
    ]
    for together, single in zip(results(slice(None)), alone, strict=True):
        np.testing.assert_array_equal(together, single, strict=True)
        finite = np.isfinite(single)
        assert (np.signbit(together) == np.signbit(single))[finite].all()
