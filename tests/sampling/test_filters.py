"""filter_logits and support: what survives, its value, and that sample draws nothing else."""

from functools import cache

import ml_dtypes
import numpy as np
import pytest

from fastsoftmax import Support, _dispatch
from tests.oracles import PARAMETERS, Uniforms, rows_of, survivors

LAST = 1 - 2**-53
INF = np.inf
SIZES = (1, 2, 31, 33, 1025, 4097, 65537)


#: By default float64 has no rows beyond 10,000 here: half of the time is the reference's on those.
DTYPES = ("float32", "float64", pytest.param("float64 long", marks=pytest.mark.slow))


def sizes_of(dtype):
    """Return a dtype and the lengths it is tested with, by an entry of DTYPES."""
    dtype, _, long = dtype.partition(" ")
    return dtype, [n for n in SIZES if dtype == "float32" or (n > 10_000) == bool(long)]


@cache
def expected(n, dtype, which):
    """Return what the reference gives for the first rows of `rows_of`."""
    x = rows_of(n, dtype)[: 4 if n < 10_000 else 2]
    reference = _dispatch.load("reference")
    given = PARAMETERS[which]
    return (
        x,
        reference.filter_logits(x, **given),
        reference.filter_logits(x, ties="all", **given),
        reference.support(x, **given),
    )


def kept(y):
    return np.flatnonzero(y > -INF)


# ---- the same as the reference -------------------------------------------------------------------


@pytest.mark.parametrize("which", range(len(PARAMETERS)), ids=lambda i: str(PARAMETERS[i]))
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_as_the_reference(compiled, dtype, which):
    dtype, sizes = sizes_of(dtype)
    for n in sizes:
        x, index, every, (indices, probs, counts) = expected(n, dtype, which)
        given = PARAMETERS[which]
        np.testing.assert_array_equal(compiled.filter_logits(x, **given), index)
        np.testing.assert_array_equal(compiled.filter_logits(x, ties="all", **given), every)
        got = compiled.support(x, **given)
        np.testing.assert_array_equal(got.counts, counts)
        np.testing.assert_array_equal(got.indices, indices)
        assert got.probs.dtype == x.dtype
        np.testing.assert_allclose(
            got.probs, probs, rtol=64 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 33, 1025])
def test_one_parameter_a_row(impl, reference, n, dtype):
    rng = np.random.default_rng(3)
    x = np.tile(rows_of(n, dtype), (8, 1)).reshape(4, 8, n)
    parameters = {
        "temperature": rng.choice([0, 0.5, 1, 2, INF], (4, 8)),
        "top_k": rng.integers(0, n + 3, (1, 8)),
        "top_p": rng.choice([0, 0.3, 0.9, 1], (4, 1)),
        "min_p": rng.choice([0, 0.1, 1], 8),
        "min_keep": 2,
    }
    y = impl.filter_logits(x, **parameters)
    np.testing.assert_array_equal(y, reference.filter_logits(x, **parameters))
    all_of_them = impl.support(x, **parameters)
    for place in np.ndindex(4, 8):
        own = {k: np.broadcast_to(v, (4, 8))[place].item() for k, v in parameters.items()}
        np.testing.assert_array_equal(impl.filter_logits(x[place], **own), y[place])
        indices, probs, count = impl.support(x[place], **own)
        assert count == all_of_them.counts[place] == indices.size
        np.testing.assert_array_equal(all_of_them.indices[place][:count], indices)
        np.testing.assert_array_equal(all_of_them.probs[place][:count], probs)
        assert (all_of_them.indices[place][count:] == -1).all()
        assert (all_of_them.probs[place][count:] == 0).all()


@pytest.mark.parametrize("given", [{"top_k": 3}, {"top_k": 10**6}, {"min_keep": 5, "top_k": None}])
def test_a_whole_number_for_all_beside_a_parameter_a_row(impl, given):
    x = rows_of(33, "float32")
    top_p = [0.1, 0.5, 0.9, 1.0]
    alone = [impl.filter_logits(r, top_p=p, **given) for r, p in zip(x, top_p, strict=True)]
    np.testing.assert_array_equal(impl.filter_logits(x, top_p=top_p, **given), alone)


# ---- against plain loops -------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [None, 3, 12, 1000])
@pytest.mark.parametrize("top_p", [None, 0, 0.3, 0.97, 1])
@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_what_survives_and_its_probability(impl, temperature, top_p, top_k):
    for n, scale, dtype in ((7, 1, "float32"), (40, 3, "float64"), (120, 2, "float32")):
        row = (np.random.default_rng(n).normal(size=n) * scale).round(0 if n > 40 else 3)
        row = row.astype(dtype)
        for min_p, min_keep in ((None, 1), (0.1, 1), (0.6, 4)):
            parameters = {
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "min_p": min_p,
                "min_keep": min_keep,
            }
            ids, weights = survivors(row, **parameters)
            y = impl.filter_logits(row, **parameters)
            np.testing.assert_array_equal(kept(y), ids)
            want = (row[ids] * (1 / temperature)).astype(dtype)
            np.testing.assert_allclose(y[ids], want, rtol=np.finfo(dtype).eps)
            indices, probs, count = impl.support(row, **parameters)
            best_first = np.argsort(-weights, kind="stable")
            assert count == ids.size
            np.testing.assert_array_equal(indices, ids[best_first])
            share = weights[best_first] / weights.sum()
            np.testing.assert_allclose(probs, share, rtol=64 * np.finfo(dtype).eps)


@pytest.mark.slow_reference
@pytest.mark.parametrize("which", range(len(PARAMETERS)), ids=lambda i: str(PARAMETERS[i]))
def test_sample_draws_what_is_in_the_support_and_nothing_else(impl, which):
    """Every id by the middle of its share in index order, and whatever u at the edges draws."""
    for n in (7, 33, 300):
        for row in rows_of(n, "float32"):
            indices, probs, count = impl.support(row, **PARAMETERS[which])
            assert count == indices.size > 0
            in_order = np.argsort(indices)
            ids, p = indices[in_order], probs[in_order].astype(np.float64)
            ends = np.cumsum(p) / p.sum()
            wide = p > 1e-6
            u = np.concatenate([ends - p / p.sum() / 2, ends, [0, LAST]])
            rows = np.tile(row, (u.size, 1))
            drawn = impl.sample(rows, rng=Uniforms(np.minimum(u, LAST)), **PARAMETERS[which])
            np.testing.assert_array_equal(drawn[:count][wide], ids[wide])
            assert set(drawn) <= set(indices)


@pytest.mark.parametrize("which", range(len(PARAMETERS)), ids=lambda i: str(PARAMETERS[i]))
def test_softmax_of_the_filtered_logits_is_the_support(impl, which):
    x = rows_of(1025, "float64")
    p = impl.softmax(impl.filter_logits(x, **PARAMETERS[which]))
    indices, probs, counts = impl.support(x, **PARAMETERS[which])
    for row, places, q, count in zip(p, indices, probs, counts, strict=True):
        assert np.count_nonzero(row) == count
        np.testing.assert_allclose(row[places[:count]], q[:count], rtol=1e-12)
        assert (np.diff(q) <= 0).all()
        assert abs(q.sum() - 1) < 1e-12


@pytest.mark.parametrize("n", [1100, 3000])
def test_support_of_more_than_a_thousand(impl, n):
    x = np.random.default_rng(0).normal(size=(2, n)).astype(np.float32)
    x[1, 5:] = -INF
    indices, _, counts = impl.support(x)
    assert counts.tolist() == [n, 5]
    assert indices.shape == (2, n)
    want = np.argsort(-x, axis=1, kind="stable")
    want[1, 5:] = -1
    np.testing.assert_array_equal(indices, want)


# ---- ties ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [9, 100, 5000])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_ties_of_the_last_entry(impl, n, k):
    """Two of 3, then four of 2, spread over the row, then 1."""
    row = np.ones(n, dtype=np.float32)
    twos = np.linspace(1, n - 1, 4).astype(int)
    row[twos] = 2
    row[[0, n // 2 + 1]] = 3
    order = np.argsort(-row, kind="stable")
    np.testing.assert_array_equal(kept(impl.filter_logits(row, top_k=k)), np.sort(order[:k]))
    every = kept(impl.filter_logits(row, top_k=k, ties="all"))
    np.testing.assert_array_equal(every, np.flatnonzero(row >= row[order[k - 1]]))
    nucleus = impl.filter_logits(row, top_k=k, ties="all", top_p=1e-9)
    assert kept(nucleus).tolist() == [0]  # only top_k keeps ties
    least = impl.filter_logits(row, top_k=1, ties="all", min_keep=3)
    np.testing.assert_array_equal(kept(least), np.flatnonzero(row >= 2))


@pytest.mark.parametrize("n", [5, 500])
def test_all_equal(impl, n):
    row = np.zeros(n)
    assert kept(impl.filter_logits(row, top_k=2)).tolist() == [0, 1]
    assert kept(impl.filter_logits(row, top_k=2, ties="all")).size == n
    row[1:] = -INF
    assert kept(impl.filter_logits(row, top_k=2, ties="all")).tolist() == [0]


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_temperature_one_changes_no_bit(impl, dtype):
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    info = ml_dtypes.finfo(dtype)
    x = np.array([-0.0, 0.0, info.smallest_subnormal, info.max, info.min, 1, -INF], dtype=dtype)
    y = impl.filter_logits(x)
    assert y.dtype == dtype
    assert y.tobytes() == x.tobytes()
    y = impl.filter_logits(x, top_k=1)
    assert y.tobytes() == np.where(np.arange(7) == 3, x, dtype.type(-INF)).astype(dtype).tobytes()


@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.9}])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_survivor_is_never_infinite(impl, dtype, filters):
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    most = float(ml_dtypes.finfo(dtype).max)
    x = np.array([3, 2, 0, -2, -INF], dtype=dtype)
    for temperature in (5e-324, 1e-310):
        y = impl.filter_logits(x, temperature=temperature, **filters).astype(np.float64)
        assert y[0] == 0
        assert y[-1] == -INF
        assert not np.isnan(y).any()
        if not filters:
            assert y.tolist() == [0, -most, -most, -most, -INF]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("scale", [1, -1])
def test_a_quotient_that_overflows_keeps_the_order(impl, dtype, scale):
    """As ``(logits - max) / T``: 20.25 / 1e-4 would be the largest float16."""
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    most = float(ml_dtypes.finfo(dtype).max)
    x = np.array([[20.25, 19.5, 10, -3], [1, 0.5, 0.25, 0]]) * scale
    temperature = 16 / most * np.array([1, 2])  # the first row overflows, the second does not
    y = impl.filter_logits(x.astype(dtype), temperature=temperature)
    assert y.dtype == dtype
    exact = x.astype(dtype).astype(np.float64)
    with np.errstate(over="ignore"):
        want = np.array([(exact[0] - exact[0].max()) / temperature[0], exact[1] / temperature[1]])
    np.testing.assert_allclose(
        y.astype(np.float64), want.clip(-most, most), rtol=float(ml_dtypes.finfo(dtype).eps)
    )
    np.testing.assert_allclose(
        impl.softmax(y).astype(np.float64), np.eye(4)[exact.argmax(axis=1)], atol=1e-3
    )


def test_a_row_of_float16_that_overflows(impl):
    x = np.array([20.25, 19.5, 10, -3], dtype=np.float16)
    y = impl.filter_logits(x, temperature=1e-4)
    np.testing.assert_array_equal(y, np.array([0, -7500, -65504, -65504], np.float16))
    np.testing.assert_array_equal(impl.softmax(y), [1, 0, 0, 0])


@pytest.mark.parametrize("n", [1, 4, 700])
def test_temperature_zero_leaves_the_first_maximum_as_zero(impl, n):
    x = np.random.default_rng(n).integers(-3, 3, (9, n)).astype(np.float32)
    for filters in ({}, {"top_k": 3}, {"top_p": 0.5, "min_keep": 2}, {"ties": "all", "top_k": 2}):
        y = impl.filter_logits(x, temperature=0, **filters)
        want = np.where(np.arange(n) == x.argmax(axis=1)[:, None], np.float32(0), -INF)
        np.testing.assert_array_equal(y, want)
    indices, probs, counts = impl.support(x, temperature=0, min_keep=3)
    np.testing.assert_array_equal(indices[:, 0], x.argmax(axis=1))
    assert (probs == 1).all()
    assert (counts == 1).all()


def test_temperature_inf(impl):
    x = [3.0, -INF, 1.0, 7.0]
    assert impl.filter_logits(x, temperature=INF).tolist() == [0, -INF, 0, 0]
    assert impl.filter_logits(x, temperature=INF, top_k=2).tolist() == [0, -INF, -INF, 0]
    indices, probs, count = impl.support(x, temperature=INF, top_p=0.6)
    assert (indices.tolist(), probs.tolist(), count) == ([0, 2], [0.5, 0.5], 2)


def test_weight_zero_is_no_support(impl):
    x = np.array([0, -INF, -2000, -INF, -1], dtype=np.float32)
    for filters in ({}, {"top_k": 4}, {"min_keep": 5, "top_p": 0.1}):
        indices, probs, count = impl.support(x, **filters)
        assert (indices.tolist(), count) == ([0, 4], 2)
        np.testing.assert_allclose(probs, [1 / (1 + np.exp(-1)), 1 / (1 + np.e)], rtol=1e-6)


@pytest.mark.parametrize("n", [10, 300])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 1e300])
@pytest.mark.parametrize("filters", [{}, {"top_k": 8}, {"min_p": 5e-324}, {"top_p": 1 - 1e-16}])
def test_no_weight_is_subnormal(impl, n, temperature, filters):
    """Weights end at 2**-1022.5 of the largest, in every implementation."""
    d = np.full(n, -2000.0)
    d[:8] = [0, -708, -708.39, -708.4, -708.73, -708.75, -720, -745]
    x = d * temperature
    count = 1 if "top_p" in filters else 5
    found = impl.support(x, temperature=temperature, **filters)
    assert (found.counts, found.indices.tolist()) == (count, list(range(count)))
    ids = impl.sample(x, size=count, replace=False, temperature=temperature, rng=1, **filters)
    assert sorted(ids) == list(range(count))
    flagged = impl.sample(
        x, size=7, replace=False, temperature=temperature, rng=1, on_invalid="flag", **filters
    )
    assert np.count_nonzero(flagged >= 0) == count


@pytest.mark.parametrize("filters", [{}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.5}])
@pytest.mark.parametrize("bad", [np.nan, INF, -INF])
@pytest.mark.parametrize("n", [3, 1500])
def test_rows_without_probabilities(impl, n, bad, filters):
    x = np.random.default_rng(0).normal(size=(3, n)).astype(np.float32)
    good = impl.filter_logits(x, **filters)
    support = impl.support(x, **filters)
    if bad == -INF:
        x[1] = bad
    else:
        x[1, n // 2] = bad
    y = impl.filter_logits(x, **filters)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[[0, 2]], good[[0, 2]])
    indices, probs, counts = impl.support(x, **filters)
    assert counts[1] == 0
    assert (indices[1] == -1).all()
    assert (probs[1] == 0).all()
    np.testing.assert_array_equal(counts[[0, 2]], support.counts[[0, 2]])


# ---- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "uint64", "float32"])
def test_dtypes(impl, dtype):
    narrow = rows_of(100, "float32")[:3].clip(0, 25)
    narrow = narrow.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    own = narrow.dtype if narrow.dtype.kind in "fV" else np.dtype(np.float64)
    wide = narrow.astype(np.float32 if narrow.dtype.kind in "fV" else np.float64)
    for parameters in PARAMETERS:
        y = impl.filter_logits(narrow, **parameters)
        assert y.dtype == own
        want = impl.filter_logits(wide, **parameters).astype(own)
        eps = float(ml_dtypes.finfo(own).eps)
        np.testing.assert_allclose(y.astype("f8"), want.astype("f8"), rtol=eps)
        got, want = impl.support(narrow, **parameters), impl.support(wide, **parameters)
        assert got.probs.dtype == own
        np.testing.assert_array_equal(got.indices, want.indices)
        np.testing.assert_allclose(
            got.probs.astype("f8"), want.probs.astype("f8"), rtol=eps, atol=1e-7
        )


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (0, 5), (2, 0, 5), (3, 1), (1,), ()])
def test_shapes(impl, shape):
    x = np.zeros(shape, dtype=np.float32)
    y = impl.filter_logits(x, top_p=0.5)
    assert y.shape == shape
    assert isinstance(y, np.ndarray if shape else np.float32)
    got = impl.support(x, top_p=0.5)
    assert type(got) is Support
    rows, n = (shape[:-1], shape[-1]) if shape else ((), 1)
    most = (n + 1) // 2 if 0 not in rows else 0
    assert got.indices.shape == got.probs.shape == (*rows, most)
    assert got.counts.shape == rows
    assert got.counts.dtype == got.indices.dtype == np.int64


def test_no_entries(impl):
    assert impl.filter_logits(np.zeros((2, 0)), top_k=1).shape == (2, 0)
    indices, probs, counts = impl.support(np.zeros((2, 0)))
    assert indices.shape == probs.shape == (2, 0)
    assert counts.tolist() == [0, 0]


@pytest.mark.parametrize("parameters", [{}, {"temperature": 0.7}, {"top_k": 3, "top_p": 0.9}])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_out(impl, dtype, parameters):
    x = rows_of(100, "float32").astype(dtype)
    want = impl.filter_logits(x, **parameters)
    for out in (
        np.empty_like(x),
        np.empty((4, 200), dtype=dtype)[:, ::2],
        np.empty((100, 4), dtype=dtype).T,
        np.empty(801 * x.itemsize, dtype=np.uint8)[1 : 1 + x.nbytes].view(dtype).reshape(x.shape),
    ):
        assert impl.filter_logits(x, out=out, **parameters) is out
        np.testing.assert_array_equal(out, want)
    same = x.copy()
    assert impl.filter_logits(same, out=same, **parameters) is same
    np.testing.assert_array_equal(same, want)
    overlap = np.concatenate([x, x[:1]])
    impl.filter_logits(overlap[:-1], out=overlap[1:], **parameters)
    np.testing.assert_array_equal(overlap[1:], want)
