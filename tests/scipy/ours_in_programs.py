"""A plugin of pytest: the tests of other packages run with ours in place; it counts calls."""

import contextlib
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import scipy_in_place as example

CALLS = Counter()
RESTORE = contextlib.ExitStack()


def counted(function):
    """Return `function`, with calls counted."""

    def counting(*args, **keywords):
        CALLS[function.__name__] += 1
        return function(*args, **keywords)

    return counting


def pytest_collection_finish():
    """By now all is imported."""
    for original, ours in example.REPLACEMENTS.items():
        example.REPLACEMENTS[original] = counted(ours)
    example.loss_gradient = counted(example.loss_gradient)
    RESTORE.enter_context(example.in_place())


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"calls of ours: {dict(CALLS)}")


def pytest_unconfigure():
    RESTORE.close()
