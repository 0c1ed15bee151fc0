"""What every step of a `Sampler` is made of: `Step`, and the checks of a step's parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from math import inf
from typing import Any, ClassVar, Self

import numpy as np

from .._arguments.values import choice, count, shown, switch
from .candidates import Candidates, Ids, Tokens

NO_IDS: Ids = np.empty(0, dtype=np.int64)
#: A number, a switch or a choice; or as an array or a sequence, one for each row of the calls.
PerRow = Any


class Step:
    """What a `Sampler` runs: called with the candidates that are left, a step returns new ones.

    A step is a frozen dataclass that inherits from this class; `fastsoftmax.steps` shows how to
    write one.

    Attributes
    ----------
    order_preserving : bool
        Whether the step does to the best tokens what it would do if worse ones were absent: it
        looks at nothing but a token, its rank, the best token and the tokens so far; and of the
        tokens that `reordered_ids` does not name it keeps the order, and removes the worst if any.
        Such steps, where they come first, run on a few tokens instead of the whole vocabulary.
    uniforms : int
        How many random numbers (`Candidates.uniform`) the step takes whenever it runs.
    states : int
        How many numbers, up to 2, the step remembers from one token of a row to the next. The step
        itself is immutable: it reads them from ``left.history.state``, says in `next_state` what
        they will be, and `fastsoftmax.History` keeps them. One step of a sampler may have a state.
    each_row : tuple of str
        The fields of a step that have a value for each row, as a tuple, in place of one for all.
        Such a step is never called: `of_row` returns the one of a row, which is.
    """

    order_preserving: ClassVar[bool] = False
    uniforms: ClassVar[int] = 0
    states: ClassVar[int] = 0
    each_row: ClassVar[tuple[str, ...]] = ()  # an instance may have its own

    def __call__(self, left: Candidates) -> Candidates:
        """Return what this step leaves of the candidates `left`."""
        raise NotImplementedError

    @property
    def max_kept(self) -> int:
        """About how many tokens an order-preserving step keeps if it removes the worst; else 0.

        Where so many candidates are there, the step must not keep fewer of them because worse ones
        are absent.
        """
        return 0

    def reordered_ids(self, history: Tokens) -> Ids:
        """Return the ids, ascending, whose rank this step may change after the tokens `history`."""
        return NO_IDS

    def next_state(self, left: Candidates, token: int) -> tuple[float, ...]:
        """Return the step's state after `token`, drawn when the step was called with `left`."""
        raise NotImplementedError

    def check(self, size: int) -> None:
        """Raise a ValueError if this step does not fit a vocabulary of `size` tokens."""

    def of_row(self, row: int) -> Self:
        """Return the step with the values of one row."""
        if not self.each_row:
            return self
        return replace(self, **{name: getattr(self, name)[row] for name in self.each_row})  # type: ignore[type-var]

    def __repr__(self) -> str:
        shown = []
        for i, field in enumerate(fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                shown.append(repr(value) if i == 0 else f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def short_repr(self) -> str:
        """Return the step as text for a table or an error: its name alone if it lists a lot."""
        text = repr(self)
        return text if len(text) <= 60 else f"{type(self).__name__}(...)"

    def _number(self, field: str, low: float, high: float, open_low: bool = False) -> None:
        """Make `field` a finite float from `low` to `high`, or raise."""
        self._check(field, number, low, high, open_low)

    def _count(self, field: str, low: int = 1, none: bool = False) -> None:
        """Make `field` an int from `low`, or None if that is allowed, or raise."""
        self._check(field, count_or_none if none else count, low)

    def _choice(self, field: str, *allowed: str) -> None:
        """Raise unless `field` is one of the `allowed` strings."""
        self._check(field, choice, allowed)

    def _switch(self, field: str) -> None:
        """Make `field` a bool, or raise."""
        self._check(field, switch)

    def _check(self, field: str, check: Callable[..., Any], *limits: Any) -> None:
        """Make `field` what `check` returns of it; or of each of its values, if it has many."""
        value, name = getattr(self, field), self._named(field)
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if isinstance(value, (list, tuple)) and value:
            checked: Any = tuple(check(one, name, *limits) for one in value)
            object.__setattr__(self, "each_row", (*self.each_row, field))
        else:
            checked = check(value, name, *limits)
        object.__setattr__(self, field, checked)

    def _check_ids(self, field: str, ids: Any, size: int) -> None:
        """Raise a ValueError if one of `ids`, which are ascending, is not below `size`."""
        if len(ids) and ids[-1] >= size:
            raise ValueError(
                f"{self._named(field)} has {ids[-1]}; allowed are ids from 0 to {size - 1}"
            )

    def _named(self, field: str) -> str:
        """Return `field` as an error names it."""
        return f"{type(self).__name__}.{field}"


def count_or_none(value: Any, name: str, low: int) -> int | None:
    """Return the integer `value`, from `low`; None stays."""
    return None if value is None else count(value, name, low)


def number(
    value: Any,
    name: str,
    low: float,
    high: float,
    open_low: bool = False,
    none: float | None = None,
) -> float:
    """Return `value` as a finite float from `low` to `high`, or raise.

    Parameters
    ----------
    value : real number
        What was given; neither text nor a bool.
    name : str
        What an error calls it.
    low, high : float
        The range, both ends included; infinite where there is no end.
    open_low : bool, default False
        Whether `low` itself is excluded.
    none : float, optional
        What None stands for; None is not allowed without it.
    """
    if value is None and none is not None:
        return none
    error: type[Exception] = ValueError
    try:
        x = as_float(value)
        # Two-sided, so that NaN is outside.
        if low <= x <= high and -inf < x < inf and not (open_low and x == low):
            return x
    except TypeError:
        error = TypeError
    except OverflowError:
        pass
    # Made here alone: it takes longer than the check.
    raise error(f"{name} is {shown(value)}; {_allowed(low, high, open_low, none)}")


def _allowed(low: float, high: float, open_low: bool, none: float | None) -> str:
    """Return a range as the end of an error."""
    if high < inf and low > -inf:
        text = f"{'above ' if open_low else ''}{low:g} to {high:g}"
    elif high < inf:
        text = f"finite numbers up to {high:g}"
    elif low > -inf:
        text = f"finite numbers {'above' if open_low else 'from'} {low:g}"
    else:
        text = "finite numbers"
    return f"allowed are {text}{'' if none is None else ', or None'}"


def as_float(value: Any) -> float:
    """Return a real number as a float; TypeError for what is none, OverflowError if too large."""
    if isinstance(value, np.ndarray):
        value = value[()]  # of no dimension: its element
    if isinstance(value, (str, bytes, bytearray, bool, np.bool_, np.complexfloating, np.ndarray)):
        raise TypeError  # float() would read most of these
    try:
        return float(value)
    except ValueError:
        raise TypeError from None
