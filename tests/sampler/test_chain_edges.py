"""Sampler: what single steps and chains do at their edges, by hand; rows whose best are named."""

import numpy as np
import pytest

from fastsoftmax import Sampler, sample, token_logprobs
from fastsoftmax._sampler import program
from fastsoftmax.steps import (
    DRY,
    BadWords,
    FrequencyPenalty,
    LogitBias,
    MinLength,
    RepetitionPenalty,
    SequenceBias,
    SuppressTokens,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
)
from tests.sampler.test_compiled import hard_row, outcome, readable

SEEDS = {"seed": 7, "position": np.arange(4)}
SLOW = pytest.mark.slow
X = np.arange(8, dtype=np.float64)


@pytest.fixture
def impl(compiled):
    """Each implementation that has kernels: the readable chain is compared with it."""
    return compiled


def changes(step, ids, prompt=0):
    """Return what a step adds to the scores of which tokens."""
    scores = Sampler(step).filter(X, ids, prompt=prompt)
    return {i: float(d) for i, d in enumerate(scores - X) if d}


@pytest.mark.parametrize(
    ("step", "ids", "prompt", "want"),
    [
        (MinLength(3, [5]), [1, 2, 3, 4], 2, {5: -np.inf}),
        (MinLength(3, [5]), [1, 2, 3, 4], 1, {}),
        (MinLength(3, [5], prompt=True), [1, 2], 2, {5: -np.inf}),
        (MinLength(3, [5], prompt=True), [1, 2, 3], 3, {}),
        (BadWords([[1, 2], [6]], prompt=False), [0, 1], 2, {6: -np.inf}),
        (BadWords([[1, 2], [6]], prompt=False), [0, 1], 1, {2: -np.inf, 6: -np.inf}),
        (BadWords([[1, 2]]), [0, 1], 2, {2: -np.inf}),
        (SequenceBias({(1, 2): 1.0, (3, 2): 8.0, (2,): 4.0}), [0, 1], 0, {2: 5.0}),
        (DRY(1.0, 2.0, 1), [1, 2, 3, 1, 2], 0, {3: -2.0}),
        (DRY(1.0, 2.0, 1, exempt=[3]), [1, 2, 3, 1, 2], 0, {}),
        (DRY(1.0, 2.0, 1, breakers=[[3]]), [1, 2, 3, 1, 2], 0, {}),
        (DRY(2.0**-30, 2.0, 1), [4, *range(4)] * 9, 0, {4: -(2.0 ** (39 - 30))}),
    ],
    ids=range(12),
)
def test_what_a_step_does_to_which_tokens(step, ids, prompt, want, monkeypatch):
    assert changes(step, ids, prompt) == want
    monkeypatch.setattr(program, "chains", None)
    assert changes(step, ids, prompt) == want


def test_ties_of_each_row_are_its_own():
    left = Sampler(TopK(2, ["all", "index", "all"])).filter([[1.0, 3.0, 3.0, 3.0]] * 3)
    assert np.isfinite(left).sum(-1).tolist() == [3, 2, 3]


@pytest.fixture
def row():
    return np.tile(hard_row(5000, "float32"), (4, 1))


@pytest.mark.parametrize(
    ("bias", "after"),
    [(-2000.0, []), (-2000.0, [TopP(0.9)]), (-2000.0, [Temperature(0.8), TopNSigma(1.0)])]
    + [pytest.param(b, s, marks=SLOW) for b in (-30.0, 2000.0) for s in ([], [TopP(0.9)])],
)
def test_rows_all_whose_best_are_named(row, bias, after):
    best = np.argsort(-row[0])[: 64 + 6]
    chain = Sampler(LogitBias({int(i): bias for i in [0, *best]}), *after)
    assert outcome(chain, row) == readable(chain, row)


@pytest.mark.parametrize("n", [1.5, 1.9, 2.1])
def test_deviations_are_of_what_is_not_removed(row, n):
    row[:, ::3] = -np.inf
    chain = Sampler(TopNSigma(n))
    assert outcome(chain, row) == readable(chain, row)
    assert 20 < np.isfinite(chain.filter(row[0])).sum() < 500


def test_blocks_that_a_mask_shuts_have_no_part_in_a_draw(row):
    """Whatever the row before has left in their places."""
    mask, ids = np.arange(5000) >= 4096, [[3, 9, 4500]] * 4
    chain = Sampler(RepetitionPenalty(1.5), Temperature(1.5))
    got = chain(row, ids, mask=np.tile(mask, (2, 1)), mask_rows=[1, 3], **SEEDS)
    row[[1, 3], :4096] = -np.inf
    assert got.tolist() == chain(row, ids, **SEEDS).tolist()


NAMED = [
    [RepetitionPenalty(1.5), Temperature(0.7)],
    [Temperature(1.5), FrequencyPenalty(-0.5), LogitBias({3: 6.0}), SuppressTokens([9, 4])],
    [LogitBias(dict.fromkeys(range(200), -2.0)), Temperature(2.0), Temperature(0.25)],
    [SuppressTokens(range(4990)), Temperature(1.5)],
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("steps", NAMED, ids=range(len(NAMED)))
def test_a_race_beside_the_tokens_that_are_named(row, steps, masked):
    """It is that of all candidates."""
    mask = np.random.default_rng(3).random(row.shape) < 0.5 if masked else None
    ids = [[3, 3, 9, 70, *range(i)] for i in range(4)]
    chain = Sampler(*steps)
    left = chain.filter(row.astype("f8"), ids, mask=mask)
    want = sample(left, method="race", **SEEDS)
    assert chain(row, ids, mask=mask, method="race", **SEEDS).tolist() == want.tolist()
    report = chain(row, ids, mask=mask, method="race", logprobs=1, **SEEDS)
    assert report.ids.tolist() == want.tolist()
    logprobs = token_logprobs(left, want)
    np.testing.assert_allclose(report.filtered_logprobs, logprobs, rtol=1e-5)
