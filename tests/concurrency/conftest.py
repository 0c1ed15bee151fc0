"""Fixtures that tests of threads share."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def many():
    """Rows that are worth sharing."""
    x = np.random.default_rng(0).standard_normal((3000, 1000), dtype=np.float32) * 4
    x[7, 3], x[11], x[12, 5], x[13] = np.nan, -np.inf, np.inf, 0
    return x
