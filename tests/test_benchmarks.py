"""The benchmark measures what it says: time, error, and equal work on every side."""

import json
import os
import subprocess
import sys
from decimal import Decimal, localcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

NO_ORACLE = "long double is no wider than float64 on this platform"
ROOT = Path(__file__).resolve().parents[1]
# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import cells, errors, timing  # noqa: E402


def each_run(*, sampling):
    """Parametrize a test over the runs of all cells that sample, or of all that don't."""
    runs = [(cell, run) for cell in cells.CELLS for run in cell.runs]
    return pytest.mark.parametrize(
        ("cell", "run"),
        [
            pytest.param(cell, run, id=f"{cell.name}: {run.label}")
            for cell, run in runs
            if run.op.startswith("sample") == sampling
        ],
    )


@pytest.fixture(scope="module")
def sides():
    return cells.load_sides()[0]


def prepare(sides, cell, run, scale=1):
    """The call of a run on a small input, that input, and how to read the result."""
    if run.side not in sides:
        pytest.skip(f"{run.side} is not installed")
    rows, n = cell.shape
    x = cell.rows(run.order, (min(rows, 3), min(n, 200)))
    x *= scale
    side = sides[run.side]
    return side.ops[run.op](x), x, side.as_numpy


# --- Timing -------------------------------------------------------------------------------------


def test_a_slower_function_has_the_larger_ratio():
    short, long = partial(sum, range(2000)), partial(sum, range(6000))
    pair = timing.time_pair(short, long, rounds=10, sample_ns=500_000)
    assert 2.5 < pair.ratio.median < 3.5
    back = timing.time_pair(long, short, rounds=10, sample_ns=500_000)
    assert 1 / 3.5 < back.ratio.median < 1 / 2.5


def test_turns_are_taken_in_the_order_abba():
    calls = []
    pair = timing.time_pair(
        partial(calls.append, "a"), partial(calls.append, "b"), rounds=2, sample_ns=1
    )
    assert (pair.base_loops, pair.peer_loops) == (1, 1)
    assert "".join(calls).endswith("abbaabba")
    assert len(pair.base_ns) == len(pair.peer_ns) == 4


def test_short_calls_fill_a_sample():
    pair = timing.time_pair(int, partial(sum, range(50_000)), rounds=1, sample_ns=200_000)
    assert pair.base_loops > 100
    assert pair.peer_loops < 10


def test_ratio_is_of_neighbours_and_not_of_medians():
    pair = timing.Pair([1.0, 2.0, 3.0], [2.0, 2.0, 12.0], 1, 1)
    assert pair.ratio == timing.Spread(1.5, 2.0, 3.0)


# --- Error --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_planted_error_of_100_u_is_found(dtype):
    u = np.finfo(dtype).eps / 2
    exact = np.array([2.0, 1.0, 0.5, 0.0], np.longdouble)
    got = exact.astype(dtype)
    assert errors.error_u(got, exact) == 0
    got[1] += 100 * u
    assert errors.error_u(got, exact) == 100
    got[2] = np.nan
    assert errors.error_u(got, exact) == np.inf


def test_values_below_the_smallest_normal_do_not_count():
    tiny = float(np.finfo("float32").tiny)
    exact = np.array([tiny / 4, 1.0])
    assert errors.error_u(np.array([0, 1], "float32"), exact) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [errors.ordinary_rows, errors.hard_rows])
@pytest.mark.parametrize("op", cells.SOFTMAX_FAMILY)
def test_oracle_agrees_with_decimal(op, make, dtype):
    x = make((1, 40), dtype)
    exact = errors.oracle(op, x)
    if exact is None:
        pytest.skip(NO_ORACLE)
    with localcontext(prec=60):
        row = [Decimal(float(v)) for v in x[0]]
        log_total = sum(v.exp() for v in row).ln()
        logs = [log_total] if op == "logsumexp" else [v - log_total for v in row]
        want = [v.exp() for v in logs] if op == "softmax" else logs
        # As two floats, because the oracle holds more digits than one.
        got = [Decimal(float(v)) + Decimal(float(v - float(v))) for v in exact.ravel()]
        worst = max(abs((g - w) / w) for g, w in zip(got, want, strict=True))
    assert worst < 0.1 * np.finfo(dtype).eps / 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plain_sum_fails_on_hard_rows(dtype):
    x = errors.hard_rows((1, 1000), dtype)
    terms = np.exp(x - x.max())
    total = np.cumsum(terms)[-1:]  # one accumulator, in order
    exact = errors.oracle("softmax", x)
    if exact is None:
        pytest.skip(NO_ORACLE)
    assert errors.error_u(terms / total, exact) > 500


# --- Equal work ---------------------------------------------------------------------------------


@each_run(sampling=False)
def test_every_side_gives_the_same_answer(sides, cell, run):
    call, x, as_numpy = prepare(sides, cell, run)
    call()  # a second call must not build on what the first one left
    got = call()
    if cell.family:
        wide = x.astype(np.longdouble)
        wide -= wide.max(axis=-1, keepdims=True)
        total = np.exp(wide).sum(axis=-1, keepdims=True)
        want = {
            "softmax": np.exp(wide) / total,
            "log_softmax": wide - np.log(total),
            "logsumexp": (x.max(axis=-1, keepdims=True) + np.log(total))[..., 0],
        }[cell.family]
        got = as_numpy(got)
        assert got.dtype == x.dtype
        eps = np.finfo(x.dtype).eps
        atol = 10 * eps * abs(want).max()
        np.testing.assert_allclose(got, want.astype(x.dtype), rtol=100 * eps, atol=atol)
    elif run.op == "cross_entropy":
        loss, grad = map(np.asarray, got)
        x = x.astype(np.float64)
        label = np.arange(x.shape[-1]) == cells.targets(x)[:, None]
        log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
        assert loss == pytest.approx(-log_p[label].mean(), rel=1e-5)
        np.testing.assert_allclose(grad, (np.exp(log_p) - label) / len(x), atol=1e-6)
    else:
        values, ids = as_numpy(got) if run.side == "onnxruntime" else map(np.asarray, got)
        want = np.argsort(-x[0], kind="stable")[: cells.K]
        np.testing.assert_array_equal(ids.ravel(), want)
        np.testing.assert_array_equal(values.ravel(), x[0, want])


@each_run(sampling=True)
def test_every_sampler_draws_from_the_same_distribution(sides, cell, run):
    call, x, _ = prepare(sides, cell, run, scale=0.25)  # flat: many tokens are in play
    # By sorting everything: scaled, the K largest, the shortest prefix that reaches TOP_P.
    order = np.argsort(-x[0], kind="stable")
    if f"top_k={cells.K}" in cell.name:
        order = order[: cells.K]
    p = np.exp((x[0, order].astype(float) - x.max()) / cells.TEMPERATURE)
    p /= p.sum()
    top_p = cells.TOP_P if "top_p" in cell.name else 1 - 1e-15
    kept = order[: np.searchsorted(p.cumsum(), top_p) + 1]
    p = p[: kept.size] / p[: kept.size].sum()
    assert 20 < kept.size <= x.size

    draws = 4000
    counts = np.bincount([int(np.squeeze(call())) for _ in range(draws)], minlength=x.size)
    assert counts.sum() == counts[kept].sum() == draws
    # Six standard deviations, and the seeds are fixed.
    assert np.all(abs(counts[kept] - draws * p) < 6 * np.sqrt(draws * p))


@pytest.mark.parametrize("op", ["top_k", "top_k partition"])
def test_numpy_idioms_keep_k_of_a_row_of_ties(sides, op):
    values, ids = sides["numpy"].ops[op](np.zeros((1, 200), "float32"))()
    assert values.size == np.unique(ids).size == cells.K


# --- ONNX and the command -----------------------------------------------------------------------


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp", "top_k"])
def test_encoded_onnx_model_loads(op):
    ort = pytest.importorskip("onnxruntime", reason="the models are for ONNX Runtime")
    session = ort.InferenceSession(
        cells.onnx_model(op, "float64"), providers=["CPUExecutionProvider"]
    )
    assert [(i.name, i.type) for i in session.get_inputs()] == [("x", "tensor(double)")]
    assert [o.name for o in session.get_outputs()] == (["y", "ids"] if op == "top_k" else ["y"])


def test_varint_and_negative_numbers():
    assert cells._fields((1, 300)) == b"\x08\xac\x02"
    assert cells._fields((2, "ab")) == b"\x12\x02ab"
    assert cells._fields((3, -1)) == b"\x18" + b"\xff" * 9 + b"\x01"


def test_absent_peer_is_named_and_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    sides, absent = cells.load_sides()
    assert "torch" in absent
    assert "onnxruntime" in absent
    cell = next(cell for cell in cells.CELLS if cell.shape == (1, 10))
    result = command.measure(cell, sides, rounds=1)
    assert {"torch", "onnxruntime"}.isdisjoint(run["label"] for run in result["runs"])
    about = command.describe(sides, absent)
    text = "\n".join(command._markdown_lines(about, [result]))
    assert "Absent: torch, onnxruntime" in text


def test_command_prints_and_writes_json(tmp_path):
    import fastsoftmax

    # The same fastsoftmax as here, wherever it is installed.
    path = os.pathsep.join([str(Path(fastsoftmax.__file__).parents[1]), str(ROOT)])
    options = ["--quick", "--only", "^softmax.*1,10", "--json", "o.json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "softmax float32 (1,10)" in done.stdout
    run = json.loads((tmp_path / "o.json").read_text())
    assert [cell["name"] for cell in run["cells"]] == ["softmax float32 (1,10)"]
    assert run["about"]["versions"]["numpy"] == np.__version__
    base, *peers = run["cells"][0]["runs"]
    assert base["label"] == "fastsoftmax"
    assert 0 <= base["error_u"]["ordinary"] < 1000
    for peer in peers:
        assert 0 < peer["ratio"]["q1"] <= peer["ratio"]["median"] <= peer["ratio"]["q3"]


def test_unmatched_pattern_lists_the_cells(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "no such cell"])
    assert "logsumexp float32 (64,1000)" in capsys.readouterr().err
