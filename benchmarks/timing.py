"""Time two callables against each other, interleaved, so that noise falls on both alike."""

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter_ns
from typing import Any

# Long enough that reading the clock and one stray interrupt are small beside it.
SAMPLE_NS = 2_000_000
MIN_ROUNDS = 2


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a list of samples."""

    q1: float
    median: float
    q3: float


@dataclass(frozen=True)
class Refilled:
    """A call that uses up its input: `refill` comes before each, and is not timed."""

    refill: Callable[[], Any]
    call: Callable[[], Any]

    def __call__(self):
        self.refill()
        return self.call()


@dataclass(frozen=True)
class Pair:
    """Samples of two callables: ``base_ns[i]`` and ``peer_ns[i]`` were taken one after the other.

    Times are nanoseconds per call; ``base_loops`` and ``peer_loops`` say how many calls make one
    sample.
    """

    base_ns: list[float]
    peer_ns: list[float]
    base_loops: int
    peer_loops: int

    @property
    def ratio(self):
        """Spread of peer / base over the pairs: 3 means that the peer takes three times as long."""
        pairs = zip(self.base_ns, self.peer_ns, strict=True)
        return spread([peer / base for base, peer in pairs])


def spread(samples):
    """Return the `Spread` of two or more samples."""
    return Spread(*statistics.quantiles(samples, n=4, method="inclusive"))


def time_pair(base, peer, *, budget_s, sample_ns=SAMPLE_NS):
    """Time two callables without arguments in turns.

    Each round takes four samples in the order base, peer, peer, base and gives two pairs: a clock
    that drifts, or a cache that one side leaves warm for the next, favours neither.

    Parameters
    ----------
    base, peer : callable or Refilled
        What to time. Each is called a few times beforehand, to warm up and to be calibrated.
    budget_s : float
        Rounds begin until this many seconds have passed, but at least `MIN_ROUNDS`.
    sample_ns : int, optional
        Shortest duration of one sample; short calls are repeated until they fill it.

    Returns
    -------
    Pair
        Two pairs of samples for each round.
    """
    base_ns, peer_ns = [], []
    collecting = gc.isenabled()
    gc.disable()
    try:
        base_loops, peer_loops = _loops(base, sample_ns), _loops(peer, sample_ns)
        end = perf_counter_ns() + budget_s * 1e9
        while len(base_ns) < 2 * MIN_ROUNDS or perf_counter_ns() < end:
            base_ns.append(_sample(base, base_loops))
            peer_ns.append(_sample(peer, peer_loops))
            peer_ns.append(_sample(peer, peer_loops))
            base_ns.append(_sample(base, base_loops))
    finally:
        if collecting:
            gc.enable()
    return Pair(base_ns, peer_ns, base_loops, peer_loops)


def shortest(call, *, samples=40, sample_ns=SAMPLE_NS // 10):
    """Return the least of a number of samples, in nanoseconds per call."""
    loops = _loops(call, sample_ns)
    return min(_sample(call, loops) for _ in range(samples))


def _sample(call, loops):
    """Nanoseconds per call over one run of `loops` calls."""
    if isinstance(call, Refilled):
        return sum(_refilled(call) for _ in range(loops)) / loops
    start = perf_counter_ns()
    for _ in repeat(None, loops):
        call()
    return (perf_counter_ns() - start) / loops


def _refilled(call):
    call.refill()
    start = perf_counter_ns()
    call.call()
    return perf_counter_ns() - start


def _loops(call, sample_ns):
    """How many calls fill one sample."""
    loops = 1
    # Doubling until half full warms up too; the first call alone is often far off. The shorter of
    # two: one that something interrupts would pass for a long one.
    while (each := min(_sample(call, loops), _sample(call, loops))) * loops < sample_ns / 2:
        loops *= 2
    return max(1, -int(-sample_ns // max(each, 1)))
