"""Arrays as arguments: dtypes, axes, masks and outputs, checked before anything is computed."""

from operator import index
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .lazy import refuse_lazy
from .values import EXTENSION_FLOATS, is_extension_float, shown

#: The float dtypes of inputs, results and outputs, for errors.
FLOATS = ", ".join(("float16", *EXTENSION_FLOATS, "float32", "float64"))


def as_array(x: Any, name: str, allowed: str = f"{FLOATS}, integers and bool") -> np.ndarray:
    """Return `x` as a plain ndarray in native byte order, of a dtype that has an order.

    Raises
    ------
    TypeError
        If `x`, the argument called `name`, is a masked array or a matrix, or its dtype is complex,
        object, text, a date or a float wider than float64. The error says what is `allowed`.
    """
    x = plain_array(x, name)
    if x.dtype.char not in "efd?bBhHiIlLqQ" and not is_extension_float(x.dtype):
        raise TypeError(f"{name} has dtype {x.dtype}; allowed are {allowed}")
    return x


def plain_array(x: Any, name: str) -> np.ndarray:
    """Return `x` as an ndarray in native byte order, of any dtype; raise as `as_array` does."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array; pass {name}.filled(value), the value that hidden entries "
            f"count as, or to a function that has where=: {name}.data and "
            f"where=~np.ma.getmaskarray({name})"
        )
    if isinstance(x, np.matrix):
        raise TypeError(f"{name} is a np.matrix; pass np.asarray({name})")
    x = new_array(x, name)
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def new_array(x: Any, name: str) -> np.ndarray:
    """Return ``np.asarray(x)``; an error names the argument, where NumPy speaks of a sequence."""
    refuse_lazy(x, name)
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} is {shown(x)}; NumPy makes no array of it: {error}") from None
    except TypeError as error:
        way = ""
        if str(getattr(x, "dtype", "")) == "torch.bfloat16":  # which NumPy does not have
            way = f"; its bits are {name}.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)"
        kind = type(x).__name__
        raise TypeError(f"{name} is a {kind}; NumPy makes no array of it: {error}{way}") from error


def result_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype of the result for an input of `dtype`: float64 for integers and bool."""
    return np.dtype(np.float64) if dtype.kind in "iub" else dtype


def work_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype of the arithmetic for an input of `dtype`: float32 for the half types."""
    return np.dtype(np.float64 if result_dtype(dtype) == np.float64 else np.float32)


def reduced_axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Return `axis` as a sorted tuple of axes from 0 to ``ndim - 1``; None is all of them.

    Raises
    ------
    numpy.exceptions.AxisError
        If an axis is out of range.
    ValueError
        If an axis stands twice.
    TypeError
        If `axis` is no integer, tuple of integers or None.
    """
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(_axes(axis, ndim, "int, tuple of ints and None")))


def one_axis(axis: Any, ndim: int) -> int:
    """Return `axis`, one integer, as an axis from 0 to ``ndim - 1``.

    Raises
    ------
    numpy.exceptions.AxisError
        If `axis` is out of range.
    TypeError
        If `axis` is no integer.
    """
    try:
        axis = index(axis)
    except TypeError:
        raise TypeError(f"axis is {shown(axis)}; allowed is one int") from None
    return _axes(axis, ndim, "one int")[0]


def _axes(axis: Any, ndim: int, allowed: str) -> tuple[int, ...]:
    """Return `axis` as NumPy normalizes it, or raise an error that says what is `allowed`."""
    try:
        return normalize_axis_tuple(axis, ndim, argname="axis")
    except TypeError:
        raise TypeError(f"axis is {shown(axis)}; allowed are {allowed}") from None
    except OverflowError:  # an integer beyond C's int
        raise np.exceptions.AxisError(
            f"axis is {shown(axis)}; allowed is {-ndim} to {ndim - 1}"
        ) from None


def mask(where: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the bool array `where` broadcast to `shape`, or None if `where` is None."""
    if where is None:
        return None
    where = new_array(where, "where")
    if where.dtype != np.bool_:
        raise TypeError(f"where has dtype {where.dtype}; allowed is bool")
    try:
        return np.broadcast_to(where, shape)
    except ValueError:
        raise ValueError(
            f"where has shape {where.shape}, which does not broadcast to x's shape {shape}"
        ) from None


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise unless a result of `shape` and `dtype` can be written to `out`, or `out` is None.

    Raises
    ------
    TypeError
        If `out` is no ndarray, or not of `dtype` nor of a float dtype (float16, bfloat16, float32,
        float64) that NumPy's casting rule ``same_kind`` allows from `dtype`.
    ValueError
        If `out` has another shape, or is read-only.
    """
    if out is None:
        return
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; allowed is a numpy.ndarray")
    if out.dtype != dtype:
        is_float = out.dtype.char in "efd" or is_extension_float(out.dtype)
        if not (is_float and np.can_cast(dtype, out.dtype, "same_kind")):
            raise TypeError(
                f"out has dtype {out.dtype}; allowed is {dtype} or what NumPy's same_kind rule "
                f"casts it to among {FLOATS}"
            )
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; allowed is {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; allowed is a writable array")
