"""The sampler of Hugging Face transformers as steps."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, Self

import numpy as np

from .. import steps
from .._arguments.values import count, switch
from ..steps.base import Step, number
from ..steps.ids import sequence_biases, sequences, token_ids
from .keywords import from_config

#: Parameters of a GenerationConfig that do not change from which distribution a token is drawn.
SILENT = """
_from_model_config transformers_version max_length max_new_tokens max_time stop_strings
early_stopping length_penalty num_return_sequences use_mtp use_cache cache_implementation
cache_config max_cache_len prefill_chunk_size compile_config disable_compile low_memory
continuous_batching_config renormalize_logits token_healing pad_token_id bos_token_id
decoder_start_token_id output_attentions output_hidden_states output_scores output_logits
return_dict_in_generate is_assistant num_assistant_tokens num_assistant_tokens_schedule
assistant_confidence_threshold prompt_lookup_num_tokens max_matching_ngram_size
assistant_early_exit assistant_lookbehind target_lookbehind assistant_ensemble_weight
speculation_type
"""
#: Those that do and are not supported, and where they change nothing.
NEUTRAL = {
    "top_h": None,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0,
    "penalty_alpha": 0,
    "guidance_scale": 1,
    "encoder_repetition_penalty": 1,
    "encoder_no_repeat_ngram_size": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "watermarking_config": None,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
}


class HuggingFace:
    """`Sampler`'s constructor that follows Hugging Face transformers."""

    def __init__(self, *steps: Step) -> None:
        """Make a sampler of `steps`; `Sampler` does."""
        raise NotImplementedError

    @classmethod
    @from_config(SILENT, NEUTRAL)
    def hf(
        cls,
        config: Any = None,
        /,
        *,
        do_sample: bool | None = True,
        temperature: float | None = 1.0,
        top_k: int | None = 50,
        top_p: float | None = 1.0,
        min_p: float | None = None,
        typical_p: float | None = 1.0,
        epsilon_cutoff: float | None = 0.0,
        eta_cutoff: float | None = 0.0,
        repetition_penalty: float | None = 1.0,
        suppress_tokens: Iterable[int] | None = None,
        begin_suppress_tokens: Iterable[int] | None = None,
        no_repeat_ngram_size: int | None = 0,
        bad_words_ids: Iterable[Iterable[int]] | None = None,
        sequence_bias: Any = None,
        min_length: int | None = 0,
        min_new_tokens: int | None = 0,
        eos_token_id: int | Iterable[int] | None = None,
        **others: Any,
    ) -> Self:
        """Return the sampler of Hugging Face transformers' ``generate``.

        Order: biases of sequences, repetition penalty, n-grams, bad words, least lengths,
        suppressed tokens, temperature, top-k, top-p, min-p, typical-p, epsilon, eta. Top-k and
        typical-p keep ties. (Which of some equal tokens top-p cuts is up to the sort there; here
        the lower ids stay.) Say how long the prompt is (`Sampler`'s argument `prompt`), where
        `min_new_tokens` or `begin_suppress_tokens` is given.

        Parameters
        ----------
        config : transformers.GenerationConfig, optional
            What has the parameters below, as ``**config.to_dict()``; those that are given, too, win
            over its own.
        do_sample : bool, default True
            False takes the best token. None is False, as in ``generate``.
        temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, \
repetition_penalty, no_repeat_ngram_size, min_length, min_new_tokens
            As in ``GenerationConfig``; None is the default of ``generate``, 50 for ``top_k``. What
            is at its no-op makes no step.
        suppress_tokens, begin_suppress_tokens : iterable of int, optional
            Ids that are never drawn, and those that are not the first that is.
        bad_words_ids : iterable of sequences of int, optional
            Sequences that are never completed; one of an end token alone is passed over.
        sequence_bias : mapping of tuples of int to float, or pairs, optional
            What is added to the score of a sequence's last id where it would complete it.
        eos_token_id : int, or iterable of int, optional
            The end tokens, which `min_length` and `min_new_tokens` keep away.
        **others
            What else a ``GenerationConfig`` has: passed over if it says nothing of how a token is
            chosen, else an error unless it is at its no-op.

        Raises
        ------
        TypeError, ValueError
            For what is wrong, unknown or not supported.

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
        do_sample = do_sample is not None and switch(do_sample, "do_sample")
        temperature = number(temperature, "temperature", 0, inf, none=1)
        top_k = count(50 if top_k is None else top_k, "top_k", 0)
        top_p = number(top_p, "top_p", 0, 1, none=1)
        min_p = number(min_p, "min_p", 0, 1, none=0)
        typical_p = number(typical_p, "typical_p", 0, 1, open_low=True, none=1)
        epsilon_cutoff = number(epsilon_cutoff, "epsilon_cutoff", 0, 1, none=0)
        eta_cutoff = number(eta_cutoff, "eta_cutoff", 0, 1, none=0)
        repetition_penalty = number(
            repetition_penalty, "repetition_penalty", 0, inf, open_low=True, none=1
        )
        n = count(
            0 if no_repeat_ngram_size is None else no_repeat_ngram_size, "no_repeat_ngram_size", 0
        )
        if isinstance(eos_token_id, (int, np.integer)) and not isinstance(eos_token_id, bool):
            eos_token_id = [int(eos_token_id)]
        ends = () if eos_token_id is None else token_ids(eos_token_id, "eos_token_id")
        lengths = {"min_length": min_length, "min_new_tokens": min_new_tokens}
        least = {name: 0 if v is None else count(v, name, 0) for name, v in lengths.items()}
        for name, length in least.items():
            if length and not ends:
                raise ValueError(f"{name} is {length}; allowed without eos_token_id is 0")
        chain: list[Step] = []
        if sequence_bias is not None:
            pairs = sequence_biases(sequence_bias, "sequence_bias")
            chain.append(steps.SequenceBias(pairs))
        if repetition_penalty != 1:
            chain.append(steps.RepetitionPenalty(repetition_penalty))
        if n:
            chain.append(steps.NoRepeatNGram(n))
        if bad_words_ids is not None:
            words = sequences(bad_words_ids, "bad_words_ids")
            chain.append(steps.BadWords([w for w in words if len(w) > 1 or w[0] not in ends]))
        if least["min_length"]:
            chain.append(steps.MinLength(least["min_length"], ends, prompt=True))
        if least["min_new_tokens"]:
            chain.append(steps.MinLength(least["min_new_tokens"], ends))
        if suppress_tokens is not None:
            chain.append(steps.SuppressTokens(token_ids(suppress_tokens, "suppress_tokens")))
        if begin_suppress_tokens is not None:
            first = token_ids(begin_suppress_tokens, "begin_suppress_tokens")
            chain.append(steps.MinLength(1, first))
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
