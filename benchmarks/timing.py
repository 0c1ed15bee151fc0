"""Time two callables against each other, interleaved, so that noise falls on both alike."""

import gc
import statistics
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter_ns

# Long enough that reading the clock and one stray interrupt are small beside it.
SAMPLE_NS = 2_000_000


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a list of samples."""

    q1: float
    median: float
    q3: float


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


def time_pair(base, peer, *, rounds, sample_ns=SAMPLE_NS):
    """Time two callables without arguments in turns.

    Each round takes four samples in the order base, peer, peer, base and gives two pairs: a clock
    that drifts, or a cache that one side leaves warm for the next, favours neither.

    Parameters
    ----------
    base, peer : callable
        What to time. Each is called a few times beforehand, to warm up and to be calibrated.
    rounds : int
        How often to go round.
    sample_ns : int, optional
        Shortest duration of one sample; short calls are repeated until they fill it.

    Returns
    -------
    Pair
        ``2 * rounds`` pairs of samples.
    """
    base_ns, peer_ns = [], []
    collecting = gc.isenabled()
    gc.disable()
    try:
        base_loops, peer_loops = _loops(base, sample_ns), _loops(peer, sample_ns)
        for _ in range(rounds):
            base_ns.append(_sample(base, base_loops))
            peer_ns.append(_sample(peer, peer_loops))
            peer_ns.append(_sample(peer, peer_loops))
            base_ns.append(_sample(base, base_loops))
    finally:
        if collecting:
            gc.enable()
    return Pair(base_ns, peer_ns, base_loops, peer_loops)


def _sample(call, loops):
    """Nanoseconds per call over one run of `loops` calls."""
    start = perf_counter_ns()
    for _ in repeat(None, loops):
        call()
    return (perf_counter_ns() - start) / loops


def _loops(call, sample_ns):
    """How many calls fill one sample."""
    loops = 1
    # Doubling until half full warms up too; the first call alone is often far off.
    while (each := _sample(call, loops)) * loops < sample_ns / 2:
        loops *= 2
    return max(1, -int(-sample_ns // max(each, 1)))
