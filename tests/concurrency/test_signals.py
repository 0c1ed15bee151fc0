"""Errors, signals, forks and the end of the process, where threads share the work."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fastsoftmax import _threads
from tests.concurrency.workers import CALLS, bits


class StopError(Exception):
    """Raised on purpose."""


@pytest.mark.parametrize("where", ["caller", "helper"])
def test_an_error_reaches_the_caller_and_stops_the_others(where):
    caller = threading.current_thread()
    inside, calls = [], []
    failed = threading.Event()

    def call(start, stop):
        inside.append(start)
        calls.append(start)
        try:
            if (threading.current_thread() is caller) == (where == "caller"):
                failed.set()
                raise StopError
            failed.wait(5)
            time.sleep(0.05)
        finally:
            inside.remove(start)

    with pytest.raises(StopError):
        _threads.share(call, 1000, 1e9, 3)
    assert not inside, "the others are waited for"
    assert len(calls) < 10, "the others go on"
    again = []
    _threads.share(lambda start, stop: again.extend(range(start, stop)), 1000, 1.0, 3)
    assert sorted(again) == list(range(1000))


def test_memory_error_of_a_kernel(compiled, many, monkeypatch):
    def no_memory(start, stop):
        raise MemoryError("no memory")

    share = _threads.share
    monkeypatch.setattr(_threads, "share", lambda _, *how: share(no_memory, *how))
    with pytest.raises(MemoryError, match="no memory"):
        compiled.softmax(many, workers=2)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "top_k"])
def test_a_signal_gets_through(compiled, many, name):
    x = np.concatenate([many] * 8)
    one = bits(CALLS[name](compiled, many))

    def stop(*_):
        raise StopError

    def call_until_the_signal(delay):
        signal.setitimer(signal.ITIMER_REAL, delay)
        for _ in range(100):
            CALLS[name](compiled, x, workers=2)

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for delay in (0.0021, 0.01, 0.023, 0.05):
            start = time.perf_counter()
            with pytest.raises(StopError):
                call_until_the_signal(delay)
            assert time.perf_counter() - start < 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert bits(CALLS[name](compiled, many, workers=2)) == one


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_signal_while_others_end_their_blocks_waits_for_them():
    caller = threading.current_thread()
    begun, ended = threading.Event(), []

    def stop(*_):
        raise StopError

    def call(start, _):
        if threading.current_thread() is caller:
            begun.wait(5)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        else:
            begun.set()
            time.sleep(0.2)
            ended.append(start)

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(StopError):
            _threads.share(call, 2, 1.0, 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ended


FORK = """
import os, signal
import numpy as np
from fastsoftmax import _dispatch, _threads
f = _dispatch.load({name!r})
x = np.random.default_rng(0).standard_normal((3000, 1000), dtype=np.float32)
want = f.softmax(x, workers=2).tobytes()
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        same = f.softmax(x, workers=2).tobytes() == want
        os._exit(0 if same and _threads._pools[os.getpid()]._threads == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert f.softmax(x, workers=2).tobytes() == want
print("done")
"""


AT_EXIT = """
import atexit
import numpy as np
from fastsoftmax import softmax
x = np.ones((3000, 1000), dtype=np.float32)
atexit.register(lambda: print(softmax(x, workers=2).shape))
softmax(x, workers=2)
"""


def python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork(compiled):
    assert python(FORK.format(name=compiled.NAME))[0] == "done"


def test_at_exit():
    assert python(AT_EXIT) == ("(3000, 1000)", "")
