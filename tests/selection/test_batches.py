"""top_k of many short rows: lists of all rows in step, compared with a stable sort."""

import numpy as np
import pytest

DTYPES = ("float32", "float64", "int64", "int8")
ROWS = (15, 16, 17, 40)  # a batch has 16
LENGTHS = (1, 2, 3, 4, 5, 7, 15, 16, 17, 18, 33, 100)


def rows_of(dtype, count, n):
    """Return rows with many ties, and where `dtype` has them, all special values."""
    rng = np.random.default_rng([count, n])
    if np.dtype(dtype).kind == "i":
        limits = np.iinfo(dtype)
        return rng.choice(np.array([limits.min, -1, 0, 1, limits.max], dtype), (count, n))
    tiny = np.finfo(dtype).smallest_subnormal
    special = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, 1.0, -1.0]
    return rng.choice(np.array(special, dtype), (count, n))


@pytest.mark.slow_reference
@pytest.mark.parametrize("mode", ["largest", "smallest"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_short_rows(impl, dtype, mode):
    for count in ROWS:
        for n in LENGTHS:
            x = rows_of(dtype, count, n)
            key = x if mode == "smallest" else ~x if x.dtype.kind == "i" else -x
            order = np.argsort(key, axis=1, kind="stable")
            for k in {1, 2, 3, n // 2, n - 1, n} - {0}:
                if k > n:
                    continue
                for in_order in (True, False):
                    want = order[:, :k] if in_order else np.sort(order[:, :k], axis=1)
                    values, indices = impl.top_k(x, k, mode=mode, sorted=in_order)
                    np.testing.assert_array_equal(indices, want)
                    assert values.tobytes() == np.take_along_axis(x, want, 1).tobytes()
