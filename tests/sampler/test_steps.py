"""Sampler: each step and any order of them, against a plain oracle; what runs on few tokens."""

import dataclasses
import math
import re
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

from fastsoftmax import Sampler
from fastsoftmax.steps import (
    DRY,
    XTC,
    AllowedTokens,
    BadWords,
    DynamicTemperature,
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
    Step,
    SuppressTokens,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
)

# ---- the oracle: a dict of what is left, in plain Python -----------------------------------------


def best_first(left):
    return sorted(left, key=lambda i: (-left[i], i))


def probabilities(left):
    highest = max(left.values())
    weights = {i: math.exp(s - highest) for i, s in left.items()}
    total = math.fsum(weights.values())
    return {i: w / total for i, w in weights.items()}


def entropy(left):
    return -math.fsum(p * math.log(p) for p in probabilities(left).values() if p)


def shortest(order, p, mass):
    """Return how many of `order` it takes for their probabilities to reach `mass`."""
    for count in range(1, len(order) + 1):
        if math.fsum(p[i] for i in order[:count]) >= mass * (1 - 4 * EPS):
            return count
    return len(order)


EPS = float(np.finfo(np.float32).eps)


def expected(step, left, ids, prompt, u):
    """Return what one step leaves, as its docstring says it."""
    order, p, highest = best_first(left), probabilities(left), max(left.values())
    kept = set(left)
    match step:
        case Temperature(temperature=0):
            kept = {order[0]}
        case Temperature(temperature=t):
            return {i: s / t for i, s in left.items()}
        case TopK(k=k, ties="index", min_keep=least):
            kept = set(order[: max(k, least)])
        case TopK(k=k, min_keep=least):
            kth = left[order[: max(k, least)][-1]]
            kept = {i for i in left if left[i] >= kth}
        case TopP(p=mass, min_keep=least):
            if mass < 1:
                kept = set(order[: max(shortest(order, p, mass), least)])
        case MinP(p=share, min_keep=least):
            floor = highest + math.log(share) if share else -math.inf
            kept = set(order[:least]) | {i for i in left if left[i] >= floor}
        case TypicalP(p=mass, ties=ties, min_keep=least):
            total = math.log(math.fsum(math.exp(s - highest) for s in left.values()))
            h = entropy(left)
            far = {i: abs(-(s - highest - total) - h) for i, s in left.items()}
            closest = sorted(left, key=lambda i: (far[i], i))
            if mass < 1:
                closest = closest[: max(shortest(closest, p, mass), least)]
                kept = set(closest)
                if ties == "all":
                    kept = {i for i in left if far[i] <= far[closest[-1]]}
        case TopNSigma(n=n):
            kept = {i for i in left if left[i] >= highest - n * np.std(list(left.values()))}
        case Epsilon(epsilon=epsilon, min_keep=least):  # and Eta
            if isinstance(step, Eta):
                epsilon = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy(left)))
            kth = left[order[:least][-1]]
            kept = {i for i in left if p[i] >= epsilon or left[i] >= kth}
        case XTC(probability=chance, threshold=threshold, min_keep=least, exempt=exempt):
            top = [i for i in order if p[i] >= threshold]
            if u < chance and len(top) > 1 and len(left) - len(top) + 1 >= least:
                kept -= set(top[:-1]) - set(exempt)
        case RepetitionPenalty() | FrequencyPenalty() | PresencePenalty():
            seen = ids if step.prompt else ids[prompt:]
            seen = Counter(seen if step.last is None else seen[max(len(seen) - step.last, 0) :])
            for i in seen.keys() & left.keys() - set(step.exempt):
                if isinstance(step, RepetitionPenalty):
                    left = left | {i: left[i] * step.penalty ** (-1 if left[i] > 0 else 1)}
                else:
                    times = seen[i] if isinstance(step, FrequencyPenalty) else 1
                    left = left | {i: left[i] - step.penalty * times}
        case DRY():
            lengths = repetitions(step, ids)
            for i in lengths.keys() & left.keys():
                power = min(lengths[i] - step.allowed_length, int(88.7228391 / math.log(step.base)))
                left = left | {i: left[i] - step.multiplier * step.base**power}
        case NoRepeatNGram(n=n):
            kept -= {ids[j] for j in range(n - 1, len(ids)) if ends(ids, ids[j - n + 1 : j])}
        case BadWords(words=words):
            past = ids if step.prompt else ids[prompt:]
            kept -= {word[-1] for word in words if ends(past, word[:-1])}
        case SequenceBias(bias=pairs):
            past = ids if step.prompt else ids[prompt:]
            for word, bias in pairs:
                if ends(past, word[:-1]) and word[-1] in left:
                    left = left | {word[-1]: left[word[-1]] + bias}
            kept = {i for i in left if left[i] > -math.inf}
        case MinLength(length=length, ids=banned):
            if (len(ids) if step.prompt else len(ids) - prompt) < length:
                kept -= set(banned)
        case DynamicTemperature(temperature=t, range=r, exponent=power):
            if len(left) > 1:
                share = entropy(left) / math.log(len(left))
                low = max(t - r, 0)
                return {i: s / (low + (t + r - low) * share**power) for i, s in left.items()}
        case SoftCap(cap=cap):
            return {i: cap * math.tanh(s / cap) for i, s in left.items()}
        case LogitBias(bias=bias):
            left = {i: s + dict(bias).get(i, 0) for i, s in left.items()}
            kept = {i for i in left if left[i] > -math.inf}
        case SuppressTokens(ids=banned):
            kept -= set(banned)
        case AllowedTokens(ids=allowed):
            kept &= set(allowed)
        case _:
            raise NotImplementedError(step)
    return {i: left[i] for i in left if i in kept}


def ends(ids, word):
    """Return whether the tokens `ids` end with those of `word`."""
    return not word or list(ids[-len(word) :]) == list(word)


def repetitions(step, ids):
    """Return the tokens that DRY penalises, and the longest repetition that each continues."""
    ids = ids if step.last is None else ids[max(len(ids) - step.last, 0) :]
    starts = [
        i for i in range(len(ids)) if any(tuple(ids[i : i + len(b)]) == b for b in step.breakers)
    ]
    limit = len(ids)
    if starts:
        longest = max(len(b) for b in step.breakers if tuple(ids[starts[-1] :][: len(b)]) == b)
        limit = len(ids) - starts[-1] - longest
    lengths = {}
    for j in range(1, len(ids)):
        same = [n for n in range(step.allowed_length, j + 1) if ends(ids, ids[j - n : j])]
        best = min(max(same, default=0), limit)
        alone = (ids[j],) in step.breakers or ids[j] in step.exempt
        if best >= step.allowed_length and not alone:
            lengths[ids[j]] = max(lengths.get(ids[j], 0), best)
    return lengths


def run_oracle(steps, row, ids, prompt, uniforms):
    left = {i: float(s) for i, s in enumerate(row) if s > -np.inf}
    for step in steps:
        left = expected(step, left, ids, prompt, uniforms.pop(0) if step.uniforms else None)
        if not left:
            break
    return left


# ---- random chains -------------------------------------------------------------------------------


def some_step(rng, n):
    """Return a random step for a vocabulary of `n`."""
    ties = str(rng.choice(["index", "all"]))
    least = int(rng.integers(1, 5))
    few = rng.integers(0, n, rng.integers(0, 6)).tolist()
    last = [None, 0, 3, 20][rng.integers(4)]
    prompt = bool(rng.integers(2))
    exempt = few if rng.random() < 0.3 else ()
    words = [rng.integers(0, n, rng.integers(1, 4)).tolist() for _ in range(3)]
    return [
        lambda: Temperature(rng.uniform(0.2, 3)),
        lambda: Temperature(0 if rng.random() < 0.2 else 1),
        lambda: TopK(int(rng.integers(1, 60)), ties, least),
        lambda: TopK(int(rng.integers(1, 12)), ties),
        lambda: TopP(rng.uniform(0, 1), least),
        lambda: MinP(rng.uniform(0, 0.3), least),
        lambda: TypicalP(rng.uniform(0.05, 1), ties, least),
        lambda: TopNSigma(rng.uniform(0, 4)),
        lambda: Epsilon(rng.uniform(0, 0.1), least),
        lambda: Eta(rng.uniform(0, 0.1), least),
        lambda: XTC(rng.uniform(0.5, 1), rng.uniform(0, 0.3), least, exempt),
        lambda: RepetitionPenalty(rng.uniform(0.5, 2), last, prompt, exempt),
        lambda: FrequencyPenalty(rng.uniform(-1, 2), last, prompt, exempt),
        lambda: PresencePenalty(rng.uniform(-1, 2), last, prompt, exempt),
        lambda: DRY(rng.uniform(0, 2), rng.uniform(1.1, 3), least, last, words[1:], exempt),
        lambda: NoRepeatNGram(int(rng.integers(1, 4))),
        lambda: BadWords(words, prompt),
        lambda: SequenceBias({tuple(w): rng.normal(0, 5) for w in words}, prompt),
        lambda: MinLength(int(rng.integers(0, 30)), few, prompt),
        lambda: DynamicTemperature(rng.uniform(0.1, 2), rng.uniform(0, 2), rng.uniform(0.2, 2)),
        lambda: SoftCap(rng.uniform(3, 30)),
        lambda: LogitBias({i: rng.normal(0, 5) for i in few}),
        lambda: SuppressTokens(few),
        lambda: AllowedTokens({*few, *rng.integers(0, n, 40).tolist()}),
    ][rng.integers(24)]()


def some_row(rng, n):
    row = rng.normal(0, rng.choice([0.5, 3.0]), n)
    if rng.random() < 0.4:
        row = row.round()  # many ties
    row[rng.random(n) < rng.choice([0, 0, 0.5])] = -np.inf
    row[rng.integers(n)] = 1.0
    return row.astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 7, 60, 900])
def test_any_chain_does_what_its_steps_say(impl, n):
    for seed in range(60 if n < 900 else 25):
        rng = np.random.default_rng([seed, n])
        row = some_row(rng, n)
        steps = [some_step(rng, n) for _ in range(rng.integers(1, 7))]
        ids = rng.integers(0, n, rng.integers(0, 40)).tolist()
        prompt = int(rng.integers(0, len(ids) + 1))
        sampler = Sampler(*steps)
        uniforms = np.random.default_rng(seed).random(sum(s.uniforms for s in steps)).tolist()
        want = run_oracle(steps, row, ids, prompt, uniforms)
        if not want:
            with pytest.raises(ValueError, match=r"leaves nothing of (the )?row"):
                sampler.candidates(row, ids, seed, prompt=prompt)
            continue
        got = sampler.candidates(row, ids, seed, prompt=prompt)
        assert got.indices.tolist() == best_first(want), (seed, sampler)
        p = probabilities(want)
        np.testing.assert_allclose(got.probs, [p[i] for i in got.indices], rtol=1e-12)
        assert got.indices.dtype == np.int64
        assert got.probs.dtype == np.float64


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_few_candidates_give_what_the_whole_row_gives(impl, dtype):
    """`candidates` may start from few tokens; `trace` never does."""
    n = 4000
    for seed in range(60):
        rng = np.random.default_rng([seed, 5])
        row = some_row(rng, n).astype(dtype)
        steps = [some_step(rng, n) for _ in range(rng.integers(0, 5))] + [TopK(9, "all")]
        steps += [some_step(rng, n) for _ in range(rng.integers(0, 3))]
        ids = rng.choice(np.argsort(-row)[:60], 50)  # what matters most is what changes
        sampler = Sampler(*steps)
        try:
            got = sampler.candidates(row, ids, seed)
        except ValueError as error:
            with pytest.raises(ValueError, match=f"^{re.escape(str(error))}$"):
                sampler.trace(row, ids, seed)
            continue
        want = sampler.trace(row, ids, seed)[-1].candidates
        np.testing.assert_array_equal(got.indices, want.indices, err_msg=str((seed, sampler)))
        np.testing.assert_array_equal(got.probs, want.probs)


@dataclasses.dataclass(frozen=True)
class Seen(Step):
    """Remember how many tokens there are."""

    sizes: list
    order_preserving: ClassVar[bool] = True

    def __call__(self, left):
        self.sizes.append(left.ids.size)
        return left


@pytest.mark.parametrize(
    ("steps", "most"),
    [
        ([Temperature(0.7), TopK(50)], 51),
        ([Temperature(0.7), TopK(50, "all")], 51),
        ([Temperature(0.7), MinP(0.05)], 31),
        ([RepetitionPenalty(1.2), FrequencyPenalty(0.3), TopK(40)], 51 + 200),
        ([LogitBias({3: 1.0, 4: -2.0}), SuppressTokens([7, 8]), TopK(10)], 15 + 4),
        ([Temperature(0)], 2),
        ([Temperature(2), MinP(0.001), TopK(60)], 8 * 31),  # min-p leaves many, top-k does not
        ([MinP(0.1, min_keep=30), TopK(10)], 31),
    ],
    ids=str,
)
def test_steps_that_come_first_run_on_few(impl, steps, most):
    rng = np.random.default_rng(0)
    n = 20_000 if impl.NAME == "reference" else 120_000
    row = rng.gumbel(0, 1.2, n).astype(np.float32)
    ids = rng.integers(0, 5000, 200)
    few, whole = [], []
    Sampler(Seen(few), *steps).candidates(row, ids)
    assert 0 < max(few) <= most
    Sampler(Seen(whole), TopNSigma(1), *steps).candidates(row, ids)
    assert whole == [n]  # that step needs all


def test_allowed_first_looks_at_nothing_else():
    row = np.zeros(1000)
    sizes = []
    sampler = Sampler(AllowedTokens(range(10)), Seen(sizes), TypicalP(0.9))
    assert sampler.candidates(row).indices.tolist() == list(range(9))
    assert Sampler(Seen(sizes), *sampler.steps).candidates(row).indices.tolist() == list(range(9))
    assert sizes == [10, 1000, 10]
    row[:10] = -np.inf
    with pytest.raises(ValueError, match=r"leaves nothing of (the )?row"):
        sampler.candidates(row)


def test_few_candidates_when_the_best_are_named():
    row = np.zeros(5000, dtype=np.float32)
    row[100:200] = np.arange(100, 0, -1)
    for sampler, ids, want in [
        (Sampler(LogitBias({4999: 500.0}), TopK(2)), [], [4999, 100]),
        (Sampler(SuppressTokens(range(100, 150)), TopK(2)), [], [150, 151]),
        (Sampler(RepetitionPenalty(1000.0), TopK(2)), range(100, 190), [190, 191]),
        (Sampler(FrequencyPenalty(200.0), TopK(2)), [*range(100, 200)] * 2, [0, 1]),
        (Sampler(SuppressTokens([100]), Temperature(0)), [], [101]),
        (Sampler(LogitBias({100: -np.inf, 0: -1}), MinP(0.5, 3), TopK(1)), [], [101]),
    ]:
        assert sampler.candidates(row, ids).indices.tolist() == want, sampler


def test_few_candidates_are_enough_for_min_keep():
    """Token 34 is gone before its bias comes: 30 others are better."""
    row = -np.arange(5000, dtype=np.float32)
    for least, want in (30, [0, 1]), (40, [34, 0]):
        sampler = Sampler(MinP(0.9, least), LogitBias({34: 100.0}), TopK(2))
        assert sampler.candidates(row).indices.tolist() == want
        assert sampler.trace(row)[-1].candidates.indices.tolist() == want


def test_few_candidates_are_enough_for_a_later_top_k():
    """Min-p removes none of the first 31; the bias comes when token 150 is gone."""
    row = -np.arange(5000, dtype=np.float32) / 1000
    sampler = Sampler(MinP(0.5), TopK(100), LogitBias({150: 5.0}), TopK(1))
    assert sampler.candidates(row).indices.tolist() == [0]


def test_equal_scores_need_no_more():
    sizes = []
    row = np.zeros(5000, dtype=np.float32)
    kept = Sampler(Seen(sizes), Temperature(3), TopK(5)).candidates(row)
    assert kept.indices.tolist() == [0, 1, 2, 3, 4]
    assert sizes == [6]


def test_float64_scores_that_a_division_rounds_to_equal_ones():
    """Token 5 differs from the best two in the last bit; divided, it does not, and wins."""
    row = np.zeros(1000)
    t = next(t for t in np.arange(1.1, 9, 0.1) if np.nextafter(3, 0) / t == 3 / t)
    row[5], row[900:902] = np.nextafter(3, 0), 3
    sampler = Sampler(Temperature(t), TopK(1))
    assert sampler.candidates(row).indices.tolist() == [5]
    assert sampler.trace(row)[-1].candidates.indices.tolist() == [5]


def test_top_p_before_top_k_is_the_joint_filter():
    """Both of the same probabilities: those of the k best are not renormalised for top-p."""
    row = np.log(np.float32([0.4, 0.2, 0.2, 0.1, 0.1]))
    for p, k, want in [(0.5, 2, [0, 1]), (0.7, 2, [0, 1]), (0.3, 2, [0]), (0.7, 4, [0, 1, 2])]:
        assert Sampler(TopP(p), TopK(k)).candidates(row).indices.tolist() == want
    assert Sampler(TopK(2), TopP(0.61)).candidates(row).indices.tolist() == [0]  # 0.4 of 0.6
