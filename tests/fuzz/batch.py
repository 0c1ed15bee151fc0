"""Some thousand inputs in one process, none of which stops the others."""

import mmap
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from fastsoftmax import _dispatch

from . import files, programs
from .judge import FindingError, UnbuiltError, judge
from .machine import Machine

_LONGEST = 1 << 16


class Last:
    """A file that holds the input begun last: it outlives a crash."""

    def __init__(self, path):
        path.write_bytes(bytes(_LONGEST))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), _LONGEST)

    def set(self, text):
        """Write down an input."""
        data = text.encode(errors="replace")[: _LONGEST - 1]
        self.memory[: len(data) + 1] = data + b"\0"


def quick(count, **more):
    """Return hypothesis' settings for `count` examples that are not stored nor made smaller."""
    return settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def run_batch(impl, number, size, path):
    """Try `size` calls, and fewer files and machines; return counts and findings."""
    kernels, last = _dispatch.load(impl), Last(path)
    counts, findings = Counter(), {}

    def found(function, error, text):
        key = f"{function}: {str(error)[:40]}"
        where = f"{error}\n  {text}"
        if len(where) < len(findings.get(key, where + " ")):
            findings[key] = where

    @seed(number)
    @quick(size)
    @given(programs.anything)
    def calls(call):
        last.set(str(call))
        try:
            judge(call, kernels)
        except UnbuiltError:
            return
        except FindingError as error:
            found(call.function, error, call)
        counts[call.function] += 1

    calls()
    with tempfile.TemporaryDirectory() as folder:

        @seed(number)
        @quick(size // 8)
        @given(files.commands())
        def commands(command):
            last.set(repr(command))
            counts[f"command {command[0][0]}"] += 1
            try:
                files.judge_file(command, Path(folder) / "x.npy")
            except FindingError as error:
                found("command", error, command)

        commands()

    class Counted(Machine):
        pass

    Counted.impl, Counted.counts, Counted.last = kernels, counts, last
    try:
        run_state_machine_as_test(
            seed(number)(Counted), settings=quick(size // 200, stateful_step_count=20)
        )
    except (FindingError, BaseExceptionGroup) as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        found("machine", repr(error), f"seed {number}\n{notes[-3000:]}")
    return counts, findings
