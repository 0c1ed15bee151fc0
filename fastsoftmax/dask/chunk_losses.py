"""The cross entropy of one chunk, and how that of whole rows is made of it: NumPy arrays alone."""

from typing import Any

import numpy as np

from .._arguments.losses import out_of_range
from .._dispatch import active
from . import chunks

#: A part of a row: its sum; the sum of its labels; and of each label's distance to the maximum.
FIELDS = ("highest", "high", "low", "temperature")
LOSS = np.dtype([*chunks.SUM.descr, ("labels", "f8"), ("gap", "f8")])


def part(
    x: np.ndarray, targets: np.ndarray, start: np.ndarray, *, axis: int, temperature: float,
    weight: np.ndarray | None, ignore: int, smoothing: float, classes: int,
) -> np.ndarray:  # fmt: skip
    """Return what a chunk that begins at class `start` adds to the losses of its rows."""
    n, first = x.shape[axis], int(start[0])
    sums = chunks.sums(x, temperature, None, (axis,))
    state = np.zeros(sums.shape, LOSS)
    for name in FIELDS:
        state[name] = sums[name]
    if n == 0:
        return state
    own = np.ones(n) if weight is None else weight[first : first + n]
    own = own.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    if targets.dtype.kind in "iu":
        place = targets - first
        here = (targets != ignore) & (place >= 0) & (place < n)
        place = np.where(here, place, 0)
        label = np.where(here, np.take_along_axis(own, place, axis) if weight is not None else 1, 0)
        add(state, np.take_along_axis(x, place, axis), (1 - smoothing) * label, temperature, axis)
        if smoothing:
            every = own * (smoothing / classes) * (targets != ignore)
            add(state, x, every, temperature, axis)
    else:
        labels = own * (targets.astype(float) * (1 - smoothing) + smoothing / classes)
        add(state, x, labels, temperature, axis)
    return state


def add(
    state: np.ndarray, x: np.ndarray, labels: np.ndarray, temperature: float, axis: int
) -> None:
    """Add labels of logits x to the state of their rows; without a label a logit does not count."""
    with np.errstate(all="ignore"):
        distance = (state["highest"] - x.astype(float)) / temperature
        distance = np.where(np.isneginf(x), np.inf, distance)
        state["gap"] += np.where(labels != 0, labels * distance, 0).sum(axis, keepdims=True)
        state["labels"] += labels.sum(axis, keepdims=True)


def merge(states: np.ndarray, axis: tuple[int, ...], keepdims: bool, kind: Any) -> np.ndarray:
    """Return the states of rows by those of their parts, which lie along `axis`."""
    merged = chunks.merge(states, axis, True, kind)
    with np.errstate(all="ignore"):
        beyond = (merged["highest"] - states["highest"]) / states["temperature"]
        gap = np.where(states["labels"] != 0, states["labels"] * beyond, 0) + states["gap"]
        merged["gap"] = gap.sum(axis, keepdims=True)
    merged["labels"] = states["labels"].sum(axis, keepdims=True)
    return merged if keepdims else np.squeeze(merged, axis)


def losses(
    states: np.ndarray, targets: np.ndarray, *starts: np.ndarray, axis: int, ignore: int,
    classes: int, is_class: bool, to: np.dtype,
) -> np.ndarray:  # fmt: skip
    """Return the loss of each row; raise where a target is no class."""
    with np.errstate(all="ignore"):
        loss = states["labels"] * chunks.log_sum(states) + states["gap"]
    if is_class:
        check(targets, starts, axis, classes, ignore)
        loss = np.where(targets == ignore, 0.0, loss)
    return np.squeeze(loss, axis).astype(to)


def check(targets: np.ndarray, starts: Any, axis: int, classes: int, ignore: int) -> None:
    """Raise for the first target that is no class; `starts` are where the chunk begins."""
    bad = (targets != ignore) & ((targets < 0) | (targets >= classes))
    if bad.any():
        place = np.argwhere(bad)[0]
        target = targets[tuple(place)]
        place = np.delete(place, axis) + [int(np.max(start)) for start in starts]
        shape = tuple(int(i) + 1 for i in place)  # out_of_range counts rows: this is its last one
        raise out_of_range(target, int(np.prod(shape)) - 1, shape, classes, ignore)


def whole(
    x: np.ndarray, targets: np.ndarray, *starts: np.ndarray, axis: int, temperature: float,
    weight: np.ndarray | None, ignore: int, smoothing: float,
) -> np.ndarray:  # fmt: skip
    """Return the losses of a chunk of whole rows."""
    if targets.dtype.kind in "iu":
        check(targets, starts, axis, x.shape[axis], ignore)
        targets = np.squeeze(targets, axis)
    return np.asarray(
        active.cross_entropy(
            x,
            targets,
            axis=axis,
            temperature=temperature,
            weight=weight,
            ignore_index=ignore,
            label_smoothing=smoothing,
            reduction="none",
        )
    )


def counted(targets: np.ndarray, *, axis: int, weight: np.ndarray | None, ignore: int) -> Any:
    """Return by how much each row counts in the mean."""
    targets = np.squeeze(targets, axis)
    counts = targets != ignore
    if weight is None:
        return counts.astype(float)
    return np.where(counts, weight[np.clip(targets, 0, weight.size - 1)], 0.0)


def ratio(total: np.ndarray, divisor: Any, to: np.dtype) -> np.ndarray:
    """Return the mean of losses by their sum; NaN where nothing counts."""
    with np.errstate(all="ignore"):
        return np.asarray(total / np.float64(divisor)).astype(to)
