"""Largest relative error of a result, in units of u, the rounding error of its dtype."""

import numpy as np

# For each dtype: its u, a dtype wide enough to be the oracle, and how far below the largest entry
# the small ones of `one_large` lie.
_UNITS = {
    np.dtype("float32"): (2.0**-24, np.dtype("float64"), 17.0),
    np.dtype("float64"): (2.0**-53, np.dtype("longdouble"), 37.0),
}


def ordinary(shape, dtype, seed=0):
    """Rows like a model's logits: four times standard normal."""
    rows = 4 * np.random.default_rng(seed).standard_normal(shape, "float32")
    return rows.astype(dtype)


def one_large(shape, dtype):
    """Rows on which a plain sum in `dtype` fails: one large entry, then equal small ones.

    Each small term is about 0.7 u of the large one, less than half the spacing of numbers just
    above it. An accumulator that has met the large one first loses all the others, one by one.
    """
    gap = _UNITS[np.dtype(dtype)][2]
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
    """Softmax, log_softmax or logsumexp over the last axis, in a wider dtype.

    Parameters
    ----------
    op : {"softmax", "log_softmax", "logsumexp"}
    x : ndarray
        Finite float32 or float64.
    temperature : float, optional
        What the wide `x` is divided by.

    Returns
    -------
    ndarray or None
        None where NumPy has nothing wider than `x`: float64 on Windows or macOS.
    """
    wide = _UNITS[x.dtype][1]
    # 10 bits more leave the oracle's own error near 0.03 u.
    if np.finfo(wide).nmant < np.finfo(x.dtype).nmant + 10:
        return None
    x = x.astype(wide)
    if temperature:
        x /= temperature
    top = x.argmax(axis=-1, keepdims=True)
    largest = np.take_along_axis(x, top, axis=-1)
    shifted = x - largest
    terms = np.exp(shifted)
    # The largest term, 1, is kept apart: 1 + rest would round away what log1p(rest) keeps.
    np.put_along_axis(terms, top, 0, axis=-1)
    rest = terms.sum(axis=-1, keepdims=True)
    if op == "softmax":
        np.put_along_axis(terms, top, 1, axis=-1)
        terms /= 1 + rest
        return terms
    if op == "log_softmax":
        return shifted - np.log1p(rest)
    if op == "logsumexp":
        return (largest + np.log1p(rest))[..., 0]
    raise ValueError(f"no oracle for {op!r}")


def error_u(got, exact):
    """Largest relative error of `got`, in u of its dtype.

    Parameters
    ----------
    got : ndarray of float32 or float64
    exact : ndarray
        The true values, from `oracle`.

    Returns
    -------
    float
        Values below the smallest normal number are left out. Infinity if `got` is not finite
        somewhere.
    """
    if not np.isfinite(got).all():
        return float("inf")
    size = np.abs(exact)
    counted = size >= np.finfo(got.dtype).tiny
    relative = np.divide(np.abs(got - exact), size, where=counted, out=np.zeros_like(size))
    return float(relative.max(initial=0) / _UNITS[got.dtype][0])
