"""When a call looks for signals: the longest it goes without, as a share of all of its work."""

import signal
import time
from itertools import pairwise


def longest_without(call):
    """Return the longest that `call` went without a look, as a share of it, and what it took.

    In seconds of this thread's CPU time, which other processes' work does not lengthen. A timer
    sends signals all the time; the handler notes when they are looked for.
    """
    clock, seen = time.thread_time, []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(clock()))
    signal.setitimer(signal.ITIMER_REAL, 2e-4, 2e-4)
    try:
        start = clock()
        call()
        end = clock()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    at = [start, *(t for t in seen if t < end), end]
    longest = max(b - a for a, b in pairwise(at))
    return longest / (end - start), end - start
