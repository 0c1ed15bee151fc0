"""Signatures and docstrings of the cross entropy and of the gradients."""

from typing import Any


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    temperature: Any = 1.0,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    workers: Any = None,
) -> Any:
    """Return the cross entropy of `targets` and the probabilities: ``-sum_c q_c log p_c``.

    As ``torch.nn.functional.cross_entropy``, with the classes along any axis; p is ``softmax(logits
    / T)``.

    Parameters
    ----------
    logits : array_like
        Scores of the classes, along `axis`. float32 and float64 are computed in their own
        precision, float16 and bfloat16 in float32, anything else in float64. Any strides.
    targets : array_like
        Integers from 0 to C - 1, C the number of classes: the right class of each row, of the shape
        of `logits` without `axis`. Floats: the probabilities q of the classes, of the shape of
        `logits`, taken as they are, whatever they add up to (float32 if that is the arithmetic's
        dtype).
    axis : int, default -1
        Where the classes are: 1 for images of shape (N, C, height, width).
    temperature : float, default 1.0
        T, one number from 0 to inf: the loss is that of ``logits / T``, computed without an
        overflow as in `softmax`.
    weight : array_like, shape (C,), optional
        A factor from 0 for each class.
    ignore_index : int, default -100
        Rows with this integer target do not count: loss and gradient 0, whatever their logits are.
    label_smoothing : float, default 0.0
        A part e from 0 to 1 of each label is spread evenly over the C classes: a row's loss is
        ``(1-e) * w[target] * nll + e/C * sum_c w[c] * -log p_c``.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum by the weights of the targets that count, added up; by the number of
        rows if the targets are probabilities. "none" keeps one loss a row.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. `softmax` says
        which numbers are allowed.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of `logits` without `axis` for "none"
        float64 for logits of float64, integers and lists; float32 for those of float32, float16 and
        bfloat16, whose range a sum of losses would soon leave.

    Raises
    ------
    IndexError
        A target that is neither a class nor `ignore_index`: its place and value are named.
    TypeError
        A dtype without probabilities, a masked array, bool targets, an `axis` or `ignore_index`
        that is no integer, a `temperature` or `label_smoothing` that is no real number.
    ValueError
        Shapes that do not fit, a weight that is negative, infinite or NaN, `temperature` negative
        or NaN, `label_smoothing` outside [0, 1], an unknown `reduction`, an `ignore_index` from 0
        with probabilities, `workers` out of range.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    A row with NaN, with +inf or with nothing but -inf has the loss NaN. A class with a logit of
    -inf adds nothing where its label or weight is 0, and makes the loss +inf where they are not
    (`label_smoothing` gives every class a label). At T = 0 every class but the most likely one (the
    lowest index among equals) is such a class; at T = inf all that are not -inf are equally likely.
    1/T is held at the largest finite number. With "mean", nothing that counts (every row ignored,
    no rows, weights of 0) gives NaN. No warning is emitted.

    Accuracy: with ``d = x - max`` and u = 2**-24 for float32, 2**-53 for float64, the loss of an
    integer target at T = 1 is within ``2 u`` relative, plus ``(4 + 1.1 |d_j|) u p_j`` for each
    entry j but the largest: the logarithm is ``log1p`` of the others, so the loss of a confident
    right answer is not 0 while another entry counts. At T other than 1 it is ``4 u`` relative, plus
    ``(4 + 1.1 |d_j|/T) u p_j``, on x86-64 without FMA ``(4 + 3.1 |d_j|/T) u p_j``. Losses are added
    up in 8 lanes of pairs of float64, always in one order, whatever the threads.

    Cost: two passes over a row in cache, one more for probabilities and `label_smoothing`. One
    float64 a row is allocated, nothing of the logits' size: along other axes, and from other types
    and layouts, rows are packed by blocks that stay in cache.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4
    .. [2] R. Müller, S. Kornblith, G. Hinton, "When does label smoothing help?", NeurIPS 2019,
       https://arxiv.org/abs/1906.02629
    .. [3] G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network" (2015),
       https://arxiv.org/abs/1503.02531 (`temperature` with probabilities as targets)

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy
    >>> logits = np.array([[0.0, 0.0, 0.0], [0.0, 40.0, 0.0], [0.0, 9.0, 0.0]])
    >>> cross_entropy(logits, [0, 1, -100], reduction="none")
    array([1.09861229e+00, 8.49670851e-18, 0.00000000e+00])
    >>> cross_entropy(logits, [0, 1, -100]).round(6)
    np.float64(0.549306)
    >>> cross_entropy(logits, [0, 1, -100], temperature=10).round(6)
    np.float64(0.567294)
    """


def cross_entropy_with_grad(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    temperature: Any = 1.0,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    out: Any = None,
    workers: Any = None,
) -> Any:
    """Return `cross_entropy` and its gradient by the logits: ``(probability - label) / T``.

    Parameters
    ----------
    logits, targets : array_like
        Scores of the classes along `axis`, and the right class of each row or the probabilities of
        the classes, as `cross_entropy` describes them.
    axis : int, default -1
        Where the classes are.
    temperature : float, default 1.0
        T, one number from 0 to inf: the loss is that of ``logits / T``, and the gradient is by
        `logits`. At T = 0 and inf, where the probabilities are constant, the gradient is 0.
    weight : array_like, shape (C,), optional
        A factor from 0 for each class.
    ignore_index : int, default -100
        Rows with this integer target do not count: loss and gradient 0.
    label_smoothing : float, default 0.0
        The part of each label, from 0 to 1, that is spread evenly over the classes.
    reduction : {"mean", "sum", "none"}
        How the losses of the rows are put together; the gradient is that of the mean, or of the sum
        ("none", too).
    out : ndarray, optional
        The array to write the gradient to, of its shape, any strides, and its dtype or a float
        dtype that NumPy's ``same_kind`` rule casts it to. ``out=logits`` works in place; an error
        leaves it untouched, except KeyboardInterrupt.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. `softmax` says
        which numbers are allowed.

    Returns
    -------
    LossAndGrad
        Named tuple of ``loss``, what `cross_entropy` returns (at least float32), and ``grad``, an
        array of the shape of `logits`, in their dtype if that is a float type, else float64; `out`
        if it was given.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        What `cross_entropy` raises; and for an `out` that is no writable ndarray of the right shape
        and of a dtype that is allowed.

    Notes
    -----
    The gradient of a row with NaN, with +inf or with nothing but -inf is NaN. That of an ignored
    row is 0, also with "mean" and every row ignored. An infinite loss has a finite gradient. No
    warning is emitted.

    Accuracy: with ``d = x - max`` and u = 2**-24 for float32, 2**-53 for float64, and integer
    targets without `label_smoothing`, an entry's relative error at T = 1 is within ``(4 + 1.1 |d|)
    u``; at the target, where it is minus the sum of the other probabilities, within the mean of
    their bounds weighted by them, however close the target's own probability is to 1. At T other
    than 1 it is ``(6 + 1.1 |d|/T) u``, on x86-64 without FMA ``(6 + 3.1 |d|/T) u``. Otherwise that
    bound is relative to ``p_j sum(q) + q_j``, q being the weighted labels. Below the smallest
    normal number of the dtype: within one of those.

    Cost: one pass over the rows for both, the gradient written once (twice in cache); some two
    cycles an element with AVX2 in float32. What is not contiguous rows is packed by blocks that
    stay in cache; an array as large as the logits is allocated for the gradient alone.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4

    Examples
    --------
    >>> from fastsoftmax import cross_entropy_with_grad
    >>> loss, grad = cross_entropy_with_grad([[1.0, 2.0, 3.0], [0.0, 40.0, 0.0]], [0, 1])
    >>> loss.round(6)
    np.float64(1.203803)
    >>> grad
    array([[-4.54984713e-01,  1.22364236e-01,  3.32620478e-01],
           [ 2.12417713e-18, -4.24835426e-18,  2.12417713e-18]])
    """


def softmax_backward(
    grad_output: Any, probs: Any, axis: Any = -1, *, temperature: Any = 1.0, out: Any = None
) -> Any:
    """Return the gradient by `x` of what has the gradient `grad_output` by ``softmax(x)``.

    ``(g - sum(g * p)) * p / T`` along an axis: the product of a vector with softmax's Jacobian.

    Parameters
    ----------
    grad_output : array_like
        The gradient g by the probabilities, of their shape.
    probs : array_like
        The probabilities p that ``softmax(x, axis, temperature=temperature)`` gave. float32 and
        float64 are computed in their own precision; float16 and bfloat16 in float32, rounded once;
        anything else in float64.
    axis : int, tuple of ints or None, default -1
        As it was given to `softmax`.
    temperature : float or array_like, default 1.0
        T, as it was given to `softmax`. At 0, where softmax is constant, the result is 0.
    out : ndarray, optional
        The array to write to, of the result's shape, any strides, and the result's dtype or a float
        dtype that NumPy's ``same_kind`` rule casts it to; `grad_output` or `probs` itself works in
        place.

    Returns
    -------
    ndarray
        The shape of `probs`, and their dtype if that is a float type, else float64; `out` if it was
        given.

    Raises
    ------
    TypeError
        A dtype without probabilities, a masked array, an `out` of a dtype that is not allowed.
    ValueError
        A negative or NaN `temperature`, shapes that do not fit, a read-only `out`.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    NaN and infinities are carried through as by IEEE arithmetic; a row's stay in that row. No
    warning is emitted.

    Accuracy: the sum is one of float64 for float32, of more for float64, in a fixed order: an
    entry's error is within ``4 u (|g| + sum(|g| p)) p``, u = 2**-24 or 2**-53, at T other than 1
    within ``6 u (|g| + sum(|g| p)) p / T``; below the smallest normal number, within one of those.
    Cost: two passes over a row in cache. On x86-64 a result that takes more than 32 MB together
    with both inputs goes to memory around the caches.

    Examples
    --------
    >>> from fastsoftmax import softmax, softmax_backward
    >>> softmax_backward([1.0, 0.0], softmax([0.0, 0.0]))
    array([ 0.25, -0.25])
    """


def log_softmax_backward(
    grad_output: Any, log_probs: Any, axis: Any = -1, *, temperature: Any = 1.0, out: Any = None
) -> Any:
    """Return the gradient by `x` of what has the gradient `grad_output` by ``log_softmax(x)``.

    ``(g - exp(log_p) * sum(g)) / T`` along an axis: the product of a vector with the Jacobian.

    Parameters
    ----------
    grad_output : array_like
        The gradient g by the log-probabilities, of their shape.
    log_probs : array_like
        What ``log_softmax(x, axis, temperature=temperature)`` gave. -inf is a probability of 0, and
        above 0 counts as 0. float32 and float64 are computed in their own precision; float16 and
        bfloat16 in float32, rounded once; anything else in float64.
    axis : int, tuple of ints or None, default -1
        As it was given to `log_softmax`.
    temperature : float or array_like, default 1.0
        T, as it was given to `log_softmax`. At 0 the result is 0.
    out : ndarray, optional
        The array to write to, of the result's shape, any strides, and the result's dtype or a float
        dtype that NumPy's ``same_kind`` rule casts it to; `grad_output` or `log_probs` itself works
        in place.

    Returns
    -------
    ndarray
        The shape of `log_probs`, and their dtype if that is a float type, else float64; `out` if it
        was given.

    Raises
    ------
    TypeError
        A dtype without probabilities, a masked array, an `out` of a dtype that is not allowed.
    ValueError
        A negative or NaN `temperature`, shapes that do not fit, a read-only `out`.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    NaN and infinities are carried through as by IEEE arithmetic; a row's stay in that row. No
    warning is emitted.

    Accuracy: an entry's error is within
    ``2 u (|g| + (1 + |log_p|) p |sum(g)| + p sum(|g|)) / T``, u = 2**-24 or 2**-53.
    Cost: two passes over a row in cache.

    Examples
    --------
    >>> from fastsoftmax import log_softmax, log_softmax_backward
    >>> log_softmax_backward([1.0, 0.0], log_softmax([0.0, 0.0]))
    array([ 0.5, -0.5])
    """
