"""Sampler: calls whose arguments are not ordinary: compiled or not, they say and draw the same."""

import numpy as np
import pytest

from fastsoftmax import Sampler
from fastsoftmax._sampler import program
from fastsoftmax.steps import (
    DRY,
    FrequencyPenalty,
    LogitBias,
    NoRepeatNGram,
    RepetitionPenalty,
    SuppressTokens,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
)
from tests.sampler.test_compiled import outcome, readable


@pytest.fixture
def impl(compiled):
    """Each implementation that has kernels: the reference runs the readable chain."""
    return compiled


ROW = np.tile(np.linspace(-1, 1, 50, dtype=np.float32), (2, 1))
STEPS_BACK = RepetitionPenalty(2.0), FrequencyPenalty(0.7, prompt=False), TopK(9)


@pytest.fixture
def penalties():
    """Return a sampler that looks back, made where its chain is compiled."""
    return Sampler(*STEPS_BACK)


@pytest.mark.parametrize(
    ("ids", "prompt"),
    [
        ([[1, 49], [2]], 0),
        (([1, 49], (2,)), (0, 1)),
        ([np.array([1, 49]), np.array([2], np.int8)], [1, 0]),
        ([np.array([49, 1])[::-1], np.array([2], ">i8")], np.array([2, 0])),
        (np.array([[1, 49], [2, 2]], np.uint64), np.int64(1)),
        ([[np.int64(1), 49], range(3)], 1),
        ((), 0),
        ([], 0),
        (np.empty((2, 0)), 0),
        ([[1, 50], [2]], 0),
        ([[1, -1], [2]], 0),
        ([[1, 2**70], [2]], 0),
        ([[1, 2.5], [2]], 0),
        ([[1, True], [2]], 0),
        ([[1], [2], [3]], 0),
        ([[1], 2], 0),
        (7, 0),
        (np.ones((2, 2, 2), int), 0),
        ([[1, 49], [2]], 2),
        ([[1, 49], [2]], -1),
        ([[1, 49], [2]], True),
        ([[1, 49], [2]], [0]),
        ([[1, 49], [2]], 0.5),
    ],
    ids=str,
)
def test_histories_of_any_form(ids, prompt, penalties):
    assert outcome(penalties, ROW, ids, prompt=prompt) == readable(
        penalties, ROW, ids, prompt=prompt
    )


@pytest.mark.parametrize("more", [[], [DRY(0.9, allowed_length=1), NoRepeatNGram(2)]], ids=str)
def test_a_history_is_read_as_it_is(penalties, more):
    from fastsoftmax._front.history import History  # built, as the chain is

    penalties = Sampler(*more, *penalties.steps)
    rows = np.random.default_rng(8).normal(0, 3, (2, 400)).astype(np.float32)
    history, ids = History([[5, 399, 5], []]), [[5, 399, 5], []]
    for i in range(6):
        want = penalties(rows, ids, i, prompt=[3, 0])
        np.testing.assert_array_equal(penalties(rows, history, i), want)
        where = [None, None, i, None, None, "inverse", None, None, False]
        assert program.chains.draw(penalties._program, rows, history, 0, *where) is not None
        history.append(want)
        ids = [[*tokens, int(token)] for tokens, token in zip(ids, want, strict=True)]
    one = History([[5, 7]])
    assert penalties(rows[0], one, 3) == penalties(rows[0], [5, 7], 3, prompt=2)
    for wrong, message in (
        ({"logits": rows[:, :399]}, "ids has 399 in row"),
        ({"logits": rows[:1]}, "ids is a history of 2 rows; logits has 1"),
        ({"prompt": 1}, "prompt is 1; allowed with a History is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            penalties(**{"logits": rows, "ids": history} | wrong)
    history.append([1, 1])  # which no call reads any more


def test_forms_of_logits(penalties):
    for x in (
        ROW.tolist(),
        ROW[:0],
        ROW[:, :0],
        ROW[None],
        ROW.astype("c8"),
        [["a"]],
        [[1], [1, 2]],
    ):
        try:
            want = readable(penalties, x)
        except Exception as error:
            with pytest.raises(type(error)):
                outcome(penalties, x)
        else:
            assert outcome(penalties, x) == want


def test_one_row_is_a_scalar(penalties):
    got = penalties(ROW[0], [1], 4)
    assert type(got) is np.int64
    assert got == penalties(ROW[:1], [[1]], 4)[0]


def test_a_row_that_is_wrong_is_named_and_the_generator_has_moved_on(penalties):
    x = ROW.copy()
    x[1, 3] = np.nan
    rng, twin = np.random.default_rng(1), np.random.default_rng(1)
    with pytest.raises(ValueError, match=r"logits has NaN in row \(1,\)"):
        penalties(x, rng=rng)
    twin.random(2)
    assert rng.random() == twin.random()


def test_scores_that_overflow_and_are_removed():
    """Where the compiled chain meets what is infinite, the readable one goes on."""
    big = np.array([[1e308, 0.0, 1.0]] * 2)
    for steps in (
        [Temperature(1e-3)],
        [Temperature(1e-3), SuppressTokens([0]), TopP(0.9)],
        [Temperature(1e-3), TopP(0.9), SuppressTokens([0])],
        [TopNSigma(1.0)],
        [LogitBias({1: -np.inf, 0: 1e308}), TopK(1)],
    ):
        assert outcome(Sampler(*steps), big) == readable(Sampler(*steps), big)
