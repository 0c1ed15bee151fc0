"""Sampler.hf, .vllm, .llama_cpp, .mlx_lm: the systems' own test cases, defaults and order.

Cases are taken from llama.cpp's tests/test-sampling.cpp and transformers'
tests/generation/test_logits_process.py; names in comments are those of the functions there.
"""

import inspect
import itertools
import math

import numpy as np
import pytest

from fastsoftmax import Sampler
from fastsoftmax.steps import (
    DRY,
    XTC,
    AdaptiveP,
    AllowedTokens,
    BadWords,
    DynamicTemperature,
    Epsilon,
    Eta,
    FrequencyPenalty,
    LogitBias,
    MinLength,
    MinP,
    Mirostat,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
    SequenceBias,
    SuppressTokens,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
)


def logs(probs):
    with np.errstate(divide="ignore"):
        return np.log(np.float32(probs))


def left(sampler, row, ids=(), rng=0):
    """Return the probabilities that a sampler leaves, 0 where it removes."""
    kept = sampler.candidates(row, ids, rng)
    probs = np.zeros(len(row))
    probs[kept.indices] = kept.probs
    return probs


# ---- llama.cpp -----------------------------------------------------------------------------------

FOUR = [0.1, 0.2, 0.3, 0.4]
XTC_ROW = [0.4, 0.3, 0.2, 0.1]
FIVE = [0.2] * 5
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temp": 1.0}


@pytest.mark.parametrize(
    ("probs", "parameters", "ids", "want"),
    [
        # test_temp
        (FOUR, {"temp": 1.0}, (), FOUR),
        (FOUR, {"temp": 0.0}, (), [0, 0, 0, 1]),
        (FOUR, {"temp": -1.0}, (), [0, 0, 0, 1]),
        # test_top_k
        (FOUR, {"top_k": 1}, (), [0, 0, 0, 1]),
        (FOUR, {"top_k": 3}, (), [0, 0.22222, 0.33333, 0.44444]),
        (FOUR, {"top_k": 4}, (), FOUR),
        (FOUR, {"top_k": 0}, (), FOUR),
        # test_top_p
        (FOUR, {"top_p": 0.0}, (), [0, 0, 0, 1]),
        (FOUR, {"top_p": 0.7}, (), [0, 0, 0.428571, 0.571429]),
        (FOUR, {"top_p": 0.8}, (), [0, 0.22222, 0.33333, 0.44444]),
        (FOUR, {"top_p": 1.0}, (), FOUR),
        # test_min_p
        (FOUR, {"min_p": 0.0}, (), FOUR),
        (FOUR, {"min_p": 0.24}, (), FOUR),
        (FOUR, {"min_p": 0.26}, (), [0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9]),
        (FOUR, {"min_p": 0.49}, (), [0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9]),
        (FOUR, {"min_p": 0.51}, (), [0, 0, 0.3 / 0.7, 0.4 / 0.7]),
        (FOUR, {"min_p": 0.74}, (), [0, 0, 0.3 / 0.7, 0.4 / 0.7]),
        (FOUR, {"min_p": 0.76}, (), [0, 0, 0, 1]),
        (FOUR, {"min_p": 1.0}, (), [0, 0, 0, 1]),
        # test_xtc (there not renormalised)
        (XTC_ROW, {"xtc_probability": 0.99, "xtc_threshold": 0.09}, (), [0, 0, 0, 1]),
        (XTC_ROW, {"xtc_probability": 0.99, "xtc_threshold": 0.19}, (), [0, 0, 2 / 3, 1 / 3]),
        (XTC_ROW, {"xtc_probability": 0.99, "xtc_threshold": 0.29}, (), [0, 1 / 2, 1 / 3, 1 / 6]),
        (XTC_ROW, {"xtc_probability": 0.99, "xtc_threshold": 0.39}, (), XTC_ROW),
        # test_typical
        ([0.97, 0.01, 0.01, 0.01], {"typ_p": 0.5}, (), [1, 0, 0, 0]),
        ([0.4, 0.2, 0.2, 0.2], {"typ_p": 0.5}, (), [0, 1 / 3, 1 / 3, 1 / 3]),
        # test_penalties
        (FIVE, {"penalty_repeat": 50.0}, [0], [0, 0.25, 0.25, 0.25, 0.25]),
        (FIVE, {"penalty_repeat": 50.0}, [0, 1, 2], [0, 0, 0, 0.5, 0.5]),
        (FIVE, {"penalty_repeat": 50.0}, [0, 1, 2, 0, 0], [0, 0, 0, 0.5, 0.5]),
        (FIVE, {"penalty_freq": 5.0, "penalty_present": 5.0}, [0],
         [0.000011, 0.249997, 0.249997, 0.249997, 0.249997]),
        (FIVE, {"penalty_freq": 5.0, "penalty_present": 5.0}, [0, 1, 2],
         [0.000023, 0.000023, 0.000023, 0.499966, 0.499966]),
        (FIVE, {"penalty_freq": 5.0, "penalty_present": 5.0}, [0, 1, 2, 0, 0],
         [0.000000, 0.000023, 0.000023, 0.499977, 0.499977]),
        # test_dry
        ([0.25] * 4, {"dry_multiplier": 1.0, "dry_base": 1.1, "dry_penalty_last_n": 4}, [0, 1],
         [0.25] * 4),
        ([0.25] * 4, {"dry_multiplier": 1.0, "dry_base": 1.1, "dry_penalty_last_n": 5},
         [0, 1, 2, 0, 1], [0.296923, 0.296923, 0.109232, 0.296923]),
        (FIVE, {"dry_multiplier": 1.0, "dry_base": 1.1, "dry_penalty_last_n": 6,
                "dry_sequence_breakers": [[3]]}, [0, 1, 3, 4, 0, 1], FIVE),
        (FIVE, {"dry_multiplier": 2.0, "dry_base": 1.1, "dry_penalty_last_n": 5}, [0, 1, 2, 0, 1],
         [0.241818, 0.241818, 0.032727, 0.241818, 0.241818]),
        (FIVE, {"dry_multiplier": 1.0, "dry_base": 1.1, "dry_allowed_length": 4,
                "dry_penalty_last_n": 7}, [0, 1, 2, 3, 4, 0, 1], FIVE),
        # test_top_n_sigma
        (FOUR, {"top_n_sigma": 1.0}, (), [0, 0, 0.428571, 0.571429]),
        (FOUR, {"top_n_sigma": 0.0}, (), FOUR),
        (FOUR, {"top_n_sigma": 3.0}, (), FOUR),
    ],
    ids=str,
)  # fmt: skip
def test_cases_of_llama_cpp(probs, parameters, ids, want):
    sampler = Sampler.llama_cpp(**OFF | parameters)
    np.testing.assert_allclose(left(sampler, logs(probs), ids), want, rtol=0, atol=1e-5)


# test_sampler_queue: the score of token i is log(i), so that its share of the mass is known.
QUEUES = [
    ("k", 10000, 1.0, 1.0),
    ("k", 1, 1.0, 1.0),
    ("p", 10000, 1.0, 1.0),
    ("p", 10000, 0.0, 1.0),
    ("m", 10000, 1.0, 1.0),
    ("m", 10000, 1.0, 1e-12),
    ("k", 100, 1.0, 1.0),
    ("p", 10000, 0.0003, 1.0),
    ("p", 10000, 0.8, 1.0),
    ("m", 10000, 1.0, 9997.9 / 9999.0),
    ("m", 10000, 1.0, 0.1),
    ("mp", 100, 0.8, 9997.9 / 9999.0),
    *((*queue, 100, 0.8, 0.1) for queue in [("kp",), ("km",), ("pk",), ("pm",), ("mk",), ("mp",)]),
    *(("".join(queue), 100, 0.8, 0.1) for queue in itertools.permutations("kpm")),
]


@pytest.mark.parametrize(("queue", "k", "p", "m"), QUEUES, ids=str)
def test_queues_of_llama_cpp(queue, k, p, m):
    n = 10_000
    lowest = 1  # of the ids that are left; token 0 has no probability
    for step in queue:
        if step == "k":
            lowest = max(lowest, n - k)
        elif step == "m":  # id >= m * (n - 1)
            lowest = max(lowest, math.ceil(np.float32(m) * (n - 1)))
        else:
            total, reached, i = sum(range(lowest, n)), 0, n
            while i == n or reached < p * total:
                i -= 1
                reached += i
            lowest = i
    steps = {"k": TopK(k), "p": TopP(p), "m": MinP(m)}
    kept = Sampler(*map(steps.get, queue)).candidates(logs(np.arange(n)))
    assert kept.indices.tolist() == list(range(n - 1, lowest - 1, -1))


def test_order_and_defaults_of_llama_cpp():
    """As in common/common.h: struct common_params_sampling."""
    assert Sampler.llama_cpp() == Sampler(TopK(40), TopP(0.95), MinP(0.05), Temperature(0.8))
    assert Sampler.llama_cpp(
        top_k=5, top_p=0.5, min_p=0.1, xtc_probability=0.2, xtc_threshold=0.3, typ_p=0.6, temp=0.0,
        top_n_sigma=2.0, penalty_last_n=9, penalty_repeat=1.1, penalty_freq=0.2,
        penalty_present=0.3, logit_bias={1: 2.0}, min_keep=3, dry_multiplier=0.8,
        dry_sequence_breakers=[5, [6, 7]],
    ) == Sampler(
        LogitBias({1: 2.0}), RepetitionPenalty(1.1, 9), FrequencyPenalty(0.2, 9),
        PresencePenalty(0.3, 9), DRY(0.8, 1.75, 2, 64, [[5], [6, 7]]), TopNSigma(2.0),
        TopK(5), TypicalP(0.6, min_keep=3), TopP(0.5, 3),
        MinP(0.1, 3), XTC(0.2, 0.3, 3), Temperature(0),
    )  # fmt: skip
    assert Sampler.llama_cpp(penalty_repeat=2.0, penalty_last_n=0) == Sampler.llama_cpp()
    assert Sampler.llama_cpp(penalty_repeat=2.0, penalty_last_n=-1).steps[0].last is None
    assert Sampler.llama_cpp(temp=0.5, dynatemp_range=0.3, adaptive_target=0.4).steps[3:] == (
        DynamicTemperature(0.5, 0.3), AdaptiveP(0.4, 0.9)
    )  # fmt: skip
    assert Sampler.llama_cpp(mirostat=2, top_k=5, dry_multiplier=1, logit_bias={2: 1}) == Sampler(
        LogitBias({2: 1}), Temperature(0.8), Mirostat(5.0, 0.1)
    )
    for off in ({"dry_base": 0.9}, {"dry_multiplier": 0.0}, {"dry_penalty_last_n": 0}):
        assert Sampler.llama_cpp(**{"dry_multiplier": 1.0} | off) == Sampler.llama_cpp()
    assert Sampler.llama_cpp(dry_multiplier=1.0, dry_penalty_last_n=-1).steps[0].last is None
    # Defaults of what only another parameter brings in.
    assert Sampler.llama_cpp(penalty_repeat=2.0).steps[0] == RepetitionPenalty(2.0, 64)
    assert Sampler.llama_cpp(xtc_probability=0.5).steps[3] == XTC(0.5, 0.1)


@pytest.mark.parametrize(
    ("preset", "defaults"),
    [
        (Sampler.llama_cpp, {
            "top_k": 40, "top_p": 0.95, "min_p": 0.05, "xtc_probability": 0, "xtc_threshold": 0.1,
            "typ_p": 1, "temp": 0.8, "top_n_sigma": -1, "penalty_last_n": 64, "penalty_repeat": 1,
            "penalty_freq": 0, "penalty_present": 0, "logit_bias": None, "min_keep": 0,
            "dynatemp_range": 0, "dynatemp_exponent": 1, "dry_multiplier": 0, "dry_base": 1.75,
            "dry_allowed_length": 2, "dry_penalty_last_n": 64, "dry_sequence_breakers": (),
            "adaptive_target": -1, "adaptive_decay": 0.9, "mirostat": 0, "mirostat_tau": 5,
            "mirostat_eta": 0.1,
        }),
        (Sampler.hf, {
            "do_sample": True, "temperature": 1, "top_k": 50, "top_p": 1, "min_p": None,
            "typical_p": 1, "epsilon_cutoff": 0, "eta_cutoff": 0, "repetition_penalty": 1,
            "suppress_tokens": None, "begin_suppress_tokens": None, "no_repeat_ngram_size": 0,
            "bad_words_ids": None, "sequence_bias": None, "min_length": 0, "min_new_tokens": 0,
            "eos_token_id": None,
        }),
        (Sampler.vllm, {
            "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1,
            "temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "logit_bias": None,
            "allowed_token_ids": None, "bad_words": None, "min_tokens": 0, "stop_token_ids": None,
        }),
        (Sampler.mlx_lm, {
            "temp": 0, "top_p": 0, "min_p": 0, "min_tokens_to_keep": 1, "top_k": 0,
            "xtc_probability": 0, "xtc_threshold": 0.1, "xtc_special_tokens": None,
            "logit_bias": None, "repetition_penalty": None, "repetition_context_size": 20,
            "presence_penalty": None, "presence_context_size": 20, "frequency_penalty": None,
            "frequency_context_size": 20,
        }),
    ],
    ids=["llama_cpp", "hf", "vllm", "mlx_lm"],
)  # fmt: skip
def test_every_default(preset, defaults):
    found = inspect.signature(preset).parameters
    found = {name: p.default for name, p in found.items() if p.kind is p.KEYWORD_ONLY}
    assert found == defaults


# ---- Hugging Face --------------------------------------------------------------------------------

RAMP = np.arange(10, dtype=np.float32) - 5


@pytest.mark.parametrize(
    ("probs", "step", "want"),
    [
        # test_top_p_dist_warper
        ([0.3, 0.1, 0.1, 0.5], TopP(0.8), [0, 3]),
        ([0.15, 0.3, 0.3, 0.25], TopP(0.8), [1, 2, 3]),
        # test_min_p_dist_warper
        ([0.9, 0.0274, 0.047, 0.0274], MinP(0.05), [0, 2]),
        ([0.15, 0.3, 0.3, 0.25], MinP(0.05), [0, 1, 2, 3]),
        ([0.97, 0.01, 0.01, 0.01], MinP(0.05), [0]),
        # test_typical_dist_warper
        ([0.97, 0.01, 0.01, 0.01], TypicalP(0.5, "all"), [0]),
        ([0.4, 0.2, 0.2, 0.2], TypicalP(0.5, "all"), [1, 2, 3]),
        ([0.2] * 5, TypicalP(0.5, "all", 3), [0, 1, 2, 3, 4]),
        # test_epsilon_dist_warper
        ([0.87, 0.099, 0.001, 0.03], Epsilon(0.1), [0]),
        ([0.4, 0.299, 0.101, 0.2], Epsilon(0.1), [0, 1, 2, 3]),
        # test_eta_dist_warper
        ([0.0, 0.1, 0.8, 0.1], Eta(0.0625), [1, 2, 3]),
        ([0.01, 0.04, 0.9, 0.05], Eta(0.0625), [2]),
        # test_top_k_dist_warper: uniform scores are all kept, and min_keep counts
        ([0.2] * 5, TopK(1, "all", 3), [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_cases_of_transformers(probs, step, want):
    row = logs(probs)
    kept = left(Sampler(step), row)
    assert np.flatnonzero(kept).tolist() == want
    # As there: a filter leaves the scores of what it keeps as they are.
    np.testing.assert_array_equal(Sampler(step).filter(row)[want], row[want])


@pytest.mark.parametrize(
    ("step", "counts"),
    [
        (TopP(0.9, 2), [3, 2]),
        (MinP(0.9, 2), [2, 2]),
        (TypicalP(0.7, min_keep=2), [2, 2]),
        (Epsilon(0.05, 2), [3, 2]),
        (Eta(0.1, 2), [2, 2]),
    ],
    ids=str,
)
def test_ramps_of_transformers(step, counts):
    """The "edge cases with negative and extreme logits" of the same tests."""
    kept = Sampler(step).filter(np.stack([RAMP, RAMP * 100])) > -np.inf
    assert kept.sum(axis=-1).tolist() == counts


def test_repetition_penalty_of_transformers():
    """test_repetition_penalty_dist_process."""
    scores = np.full((2, 10), 0.1)
    scores[0, 0], scores[1, 5] = -0.1, 0.4
    got = Sampler.hf(repetition_penalty=2.0, top_k=0).filter(scores, [[0, 1], [5, 0]])
    want = scores.copy()
    want[0, :2], want[1, [0, 5]] = [-0.2, 0.05], [0.05, 0.2]
    np.testing.assert_allclose(got, want, rtol=1e-15)


def test_order_and_defaults_of_transformers():
    """As in GenerationConfig and GenerationMixin._get_logits_processor."""
    assert Sampler.hf() == Sampler(TopK(50, "all"))
    assert Sampler.hf(
        temperature=0.5, top_k=9, top_p=0.8, min_p=0.1, typical_p=0.7, epsilon_cutoff=0.01,
        eta_cutoff=0.02, repetition_penalty=1.1, suppress_tokens=[3], begin_suppress_tokens=[4],
        no_repeat_ngram_size=3, bad_words_ids=[[1, 2], [9]], sequence_bias={(1, 2): 0.5},
        min_length=7, min_new_tokens=5, eos_token_id=[9, 8],
    ) == Sampler(
        SequenceBias({(1, 2): 0.5}), RepetitionPenalty(1.1), NoRepeatNGram(3), BadWords([[1, 2]]),
        MinLength(7, [8, 9], True), MinLength(5, [8, 9]), SuppressTokens([3]), MinLength(1, [4]),
        Temperature(0.5), TopK(9, "all"), TopP(0.8),
        MinP(0.1), TypicalP(0.7, "all"), Epsilon(0.01), Eta(0.02),
    )  # fmt: skip
    assert Sampler.hf(do_sample=False, top_p=0.5, repetition_penalty=1.1) == Sampler(
        RepetitionPenalty(1.1), Temperature(0)
    )
    none = dict.fromkeys(
        ["temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
         "repetition_penalty", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids",
         "no_repeat_ngram_size", "sequence_bias", "min_length", "min_new_tokens", "eos_token_id"]
    )  # fmt: skip
    assert Sampler.hf(**none) == Sampler(TopK(50, "all"))  # the default of ``generate``
    assert Sampler.hf(**none, do_sample=None) == Sampler(Temperature(0))


# ---- vLLM ----------------------------------------------------------------------------------------


def test_order_and_defaults_of_vllm():
    """As in SamplingParams and the list at the head of vllm/v1/sample/sampler.py."""
    assert Sampler.vllm() == Sampler()
    assert Sampler.vllm(
        presence_penalty=0.1, frequency_penalty=0.2, repetition_penalty=1.3, temperature=0.4,
        top_p=0.5, top_k=6, min_p=0.7, logit_bias={8: 9.0}, allowed_token_ids=[8, 1],
        bad_words=[[3, 4]], min_tokens=5, stop_token_ids=[6],
    ) == Sampler(
        AllowedTokens([1, 8]), BadWords([[3, 4]], False), MinLength(5, [6]), LogitBias({8: 9.0}),
        RepetitionPenalty(1.3),
        FrequencyPenalty(0.2, prompt=False), PresencePenalty(0.1, prompt=False), Temperature(0.4),
        MinP(0.7), TopK(6, "all"), TopP(0.5),
    )  # fmt: skip
    assert Sampler.vllm(temperature=1e-6, top_k=5, min_p=0.1) == Sampler(Temperature(0))
    assert Sampler.vllm(temperature=0.001) == Sampler(Temperature(0.01))
    assert Sampler.vllm(top_k=-1) == Sampler()


@pytest.mark.parametrize(
    "parameters",
    [{"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.1, "top_k": 40, "top_p": 0.8, "temperature": 0.7}],
    ids=str,
)
def test_vllm_cuts_from_the_unlikely_end(parameters):
    """apply_top_k_top_p in ops/topk_topp_sampler.py sorts ascending and sums the unlikely ones."""
    p, k = parameters.get("top_p", 1.0), parameters.get("top_k", 500)
    for seed in range(20):
        row = np.random.default_rng(seed).normal(0, 2, 500)
        row[seed] = row[2 * seed + 1]  # ties are kept
        scores = row / parameters.get("temperature", 1.0)
        scores[np.exp(scores - scores.max()) < parameters.get("min_p", 0.0)] = -np.inf
        scores[scores < np.sort(scores)[-k]] = -np.inf
        order = np.argsort(scores)
        reached = np.cumsum(np.exp(scores[order]) / np.exp(scores).sum())
        scores[order[:-1][reached[:-1] <= 1 - p]] = -np.inf
        np.testing.assert_allclose(Sampler.vllm(**parameters).filter(row), scores, rtol=1e-12)


def test_penalties_of_vllm_look_at_generated_tokens():
    sampler = Sampler.vllm(frequency_penalty=1.0, presence_penalty=0.5, repetition_penalty=2.0)
    got = sampler.filter([8.0, 8, 8, -8], [0, 1, 1, 3, 1], prompt=2)
    np.testing.assert_array_equal(got, [4, 4 - 2 - 0.5, 8, -16 - 1 - 0.5])
