"""The arguments of the losses and gradients: targets, class weights, label smoothing."""

from typing import Any

import numpy as np

from .arrays import as_array, new_array, work_dtype
from .values import are_integers, exact_integers, has_bool, number, shown

INT64 = np.iinfo(np.int64)


def smoothing(value: Any) -> float:
    """Return the `label_smoothing` called `value`, a number from 0 to 1."""
    return number(value, "label_smoothing", 0, 1)


def class_weight(weight: Any, classes: int) -> np.ndarray | None:
    """Return `weight` as float64 of shape ``(classes,)``, or None if `weight` is None."""
    if weight is None:
        return None
    weight = as_array(weight, "weight")
    if weight.shape != (classes,):
        raise ValueError(f"weight has shape {weight.shape}; allowed is {(classes,)}, one a class")
    with np.errstate(all="ignore"):  # of a NaN that signals
        w = np.require(weight, dtype=np.float64, requirements=["C", "A"])
    good = (w >= 0) & (w < np.inf)
    if not good.all():
        c = int(good.argmin())
        raise ValueError(f"weight[{c}] is {w[c]}; allowed are finite numbers from 0")
    return w


def check_targets(
    targets: Any, full: tuple[int, ...], axis: int, classes: int, ignore: int
) -> np.ndarray:
    """Return `targets` as an array: classes as int64, or probabilities in their own dtype.

    The range of the classes is the caller's to check, with `out_of_range`.

    Parameters
    ----------
    targets : array_like
        As given to `cross_entropy`.
    full : tuple of int
        The shape of the logits.
    axis, classes : int
        Where the classes are, from 0, and how many.
    ignore : int
        The checked `ignore_index`.
    """
    shape = full[:axis] + full[axis + 1 :]
    bools = has_bool(targets)  # NumPy makes [1, 5] of [True, 5]
    if isinstance(targets, (list, tuple)):
        targets = _listed_targets(targets, shape, classes, ignore)
    allowed = f"integers from 0 to {classes - 1}, or probabilities of the logits' shape {full}"
    targets = as_array(targets, "targets", allowed)
    kind = targets.dtype.kind
    if kind == "b" or bools:
        raise TypeError(f"targets has dtype bool; allowed are {allowed}")
    if kind in "iu":
        if targets.shape != shape:
            raise ValueError(
                f"targets has shape {targets.shape}; allowed is {shape} for integers, "
                f"the logits' shape {full} without axis {axis}"
            )
        beyond = targets > INT64.max  # uint64 alone can be
        if beyond.any():
            i = beyond.argmax()
            raise out_of_range(targets.flat[i], i, shape, classes, ignore)
        return np.require(targets, np.int64, ["C", "A"])
    if targets.shape != full:
        raise ValueError(
            f"targets has dtype {targets.dtype} and shape {targets.shape}; allowed are {allowed}"
        )
    if ignore >= 0:
        raise ValueError(
            f"ignore_index is {ignore}; allowed are negative numbers, which do nothing, where "
            "targets are probabilities"
        )
    return targets


def _listed_targets(targets: Any, shape: tuple[int, ...], classes: int, ignore: int) -> np.ndarray:
    """Return a list of targets as an array; raise where one is an integer beyond 64 bits.

    NumPy would make floats or objects of these, and a float array of no targets.
    """
    array = exact_integers(targets, new_array(targets, "targets"))
    if array.shape != shape or array.dtype != object or not are_integers(array):
        return array
    for i, target in enumerate(array.flat):
        if not INT64.min <= target <= INT64.max:
            raise out_of_range(target, i, shape, classes, ignore)
    return array.astype(np.int64)  # there are none


def out_of_range(
    target: Any, i: Any, shape: tuple[int, ...], classes: int, ignore: int
) -> IndexError:
    """Return the error for `target`, that of row `i` of the rows' `shape`, which is no class."""
    place = ", ".join(str(n) for n in np.unravel_index(i, shape)) if shape else "()"
    return IndexError(
        f"targets[{place}] is {shown(target)}; allowed are 0 to {classes - 1} and {ignore} "
        "(ignore_index)"
    )


def gradient_pair(grad_output: Any, values: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the two arrays of a backward function, of one shape.

    `grad_output` comes back in the dtype of the arithmetic; `values`, the argument called `name`,
    in its own.
    """
    g = as_array(grad_output, "grad_output")
    p = as_array(values, name)
    if g.shape != p.shape:
        raise ValueError(f"grad_output has shape {g.shape}; allowed is that of {name}, {p.shape}")
    with np.errstate(all="ignore"):
        return g.astype(work_dtype(p.dtype), copy=False), p
