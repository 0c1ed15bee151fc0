"""Rows of every kind, and what top_k takes from them by a stable sort."""

from functools import lru_cache

import numpy as np

from tests.arrays import dtype_of

MODES = ("largest", "smallest")


FLOATS = ("float16", "bfloat16", "float32", "float64")


SPECIAL = (np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0, -1.0, 2.0)


def best_first(x, mode):
    """Return all indices of a row, best first, by a stable sort: ~i reverses any integers."""
    key = x.astype(np.float64) if x.dtype.kind in "fV" else x
    if mode == "largest":
        key = -key if key.dtype.kind == "f" else ~key
    return np.argsort(key, kind="stable")  # NaN goes last


def assert_top_k(function, x, k, mode, order=None):
    """Assert that `function` gives what stands first in `order`, in both kinds of order."""
    best = (best_first(x, mode) if order is None else order)[:k]
    for in_order, want in ((True, best), (False, np.sort(best))):
        values, indices = function(x, k, mode=mode, sorted=in_order)
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(indices, want)
        assert values.dtype == x.dtype
        assert values.tobytes() == x[want].tobytes(), "other bits than the entries"


@lru_cache(maxsize=1)
def row(kind, n, dtype="float32"):
    """Return a row of n numbers, the bits of which depend on nothing but the arguments."""
    rng = np.random.default_rng(n)
    i = np.arange(n)
    if kind == "random":
        x = rng.standard_normal(n) * 30
    elif kind == "ties":
        x = rng.integers(0, 5, n)
    elif kind == "special":
        x = rng.choice(SPECIAL, n)
    elif kind == "ascending":
        x = i
    elif kind == "descending":
        x = -i
    elif kind == "constant":
        x = np.full(n, 7)
    elif kind == "all -inf":
        x = np.full(n, -np.inf)
    elif kind == "all NaN":
        x = np.full(n, np.nan)
    elif kind == "organ pipe":
        x = np.minimum(i, n - 1 - i)
    elif kind == "inverted organ pipe":
        x = np.maximum(i, n - 1 - i)
    elif kind == "few at the end":
        x = (i > n - 9) * i
    elif kind == "periodic":
        x = i % 251
    elif kind == "many +inf":
        x = np.where(rng.random(n) < 0.1, np.inf, -i)
    elif kind == "few above -inf":
        x = np.where(i % (n // 7) == 5, i, -np.inf)
    elif kind == "few in NaN":
        x = np.where(i % (n // 7) == 5, i % 3, np.nan)
    elif kind == "last of NaN":
        x = np.where(i == n - 1, -np.inf, np.nan)
    if dtype == "bool":
        return np.asarray(x) > np.mean(x)
    x = np.asarray(x)
    if np.dtype(dtype_of(dtype)).kind == "u" and x.dtype.kind == "f":
        x = x.astype(np.int64)  # what a negative float becomes without a sign, C leaves open
    return x.astype(dtype_of(dtype))
