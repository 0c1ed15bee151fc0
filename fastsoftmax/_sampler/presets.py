"""The samplers of other systems as steps: their parameters' names, defaults and order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Self

from .. import steps
from .._arguments.values import count, switch
from ..steps.base import Step, number
from ..steps.ids import biases, token_ids


class Presets:
    """`Sampler`'s constructors that follow another system."""

    def __init__(self, *steps: Step) -> None:
        """Make a sampler of `steps`; `Sampler` does."""
        raise NotImplementedError

    @classmethod
    def hf(
        cls,
        *,
        do_sample: bool = True,
        temperature: float | None = 1.0,
        top_k: int | None = 50,
        top_p: float | None = 1.0,
        min_p: float | None = None,
        typical_p: float | None = 1.0,
        epsilon_cutoff: float | None = 0.0,
        eta_cutoff: float | None = 0.0,
        repetition_penalty: float | None = 1.0,
        suppress_tokens: Iterable[int] | None = None,
    ) -> Self:
        """Return the sampler of Hugging Face transformers' ``generate``.

        Order: repetition penalty, suppressed tokens, temperature, top-k, top-p, min-p, typical-p,
        epsilon, eta. Top-k and typical-p keep ties. (Which of some equal tokens top-p cuts is up to
        the sort there; here the lower ids stay.)

        Parameters
        ----------
        do_sample : bool, default True
            False takes the best token. (In ``generate`` that is the default.)
        temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, repetition_penalty
            As in ``GenerationConfig``, with its defaults; None and what is at its no-op make no
            step.
        suppress_tokens : iterable of int, optional
            Ids that are never drawn.

        References
        ----------
        .. [1] transformers, ``generation/utils.py`` (``_get_logits_processor``) and
           ``generation/logits_process.py``, https://github.com/huggingface/transformers

        Examples
        --------
        >>> from fastsoftmax import Sampler
        >>> Sampler.hf(temperature=0.7, top_p=0.9, repetition_penalty=1.2)
        Sampler(RepetitionPenalty(1.2), Temperature(0.7), TopK(50, ties='all'), TopP(0.9))
        """
        do_sample = switch(do_sample, "do_sample")
        temperature = number(temperature, "temperature", 0, inf, none=1)
        top_k = 0 if top_k is None else count(top_k, "top_k", 0)
        top_p = number(top_p, "top_p", 0, 1, none=1)
        min_p = number(min_p, "min_p", 0, 1, none=0)
        typical_p = number(typical_p, "typical_p", 0, 1, open_low=True, none=1)
        epsilon_cutoff = number(epsilon_cutoff, "epsilon_cutoff", 0, 1, none=0)
        eta_cutoff = number(eta_cutoff, "eta_cutoff", 0, 1, none=0)
        repetition_penalty = number(
            repetition_penalty, "repetition_penalty", 0, inf, open_low=True, none=1
        )
        chain: list[Step] = []
        if repetition_penalty != 1:
            chain.append(steps.RepetitionPenalty(repetition_penalty))
        if suppress_tokens is not None:
            chain.append(steps.SuppressTokens(token_ids(suppress_tokens, "suppress_tokens")))
        if not do_sample:
            return cls(*chain, steps.Temperature(0))
        if temperature != 1:
            chain.append(steps.Temperature(temperature))
        if top_k:
            chain.append(steps.TopK(top_k, ties="all"))
        if top_p != 1:
            chain.append(steps.TopP(top_p))
        if min_p:
            chain.append(steps.MinP(min_p))
        if typical_p != 1:
            chain.append(steps.TypicalP(typical_p, ties="all"))
        if epsilon_cutoff:
            chain.append(steps.Epsilon(epsilon_cutoff))
        if eta_cutoff:
            chain.append(steps.Eta(eta_cutoff))
        return cls(*chain)

    @classmethod
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
        logit_bias: Mapping[int, float] | None = None,
        allowed_token_ids: Iterable[int] | None = None,
    ) -> Self:
        """Return the sampler of vLLM (V1).

        Order: allowed tokens, biases, repetition, frequency and presence penalty, temperature,
        min-p, top-k, top-p. Top-k keeps ties. The repetition penalty looks at the prompt, too, the
        other two at generated tokens only: say how long the prompt is (`Sampler`'s argument
        `prompt`).

        Parameters
        ----------
        presence_penalty, frequency_penalty, repetition_penalty, temperature, top_p, top_k, min_p, \
logit_bias, allowed_token_ids
            As in ``SamplingParams``, with its defaults; what is at its no-op makes no step. A
            temperature below 1e-5 takes the best token, one below 0.01 counts as 0.01; top-k is
            off at 0 and -1.

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
        repetition_penalty = number(
            repetition_penalty, "repetition_penalty", 0, inf, open_low=True
        )
        temperature = number(temperature, "temperature", 0, inf)
        top_p = number(top_p, "top_p", 0, 1)
        top_k = count(top_k, "top_k", -1)
        min_p = number(min_p, "min_p", 0, 1)
        bias = () if logit_bias is None else biases(logit_bias, "logit_bias")
        chain: list[Step] = []
        if allowed_token_ids is not None:
            chain.append(steps.AllowedTokens(token_ids(allowed_token_ids, "allowed_token_ids")))
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

    @classmethod
    def llama_cpp(
        cls,
        *,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        xtc_probability: float = 0.0,
        xtc_threshold: float = 0.1,
        typ_p: float = 1.0,
        temp: float = 0.8,
        top_n_sigma: float = -1.0,
        penalty_last_n: int = 64,
        penalty_repeat: float = 1.0,
        penalty_freq: float = 0.0,
        penalty_present: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        min_keep: int = 0,
    ) -> Self:
        """Return the sampler of llama.cpp (``llama-cli``, ``llama-server``), without DRY.

        Order: biases, penalties, top-n-sigma, top-k, typical-p, top-p, min-p, XTC, temperature.
        The lower id wins ties.

        Parameters
        ----------
        top_k, top_p, min_p, xtc_probability, xtc_threshold, typ_p, temp, top_n_sigma, \
penalty_last_n, penalty_repeat, penalty_freq, penalty_present, logit_bias, min_keep
            As in ``common_params_sampling``, with its defaults; what is at its no-op makes no
            step: ``top_p`` and ``typ_p`` from 1, ``top_k``, ``min_p``, ``xtc_probability`` and
            ``top_n_sigma`` up to 0. ``temp`` 0 and below takes the best of what is left;
            ``penalty_last_n`` -1 looks back on all tokens, 0 on none.

        References
        ----------
        .. [1] llama.cpp, ``common/common.h``, ``common/sampling.cpp`` and
           ``src/llama-sampling.cpp``, https://github.com/ggml-org/llama.cpp

        Examples
        --------
        >>> from fastsoftmax import Sampler
        >>> Sampler.llama_cpp()
        Sampler(TopK(40), TopP(0.95), MinP(0.05), Temperature(0.8))
        """
        top_k = count(top_k, "top_k", -(2**31))
        top_p = number(top_p, "top_p", 0, inf)
        min_p = number(min_p, "min_p", -inf, 1)
        xtc_probability = number(xtc_probability, "xtc_probability", -inf, 1)
        xtc_threshold = number(xtc_threshold, "xtc_threshold", 0, 1)
        typ_p = number(typ_p, "typ_p", 0, inf, open_low=True)
        temp = number(temp, "temp", -inf, inf)
        top_n_sigma = number(top_n_sigma, "top_n_sigma", -inf, inf)
        penalty_last_n = count(penalty_last_n, "penalty_last_n", -1)
        penalty_repeat = number(penalty_repeat, "penalty_repeat", 0, inf, open_low=True)
        penalty_freq = number(penalty_freq, "penalty_freq", -inf, inf)
        penalty_present = number(penalty_present, "penalty_present", -inf, inf)
        bias = () if logit_bias is None else biases(logit_bias, "logit_bias")
        kept = max(count(min_keep, "min_keep", 0), 1)
        last = None if penalty_last_n < 0 else penalty_last_n
        chain: list[Step] = []
        if bias:
            chain.append(steps.LogitBias(bias))
        if last != 0:
            if penalty_repeat != 1:
                chain.append(steps.RepetitionPenalty(penalty_repeat, last))
            if penalty_freq:
                chain.append(steps.FrequencyPenalty(penalty_freq, last))
            if penalty_present:
                chain.append(steps.PresencePenalty(penalty_present, last))
        if top_n_sigma > 0:
            chain.append(steps.TopNSigma(top_n_sigma))
        if top_k > 0:
            chain.append(steps.TopK(top_k))
        if typ_p < 1:
            chain.append(steps.TypicalP(typ_p, min_keep=kept))
        if top_p < 1:
            chain.append(steps.TopP(top_p, min_keep=kept))
        if min_p > 0:
            chain.append(steps.MinP(min_p, min_keep=kept))
        if xtc_probability > 0:
            chain.append(steps.XTC(xtc_probability, xtc_threshold, min_keep=kept))
        if temp != 1:
            chain.append(steps.Temperature(max(temp, 0.0)))
        return cls(*chain)
