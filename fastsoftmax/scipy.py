"""SciPy's `softmax`, `log_softmax` and `logsumexp`, with its signatures, by this package's kernels.

Drop-in: ``from fastsoftmax.scipy import logsumexp, softmax`` in place of ``scipy.special``'s. The
default axis is None, the whole array, as SciPy's; that of ``fastsoftmax.softmax`` is -1.

Arrays of NumPy (no subclasses), lists and numbers, of real dtypes up to float64, are computed here.
All else goes to SciPy, which is imported for that alone: complex and longdouble numbers, masked
arrays and matrices, arrays of other libraries, what has no exponential. SciPy's own tests of the
three functions pass with these in their place. What differs:

- float16 and bfloat16 are computed in float32 and rounded once; integers of any size and bools are
  computed, and returned, in float64 (SciPy's softmax wraps around in small ones).
- No warning is emitted. A row with +inf is NaN as a whole in `log_softmax`, as in `softmax`.
- An empty row gives an empty result (SciPy: an error), or -inf with sign 0 (SciPy: sign -1).
"""

from importlib import import_module
from typing import Any

import numpy as np

from ._arguments.values import is_extension_float
from ._dispatch import active

__all__ = ["log_softmax", "logsumexp", "softmax"]

_DTYPES = "efd?bBhHiIlLqQ"


def softmax(x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the probabilities ``exp(x_i) / sum_j exp(x_j)``, as ``scipy.special.softmax``.

    Parameters
    ----------
    x : array_like
        Scores.
    axis : int, tuple of ints or None, default None
        The axis that sums to 1; several axes together, or None for the whole array.

    Returns
    -------
    ndarray
        The shape of `x`, and its dtype if that is a float type, else float64; a NumPy scalar if `x`
        is 0-d.

    Examples
    --------
    >>> from fastsoftmax.scipy import softmax
    >>> softmax([[0.0, 0.0], [0.0, 0.0]])
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    if not _is_ours(x):
        return _of_scipy("softmax", x)(x, axis=axis)
    return active.softmax(x, axis)


def log_softmax(x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the logarithms of the probabilities, as ``scipy.special.log_softmax``.

    Parameters
    ----------
    x : array_like
        Scores.
    axis : int, tuple of ints or None, default None
        The axis along which the probabilities sum to 1; several together, or None for all.

    Returns
    -------
    ndarray
        The shape of `x`, and its dtype if that is a float type, else float64; a NumPy scalar if `x`
        is 0-d.

    Examples
    --------
    >>> from fastsoftmax.scipy import log_softmax
    >>> log_softmax([1000.0, 1.0])
    array([   0., -999.])
    """
    if not _is_ours(x):
        return _of_scipy("log_softmax", x)(x, axis=axis)
    return active.log_softmax(x, axis)


def logsumexp(
    a: Any,
    axis: int | tuple[int, ...] | None = None,
    b: Any = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    """Return ``log(sum_j b_j exp(a_j))``, as ``scipy.special.logsumexp``.

    Parameters
    ----------
    a : array_like
        Exponents.
    axis : int, tuple of ints or None, default None
        The axis to sum along; several together, or None for the whole array.
    b : array_like, optional
        Factors, of any sign, that broadcast with `a`; None is 1. What a factor of 0 belongs to does
        not count, NaN and inf included.
    keepdims : bool, default False
        Whether the reduced axes stay, with length 1.
    return_sign : bool, default False
        Whether to return the logarithm of the absolute value of the sum, and its sign. Without it
        the logarithm of a negative sum is NaN.

    Returns
    -------
    result : ndarray
        The shape of `a` and `b` together without `axis`; a NumPy scalar if no axis is left.
    sign : ndarray
        Only with `return_sign`: 1, 0 or -1, of the dtype of `result`.

    Notes
    -----
    Without `b` the absolute error is a few u in the logarithm of the sum, u = 2**-53 for float64
    and 2**-24 for float32, then one rounding. With `b` all is computed in float64, then rounded
    once: with p the softmax of `a`, each term ``b p`` has a relative error of
    ``(5 + 0.1 |a - max|) u``, u = 2**-53, and the sum one of some u. Where factors have one sign
    that is the absolute error before the last rounding; where terms cancel each other, it grows by
    ``sum(|b| p) / |sum(b * p)|``.

    Examples
    --------
    >>> from fastsoftmax.scipy import logsumexp
    >>> logsumexp([1.0, 2.0], b=[1, -1], return_sign=True)
    (np.float64(1.5413248546129181), np.float64(-1.0))
    """
    if not (_is_ours(a) and (b is None or _is_ours(b))):
        return _of_scipy("logsumexp", b if _is_ours(a) else a)(
            a, axis=axis, b=b, keepdims=keepdims, return_sign=return_sign
        )
    if b is not None:
        result, sign = _weighted(a, b, axis, bool(keepdims))
    else:
        a = np.atleast_1d(a) if keepdims else a
        result = active.logsumexp(a, axis, keepdims=bool(keepdims))
        if not return_sign:
            return result
        sign = np.where(np.isneginf(result), 0, np.where(np.isnan(result), result, 1))
        sign = sign.astype(result.dtype)
    if not return_sign:
        with np.errstate(all="ignore"):  # of bfloat16's NaN
            return np.where(sign < 0, result.dtype.type(np.nan), result)[()]
    return result[()], sign[()]


@np.errstate(all="ignore")
def _weighted(a: Any, b: Any, axis: Any, keepdims: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithm of ``|sum(b * exp(a))|``, and the sum's sign."""
    a, b = (np.asarray(c) if isinstance(c, (list, tuple)) else c for c in (a, b))
    dtype = np.result_type(a, b)
    dtype = np.dtype(np.float64) if dtype.kind in "iub" else dtype.newbyteorder("=")
    a, b = np.broadcast_arrays(*(np.atleast_1d(np.asarray(c, dtype)) for c in (a, b)))
    result, sign = active.logsumexp(a, axis, b=b, keepdims=keepdims, return_sign=True)
    infinite = np.isinf(b)
    if infinite.any():  # times exp(-inf)
        bad = np.any(infinite & (a == -np.inf), axis, keepdims=keepdims)
        result, sign = (np.where(bad, dtype.type(np.nan), c) for c in (result, sign))
    return result, sign


def _is_ours(x: Any) -> bool:
    """Return whether `x` is computed here: a plain array, a list or a number, of a real dtype."""
    if type(x) is np.ndarray:
        dtype = x.dtype
    elif type(x) in (list, tuple, int, float, bool) or isinstance(x, np.generic):
        dtype = np.asarray(x).dtype
    else:
        return False
    return dtype.char in _DTYPES or is_extension_float(dtype)


def _of_scipy(name: str, x: Any) -> Any:
    """Return SciPy's function `name`, for `x`; also where ``scipy.special`` has ours by now."""
    try:
        return getattr(import_module("scipy.special._logsumexp"), name)
    except ImportError:
        raise ImportError(
            f"{name} of a {type(x).__name__} that is no real array of NumPy is SciPy's, which is "
            "not installed: pip install fastsoftmax[scipy]"
        ) from None
