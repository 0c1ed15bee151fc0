"""What is done with one chunk, and how what was found in chunks is merged: NumPy arrays alone.

The sum of a part of a row is kept as its maximum and the sum of the other exponentials in units of
the maximum's own, a pair of float64: so it is as exact as within one array (`log1p` of the others
included), and parts merge by scaling. Of selections and races the winners are kept, in index order.
"""

import math
from typing import Any

import numpy as np

from .._arguments.arrays import work_dtype
from .._arguments.results import VALID_ROWS, why_invalid
from .._dispatch import active

#: The sum of exp((x - highest) / temperature) without the maximum's own term: high + low.
SUM = np.dtype([(name, "f8") for name in ("highest", "high", "low", "temperature")])
#: The best of a race: its score and its id, -inf and -1 where there is none.
WINNER = np.dtype([("score", "f8"), ("id", "i8")])
BLOCK = 128  # parts of a race begin at multiples of this
LN2 = np.longdouble(6243314768165359) / 2**53 + np.longdouble(2.319046813846299e-17)


def wide(dtype: Any) -> Any:
    """Return the type of the arithmetic on sums: wider than that of the exponentials."""
    return np.longdouble if work_dtype(np.dtype(dtype)) == np.float64 else np.float64


def pair(state: np.ndarray, total: np.ndarray) -> None:
    """Write `total` into the fields ``high`` and ``low``."""
    state["high"] = total
    state["low"] = np.where(np.isfinite(state["high"]), total - state["high"], 0)


# ---- whole rows ----------------------------------------------------------------------------------


def whole(
    x: np.ndarray, temperature: Any, where: Any, axes: tuple[int, ...], log: bool
) -> np.ndarray:
    """Return softmax, or its logarithm, of the rows of a chunk."""
    function = active.log_softmax if log else active.softmax
    return np.asarray(function(x, axes, temperature=without(temperature, axes), where=where))


def whole_sums(x: np.ndarray, where: Any, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Return the logarithms of the sums of the rows of a chunk."""
    return np.asarray(active.logsumexp(x, axes, where=where, keepdims=keepdims))


# ---- sums ----------------------------------------------------------------------------------------


def sums(
    x: np.ndarray, temperature: Any, where: Any, axes: tuple[int, ...], any_pivot: bool = False
) -> np.ndarray:
    """Return the sum of each row of a chunk as a `SUM`; the axes stay, with length 1.

    If `any_pivot`, ``highest`` may be another large entry: faster, but no longer for logarithms.
    """
    t = without(temperature, axes)
    raw = active.parts.part_sums(x, axes, t, where, any_pivot)
    state = np.empty(raw.shape[:-1], SUM)
    state["highest"], state["temperature"] = raw[..., 0], t
    with np.errstate(all="ignore"):
        unit = unit_of(raw, t, wide(x.dtype))
        pair(state, (raw[..., 2].astype(unit.dtype) + raw[..., 3]) / unit)
    return np.expand_dims(state, axes)


def unit_of(raw: np.ndarray, temperature: Any, kind: Any) -> np.ndarray:
    """Return exp(maximum / T) in the units of the kernel's sums, which are powers of two.

    It is the kernel's own exponential, ``raw[..., 1]``, whose error is no more than those of the
    others. For float64 the power is known by that, and by the power a number without the error;
    where the kernel's are exponentials of x - maximum, its own is exact, and far from any such.
    """
    term = raw[..., 1].astype(kind)
    if kind is np.float64:
        return term
    exponent = raw[..., 0] / np.asarray(temperature, kind)
    exact = np.exp(exponent - np.rint(exponent / LN2 - np.log2(term)) * LN2)
    return np.where(np.abs(exact / term - 1) < 2.0**-51, exact, term)


def merge(states: np.ndarray, axis: tuple[int, ...], keepdims: bool, kind: Any) -> np.ndarray:
    """Return the sums of rows by those of their parts, which lie along `axis`."""
    parts = np.moveaxis(states, axis, range(-len(axis), 0))
    kept = parts.ndim - len(axis)
    parts = parts.reshape(*parts.shape[:kept], math.prod(parts.shape[kept:]))
    highest = parts["highest"].max(-1, keepdims=True)
    best = np.arange(parts.shape[-1]) == parts["highest"].argmax(-1)[..., None]
    with np.errstate(all="ignore"):
        scale = scales(parts, highest, kind)
        rest = parts["high"].astype(kind) + parts["low"]
        rest += ~best  # their own maximum's term is 1
        merged = parts[..., 0].copy()
        merged["highest"] = highest[..., 0]
        pair(merged, (rest * scale).sum(-1))
    return np.expand_dims(merged, axis)


def scales(parts: np.ndarray, highest: np.ndarray, kind: Any) -> np.ndarray:
    """Return exp((maximum of a part - `highest`) / T) of each part."""
    d = (parts["highest"].astype(kind) - highest) / parts["temperature"]
    return np.where(parts["highest"] == highest, kind(1), np.exp(d))


def log_sum(state: np.ndarray) -> np.ndarray:
    """Return the logarithm of a row's sum in units of the maximum's term; NaN where none is."""
    rest = state["high"] + state["low"]
    return np.where(np.abs(state["highest"]) < np.inf, np.log1p(rest), np.nan)


def logsumexp(total: np.ndarray, axes: tuple[int, ...], keepdims: bool, to: np.dtype) -> np.ndarray:
    """Return the logarithms of the sums of rows."""
    with np.errstate(all="ignore"):
        finite = np.abs(total["highest"]) < np.inf
        y = np.where(finite, log_sum(total), 0) + total["highest"]
        y = np.where(np.isnan(total["high"]), np.nan, y).astype(to)
    return y if keepdims else np.squeeze(y, axes)


def result(
    x: np.ndarray, total: np.ndarray, temperature: Any, where: Any, axes: tuple[int, ...], log: bool
) -> np.ndarray:
    """Return softmax, or its logarithm, of a chunk by the sums of the whole rows."""
    t, total = without(temperature, axes), without(total, axes)
    highest = total["highest"].astype(work_dtype(x.dtype))
    sums = np.zeros((*total.shape, 4))
    sums[..., 0] = total["highest"]
    with np.errstate(all="ignore"):
        if log:
            sums[..., 2] = log_sum(total)
        else:
            raw = active.parts.part_sums(highest[..., None], -1, t, None)
            unit = unit_of(raw, t, wide(x.dtype))
            whole = unit * (1 + (total["high"].astype(unit.dtype) + total["low"]))
            sums[..., 2] = whole
            sums[..., 3] = np.where(np.isfinite(sums[..., 2]), whole - sums[..., 2], 0)
    return active.parts.part_result(x, sums, axes, t, where, log)


def without(value: Any, axes: tuple[int, ...]) -> Any:
    """Return a parameter of rows without the axes of length 1 that stand for their elements."""
    return np.squeeze(value, axes) if isinstance(value, np.ndarray) and value.ndim else value


# ---- selections ----------------------------------------------------------------------------------


def selection(dtype: Any) -> np.dtype:
    """Return the type of an entry that was selected: its value and its index."""
    return np.dtype([("values", dtype), ("indices", "i8")])


def candidates(
    x: np.ndarray, start: np.ndarray | int, k: int, axis: int, mode: str, sorted: bool
) -> np.ndarray:
    """Return the best k of a chunk that begins at index `start` along `axis`, or all of fewer."""
    found = active.top_k(x, min(k, x.shape[axis]), axis=axis, mode=mode, sorted=sorted)
    chosen = np.empty(found.indices.shape, selection(x.dtype))
    chosen["values"], chosen["indices"] = found.values, found.indices + np.max(start)
    return chosen


def best(
    chosen: np.ndarray, axis: tuple[int, ...], keepdims: bool, k: int, mode: str, sorted: bool
) -> np.ndarray:
    """Return the best k of what was chosen in parts, which comes in index order."""
    (along,) = axis
    found = active.top_k(
        chosen["values"], min(k, chosen.shape[along]), axis=along, mode=mode, sorted=sorted
    )
    return np.take_along_axis(chosen, found.indices, along)


# ---- draws ---------------------------------------------------------------------------------------


def highest(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Return the maximum of each row as float64: NaN if there is NaN."""
    if 0 in x.shape:
        return np.full([1 if i in axis else n for i, n in enumerate(x.shape)], -np.inf)
    with np.errstate(all="ignore"):
        return x.max(axis, keepdims=keepdims).astype(float)


def race(
    x: np.ndarray, highest: np.ndarray, start: np.ndarray, temperature: Any, seed: Any,
    position: Any,
) -> np.ndarray:  # fmt: skip
    """Return who wins in a chunk that begins at id `start`, by the `highest` of the whole rows.

    The first ids, up to a multiple of 128, are a part of their own: its block begins with -inf.
    """
    first, n = int(start[0]), x.shape[-1]
    parameters = {
        "temperature": without(temperature, (-1,)),
        "seed": without(seed, (-1,)),
        "position": without(position, (-1,)),
        "highest": np.where(np.isfinite(highest), highest, 0)[..., 0],
    }
    before = first % BLOCK
    cut = min(BLOCK - before, n) if before else 0
    winners = []
    if cut:
        head = np.full((*x.shape[:-1], before + cut), -np.inf, work_dtype(x.dtype))
        head[..., before:] = x[..., :cut]
        winners.append(winner(x, first, head, first - before, parameters))
    if cut < n:
        winners.append(winner(x, first, x[..., cut:], first + cut, parameters))
    if not winners:
        none = np.empty((*x.shape[:-1], 1), WINNER)
        none["score"], none["id"] = -np.inf, -1
        return none
    return first_best(np.concatenate(winners, -1), (x.ndim - 1,), True)


def winner(
    x: np.ndarray, first: int, part: np.ndarray, start: int, parameters: dict[str, Any]
) -> np.ndarray:
    """Return who wins in a `part` that begins at id `start`, of the chunk x of ids from `first`."""
    ids, scores = active.parts.race_part(part, first_id=start, **parameters)
    found = np.empty((*x.shape[:-1], 1), WINNER)
    # At T = 0 what counts is the logit alone.
    own = np.take_along_axis(x, np.maximum(ids - first, 0)[..., None], -1)[..., 0]
    greedy = (np.asarray(parameters["temperature"]) == 0) & (ids >= 0)
    found["score"][..., 0] = np.where(greedy, own.astype(float), scores)
    found["id"][..., 0] = ids
    return found


def first_best(winners: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Return the best of winners in index order: the first among equals."""
    (along,) = axis
    place = winners["score"].argmax(along, keepdims=True)
    return np.take_along_axis(winners, place, along)


def ids_of(
    winners: np.ndarray, highest: np.ndarray, *starts: np.ndarray, raises: bool
) -> np.ndarray:
    """Return the ids of the winners, -1 in rows without probabilities; or raise for the first."""
    ids = np.where(np.isfinite(highest), winners["id"], -1)[..., 0]
    if raises:
        require_drawn(ids, lambda i: highest[i], starts)
    return ids


def draw(
    x: np.ndarray, seed: Any, position: Any, *parameters: Any, names: tuple[str, ...],
    raises: bool, **constants: Any,
) -> np.ndarray:  # fmt: skip
    """Return what `sample` draws from the rows of a chunk, which are whole.

    Behind the `parameters` that `names` are of come the starts of the chunk along its other axes.
    """
    given = [without(value, (-1,)) for value in (seed, position, *parameters[: len(names)])]
    rows = dict(zip(("seed", "position", *names), given, strict=True))
    ids = np.asarray(active.sample(x, **rows, **constants, on_invalid="flag"))
    if raises:
        drawn = ids if constants["size"] is None else ids.min(-1, initial=0)
        require_drawn(drawn, lambda i: x[i], parameters[len(names) :])
    return ids


def require_drawn(ids: np.ndarray, row_of: Any, starts: Any) -> None:
    """Raise for the first of `ids` that is -1; `starts` are where the chunk begins."""
    missing = np.argwhere(ids < 0)
    if missing.size:
        place = tuple(missing[0].tolist())
        whole = tuple(i + int(np.max(start)) for i, start in zip(place, starts, strict=True))
        raise ValueError(f"logits has {why_invalid(row_of(place))} in row {whole}; {VALID_ROWS}")
