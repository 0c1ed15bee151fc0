"""An array as rows and rows as an array, and how a function gets its public signature."""

import functools
import inspect
from collections.abc import Callable
from math import prod
from typing import Any, Literal

import numpy as np

from .. import _docs
from .. import _threads as threads
from .._arguments.arrays import result_dtype
from .._docs.keywords import unknown_keyword


def public(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give `function` the signature, defaults and docstring of the stub of its name in `_docs`.

    It is called with every argument by its name, but `workers`, which is checked here.
    """
    name = function.__name__
    signature = inspect.signature(_docs.FUNCTIONS[name])

    @functools.wraps(_docs.FUNCTIONS[name], assigned=("__doc__", "__annotations__"))
    def call(*args: Any, **kwargs: Any) -> Any:
        for keyword in kwargs:
            if keyword not in signature.parameters:
                raise TypeError(unknown_keyword(name, keyword, signature.parameters))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        bound.apply_defaults()
        threads.check(bound.arguments.pop("workers", None))
        return function(**bound.arguments)

    call.__name__ = call.__qualname__ = name
    call.__module__ = function.__module__
    return call


def doubles(x: np.ndarray) -> np.ndarray:
    """Return `x` in float64; a NaN that signals is a NaN like others."""
    with np.errstate(all="ignore"):
        return x.astype(np.float64)


def over_rows(
    function: Callable[..., Any], x: np.ndarray, axes: tuple[int, ...], *parameters: Any
) -> list[Any]:
    """Return ``function(row, *parameters)`` of each row of `x` along `axes`, in row order.

    A parameter is an array: of one entry for each row, of one entry for all, or, in two dimensions,
    of a row for each row.
    """
    rows = as_rows(x, axes)
    each = [np.broadcast_to(p, (len(rows), *np.shape(p)[1:])) for p in parameters]
    with np.errstate(all="ignore"):
        return [function(row, *p) for row, *p in zip(rows, *each, strict=True)]


def as_rows(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return `x` with its other axes as the first, in order, and `axes` as the second."""
    x = np.atleast_1d(x)
    moved = x.transpose(*kept_axes(x.ndim, axes), *axes)
    kept = moved.shape[: x.ndim - len(axes)]
    return moved.reshape(prod(kept), prod(moved.shape[len(kept) :]))


def from_rows(rows: Any, x: np.ndarray, axes: tuple[int, ...], out: np.ndarray | None) -> Any:
    """Return rows of results in the arrangement of `x`, as `as_rows` took them.

    They are written to `out`; if it is None, to an array of the dtype that belongs to `x`, whose
    axes lie in memory as those of `x`.
    """
    if out is None:
        order: Literal["C", "K"] = "C" if 0 in x.strides else "K"
        out = np.empty_like(x, result_dtype(x.dtype), order, subok=False)
    moved = np.atleast_1d(np.asarray(out)).transpose(*kept_axes(max(out.ndim, 1), axes), *axes)
    with np.errstate(all="ignore"):
        moved[...] = np.reshape(rows, moved.shape)
    return out


def kept_axes(ndim: int, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of `ndim` that are not among `axes`."""
    return tuple(a for a in range(ndim) if a not in axes)
