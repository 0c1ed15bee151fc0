"""The sampler of llama.cpp as steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Self

from .. import steps
from .._arguments.values import count, shown
from ..steps.base import Step, number
from ..steps.ids import sequences
from .keywords import also_called, json_biases

#: Names in llama.cpp's command line and server and in llama-cpp-python, and those of its C API.
NAMES = {
    "temperature": "temp",
    "typical": "typ_p",
    "typical_p": "typ_p",
    "top_nsigma": "top_n_sigma",
    "repeat_last_n": "penalty_last_n",
    "last_n_tokens_size": "penalty_last_n",
    "repeat_penalty": "penalty_repeat",
    "frequency_penalty": "penalty_freq",
    "presence_penalty": "penalty_present",
    "dry_sequence_breaker": "dry_sequence_breakers",
    "dynatemp_exp": "dynatemp_exponent",
    "mirostat_mode": "mirostat",
    "mirostat_ent": "mirostat_tau",
    "mirostat_lr": "mirostat_eta",
}


class LlamaCpp:
    """`Sampler`'s constructor that follows llama.cpp."""

    def __init__(self, *steps: Step) -> None:
        """Make a sampler of `steps`; `Sampler` does."""
        raise NotImplementedError

    @classmethod
    @also_called(NAMES)
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
        dynatemp_range: float = 0.0,
        dynatemp_exponent: float = 1.0,
        top_n_sigma: float = -1.0,
        penalty_last_n: int = 64,
        penalty_repeat: float = 1.0,
        penalty_freq: float = 0.0,
        penalty_present: float = 0.0,
        dry_multiplier: float = 0.0,
        dry_base: float = 1.75,
        dry_allowed_length: int = 2,
        dry_penalty_last_n: int = 64,
        dry_sequence_breakers: Iterable[Iterable[int]] = (),
        adaptive_target: float = -1.0,
        adaptive_decay: float = 0.9,
        mirostat: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        logit_bias: Mapping[Any, float] | None = None,
        min_keep: int = 0,
        **others: Any,
    ) -> Self:
        """Return the sampler of llama.cpp (``llama-cli``, ``llama-server``).

        Order: biases, penalties, DRY, top-n-sigma, top-k, typical-p, top-p, min-p, XTC, temperature
        (dynamic where it has a range), adaptive-p where it has a target. With Mirostat, only the
        biases, the temperature and that. The lower id wins ties.

        Parameters
        ----------
        top_k, top_p, min_p, xtc_probability, xtc_threshold, typ_p, temp, dynatemp_range, \
dynatemp_exponent, top_n_sigma, penalty_last_n, penalty_repeat, penalty_freq, penalty_present, \
dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n, adaptive_target, adaptive_decay, \
mirostat, mirostat_tau, mirostat_eta, min_keep
            As in ``common_params_sampling``, with its defaults; what is at its no-op makes no
            step: ``top_p`` and ``typ_p`` from 1, ``dry_base`` below 1, ``top_k``, ``min_p``,
            ``xtc_probability``, ``dynatemp_range`` and ``top_n_sigma`` up to 0, a negative
            ``adaptive_target``. ``temp`` 0 and below takes the best of what is left;
            ``penalty_last_n`` and ``dry_penalty_last_n`` -1 look back on all tokens, 0 on none.
            ``mirostat`` is 0 or 2; 1 is not supported.
        dry_sequence_breakers : iterable of sequences of int
            Token ids in place of llama.cpp's texts, whose default is a newline, a colon, a double
            quote and an asterisk; here there is none.
        logit_bias : mapping of int to float, optional
            Ids and biases; an id may be text.
        **others
            The same by their names in the command line, the server and llama-cpp-python:
            ``temperature``, ``typical``, ``typical_p``, ``top_nsigma``, ``repeat_last_n``,
            ``last_n_tokens_size``, ``repeat_penalty``, ``frequency_penalty``, ``presence_penalty``,
            ``dry_sequence_breaker``, ``dynatemp_exp``, ``mirostat_mode``, ``mirostat_ent`` (tau),
            ``mirostat_lr`` (eta).

        References
        ----------
        .. [1] llama.cpp, ``common/common.h``, ``common/sampling.cpp`` and
           ``src/llama-sampling.cpp``, https://github.com/ggml-org/llama.cpp

        Examples
        --------
        >>> from fastsoftmax import Sampler
        >>> Sampler.llama_cpp()
        Sampler(TopK(40), TopP(0.95), MinP(0.05), Temperature(0.8))
        >>> Sampler.llama_cpp(repeat_penalty=1.1, temperature=0.5, top_k=0, top_p=1, min_p=0)
        Sampler(RepetitionPenalty(1.1, last=64), Temperature(0.5))
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
        dynatemp_range = number(dynatemp_range, "dynatemp_range", -inf, inf)
        dynatemp_exponent = number(dynatemp_exponent, "dynatemp_exponent", 0, inf)
        dry_multiplier = number(dry_multiplier, "dry_multiplier", 0, inf)
        dry_base = number(dry_base, "dry_base", -inf, inf)
        dry_allowed_length = count(dry_allowed_length, "dry_allowed_length", 1)
        dry_penalty_last_n = count(dry_penalty_last_n, "dry_penalty_last_n", -1)
        breakers = sequences(dry_sequence_breakers, "dry_sequence_breakers")
        adaptive_target = number(adaptive_target, "adaptive_target", -inf, 1)
        adaptive_decay = number(adaptive_decay, "adaptive_decay", 0, 0.99)
        mirostat_tau = number(mirostat_tau, "mirostat_tau", 0, inf, open_low=True)
        mirostat_eta = number(mirostat_eta, "mirostat_eta", 0, inf)
        if count(mirostat, "mirostat", 0) not in (0, 2):
            raise ValueError(f"mirostat is {shown(mirostat)}; allowed are 0 and 2")
        bias = json_biases(logit_bias, "logit_bias")
        kept = max(count(min_keep, "min_keep", 0), 1)
        last = None if penalty_last_n < 0 else penalty_last_n
        chain: list[Step] = []
        if bias:
            chain.append(steps.LogitBias(bias))
        temperature: list[Step] = [] if temp == 1 else [steps.Temperature(max(temp, 0.0))]
        if mirostat:
            return cls(*chain, *temperature, steps.Mirostat(mirostat_tau, mirostat_eta))
        if dynatemp_range > 0:
            dynamic = max(temp, 0.0), dynatemp_range, dynatemp_exponent
            temperature = [steps.DynamicTemperature(*dynamic)]
        if last != 0:
            if penalty_repeat != 1:
                chain.append(steps.RepetitionPenalty(penalty_repeat, last))
            if penalty_freq:
                chain.append(steps.FrequencyPenalty(penalty_freq, last))
            if penalty_present:
                chain.append(steps.PresencePenalty(penalty_present, last))
        if dry_multiplier and dry_base >= 1 and dry_penalty_last_n:
            back = None if dry_penalty_last_n < 0 else dry_penalty_last_n
            penalty = dry_multiplier, dry_base, dry_allowed_length, back, breakers
            chain.append(steps.DRY(*penalty))
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
        chain += temperature
        if adaptive_target >= 0:
            chain.append(steps.AdaptiveP(adaptive_target, adaptive_decay))
        return cls(*chain)
