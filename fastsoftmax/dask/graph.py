"""How a call becomes a graph: arguments as chunks beside those of the array, layers, trees.

Nothing is computed here. A parameter that has a number for each row becomes an array whose reduced
axes have length 1, in the chunks of the rows; a function of chunks gets it, or the one number.
"""

from collections.abc import Callable
from functools import partial
from math import isnan, prod
from typing import Any

import dask.array as da
import numpy as np

from .._arguments.arrays import as_array
from .._arguments.values import shown

SPLIT_EVERY = 16  # chunks that are merged at once along an axis


def array(x: Any, name: str) -> Any:
    """Return `x`, a dask array of NumPy arrays that can be computed with, or raise."""
    if not isinstance(x, da.Array):
        raise TypeError(
            f"{name} is {shown(x)}; allowed is a dask.array.Array (fastsoftmax itself has the "
            "functions of other arrays)"
        )
    if not isinstance(x._meta, np.ndarray):
        raise TypeError(f"{name} has chunks of {type(x._meta)}; allowed are numpy.ndarray")
    as_array(x._meta, name)
    return x


def is_split(x: Any, axes: tuple[int, ...]) -> bool:
    """Return whether chunks split the rows along `axes`."""
    return x.ndim > 0 and any(x.numblocks[a] > 1 for a in axes)


def is_unknown(x: Any, axes: Any) -> bool:
    """Return whether the sizes of chunks along one of `axes` are not known."""
    return any(isnan(n) for a in axes for n in x.chunks[a])


def require_known(x: Any, name: str, axis: int) -> None:
    """Raise where indices along `axis` cannot be known before something is computed."""
    if is_unknown(x, (axis,)):
        raise ValueError(
            f"{name} has chunks of unknown sizes along axis {axis}; call "
            f"{name}.compute_chunk_sizes() first, or {name}.rechunk({{{axis}: -1}})"
        )


# ---- arguments -----------------------------------------------------------------------------------


def per_row(value: Any, name: str, x: Any, axes: tuple[int, ...], check: Callable[..., Any]) -> Any:
    """Return a parameter that is one number as it is, one of each row as an array.

    `check` raises for a NumPy value that is not allowed; those of a dask array are checked later,
    by the function of its chunk.
    """
    if not isinstance(value, da.Array):
        shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        if np.ndim(value) == 0:
            check(value, ())
            return value
        if not is_unknown(x, range(x.ndim)):
            check(value, shape)
        value = da.from_array(np.asarray(value), chunks=-1)
    rows = [i for i in range(x.ndim) if i not in axes]
    return fitted(value, name, x, rows)


def mask(where: Any, x: Any) -> Any:
    """Return the argument `where` as an array in the chunks of `x`; None as None."""
    if where is None:
        return None
    if not isinstance(where, da.Array):
        where = da.from_array(np.asarray(where), chunks=-1)
    if where.dtype != np.bool_:
        raise TypeError(f"where has dtype {where.dtype}; allowed is bool")
    return fitted(where, "where", x, range(x.ndim))


def fitted(value: Any, name: str, x: Any, along: Any) -> Any:
    """Return an array broadcast to some axes of `x`, in its chunks, with length 1 in the others."""
    along = list(along)
    shape = tuple(x.shape[i] for i in along)
    chunks = tuple(x.chunks[i] for i in along)
    if is_unknown(x, along):
        if value.numblocks != tuple(map(len, chunks)):
            raise ValueError(
                f"{name} has {value.numblocks} chunks; allowed are {tuple(map(len, chunks))}, as "
                "the sizes of those of the first argument are unknown"
            )
    else:
        try:
            value = da.broadcast_to(value, shape).rechunk(chunks)
        except ValueError:
            raise ValueError(
                f"{name} has shape {value.shape}, which does not broadcast to {shape}"
            ) from None
    return value[tuple(slice(None) if i in along else None for i in range(x.ndim))]


def starts(x: Any, axis: int) -> Any:
    """Return where each chunk along `axis` begins, as an array of one number for each."""
    sizes = x.chunks[axis]
    first = np.cumsum([0, *sizes[:-1]]) if not is_unknown(x, (axis,)) else np.zeros(len(sizes))
    return da.from_array(first.astype(np.int64), chunks=1)


def row_starts(x: Any, axes: tuple[int, ...]) -> list[tuple[Any, tuple[int, ...]]]:
    """Return where each chunk begins along the axes that are not `axes`, and which they are."""
    return [(starts(x, i), (i,)) for i in range(x.ndim) if i not in axes]


# ---- layers --------------------------------------------------------------------------------------


def apply(
    function: Callable[..., Any], x: Any, *others: Any, dtype: Any,
    sizes: dict[int, Any] | None = None, out: tuple[int, ...] | None = None, **constants: Any,
) -> Any:  # fmt: skip
    """Return `function` of each chunk of `x` and of what stands beside it in `others`.

    These are arrays of as many axes as `x`, pairs of an array and its axes, or constants.

    Parameters
    ----------
    dtype : dtype
        Of the result.
    sizes : dict, optional
        How long the result's chunks are along some axes.
    out : tuple of int, optional
        The axes of the result, if not those of `x`; along the others there is one chunk.
    """
    index = tuple(range(x.ndim))
    out = index if out is None else out
    pairs = [x, index]
    for value in others:
        if isinstance(value, da.Array):
            pairs += [value, index]
        elif isinstance(value, tuple) and value and isinstance(value[0], da.Array):
            pairs += value
        else:
            pairs += [value, None]
    function = partial(function, **constants)
    if set(index) - set(out):
        function = partial(_of_one_chunk, function)
    return da.blockwise(
        function, out, *pairs, adjust_chunks=sizes, align_arrays=False, dtype=dtype,
        meta=np.empty((0,) * len(out), dtype),
    )  # fmt: skip


def _of_one_chunk(function: Callable[..., Any], *values: Any) -> Any:
    """Call `function`; along axes that the result does not have there are lists of one chunk.

    dask could concatenate them, which would copy the chunk.
    """
    return function(*map(_unwrapped, values))


def _unwrapped(value: Any) -> Any:
    return _unwrapped(value[0]) if isinstance(value, list) else value


def ones(axes: tuple[int, ...]) -> dict[int, int]:
    """Return the sizes of chunks that have one element along `axes`."""
    return dict.fromkeys(axes, 1)


def tree(
    states: Any, combine: Callable[..., Any], axes: tuple[int, ...], split_every: Any,
    aggregate: Callable[..., Any] | None = None, size: int = 1,
) -> Any:  # fmt: skip
    """Return what a tree of `combine`, at last `aggregate`, makes of the states along `axes`.

    They are small beside a task, so that more are merged at once than dask would.
    """
    split_every = SPLIT_EVERY ** len(axes) if split_every is None else split_every
    return da.reduction(
        states, _as_it_is, aggregate or combine, axis=axes, keepdims=True, dtype=states.dtype,
        combine=combine, split_every=split_every, concatenate=True, output_size=size,
        meta=np.empty((0,) * states.ndim, states.dtype),
    )  # fmt: skip


def _as_it_is(state: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    return state


def field(states: Any, name: str) -> Any:
    """Return a field of an array of structures."""
    return apply(_field, states, dtype=states.dtype[name], name=name)


def _field(states: np.ndarray, name: str) -> np.ndarray:
    return np.ascontiguousarray(states[name])


def count_rows(x: Any, axes: tuple[int, ...]) -> int:
    """Return how many rows there are."""
    return prod(n for i, n in enumerate(x.shape) if i not in axes)
