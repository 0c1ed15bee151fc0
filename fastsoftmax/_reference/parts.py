"""Parts of rows, for `fastsoftmax.dask`: sums that merge, results by the sums of whole rows, races.

Sums are four numbers a row: the maximum, its exponential, and the sum of the others as a pair; all
exponentials are of (x - max) / T here, so that the maximum's is 1.
"""

import math
from typing import Any

import numpy as np

from .._arguments.arrays import as_array, result_dtype
from .._arguments.values import count, filters, race_words
from .race import gumbels, race
from .rows import doubles, from_rows, over_rows
from .sampling import survivors
from .softmax import counted, inverse, rest


def part_sums(
    x: Any, axis: Any, temperature: Any, where: Any, any_pivot: bool = False
) -> np.ndarray:
    x, axes, counts = counted(x, axis, where)
    shape = [n for a, n in enumerate(x.shape) if a not in axes]
    rows = over_rows(
        lambda row, c, t: sums_of_row(row[c], float(t)),
        doubles(x), axes, counts, in_range(temperature),
    )  # fmt: skip
    return np.reshape(rows, (*shape, 4)).astype(float)


def part_result(
    x: Any, sums: np.ndarray, axis: Any, temperature: Any, where: Any, log: bool
) -> np.ndarray:
    x, axes, counts = counted(x, axis, where)

    def row(x: np.ndarray, c: np.ndarray, t: float, s: np.ndarray) -> np.ndarray:
        y = np.full(x.shape, -np.inf if log else 0.0)
        d = (x[c] - s[0]) * inverse(t)
        y[c] = d - s[2] if log else np.exp(d) / (s[2] + s[3])
        if not np.isfinite(s[0]):
            y[c] = np.nan
        return y

    rows = over_rows(
        row, doubles(x), axes, counts, in_range(temperature), np.reshape(sums, (-1, 4))
    )
    return from_rows(rows, x, axes, np.empty(x.shape, result_dtype(x.dtype)))


def race_part(
    logits: Any, *, first_id: Any, highest: Any, temperature: Any = 1.0, seed: Any = None,
    position: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    x = np.atleast_1d(as_array(logits, "logits"))
    shape = x.shape[:-1]
    f = filters(shape, temperature, None, None, None, 1)
    first = count(first_id, "first_id", 0)
    if first % 128:
        raise ValueError(f"first_id is {first_id}; allowed are multiples of 128")
    keys = np.stack(race_words(None, seed, position, shape), axis=-1)
    most = np.broadcast_to(np.asarray(highest, float), shape).reshape(-1)

    def row(x: np.ndarray, f: np.void, key: np.ndarray, most: float) -> tuple[int, float]:
        kept, _ = survivors(x, f, 0.0)
        if not kept.size:
            return -1, -np.inf
        seed, position = key.tolist()
        g = gumbels(seed, position, 0, first + x.size)[first:]
        places, scores = race(x[kept], most, inverse(f["temperature"]), g[kept], 1)
        return (first + int(kept[places[0]]), float(scores[0])) if places.size else (-1, -np.inf)

    rows = over_rows(row, doubles(x), (x.ndim - 1,), f, keys, most)
    ids = np.array([i for i, _ in rows], np.int64).reshape(shape)
    return ids[()], np.array([s for _, s in rows], float).reshape(shape)[()]


def sums_of_row(x: np.ndarray, temperature: float) -> list[float]:
    """max, 1, sum_j exp((x_j - max) / T) but the largest's own term, 0"""
    highest = float(x.max(initial=-np.inf))
    if np.isnan(x).any():
        return [float(np.nanmax(x, initial=-np.inf)), 1.0, math.nan, 0.0]
    if not math.isfinite(highest):
        return [highest, 1.0, 0.0, 0.0]
    return [highest, 1.0, rest((x - highest) * inverse(temperature)), 0.0]


def in_range(temperature: Any) -> np.ndarray:
    """Return temperatures, one or one a row, at which sums of parts are made; or raise."""
    t = np.asarray(temperature, float).reshape(-1)
    for bad in t[~((t >= 1e-30) & (t <= 1e30))]:
        raise ValueError(
            f"temperature is {bad}; allowed where chunks split the rows are 1e-30 to 1e30"
        )
    return t
