"""The exact distribution of what `verify` emits: all drafts, and every piece of the uniforms.

What is emitted is constant between some bounds of each uniform: those are found by bisection, to
the last of 53 bits. So the probability of each sequence is a sum, not a count of draws.
"""

import itertools

import numpy as np

from tests.oracles import Uniforms, survivors

LAST = 1 - 2**-53
BITS = 53


def probabilities(row, **filters):
    """Return what the filters leave of a row as a probability for each id."""
    p = np.zeros(len(row))
    if filters.get("temperature") == 0:
        p[np.argmax(row)] = 1
        return p
    if filters.get("temperature") == np.inf:  # the best, of which the first are kept
        kept = np.argsort(-row, kind="stable")[: filters["top_k"]]
        kept = np.sort(kept[row[kept] > -np.inf])
        p[kept[: int(np.ceil(filters["top_p"] * len(kept)))]] = 1
        return p / p.sum()
    kept, weight = survivors(np.asarray(row), **filters)
    p[kept] = weight / weight.sum()
    return p


class Case:
    """Target and draft rows for every prefix of ids, and the call that verifies drafts of them.

    `draft` is None for a draft that is certain of its ids.
    """

    def __init__(self, verify, n, length, target, draft, method, filters):
        self.verify, self.n, self.length, self.method = verify, n, length, method
        self.target, self.draft, self.filters = target, draft, filters
        self.known = None, None

    def emitted(self, drafts, u):
        """Return ids and counts of a request for each of the drafts, with its uniforms."""
        if drafts != self.known[0]:
            self.known = drafts, self.arrays(drafts)
        return self.verify(
            *self.known[1], method=self.method, rng=Uniforms(u), **self.filters
        )  # fmt: skip

    def arrays(self, drafts):
        """Return the ids, the target's and the draft's rows of each of the drafts."""
        shape = len(drafts), self.length
        rows = [[self.target(x[:j]) for j in range(self.length + 1)] for x in drafts]
        from_draft = None
        if self.draft:
            from_draft = [[self.draft(x[:j]) for j in range(self.length)] for x in drafts]
            from_draft = np.array(from_draft).reshape(*shape, self.n)
        return np.array(drafts, int).reshape(shape), np.array(rows), from_draft

    def bisect(self, drafts, u, column, goes_on):
        """Return the least of the uniforms in `column`, as bits, at which `goes_on` is False."""
        low, high = np.zeros(len(drafts)), np.full(len(drafts), 2.0**BITS)
        u = u.copy()
        for _ in range(BITS):
            middle = np.floor((low + high) / 2)
            u[:, column] = middle / 2**BITS
            on = goes_on(*self.emitted(drafts, u))
            low, high = np.where(on, middle, low), np.where(on, high, middle)
        u[:, column] = 0
        return np.where(goes_on(*self.emitted(drafts, u)), high, 0) / 2**BITS

    def chances(self, drafts):
        """Return for each draft how likely each number of accepted ids is, and each id behind them.

        As documented: what is accepted depends on u[1:] alone, each threshold on one of them.
        """
        size, k = len(drafts), self.length
        bounds = np.zeros((size, k))
        accepted = np.zeros((size, k + 1))
        for j in range(k):
            u = np.zeros((size, k + 1)) if self.method == "chain" else np.full((size, k + 1), LAST)
            u[:, j + 2 :] = LAST
            bounds[:, j] = self.bisect(drafts, u, j + 1, lambda ids, counts, j=j: counts > j + 1)
        for j in range(k + 1):
            if self.method == "chain":
                accepted[:, j] = bounds[:, :j].prod(1)
                accepted[:, j] *= 1 - bounds[:, j] if j < k else 1
            else:
                accepted[:, j] = (bounds[:, j - 1] if j else 1) * (1 - bounds[:, j:]).prod(1)
        behind = np.zeros((size, k + 1, self.n))
        for j in range(k + 1):
            u = np.full((size, k + 1), LAST)
            u[:, 1 : j + 1] = 0
            counts = self.emitted(drafts, u).counts
            assert np.all((counts == j + 1) | (accepted[:, j] < 1e-15))
            for i in range(self.n):
                below = self.bisect(
                    drafts, u, 0, lambda ids, counts, i=i, j=j: ids[:, j] <= i
                )  # fmt: skip
                behind[:, j, i] = 1 - below
            behind[:, j] = -np.diff(behind[:, j], prepend=1)
            behind[counts != j + 1, j] = 0
        return accepted, behind

    def distribution(self, drafts_from=None):
        """Return the probability of each sequence that is emitted, as long as it can be.

        The target goes on where fewer ids are. `drafts_from` gives the probabilities that ids are
        drafted with, by their prefix; by default those of the draft's rows.
        """
        drafts = list(itertools.product(range(self.n), repeat=self.length))
        drafts_from = drafts_from or self.from_draft
        weight = np.array([
            np.prod([drafts_from(x[:j])[x[j]] for j in range(self.length)]) for x in drafts
        ])  # fmt: skip
        drafts = [x for x, w in zip(drafts, weight, strict=True) if w > 0]
        weight = weight[weight > 0]
        accepted, behind = self.chances(drafts)
        found = np.zeros((self.n,) * (self.length + 1))
        for i, x in enumerate(drafts):
            for j in range(self.length + 1):
                for id in range(self.n):
                    p = weight[i] * accepted[i, j] * behind[i, j, id]
                    if p > 0:
                        found[(*x[:j], id)] += p * self.joint((*x[:j], id))
        return found

    def joint(self, prefix=()):
        """Return the target's probabilities of all sequences that go on from a prefix."""
        if len(prefix) == self.length + 1:
            return np.ones(())
        p = probabilities(self.target(prefix), **self.filters)
        none = np.zeros((self.n,) * (self.length - len(prefix)))
        behind = [self.joint((*prefix, i)) if p[i] else none for i in range(self.n)]
        return np.array([p[i] * behind[i] for i in range(self.n)])

    def from_draft(self, prefix):
        """Return the probabilities that the draft's row gives."""
        return probabilities(self.draft(prefix), **self.filters)

    def mean_count(self):
        """Return how many ids are emitted on average."""
        drafts = list(itertools.product(range(self.n), repeat=self.length))
        accepted, _ = self.chances(drafts)
        weight = [
            np.prod([self.from_draft(x[:j])[x[j]] for j in range(self.length)]) for x in drafts
        ]
        return float(weight @ (accepted @ np.arange(1, self.length + 2)))


def rows(n, seed, kind="normal"):
    """Return a function that gives a row of n float64 logits for each prefix."""
    kept = {}

    def row(prefix):
        if prefix not in kept:
            rng = np.random.default_rng([seed, n, *prefix])
            x = rng.standard_normal(n) * 1.5
            if kind == "ties":
                x = x.round()
            if kind == "holes":
                x[rng.random(n) < 0.4] = -np.inf
                x[rng.integers(n)] = 0.5
            kept[prefix] = x
        return kept[prefix]

    return row
