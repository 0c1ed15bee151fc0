"""The published errors: what `benchmarks/ACCURACY.md` says is what is measured."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax._dispatch.isa import ISAS

# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import (
    accuracy,
    accuracy_report,
    accuracy_rows,
    accuracy_sums,
    errors,
    exact,
    limits,
)

PUBLISHED = Path(accuracy.__file__).with_name("ACCURACY.md")
FUSED = [isa.name for isa in ISAS if platform.machine().lower() in isa.fused_multiply_add]

#: Nothing has more than so many ulp on ordinary rows at T = 1, softmax at others too, by operation
#: and dtype.
HEADLINE = {
    ("softmax", "float32"): 3.0, ("softmax", "float64"): 2.6,
    ("log_softmax", "float32"): 1.9, ("log_softmax", "float64"): 2.2,
    ("loss", "float32"): 0.6, ("loss", "float64"): 0.8,
}  # fmt: skip


def silent(*_, **__):
    """Tell nothing."""


@pytest.fixture(scope="module")
def small():
    """What short rows give, without peers."""
    return accuracy.run({}, lengths=(1, 2, 10, 33, 1000), tell=silent)


def test_the_headline(small):
    """Ordinary rows: at most 3 ulp; half types are rounded once, and nothing else."""
    for (op, dtype, temperature, kind, n), found in small[0].items():
        another = op == "softmax" and temperature in (0.7, 10)
        if kind in accuracy_rows.ORDINARY and (temperature == 1 or another):
            error = max(found["fastsoftmax"])
            if dtype in ("float16", "bfloat16"):
                assert error <= 0.51, (op, dtype, kind, n)
            elif (op, dtype) in HEADLINE:
                assert error <= HEADLINE[op, dtype], (op, dtype, kind, n)


def test_no_error_is_beyond_the_bound_at_any_temperature(small):
    """(4 + 0.1 |d| / T) u; what counts has |d| / T below 104, in float64 below 745."""
    for (op, dtype, temperature, kind, n), found in small[0].items():
        if op == "softmax":
            most = 745 if dtype == "float64" else 104
            bound = 4 + 0.1 * most
            assert max(found["fastsoftmax"]) <= bound, (dtype, temperature, kind, n)


def test_every_traversal_but_masked_has_the_same_bits(small):
    assert {name for name, count in small[1].items() if count} <= {"masked"}


def test_sums_over_rows_are_within_their_bounds():
    """Softmax of codes 8 u; entropies and means of ordinary rows 2 ulp, divergences in float64."""
    found = {label: ours for label, (ours, _) in accuracy_sums.measure().items()}
    assert found["quantized.softmax"] <= 4
    assert found["quantized.log_softmax"] <= 4
    assert found["entropy float32, ordinary rows"] <= 2.5
    assert found["entropy float64, hard rows"] <= 4
    assert found["kl_divergence float32, hard rows"] <= 0.51
    assert found["logmeanexp float32, ordinary rows"] <= 2.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_planted_error_of_3_ulp_is_found(dtype):
    limits = errors.finfo(dtype)
    true = np.array([1.0, 1.5, 0.25, float(limits.tiny) / 2, -np.inf])
    want = exact.Pair(true, np.zeros(5))
    assert errors.errors_ulp(true, want, dtype) == (0, 0)
    for place, one in ((1, 1.0), (2, 0.25)):
        got = true.copy()
        got[place] += 3 * one * float(limits.eps)
        assert errors.errors_ulp(got, want, dtype) == (3, 0)
    got = true.copy()
    got[3] = 0
    assert errors.errors_ulp(got, want, dtype) == (0, 2.0 ** (limits.nmant - 1))
    got[0] = np.nan
    assert errors.errors_ulp(got, want, dtype)[0] == np.inf
    got = np.append(true[:4], np.inf)
    assert errors.errors_ulp(got, want, dtype)[0] == np.inf


def test_tables_are_read_back(small):
    found, different = small
    sums = {"entropy float32": (1.25, 2e4)}
    lines = accuracy_report.lines(
        {"commit": "x"}, found, different, {"fastsoftmax": (0.9, 0.8)}, sums
    )
    read = accuracy_report.read("\n".join(lines))
    worst = max(
        errors["fastsoftmax"][0]
        for key, errors in found.items()
        if key[:4] == ("softmax", "float32", 1.0, "random")
    )
    assert read["softmax at T = 1", "float32 random"] == [pytest.approx(worst, abs=0.005)]
    assert ("Results below the smallest normal number", "gradient float64") in read
    assert read["Sums over rows, and logits of 8 bits", "entropy float32"] == [1.25]


@pytest.mark.weekly
def test_no_error_is_above_the_published_one():
    if limits.implementation() not in FUSED:
        pytest.skip(f"{limits.implementation()} has no fused multiply-add, and other bits")
    published = accuracy_report.read(PUBLISHED.read_text("utf-8"))
    found, different = accuracy.run({}, tell=silent)
    lines = accuracy_report.lines({}, found, different, {}, accuracy_sums.measure())
    measured = accuracy_report.read("\n".join(lines))
    assert measured.keys() <= published.keys()
    above = {
        key: (cells, published[key])
        for key, cells in measured.items()
        if len(cells) != len(published[key])
        or any(cell > told * 1.01 for cell, told in zip(cells, published[key], strict=True))
    }
    assert not above
