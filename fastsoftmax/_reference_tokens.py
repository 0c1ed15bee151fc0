"""The oracle's log-probabilities and ranks of given tokens."""

from typing import Any

import numpy as np

from . import _arrays, _threads
from ._arrays import Drawn, TopLogprobs
from ._reference_sample import _draw, _order, _others, _Rows, _scores


def sample_with_logprobs(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    size: int | None = None,
    replace: bool = True,
    rng: Any = None,
    seed: Any = None,
    position: Any = None,
    on_invalid: str = "raise",
    workers: Any = None,
) -> Drawn:
    """Draw as `sample`, and return with each index its log-probabilities and its rank.

    Parameters
    ----------
    logits, temperature, top_k, top_p, min_p, min_keep, size, replace
        As in `sample`.
    rng, seed, position, on_invalid, workers
        As in `sample`.

    Returns
    -------
    Drawn
        Named tuple of four arrays of one shape, that of what `sample` returns: ``ids``, what
        `sample` draws; ``logprobs``, their `token_logprobs` at this temperature, over the whole
        row; ``filtered_logprobs``, their log-probability among what the filters left, renormalised;
        and ``ranks``, their `rank`. Log-probabilities are in the dtype of `log_softmax`. For an
        index that is missing (-1) they are NaN, and the rank is -1.

    Raises
    ------
    ValueError, TypeError
        As `sample`.

    Notes
    -----
    ``filtered_logprobs`` is ``(x_i - max)/T - log1p(rest)`` in float64, rounded once; `rest` is the
    sum of the survivors' weights without the largest one's own. Without replacement it is the same:
    what was drawn before is not taken out of it. T = 0 gives 0.

    Integers count as float64 in the ranks, too.

    Cost: that of `sample`, and one exponential an entry for ``logprobs`` where `top_k` or `min_p`
    spares `sample` that. The ranks are found among what the filters left.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import sample_with_logprobs
    >>> drawn = sample_with_logprobs(np.log([0.1, 0.6, 0.3]), top_k=2, rng=0)
    >>> drawn.ids, drawn.ranks
    (np.int64(1), np.int64(0))
    >>> np.exp([drawn.logprobs, drawn.filtered_logprobs]).round(4)
    array([0.6   , 0.6667])
    """
    _threads.check(workers)
    rows = _Rows(logits)
    filters = _arrays.filters(rows.shape, temperature, top_k, top_p, min_p, min_keep)
    ids, own = _draw(rows, filters, size, replace, (rng, seed, position), on_invalid)
    missing = ids < 0
    if np.all(missing):  # there may be no id to ask about
        return Drawn(ids, np.full_like(own, np.nan)[()], own, np.full_like(ids, -1)[()])
    some = np.where(missing, 0, ids)
    x = rows.data.astype(np.float64).reshape(*rows.shape, rows.n)
    logprobs = token_logprobs(x, some, temperature=temperature)
    with np.errstate(over="ignore"):
        logprobs = np.where(missing, np.nan, logprobs).astype(rows.dtype)[()]
    return Drawn(ids, logprobs, own, np.where(missing, -1, rank(x, some))[()])


def token_logprobs(logits: Any, ids: Any, *, temperature: Any = 1.0) -> Any:
    """Return the log-probability of given tokens, the entries of `log_softmax` at `ids`.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Scores; dtypes as in `softmax`.
    ids : array_like of int, shape (...) or (..., m)
        One token for each row of logits, or m of them.
    temperature : float or array_like, default 1.0
        As in `log_softmax`, on the last axis.

    Returns
    -------
    ndarray, shape of `ids`
        In the dtype of `log_softmax`. NaN where the row has no probabilities (NaN, +inf or nothing
        above -inf in it).

    Raises
    ------
    IndexError
        An id that is not from 0 to n - 1 (it is named).
    ValueError
        A temperature out of range, an `ids` whose shape does not fit.
    TypeError
        A dtype without probabilities, ids that are no integers.

    Notes
    -----
    The sum is float64 and leaves out the largest entry's own term, as in `log_softmax`; the result
    is rounded once. T = 0 gives 0 for the largest entry (the lowest index among equals), else -inf.

    Cost: two reads of the row, an exponential an entry, for any number of ids; nothing of the row's
    size is allocated.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import token_logprobs
    >>> logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    >>> token_logprobs(logits, [0, 2]).round(4)
    array([-0.6931, -0.2231])
    """
    rows = _Rows(logits)
    t = np.broadcast_to(_arrays.temperatures(temperature, rows.shape), len(rows.data))
    checked = _arrays.token_ids(ids, rows.shape, rows.n)
    result = np.empty(checked.shape)
    for i, place in enumerate(np.ndindex(rows.shape)):
        with np.errstate(all="ignore"):
            d = _scores(rows.data[i].astype(np.float64), t[i])
            result[place] = (d - np.log1p(_others(d)))[checked[place]]
    with np.errstate(over="ignore"):
        return result.astype(rows.dtype)[()]


def top_logprobs(logits: Any, n: int, *, temperature: Any = 1.0) -> TopLogprobs:
    """Return the `n` largest log-probabilities of each row, and whose they are.

    Parameters
    ----------
    logits : array_like, shape (..., vocabulary)
        Scores; dtypes as in `softmax`.
    n : int
        How many, from 0 to the size of the vocabulary.
    temperature : float or array_like, default 1.0
        As in `token_logprobs`.

    Returns
    -------
    TopLogprobs
        Named tuple of ``logprobs`` and ``indices`` (int64), both of shape ``(..., n)``: what
        `token_logprobs` gives for the indices of `top_k`, in the order of `top_k`.

    Raises
    ------
    ValueError
        `n` or a temperature out of range.
    TypeError
        A dtype without probabilities, an `n` that is no integer.

    Notes
    -----
    Cost: as `top_k` and `token_logprobs`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import top_logprobs
    >>> logprobs, indices = top_logprobs(np.log([0.1, 0.6, 0.3]), 2)
    >>> logprobs.round(4), indices
    (array([-0.5108, -1.204 ]), array([1, 2]))
    """
    rows = _Rows(logits)
    count = _arrays.count(n, "n", 0, rows.n)
    indices = np.array([_order(row)[:count] for row in rows.data], dtype=np.int64)
    indices = indices.reshape(*rows.shape, count)
    x = rows.data.reshape(*rows.shape, rows.n)
    return TopLogprobs(token_logprobs(x, indices, temperature=temperature), indices)


def rank(logits: Any, ids: Any) -> Any:
    """Return how many entries come before each given token in the order of `top_k`.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Any dtype that `top_k` takes.
    ids : array_like of int, shape (...) or (..., m)
        One token for each row of logits, or m of them.

    Returns
    -------
    ndarray of int64, shape of `ids`
        0 for the token that comes first.

    Raises
    ------
    IndexError
        An id that is not from 0 to n - 1 (it is named).
    ValueError
        An `ids` whose shape does not fit.
    TypeError
        A dtype without an order, ids that are no integers.

    Notes
    -----
    Before a token come the larger entries, and the equal ones of lower index; NaN comes last. So
    ``top_k(logits, n).indices[..., rank(logits, ids)]`` is `ids`.

    Cost: one read of the row for any number of ids, and for each a look at the pieces of 256 that
    hold what comes before it; nothing of the row's size is allocated.

    Examples
    --------
    >>> from fastsoftmax import rank
    >>> rank([0.5, 2.0, 1.0, 2.0], [0, 1, 2, 3])
    array([3, 0, 2, 1])
    """
    rows = _Rows(logits)
    checked = _arrays.token_ids(ids, rows.shape, rows.n)
    result = np.empty_like(checked)
    for row, place in zip(rows.data, np.ndindex(rows.shape), strict=True):
        result[place] = np.argsort(_order(row))[checked[place]]
    return result[()]
