"""``fastsoftmax selftest``: every implementation that runs here, held against the reference.

Errors are measured in u, half the spacing of floats at 1 (2**-24 for float32), and against what the
functions promise.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsoftmax import _dispatch, _reference
from fastsoftmax._dispatch.isa import ISAS

if TYPE_CHECKING:
    from .terminal import Screen


def largest(error: np.ndarray, one: np.ndarray, allowed: np.ndarray) -> tuple[float, float]:
    """Return the largest `error` in units of `one`, and as a share of what is `allowed`."""
    with np.errstate(all="ignore"):
        in_u, share = error / one, error / allowed
    # 0/0 is an entry that is right; a NaN error is an entry that is wrong.
    in_u, share = (np.where(error == 0, 0.0, a) for a in (in_u, share))
    worst = float(np.max(in_u, initial=0.0)), float(np.max(share, initial=0.0))
    return worst if not np.isnan(error).any() else (np.inf, np.inf)


def absolute_error(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Return ``|got - want|`` in float64; 0 where both are NaN or equal infinities."""
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.float64) - want)
    return np.where((np.isnan(got) & np.isnan(want)) | (got == want), 0.0, error)


def is_fused(name: str) -> bool:
    """Return whether the implementation called `name` has a fused multiply-add on this machine."""
    machine = platform.machine().lower()
    return any(isa.name == name and machine in isa.fused_multiply_add for isa in ISAS)


def probability_error(
    got: np.ndarray, want: np.ndarray, x: np.ndarray, temperature: float, fused: bool
) -> tuple[float, float]:
    """Return the largest error of ``softmax(x)`` in u, and as a share of the bound.

    Parameters
    ----------
    got : ndarray
        What was computed.
    want : ndarray of float64
        What is right.
    x : ndarray of float64
        The scores.
    temperature : float
        What they were divided by.
    fused : bool
        Whether it was computed with a fused multiply-add.

    Notes
    -----
    Allowed are ``(4 + 0.1 |d|/T) u`` with d = x - max, ``(4 + 3.1 |d|/T) u`` at T other than 1 if
    not `fused`, and one smallest normal number below it; nothing where a score is -inf.
    """
    limits = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        d = np.abs(x - x.max(axis=-1, keepdims=True))
        slope = 0.1 if fused or temperature == 1 else 3.1
        slope = slope / temperature if temperature else 0.0
        one = np.where(want >= limits.tiny, want * float(limits.eps) / 2, np.inf)
        allowed = np.where(want >= limits.tiny, (4 + slope * d) * one, float(limits.tiny))
    return largest(absolute_error(got, want), one, np.where(np.isneginf(x), 0.0, allowed))


def log_error(got: np.ndarray, want: np.ndarray, scale: np.ndarray) -> float:
    """Return the largest error of a logarithm as a share of the bound, ``4 u (1 + |scale|)``."""
    one = float(np.finfo(got.dtype).eps) / 2 * (1 + np.abs(np.where(np.isfinite(scale), scale, 0)))
    return largest(absolute_error(got, want), one, 4 * one)[1]


def cases() -> Iterator[np.ndarray]:
    """Yield float32 rows of each small length, around a block's end, and of a vocabulary's."""
    rng = np.random.default_rng(0)
    for n in (*range(1, 71), 1023, 1024, 1025, 49152):
        x = rng.normal(0, 4, (9, n)).astype(np.float32)
        x[1] = rng.integers(-2, 3, n)  # ties
        x[2] = -12 + rng.random(n)  # one large entry among small ones
        x[2, n // 3] = 0
        x[3] *= 20  # most of it underflows
        x[4, rng.random(n) < 0.5] = -np.inf
        x[5, rng.integers(n)] = np.nan
        x[6, rng.integers(n)] = np.inf
        x[7] = -np.inf
        x[8] = x[0, 0]  # all equal
        yield x


def examine(implementation: Any, x: np.ndarray, fused: bool) -> Iterator[tuple[str, float]]:
    """Yield a name and a share of the bound for each check of `implementation` on the rows `x`.

    `fused` says whether it has a fused multiply-add.
    """
    both = implementation, _reference
    exact = x.astype(np.float64)
    with np.errstate(all="ignore"):
        highest = exact.max(axis=-1)
    for t in (1.0, 0.7):
        got, want = (m.softmax(a, temperature=t) for m, a in zip(both, (x, exact), strict=True))
        yield "softmax", probability_error(got, want, exact, t, fused)[1]
    want = _reference.log_softmax(exact)
    yield "log_softmax", log_error(implementation.log_softmax(x), want, want)
    want = _reference.logsumexp(exact)
    scale = np.abs(want) + np.abs(highest)
    yield "logsumexp", log_error(implementation.logsumexp(x), want, scale)
    k = min(x.shape[-1], 50)
    ids = {f"top_k {mode}": [m.top_k(x, k, mode=mode).indices for m in both]
           for mode in ("largest", "smallest")}
    for filters in ({}, {"top_k": 20, "top_p": 0.9, "temperature": 0.8}, {"min_p": 0.1}):
        ids[f"sample {filters}"] = [m.sample(x, rng=1, on_invalid="flag", **filters) for m in both]
    for name, (got, want) in ids.items():  # integers: right or wrong
        yield name, 0.0 if np.array_equal(got, want) else np.inf


def selftest(screen: Screen) -> int:
    """Print a line on `screen` for each implementation; return 1 if one is wrong, else 0."""
    code = 0
    for name in _dispatch.runnable():
        implementation = _dispatch.load(name)
        start, worst, wrong = time.perf_counter(), 0.0, ""
        for x in cases():
            for what, share in examine(implementation, x, is_fused(name)):
                worst = max(worst, share)
                if not share <= 1 and not wrong:
                    wrong = f"; first: {what}, rows of {x.shape[-1]}, {share:.3g} times the bound"
        seconds = time.perf_counter() - start
        screen.say(f"{screen.verdict(not wrong)}  {name:<10} largest error {worst:.1%} of the bound"
                   f"{wrong}  ({seconds:.1f} s)")
        code = 1 if wrong else code
    return code
