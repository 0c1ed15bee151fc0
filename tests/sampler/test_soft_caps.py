"""Sampler: of scores that are capped first sums are nearly exact, and what is drawn is."""

import numpy as np
import pytest

from fastsoftmax import Sampler
from fastsoftmax.steps import (
    Epsilon,
    Eta,
    FrequencyPenalty,
    LogitBias,
    MinP,
    RepetitionPenalty,
    SoftCap,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
)
from tests.oracles import Uniforms
from tests.sampler import test_compiled
from tests.sampler.test_compiled import hard_row, outcome
from tests.sampler.test_draws import readable

SLOW = pytest.mark.slow
EPS = 2.0**-23  # what logits of float32 are off by, of which `TopP` leaves four out


@pytest.fixture
def impl(compiled):
    """Each implementation that has kernels: the readable chain is compared with it."""
    return compiled


@pytest.fixture
def row():
    return np.tile(hard_row(5000, "float32"), (4, 1))


CAPPED = [
    [TopK(20)], [Temperature(0.6)], [LogitBias({3: -9.0, 7: 2.0}), Temperature(0.7), TopK(9)],
    [TopP(0.3)], [Temperature(0.8), TopNSigma(1.0)], [RepetitionPenalty(1.3), Epsilon(0.001, 3)],
    [TopK(3, "all"), MinP(0.3)], [MinP(0.5)], [Temperature(0.5), TypicalP(0.4)], [Eta(0.002)],
    [FrequencyPenalty(-0.5), TopP(0.2, 30), TopK(9, "all")],
    [Temperature(2), SoftCap(3), TopP(0.1)],
]  # fmt: skip


@pytest.mark.parametrize("cap", [0.1, 3.0, pytest.param(30.0, marks=SLOW)])
@pytest.mark.parametrize(
    "steps", [*CAPPED[:6], *(pytest.param(s, marks=SLOW) for s in CAPPED[6:])], ids=range(12)
)
def test_scores_that_are_capped_first(row, cap, steps):
    """Many of them become equal where the cap is low: then the lower id wins."""
    chain, ids = Sampler(SoftCap(cap), *steps), [[3, 3, 9, 70, *range(i)] for i in range(4)]
    assert outcome(chain, row, ids) == test_compiled.readable(chain, row, ids)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cap", [0.01, 3.0, 30.0])
def test_a_race_of_scores_that_are_capped(row, cap, dtype, masked):
    """It is that of all candidates, though few blocks are looked into."""
    x, ids = row.astype(dtype) * 3, [[3, 3, 9, 70, *range(i)] for i in range(4)]
    mask = np.random.default_rng(3).random(row.shape) < 0.5 if masked else None
    for steps in (
        [SoftCap(cap)],
        [SoftCap(cap), Temperature(0.3)],
        [Temperature(0.7), SoftCap(cap), Temperature(2.0), SoftCap(cap * 2)],
        [RepetitionPenalty(1.3), SoftCap(cap), LogitBias({5: 2.0, 70: -1.0})],
    ):
        for seed in range(4):
            keys = {"mask": mask, "method": "race", "seed": seed, "position": np.arange(4)}
            chain = Sampler(*steps)
            want = readable(lambda c=chain, k=keys: c(x, ids, logprobs=1, **k))
            assert chain(x, ids, **keys).tolist() == want.ids.tolist()
            got = chain(x, ids, logprobs=1, **keys)
            assert got.ids.tolist() == want.ids.tolist()
            np.testing.assert_allclose(got.filtered_logprobs, want.filtered_logprobs, rtol=1e-6)


CAP, T = 10.0, 0.7
LISTED = TopP(1.0)  # keeps all, but what is behind it has the whole row as a list


@pytest.fixture
def peaked():
    """A row of some likely tokens, and their scores and weights in a chain."""
    x = np.random.default_rng(8).normal(-4, 1, 5000).astype(np.float32)
    x[700:1200:100] = [8.0, 7.0, 6.5, 6.0, 5.5]
    scores = CAP * np.tanh(x.astype(float) / CAP) / T
    return x[None], scores, np.exp(scores - scores.max())


@pytest.mark.parametrize(
    "step", [TopP, Epsilon, TopNSigma, TypicalP, pytest.param(Eta, marks=SLOW)]
)
def test_bounds_that_are_next_to_a_score(peaked, step):
    """What nearly exact sums cannot tell for sure is told by the listed scores' own."""
    x, scores, weights = peaked
    third, p = np.argsort(-scores)[2], weights / weights.sum()
    typical = np.argsort(np.abs(p @ np.log(p) - np.log(p)))
    value = {
        TopP: p[[700, 800, 900]].sum() / (1 - 4 * EPS),
        Epsilon: p[third],
        TopNSigma: (scores.max() - scores[third]) / scores.std(),
        TypicalP: p[typical[:3]].sum() / (1 - 4 * EPS),
        Eta: (p[third] * np.exp(-p @ np.log(p))) ** 2,
    }[step]
    capped, sizes = (SoftCap(CAP), Temperature(T)), set()
    for d in (-1e-8, *(2.0**-53 * np.arange(-64, 64)), 1e-8):
        cut = step(value * (1 + d))
        got = Sampler(*capped, cut).filter(x)
        assert got.tobytes() == Sampler(*capped, LISTED, cut).filter(x).tobytes()
        sizes.add(np.isfinite(got).sum())
    assert len(sizes) == 2


def test_uniforms_that_are_next_to_the_end_of_a_token(peaked):
    x, _, weights = peaked
    capped = SoftCap(CAP), Temperature(T)
    end = weights[:901].sum() / weights.sum()
    drawn = [
        [Sampler(*steps)(x, rng=Uniforms([end + d]))[0] for d in (-4e-13, -4e-14, 4e-14, 4e-13)]
        for steps in (capped, (*capped, LISTED))
    ]
    assert drawn[0] == drawn[1] == [900, 900, 901, 901]
