"""Small calls from one thread and from several at once: ``python -m benchmarks.threads [THREADS]``.

Meant for a free-threaded Python, where threads that only call should not wait for one another. With
the GIL the second thread gains what calls do without it, which small ones never do.
"""

import argparse
import statistics
import sys
import threading
from itertools import repeat
from time import perf_counter

import numpy as np

import fastsoftmax

ROUNDS = 15
SAMPLE_S = 0.15  # of one thread


def _calls(seed):
    """Return the calls of one thread, on arrays of its own."""
    x = np.random.default_rng(seed).standard_normal((600, 5), dtype=np.float32)
    small, out, rng = x[:3].copy(), np.empty((3, 5), np.float32), np.random.default_rng(seed)
    return {
        "a Python function": lambda: seed,
        "np.exp (3,5)": lambda: np.exp(small),
        "np.exp (3,5) out=": lambda: np.exp(small, out=out),
        "softmax (3,5)": lambda: fastsoftmax.softmax(small),
        "softmax (3,5) out=": lambda: fastsoftmax.softmax(small, out=out),
        "top_k (3,5) k=2": lambda: fastsoftmax.top_k(small, 2),
        "sample (3,5)": lambda: fastsoftmax.sample(small, rng=rng),
        "softmax (600,5)": lambda: fastsoftmax.softmax(x),
    }


def rate(calls, loops):
    """Return the calls a second of threads that each make one of `calls` so many times."""
    ready = threading.Barrier(len(calls))
    times = []

    def work(call):
        ready.wait()
        start = perf_counter()
        for _ in repeat(None, loops):
            call()
        times.append((start, perf_counter()))

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    starts, ends = zip(*times, strict=True)
    return len(calls) * loops / (max(ends) - min(starts))


def measure(calls, rounds=ROUNDS, sample_s=SAMPLE_S):
    """Time the first of `calls` alone and all of them at once, in turns.

    Returns
    -------
    tuple of float
        The best rate of each, and the median of their ratios.
    """
    loops = 1
    while loops / rate(calls[:1], loops) < sample_s / 2:
        loops *= 2
    pairs = [(rate(calls[:1], loops), rate(calls, loops)) for _ in range(rounds)]
    return *map(max, zip(*pairs, strict=True)), statistics.median(b / a for a, b in pairs)


def main(argv=None):
    """Print a line for each call."""
    parser = argparse.ArgumentParser("python -m benchmarks.threads", description=__doc__)
    parser.add_argument("threads", nargs="?", type=int, default=2)
    threads = parser.parse_args(argv).threads
    gil = "with" if getattr(sys, "_is_gil_enabled", lambda: True)() else "without"
    versions = f"Python {sys.version.split()[0]} {gil} the GIL, NumPy {np.__version__}"
    print(f"{versions}, {fastsoftmax.show_config(mode='dicts')['implementation']}")
    print(f"{'millions of calls a second':28}{'1 thread':>10}{f'{threads} threads':>12}   ratio")
    each = [_calls(seed) for seed in range(threads)]
    for name in each[0]:
        one, many, ratio = measure([calls[name] for calls in each])
        print(f"{name:28}{one / 1e6:10.2f}{many / 1e6:12.2f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
