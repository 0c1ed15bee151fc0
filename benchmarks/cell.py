"""A cell of the benchmark, as data: some runs of an operation on rows, timed side by side."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Run:
    """One line of a cell: a side doing an operation, on rows of some kind.

    `dtype` is that of its rows where it is not the cell's. `floor` is what its time over that of
    the cell's first run has to reach.
    """

    label: str
    side: str
    op: str
    rows: str = "random"
    parameters: dict[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Cell:
    """Runs to be timed side by side; the first is the base of every ratio.

    `passes` are those of `limits` that the work is made of, and `written` is whether it writes as
    much as it reads. `family` names the softmax function that all runs compute, and whose error is
    measured. Cells of one `mean` are also summed up by the geometric mean of their ratios.
    """

    name: str
    table: str
    shape: tuple[int, ...]
    runs: tuple[Run, ...]
    passes: tuple[str, ...]
    written: bool = False
    dtype: str = "float32"
    family: str | None = None
    mean: str | None = None
    pictured: str | None = None
    cpus: int = 1

    @property
    def axis(self):
        """The reduced axis."""
        return self.runs[0].parameters.get("axis", -1)


def shape_text(shape):
    """A shape without spaces, as names of cells have it."""
    return f"({','.join(map(str, shape))})"
