"""No function reads or writes beside its arrays: inputs, second inputs and `out`."""

import ctypes
import signal
from pathlib import Path

import pytest

from fastsoftmax import show_config
from tests.memory import guard_pages
from tests.modules import public_names
from tests.processes import python

ROOT = str(Path(__file__).parents[2])
BEST = show_config(mode="dicts")["implementation"]

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="needs mprotect")


def child(*args):
    """Run `guard_pages.main` in a process of its own."""
    code = f"sys.path.append({ROOT!r})\nfrom tests.memory import guard_pages\n"
    return python(code + f"guard_pages.main(*{args!r})", impl="reference")


def survive(name, names, lengths):
    """Fail with the last call and the traceback where the child does not come to its end."""
    result = child(name, names, tuple(lengths))
    last = result.stdout.splitlines()[-1:]
    assert result.returncode == 0, (last, result.stderr)
    assert last[0].startswith("survived")
    assert int(last[0].split()[1]) >= len(lengths) * len(names) * 30  # places, dtypes, rows


def test_no_function_is_forgotten():
    assert public_names() <= {name.split()[0] for name in guard_pages.CALLS}


@pytest.mark.skipif(BEST == "reference", reason="is NumPy")
def test_a_sample_of_lengths():
    survive(BEST, list(guard_pages.CALLS), guard_pages.FEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lengths", [guard_pages.SOME, pytest.param(guard_pages.ALL, marks=pytest.mark.weekly)]
)
def test_every_implementation(compiled, lengths):
    survive(compiled.NAME, list(guard_pages.CALLS), lengths)


@pytest.mark.parametrize("fault", guard_pages.FAULTS)
def test_a_fault_is_seen(fault):
    result = child("reference", [], (5,), fault)
    assert result.returncode in (-signal.SIGSEGV, -signal.SIGBUS), result.stderr
    assert "survived" not in result.stdout
