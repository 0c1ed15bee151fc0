"""Why the pool of threads is our own: where a signal handler raises, a kept one is left locked."""

import pytest

from tests.processes import output, python

#: Calls that signals end at random, and after them one that must come back.
STORM = """
import os, signal, time
from concurrent.futures import ThreadPoolExecutor
from fastsoftmax import _threads

class StopError(Exception):
    pass

def stop(*_):
    raise StopError

def ours():
    _threads.share(lambda start, stop: None, 2, 1.0, 2)

pool = ThreadPoolExecutor(2)
def kept():
    for each in [pool.submit(int) for _ in range(2)]:
        each.result()

call = {call}
signal.signal(signal.SIGALRM, stop)
stopped = 0
until = time.thread_time() + 0.5
while time.thread_time() < until:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002 + stopped % 7 * 0.00007)
        while True:
            call()
    except StopError:
        stopped += 1
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, lambda *_: os._exit(3))  # it hangs
signal.alarm(10)
for _ in range(100):
    call()
print("works", stopped > 100)
"""


@pytest.mark.slow
def test_ours_works_after_signals_at_any_time():
    assert output(STORM.format(call="ours")) == ["works", "True"]


@pytest.mark.weekly
def test_a_kept_one_hangs():
    """Should this fail, a ThreadPoolExecutor may do."""
    assert python(STORM.format(call="kept").replace("+ 0.5", "+ 2")).returncode == 3
