"""Sampler: seeds, invalid rows, batches of different samplers: each row is as if alone."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsoftmax import Sampler, SamplerResult, sample, steps
from fastsoftmax.steps import (
    XTC,
    FrequencyPenalty,
    LogitBias,
    RepetitionPenalty,
    Step,
    SuppressTokens,
    Temperature,
    TopK,
    TopP,
)
from tests.sampler.test_compiled import CHAINS, HISTORIES, LENGTHS, rows

SAMPLERS = [
    Sampler.llama_cpp(),
    Sampler(Temperature(0)),
    Sampler(RepetitionPenalty(1.3), XTC(0.5, 0.02), Temperature(0.7), TopP(0.9)),
    Sampler(FrequencyPenalty(0.5), TopK(9), *[XTC(0.3, 0.1)] * 5),
    Sampler(),
]
ROWS = np.random.default_rng(1).normal(0, 3, (5, 300)).astype(np.float32)
IDS = [[1, 2, 2], [], [5, 299], [7] * 9, [3]]


@dataclass(frozen=True, repr=False)
class Mine(Step):
    def __call__(self, left):
        return left.keep_best(5)


# ---- seeds ---------------------------------------------------------------------------------------


def test_seeds_draw_what_sample_draws():
    seeds, positions = np.arange(5), np.array([9, 8, 7, 7, 2**63], np.uint64)
    filters = {"temperature": 0.7, "top_k": 20, "top_p": 0.9}
    sampler = Sampler(Temperature(0.7), TopK(20), TopP(0.9))
    want = sample(ROWS, seed=seeds, position=positions, **filters)
    np.testing.assert_array_equal(sampler(ROWS, seed=seeds, position=positions), want)
    for i in range(5):
        assert sampler(ROWS[i], seed=int(seeds[i]), position=int(positions[i])) == want[i]
    assert sampler(ROWS, seed=-3, position=4).tolist() == [
        sampler(row, seed=-3, position=4) for row in ROWS
    ]


def test_a_seed_gives_its_numbers_to_every_step_in_order():
    row = np.log(np.float32([0.4, 0.3, 0.2, 0.1]))
    for seed in range(20):
        chance, u = np.random.Generator(np.random.Philox(key=seed, counter=5)).random(2)
        sampler = Sampler(XTC(0.5, 0.15))
        left = [2, 3] if chance < 0.5 else [0, 1, 2, 3]
        for call in (sampler.candidates, sampler.trace):
            call(row, seed=seed, position=5)
        assert sampler.candidates(row, seed=seed, position=5).indices.tolist() == left
        filtered = sampler.filter(row, seed=seed, position=5)
        assert np.flatnonzero(filtered > -np.inf).tolist() == left
        reached = np.cumsum(np.exp(row[left].astype(float)))
        drawn = sampler(row, seed=seed, position=5)
        assert drawn == left[np.searchsorted(reached, u * reached[-1])]


@pytest.mark.parametrize(
    "sampler", [SAMPLERS[0], Sampler(Mine()), Sampler.batch(SAMPLERS)], ids=str
)
def test_errors_of_seeds_and_other_arguments(sampler):
    for arguments, error, message in (
        ({"seed": 1}, TypeError, "position is None"),
        ({"seed": 1, "position": 2, "rng": 3}, ValueError, "rng is 3; allowed is None where seed"),
        ({"seed": [1, 2], "position": 0}, ValueError, "seed has shape"),
        ({"on_invalid": "no"}, ValueError, "on_invalid is 'no'; allowed are 'raise', 'flag'"),
        ({"workers": 0}, ValueError, "workers is 0; allowed"),
        ({"rng": "x"}, TypeError, "rng is 'x'; allowed"),
    ):
        with pytest.raises(error, match=message):
            sampler(ROWS, **arguments)


# ---- rows that are invalid -----------------------------------------------------------------------


@pytest.mark.parametrize("last", [TopK(9), Mine()], ids=["compiled", "python"])
def test_invalid_rows_are_flagged_and_others_are_as_they_were(last):
    x = ROWS.copy()
    x[0, 3], x[1], x[2, 7] = np.nan, -np.inf, np.inf
    x[3, 1:] = -np.inf
    sampler = Sampler(SuppressTokens([0]), last)
    got = sampler(x, IDS, 5, on_invalid="flag")
    assert got.tolist() == [-1, -1, -1, -1, sampler(ROWS, IDS, 5)[4]]
    assert sampler(x[0], on_invalid="flag") == -1
    with pytest.raises(ValueError, match=r"logits has NaN in row \(0,\); .*on_invalid='flag'"):
        sampler(x)


# ---- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("samplers", [SAMPLERS, [*SAMPLERS[:4], Sampler(Mine())]], ids=["c", "py"])
def test_each_row_of_a_batch_is_as_if_alone(samplers):
    batch = Sampler.batch(samplers)
    one, all_ = np.random.default_rng(9), np.random.default_rng(9)
    alone = [s(x, i, one) for s, x, i in zip(samplers, ROWS, IDS, strict=True)]
    np.testing.assert_array_equal(batch(ROWS, IDS, all_), alone)
    assert one.random() == all_.random()
    alone = [
        s(x, i, seed=r, position=4)
        for r, (s, x, i) in enumerate(zip(samplers, ROWS, IDS, strict=True))
    ]
    np.testing.assert_array_equal(batch(ROWS, IDS, seed=range(5), position=4), alone)
    alone = [s.filter(x, i, one) for s, x, i in zip(samplers, ROWS, IDS, strict=True)]
    np.testing.assert_array_equal(batch.filter(ROWS, IDS, all_), alone)


@given(st.lists(CHAINS, min_size=1, max_size=5), rows(LENGTHS), HISTORIES, st.integers(0, 2**64))
def test_any_batch(samplers, row, history, seed):
    x = np.array([np.roll(row, i) for i in range(len(samplers))], dtype=np.float32)
    batch, ids = Sampler.batch(samplers), [history[i:] for i in range(len(samplers))]
    outcomes = []
    for sampler, one, tokens in zip(samplers, x, ids, strict=True):
        try:
            outcomes.append(int(sampler(one, tokens, seed=seed, position=1, on_invalid="flag")))
        except ValueError:
            return  # an id that is not in the vocabulary
    got = batch(x, ids, seed=seed, position=1, on_invalid="flag")
    assert got.tolist() == outcomes


def test_what_a_batch_is():
    batch = Sampler.batch(SAMPLERS)
    assert batch.samplers == tuple(SAMPLERS)
    assert repr(batch).startswith("Sampler.batch([Sampler(TopK(40), ")
    assert eval(repr(batch), vars(steps) | {"Sampler": Sampler}) == batch
    assert pickle.loads(pickle.dumps(batch)) == batch
    assert hash(batch) == hash(Sampler.batch(SAMPLERS))
    assert Sampler.batch([])(np.empty((0, 5))).shape == (0,)
    for x in (ROWS[:4], ROWS[0]):
        with pytest.raises(ValueError, match=r"logits has shape \(.*\); allowed are 5 rows"):
            batch(x)
    with pytest.raises(TypeError, match=r"samplers has TopK\(3\); allowed are Sampler"):
        Sampler.batch([TopK(3)])
    with pytest.raises(TypeError, match="samplers is 3; allowed is a sequence"):
        Sampler.batch(3)


# ---- other samplers from one ---------------------------------------------------------------------


def test_replace_and_insert():
    sampler = Sampler(Temperature(0.5), TopK(4), TopK(5))
    assert sampler.replace(Temperature, TopP(0.5)) == Sampler(TopP(0.5), TopK(4), TopK(5))
    assert sampler.replace(TopK(5), TopK(6)).steps[2] == TopK(6)
    assert sampler.insert(3, TopP(0.5)).steps[3] == TopP(0.5)
    assert sampler.insert(0, TopP(0.5)).steps[0] == TopP(0.5)
    for step, times in ((TopK, 2), (TopP, 0), (TopK(9), 0)):
        with pytest.raises(ValueError, match=rf"which the sampler has {times} times; allowed is"):
            sampler.replace(step, TopK(1))
    with pytest.raises(TypeError, match="steps has 3; allowed"):
        sampler.replace(Temperature, 3)
    with pytest.raises(ValueError, match="index is 4; allowed is 0 to 3"):
        sampler.insert(4, TopK(1))


# ---- log-probabilities ---------------------------------------------------------------------------


def entropies(x):
    p = np.exp(x.astype(float) - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return -(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum(-1)


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("n", [20, 300, pytest.param(9000, marks=pytest.mark.slow)])
def test_what_is_reported_is_what_the_functions_say(impl, dtype, n):
    x = np.random.default_rng(2).normal(0, 3, (5, n)).astype(dtype)
    x[0, 3], x[1, :5] = 30, -np.inf
    x[2] = x[2].round()
    for sampler in (*SAMPLERS, Sampler(TopK(9), Mine()), Sampler.batch(SAMPLERS)):
        ids = [[1, 2, 2], [], [5, 19], [7] * 9, [3]]
        got = sampler(x, ids, 4, logprobs=7)
        assert type(got) is SamplerResult
        np.testing.assert_array_equal(got.ids, sampler(x, ids, 4))
        np.testing.assert_array_equal(got.logprobs, impl.token_logprobs(x, got.ids))
        np.testing.assert_array_equal(got.rank, impl.rank(x, got.ids))
        logprobs, indices = impl.top_logprobs(x, 7)
        np.testing.assert_array_equal(got.top.indices, indices)
        np.testing.assert_array_equal(got.top.logprobs, logprobs)
        close = {"rtol": 2e-3, "atol": 1e-7} if dtype == "float16" else {"rtol": 2e-6}
        np.testing.assert_allclose(got.entropy, entropies(x), **close)
        assert {a.dtype for a in (got.logprobs, got.filtered_logprobs, got.entropy)} == {x.dtype}


@pytest.mark.parametrize("sampler", [SAMPLERS[0], Sampler(Mine())], ids=str)
def test_one_row_reports_scalars(sampler):
    x = ROWS[0].astype(np.float16)
    got = sampler(x, [1, 2], 4, logprobs=0)
    assert [type(v) for v in got[:4]] == [np.int64, np.float16, np.float16, np.int64]
    assert type(got.entropy) is np.float16
    assert got.top.indices.shape == got.top.logprobs.shape == (0,)


@pytest.mark.parametrize("last", [Temperature(1.0), Mine()], ids=["compiled", "python"])
def test_log_probabilities_after_the_steps(last):
    sampler = Sampler(RepetitionPenalty(1.3), Temperature(0.7), TopK(5), last)
    got = sampler(ROWS, IDS, 3, logprobs=1)
    for row, tokens, i, logprob in zip(ROWS, IDS, got.ids, got.filtered_logprobs, strict=True):
        indices, probs = sampler.candidates(row, tokens)
        assert logprob == pytest.approx(np.log(probs[indices == i][0]), rel=1e-5)
    x = np.tile(ROWS[:2], 20)  # long enough to be summed up rather than listed
    for before in ((), (Temperature(0.7),), (RepetitionPenalty(1.3), Temperature(0.7))):
        sampler = Sampler(*before, last) if last == Mine() else Sampler(*before)
        got = sampler(x, IDS[:2], 3, logprobs=1)
        for row, tokens, i, logprob in zip(x, IDS[:2], got.ids, got.filtered_logprobs, strict=True):
            indices, probs = sampler.candidates(row, tokens)
            assert logprob == pytest.approx(np.log(probs[indices == i][0]), rel=1e-5)
    greedy = Sampler(Temperature(0), last)(ROWS, logprobs=2)
    assert greedy.filtered_logprobs.tolist() == [0] * 5
    assert greedy.rank.tolist() == [0] * 5
    np.testing.assert_array_equal(greedy.logprobs, greedy.top.logprobs[:, 0])
    assert (greedy.logprobs < 0).all()


@pytest.mark.parametrize("last", [Temperature(1.0), Mine()], ids=["compiled", "python"])
def test_a_flagged_row_reports_nothing(last):
    x = ROWS[:2].copy()
    x[1, 2] = np.nan
    got = Sampler(TopK(5), last)(x, rng=1, logprobs=3, on_invalid="flag")
    assert got.ids[1] == got.rank[1] == -1
    assert np.isnan([got.logprobs[1], got.filtered_logprobs[1], got.entropy[1]]).all()
    assert np.isnan(got.top.logprobs[1]).all()
    assert (got.top.indices[1] == -1).all()
    assert np.isfinite(got.entropy[0])
    for wrong, error in ((-1, ValueError), (301, ValueError), (1.5, TypeError), ("x", TypeError)):
        with pytest.raises(error, match="logprobs is"):
            Sampler(TopK(5), last)(x, rng=1, logprobs=wrong)


# ---- which steps are compiled --------------------------------------------------------------------


class MyTopK(TopK):
    def __call__(self, left):
        return left.keep_best(1)


def test_a_chain_says_what_is_compiled(impl):
    compiled = impl.NAME != "reference"
    assert Sampler(TopK(3), Temperature(0.5)).compiled == (compiled, compiled)
    assert Sampler(TopK(3), Mine()).compiled == (compiled, False)
    assert Sampler(MyTopK(3)).compiled == (False,)
    assert Sampler(MyTopK(3))(np.arange(9.0)) == 8


def test_a_program_is_no_part_of_a_sampler_but_comes_with_every_copy(impl):
    sampler = Sampler(LogitBias({3: 1.0}), TopK(3))
    for other in (pickle.loads(pickle.dumps(sampler)), copy.deepcopy(sampler), copy.copy(sampler)):
        assert other == sampler
        assert hash(other) == hash(sampler)
        assert other.compiled == sampler.compiled
        assert other(np.arange(9.0), rng=2) == sampler(np.arange(9.0), rng=2)
