"""Sampler: steps with a value for each row do what a sampler of that row's values does."""

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax import History, Sampler, steps
from fastsoftmax._sampler import program
from fastsoftmax.steps import (
    DRY,
    XTC,
    AdaptiveP,
    DynamicTemperature,
    FrequencyPenalty,
    MinLength,
    MinP,
    Mirostat,
    NoRepeatNGram,
    RepetitionPenalty,
    SoftCap,
    Temperature,
    TopK,
    TopP,
    TypicalP,
)
from tests.sampler.test_compiled import HISTORIES, LENGTHS, STEPS, hard_row, rows

ROWS = np.array([np.roll(hard_row(300, "float32"), i) for i in range(3)])
IDS = [[1, 2, 2, 1], [], [5, 299, 5]]
SAMPLERS = [
    Sampler(Temperature([0.5, 1.0, 0.0]), TopK(20), TopP(0.9)),
    Sampler(TopK(np.array([3, 1, 300]), ["all", "index", "index"], min_keep=[1, 9, 1])),
    Sampler(RepetitionPenalty([1.1, 1.0, 2.0], [None, 2, 0], prompt=[True, False, True])),
    Sampler(FrequencyPenalty(np.float32([0.5, 0, -1])), MinP([0.0, 0.5, 1.0]), XTC([1, 0, 0.5], 0)),
    Sampler(TypicalP([0.3, 1.0, 0.9], min_keep=(1, 2, 3)), Temperature((2.0, 1.0, 0.5))),
    Sampler(DRY([1.0, 0, 2], [1.5, 2, 3], [1, 2, 1], [None, 3, None]), NoRepeatNGram([1, 2, 3])),
    Sampler(SoftCap([5.0, 50, 1]), DynamicTemperature([1, 2, 3], 0.5, exponent=[1, 2, 0])),
    Sampler(MinLength([9, 0, 4], [3, 4], [False, True, True]), TopK(5)),
]


def of_row(step, row):
    """Return a step with the values of one row: those that are tuples, but for ids."""
    given = {f.name: getattr(step, f.name) for f in fields(step)}
    own = {k: v for k, v in given.items() if isinstance(v, tuple) and k not in IDS_OF_STEPS}
    return replace(step, **{k: v[row] for k, v in own.items()})


IDS_OF_STEPS = ("exempt", "ids", "bias", "breakers", "words")


def alone(sampler, rows=3):
    return [Sampler(*(of_row(step, row) for step in sampler.steps)) for row in range(rows)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_each_row_is_as_if_alone(sampler):
    sampler = Sampler(*sampler.steps)  # compiled for the implementation
    one, all_ = np.random.default_rng(9), np.random.default_rng(9)
    want = [s(x, i, one) for s, x, i in zip(alone(sampler), ROWS, IDS, strict=True)]
    assert sampler(ROWS, IDS, all_).tolist() == want
    assert one.random() == all_.random()
    want = [s.filter(x, i, one) for s, x, i in zip(alone(sampler), ROWS, IDS, strict=True)]
    np.testing.assert_array_equal(sampler.filter(ROWS, IDS, all_), want)
    got = sampler(ROWS, IDS, seed=[3, 4, 5], position=9, logprobs=2)
    want = Sampler.batch(alone(sampler))(ROWS, IDS, seed=[3, 4, 5], position=9, logprobs=2)
    for a, b in zip((*got[:4], *got.top), (*want[:4], *want.top), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("step", [Mirostat([3.0, 5, 1], [0.1, 0, 1]), AdaptiveP([0.1, 0.5, 0.9])])
def test_states_of_rows_follow_their_own_values(step):
    one, two = History([[1], [2], [3]]), History([[1], [2], [3]])
    sampler = Sampler(TopK(20), step)
    batch = Sampler.batch(alone(sampler))
    for i in range(5):
        ids = sampler(ROWS, one, seed=3, position=i)
        assert ids.tolist() == batch(ROWS, two, seed=3, position=i).tolist()
        one.append(ids)
        two.append(ids)
        assert [one.state(r) for r in range(3)] == [two.state(r) for r in range(3)]


@st.composite
def of_three(draw):
    """Return a step whose numbers are those of three steps of its kind, one for each row."""
    first = draw(STEPS)
    made = [first]
    while len(made) < 3:
        made.append(draw(STEPS.filter(lambda step: type(step) is type(first))))
    names = [f.name for f in fields(first) if f.name not in IDS_OF_STEPS]
    some = draw(st.sets(st.sampled_from(names))) if names else []
    return replace(first, **{name: [getattr(step, name) for step in made] for name in some})


@given(st.lists(of_three(), max_size=4), rows(LENGTHS), HISTORIES, st.integers(0, 2**64 - 1))
@settings(max_examples=30)
@pytest.mark.slow
def test_any_values_of_any_row(chain, row, history, seed):
    sampler = Sampler(*chain)
    x = np.array([np.roll(row, i) for i in range(3)], np.float32)
    ids = [history[i:] for i in range(3)]
    batch = Sampler.batch(alone(sampler))
    where = {"seed": seed, "position": 1, "on_invalid": "flag"}
    try:
        want = batch(x, ids, **where)
    except ValueError:  # an id that is not in the vocabulary
        with pytest.raises(ValueError, match="allowed are ids from 0 to"):
            sampler(x, ids, **where)
    else:
        assert sampler(x, ids, **where).tolist() == want.tolist()


def test_it_is_compiled(compiled, monkeypatch):
    monkeypatch.setattr(program, "chains", compiled.chains)
    sampler = Sampler(Temperature([0.5, 1.0, 2.0]), TopK(20), TopP([0.9, 1.0, 0.1]))
    assert sampler.compiled == (True, True, True)
    where = [None, None, 3, None, None, "inverse", None, None, False]
    done = program.chains.draw(sampler._program, ROWS, [[]] * 3, 0, *where)
    assert type(done) is np.ndarray
    assert done.tolist() == sampler(ROWS, rng=3).tolist()


def test_what_it_is():
    sampler = Sampler(Temperature(np.array([0.5, 1.0])), TopK([3, 4], min_keep=2))
    assert repr(sampler) == "Sampler(Temperature((0.5, 1.0)), TopK((3, 4), min_keep=2))"
    for other in (eval(repr(sampler), vars(steps) | {"Sampler": Sampler}),
                  pickle.loads(pickle.dumps(sampler))):  # fmt: skip
        assert other == sampler
        assert hash(other) == hash(sampler)
        assert other(ROWS[:2], rng=3).tolist() == sampler(ROWS[:2], rng=3).tolist()
    assert sampler != Sampler(Temperature([0.5, 1.5]), TopK([3, 4], min_keep=2))
    assert Sampler(TopK([5]))(ROWS[:1], rng=0).shape == (1,)


def test_other_numbers_of_rows_are_errors():
    sampler = Sampler(Temperature(0.5), TopK([3, 4], min_keep=2))
    for call in (sampler, sampler.filter, sampler.candidates, sampler.trace):
        for x in (ROWS[0], ROWS) if call in (sampler, sampler.filter) else (ROWS[0],):
            wrong = r"logits has shape \(.*\); allowed are 2 rows, one for each value of TopK.k$"
            with pytest.raises(ValueError, match=wrong):
                call(x)
    with pytest.raises(ValueError, match=r"^samplers has one in which TopK.k has 2 values; allo"):
        Sampler.batch([sampler, Sampler()])
