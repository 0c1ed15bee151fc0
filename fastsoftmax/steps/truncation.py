"""Steps that remove tokens: by rank, by mass, by a threshold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import ClassVar

import numpy as np

from .base import PerRow, Step
from .candidates import Candidates
from .ids import token_ids


@dataclass(frozen=True, repr=False)
class TopK(Step):
    """Keep the `k` tokens with the highest scores.

    Parameters
    ----------
    k : int, from 1
        How many; all, if fewer are left. So a k of the vocabulary's size removes nothing.
    ties : {"index", "all"}
        Among tokens equal to the k-th, keep the lower ids so that `k` are left (llama.cpp), or all
        of them (Hugging Face, vLLM).
    min_keep : int, default 1
        At least this many are left.

    Notes
    -----
    Order matters: only scores count, so `Temperature` before or after makes no difference; what
    looks at probabilities sees them renormalised over the `k`. Put early it makes the whole
    sampler fast.

    References
    ----------
    .. [1] A. Fan, M. Lewis, Y. Dauphin, "Hierarchical Neural Story Generation", ACL 2018,
       https://arxiv.org/abs/1805.04833
    """

    k: PerRow
    ties: PerRow = "index"
    min_keep: PerRow = 1
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._count("k")
        self._count("min_keep")
        self._choice("ties", "index", "all")

    @property
    def max_kept(self) -> int:
        return max(self.k, self.min_keep)

    def __call__(self, left: Candidates) -> Candidates:
        k = max(self.k, self.min_keep)
        if k >= left.ids.size:
            return left
        if self.ties == "all":
            return left.keep(left.scores >= left.scores[left.best(k)[-1]])
        return left.keep_best(k)


@dataclass(frozen=True, repr=False)
class TopP(Step):
    """Keep the fewest, most likely tokens whose probabilities sum to `p` ("nucleus").

    Parameters
    ----------
    p : float, 0 to 1
        The mass; the token that reaches it is kept. 1 keeps all, 0 keeps `min_keep`.
    min_keep : int, default 1
        At least this many are left.

    Notes
    -----
    In the order probability descending, id ascending, the shortest prefix with
    ``sum(p_i) >= p * (1 - 4 eps)``, eps of the logits' dtype. Hugging Face and vLLM state the same
    rule from the other end, as removing what sums to no more than ``1 - p``.

    Order matters: the mass is that of what earlier steps left, at their temperature. After a `TopK`
    it is that of the `k`; before one, that of all: ``TopP(p), TopK(k)`` is what FlashInfer and
    SGLang call the joint filter, top-k and top-p of the same probabilities.

    References
    ----------
    .. [1] A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The Curious Case of Neural Text
       Degeneration", ICLR 2020, https://arxiv.org/abs/1904.09751
    """

    p: PerRow
    min_keep: PerRow = 1

    def __post_init__(self) -> None:
        self._number("p", 0, 1)
        self._count("min_keep")

    def __call__(self, left: Candidates) -> Candidates:
        if self.p == 1:
            return left
        return left.keep(np.sort(left.smallest_with_mass(self.p, left.scores, self.min_keep)))


@dataclass(frozen=True, repr=False)
class MinP(Step):
    """Keep the tokens at least `p` times as likely as the most likely one.

    Parameters
    ----------
    p : float, 0 to 1
        ``score >= max + log(p)`` is kept. 0 keeps all.
    min_keep : int, default 1
        At least this many are left.

    Notes
    -----
    Order matters with `Temperature`: the ratio of two probabilities is that at the temperature so
    far. Before or after `TopK` and `TopP` it makes a difference only through their renormalised
    masses.

    References
    ----------
    .. [1] N. N. Minh et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM
       Outputs", ICLR 2025, https://arxiv.org/abs/2407.01082
    """

    p: PerRow
    min_keep: PerRow = 1
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._number("p", 0, 1)
        self._count("min_keep")

    @property
    def max_kept(self) -> int:
        return max(30, self.min_keep) if self.p else 0  # as a rule

    def __call__(self, left: Candidates) -> Candidates:
        if self.p == 0:
            return left
        return left.above(left.scores.max() + log(self.p), self.min_keep)


@dataclass(frozen=True, repr=False)
class TypicalP(Step):
    """Keep the tokens whose surprise is closest to the entropy, until their mass reaches `p`.

    Parameters
    ----------
    p : float, above 0 to 1
        The mass; the token that reaches it is kept. 1 keeps all.
    ties : {"index", "all"}
        Among tokens as far from the entropy as the last one kept, keep the lower ids that the mass
        needs, or all of them (Hugging Face).
    min_keep : int, default 1
        At least this many are left.

    Notes
    -----
    With ``H = -sum(p_i log p_i)``, tokens are taken in the order of ``|-log p_i - H|``. The most
    likely token can go. Order matters: entropy and mass are those of what is left so far.

    References
    ----------
    .. [1] C. Meister, T. Pimentel, G. Wiher, R. Cotterell, "Locally Typical Sampling", TACL 11
       (2023), https://arxiv.org/abs/2202.00666
    """

    p: PerRow
    ties: PerRow = "index"
    min_keep: PerRow = 1

    def __post_init__(self) -> None:
        self._number("p", 0, 1, open_low=True)
        self._count("min_keep")
        self._choice("ties", "index", "all")

    def __call__(self, left: Candidates) -> Candidates:
        if self.p == 1:
            return left
        closeness = -np.abs(left.log_probs + left.entropy)
        kept = left.smallest_with_mass(self.p, closeness, self.min_keep)
        if self.ties == "all":
            return left.keep(closeness >= closeness[kept[-1]])
        return left.keep(np.sort(kept))


@dataclass(frozen=True, repr=False)
class TopNSigma(Step):
    """Keep the scores within `n` standard deviations of the highest.

    Parameters
    ----------
    n : float, from 0
        ``score >= max - n * std(scores)`` is kept.

    Notes
    -----
    Order matters: the deviation is that of the scores that are left, so this belongs before the
    steps that remove tokens. A temperature scales both sides: before or after makes no difference.

    References
    ----------
    .. [1] C. Tang, J. Liu, H. Xu, L. Huang, "Top-n sigma: Not All Logits Are You Need", 2024,
       https://arxiv.org/abs/2411.07641
    """

    n: PerRow

    def __post_init__(self) -> None:
        self._number("n", 0, inf)

    def __call__(self, left: Candidates) -> Candidates:
        return left.above(left.scores.max() - self.n * left.scores.std(), 1)


@dataclass(frozen=True, repr=False)
class Epsilon(Step):
    """Keep the tokens with a probability of at least `epsilon`.

    Parameters
    ----------
    epsilon : float, 0 to 1
        The threshold.
    min_keep : int, default 1
        At least this many are left, and all that equal the last of them.

    Notes
    -----
    Order matters: fewer tokens left means higher probabilities.

    References
    ----------
    .. [1] J. Hewitt, C. D. Manning, P. Liang, "Truncation Sampling as Language Model Desmoothing",
       Findings of EMNLP 2022, https://arxiv.org/abs/2210.15191
    """

    epsilon: PerRow
    min_keep: PerRow = 1

    def __post_init__(self) -> None:
        self._number("epsilon", 0, 1)
        self._count("min_keep")

    def __call__(self, left: Candidates) -> Candidates:
        best = left.scores[left.best(self.min_keep)[-1]]
        return left.keep((left.probs >= self._threshold(left)) | (left.scores >= best))

    def _threshold(self, left: Candidates) -> float:
        return self.epsilon


@dataclass(frozen=True, repr=False)
class Eta(Epsilon):
    """Keep the tokens with a probability of at least ``min(epsilon, sqrt(epsilon) * exp(-H))``.

    H is the entropy of what is left: the flatter the distribution, the lower the threshold.

    Parameters
    ----------
    epsilon : float, 0 to 1
        The highest threshold, and the square of what the entropy scales.
    min_keep : int, default 1
        At least this many are left, and all that equal the last of them.

    Notes
    -----
    Order matters: probabilities and entropy are those of what is left so far.

    References
    ----------
    .. [1] J. Hewitt, C. D. Manning, P. Liang, "Truncation Sampling as Language Model Desmoothing",
       Findings of EMNLP 2022, https://arxiv.org/abs/2210.15191
    """

    def _threshold(self, left: Candidates) -> float:
        return min(self.epsilon, sqrt(self.epsilon) * np.exp(-left.entropy))


@dataclass(frozen=True, repr=False)
class XTC(Step):
    """Exclude top choices: now and then, remove all likely tokens but the least likely of them.

    Parameters
    ----------
    probability : float, 0 to 1
        How often; the sampler's generator decides, with one number whenever the step runs.
    threshold : float, 0 to 1
        What is likely. Above 0.5 at most one token is, and nothing is removed.
    min_keep : int, default 1
        Nothing is removed if fewer than this would be left.
    exempt : iterable of int, default ()
        Ids that are never removed, such as those of a newline and of the end (mlx-lm's
        ``xtc_special_tokens``). (Kept as a tuple.)

    Notes
    -----
    Order matters: it sees the probabilities of what is left, and belongs after the steps that
    remove unlikely tokens. llama.cpp runs it just before the temperature.

    References
    ----------
    .. [1] P. E. Weidmann, "Exclude Top Choices (XTC): A sampler that boosts creativity, breaks
       writing cliches, and inhibits non-verbatim repetition", 2024,
       https://github.com/oobabooga/text-generation-webui/pull/6335
    """

    probability: PerRow
    threshold: PerRow
    min_keep: PerRow = 1
    exempt: Iterable[int] = ()
    uniforms: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._number("probability", 0, 1)
        self._number("threshold", 0, 1)
        self._count("min_keep")
        object.__setattr__(self, "exempt", token_ids(self.exempt, self._named("exempt")))

    def check(self, size: int) -> None:
        self._check_ids("exempt", self.exempt, size)

    def __call__(self, left: Candidates) -> Candidates:
        excluded = left.uniform() < self.probability
        removed = int(np.count_nonzero(left.probs >= self.threshold)) - 1
        if not excluded or removed < 1 or left.ids.size - removed < self.min_keep:
            return left
        stays = np.ones(left.ids.size, dtype=bool)
        stays[left.best(removed)] = False
        stays[left.find(np.array(self.exempt, dtype=np.int64))[0]] = True
        return left.keep(stays)
