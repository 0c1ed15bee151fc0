"""Nuclei from one token to nearly the whole vocabulary: what a full sort of the row would keep."""

import numpy as np
import pytest

from tests.oracles import Uniforms

LAST = 1 - 2**-53
INF = np.inf
N = 50_000


def weights(x, temperature=1.0):
    d = x.astype(np.float64)
    return np.exp((d - d.max()) / temperature)


def nucleus(x, p, temperature=1.0):
    """Return the ids that top_p keeps, in index order, by a stable sort; and their weights."""
    w = weights(x, temperature)
    order = np.argsort(-x.astype(np.float64), kind="stable")
    mass = np.cumsum(w[order])
    goal = p * mass[-1] * (1 - 4 * np.finfo(x.dtype).eps)
    ids = np.sort(order[: np.searchsorted(mass, goal) + 1])
    return ids, w[ids]


def check(impl, x, p, temperature=1.0):
    """Compare what is kept, in place, too, and what some uniforms draw, with `nucleus`."""
    ids, w = nucleus(x, p, temperature)
    parameters = {"top_p": p, "temperature": temperature}
    y = impl.filter_logits(x, **parameters)
    np.testing.assert_array_equal(np.flatnonzero(y > -INF), ids)
    if temperature == 1:
        np.testing.assert_array_equal(y[ids], x[ids])
    in_place = x.copy()
    impl.filter_logits(in_place, out=in_place, **parameters)
    np.testing.assert_array_equal(in_place, y)
    ends = np.cumsum(w)
    some = np.random.default_rng(ids.size).choice(ids.size, 3)
    some = np.concatenate([some, [0, ids.size - 1]])
    starts = ends[some] - w[some]
    for u, want in zip((starts + ends[some]) / 2 / ends[-1], ids[some], strict=True):
        assert impl.sample(x, rng=Uniforms([u]), **parameters) == want
    for u, want in ((0, ids[0]), (LAST, ids[-1])):
        assert impl.sample(x, rng=Uniforms([u]), **parameters) == want


def rows():
    g = np.random.default_rng(5)
    normal = g.standard_normal(N)
    place = np.arange(N)
    return {
        "narrow": 1e-4 * normal,
        "normal": normal,
        "wide": 3 * normal,
        "ascending": np.sort(normal),
        "descending": -np.sort(normal),
        "periodic": np.tile(g.standard_normal(32), N // 32 + 1)[:N],
        "half of them -inf": np.where(g.random(N) < 0.5, -INF, normal),
        "one large": np.where(place == N // 3, 6.0, 0.1 * normal),
        "a few large": np.where(g.random(N) < 0.002, 5.0, 0) + 0.1 * normal,
        "on all scales": -np.exp(20 * normal),
        "far from 0": normal + 1000,
    }


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", rows())
def test_rows_of_every_kind(impl, name, dtype):
    x = rows()[name].astype(dtype)
    if impl.NAME == "reference":  # slow, and simple
        check(impl, x, 0.9)
        return
    for p in (0.05, 0.5, 0.9, 0.99, 0.9999):
        for temperature in (1.0, 2.5):
            check(impl, x, p, temperature)


@pytest.mark.slow_reference
@pytest.mark.parametrize("n", [199, 201, 511, 700, 3000, 5119, 5121])
@pytest.mark.parametrize("name", rows())
def test_shorter_rows_of_every_kind(impl, name, n):
    """As they are, far apart, and rounded: of few values, so that many equal the last one kept."""
    row = rows()[name][::7][:n]
    for x, dtype in ((row, "float32"), (row * 8, "float64"), (np.round(row * 2), "float32")):
        for p in (0.01, 0.5, 0.9, 0.9999):
            check(impl, x.astype(dtype), p)


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [2, 10, 60, 250, 260, 1000, 3000, 10_000, 30_000, 49_000])
def test_boundaries_of_every_size(impl, dtype, size):
    """A nucleus is complete just where its mass reaches top_p, and has one more just above it."""
    g = np.random.default_rng(size)
    w = np.sort(g.uniform(1, 2, N))[::-1] * np.where(np.arange(N) < size, 1, 0.5)
    x = np.log(w).astype(dtype)[g.permutation(N)]
    order = np.argsort(-x, kind="stable")
    mass = np.cumsum(weights(x)[order])
    p = mass[size - 1] / mass[-1] / (1 - 4 * np.finfo(dtype).eps)
    for off, kept in ((-1e-9, size), (1e-9, size + 1)):
        y = impl.filter_logits(x, top_p=p * (1 + off))
        np.testing.assert_array_equal(np.flatnonzero(y > -INF), np.sort(order[:kept]))
        assert impl.sample(x, top_p=p * (1 + off), rng=Uniforms([LAST])) == order[:kept].max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("levels", [1, 2, 3, 6])
def test_ties_across_the_cut(impl, dtype, levels):
    """The lower index wins, for any number of ties in the nucleus."""
    g = np.random.default_rng(levels)
    x = (-0.7 * g.integers(0, levels, N)).astype(dtype)
    order = np.argsort(-x, kind="stable")
    w = weights(x)[order]
    mass = np.cumsum(w)
    for size in (1, 2, 1000, 4097, 20_000, N - 1, N):
        p = (mass[size - 1] - w[size - 1] / 2) / mass[-1]
        y = impl.filter_logits(x, top_p=p)
        np.testing.assert_array_equal(np.flatnonzero(y > -INF), np.sort(order[:size]))
        if impl.NAME != "reference":
            check(impl, x, p)


def test_equal_weights_are_counted_exactly(impl):
    x = np.full(1 << 17, -3.7, np.float32)
    for kept in (1, 3, 1 << 10, 100_001, (1 << 17) - 1):
        for p, want in ((kept / x.size, kept), ((kept + 0.5) / x.size, kept + 1)):
            assert np.count_nonzero(impl.filter_logits(x, top_p=p) > -INF) == want
            assert impl.sample(x, top_p=p, rng=Uniforms([LAST])) == want - 1
            u = (want // 2 + 0.5) / want
            assert impl.sample(x, top_p=p, rng=Uniforms([u])) == want // 2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_rows(impl, dtype):
    """What a sample of the row says about the threshold is wrong for some of them."""
    g = np.random.default_rng(9)
    for _ in range(400 if impl.NAME != "reference" else 20):
        n = int(g.integers(4097, 12_000))
        x = (g.uniform(0.1, 2) * g.standard_normal(n)).astype(dtype)
        p = g.uniform(0.1, 0.99)
        ids, _ = nucleus(x, p)
        y = impl.filter_logits(x, top_p=p)
        np.testing.assert_array_equal(np.flatnonzero(y > -INF), ids)


def test_other_filters_and_reports(compiled, reference):
    x = np.random.default_rng(3).standard_normal((2, 9000)).astype(np.float32)
    for parameters in (
        {"top_p": 0.8, "min_keep": 5000},
        {"top_p": 0.8, "min_keep": 8000},
        {"top_p": 0.01, "min_keep": 300},
        {"top_p": 0.9, "min_p": 0.1},
        {"top_p": 0.9, "min_p": 0.99, "min_keep": 700},
        {"top_p": 0.7, "temperature": INF},
        {"top_p": [0.3, 0.9], "temperature": [2.0, 0.9]},
    ):
        got, want = compiled.support(x, **parameters), reference.support(x, **parameters)
        np.testing.assert_array_equal(got.indices, want.indices)
        np.testing.assert_allclose(got.probs, want.probs, rtol=1e-6)
        for size in (None, 5):
            got = compiled.sample_with_logprobs(x, size=size, rng=4, **parameters)
            want = reference.sample_with_logprobs(x, size=size, rng=4, **parameters)
            for a, b in zip(got, want, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5)
        np.testing.assert_array_equal(
            compiled.sample(x, rng=4, **parameters), reference.sample(x, rng=4, **parameters)
        )
