"""Sampler: the compiled chain draws what the readable one draws, whatever the steps and the row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax import Sampler, set_workers
from fastsoftmax._sampler import program
from fastsoftmax.steps import (
    DRY,
    XTC,
    AllowedTokens,
    BadWords,
    Epsilon,
    Eta,
    FrequencyPenalty,
    LogitBias,
    MinLength,
    MinP,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
    SequenceBias,
    SoftCap,
    SuppressTokens,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
)
from tests.oracles import Uniforms

ROWS = 8  # draws from one row


@pytest.fixture
def impl(compiled):
    """Each implementation that has kernels: the reference runs the readable chain."""
    return compiled


def readable(sampler, *args, **kwargs):
    """Call a sampler as where nothing is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "chains", None)
        return outcome(sampler, *args, **kwargs)


def outcome(sampler, x, *args, **kwargs):
    """Return the ids that a sampler draws and the scores that it leaves, or the errors.

    The uniforms are known, and all must be taken.
    """
    chances = sum(step.uniforms for step in sampler.steps)
    found = []
    for call, count in (sampler, chances + 1), (sampler.filter, chances):
        uniforms = np.random.default_rng(5).random(len(x) * count)
        try:
            result = np.asarray(call(x, *args, rng=Uniforms(uniforms), **kwargs))
        except (ValueError, TypeError) as error:
            found.append((type(error), str(error)))
        else:
            found.append((result.dtype, result.shape, result.tobytes()))
    return found


ids = st.lists(st.integers(0, 99), min_size=1, max_size=30, unique=True)
min_keep = st.sampled_from([1, 1, 2, 5, 1000])
share = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
ties = st.sampled_from(["index", "all"])
penalty = st.one_of(st.sampled_from([0.5, 1.0, 2.0]), st.floats(0.1, 3))
last = st.sampled_from([None, 0, 3, 40])
temperature = st.one_of(
    st.sampled_from([0.0, 1.0, 0.5, 2.0, 1e-5, 1e-45, 1e-310, 1e30]), st.floats(0.05, 4)
)
id_ = st.one_of(st.integers(0, 3), st.integers(0, 99))
words = st.lists(st.lists(id_, min_size=1, max_size=3), min_size=1, max_size=12)
biased = st.dictionaries(
    st.lists(id_, min_size=1, max_size=3).map(tuple), st.sampled_from([-np.inf, -0.1, 3.0, 1e308])
)
STEPS = st.one_of(
    st.builds(Temperature, temperature),
    st.builds(RepetitionPenalty, penalty, last, st.booleans()),
    st.builds(RepetitionPenalty, penalty, last, st.booleans(), ids),
    st.builds(FrequencyPenalty, penalty, last, st.booleans()),
    st.builds(PresencePenalty, penalty, last, st.booleans()),
    st.builds(
        LogitBias, st.dictionaries(st.integers(0, 99), st.sampled_from([-np.inf, -2, 1, 30]))
    ),
    st.builds(SuppressTokens, ids),
    st.builds(AllowedTokens, ids),
    st.builds(TopK, st.sampled_from([1, 2, 5, 20, 40, 300]), ties, min_keep),
    st.builds(TopP, share, min_keep),
    st.builds(MinP, share, min_keep),
    st.builds(TypicalP, st.floats(0.01, 1), ties, min_keep),
    st.builds(TopNSigma, st.sampled_from([0.0, 0.5, 1.0, 3.0])),
    st.builds(Epsilon, st.sampled_from([0.0, 0.001, 0.02, 0.3]), min_keep),
    st.builds(Eta, st.sampled_from([0.0, 0.001, 0.02, 0.3]), min_keep),
    st.builds(XTC, share, st.sampled_from([0.0, 0.01, 0.1, 0.6]), min_keep),
    st.builds(XTC, share, st.sampled_from([0.0, 0.01, 0.1]), min_keep, ids),
    st.builds(SoftCap, st.sampled_from([0.5, 10.0, 1e-3, 1e300])),
    st.builds(MinLength, st.integers(0, 20), ids, st.booleans()),
    st.builds(NoRepeatNGram, st.integers(1, 4)),
    st.builds(BadWords, words, st.booleans()),
    st.builds(SequenceBias, biased, st.booleans()),
    st.builds(
        DRY, st.sampled_from([0.0, 0.7, 1e300]), st.sampled_from([1.0, 1.0000001, 1.75, 40.0]),
        st.integers(1, 3), last, st.one_of(st.just([]), words), st.one_of(st.just([]), ids),
    ),
)  # fmt: skip
CHAINS = st.lists(STEPS, max_size=6).map(lambda steps: Sampler(*steps))


@st.composite
def rows(draw, lengths):
    """Return one row: with few values or many, a few of -inf, near 0 or far from it."""
    n = draw(lengths)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.normal(0, draw(st.sampled_from([0.0, 0.3, 3.0])), n)
    step = draw(st.sampled_from([0, 0, 0.5, 3.0]))
    x = np.round(x / step) * step if step else x
    x[:100] += draw(st.sampled_from([0, 3]))  # what steps name is among the best
    x[rng.random(n) < draw(st.sampled_from([0, 0, 0.3]))] = -np.inf
    return x * draw(st.sampled_from([1, 1, 1e-3, 100])) + draw(st.sampled_from([0, 0, -50]))


LENGTHS = st.one_of(st.integers(1, 40), st.sampled_from([100, 101, 700, 5000]))
HISTORIES = st.one_of(
    st.lists(st.integers(0, 99), max_size=80),
    st.lists(st.integers(0, 3), max_size=80),  # which repeats itself
)


@given(
    CHAINS, rows(LENGTHS), HISTORIES, st.integers(0, 9),
    st.sampled_from(["float32", "float32", "float64", "float16", "int16"]), st.booleans(),
)  # fmt: skip
def test_any_chain_of_any_row(sampler, row, history, prompt, dtype, strided):
    assert sampler.compiled == (True,) * len(sampler.steps)
    if dtype == "int16":
        row = np.nan_to_num(row, neginf=-9)
    x = np.tile(row.astype(dtype), (ROWS, 1))
    x = np.repeat(x, 2, 1)[:, ::2] if strided else x
    arguments = {"ids": [history] * ROWS, "prompt": min(prompt, len(history))}
    want = readable(sampler, x, **arguments)
    assert outcome(sampler, x, **arguments) == want


NAMING = [
    [
        RepetitionPenalty(1.5), FrequencyPenalty(0.3, 20), PresencePenalty(0.2, prompt=False),
        DRY(0.8, 2.0, 1, breakers=[[5], [6, 7]]), NoRepeatNGram(3), MinLength(50, [3, 4]),
    ],
    [
        FrequencyPenalty(-0.5), LogitBias({3: 4.0, 7: -np.inf, 40: -1.0}), SuppressTokens([11, 12]),
        BadWords([[8], [2, 9]]), SequenceBias({(6,): 4.0, (2, 3): 1.0, (2, 4): 2.0, (4,): -9}),
    ],
    [],
]  # fmt: skip
CUTTING = [
    [TopK(20)],
    [TopK(20, "all", 30), TopP(0.9)],
    [MinP(0.05), RepetitionPenalty(1.1), TopK(5)],
    [MinP(1.0, 3), XTC(1.0, 0.1)],
    [MinP(0.3, 40), Temperature(0.0)],
    [TopP(0.6), TopK(12, "all")],
    [TopP(0.99), TopK(64, "all")],
    [TopP(0.99), TopK(63)],
    [TopP(0.99), MinP(0.2, 64)],
    [TopP(0.9, 50), MinP(0.2, 2)],
    [TopP(0.5, 3), FrequencyPenalty(0.5)],
    [TypicalP(0.4), TypicalP(0.9, "all", 3)],
    [TopNSigma(1.0), Temperature(0.5), TopK(9)],
    [Epsilon(0.01, 3), XTC(0.9, 0.03, 2)],
    [Eta(0.02), AllowedTokens([3, *range(0, 90, 2)])],
    [TopK(9), LogitBias({3: 9.0, 5: 9.0}), FrequencyPenalty(0.5), TopK(4)],
    [SoftCap(3.0), TopK(12), XTC(0.9, 0.02, 1, [3, 9])],
]


def hard_row(n, dtype):
    """Return a row in which the tokens that steps name are among the best, and equal others."""
    row = np.random.default_rng(n).normal(0, 2, n)
    row[:100] += 3
    row[1 :: 1 if n % 2 else 7] = row[1 :: 1 if n % 2 else 7].round()  # many ties where n is odd
    row[5::11] = -np.inf
    return row.astype(dtype)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("temperature", [[Temperature(0.7)], []], ids=str)
@pytest.mark.parametrize("cutting", CUTTING, ids=str)
def test_every_kind_of_chain(cutting, temperature):
    history = [2, 3, 5, 2, 3, *np.random.default_rng(3).integers(0, 100, 30).tolist(), 5, 2]
    for n, dtype in (
        (60, "float32"),
        (700, "float32"),
        (701, "float64"),
        (5000, "float32"),
        (5001, "float32"),
    ):
        x = np.tile(hard_row(n, dtype), (3, 1))
        named = [t % n for t in history]
        for naming in NAMING:
            sampler = Sampler(*naming, *temperature, *cutting)
            got = outcome(sampler, x, [named] * 3, prompt=9)
            assert got == readable(sampler, x, [named] * 3, prompt=9), (n, sampler)
            assert n < 100 or isinstance(got[0][0], np.dtype), got


@pytest.mark.parametrize("preserving", [TopK(3), MinP(0.999), TopK(2, "all")], ids=str)
def test_quotients_that_round_to_one(preserving):
    """The lower id wins then, though its logit is the lower one, and it was not selected."""
    row = np.full(500, -5.0)
    row[450:] = np.nextafter(2.0, 0)
    row[3::50] = np.nextafter(row[450], 0)
    x = np.tile(row, (3, 1))
    for temperature in (1.7, 3.4):
        assert row[3] / temperature == row[450] / temperature
        sampler = Sampler(Temperature(temperature), preserving)
        assert outcome(sampler, x) == readable(sampler, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [60, 5000])
def test_what_is_removed_stays_so_where_min_keep_is_more_than_the_rest(n, dtype):
    x = np.full((1, n), -np.inf, dtype)
    x[0, [7, 30, 51]] = [1, 3, 2]
    # A step after the cut that gives removed tokens, were there any, a score or a rank again.
    last = SoftCap(0.5), LogitBias({3: 1.0, 30: 0.5}), TypicalP(0.99, min_keep=9)
    for cut in (TopK, TopP, MinP, TypicalP, Epsilon, Eta):
        for first in ((), (Temperature(0.7),), (RepetitionPenalty(1.5),)):
            for step in last:
                sampler = Sampler(*first, cut(1 if cut is TopK else 0.01, min_keep=5), step)
                assert outcome(sampler, x, [[30]]) == readable(sampler, x, [[30]])
                left = sampler.filter(x, [[30]])
                assert np.nonzero(left > -np.inf)[1].tolist() == [7, 30, 51]


@pytest.mark.best_alone
@given(CHAINS, rows(LENGTHS), HISTORIES)
@settings(max_examples=300)
@pytest.mark.slow
def test_many_chains_of_any_row(sampler, row, history):
    x = np.tile(row.astype(np.float32), (3, 1))
    assert outcome(sampler, x, [history] * 3) == readable(sampler, x, [history] * 3)


@pytest.mark.best_alone
@given(CHAINS, rows(st.sampled_from([50_000, 60_001])), HISTORIES)
@settings(max_examples=60)
@pytest.mark.slow
def test_any_chain_of_a_long_row(sampler, row, history):
    x = np.tile(row.astype(np.float32), (3, 1))
    assert outcome(sampler, x, [history] * 3) == readable(sampler, x, [history] * 3)


REPEATS = {
    "one token": [7] * 800,
    "a period": [1, 2, 3, 4, 5] * 160,
    "few tokens": np.random.default_rng(1).integers(0, 3, 800).tolist(),
    "many tokens": np.random.default_rng(1).integers(0, 1500, 800).tolist(),
}


@pytest.mark.parametrize(
    "tokens",
    [pytest.param(v, marks=[pytest.mark.slow] * (i > 0)) for i, v in enumerate(REPEATS.values())],
    ids=REPEATS,
)
def test_long_histories(tokens):
    x = np.tile(hard_row(1500, "float32"), (2, 1))
    for steps in (
        [DRY(0.01, 1.01, 1, breakers=[[2, 1]]), TopK(50)],
        [DRY(0.5, 1.5, 2, last=500, exempt=[7]), TopP(0.9)],
        [NoRepeatNGram(1), TopK(30)],
        [NoRepeatNGram(4), RepetitionPenalty(1.2), TopK(30)],
    ):
        got = outcome(Sampler(*steps), x, [tokens, tokens[:-2]], prompt=100)
        assert got == readable(Sampler(*steps), x, [tokens, tokens[:-2]], prompt=100)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["float16", "strided"])
def test_rows_that_are_read_part_by_part(form):
    """From 2**20 elements on, what must be packed is."""
    row = np.random.default_rng(6).normal(0, 2, 2**20 + 77)
    x = np.tile(row.astype("float16" if form == "float16" else "float32"), (2, 1))
    strided = np.repeat(x, 2, 1)[:, ::2] if form == "strided" else x
    for steps in (
        [Temperature(0.5)],
        [RepetitionPenalty(1.3), Temperature(0.7)],
        [RepetitionPenalty(1.3), TopP(0.05)],
        [TopP(0.05), TopK(9)],
        [FrequencyPenalty(2.0), TopK(40), TopP(0.9)],
        [TopNSigma(0.5)],
        [AllowedTokens([5, 70])],
        [XTC(0.5, 0.01), TopP(0.9)],
    ):
        ids = [[5, 2**20, 70, 5]] * 2
        want = Sampler(*steps)(x.astype("float32"), ids, rng=3).tolist()
        assert Sampler(*steps)(strided, ids, rng=3).tolist() == want


def test_rows_are_shared_by_threads(divided):
    x = np.random.default_rng(7).normal(0, 3, (200, 20_000)).astype(np.float32)
    ids = [[i, i + 1, i] for i in range(len(x))]
    sampler, rng = Sampler(FrequencyPenalty(0.7), TopK(20), XTC(0.5, 0.1)), np.random.default_rng(4)
    want = [sampler(row, i, rng) for row, i in zip(x, ids, strict=True)]
    assert not divided
    with set_workers(3):
        assert sampler(x, ids, 4).tolist() == want
    assert sum(rows for _, rows in divided) == len(x)


def test_equal_tokens_have_whole_sums():
    x = np.zeros((2, 60_000))
    for p in (0.1, 0.3, 0.7):
        for step in (TopP(p), TypicalP(p)):
            left = np.flatnonzero(Sampler(step).filter(x[0]) == 0)
            assert left.tolist() == list(range(round(p * 60_000)))
            assert outcome(Sampler(step), x) == readable(Sampler(step), x)


def test_equal_tokens_of_any_number():
    x = np.repeat(np.array([0, np.log(2)]), 50)[None, :97].repeat(2, 0)
    for row in (x, np.zeros_like(x)):
        for i in range(1, 97, 4):
            for step in (TopP(i / 97), TypicalP(i / 97, "all"), Epsilon(i / 97), XTC(1, i / 97)):
                assert outcome(Sampler(step), row) == readable(Sampler(step), row)
