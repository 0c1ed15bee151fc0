"""Times of several builds of the package, interleaved: ratios to the first one's, a cell a line.

``python speed.py BUILD...``: each build is a folder in which the package lies, and has a process of
its own that is asked again and again for one cell's best time of a few.
"""

import os
import statistics
import subprocess
import sys
import time

ROUNDS = 15


def cells():
    """Return calls that take some 10 to 500 us."""
    import numpy as np

    import fastsoftmax as f

    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 1000), np.float32)
    few = rng.standard_normal((1000, 10), np.float32)
    row = rng.standard_normal((1, 128_256), np.float32) * 3
    ids = rng.integers(0, 1000, 64)
    double, half = x.astype(np.float64), x.astype(np.float16)
    p = f.softmax(x)
    return {
        "softmax (64,1000)": lambda: f.softmax(x),
        "softmax (64,1000) float64": lambda: f.softmax(double),
        "softmax (64,1000) float16": lambda: f.softmax(half),
        "softmax (1000,10)": lambda: f.softmax(few),
        "softmax (64,1000) axis=0": lambda: f.softmax(x, 0),
        "log_softmax (64,1000)": lambda: f.log_softmax(x),
        "top_k k=50 (1,128256)": lambda: f.top_k(row, 50),
        "top_k k=5 (64,1000)": lambda: f.top_k(x, 5),
        "sample T=0.8 (1,128256)": lambda: f.sample(row, temperature=0.8, rng=0),
        "sample top_p=0.9 (1,128256)": lambda: f.sample(row, top_p=0.9, rng=0),
        "sample top_k=50 (1,128256)": lambda: f.sample(row, top_k=50, top_p=0.9, rng=0),
        "filter_logits min_p (64,1000)": lambda: f.filter_logits(x, min_p=0.1),
        "rank (64,1000)": lambda: f.rank(x, ids),
        "cross_entropy_with_grad (64,1000)": lambda: f.cross_entropy_with_grad(x, ids),
        "softmax_backward (64,1000)": lambda: f.softmax_backward(x, p),
    }


def serve():
    """Answer each name of a cell with its best time in ns."""
    calls = cells()
    print(*calls, sep="\n", end="\n\n", flush=True)
    for line in sys.stdin:
        call, best = calls[line.rstrip("\n")], float("inf")
        for _ in range(10):
            begin = time.perf_counter_ns()
            call()
            best = min(best, time.perf_counter_ns() - begin)
        print(best, flush=True)


def compare(builds):
    """Print the ratio of each build's best time to the first one's, for each cell."""
    served = [
        subprocess.Popen(
            [sys.executable, "-P", __file__, "--serve"],
            cwd=build,
            env={**os.environ, "PYTHONPATH": os.path.abspath(build)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for build in builds
    ]
    for one in served:
        names = [line.rstrip("\n") for line in iter(one.stdout.readline, "\n")]
    width = max(map(len, names))
    print(" " * width, *(f"{build:>9}" for build in builds))
    ratios = []
    for name in names:
        best = [float("inf")] * len(builds)
        for _ in range(ROUNDS):
            for i, one in enumerate(served):
                print(name, file=one.stdin, flush=True)
                best[i] = min(best[i], float(one.stdout.readline()))
        ratios.append([b / best[0] for b in best])
        print(f"{name:{width}} {best[0] / 1000:7.1f}us", *(f"{r:9.2f}" for r in ratios[-1][1:]))
    means = (statistics.geometric_mean(each) for each in zip(*ratios, strict=True))
    print(f"{'geometric mean':{width}}", *(f"{mean:9.2f}" for mean in means))


if __name__ == "__main__":
    serve() if sys.argv[1] == "--serve" else compare(sys.argv[1:])
