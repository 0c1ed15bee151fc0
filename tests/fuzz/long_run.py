"""Batches of inputs in processes whose end does not end the run, one after another."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from fastsoftmax import _dispatch

#: Of ten batches, how many are of each implementation.
SHARES = {"avx2": 8, "avx512": 1, "baseline": 1}
LIMIT = 300  # seconds that a batch may take
COMMAND = [sys.executable, "-m", "tests.fuzz", "--batch"]


def long_run(options):
    """Run batches one after another, and print findings as they come and a table at the end."""
    names = [n for n in SHARES if n in _dispatch.NAMES and runs(n)] or ["reference"]
    order = [n for n in names for _ in range(SHARES.get(n, 1))]
    counts, seen, minutes = Counter(), {}, Counter()
    begin, seed = time.monotonic(), options.seed
    with tempfile.TemporaryDirectory() as folder:
        last = Path(folder) / "last"
        while time.monotonic() - begin < options.minutes * 60:
            impl = options.impl or order[seed * 7 % len(order)]
            start = time.monotonic()
            answer = child(impl, seed, options.size, last)
            minutes[impl] += (time.monotonic() - start) / 60
            counts.update(answer["counts"])
            for what, where in answer["findings"].items():
                if what not in seen:
                    seen[what] = where
                    print(f"FINDING ({impl}, seed {seed}): {where}", flush=True)
            seed += 1
            print(f"{(time.monotonic() - begin) / 60:.1f} min, {counts.total():,} inputs, "
                  f"{len(seen)} findings", file=sys.stderr, flush=True)  # fmt: skip
    for name, count in counts.most_common():
        print(f"{count:>10,} {name}")
    times = ", ".join(f"{m:.0f} min of {name}" for name, m in minutes.items())
    print(f"{counts.total():>10,} inputs in {times}")
    print(f"{len(seen):>10,} findings")
    return bool(seen)


def runs(name):
    try:
        _dispatch.load(name)
    except ImportError:
        return False
    return True


def child(impl, seed, size, last):
    """Return the answer of a batch; a crash is a finding, told by the last input begun."""
    last.write_bytes(b"")
    command = [
        *COMMAND,
        "--impl",
        impl,
        "--seed",
        str(seed),
        "--size",
        str(size),
        "--last",
        str(last),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        why = f"exit code {done.returncode}: {done.stderr[-2000:]}"
    except subprocess.TimeoutExpired:
        why = f"no end within {LIMIT} s"
    what = last.read_bytes().split(b"\0")[0].decode(errors="replace")
    return {"counts": {}, "findings": {f"{why[:40]} {what[:40]}": f"{why}\n  {what}"}}
