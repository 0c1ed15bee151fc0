"""The oracle: every public function in plain Python on NumPy, a row at a time, in float64.

The compiled implementations are tested against these functions, and take their docstrings from
here. This module is also what runs where nothing compiled can be loaded. Only the checks of the
arguments (``_arrays``) are shared with the compiled road; the arithmetic and the walk over the
rows are not.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import _arrays, _threads
from ._arrays import TopK
from ._reference_loss import (
    cross_entropy,
    cross_entropy_with_grad,
    log_softmax_backward,
    softmax_backward,
)
from ._reference_sample import _order, _others, _scores, filter_logits, sample, support
from ._reference_tokens import rank, sample_with_logprobs, token_logprobs, top_logprobs

__all__ = [
    "cross_entropy",
    "cross_entropy_with_grad",
    "filter_logits",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "rank",
    "sample",
    "sample_with_logprobs",
    "softmax",
    "softmax_backward",
    "support",
    "token_logprobs",
    "top_k",
    "top_logprobs",
]

NAME = "reference"


def softmax(
    x: Any,
    axis: Any = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    out: Any = None,
    workers: Any = None,
) -> Any:
    """Return the probabilities ``exp(x_i / T) / sum_j exp(x_j / T)`` along an axis.

    Computed as ``exp((x - max) * (1/T))``, so nothing overflows for any `temperature`.

    Parameters
    ----------
    x : array_like
        Scores. float32 and float64 are computed in their own precision; float16 and bfloat16 in
        float32, rounded once; integers, bools, lists and scalars in float64. Any strides.
    axis : int, tuple of ints or None, default -1
        What sums to 1: one axis, several together, or the whole array.
    temperature : float or array_like, default 1.0
        One value, or one that broadcasts to the shape of `x` without `axis`. 1 changes no bit.
        0 puts everything on the largest entry, the lowest index among equals; inf spreads evenly
        over the entries that are not -inf.
    where : array_like of bool, optional
        Entries to count, broadcast to `x`. The others are as if absent, and exactly 0 in the
        result. A row with nothing to count is all 0.
    out : ndarray, optional
        Where to write, of the result's shape and dtype and any strides. ``out=x`` works in place.
        Left alone by every error but KeyboardInterrupt.
    workers : int, optional
        How many threads may share the work: from 1; -1 for as many as there are CPUs, -2 for one
        less, and so on. None is what `set_workers` has set, 1 without it. No bit of the result
        depends on it, and little work is not shared.

    Returns
    -------
    ndarray
        Same shape as `x`; a NumPy scalar if `x` is 0-d. `out` if it was given. Along one axis its
        axes lie in memory as those of `x`, NumPy's order "K".

    Raises
    ------
    TypeError
        A dtype without probabilities (complex, object, text, dates), a masked array, a `where`
        that is not bool, an `out` of another dtype.
    ValueError
        A negative or NaN temperature, shapes that do not fit, a read-only `out`, 0 `workers` or a
        negative number beyond the CPUs.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    -inf becomes exactly 0. A row with NaN, with +inf or with nothing but -inf becomes NaN, that
    row only. A difference ``x - max`` that overflows counts as -inf. No warning is emitted.

    Accuracy: with ``d = x - max`` and u = 2**-24 for float32, 2**-53 for float64, every
    probability is within a relative error of ``(4 + 0.1 |d|/T) u`` for a T within u of the one
    that was given (T = 1 stays as it is). Without compiled code in float64 it is ``(4 + 1.1 |d|)
    u``, and there and on x86-64 without FMA ``(4 + 3.1 |d|/T) u`` at T other than 1. Below the
    smallest normal number it is within one smallest normal number. ``x[i] >= x[j]`` implies
    ``p[i] >= p[j]``. A row's bits depend on its values, T and dtype alone.

    Cost: two passes over a row, about one cycle an element with AVX2 in float32, if in cache; a
    third for the maximum in place, beyond 256 T from 0 (float64: 2048) and along other axes at T
    other than 1. Threads share the rows from some 0.2 ms of
    work, and a row from 0.6 ms. An array of any strides, or of a half type, is taken by blocks that
    stay in cache; only `where`, integers, byte order, several axes that are not contiguous and a
    partly overlapping `out` ask for a copy of the whole.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA Journal of Numerical Analysis 41 (2021),
       https://doi.org/10.1093/imanum/draa038

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import softmax
    >>> softmax(np.array([1.0, 2.0, 3.0])).round(4)
    array([0.09  , 0.2447, 0.6652])
    >>> softmax([[0.0, 0.0], [0.0, -np.inf]], temperature=[1.0, 0.5])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    _threads.check(workers)
    return _map_rows(_softmax_row, 0.0, x, axis, temperature, where, out)


def log_softmax(
    x: Any,
    axis: Any = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    out: Any = None,
    workers: Any = None,
) -> Any:
    """Return the logarithms of the probabilities along an axis: ``(x - max)/T - log(sum)``.

    Parameters and errors are those of `softmax`.

    Returns
    -------
    ndarray
        Same shape as `x`; -inf where `softmax` is exactly 0 by rule (-inf, `where` False, T = 0).

    Notes
    -----
    The sum leaves out the largest entry's own term, which is 1, and goes through ``log1p``: the
    most likely entry is not exactly 0 while another one still counts. A row with NaN, +inf or
    nothing but -inf becomes NaN; a row with nothing to count (`where`) becomes -inf.

    Accuracy: ``exp`` of the result keeps the bound of `softmax`, and the rounding of the result
    adds half a unit in its last place. Cost: as `softmax`.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA Journal of Numerical Analysis 41 (2021),
       https://doi.org/10.1093/imanum/draa038

    Examples
    --------
    >>> from fastsoftmax import log_softmax
    >>> log_softmax([0.0, -40.0])
    array([-4.24835426e-18, -4.00000000e+01])
    """
    _threads.check(workers)
    return _map_rows(_log_softmax_row, -np.inf, x, axis, temperature, where, out)


def logsumexp(
    x: Any, axis: Any = -1, *, where: Any = None, keepdims: bool = False, workers: Any = None
) -> Any:
    """Return ``log(sum_j exp(x_j))`` along an axis, as ``max + log1p(the others)``.

    Parameters
    ----------
    x, axis, where, workers
        As in `softmax`.
    keepdims : bool, default False
        Keep the reduced axes, with length 1.

    Returns
    -------
    ndarray
        The shape of `x` without `axis`; a NumPy scalar if nothing is left.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax`.

    Notes
    -----
    -inf entries do not contribute. An empty axis, a row with nothing but -inf and a row with
    nothing to count give -inf; a row with +inf gives +inf; a row with NaN gives NaN.

    Accuracy: an absolute error of a few u in the logarithm of the sum, u = 2**-24 or 2**-53, then
    one rounding. Cost: two passes over a row in cache.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA Journal of Numerical Analysis 41 (2021),
       https://doi.org/10.1093/imanum/draa038

    Examples
    --------
    >>> from fastsoftmax import logsumexp
    >>> float(logsumexp([0.0, -40.0]))
    4.248354255291589e-18
    """
    _threads.check(workers)
    x = _arrays.as_array(x, "x")
    rows, shape, axes = _rows(x, axis)
    keep = _keep(where, x, axis)
    with np.errstate(all="ignore"):
        values = [_logsumexp_row(r[k].astype(np.float64)) for r, k in zip(rows, keep, strict=True)]
    result = np.array(values, dtype=np.float64)
    if keepdims:
        shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    return _round(result, x.dtype).reshape(shape)[()]


def top_k(
    x: Any,
    k: int,
    /,
    *,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    workers: Any = None,
) -> TopK:
    """Return the `k` largest (or smallest) entries along an axis, and their indices.

    Parameters
    ----------
    x : array_like
        Any real dtype; the values keep it.
    k : int
        How many, from 0 to the length of the axis.
    axis : int, default -1
        The axis to choose along.
    mode : {"largest", "smallest"}
        Which end.
    sorted : bool, default True
        Best first; if False, in index order.
    workers : int, optional
        As in `softmax`.

    Returns
    -------
    TopK
        Named tuple of ``values`` and ``indices`` (int64), with length `k` along `axis`.

    Raises
    ------
    ValueError
        `k` out of range, an unknown `mode`, `workers` out of range.
    TypeError
        A dtype without an order, a `k`, `axis` or `workers` that is no integer.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    Among equal entries the lower index wins, both in what is selected and in the order; +0 and -0
    are equal. NaN comes last in both modes.

    Cost: one read of the row for k up to a sixteenth of it (block maxima give a lower bound of the
    k-th entry), and another of what is near the candidates; a dozen reads above. No order of the
    input takes much longer. What is sorted is the `k` and half as many others at most.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import top_k
    >>> top_k(np.array([3, 9, 4, 9]), 3)
    TopK(values=array([9, 9, 4]), indices=array([1, 3, 2]))
    """
    _threads.check(workers)
    x = _arrays.as_array(x, "x")
    _arrays.choice(mode, "mode", ("largest", "smallest"))
    wide = x.reshape(1) if x.ndim == 0 else x
    axis = _arrays.one_axis(axis, wide.ndim)
    k = _arrays.count(k, "k", 0, wide.shape[axis])
    indices = np.zeros(wide.shape, dtype=np.int64)
    for place in _places(wide, (axis,)):
        indices[place] = _order(wide[place], mode)
    indices = np.take(indices, np.arange(k), axis=axis)
    if not sorted:
        indices.sort(axis=axis)
    return TopK(np.take_along_axis(wide, indices, axis), indices)


# ---- one row, float64 ----------------------------------------------------------------------------


def _softmax_row(x: np.ndarray, temperature: float) -> np.ndarray:
    e = np.exp(_scores(x, temperature))
    return e / math.fsum(e)


def _log_softmax_row(x: np.ndarray, temperature: float) -> np.ndarray:
    d = _scores(x, temperature)
    return d - np.log1p(_others(d))


def _logsumexp_row(x: np.ndarray) -> float:
    if x.size == 0:
        return -np.inf
    highest = x.max()
    if not np.isfinite(highest):
        return float(highest)
    return float(highest + np.log1p(_others(x - highest)))


# ---- from arrays to rows and back ----------------------------------------------------------------


def _rows(
    x: np.ndarray, axis: Any
) -> tuple[list[np.ndarray], tuple[int, ...], tuple[int, ...]]:
    """Return the rows of `x` as 1-d arrays, the shape they are arranged in, and the axes."""
    axes = _arrays.reduced_axes(axis, max(x.ndim, 1))
    if x.ndim == 0:
        return [x.reshape(1)], (), axes
    shape = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    return [x[i].ravel() for i in _places(x, axes)], shape, axes


def _places(x: np.ndarray, axes: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the index expression of each row of `x`: a full slice along each of `axes`."""
    outer = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    for place in np.ndindex(outer):
        yield tuple(slice(None) if a in axes else i for a, i in enumerate(place))


def _keep(where: Any, x: np.ndarray, axis: Any) -> list[np.ndarray]:
    """Return `where` as `_rows` does for the data."""
    mask = _arrays.mask(where, x.shape)
    return _rows(np.ones(x.shape, dtype=bool) if mask is None else mask, axis)[0]


def _round(result: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the float64 `result` in the dtype that an input of `dtype` gets, without warnings."""
    with np.errstate(all="ignore"):
        return result.astype(_arrays.result_dtype(dtype))


def _map_rows(
    function: Callable[[np.ndarray, float], np.ndarray],
    masked: float,
    x: Any,
    axis: Any,
    temperature: Any,
    where: Any,
    out: Any,
) -> Any:
    """Apply a row function to the entries of each row that count; the others become `masked`."""
    x = _arrays.as_array(x, "x")
    rows, shape, axes = _rows(x, axis)
    t = np.broadcast_to(_arrays.temperatures(temperature, shape), len(rows))
    keep = _keep(where, x, axis)
    _arrays.check_out(out, x.shape, _arrays.result_dtype(x.dtype))
    result = np.full_like(x, masked, np.float64, "C" if 0 in x.strides else "K", subok=False)
    result = result.reshape(x.shape or (1,))
    with np.errstate(all="ignore"):
        for place, row, k, ti in zip(_places(result, axes), rows, keep, t, strict=True):
            if k.any():
                y = np.full(row.shape, masked)
                y[k] = function(row[k].astype(np.float64), ti)
                result[place] = y.reshape(result[place].shape)
    result = _round(result, x.dtype).reshape(x.shape)
    if out is None:
        return result[()]
    out[...] = result
    return out
