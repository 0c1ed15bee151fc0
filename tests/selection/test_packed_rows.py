"""top_k of long rows that are packed by pieces, against the same rows as they stand."""

import numpy as np
import pytest

from tests.arrays import byte_swapped, spaced

N = 262_144 + 70_001  # three pieces, or none where k is large
FORMS = {
    "strided": spaced,
    "byte-swapped": byte_swapped,
    "float16": lambda x: x.astype(np.float16),
    "int32": lambda x: (np.nan_to_num(x) * 20).astype(np.int32),
    "uint64": lambda x: (np.abs(np.nan_to_num(x)) * 20).astype(np.uint64),
}


def rows():
    """Return a row with special values, and one of ties."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, N)).astype(np.float32)
    x[0, [5, N - 1]] = np.nan
    x[0, [7, 8]] = -0.0, 0.0
    x[1] = rng.integers(0, 50, N)
    return x


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("mode", ["largest", "smallest"])
@pytest.mark.parametrize("form", FORMS)
def test_forms(compiled, form, mode, in_order):
    x = FORMS[form](rows())
    plain = np.ascontiguousarray(x, np.float32 if x.dtype.kind == "f" else np.float64)
    for k in (1, 50, 2500, 5000):
        want = compiled.top_k(plain, k, mode=mode, sorted=in_order)
        for workers in (1, 2):
            got = compiled.top_k(x, k, mode=mode, sorted=in_order, workers=workers)
            np.testing.assert_array_equal(got.indices, want.indices)
            np.testing.assert_array_equal(got.values, want.values.astype(x.dtype))
            assert got.values.dtype == x.dtype.newbyteorder("=")
