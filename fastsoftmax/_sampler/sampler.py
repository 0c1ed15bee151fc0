"""`Sampler`: steps in an order, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arguments.values import shown
from ..steps.base import Step
from ..steps.candidates import Candidates
from .execution import SamplerCall
from .histories import check_steps
from .presets import Presets

Method = TypeVar("Method", bound=Callable[..., Any])

_RNG = "rng= (an int or a numpy.random.Generator)"
_MASK = "logits of -inf, or steps.AllowedTokens in the sampler"
#: What is here in place of other libraries' keywords.
OURS = {
    "seed": _RNG,
    "generator": _RNG,
    "random_state": _RNG,
    "key": _RNG,
    "where": _MASK,
    "mask": _MASK,
    "input_ids": "ids=",
    "scores": "logits=",
    "temperature": "steps.Temperature in the sampler",
    "top_k": "steps.TopK in the sampler",
    "top_p": "steps.TopP in the sampler",
    "min_p": "steps.MinP in the sampler",
}


def _check_keywords(method: Method) -> Method:
    """Return `method`, which then answers an unknown keyword with what is here in its place."""

    @wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in ("logits", "ids", "rng", "prompt"):
                ours = OURS.get(name, "logits, ids=, rng= and prompt=")
                raise TypeError(f"Sampler() calls take {ours}, not {name}=")
        return method(*args, **kwargs)

    return cast(Method, checked)


class TokenProbs(NamedTuple):
    """The tokens that are left of a row, most likely first, and their probabilities."""

    indices: NDArray[np.int64]
    probs: NDArray[np.float64]


class Stage(NamedTuple):
    """What one step did to a row.

    Attributes
    ----------
    step : Step or None
        The step; None for the row before the first.
    left : int
        How many tokens are left after it.
    kept : float
        The probability, before the step, of the tokens that the step left.
    candidates : TokenProbs
        The tokens that are left, most likely first, and their probabilities.
    """

    step: Step | None
    left: int
    kept: float
    candidates: TokenProbs


class Trace(tuple[Stage, ...]):
    """A tuple of each `Stage` of one row in order, which prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = ["as scored" if stage.step is None else stage.step.short_repr() for stage in self]
        width = max(map(len, names))
        lines = [f"{'':{width}}  {'left':>8}  {'mass kept':>9}  most likely"]
        for name, stage in zip(names, self, strict=True):
            best = [f"{i} {p:.1%}" for i, p in zip(*(a[:3] for a in stage.candidates), strict=True)]
            lines.append(f"{name:{width}}  {stage.left:>8}  {stage.kept:>9.2%}  {', '.join(best)}")
        return "\n".join(lines)


@dataclass(frozen=True, init=False, repr=False)
class Sampler(Presets):
    """Choose tokens by steps, in the order given; built once, called for each token.

    Parameters
    ----------
    *steps : Step
        What happens to the scores, one step after the other (`fastsoftmax.steps`). Without any, a
        token is drawn with the probabilities of its logits.

    Attributes
    ----------
    steps : tuple of Step
        The steps in their order. They and the sampler are immutable, hashable and can be pickled.

    Raises
    ------
    TypeError
        If something is no step.

    Notes
    -----
    Each step sees what the step before it left, renormalised; scores are float64 throughout. What
    is left in the end is drawn from as `sample` does: the first token, walking in index order,
    whose cumulative weight exceeds ``u * total``. So ``Sampler(Temperature(t), TopK(k), TopP(p),
    MinP(m))`` draws what ``sample(temperature=t, top_k=k, top_p=p, min_p=m)`` draws.

    Cost: if a `TopK`, a `MinP` that leaves few or a temperature of 0 comes early, one pass over the
    row for its maximum, one for the best tokens, and small-array work for each step: some 0.1 to
    0.3 ms for a vocabulary of 128256. Temperatures, penalties, biases and suppressed tokens may
    come before it: they change the order of the tokens that they name only, so what is left in the
    end is among those and the best of the others, and only these are looked at. Otherwise, some
    passes over the vocabulary; it is never sorted as a whole unless a filter keeps thousands.

    Pass arrays and a `numpy.random.Generator`: to make one from a long list of ids, or from a seed,
    takes longer than a step.

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
                                left  mass kept  most likely
    as scored                      5    100.00%  1 55.2%, 3 33.5%, 2 7.5%
    RepetitionPenalty(1.3)         5    100.00%  3 52.4%, 1 34.3%, 2 7.4%
    Temperature(0.8)               5    100.00%  3 57.7%, 1 34.0%, 2 5.0%
    TopK(3)                        3     96.74%  3 59.7%, 1 35.2%, 2 5.1%
    TopP(0.9)                      2     94.86%  3 62.9%, 1 37.1%
    """

    steps: tuple[Step, ...]

    def __init__(self, *steps: Step) -> None:
        for step in steps:
            if not isinstance(step, Step):
                raise TypeError(f"steps has {shown(step)}; allowed are steps, such as TopK(50)")
        check_steps(steps)
        object.__setattr__(self, "steps", steps)

    def __repr__(self) -> str:
        return f"Sampler({', '.join(map(repr, self.steps))})"

    @_check_keywords
    def __call__(
        self,
        logits: ArrayLike,
        ids: Any = (),
        rng: int | np.random.Generator | None = None,
        *,
        prompt: int | Sequence[int] = 0,
    ) -> Any:
        """Draw the next token of one row, or of each row.

        Parameters
        ----------
        logits : array_like, shape (n,) or (rows, n)
            Scores; dtypes as in `sample`.
        ids : sequence of int, or one for each row, or History
            The tokens so far, the oldest first: what the penalties look at.
            A step that remembers what was drawn (`Mirostat`, `AdaptiveP`) needs a `History`.
        rng : None, int or numpy.random.Generator
            Where the randomness comes from: a float64 uniform a row, after one for each `XTC`.
        prompt : int, or one for each row
            How many of `ids`, from the first, are the prompt; the others have been generated.

        Returns
        -------
        ndarray of int64, shape ``logits.shape[:-1]``
            A NumPy scalar for one row.

        Raises
        ------
        ValueError
            A row with NaN, with +inf or with nothing above -inf, a row of which the steps leave
            nothing (row and step are named), an id outside the vocabulary.
        TypeError
            A dtype without probabilities, ids that are no integers.
        """
        call = SamplerCall(self.steps, logits, ids, prompt)
        call.check_state()
        drawn = np.empty(len(call.data), dtype=np.int64)
        for i, (left, u) in enumerate(call.run(rng, 1)):
            reached = left.probs.cumsum()
            drawn[i] = left.ids[reached.searchsorted(u * reached[-1], side="right")]
            call.foresee(i, int(drawn[i]))
        return drawn.reshape(call.shape)[()]

    @_check_keywords
    def candidates(
        self,
        logits: ArrayLike,
        ids: Any = (),
        rng: int | np.random.Generator | None = None,
        *,
        prompt: int | Sequence[int] = 0,
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

        Returns
        -------
        TokenProbs
            Named tuple of ``indices`` (int64) and ``probs`` (float64, sum 1).

        Raises
        ------
        ValueError, TypeError
            Where a call of the sampler raises, and for two dimensions.
        """
        call = SamplerCall(self.steps, logits, ids, prompt, single=True)
        ((left, _),) = call.run(rng, 0)
        return _token_probs(left)

    @_check_keywords
    def trace(
        self,
        logits: ArrayLike,
        ids: Any = (),
        rng: int | np.random.Generator | None = None,
        *,
        prompt: int | Sequence[int] = 0,
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

        Returns
        -------
        Trace
            A tuple of `Stage`: ``step``, ``left``, ``kept``, ``candidates``.

        Raises
        ------
        ValueError, TypeError
            Where a call of the sampler raises, and for two dimensions.
        """
        call = SamplerCall(self.steps, logits, ids, prompt, single=True)
        stages: list[Stage] = []

        def watch(step: Step | None, before: Candidates, after: Candidates) -> None:
            kept = 1.0 if after.ids is before.ids else before.probs[before.find(after.ids)[0]].sum()
            stages.append(Stage(step, after.ids.size, min(float(kept), 1.0), _token_probs(after)))

        for _ in call.run(rng, 0, watch):
            pass
        return Trace(stages)

    @_check_keywords
    def filter(
        self,
        logits: ArrayLike,
        ids: Any = (),
        rng: int | np.random.Generator | None = None,
        *,
        prompt: int | Sequence[int] = 0,
    ) -> Any:
        """Return the scores as the steps leave them, with -inf for what they removed.

        This is what other libraries call a logits processor.

        Parameters
        ----------
        logits : array_like, shape (n,) or (rows, n)
            Scores; dtypes as in `sample`.
        ids : sequence of int, or one for each row, or History
            The tokens so far, the oldest first: what the penalties look at.
        rng : None, int or numpy.random.Generator
            Where the randomness of `XTC` comes from; without that step, none is taken.
        prompt : int, or one for each row
            How many of `ids`, from the first, are the prompt; the others have been generated.

        Returns
        -------
        ndarray
            A new array of the logits' shape; dtypes as in `softmax`.

        Raises
        ------
        ValueError, TypeError
            Where a call of the sampler raises.
        """
        call = SamplerCall(self.steps, logits, ids, prompt)
        scores = np.full(call.data.shape, -np.inf, dtype=call.dtype)
        for row, (left, _) in zip(scores, call.run(rng, 0), strict=True):
            with np.errstate(all="ignore"):
                row[left.ids] = left.scores
        return scores.reshape(*call.shape, scores.shape[1])


def _token_probs(left: Candidates) -> TokenProbs:
    """Return the candidates `left` and their probabilities, most likely first."""
    order = left.best(left.ids.size)
    return TokenProbs(left.ids[order], left.probs[order])
