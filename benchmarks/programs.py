"""Whole programs as they are, and with ours in place: ``python -m benchmarks.programs [ROUNDS]``.

scikit-learn's, those of ``examples/scipy_in_place.py``. What a program gains is less than what its
softmax gains: the rest is matrix products.
"""

import argparse
import statistics
import sys
import warnings
from time import process_time

ROUNDS = 5


def cpu_seconds(call):
    """Return the CPU time that a call takes."""
    start = process_time()
    call()
    return process_time() - start


def measure(program, in_place, rounds):
    """Run a program as it is and in the context `in_place`, in turns; return the CPU times."""
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(cpu_seconds(program))
        with in_place():
            ours.append(cpu_seconds(program))
    return theirs, ours


def report(name, theirs, ours):
    """Return a line: the least times, and the median of the ratios of the rounds."""
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    return f"| {name} | {min(theirs):.2f} s | {min(ours):.2f} s | {ratio:.2f} |"


def main(argv=None):
    """Print a row for each program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs", description=__doc__)
    parser.add_argument("rounds", metavar="ROUNDS", type=int, nargs="?", default=ROUNDS)
    options = parser.parse_args(argv)
    try:
        from examples.scipy_in_place import PROGRAMS, in_place
    except ImportError as error:
        print(f"{error}: pip install scikit-learn", file=sys.stderr)
        return 2
    print("| program | as it is | with fastsoftmax | ratio |\n| --- | ---: | ---: | ---: |")
    with warnings.catch_warnings(action="ignore"):  # stopped before they converge, for equal work
        for name, make in PROGRAMS.items():
            print(report(name, *measure(make(0), in_place, options.rounds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
