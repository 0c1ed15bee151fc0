"""Fixtures that all test modules share, what is slow, and the limit for what is not."""

import gc
import os
import platform
import threading
import time

import hypothesis
import pytest

from fastsoftmax import _dispatch, _threads, show_config
from fastsoftmax._dispatch.isa import ISAS

#: The implementations that are tested by default; all others, and more, with the marker `slow`.
DEFAULT = ("reference", show_config(mode="dicts")["implementation"])

COMPILED = [isa.name for isa in ISAS]
FUSED = [isa.name for isa in ISAS if platform.machine().lower() in isa.fused_multiply_add]

# What is tested of each change is the same each time; other examples are looked for by `random`.
for profile, examples in (("quick", 20), ("thorough", 100), ("random", 200)):
    hypothesis.settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        derandomize=profile != "random",
        suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
    )
hypothesis.settings.load_profile("quick")


# ---- implementations -----------------------------------------------------------------------------


def marked(names):
    """Return names of implementations as parameters: `slow` unless they are tested by default."""
    return [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in names]


def loaded(name):
    """Return the implementation called `name`; skip where it cannot run."""
    try:
        return _dispatch.load(name)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def impl(request):
    """Each implementation in turn: an object with the public functions as attributes."""
    return loaded(request.param)


@pytest.fixture(scope="session")
def compiled(request):
    """Each implementation that has kernels: the reference has no regimes, layouts or threads."""
    return loaded(request.param)


@pytest.fixture(scope="session")
def fused(request):
    """Each implementation whose kernels have a fused multiply-add, and so the same bits."""
    return loaded(request.param)


def pytest_generate_tests(metafunc):
    """Repeat tests for each implementation, the slow ones only where they are not left out."""
    default = "not slow" in metafunc.config.getoption("markexpr")  # collecting them takes seconds
    for fixture, names in (("impl", _dispatch.NAMES), ("compiled", COMPILED), ("fused", FUSED)):
        if fixture in metafunc.fixturenames:
            names = [n for n in names if n in DEFAULT] if default else names
            metafunc.parametrize(fixture, marked(names), indirect=True, scope="session")


@pytest.fixture(scope="session")
def reference():
    """Return the oracle."""
    return _dispatch.load("reference")


# ---- threads -------------------------------------------------------------------------------------


@pytest.fixture
def divided(monkeypatch):
    """All that has two rows is shared, in blocks of a row or few; yields the blocks as taken."""
    blocks = []
    share = _threads.share

    def spy(call, size, work, threads):
        def noted(start, stop):
            blocks.append((threading.current_thread().name, stop - start))
            call(start, stop)

        share(noted, size, 1e9, threads)

    monkeypatch.setattr(_threads, "share", spy)
    return blocks


# ---- what is slow --------------------------------------------------------------------------------

#: Folders of tests that are slow as a whole.
SLOW_FOLDERS = ("benchmarks", "examples")


#: Parameters of tests that name an implementation.
OF_IMPLEMENTATIONS = ("impl", "compiled", "fused", "isa")

#: Modules of plain Python over the functions.
OF_PYTHON = ("scipy.", "calibration.", "quantized.top_k")


def of_module(item):
    """Return whether a test is of a call of a module that is Python over the functions."""
    parts = item.callspec.id.split("-") if hasattr(item, "callspec") else []
    return any(part.startswith(OF_PYTHON) for part in parts)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as slow: what SLOW_FOLDERS hold, and what `slow_reference` and `slow_modules` say.

    And as weekly: `best_alone` for all but the best implementation.
    """
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        name = next((parameters[n] for n in OF_IMPLEMENTATIONS if n in parameters), None)
        reference = name == "reference"
        if name not in (None, DEFAULT[1]) and item.get_closest_marker("best_alone"):
            item.add_marker("weekly")
        if item.path.parent.name in SLOW_FOLDERS or (
            reference and item.get_closest_marker("slow_reference")
        ):
            item.add_marker("slow")
        if of_module(item) and item.get_closest_marker("slow_modules"):
            item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Keep 30,000 tests out of each collection of garbage: a thirtieth of the time."""
    gc.freeze()


# ---- time ----------------------------------------------------------------------------------------


def pytest_addoption(parser):
    """Add `--most-seconds`."""
    parser.addoption(
        "--most-seconds",
        type=float,
        metavar="S",
        help="fail a test without the marker slow that takes more than S seconds of CPU time "
        "(or as much more as the machine is slow)",
    )


def cpu_seconds():
    """Return the CPU time that this process and the children it waited for have taken."""
    return sum(os.times()[:4])


def slowness():
    """Return how many times the CPU time of a quiet core of 3 GHz plain Python takes now, or 1."""
    before = time.process_time()
    sum(i * i for i in range(1_000_000))
    return max(1.0, (time.process_time() - before) / 0.06)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail what is slow and is not marked so, where `--most-seconds` asks for it."""
    most = item.config.getoption("most_seconds")
    before = cpu_seconds()
    result = yield
    taken = cpu_seconds() - before
    measured = most is not None and item.get_closest_marker("slow") is None
    if measured and taken > most and taken > most * slowness():
        pytest.fail(f"took {taken:.1f} s of CPU time and is not marked slow", pytrace=False)
    return result
