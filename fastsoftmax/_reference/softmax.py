"""softmax, log_softmax and logsumexp: the formulas, a row at a time, and over arrays."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arguments.arrays import as_array, check_out, mask, reduced_axes, result_dtype
from .._arguments.values import switch, temperatures
from .rows import as_rows, doubles, from_rows, kept_axes, over_rows, public

LARGEST = float(np.finfo(np.float64).max)


@public
def softmax(x: Any, axis: Any, temperature: Any, where: Any, out: Any) -> Any:
    return map_rows(softmax_row, 0.0, x, axis, temperature, where, out)


@public
def log_softmax(x: Any, axis: Any, temperature: Any, where: Any, out: Any) -> Any:
    return map_rows(log_softmax_row, -np.inf, x, axis, temperature, where, out)


@public
def logsumexp(x: Any, axis: Any, where: Any, keepdims: Any) -> Any:
    keepdims = switch(keepdims, "keepdims")
    x, axes, counts = counted(x, axis, where)
    values = over_rows(lambda row, c: logsumexp_row(row[c]), doubles(x), axes, counts)
    shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes]
    with np.errstate(all="ignore"):
        return np.array(values, float).astype(result_dtype(x.dtype)).reshape(shape)[()]


# ---- one row -------------------------------------------------------------------------------------


def softmax_row(x: np.ndarray, temperature: float) -> np.ndarray:
    """p_i = exp(d_i) / sum_j exp(d_j), d = (x - max) / T"""
    e = np.exp(scores(x, temperature))
    return e / math.fsum(e)


def log_softmax_row(x: np.ndarray, temperature: float) -> np.ndarray:
    """log p_i = d_i - log1p(sum of exp(d_j) but the largest), d = (x - max) / T"""
    d = scores(x, temperature)
    return d - np.log1p(rest(d))


def logsumexp_row(x: np.ndarray) -> float:
    """log sum_j exp(x_j) = max + log1p(sum of exp(x_j - max) but the largest)"""
    highest = x.max(initial=-np.inf)
    if not np.isfinite(highest):
        return float(highest)
    return float(highest + np.log1p(rest(x - highest)))


def scores(x: np.ndarray, temperature: float) -> np.ndarray:
    """d = (x - max) / T; NaN for a row that has no probabilities"""
    highest = x.max(initial=-np.inf)
    if not np.isfinite(highest):  # NaN somewhere, +inf somewhere, or nothing but -inf
        return np.full(x.shape, np.nan)
    if temperature == 0:
        return np.where(np.arange(x.size) == x.argmax(), 0.0, -np.inf)
    if temperature == np.inf:
        return np.where(x > -np.inf, 0.0, -np.inf)
    return (x - highest) * inverse(temperature)


def inverse(temperature: float) -> float:
    """1/T, held at the largest finite number; 0 for T = 0, which is a case of its own"""
    return float(min(1 / temperature, LARGEST)) if temperature > 0 else 0.0


def rest(d: np.ndarray) -> float:
    """sum_j exp(d_j) without the largest entry's own term, which is 1"""
    return math.fsum(np.exp(np.delete(d, d.argmax()))) if d.size else 0.0


# ---- arrays --------------------------------------------------------------------------------------


def counted(x: Any, axis: Any, where: Any) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    """Return `x`, its axes to reduce, and for each row which entries count."""
    x = as_array(x, "x")
    axes = reduced_axes(axis, max(x.ndim, 1))
    counts = mask(where, x.shape)
    return x, axes, as_rows(np.broadcast_to(True, x.shape) if counts is None else counts, axes)


def map_rows(
    function: Callable[[np.ndarray, float], np.ndarray],
    absent: float,
    x: Any,
    axis: Any,
    temperature: Any,
    where: Any,
    out: Any,
) -> Any:
    """Apply `function` to the entries of each row of `x` that count; the others are `absent`."""
    x, axes, counts = counted(x, axis, where)
    shape = tuple(x.shape[a] for a in kept_axes(x.ndim, axes))
    t = temperatures(temperature, shape)
    check_out(out, x.shape, result_dtype(x.dtype))

    def map_row(row: np.ndarray, c: np.ndarray, temperature: float) -> np.ndarray:
        y = np.full(row.shape, absent)
        if c.any():
            y[c] = function(row[c], temperature)
        return y

    y = from_rows(over_rows(map_row, doubles(x), axes, counts, t), x, axes, out)
    return y if out is not None else y[()]
