"""Sampler.mlx_lm: the order and the formulas of mlx_lm/sample_utils.py."""

import math

import numpy as np
import pytest

from fastsoftmax import Sampler
from fastsoftmax.steps import (
    XTC,
    FrequencyPenalty,
    LogitBias,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)


def test_order_and_defaults_of_mlx_lm():
    """As in make_sampler and make_logits_processors of mlx_lm/sample_utils.py."""
    assert Sampler.mlx_lm() == Sampler(Temperature(0))
    assert Sampler.mlx_lm(
        temp=0.5, top_p=0.9, min_p=0.1, min_tokens_to_keep=2, top_k=7, xtc_probability=0.3,
        xtc_special_tokens=[4, 2], logit_bias={1: 2.0}, repetition_penalty=1.1,
        presence_penalty=0.2, presence_context_size=9, frequency_penalty=0.3,
        frequency_context_size=0,
    ) == Sampler(
        LogitBias({1: 2.0}), RepetitionPenalty(1.1, 20), PresencePenalty(0.2, 9),
        FrequencyPenalty(0.3), TopP(0.9), MinP(0.1, 2), XTC(0.3, 0.1, exempt=[2, 4]), TopK(7),
        Temperature(0.5),
    )  # fmt: skip
    assert Sampler.mlx_lm(temp=1, top_p=1.0, repetition_penalty=1.0) == Sampler()
    assert Sampler.mlx_lm(top_p=0.5, presence_penalty=0) == Sampler(Temperature(0))


@pytest.mark.parametrize(
    "parameters",
    [{"top_p": 0.7}, {"min_p": 0.2, "top_k": 9}, {"xtc_probability": 1.0, "top_p": 0.95},
     {"xtc_probability": 1.0, "xtc_threshold": 0.05, "xtc_special_tokens": [3, 7]}],
    ids=str,
)  # fmt: skip
def test_formulas_of_mlx_lm(parameters):
    """apply_top_p, apply_min_p, apply_xtc and apply_top_k, in float64, at temperature 0.7."""
    p = {"top_p": 0.0, "min_p": 0.0, "xtc_threshold": 0.1, "top_k": 0} | parameters
    for seed in range(10):
        scores = np.random.default_rng(seed).normal(0, 2, 100)
        scores[[3, 7]] += 4
        want = scores.copy()
        probs = np.exp(scores) / np.exp(scores).sum()
        if p["top_p"]:
            order = np.argsort(scores)
            want[order[~(np.cumsum(probs[order]) > 1 - p["top_p"])]] = -np.inf
        if p["min_p"]:
            want[scores < scores.max() + math.log(p["min_p"])] = -np.inf
        if "xtc_probability" in p:
            probs = np.exp(want) / np.exp(want).sum()
            mask = probs > np.where(probs > p["xtc_threshold"], probs, np.inf).min()
            mask[p.get("xtc_special_tokens", [])] = False
            want[mask] = -np.inf
        if p["top_k"]:
            want[np.argsort(-want)[p["top_k"] :]] = -np.inf
        got = Sampler.mlx_lm(temp=0.7, **parameters).filter(scores, rng=seed)
        np.testing.assert_allclose(got, want / 0.7, rtol=1e-12)
