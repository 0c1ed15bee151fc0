"""A race draws every id as often as it should: the statistics of the inverse draw, and pairs."""

import numpy as np
import pytest
from scipy import stats

from tests.oracles import survivors
from tests.sampling.test_race import draw
from tests.sampling.test_statistics import ALPHA, chi_square, draws, few, flat, zipf

pytestmark = [pytest.mark.slow, pytest.mark.best_alone]

INF = np.inf


def of_uniforms(impl):
    """Return races, at positions by uniforms, as a sampler for the statistics."""

    def sample(rows, rng):
        position = (rng.random(len(rows)) * 2**53).astype(np.int64)
        return draw(impl, rows, position)

    return sample


def twin(flaw=""):
    """Return a race of NumPy's own numbers, exact but for its flaw."""

    def sample(rows, rng):
        n = rows.shape[1]
        rng = np.random.default_rng((rng.random(len(rows)) * 2**53).astype(np.int64))
        blocks = -(-n // 128)
        ids = np.empty(len(rows), np.int64)
        for i, row in enumerate(rows.astype(float)):
            u = rng.random((blocks, 1))
            if flaw == "words of 8 bits":
                u = (np.floor(u * 256) + 0.5) / 256
            least = -np.log(u) / (1 if flaw == "no maximum" else 128)
            place = rng.integers(0, 64 if flaw == "half the places" else 128, blocks)
            others = rng.exponential(size=(blocks, 128))
            others += 0 if flaw == "not held below" else least
            if flaw == "one number for all":
                others[:] = others[:, :1]
            others[np.arange(blocks), place] = least[:, 0]
            ids[i] = (row - np.log(others.reshape(-1)[:n])).argmax()
        return ids

    return sample


def sloping(sample, count):
    """Chi-square of 300 ids in three blocks, the last one short, by each id."""
    row = (np.random.default_rng(5).permutation(300) / 60).astype(np.float32)
    ids = draws(sample, row, np.random.default_rng(6).random(count))
    return chi_square(ids, np.arange(300), np.exp(row.astype(float)))


def test_statistics_of_the_inverse_draw(compiled):
    sample = of_uniforms(compiled)
    assert zipf(sample, 4000) > ALPHA
    assert flat(sample, 4000) > ALPHA


def test_each_id_of_some_blocks(impl):
    assert sloping(of_uniforms(impl), few(impl, 200_000, 2000)) > ALPHA


def test_the_statistics_accept_an_exact_race():
    assert zipf(twin(), 60) > ALPHA
    assert flat(twin(), 60) > ALPHA
    assert sloping(twin(), 10_000) > ALPHA


@pytest.mark.parametrize(
    "flaw", ["no maximum", "half the places", "not held below", "one number for all"]
)
def test_the_statistics_reject_a_biased_race(flaw):
    assert sloping(twin(flaw), 10_000) < ALPHA


def test_the_statistics_reject_coarse_words():
    assert flat(twin("words of 8 bits"), 60) < ALPHA


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0.6},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"top_k": 30, "top_p": 0.9},
    ],
    ids=str,
)
def test_frequencies_after_the_filters(impl, parameters):
    row = (np.random.default_rng(5).permutation(50) / 8).astype(np.float32)
    kept, weights = survivors(row, **parameters)
    p = np.zeros(50)
    p[kept] = weights
    ids = draw(impl, row, 1, size=few(impl, 100_000, 1000), **parameters)
    assert chi_square(ids, np.arange(50), p) > ALPHA


def test_pairs_without_replacement_are_as_likely_as_they_should_be(impl):
    """Of four ids in two blocks: the second is from what the first left, renormalised."""
    row = np.full(200, -INF, np.float32)
    where, p = np.array([3, 60, 130, 199]), np.array([0.1, 0.2, 0.3, 0.4])
    row[where] = np.log(p)
    rows = np.broadcast_to(row, (few(impl, 100_000, 1000), 200))
    ids = draw(impl, rows, np.arange(len(rows)), size=2, replace=False)
    first, second = np.searchsorted(where, ids).T
    exact = p[:, None] * p / (1 - p)[:, None]
    np.fill_diagonal(exact, 0)
    assert chi_square(first * 4 + second, np.arange(16), exact.ravel()) > ALPHA


def test_neighbouring_seeds_positions_and_draws_are_independent(impl):
    count = few(impl, 40_000, 500)
    rows, i = np.zeros((count, 4), np.float32), np.arange(count)
    for ids in (
        draw(impl, rows, i),
        draw(impl, rows, 0, i),
        draw(impl, rows[0], 0, size=count),
        draw(impl, rows, i[::-1] * 128),
    ):
        pairs = np.bincount(ids[:-1] * 4 + ids[1:], minlength=16)
        assert stats.chisquare(pairs).pvalue > ALPHA
