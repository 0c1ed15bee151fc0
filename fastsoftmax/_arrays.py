"""The slow road: any array-like, axis, dtype, ``where``, ``out`` -> what kernels take, and back.

Everything that can be wrong with an argument is found here, before anything is computed or written.
"""

from collections.abc import Callable
from math import prod
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple


class TopK(NamedTuple):
    """What ``top_k`` returns: the values and where they were, along the reduced axis."""

    values: np.ndarray
    indices: np.ndarray


class Support(NamedTuple):
    """What ``support`` returns: the survivors, most likely first, padded with -1 and 0."""

    indices: np.ndarray
    probs: np.ndarray
    counts: np.ndarray


class TopLogprobs(NamedTuple):
    """What ``top_logprobs`` returns: log-probabilities, largest first, and where they were."""

    logprobs: np.ndarray
    indices: np.ndarray


class Drawn(NamedTuple):
    """What ``sample_with_logprobs`` returns, one element for each draw."""

    ids: Any
    logprobs: Any
    filtered_logprobs: Any
    ranks: Any


def as_array(x: Any, name: str) -> np.ndarray:
    """Return `x` as a plain ndarray in native byte order, of a dtype that has an order.

    Raises
    ------
    TypeError
        If `x` is a masked array or a matrix, or its dtype is complex, object, text, a date or a
        float wider than float64.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array; pass the data and where=~mask: "
            f"({name}.data, where=~np.ma.getmaskarray({name}))"
        )
    if isinstance(x, np.matrix):
        raise TypeError(f"{name} is a np.matrix; pass np.asarray({name})")
    x = np.asarray(x)
    if x.dtype.char not in "efd?bBhHiIlLqQ" and not is_bfloat16(x.dtype):
        raise TypeError(
            f"{name} has dtype {x.dtype}; allowed are float16, bfloat16, float32, float64, "
            "integers and bool"
        )
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def is_bfloat16(dtype: np.dtype) -> bool:
    """Tell whether `dtype` is ``ml_dtypes.bfloat16``, without importing that package."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def result_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype of a result: that of a float input, float64 for integers and bool."""
    return np.dtype(np.float64) if dtype.kind in "iub" else dtype


def work_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype of the arithmetic: float64, or float32 for float32 and the half types."""
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
    try:
        return tuple(sorted(normalize_axis_tuple(axis, ndim, argname="axis")))
    except TypeError:
        raise TypeError(f"axis is {axis!r}; allowed are int, tuple of ints and None") from None


def one_axis(axis: Any, ndim: int) -> int:
    """Return the one axis of a function that takes no tuple."""
    try:
        return normalize_axis_tuple(index(axis), ndim, argname="axis")[0]
    except TypeError:
        raise TypeError(f"axis is {axis!r}; allowed is one int") from None


def per_row(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a scalar or array parameter as float64, broadcast against the rows' shape.

    The result has one element if `value` has, else one for each row, in row order.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} is {value!r}; allowed are real numbers")
    array = array.astype(np.float64)
    if array.size == 1 and array.ndim <= len(shape):
        return array.reshape(1)
    return _for_each(array, name, shape)


def _for_each(array: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array parameter with one element for each row, in row order."""
    try:
        if array.shape != shape:  # a broadcast is slow
            array = np.broadcast_to(array, shape)
        return np.ascontiguousarray(array).reshape(-1)
    except ValueError:
        raise ValueError(
            f"{name} has shape {array.shape}, which does not broadcast to the rows' shape {shape}"
        ) from None


def _require(good: np.ndarray, values: np.ndarray, name: str, allowed: str) -> None:
    """Raise a ValueError that names the first value that is not good."""
    if not good.all():
        raise ValueError(f"{name} is {values[~good].flat[0]}; allowed is {allowed}")


def temperatures(temperature: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the checked temperatures, as `per_row` does."""
    if type(temperature) is float and temperature >= 0:  # the common case, quickly
        return np.array([temperature])
    t = per_row(temperature, "temperature", shape)
    _require(t >= 0, t, "temperature", "0 to inf")
    return t


def probabilities(value: Any, name: str, no_op: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return the checked `top_p` or `min_p`, as `per_row` does; None is the no-op."""
    value = no_op if value is None else value
    if type(value) is float and 0 <= value <= 1:
        return np.array([value])
    p = per_row(value, name, shape)
    _require((p >= 0) & (p <= 1), p, name, "0 to 1, or None")
    return p


def counts(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the checked `top_k`, as int64 and as `per_row` does; None is 0, the no-op."""
    value = 0 if value is None else value
    allowed = "0 (no limit) and above, or None"
    if type(value) is int:  # of any size
        _require(np.array([value >= 0]), np.array([value], dtype=object), name, allowed)
        return np.array([min(value, 1 << 53)])
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} is {value!r}; allowed are integers from 0, or None")
    # Up to 2**53 a float64 holds it exactly, and no vocabulary is larger.
    array = np.minimum(array, (np.uint64 if array.dtype.kind == "u" else np.int64)(1 << 53))
    k = per_row(array, name, shape).astype(np.int64)
    _require(k >= 0, k, name, allowed)
    return k


def count(value: Any, name: str, low: int, high: int | None = None) -> int:
    """Return an integer argument that lies from `low` to `high`."""
    allowed = f"{low} to {high}" if high is not None else f"{low} and above"
    try:
        if isinstance(value, bool):
            raise TypeError
        n = index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; allowed are integers, {allowed}") from None
    if n < low or (high is not None and n > high):
        raise ValueError(f"{name} is {n}; allowed is {allowed}")
    return n


def choice(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is one of the `allowed` strings."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")
    return value


def switch(value: Any, name: str) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; allowed are True and False")
    return bool(value)


def draws(size: Any) -> int:
    """Return how many indices `size` asks for in each row."""
    return 1 if size is None else count(size, "size", 0)


def mask(where: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return `where` broadcast to `shape`, None if there is none."""
    if where is None:
        return None
    where = np.asarray(where)
    if where.dtype != np.bool_:
        raise TypeError(f"where has dtype {where.dtype}; allowed is bool")
    try:
        return np.broadcast_to(where, shape)
    except ValueError:
        raise ValueError(
            f"where has shape {where.shape}, which does not broadcast to x's shape {shape}"
        ) from None


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise unless `out` is None or a writable ndarray of exactly this shape and dtype."""
    if out is None:
        return
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; allowed is a numpy.ndarray")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}; allowed is {dtype}")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; allowed is {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; allowed is a writable array")


def generator(rng: Any) -> np.random.Generator:
    """Return the random generator that `rng` (None, a seed or a Generator) stands for."""
    if isinstance(rng, np.random.Generator):
        return rng
    if (rng is not None and not isinstance(rng, (int, np.integer))) or isinstance(rng, bool):
        raise TypeError(f"rng is {rng!r}; allowed are None, an int and a numpy.random.Generator")
    if rng is not None and rng < 0:
        raise ValueError(f"rng is {rng}; allowed are seeds from 0")
    return np.random.default_rng(rng)


def uniforms(
    rng: Any,
    seed: Any,
    position: Any,
    shape: tuple[int, ...],
    m: int,
    philox: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
) -> np.ndarray:
    """Return m uniforms for each row, from `rng` or, by `philox`, from `seed` and `position`."""
    if seed is None and position is None:
        return generator(rng).random((prod(shape), m))
    if rng is not None:
        raise ValueError(f"rng is {rng!r}; allowed is None where seed and position are given")
    return philox(_words(seed, "seed", shape), _words(position, "position", shape), m)


def _words(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a `seed` or `position` as a uint64 for each row."""
    allowed = "0 to 2**64 - 1, in seed and position alike"
    if type(value) is int:
        array = np.array(value, dtype=object)
        good = np.array(0 <= value < 1 << 64)
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} is {value!r}; allowed are integers, {allowed}")
        good = np.asarray(array >= 0)
    _require(good, array, name, allowed)
    return _for_each(array.astype(np.uint64), name, shape)


#: One row's parameters of the sampling family; the kernels know it as a struct of this layout.
FILTERS = np.dtype(
    [
        ("temperature", np.float64),
        ("top_k", np.int64),
        ("top_p", np.float64),
        ("log_min_p", np.float64),
        ("min_keep", np.int64),
    ]
)


def filters(
    shape: tuple[int, ...], temperature: Any, top_k: Any, top_p: Any, min_p: Any, min_keep: Any
) -> np.ndarray:
    """Return the checked parameters of the sampling family as `FILTERS`, for one or for each row.

    Parameters
    ----------
    shape : tuple of int
        How the rows are arranged: ``logits.shape[:-1]``.
    temperature, top_k, top_p, min_p, min_keep
        As given to ``sample``.
    """
    columns = {
        "temperature": temperatures(temperature, shape),
        "top_k": counts(top_k, "top_k", shape),
        "top_p": probabilities(top_p, "top_p", 1.0, shape),
    }
    with np.errstate(divide="ignore"):
        columns["log_min_p"] = np.log(probabilities(min_p, "min_p", 0.0, shape))
    each = any(column.size != 1 for column in columns.values())
    result = np.empty(prod(shape) if each else 1, dtype=FILTERS)
    for name, column in columns.items():
        result[name] = column
    result["min_keep"] = min(count(min_keep, "min_keep", 1), 1 << 53)
    return result


def drawn(
    ids: np.ndarray, rows: np.ndarray, shape: tuple[int, ...], size: int | None, flag: bool
) -> Any:
    """Return the indices drawn from `rows` in the shape that `size` asks for, -1 for the missing.

    Raises
    ------
    ValueError
        Unless `flag`, for the first row that is invalid or had too few to draw.
    """
    if not flag and ids.min(initial=0) < 0:
        i = int(ids.min(axis=1).argmin())
        place = tuple(map(int, np.unravel_index(i, shape))) if shape else ()
        if ids[i, 0] >= 0:
            raise ValueError(
                f"size is {size}; allowed without replacement is 0 to {(ids[i] >= 0).sum()}, what "
                f"can be drawn from row {place} (or pass on_invalid='flag')"
            )
        why = "nothing above -inf"
        if np.isnan(rows[i]).any():
            why = "NaN"
        elif np.isposinf(rows[i]).any():
            why = "+inf"
        raise ValueError(
            f"logits has {why} in row {place}; allowed are rows of finite numbers and -inf, one of "
            "them finite (or pass on_invalid='flag')"
        )
    return ids.reshape(shape if size is None else (*shape, size))[()]


def token_ids(ids: Any, shape: tuple[int, ...], n: int) -> np.ndarray:
    """Return token ids as int64, checked against the rows' shape and the vocabulary of n.

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If there is not one, or one list of them, for each row.
    IndexError
        If one is not from 0 to n - 1.
    """
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"ids has dtype {array.dtype}; allowed are integers")
    if array.shape != shape and (array.ndim == 0 or array.shape[:-1] != shape):
        raise ValueError(
            f"ids has shape {array.shape}; allowed are {shape} and ({', '.join(map(str, shape))}"
            f"{', ' if shape else ''}m)"
        )
    bad = (array < 0) | (array >= n)
    if bad.any():
        raise IndexError(f"ids has {array[bad][0]}; allowed is 0 to {n - 1}")
    return np.ascontiguousarray(array, dtype=np.int64).reshape(array.shape)


def held(y: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return `y` in `dtype`; what would overflow to an infinity becomes the largest number."""
    largest = 3.3895313892515355e38 if is_bfloat16(dtype) else float(np.finfo(dtype).max)
    return np.where(np.isinf(y) & (y < 0), y, np.clip(y, -largest, largest)).astype(dtype)


class Layout:
    """An array in a float type with one axis to reduce, and the way back.

    Parameters
    ----------
    x : array_like
        The input, in any layout.
    axis : int, tuple of ints or None
        What a row runs along.
    where : array_like of bool, optional
        Entries that are False become -inf.

    Attributes
    ----------
    shape : tuple of int
        The shape of the rows: that of `x` without the reduced axes.
    dtype : dtype
        That of the result.
    """

    def __init__(self, x: Any, axis: int | tuple[int, ...] | None, where: Any = None) -> None:
        given, x = x, as_array(x, "x")
        self._given = given if isinstance(given, np.ndarray) else x
        self._full = x.shape
        self._wide = x = x.reshape(1) if x.ndim == 0 else x
        self._axes = axes = reduced_axes(axis, x.ndim)
        self._kept = tuple(a for a in range(x.ndim) if a not in axes)
        self.shape = tuple(x.shape[a] for a in self._kept)
        self.dtype = result_dtype(x.dtype)
        self._where = mask(where, self._full)
        # Several axes become one; for that they must be neighbours.
        self._axis = axes[0] if axes else x.ndim
        self._together = tuple(range(x.ndim))
        if axes and axes[-1] - axes[0] >= len(axes):
            self._axis, self._together = len(self._kept), self._kept + axes

    def _merge(self, a: np.ndarray) -> np.ndarray:
        """Return `a` with the reduced axes as one, a view where that is possible."""
        n = prod(a.shape[i] for i in self._axes)
        shape = (*self.shape[: self._axis], n, *self.shape[self._axis :])
        return a.transpose(self._together).reshape(shape)

    def arrange(self, out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Return the input, `out` if it can be written row by row, and the axis to reduce."""
        check_out(out, self._full, self.dtype)
        x = self._wide
        with np.errstate(all="ignore"):
            x = x.astype(self.dtype, copy=False)
        if self._where is not None:
            x = np.where(self._where.reshape(x.shape), x, x.dtype.type(-np.inf))
        x, y = self._merge(x), None
        if out is None and not np.may_share_memory(x, self._given):
            y = x  # a copy, that nobody else knows
        elif out is not None:
            y = self._merge(np.asarray(out).reshape(self._wide.shape))
            if not np.may_share_memory(y, out):  # it had to be copied
                return x, None, self._axis
            same = x.ctypes.data == y.ctypes.data and x.strides == y.strides
            if np.may_share_memory(x, y) and not same:
                x = x.copy("K")
        return x, y, self._axis

    def spread(self, y: np.ndarray, masked: float, out: np.ndarray | None) -> Any:
        """Return a result of the input's arrangement in the shape and place that were asked for."""
        if len(self._axes) != 1:
            y = y.reshape(tuple(self._wide.shape[a] for a in self._together))
            y = np.ascontiguousarray(y.transpose(np.argsort(self._together)))
        y = y.reshape(self._full)
        if out is None:
            out = y
        elif not np.may_share_memory(y, out):
            out[...] = y
        # What does not count is right already, but in rows of NaN.
        if self._where is not None and (out != out).any():
            np.copyto(out, masked, where=~self._where)
        return out[()] if out is y else out

    def reduce(self, y: np.ndarray, keepdims: bool) -> Any:
        """Return one value a row in the shape and dtype that were asked for."""
        with np.errstate(all="ignore"):
            y = y.astype(self.dtype, copy=False)
        if keepdims:
            y = y.reshape(tuple(1 if a in self._axes else n for a, n in enumerate(self._full)))
        return y[()]


class Rows:
    """An array laid out as rows for a kernel, and the way back.

    Parameters
    ----------
    x : array_like
        The input, in any layout.
    axis : int, tuple of ints or None
        What a row runs along.

    Attributes
    ----------
    data : ndarray, shape (rows, n)
        C-contiguous, aligned, float32 or float64; a view of `x` where that is possible.
    shape : tuple of int
        The shape of the rows: that of `x` without the reduced axes.
    """

    def __init__(self, x: Any, axis: int | tuple[int, ...] | None) -> None:
        x = as_array(x, "x")
        self._x = x
        self._full = x.shape
        ndim = max(x.ndim, 1)
        self._axes = axes = reduced_axes(axis, ndim)
        self.dtype = result_dtype(x.dtype)
        wide = x.reshape(1) if x.ndim == 0 else x
        keep = tuple(a for a in range(ndim) if a not in axes)
        self.shape = tuple(wide.shape[a] for a in keep)
        self._order = keep + axes
        moved = wide.transpose(self._order)
        data = moved.reshape(prod(self.shape), prod(moved.shape[len(self.shape) :]))
        with np.errstate(all="ignore"):
            self.data = np.require(data, dtype=work_dtype(x.dtype), requirements=["C", "A"])

    def target(self, out: np.ndarray | None) -> np.ndarray:
        """Return the array that a kernel writes into: `out` itself if that is safe."""
        check_out(out, self._full, self.dtype)
        if (
            out is not None
            and self._order == tuple(range(len(self._order)))
            and type(out) is np.ndarray
            and out.dtype == self.data.dtype
            and out.dtype.isnative
            and out.flags.c_contiguous
            and out.flags.aligned
        ):
            rows = out.reshape(self.data.shape)
            # A kernel may work in place, but not on rows that overlap other rows.
            same = rows.ctypes.data == self.data.ctypes.data
            if same or not np.may_share_memory(rows, self.data):
                return rows
        return np.empty_like(self.data)

    def spread(self, y: np.ndarray, out: np.ndarray | None) -> Any:
        """Return a kernel's (rows, n) result in the shape, dtype and place that were asked for."""
        if out is not None and np.may_share_memory(out, y):
            return out
        moved = tuple((self._full or (1,))[a] for a in self._order)
        y = y.reshape(moved).transpose(np.argsort(self._order)).reshape(self._full)
        with np.errstate(all="ignore"):
            if out is not None:
                out[...] = y
                return out
            y = y.astype(self.dtype, copy=False)
        return np.ascontiguousarray(y)[()] if y.ndim else y[()]
