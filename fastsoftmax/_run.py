"""How a `Sampler`'s steps run: on the few tokens of each row that can be left in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _candidates
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
        x = _arrays.as_array(logits, "logits")
        if x.ndim not in ((1,) if one else (1, 2)):
            allowed = "one row" if one else "one row, or two dimensions"
            raise ValueError(f"logits has shape {x.shape}; allowed is {allowed}")
        self.steps = steps
        self.shape = x.shape[:-1]
        self.dtype = _arrays.result_dtype(x.dtype)
        work = _arrays.work_dtype(x.dtype)
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
            yield History(array, _arrays.count(length, "prompt", 0, array.size))

    def run(
        self, rng: Any, draws: int, watch: Watch | None = None
    ) -> Iterator[tuple[Candidates, float]]:
        """Yield what the steps leave of each row, and a uniform if `draws` is 1."""
        each = sum(step.uniforms for step in self.steps) + draws
        uniforms = [[0.0]] * len(self.data)
        if each:
            uniforms = _arrays.generator(rng).random((len(self.data), each)).tolist()
        for i, numbers in enumerate(uniforms):
            with np.errstate(all="ignore"):
                left = self._run(i, iter(numbers), watch)
            yield left, numbers[-1]

    def _run(self, i: int, numbers: Iterator[float], watch: Watch | None) -> Candidates:
        """Return what the steps leave of row `i`; show `watch` each of them."""
        left = self._begin(i, numbers, whole=watch is not None)
        if watch:
            watch(None, left, left)
        for step in self.steps:
            before, left = left, step(left)
            if not left.ids.size:
                raise ValueError(f"{step.brief()} leaves nothing of {self._name(i)}")
            if watch:
                watch(step, before, left)
        if not -np.inf < float(left.scores.max()) < np.inf:
            raise ValueError(f"the steps' scores overflow in {self._name(i)}")
        return left

    def _begin(self, i: int, numbers: Iterator[float], whole: bool) -> Candidates:
        """Return the candidates to start from: the whole row, or enough of it."""
        row = self.data[i]
        highest = float(row.max(initial=-np.inf))
        if not -np.inf < highest < np.inf:
            why = "NaN" if highest != highest else "+inf" if highest > 0 else "nothing above -inf"
            raise ValueError(
                f"logits has {why} in {self._name(i)}; allowed are rows of finite numbers and "
                "-inf, one of them finite"
            )
        ids = None if whole else self._enough(row, self.histories[i])
        if ids is not None:
            scores = row[ids].astype(np.float64)
        if ids is None or scores.max(initial=-np.inf) == -np.inf:
            ids, scores = np.arange(row.size), row.astype(np.float64)
        left = Candidates(ids, scores, self.histories[i], self.eps, numbers)
        return left if scores.min() > -np.inf else left.rescored(scores)

    def _enough(self, row: NDArray[Any], history: History) -> Ids | None:
        """Return ids, ascending, that lead to the same outcome as the whole row; None if many.

        The steps up to the first that leaves at most k, the best ones, move m tokens at most; the
        others keep their order. So what that step leaves is among those m and the k best others.
        """
        changed, k, ties = NO_IDS, 1, row.dtype == np.float64
        if self.steps and isinstance(self.steps[0], Allowed):
            return self.steps[0].touches(history)
        for step in self.steps:
            k = max(k, step.limit or 1, getattr(step, "min_keep", 1))
            if step.limit is not None:
                ties = ties or getattr(step, "ties", "index") == "all"
                break
            if not step.local:
                return None
            touched = step.touches(history)
            if touched is not changed and touched.size:
                changed = np.union1d(changed, touched) if changed.size else touched
        else:
            return None
        most = k + changed.size
        count = k + min(k // 5 + 2, changed.size)  # few of the best are among the changed
        while count * 8 < row.size:
            values, ids = _candidates.fast.top_k(row, count + 1)
            others = ids[:count]
            if changed.size:
                others = others[~places(changed, others)[1]]
            if others.size >= k or count >= most:
                # Equal scores matter; in float64, also those that a step can round to equal ones.
                lowest = float(values[count - 1])
                lowest -= 1e-12 * abs(lowest)
                if ties and values[count] >= lowest > -np.inf:
                    others = np.flatnonzero(row >= row.dtype.type(lowest))
                    others = others[~places(changed, others)[1]] if changed.size else others
                enough = np.concatenate((others, changed))
                enough.sort()
                return enough
            count *= 2
        return None
