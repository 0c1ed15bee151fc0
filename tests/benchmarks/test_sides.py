"""The benchmark compares like with like: all sides of a cell give the same answer."""

import sys
from pathlib import Path

import numpy as np
import pytest

# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import cells, onnx_models
from benchmarks import sides as all_sides
from benchmarks.numpy_idioms import per_row

DRAWS = 4000


def each_cell(*, drawing):
    """Parametrize a test over all cells that draw, or all that don't."""
    chosen = [cell for cell in cells.CELLS if cell.runs[0].op.startswith("sample") == drawing]
    return pytest.mark.parametrize("cell", chosen, ids=lambda cell: cell.name)


@pytest.fixture(scope="module")
def sides():
    return all_sides.load_sides()[0]


def each_run(sides, cell, scale=1):
    """Each run of a cell with its call on a small input, that input, and how to read the result."""
    done = 0
    for run in cell.runs:
        side = sides.get(run.side)
        if side and cell.dtype in side.dtypes:
            rows = 8 if run.op == "sample per row" else 3
            shape = [min(n, rows) for n in cell.shape]
            shape[cell.axis] = min(cell.shape[cell.axis], 2 * run.parameters.get("k", 100))
            x = cells.make_rows(run.rows, tuple(shape), cell.dtype)
            x *= scale
            print(run)  # pytest shows the last one of a cell that fails
            yield run, side.ops[run.op](x, **run.parameters), x, side.as_numpy
            done += 1
    assert done > 1


@each_cell(drawing=False)
def test_every_side_gives_the_same_answer(sides, cell):
    for run, call, x, as_numpy in each_run(sides, cell):
        call()  # a second call must not build on what the first one left
        check(cell, run, call(), x, as_numpy)


def check(cell, run, got, x, as_numpy):
    """What a run gave is right, computed anew in plain NumPy."""
    if cell.family:
        axis = cell.axis
        wide = x.astype(np.longdouble) / run.parameters.get("temperature", 1)
        highest = wide.max(axis=axis, keepdims=True)
        wide -= highest
        total = np.exp(wide).sum(axis=axis, keepdims=True)
        want = {
            "softmax": np.exp(wide) / total,
            "log_softmax": wide - np.log(total),
            "logsumexp": (highest + np.log(total))[..., 0],
        }[cell.family]
        got = as_numpy(got)
        assert got.dtype == x.dtype
        eps = np.finfo(x.dtype).eps
        atol = 10 * eps * abs(want).max()
        np.testing.assert_allclose(got, want.astype(x.dtype), rtol=100 * eps, atol=atol)
    elif run.op == "cross_entropy":
        loss, grad = map(np.asarray, got)
        x = x.astype(np.float64)
        label = np.arange(x.shape[-1]) == all_sides.targets(x)[:, None]
        log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
        assert loss == pytest.approx(-log_p[label].mean(), rel=1e-5)
        np.testing.assert_allclose(grad, (np.exp(log_p) - label) / len(x), atol=1e-6)
    elif run.op == "greedy":
        assert np.ravel(as_numpy(got)).tolist() == x.argmax(axis=-1).tolist()
    else:
        values, ids = as_numpy(got) if run.side == "onnxruntime" else map(np.asarray, got)
        k = run.parameters["k"]
        want = np.argsort(-x, kind="stable")[:, :k]
        best = np.take_along_axis(x, want, -1)
        np.testing.assert_array_equal(values.reshape(-1, k), best)
        if run.side == "fastsoftmax" or np.unique(x).size == x.size:  # no ties
            np.testing.assert_array_equal(ids.reshape(-1, k), want)
        else:
            np.testing.assert_array_equal(np.take_along_axis(x, ids.reshape(-1, k), -1), best)


@each_cell(drawing=True)
def test_every_sampler_draws_from_the_same_distribution(sides, cell):
    for run, call, x, _ in each_run(sides, cell, scale=0.25):  # flat: many tokens are in play
        check_draws(run, np.array([np.ravel(call()) for _ in range(DRAWS)]), x)


def check_draws(run, drawn, x):
    """The draws of each row are those of the filtered distribution."""
    assert drawn.shape == (DRAWS, len(x))
    for ids, (row, filters) in zip(drawn.T, per_row(x, run.parameters), strict=True):
        # By sorting everything: scaled, the K largest, the shortest prefix that reaches top_p.
        order = np.argsort(-row, kind="stable")[: filters.get("top_k")]
        p = np.exp((row[order].astype(float) - row.max()) / filters["temperature"])
        p /= p.sum()
        kept = order[: np.searchsorted(p.cumsum(), filters.get("top_p", 1 - 1e-15)) + 1]
        p = p[: kept.size] / p[: kept.size].sum()
        assert 8 < kept.size <= row.size
        counts = np.bincount(ids, minlength=row.size)
        assert counts.sum() == counts[kept].sum() == DRAWS
        # Six standard deviations, and the seeds are fixed.
        assert np.all(abs(counts[kept] - DRAWS * p) < 6 * np.sqrt(DRAWS * p))


@pytest.mark.parametrize("side", ["numpy", "numpy threshold"])
def test_numpy_idioms_keep_k_of_a_row_of_ties(sides, side):
    values, ids = sides[side].ops["top_k"](np.zeros((1, 200), "float32"), 50)()
    assert values.size == np.unique(ids).size == 50


def test_absent_peers_are_named(monkeypatch):
    gone = ("torch", "onnxruntime", "scipy", "jax", "transformers", "llama_cpp")
    for name in gone:
        monkeypatch.setitem(sys.modules, name, None)
    sides, absent = all_sides.load_sides()
    assert absent == ["torch", "onnxruntime", "scipy", "jax", "transformers", "llama.cpp"]
    assert list(sides) == ["fastsoftmax", "numpy", "numpy threshold"]


# --- ONNX models --------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp", "top_k"])
def test_encoded_onnx_model_loads(op):
    ort = pytest.importorskip("onnxruntime", reason="the models are for ONNX Runtime")
    model = onnx_models.model(op, "float64", k=5 if op == "top_k" else None)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [(i.name, i.type) for i in session.get_inputs()] == [("x", "tensor(double)")]
    assert [o.name for o in session.get_outputs()] == (["y", "ids"] if op == "top_k" else ["y"])


def test_varint_and_negative_numbers():
    assert onnx_models._fields((1, 300)) == b"\x08\xac\x02"
    assert onnx_models._fields((2, "ab")) == b"\x12\x02ab"
    assert onnx_models._fields((3, -1)) == b"\x18" + b"\xff" * 9 + b"\x01"
