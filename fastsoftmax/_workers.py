# cython: language_level=3, autotestdict=False
"""The block that ``set_workers`` makes.

Built, this module is C, between whose lines no signal handler can raise: a block is entered or not,
left or not. (As it stands here it serves the reference of a package that is not built.)

Each thread and asyncio task has its own list of the blocks that it is in, so that a block may be
entered inside itself, and by several of them at once.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

#: (block, what is around it) of this thread or task, None outside of them all.
_entered: ContextVar[Any] = ContextVar("workers", default=None)


class Block:
    """Inside it, the number of workers is `workers`."""

    __slots__ = ("workers",)

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __enter__(self) -> None:
        _entered.set((self, _entered.get()))

    def __exit__(self, *_error: object) -> None:
        _entered.set(_without(_entered.get(), self))


def _without(entered: Any, block: Block) -> Any:
    """Return `entered` without its latest `block`, in which others may still be."""
    if entered is None:
        return None
    first, others = entered
    return others if first is block else (first, _without(others, block))


def get_workers() -> int:
    """Return how many threads functions with ``workers=None`` may use here: 1, or `set_workers`.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.get_workers()
    1
    """
    entered = _entered.get()
    return 1 if entered is None else entered[0].workers
