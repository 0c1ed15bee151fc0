"""Steps that change scores, and those that allow or suppress given tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from operator import index
from sys import float_info
from typing import Any, ClassVar

import numpy as np

from .._arguments.values import shown
from .base import Step, as_float
from .candidates import Candidates, History, Ids


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

    temperature: float
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._number("temperature", 0, inf)

    @property
    def max_kept(self) -> int:
        return 0 if self.temperature else 1

    def __call__(self, left: Candidates) -> Candidates:
        if self.temperature == 1:
            return left
        if self.temperature == 0:
            return left.keep_best(1)
        if 1 / self.temperature == inf:  # held at the largest finite number, as everywhere
            return left.with_scores(left.scores * float_info.max)
        return left.with_scores(left.scores / self.temperature)


# ---- what has been said already ------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class _Penalty(Step):
    """A step that lowers the scores of the tokens so far: `penalty`, `last` and `prompt`."""

    penalty: float
    last: int | None = None
    prompt: bool = True
    order_preserving: ClassVar[bool] = True
    _above: ClassVar[float] = -inf

    def __post_init__(self) -> None:
        self._number("penalty", self._above, inf, open_low=True)
        if self.last is not None:
            self._count("last", 0)
        self._switch("prompt")

    def reordered_ids(self, history: History) -> Ids:
        return history.counts(self.last, self.prompt)[0]

    def __call__(self, left: Candidates) -> Candidates:
        ids, counts = left.history.counts(self.last, self.prompt)
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


# ---- given ids -----------------------------------------------------------------------------------


def token_ids(ids: Any, name: str) -> tuple[int, ...]:
    """Return token ids as distinct integers in ascending order, or raise.

    Parameters
    ----------
    ids : iterable of int
        What was given; a bool is no id.
    name : str
        What an error calls it.
    """
    allowed = "allowed are token ids, integers from 0 to 2**63 - 1"
    found = set()
    token = ids
    try:
        for token in ids:
            if isinstance(token, bool):
                raise TypeError
            found.add(index(token))
    except TypeError:
        verb = "is" if token is ids else "has"
        raise TypeError(f"{name} {verb} {shown(token)}; {allowed}") from None
    ascending = sorted(found)
    for i in ascending[:1] + ascending[-1:]:
        if not 0 <= i < 1 << 63:
            raise ValueError(f"{name} has {shown(i)}; {allowed}")
    return tuple(ascending)


def biases(bias: Any, name: str) -> tuple[tuple[int, float], ...]:
    """Return pairs of a token id and a bias in ascending order of the ids, or raise.

    Parameters
    ----------
    bias : mapping of int to float
        What was given, or pairs that ``dict`` takes.
    name : str
        What an error calls it.
    """
    try:
        given = dict(bias)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is {shown(bias)}; allowed is a mapping of ids to numbers"
        ) from None
    token_ids(given, name)
    pairs = {}
    for token, value in given.items():
        i = index(token)
        wrong = f"{name} has {shown(value)} for {i}; allowed are finite numbers and -inf"
        try:
            pairs[i] = as_float(value)
        except TypeError:
            raise TypeError(wrong) from None
        except OverflowError:
            raise ValueError(wrong) from None
        if not pairs[i] < inf:
            raise ValueError(wrong)
    return tuple(sorted(pairs.items()))


class _GivenIds(Step):
    """A step that is given token ids; `_ids` holds them in ascending order."""

    _ids: Ids

    def _set_ids(self, ids: tuple[int, ...]) -> None:
        """Keep `ids`, which are ascending, as an array."""
        object.__setattr__(self, "_ids", np.array(ids, dtype=np.int64))

    def check(self, size: int) -> None:
        if self._ids.size and self._ids[-1] >= size:
            raise ValueError(
                f"{type(self).__name__} has {self._ids[-1]}; allowed are ids from 0 to {size - 1}"
            )

    def reordered_ids(self, history: History) -> Ids:
        return self._ids


@dataclass(frozen=True, repr=False)
class LogitBias(_GivenIds):
    """Add a number to the scores of given tokens.

    Parameters
    ----------
    bias : mapping of int to float
        What to add to which id; -inf removes it. (Kept as a tuple of pairs.)

    Notes
    -----
    Order matters: vLLM and llama.cpp add it before the penalties.

    References
    ----------
    .. [1] OpenAI API reference, ``logit_bias``,
       https://platform.openai.com/docs/api-reference/chat/create
    """

    bias: Mapping[int, float] | tuple[tuple[int, float], ...]
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        pairs = biases(self.bias, self._named("bias"))
        self._set_ids(tuple(i for i, _ in pairs))
        object.__setattr__(self, "_values", np.array([x for _, x in pairs], dtype=np.float64))
        object.__setattr__(self, "bias", pairs)

    def __repr__(self) -> str:
        return f"LogitBias({dict(self.bias)})"

    def __call__(self, left: Candidates) -> Candidates:
        at, found = left.find(self._ids)
        scores = left.scores.copy()
        scores[at] += self._values[found]  # type: ignore[attr-defined]
        return left.with_scores(scores)


@dataclass(frozen=True, repr=False)
class SuppressTokens(_GivenIds):
    """Remove the tokens with these ids.

    Parameters
    ----------
    ids : iterable of int
        The ids. (Kept as a tuple.)

    Notes
    -----
    Order matters: what is removed early is not in the masses that later steps see.
    """

    ids: Iterable[int]
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", token_ids(self.ids, self._named("ids")))
        self._set_ids(self.ids)  # type: ignore[arg-type]

    def __call__(self, left: Candidates) -> Candidates:
        stays = np.ones(left.ids.size, dtype=bool)
        stays[left.find(self._ids)[0]] = False
        return left.keep(stays)


@dataclass(frozen=True, repr=False)
class AllowedTokens(_GivenIds):
    """Remove all tokens but those with these ids, as a grammar does.

    Parameters
    ----------
    ids : iterable of int
        The ids. (Kept as a tuple.)

    Notes
    -----
    Order matters: put first, the whole sampler looks at these tokens only. vLLM does so.
    """

    ids: Iterable[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", token_ids(self.ids, self._named("ids")))
        self._set_ids(self.ids)  # type: ignore[arg-type]

    def __call__(self, left: Candidates) -> Candidates:
        return left.keep(left.find(self._ids)[0])
