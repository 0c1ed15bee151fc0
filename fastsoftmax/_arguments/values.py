"""Numbers, words and switches as arguments: checked from both sides, in errors that name them.

An error says the argument, its value and what is allowed. NaN is never allowed. Parameters with one
value a row come back as arrays of one element, or of one for each row in row order.
"""

from collections.abc import Callable
from math import prod
from numbers import Real
from operator import index
from reprlib import Repr
from typing import Any

import numpy as np

from .lazy import refuse_lazy

#: The float dtypes of ml_dtypes, which is not imported: by its name, the largest number of each.
EXTENSION_FLOATS = {"bfloat16": 3.3895313892515355e38}
_MANY = 1 << 53  # a float64 holds integers exactly to here, and no vocabulary is larger
_MEMORY = (1 << 63) - 1  # bytes: no array has more
_WORDS = "-2**63 to 2**64 - 1"


class _Short(Repr):
    """A repr on one line, cut where it is long; Python itself refuses that of a huge integer."""

    def repr_int(self, x: int, level: int) -> str:
        digits = x.bit_length() * 0.30103
        return repr(x) if digits < 40 else f"an integer of {digits:.0f} digits"


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 80


def is_extension_float(dtype: np.dtype) -> bool:
    """Return whether `dtype` is one of the `EXTENSION_FLOATS`."""
    return dtype.num >= 256 and dtype.name in EXTENSION_FLOATS


def shown(value: Any) -> str:
    """Return `value` as an error shows it: on one line, and cut where that is long."""
    if isinstance(value, np.number):
        return str(value)
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = " ".join(_SHORT.repr(value).split())
    return text if len(text) <= 160 else f"{text[:157]}..."


def number(value: Any, name: str, low: float, high: float) -> float:
    """Return the real number `value`, from `low` to `high`, as a float.

    Raises
    ------
    TypeError
        If `value`, the argument called `name`, is no real number but a bool, text, None or an
        array with axes.
    ValueError
        If `value` is NaN or out of range.
    """
    allowed = f"is a number from {low:g} to {high:g}"
    array = reals(value, name, allowed)
    if array.ndim:
        raise TypeError(f"{name} is {shown(value)}; allowed {allowed}")
    require((array >= low) & (array <= high), array, name, f"{low:g} to {high:g}")
    return float(array)


def count(value: Any, name: str, low: int, high: int | None = None) -> int:
    """Return the integer `value`, from `low` to `high` (None: without an upper end).

    Raises
    ------
    TypeError
        If `value`, the argument called `name`, is no integer, or a bool.
    ValueError
        If `value` is out of range.
    """
    allowed = f"{low} to {high}" if high is not None else f"{low} and above"
    try:
        if isinstance(value, bool):
            raise TypeError
        n = index(value)
    except TypeError:
        raise TypeError(f"{name} is {shown(value)}; allowed are integers, {allowed}") from None
    if n < low or (high is not None and n > high):
        raise ValueError(f"{name} is {shown(n)}; allowed is {allowed}")
    return n


def draws(size: Any, rows: int) -> int:
    """Return how many indices `size` asks for in each row: one if `size` is None.

    Raises
    ------
    MemoryError
        If so many for each of the `rows` are more than any memory holds.
    """
    m = 1 if size is None else count(size, "size", 0)
    if m * max(rows, 1) * 8 > _MEMORY:
        raise MemoryError(f"size is {shown(size)}: no memory for so many from {rows} rows")
    return m


def choice(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    """Return `value`, the argument called `name`, if it is one of the strings `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {shown(value)}; allowed are {', '.join(map(repr, allowed))}")
    return value


def switch(value: Any, name: str) -> bool:
    """Return `value`, the argument called `name`, if it is True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {shown(value)}; allowed are True and False")
    return bool(value)


def temperatures(temperature: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return `temperature`, from 0 to inf, as float64: one, or one for each row of `shape`."""
    if type(temperature) is float and temperature >= 0:  # the common case, quickly
        return np.array([temperature])
    t = reals(temperature, "temperature", "are real numbers from 0 to inf")
    require(t >= 0, t, "temperature", "0 to inf")
    return for_rows(t, "temperature", shape)


def probabilities(value: Any, name: str, no_op: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return `top_p` or `min_p`, from 0 to 1, as float64: one, or one for each row of `shape`.

    None is `no_op`, the value that changes nothing.
    """
    value = no_op if value is None else value
    if type(value) is float and 0 <= value <= 1:
        return np.array([value])
    p = reals(value, name, "are real numbers from 0 to 1, or None")
    require((p >= 0) & (p <= 1), p, name, "0 to 1, or None")
    return for_rows(p, name, shape)


def counts(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return `top_k`, from 0, as int64: one, or one for each row of `shape`.

    None is 0, which changes nothing; more than 2**53 is 2**53.
    """
    value = 0 if value is None else value
    k = _integers(value, name, "integers from 0, or None")
    require(k >= 0, k, name, "0 (no limit) and above, or None")
    if k.dtype != np.int64:
        k = np.asarray(np.minimum(k.astype(object), _MANY)).astype(np.int64)
    return for_rows(np.minimum(k, _MANY), name, shape)


def token_ids(ids: Any, shape: tuple[int, ...], n: int) -> np.ndarray:
    """Return token ids as int64, checked against the `shape` of the rows and `n` tokens.

    Raises
    ------
    TypeError
        If they are no integers; bools are none.
    ValueError
        If there is not one, or one list of them, for each row.
    IndexError
        If one is not from 0 to n - 1.
    """
    array = id_array(ids, "ids")
    if array.shape != shape and (array.ndim == 0 or array.shape[:-1] != shape):
        raise ValueError(
            f"ids has shape {array.shape}; allowed are {shape} and ({', '.join(map(str, shape))}"
            f"{', ' if shape else ''}m)"
        )
    bad = (array < 0) | (array >= n)
    if bad.any():
        raise IndexError(f"ids has {shown(array[bad][0])}; allowed is 0 to {n - 1}")
    return np.require(array, np.int64, ["C", "A"])


def id_array(ids: Any, name: str) -> np.ndarray:
    """Return token ids as an array of integers of any kind; what is empty may have any dtype.

    Raises
    ------
    TypeError
        If `ids`, the argument called `name`, has a bool in it, or something that is no integer.
    """
    array = _array(ids, name, "are integers")
    if array.dtype.kind == "b" or has_bool(ids):
        raise TypeError(f"{name} has dtype bool; allowed are integers, not a mask")
    array = exact_integers(ids, array)
    if array.size and array.dtype == object:
        array = _integers(ids, name, "integers")
    if array.dtype.kind not in "iuO" and array.size:
        raise TypeError(f"{name} has dtype {array.dtype}; allowed are integers")
    return array if array.size else np.zeros(array.shape, np.int64)


def generator(rng: Any) -> "np.random.Generator":  # NumPy imports numpy.random when asked for
    """Return the random generator that `rng` (None, a seed or a Generator) stands for."""
    if isinstance(rng, np.random.Generator):
        return rng
    if (rng is not None and not isinstance(rng, (int, np.integer))) or isinstance(rng, bool):
        allowed = "None, an int and a numpy.random.Generator"
        raise TypeError(f"rng is {shown(rng)}; allowed are {allowed}")
    if rng is not None and rng < 0:
        raise ValueError(f"rng is {shown(rng)}; allowed are seeds from 0")
    return np.random.default_rng(rng)


def uniforms(
    rng: Any,
    seed: Any,
    position: Any,
    shape: tuple[int, ...],
    m: int,
    philox: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
) -> np.ndarray:
    """Return `m` uniforms for each row of `shape`, as an array of shape ``(rows, m)``.

    They come from `rng`; or, where `seed` and `position` are given, from ``philox(seeds, positions,
    m)``, called with two uint64 for each row.
    """
    if seed is None and position is None:
        return generator(rng).random((prod(shape), m))
    if rng is not None:
        raise ValueError(f"rng is {shown(rng)}; allowed is None where seed and position are given")
    return philox(words(seed, "seed", shape), words(position, "position", shape), m)


def race_words(
    rng: Any, seed: Any, position: Any, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return `seed` and `position` of a race as one uint64 for each row of `shape`."""
    if rng is not None:
        raise ValueError(
            f"rng is {shown(rng)}; allowed is None with method='race', which draws by seed and "
            "position"
        )
    for value, name in ((seed, "seed"), (position, "position")):
        if value is None:
            raise TypeError(f"{name} is None; allowed with method='race' are integers, {_WORDS}")
    return words(seed, "seed", shape), words(position, "position", shape)


def words(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a `seed` or `position` as one uint64 for each row of `shape`.

    Allowed are integers from -2**63 to 2**64 - 1; a negative one is its two's complement.
    """
    array = _integers(value, name, f"integers, {_WORDS}, in seed and position alike")
    if array.dtype == object:
        good = (array >= -(1 << 63)) & (array < 1 << 64)
        require(good, array, name, f"{_WORDS}, in seed and position alike")
        array = np.array([v & (1 << 64) - 1 for v in array.flat], np.uint64).reshape(array.shape)
    array = array.astype(np.uint64)
    return for_rows(array, name, shape, each=True)


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
    """Return the parameters of `sample` as `FILTERS`: one for all rows, or one for each.

    Parameters
    ----------
    shape : tuple of int
        How the rows are arranged: ``logits.shape[:-1]``.
    temperature, top_k, top_p, min_p, min_keep
        As given to `sample`.
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
    result["min_keep"] = min(count(min_keep, "min_keep", 1), _MANY)
    return result


# ---- what the checks share -----------------------------------------------------------------------


def _array(value: Any, name: str, allowed: str) -> np.ndarray:
    """Return ``np.asarray(value)``; a ragged list is a TypeError that names the argument."""
    refuse_lazy(value, name)
    try:
        return np.asarray(value)
    except ValueError:
        raise TypeError(f"{name} is {shown(value)}; allowed {allowed}") from None


def reals(value: Any, name: str, allowed: str) -> np.ndarray:
    """Return real numbers as float64; bools are none, and what overflows is an error."""
    array = _array(value, name, allowed)
    if array.dtype == object:  # integers beyond 64 bits, fractions
        if not all(isinstance(v, Real) and not isinstance(v, bool) for v in array.flat):
            raise TypeError(f"{name} is {shown(value)}; allowed {allowed}")
    elif not (array.dtype.kind in "fiu" or is_extension_float(array.dtype)) or has_bool(value):
        raise TypeError(f"{name} is {shown(value)}; allowed {allowed}")
    try:
        with np.errstate(all="ignore"):
            result = array.astype(np.float64)
        fits = array.dtype.char != "g" or not (np.isinf(result) & np.isfinite(array)).any()
    except OverflowError:  # an integer beyond a float64
        fits = False
    if not fits:
        raise ValueError(f"{name} is {shown(value)}; allowed {allowed}, within float64's range")
    return result


def _integers(value: Any, name: str, allowed: str) -> np.ndarray:
    """Return integers of 64 bits or, where they are Python's, of any size as dtype object."""
    array = value if isinstance(value, np.ndarray) else _array(value, name, f"are {allowed}")
    if array.dtype.kind in "iu" and not has_bool(value):
        return array
    array = exact_integers(value, array)
    if array.dtype != object or not are_integers(array):
        raise TypeError(f"{name} is {shown(value)}; allowed are {allowed}")
    return array


def exact_integers(value: Any, array: np.ndarray) -> np.ndarray:
    """Return the integers of the list `value` where NumPy's `array` of it has floats instead.

    As of 2**63 beside -1. Else return `array`.
    """
    if array is value or array.dtype.kind != "f":
        return array
    exact = np.asarray(value, dtype=object)
    return exact if are_integers(exact) else array


def are_integers(array: np.ndarray) -> bool:
    """Return whether all objects in an array are integers."""
    return all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in array.flat)


def has_bool(value: Any) -> bool:
    """Return whether there is a bool among the elements of a list, which NumPy makes integers."""
    if not isinstance(value, (list, tuple)):
        return isinstance(value, (bool, np.bool_))
    kinds = set(map(type, value))
    if not kinds.isdisjoint((bool, np.bool_)):
        return True
    return any(issubclass(kind, (list, tuple)) for kind in kinds) and any(map(has_bool, value))


def require(good: np.ndarray, values: np.ndarray, name: str, allowed: str) -> None:
    """Raise a ValueError that names the first of `values` that is not `good`."""
    if not np.all(good):
        first = np.asarray(values)[~np.asarray(good, dtype=bool)].flat[0]
        raise ValueError(f"{name} is {shown(first)}; allowed is {allowed}")


def for_rows(
    array: np.ndarray, name: str, shape: tuple[int, ...], each: bool = False
) -> np.ndarray:
    """Return an array parameter for the rows of `shape`, in row order.

    It has one element if `array` has, unless one for `each` row is asked for.
    """
    if not each and array.size == 1 and array.ndim <= len(shape):
        return array.reshape(1)
    try:
        if array.shape != shape:  # a broadcast is slow
            array = np.broadcast_to(array, shape)
        return np.require(array, requirements=["C", "A"]).reshape(-1)
    except ValueError:
        raise ValueError(
            f"{name} has shape {array.shape}, which does not broadcast to the rows' shape {shape}"
        ) from None
