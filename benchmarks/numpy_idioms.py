"""What one writes in NumPy by hand: the usual way, and a faster one by `np.partition`."""

from functools import partial

import numpy as np


def softmax(x, axis=-1, temperature=None, out=None):
    """Softmax without a needless copy."""
    if temperature:
        out = x = np.divide(x, x.dtype.type(temperature), out=out)
    out = np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=axis, keepdims=True)
    return out


def log_softmax(x):
    """The logarithm of `softmax`, without dividing."""
    shifted = x - x.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def logsumexp(x):
    """The logarithm of the sum of exp over each row."""
    largest = x.max(axis=-1, keepdims=True)
    terms = x - largest
    np.exp(terms, out=terms)
    return largest[..., 0] + np.log(terms.sum(axis=-1))


def cross_entropy(x, classes):
    """Mean loss and gradient."""
    place = (np.arange(len(x)), classes)
    grad = x - x.max(axis=-1, keepdims=True)
    at_target = grad[place]
    np.exp(grad, out=grad)
    total = grad.sum(axis=-1, keepdims=True)
    grad /= total * len(x)
    grad[place] -= 1 / len(x)
    return (np.log(total[:, 0]) - at_target).mean(), grad


def by_argpartition(row, k):
    """The k largest of a row, largest first: the usual idiom."""
    found = np.argpartition(row, row.size - k)[row.size - k :]
    values = row[found]
    order = values.argsort()[::-1]
    return values[order], found[order]


def by_threshold(row, k):
    """The same by a threshold: np.partition is twice as fast as np.argpartition."""
    threshold = np.partition(row, row.size - k)[row.size - k]
    found = np.flatnonzero(row >= threshold)
    values = row[found]
    order = values.argsort()[: -k - 1 : -1]
    return values[order], found[order]


def top_k(choose, x, k):
    """Values and indices of the k largest of each row."""
    # Row by row: argpartition with an axis, then take_along_axis, is no faster even on short rows.
    if len(x) == 1:
        return choose(x[0], k)
    rows = [choose(row, k) for row in x]
    return np.array([values for values, _ in rows]), np.array([ids for _, ids in rows])


def draw(choose, row, rng, temperature=1.0, top_k=None, top_p=None):
    """Draw one id: from what `choose` leaves of the row, or from all of it."""
    if top_k:
        values, ids = choose(row, top_k)
    elif top_p:  # the whole row must be sorted
        ids = row.argsort()[::-1]
        values = row[ids]
    else:
        mass = np.exp((row - row.max()) / row.dtype.type(temperature)).cumsum(dtype=np.float64)
        return mass.searchsorted(rng.random() * mass[-1], side="right")
    mass = np.exp((values - values[0]) / row.dtype.type(temperature)).cumsum(dtype=np.float64)
    kept = mass[mass.searchsorted(top_p * mass[-1])] if top_p else mass[-1]
    return ids[mass.searchsorted(rng.random() * kept, side="right")]


def sampler(choose, x, **filters):
    """A call that draws one id for each row; filters may be lists of one value a row."""
    rng = np.random.default_rng(0)
    rows = [partial(draw, choose, row, rng, **each) for row, each in per_row(x, filters)]
    return lambda: [row() for row in rows]


def per_row(x, filters):
    """Each row with its own filters."""
    for i, row in enumerate(x):
        yield row, {name: v[i] if np.ndim(v) else v for name, v in filters.items()}
