"""``python -m benchmarks.accuracy``: errors in ulp of every function, beside the peers.

The true values are those of `exact`. Each row goes through fastsoftmax alone, in a batch, along
columns, packed and masked; what is told is the largest error of all five. The peers take it in a
batch. At temperatures of 0 and infinity, where they divide by them, they are left out.
"""

import argparse
import dataclasses
import math
import os
import sys
from collections import Counter, defaultdict
from functools import partial

import numpy as np

from benchmarks import accuracy_report, accuracy_sums, errors, exact, inputs
from benchmarks.__main__ import commit, cpu
from benchmarks.accuracy_rows import ROWS, make_rows
from benchmarks.limits import implementation
from benchmarks.sides import SOFTMAX_FAMILY, load_sides

DTYPES = ("float32", "float64", "float16", "bfloat16")
#: Which peers there are, and the dtypes that they take beyond those that they are timed with.
PEERS = {
    "torch": DTYPES,
    "onnxruntime": ("float32", "float64"),
    "scipy": ("float32", "float64", "float16"),
    "jax": DTYPES,
}
LENGTHS = (1, 2, 3, 10, 17, 33, 100, 1000, 4097, 32000, 128256, 1 << 20)
TEMPERATURES = (1.0, 0.7, 0.1, 1e-3, 1e-30, 1.5, 2.0, 10.0, 1e4, 1e30, 0.0, np.inf)
LONG_TEMPERATURES = (1.0, 0.7)  # of rows too long for more
LOSS_LENGTHS = (2, 3, 10, 100, 1000, 32000)


# ---- fastsoftmax, by every traversal -------------------------------------------------------------


def _spread_out(x):
    """Return an array twice as wide as `x`, with it in every other place and larger numbers."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), 3, x.dtype)
    wide[..., ::2] = x
    return wide


def _masked(f, x):
    wide = _spread_out(x)
    mask = np.zeros(wide.shape, bool)
    mask[..., ::2] = True
    result = f(wide, where=mask)
    return result[..., ::2] if result.ndim == x.ndim else result


def _columns(f, x):
    result = f(np.ascontiguousarray(x.T), axis=0)
    return result.T if result.ndim == x.ndim else result


TRAVERSALS = {
    "alone": lambda f, x: np.array([f(row) for row in x]),
    "batch": lambda f, x: f(x),
    "columns": _columns,
    "packed": lambda f, x: f(_spread_out(x)[..., ::2]),
    "masked": _masked,
}


def _of_divided(f, temperature):
    """`f` at a temperature; logsumexp has none."""
    return f if temperature == 1 else partial(f, temperature=temperature)


# ---- measuring -----------------------------------------------------------------------------------


def measure_family(found, sides, dtype, n, temperatures):
    """Add the errors of softmax, log_softmax and logsumexp on rows of n to `found`.

    Returns
    -------
    Counter
        Of rows by traversal that have not the same bits as those alone.
    """
    import fastsoftmax

    different = Counter()
    rows = {kind: x for kind in ROWS if len(x := make_rows(kind, n, dtype))}
    every = np.concatenate(list(rows.values()))
    ends = dict(zip(rows, np.cumsum([len(x) for x in rows.values()]), strict=True))
    for t in temperatures:
        true = exact.rows(every, t)
        for op in SOFTMAX_FAMILY:
            if op == "logsumexp" and t != 1:
                continue
            want = getattr(true, op)
            if op == "logsumexp":
                want = exact.Pair(*(part[:, 0] for part in want))
            results = defaultdict(list)
            f = _of_divided(getattr(fastsoftmax, op), t)
            for name, traverse in TRAVERSALS.items():
                results["fastsoftmax"].append(traverse(f, every))
                alone, other = results["fastsoftmax"][0], results["fastsoftmax"][-1]
                different[name] += sum(
                    a.tobytes() != b.tobytes() for a, b in zip(alone, other, strict=True)
                )
            if t not in (0.0, np.inf):
                for name, side in sides.items():
                    if (got := _by_peer(side, op, every, t)) is not None:
                        results[name].append(got)
            for kind, x in rows.items():
                part = slice(ends[kind] - len(x), ends[kind])
                truth = exact.Pair(want.high[part], want.low[part])
                for name, arrays in results.items():
                    found[op, dtype, t, kind, n][name] = _largest(
                        errors.errors_ulp(got[part], truth, every.dtype) for got in arrays
                    )
    return different


def _largest(pairs):
    """The largest errors of pairs of them: of normal numbers, and of those below."""
    return tuple(map(max, zip(*pairs, strict=True)))


def _by_peer(side, op, x, temperature):
    """What a peer makes of `x`, or None where it does not take the dtype."""
    if x.dtype.name not in side.dtypes or op not in side.ops:
        return None
    with np.errstate(all="ignore"):
        parameters = {} if temperature == 1 else {"temperature": temperature}
        return np.asarray(side.as_numpy(side.ops[op](x, **parameters)()))


def measure_losses(found, sides, dtype, n):
    """Add the errors of the loss of one row and its gradient, at the first maximum and elsewhere.

    The class of the right answer is that of `inputs.targets`; the row is turned so that its
    maximum is there, or not.
    """
    for kind in ROWS:
        for row in make_rows(kind, n, dtype)[:2]:
            target = int(inputs.targets(row[None])[0])
            top = int(row.argmax())
            for turn, where in ((0, ""), (target - top, " at the maximum")):
                x = np.roll(row, turn)
                true = exact.rows(x)
                loss, grad = truth_of_loss(true, target, x)
                results = {"fastsoftmax": _our_losses(x, target)}
                for name, side in sides.items():
                    if "cross_entropy" in side.ops and x.dtype.name in side.dtypes:
                        results[name] = [side.ops["cross_entropy"](x[None])()]
                for name, pairs in results.items():
                    read = sides[name].as_numpy if name in sides else np.asarray
                    for op, want, i in (("loss", loss, 0), ("gradient", grad, 1)):
                        got = [np.asarray(read(pair[i])).reshape(want.high.shape) for pair in pairs]
                        worst = _largest(errors.errors_ulp(g, want, x.dtype) for g in got)
                        key = f"{op}{where}", dtype, 1.0, kind, n
                        found[key][name] = _largest([worst, found[key].get(name, worst)])


def truth_of_loss(true, target, x):
    """Return the loss of the class `target` and its gradient, as a `Pair` each."""
    grad = exact.Pair(*(part.copy() for part in true.softmax))
    at = slice(target, target + 1)
    at_target = exact.Pair(grad.high[at], grad.low[at])
    less = exact.add(at_target, exact.Pair(np.full(1, -1.0), np.zeros(1)))
    if target == x.argmax():
        less = exact.Pair(-true.others.high, -true.others.low)
    grad.high[at], grad.low[at] = less
    return exact.Pair(-true.log_softmax.high[target], -true.log_softmax.low[target]), grad


def _our_losses(x, target):
    """Return loss and gradient of one row, by every traversal that losses have."""
    from fastsoftmax import cross_entropy_with_grad as f

    rows, targets = np.array([x, x]), np.array([target, target])
    many = f(rows, targets, reduction="sum")
    columns = f(np.ascontiguousarray(rows.T), targets, axis=0, reduction="sum")
    packed = f(_spread_out(x)[None, ::2], targets[:1])
    return [
        f(x[None], targets[:1]),
        (many.loss / 2, many.grad[1]),
        (columns.loss / 2, columns.grad[:, 1]),
        (packed.loss, packed.grad),
    ]


def most_likely(sides):
    """Return by side the largest errors in u over real rows: of the top entry, of a row's sum."""
    x = inputs.make_rows("real", (3, 49152))
    true = exact.rows(x).softmax
    u, found = np.finfo(x.dtype).eps / 2, {}
    for name, side in sides.items():
        got = np.asarray(side.as_numpy(side.ops["softmax"](x)()))
        error = errors.absolute_error(got, true) / true.high
        at_top = np.take_along_axis(error, x.argmax(axis=-1, keepdims=True), axis=-1)
        sums = [abs(math.fsum(row.tolist()) - 1) for row in got]
        found[name] = float(at_top.max() / u), max(sums) / u
    return found


# ---- the command ---------------------------------------------------------------------------------


def run(sides, dtypes=DTYPES, lengths=LENGTHS, tell=print):
    """Measure everything.

    Returns
    -------
    found : dict
        By (operation, dtype, temperature, kind of rows, length) a dict by side of two errors: of
        normal numbers, and of those below the smallest one.
    different : Counter
        Of rows by traversal that have not the same bits as alone.
    """
    found, different = defaultdict(dict), Counter()
    for dtype in dtypes:
        for n in lengths:
            temperatures = TEMPERATURES if n < 10_000 else LONG_TEMPERATURES
            different += measure_family(found, sides, dtype, n, temperatures)
            if n in LOSS_LENGTHS:
                measure_losses(found, sides, dtype, n)
            tell(f"{dtype}, rows of {n}", file=sys.stderr, flush=True)
    return dict(found), different


def load_peers():
    """Return our side, the peers that are installed by name, the names of those that are not."""
    os.environ["JAX_ENABLE_X64"] = "1"  # read when JAX is imported
    sides, _ = load_sides()
    peers = {name: dataclasses.replace(sides[name], dtypes=dtypes)
             for name, dtypes in PEERS.items() if name in sides}  # fmt: skip
    return sides["fastsoftmax"], peers, [name for name in PEERS if name not in peers]


def main(argv=None):
    """Print the tables of ``benchmarks/ACCURACY.md``."""
    parser = argparse.ArgumentParser("python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--longest", type=int, default=max(LENGTHS), help="rows of at most so many")
    args = parser.parse_args(argv)
    ours, peers, absent = load_peers()
    found, different = run(peers, args.dtypes, [n for n in LENGTHS if n <= args.longest])
    about = {
        "commit": commit() or "unknown",
        "command": f"python -m benchmarks.accuracy {' '.join(argv or [])}".rstrip(),
        "CPU": f"{cpu()}, implementation {implementation()}",
        "versions": ", ".join(
            [f"fastsoftmax {ours.version}", f"numpy {np.__version__}"]
            + [f"{name} {side.version}" for name, side in peers.items()]
        ),
    }
    if absent:
        about["absent"] = ", ".join(absent)
    print("\n".join(accuracy_report.lines(
        about, found, different, most_likely({"fastsoftmax": ours} | peers), accuracy_sums.measure()
    )))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
