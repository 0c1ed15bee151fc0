"""softmax, log_softmax and logsumexp: the formulas, a row at a time, and over arrays."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arguments.arrays import as_array, check_out, mask, reduced_axes, result_dtype
from .._arguments.results import SoftmaxAndLse
from .._arguments.statistics import check_fits
from .._arguments.values import switch, temperatures
from .rows import as_rows, doubles, from_rows, kept_axes, over_rows, public

LARGEST = float(np.finfo(np.float64).max)


@public
def softmax(x: Any, axis: Any, temperature: Any, where: Any, out: Any, return_lse: Any) -> Any:
    if not switch(return_lse, "return_lse"):
        return map_rows(softmax_row, 0.0, x, axis, temperature, where, out)
    lse = reduce_rows(logsumexp_row, x, axis, temperature, where, False)
    return SoftmaxAndLse(map_rows(softmax_row, 0.0, x, axis, temperature, where, out), lse)


@public
def log_softmax(x: Any, axis: Any, temperature: Any, where: Any, out: Any) -> Any:
    return map_rows(log_softmax_row, -np.inf, x, axis, temperature, where, out)


@public
def logsumexp(x: Any, axis: Any, b: Any, where: Any, keepdims: Any, return_sign: Any) -> Any:
    return_sign = switch(return_sign, "return_sign")
    if b is None and not return_sign:
        return reduce_rows(logsumexp_row, x, axis, 1.0, where, keepdims)
    b = as_array(1.0 if b is None else b, "b")
    log = reduce_rows(weighted_row, x, axis, 1.0, where, keepdims, b, "b")
    sign = reduce_rows(sign_row, x, axis, 1.0, where, keepdims, b, "b")
    with np.errstate(all="ignore"):
        return (log, sign) if return_sign else np.where(sign < 0, sign.dtype.type(np.nan), log)[()]


# ---- one row -------------------------------------------------------------------------------------


def softmax_row(x: np.ndarray, temperature: float) -> np.ndarray:
    """p_i = exp(d_i) / sum_j exp(d_j), d = (x - max) / T"""
    e = np.exp(scores(x, temperature))
    return e / math.fsum(e)


def log_softmax_row(x: np.ndarray, temperature: float) -> np.ndarray:
    """log p_i = d_i - log1p(sum of exp(d_j) but the largest), d = (x - max) / T"""
    d = scores(x, temperature)
    return d - np.log1p(rest(d))


def logsumexp_row(x: np.ndarray, temperature: float = 1.0) -> float:
    """log sum_j exp(x_j / T) = max / T + log1p(sum of exp((x_j - max) / T) but the largest)"""
    highest = x.max(initial=-np.inf)
    if not np.isfinite(highest):
        return float(highest)
    held = min(1 / temperature, LARGEST) if temperature > 0 else LARGEST
    return float(highest * held + np.log1p(rest(scores(x, temperature))))


def exact_sum(terms: np.ndarray) -> float:
    """the sum of some terms, rounded once; of infinite ones, or beyond the range, NumPy's"""
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):
        return float(terms.sum())


def weighted_terms(x: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """max, sum of the weights b of the largest entries, sum of b_j exp(x_j - max) of the others"""
    keep = (b != 0) & (x != -np.inf)
    x, b = x[keep], b[keep]
    highest = float(x.max(initial=-np.inf))
    largest = x == highest
    if not math.isfinite(highest):  # NaN, or weights of infinity
        return highest, float((b * highest)[largest].sum()), float(x[~largest].sum())
    others = b[~largest] * np.exp(x[~largest] - highest)
    return highest, exact_sum(b[largest]), exact_sum(others)


def weighted_row(x: np.ndarray, temperature: float, b: np.ndarray) -> float:
    """log |sum_j b_j exp(x_j)|"""
    highest, largest, others = weighted_terms(x, b)
    total = largest + others
    if not np.isfinite(highest):
        return abs(total) if total != 0 else -math.inf
    if largest != 0 and math.isfinite(total) and -1 < others / largest < 1e17:
        return float(highest + (np.log(abs(largest)) + np.log1p(others / largest)))
    return float(highest + np.log(abs(total))) if total != 0 else -math.inf


def sign_row(x: np.ndarray, temperature: float, b: np.ndarray) -> float:
    """the sign of sum_j b_j exp(x_j)"""
    _, largest, others = weighted_terms(x, b)
    return float(np.sign(largest + others))


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


def counted(
    x: Any, axis: Any, where: Any, name: str = "x"
) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    """Return `x`, the argument `name`, its axes to reduce, and for each row which entries count."""
    x = as_array(x, name)
    axes = reduced_axes(axis, max(x.ndim, 1))
    counts = mask(where, x.shape)
    return x, axes, as_rows(np.broadcast_to(True, x.shape) if counts is None else counts, axes)


def reduce_rows(
    function: Callable[..., float],
    x: Any,
    axis: Any,
    temperature: Any,
    where: Any,
    keepdims: Any,
    other: np.ndarray | None = None,
    name: str = "",
    first: str = "x",
) -> Any:
    """Return ``function(row, T)`` of the entries that count of each row of the argument `first`.

    Or ``function(row, T, row2)`` with the rows of `other`, the argument `name`.
    """
    keepdims = switch(keepdims, "keepdims")
    x, axes, counts = counted(x, axis, where, first)
    dtype = result_dtype(x.dtype)
    second = []
    if other is not None:
        check_fits(other, name, first, x.shape)
        if result_dtype(other.dtype) == np.float64:
            dtype = np.dtype(np.float64)
        second = [as_rows(np.broadcast_to(doubles(other), x.shape), axes)]
    t = temperatures(temperature, tuple(x.shape[a] for a in kept_axes(x.ndim, axes)))

    def reduce_row(row: np.ndarray, c: np.ndarray, t: float, *others: np.ndarray) -> float:
        return function(row[c], t, *(other[c] for other in others))

    values = over_rows(reduce_row, doubles(x), axes, counts, t, *second)
    shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes]
    with np.errstate(all="ignore"):
        return np.array(values, float).astype(dtype).reshape(shape)[()]


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
