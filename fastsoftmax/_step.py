"""What the steps of a `Sampler` have in common."""

from __future__ import annotations

from dataclasses import MISSING, fields
from math import inf
from typing import ClassVar

import numpy as np

from ._arguments import values
from ._candidates import Candidates, History, Ids

NO_IDS: Ids = np.empty(0, dtype=np.int64)


class Step:
    """What all steps have in common.

    Attributes
    ----------
    local : bool
        Whether it does the same to the best tokens when worse ones are absent: it looks at nothing
        but a token, its rank, the best token and the tokens so far; and of the tokens that it does
        not name in `touches` it keeps the order, and removes the worst if any. Local steps that
        come first run on a few tokens instead of the whole vocabulary.
    uniforms : int
        How many random numbers it takes (`Candidates.uniform`) whenever it runs.
    """

    local: ClassVar[bool] = False
    uniforms: ClassVar[int] = 0

    def __call__(self, left: Candidates) -> Candidates:
        """Return what is left after this step."""
        raise NotImplementedError

    @property
    def leaves(self) -> int:
        """About how many tokens it leaves if it is local and removes the worst; else 0.

        It never leaves fewer because worse ones are absent, if these many are there.
        """
        return 0

    def touches(self, history: History) -> Ids:
        """Return the ids, ascending, whose place in the order this step may change."""
        return NO_IDS

    def check(self, size: int) -> None:
        """Raise a ValueError if this step does not fit a vocabulary of this size."""

    def __repr__(self) -> str:
        shown = []
        for i, field in enumerate(fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                shown.append(repr(value) if i == 0 else f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def brief(self) -> str:
        """Return the step as text, only its name if it lists a lot."""
        text = repr(self)
        return text if len(text) <= 60 else f"{type(self).__name__}(...)"

    def _number(self, name: str, low: float, high: float, open_low: bool = False) -> None:
        """Make a field a float, or raise: it must lie from `low` to `high` and be finite."""
        value = getattr(self, name)
        allowed = f"{'above ' if open_low else ''}{low:g} to {high:g}"
        if high == inf:
            allowed = f"finite numbers {'above' if open_low else 'from'} {low:g}"
            if low == -inf:
                allowed = "finite numbers"
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = None
        if number is None or isinstance(value, str):
            raise TypeError(f"{self._named(name)} is {value!r}; allowed are {allowed}")
        if not low <= number <= high or (open_low and number == low) or abs(number) == inf:
            raise ValueError(f"{self._named(name)} is {value!r}; allowed are {allowed}")
        object.__setattr__(self, name, number)

    def _count(self, name: str, low: int = 1) -> None:
        """Make a field an int from `low`, or raise."""
        count = values.count(getattr(self, name), self._named(name), low)
        object.__setattr__(self, name, count)

    def _named(self, name: str) -> str:
        """Name a field in an error."""
        return f"{type(self).__name__}.{name}"
