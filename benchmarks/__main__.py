"""Time and error of fastsoftmax beside its peers, one thread each, and the machine's limit."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import compare, forms, limits, report
from benchmarks.cells import CELLS
from benchmarks.inputs import has_dtype
from benchmarks.measure import disturbance, means, measure, on_cpus
from benchmarks.sides import load_sides

BUDGET_S, QUICK_BUDGET_S = 1.0, 0.08  # for each pair of sides
SAMPLES, QUICK_SAMPLES = 60, 15  # of each small call
# A cell during which the core ran this much slower than at its best is measured once more at the
# end, until the run has taken so many times as long as without.
DISTURBED, AGAIN = 0.15, 1.25


def main(argv=None):
    """Run the benchmark, or compare two runs; return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples: some three minutes")
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        help="cells, and small calls, whose name this regex is found in",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything here")
    parser.add_argument("--markdown", action="store_true", help="print tables (`benchmarks.pages`)")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="also draw it (matplotlib)")
    parser.add_argument(
        "--compare", nargs=2, metavar=("OLD", "NEW"), type=Path,
        help="run nothing: exit code 1 if NEW is worse than OLD, both of --json",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.compare:
        return _compare(*args.compare)
    cells = [cell for cell in CELLS if not args.only or re.search(args.only, cell.name)]
    small = [form for form in forms.all_forms() if not args.only or re.search(args.only, form.name)]
    if not cells and not small:
        names = "; ".join(cell.name for cell in CELLS)
        parser.error(f"no cell matches {args.only!r}; there are: {names}; small FUNCTION FORM")
    if args.picture:
        try:  # before the work
            from benchmarks import picture
        except ImportError as error:
            parser.error(f"--picture needs matplotlib: {error}")

    budget_s, samples = (QUICK_BUDGET_S, QUICK_SAMPLES) if args.quick else (BUDGET_S, SAMPLES)
    run = _run(cells, budget_s, small, samples, loud=not args.markdown)
    if args.markdown:
        print("\n".join(report.markdown_lines(run)))
    if args.json:
        args.json.write_text(json.dumps(run, indent=1) + "\n")
    if args.picture:
        picture.draw(run, args.picture)
    return 0


def _run(cells, budget_s, small=(), samples=QUICK_SAMPLES, *, loud):
    """Measure cells, then `small` calls, and say so as it goes if `loud`."""
    start = time.monotonic()
    with on_cpus(1):  # where the libraries start their threads
        about = describe(
            *(loaded := load_sides()), sorted({limits.computed_in(cell.dtype) for cell in cells})
        )
    if not all(has_dtype(cell.dtype) for cell in cells):
        about["absent"].append("ml_dtypes (bfloat16)")
        cells = [cell for cell in cells if has_dtype(cell.dtype)]
    run = {"about": about, "means": {}, "cells": [], "forms": []}
    tell = print if loud else _silent
    tell("\n".join(report.about_lines(about)))

    def measured(cell):
        with on_cpus(cell.cpus):
            result = measure(
                cell, loaded[0], budget_s, about["pass_ns"][limits.computed_in(cell.dtype)]
            )
        tell("\n".join(report.cell_lines(result)), flush=True)
        return result

    results = run["cells"] = [measured(cell) for cell in cells]
    late = start + AGAIN * (time.monotonic() - start)
    for i, slowed in enumerate(disturbance(results)):
        if slowed > DISTURBED and time.monotonic() < late:
            tell(f"\nAgain, because something else slowed the core by {slowed:.0%}:", end="")
            results[i] = min(results[i], measured(cells[i]), key=lambda r: r["pace_ns"])
    for result, slowed in zip(results, disturbance(results), strict=True):
        result["disturbed"] = slowed
    run["means"] = means(results)
    about["seconds"] = round(time.monotonic() - start)
    tell("\n".join([*report.mean_lines(run["means"]), *report.floor_lines(results)]), flush=True)
    with on_cpus(1):
        run["forms"] = forms.measure_forms(small, samples) if small else []
    tell("\n".join(report.form_lines(run["forms"])))
    tell(f"\n{about['seconds']} seconds")
    return run


def _silent(*_, **__):
    pass


def _compare(old, new):
    worse, notes = compare.compare(*(json.loads(path.read_text()) for path in (old, new)))
    print("\n".join([*notes, *(f"worse: {line}" for line in worse), f"{len(worse)} worse"]))
    return 1 if worse else 0


def describe(sides, absent, dtypes):
    """Everything a reader needs to judge the figures: CPU, versions, implementation, commit."""
    return {
        "cpu": cpu(),
        "platform": platform.platform(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "commit": commit(),
        "implementation": limits.implementation(),
        "versions": {"python": platform.python_version()}
        | {name: side.version for name, side in sides.items() if name != "numpy threshold"},
        "held": _held(sides),
        "absent": absent,
        "pass_ns": {dtype: limits.pass_ns(dtype) for dtype in dtypes},
    }


def _held(sides):
    """Which peers use no more than our instruction set, by what; the others use what there is."""
    torch = os.environ.get("ATEN_CPU_CAPABILITY")
    found = [f"torch (ATEN_CPU_CAPABILITY={torch})"] if torch and "torch" in sides else []
    if "jax" in sides and "xla_cpu_max_isa" in os.environ.get("XLA_FLAGS", ""):
        found.append("jax (xla_cpu_max_isa)")
    free = [name for name in ("onnxruntime", "numpy", "scipy") if name in sides]
    return f"{', '.join(found) or 'none'}; {', '.join(free)} use what the CPU has"


def cpu():
    """Name the CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    # Virtual machines often hide the name; family and model still tell which core it is.
    return "{model name} (family {cpu family}, model {model})".format_map(fields)


def commit():
    """Return the commit that is checked out, or None."""
    # "--exclude=*" sets tags aside: the abbreviated hash, and "-dirty" if anything was edited.
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
