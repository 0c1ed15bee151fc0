"""Steps that lower the scores of what has been said already: penalties, DRY."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, log
from typing import Any, ClassVar

import numpy as np

from .base import PerRow, Step
from .candidates import Candidates, Ids, Tokens
from .ids import sequences, token_ids


@dataclass(frozen=True, repr=False)
class _Penalty(Step):
    """A step that lowers the scores of the tokens so far, but of those `exempt`."""

    penalty: PerRow
    last: PerRow = None
    prompt: PerRow = True
    exempt: Iterable[int] = ()
    order_preserving: ClassVar[bool] = True
    _above: ClassVar[float] = -inf

    def __post_init__(self) -> None:
        self._number("penalty", self._above, inf, open_low=True)
        self._count("last", 0, none=True)
        self._switch("prompt")
        object.__setattr__(self, "exempt", token_ids(self.exempt, self._named("exempt")))

    def check(self, size: int) -> None:
        self._check_ids("exempt", self.exempt, size)

    def reordered_ids(self, history: Tokens) -> Ids:
        return self._counts(history)[0]

    def _counts(self, history: Tokens) -> tuple[Ids, Ids]:
        """Return the ids to penalise, ascending, and how often each has occurred."""
        ids, counts = history.counts(self.last, self.prompt)
        if not self.exempt:
            return ids, counts
        rest = ~np.isin(ids, self.exempt)  # type: ignore[arg-type]
        return ids[rest], counts[rest]

    def __call__(self, left: Candidates) -> Candidates:
        ids, counts = self._counts(left.history)
        at, found = left.find(ids)
        if not at.size:
            return left
        scores = left.scores.copy()
        scores[at] = self._penalised(scores[at], counts[found])
        return left.with_scores(scores)

    def _penalised(self, scores: Any, counts: Ids) -> Any:
        """Return the `scores` of tokens that have occurred `counts` times, with the penalty."""
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class RepetitionPenalty(_Penalty):
    """Divide the score of each token so far by `penalty` if it is positive, else multiply it.

    Parameters
    ----------
    penalty : float, above 0
        Above 1 repetition becomes less likely, below 1 more. How often a token has occurred makes
        no difference.
    last : int, optional
        Look back on the latest `last` tokens only; None on all.
    prompt : bool, default True
        Whether the prompt's tokens count, or only those generated. How many tokens are the prompt
        is an argument of the sampler's call.
    exempt : iterable of int, default ()
        Ids that are left alone. (Kept as a tuple.)

    Notes
    -----
    Order matters: a score's sign and size depend on `Temperature` and biases before it, so this
    comes first everywhere.

    References
    ----------
    .. [1] N. S. Keskar et al., "CTRL: A Conditional Transformer Language Model for Controllable
       Generation", 2019, https://arxiv.org/abs/1909.05858
    """

    _above: ClassVar[float] = 0

    def _penalised(self, scores: Any, counts: Ids) -> Any:
        return np.where(scores > 0, scores / self.penalty, scores * self.penalty)


@dataclass(frozen=True, repr=False)
class FrequencyPenalty(_Penalty):
    """Subtract `penalty` from a token's score for each time that it has occurred.

    Parameters
    ----------
    penalty : float
        ``score - penalty * count``; OpenAI allows -2 to 2. Negative encourages repetition.
    last : int, optional
        Look back on the latest `last` tokens only; None on all.
    prompt : bool, default True
        Whether the prompt's tokens count (llama.cpp), or only those generated (OpenAI, vLLM). How
        many tokens are the prompt is an argument of the sampler's call.
    exempt : iterable of int, default ()
        Ids that are left alone. (Kept as a tuple.)

    Notes
    -----
    Order matters: after a `Temperature`, the same penalty weighs more or less.

    References
    ----------
    .. [1] OpenAI API reference, ``frequency_penalty`` and ``presence_penalty``,
       https://platform.openai.com/docs/api-reference/chat/create
    """

    def _penalised(self, scores: Any, counts: Ids) -> Any:
        return scores - self.penalty * counts


@dataclass(frozen=True, repr=False)
class PresencePenalty(_Penalty):
    """Subtract `penalty` from the score of each token that has occurred, however often.

    Parameters
    ----------
    penalty : float
        ``score - penalty``; OpenAI allows -2 to 2. Negative encourages repetition.
    last : int, optional
        Look back on the latest `last` tokens only; None on all.
    prompt : bool, default True
        Whether the prompt's tokens count (llama.cpp), or only those generated (OpenAI, vLLM). How
        many tokens are the prompt is an argument of the sampler's call.
    exempt : iterable of int, default ()
        Ids that are left alone. (Kept as a tuple.)

    Notes
    -----
    Order matters: after a `Temperature`, the same penalty weighs more or less.

    References
    ----------
    .. [1] OpenAI API reference, ``frequency_penalty`` and ``presence_penalty``,
       https://platform.openai.com/docs/api-reference/chat/create
    """

    def _penalised(self, scores: Any, counts: Ids) -> Any:
        return scores - self.penalty


@dataclass(frozen=True, repr=False)
class DRY(Step):
    """Don't repeat yourself: lower the scores of tokens that would continue a long repetition.

    Parameters
    ----------
    multiplier : float, from 0
        The penalty of a repetition of `allowed_length`.
    base : float, from 1, default 1.75
        What each further token multiplies the penalty by.
    allowed_length : int, from 1, default 2
        Shorter repetitions are left alone.
    last : int, optional
        Look back on the latest `last` tokens only; None on all.
    breakers : iterable of sequences of int, default ()
        Ids, or sequences of ids, across which no repetition is followed, such as those of a line's
        end or a speaker's name. A token that is a breaker alone is never penalised. (Kept as a
        tuple of tuples.)
    exempt : iterable of int, default ()
        Ids that are left alone. (Kept as a tuple.)

    Notes
    -----
    ``score - multiplier * base ** (n - allowed_length)``, where `n` is the length of the longest
    end of the tokens so far that has occurred before with this token after it, if `n` is at least
    `allowed_length` and no longer than what follows the latest breaker. The power is held at the
    largest float32, as in llama.cpp.

    Order matters: after a `Temperature`, the same penalty weighs more or less.

    References
    ----------
    .. [1] P. E. Weidmann, "DRY: A modern repetition penalty that reliably prevents looping", 2024,
       https://github.com/oobabooga/text-generation-webui/pull/5677

    Examples
    --------
    The last two tokens, 5 and 6, have been followed by 7 once, and by 8 after a longer repetition:

    >>> from fastsoftmax import Sampler
    >>> sampler = Sampler(DRY(1.0, base=2.0))
    >>> sampler.filter([0.0] * 9, [5, 6, 7, 1, 5, 6, 8, 1, 5, 6])
    array([ 0.,  0.,  0.,  0.,  0.,  0.,  0., -1., -2.])
    """

    multiplier: PerRow
    base: PerRow = 1.75
    allowed_length: PerRow = 2
    last: PerRow = None
    breakers: Iterable[Iterable[int]] = ()
    exempt: Iterable[int] = ()
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._number("multiplier", 0, inf)
        self._number("base", 1, inf)
        self._count("allowed_length")
        self._count("last", 0, none=True)
        object.__setattr__(self, "breakers", sequences(self.breakers, self._named("breakers")))
        object.__setattr__(self, "exempt", token_ids(self.exempt, self._named("exempt")))

    def check(self, size: int) -> None:
        self._check_ids("exempt", self.exempt, size)
        self._check_ids("breakers", sorted({i for b in self.breakers for i in b}), size)

    def reordered_ids(self, history: Tokens) -> Ids:
        return self._repetitions(history)[0]

    def _repetitions(self, history: Tokens) -> tuple[Ids, Ids]:
        """Return the ids to penalise, ascending, and the length of what each would continue."""
        breakers: tuple[tuple[int, ...], ...] = self.breakers  # type: ignore[assignment]
        most = history.since(breakers, self.last)
        if self.base > _ALMOST_ONE:
            most = min(most, self.allowed_length + int(_LOG_MAX / log(self.base)))
        ids, lengths = history.continuations(self.allowed_length, most, self.last)
        alone = [*self.exempt, *(b[0] for b in breakers if len(b) == 1)]
        rest = ~np.isin(ids, alone)
        return ids[rest], lengths[rest]

    def __call__(self, left: Candidates) -> Candidates:
        ids, lengths = self._repetitions(left.history)
        at, found = left.find(ids)
        if not at.size:
            return left
        powers = (lengths[found] - self.allowed_length).tolist()
        scores = left.scores.copy()
        scores[at] -= [self.multiplier * self.base**power for power in powers]
        return left.with_scores(scores)


#: The logarithm of the largest float32, which no power exceeds; bases up to this need no such end.
_LOG_MAX = 88.7228391
_ALMOST_ONE = 1.000001
