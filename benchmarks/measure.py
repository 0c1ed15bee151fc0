"""Measure a cell: time, ratio, fraction of the limit, and error of each run."""

import contextlib
import math
import os
from dataclasses import asdict
from statistics import fmean

import numpy as np

from benchmarks import limits
from benchmarks.errors import KINDS, error_u, oracle
from benchmarks.inputs import make_rows
from benchmarks.timing import spread, time_pair

ERROR_SIZE = 2**20  # errors are taken over so many elements, or one row


@contextlib.contextmanager
def on_cpus(count):
    """Keep this thread, and threads that are started in it, on so many CPUs."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def measure(cell, sides, budget_s, pass_ns):
    """Time every run of a cell against its first, and measure the error of each.

    Parameters
    ----------
    cell : Cell
    sides : dict of str to Side
    budget_s : float
        For each pair that is timed.
    pass_ns : dict
        What `limits.pass_ns` returned for the cell's dtype.

    Returns
    -------
    dict
        Ready for JSON. ``ns`` of the first run is over the samples of all its pairs.
    """
    runs = [run for run in cell.runs if _takes_part(sides.get(run.side), run, cell)]
    rows = {(kind, dtype): make_rows(kind, cell.shape, dtype or cell.dtype)
            for kind, dtype in {(run.rows, run.dtype) for run in runs}}  # fmt: skip
    base = _call(sides, runs[0], rows)
    x = rows[runs[0].rows, None]
    moving = time_pair(base, limits.mover(x, cell.written), budget_s=budget_s)
    base_ns, lines, paces = list(moving.base_ns), [_line(runs[0])], [limits.pace_ns()]
    for run in runs[1:]:
        pair = time_pair(base, _call(sides, run, rows), budget_s=budget_s)
        paces.append(limits.pace_ns())
        base_ns += pair.base_ns
        lines.append(_line(run) | {
            "ns": asdict(spread(pair.peer_ns)), "base_ns": asdict(spread(pair.base_ns)),
            "ratio": asdict(pair.ratio), "pairs": len(pair.peer_ns),
            "loops": {"base": pair.base_loops, "peer": pair.peer_loops},
        })  # fmt: skip
    lines[0]["ns"] = asdict(spread(base_ns))

    limit = {
        "moving_ns": max(0.0, spread(moving.peer_ns).median - limits.call_ns(cell.written)),
        "passes_ns": x.size * sum(pass_ns[name] for name in cell.passes),
    }
    limit["ns"] = max(limit.values())
    moved = x.nbytes * (2 if cell.written else 1)
    errors = _errors(cell, runs, sides) if cell.family else [None] * len(runs)
    for line, error in zip(lines, errors, strict=True):
        median = line["ns"]["median"]
        line |= {"gb_s": moved / median, "of_limit": limit["ns"] / median, "error_u": error}
    return {
        "name": cell.name, "table": cell.table, "shape": cell.shape, "dtype": cell.dtype,
        "mean": cell.mean, "pictured": cell.pictured, "limit": limit, "runs": lines,
        "pace_ns": fmean(paces),
        "absent": sorted({run.side for run in cell.runs} - sides.keys()),
    }  # fmt: skip


def disturbance(results):
    """How much slower the core ran during each cell than during its best one: 0.1 is 10 %."""
    best = min((result["pace_ns"] for result in results), default=1)
    return [result["pace_ns"] / best - 1 for result in results]


def means(results):
    """Geometric means of the median ratios, over the cells that share one; a dict per mean."""
    found = {}
    for name in dict.fromkeys(r["mean"] for r in results if r["mean"]):
        cells = [{run["label"]: run["ratio"]["median"] for run in r["runs"][1:]}
                 for r in results if r["mean"] == name]  # fmt: skip
        found[name] = {
            label: math.prod(cell[label] for cell in cells) ** (1 / len(cells))
            for label in cells[0]
            if all(label in cell for cell in cells)
        }
    return found


def _takes_part(side, run, cell):
    return side is not None and (run.dtype or cell.dtype) in side.dtypes


def _call(sides, run, rows):
    return sides[run.side].ops[run.op](rows[run.rows, run.dtype], **run.parameters)


def _line(run):
    return {"label": run.label, "side": run.side, "floor": run.floor}


def _errors(cell, runs, sides):
    """The largest error of each run, in u, on each kind of rows."""
    shape = [cell.shape[cell.axis]]
    for n in reversed([n for i, n in enumerate(cell.shape) if i != cell.axis % len(cell.shape)]):
        shape.insert(0, max(1, min(n, ERROR_SIZE // math.prod(shape))))
    found = [{} for _ in runs]
    for kind, make in KINDS.items():
        rows = make(tuple(shape), cell.dtype)
        exact = oracle(cell.family, rows, cell.runs[0].parameters.get("temperature"))
        x = np.ascontiguousarray(np.moveaxis(rows, -1, cell.axis))
        for run, errors in zip(runs, found, strict=True):
            side = sides[run.side]
            got = side.as_numpy(side.ops[run.op](x, **run.parameters)())
            if got.ndim == x.ndim:
                got = np.moveaxis(got, cell.axis, -1)
            errors[kind] = error_u(got, exact)
    return found
