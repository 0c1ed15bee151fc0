"""Nuclei of rows whose mass few blocks hold: coarse sums bound the total, and must not decide more
than they can."""

import numpy as np
import pytest

from tests.oracles import Uniforms

INF = np.inf
N = 8192
LN2 = np.log(2)


def nucleus(x, p, temperature=1.0):
    """Return the ids that top_p keeps, in index order, by a stable sort; and their weights."""
    d = x.astype(np.float64)
    w = np.exp((d - d.max()) / temperature)
    order = np.argsort(-d, kind="stable")
    mass = np.cumsum(w[order])
    goal = p * mass[-1] * (1 - 4 * np.finfo(x.dtype).eps)
    ids = np.sort(order[: np.searchsorted(mass, goal) + 1])
    return ids, w[ids]


def check(impl, x, p, temperature=1.0):
    """Compare what is kept, and drawn, with `nucleus`."""
    ids, w = nucleus(x, p, temperature)
    y = impl.filter_logits(x, top_p=p, temperature=temperature)
    np.testing.assert_array_equal(np.flatnonzero(y > -INF), ids)
    i = ids.size // 2
    u = (w[:i].sum() + w[i] / 2) / w.sum()
    assert impl.sample(x, top_p=p, temperature=temperature, rng=Uniforms([u])) == ids[i]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("blocks", "depth"), [(4, 9), (30, 9), (60, 5)])  # 60: of degree 4
def test_tails_that_are_all_off_alike(compiled, blocks, depth, dtype):
    """A tail of equal logits is off as far as its polynomial may be, and a token enters there."""
    g = np.random.default_rng(blocks)
    for part in (-0.5, -0.405, -0.36, -0.155, 0, 0.155, 0.36, 0.405, 0.5):  # of a power of 2
        x = np.full(N, (part - depth) * LN2, dtype)
        heavy = g.choice(N // 256, blocks // 2, replace=False)[:, None] * 256 + np.arange(2)
        x[heavy.ravel()] = -np.linspace(0, 0.5, blocks)
        mass = np.cumsum(np.sort(np.exp(x.astype(np.float64)))[::-1])
        rest = (mass[-1] - mass[blocks - 1]) / mass[-1]
        size = blocks * 3 // 4
        for off in (3e-7, 2.2e-6, 1e-5, 6e-5):
            for sign in (-1, 1):
                p = mass[size - 1] / mass[-1] * (1 + sign * off * rest)
                p /= 1 - 4 * np.finfo(dtype).eps
                kept = np.count_nonzero(compiled.filter_logits(x, top_p=p) > -INF)
                assert kept == size + (sign > 0), (part, off, sign)


def rows(g, n):
    """Rows of which few elements have most of the mass, or a good part of it."""
    normal = g.standard_normal(n)
    place = np.arange(n)
    clustered = np.where(place < n // 50, 3, 0) + 2 * normal
    return [
        g.uniform(2, 8) * normal,
        np.sort(4 * normal),
        -np.sort(4 * normal),
        clustered,
        np.where(g.random(n) < 0.5, -INF, 4 * normal),
        -g.uniform(1, 2) * np.log(g.permutation(n) + 1),
        np.round(3 * normal),
        np.where(place == n - 1, 12, normal),
        4 * normal + g.choice([-1, 1]) * 10 ** g.uniform(1, 6),
        np.where(place % 97 == 5, normal, -INF),
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_few_elements_rule(compiled, dtype):
    g = np.random.default_rng(3)
    for n in (4095, 4096, 4352, 5000, 8191, 20_000):
        for x in rows(g, n):
            x = x.astype(dtype)
            p = g.choice([0.01, 0.3, 0.5, 0.9, 0.95, 0.99])
            check(compiled, x, p, g.choice([1, g.uniform(0.2, 1.5)]))


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_rows_that_few_elements_rule(compiled, dtype):
    g = np.random.default_rng(4)
    for _ in range(40):
        for x in rows(g, int(10 ** g.uniform(3.62, 5.3))):
            check(compiled, x.astype(dtype), g.uniform(0, 1) ** 0.2, 10 ** g.uniform(-2, 0.5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tokens_that_enter_a_long_list(compiled, dtype):
    """Boundaries everywhere in nuclei of up to a thousand tokens."""
    g = np.random.default_rng(5)
    x = (3.2 * g.standard_normal(40_000)).astype(dtype)
    w = np.sort(np.exp(x.astype(np.float64) - x.max()))[::-1]
    mass = np.cumsum(w) / w.sum()
    for size in np.unique(np.geomspace(1, 1200, 40).astype(int)):
        for off in (-1e-8, 1e-8):
            p = mass[size - 1] * (1 + off) / (1 - 4 * np.finfo(dtype).eps)
            kept = np.count_nonzero(compiled.filter_logits(x, top_p=p) > -INF)
            assert kept == size + (off > 0), (size, off)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0, 1e-320, 1e-9, 0.3, 0.5])
def test_many_equal_maxima(compiled, p, dtype):
    g = np.random.default_rng(7)
    for high in (1, 40, 60, 200, 5000, 9000):
        x = np.zeros(9000, dtype)
        x[g.choice(9000, high, replace=False)] = 7
        check(compiled, x, p)


def test_temperatures_far_from_1(compiled):
    x = np.random.default_rng(6).standard_normal(9000).astype(np.float32)
    for scale in (1e-20, 1e-3, 1e3, 1e20, 1e32):
        for ratio in (0.2, 0.3, 1):
            y = (x * scale).astype(np.float32)
            check(compiled, y, 0.9, float(np.float32(scale)) * ratio)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 5, 50, 78, 79, 400, 6000])
def test_masks(compiled, count, dtype):
    """What is shut is as if it were -inf: few ids, which are listed, and many."""
    g = np.random.default_rng(count)
    n = 20_000
    x = (3 * g.standard_normal((3, n))).astype(dtype)
    mask = np.zeros((3, n), bool)
    for row in mask:
        row[g.choice(n, count, replace=False)] = True
    shut = np.where(mask, x, -INF).astype(dtype)
    for filters in ({"top_p": 0.9}, {"top_p": 0.5, "min_p": 0.01}, {"top_p": 0.2, "min_keep": 3}):
        got = compiled.filter_logits(x, mask=mask, **filters)
        want = compiled.filter_logits(shut, **filters)
        np.testing.assert_array_equal(got, want)
        ids = compiled.sample(x, mask=mask, rng=1, **filters)
        np.testing.assert_array_equal(ids, compiled.sample(shut, rng=1, **filters))
        if filters == {"top_p": 0.9} and dtype != "float16":
            for row, y in zip(shut, got, strict=True):
                np.testing.assert_array_equal(np.flatnonzero(y > -INF), nucleus(row, 0.9)[0])
