"""Softmax, its logarithm and its sum as pairs of float64, exact to 2**-90.

A pair is a number as the sum of a float64 and a much smaller one. mpmath is the judge of these
functions (`tests/softmax/test_accuracy.py`), and some thousand times slower.

Source: T. J. Dekker, "A floating-point technique for extending the available precision", 1971,
https://doi.org/10.1007/BF01397083
"""

import math
from typing import NamedTuple

import numpy as np

# ln 2 in three parts; a whole number up to 2**12 times one of the first two is exact.
_LN2 = (0.6931471805592082, 7.371002565161996e-13, 5.8029889835956905e-25)
_LOWEST = -2000.0  # exp of less is 0 in float64, and of this
_HALVINGS = 8
_CHUNK = 1 << 14  # elements; fits L2 with what is made of it


class Pair(NamedTuple):
    """``high + low`` without rounding, arrays of float64 of one shape."""

    high: np.ndarray
    low: np.ndarray


def _two_sum(a, b):
    s = a + b
    t = s - a
    return Pair(s, (a - (s - t)) + (b - t))


def _two_product(a, b):
    p = a * b
    c, d = a * 134217729.0, b * 134217729.0  # 2**27 + 1 cuts a float64 in halves
    a1, b1 = c - (c - a), d - (d - b)
    a2, b2 = a - a1, b - b1
    return Pair(p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2)


def add(x, y):
    """Return x + y."""
    high, low = _two_sum(x.high, y.high)
    more, rest = _two_sum(x.low, y.low)
    high, low = _two_sum(high, low + more)
    return _two_sum(high, low + rest)


def multiply(x, y):
    """Return x y."""
    p, e = _two_product(x.high, y.high)
    return _two_sum(p, e + (x.high * y.low + x.low * y.high))


def divide(x, y):
    """Return x / y."""
    q = x.high / y.high
    p, e = _two_product(q, y.high)
    return _two_sum(q, (((x.high - p) - e) + x.low - q * y.low) / y.high)


def _negative(x):
    return Pair(-x.high, -x.low)


def _expm1_exponent(x):
    """Return e and n with exp(x) = (1 + e) 2**n, |e| < 0.42."""
    n = np.rint(x.high / _LN2[0])
    r = x
    for part in _LN2:
        r = add(r, Pair(-n * part, np.zeros_like(n)))
    r = Pair(np.ldexp(r.high, -_HALVINGS), np.ldexp(r.low, -_HALVINGS))
    # Taylor's series; what float64 rounds in the terms from the fifth on is nothing beside r.
    h = r.high
    high = 1 / 120 + h * (1 / 720 + h * (1 / 5040 + h * (1 / 40320 + h / 362880)))
    e = Pair(high, np.zeros_like(high))
    for divisor in (24, 6, 2, 1):
        c = divide(Pair(np.float64(1), np.float64(0)), Pair(np.float64(divisor), np.float64(0)))
        e = add(multiply(e, r), c)
    e = multiply(e, r)
    for _ in range(_HALVINGS):  # exp(2 r) - 1 = 2 e + e**2
        e = add(Pair(2 * e.high, 2 * e.low), multiply(e, e))
    return e, n.astype(np.int64)


def _exp(x):
    lost = ~(x.high > _LOWEST)
    e, n = _expm1_exponent(Pair(np.where(lost, _LOWEST, x.high), np.where(lost, 0, x.low)))
    y = add(e, Pair(np.ones_like(e.high), np.zeros_like(e.high)))
    return Pair(np.ldexp(y.high, n), np.ldexp(y.low, n))


def exp(x):
    """Return exp(x), by chunks."""
    high, low = x.high.ravel(), x.low.ravel()
    chunks = [slice(i, i + _CHUNK) for i in range(0, high.size, _CHUNK)]
    parts = [_exp(Pair(high[chunk], low[chunk])) for chunk in chunks]
    return Pair(*(np.concatenate(p).reshape(x.high.shape) for p in zip(*parts, strict=True)))


def total(x):
    """Return the sum over the last axis, which stays."""
    x = Pair(x.high.copy(), x.low.copy())
    while x.high.shape[-1] > 1:
        if x.high.shape[-1] % 2:
            zero = np.zeros((*x.high.shape[:-1], 1))
            x = Pair(*(np.concatenate([part, zero], axis=-1) for part in x))
        x = add(Pair(*(part[..., ::2] for part in x)), Pair(*(part[..., 1::2] for part in x)))
    return x


def log1p(x):
    """Return log(1 + x) for x >= 0, by one step of Newton's method."""
    y = np.log1p(x.high)
    nothing = np.zeros_like(y)
    one = Pair(nothing + 1, nothing)
    e, n = _expm1_exponent(Pair(-y, nothing))
    power = Pair(np.ldexp(1.0, n), nothing)
    e = add(multiply(e, power), add(power, _negative(one)))  # exp(-y) - 1
    step = add(add(x, e), multiply(x, e)).high  # (1 + x) exp(-y) - 1
    return add(Pair(y, nothing), Pair(step - step * step / 2, nothing))


class Exact(NamedTuple):
    """What is true of rows; `others` is the probability of all but the first maximum."""

    softmax: Pair
    log_softmax: Pair
    logsumexp: Pair
    others: Pair


def rows(x, temperature=1.0):
    """Return the `Exact` of rows of finite numbers, divided by `temperature`.

    The last axis is reduced, and is 1 in `logsumexp` and `others`. `logsumexp` is of
    ``x / temperature`` too, and at a temperature of 0 meaningless.
    """
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        top = x.argmax(axis=-1, keepdims=True)
        highest = np.take_along_axis(x, top, axis=-1)
        d = _divided(_two_sum(x, -highest), temperature)
        if temperature == 0:
            np.put_along_axis(d.high, top, 0, axis=-1)
        e = exp(d)
        for part in e:
            np.put_along_axis(part, top, 0, axis=-1)
        rest = total(e)
        np.put_along_axis(e.high, top, 1, axis=-1)
        nothing = np.zeros_like(highest)
        whole = add(Pair(nothing + 1, nothing), rest)
        log_whole = log1p(rest)
        log_p = add(d, _negative(log_whole))
        # Of an infinite difference the rounding error is no number.
        far = np.isinf(d.high)
        log_p = Pair(np.where(far, d.high, log_p.high), np.where(far, 0, log_p.low))
        log_sum = add(_divided(Pair(highest, nothing), temperature), log_whole)
        return Exact(divide(e, whole), log_p, log_sum, divide(rest, whole))


def _divided(d, temperature):
    """Return d / temperature; minus infinity at 0."""
    if temperature == 1:
        return d
    if temperature == 0 or math.isinf(temperature):
        return Pair(np.full_like(d.high, 0 if temperature else -np.inf), np.zeros_like(d.high))
    t = np.float64(temperature)
    q = divide(d, Pair(t, np.float64(0)))
    lost = ~np.isfinite(q.high)
    return Pair(np.where(lost, d.high / t, q.high), np.where(lost, 0, q.low))
