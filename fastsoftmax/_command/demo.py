"""``fastsoftmax demo``: what each setting does to real scores, and that it is done right.

``demo.npz`` holds three rows of next-token scores of SmolLM2-135M-Instruct (Apache-2.0; 4-bit
weights, computed by llama.cpp) in steps of 1/128, the text each row continues, and the bytes of
the tokens that are among the 2048 most likely of a row.
"""

from __future__ import annotations

import argparse
import textwrap
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import fastsoftmax
from fastsoftmax import _dispatch, _reference

from .selftest import is_fused, probability_error
from .terminal import BOLD, DIM, GREEN, RED

if TYPE_CHECKING:
    from .terminal import Screen

CHECKED_DRAWS = 200  # the reference sorts the whole vocabulary for each draw
DRAWS_AT_ONCE = 64


class Demo(NamedTuple):
    """What ``demo.npz`` holds."""

    names: list[str]
    prefixes: list[str]
    logits: np.ndarray
    token_bytes: bytes
    token_ends: np.ndarray

    def token(self, index: int) -> str:
        """Return the text of the token `index` in quotes, as one printable line, or its number."""
        start = int(self.token_ends[index - 1]) if index else 0
        text = self.token_bytes[start : int(self.token_ends[index])]
        if not text:  # that of an unlikely one isn't here
            return f"#{index}"
        # A token can be part of a character: such bytes show as \\xe2.
        return '"' + repr(text.decode("utf-8", "backslashreplace"))[1:-1] + '"'


def load() -> Demo:
    """Return the data that comes with the package."""
    path = resources.files(__package__) / "demo.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        return Demo(data["names"].tolist(), data["prefixes"].tolist(),
                    data["logits"] * np.float32(1 / 128), data["token_bytes"].tobytes(),
                    np.cumsum(data["token_lengths"], dtype=np.int64))


# ---- how the settings compose ------------------------------------------------------------------


class Stage(NamedTuple):
    """Probabilities after one setting, most likely token first; zero where it is removed."""

    title: str
    probs: np.ndarray
    left: int
    effect: str


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
    tempered = fastsoftmax.softmax(values, temperature=options.temperature)
    left = int(np.count_nonzero(tempered))  # temperature 0 leaves one

    def keep(count: int) -> np.ndarray:
        kept = np.where(np.arange(row.size) < count, tempered, 0.0)
        return np.asarray(kept / kept.sum())

    done = [
        Stage("as scored", plain, row.size, "softmax of the scores alone"),
        Stage(f"T {options.temperature:g}", tempered, left,
              f"divides the scores; the most likely goes from {percent(plain[0])} "
              f"to {percent(tempered[0])}"),
    ]
    effect = "off"
    if options.top_k:
        left = min(left, options.top_k)
        effect = f"keeps the {left} most likely, which hold {percent(tempered[:left].sum())}"
    done.append(Stage(f"top-k {options.top_k or 'off'}", keep(left), left, effect))

    effect = "off"
    if options.top_p is not None and options.top_p < 1:
        # Renormalised first: top-p sees only what top-k left. The slack is the library's.
        mass = np.cumsum(done[-1].probs[:left])
        reach = options.top_p * (1 - 4 * np.finfo(row.dtype).eps)
        left = min(left, int(np.searchsorted(mass, reach)) + 1)
        effect = (f"keeps the fewest that reach {percent(options.top_p)} of what is left: "
                f"{left}, with {percent(mass[left - 1])}")
    done.append(Stage(f"top-p {short(options.top_p)}", keep(left), left, effect))

    effect = "off"
    if options.min_p:
        floor = options.min_p * done[-1].probs[0]
        left = int(np.count_nonzero(done[-1].probs[:left] >= floor))
        effect = f"keeps {percent(floor)} and more: {options.min_p:g} times the most likely"
    done.append(Stage(f"min-p {short(options.min_p)}", keep(left), left, effect))
    return order, done


def short(value: float | None) -> str:
    """Return the `value` of a setting for a column's title."""
    return "off" if value is None else f"{value:g}"


def percent(p: float) -> str:
    """Return the probability `p` for people; a tiny one keeps its magnitude."""
    return f"{100 * p:.1f}%" if p >= 0.0005 or p == 0 else f"{100 * p:.1g}%"


def shown_ranks(done: list[Stage], size: int) -> list[int]:
    """Return the first of `size` ranks, and those just before and after each stage's cut."""
    ranks = set(range(min(5, size)))
    for stage in done:
        ranks |= {stage.left - 1, stage.left}
    return sorted(rank for rank in ranks if rank < size)


def table(
    screen: Screen, data: Demo, row: np.ndarray, order: np.ndarray, done: list[Stage],
    ids: np.ndarray,
) -> None:
    """Print tokens down, stages across; a removed token is marked once, where it goes.

    Parameters
    ----------
    screen : Screen
        Where to.
    data : Demo
        Whose tokens.
    row : (n,) ndarray
        Their scores.
    order, done
        As `stages` returns them.
    ids : ndarray of int64
        What has been drawn.
    """
    ranks = shown_ranks(done, row.size)
    tokens = [screen.showable(data.token(order[rank])) for rank in ranks]
    width = max(11, *map(len, tokens))
    widths = [max(8, len(stage.title) + 1) for stage in done]
    titles = "".join(f"{stage.title:>{w}}" for stage, w in zip(done, widths, strict=True))
    screen.say(screen.paint(f"  {'token':<{width}}{'score':>8}{titles}{'drawn':>7}", BOLD))
    before = -1
    for rank, token in zip(ranks, tokens, strict=True):
        if rank > before + 1:
            screen.say(screen.paint(f"  ... {rank - before - 1} more", DIM))
        before = rank
        cells, gone = "", False
        for stage, w in zip(done, widths, strict=True):
            if rank < stage.left:
                cells += f"{percent(stage.probs[rank]):>{w}}"
            else:
                cells += screen.paint(f"{'-' if gone else 'removed':>{w}}", DIM if gone else RED)
                gone = True
        count = np.count_nonzero(ids == order[rank])
        drawn = screen.paint(f"{count:>7}", GREEN) if count else f"{'-' if gone else 0:>7}"
        screen.say(f"  {token:<{width}}{row[order[rank]]:>8.2f}{cells}{drawn}")
    if before + 1 < row.size:
        screen.say(screen.paint(f"  ... {row.size - before - 1} more", DIM))
    counts = "".join(f"{stage.left:>{w}}" for stage, w in zip(done, widths, strict=True))
    screen.say(f"  {'tokens left':<{width}}{'':8}{counts}{ids.size:>7}")


def likely(screen: Screen, data: Demo, chosen: int) -> None:
    """Print the five most likely tokens of each row of `data`, the `chosen` row's name in bold."""
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


def draw(
    implementation: Any, row: np.ndarray, options: argparse.Namespace, count: int
) -> np.ndarray:
    """Return `count` ids that `implementation` draws from `row` with the settings of `options`."""
    rng = np.random.default_rng(options.seed)
    filters = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    parts = []
    for start in range(0, count, DRAWS_AT_ONCE):  # so that no batch needs much memory
        rows = np.broadcast_to(row, (min(DRAWS_AT_ONCE, count - start), row.size))
        parts.append(implementation.sample(rows, **filters, rng=rng))
    return np.concatenate(parts)


def demo(options: argparse.Namespace, screen: Screen) -> int:
    """Print the demo on `screen`; return 1 if the check against the reference fails, else 0."""
    data = load()
    chosen = data.names.index(options.row)
    row = data.logits[chosen]
    screen.say(f"A language model scores all {row.size} tokens of its vocabulary; softmax makes")
    screen.say("probabilities of the scores. The most likely next tokens of three texts:")
    screen.say()
    likely(screen, data, chosen)

    order, done = stages(row, options)
    ids = draw(fastsoftmax, row, options, options.draws)
    screen.say("Before a token is drawn, each setting works on what the one before it left")
    screen.say(f"(here for the {options.row} one; --row takes another):")
    screen.say()
    table(screen, data, row, order, done, ids)
    screen.say()
    for stage in done[1:]:
        screen.say(f"  {stage.title:<11} {stage.effect}")
    screen.say()
    words = " ".join(screen.showable(data.token(index)) for index in ids[:20])
    more = f" ... {ids.size - 20} more" if ids.size > 20 else ""
    screen.say(f"Drawn with seed {options.seed}:")
    for line in textwrap.wrap(words + more, screen.width - 2):
        screen.say(f"  {line}")
    screen.say()
    return check(screen, data, row, options, ids, order[: done[-1].left])


def check(
    screen: Screen, data: Demo, row: np.ndarray, options: argparse.Namespace, ids: np.ndarray,
    survivors: np.ndarray,
) -> int:
    """Print whether what was shown agrees with the reference; return 0 if all of it does.

    Parameters
    ----------
    screen : Screen
        Where to.
    data : Demo
        Whose probabilities.
    row : (n,) ndarray
        The scores that `ids` were drawn from.
    options : namespace
        The settings.
    ids : ndarray of int64
        What has been drawn.
    survivors : ndarray of int64
        What could be drawn.
    """
    exact = data.logits.astype(np.float64)
    worst = [probability_error(fastsoftmax.softmax(data.logits, temperature=t),
                               _reference.softmax(exact, temperature=t), exact, t,
                               is_fused(_dispatch.active.NAME))
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
        screen.say(f"  {screen.verdict(good)}  {text}")
    return 0 if all(good for _, good in results) else 1
