"""Largest relative error of a result, in units of u, the rounding error of its dtype."""

import numpy as np

from benchmarks import exact

# How far below the largest entry the small ones of `one_large` lie.
_GAPS = {"float16": 8.0, "bfloat16": 6.0, "float32": 17.0, "float64": 37.0}


def ordinary(shape, dtype, seed=0):
    """Rows like a model's logits: four times standard normal."""
    rows = 4 * np.random.default_rng(seed).standard_normal(shape, "float32")
    return rows.astype(dtype)


def one_large(shape, dtype):
    """Rows on which a plain sum in `dtype` fails: one large entry, then equal small ones.

    Each small term is about 0.7 u of the large one, less than half the spacing of numbers just
    above it. An accumulator that has met the large one first loses all the others, one by one.
    """
    gap = _GAPS[np.dtype(dtype).name]
    rows = np.full(shape, -5.0, dtype)
    rows[..., 0] += gap
    return rows


def two_levels(shape, dtype):
    """Rows half of one value, then half of a lower one.

    Equal terms are rounded alike each time they are added: a plain sum drifts, and chance evens
    nothing out.
    """
    rows = np.full(shape, 0.3, dtype)
    rows[..., shape[-1] // 2 :] = -7.4
    return rows


KINDS = {"ordinary": ordinary, "one large": one_large, "two levels": two_levels}


def oracle(op, x, temperature=None):
    """Softmax, log_softmax or logsumexp over the last axis, as a `Pair` of arrays.

    Parameters
    ----------
    op : {"softmax", "log_softmax", "logsumexp"}
    x : ndarray
        Finite floats of any type.
    temperature : float, optional
        What the exact `x` is divided by.
    """
    true = getattr(exact.rows(x, temperature or 1.0), op)
    return exact.Pair(*(part[..., 0] for part in true)) if op == "logsumexp" else true


def absolute_error(got, want):
    """Return |got - want|, `want` being a `Pair`: 0 where both are the same infinity, or NaN."""
    got = np.asarray(got, np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs((got - want.high) - want.low)
    return np.where((got == want.high) & np.isinf(got), 0.0, error)


def error_u(got, want):
    """Largest relative error of `got`, in u of its dtype.

    Parameters
    ----------
    got : ndarray of float32 or float64
    want : Pair
        The true values, from `oracle`.

    Returns
    -------
    float
        Values below the smallest normal number are left out. Infinity if `got` is not finite
        somewhere.
    """
    if not np.isfinite(got).all():
        return float("inf")
    limits, size = np.finfo(got.dtype), np.abs(want.high)
    counted = size >= limits.tiny
    error = absolute_error(got, want)
    relative = np.divide(error, size, where=counted, out=np.zeros_like(size))
    return float(relative.max(initial=0) / (limits.eps / 2))


def ulp(x, dtype):
    """Return the unit in the last place of `dtype` at each of the float64 `x`.

    It is the distance of the two numbers of that type between which `x` lies; below the smallest
    normal number that of the numbers there.
    """
    limits = finfo(dtype)
    exponent = np.maximum(np.frexp(x)[1] - 1, limits.minexp)
    return np.ldexp(1.0, exponent - limits.nmant)


def errors_ulp(got, want, dtype):
    """Largest errors of `got` in units in the last place of `dtype`, at the true values `want`.

    Returns
    -------
    normal, below : float
        Of values from the smallest normal number on, and of those below it. An infinity is right
        where the true value is beyond the largest number; NaN is infinitely wrong.
    """
    got, size, limits = np.asarray(got, np.float64), np.abs(want.high), finfo(dtype)
    error = absolute_error(got, want)
    right = np.isinf(got) & (size > float(limits.max)) & (np.sign(got) == np.sign(want.high))
    with np.errstate(invalid="ignore"):
        units = np.where(right | (error == 0), 0.0, error / ulp(want.high, dtype))
    units = np.where(np.isnan(units), np.inf, units)
    normal = size >= float(limits.tiny)
    return float(units[normal].max(initial=0)), float(units[~normal].max(initial=0))


def finfo(dtype):
    """Return what `numpy.finfo` does, for bfloat16 too."""
    if np.dtype(dtype).name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.finfo(dtype)
    return np.finfo(dtype)
