"""History: what it keeps, against plain counting; what a Sampler gets from it."""

import copy
import doctest
import importlib
import pickle
import threading

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import Sampler
from fastsoftmax.steps import (
    DRY,
    AdaptiveP,
    BadWords,
    FrequencyPenalty,
    MinLength,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
    Tokens,
    TopK,
)


def some_tokens(rng):
    """Return the tokens of a row: few or many ids, loops, ids of any size."""
    n = int(rng.choice([0, 1, 2, 30, 300]))
    ids = rng.integers(0, rng.choice([1, 2, 5, 50]), n)
    if rng.random() < 0.3:
        ids = np.tile(ids[: int(rng.integers(1, 6))], n)[:n]
    return ids + int(rng.choice([0, 2**40, 2**62]))


def same(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.int64


def test_counts_are_those_of_plain_counting(impl):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = [some_tokens(rng) for _ in range(3)]
        prompts = [int(rng.integers(0, ids.size + 1)) for ids in rows]
        history = impl.History([ids[:p] for ids, p in zip(rows, prompts, strict=True)])
        rest = [ids[p:].tolist() for ids, p in zip(rows, prompts, strict=True)]
        for i in range(max(map(len, rest))):
            history.append([tokens[i] if i < len(tokens) else -1 for tokens in rest])
        for row, (ids, p) in enumerate(zip(rows, prompts, strict=True)):
            np.testing.assert_array_equal(history.tokens(row), ids)
            assert (history.prompt(row), history.state(row)) == (p, ())
            plain = Tokens(ids, p)
            for last in (None, 0, 1, 7, ids.size, ids.size + 5, 2**70):
                for prompt in (True, False):
                    same(history.counts(row, last, prompt), plain.counts(last, prompt))


@pytest.mark.parametrize("copied", [copy.copy, lambda h: pickle.loads(pickle.dumps(h))])
def test_copies_are_apart_and_know_what_the_history_knows(impl, copied):
    history, sampler = impl.History([[1, 2], [], [5]]), Sampler(TopK(9), AdaptiveP(0.3))
    x = np.random.default_rng(3).normal(0, 1, (3, 50))
    for i in range(3):
        history.append(sampler(x, history, seed=3, position=i))
    history.reset(1, [4, 7])
    foreseen = sampler(x, history, seed=3, position=4)
    other = copied(history)
    other.append(foreseen)
    assert [history.tokens(i).size for i in range(3)] == [5, 2, 4]
    history.append(foreseen)
    for i in range(3):
        same([other.tokens(i), *other.counts(i)], [history.tokens(i), *history.counts(i)])
        assert (other.prompt(i), other.state(i)) == (history.prompt(i), history.state(i))
        assert other.state(i)


LOOP = np.ones(2000, dtype=np.int64)
LOOP[700] = 2  # its ends match in so many places that links are not followed to the end


def test_repetitions_are_those_of_plain_looking():
    history = fastsoftmax._front.history.History([LOOP])
    same(history._continuations(0, 1, 5000), Tokens(LOOP, 0).continuations(1, 5000))
    for seed in range(80):
        rng = np.random.default_rng([seed, 1])
        ids = some_tokens(rng)
        plain = Tokens(ids, 0)
        history.reset(0, ids)
        for last in (None, 0, 5, int(rng.integers(0, ids.size + 2))):
            least, most = int(rng.integers(1, 5)), int(rng.choice([0, 1, 3, 20, 10**6]))
            same(
                history._continuations(0, least, most, last),
                plain.continuations(least, most, last),
            )
            n = int(rng.integers(0, 4))
            words = [rng.choice(ids, rng.integers(1, 4)).tolist() for _ in range(n) if ids.size]
            breakers = tuple(map(tuple, words))
            assert history._since(0, breakers, last) == plain.since(breakers, last)


STEPS = [
    RepetitionPenalty(1.3, 5), FrequencyPenalty(0.5, prompt=False), PresencePenalty(0.2, 4, False),
    DRY(1.0, 1.5, 1, None, [[3]]), NoRepeatNGram(3), BadWords([[1, 2], [4]]), MinLength(4, [0]),
]  # fmt: skip


def test_a_history_in_place_of_lists(impl):
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (4, 40)).astype(np.float32)
    lists = [rng.integers(0, 6, n).tolist() for n in (0, 3, 20, 200)]
    prompts = [0, 1, 20, 150]
    history = impl.History([ids[:p] for ids, p in zip(lists, prompts, strict=True)])
    for i in range(50):
        rest = [ids[p:] for ids, p in zip(lists, prompts, strict=True)]
        history.append([r[i] if i < len(r) else -1 for r in rest])
    for sampler in [Sampler(step) for step in STEPS] + [Sampler(*STEPS, TopK(5))]:
        want = sampler.filter(logits, lists, prompt=prompts)
        np.testing.assert_array_equal(sampler.filter(logits, history), want)
        got = sampler(logits, history, 3)
        np.testing.assert_array_equal(got, sampler(logits, lists, 3, prompt=prompts))
    one = impl.History([lists[2]])
    assert Sampler(*STEPS)(logits[2], one, 1) == Sampler(*STEPS)(logits[2], lists[2], 1, prompt=20)


def test_append_takes_several_tokens_and_reset_forgets(impl):
    history = impl.History([[1], [], [2, 3]])
    assert (len(history), history.rows) == (3, 3)
    history.append(np.array([[5, 6], [-1, 7], [-1, -1]], dtype=np.int32))
    history.append(np.empty((3, 0), dtype=np.int64))
    assert [history.tokens(i).tolist() for i in range(3)] == [[1, 5, 6], [7], [2, 3]]
    history.reset(0, [9, 9])
    history.reset(2)
    assert [history.tokens(i).tolist() for i in range(3)] == [[9, 9], [7], []]
    same(history.counts(0), ([9], [2]))
    assert [history.prompt(i) for i in range(3)] == [2, 0, 0]
    assert repr(history) == (
        "History of 3 rows: 2 tokens (prompt 2), 1 tokens (prompt 0), 0 tokens (prompt 0)"
    )
    assert repr(impl.History([[]] * 5)).endswith(", ...")
    assert len(impl.History([])) == 0
    one = impl.History([[]])
    for token in (3, np.int64(4), np.array(5), [6]):
        one.append(token)
    assert one.tokens(0).tolist() == [3, 4, 5, 6]


def test_the_state_is_that_of_the_token_appended(impl):
    sampler, history = Sampler(AdaptiveP(0.5, 0.5)), impl.History([[0], [1]])
    logits = np.log([[0.25, 0.75], [0.25, 0.75]])
    first = sampler(logits, history, 1)
    assert [history.state(i) for i in range(2)] == [(), ()]  # a call changes nothing
    np.testing.assert_array_equal(sampler(logits, history, 1), first)
    history.append([first[0], 1 - first[1]])
    p = [0.25, 0.75][first[0]]
    assert history.state(0) == pytest.approx((p + 0.5 * 1.0, 1 + 0.5 * 2), rel=1e-15)
    assert history.state(1) == ()  # another token than the one drawn
    history.append([0, 0])
    assert history.state(0) != ()
    history.reset(0)
    assert history.state(0) == ()
    with pytest.raises(ValueError, match=r"^ids is no History; allowed with AdaptiveP\(0.5, decay"):
        sampler(logits, [[0], [1]])
    sampler.candidates(logits[0], [0])  # looks at the beginning


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda h: h.append([1]), ValueError, r"ids has shape \(1,\); allowed are \(2,\)"),
        (lambda h: h.append([1, -2]), ValueError, "ids has -2; allowed are token ids from 0, a"),
        (lambda h: h.append([1, 0.5]), TypeError, "ids (is|has) .*; allowed are integers"),
        (lambda h: h.append([True, 1]), TypeError, "ids has dtype bool; allowed are integers"),
        (lambda h: h.append(np.uint64([1, 2**63])), ValueError, f"ids has {2**63}; allowed are"),
        (lambda h: h.reset(2), ValueError, "row is 2; allowed is 0 to 1"),
        (lambda h: h.reset(True), TypeError, "row is True; allowed are integers"),
        (lambda h: h.reset(0, [-1]), ValueError, "prompt has -1; allowed are token ids from 0"),
        (lambda h: h.reset(0, [[1]]), ValueError, r"prompt has shape \(1, 1\); allowed is a seq"),
        (lambda h: h.reset(0, "12"), TypeError, "prompt is '12'; allowed is a sequence of token"),
        (lambda h: h.tokens(-1), ValueError, "row is -1; allowed is 0 to 1"),
        (lambda h: h.prompt(9), ValueError, "row is 9; allowed is 0 to 1"),
        (lambda h: h.state(9), ValueError, "row is 9; allowed is 0 to 1"),
        (lambda h: h.counts(0, -1), ValueError, "last is -1; allowed is 0 and above"),
        (lambda h: h.counts(0, None, 1), TypeError, "prompt is 1; allowed are True and False"),
        (lambda h: type(h)(5), TypeError, "prompts is 5; allowed are sequences of token ids"),
        (lambda h: type(h)([[1], 2]), ValueError, r"prompts\[1\] has shape \(\); allowed is a"),
        (lambda h: type(h)([[1], ["a"]]), TypeError, r"prompts\[1\] has dtype <U1; allowed are"),
        (lambda h: Sampler()([[1.0]], h), ValueError, "ids is a history of 2 rows; logits has 1"),
        (lambda h: Sampler()(np.ones((2, 3)), h), ValueError, r"ids has 7 in row \(1,\); allowed"),
        (lambda h: Sampler()(np.ones((2, 9)), h, prompt=1), ValueError, "prompt is 1; allowed wi"),
    ],
)  # fmt: skip
def test_what_is_wrong_changes_nothing(impl, call, error, message):
    history = impl.History([[1, 2], [7]])
    with pytest.raises(error, match=message):
        call(history)
    assert [history.tokens(i).tolist() for i in range(2)] == [[1, 2], [7]]


@pytest.mark.slow_reference
def test_many_threads_may_use_one_history(impl):
    history, sampler = impl.History([[1, 2, 3]] * 4), Sampler(*STEPS)
    logits = np.random.default_rng(0).normal(size=(4, 10))

    def work():
        for _ in range(20):
            sampler(logits, history, 1)
            history.append([1, 2, 3, 4])
            history.counts(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [history.tokens(i).size for i in range(4)] == [83] * 4


def test_examples_of_the_docstring():
    failed, tried = doctest.testmod(importlib.import_module("fastsoftmax._front.history"))
    assert tried > 5
    assert failed == 0
