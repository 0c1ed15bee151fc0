"""Means, entropies, divergences and statistics of rows: the formulas, a row at a time."""

import math
from typing import Any

import numpy as np

from .._arguments.arrays import as_array, one_axis, result_dtype
from .._arguments.results import RowStats
from .._arguments.statistics import wanted
from .._arguments.values import count, temperatures, token_ids
from .rows import doubles, over_rows, public
from .selection import best_first, ids_of_rows
from .softmax import LARGEST, counted, exact_sum, logsumexp_row, reduce_rows, rest, scores

MAX_TOP = 128
REACH = 512  # of entries from their origin that `exp_digits` counts


@public
def logmeanexp(x: Any, axis: Any, where: Any, keepdims: Any) -> Any:
    def row(x: np.ndarray, _: float) -> float:
        """max + (log sum_j exp(x_j - max) - log n)"""
        highest = x.max(initial=-np.inf)
        if x.size == 0 or not np.isfinite(highest):
            return float(highest) if x.size else math.nan
        return float(highest + (np.log1p(rest(x - highest)) - math.log(x.size)))

    return reduce_rows(row, x, axis, 1.0, where, keepdims)


@public
def entropy(logits: Any, axis: Any, temperature: Any, where: Any, keepdims: Any) -> Any:
    return reduce_rows(entropy_row, logits, axis, temperature, where, keepdims, first="logits")


@public
def kl_divergence(
    logits: Any, other: Any, axis: Any, temperature: Any, where: Any, keepdims: Any
) -> Any:
    y = as_array(other, "other")
    return reduce_rows(
        divergence_row, logits, axis, temperature, where, keepdims, y, "other", "logits"
    )


@public
def row_stats(logits: Any, want: Any, axis: Any, top: Any, ids: Any, temperature: Any) -> RowStats:
    names = wanted(want)
    x = np.atleast_1d(as_array(logits, "logits"))
    x = np.moveaxis(x, one_axis(axis, x.ndim), -1)
    shape, n = x.shape[:-1], x.shape[-1]
    top = count(top, "top", 0, min(n, MAX_TOP))
    t = temperatures(temperature, shape)
    dtype = result_dtype(x.dtype)
    values = doubles(x)
    found: dict[str, Any] = {}
    for name in names:
        function, kind = STATISTICS[name]
        found[name] = over_rows(function, values, (x.ndim - 1,), t)
        with np.errstate(all="ignore"):
            found[name] = np.array(found[name], float).astype(kind or dtype).reshape(shape)[()]
    if top:
        best = over_rows(lambda row: best_first(row)[:top], values, (x.ndim - 1,))
        indices = np.array(best, np.int64).reshape(*shape, top)
        with np.errstate(all="ignore"):
            found["top_values"] = np.take_along_axis(values, indices, -1).astype(dtype)
        found["top_indices"] = indices
    if ids is not None:
        ids = token_ids(ids, shape, n)
        ranks = over_rows(
            lambda row, i: np.argsort(best_first(row))[i],
            values,
            (x.ndim - 1,),
            ids_of_rows(ids, x),
        )
        found["ranks"] = np.array(ranks, np.int64).reshape(ids.shape)[()]
    return RowStats(**found)


# ---- one row -------------------------------------------------------------------------------------


def entropy_row(x: np.ndarray, temperature: float) -> float:
    """log sum_j exp(d_j) - sum_j p_j d_j, d = (x - max) / T, p = exp(d) / sum_j exp(d_j)"""
    if not x.size:
        return math.nan
    d = scores(x, temperature)
    e, others = np.exp(d), rest(d)
    return float(np.log1p(others) + math.fsum((-e * d)[e != 0]) / (1 + others))


def divergence_row(x: np.ndarray, temperature: float, y: np.ndarray) -> float:
    """sum_j p_j (d_j - d'_j) - (log sum_j exp(d_j) - log sum_j exp(d'_j))"""
    if not x.size:
        return math.nan
    d, other = scores(x, temperature), scores(y, temperature)
    if np.isnan(d).any() or np.isnan(other).any():
        return math.nan
    e, others = np.exp(d), rest(d)
    odds = (d - other)[e != 0]
    mean = exact_sum(e[e != 0] * odds) / (1 + others)
    return max(0.0, float(mean - (np.log1p(others) - np.log1p(rest(other)))))


def argmax_row(x: np.ndarray, _: float) -> int:
    """the first place of the largest entry, -1 in a row with NaN"""
    return -1 if np.isnan(x).any() or not x.size else int(x.argmax())


def margin_row(x: np.ndarray, temperature: float) -> float:
    """(x_1 - x_2) / T of the two largest entries"""
    if not x.size or not np.isfinite(x.max()):
        return math.nan
    if x.size == 1:
        return math.inf
    second, first = np.sort(x)[-2:]
    if second == -np.inf:
        return math.inf
    held = min(1 / temperature, LARGEST) if temperature > 0 else LARGEST
    return float((first - second) * held) if held > 0 else 0.0


STATISTICS = {
    "max": (lambda x, _: x.max(initial=-np.inf), None),
    "argmax": (argmax_row, np.int64),
    "logsumexp": (logsumexp_row, None),
    "entropy": (entropy_row, None),
    "margin": (margin_row, None),
}


# ---- digits, for `LogSumExp` ---------------------------------------------------------------------


def exp_digits(
    x: Any, axis: Any, where: Any, origin: np.ndarray, top: np.ndarray, digits: np.ndarray
) -> None:
    """Add the digits of exp(x - `origin`) of each row of x to `digits`, the lowest first.

    Digit i of a number v, 2**(32 (top - i)) a unit, is v / unit to nearest; v less that goes on.
    """
    x, axes, counts = counted(x, axis, where)

    def of_row(row: np.ndarray, c: np.ndarray, origin: float, top: int) -> list[int]:
        d = row[c] - origin
        terms = np.exp(d[(-REACH <= d) & (d < REACH)])
        found = []
        for i in range(4):
            cut = np.rint(terms * 2.0 ** (-32 * (int(top) - i)))
            found.append(int(cut.sum()))
            terms = terms - cut * 2.0 ** (32 * (int(top) - i))
        return found[::-1]

    rows = over_rows(of_row, doubles(x), axes, counts, origin, top)
    digits += np.array(rows, np.int64).reshape(digits.shape)
