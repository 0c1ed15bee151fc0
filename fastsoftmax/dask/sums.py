"""softmax, log_softmax, logsumexp of dask arrays."""

from functools import partial
from typing import Any

from .._arguments.arrays import reduced_axes, result_dtype
from .._arguments.values import switch, temperatures
from . import chunks
from .graph import apply, array, is_split, mask, ones, per_row, tree


def softmax(
    x: Any, axis: Any = -1, *, temperature: Any = 1.0, where: Any = None, split_every: Any = None
) -> Any:
    """Return ``exp(x / temperature)``, divided by its sum along an axis, as a dask array.

    Parameters
    ----------
    x : dask.array.Array
        Scores, in chunks of any shape; dtypes as in `fastsoftmax.softmax`.
    axis : int, tuple of ints or None, default -1
        The axis to sum along; several together, or None for the whole array.
    temperature : float, array_like or dask array, default 1.0
        T; one number, or one a row: of the shape of `x` without `axis`, or that broadcasts to it.
        Where chunks split the rows, from 1e-30 to 1e30.
    where : array_like of bool or dask array, optional
        The entries that count, broadcast to `x`. The others are 0, as if absent.
    split_every : int, optional
        How many chunks are merged at once where they split the rows; None is 16 along each axis.

    Returns
    -------
    dask.array.Array
        The shape and the chunks of `x`, and its dtype if that is a float type, else float64.

    Raises
    ------
    TypeError
        `x` that is no dask array of NumPy arrays, or of a dtype without an exponential.
    ValueError
        A `temperature` that is not allowed (of a dask array: when it is computed), or a shape that
        does not fit.

    Notes
    -----
    Chunks that split the rows are read twice: for their sums, and for the result. Accuracy is that
    of `fastsoftmax.softmax`, whatever the chunks are. Sizes of chunks may be unknown.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastsoftmax.dask
    >>> x = da.arange(6, chunks=4).reshape(2, 3)
    >>> fastsoftmax.dask.softmax(x).compute().round(3)
    array([[0.09 , 0.245, 0.665],
           [0.09 , 0.245, 0.665]])
    """
    return _softmax(x, axis, temperature, where, split_every, False)


def log_softmax(
    x: Any, axis: Any = -1, *, temperature: Any = 1.0, where: Any = None, split_every: Any = None
) -> Any:
    """Return the logarithm of `softmax` as a dask array, exact where a probability is close to 1.

    Parameters, results and errors are those of `softmax`; what does not count (`where`) is -inf.
    """
    return _softmax(x, axis, temperature, where, split_every, True)


def _softmax(x: Any, axis: Any, temperature: Any, where: Any, split_every: Any, log: bool) -> Any:
    x = array(x, "x")
    axes = reduced_axes(axis, max(x.ndim, 1))
    split = is_split(x, axes)
    t = per_row(temperature, "temperature", x, axes, require_mergeable if split else temperatures)
    w = mask(where, x)
    if not split:
        return apply(chunks.whole, x, t, w, dtype=result_dtype(x.dtype), axes=axes, log=log)
    whole = total(x, t, w, axes, split_every, not log)
    return apply(chunks.result, x, whole, t, w, dtype=result_dtype(x.dtype), axes=axes, log=log)


def logsumexp(
    x: Any, axis: Any = -1, *, where: Any = None, keepdims: bool = False, split_every: Any = None
) -> Any:
    """Return ``log(sum(exp(x)))`` along an axis as a dask array.

    Each chunk is read once. Parameters are those of `softmax` and `fastsoftmax.logsumexp`.

    Returns
    -------
    dask.array.Array
        The shape of `x` without `axis`, or with length 1 there if `keepdims`.
    """
    x = array(x, "x")
    axes = reduced_axes(axis, max(x.ndim, 1))
    keepdims = switch(keepdims, "keepdims")
    w = mask(where, x)
    dtype = result_dtype(x.dtype)
    out = tuple(i for i in range(x.ndim) if keepdims or i not in axes)
    if not is_split(x, axes):
        return apply(
            chunks.whole_sums, x, w, dtype=dtype, out=out, sizes=ones(axes) if keepdims else None,
            axes=axes, keepdims=keepdims,
        )  # fmt: skip
    whole = total(x, 1.0, w, axes, split_every, False)
    return apply(
        chunks.logsumexp, whole, dtype=dtype, out=out, axes=axes, keepdims=keepdims, to=dtype
    )


def total(x: Any, t: Any, w: Any, axes: tuple[int, ...], split_every: Any, any_pivot: bool) -> Any:
    """Return the sums of the whole rows."""
    state = apply(
        chunks.sums, x, t, w, dtype=chunks.SUM, sizes=ones(axes), axes=axes, any_pivot=any_pivot
    )
    return tree(state, partial(chunks.merge, kind=chunks.wide(x.dtype)), axes, split_every)


def require_mergeable(value: Any, shape: tuple[int, ...]) -> None:
    """Raise for temperatures at which sums of parts are not made."""
    t = temperatures(value, shape)
    bad = (t < 1e-30) | (t > 1e30)
    if bad.any():
        raise ValueError(
            f"temperature is {t[bad][0]}; allowed where chunks split the rows are 1e-30 to 1e30"
        )
