"""``python -m benchmarks.classifiers``: every line of its tables runs, absent peers are named."""

import re
import sys
from pathlib import Path

# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import classifiers


def test_a_line_for_each_call(capsys):
    classifiers.main(["--rows", "300", "--budget", "0"])
    lines = capsys.readouterr().out.splitlines()
    timed = [
        line for line in lines if re.search(r"\| [\d.e+]+ ms \| [\d.e+]+ ms \| [\d.e+]+ \|$", line)
    ]
    absent = {"sklearn": 2, "mapie": 2}
    missing = sum(n for peer, n in absent.items() if any(f"'{peer}'" in line for line in lines))
    assert len(timed) == 8 - missing
