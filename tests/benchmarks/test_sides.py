"""The benchmark compares like with like: all sides of a cell give the same answer."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax import Sampler

# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import cells, inputs, onnx_models
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
    if cell.dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16")
    done = 0
    for run in cell.runs:
        side = sides.get(run.side)
        dtype = run.dtype or cell.dtype
        if side and dtype in side.dtypes:
            rows = 8 if run.op == "sample per row" or "kinds" in run.parameters else 3
            shape = [min(n, rows) for n in cell.shape]
            shape[cell.axis] = min(cell.shape[cell.axis], 2 * run.parameters.get("k", 100))
            x = inputs.make_rows(run.rows, tuple(shape), dtype)
            x *= x.dtype.type(scale)
            print(run)  # pytest shows the last one of a cell that fails
            yield run, side.ops[run.op](x, **run.parameters), x, side.as_numpy
            done += 1
    assert done


@each_cell(drawing=False)
def test_every_side_gives_the_same_answer(sides, cell):
    for run, call, x, as_numpy in each_run(sides, cell):
        call()  # a second call must not build on what the first one left
        check(cell, run, call(), x, as_numpy)


def check(cell, run, got, x, as_numpy):
    """What a run gave is right, computed anew in plain NumPy."""
    op, parameters = run.op.split()[0], run.parameters
    if run.op in STATISTICS:
        check_statistics(run.op, got, x, **parameters)
    elif op in all_sides.SOFTMAX_FAMILY:
        check_family(op, as_numpy(got), x, **parameters)
    elif op in ("cross_entropy", "loss"):
        check_loss(op, got, x, **parameters)
    elif op == "softmax_backward":
        p, g = inputs.probabilities(x).astype(float), inputs.gradient(x).astype(float)
        want = p * (g - (g * p).sum(axis=-1, keepdims=True))
        np.testing.assert_allclose(as_numpy(got), want, atol=1e-6)
    elif op == "greedy":
        assert np.ravel(as_numpy(got)).tolist() == x.argmax(axis=-1).tolist()
    elif op == "token_logprobs":
        want = np.take_along_axis(log_softmax(x), inputs.targets(x)[..., None], -1)[..., 0]
        np.testing.assert_allclose(as_numpy(got), want, rtol=1e-5)
    elif op == "verify":
        check_verified(*map(as_numpy, got), x, **parameters)
    elif op == "beam_step":
        total = (inputs.scores(x)[..., None] + log_softmax(x)).reshape(len(x), -1)
        want = np.argsort(-total, kind="stable")[:, : parameters["beams"]]
        kept, parents, ids = map(as_numpy, got)
        np.testing.assert_array_equal(parents * x.shape[-1] + ids, want)
        best = np.take_along_axis(total, want, -1).astype(float)
        np.testing.assert_allclose(kept, best, rtol=1e-5)
    else:
        values, ids = as_numpy(got) if run.side == "onnxruntime" else map(as_numpy, got)
        check_selection(run, values, ids.astype(np.int64), x, **parameters)


def log_softmax(x, axis=-1):
    x = x.astype(np.longdouble)
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def check_family(op, got, x, axis=-1, axes=None, temperature=1, mask=None, workers=1):
    wide = x.astype(np.longdouble) / temperature
    if mask:
        wide = np.where(inputs.mask(mask, x), wide, -np.inf)
    log_p = log_softmax(wide, axes or axis)
    first = np.take(wide - log_p, 0, axis) if op == "logsumexp" else None
    want = {"softmax": np.exp(log_p), "log_softmax": log_p, "logsumexp": first}[op]
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(x.dtype.name)
    if eps is None:
        assert got.dtype == x.dtype
        eps = np.finfo(x.dtype).eps
    atol = 10 * eps * abs(want[np.isfinite(want)]).max()
    np.testing.assert_allclose(
        got.astype(np.float64), want.astype(np.float64), rtol=100 * eps, atol=atol
    )


STATISTICS = (
    *("row_stats", "row_stats, top 5, rank", "entropy", "logmeanexp", "kl_divergence"),
    "logsumexp b=",
)


def check_statistics(op, got, x, axis=-1):
    """Sums over rows, against longdouble; what looks at two arrays has -x, or x, for the second."""
    log_p = log_softmax(x, axis)
    lse = np.take(x - log_p, 0, axis)
    p = np.exp(log_p)
    close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
    if op == "logsumexp b=":
        close(got, np.log(abs((x * p).sum(axis))) + lse)
    elif op == "logmeanexp":
        close(got, lse - np.log(x.shape[axis]))
    elif op == "kl_divergence":
        close(got, (p * (log_p - log_softmax(-x, axis))).sum(axis))
    elif op == "entropy":
        close(got, -(p * log_p).sum(axis))
    else:
        best = -np.sort(-np.moveaxis(x, axis, -1))
        np.testing.assert_array_equal(got.max, best[..., 0])
        np.testing.assert_array_equal(got.argmax, x.argmax(axis))
        close(got.margin, best[..., 0] - best[..., 1])
        close(got.logsumexp, lse)
        close(got.entropy, -(p * log_p).sum(axis))
        if op != "row_stats":
            np.testing.assert_array_equal(got.top_values, best[..., : got.top_values.shape[-1]])
            own = np.take_along_axis(x, inputs.targets(x, axis)[..., None], axis)
            np.testing.assert_array_equal(got.ranks, (x > own).sum(axis))


def check_verified(ids, counts, x, certain, top_p):
    """Drafts up to the last id, which is none that was drafted there, and all that top_p leaves."""
    from fastsoftmax import filter_logits

    drafted, _ = inputs.drafts(x, top_p)
    kept = filter_logits(x, top_p=top_p) > -np.inf
    for row, count, draft, left in zip(ids, counts, drafted, kept, strict=True):
        assert row[: count - 1].tolist() == draft[: count - 1].tolist()
        assert np.all(row[count:] == -1)
        assert left[np.arange(count), row[:count]].all()
        assert count == row.size or not certain or row[count - 1] != draft[count - 1]


def check_loss(op, got, x, axis=-1, soft=False, smoothing=0.0):
    loss, grad = map(np.asarray, got) if op == "cross_entropy" else (np.asarray(got), None)
    log_p = np.moveaxis(log_softmax(x, axis), axis, -1)
    n = log_p.shape[-1]
    label = inputs.probabilities(x) if soft else np.eye(n)[inputs.targets(x, axis)]
    label = (1 - smoothing) * label + smoothing / n
    rows = log_p.size // n
    assert float(loss) == pytest.approx(float(-(label * log_p).sum() / rows), rel=1e-5)
    if grad is not None:
        want = np.moveaxis((np.exp(log_p) - label) / rows, -1, axis)
        np.testing.assert_allclose(grad, want.astype(np.float64), atol=1e-6)


def check_selection(run, values, ids, x, k=None, n=None, axis=-1, mode="largest"):
    k = k or n
    x = np.moveaxis(x.astype(np.float64), axis, -1)  # exact, for all that are selected from
    values, ids = (np.moveaxis(y.reshape(-1, k) if axis == -1 else y, axis, -1)
                   for y in (values, ids))  # fmt: skip
    want = np.argsort(x if mode == "smallest" else -x, kind="stable")[:, :k]
    best = np.take_along_axis(log_softmax(x) if n else x, want, -1)
    np.testing.assert_allclose(values.astype(float), best.astype(float), rtol=1e-5 if n else 0)
    if run.side == "fastsoftmax" or np.unique(x).size == x.size:  # no ties
        np.testing.assert_array_equal(ids, want)
    else:
        np.testing.assert_array_equal(
            np.take_along_axis(x, ids, -1), np.take_along_axis(x, want, -1)
        )


@each_cell(drawing=True)
def test_every_sampler_draws_from_the_same_distribution(sides, cell):
    for run, call, x, _ in each_run(sides, cell, scale=0.25):  # flat: many tokens are in play
        if run.op != "softmax":  # that is a measure of the time alone
            check_draws(run, np.array([np.ravel(call()) for _ in range(DRAWS)]), x)


def check_draws(run, drawn, x):
    """The draws of each row are those of the filtered distribution."""
    assert drawn.shape == (DRAWS, len(x))
    if run.op == "sampler":
        check_chain_draws(drawn, x, **run.parameters)
        return
    if "allowed" in run.parameters:
        x = np.where(inputs.allowed(run.parameters["allowed"], x), x, -np.inf)
    for ids, (row, filters) in zip(drawn.T, per_row(x, run.parameters), strict=True):
        # By sorting everything: scaled, the K largest, the shortest prefix that reaches top_p, and
        # of it what reaches min_p.
        row = row.astype(float)
        order = np.argsort(-row, kind="stable")[: filters.get("top_k")]
        p = np.exp((row[order] - row.max()) / filters.get("temperature", 1))
        p /= p.sum()
        kept = order[: np.searchsorted(p.cumsum(), filters.get("top_p", 1 - 1e-15)) + 1]
        kept = kept[p[: kept.size] >= filters.get("min_p", 0) * p[0]]
        p = p[: kept.size] / p[: kept.size].sum()
        assert min(8, row.size - 1) < kept.size <= row.size
        counts = np.bincount(ids, minlength=row.size)
        assert counts.sum() == counts[kept].sum() == DRAWS
        # Six standard deviations, and the seeds are fixed.
        assert np.all(abs(counts[kept] - DRAWS * p) < 6 * np.sqrt(DRAWS * p))


def check_chain_draws(
    drawn, x, preset, tokens, text=False, filling=False, kinds=None, **parameters
):
    """The draws of each row are those of what `Sampler.candidates` says is left."""
    chains, texts = inputs.chains(x, kinds or [parameters]), inputs.tokens(x, tokens, text)
    for ids, row, each, said in zip(drawn.T, x, chains, texts, strict=True):
        kept, p = getattr(Sampler, preset)(**each).candidates(row, said)
        assert kept.size > 8
        counts = np.bincount(ids, minlength=row.size)
        assert counts.sum() == counts[kept].sum() == DRAWS
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
