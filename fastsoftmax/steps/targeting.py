"""Steps that steer how likely the drawn tokens are: each remembers those drawn before."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import ClassVar

import numpy as np

from .base import PerRow, Step
from .candidates import Candidates


@dataclass(frozen=True, repr=False)
class Mirostat(Step):
    """Keep the tokens whose surprise is at most mu, which drifts so that `tau` is the average.

    Parameters
    ----------
    tau : float, above 0, default 5
        The surprise to aim at, ``-log2(p)`` in bits.
    eta : float, from 0, default 0.1
        How fast mu follows.

    Notes
    -----
    This is Mirostat 2. mu begins at ``2 tau``; when a token is drawn, ``mu - eta * (s - tau)``
    follows, `s` being its surprise among those kept. The most likely token is always kept.
    `fastsoftmax.History` keeps mu.

    Order matters: it belongs at the end; llama.cpp runs nothing but biases and the temperature
    before it.

    References
    ----------
    .. [1] S. Basu, G. S. Ramachandran, N. S. Keskar, L. R. Varshney, "Mirostat: A Neural Text
       Decoding Algorithm that Directly Controls Perplexity", ICLR 2021,
       https://arxiv.org/abs/2007.14966
    """

    tau: PerRow = 5.0
    eta: PerRow = 0.1
    states: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._number("tau", 0, inf, open_low=True)
        self._number("eta", 0, inf)

    def _mu(self, left: Candidates) -> float:
        return left.history.state[0] if left.history.state else 2 * self.tau

    def __call__(self, left: Candidates) -> Candidates:
        kept = left.probs >= 2.0 ** min(-self._mu(left), 1.0)
        return left.keep(kept) if kept.any() else left.keep_best(1)

    def next_state(self, left: Candidates, token: int) -> tuple[float, ...]:
        kept = self(left)
        at, _ = kept.find(np.array([token]))
        surprise = -float(kept.log_probs[at[0]]) / log(2)
        return (self._mu(left) - self.eta * (surprise - self.tau),)


@dataclass(frozen=True, repr=False)
class AdaptiveP(Step):
    """Prefer the tokens whose probability is near one that draws the average to `target`.

    Parameters
    ----------
    target : float, 0 to 1
        The probability to aim at, on average over the tokens drawn; it is reached about.
    decay : float, 0 to 0.99, default 0.9
        How slowly the average forgets: it looks back on about ``1 / (1 - decay)`` tokens.

    Notes
    -----
    The score becomes ``5 - 10 d**2 / (1 + d)`` with ``d = abs(p - aim) / 0.3``, where `p` is the
    probability so far and `aim`, from 0 to 1, is ``2 target`` less the average. The average begins
    at `target`. `fastsoftmax.History` keeps its sum and its weight.

    Order matters: it belongs at the end, and after steps that remove the unlikely; it gives the
    tokens scores of its own.

    References
    ----------
    .. [1] llama.cpp, ``llama_sampler_init_adaptive_p``,
       https://github.com/ggml-org/llama.cpp/pull/17927
    """

    target: PerRow
    decay: PerRow = 0.9
    states: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self._number("target", 0, 1)
        self._number("decay", 0, 0.99)

    def _sums(self, left: Candidates) -> tuple[float, ...]:
        """Return the sum of the probabilities so far and its weight, the latest weighing most."""
        return left.history.state or (self.target / (1 - self.decay), 1 / (1 - self.decay))

    def __call__(self, left: Candidates) -> Candidates:
        total, weight = self._sums(left)
        aim = min(max(2 * self.target - total / weight, 0.0), 1.0)
        distance = np.abs(left.probs - aim) / 0.3
        return left.with_scores(5 - 10 * distance * distance / (1 + distance))

    def next_state(self, left: Candidates, token: int) -> tuple[float, ...]:
        total, weight = self._sums(left)
        at, _ = left.find(np.array([token]))
        return float(left.probs[at[0]]) + self.decay * total, 1 + self.decay * weight
