"""A batch of different samplers: one for each row of a call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._arguments.values import shown
from . import program
from .caller import Caller
from .rows import StepsOfRows

if TYPE_CHECKING:
    from .sampler import Sampler


@dataclass(frozen=True, init=False, repr=False)
class SamplerBatch(Caller):
    """What `Sampler.batch` returns: samplers that are called together, each with a row of its own.

    Called as a `Sampler` is, with two-dimensional logits of as many rows as there are samplers; so
    is `filter`. Each row is as if its sampler were called with it alone, in their order.

    Attributes
    ----------
    samplers : tuple of Sampler
        The samplers.
    """

    samplers: tuple[Sampler, ...]

    def __init__(self, samplers: Iterable[Sampler]) -> None:
        self.__setstate__({"samplers": tuple(samplers)})

    def __getstate__(self) -> dict[str, Any]:
        return {"samplers": self.samplers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        programs = [sampler._program for sampler in state["samplers"]]
        vars(self).update(state, _program=program.joined(programs))

    def __repr__(self) -> str:
        return f"Sampler.batch([{', '.join(map(repr, self.samplers))}])"

    def _steps(self) -> StepsOfRows:
        return StepsOfRows((sampler.steps for sampler in self.samplers), "sampler")


def checked_samplers(samplers: Any, kind: type[Sampler]) -> tuple[Sampler, ...]:
    """Return samplers as a tuple, or raise where something is none."""
    wrong = f"samplers is {shown(samplers)}; allowed is a sequence of Sampler"
    try:
        found = tuple(samplers)
    except TypeError:
        raise TypeError(wrong) from None
    for sampler in found:
        if not isinstance(sampler, kind):
            raise TypeError(f"samplers has {shown(sampler)}; allowed are Sampler")
        if sampler._rows:
            rows, name = sampler._rows
            raise ValueError(
                f"samplers has one in which {name} has {rows} values; allowed in a batch is one"
            )
    return found
