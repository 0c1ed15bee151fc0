"""The long run: ``python -m tests.fuzz --minutes 60``."""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path


def batch(options):
    """Run one batch of inputs in this process; print what was tried and found as JSON."""
    from .batch import run_batch

    warnings.simplefilter("error")
    counts, findings = run_batch(options.impl, options.seed, options.size, Path(options.last))
    print(json.dumps({"counts": counts, "findings": findings}))


def main():
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6)
    parser.add_argument("--size", type=int, default=4000, help="calls in a batch")
    parser.add_argument("--impl", help="this implementation alone")
    parser.add_argument("--guided", action="store_true", help="guided by coverage (atheris)")
    parser.add_argument("--batch", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--last", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.guided:
        from .guided import guided

        return guided(options)
    if options.batch:
        return batch(options)
    from .long_run import long_run

    return long_run(options)


sys.exit(main())
