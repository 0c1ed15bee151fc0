"""Signatures and docstrings of what is found of rows: means, entropies, divergences, and more."""

from typing import Any


def logmeanexp(
    x: Any, axis: Any = -1, *, where: Any = None, keepdims: bool = False, workers: Any = None
) -> Any:
    """Return ``log(mean_j exp(x_j))`` along an axis: of log-probabilities, that of their mean.

    Parameters
    ----------
    x : array_like
        Scores, as `logsumexp` takes them.
    axis : int, tuple of ints or None, default -1
        The axis to average along; several together, or None for the whole array.
    where : array_like of bool, optional
        The entries that count, broadcast to `x`. The mean is over these.
    keepdims : bool, default False
        Whether the reduced axes stay, with length 1.
    workers : int, optional
        How many threads may share the work, as for `softmax`.

    Returns
    -------
    ndarray
        The shape of `x` without `axis`, and its dtype if that is a float type, else float64; a
        NumPy scalar if no axis is left.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `logsumexp`.

    Notes
    -----
    Entries of -inf count, as exp(-inf) = 0. A row with nothing else is -inf, one with +inf is +inf,
    with NaN it is NaN, and so is the mean of nothing. No warning is emitted.

    Accuracy: that of `logsumexp`; the logarithms of sum and count are subtracted in float64, and
    the result is rounded once. The mean of equal numbers is that number.

    Examples
    --------
    The probabilities of an ensemble of three models, averaged:

    >>> import numpy as np
    >>> from fastsoftmax import log_softmax, logmeanexp
    >>> logits = np.log([[[0.5, 0.5]], [[0.9, 0.1]], [[0.7, 0.3]]])
    >>> np.exp(logmeanexp(log_softmax(logits), 0)).round(4)
    array([[0.7, 0.3]])
    """


def entropy(
    logits: Any,
    axis: Any = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    keepdims: bool = False,
    workers: Any = None,
) -> Any:
    """Return the entropy of the distribution ``softmax(logits / T)`` along an axis, in nats.

    Parameters
    ----------
    logits : array_like
        Scores, as `softmax` takes them.
    axis : int, tuple of ints or None, default -1
        The axis of a distribution; several together, or None for the whole array.
    temperature : float or array_like, default 1.0
        T, from 0 to inf: one value, or an array that broadcasts to the shape without `axis`. At 0
        the entropy is 0, at inf the logarithm of how many entries are not -inf.
    where : array_like of bool, optional
        The entries that count, broadcast to `logits`. The others are as if absent.
    keepdims : bool, default False
        Whether the reduced axes stay, with length 1.
    workers : int, optional
        How many threads may share the work, as for `softmax`.

    Returns
    -------
    ndarray
        The shape of `logits` without `axis`, and its dtype if that is a float type, else float64; a
        NumPy scalar if no axis is left.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax`.

    Notes
    -----
    It is ``L + sum(e d) / sum(e)`` with ``d = (max - x) / T``, ``e = exp(-d)`` and ``L`` the
    logarithm of the sum, by `log1p` of what comes beside the maximum: two numbers from 0 on, so
    that nothing cancels, and the entropy of a nearly certain row is not 0. NaN for rows that have
    no distribution: with NaN, +inf, nothing but -inf, or nothing at all. No warning is emitted.

    Accuracy: with u = 2**-24 for float32, 2**-53 for float64, the relative error is at most
    ``(12 + 0.2 m) u``, m the largest d that matters (that of entries whose ``e d`` is more than
    2**-24 of the sum). In float64, and outside of ``1e-30 <= T <= 1e30``: ``(12 + 1.1 m) u`` with
    the u of float64. Probabilities are not stored.

    Cost: 1.4 times that of `logsumexp`; the row is read once, by blocks that stay in cache, or
    twice, where its first 2,048 entries have a maximum far from that of all.

    Examples
    --------
    >>> from fastsoftmax import entropy
    >>> round(float(entropy([0.0, 0.0])), 6), float(entropy([0.0, -40.0]))
    (0.693147, 1.7418252446695514e-16)
    """


def kl_divergence(
    logits: Any,
    other: Any,
    axis: Any = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    keepdims: bool = False,
    workers: Any = None,
) -> Any:
    """Return the divergence ``sum_j p_j log(p_j / q_j)`` of two distributions given by logits.

    p is ``softmax(logits / T)``, q is ``softmax(other / T)``, along an axis.

    Parameters
    ----------
    logits : array_like
        Scores of p, as `softmax` takes them.
    other : array_like
        Scores of q; they broadcast to `logits`.
    axis : int, tuple of ints or None, default -1
        The axis of a distribution; several together, or None for the whole array.
    temperature : float or array_like, default 1.0
        T of both, from 0 to inf: one value, or an array that broadcasts to the shape without
        `axis`. At 0 it is 0 where both have their first maximum in the same place, else inf.
    where : array_like of bool, optional
        The entries that count, in both, broadcast to `logits`.
    keepdims : bool, default False
        Whether the reduced axes stay, with length 1.
    workers : int, optional
        How many threads may share the work, as for `softmax`.

    Returns
    -------
    ndarray
        In nats, from 0 on. The shape of `logits` without `axis`, and its dtype if that is a float
        type and `other` is not wider than float32, else float64; a NumPy scalar if no axis is left.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax`; ValueError for an `other` that does not broadcast to `logits`.

    Notes
    -----
    Entries with p = 0 count as 0, whatever q is; an entry with q = 0 and p > 0 makes it inf. NaN if
    p or q is no distribution: with NaN, +inf, nothing but -inf, or nothing at all.

    Accuracy: all is float64, whatever the logits' type, and the result is rounded once. With
    u = 2**-53, t the mean of ``|log(p/q)|`` by p and L the larger of both log-sums less their
    maxima, the absolute error before that is at most ``(16 + D) (t + L) u``, D the largest distance
    of an entry that matters from its maximum. A result that would be below 0 is 0.

    Cost: two exponentials in float64 an entry, and two reads of each row. Neither probabilities nor
    their logarithms are stored.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import kl_divergence
    >>> round(float(kl_divergence(np.log([0.5, 0.5]), np.log([0.9, 0.1]))), 6)
    0.510826
    """


def row_stats(
    logits: Any,
    want: Any = ("max", "argmax", "logsumexp", "entropy", "margin"),
    *,
    axis: int = -1,
    top: int = 0,
    ids: Any = None,
    temperature: Any = 1.0,
    workers: Any = None,
) -> Any:
    """Return what is asked for of each row: its maximum, sums, best entries, ranks.

    Parameters
    ----------
    logits : array_like
        Scores, as `softmax` takes them.
    want : str or iterable of str
        Some of "max", "argmax", "logsumexp", "entropy", "margin"; () for none of them.
    axis : int, default -1
        The axis of a row.
    top : int, default 0
        How many of the largest entries to list, from 0 to 128 and the length of a row; `top_k`
        lists more.
    ids : array_like of int, optional
        Entries to rank: one for each row, in the shape of `logits` without `axis`, or m of them
        along one more axis, the last.
    temperature : float or array_like, default 1.0
        T of log-sum, entropy and margin: one value, or one a row.
    workers : int, optional
        How many threads may share the work, as for `softmax`.

    Returns
    -------
    RowStats
        Named tuple, None for what was not asked for, each of the shape of `logits` without `axis`:
        ``max``; ``argmax`` (int64), its first place, -1 in a row with NaN; ``logsumexp``, that of
        ``logits / T``; ``entropy``; ``margin``, ``(x1 - x2) / T`` for the two largest entries,
        which is the difference of their log-probabilities, inf if there is one entry alone.
        ``top_values`` and ``top_indices`` (int64) have one more axis, the last: what `top_k` gives.
        ``ranks`` (int64), of the shape of `ids`: what `rank` gives. Numbers have the dtype of the
        logits if that is a float type, else float64.

    Raises
    ------
    IndexError
        An id that is not from 0 to n - 1 (it is named).
    ValueError
        Another name in `want`, a `top` or a temperature out of range, shapes that do not fit.
    TypeError
        A dtype without probabilities, a masked array, a `top` or ids that are no integers.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    A row with NaN, +inf or nothing but -inf has no entropy and no margin (NaN); its maximum and
    log-sum are those of `numpy.max` and `logsumexp`. Integers count as float64 in the order, too.
    At T = 0 the log-sum is ``max / T``, with 1/T held at the largest finite number.

    Accuracy: at T = 1 ``logsumexp`` has the bits of `logsumexp`; the entropy is that of `entropy`.

    Cost: 1.4 to 1.6 times that of `logsumexp` by default, with a few of the largest and an id of
    each row 1.8 times for long rows, 2.5 times for rows of 1,000. The row is read from memory once;
    what looks into it a second time finds it in cache, but for rows longer than that. One
    exponential an entry, if log-sum or entropy are asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import row_stats
    >>> stats = row_stats(np.log([0.1, 0.6, 0.3]), top=2, ids=2)
    >>> stats.argmax, round(float(stats.entropy), 4), round(float(np.exp(stats.margin)), 4)
    (np.int64(1), 0.8979, 2.0)
    >>> stats.top_indices, stats.ranks
    (array([1, 2]), np.int64(1))
    """
