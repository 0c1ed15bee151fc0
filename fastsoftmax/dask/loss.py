"""cross_entropy of dask arrays."""

from functools import partial
from typing import Any

import dask.array as da
import numpy as np

from .._arguments.arrays import one_axis, work_dtype
from .._arguments.losses import INT64, class_weight, smoothing
from .._arguments.values import choice, count, number
from . import chunk_losses, chunks
from .graph import (
    apply,
    array,
    count_rows,
    fitted,
    is_split,
    is_unknown,
    ones,
    require_known,
    row_starts,
    starts,
    tree,
)
from .sums import require_mergeable


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    split_every: Any = None,
) -> Any:
    """Return the cross entropy of logits and targets as a dask array.

    Each chunk is read once.

    Parameters
    ----------
    logits : dask.array.Array
        Scores, in chunks of any shape; of sizes that are known along `axis`, if they split it.
    targets : array_like or dask array
        Classes, of the shape of `logits` without `axis`, or probabilities of their shape.
    axis, temperature, ignore_index, label_smoothing, reduction
        As in `fastsoftmax.cross_entropy`. Where chunks split the rows, `temperature` is from 1e-30
        to 1e30.
    weight : array_like, optional
        One a class.
    split_every : int, optional
        As in `softmax`.

    Returns
    -------
    dask.array.Array
        A number, or the losses of the rows with ``reduction="none"``; float32 for half types.
    """
    x = array(logits, "logits")
    x = x.reshape(1) if x.ndim == 0 else x
    axis = one_axis(axis, x.ndim)
    split = is_split(x, (axis,))
    if split or weight is not None or label_smoothing:
        require_known(x, "logits", axis)
    choice(reduction, "reduction", ("none", "mean", "sum"))
    t = number(temperature, "temperature", 0, np.inf)
    classes = 0 if is_unknown(x, (axis,)) else x.shape[axis]
    ignore = count(ignore_index, "ignore_index", INT64.min, INT64.max)
    common: dict[str, Any] = {
        "axis": axis,
        "weight": class_weight(weight, classes),
        "ignore": ignore,
    }
    labels: dict[str, Any] = {"temperature": t, "smoothing": smoothing(label_smoothing)}
    y, is_class = _targets(targets, x, axis)
    if ignore >= 0 and not is_class:
        raise ValueError(
            f"ignore_index is {ignore}; allowed are negative numbers where targets are "
            "probabilities"
        )
    dtype = work_dtype(x.dtype)
    wide = dtype if reduction == "none" else np.dtype(float)
    out = tuple(i for i in range(x.ndim) if i != axis)
    if split:
        require_mergeable(t, ())
        state = apply(
            chunk_losses.part, x, y, (starts(x, axis), (axis,)), dtype=chunk_losses.LOSS,
            sizes=ones((axis,)), classes=classes, **common, **labels,
        )  # fmt: skip
        merge = partial(chunk_losses.merge, kind=chunks.wide(x.dtype))
        state = tree(state, merge, (axis,), split_every)
        loss = apply(
            chunk_losses.losses, state, y if is_class else state, *row_starts(x, (axis,)), out=out,
            dtype=wide, to=wide, axis=axis, classes=classes, ignore=ignore,
            is_class=is_class,
        )  # fmt: skip
    else:
        loss = apply(
            chunk_losses.whole,
            x,
            y,
            *row_starts(x, (axis,)),
            out=out,
            dtype=dtype,
            **common,
            **labels,
        )
    if reduction == "none":
        return loss
    total = loss.sum(dtype=float)
    divisor: Any = 1
    if reduction == "mean" and is_class:
        divisor = apply(chunk_losses.counted, y, out=out, dtype=float, **common).sum()
    elif reduction == "mean":
        divisor = count_rows(x, (axis,))
    return apply(chunk_losses.ratio, total, divisor, dtype=dtype, to=dtype)


def _targets(targets: Any, x: Any, axis: int) -> tuple[Any, bool]:
    """Return targets as an array beside `x`, and whether they are classes."""
    y = targets if isinstance(targets, da.Array) else da.from_array(np.asarray(targets), chunks=-1)
    if y.dtype.kind not in "iufV":
        raise TypeError(f"targets has dtype {y.dtype}; allowed are integers, or probabilities")
    is_class = y.dtype.kind in "iu"
    along = [i for i in range(x.ndim) if not (is_class and i == axis)]
    shape = tuple(x.shape[i] for i in along)
    if y.ndim != len(along) or not (is_unknown(x, along) or y.shape == shape):
        raise ValueError(
            f"targets has shape {y.shape}; allowed is {shape} for "
            f"{'integers' if is_class else 'probabilities'}"
        )
    return fitted(y, "targets", x, along), is_class
