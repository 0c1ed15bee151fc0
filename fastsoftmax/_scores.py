"""Steps that change scores, and those that allow or ban given tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from operator import index
from typing import Any, ClassVar

import numpy as np

from ._candidates import Candidates, History, Ids
from ._step import Step


@dataclass(frozen=True, repr=False)
class Temperature(Step):
    """Divide the scores: ``score / temperature``.

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
    local: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._number("temperature", 0, inf)

    @property
    def leaves(self) -> int:
        return 0 if self.temperature else 1

    def __call__(self, left: Candidates) -> Candidates:
        if self.temperature == 1:
            return left
        if self.temperature == 0:
            return left.keep_best(1)
        return left.rescored(left.scores / self.temperature)


# ---- what has been said already ------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class _Penalty(Step):
    """A penalty on the tokens so far.

    Parameters
    ----------
    penalty : float
        How much.
    last : int, optional
        Look back on this many tokens only, the latest; None on all.
    prompt : bool, default True
        Whether the prompt's tokens count, or only those generated (`Sampler`'s argument `prompt`
        says how many tokens are the prompt).
    """

    penalty: float
    last: int | None = None
    prompt: bool = True
    local: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._number("penalty", -inf, inf)
        if self.last is not None:
            self._count("last", 0)
        if not isinstance(self.prompt, bool):
            raise TypeError(
                f"{self._named('prompt')} is {self.prompt!r}; "
                "allowed are True and False"
            )

    def touches(self, history: History) -> Ids:
        return history.counts(self.last, self.prompt)[0]

    def __call__(self, left: Candidates) -> Candidates:
        ids, counts = left.history.counts(self.last, self.prompt)
        at, found = left.find(ids)
        if not at.size:
            return left
        scores = left.scores.copy()
        scores[at] = self._penalised(scores[at], counts[found])
        return left.rescored(scores)

    def _penalised(self, scores: Any, counts: Ids) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class RepetitionPenalty(_Penalty):
    """Divide the score of each token so far by `penalty` if it is positive, else multiply it.

    Parameters
    ----------
    penalty : float, above 0
        Above 1 repetition becomes less likely, below 1 more. How often a token has occurred makes
        no difference.
    last, prompt
        As in `FrequencyPenalty`.

    Notes
    -----
    Order matters: a score's sign and size depend on `Temperature` and biases before it, so this
    comes first everywhere.

    References
    ----------
    .. [1] N. S. Keskar et al., "CTRL: A Conditional Transformer Language Model for Controllable
       Generation", 2019, https://arxiv.org/abs/1909.05858
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("penalty", 0, inf, open_low=True)

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
        Look back on this many tokens only, the latest; None on all.
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

    Parameters, order and source are those of `FrequencyPenalty`.
    """

    def _penalised(self, scores: Any, counts: Ids) -> Any:
        return scores - self.penalty


# ---- given ids -----------------------------------------------------------------------------------


class _Named(Step):
    """A step that names ids."""

    _ids: Ids

    def _name(self, name: str, ids: Iterable[Any]) -> tuple[int, ...]:
        """Remember the ids, or raise; return them as integers in ascending order."""
        allowed = "allowed are token ids, integers from 0"
        try:
            named = sorted({index(i) for i in ids})
        except TypeError:
            raise TypeError(f"{self._named(name)} is {ids!r}; {allowed}") from None
        if named and named[0] < 0:
            raise ValueError(f"{self._named(name)} has {named[0]}; {allowed}")
        object.__setattr__(self, "_ids", np.array(named, dtype=np.int64))
        return tuple(named)

    def check(self, size: int) -> None:
        if self._ids.size and self._ids[-1] >= size:
            raise ValueError(
                f"{type(self).__name__} has {self._ids[-1]}; allowed are ids from 0 to {size - 1}"
            )

    def touches(self, history: History) -> Ids:
        return self._ids


@dataclass(frozen=True, repr=False)
class LogitBias(_Named):
    """Add a number to the scores of given tokens.

    Parameters
    ----------
    bias : mapping of int to float
        What to add to which id; -inf removes it. (Kept as a tuple of pairs.)

    Notes
    -----
    Order matters: vLLM and llama.cpp add it before the penalties. Source as `FrequencyPenalty`,
    ``logit_bias``.
    """

    bias: Mapping[int, float] | tuple[tuple[int, float], ...]
    local: ClassVar[bool] = True

    def __post_init__(self) -> None:
        try:
            pairs = {i: float(value) for i, value in dict(self.bias).items()}
        except (TypeError, ValueError):
            raise TypeError(
                f"{self._named('bias')} is {self.bias!r}; allowed is a mapping of ids to numbers"
            ) from None
        ids = self._name("bias", pairs)
        values = np.array([pairs[i] for i in ids], dtype=np.float64)
        if not (values < inf).all():
            wrong = ids[int(np.argmin(values < inf))]
            raise ValueError(
                f"{self._named('bias')} has {pairs[wrong]!r} for {wrong}; "
                "allowed are finite numbers and -inf"
            )
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "bias", tuple(zip(ids, values.tolist(), strict=True)))

    def __repr__(self) -> str:
        return f"LogitBias({dict(self.bias)})"

    def __call__(self, left: Candidates) -> Candidates:
        at, found = left.find(self._ids)
        scores = left.scores.copy()
        scores[at] += self._values[found]  # type: ignore[attr-defined]
        return left.rescored(scores)


@dataclass(frozen=True, repr=False)
class Banned(_Named):
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
    local: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", self._name("ids", self.ids))

    def __call__(self, left: Candidates) -> Candidates:
        stays = np.ones(left.ids.size, dtype=bool)
        stays[left.find(self._ids)[0]] = False
        return left.keep(stays)


@dataclass(frozen=True, repr=False)
class Allowed(_Named):
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
        object.__setattr__(self, "ids", self._name("ids", self.ids))

    def __call__(self, left: Candidates) -> Candidates:
        return left.keep(left.find(self._ids)[0])
