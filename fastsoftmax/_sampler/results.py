"""What a `Sampler` returns beside ids: the tokens that are left, and the trace of its steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..steps.base import Step
from ..steps.candidates import Candidates


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
    compiled : bool
        Whether calls of the sampler run the step compiled. (Without kernels all is in Python, and
        this is True.)
    """

    step: Step | None
    left: int
    kept: float
    candidates: TokenProbs
    compiled: bool = True


class Trace(tuple[Stage, ...]):
    """A tuple of each `Stage` of one row in order, which prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = ["as scored" if stage.step is None else stage.step.short_repr() for stage in self]
        names = [
            name if stage.compiled else f"{name}, in Python"
            for name, stage in zip(names, self, strict=True)
        ]
        width = max(map(len, names))
        lines = [f"{'':{width}}  {'left':>8}  {'prob. kept':>10}  most likely"]
        for name, stage in zip(names, self, strict=True):
            best = [f"{i} {p:.1%}" for i, p in zip(*(a[:3] for a in stage.candidates), strict=True)]
            lines.append(f"{name:{width}}  {stage.left:>8}  {stage.kept:>10.2%}  {', '.join(best)}")
        return "\n".join(lines)


def token_probs(left: Candidates) -> TokenProbs:
    """Return the candidates `left` and their probabilities, most likely first."""
    order = left.best(left.ids.size)
    return TokenProbs(left.ids[order], left.probs[order])
