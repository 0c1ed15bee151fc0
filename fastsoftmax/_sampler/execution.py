"""A `Sampler`'s steps in Python: on the few tokens of each row that can be left in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import steps as library
from .._arguments.arrays import as_array, result_dtype, work_dtype
from .._arguments.masks import allowed as allowed_by
from .._arguments.results import NOTHING, VALID_ROWS, row_name, why_invalid
from .._arguments.values import count, has_bool, shown
from ..steps import candidates
from ..steps.base import NO_IDS, Step
from ..steps.candidates import Candidates, Ids, Tokens, places
from ..steps.given import AllowedTokens
from . import program
from .histories import foresee, is_history, stateful, tokens_of
from .rows import StepsOfRows

Started = Callable[[int], tuple[Any, int]]
#: Called with a step (None before the first) and what was left before and after it.
Watch = Callable[[Step | None, Candidates, Candidates], None]


class InvalidRowError(ValueError):
    """A row has no probabilities, or the steps leave it none."""


class SamplerCall:
    """One call of a `Sampler`: its checked arguments, and the steps to run on each row.

    Parameters
    ----------
    steps : tuple of Step, or StepsOfRows
        The sampler's steps, or those of each row.
    logits, ids, prompt, mask, mask_rows
        As given to the call.
    started : callable, optional
        Returns the program of a row's first steps, or None, and how many these are.
    single : bool, default False
        Whether one row alone is allowed.
    """

    def __init__(
        self,
        steps: tuple[Step, ...] | StepsOfRows,
        logits: Any,
        ids: Any,
        prompt: Any,
        mask: Any = None,
        mask_rows: Any = None,
        started: Started | None = None,
        single: bool = False,
    ) -> None:
        x = as_array(logits, "logits")
        if x.ndim not in ((1,) if single else (1, 2)):
            allowed = "one row" if single else "one row, or two dimensions"
            raise ValueError(f"logits has shape {x.shape}; allowed is {allowed}")
        if isinstance(steps, StepsOfRows) and (x.ndim < 2 or len(steps) != len(x)):
            wanted = f"{len(steps)} rows, one for each {steps.each}"
            raise ValueError(f"logits has shape {x.shape}; allowed are {wanted}")
        self.shape = x.shape[:-1]
        self.dtype = result_dtype(x.dtype)
        work = work_dtype(x.dtype)
        rows = x.view() if x.ndim == 2 else x[np.newaxis]  # whose shape stays
        if rows.dtype != work or not rows.flags.carray:
            with np.errstate(all="ignore"):
                rows = np.require(rows, dtype=work, requirements=["C", "A"])
        opened = allowed_by(mask, mask_rows, x.shape)
        self.masked = opened is not None
        if opened is not None:
            rows = np.where(opened.reshape(rows.shape), rows, work.type(-np.inf))
        self.data = rows
        self.eps = float(np.finfo(work).eps)
        self.chains = steps if isinstance(steps, StepsOfRows) else [steps] * len(rows)
        for step in {id(s): s for steps in self.chains for s in steps}.values():
            step.check(x.shape[-1])
        self.started = started
        self.history = ids if is_history(ids) else None
        if self.history is None:
            self.histories = list(self._histories(ids, prompt))
        else:
            self.histories = tokens_of(ids, len(rows), rows.shape[1], prompt)
        self.stateful = [*map(stateful, self.chains)]
        self._seen: Candidates | None = None  # what the step with a state was called with last

    def check_state(self) -> None:
        """Raise a ValueError if a step has a state that nothing keeps."""
        step = next(filter(None, self.stateful), None)
        if step and self.history is None:
            raise ValueError(
                f"ids is no History; allowed with {step.short_repr()}, which remembers what was "
                "drawn, is a fastsoftmax.History"
            )

    def foresee(self, i: int, token: int) -> None:
        """Let the state of row `i`, which has just run, be what follows if `token` is appended."""
        step = self.stateful[i]
        if step and self._seen is not None:
            foresee(self.history, i, step, self._seen, token)

    def _name(self, i: int) -> str:
        """Return row `i` as an error names it."""
        return row_name((i,) if self.shape else ())

    def _for_rows(self, value: Any, name: str, allowed: str) -> list[Any]:
        """Return an argument as a list; raise where it is none."""
        try:
            return list(value)
        except TypeError:
            raise TypeError(f"{name} is {shown(value)}; allowed are {allowed}, one a row") from None

    def _tokens(self, tokens: Any, i: int) -> NDArray[Any]:
        """Return the tokens so far of row `i` as an array of integers, or raise."""
        try:
            asked = np.asarray(tokens)
        except ValueError:  # ragged
            asked = None
        if (
            asked is None
            or asked.ndim != 1
            or (asked.size and asked.dtype.kind not in "iu")
            or has_bool(tokens)  # NumPy makes [1, 5] of [True, 5]
        ):
            raise TypeError(
                f"ids has {shown(tokens)} for {self._name(i)}; allowed is a sequence of token ids"
            )
        return asked

    def _histories(self, ids: Any, prompt: Any) -> Iterator[Tokens]:
        """Yield the checked tokens so far of each row, from the call's `ids` and `prompt`."""
        rows, size = self.data.shape
        given = self._for_rows(ids, "ids", "sequences of token ids") if self.shape else [ids]
        if self.shape and not given:
            given = [()] * rows
        prompts = [prompt] * rows
        if isinstance(prompt, (list, tuple)) or (isinstance(prompt, np.ndarray) and prompt.ndim):
            prompts = list(prompt)
        for name, value in (("ids", given), ("prompt", prompts)):
            if len(value) != rows:
                raise ValueError(f"{name} is for {len(value)} rows; logits has {rows}")
        for i, (tokens, length) in enumerate(zip(given, prompts, strict=True)):
            asked = self._tokens(tokens, i)
            array = asked.astype(np.int64, copy=False)
            if array.view(np.uint64).max(initial=0) >= max(size, 1):  # negative ones are large
                outside = asked[(array < 0) | (array >= size)][0]
                raise ValueError(
                    f"ids has {outside} in {self._name(i)}; allowed are ids from 0 to {size - 1}"
                )
            yield Tokens(array, count(length, "prompt", 0, array.size))

    def run_row(self, i: int, numbers: list[float], watch: Watch | None = None) -> Candidates:
        """Return what the steps leave of row `i`, or raise `InvalidRowError`.

        Parameters
        ----------
        i : int
            The row.
        numbers : list of float
            The random numbers for its steps, and maybe others.
        watch : callable, optional
            Called before the first step and after each; then every step runs on all that is left.
        """
        with np.errstate(all="ignore"):
            return self._run(i, numbers, watch)

    def _start_compiled(self, i: int, numbers: list[float]) -> tuple[Any, int, int] | None:
        """Return what the compiled first steps of row `i` leave, how many they are, and the numbers
        that they take; None where none can run."""
        compiled, done = self.started(i) if self.started else (None, 0)
        if compiled is None or program.chains is None:
            return None
        taken = sum(step.uniforms for step in self.chains[i][:done])
        history = self.histories[i]
        ids = np.ascontiguousarray(history.ids)
        left = program.chains.left(compiled, self.data[i], ids, history.prompt, numbers[:taken])
        return left and (left, done, taken)

    def _run(self, i: int, given: list[float], watch: Watch | None) -> Candidates:
        """Return what the steps leave of row `i`, `given` its random numbers."""
        row, history, steps = self._row(i), self.histories[i], self.chains[i]
        begun = None if watch else self._start_compiled(i, given)
        numbers = iter(given[begun[2] :] if begun else given)

        def start(ids: Ids, scores: NDArray[Any]) -> Candidates:
            left = Candidates(ids, scores.astype(np.float64), history, self.eps, numbers)
            return left if left.scores.min(initial=0) > -np.inf else left.with_scores(left.scores)

        if begun:
            (ids, scores), done, _ = begun
            left = Candidates(ids, scores, history, self.eps, numbers)
        else:
            few = None if watch else self._run_on_few(steps, row, history, start)
            left, done = few or (start(np.arange(row.size), row), 0)
        if watch:
            watch(None, left, left)
        for step in steps[done:]:
            if step.states:
                self._seen = left
            before, left = left, run_step(step, left)
            if not left.ids.size:
                raise InvalidRowError(f"{step.short_repr()} leaves nothing of {self._name(i)}")
            if watch:
                watch(step, before, left)
        if not -np.inf < float(left.scores.max()) < np.inf:
            raise InvalidRowError(f"the steps' scores overflow in {self._name(i)}")
        return left

    def _row(self, i: int) -> NDArray[Any]:
        """Return row `i`, or raise if it has no probabilities."""
        row = self.data[i]
        highest = float(row.max(initial=-np.inf))
        if not -np.inf < highest < np.inf:
            why = why_invalid(row)
            if self.masked and why == NOTHING:
                why += " that its mask allows"
            raise InvalidRowError(f"logits has {why} in {self._name(i)}; {VALID_ROWS}")
        return row

    def _run_on_few(
        self,
        steps: tuple[Step, ...],
        row: NDArray[Any],
        history: Tokens,
        start: Callable[[Ids, NDArray[Any]], Candidates],
    ) -> tuple[Candidates, int] | None:
        """Return what the first steps leave of `row`, and how many these steps are; else None.

        Order-preserving steps change the rank of the tokens that they name only; of the others
        they remove the worst. So the named and the best of the others are enough as soon as a step
        removes the worst of these: all that is absent would be gone by now, too. None, if that
        takes many.
        """
        if steps and isinstance(steps[0], AllowedTokens):
            ids = steps[0].reordered_ids(history)
            left = start(ids, row[ids])
            return (left, 0) if left.ids.size else None
        first_steps = [*takewhile(lambda step: step.order_preserving, steps)]
        kept = next((step.max_kept for step in first_steps if step.max_kept), None)
        if kept is None:
            return None
        named = NO_IDS
        for step in first_steps:
            ids = step.reordered_ids(history)
            if ids is not named and ids.size:
                named = np.union1d(named, ids) if named.size else ids
        k = kept + 1 + min(kept // 5 + 2, named.size)  # few of the best are named
        while k * 8 < row.size:
            others = candidates.fast.top_k(row, k).indices
            if named.size:
                others = others[~places(named, others)[1]]
            if others.size:
                ids = np.concatenate((others, named)) if named.size else others.copy()
                ids.sort()
                result = self._run_until_gone(
                    first_steps, start(ids, row[ids]), int(others[-1]), others.size
                )
                if result:
                    return result
            k *= 8
        return None

    def _run_until_gone(
        self, first_steps: list[Step], left: Candidates, worst: int, others: int
    ) -> tuple[Candidates, int] | None:
        """Run order-preserving steps until one removes the token `worst`; None, if none does.

        Returns what is left then, and how many steps have run. `worst` is the last of so many
        `others`, the tokens that no step names.
        """
        before = left
        for done, step in enumerate([None, *first_steps]):
            if step:
                if not left.ids.size or others < step.max_kept:
                    return None
                before, left = left, run_step(step, left)
                if not step.max_kept:
                    continue
            if left.score(worst) == -np.inf and left.ids.size:
                # In float64, a division can round two scores to one, and then the lower id wins.
                rounded = before.score(worst) >= left.scores.min()
                return None if rounded and self.data.dtype == np.float64 else (left, done)
        return None


def drawn_from(left: Candidates, u: float) -> int:
    """Return the token that the uniform `u` draws from the candidates `left`."""
    reached = left.probs.cumsum()
    return int(left.ids[reached.searchsorted(u * reached[-1], side="right")])


#: Steps whose answers need no check.
OWN = frozenset(getattr(library, name) for name in library.__all__)


def run_step(step: Step, left: Candidates) -> Candidates:
    """Return what a step leaves of the candidates `left`; raise if a user's returns anything else.

    Raises
    ------
    TypeError
        If that are no candidates, or their ids are not int64 or their scores not float64.
    ValueError
        If they are not some of those that were left, in ascending order, each with a score.
    """
    after = step(left)
    if type(step) in OWN or after is left:
        return after
    if not isinstance(after, Candidates):
        raise TypeError(f"{step.short_repr()} returned {shown(after)}; allowed are Candidates")
    for name, value, dtype in (("ids", after.ids, np.int64), ("scores", after.scores, np.float64)):
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != 1:
            raise TypeError(
                f"{step.short_repr()} returned {name} that are {shown(value)}; allowed is an "
                f"array of {dtype.__name__} and of one axis"
            )
    ids, scores = after.ids, after.scores
    if ids.size != scores.size or not (ids[1:] > ids[:-1]).all() or not left.find(ids)[1].all():
        raise ValueError(
            f"{step.short_repr()} returned ids that are {shown(ids)}; allowed are some of those "
            "that were left, ascending, and a score for each"
        )
    if not scores.min(initial=0) > -np.inf:  # False for NaN
        raise ValueError(
            f"{step.short_repr()} returned a score of {scores.min()}; allowed are numbers above "
            "-inf"
        )
    return after
