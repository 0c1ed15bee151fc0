"""What a `Sampler`'s steps see of a row: the candidates that are left, and the tokens so far.

Everything here is float64 and of the candidates' number; a sampler sees to it that they are few.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .. import _dispatch

fast = _dispatch.active

Ids = NDArray[np.int64]
Scores = NDArray[np.float64]


def places(among: Ids, ids: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    """Return where each of `ids` is in `among`, and whether it is there.

    Parameters
    ----------
    among : (n,) ndarray of int64, n > 0
        Ids in ascending order.
    ids : (m,) ndarray of int64
        What to look for.
    """
    at = np.minimum(among.searchsorted(ids), among.size - 1)
    return at, among[at] == ids


class Tokens:
    """The tokens of one row so far.

    Parameters
    ----------
    ids : (m,) ndarray of int64
        The tokens, the oldest first.
    prompt : int
        How many of them, from the first, are the prompt; the others have been generated.
    state : tuple of float, default ()
        What the sampler's step with a state (`Step.states`) knows after them; empty at first.
    """

    __slots__ = ("_counted", "ids", "prompt", "state")

    def __init__(self, ids: Ids, prompt: int, state: tuple[float, ...] = ()) -> None:
        self.ids = ids
        self.prompt = prompt
        self.state = state
        self._counted: dict[tuple[int | None, bool], tuple[Ids, Ids]] = {}

    def latest(self, last: int | None = None, prompt: bool = True) -> Ids:
        """Return the latest `last` tokens, all if None, with or without those of the prompt."""
        ids = self.ids if prompt else self.ids[self.prompt :]
        return ids if last is None else ids[max(ids.size - last, 0) :]

    def counts(self, last: int | None = None, prompt: bool = True) -> tuple[Ids, Ids]:
        """Return the distinct ids of the tokens so far, ascending, and how often each occurs.

        Parameters
        ----------
        last : int, optional
            Count the latest `last` tokens only.
        prompt : bool, default True
            Whether to count the prompt's tokens, too.
        """
        key = last, prompt
        if key not in self._counted:
            self._counted[key] = np.unique(self.latest(last, prompt), return_counts=True)
        return self._counted[key]

    def end_with(self, ids: tuple[int, ...], prompt: bool = True) -> bool:
        """Return whether the tokens so far, or those generated, end with `ids`."""
        return not ids or tuple(self.latest(len(ids), prompt).tolist()) == ids

    def continuations(self, least: int, most: int, last: int | None = None) -> tuple[Ids, Ids]:
        """Return the tokens that would continue a repetition, and how long that is so far.

        The end of the tokens is looked for further back; wherever at least `least` of its tokens
        occur, the token that follows there is one of those returned.

        Parameters
        ----------
        least : int, from 1
            The shortest repetition that counts.
        most : int
            Longer ones count as if they had this length.
        last : int, optional
            Look at the latest `last` tokens only.

        Returns
        -------
        ids : (m,) ndarray of int64
            The tokens that followed, ascending and distinct.
        lengths : (m,) ndarray of int64
            The length of the longest repetition that each would continue.
        """
        ids = self.latest(last)
        if most < least or ids.size < 2:
            return ids[:0], ids[:0]
        at = np.flatnonzero(ids[:-1] == ids[-1])  # where one token is repeated
        lengths = np.ones(at.size, dtype=np.int64)
        longer = np.arange(at.size)
        for length in range(1, most):
            longer = longer[at[longer] >= length]
            longer = longer[ids[at[longer] - length] == ids[-1 - length]]
            if not longer.size:
                break
            lengths[longer] = length + 1
        enough = lengths >= least
        following, which = np.unique(ids[at[enough] + 1], return_inverse=True)
        longest = np.zeros(following.size, dtype=np.int64)
        np.maximum.at(longest, which, lengths[enough])
        return following, longest

    def since(self, breakers: tuple[tuple[int, ...], ...], last: int | None = None) -> int:
        """Return how many tokens there are after the latest of the sequences `breakers`.

        The latest is the one that begins last; of several that begin there, the longest. Without
        any it is all tokens, or the latest `last`.
        """
        ids = self.latest(last)
        heads = np.array([b[0] for b in breakers], dtype=np.int64)
        for i in np.flatnonzero(np.isin(ids, heads))[::-1].tolist():
            found = [len(b) for b in breakers if tuple(ids[i : i + len(b)].tolist()) == b]
            if found:
                return int(ids.size) - i - max(found)
        return int(ids.size)


class Candidates:
    """The tokens that are left of one row, and their scores. A step returns new ones.

    Attributes
    ----------
    ids : (n,) ndarray of int64
        The tokens, ascending.
    scores : (n,) ndarray of float64
        Logits as the steps so far have left them; none is -inf.
    history : Tokens
        The tokens so far.
    eps : float
        The machine epsilon of the logits' dtype: how exact the scores are.
    """

    __slots__ = ("_probs", "_uniforms", "eps", "history", "ids", "scores")

    def __init__(
        self, ids: Ids, scores: Scores, history: Tokens, eps: float, uniforms: Iterator[float]
    ) -> None:
        self.ids = ids
        self.scores = scores
        self.history = history
        self.eps = eps
        self._uniforms = uniforms
        self._probs: Scores | None = None

    @property
    def probs(self) -> Scores:
        """The probabilities of the candidates: they sum to 1."""
        if self._probs is None:
            self._probs = fast.softmax(self.scores)
        return self._probs

    @property
    def log_probs(self) -> Scores:
        """The logarithms of the candidates' probabilities."""
        return fast.log_softmax(self.scores)

    @property
    def entropy(self) -> float:
        """``-sum(p log p)`` of the candidates, in nats; a probability of 0 adds nothing."""
        return -float(self.probs @ self.log_probs)

    def uniform(self) -> float:
        """Return the next random number from [0, 1); a step takes as many as `Step.uniforms`."""
        number = next(self._uniforms, None)
        if number is None:
            raise ValueError("a step takes more random numbers than its `uniforms` says")
        return number

    def keep(self, which: NDArray[np.bool_] | Ids) -> Candidates:
        """Return the candidates that `which` selects: a mask, or positions in ascending order."""
        rest = self.history, self.eps, self._uniforms
        return Candidates(self.ids[which], self.scores[which], *rest)

    def without(self, ids: Ids) -> Candidates:
        """Return the candidates but those of `ids`."""
        stays = np.ones(self.ids.size, dtype=bool)
        stays[self.find(ids)[0]] = False
        return self.keep(stays)

    def with_scores(self, scores: Scores) -> Candidates:
        """Return the candidates with `scores` in place of theirs; those of -inf are removed."""
        new = Candidates(self.ids, scores, self.history, self.eps, self._uniforms)
        left = scores > -np.inf
        return new if left.all() else new.keep(left)

    def find(self, ids: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """Return the positions of those of `ids` that are left, and a mask of which these are."""
        at, left = places(self.ids, ids)
        return at[left], left

    def score(self, token: int) -> float:
        """Return the score of the id `token`, -inf if it is not left."""
        i = int(self.ids.searchsorted(token))
        there = i < self.ids.size and self.ids[i] == token
        return float(self.scores[i]) if there else -np.inf

    def best(self, k: int) -> Ids:
        """Return the positions of the `k` best, best first; the lower id wins among equals."""
        return fast.top_k(self.scores, min(k, self.ids.size)).indices

    def keep_best(self, k: int) -> Candidates:
        """Return the `k` best candidates; the lower id wins among equals."""
        order = fast.top_k(self.scores, min(k, self.ids.size), sorted=False).indices
        return self.keep(order)

    def above(self, threshold: float, min_keep: int) -> Candidates:
        """Return the candidates that score `threshold` and more, at least the `min_keep` best."""
        good = self.scores >= threshold
        if np.count_nonzero(good) < min_keep:
            return self.keep_best(min_keep)
        return self.keep(good)

    def smallest_with_mass(self, mass: float, key: Scores, min_keep: int) -> Ids:
        """Return the positions of the fewest candidates whose probabilities sum to `mass`.

        Parameters
        ----------
        mass : float, 0 to 1
            The sum to reach, less the rounding of the scores (``4 eps``); the candidate that
            reaches it is among those returned.
        key : (n,) ndarray of float64
            The order in which candidates are taken and returned: `key` descending, id ascending.
        min_keep : int
            At least this many are returned, if there are so many.
        """
        weights = np.exp(self.scores - self.scores.max())  # of equal scores they are 1: exact sums
        goal = mass * (1 - 4 * self.eps) * weights.sum()
        size = max(64, min_keep)
        while True:  # nothing sorts the vocabulary while a few hold the mass
            order = fast.top_k(key, min(size, key.size)).indices
            reached = int(weights[order].cumsum().searchsorted(goal)) + 1
            if reached <= order.size or order.size == key.size:
                return order[: max(reached, min_keep)]
            size *= 8
