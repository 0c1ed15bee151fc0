"""Errors in ulp of sums over rows, and of softmax of 8-bit logits, against 40 digits of mpmath."""

import mpmath
import numpy as np

from benchmarks import errors, exact
from benchmarks.accuracy_rows import ORDINARY, ROWS, make_rows

LENGTHS = (2, 10, 100, 1000)
STEPS = (0.003, 0.05, 0.7)  # of codes


def distribution(x):
    """Return max(x), log(sum(exp(x - max))), and the logarithms of the probabilities."""
    x = [mpmath.mpf(float(v)) for v in x]
    top = max(x)
    e = [mpmath.exp(v - top) for v in x]
    e.remove(1)
    log_sum = mpmath.log1p(mpmath.fsum(e))
    return top, log_sum, [v - top - log_sum for v in x]


def truths(x, y):
    """Return the true entropy, divergence from y's distribution, and logmeanexp of a row."""
    top, log_sum, log_p = distribution(x)
    log_q = distribution(y)[2]
    p = [mpmath.exp(v) for v in log_p]
    return {
        "entropy": -mpmath.fsum(a * b for a, b in zip(p, log_p, strict=True)),
        "kl_divergence": mpmath.fsum(a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True)),
        "logmeanexp": top + log_sum - mpmath.log(len(log_p)),
    }


def ours(x, y):
    """Return what fastsoftmax gives for each row, of `row_stats` too."""
    import fastsoftmax as f

    stats = f.row_stats(x, want=("entropy",))
    return {
        "entropy": (f.entropy(x), stats.entropy, f.entropy(np.ascontiguousarray(x.T), axis=0)),
        "kl_divergence": (f.kl_divergence(x, y),),
        "logmeanexp": (f.logmeanexp(x),),
    }


def by_scipy(x, y):
    """Return what SciPy's functions give, put together as usual."""
    from scipy import special

    with np.errstate(all="ignore"):
        p, q = special.softmax(x, -1), special.softmax(y, -1)
        return {
            "entropy": (special.entr(p).sum(-1),),
            "kl_divergence": (special.rel_entr(p, q).sum(-1),),
            "logmeanexp": (special.logsumexp(x, -1) - np.log(x.dtype.type(x.shape[-1])),),
        }


def worst(got, want, dtype):
    """Return the largest error in ulp of arrays of some results."""
    high = np.array([float(v) for v in want])
    low = np.array([float(v - mpmath.mpf(h)) for v, h in zip(want, high, strict=True)])
    pair = exact.Pair(high, low)
    return max(errors.errors_ulp(np.asarray(a), pair, dtype)[0] for a in got)


def measure():
    """Return by (function and dtype, kinds of rows) the largest errors, ours and SciPy's."""
    found = {}

    def note(label, errors_of_both):
        found[label] = tuple(map(max, found.get(label, (0, 0)), errors_of_both))

    with mpmath.workdps(40):
        for dtype in ("float32", "float64"):
            for n in LENGTHS:
                y = make_rows("random", n, dtype)[::-1]
                for kind in ROWS:
                    x = make_rows(kind, n, dtype)
                    true = [truths(a, b) for a, b in zip(x, y, strict=True)]
                    sides = ours(x, y), by_scipy(x, y)
                    for name in true[0]:
                        want = [each[name] for each in true]
                        rows = "ordinary rows" if kind in ORDINARY else "hard rows"
                        note(
                            f"{name} {dtype}, {rows}",
                            [worst(side[name], want, dtype) for side in sides],
                        )
        for n in LENGTHS:
            for step in STEPS:
                for name, both in of_codes(n, step).items():
                    note(f"quantized.{name}", both)
    return found


def of_codes(n, step):
    """Return the errors of softmax and log_softmax of a row of codes, ours and SciPy's."""
    from scipy import special

    from fastsoftmax import quantized

    q = np.random.default_rng(n).integers(0, 256, (1, n), np.uint8)
    log_p = distribution(q[0].astype(float) * step)[2]  # of the product as float64 has it
    logits = q.astype(np.float32) * np.float32(step)
    return {
        name: (
            worst([getattr(quantized, name)(q, step)[0]], want, "float32"),
            worst([getattr(special, name)(logits, -1)[0]], want, "float32"),
        )
        for name, want in (("softmax", [mpmath.exp(v) for v in log_p]), ("log_softmax", log_p))
    }
