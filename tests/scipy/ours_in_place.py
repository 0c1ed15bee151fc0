"""A plugin of pytest: what tests call by the names of SciPy's functions is ours; it counts calls.

The tests still import SciPy's: they look up what a function supports by the function itself.
"""

from collections import Counter

import fastsoftmax.scipy as ours

CALLS = Counter()


def pytest_collection_finish(session):
    for name in ours.__all__:
        function = getattr(ours, name)

        def counted(*args, function=function, name=name, **keywords):
            CALLS[name] += 1
            return function(*args, **keywords)

        for module in {item.module for item in session.items}:
            setattr(module, name, counted)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"calls of ours: {sum(CALLS.values())}")
