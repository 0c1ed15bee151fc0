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
        chains = [f"Sampler({', '.join(map(repr, s.steps))})" for s in self.samplers]
        return f"Sampler.batch([{', '.join(chains)}]){in_python(self.samplers)}"

    def _started(self, row: int) -> tuple[Any, int]:
        return self.samplers[row]._started(row)

    def _steps(self) -> StepsOfRows:
        return StepsOfRows((sampler.steps for sampler in self.samplers), "sampler")


def in_python(samplers: Iterable[Sampler]) -> str:
    """Return a comment that says which steps of some samplers run in Python; "" for none."""
    names = [step.short_repr() for one in samplers for step in one.steps[one._compiled :]]
    if program.chains is None or not names:
        return ""
    return f"  # in Python: {', '.join(dict.fromkeys(names))}"


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
