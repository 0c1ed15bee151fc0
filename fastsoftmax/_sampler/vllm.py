"""The sampler of vLLM as steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Self

from .. import steps
from .._arguments.values import count
from ..steps.base import Step, number
from ..steps.ids import sequences, token_ids
from .keywords import also_called, json_biases


class VLLM:
    """`Sampler`'s constructor that follows vLLM."""

    def __init__(self, *steps: Step) -> None:
        """Make a sampler of `steps`; `Sampler` does."""
        raise NotImplementedError

    @classmethod
    @also_called({})
    def vllm(
        cls,
        *,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repetition_penalty: float = 1.0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        logit_bias: Mapping[Any, float] | None = None,
        allowed_token_ids: Iterable[int] | None = None,
        bad_words: Iterable[Iterable[int]] | None = None,
        min_tokens: int = 0,
        stop_token_ids: Iterable[int] | None = None,
    ) -> Self:
        """Return the sampler of vLLM (V1).

        Order: allowed tokens, bad words, least number of tokens, biases, repetition, frequency and
        presence penalty, temperature, min-p, top-k, top-p. Top-k keeps ties. The repetition penalty
        looks at the prompt, too, all else at generated tokens only: say how long the prompt is
        (`Sampler`'s argument `prompt`).

        Parameters
        ----------
        presence_penalty, frequency_penalty, repetition_penalty, temperature, top_p, top_k, min_p, \
allowed_token_ids
            As in ``SamplingParams``, with its defaults; what is at its no-op makes no step. A
            temperature below 1e-5 takes the best token, one below 0.01 counts as 0.01; top-k is
            off at 0 and -1.
        logit_bias : mapping of int to float, optional
            Ids and biases; an id may be text.
        bad_words : iterable of sequences of int, optional
            Token ids in place of vLLM's texts.
        min_tokens : int, default 0
            Until so many are generated, none of `stop_token_ids` is drawn.
        stop_token_ids : iterable of int, optional
            Ids that end a text. vLLM knows the model's own; here it belongs among them.

        References
        ----------
        .. [1] vLLM, ``vllm/v1/sample/sampler.py``, ``ops/topk_topp_sampler.py`` and
           ``vllm/sampling_params.py``, https://github.com/vllm-project/vllm

        Examples
        --------
        >>> from fastsoftmax import Sampler
        >>> Sampler.vllm(frequency_penalty=0.5, temperature=0.8, top_k=20)
        Sampler(FrequencyPenalty(0.5, prompt=False), Temperature(0.8), TopK(20, ties='all'))
        """
        presence_penalty = number(presence_penalty, "presence_penalty", -inf, inf)
        frequency_penalty = number(frequency_penalty, "frequency_penalty", -inf, inf)
        repetition_penalty = number(repetition_penalty, "repetition_penalty", 0, inf, open_low=True)
        temperature = number(temperature, "temperature", 0, inf)
        top_p = number(top_p, "top_p", 0, 1)
        top_k = count(top_k, "top_k", -1)
        min_p = number(min_p, "min_p", 0, 1)
        bias = json_biases(logit_bias, "logit_bias")
        min_tokens = count(min_tokens, "min_tokens", 0)
        stops = () if stop_token_ids is None else token_ids(stop_token_ids, "stop_token_ids")
        if min_tokens and not stops:
            raise ValueError(f"min_tokens is {min_tokens}; allowed without stop_token_ids is 0")
        chain: list[Step] = []
        if allowed_token_ids is not None:
            chain.append(steps.AllowedTokens(token_ids(allowed_token_ids, "allowed_token_ids")))
        if bad_words is not None:
            words = sequences(bad_words, "bad_words")
            chain.append(steps.BadWords(words, prompt=False))
        if min_tokens:
            chain.append(steps.MinLength(min_tokens, stops))
        if bias:
            chain.append(steps.LogitBias(bias))
        if repetition_penalty != 1:
            chain.append(steps.RepetitionPenalty(repetition_penalty))
        if frequency_penalty:
            chain.append(steps.FrequencyPenalty(frequency_penalty, prompt=False))
        if presence_penalty:
            chain.append(steps.PresencePenalty(presence_penalty, prompt=False))
        if temperature < 1e-5:
            return cls(*chain, steps.Temperature(0))
        if temperature != 1:
            chain.append(steps.Temperature(max(temperature, 0.01)))
        if min_p:
            chain.append(steps.MinP(min_p))
        if top_k > 0:
            chain.append(steps.TopK(top_k, ties="all"))
        if top_p != 1:
            chain.append(steps.TopP(top_p))
        return cls(*chain)
