"""Steps that change every score by the same rule: temperatures and a soft cap."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, tanh
from sys import float_info
from typing import ClassVar

import numpy as np

from .base import PerRow, Step
from .candidates import Candidates


@dataclass(frozen=True, repr=False)
class Temperature(Step):
    """Divide the scores: ``score / temperature``, 1/T being held at the largest finite number.

    Parameters
    ----------
    temperature : float, from 0
        Below 1 the likely tokens gain, above 1 the unlikely ones. 0 leaves the best token alone,
        the lowest id among equals.

    Notes
    -----
    Order matters: before `TopP`, `MinP` and all that look at probabilities it changes what they
    keep (Hugging Face, vLLM); after them it only reshapes what they kept (llama.cpp).

    References
    ----------
    .. [1] D. H. Ackley, G. E. Hinton, T. J. Sejnowski, "A Learning Algorithm for Boltzmann
       Machines", Cognitive Science 9 (1985), https://doi.org/10.1207/s15516709cog0901_7
    """

    temperature: PerRow
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._number("temperature", 0, inf)

    @property
    def max_kept(self) -> int:
        return 0 if self.temperature else 1

    def __call__(self, left: Candidates) -> Candidates:
        return at_temperature(left, self.temperature)


def at_temperature(left: Candidates, temperature: float) -> Candidates:
    """Return the candidates `left` with their scores divided by `temperature`."""
    if temperature == 1:
        return left
    if temperature == 0:
        return left.keep_best(1)
    if 1 / temperature == inf:  # held at the largest finite number, as everywhere
        return left.with_scores(left.scores * float_info.max)
    return left.with_scores(left.scores / temperature)


@dataclass(frozen=True, repr=False)
class DynamicTemperature(Step):
    """Divide the scores by a temperature that grows with the entropy of what is left.

    Parameters
    ----------
    temperature : float, from 0
        The middle of the temperatures.
    range : float, from 0
        How far below and above it they reach; below 0 counts as 0.
    exponent : float, from 0, default 1
        Above 1, only a high entropy brings a high temperature.

    Notes
    -----
    ``T = low + (high - low) * (H / log(n)) ** exponent``, with ``low = max(temperature - range,
    0)``, ``high = temperature + range``, and H the entropy of the `n` tokens that are left. One
    token alone is left as it is.

    Order matters: entropy and number are those of what is left so far; llama.cpp runs it last.

    References
    ----------
    .. [1] llama.cpp, ``llama_sampler_init_temp_ext``, https://github.com/ggml-org/llama.cpp/pull/4972
    """

    temperature: PerRow
    range: PerRow
    exponent: PerRow = 1.0

    def __post_init__(self) -> None:
        self._number("temperature", 0, inf)
        self._number("range", 0, inf)
        self._number("exponent", 0, inf)

    def __call__(self, left: Candidates) -> Candidates:
        if left.ids.size == 1:
            return left
        low, high = max(self.temperature - self.range, 0.0), self.temperature + self.range
        share = min(max(left.entropy / log(left.ids.size), 0.0), 1.0)  # but for rounding
        return at_temperature(left, low + (high - low) * share**self.exponent)


@dataclass(frozen=True, repr=False)
class SoftCap(Step):
    """Hold the scores between ``-cap`` and ``cap``: ``cap * tanh(score / cap)``.

    Parameters
    ----------
    cap : float, above 0
        What the scores approach; small ones hardly change.

    Notes
    -----
    Scores far beyond the cap become equal, and then the lower id is the better one. Order matters:
    it shrinks the differences of scores that `Temperature`, biases and penalties before it made.
    Models that were trained with it cap the scores first of all.

    References
    ----------
    .. [1] Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", 2024,
       https://arxiv.org/abs/2408.00118
    """

    cap: PerRow

    def __post_init__(self) -> None:
        self._number("cap", 0, inf, open_low=True)

    def __call__(self, left: Candidates) -> Candidates:
        # The C library's tanh, whose bits do not depend on the vectors that NumPy uses.
        capped = np.fromiter(map(tanh, (left.scores / self.cap).tolist()), float, left.ids.size)
        return left.with_scores(self.cap * capped)
