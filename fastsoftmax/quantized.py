"""Softmax and choices from logits of 8 bits, as quantized classifiers return them.

A logit is ``scale * (q - zero_point)``. Its exponential is one of 256 numbers: softmax and
log_softmax look them up, and read a quarter of the bytes of float32.
"""

from functools import lru_cache
from typing import Any

import numpy as np

import fastsoftmax

from . import _dispatch
from ._arguments.arrays import one_axis, plain_array
from ._arguments.results import TopK
from ._arguments.values import for_rows, id_array, reals, require, shown, temperatures

__all__ = ["log_softmax", "sample", "softmax", "top_k"]

_kernel = _dispatch.active.quantized()
#: The steps of tables: codes of smaller ones could lose their order to roundings, and logarithms of
#: larger ones are no float32.
_LEAST_STEP, _MOST_STEP = 2.0**-21, 2.0**100
#: Codes of one call of the kernel; signals are looked for between two calls.
_CALL = 1 << 24


def softmax(
    q: Any, scale: Any, zero_point: Any = 0, axis: int = -1, *, temperature: Any = 1.0
) -> np.ndarray:
    """Return the softmax of ``scale * (q - zero_point) / temperature`` along an axis, as float32.

    Parameters
    ----------
    q : array_like of uint8 or int8
        The codes. Any strides.
    scale : float or array_like
        The distance of two codes, above 0 and finite: one, or one a row (it broadcasts to the shape
        of `q` without `axis`).
    zero_point : int or array_like of int, default 0
        The code of 0, one or one a row. It cancels out here.
    axis : int, default -1
        The axis along which probabilities sum to 1.
    temperature : float or array_like, default 1.0
        T, from 0 to inf, one or one a row. 0 is one for the largest code, of the lowest index.

    Returns
    -------
    ndarray of float32, the shape of `q`

    Raises
    ------
    ValueError
        A `scale` that is not above 0 and finite, a temperature below 0, NaN, or what does not
        broadcast.
    TypeError
        Codes that are neither uint8 nor int8, a masked array, a parameter that is no number.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    A probability, or its logarithm, is within 8 u of the exact one, relative, u = 2**-24; equal
    codes have equal ones, and a larger code never has a smaller one. AVX2, AVX-512 and NEON give
    the same bits, whatever the layout, the other rows and the caller's floating-point environment.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import quantized
    >>> quantized.softmax(np.array([200, 210, 190], np.uint8), scale=0.1)
    array([0.24472848, 0.66524094, 0.09003057], dtype=float32)
    """
    return _softmax(q, scale, zero_point, axis, temperature, log=False)


def log_softmax(
    q: Any, scale: Any, zero_point: Any = 0, axis: int = -1, *, temperature: Any = 1.0
) -> np.ndarray:
    """Return the logarithm of `softmax`, exact also where a probability is close to 1.

    Parameters, results and errors are those of `softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import quantized
    >>> low, high = quantized.log_softmax(np.array([-128, 127], np.int8), scale=0.1)
    >>> float(low), f"{high:.3g}"
    (-25.5, '-8.42e-12')
    """
    return _softmax(q, scale, zero_point, axis, temperature, log=True)


def top_k(q: Any, k: int, scale: Any, zero_point: Any = 0, *, axis: int = -1) -> TopK:
    """Return the `k` largest logits along an axis, as float32, and their indices.

    `q`, `scale`, `zero_point` and `axis` are those of `softmax`, `k` and the order those of
    ``fastsoftmax.top_k``: it compares the codes.

    Returns
    -------
    TopK
        Named tuple of ``values``, ``scale * (q - zero_point)`` in float64 rounded to float32, and
        ``indices``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import quantized
    >>> quantized.top_k(np.array([200, 210, 190], np.uint8), 2, scale=0.5, zero_point=128)
    TopK(values=array([41., 36.], dtype=float32), indices=array([1, 0]))
    """
    q, axis, shape = _codes(q, axis)
    step, zero = _scales(scale, shape), _zero_points(zero_point, shape)
    values, indices = fastsoftmax.top_k(q, k, axis=axis)
    moved = np.moveaxis(values, axis, -1).astype(np.float64)
    rows = (*shape, 1)
    with np.errstate(all="ignore"):
        moved -= zero if zero.size == 1 else zero.reshape(rows)
        moved *= step if step.size == 1 else step.reshape(rows)
        return TopK(np.moveaxis(moved.astype(np.float32), -1, axis), indices)


def sample(
    q: Any, scale: Any, zero_point: Any = 0, *, temperature: Any = 1.0, **parameters: Any
) -> Any:
    """Draw indices from the last axis of quantized logits, as ``fastsoftmax.sample`` does.

    Parameters
    ----------
    q, scale, zero_point, temperature
        As `softmax` takes them.
    **parameters
        All others of ``fastsoftmax.sample``: `top_k`, `top_p`, `min_p`, `rng`, `seed`, `size`, ...

    Returns
    -------
    ndarray of int64
        What ``fastsoftmax.sample`` draws from the codes as float64, at the temperature
        ``temperature / scale``. Nothing as large as the logits is allocated.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import quantized
    >>> quantized.sample(np.array([[0, 255], [255, 0]], np.uint8), scale=0.2, rng=0)
    array([1, 0])
    """
    q, _, shape = _codes(q, -1)
    step = _scales(scale, shape)
    _zero_points(zero_point, shape)
    t = temperatures(temperature, shape)
    with np.errstate(all="ignore"):  # of a quotient beyond float64
        t = t / step
    t = t[0] if t.size == 1 else t.reshape(shape)
    try:
        return fastsoftmax.sample(q, temperature=t, **parameters)
    except ValueError as error:  # of rows without codes
        raise ValueError(str(error).replace("logits has", "q has")) from None


def _softmax(
    q: Any, scale: Any, zero_point: Any, axis: int, temperature: Any, log: bool
) -> np.ndarray:
    """Return the softmax, or its logarithm, along an axis."""
    if (  # the common case, quickly
        type(q) is np.ndarray
        and q.dtype.char in "bB"
        and 0 < q.size <= _CALL
        and q.flags.c_contiguous
        and axis == -1
        and type(scale) is type(temperature) is float
        and type(zero_point) is int
        and -256 < zero_point < 256
        and (scales := _shared_scales(scale, temperature)) is not None
    ):
        y = np.empty(q.shape, np.float32)
        _kernel(q, y, scales, q.shape[-1] if q.ndim else 1, q.dtype.char == "b", log)
        return y
    q, axis, shape = _codes(q, axis)
    t, step = temperatures(temperature, shape), _scales(scale, shape)
    _zero_points(zero_point, shape)
    with np.errstate(all="ignore"):  # of quotients beyond float64
        s, inverse = step / t, t / step
    moved = np.moveaxis(q, axis, -1)
    if not (s.min(initial=_MOST_STEP) >= _LEAST_STEP and s.max(initial=0) <= _MOST_STEP):
        function = fastsoftmax.log_softmax if log else fastsoftmax.softmax
        y = function(moved, temperature=inverse[0] if s.size == 1 else inverse.reshape(shape))
        with np.errstate(all="ignore"):  # of logarithms beyond float32
            y = y.astype(np.float32)
        return np.moveaxis(y, -1, axis)
    y = np.empty(moved.shape, np.float32)
    if y.size:
        scales = np.stack(np.broadcast_arrays(step, t), axis=-1)
        _write(moved, y, scales.reshape(*(shape if s.size > 1 else ()), 2), log)
    return np.moveaxis(y, -1, axis)


def _write(q: np.ndarray, y: np.ndarray, scales: np.ndarray, log: bool) -> None:
    """Write the softmax of the last axis, or its logarithm, into `y`, contiguous; by parts.

    `scales` is a scale and a temperature, or one of them for each row.
    """
    if q.size > _CALL and q.ndim > 1:
        half = (len(q) + 1) // 2
        for part in (slice(0, half), slice(half, None)) if len(q) > 1 else (0,):
            _write(q[part], y[part], scales if scales.ndim == 1 else scales[part], log)
    elif q.size:
        codes = np.ascontiguousarray(q)
        _kernel(codes, y, np.ascontiguousarray(scales), q.shape[-1], q.dtype == np.int8, log)


@lru_cache(maxsize=256)
def _shared_scales(scale: float, temperature: float) -> np.ndarray | None:
    """Return what the kernel takes for all rows, or None where it takes a closer look."""
    if not (0 < scale < np.inf and 0 < temperature < np.inf):
        return None
    in_range = _LEAST_STEP <= scale / temperature <= _MOST_STEP
    return np.array([[scale, temperature]]) if in_range else None


# ---- arguments -----------------------------------------------------------------------------------


def _codes(q: Any, axis: int) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Return the codes as an array, the axis from 0, and the shape without it."""
    q = plain_array(q, "q")
    if q.dtype != np.uint8 and q.dtype != np.int8:
        raise TypeError(f"q has dtype {q.dtype}; allowed are uint8 and int8")
    q = q if q.ndim else q.reshape(1)
    axis = one_axis(axis, q.ndim)
    return q, axis, q.shape[:axis] + q.shape[axis + 1 :]


def _scales(scale: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return `scale` as float64: one, or one for each row."""
    if type(scale) is float and 0 < scale < np.inf:  # the common case, quickly
        return np.array([scale])
    array = reals(scale, "scale", "are real numbers above 0, finite")
    require((array > 0) & (array < np.inf), array, "scale", "above 0, and finite")
    return for_rows(array, "scale", shape)


def _zero_points(zero_point: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return `zero_point` as integers: one, or one for each row."""
    if type(zero_point) is int and -256 < zero_point < 256:
        return np.array([zero_point])
    array = id_array(zero_point, "zero_point")
    if array.dtype == object:
        raise ValueError(f"zero_point is {shown(zero_point)}; allowed are integers of 64 bits")
    return for_rows(array, "zero_point", shape)
