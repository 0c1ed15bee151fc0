"""The samplers of other systems as steps: their parameters' names, defaults and order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from . import steps
from ._step import Step


class Presets:
    """`Sampler`'s constructors that follow another system."""

    def __init__(self, *steps: Step) -> None:
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
            As in ``GenerationConfig``, with its defaults; None and
            what is at its no-op make no step.
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
        chain: list[Step] = []
        if repetition_penalty is not None and repetition_penalty != 1:
            chain.append(steps.RepetitionPenalty(repetition_penalty))
        if suppress_tokens is not None:
            chain.append(steps.Banned(suppress_tokens))
        if not do_sample:
            return cls(*chain, steps.Temperature(0))
        if temperature is not None and temperature != 1:
            chain.append(steps.Temperature(temperature))
        if top_k:
            chain.append(steps.TopK(top_k, ties="all"))
        if top_p is not None and top_p != 1:
            chain.append(steps.TopP(top_p))
        if min_p:
            chain.append(steps.MinP(min_p))
        if typical_p is not None and typical_p != 1:
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
        chain: list[Step] = []
        if allowed_token_ids is not None:
            chain.append(steps.Allowed(allowed_token_ids))
        if logit_bias:
            chain.append(steps.LogitBias(logit_bias))
        if repetition_penalty != 1:
            chain.append(steps.RepetitionPenalty(repetition_penalty))
        if frequency_penalty:
            chain.append(steps.FrequencyPenalty(frequency_penalty, prompt=False))
        if presence_penalty:
            chain.append(steps.PresencePenalty(presence_penalty, prompt=False))
        if 0 <= temperature < 1e-5:
            return cls(*chain, steps.Temperature(0))
        if 0 < temperature < 0.01:
            temperature = 0.01
        if temperature != 1:
            chain.append(steps.Temperature(temperature))
        if min_p:
            chain.append(steps.MinP(min_p))
        if top_k not in (0, -1):
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
            step. ``temp`` 0 and below takes the best of what is left; ``penalty_last_n`` -1 looks
            back on all tokens, 0 on none.

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
        chain: list[Step] = []
        kept = max(min_keep, 1)
        last = None if penalty_last_n < 0 else penalty_last_n
        if logit_bias:
            chain.append(steps.LogitBias(logit_bias))
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
