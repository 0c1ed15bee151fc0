"""How a `Sampler`'s steps run: on the few tokens of each row that can be left in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _candidates
from ._arguments import arrays, values
from ._candidates import Candidates, History, Ids, places
from ._scores import Allowed
from ._step import NO_IDS, Step

#: Called with a step (None before the first) and what was left before and after it.
Watch = Callable[[Step | None, Candidates, Candidates], None]


class Rows:
    """The checked arguments of a call, and the steps to run on each row."""

    def __init__(
        self, steps: tuple[Step, ...], logits: Any, ids: Any, prompt: Any, one: bool = False
    ) -> None:
        x = arrays.as_array(logits, "logits")
        if x.ndim not in ((1,) if one else (1, 2)):
            allowed = "one row" if one else "one row, or two dimensions"
            raise ValueError(f"logits has shape {x.shape}; allowed is {allowed}")
        self.steps = steps
        self.shape = x.shape[:-1]
        self.dtype = arrays.result_dtype(x.dtype)
        work = arrays.work_dtype(x.dtype)
        rows = x if x.ndim == 2 else x[np.newaxis]
        if rows.dtype != work or not rows.flags.carray:
            with np.errstate(all="ignore"):
                rows = np.require(rows, dtype=work, requirements=["C", "A"])
        self.data = rows
        self.eps = float(np.finfo(work).eps)
        for step in steps:
            step.check(x.shape[-1])
        self.histories = list(self._histories(ids, prompt))

    def _name(self, i: int) -> str:
        return f"row {(i,) if self.shape else ()}"

    def _histories(self, ids: Any, prompt: Any) -> Iterator[History]:
        """Yield the checked tokens so far of each row."""
        count, size = self.data.shape
        given = [ids] if not self.shape else list(ids)
        if self.shape and not given:
            given = [()] * count
        prompts = list(prompt) if np.ndim(prompt) else [prompt] * count
        for name, value in (("ids", given), ("prompt", prompts)):
            if len(value) != count:
                raise ValueError(f"{name} is for {len(value)} rows; logits has {count}")
        for i, (tokens, length) in enumerate(zip(given, prompts, strict=True)):
            array = np.asarray(tokens)
            if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
                raise TypeError(
                    f"ids has {tokens!r} for {self._name(i)}; allowed is a sequence of token ids"
                )
            array = array.astype(np.int64, copy=False)
            if array.view(np.uint64).max(initial=0) >= max(size, 1):  # negative ones are large
                wrong = array[(array < 0) | (array >= size)][0]
                raise ValueError(
                    f"ids has {wrong} in {self._name(i)}; allowed are ids from 0 to {size - 1}"
                )
            yield History(array, values.count(length, "prompt", 0, array.size))

    def run(
        self, rng: Any, draws: int, watch: Watch | None = None
    ) -> Iterator[tuple[Candidates, float]]:
        """Yield what the steps leave of each row, and a uniform if `draws` is 1."""
        each = sum(step.uniforms for step in self.steps) + draws
        uniforms = [[0.0]] * len(self.data)
        if each:
            uniforms = values.generator(rng).random((len(self.data), each)).tolist()
        for i, numbers in enumerate(uniforms):
            with np.errstate(all="ignore"):
                left = self._run(i, iter(numbers), watch)
            yield left, numbers[-1]

    def _run(self, i: int, numbers: Iterator[float], watch: Watch | None) -> Candidates:
        """Return what the steps leave of row `i`; show `watch` each of them."""
        row, history = self._checked(i), self.histories[i]

        def start(ids: Ids, scores: NDArray[Any]) -> Candidates:
            left = Candidates(ids, scores.astype(np.float64), history, self.eps, numbers)
            return left if left.scores.min(initial=0) > -np.inf else left.rescored(left.scores)

        few = None if watch else self._few(row, history, start)
        left, done = few or (start(np.arange(row.size), row), 0)
        if watch:
            watch(None, left, left)
        for step in self.steps[done:]:
            before, left = left, step(left)
            if not left.ids.size:
                raise ValueError(f"{step.brief()} leaves nothing of {self._name(i)}")
            if watch:
                watch(step, before, left)
        if not -np.inf < float(left.scores.max()) < np.inf:
            raise ValueError(f"the steps' scores overflow in {self._name(i)}")
        return left

    def _checked(self, i: int) -> NDArray[Any]:
        """Return row `i`, or raise if it has no probabilities."""
        row = self.data[i]
        highest = float(row.max(initial=-np.inf))
        if not -np.inf < highest < np.inf:
            why = "NaN" if highest != highest else "+inf" if highest > 0 else "nothing above -inf"
            raise ValueError(
                f"logits has {why} in {self._name(i)}; allowed are rows of finite numbers and "
                "-inf, one of them finite"
            )
        return row

    def _few(
        self,
        row: NDArray[Any],
        history: History,
        start: Callable[[Ids, NDArray[Any]], Candidates],
    ) -> tuple[Candidates, int] | None:
        """Return what the first steps leave of a row, and how many these are, without all of it.

        Local steps change the order of the tokens that they name only; of the others they remove
        the worst. So the named and the best of the others are enough as soon as a step removes
        the worst of these: all that is absent would be gone by now, too. None: if that takes many.
        """
        if self.steps and isinstance(self.steps[0], Allowed):
            ids = self.steps[0].touches(history)
            left = start(ids, row[ids])
            return (left, 0) if left.ids.size else None
        local = [*takewhile(lambda step: step.local, self.steps)]
        first = next((step.leaves for step in local if step.leaves), None)
        if first is None:
            return None
        named = NO_IDS
        for step in local:
            touched = step.touches(history)
            if touched is not named and touched.size:
                named = np.union1d(named, touched) if named.size else touched
        count = first + 1 + min(first // 5 + 2, named.size)  # few of the best are named
        while count * 8 < row.size:
            others = _candidates.fast.top_k(row, count).indices
            if named.size:
                others = others[~places(named, others)[1]]
            if others.size:
                ids = np.concatenate((others, named)) if named.size else others.copy()
                ids.sort()
                tried = self._try(local, start(ids, row[ids]), int(others[-1]), others.size)
                if tried:
                    return tried
            count *= 8
        return None

    def _try(
        self, local: list[Step], left: Candidates, worst: int, others: int
    ) -> tuple[Candidates, int] | None:
        """Run local steps until the worst of so many others is gone; None: it does not go."""
        before = left
        for done, step in enumerate([None, *local]):
            if step:
                if not left.ids.size or others < step.leaves:
                    return None
                before, left = left, step(left)
                if not step.leaves:
                    continue
            if left.score(worst) == -np.inf and left.ids.size:
                # In float64, a division can round two scores to one, and then the lower id wins.
                rounded = before.score(worst) >= left.scores.min()
                return None if rounded and self.data.dtype == np.float64 else (left, done)
        return None
