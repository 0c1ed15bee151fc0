"""The sampler of mlx-lm as steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Self

from .. import steps
from .._arguments.values import count
from ..steps.base import Step, number
from ..steps.ids import token_ids
from .keywords import also_called, json_biases


class MLXLM:
    """`Sampler`'s constructor that follows mlx-lm."""

    def __init__(self, *steps: Step) -> None:
        """Make a sampler of `steps`; `Sampler` does."""
        raise NotImplementedError

    @classmethod
    @also_called({})
    def mlx_lm(
        cls,
        *,
        temp: float = 0.0,
        top_p: float = 0.0,
        min_p: float = 0.0,
        min_tokens_to_keep: int = 1,
        top_k: int = 0,
        xtc_probability: float = 0.0,
        xtc_threshold: float = 0.1,
        xtc_special_tokens: Iterable[int] | None = None,
        logit_bias: Mapping[Any, float] | None = None,
        repetition_penalty: float | None = None,
        repetition_context_size: int = 20,
        presence_penalty: float | None = None,
        presence_context_size: int = 20,
        frequency_penalty: float | None = None,
        frequency_context_size: int = 20,
    ) -> Self:
        """Return the sampler of mlx-lm (``make_sampler`` and ``make_logits_processors``).

        Order: biases, repetition, presence and frequency penalty, top-p, min-p, XTC, top-k,
        temperature. (Which of some equal tokens top-p and top-k cut is up to the sort there, and
        all that equal the least likely of the top choices survive XTC; here the lower ids do.)

        Parameters
        ----------
        temp, top_p, min_p, min_tokens_to_keep, top_k, xtc_probability, xtc_threshold, \
xtc_special_tokens
            As in ``make_sampler``, with its defaults. ``temp`` 0 takes the best token whatever the
            others say; at 0, and for ``top_p`` at 1, too, a parameter makes no step.
            ``min_tokens_to_keep`` is min-p's.
        logit_bias, repetition_penalty, repetition_context_size, presence_penalty, \
presence_context_size, frequency_penalty, frequency_context_size
            As in ``make_logits_processors``, with its defaults. None and 0 make no step, nor does a
            ``repetition_penalty`` of 1; a context size of 0 looks back on all tokens. The ids of
            ``logit_bias`` may be text.

        References
        ----------
        .. [1] mlx-lm, ``mlx_lm/sample_utils.py``, https://github.com/ml-explore/mlx-lm

        Examples
        --------
        >>> from fastsoftmax import Sampler
        >>> Sampler.mlx_lm(temp=0.7, top_p=0.9, repetition_penalty=1.1)
        Sampler(RepetitionPenalty(1.1, last=20), TopP(0.9), Temperature(0.7))
        """
        temp = number(temp, "temp", 0, inf)
        top_p = number(top_p, "top_p", 0, 1)
        min_p = number(min_p, "min_p", 0, 1)
        min_keep = count(min_tokens_to_keep, "min_tokens_to_keep", 1)
        top_k = count(top_k, "top_k", 0)
        xtc_probability = number(xtc_probability, "xtc_probability", 0, 1)
        xtc_threshold = number(xtc_threshold, "xtc_threshold", 0, 0.5)
        special = () if xtc_special_tokens is None else xtc_special_tokens
        special = token_ids(special, "xtc_special_tokens")
        bias = json_biases(logit_bias, "logit_bias")
        repetition_penalty = number(repetition_penalty, "repetition_penalty", 0, inf, none=0)
        presence_penalty = number(presence_penalty, "presence_penalty", -inf, inf, none=0)
        frequency_penalty = number(frequency_penalty, "frequency_penalty", -inf, inf, none=0)
        # tokens[-0:] are all of them.
        repetition_last = count(repetition_context_size, "repetition_context_size", 0) or None
        presence_last = count(presence_context_size, "presence_context_size", 0) or None
        frequency_last = count(frequency_context_size, "frequency_context_size", 0) or None
        chain: list[Step] = []
        if bias:
            chain.append(steps.LogitBias(bias))
        if repetition_penalty not in (0, 1):
            chain.append(steps.RepetitionPenalty(repetition_penalty, repetition_last))
        if presence_penalty:
            chain.append(steps.PresencePenalty(presence_penalty, presence_last))
        if frequency_penalty:
            chain.append(steps.FrequencyPenalty(frequency_penalty, frequency_last))
        if temp == 0:
            return cls(*chain, steps.Temperature(0))
        if 0 < top_p < 1:
            chain.append(steps.TopP(top_p))
        if min_p:
            chain.append(steps.MinP(min_p, min_keep))
        if xtc_probability:
            chain.append(steps.XTC(xtc_probability, xtc_threshold, exempt=special))
        if top_k:
            chain.append(steps.TopK(top_k))
        if temp != 1:
            chain.append(steps.Temperature(temp))
        return cls(*chain)
