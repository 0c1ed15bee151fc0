"""Every id comes as often as it should: fixed seeds, alpha 1e-6.

Each statistic is also applied to samplers with a known bias, and must reject them. A generator's
own uniforms are used where many draws are cheap; for what is rare, uniforms from the place where it
happens.
"""

import numpy as np
import pytest
from scipy import stats

from tests.oracles import Uniforms, survivors

pytestmark = [pytest.mark.slow, pytest.mark.best_alone]

ALPHA = 1e-6
LAST = 1 - 2**-53
VOCABULARY = 152_000


def draws(sample, row, uniforms):
    """Return the id that each uniform draws, some rows at a time."""
    step = max(1, (1 << 22) // row.size)
    parts = [uniforms[i : i + step] for i in range(0, len(uniforms), step)]
    rows = [np.broadcast_to(row, (len(u), row.size)) for u in parts]
    pairs = zip(rows, parts, strict=True)
    return np.concatenate([sample(r, rng=Uniforms(u)) for r, u in pairs])


# ---- samplers with a bias: the statistics must reject them ---------------------------------------


def biased(uniform=lambda u: u, dtype=np.float64, side="right", shift=0):
    """Return a sampler without filters that is right but for its arguments."""

    def sample(rows, rng):
        weights = np.exp(rows[0].astype(np.float64) - rows[0].max()).astype(dtype)
        cumulative = np.cumsum(weights, dtype=dtype).astype(np.float64)
        at = uniform(rng.random(len(rows))) * cumulative[-1]
        ids = np.searchsorted(cumulative, at, side=side) + shift
        return np.minimum(ids, rows.shape[1] - 1)

    return sample


def to_bits(bits):
    return lambda u: np.floor(u * 2**bits) / 2**bits


EXACT = biased()
COARSE = biased(to_bits(16))  # uniforms with 16 bits
FLOAT32 = biased(to_bits(24))  # uniforms of a float32
REACHED = biased(side="left")  # where the sum reaches u, not where it exceeds it
NEXT = biased(shift=1)  # off by one
HALF = biased(dtype=np.float16)  # weights and sums in float16


def EVEN(rows, rng):  # noqa: N802
    """Half the vocabulary is unreachable."""
    return EXACT(rows, rng) // 2 * 2


def from_table(look_up):
    """Return a sampler of many draws that looks uniforms up in the weights of a row's survivors."""

    def sample(row, size, rng, **parameters):
        ids, kept = survivors(row, **parameters)
        weights = np.zeros(row.size)
        weights[ids] = kept
        return np.minimum(look_up(weights, rng.random(size)), row.size - 1)

    return sample


def exactly(weights, u):
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, u * cumulative[-1], side="right")


def unscaled(weights, u):
    """The sum of probabilities in float32 ends somewhat below 1, and u lies behind it."""
    p = (weights / weights.sum()).astype(np.float32)
    return np.searchsorted(np.cumsum(p).astype(float), u, side="right")


def leaking(weights, u):
    """One draw in a million is from the whole row."""
    leak = np.random.default_rng(0).random(u.size) < 1e-6
    return np.where(leak, (u * weights.size).astype(int), exactly(weights, u))


def halved(weights, u):
    """Every other survivor is unreachable."""
    ids = np.flatnonzero(weights)
    return ids[np.searchsorted(ids, exactly(weights, u)) // 2 * 2]


# ---- the statistics ------------------------------------------------------------------------------


def chi_square(ids, groups, probability):
    """Return the p-value of the numbers of ids in each group; rare groups join their neighbours."""
    expected = np.bincount(groups, weights=probability) / probability.sum() * len(ids)
    counts = np.bincount(groups[ids], minlength=expected.size)
    if counts[expected == 0].any():
        return 0.0  # impossible
    counts, expected = counts[expected > 0], expected[expected > 0]
    starts = [0]
    for i in range(expected.size):
        if expected[starts[-1] : i].sum() >= 5 and expected[i:].sum() >= 5:
            starts.append(i)
    assert len(starts) > 2, "too few draws"
    counts, expected = np.add.reduceat(counts, starts), np.add.reduceat(expected, starts)
    return stats.chisquare(counts, expected).pvalue


def zipf(sample, count):
    """Chi-square of a row of 151,936 with probabilities 1/rank, in groups of doubling ranks."""
    rank = np.arange(1, 151_937)
    row = -np.log(rank).astype(np.float32)
    uniforms = np.random.default_rng(1).random(count)
    return chi_square(draws(sample, row, uniforms), np.log2(rank).astype(int), 1 / rank)


def flat(sample, count):
    """Chi-square of a flat vocabulary, by the index's remainder and by its place."""
    row = np.zeros(VOCABULARY, dtype=np.float32)
    ids = draws(sample, row, np.random.default_rng(2).random(count))
    i, ones = np.arange(VOCABULARY), np.ones(VOCABULARY)
    cells = 16 if count > 1000 else 4
    return min(chi_square(ids, i % cells, ones), chi_square(ids, i * cells // VOCABULARY, ones))


def tail(sample, count):
    """Chi-square of ids 18 to 20 nats below the likeliest, with uniforms that lie in their share.

    Their probabilities are 2e-9 to 2e-8: out of reach of plain draws, and of coarse uniforms.
    """
    gaps = np.repeat([0.0, 18, 18.5, 19, 19.5, 20], [1, 10, 10, 10, 10, 10])
    weights = np.exp(-gaps)
    share = weights[1:].sum() / weights.sum()
    uniforms = np.minimum(1 - share * (1 - np.random.default_rng(3).random(count)), LAST)
    ids = draws(sample, -gaps.astype(np.float32), uniforms)
    return chi_square(ids, np.arange(gaps.size), np.where(gaps > 0, weights, 0))


def reached(sample, n=VOCABULARY):
    """Tell whether ids of a flat vocabulary are drawn by the middle of their share of [0, 1).

    The ids have every remainder to 1024 and lie in every stretch of 150.
    """
    ids = np.arange(1100) * 997 % n if n > 4000 else np.arange(n)
    middles = (ids + 0.5) / n
    return (draws(sample, np.zeros(n, dtype=np.float32), middles) == ids).all()


def ends(sample):
    """Tell whether u at either end of [0, 1) draws the first and the last id with a weight."""
    rng = np.random.default_rng(4)
    for n in (2, 5, 40, 1000, 3001):
        row = rng.normal(size=n).astype(np.float32)
        row[: n // 3] = row[n - n // 3 :] = -np.inf
        first, *_, last = [*np.flatnonzero(row > -np.inf)] * 2
        if draws(sample, row, np.array([0, LAST])).tolist() != [first, last]:
            return False
    return True


def in_support(sample, count):
    """Return whether all draws are survivors, and whether each is drawn that must have been.

    That is one whose expected number is 30 or more.
    """
    row = np.random.default_rng(9).normal(size=20_000).astype(np.float32) * 2
    row[:3000] = row[-3000:] = -np.inf
    rng = np.random.default_rng(10)
    stays, reaches = True, True
    for parameters in (
        {},
        {"top_k": 300},
        {"top_p": 0.9},
        {"min_p": 0.01, "temperature": 1.5},
        {"top_k": 1000, "top_p": 0.8, "temperature": 2.0},
    ):
        ids, weights = survivors(row, **parameters)
        drawn = np.bincount(sample(row, size=count // 5, rng=rng, **parameters), minlength=row.size)
        stays &= drawn[ids].sum() == count // 5
        reaches &= drawn[ids][weights / weights.sum() * (count // 5) >= 30].all()
    return stays, reaches


# ---- applied -------------------------------------------------------------------------------------


def few(impl, count, fewer):
    return fewer if impl.NAME == "reference" else count  # it sorts the vocabulary for each draw


def test_zipf_of_a_large_vocabulary(impl):
    assert zipf(impl.sample, few(impl, 1500, 60)) > ALPHA


def test_flat_large_vocabulary(impl):
    assert flat(impl.sample, few(impl, 1500, 60)) > ALPHA


def test_tail_18_to_20_nats_down(impl):
    assert tail(impl.sample, few(impl, 20_000, 4000)) > ALPHA


def test_every_id_of_a_flat_vocabulary_is_reached(impl):
    assert reached(impl.sample, 2500 if impl.NAME == "reference" else VOCABULARY)
    assert reached(impl.sample, 1000)


def test_uniforms_at_both_ends(impl):
    assert ends(impl.sample)


def test_ten_million_draws_are_survivors(impl):
    assert in_support(impl.sample, few(impl, 10_000_000, 1_000_000)) == (True, True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 2.0},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"top_k": 30, "top_p": 0.9, "min_p": 0.03, "temperature": 1.4},
    ],
    ids=str,
)
def test_frequencies_after_the_filters(impl, parameters, dtype):
    """Chi-square over the ids, against probabilities worked out here."""
    row = (np.random.default_rng(5).permutation(50) / 8).astype(dtype)
    order = np.argsort(-row)
    p = np.exp(row.astype(np.float64) / parameters.get("temperature", 1))
    p[order[parameters.get("top_k", 50) :]] = 0
    p /= p.sum()
    reached_at = np.searchsorted(np.cumsum(p[order]), parameters.get("top_p", 2.0))
    p[order[reached_at + 1 :]] = 0
    p[p < parameters.get("min_p", 0) * p.max()] = 0
    ids = impl.sample(row, size=20_000, rng=6, **parameters)
    assert (p[ids] > 0).all()
    assert chi_square(ids, np.arange(50), p) > ALPHA


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_rows_of_a_batch_are_independent(impl, rows):
    """Two neighbouring draws fall into each pair of ids equally often."""
    rng = np.random.default_rng(8)
    calls = -(-few(impl, 20_000, 3000) // rows) if rows > 1 else 2000
    x = np.zeros((rows, 4), dtype=np.float32)
    ids = np.concatenate([impl.sample(x, rng=rng) for _ in range(calls)])
    pairs = np.bincount(ids[:-1] * 4 + ids[1:], minlength=16)
    assert stats.chisquare(pairs).pvalue > ALPHA


def test_the_statistics_accept_an_exact_sampler():
    assert zipf(EXACT, 1500) > ALPHA
    assert flat(EXACT, 1500) > ALPHA
    assert tail(EXACT, 20_000) > ALPHA
    assert reached(EXACT)
    assert ends(EXACT)
    assert in_support(from_table(exactly), 1_000_000) == (True, True)


@pytest.mark.parametrize(
    ("look_up", "count", "stays_and_reaches"),
    [
        (unscaled, 10_000_000, (False, True)),
        (leaking, 10_000_000, (False, True)),
        (halved, 1_000_000, (True, False)),
    ],
)
def test_in_support_rejects(look_up, count, stays_and_reaches):
    assert in_support(from_table(look_up), count) == stays_and_reaches


@pytest.mark.parametrize(
    ("sampler", "count"),
    [(NEXT, 1500), (HALF, 1500), (HALF, 60)],
    ids=["off by one", "float16", "float16, few draws"],
)
def test_zipf_rejects(sampler, count):
    assert zipf(sampler, count) < ALPHA


@pytest.mark.parametrize("count", [1500, 60])
@pytest.mark.parametrize("sampler", [EVEN, HALF], ids=["half unreachable", "float16"])
def test_flat_rejects(sampler, count):
    assert flat(sampler, count) < ALPHA


@pytest.mark.parametrize("count", [20_000, 4000])
@pytest.mark.parametrize(
    "sampler",
    [COARSE, FLOAT32, NEXT, HALF],
    ids=["16-bit uniforms", "24-bit uniforms", "off by one", "float16"],
)
def test_tail_rejects(sampler, count):
    assert tail(sampler, count) < ALPHA


@pytest.mark.parametrize("n", [VOCABULARY, 2500])
@pytest.mark.parametrize(
    "sampler", [EVEN, NEXT, HALF], ids=["half unreachable", "off by one", "float16"]
)
def test_reached_rejects(sampler, n):
    assert not reached(sampler, n)


def test_reached_rejects_coarse_uniforms():
    assert not reached(COARSE)  # 16 bits: only a large vocabulary shows it


@pytest.mark.parametrize(
    "sampler",
    [REACHED, NEXT, biased(lambda u: np.float32(u).astype(float))],
    ids=["reached", "off by one", "rounded up to 1"],
)
def test_ends_reject(sampler):
    assert not ends(sampler)
