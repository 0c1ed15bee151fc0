"""Signatures and docstrings of softmax, log_softmax and logsumexp."""

from typing import Any


def softmax(
    x: Any,
    axis: Any = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    out: Any = None,
    return_lse: bool = False,
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
        The axis that sums to 1; several axes together, or None for the whole array. SciPy's default
        is None: `fastsoftmax.scipy` has its signature.
    temperature : float or array_like, default 1.0
        T, from 0 to inf: one value, or an array that broadcasts to the shape of `x` without `axis`.
        1 changes no bit. 0 puts everything on the largest entry, the lowest index among equals; inf
        spreads evenly over the entries that are not -inf. 1/T is held at the largest finite number.
    where : array_like of bool, optional
        The entries that count, broadcast to `x`. The others are as if absent, and exactly 0 in the
        result. A row with nothing that counts is all 0.
    out : ndarray, optional
        The array to write to, of the result's shape, any strides, and the result's dtype or a float
        dtype that NumPy's ``same_kind`` rule casts it to; what was computed is rounded once to it.
        ``out=x`` works in place; an error leaves it untouched, except KeyboardInterrupt.
    return_lse : bool, default False
        Whether to return the logarithm of the sum, too: what parts of a row, as those of attention,
        are merged by.
    workers : int, optional
        How many threads may share the work: from 1; -1 for as many as there are CPUs, -2 for one
        less, and so on. None is what `set_workers` has set, 1 without it. No bit of the result
        depends on it, and little work is not shared.

    Returns
    -------
    ndarray
        The shape of `x`, and its dtype if that is a float type, else float64; a NumPy scalar if `x`
        is 0-d. `out` if it was given. Its axes lie in memory as those of `x`, NumPy's order "K".
        With `return_lse` a named tuple ``SoftmaxAndLse`` of this, ``probs``, and ``lse``: the
        log-sum-exp of ``x / T``, in the shape of `x` without `axis` and its dtype; at T = 1 it has
        the bits of `logsumexp`. ``log(probs)`` is ``x / T - lse``.

    Raises
    ------
    TypeError
        `x` of a dtype without probabilities (complex, object, text, dates) or a masked array; a
        `temperature` that is no real number; a `where` that is not bool; an `out` that is no
        ndarray or of a dtype that is not allowed.
    ValueError
        A negative or NaN `temperature`, shapes that do not fit, a read-only `out`, 0 `workers` or a
        negative number beyond the CPUs.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    A one-dimensional `x` is one row. Scores of two classes, one a sample, as scikit-learn's binary
    ``decision_function`` gives, are none: they would be normalised over the samples. The second
    class has ``softmax(np.stack([np.zeros_like(x), x], -1))[:, 1]``, the logistic function of x.

    -inf becomes exactly 0. A row with NaN, with +inf or with nothing but -inf becomes NaN, that row
    only. A difference ``x - max`` that overflows counts as -inf. An empty row stays empty. No
    warning is emitted.

    Accuracy: with ``d = x - max`` and u = 2**-24 for float32, 2**-53 for float64, every
    probability is within a relative error of ``(4 + 0.1 |d|/T) u``: log2(e)/T has twice the bits of
    the dtype (on scores of a language model at T = 0.7 the largest error is 2.9 units in the last
    place; dividing in float32 first makes it 39). Without compiled code in float64 it is
    ``(4 + 1.1 |d|) u``; there, on x86-64 without FMA, and for T below 1e-30 or above 1e30, it is
    ``(4 + 3.1 |d|/T) u`` at T other than 1. Below the smallest normal number it is within one
    smallest normal number. ``x[i] >= x[j]`` implies ``p[i] >= p[j]``. A row's bits depend on its
    values, T and dtype alone, and not on the rounding mode or flush-to-zero of the caller's thread,
    which stay as they were.

    Cost: two passes over a row in cache, about one cycle an element with AVX2 in float32; a third
    one for the maximum in place, where the maximum over T is beyond 256 from 0 (float64: 2048), and
    along other axes at T other than 1. Threads share the rows from some 0.2 ms of work, and a row
    from 0.6 ms. Everything but contiguous rows of float32 and float64 (strides, several axes, half
    types, integers, byte order, `where`) is packed by blocks that stay in cache; nothing of the
    array's size is allocated but the result, and a second one where `out` overlaps `x` in part.

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
    >>> softmax([0.0, 5.0, 0.0], where=[True, False, True])
    array([0.5, 0. , 0.5])
    """


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

    The sum is that of ``exp((x_j - max)/T)``, so nothing overflows for any `temperature`.

    Parameters
    ----------
    x : array_like
        Scores. float32 and float64 are computed in their own precision; float16 and bfloat16 in
        float32, rounded once; integers, bools, lists and scalars in float64. Any strides.
    axis : int, tuple of ints or None, default -1
        The axis along which the probabilities sum to 1; several together, or None for all, which is
        SciPy's default (`fastsoftmax.scipy` has its signature).
    temperature : float or array_like, default 1.0
        T, from 0 to inf: one value, or an array that broadcasts to the shape of `x` without `axis`.
        0 gives 0 for the largest entry, the lowest index among equals, and -inf for the others.
    where : array_like of bool, optional
        The entries that count, broadcast to `x`. The others are as if absent, and -inf in the
        result.
    out : ndarray, optional
        The array to write to, of the result's shape, any strides, and the result's dtype or a float
        dtype that NumPy's ``same_kind`` rule casts it to; what was computed is rounded once to it.
        ``out=x`` works in place; an error leaves it untouched, except KeyboardInterrupt.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. `softmax` says
        which numbers are allowed.

    Returns
    -------
    ndarray
        The shape of `x`, and its dtype if that is a float type, else float64; a NumPy scalar if `x`
        is 0-d. `out` if it was given. -inf where `softmax` is exactly 0 by rule (-inf, `where`
        False, T = 0).

    Raises
    ------
    TypeError
        `x` of a dtype without probabilities or a masked array; a `temperature` that is no real
        number; a `where` that is not bool; an `out` of a dtype that is not allowed.
    ValueError
        A negative or NaN `temperature`, shapes that do not fit, a read-only `out`, `workers` out of
        range.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    A one-dimensional `x` is one row, not one score of two classes a sample: `softmax` says what to
    do with these.

    The sum leaves out the largest entry's own term, which is 1, and goes through ``log1p``: the
    most likely entry is not exactly 0 while another one still counts. A row with NaN, +inf or
    nothing but -inf becomes NaN; a row with nothing that counts (`where`) becomes -inf. No warning
    is emitted.

    Accuracy: with ``d = x - max``, ``L = log(sum)`` and u = 2**-24 for float32, 2**-53 for float64,
    the result y has four roundings beside the error of the sum: those of ``x - max`` and of its
    product with 1/T (none at T = 1) are at most ``u |d|/T`` each, that of L to the row's dtype is
    ``u L``, and that of the difference ``u |y|``. As ``|y| = |d|/T + L``, the absolute error is at
    most ``2 u |y|``, at T other than 1 ``3 u |y|`` for a T within u of the one that was given, plus
    the mean of the relative bound of `softmax` over the row, weighted by the probabilities.

    Cost: two passes over a row in cache, about one cycle an element with AVX2 in float32. What is
    not contiguous rows of float32 or float64 is packed by blocks that stay in cache.

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


def logsumexp(
    x: Any,
    axis: Any = -1,
    *,
    b: Any = None,
    where: Any = None,
    keepdims: bool = False,
    return_sign: bool = False,
    workers: Any = None,
) -> Any:
    """Return ``log(sum_j exp(x_j))`` along an axis, as ``max + log1p(sum of the others)``.

    With `b`, ``log(sum_j b_j exp(x_j))``.

    Parameters
    ----------
    x : array_like
        Scores. float32 and float64 are computed in their own precision; float16 and bfloat16 in
        float32, rounded once; integers, bools, lists and scalars in float64. Any strides.
    axis : int, tuple of ints or None, default -1
        The axis to sum along; several together, or None for the whole array, which is SciPy's
        default (`fastsoftmax.scipy` has its signature).
    b : array_like, optional
        Weights of the exponentials, of any sign; they broadcast to `x`. An entry with the weight 0
        is as if absent, even if it is NaN or +inf.
    where : array_like of bool, optional
        The entries that count, broadcast to `x`. The others are as if absent.
    keepdims : bool, default False
        Whether the reduced axes stay, with length 1.
    return_sign : bool, default False
        Whether to return the sign of the sum, too, and the logarithm of its absolute value.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. `softmax` says
        which numbers are allowed.

    Returns
    -------
    ndarray
        The shape of `x` without `axis`, and its dtype if that is a float type (float64 if `b` is of
        integers or float64), else float64; a NumPy scalar if no axis is left. With `return_sign` a
        tuple of this and the signs: 1, -1, 0 for a sum of 0, NaN.

    Raises
    ------
    TypeError
        `x` of a dtype without an exponential or a masked array, a `where` that is not bool, a
        `keepdims` or `return_sign` that is no bool.
    ValueError
        A `where` or `b` that does not broadcast to `x`, `workers` out of range.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    -inf entries do not contribute. An empty axis, a row with nothing but -inf and a row with
    nothing that counts give -inf; a row with +inf gives +inf; a row with NaN gives NaN. No warning
    is emitted. With `b`, a sum below 0 gives NaN unless `return_sign`, a sum of 0 -inf.

    Accuracy: an absolute error of a few u in the logarithm of the sum, u = 2**-24 for float32
    and 2**-53 for float64, then one rounding of the result. Cost: two passes over a row in
    cache; what is not contiguous rows of float32 or float64 is packed by blocks that stay
    there. With `b` sums and exponentials are float64, whatever the type of `x`: where weights
    of both signs cancel, the absolute error of the sum is a few 2**-53 of ``sum_j |b_j|
    exp(x_j)``.

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
