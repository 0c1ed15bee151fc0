"""The oracle of the losses and gradients: plain Python on NumPy, a row at a time, in float64.

What ``_reference`` is to softmax, and offered there with the rest. Only the checks of the arguments
(``_targets``, ``_arrays``) are shared with the compiled road.
"""

import math
from typing import Any

import numpy as np

from . import _arrays, _targets, _threads
from ._targets import LossAndGrad, LossPlan

LARGEST = np.finfo(np.float64).max


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    workers: Any = None,
) -> Any:
    """Return how surprised the probabilities of `logits` are by `targets`: ``-sum_c q_c log p_c``.

    As ``torch.nn.functional.cross_entropy``, with the classes along any axis.

    Parameters
    ----------
    logits : array_like
        Scores of the classes, along `axis`; dtypes and layouts as in `softmax`.
    targets : array_like
        Integers: the right class of each row, of the shape of `logits` without `axis`. Floats: the
        probabilities of the classes, of the shape of `logits`, taken as they are, whatever they
        add up to (float32 if that is the arithmetic's dtype).
    axis : int, default -1
        Where the classes are: 1 for images of shape (N, C, height, width).
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
        As in `softmax`.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of `logits` without `axis` for "none"
        In the dtype that `softmax` would return.

    Raises
    ------
    IndexError
        A target that is neither a class nor `ignore_index`: its place and value are named.
    TypeError
        A dtype without probabilities, a masked array, bool targets, an `axis` or `ignore_index`
        that is no integer.
    ValueError
        Shapes that do not fit, a weight that is negative, infinite or NaN, `label_smoothing`
        outside [0, 1], an unknown `reduction`, an `ignore_index` from 0 with probabilities,
        `workers` out of range.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    A row with NaN, with +inf or with nothing but -inf has the loss NaN. A class with a logit of
    -inf adds nothing where its label or weight is 0, and makes the loss +inf where they are not
    (`label_smoothing` gives every class a label). With "mean", nothing that counts (every row
    ignored, no rows, weights of 0) gives NaN. No warning is emitted.

    Accuracy: with ``d = x - max`` and u = 2**-24 for float32, 2**-53 for float64, the loss of an
    integer target is within ``2 u`` relative, plus ``(4 + 1.1 |d_j|) u p_j`` for each entry j but
    the largest: the logarithm is ``log1p`` of the others, so the loss of a confident right answer
    is not 0 while another entry counts. Losses are added up in float64 or more, in row order.

    Cost: two passes over a row in cache, one more for probabilities and `label_smoothing`; nothing
    of the logits' size is allocated. Where the layout or dtype of the logits asks for copies, they
    are made 65536 elements at a time, and one thread does the work.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4
    .. [2] R. Müller, S. Kornblith, G. Hinton, "When does label smoothing help?", NeurIPS 2019,
       https://arxiv.org/abs/1906.02629

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy
    >>> logits = np.array([[0.0, 0.0, 0.0], [0.0, 40.0, 0.0], [0.0, 9.0, 0.0]])
    >>> cross_entropy(logits, [0, 1, -100], reduction="none")
    array([1.09861229e+00, 8.49670851e-18, 0.00000000e+00])
    >>> cross_entropy(logits, [0, 1, -100]).round(6)
    np.float64(0.549306)
    """
    _threads.check(workers)
    plan = LossPlan(logits, targets, axis, weight, ignore_index, label_smoothing, reduction)
    return _cross_entropy(plan)[0]


def cross_entropy_with_grad(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    out: Any = None,
    workers: Any = None,
) -> LossAndGrad:
    """Return `cross_entropy` and its gradient by the logits: ``probability - label``, weighted.

    Parameters, errors and the loss are those of `cross_entropy`.

    Parameters
    ----------
    out : ndarray, optional
        Where to write the gradient, of its shape and dtype and any strides. ``out=logits`` works in
        place. Left alone by every error but KeyboardInterrupt.

    Returns
    -------
    LossAndGrad
        Named tuple of ``loss`` and ``grad``, an array of the shape of `logits` in the dtype that
        `softmax` would return; with "none" the gradient is that of the sum.

    Notes
    -----
    The gradient of a row with NaN, with +inf or with nothing but -inf is NaN. That of an ignored
    row is 0, also with "mean" and every row ignored. An infinite loss has a finite gradient.

    Accuracy: with ``d = x - max`` and u = 2**-24 for float32, 2**-53 for float64, and integer
    targets without `label_smoothing`, an entry's relative error is within ``(4 + 1.1 |d|) u``; at
    the target, where it is minus the sum of the other probabilities, within the mean of their
    bounds weighted by them, however close the target's own probability is to 1. Otherwise that
    bound is relative to ``p_j sum(q) + q_j``, q being the weighted labels. Below the smallest
    normal number of the dtype: within one of those.

    Cost: one road over each row for both, the gradient written once (twice in cache); some two
    cycles an element with AVX2 in float32.

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
    _threads.check(workers)
    plan = LossPlan(logits, targets, axis, weight, ignore_index, label_smoothing, reduction, out)
    loss, rows = _cross_entropy(plan)
    grad = np.empty(plan.full, plan.dtype) if out is None else out
    with np.errstate(all="ignore"):
        plan.moved(grad)[...] = rows.reshape(plan.logits.shape)
    return LossAndGrad(loss, grad)


def softmax_backward(
    grad_output: Any, probs: Any, axis: Any = -1, *, temperature: Any = 1.0, out: Any = None
) -> Any:
    """Return the gradient by `x` of what has the gradient `grad_output` by ``softmax(x)``.

    ``(g - sum(g * p)) * p / T`` along an axis: the product of a vector with softmax's Jacobian.

    Parameters
    ----------
    grad_output : array_like
        The gradient by the probabilities, of their shape.
    probs : array_like
        What ``softmax(x, axis, temperature=temperature)`` gave; its dtype decides that of the
        arithmetic and of the result, as in `softmax`.
    axis : int, tuple of ints or None, default -1
        As it was given to `softmax`.
    temperature : float or array_like, default 1.0
        As it was given to `softmax`. At 0, where softmax is constant, the result is 0.
    out : ndarray, optional
        Where to write, of the result's shape and dtype and any strides; `grad_output` or `probs`
        itself works in place.

    Returns
    -------
    ndarray
        Of the shape of `probs`; `out` if it was given.

    Raises
    ------
    TypeError
        A dtype without probabilities, a masked array, an `out` of another dtype.
    ValueError
        A negative or NaN temperature, shapes that do not fit, a read-only `out`.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    NaN and infinities are carried through as by IEEE arithmetic; a row's stay in that row.

    Accuracy: the sum is one of float64 for float32, of more for float64, in a fixed order: an
    entry's error is within ``4 u (|g| + sum(|g| p)) p``, u = 2**-24 or 2**-53, at T other than 1
    within ``6 u (|g| + sum(|g| p)) p / T``; below the smallest normal number, within one of those.
    Cost: two passes over a row in cache.

    Examples
    --------
    >>> from fastsoftmax import softmax, softmax_backward
    >>> softmax_backward([1.0, 0.0], softmax([0.0, 0.0]))
    array([ 0.25, -0.25])
    """
    return _backward(False, grad_output, probs, "probs", axis, temperature, out)


def log_softmax_backward(
    grad_output: Any, log_probs: Any, axis: Any = -1, *, temperature: Any = 1.0, out: Any = None
) -> Any:
    """Return the gradient by `x` of what has the gradient `grad_output` by ``log_softmax(x)``.

    ``(g - exp(log_p) * sum(g)) / T`` along an axis. Parameters, errors and notes are those of
    `softmax_backward`.

    Parameters
    ----------
    log_probs : array_like
        What ``log_softmax(x, axis, temperature=temperature)`` gave. -inf is a probability of 0, and
        above 0 counts as 0.

    Returns
    -------
    ndarray
        Of the shape of `log_probs`; `out` if it was given.

    Notes
    -----
    Accuracy: an entry's error is within
    ``2 u (|g| + (1 + |log_p|) p |sum(g)| + p sum(|g|)) / T``, u = 2**-24 or 2**-53.
    Cost: two passes over a row in cache.

    Examples
    --------
    >>> from fastsoftmax import log_softmax, log_softmax_backward
    >>> log_softmax_backward([1.0, 0.0], log_softmax([0.0, 0.0]))
    array([ 0.5, -0.5])
    """
    return _backward(True, grad_output, log_probs, "log_probs", axis, temperature, out)


# ---- arithmetic, float64 -------------------------------------------------------------------------


def _sum(terms: np.ndarray) -> float:
    """Return the sum, rounded once, or what IEEE arithmetic makes of infinite terms."""
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):
        return float(np.sum(terms))


def _loss_row(x: np.ndarray, q: np.ndarray, target: int | None) -> tuple[float, np.ndarray]:
    """Return the loss of a row with weighted labels `q`, and its gradient."""
    highest = x.max(initial=-np.inf)
    if not np.isfinite(highest):  # NaN somewhere, +inf somewhere, or nothing above -inf
        return (np.nan if x.size else 0.0), np.full(x.shape, np.nan)
    e = np.exp(x - highest)
    rest = _sum(np.delete(e, x.argmax()))
    labelled = q != 0
    total = _sum(q)
    loss = _sum(q[labelled] * (highest - x[labelled])) + total * np.log1p(rest)
    grad = total * (e / (1 + rest)) - q
    # p - 1 would cancel: of the two ways to write it, what cancels less.
    if target is not None and total * (e[target] / (1 + rest)) + q[target] > total:
        others = _sum(np.delete(e, target))
        grad[target] = _sum(np.delete(q, target)) - total * (others / (1 + rest))
    return loss, grad


def _cross_entropy(plan: LossPlan) -> tuple[Any, np.ndarray]:
    """Return the loss, and the gradient as float64 rows."""
    x = plan.logits.reshape(plan.rows, plan.classes).astype(np.float64)
    w = np.ones(plan.classes) if plan.weight is None else plan.weight
    counted = np.ones(plan.rows, dtype=bool)
    targets: list[int | None] = [None] * plan.rows
    divisor: float = plan.rows
    if plan.labels is not None:
        labels = plan.labels.reshape(x.shape).astype(np.float64)
    elif plan.targets is not None:
        counted = plan.targets != plan.ignore
        targets = plan.targets.tolist()
        for i in np.flatnonzero(counted & ((plan.targets < 0) | (plan.targets >= plan.classes))):
            raise _targets.out_of_range(targets[i], i, plan.shape, plan.classes, plan.ignore)
        labels = np.arange(plan.classes) == plan.targets[:, None]
        divisor = _sum(w[plan.targets[counted]])
    losses = np.zeros(plan.rows)
    grad = np.zeros(x.shape)
    e = plan.smoothing
    with np.errstate(all="ignore"):
        q = w * (labels * (1 - e) + e / max(plan.classes, 1))
        factor = np.float64(1) / divisor if plan.reduction == "mean" else 1.0
        for i in np.flatnonzero(counted):
            losses[i], row = _loss_row(x[i], q[i], targets[i])
            grad[i] = row * factor
        if plan.reduction == "none":
            return losses.astype(plan.dtype).reshape(plan.shape)[()], grad
        total = np.float64(_sum(losses))
        return plan.dtype.type(total / divisor if plan.reduction == "mean" else total), grad


def _backward(
    log: bool, grad_output: Any, values: Any, name: str, axis: Any, temperature: Any, out: Any
) -> Any:
    """Return softmax's gradient, or log_softmax's if `log`."""
    g, p = _targets.gradient_pair(grad_output, values, name)
    axes = _arrays.reduced_axes(axis, max(p.ndim, 1))
    keep = tuple(a for a in range(p.ndim) if a not in axes)
    shape = tuple(p.shape[a] for a in keep)
    t = np.broadcast_to(_arrays.temperatures(temperature, shape), math.prod(shape))
    dtype = _arrays.result_dtype(p.dtype)
    _arrays.check_out(out, p.shape, dtype)
    order = (*keep, *axes) if p.ndim else ()
    moved = p.transpose(order).shape
    size = math.prod(moved[len(keep) :])
    rows = p.transpose(order).reshape(t.size, size).astype(np.float64)
    seen = g.transpose(order).reshape(t.size, size).astype(np.float64)
    result = np.zeros(rows.shape)
    with np.errstate(all="ignore"):
        for i in range(t.size):
            inverse = min(1 / t[i], LARGEST) if t[i] else 0.0
            if log:
                p_row = np.exp(np.minimum(rows[i], 0))
                result[i] = (seen[i] - p_row * _sum(seen[i])) * inverse
            else:
                p_row = rows[i]
                result[i] = (seen[i] - _sum(seen[i] * p_row)) * p_row * inverse
        result = result.reshape(moved).transpose(np.argsort(order)).astype(dtype)
    if out is None:
        return result[()] if p.ndim == 0 else np.ascontiguousarray(result)
    out[...] = result
    return out
