"""The benchmark measures what it says: time, error, and the machine's limit."""

import dataclasses
import sys
from decimal import Decimal, localcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import (
    cells,
    errors,
    exact,
    forms,
    inputs,
    limits,
    measure,
    numpy_idioms,
    sides,
    timing,
)

# --- Timing -------------------------------------------------------------------------------------


def test_a_slower_function_has_the_larger_ratio():
    short, long = partial(sum, range(2000)), partial(sum, range(20_000))
    pair = timing.time_pair(short, long, budget_s=0.02, sample_ns=500_000)
    assert 5 < pair.ratio.median < 20  # wide: the machine may be busy
    back = timing.time_pair(long, short, budget_s=0.02, sample_ns=500_000)
    assert 1 / 20 < back.ratio.median < 1 / 5


def test_turns_are_taken_in_the_order_abba():
    calls = []
    pair = timing.time_pair(
        partial(calls.append, "a"), partial(calls.append, "b"), budget_s=0, sample_ns=1
    )
    assert (pair.base_loops, pair.peer_loops) == (1, 1)
    assert "".join(calls).endswith("abbaabba")
    assert len(pair.base_ns) == len(pair.peer_ns) == 4


def test_short_calls_fill_a_sample():
    pair = timing.time_pair(int, partial(sum, range(50_000)), budget_s=0, sample_ns=200_000)
    assert pair.base_loops > 100
    assert pair.peer_loops < 10


def test_a_larger_budget_gives_more_samples():
    few, many = (
        len(timing.time_pair(int, int, budget_s=s, sample_ns=10_000).base_ns) for s in (0, 0.05)
    )
    assert many > 5 * few


def test_ratio_is_of_neighbours_and_not_of_medians():
    pair = timing.Pair([1.0, 2.0, 3.0], [2.0, 2.0, 12.0], 1, 1)
    assert pair.ratio == timing.Spread(1.5, 2.0, 3.0)


def test_refilling_comes_before_each_call_and_is_not_timed():
    order = []
    refill = partial(lambda: (order.append("refill"), sum(range(100_000))))
    call = timing.Refilled(refill, partial(order.append, "call"))
    pair = timing.time_pair(partial(sum, range(100_000)), call, budget_s=0, sample_ns=1)
    assert order == ["refill", "call"] * (len(order) // 2)
    assert pair.ratio.median < 0.1


# --- Error --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_planted_error_of_100_u_is_found(dtype):
    u = np.finfo(dtype).eps / 2
    want = exact.Pair(np.array([2.0, 1.0, 0.5, 0.0]), np.zeros(4))
    got = want.high.astype(dtype)
    assert errors.error_u(got, want) == 0
    got[1] += 100 * u
    assert errors.error_u(got, want) == 100
    got[2] = np.nan
    assert errors.error_u(got, want) == np.inf


def test_values_below_the_smallest_normal_do_not_count():
    tiny = float(np.finfo("float32").tiny)
    want = exact.Pair(np.array([tiny / 4, 1.0]), np.zeros(2))
    assert errors.error_u(np.array([0, 1], "float32"), want) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [None, 0.8])
@pytest.mark.parametrize("kind", errors.KINDS)
@pytest.mark.parametrize("op", sides.SOFTMAX_FAMILY)
def test_oracle_agrees_with_decimal(op, kind, temperature, dtype):
    x = errors.KINDS[kind]((1, 40), dtype)
    true = errors.oracle(op, x, temperature)
    with localcontext(prec=60):
        row = [Decimal(float(v)) / Decimal(temperature or 1) for v in x[0]]
        log_total = sum(v.exp() for v in row).ln()
        logs = [log_total] if op == "logsumexp" else [v - log_total for v in row]
        want = [v.exp() for v in logs] if op == "softmax" else logs
        got = [Decimal(h) + Decimal(v) for h, v in zip(*(p.ravel() for p in true), strict=True)]
        worst = max(abs((g - w) / w) for g, w in zip(got, want, strict=True))
    assert worst < 1e-27


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "size"), [("one large", 1000), ("two levels", 20000)])
def test_a_plain_sum_fails_on_hard_rows(kind, size, dtype):
    x = errors.KINDS[kind]((1, size), dtype)
    terms = np.exp(x - x.max())
    total = np.cumsum(terms)[-1:]  # one accumulator, in order
    assert errors.error_u(terms / total, errors.oracle("softmax", x)) > 500


# --- Limit and means ----------------------------------------------------------------------------


def test_a_pass_costs_more_in_float64():
    single, double = limits.pass_ns("float32"), limits.pass_ns("float64")
    assert set(single) == set(limits.FULL)
    assert 0 < sum(single.values()) < sum(double.values())
    assert single["exp"] > single["max"]


def test_the_pass_of_exp_is_the_compiled_one():
    import fastsoftmax

    compiled = fastsoftmax.show_config(mode="dicts")["implementation"] != "reference"
    x, y = np.float32([-1.0, -2.0]), np.zeros(2, np.float32)
    assert (limits._exp() is not np.exp) == compiled
    limits._exp()(x, y)
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-6)


def test_a_mover_writes_only_if_it_should():
    x = np.arange(6, dtype="float32").reshape(2, 3)
    copy = limits.mover(x, written=True)
    copy()
    assert copy.args[0].tolist() == x.ravel().tolist()
    assert limits.mover(x, written=False)() == 5


def cell_named(start, **changes):
    cell = next(cell for cell in cells.CELLS if cell.name.startswith(start))
    return dataclasses.replace(cell, **changes)


def numpy_sides():
    return {name: sides.Side(*sides._LOADERS[name]()) for name in ("fastsoftmax", "numpy")}


@pytest.mark.parametrize("start", ["softmax float32 (64,1000)", "logsumexp float32 (64,1000)"])
def test_the_limit_is_the_longer_of_moving_and_passes(start):
    cell = cell_named(start, shape=(40, 300))
    for each, longer in ((0.0, "moving_ns"), (1e3, "passes_ns")):
        passes = dict.fromkeys(cell.passes, each)
        result = measure.measure(cell, numpy_sides(), 0.01, passes)
        limit = result["limit"]
        assert limit["passes_ns"] == 40 * 300 * each * len(cell.passes)
        assert limit["ns"] == limit[longer] > 0
        for run in result["runs"]:
            assert run["of_limit"] == limit["ns"] / run["ns"]["median"]
            moved = 40 * 300 * 4 * (2 if cell.family == "softmax" else 1)
            assert run["gb_s"] == moved / run["ns"]["median"]


@pytest.mark.parametrize(
    ("start", "shape"),
    [("softmax float32 (1000,4096) axis=0", (300, 5)),
     ("softmax float32 (8,21,256,256) axis=1", (2, 300, 2, 3))],
)  # fmt: skip
def test_errors_are_taken_along_the_axis(start, shape):
    result = measure.measure(cell_named(start, shape=shape), numpy_sides(), 0, dict.fromkeys(
        limits.FULL, 0.0))  # fmt: skip
    for run in result["runs"]:
        assert set(run["error_u"]) == set(errors.KINDS)
        assert all(0 < e < 700 for e in run["error_u"].values())

    def last_axis(x, axis):
        return partial(numpy_idioms.softmax, x)

    wrong = numpy_sides() | {"numpy": sides.Side("0", {"softmax": last_axis})}
    result = measure.measure(cell_named(start, shape=shape), wrong, 0, dict.fromkeys(
        limits.FULL, 0.0))  # fmt: skip
    assert result["runs"][1]["error_u"]["ordinary"] > 1e4


def test_geometric_mean_is_over_peers_that_did_every_cell():
    def cell(**ratios):
        runs = [{"label": k, "ratio": {"median": v}} for k, v in ratios.items()]
        return {"mean": "m", "runs": [{"label": "fastsoftmax"}, *runs]}

    results = [cell(torch=2.0, jax=3.0), cell(torch=8.0), {"mean": None, "runs": []}]
    assert measure.means(results) == {"m": {"torch": 4.0}}


def test_rows_are_of_their_kind():
    def made(kind):
        return inputs.make_rows(kind, (2, 100))[1]

    assert (np.diff(made("ascending")) >= 0).all()
    assert (np.diff(made("descending")) <= 0).all()
    assert np.unique(made("constant")).size == 1
    assert (made("all -inf") == -np.inf).all()
    assert 1 < np.unique(made("few values")).size <= 4
    pipe = np.sign(np.diff(made("organ pipe")))
    assert np.count_nonzero(np.diff(pipe[pipe != 0])) == 1  # it turns once
    assert np.sort(made("organ pipe")).tolist() == made("ascending").tolist()
    assert inputs.make_rows("real", (3, 49152)).std(axis=-1).min() > 1
    with pytest.raises(ValueError, match="no rows are called 'odd'"):
        inputs.make_rows("odd", (2, 100))


# --- Small calls --------------------------------------------------------------------------------


def test_every_argument_of_every_function_has_a_form():
    import inspect

    from fastsoftmax._docs import FUNCTIONS

    passed = {name: set() for name in FUNCTIONS}
    for form in forms.all_forms():
        if form.target:  # a Sampler
            continue
        signature = inspect.signature(FUNCTIONS[form.function])
        passed[form.function] |= set(signature.bind(*form.args, **form.kwargs).arguments)
    for name, stub in FUNCTIONS.items():
        assert passed[name] == set(inspect.signature(stub).parameters), name


def test_forms_are_calls_and_vary_one_that_is_there():
    every = forms.all_forms()
    names = [form.name for form in every]
    assert len(set(names)) == len(names)
    for form in every:
        forms.call(form)()
        assert not form.over or f"small {form.function} {form.over}" in names


def test_small_calls_are_timed_and_bounded():
    x = np.zeros((3, 5), np.float32)
    made = [forms.Form("softmax", "base", (x,), {}, 1.0),
            forms.Form("softmax", "variation", (x,), {"axis": 1}, 1.0, "base"),
            forms.Form("softmax", "alone", (x,), {}, 1.0, "absent"),
            forms.Form("softmax", "without a bound", (x,)),
            forms.Form("softmax", "a list", (x.tolist(),), {}, 1.0)]  # fmt: skip
    base, variation, alone, free, listed = forms.measure_forms(made, 2)
    add_us = base["us"] / base["adds"]
    assert base["most_us"] == pytest.approx(add_us / forms.ADD_US)
    assert variation["most_us"] == pytest.approx(base["most_us"] + base["us"])
    assert alone["most_us"] is free["most_us"] is None
    assert listed["most_us"] > base["most_us"]
