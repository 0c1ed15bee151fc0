"""Command line: ``python -m benchmarks [--quick] [--only PATTERN] [--json FILE] [--markdown]``."""

import argparse
import json
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.cells import CELLS, load_sides
from benchmarks.errors import error_u, hard_rows, oracle, ordinary_rows
from benchmarks.timing import spread, time_pair

ROUNDS, QUICK_ROUNDS = 60, 15


def main(argv=None):
    """Run the benchmark."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples: a first impression")
    parser.add_argument("--only", metavar="PATTERN", help="cells whose name this regex is found in")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything here")
    parser.add_argument("--markdown", action="store_true", help="print tables for the README")
    args = parser.parse_args(argv)
    cells = [cell for cell in CELLS if not args.only or re.search(args.only, cell.name)]
    if not cells:
        names = "; ".join(cell.name for cell in CELLS)
        parser.error(f"no cell matches {args.only!r}; there are: {names}")

    sides, absent = load_sides()
    about = describe(sides, absent)
    rounds = QUICK_ROUNDS if args.quick else ROUNDS
    results = []
    if not args.markdown:
        print("\n".join(_about_lines(about)))
    for cell in cells:
        results.append(measure(cell, sides, rounds))
        if not args.markdown:
            print("\n".join(_cell_lines(results[-1])), flush=True)
    if args.markdown:
        print("\n".join(_markdown_lines(about, results)))
    if args.json:
        args.json.write_text(json.dumps({"about": about, "cells": results}, indent=1) + "\n")


def measure(cell, sides, rounds):
    """Time every run of a cell against its first, and measure the error of each.

    Returns
    -------
    dict
        Ready for JSON. ``ns`` of the first run is over the samples of all its pairs.
    """
    runs = [run for run in cell.runs if run.side in sides]
    calls = [sides[run.side].ops[run.op](cell.rows(run.order)) for run in runs]
    pairs = [time_pair(calls[0], call, rounds=rounds) for call in calls[1:]]
    lines = []
    for run in runs:
        errors = _errors(cell, run, sides) if cell.family else None
        lines.append({"label": run.label, "side": run.side, "error_u": errors})
    lines[0]["ns"] = asdict(spread([ns for pair in pairs for ns in pair.base_ns]))
    for line, pair in zip(lines[1:], pairs, strict=True):
        line["ns"] = asdict(spread(pair.peer_ns))
        line["base_ns"] = asdict(spread(pair.base_ns))
        line["ratio"] = asdict(pair.ratio)
        line["pairs"] = len(pair.peer_ns)
        line["loops"] = {"base": pair.base_loops, "peer": pair.peer_loops}
    return {"name": cell.name, "shape": cell.shape, "dtype": cell.dtype, "runs": lines}


def _errors(cell, run, sides):
    side = sides[run.side]
    errors = {}
    for kind, make in (("ordinary", ordinary_rows), ("hard", hard_rows)):
        rows = make(cell.shape, cell.dtype)
        exact = oracle(cell.family, rows)
        got = side.as_numpy(side.ops[run.op](rows)())
        errors[kind] = None if exact is None else error_u(got, exact)
    return errors


# --- Where it ran -------------------------------------------------------------------------------


def describe(sides, absent):
    """Everything a reader needs to judge the figures: CPU, versions, implementation, commit."""
    import fastsoftmax

    return {
        "cpu": _cpu(),
        "platform": platform.platform(),
        "commit": _commit(),
        "implementation": fastsoftmax.show_config(mode="dicts")["implementation"],
        "versions": {"python": platform.python_version()}
        | {name: side.version for name, side in sides.items()},
        "absent": absent,
    }


def _cpu():
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    # Virtual machines often hide the name; family and model still tell which core it is.
    return "{model name} (family {cpu family}, model {model})".format_map(fields)


def _commit():
    # "--exclude=*" sets tags aside: the abbreviated hash, and "-dirty" if anything was edited.
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


# --- Printing -----------------------------------------------------------------------------------


def _about_lines(about):
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"CPU: {about['cpu']}, one thread"
    yield f"Implementation: {about['implementation']}, commit {about['commit'] or 'unknown'}"
    yield f"Versions: {versions}"
    if about["absent"]:
        yield f"Absent: {', '.join(about['absent'])}"


def _cell_lines(result):
    errors = "error in u, ordinary / hard rows" if result["runs"][0]["error_u"] else ""
    yield f"\n{result['name']}"
    yield f"  {'':26}{'time':26}{'times base':26}{errors}".rstrip()
    for run in result["runs"]:
        ratio = _spread(run["ratio"]) if "ratio" in run else "base"
        yield f"  {run['label']:26}{_time(run['ns']):26}{ratio:26}{_error(run)}".rstrip()


def _markdown_lines(about, results):
    for line in _about_lines(about):
        yield f"- {line}"
    # A run of fastsoftmax against itself goes into a table of its own: it is no peer.
    runs = [run for cell in results for run in cell["runs"]]
    labels = list(dict.fromkeys(run["label"] for run in runs if run["side"] != "fastsoftmax"))
    beside, errors, itself = [], [], []
    for cell in results:
        base, *others = cell["runs"]
        peers = {run["label"]: run for run in others if run["side"] != "fastsoftmax"}
        if peers:
            ratios = [_spread(peers[x]["ratio"]) if x in peers else "" for x in labels]
            beside.append([cell["name"], _time(base["ns"]), *ratios])
        if base["error_u"]:
            found = [_error(peers[x]) if x in peers else "" for x in labels]
            errors.append([cell["name"], _error(base), *found])
        for run in others:
            if run["side"] == "fastsoftmax":
                ratio = _spread(run["ratio"])
                itself.append([f"{cell['name']}: {run['label']} / {base['label']}", ratio])
    yield from _table(["times fastsoftmax's time", "fastsoftmax (time)", *labels], beside)
    yield from _table(["error in u, ordinary / hard rows", "fastsoftmax", *labels], errors)
    yield from _table(["fastsoftmax against itself", "ratio"], itself)


def _table(head, rows):
    if rows:
        yield ""
        for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows):
            yield f"| {' | '.join(row)} |"


def _spread(s, scale=1, unit=""):
    q1, median, q3 = (f"{s[key] / scale:#.3g}".rstrip(".") for key in ("q1", "median", "q3"))
    return f"{median}{unit} [{q1}, {q3}]"


def _time(s):
    return _spread(s, 1e6, " ms") if s["median"] >= 1e6 else _spread(s, 1e3, " us")


def _error(run):
    if not run["error_u"]:
        return ""
    return " / ".join("?" if e is None else f"{e:.3g}" for e in run["error_u"].values())


if __name__ == "__main__":
    sys.exit(main())
