"""Steps of rows: where a sampler's parameters have a value for each row, or rows have samplers."""

from __future__ import annotations

from collections.abc import Iterable

from ..steps.base import Step


class StepsOfRows(list[tuple[Step, ...]]):
    """The steps of each row of a call; `each` says of what there is one for each row."""

    def __init__(self, steps: Iterable[tuple[Step, ...]], each: str) -> None:
        super().__init__(steps)
        self.each = each


def rows_of(steps: tuple[Step, ...]) -> tuple[int, str] | None:
    """Return how many rows the parameters of steps have values for, and which does; None for any.

    Raises
    ------
    ValueError
        If two of them differ.
    """
    found: tuple[int, str] | None = None
    for step in steps:
        for field in step.each_row:
            name, rows = f"{type(step).__name__}.{field}", len(getattr(step, field))
            if found and found[0] != rows:
                raise ValueError(
                    f"{name} has {rows} values; allowed are {found[0]}, as {found[1]} has, or one"
                )
            found = found or (rows, name)
    return found


def steps_of_rows(steps: tuple[Step, ...], rows: int, name: str) -> StepsOfRows:
    """Return the steps of each of `rows` rows, for which the parameter called `name` has values."""
    each = (tuple(step.of_row(row) for step in steps) for row in range(rows))
    return StepsOfRows(each, f"value of {name}")
