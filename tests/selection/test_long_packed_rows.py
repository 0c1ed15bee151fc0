"""Ranks in long rows that are packed by parts, against the same rows as they stand."""

import numpy as np
import pytest

from tests.arrays import byte_swapped, spaced

N = (1 << 20) + 2049  # elements; from 2**20 on a row is packed by parts
FORMS = {
    "strided": spaced,
    "byte-swapped": byte_swapped,
    "float16": lambda x: x.astype(np.float16),
    "int64": lambda x: spaced((np.nan_to_num(x) * 20).astype(np.int64)),
    "uint8": lambda x: (np.abs(np.nan_to_num(x)) * 20).astype(np.uint8),
}
IDS = [0, 7, 8, 2047, 2048, N // 2, N - 1]


@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=() if f == "strided" else pytest.mark.slow) for f in FORMS]
)
@pytest.mark.parametrize("many", [0, pytest.param(600, marks=pytest.mark.slow)])
def test_rank(compiled, form, many):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, N), dtype=np.float32)
    x[0, [5, N - 1]] = np.nan
    x[0, [7, 8]] = -0.0, 0.0
    x[1] = rng.integers(0, 50, N)
    x = FORMS[form](x)
    ids = np.concatenate([IDS, rng.integers(0, N, many)])  # from 512 on a row is sorted
    ids = np.broadcast_to(ids, (2, len(ids)))
    plain = x.astype(np.float32 if x.dtype.kind == "f" else np.int64, order="C")
    np.testing.assert_array_equal(compiled.rank(x, ids), compiled.rank(plain, ids))
