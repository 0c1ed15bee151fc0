"""The cross entropy and the gradients: the formulas, a row at a time, and over arrays."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arguments.arrays import (
    as_array,
    check_out,
    one_axis,
    reduced_axes,
    result_dtype,
    work_dtype,
)
from .._arguments.losses import (
    INT64,
    check_targets,
    class_weight,
    gradient_pair,
    out_of_range,
    smoothing,
)
from .._arguments.results import LossAndGrad
from .._arguments.values import choice, count, number, temperatures
from .rows import as_rows, doubles, from_rows, kept_axes, over_rows, public
from .softmax import inverse, scores


@public
def cross_entropy(logits: Any, targets: Any, **arguments: Any) -> Any:
    return loss_and_grad(logits, targets, out=None, **arguments).loss


@public
def cross_entropy_with_grad(logits: Any, targets: Any, **arguments: Any) -> LossAndGrad:
    return loss_and_grad(logits, targets, **arguments)


@public
def softmax_backward(grad_output: Any, probs: Any, axis: Any, temperature: Any, out: Any) -> Any:
    return backward(softmax_vjp, grad_output, probs, "probs", axis, temperature, out)


@public
def log_softmax_backward(
    grad_output: Any, log_probs: Any, axis: Any, temperature: Any, out: Any
) -> Any:
    return backward(log_softmax_vjp, grad_output, log_probs, "log_probs", axis, temperature, out)


# ---- one row -------------------------------------------------------------------------------------


def cross_entropy_row(
    x: np.ndarray, q: np.ndarray, target: int, temperature: float
) -> tuple[float, np.ndarray]:
    """-sum_c q_c log p_c and (p sum(q) - q) / T, of weighted labels q

    `target` is the class of an integer target, else -1.
    """
    if not np.isfinite(x.max(initial=-np.inf)):  # NaN or +inf somewhere, or nothing above -inf
        return (np.nan if x.size else 0.0), np.full(x.shape, np.nan)
    d = scores(x, temperature)
    e = np.exp(d)
    rest = total(np.delete(e, d.argmax()))
    labelled = q != 0
    loss = total(q[labelled] * -d[labelled]) + total(q) * np.log1p(rest)
    grad = total(q) * (e / (1 + rest)) - q
    # p - 1 would cancel: of the two ways to write it, what cancels less.
    if target >= 0 and total(q) * (e[target] / (1 + rest)) + q[target] > total(q):
        others = total(np.delete(e, target)) / (1 + rest)
        grad[target] = total(np.delete(q, target)) - total(q) * others
    return loss, grad * inverse(temperature)


def softmax_vjp(g: np.ndarray, p: np.ndarray, temperature: float) -> np.ndarray:
    """(g - sum(g p)) p / T"""
    return (g - total(g * p)) * p * inverse(temperature)


def log_softmax_vjp(g: np.ndarray, log_p: np.ndarray, temperature: float) -> np.ndarray:
    """(g - exp(log p) sum(g)) / T"""
    return (g - np.exp(np.minimum(log_p, 0)) * total(g)) * inverse(temperature)


def total(terms: np.ndarray) -> float:
    """the sum, rounded once, or what IEEE arithmetic makes of infinite terms"""
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):
        return float(np.sum(terms))


# ---- arrays --------------------------------------------------------------------------------------


def loss_and_grad(
    logits: Any,
    targets: Any,
    axis: Any,
    temperature: Any,
    weight: Any,
    ignore_index: Any,
    label_smoothing: Any,
    reduction: Any,
    out: Any,
) -> LossAndGrad:
    """Return the loss of all rows, in the dtype of the arithmetic, and its gradient."""
    given = as_array(logits, "logits")
    x = np.atleast_1d(given)
    axis = one_axis(axis, x.ndim)
    shape, classes = x.shape[:axis] + x.shape[axis + 1 :], x.shape[axis]
    w = class_weight(weight, classes)
    w = np.ones(classes) if w is None else w
    ignore = count(ignore_index, "ignore_index", INT64.min, INT64.max)
    e = smoothing(label_smoothing)
    choice(reduction, "reduction", ("none", "mean", "sum"))
    t = number(temperature, "temperature", 0, np.inf)
    targets = check_targets(targets, given.shape, axis, classes, ignore)
    check_out(out, given.shape, result_dtype(x.dtype))

    if targets.dtype.kind == "i":
        target = targets.reshape(-1)
        counts = target != ignore
        for i in np.flatnonzero(counts & ((target < 0) | (target >= classes))):
            raise out_of_range(target[i], i, shape, classes, ignore)
        labels = np.arange(classes) == target[:, np.newaxis]
        divisor = total(w[target[counts]])
    else:
        labels = as_rows(doubles(targets), (axis,))
        target, counts = np.full(len(labels), -1), np.full(len(labels), True)
        divisor = len(labels)
    with np.errstate(all="ignore"):
        q = w * (labels * (1 - e) + e / max(classes, 1))
        factor = np.float64(1) / divisor if reduction == "mean" else 1.0

    def row(x: np.ndarray, q: np.ndarray, target: int, counts: bool) -> tuple[float, np.ndarray]:
        if not counts:
            return 0.0, np.zeros(x.shape)
        loss, grad = cross_entropy_row(x, q, target, t)
        return loss, grad * factor

    rows = over_rows(row, doubles(x), (axis,), q, target, counts)
    grad = from_rows([grad for _, grad in rows], given, (axis,), out)
    losses = np.array([loss for loss, _ in rows], float)
    with np.errstate(all="ignore"):
        if reduction == "none":
            loss = losses.reshape(shape)
        else:
            loss = np.array(total(losses)) / (divisor if reduction == "mean" else 1)
        return LossAndGrad(np.asarray(loss).astype(work_dtype(x.dtype))[()], grad)


def backward(
    vjp: Callable[[np.ndarray, np.ndarray, float], np.ndarray],
    grad_output: Any,
    values: Any,
    name: str,
    axis: Any,
    temperature: Any,
    out: Any,
) -> Any:
    """Apply `vjp` to each row of `grad_output` and of `values`, the argument called `name`."""
    g, p = gradient_pair(grad_output, values, name)
    axes = reduced_axes(axis, max(p.ndim, 1))
    t = temperatures(temperature, tuple(p.shape[a] for a in kept_axes(p.ndim, axes)))
    check_out(out, p.shape, result_dtype(p.dtype))
    rows = over_rows(vjp, doubles(g), axes, as_rows(doubles(p), axes), t)
    y = from_rows(rows, p, axes, out)
    return y if out is not None else y[()]
