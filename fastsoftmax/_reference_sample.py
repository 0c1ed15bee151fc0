"""The oracle's filters and draws: a row at a time, in float64, over a full sort.

`_reference` offers these functions as its own, and says what the oracle is for.
"""

import math
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from . import _arrays, _philox, _threads
from ._arrays import Support

LARGEST = np.finfo(np.float64).max


def filter_logits(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    ties: str = "index",
    out: Any = None,
    workers: Any = None,
) -> Any:
    """Return ``logits / temperature`` with everything that the filters remove set to -inf.

    The filters are those of `sample`, in the same order.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Scores; dtypes as in `softmax`.
    temperature, top_k, top_p, min_p, min_keep
        As in `sample`.
    ties : {"index", "all"}
        What `top_k` does with what equals its last entry: exactly `top_k` stay, the lower index
        wins; or all of it stays (as in Hugging Face transformers and vLLM).
    out : ndarray, optional
        Where to write, of the result's shape and dtype and any strides. ``out=logits`` works in
        place.
    workers : int, optional
        As in `softmax`.

    Returns
    -------
    ndarray
        Same shape as `logits`; `out` if it was given. A row without probabilities (NaN, +inf or
        nothing above -inf in it) is NaN, as in `softmax`.

    Raises
    ------
    ValueError
        A parameter out of range, an `out` of another shape.
    TypeError
        A dtype without probabilities, a parameter that is no number, an `out` of another dtype.

    Notes
    -----
    ``logits * (1/T)``, 1/T held at the largest float64, rounded once; T = 1 changes no bit. What
    would overflow becomes the dtype's largest number, so that a survivor never is infinite. T = 0
    leaves the largest entry (the lowest index among equals), as 0: the logarithm of its
    probability. T = inf leaves 0 where there was a number. An entry of -inf stays -inf.

    Cost: as `sample`, and one write, with a product for each entry that is left if T is not 1.

    Examples
    --------
    >>> from fastsoftmax import filter_logits
    >>> filter_logits([3.0, 1.0, 2.0, 2.0], top_k=2, temperature=0.5)
    array([  6., -inf,   4., -inf])
    >>> filter_logits([3.0, 1.0, 2.0, 2.0], top_k=2, ties="all")
    array([  3., -inf,   2.,   2.])
    """
    _threads.check(workers)
    rows = _Rows(logits)
    filters = _arrays.filters(rows.shape, temperature, top_k, top_p, min_p, min_keep)
    every_tie = _arrays.choice(ties, "ties", ("index", "all")) == "all"
    _arrays.check_out(out, rows.full, rows.dtype)
    result = np.full(rows.data.shape, -np.inf)
    for row_y, (row, f) in zip(result, rows.with_filters(filters), strict=True):
        kept, _ = _survivors(row, f, rows.eps, every_tie)
        if kept.size == 0:
            row_y[:] = np.nan
        kept = kept[row[kept] > -np.inf]
        with np.errstate(over="ignore"):
            scaled = row[kept] * _inverse(f["temperature"])
        row_y[kept] = np.clip(scaled, -LARGEST, LARGEST)
    y = _arrays.held(result, rows.dtype).reshape(rows.full)
    if out is None:
        return y[()]
    out[...] = y
    return out


def support(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
) -> Support:
    """Return what `sample` can draw from each row, and with which probabilities.

    Parameters
    ----------
    logits, temperature, top_k, top_p, min_p, min_keep
        As in `sample`.

    Returns
    -------
    Support
        Named tuple of ``indices`` (int64) and ``probs`` (the dtype of the logits; a row sums to 1),
        both of shape ``(..., most)`` and most likely first, the lower index among equals, padded
        with -1 and 0; and ``counts`` (int64, shape ``(...)``), how many there are in each row. A
        row that `sample` refuses (NaN, +inf or nothing above -inf in it) has none.

    Raises
    ------
    ValueError, TypeError
        As `sample`.

    Notes
    -----
    What has a weight of zero (an entry of -inf, or one so far below the largest that its float64
    weight is 0) is not part of it, even if `top_k` or `min_keep` would keep it: `sample` never
    draws it.

    Cost: as `sample`, and a sort of what survives.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import support
    >>> indices, probs, counts = support(np.log([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]]), top_p=0.7)
    >>> indices, counts
    (array([[ 1,  2],
           [ 0, -1]]), array([2, 1]))
    >>> probs
    array([[0.625, 0.375],
           [1.   , 0.   ]])
    """
    rows = _Rows(logits)
    filters = _arrays.filters(rows.shape, temperature, top_k, top_p, min_p, min_keep)
    found = []
    for row, f in rows.with_filters(filters):
        kept, weight = _survivors(row, f, rows.eps)
        kept, weight = kept[weight > 0], weight[weight > 0]
        order = np.argsort(-(weight if f["temperature"] == np.inf else row[kept]), kind="stable")
        found.append((kept[order], weight[order] / math.fsum(weight) if kept.size else weight))
    counts = np.array([len(kept) for kept, _ in found], dtype=np.int64)
    shape = (len(found), max(counts, default=0))
    indices, probs = np.full(shape, -1, dtype=np.int64), np.zeros(shape)
    for i, (kept, p) in enumerate(found):
        indices[i, : kept.size], probs[i, : kept.size] = kept, p
    wide = (*rows.shape, shape[1])
    probs = probs.reshape(wide).astype(rows.dtype)
    return Support(indices.reshape(wide), probs, counts.reshape(rows.shape)[()])


def sample(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    size: int | None = None,
    replace: bool = True,
    rng: Any = None,
    seed: Any = None,
    position: Any = None,
    on_invalid: str = "raise",
    workers: Any = None,
) -> Any:
    """Draw one index a row, or many, with the probabilities of its logits after the filters.

    The order is: temperature, then `top_k`, then `top_p` on the probabilities renormalised over
    what `top_k` left, then `min_p`. What survives is renormalised and drawn from.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Scores; dtypes as in `softmax`.
    temperature : float or array_like, default 1.0
        Scores are divided by it. 0 takes the largest entry, the lowest index among equals.
    top_k : int or array_like of int, optional
        Keep exactly this many; the lower index wins among equals. None, 0 and n or more keep all.
    top_p : float or array_like, optional
        In the order probability descending, index ascending, keep the shortest prefix whose mass
        reaches `top_p`, the crossing entry included. None and 1 keep all.
    min_p : float or array_like, optional
        Keep what is at least `min_p` times as likely as the most likely entry. None and 0 keep all.
    min_keep : int, default 1
        Each filter leaves at least this many.
    size : int, optional
        How many to draw from each row. None draws one and adds no axis; 0 draws nothing and looks
        at nothing.
    replace : bool, default True
        Whether an index can be drawn again. False draws each from what the draws before it left,
        with renormalised probabilities, so that the `size` indices are distinct.
    rng : None, int or numpy.random.Generator
        Where the randomness comes from: one float64 uniform a draw, ``rng.random((rows, size))``.
    seed, position : int or array_like of int, optional
        From 0 to 2**64 - 1, both or none, instead of `rng`: the uniforms of a row are a function
        of its seed and position alone, whatever else is drawn, in which batch and in which order:
        ``Generator(Philox(key=seed, counter=position)).random(size)`` of numpy.random. A position
        provides four; more come from the positions behind it, so that draws of `size` are
        independent at positions ``ceil(size / 4)`` apart.
    on_invalid : {"raise", "flag"}
        What a row with NaN, with +inf or with nothing to draw does, and one with fewer than `size`
        to draw without replacement: an error, or the index -1 for what is missing.
    workers : int, optional
        As in `softmax`. The uniforms are drawn before, in row order, and so don't depend on it.

    Returns
    -------
    ndarray of int64, shape ``logits.shape[:-1]``, or ``(*logits.shape[:-1], size)``
        In the order drawn. A NumPy scalar for one row of logits without `size`. `temperature`,
        `top_k`, `top_p`, `min_p`, `seed` and `position` may have one value a row (they broadcast to
        ``logits.shape[:-1]``).

    Raises
    ------
    ValueError
        A parameter out of range, `rng` beside `seed`, or a row that cannot be drawn from, or not
        `size` times without replacement (it is named).
    TypeError
        A dtype without probabilities, a `top_k`, `min_keep`, `size`, `seed` or `position` that is
        no integer, a `replace` that is no bool.

    Notes
    -----
    The index drawn is the first, walking the survivors in index order, whose cumulative weight
    exceeds ``u * total``; without replacement, what was drawn is no survivor any more. Weights and
    sums are float64 for every dtype, so that implementations draw the same index unless `u` is
    within rounding (some 2**-52) of where two indices meet; an entry of weight zero is never drawn.
    `top_p` counts as reached at ``top_p * (1 - 4 eps)``, eps of the logits' dtype. Nothing sorts
    the vocabulary. At T = inf all that `top_k` leaves (and that is not -inf) is equally likely: the
    index decides in `top_p`.

    Cost: one read of the row with `top_k`; one exponential an entry without. A nucleus (`top_p`
    without `top_k`) of more than some hundred entries takes up to four times as long as a smaller
    one, whatever its size. Further draws look at the survivors alone: with replacement each is a
    bisection, without it a walk over at most 2048 of them and over the sums of the others by 2048.

    References
    ----------
    .. [1] A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The Curious Case of Neural Text
       Degeneration", ICLR 2020, https://arxiv.org/abs/1904.09751 (top-p)
    .. [2] N. N. Minh et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM
       Outputs", ICLR 2025, https://arxiv.org/abs/2407.01082

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import sample
    >>> logits = np.array([[0.0, 1.0, 2.0], [3.0, 3.0, -np.inf]])
    >>> sample(logits, top_k=2, rng=0)
    array([2, 0])
    >>> sample(logits, temperature=0)
    array([2, 0])
    >>> sample(logits, seed=[3, 4], position=17)  # request 3 and request 4, token 17
    array([2, 0])
    >>> sample(logits, size=4, rng=0)
    array([[2, 1, 0, 0],
           [1, 1, 1, 1]])
    >>> sample(logits, size=2, replace=False, rng=0)
    array([[2, 1],
           [0, 1]])
    """
    _threads.check(workers)
    rows = _Rows(logits)
    filters = _arrays.filters(rows.shape, temperature, top_k, top_p, min_p, min_keep)
    return _draw(rows, filters, size, replace, (rng, seed, position), on_invalid)[0]


# ---- one row, float64 ----------------------------------------------------------------------------


def _inverse(temperature: float) -> float:
    """Return 1/T, held at the largest finite number; 0 for T = 0, which is a case of its own."""
    return float(min(1 / temperature, LARGEST)) if temperature > 0 else 0.0


def _scores(x: np.ndarray, temperature: float) -> np.ndarray:
    """Return ``(x - max) / temperature``; NaN for a row that has no probabilities."""
    highest = x.max()
    if not np.isfinite(highest):  # NaN somewhere, +inf somewhere, or nothing but -inf
        return np.full(x.shape, np.nan)
    if temperature == 0:
        return np.where(np.arange(x.size) == x.argmax(), 0.0, -np.inf)
    if temperature == np.inf:
        return np.where(x > -np.inf, 0.0, -np.inf)
    return (x - highest) * _inverse(temperature)


def _others(d: np.ndarray) -> float:
    """Return the sum of ``exp(d)`` without the largest entry's own term, which is 1."""
    return math.fsum(np.exp(np.delete(d, d.argmax())))


def _order(x: np.ndarray, mode: str = "largest") -> np.ndarray:
    """Return all indices, best first: NaN last, the lower index first among equals."""
    if _arrays.is_bfloat16(x.dtype):
        x = x.astype(np.float32)
    _, rank = np.unique(x, return_inverse=True)  # ranks can be negated in every dtype
    nan = x != x
    return np.lexsort((np.arange(x.size), -rank if mode == "largest" else rank, nan))


def _survivors(
    x: np.ndarray, f: np.void, eps: float, every_tie: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices that the filters leave, in index order, and their weights.

    There are none in a row that has no probabilities.
    """
    if x.size == 0 or not np.isfinite(x.max()):  # NaN or +inf somewhere, or nothing but -inf
        return np.array([], dtype=np.int64), np.array([])
    temperature, top_k, top_p, log_min_p, min_keep = f.tolist()
    with np.errstate(all="ignore"):
        d = _scores(x, temperature)
        weight = np.exp(d)
    kept = _order(x)
    if 0 < top_k < x.size:
        k = max(top_k, min_keep)
        if every_tie and k < x.size:
            k = np.count_nonzero(x >= x[kept[k - 1]])
        kept = kept[:k]
    if temperature == 0:
        kept = kept[:1]
    if temperature == np.inf:  # what is not -inf is equally likely now
        kept = kept[np.lexsort((kept, -d[kept]))]
    if top_p < 1:
        cumulative = np.cumsum(weight[kept])
        reached = np.searchsorted(cumulative, top_p * cumulative[-1] * (1 - 4 * eps))
        kept = kept[: max(reached + 1, min_keep)]
    kept = kept[: max(np.count_nonzero(d[kept] >= log_min_p), min_keep)]
    kept = np.sort(kept)
    return kept, weight[kept]


def _draw(
    rows: "_Rows",
    filters: np.ndarray,
    size: Any,
    replace: Any,
    chance: tuple[Any, Any, Any],
    on_invalid: Any,
) -> tuple[Any, Any]:
    """Return the indices drawn, and their log-probabilities among the survivors."""
    flag = _arrays.choice(on_invalid, "on_invalid", ("raise", "flag")) == "flag"
    again = _arrays.switch(replace, "replace")
    uniforms = _arrays.uniforms(*chance, rows.shape, _arrays.draws(size), _philox.uniforms)
    ids = np.full(uniforms.shape, -1, dtype=np.int64)
    logs = np.full(uniforms.shape, np.nan)
    for i, (row, f) in enumerate(rows.with_filters(filters)):
        kept, weight = _survivors(row, f, rows.eps)
        if kept.size == 0:
            continue
        if again:
            places = _places(weight, uniforms[i])
        else:
            left = weight.copy()
            places = np.empty(min(len(uniforms[i]), np.count_nonzero(left)), dtype=np.int64)
            for j in range(places.size):
                places[j] = _places(left, uniforms[i, j])
                left[places[j]] = 0
        with np.errstate(all="ignore"):
            d = _scores(row[kept], f["temperature"])
            ids[i, : places.size] = kept[places]
            logs[i, : places.size] = (d - np.log1p(_others(d)))[places]
    ids = _arrays.drawn(ids, rows.data, rows.shape, size, flag)
    with np.errstate(over="ignore"):
        return ids, logs.astype(rows.dtype).reshape(ids.shape)[()]


def _places(weight: np.ndarray, u: Any) -> Any:
    """Return the first places whose cumulative weight exceeds ``u * total``."""
    cumulative = np.cumsum(weight)
    places = np.searchsorted(cumulative, u * cumulative[-1], side="right")
    return np.minimum(places, np.flatnonzero(weight)[-1])  # u * total may round up to the total


class _Rows:
    """Logits as rows along the last axis."""

    def __init__(self, logits: Any) -> None:
        x = _arrays.as_array(logits, "logits")
        self.full = x.shape
        *shape, self.n = x.shape or (1,)
        self.shape = tuple(shape)
        self.data = x.reshape(prod(self.shape), self.n)
        self.dtype = _arrays.result_dtype(x.dtype)
        self.eps = float(np.finfo(_arrays.work_dtype(x.dtype)).eps)

    def with_filters(self, filters: np.ndarray) -> Iterator[tuple[np.ndarray, np.void]]:
        """Yield each row in float64, and its parameters."""
        for row, f in zip(self.data, np.broadcast_to(filters, len(self.data)), strict=True):
            yield row.astype(np.float64), f
