"""Sampler: the steps before one of a user's own run compiled, and what runs in Python is said."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax import History, Sampler, steps
from fastsoftmax.steps import (
    XTC,
    FrequencyPenalty,
    MinP,
    Mirostat,
    RepetitionPenalty,
    Step,
    Temperature,
    TopK,
    TopP,
)
from tests.sampler.test_compiled import (
    CHAINS,
    HISTORIES,
    LENGTHS,
    hard_row,
    outcome,
    readable,
    rows,
)


@dataclass(frozen=True, repr=False)
class Mine(Step):
    """Keep the tokens with even ids, and what a number of its own leaves of the others."""

    uniforms = 1

    def __call__(self, left):
        u = left.uniform()
        return left.keep((left.ids % 2 == 0) | (left.probs > u))


@dataclass(frozen=True, repr=False)
class Preserving(Step):
    order_preserving = True

    def __call__(self, left):
        return left.with_scores(left.scores * 2)


@pytest.fixture
def impl(compiled):
    """Each implementation that has kernels: the reference runs the readable chain."""
    return compiled


@given(CHAINS, CHAINS, rows(LENGTHS), HISTORIES, st.sampled_from([Mine(), Preserving()]))
@settings(max_examples=25)
def test_any_steps_before_and_after_one_of_ones_own(first, second, row, history, own):
    sampler = Sampler(*first.steps, own, *second.steps)
    assert sampler.compiled[len(first.steps) :] == (False,) * (1 + len(second.steps))
    x = np.tile(row.astype(np.float32), (3, 1))
    got = outcome(sampler, x, [history] * 3, prompt=min(3, len(history)))
    assert got == readable(sampler, x, [history] * 3, prompt=min(3, len(history)))


BEFORE = [
    [RepetitionPenalty(1.4), TopK(30)],
    [XTC(0.5, 0.02), Temperature(0.7), TopP(0.9), XTC(0.5, 0.1)],
    [MinP(0.05)],
    [FrequencyPenalty(0.5), Temperature(0)],
]


@pytest.mark.parametrize("before", BEFORE, ids=str)
def test_the_first_steps_run_compiled(before, monkeypatch):
    sampler = Sampler(*before, Mine(), TopK(20))
    assert sampler.compiled == (*[True] * len(before), False, False)
    x = np.array([np.roll(hard_row(5000, "float32"), i) for i in range(3)])
    ids, mask = [[3, 3, 9], [], [7]], np.arange(5000) % 7 > 1
    calls = [
        lambda: sampler(x, ids, seed=3, position=[1, 2, 3], mask=mask, logprobs=2)[0],
        lambda: sampler(x, History(ids), 5),
        lambda: sampler(x, ids, seed=3, position=4, method="race"),
        lambda: sampler(x, ids, 5, accept=lambda row, i: i % 3 == 1, on_invalid="flag"),
        lambda: sampler.filter(x[0], ids[0], 5),
        lambda: Sampler.batch([sampler, Sampler(TopK(5)), Sampler(Mine())])(x, ids, 5),
    ]
    want = []
    with monkeypatch.context() as patch:
        patch.setattr("fastsoftmax._sampler.program.chains", None)
        want = [call() for call in calls]
        patch.undo()
    with monkeypatch.context() as patch:
        patch.setattr("fastsoftmax._sampler.execution.SamplerCall._run_on_few", None)
        for call, expected in zip(calls[:-1], want, strict=False):  # Mine() alone is in Python
            np.testing.assert_array_equal(call(), expected)
    np.testing.assert_array_equal(calls[-1](), want[-1])


def test_the_first_steps_of_each_row_run_compiled(monkeypatch):
    chain = [RepetitionPenalty([1.4, 1.0, 2.0]), MinP([0.05, 0.0, 0.3]), TopK([30, 9, 300])]
    sampler, other = (Sampler(*chain, Mine(), TopP([0.9, 0.5, 1.0])) for _ in range(2))
    assert sampler.compiled == (True, True, True, False, False)
    x = np.array([np.roll(hard_row(5000, "float32"), i) for i in range(3)])
    ids = [[3, 3, 9], [], [7]]
    calls = [
        lambda s: s(x, ids, 5),
        lambda s: s(x, ids, seed=3, position=[1, 2, 3], method="race"),
        lambda s: s(x, ids, 5, accept=lambda row, i: i % 3 == row, on_invalid="flag"),
        lambda s: s.filter(x, ids, 5),
    ]
    with monkeypatch.context() as patch:
        patch.setattr("fastsoftmax._sampler.program.chains", None)
        want = [call(other) for call in calls]
    with monkeypatch.context() as patch:
        patch.setattr("fastsoftmax._sampler.execution.SamplerCall._run_on_few", None)
        for call, expected in zip(calls, want, strict=True):
            np.testing.assert_array_equal(call(sampler), expected)


def test_what_is_not_worth_it_runs_in_python():
    for chain in ([Temperature(0.5), Mine()], [Mine(), TopK(3)], [MinP([0.0, 0.0]), Mine()]):
        assert Sampler(*chain).compiled == (False,) * 2
    assert Sampler(TopK(3), Mirostat(), TopP(0.9)).compiled == (True, False, False)
    assert Sampler(TopK(3), TopP(0.9), Mirostat()).compiled == (True,) * 3


def test_repr_and_trace_say_what_runs_in_python():
    sampler, plain = Sampler(TopK(3), Mine(), TopP(0.9)), Sampler(TopK(3))
    assert repr(sampler) == "Sampler(TopK(3), Mine(), TopP(0.9))  # in Python: Mine(), TopP(0.9)"
    assert repr(plain) == "Sampler(TopK(3))"
    batch = Sampler.batch([sampler, plain, Sampler(Mine())])
    assert repr(batch) == (
        "Sampler.batch([Sampler(TopK(3), Mine(), TopP(0.9)), Sampler(TopK(3)), Sampler(Mine())])"
        "  # in Python: Mine(), TopP(0.9)"
    )
    for one in (sampler, batch):
        assert eval(repr(one), vars(steps) | {"Sampler": Sampler, "Mine": Mine}) == one
    trace = sampler.trace([1.0, 2.0, 3.0, 4.0], rng=0)
    assert [stage.compiled for stage in trace] == [True, True, False, False]
    names = [line[:22].strip() for line in repr(trace).splitlines()[1:]]
    assert names == ["as scored", "TopK(3)", "Mine(), in Python", "TopP(0.9), in Python"]
    assert "in Python" not in repr(plain.trace([1.0, 2.0]))


def test_without_kernels_nothing_is_marked(monkeypatch):
    monkeypatch.setattr("fastsoftmax._sampler.program.chains", None)
    sampler = Sampler(TopK(3), Mine())
    assert sampler.compiled == (False, False)
    assert repr(sampler) == "Sampler(TopK(3), Mine())"
    assert all(stage.compiled for stage in sampler.trace([1.0, 2.0], rng=0))
