"""Draws and nuclei of float32 rows: sums in float32 come first, and must never decide too much."""

import numpy as np
import pytest

from tests.oracles import Uniforms

N = 20_000
EPS = 4 * np.finfo(np.float32).eps  # that top_p allows


def rows():
    g = np.random.default_rng(5)
    normal = g.standard_normal(N).astype(np.float32)
    return {
        "flat": np.zeros(N, np.float32),
        "normal": normal,
        "peaked": 4 * normal,
        "far from 0": normal + np.float32(1000),
        "one large": np.where(np.arange(N) == N // 3, np.float32(9), np.float32(0)),
        "mostly -inf": np.where(g.random(N) < 0.9, -np.inf, normal).astype(np.float32),
        "wide": np.linspace(-3e38, 3e38, N, dtype=np.float32),
    }


def weights(x, temperature):
    d = x.astype(np.float64)
    return np.exp((d - d.max()) / temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.8, 3.0, 1e-35, 1e35])
@pytest.mark.parametrize("name", rows())
def test_draws_close_to_where_two_tokens_meet(compiled, name, temperature):
    x = rows()[name]
    w = weights(x, temperature)
    ends = np.cumsum(w) / w.sum()
    places = np.random.default_rng(6).choice(N, 20, p=w / w.sum())
    for off in (1e-10, 1e-9, 1e-8, 1e-7):
        us = np.concatenate([ends[places] - off, ends[places] + off])
        us = us[(us >= 0) & (us < 1)]
        drawn = [compiled.sample(x, temperature=temperature, rng=Uniforms([u])) for u in us]
        np.testing.assert_array_equal(drawn, np.searchsorted(ends, us, side="right"))


@pytest.mark.slow_reference
@pytest.mark.parametrize("temperature", [1.0, 0.8, 3.0])
@pytest.mark.parametrize("name", ["normal", "peaked", "far from 0", "mostly -inf"])
def test_nuclei_close_to_where_a_token_enters(impl, name, temperature):
    x = rows()[name]
    w = np.sort(weights(x, temperature))[::-1]
    masses = np.cumsum(w) / w.sum()
    for size in (1, 2, 5, 30, 100, 250, 260, 2000):
        for off in (1e-10, 1e-9, 1e-8, 1e-7):
            for p, count in (((1 - off), size), ((1 + off), size + 1)):
                p *= masses[size - 1] / (1 - EPS)
                if p < 1 and w[size] > 1e-6 * w.sum():  # no near ties in the reference's own sums
                    got = impl.support(x, temperature=temperature, top_p=p).counts
                    assert got == count, (size, off)


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nuclei_of_every_size(impl, dtype):
    # A few hundred candidates, thousands, what is heavy enough, all: each way is taken.
    n = 150_000
    normal = np.random.default_rng(8).standard_normal(n)
    for sigma in (0.0, 0.5, 1, 2, 3, 4, 6):
        x = (sigma * normal).astype(dtype)
        w = weights(x, 1.0)
        order = np.argsort(-x, kind="stable")
        masses = np.cumsum(w[order]) / w.sum()
        for p in (0.3, 0.9, 0.95, 0.999):
            kept = np.searchsorted(masses, p * (1 - 4 * np.finfo(dtype).eps)) + 1
            y = impl.filter_logits(x, top_p=p)
            got = np.flatnonzero(y > -np.inf)
            np.testing.assert_array_equal(got, np.sort(order[:kept]), err_msg=f"{sigma} {p}")


@pytest.mark.parametrize("seed", [4, 62, 172, 179, 197])
def test_few_numbers_whose_sums_are_rounded_alike(impl, seed):
    # The roundings of sums of four add up, where weights repeat: nor are they those of other fours.
    g = np.random.default_rng(seed)
    n, k = int(g.choice([4096, 5000, 8191])), int(g.integers(2, 4))
    values = np.cumsum(g.integers(1, 10, k)).astype(np.float32)
    p = g.random(k)
    x = g.choice(values, n, p=p / p.sum()).astype(np.float32)
    top_p = 1 - 10 ** -g.uniform(1, 8)
    masses = np.cumsum(np.sort(weights(x, 1.0))[::-1].astype(np.longdouble))
    kept = np.searchsorted(masses, top_p * (1 - float(EPS)) * masses[-1]) + 1
    assert impl.support(x, top_p=top_p).counts == kept
