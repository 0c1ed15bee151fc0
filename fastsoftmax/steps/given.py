"""Steps that are given token ids: biases, and what is allowed, suppressed or too early."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import NO_IDS, PerRow, Step
from .candidates import Candidates, Ids, Tokens
from .ids import biases, ids_of_mask


class _GivenIds(Step):
    """A step that is given token ids; `_ids` holds them in ascending order."""

    _ids: Ids
    _mask_size: int | None = None

    def _set_ids(self, ids: tuple[int, ...]) -> None:
        """Keep `ids`, which are ascending, as an array."""
        object.__setattr__(self, "_ids", np.array(ids, dtype=np.int64))

    def _take_ids(self) -> None:
        """Keep the field `ids`, ids or a mask of the vocabulary, as a tuple and as an array."""
        ids, size = ids_of_mask(self.ids, self._named("ids"))  # type: ignore[attr-defined]
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "_mask_size", size)
        self._set_ids(ids)

    def check(self, size: int) -> None:
        if self._mask_size not in (None, size):
            raise ValueError(
                f"{type(self).__name__} has a mask of {self._mask_size} tokens; logits has {size}"
            )
        if self._ids.size and self._ids[-1] >= size:
            raise ValueError(
                f"{type(self).__name__} has {self._ids[-1]}; allowed are ids from 0 to {size - 1}"
            )

    def reordered_ids(self, history: Tokens) -> Ids:
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
    ids : iterable of int, or (n,) ndarray of bool
        The ids, or a mask of the vocabulary. (Kept as a tuple of ids.)

    Notes
    -----
    Order matters: what is removed early is not in the masses that later steps see.
    """

    ids: Iterable[int] | NDArray[np.bool_]
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._take_ids()

    def __call__(self, left: Candidates) -> Candidates:
        return left.without(self._ids)


@dataclass(frozen=True, repr=False)
class AllowedTokens(_GivenIds):
    """Remove all tokens but those with these ids, as a grammar does.

    Parameters
    ----------
    ids : iterable of int, or (n,) ndarray of bool
        The ids, or a mask of the vocabulary. (Kept as a tuple of ids.)

    Notes
    -----
    Order matters: put first, the whole sampler looks at these tokens only. vLLM does so.
    """

    ids: Iterable[int] | NDArray[np.bool_]

    def __post_init__(self) -> None:
        self._take_ids()

    def __call__(self, left: Candidates) -> Candidates:
        return left.keep(left.find(self._ids)[0])


@dataclass(frozen=True, repr=False)
class MinLength(_GivenIds):
    """Remove the tokens with these ids, such as those of the end, until enough are generated.

    Parameters
    ----------
    length : int
        As long as there are fewer tokens, the ids are removed.
    ids : iterable of int, or (n,) ndarray of bool
        The ids, or a mask of the vocabulary. (Kept as a tuple of ids.)
    prompt : bool, default False
        Whether the prompt's tokens count (Hugging Face's ``min_length``), or only those generated
        (its ``min_new_tokens``, vLLM's ``min_tokens``). How many tokens are the prompt is an
        argument of the sampler's call.

    Notes
    -----
    Order matters: what is removed early is not in the masses that later steps see.

    References
    ----------
    .. [1] transformers, ``MinNewTokensLengthLogitsProcessor`` in ``generation/logits_process.py``,
       https://github.com/huggingface/transformers
    """

    length: PerRow
    ids: Iterable[int] | NDArray[np.bool_]
    prompt: PerRow = False
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._count("length", 0)
        self._switch("prompt")
        self._take_ids()

    def reordered_ids(self, history: Tokens) -> Ids:
        return self._ids if history.latest(None, self.prompt).size < self.length else NO_IDS

    def __call__(self, left: Candidates) -> Candidates:
        return left.without(self.reordered_ids(left.history))
