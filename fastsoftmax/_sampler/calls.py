"""One call of a sampler: compiled where that can be, else by the chain in readable Python."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _threads
from .._arguments.accept import most_tries, next_accepted
from .._arguments.known_uniforms import Uniforms
from .._arguments.results import SamplerResult, TopLogprobs
from .._arguments.values import choice, count, generator, race_words, words
from .._arguments.values import uniforms as uniforms_of
from ..steps import Temperature, candidates
from ..steps.base import Step
from ..steps.candidates import Candidates
from . import program
from .execution import InvalidRowError, SamplerCall, Watch, drawn_from


class Options(NamedTuple):
    """How a call draws, how many threads it is for, what is reported."""

    rng: Any = None
    seed: Any = None
    position: Any = None
    method: str = "inverse"
    workers: Any = None
    logprobs: Any = None
    flag: bool = False  # whether an invalid row gets -1; else it raises
    accept: Any = None
    max_tries: Any = 1000


#: For numbers that are all known.
NO_SOURCE = np.random.default_rng(0)


def philox(seeds: NDArray[Any], positions: NDArray[Any], m: int) -> NDArray[Any]:
    """Return m uniforms of each seed and position; those of all positions are independent."""
    rows = [
        np.random.Generator(np.random.Philox(key=seed, counter=position + (b << 64))).random(4)
        for seed, position in zip(seeds.tolist(), positions.tolist(), strict=True)
        for b in range(-(-m // 4))
    ]
    return np.reshape(rows, (len(seeds), -1))[:, :m]


def uniforms(call: SamplerCall, options: Options, draws: int) -> list[list[float]]:
    """Return the random numbers of each row: for its steps in order, and for so many draws."""
    rng, seed, position, method = options[:4]
    if draws and choice(method, "method", ("inverse", "race")) == "race":
        race_words(rng, seed, position, call.shape)
        draws = 0
    counts = [call.chances(i) + draws for i in range(call.rows)]
    if len({*counts}) > 1 and seed is None and position is None:
        numbers = iter(generator(rng).random(sum(counts)).tolist())
        return [[*islice(numbers, count)] for count in counts]
    most = max(counts, default=draws)
    if most == 0:
        return [[] for _ in counts]
    table = uniforms_of(rng, seed, position, call.shape, most, philox).tolist()
    return [row[:count] for row, count in zip(table, counts, strict=True)]


def left_of(
    call: SamplerCall, i: int, numbers: list[float], watch: Watch | None = None
) -> Candidates:
    """Return what the steps leave of row `i`, or raise a ValueError."""
    try:
        return call.run_row(i, numbers, watch)
    except InvalidRowError as error:
        raise ValueError(str(error)) from None


def run_compiled(method: str, compiled: Any, call: SamplerCall, *options: Any) -> Any:
    """Run a program on a call's arguments, which have been made ordinary; None if none can be."""
    if program.chains is None or compiled is None:
        return None
    data: Any = call.data if call.shape else call.data[0]
    histories = call.histories()
    ids: Any = [np.ascontiguousarray(history.ids) for history in histories]
    prompt: Any = [history.prompt for history in histories]
    if not call.shape:
        ids, prompt = ids[0], prompt[0]
    return getattr(program.chains, method)(compiled, data, ids, prompt, None, None, *options)


def draw(call: SamplerCall, compiled: Any, options: Options, done: Any) -> Any:
    """Return a token for each row: what is not for the compiled chain, by the readable one.

    Parameters
    ----------
    call : SamplerCall
        The call.
    compiled : object or None
        The program of the steps.
    options : Options
        As given to the call; where a callable is asked, `rng` is a generator.
    done : (ids, uniforms, report) or None
        What the compiled chain has drawn, with -1 for the rows that it leaves; None where it has
        done nothing, as the call's arguments were not ordinary.
    """
    accept, most = options.accept, most_tries(options.accept, options.max_tries)
    if done is None:
        call.check_state()
        done = run_compiled("draw", compiled, call, *options[:6], accept is not None)
    if done is None:
        if options.workers is not None:
            _threads.count(options.workers)
        report = None if options.logprobs is None else empty_report(call, options.logprobs)
        numbers = uniforms(call, options, 1)
        done = np.full(call.shape, -1, dtype=np.int64), numbers, report
    if type(done) is not tuple:
        return done
    ids, numbers, report = done
    for i, drawn in enumerate(ids.reshape(-1).tolist()):
        if drawn >= 0 and (accept is None or accept(i, drawn)):
            continue
        refused = drawn >= 0
        left: Any = temperature_alone(call.chains[i]) if refused and report is None else None
        try:
            left = left or call.run_row(i, numbers[i])
        except InvalidRowError as error:
            if not options.flag:
                raise ValueError(str(error)) from None
            continue
        draws = partial(draws_from, call, i, left, numbers[i], options)
        if not refused:
            drawn = int(draws(None))
            refused = accept is not None and not accept(i, drawn)
        if refused:
            place = (i,) if call.shape else ()
            drawn = next_accepted(draws, partial(accept, i), most, place, options.flag)
        ids.reshape(-1)[i] = drawn
        if drawn >= 0:
            call.foresee(i, drawn)
        if report is not None:
            report_row(report, call, i, left, drawn)
    return ids[()] if report is None else result(call, ids, report)


def temperature_alone(steps: Sequence[Step]) -> float | None:
    """Return the temperature of steps that do no more, as a number that is not 0, else None."""
    if len(steps) > 1 or not all(type(step) is Temperature for step in steps):
        return None
    return float(steps[0].temperature) or None if steps else 1.0  # type: ignore[attr-defined]


def draws_from(
    call: SamplerCall,
    i: int,
    left: Any,
    numbers: list[float],
    options: Options,
    size: int | None,
) -> Any:
    """Return the id drawn from the candidates `left` of row `i`, or `size` without replacement.

    The first of these is that id. -1 where there are no more. `left` may be a temperature, where
    all of the row is left.
    """
    rng, seed, position, method = options[:4]
    if size is None and method == "inverse":
        return drawn_from(left, numbers[call.chances(i)])
    sample = partial(candidates.fast.sample, size=size, replace=size is None, on_invalid="flag")
    whole = isinstance(left, float)
    if whole:
        sample = partial(sample, temperature=left)
    if method == "race":  # where the ids matter
        scores = call.row(i) if whole else np.full(call.size, -np.inf)
        if not whole:
            scores[left.ids] = left.scores
        seeds, positions = race_words(rng, seed, position, call.shape)
        return sample(scores, seed=seeds[i], position=positions[i], method=method)
    source, more = NO_SOURCE, np.array(numbers[call.chances(i) :])
    if seed is None:
        source = generator(rng)
    elif more.size < (size or 1):
        seeds, positions = (words(w, "", call.shape)[i : i + 1] for w in (seed, position))
        more = philox(seeds, positions, call.chances(i) + (size or 1))[0, call.chances(i) :]
    found = sample(call.row(i) if whole else left.scores, rng=Uniforms(source, more))
    return found if whole else np.where(found >= 0, left.ids[found], -1)


def empty_report(call: SamplerCall, n: Any) -> list[NDArray[Any]]:
    """Return arrays for what is reported of each row, with NaN and -1 for each."""
    n = count(n, "logprobs", 0, call.size)
    numbers = [np.full(call.shape, np.nan, dtype=call.work) for _ in range(3)]
    top = np.full((*call.shape, n), np.nan, dtype=call.work)
    rank, top_ids = np.full(call.shape, -1), np.full((*call.shape, n), -1)
    return [*numbers[:2], rank, numbers[2], top, top_ids]


def report_row(
    report: list[NDArray[Any]], call: SamplerCall, i: int, left: Candidates, drawn: int
) -> None:
    """Write what is reported of the token that was drawn from the candidates `left` of row `i`.

    NaN and -1 where none was.
    """
    logprobs, filtered, rank, entropy, top, top_ids = report
    if drawn < 0:
        for numbers in report:
            numbers.reshape(call.rows, -1)[i] = -1 if numbers.dtype == np.int64 else np.nan
        return
    row, fast = call.row(i).astype(call.dtype, copy=False), candidates.fast
    logprobs.reshape(-1)[i] = fast.token_logprobs(row, drawn)
    filtered.reshape(-1)[i] = left.log_probs[left.find(np.array([drawn]))[0][0]]
    rank.reshape(-1)[i] = fast.rank(row, drawn)
    probs, log_probs = (
        fast.softmax(row.astype(np.float64)),
        fast.log_softmax(row.astype(np.float64)),
    )
    entropy.reshape(-1)[i] = -(probs @ np.where(probs > 0, log_probs, 0))
    best = fast.top_logprobs(row, top.shape[-1])
    top.reshape(call.rows, -1)[i], top_ids.reshape(call.rows, -1)[i] = best


def result(call: SamplerCall, ids: NDArray[Any], report: list[NDArray[Any]]) -> SamplerResult:
    """Return ids and what is reported of them, in the logits' dtype."""
    logprobs, filtered, rank, entropy, top, top_ids = (
        a if a.dtype == np.int64 else a.astype(call.dtype, copy=False) for a in report
    )
    best = TopLogprobs(top, top_ids)
    return SamplerResult(ids[()], logprobs[()], filtered[()], rank[()], best, entropy[()])


def filter_scores(call: SamplerCall, compiled: Any, options: Options, done: Any) -> Any:
    """Return the scores that are left of each row, by the means of `draw`.

    `done` is (a number for each row, uniforms, scores), where it is a tuple.
    """
    if done is None and call.work == call.dtype:  # a half type is rounded once
        done = run_compiled("filter", compiled, call, *options[:3], options.workers)
    if done is None:
        if options.workers is not None:
            _threads.count(options.workers)
        scores = np.empty((*call.shape, call.size), dtype=call.dtype)
        done = np.full(call.rows, -1), uniforms(call, options, 0), scores
    if type(done) is not tuple:
        return done
    good, numbers, scores = done
    for i in np.flatnonzero(good.reshape(-1) < 0).tolist():
        row = scores.reshape(call.rows, call.size)[i]
        row.fill(-np.inf)
        left = left_of(call, i, numbers[i])
        with np.errstate(all="ignore"):
            row[left.ids] = left.scores
    return scores
