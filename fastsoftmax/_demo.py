"""``fastsoftmax demo`` and ``fastsoftmax selftest``: what the library does, and that it is right.

``_demo.npz`` holds three rows of next-token scores of SmolLM2-135M-Instruct (Apache-2.0; 4-bit
weights, computed by llama.cpp), the text each row continues, and the bytes of every token.
Both commands measure errors in u, half the spacing of floats at 1: 2**-24 for float32.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import fastsoftmax
from fastsoftmax import _dispatch, _reference

if TYPE_CHECKING:
    from fastsoftmax._cli import Screen

CHECKED_DRAWS = 200  # the reference sorts the whole vocabulary for each draw
DRAWS_AT_ONCE = 64
GREEN, RED, DIM, BOLD = "32", "31", "2", "1"


class Demo(NamedTuple):
    """What ``_demo.npz`` holds."""

    names: list[str]
    prefixes: list[str]
    logits: np.ndarray
    token_bytes: bytes
    token_ends: np.ndarray

    def token(self, index: int) -> str:
        """The text of a token in quotes, as one printable line."""
        start = int(self.token_ends[index - 1]) if index else 0
        text = self.token_bytes[start : int(self.token_ends[index])]
        # A token can be part of a character: such bytes show as \\xe2.
        return '"' + repr(text.decode("utf-8", "backslashreplace"))[1:-1] + '"'


def load() -> Demo:
    """Read the data that comes with the package."""
    path = resources.files("fastsoftmax") / "_demo.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        return Demo(data["names"].tolist(), data["prefixes"].tolist(), data["logits"],
                    data["token_bytes"].tobytes(), np.cumsum(data["token_lengths"], dtype=np.int64))


# ---- how the settings compose ------------------------------------------------------------------


class Stage(NamedTuple):
    """Probabilities after one setting, most likely token first; zero where it is removed."""

    title: str
    probs: np.ndarray
    left: int
    told: str


def stages(row: np.ndarray, options: argparse.Namespace) -> tuple[np.ndarray, list[Stage]]:
    """Apply the settings one after the other, as `fastsoftmax.sample` composes them.

    Parameters
    ----------
    row : (n,) float32 ndarray
        Scores.
    options : namespace
        ``temperature``, ``top_k``, ``top_p``, ``min_p``.

    Returns
    -------
    order : (n,) int64 ndarray
        Ids from the most to the least likely. No setting changes this order, so that what
        survives a stage is always a prefix of it.
    stages : list of Stage
    """
    values, order = fastsoftmax.top_k(row, row.size)
    values = values.astype(np.float64)  # to show the settings, not the rounding of float32
    plain = fastsoftmax.softmax(values)
    heated = fastsoftmax.softmax(values, temperature=options.temperature)
    left = int(np.count_nonzero(heated))  # temperature 0 leaves one

    def keep(count: int) -> np.ndarray:
        kept = np.where(np.arange(row.size) < count, heated, 0.0)
        return np.asarray(kept / kept.sum())

    made = [
        Stage("as scored", plain, row.size, "softmax of the scores alone"),
        Stage(f"T {options.temperature:g}", heated, left,
              f"divides the scores; the most likely goes from {percent(plain[0])} "
              f"to {percent(heated[0])}"),
    ]
    told = "off"
    if options.top_k:
        left = min(left, options.top_k)
        told = f"keeps the {left} most likely, which hold {percent(heated[:left].sum())}"
    made.append(Stage(f"top-k {options.top_k or 'off'}", keep(left), left, told))

    told = "off"
    if options.top_p is not None and options.top_p < 1:
        # Renormalised first: top-p sees only what top-k left. The slack is the library's.
        mass = np.cumsum(made[-1].probs[:left])
        reach = options.top_p * (1 - 4 * np.finfo(row.dtype).eps)
        left = min(left, int(np.searchsorted(mass, reach)) + 1)
        told = (f"keeps the fewest that reach {percent(options.top_p)} of what is left: "
                f"{left}, with {percent(mass[left - 1])}")
    made.append(Stage(f"top-p {short(options.top_p)}", keep(left), left, told))

    told = "off"
    if options.min_p:
        floor = options.min_p * made[-1].probs[0]
        left = int(np.count_nonzero(made[-1].probs[:left] >= floor))
        told = f"keeps {percent(floor)} and more: {options.min_p:g} times the most likely"
    made.append(Stage(f"min-p {short(options.min_p)}", keep(left), left, told))
    return order, made


def short(value: float | None) -> str:
    """A setting for a column's title."""
    return "off" if value is None else f"{value:g}"


def percent(p: float) -> str:
    """A probability for people; the tiny ones keep their size."""
    return f"{100 * p:.1f}%" if p >= 0.0005 or p == 0 else f"{100 * p:.1g}%"


def shown_ranks(made: list[Stage], size: int) -> list[int]:
    """The first ranks, and those just before and after each stage's cut."""
    ranks = set(range(min(5, size)))
    for stage in made:
        ranks |= {stage.left - 1, stage.left}
    return sorted(rank for rank in ranks if rank < size)


def table(
    screen: Screen, data: Demo, row: np.ndarray, order: np.ndarray, made: list[Stage],
    ids: np.ndarray,
) -> None:
    """Tokens down, stages across; a removed token is marked once, where it goes."""
    ranks = shown_ranks(made, row.size)
    tokens = [screen.showable(data.token(order[rank])) for rank in ranks]
    wide = max(11, *map(len, tokens))
    widths = [max(8, len(stage.title) + 1) for stage in made]
    titles = "".join(f"{stage.title:>{w}}" for stage, w in zip(made, widths, strict=True))
    screen.say(screen.paint(f"  {'token':<{wide}}{'score':>8}{titles}{'drawn':>7}", BOLD))
    before = -1
    for rank, token in zip(ranks, tokens, strict=True):
        if rank > before + 1:
            screen.say(screen.paint(f"  ... {rank - before - 1} more", DIM))
        before = rank
        cells, gone = "", False
        for stage, w in zip(made, widths, strict=True):
            if rank < stage.left:
                cells += f"{percent(stage.probs[rank]):>{w}}"
            else:
                cells += screen.paint(f"{'-' if gone else 'removed':>{w}}", DIM if gone else RED)
                gone = True
        count = np.count_nonzero(ids == order[rank])
        drawn = screen.paint(f"{count:>7}", GREEN) if count else f"{'-' if gone else 0:>7}"
        screen.say(f"  {token:<{wide}}{row[order[rank]]:>8.2f}{cells}{drawn}")
    if before + 1 < row.size:
        screen.say(screen.paint(f"  ... {row.size - before - 1} more", DIM))
    counts = "".join(f"{stage.left:>{w}}" for stage, w in zip(made, widths, strict=True))
    screen.say(f"  {'tokens left':<{wide}}{'':8}{counts}{ids.size:>7}")


def likely(screen: Screen, data: Demo, chosen: int) -> None:
    """The five most likely tokens of each row, as bars on a terminal."""
    for number, (name, prefix) in enumerate(zip(data.names, data.prefixes, strict=True)):
        row = data.logits[number]
        probs, ids = fastsoftmax.top_k(fastsoftmax.softmax(row), 5)
        room = screen.width - len(name) - 10
        tail = prefix if len(prefix) <= room else "..." + prefix[3 - room :]
        screen.say(screen.paint(f"{name}: {tail} ___", BOLD if number == chosen else "0"))
        for p, index in zip(probs, ids, strict=True):
            bar = screen.bar(float(p), screen.width - 28)
            screen.say(f"  {screen.showable(data.token(index)):<14} {percent(p):>7}  {bar}")
        screen.say()


def draw(module: Any, row: np.ndarray, options: argparse.Namespace, count: int) -> np.ndarray:
    """`count` ids from one row; the same seed draws the same, whatever `module` does it."""
    rng = np.random.default_rng(options.seed)
    knobs = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    parts = []
    for start in range(0, count, DRAWS_AT_ONCE):  # so that no batch needs much memory
        rows = np.broadcast_to(row, (min(DRAWS_AT_ONCE, count - start), row.size))
        parts.append(module.sample(rows, **knobs, rng=rng))
    return np.concatenate(parts)


def demo(options: argparse.Namespace, screen: Screen) -> int:
    """The ``demo`` command; exit code 1 when the check against the reference fails."""
    data = load()
    chosen = data.names.index(options.row)
    row = data.logits[chosen]
    screen.say(f"A language model scores all {row.size} tokens of its vocabulary; softmax makes")
    screen.say("probabilities of the scores. The most likely next tokens of three texts:")
    screen.say()
    likely(screen, data, chosen)

    order, made = stages(row, options)
    ids = draw(fastsoftmax, row, options, options.draws)
    screen.say("Before a token is drawn, each setting works on what the one before it left")
    screen.say(f"(here for the {options.row} one; --row takes another):")
    screen.say()
    table(screen, data, row, order, made, ids)
    screen.say()
    for stage in made[1:]:
        screen.say(f"  {stage.title:<11} {stage.told}")
    screen.say()
    words = " ".join(screen.showable(data.token(index)) for index in ids[:20])
    more = f" ... {ids.size - 20} more" if ids.size > 20 else ""
    screen.say(f"Drawn with seed {options.seed}:")
    for line in textwrap.wrap(words + more, screen.width - 2):
        screen.say(f"  {line}")
    screen.say()
    return check(screen, data, row, options, ids, order[: made[-1].left])


def check(
    screen: Screen, data: Demo, row: np.ndarray, options: argparse.Namespace, ids: np.ndarray,
    survivors: np.ndarray,
) -> int:
    """Hold what was shown against the reference; 0 when all agree."""
    exact = data.logits.astype(np.float64)
    worst = [probability_error(fastsoftmax.softmax(data.logits, temperature=t),
                               _reference.softmax(exact, temperature=t), exact, t)
             for t in (1.0, options.temperature)]
    error, share = np.max(worst, axis=0)
    top = fastsoftmax.top_k(data.logits, 50).indices, _reference.top_k(data.logits, 50).indices
    count = min(ids.size, CHECKED_DRAWS)
    again = draw(_reference, row, options, count)
    results = [
        (f"probabilities: largest deviation {error:.2f} u (u = 2**-24), "
         f"{percent(share)} of the bound", bool(share <= 1)),
        ("top-k: the ids of the 50 most likely agree", np.array_equal(*top)),
        (f"sample: the first {count} ids agree", np.array_equal(ids[:count], again)),
        (f"sample: all {ids.size} ids are among the {survivors.size} tokens left",
         bool(np.isin(ids, survivors).all())),
    ]
    screen.say("Checked against the float64 NumPy reference:")
    for text, good in results:
        screen.say(f"  {verdict(screen, good)}  {text}")
    return 0 if all(good for _, good in results) else 1


def verdict(screen: Screen, good: bool) -> str:
    """``ok`` or ``FAILED``."""
    return screen.paint("ok", GREEN) if good else screen.paint("FAILED", RED)


# ---- errors in u -------------------------------------------------------------------------------


def largest(error: np.ndarray, one: np.ndarray, allowed: np.ndarray) -> tuple[float, float]:
    """The largest `error` in units of `one`, and the largest share of what is `allowed`."""
    with np.errstate(all="ignore"):
        in_u, share = error / one, error / allowed
    # 0/0 is an entry that is right; a NaN error is an entry that is wrong.
    in_u, share = (np.where(error == 0, 0.0, a) for a in (in_u, share))
    worst = float(np.max(in_u, initial=0.0)), float(np.max(share, initial=0.0))
    return worst if not np.isnan(error).any() else (np.inf, np.inf)


def gap(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Absolute error in float64; 0 where both are NaN or the same infinity."""
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.float64) - want)
    return np.where((np.isnan(got) & np.isnan(want)) | (got == want), 0.0, error)


def probability_error(
    got: np.ndarray, want: np.ndarray, x: np.ndarray, temperature: float = 1.0
) -> tuple[float, float]:
    """Error of softmax along the last axis against a float64 `want`, as `largest` gives it.

    Allowed are ``(4 + 0.1 |d|) u`` with d = x - max, ``(4 + 3.1 |d|/T) u`` at another temperature,
    and one smallest normal number below it; nothing where a score is -inf.
    """
    kind = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        d = np.abs(x - x.max(axis=-1, keepdims=True))
        slope = 0.1 if temperature == 1 else 3.1 / temperature if temperature else 0.0
        one = np.where(want >= kind.tiny, want * float(kind.eps) / 2, np.inf)
        allowed = np.where(want >= kind.tiny, (4 + slope * d) * one, float(kind.tiny))
    return largest(gap(got, want), one, np.where(np.isneginf(x), 0.0, allowed))


def log_error(got: np.ndarray, want: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """Error of a logarithm, in u of 1 + `scale`; a few are allowed."""
    one = float(np.finfo(got.dtype).eps) / 2 * (1 + np.abs(np.where(np.isfinite(scale), scale, 0)))
    return largest(gap(got, want), one, 4 * one)


# ---- selftest ----------------------------------------------------------------------------------


def cases() -> Iterator[np.ndarray]:
    """Float32 rows of every small length, around a block's end, and as long as a vocabulary."""
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


def examine(module: Any, x: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """What of `module` is checked on one batch of rows: name, error in u, share of the bound."""
    exact = x.astype(np.float64)
    with np.errstate(all="ignore"):
        highest = exact.max(axis=-1)
    for t in (1.0, 0.7):
        got, want = (m.softmax(a, temperature=t) for m, a in ((module, x), (_reference, exact)))
        yield "softmax", *probability_error(got, want, exact, t)
    want = _reference.log_softmax(exact)
    yield "log_softmax", *log_error(module.log_softmax(x), want, want)
    want = _reference.logsumexp(exact)
    yield "logsumexp", *log_error(module.logsumexp(x), want, np.abs(want) + np.abs(highest))
    k = min(x.shape[-1], 50)
    picks = {f"top_k {mode}": [m.top_k(x, k, mode=mode).indices for m in (module, _reference)]
             for mode in ("largest", "smallest")}
    for knobs in ({}, {"top_k": 20, "top_p": 0.9, "temperature": 0.8}, {"min_p": 0.1}):
        picks[f"sample {knobs}"] = [m.sample(x, rng=1, on_invalid="flag", **knobs)
                                    for m in (module, _reference)]
    for name, (got, want) in picks.items():
        yield name, 0.0, 0.0 if np.array_equal(got, want) else np.inf


def selftest(options: argparse.Namespace, screen: Screen) -> int:
    """The ``selftest`` command: one line an implementation, exit code 1 when one is wrong."""
    code = 0
    for name in _dispatch.runnable():
        module = _dispatch.load(name)
        start, worst, wrong = time.perf_counter(), 0.0, ""
        for x in cases():
            for what, error, share in examine(module, x):
                if what == "softmax":
                    worst = max(worst, error)
                if not share <= 1 and not wrong:
                    wrong = f"; first: {what}, rows of {x.shape[-1]}, {share:.3g} times the bound"
        seconds = time.perf_counter() - start
        screen.say(f"{verdict(screen, not wrong)}  {name:<10} largest error of a probability "
                   f"{worst:.2f} u{wrong}  ({seconds:.1f} s)")
        code = 1 if wrong else code
    return code
