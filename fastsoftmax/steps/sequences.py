"""Steps that look at how the tokens so far end: repeated n-grams, and sequences of ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import PerRow, Step
from .candidates import Candidates, Ids, Tokens
from .ids import sequence_biases, sequences

Sequence = tuple[int, ...]


@dataclass(frozen=True, repr=False)
class NoRepeatNGram(Step):
    """Remove the tokens that would repeat `n` tokens in a row.

    Parameters
    ----------
    n : int, from 1
        How many tokens may not occur again in the same order; with 1, no token may.

    Notes
    -----
    The prompt's tokens count as those generated. Order matters: what is removed early is not in the
    masses that later steps see.

    References
    ----------
    .. [1] R. Paulus, C. Xiong, R. Socher, "A Deep Reinforced Model for Abstractive Summarization",
       ICLR 2018, https://arxiv.org/abs/1705.04304
    """

    n: PerRow
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._count("n")

    def reordered_ids(self, history: Tokens) -> Ids:
        if self.n == 1:
            return history.counts()[0]
        return history.continuations(self.n - 1, self.n - 1)[0]

    def __call__(self, left: Candidates) -> Candidates:
        return left.without(self.reordered_ids(left.history))


@dataclass(frozen=True, repr=False)
class SequenceBias(Step):
    """Add a number to the score of the token that would complete a sequence.

    Parameters
    ----------
    bias : mapping of tuples of int to float
        What to add to the score of a sequence's last id where the tokens so far end with those
        before it; -inf removes it. Pairs of a sequence and a number are taken, too. (Kept as a
        tuple of pairs, ascending.)
    prompt : bool, default True
        Whether the beginning of a sequence may lie in the prompt. How many tokens are the prompt is
        an argument of the sampler's call.

    Notes
    -----
    The biases of one token are summed in the ascending order of their sequences, then added.
    Order matters: Hugging Face adds them before all else.

    References
    ----------
    .. [1] transformers, ``SequenceBiasLogitsProcessor`` in ``generation/logits_process.py``,
       https://github.com/huggingface/transformers

    Examples
    --------
    >>> from fastsoftmax import Sampler
    >>> step = SequenceBias({(2,): -1.0, (0, 3): 4.0, (1, 3): 8.0})
    >>> Sampler(step).filter([0.0, 0.0, 0.0, 0.0], [1, 0])
    array([ 0.,  0., -1.,  4.])
    """

    bias: Mapping[Sequence, float] | tuple[tuple[Sequence, float], ...]
    prompt: PerRow = True
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "bias", sequence_biases(self.bias, self._named("bias")))
        self._switch("prompt")

    def check(self, size: int) -> None:
        self._check_ids("bias", sorted({i for ids, _ in self._pairs for i in ids}), size)

    @property
    def _pairs(self) -> tuple[tuple[Sequence, float], ...]:
        """The sequences and their biases, ascending."""
        return self.bias  # type: ignore[return-value]

    def reordered_ids(self, history: Tokens) -> Ids:
        return np.array(sorted(self._sums(history)), dtype=np.int64)

    def _sums(self, history: Tokens) -> dict[int, float]:
        """Return what to add to the scores of which ids."""
        sums: dict[int, float] = {}
        for ids, bias in self._pairs:
            if history.end_with(ids[:-1], self.prompt):
                sums[ids[-1]] = sums.get(ids[-1], 0.0) + bias
        return sums

    def __call__(self, left: Candidates) -> Candidates:
        sums = self._sums(left.history)
        ids = np.array(sorted(sums), dtype=np.int64)
        at, found = left.find(ids)
        scores = left.scores.copy()
        scores[at] += [sums[i] for i in ids[found].tolist()]
        return left.with_scores(scores)


@dataclass(frozen=True, repr=False)
class BadWords(Step):
    """Remove the tokens that would complete one of these sequences.

    Parameters
    ----------
    words : iterable of sequences of int
        The sequences of ids; an id alone is never drawn. (Kept as a tuple of tuples, ascending.)
    prompt : bool, default True
        Whether the beginning of a sequence may lie in the prompt (Hugging Face), or must have been
        generated (vLLM). How many tokens are the prompt is an argument of the sampler's call.

    Notes
    -----
    Order matters: what is removed early is not in the masses that later steps see.

    References
    ----------
    .. [1] transformers, ``NoBadWordsLogitsProcessor`` in ``generation/logits_process.py``,
       https://github.com/huggingface/transformers
    """

    words: Iterable[Iterable[int]]
    prompt: PerRow = True
    order_preserving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", sequences(self.words, self._named("words")))
        self._switch("prompt")

    def check(self, size: int) -> None:
        self._check_ids("words", sorted({i for ids in self.words for i in ids}), size)

    def reordered_ids(self, history: Tokens) -> Ids:
        words: tuple[Sequence, ...] = self.words  # type: ignore[assignment]
        last = {ids[-1] for ids in words if history.end_with(ids[:-1], self.prompt)}
        return np.array(sorted(last), dtype=np.int64)

    def __call__(self, left: Candidates) -> Candidates:
        return left.without(self.reordered_ids(left.history))
