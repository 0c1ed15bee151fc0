"""Mirostat and AdaptiveP: their formulas by hand, and the average that they aim at."""

import math

import numpy as np
import pytest

from fastsoftmax import History, Sampler
from fastsoftmax._sampler import program
from fastsoftmax.steps import (
    AdaptiveP,
    Candidates,
    DynamicTemperature,
    MinP,
    Mirostat,
    Tokens,
    TopK,
    TopP,
)


def seen(sampler, row, state=()):
    """Return what a sampler's steps leave of a row after a state: a dict of probabilities."""
    history = History([[]])
    if state:
        history._pend(0, 0, state)
        history.append([0])
    return dict(zip(*map(np.ndarray.tolist, sampler.candidates(row, history)), strict=True))


HALVES = np.log(2.0 ** -np.arange(1, 9))  # token i has a surprise of about i + 1 bits
HALVES[-1] = HALVES[-2]  # so that they sum to 1


@pytest.mark.parametrize(("mu", "kept"), [(0.5, 1), (1.5, 1), (2.5, 2), (6.9, 6), (7.1, 8)])
def test_mirostat_keeps_what_surprises_little(impl, mu, kept):
    assert list(seen(Sampler(Mirostat()), HALVES, (mu,))) == list(range(kept))
    assert list(seen(Sampler(Mirostat(tau=mu / 2)), HALVES)) == list(range(kept))


def test_mirostat_follows_the_surprise_among_those_kept(impl):
    history = Tokens(np.empty(0, np.int64), 0)
    for token, surprise in (0, math.log2(1.5)), (1, math.log2(3)):
        (mu,) = next_state(Mirostat(1.1, 0.25), HALVES, history, token)  # mu 2.2 keeps two
        assert mu == pytest.approx(2.2 - 0.25 * (surprise - 1.1), rel=1e-14)
    (mu,) = next_state(
        Mirostat(2.0, 0.25), HALVES, Tokens(history.ids, 0, (1.2,)), 0
    )  # one is kept: no surprise
    assert mu == pytest.approx(1.2 - 0.25 * (0 - 2.0), rel=1e-14)


def next_state(step, row, tokens, token):
    """Return the state of a step after `token`, called with all of a row."""
    left = Candidates(np.arange(row.size), row.astype(float), tokens, 2.0**-52, iter(()))
    return step.next_state(left, token)


def test_adaptive_p_scores_by_the_distance_to_what_it_aims_at(impl):
    p = np.array([0.5, 0.3, 0.15, 0.05])
    for target, state in [(0.3, ()), (0.3, (1.0, 4.0)), (0.9, (0.1, 1.0)), (0.1, (9.0, 10.0))]:
        average = state[0] / state[1] if state else target
        aim = min(max(2 * target - average, 0), 1)
        d = np.abs(p - aim) / 0.3
        weights = np.exp(5 - 10 * d**2 / (1 + d))
        got = seen(Sampler(AdaptiveP(target)), np.log(p), state)
        np.testing.assert_allclose([got[i] for i in range(4)], weights / weights.sum(), rtol=1e-12)
    tokens = Tokens(np.empty(0, np.int64), 0)
    assert next_state(AdaptiveP(0.4, 0.75), np.log(p), tokens, 2) == pytest.approx(
        (0.15 + 0.75 * 0.4 / 0.25, 1 + 0.75 / 0.25), rel=1e-14
    )


STATES = [
    [TopK(30), Mirostat(2.0, 0.5)],
    [Mirostat(1.0, 0.2)],
    [MinP(0.02), AdaptiveP(0.2, 0.8)],
    [AdaptiveP(0.01)],
]


@pytest.mark.parametrize("method", ["inverse", pytest.param("race", marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", STATES, ids=str)
def test_the_compiled_steps_draw_and_remember_what_the_readable_ones_do(impl, steps, method):
    sampler, rng = Sampler(*steps), np.random.default_rng(5)
    assert program.chains is None or all(sampler.compiled)
    one, two = History([[1], [2, 3]]), History([[1], [2, 3]])
    for i in range(4):
        x = rng.normal(0, 3, (2, 400)).astype("float32" if i % 3 else "float64")
        x[:, 100 if i % 2 else 400 :] = -np.inf
        where = {"seed": [3, i], "position": i, "method": method, "logprobs": 1}
        got = sampler(x, one, **where)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(program, "chains", None)
            want = sampler(x, two, **where)
        assert got.ids.tolist() == want.ids.tolist()
        np.testing.assert_allclose(got.filtered_logprobs, want.filtered_logprobs, rtol=1e-5)
        other = [int(got.ids[0]), int(got.ids[1]) if i % 4 else 7]  # 7 where a grammar refuses it
        for history in (one, two):
            history.append(other)
        for row in range(2):
            assert one.state(row) == pytest.approx(two.state(row), rel=1e-12)
        np.testing.assert_allclose(sampler.filter(x, one), sampler.filter(x, two), rtol=1e-12)


def test_equal_tokens_at_the_edge_of_mirostat():
    """Of 2**k equal ones each has a surprise of k bits."""
    for k, kept in ((3, 8), (10, 1024), (11, 1)):
        row = np.zeros((1, 2**k))
        for history in ([[]], History([[]])):
            left = Sampler(Mirostat(5.0)).filter(row, history)
            assert np.isfinite(left).sum() == kept


def test_a_dynamic_temperature_is_that_of_the_readable_chain():
    for n in (1, 2, 300):
        x = np.random.default_rng(n).normal(0, 3, (4, n))
        x[1], x[2, ::2] = 1.0, -np.inf
        for step in (DynamicTemperature(1.0, 0.5), DynamicTemperature(0.3, 2.0, 1.7)):
            for steps in ([step], [TopK(40), step], [step, TopP(0.9)]):
                got = Sampler(*steps)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(program, "chains", None)
                    scores, ids = got.filter(x[: 2 if n == 1 else 4]), got(x[:2], rng=3)
                np.testing.assert_allclose(got.filter(x[: 2 if n == 1 else 4]), scores, rtol=1e-12)
                assert got(x[:2], rng=3).tolist() == ids.tolist()


def average(sampler, figure):
    """Return the mean of what `figure` says of the tokens drawn from changing rows."""
    rng, history, found = np.random.default_rng(4), History([[]]), []
    for row in rng.normal(0, 3, (400, 1, 200)):
        (token,) = sampler(row, history, rng)
        found.append(figure(row[0], token))
        history.append([token])
    return np.mean(found[50:])


@pytest.mark.slow
@pytest.mark.best_alone
@pytest.mark.parametrize("tau", [1.0, 2.0, 3.0])
def test_the_surprise_is_what_was_asked_on_average(impl, tau):
    sampler = Sampler(Mirostat(tau, 0.1))

    def surprise(row, token):
        left = seen(sampler, row, mu)
        (mu[0],) = next_state(sampler.steps[0], row, Tokens(np.empty(0, int), 0, tuple(mu)), token)
        return -math.log2(left[token])

    mu = [2 * tau]
    assert average(sampler, surprise) == pytest.approx(tau, abs=0.1)


@pytest.mark.slow
@pytest.mark.best_alone
@pytest.mark.parametrize("target", [0.1, 0.2, 0.3])
def test_the_probability_is_near_what_was_asked_on_average(impl, target):
    def likely(row, token):
        return seen(Sampler(TopK(6)), row)[token]

    assert average(Sampler(TopK(6), AdaptiveP(target)), likely) == pytest.approx(target, abs=0.06)
    assert average(Sampler(TopK(6)), likely) > 0.33
