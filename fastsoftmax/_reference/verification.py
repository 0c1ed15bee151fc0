"""Verification of drafts, and a step of beam search: over whole rows of probabilities."""

from math import prod
from typing import Any

import numpy as np
from numpy.random import Generator, Philox

from .._arguments.arrays import as_array, work_dtype
from .._arguments.results import BeamStep, Verified
from .._arguments.values import choice, count, filters, race_words, uniforms
from .._arguments.verification import (
    beam_scores,
    check_blocks,
    check_groups,
    drafted_ids,
    fail_beam,
    finish_verify,
    length_factors,
)
from .rows import doubles, public
from .sampling import first_above, race_places, survivors, with_mask
from .selection import best_first
from .softmax import log_softmax_row


@public
def verify(
    draft_ids: Any,
    logits: Any,
    draft_logits: Any,
    mask: Any,
    mask_rows: Any,
    rng: Any,
    seed: Any,
    position: Any,
    method: Any,
    on_invalid: Any,
    **parameters: Any,
) -> Verified:
    choose = {"chain": verify_chain, "block": verify_block, "race": verify_race}[
        choice(method, "method", ("chain", "block", "race"))
    ]
    flag = choice(on_invalid, "on_invalid", ("raise", "flag")) == "flag"
    x = as_array(logits, "logits")
    y = None if draft_logits is None else as_array(draft_logits, "draft_logits")
    check_blocks(x, y)
    batch, length, n = x.shape[:-2], x.shape[-2] - 1, x.shape[-1]
    size = prod(batch)
    f = np.broadcast_to(filters(batch, **parameters), size)
    x, given = with_mask(x, mask, mask_rows), x
    drafts = drafted_ids(draft_ids, (*batch, length), n).reshape(size, length)
    u: Any
    if method == "race":
        u = np.stack(race_words(rng, seed, position, batch), axis=-1)
    else:
        u = uniforms(rng, seed, position, batch, length + 1, philox_apart)
    eps = min(np.finfo(work_dtype(a.dtype)).eps for a in (x, x if y is None else y))
    targets = doubles(x).reshape(size, length + 1, n)
    sources = [None] * size if y is None else list(doubles(y).reshape(size, length, n))
    ids = np.full((size, length + 1), -1, np.int64)
    counts = np.zeros(size, np.int64)
    with np.errstate(all="ignore"):
        for i, (t, p, q, g) in enumerate(zip(drafts, targets, sources, f, strict=True)):
            t = t[: int(np.argmax(np.append(t, -1) < 0))]
            try:
                emitted = choose(t, Rows(p, g, eps), Rows(q, g, eps, t), u[i])
            except InvalidRowError as invalid:
                counts[i] = -1 - (2 * invalid.row + invalid.of_draft)
                continue
            ids[i, : len(emitted)], counts[i] = emitted, len(emitted)
    found = counts.reshape(batch)
    finish_verify(found, given, y, flag, mask, mask_rows)
    return Verified(ids.reshape(*batch, length + 1), found[()])


@public
def beam_step(
    logits: Any,
    scores: Any,
    beams: Any,
    length: Any,
    length_penalty: Any,
    on_invalid: Any,
) -> BeamStep:
    flag = choice(on_invalid, "on_invalid", ("raise", "flag")) == "flag"
    x = as_array(logits, "logits")
    check_groups(x)
    batch, m, n = x.shape[:-2], x.shape[-2], x.shape[-1]
    k = count(beams, "beams", 0, m * n)
    running = beam_scores(scores, (*batch, m)).reshape(prod(batch), m)
    factors = length_factors(length, length_penalty, (*batch, m))
    factors = np.ones(running.shape) if factors is None else factors.reshape(running.shape)
    result = BeamStep(
        np.full((len(running), k), -np.inf),
        np.full((len(running), k), -1, np.int64),
        np.full((len(running), k), -1, np.int64),
    )
    bad = np.full(len(running), -1, np.int64)
    for i, rows in enumerate(doubles(x).reshape(len(running), m, n) if k else []):
        bad[i] = next((b for b in range(m) if running[i, b] > -np.inf and invalid(rows[b])), -1)
        with np.errstate(all="ignore"):
            found = best_continuations(rows, running[i], factors[i])[:k]
        for j, (_, score, parent, token) in enumerate(found):
            result.scores[i, j], result.parents[i, j], result.ids[i, j] = score, parent, token
    if not flag and (bad >= 0).any():
        fail_beam(x, bad.reshape(batch))
    return BeamStep(*(a.reshape(*batch, k) for a in result))


# ---- one request ---------------------------------------------------------------------------------


class InvalidRowError(Exception):
    """A row that is needed has no probabilities."""

    def __init__(self, row: int, of_draft: bool) -> None:
        self.row, self.of_draft = row, of_draft


class Rows:
    """the probabilities that the filters leave, row by row as they are asked for

    Those of a draft without logits are one at its `ids`.
    """

    def __init__(self, x: Any, f: np.void, eps: float, ids: Any = None) -> None:
        self.x, self.f, self.eps, self.ids = x, f, eps, ids

    def __getitem__(self, j: int) -> tuple[np.ndarray, float]:
        """the weights of row j, and their sum"""
        weight = np.zeros(self.x.shape[-1])
        kept, weights = self.survivors(j)
        weight[kept] = weights
        return weight, float(np.cumsum(weight)[-1])

    def survivors(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        kept, weight = survivors(self.x[j], self.f, self.eps)
        if kept.size == 0:
            raise InvalidRowError(j, self.ids is not None)
        return kept, weight


def verify_chain(t: np.ndarray, p: Rows, q: Rows, u: np.ndarray) -> list[int]:
    """the drafts t up to the first that is not accepted, and one id more"""
    for j, draft in enumerate(t):
        w, v = pair(p, q, j, draft)
        if not accepted(w, v, draft, u[1 + j]):
            return [*t[:j], draw_residual(w, v, 1.0, u[0])]
    return [*t, draw_row(p, len(t), u[0])]


def accepted(w: Any, v: Any, draft: int, u: float) -> bool:
    """u q < p of the draft, by weights and their sums"""
    weight, total = w
    weight_q, total_q = v
    return bool(weight_q[draft] > 0 and u * weight_q[draft] * total < weight[draft] * total_q)


def verify_block(t: np.ndarray, p: Rows, q: Rows, u: np.ndarray) -> list[int]:
    """the most drafts of t that are accepted as a block, and one id more"""
    factor, best = 1.0, (0, 1.0)
    for j, draft in enumerate(t):
        (w, total), (v, total_q) = pair(p, q, j, draft)
        left = np.maximum(factor * (w / total) - v / total_q, 0).sum()
        if j and u[j] * (left + 1 - factor) < left:
            best = (j, factor)
        ratio = w[draft] / total / (v[draft] / total_q) if v[draft] else 0.0
        factor = min(1.0, factor * ratio)
        if factor == 0:
            break
    else:
        row = draw_row(p, len(t), u[0])
        if len(t) == 0 or u[len(t)] < factor:
            return [*t, row]
    j, factor = best
    return [*t[:j], draw_residual(*pair(p, q, j, t[j]), factor, u[0])]


def verify_race(t: np.ndarray, p: Rows, q: Rows, key: np.ndarray) -> list[int]:
    """what the target's races draw, at this seed and the positions from this one on, to the first
    that is no draft"""
    emitted: list[int] = []
    for j in range(len(t) + 1):
        kept, _ = p.survivors(j)
        at = key + np.array([0, j], np.uint64)
        (place,) = race_places(p.x[j], kept, p.f["temperature"], at, 1, True)
        emitted.append(int(kept[place]))
        if j < len(t) and emitted[j] != t[j]:
            break
    return emitted


def pair(p: Rows, q: Rows, j: int, draft: int) -> tuple[Any, Any]:
    """weights and sum of both rows j; at T = 0, or without logits, the draft's is certain of it"""
    certain = q.x is None or q.f["temperature"] == 0
    v = None if certain else q[j]
    w = p[j]
    if v is None:
        one = np.zeros(w[0].size)
        one[draft] = 1
        v = one, 1.0
    return w, v


def draw_residual(w: Any, v: Any, factor: float, u: float) -> int:
    """the id that u draws from the positive part of factor p - q; from p, if rounding left none"""
    (weight, total), (weight_q, total_q) = w, v
    residual = np.maximum(factor * (weight / total) - weight_q / total_q, 0)
    if not residual.any():
        residual = weight
    return int(first_above(residual, u))


def draw_row(p: Rows, j: int, u: float) -> int:
    """the id that u draws from row j"""
    kept, weight = p.survivors(j)
    return int(kept[first_above(weight, u)])


def philox_apart(seeds: np.ndarray, positions: np.ndarray, m: int) -> np.ndarray:
    """m uniforms of each seed and position: block b of four from the counter position + b 2**64"""
    u = [
        Generator(Philox(key=seed, counter=position + (b << 64))).random(4)
        for seed, position in zip(seeds.tolist(), positions.tolist(), strict=True)
        for b in range(-(-m // 4))
    ]
    return np.reshape(u, (seeds.size, 4 * -(-m // 4)))[:, :m]


# ---- one group -----------------------------------------------------------------------------------


def invalid(row: np.ndarray) -> bool:
    """whether a row has no probabilities"""
    return not np.isfinite(row.max(initial=-np.inf))


def best_continuations(
    rows: np.ndarray, running: np.ndarray, factors: np.ndarray
) -> list[tuple[float, float, int, int]]:
    """rank by score, score, beam and id of all continuations of a group, best first"""
    found = []
    for parent, row in enumerate(rows):
        if running[parent] > -np.inf and not invalid(row):
            log_p = log_softmax_row(row, np.float64(1))
            for token in best_first(row):
                if log_p[token] > -np.inf:
                    score = running[parent] + log_p[token]
                    found.append((score * factors[parent], score, parent, int(token)))
    return sorted(found, key=lambda c: -c[0])
