"""A `Sampler`'s steps in Python: on the few tokens of each row that can be left in the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import steps as library
from .._arguments import masks
from .._arguments.arrays import as_array, result_dtype, work_dtype
from .._arguments.results import NOTHING, VALID_ROWS, row_name, why_invalid
from .._arguments.values import shown
from ..steps import candidates
from ..steps.base import NO_IDS, Step
from ..steps.candidates import Candidates, Ids, Tokens, places
from ..steps.given import AllowedTokens
from . import program
from .histories import (
    check_history,
    checked_tokens,
    foresee,
    given_tokens,
    is_history,
    stateful,
    tokens_of,
)
from .rows import StepsOfRows

Started = Callable[[int], tuple[Any, int]]
#: Called with a step (None before the first) and what was left before and after it.
Watch = Callable[[Step | None, Candidates, Candidates], None]


class InvalidRowError(ValueError):
    """A row has no probabilities, or the steps leave it none."""


class SamplerCall:
    """One call of a `Sampler`: its arguments, and the steps to run on each row.

    What is as large as the rows, or takes time for each, is made when it is asked for: where the
    compiled chain has run, few rows are left to look at.

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
    checked : bool, default False
        Whether the compiled chain has taken these arguments; else what is wrong is raised at once.
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
        checked: bool = False,
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
        self.work = work_dtype(x.dtype)
        self.eps = float(np.finfo(self.work).eps)
        self.given = x.view() if x.ndim == 2 else x[np.newaxis]  # whose shape stays
        self.rows, self.size = self.given.shape
        self.mask = None if mask is None else masks.as_mask(mask)
        self.mask_numbers = None
        if mask is not None or mask_rows is not None:
            masks.check(self.mask, mask_rows, x.shape)
        if self.mask is not None and mask_rows is not None:
            self.mask_numbers = masks.numbers_of(mask_rows, len(self.mask), self.rows)
        self.chains = steps if isinstance(steps, StepsOfRows) else [steps] * self.rows
        self.started = started
        self.history = ids if is_history(ids) else None
        self.ids, self.prompt = ids, prompt
        self._tokens: dict[int, Tokens] = {}
        self._seen: Candidates | None = None  # what the step with a state was called with last
        if not checked:
            for step in {id(s): s for steps in self.chains for s in steps}.values():
                step.check(self.size)
            self.histories()

    def check_state(self) -> None:
        """Raise a ValueError if a step has a state that nothing keeps."""
        step = next(filter(None, map(stateful, self.chains)), None)
        if step and self.history is None:
            raise ValueError(
                f"ids is no History; allowed with {step.short_repr()}, which remembers what was "
                "drawn, is a fastsoftmax.History"
            )

    def chances(self, i: int) -> int:
        """Return how many random numbers the steps of row `i` take."""
        return sum(step.uniforms for step in self.chains[i])

    def foresee(self, i: int, token: int) -> None:
        """Let the state of row `i`, which has just run, be what follows if `token` is appended."""
        step = stateful(self.chains[i])
        if step and self._seen is not None:
            foresee(self.history, i, step, self._seen, token)

    def _name(self, i: int) -> str:
        """Return row `i` as an error names it."""
        return row_name((i,) if self.shape else ())

    @cached_property
    def data(self) -> NDArray[Any]:
        """All rows, in the dtype of the arithmetic, -inf where the mask shuts."""
        if not self._moved:
            return self.given
        rows = np.array([self.row(i) for i in range(self.rows)], self.work)
        return rows.reshape(self.rows, self.size)

    @cached_property
    def _moved(self) -> bool:
        """Whether rows are not to be read where they lie."""
        at_hand = self.given.dtype == self.work and self.given.flags.carray
        return not at_hand or self.mask is not None

    def row(self, i: int) -> NDArray[Any]:
        """Return row `i`, in the dtype of the arithmetic, -inf where the mask shuts."""
        row = self.given[i]
        if self._moved:
            with np.errstate(all="ignore"):
                row = np.require(row, dtype=self.work, requirements=["C", "A"])
        if self.mask is not None:
            opened = self._mask_of_row(i)
            if opened is not None and opened.dtype != np.bool_:
                opened = masks.unpacked(opened, self.size)
            row = row if opened is None else np.where(opened, row, self.work.type(-np.inf))
        return row

    def _mask_of_row(self, i: int) -> NDArray[Any] | None:
        """Return the mask of row `i`, as it is given, None if it has none."""
        if self.mask is None:
            return None
        return masks.row_of(np.atleast_1d(self.mask), self.mask_numbers, self.shape, i)

    @cached_property
    def _given_tokens(self) -> tuple[list[Any], list[Any]]:
        """The tokens so far of each row, and how many of them are its prompt, as they are given."""
        return given_tokens(self.ids, self.prompt, self.rows, single=not self.shape)

    def tokens(self, i: int) -> Tokens:
        """Return the tokens so far of row `i`, or raise where they are wrong."""
        if i not in self._tokens:
            if self.history is None:
                given, prompts = self._given_tokens
                self._tokens[i] = checked_tokens(given[i], prompts[i], self._name(i), self.size)
            else:
                self._tokens[i] = tokens_of(self.history, i, self.size)
        return self._tokens[i]

    def histories(self) -> list[Tokens]:
        """Return the tokens so far of each row, or raise where they are wrong."""
        if self.history is None:
            self._given_tokens  # noqa: B018
        else:
            check_history(self.history, self.rows, self.prompt)
        return [self.tokens(i) for i in range(self.rows)]

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
        begun = None if watch else self._start_compiled(i, numbers)
        if begun and begun[1] == len(self.chains[i]):
            ids, scores = begun[0]
            return Candidates(ids, scores, self.tokens(i), self.eps, iter(()))
        with np.errstate(all="ignore"):
            return self._run(i, numbers, begun, watch)

    def _start_compiled(self, i: int, numbers: list[float]) -> tuple[Any, int, int] | None:
        """Return what the compiled first steps of row `i` leave, how many they are, and the numbers
        that they take; None where none can run."""
        compiled, done = self.started(i) if self.started else (None, 0)
        if compiled is None or program.chains is None:
            return None
        history = self.tokens(i)
        ids = np.ascontiguousarray(history.ids)
        left = program.chains.left(
            compiled, self.given[i], ids, history.prompt, self._mask_of_row(i), numbers
        )
        return left and (left, done, sum(step.uniforms for step in self.chains[i][:done]))

    def _run(
        self, i: int, given: list[float], begun: tuple[Any, int, int] | None, watch: Watch | None
    ) -> Candidates:
        """Return what the steps leave of row `i`, `given` its random numbers.

        `begun` is what the compiled first steps have left, if these have run.
        """
        history, steps = self.tokens(i), self.chains[i]
        numbers = iter(given[begun[2] :] if begun else given)

        def start(ids: Ids, scores: NDArray[Any]) -> Candidates:
            left = Candidates(ids, scores.astype(np.float64), history, self.eps, numbers)
            return left if left.scores.min(initial=0) > -np.inf else left.with_scores(left.scores)

        if begun:
            (ids, scores), done, _ = begun
            left = Candidates(ids, scores, history, self.eps, numbers)
        else:
            row = self._row(i)
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
        row = self.row(i)
        highest = float(row.max(initial=-np.inf))
        if not -np.inf < highest < np.inf:
            why = why_invalid(row)
            if self.mask is not None and why == NOTHING:
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
                return None if rounded and self.work == np.float64 else (left, done)
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
