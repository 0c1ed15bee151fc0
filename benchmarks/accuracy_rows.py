"""The rows that errors are measured on: ordinary ones, and those that are hard to be exact on."""

from functools import cache

import numpy as np

from benchmarks import errors, inputs


def _near_ties(rng, n, dtype):
    x = 4 * rng.standard_normal(n)
    ties = rng.random(n) < 0.5
    top = np.abs(x).max() + 1
    return np.where(ties, top * (1 + rng.integers(-2, 3, n) * float(errors.finfo(dtype).eps)), x)


def _real(rng, n, dtype):
    logits = _demo_rows()
    start = rng.integers(logits.shape[1] - n + 1)
    return logits[rng.integers(len(logits)), start : start + n]


@cache
def _demo_rows():
    return inputs.make_rows("real", (3, 49152))


#: Kinds of rows by name: a generator, the length and the dtype make a row of float64.
ROWS = {
    "random": lambda rng, n, dtype: 4 * rng.standard_normal(n),
    "real": _real,
    "peaked": lambda rng, n, dtype: errors.one_large((n,), dtype),
    "two levels": lambda rng, n, dtype: errors.two_levels((n,), dtype),
    "flat": lambda rng, n, dtype: -3.3 + 1e-3 * rng.standard_normal(n),
    "wide": lambda rng, n, dtype: 40 * rng.standard_normal(n),
    "around 1e4": lambda rng, n, dtype: 1e4 + rng.standard_normal(n),
    "around -1e4": lambda rng, n, dtype: -1e4 + 4 * rng.standard_normal(n),
    "from -1e4 to 1e4": lambda rng, n, dtype: 1e4 * rng.uniform(-1, 1, n),
    "denormal": lambda rng, n, dtype: float(errors.finfo(dtype).tiny) * rng.uniform(-1, 1, n),
    "near ties": _near_ties,
}  # fmt: skip
#: Such as models give: what the promise of 2 ulp is about.
ORDINARY = ("random", "real", "two levels", "flat")


def make_rows(kind, n, dtype):
    """Return rows of a kind, fewer the longer they are; none of the real ones beyond their own."""
    dtype = inputs.dtype_of(dtype)
    if kind == "real" and n > _demo_rows().shape[1]:
        return np.empty((0, n), dtype)
    rng = np.random.default_rng([n, list(ROWS).index(kind)])
    count = min(max(1, 2048 // n), 24)
    return np.array([np.asarray(ROWS[kind](rng, n, dtype)).astype(dtype) for _ in range(count)])
