"""Sampler draws each candidate as often as its probability says: fixed seeds, alpha 1e-6.

The statistic is also applied to samplers that are wrong in a known way, and must reject them.
"""

import numpy as np
import pytest
from scipy import stats

from fastsoftmax import Sampler
from fastsoftmax.steps import (
    XTC,
    FrequencyPenalty,
    MinP,
    Temperature,
    TopK,
    TopP,
    TypicalP,
)

pytestmark = [pytest.mark.slow, pytest.mark.best_alone]

ALPHA = 1e-6
DRAWS = 8000
ROW = (np.random.default_rng(5).permutation(300) / 25).astype(np.float32)
SAMPLERS = [
    Sampler(),
    Sampler(Temperature(0.7), TopK(30)),
    Sampler(FrequencyPenalty(1.0), TopK(40, "all"), TopP(0.9)),
    Sampler(TypicalP(0.6), MinP(0.1), Temperature(1.4)),
]
IDS = np.argsort(-ROW)[:6].repeat([1, 2, 3, 1, 2, 3])


class Uniforms(np.random.Generator):
    """A generator the uniforms of which are known beforehand."""

    def __init__(self, uniforms):
        super().__init__(np.random.PCG64(0))
        self.uniforms = np.asarray(uniforms, dtype=np.float64)

    def random(self, size=None, *args, **kwargs):
        return self.uniforms.reshape(size).copy()


def draw(sampler, rng):
    """Draw as often as the test needs, some rows at a time."""
    rows = np.broadcast_to(ROW, (1000, ROW.size))
    ids = [IDS] * len(rows)
    return np.concatenate([sampler(rows, ids, rng) for _ in range(DRAWS // len(rows))])


def p_value(ids, indices, probs):
    """Chi-square of the drawn ids; the least likely candidates are counted together."""
    if not np.isin(ids, indices).all():
        return 0.0  # impossible
    order = np.argsort(-probs)
    counts = np.bincount(ids, minlength=ROW.size)[indices][order]
    expected = probs[order] * len(ids)
    rare = max(int(np.searchsorted(-expected, -10)) - 1, 1)
    starts = np.arange(min(rare + 1, expected.size))
    sums = [np.add.reduceat(a, starts) for a in (counts, expected)]
    return stats.chisquare(*sums).pvalue


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_draws_follow_the_candidates(impl, sampler):
    if impl.NAME == "reference":
        pytest.skip("too slow for this many draws")
    ids = draw(sampler, np.random.default_rng(1))
    assert p_value(ids, *sampler.candidates(ROW, IDS)) > ALPHA


def biased(kept, wrong, rng):
    """Draw from candidates, wrongly."""
    ids, probs = kept
    weights = probs.copy()
    u = rng.random(DRAWS)
    if wrong == "8-bit uniforms":
        u = np.floor(u * 256) / 256
    if wrong == "a token short":
        weights[20] = 0
    if wrong == "flatter":
        weights **= 0.8
    order = np.argsort(ids)
    cumulative = np.cumsum(weights[order])
    at = np.searchsorted(cumulative, u * cumulative[-1], side="right")
    return ids[order][np.minimum(at + 1, ids.size - 1) if wrong == "off by one" else at]


@pytest.mark.parametrize("wrong", ["8-bit uniforms", "a token short", "flatter", "off by one"])
def test_the_statistic_rejects(wrong):
    kept = Sampler().candidates(ROW)
    assert p_value(biased(kept, None, np.random.default_rng(1)), *kept) > ALPHA
    assert p_value(biased(kept, wrong, np.random.default_rng(1)), *kept) < ALPHA


def test_the_statistic_rejects_another_sampler(impl):
    if impl.NAME == "reference":
        pytest.skip("too slow for this many draws")
    ids = draw(Sampler(Temperature(0.7), TopK(30)), np.random.default_rng(1))
    for other in (Sampler(Temperature(0.9), TopK(30)), Sampler(Temperature(0.7), TopK(29))):
        assert p_value(ids, *other.candidates(ROW)) < ALPHA


def test_uniforms_at_the_ends_and_between_two_tokens():
    row = np.array([-800.0, 0, -800, 0, -800])  # three of no weight
    for u, want in [(0.0, 1), (0.5 - 2**-54, 1), (0.5, 3), (1 - 2**-53, 3)]:
        assert Sampler()(row, rng=Uniforms([u])) == want
        assert Sampler(TopK(4))(row, rng=Uniforms([u])) == want


def test_xtc_runs_as_often_as_it_says():
    row = np.log(np.float32([0.4, 0.3, 0.2, 0.1]))
    sampler = Sampler(XTC(0.3, 0.15), Temperature(0))
    rows = np.broadcast_to(row, (5000, 4))
    removed = np.count_nonzero(sampler(rows, rng=2) == 2)
    assert stats.binomtest(removed, 5000, 0.3).pvalue > ALPHA
    assert stats.binomtest(removed, 5000, 0.35).pvalue < ALPHA
