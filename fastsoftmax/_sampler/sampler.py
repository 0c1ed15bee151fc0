"""`Sampler`: steps in an order, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from .._arguments.values import count, shown
from ..steps.base import Step
from ..steps.candidates import Candidates
from . import program
from .batch import SamplerBatch, checked_samplers, in_python
from .caller import Caller, check_keywords
from .calls import Options, left_of, uniforms
from .execution import SamplerCall
from .histories import check_steps
from .presets import Presets
from .results import Stage, TokenProbs, Trace, token_probs
from .rows import StepsOfRows, rows_of, steps_of_rows

#: What a sampler makes of its steps.
_MADE = ("_program", "_begun", "_compiled", "_rows", "_each")


@dataclass(frozen=True, init=False, repr=False)
class Sampler(Caller, Presets):
    """Choose tokens by steps, in the order given; built once, called for each token.

    Parameters
    ----------
    *steps : Step
        What happens to the scores, one step after the other (`fastsoftmax.steps`). Without any, a
        token is drawn with the probabilities of its logits. A parameter of a step that is a number,
        a switch or a choice may be an array or a sequence of one for each row of the calls.

    Attributes
    ----------
    steps : tuple of Step
        The steps in their order. They and the sampler are immutable, hashable and can be pickled.

    Raises
    ------
    TypeError
        If something is no step.
    ValueError
        If two steps have a state, or parameters have values for different numbers of rows.

    Notes
    -----
    Each step sees what the step before it left, renormalised; scores are float64 throughout. What
    is left in the end is drawn from as `sample` does: the first token, walking in index order,
    whose cumulative weight exceeds ``u * total``. So ``Sampler(Temperature(t), TopK(k), TopP(p),
    MinP(m))`` draws what ``sample(temperature=t, top_k=k, top_p=p, min_p=m)`` draws.

    The steps run compiled (`compiled`), row by row without the GIL; rows are shared by threads as
    in `sample`. A step of a user's own runs in Python, and so do those behind it, on what the
    compiled ones before it left: some 10 us a step for few tokens; from the first step on, 0.1 to
    0.3 ms a row. What runs in Python is said by `repr` and `trace`. An id that `accept` refuses
    costs its row once more, and some 30 us.

    Cost: if a `TopK`, a `MinP` that leaves few or a temperature of 0 comes early, one pass over the
    row for its maximum, and work on the few best tokens. Temperatures, caps, penalties, biases and
    suppressed tokens may come before it: they change the order of the tokens that they name only,
    so what is left in the end is among those and the best of the others, and only these are looked
    at. Otherwise, one or two passes more for the sums that the first filter needs, which take three
    times as long behind a cap; only where that keeps thousands or is an `XTC`, the row is listed as
    a whole. The vocabulary is never sorted.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import Sampler
    >>> from fastsoftmax.steps import RepetitionPenalty, Temperature, TopK, TopP
    >>> sampler = Sampler(RepetitionPenalty(1.3), Temperature(0.8), TopK(3), TopP(0.9))
    >>> sampler
    Sampler(RepetitionPenalty(1.3), Temperature(0.8), TopK(3), TopP(0.9))
    >>> logits = np.array([1.0, 4.0, 2.0, 3.5, 0.0], dtype=np.float32)
    >>> rng = np.random.default_rng(1)
    >>> int(sampler(logits, ids=[1, 1, 2], rng=rng))
    3
    >>> sampler.trace(logits, ids=[1, 1, 2])
                                left  prob. kept  most likely
    as scored                      5     100.00%  1 55.2%, 3 33.5%, 2 7.5%
    RepetitionPenalty(1.3)         5     100.00%  3 52.4%, 1 34.3%, 2 7.4%
    Temperature(0.8)               5     100.00%  3 57.7%, 1 34.0%, 2 5.0%
    TopK(3)                        3      96.74%  3 59.7%, 1 35.2%, 2 5.1%
    TopP(0.9)                      2      94.86%  3 62.9%, 1 37.1%
    """

    steps: tuple[Step, ...]
    _rows: ClassVar[tuple[int, str] | None] = None  # as `_program`, each instance has its own
    _each: ClassVar[Any] = None
    _begun: ClassVar[dict[int, tuple[Any, int]]] = {}  # the program of a row's first steps
    _compiled: ClassVar[int] = 0

    def __init__(self, *steps: Step) -> None:
        for step in steps:
            if not isinstance(step, Step):
                raise TypeError(f"steps has {shown(step)}; allowed are steps, such as TopK(50)")
        check_steps(steps)
        self.__setstate__({"steps": steps})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _MADE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        chain, rows = state["steps"], rows_of(state["steps"])
        compiled, first = program.compiled(chain, rows and rows[0])
        begun = {} if rows or any(step.states for step in chain) else {0: (compiled, first)}
        whole = compiled if first == len(chain) else None
        vars(self).update(state, _program=whole, _begun=begun, _compiled=first, _rows=rows)

    @property
    def compiled(self) -> tuple[bool, ...]:
        """Which of the steps run compiled: all, or those before the first that is a user's own.

        But none where these remove no tokens, of no row; and a step with a state, if it is not the
        last one, counts as a user's own.
        """
        return tuple(i < self._compiled for i in range(len(self.steps)))

    def _started(self, row: int) -> tuple[Any, int]:
        if self._rows is None:
            row = 0
        if row not in self._begun:
            steps = self._steps()
            chain = steps[row] if isinstance(steps, StepsOfRows) else steps
            self._begun[row] = program.compiled_before_state(chain)
        return self._begun[row]

    def _steps(self) -> tuple[Step, ...] | StepsOfRows:
        if self._rows is None:
            return self.steps
        if self._each is None:
            vars(self)["_each"] = steps_of_rows(self.steps, *self._rows)
        return self._each

    @classmethod
    def batch(cls, samplers: Iterable[Sampler]) -> SamplerBatch:
        """Return samplers as one that is called with a row for each of them.

        Parameters
        ----------
        samplers : sequence of Sampler
            One for each row of the calls. It takes little time, and a sampler may be in many.

        Returns
        -------
        SamplerBatch
            Called as a sampler is, with as many rows: each row is as if alone, whatever the others
            are. From one `rng` they draw in their order. `SamplerBatch.samplers` has them.

        Raises
        ------
        TypeError
            If something is no sampler.

        Examples
        --------
        >>> import numpy as np
        >>> from fastsoftmax import Sampler
        >>> from fastsoftmax.steps import Temperature, TopK
        >>> batch = Sampler.batch([Sampler(Temperature(0)), Sampler(TopK(2), Temperature(0.5))])
        >>> batch(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), seed=[7, 8], position=0)
        array([2, 1])
        """
        return SamplerBatch(checked_samplers(samplers, Sampler))

    def replace(self, step: Step | type[Step], by: Step) -> Self:
        """Return a sampler that has another step in the place of one.

        Parameters
        ----------
        step : Step or type
            The step, or its type, which the sampler has once.
        by : Step
            What comes in its place.

        Raises
        ------
        ValueError
            If the sampler has no such step, or several.
        TypeError
            If `by` is no step.

        Examples
        --------
        >>> from fastsoftmax import Sampler
        >>> from fastsoftmax.steps import Temperature
        >>> Sampler.vllm(top_k=20, temperature=0.7).replace(Temperature, Temperature(0.9))
        Sampler(Temperature(0.9), TopK(20, ties='all'))
        """
        found = [s == step or (isinstance(step, type) and type(s) is step) for s in self.steps]
        if sum(found) != 1:
            names = ", ".join(s.short_repr() for s in self.steps)
            raise ValueError(
                f"step is {shown(step)}, which the sampler has {sum(found)} times; allowed is one "
                f"of {names}"
            )
        i = found.index(True)
        return type(self)(*self.steps[:i], by, *self.steps[i + 1 :])

    def insert(self, index: int, step: Step) -> Self:
        """Return a sampler that has one more step.

        Parameters
        ----------
        index : int
            Where the step is then: 0 for the first, up to the number of steps for the last.
        step : Step
            The step.

        Raises
        ------
        ValueError
            If `index` is out of range.
        TypeError
            If `step` is no step, or `index` no int.

        Examples
        --------
        >>> from fastsoftmax import Sampler
        >>> from fastsoftmax.steps import SuppressTokens
        >>> Sampler.vllm(top_k=20).insert(0, SuppressTokens([7]))
        Sampler(SuppressTokens((7,)), TopK(20, ties='all'))
        """
        i = count(index, "index", 0, len(self.steps))
        return type(self)(*self.steps[:i], step, *self.steps[i:])

    def __repr__(self) -> str:
        return f"Sampler({', '.join(map(repr, self.steps))}){in_python([self])}"

    @check_keywords
    def candidates(
        self,
        logits: ArrayLike,
        ids: Any = (),
        rng: int | np.random.Generator | None = None,
        *,
        prompt: int = 0,
        mask: Any = None,
        seed: int | None = None,
        position: int | None = None,
    ) -> TokenProbs:
        """Return what the steps leave of one row: ids and probabilities, most likely first.

        Parameters
        ----------
        logits : array_like, shape (n,)
            Scores; dtypes as in `sample`.
        ids : sequence of int, or History
            The tokens so far, the oldest first: what the penalties look at.
        rng : None, int or numpy.random.Generator
            Where the randomness of `XTC` comes from; without that step, none is taken.
        prompt : int
            How many of `ids`, from the first, are the prompt; the others have been generated.
        mask : array_like, optional
            Which ids are allowed, as `sample` describes it; the others are -inf before the steps.
        seed, position : int, optional
            In place of `rng`, as in `sample`.

        Returns
        -------
        TokenProbs
            Named tuple of ``indices`` (int64) and ``probs`` (float64, sum 1).

        Raises
        ------
        ValueError, TypeError
            Where a call of the sampler raises, and for two dimensions.
        """
        call = SamplerCall(self._steps(), logits, ids, prompt, mask, single=True)
        (numbers,) = uniforms(call, Options(rng, seed, position), 0)
        return token_probs(left_of(call, 0, numbers))

    @check_keywords
    def trace(
        self,
        logits: ArrayLike,
        ids: Any = (),
        rng: int | np.random.Generator | None = None,
        *,
        prompt: int = 0,
        mask: Any = None,
        seed: int | None = None,
        position: int | None = None,
    ) -> Trace:
        """Return what each step does to one row; print it to see a table.

        For looking, not for speed: every step runs on all that is left, and the row is sorted.

        Parameters
        ----------
        logits : array_like, shape (n,)
            Scores; dtypes as in `sample`.
        ids : sequence of int, or History
            The tokens so far, the oldest first: what the penalties look at.
        rng : None, int or numpy.random.Generator
            Where the randomness of `XTC` comes from; without that step, none is taken.
        prompt : int
            How many of `ids`, from the first, are the prompt; the others have been generated.
        mask : array_like, optional
            Which ids are allowed, as `sample` describes it; the others are -inf before the steps.
        seed, position : int, optional
            In place of `rng`, as in `sample`.

        Returns
        -------
        Trace
            A tuple of `Stage`: ``step``, ``left``, ``kept``, ``candidates``, ``compiled``.

        Raises
        ------
        ValueError, TypeError
            Where a call of the sampler raises, and for two dimensions.
        """
        call = SamplerCall(self._steps(), logits, ids, prompt, mask, single=True)
        stages: list[Stage] = []

        def watch(step: Step | None, before: Candidates, after: Candidates) -> None:
            kept = 1.0 if after.ids is before.ids else before.probs[before.find(after.ids)[0]].sum()
            done = step is None or not mixed or self.compiled[len(stages) - 1]
            stages.append(
                Stage(step, after.ids.size, min(float(kept), 1.0), token_probs(after), done)
            )

        mixed = program.chains is not None
        (numbers,) = uniforms(call, Options(rng, seed, position), 0)
        left_of(call, 0, numbers, watch)
        return Trace(stages)
