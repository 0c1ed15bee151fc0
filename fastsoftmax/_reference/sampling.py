"""The filters, the draws and the log-probabilities of tokens: over a full sort of each row."""

import math
from typing import Any

import numpy as np
from numpy.random import Generator, Philox

from .._arguments.accept import first_accepted
from .._arguments.arrays import as_array, check_out, result_dtype, work_dtype
from .._arguments.masks import allowed
from .._arguments.results import SampleResult, Support, TopLogprobs, clip_to_dtype, finish_draw
from .._arguments.values import (
    choice,
    count,
    draws,
    filters,
    race_words,
    switch,
    temperatures,
    token_ids,
    uniforms,
)
from .race import gumbels, race
from .rows import as_rows, doubles, from_rows, over_rows, public
from .selection import ids_of_rows, rank, top_k
from .softmax import LARGEST, inverse, log_softmax_row, scores

#: (x - max) / T whose weight, 2**-1022.5 of the largest, rounds to 0: there are no subnormal ones
LIGHTEST = -1022.5 * math.log(2)


@public
def filter_logits(logits: Any, ties: Any, out: Any, **parameters: Any) -> Any:
    given = as_array(logits, "logits")
    x, f, eps = with_filters(given, **parameters)
    every_tie = choice(ties, "ties", ("index", "all")) == "all"
    dtype = result_dtype(x.dtype)
    check_out(out, given.shape, dtype)
    dtype = dtype if out is None else out.dtype

    def filter_row(row: np.ndarray, f: np.void) -> np.ndarray:
        kept, _ = survivors(row, f, eps, every_tie)
        y = np.full(row.shape, -np.inf if kept.size else np.nan)
        kept = kept[row[kept] > -np.inf]
        y[kept] = quotients(row[kept], f["temperature"], dtype)
        return y

    axes = (x.ndim - 1,)
    y = from_rows(over_rows(filter_row, doubles(x), axes, f), given, axes, out)
    return y if out is not None else y[()]


@public
def support(logits: Any, **parameters: Any) -> Support:
    x, f, eps = with_filters(logits, **parameters)

    def support_row(row: np.ndarray, f: np.void) -> tuple[np.ndarray, np.ndarray]:
        kept, weight = survivors(row, f, eps)
        kept, weight = kept[weight > 0], weight[weight > 0]
        order = np.argsort(-(weight if f["temperature"] == np.inf else row[kept]), kind="stable")
        return kept[order], weight[order] / math.fsum(weight) if kept.size else weight

    found = over_rows(support_row, doubles(x), (x.ndim - 1,), f)
    counts = np.array([kept.size for kept, _ in found], dtype=np.int64)
    shape = (len(found), counts.max(initial=0))
    indices, probs = np.full(shape, -1, dtype=np.int64), np.zeros(shape)
    for i, (kept, p) in enumerate(found):
        indices[i, : kept.size], probs[i, : kept.size] = kept, p
    full = (*x.shape[:-1], shape[1])
    with np.errstate(all="ignore"):
        probs = probs.reshape(full).astype(result_dtype(x.dtype))
    return Support(indices.reshape(full), probs, counts.reshape(x.shape[:-1])[()])


@public
def sample(logits: Any, accept: Any, max_tries: Any, **arguments: Any) -> Any:
    if accept is not None:
        return first_accepted(sample, logits, accept, max_tries, **arguments)
    count(max_tries, "max_tries", 1)
    return draw(logits, **arguments)[0]


@public
def sample_with_logprobs(
    logits: Any, temperature: Any, mask: Any, mask_rows: Any, **arguments: Any
) -> SampleResult:
    ids, filtered = draw(
        logits, temperature=temperature, mask=mask, mask_rows=mask_rows, **arguments
    )
    x = with_mask(np.atleast_1d(as_array(logits, "logits")), mask, mask_rows)
    missing = ids < 0
    logprobs, ranks = np.full(ids.shape, np.nan), np.full(ids.shape, -1)
    if not np.all(missing):  # there may be no id to ask about
        some, exact = np.where(missing, 0, ids), doubles(x)
        logprobs = np.where(missing, np.nan, token_logprobs(exact, some, temperature=temperature))
        ranks = np.where(missing, -1, rank(exact, some))
    with np.errstate(all="ignore"):
        logprobs = logprobs.astype(result_dtype(x.dtype))
    return SampleResult(ids, logprobs[()], filtered, ranks[()])


@public
def token_logprobs(logits: Any, ids: Any, temperature: Any, mask: Any, mask_rows: Any) -> Any:
    x = np.atleast_1d(as_array(logits, "logits"))
    t = temperatures(temperature, x.shape[:-1])
    ids = token_ids(ids, x.shape[:-1], x.shape[-1])
    x = with_mask(x, mask, mask_rows)
    logs = over_rows(
        lambda row, t, i: log_softmax_row(row, t)[i],
        doubles(x), (x.ndim - 1,), t, ids_of_rows(ids, x),
    )
    with np.errstate(all="ignore"):
        return np.array(logs, float).astype(result_dtype(x.dtype)).reshape(ids.shape)[()]


@public
def top_logprobs(logits: Any, n: Any, temperature: Any, mask: Any, mask_rows: Any) -> TopLogprobs:
    x = np.atleast_1d(as_array(logits, "logits"))
    n = count(n, "n", 0, x.shape[-1])
    temperatures(temperature, x.shape[:-1])  # what is wrong is said first
    x = with_mask(x, mask, mask_rows)
    indices = top_k(x, n).indices
    return TopLogprobs(token_logprobs(x, indices, temperature=temperature), indices)


# ---- one row -------------------------------------------------------------------------------------


def survivors(
    x: np.ndarray, f: np.void, eps: float, every_tie: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """the indices that the filters leave, in index order, and their weights exp((x - max) / T)

    There are none in a row that has no probabilities.
    """
    if not np.isfinite(x.max(initial=-np.inf)):  # NaN or +inf somewhere, or nothing but -inf
        return np.array([], dtype=np.int64), np.array([])
    temperature, top_k, top_p, log_min_p, min_keep = f.tolist()
    d = scores(x, temperature)
    weight = np.where(d > LIGHTEST, np.exp(d), 0.0)
    kept = np.argsort(-x, kind="stable")
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


def quotients(x: np.ndarray, temperature: float, dtype: np.dtype) -> np.ndarray:
    """x / T in `dtype`; (x - max) / T, held at the least finite number, where that overflows"""
    y = x * inverse(temperature)
    if np.isinf(y.astype(dtype)).any():
        y = np.maximum((x - x.max()) * inverse(temperature), -LARGEST)
    return clip_to_dtype(y, dtype)


def draw_row(
    x: np.ndarray, f: np.void, u: np.ndarray, m: int, eps: float, replace: bool
) -> tuple[np.ndarray, np.ndarray]:
    """m indices, -1 where there is none, and their log p among the survivors

    By m uniforms u; where these are a seed and a position, in uint64, by the race.
    """
    ids, logs = np.full(m, -1, dtype=np.int64), np.full(m, np.nan)
    kept, weight = survivors(x, f, eps)
    log_p = log_softmax_row(x[kept], f["temperature"])
    if kept.size == 0:
        return ids, logs
    if u.dtype == np.uint64:
        places = race_places(x, kept, f["temperature"], u, m, replace)
    elif replace:
        places = first_above(weight, u)
    else:
        places = np.zeros(min(m, int(np.count_nonzero(weight))), dtype=np.int64)
        for j in range(places.size):
            places[j] = first_above(weight, u[j])
            weight[places[j]] = 0
    ids[: places.size], logs[: places.size] = kept[places], log_p[places]
    return ids, logs


def race_places(
    x: np.ndarray, kept: np.ndarray, temperature: float, key: np.ndarray, m: int, replace: bool
) -> np.ndarray:
    """the places, in `kept`, of m draws by the race"""
    seed, position = key.tolist()
    rate = inverse(temperature)
    found = [
        race(x[kept], x[kept].max(), rate, gumbels(seed, position, draw, x.size)[kept], size)[0]
        for draw, size in (((j, 1) for j in range(m)) if replace else [(0, m)])
    ]
    return np.concatenate(found) if found else np.array([], np.int64)


def first_above(weight: np.ndarray, u: Any) -> Any:
    """the first places whose cumulative weight exceeds u * total"""
    cumulative = np.cumsum(weight)
    places = np.searchsorted(cumulative, u * cumulative[-1], side="right")
    return np.minimum(places, np.flatnonzero(weight)[-1])  # u * total may round up to the total


def philox(seeds: np.ndarray, positions: np.ndarray, m: int) -> np.ndarray:
    """m uniforms of each seed and position: NumPy's Philox, from its first block of that counter"""
    pairs = zip(seeds.tolist(), positions.tolist(), strict=True)
    u = [Generator(Philox(key=seed, counter=position)).random(m) for seed, position in pairs]
    return np.reshape(u, (seeds.size, m))


# ---- arrays --------------------------------------------------------------------------------------


def with_mask(x: np.ndarray, mask: Any, mask_rows: Any) -> np.ndarray:
    """Return logits with -inf where a mask shuts."""
    mask = allowed(mask, mask_rows, x.shape)
    if mask is None:
        return x
    dtype = result_dtype(x.dtype)
    with np.errstate(all="ignore"):
        return np.where(mask, x.astype(dtype), np.array(-np.inf, dtype))


def with_filters(
    logits: Any, *, mask: Any, mask_rows: Any, **parameters: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return logits of at least one axis, the filters' parameters, and eps of the arithmetic.

    What a mask shuts is -inf.
    """
    x = np.atleast_1d(as_array(logits, "logits"))
    f = filters(x.shape[:-1], **parameters)
    return with_mask(x, mask, mask_rows), f, float(np.finfo(work_dtype(x.dtype)).eps)


def draw(
    logits: Any,
    *,
    size: Any,
    replace: Any,
    rng: Any,
    seed: Any,
    position: Any,
    method: Any,
    on_invalid: Any,
    **parameters: Any,
) -> tuple[Any, Any]:
    """Return the indices drawn, and their log-probabilities among the survivors."""
    x, f, eps = with_filters(logits, **parameters)
    flag = choice(on_invalid, "on_invalid", ("raise", "flag")) == "flag"
    again = switch(replace, "replace")
    m = draws(size, math.prod(x.shape[:-1]))
    if choice(method, "method", ("inverse", "race")) == "race":
        u = np.stack(race_words(rng, seed, position, x.shape[:-1]), axis=-1)
    else:
        u = uniforms(rng, seed, position, x.shape[:-1], m, philox)
    axes = (x.ndim - 1,)
    drawn = over_rows(
        lambda row, f, u: draw_row(row, f, u, m, eps, again), doubles(x), axes, f, u
    )
    ids = np.array([i for i, _ in drawn], np.int64).reshape(len(drawn), m)
    masked = parameters["mask"] is not None
    ids = finish_draw(ids, as_rows(x, axes), x.shape[:-1], size, flag, masked)
    with np.errstate(all="ignore"):
        logs = np.array([log for _, log in drawn], float).astype(result_dtype(x.dtype))
    return ids, logs.reshape(ids.shape)[()]
