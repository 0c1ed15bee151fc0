"""The arguments of the losses and gradients, checked and laid out: what ``_arrays`` is to softmax.

Everything that can be wrong with an argument is found here, before anything is computed or written.
"""

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from . import _arrays

PIECE = 1 << 16  # elements that are copied at a time where the layout asks for copies
_INT64 = np.iinfo(np.int64)


class LossAndGrad(NamedTuple):
    """What ``cross_entropy_with_grad`` returns: the loss, and its gradient by the logits."""

    loss: Any
    grad: np.ndarray


def out_of_range(
    target: Any, i: Any, shape: tuple[int, ...], classes: int, ignore: int
) -> IndexError:
    """Return the error for the target of row `i` that is no class."""
    place = ", ".join(str(n) for n in np.unravel_index(i, shape)) if shape else "()"
    return IndexError(
        f"targets[{place}] is {target}; allowed are 0 to {classes - 1} and {ignore} (ignore_index)"
    )


def smoothing(value: Any) -> float:
    """Return the checked `label_smoothing`."""
    if isinstance(value, (bool, str)) or np.ndim(value):
        raise TypeError(f"label_smoothing is {value!r}; allowed is a number from 0 to 1")
    try:
        e = float(value)
    except TypeError:
        raise TypeError(f"label_smoothing is {value!r}; allowed is a number from 0 to 1") from None
    if not 0 <= e <= 1:
        raise ValueError(f"label_smoothing is {value!r}; allowed is 0 to 1")
    return e


def class_weight(weight: Any, classes: int) -> np.ndarray | None:
    """Return `weight` as float64 of shape ``(classes,)``, None if there is none."""
    if weight is None:
        return None
    weight = _arrays.as_array(weight, "weight")
    if weight.shape != (classes,):
        raise ValueError(f"weight has shape {weight.shape}; allowed is {(classes,)}, one a class")
    w = np.require(weight, dtype=np.float64, requirements=["C", "A"])
    good = (w >= 0) & (w < np.inf)
    if not good.all():
        c = int(good.argmin())
        raise ValueError(f"weight[{c}] is {w[c]}; allowed are finite numbers from 0")
    return w


class LossPlan:
    """The checked arguments of cross entropy, laid out as rows.

    Parameters
    ----------
    logits, targets, axis, weight, ignore_index, label_smoothing, reduction
        As given to ``cross_entropy``.
    out : ndarray or None
        As given to ``cross_entropy_with_grad``.

    Attributes
    ----------
    logits : ndarray, shape (..., classes)
        In their own dtype, native, a view where that is possible; `axis` is the last one.
    labels : ndarray or None
        Probabilities, of the same shape; or None, and then
    targets : ndarray of int64, shape (rows,)
        Classes, whose range is not checked yet, or `ignore`.
    weight : ndarray of float64, shape (classes,), or None
    smoothing, ignore, reduction
        Checked.
    full, shape : tuple of int
        That of the logits, and without `axis`.
    dtype, work : dtype
        Those of the result and of the arithmetic.
    """

    def __init__(
        self,
        logits: Any,
        targets: Any,
        axis: Any,
        weight: Any,
        ignore_index: Any,
        label_smoothing: Any,
        reduction: Any,
        out: Any = None,
    ) -> None:
        x = _arrays.as_array(logits, "logits")
        self._x = x
        self.full = x.shape
        wide = x.reshape(1) if x.ndim == 0 else x
        self._axis = _arrays.one_axis(axis, wide.ndim)
        self.logits = np.moveaxis(wide, self._axis, -1)
        self.shape = self.logits.shape[:-1]
        self.rows = prod(self.shape)
        self.classes = self.logits.shape[-1]
        self.dtype = _arrays.result_dtype(x.dtype)
        self.work = _arrays.work_dtype(x.dtype)
        self.weight = class_weight(weight, self.classes)
        self.ignore = _arrays.count(ignore_index, "ignore_index", _INT64.min, _INT64.max)
        self.smoothing = smoothing(label_smoothing)
        self.reduction = _arrays.choice(reduction, "reduction", ("none", "mean", "sum"))
        self.labels: np.ndarray | None = None
        self.targets: np.ndarray | None = None
        self._lay_targets(_arrays.as_array(targets, "targets"))
        _arrays.check_out(out, x.shape, self.dtype)

    def _lay_targets(self, targets: np.ndarray) -> None:
        """Check the targets' dtype and shape, and set `targets` or `labels`."""
        if targets.dtype.kind in "iu":
            if targets.shape != self.shape:
                raise ValueError(
                    f"targets has shape {targets.shape}; allowed is {self.shape} for integers, "
                    f"the logits' shape {self.full} without axis {self._axis}"
                )
            beyond = targets > _INT64.max  # uint64 alone can be
            if beyond.any():
                i = beyond.argmax()
                raise out_of_range(targets.flat[i], i, self.shape, self.classes, self.ignore)
            self.targets = np.require(targets, np.int64, ["C", "A"]).reshape(-1)
        elif targets.dtype.kind == "b":
            raise TypeError("targets has dtype bool; allowed are integers, or probabilities")
        else:
            if targets.shape != self.full:
                raise ValueError(
                    f"targets has shape {targets.shape}; allowed is {self.full} for "
                    "probabilities, the logits' shape"
                )
            if self.ignore >= 0:
                raise ValueError(
                    f"ignore_index is {self.ignore}; allowed are negative numbers, which do "
                    "nothing, where targets are probabilities"
                )
            wide = targets.reshape(1) if targets.ndim == 0 else targets
            self.labels = np.moveaxis(wide, self._axis, -1)

    def gradient(self, out: np.ndarray | None) -> np.ndarray:
        """Return the array to write the gradient into: `out` if no input would suffer from it."""
        if out is None:
            return np.empty(self.full, self.dtype)
        x = self._x
        inputs = [a for a in (self.targets, self.labels, self.weight) if a is not None]
        same = out.ctypes.data == x.ctypes.data and out.strides == x.strides
        if not same or out.dtype != x.dtype:
            inputs.append(x)
        if any(np.may_share_memory(out, a) for a in inputs):
            return np.empty(self.full, self.dtype)
        return np.asarray(out)

    def moved(self, grad: np.ndarray) -> np.ndarray:
        """Return a gradient as `logits` lie, a view."""
        return np.moveaxis(grad.reshape(1) if grad.ndim == 0 else grad, self._axis, -1)

    def pieces(self, grad: np.ndarray | None) -> Iterator[tuple[Any, ...]]:
        """Yield, a piece at a time in row order, what a kernel takes.

        A piece is a slice of rows, their logits, room for their gradient (or None) and their labels
        (or None), each (rows, classes), C-contiguous, aligned, of dtype `work`. Only what is not
        laid out so is copied, PIECE elements at a time; the gradient goes back after the kernel.
        """
        y = None if grad is None else self.moved(grad)
        fit = all(self._fits(a) for a in (self.logits, y, self.labels) if a is not None)
        start = 0
        for i in self._places(fit):
            x = self._rows(self.logits[i])
            labels = None if self.labels is None else self._rows(self.labels[i])
            part = slice(start, start + len(x))
            start += len(x)
            if y is None:
                yield part, x, None, labels
            elif self._fits(y[i]):
                yield part, x, y[i].reshape(x.shape), labels
            else:
                z = np.empty(x.shape, self.work)
                yield part, x, z, labels
                with np.errstate(all="ignore"):
                    y[i] = z.reshape(y[i].shape)

    def _fits(self, a: np.ndarray) -> bool:
        return a.dtype == self.work and a.flags.c_contiguous and a.flags.aligned

    def _rows(self, a: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            data = np.require(a, dtype=self.work, requirements=["C", "A"])
        return data.reshape(prod(a.shape[:-1]), self.classes)

    def _places(self, whole: bool) -> Iterator[tuple[Any, ...]]:
        """Yield index expressions that cut the rows, in order: all at once, or PIECE elements."""
        if whole or not self.shape or self.logits.size <= PIECE:
            yield (...,)
            return
        # The first axis of rows such that all behind it fit a piece: that one is sliced.
        axis = len(self.shape) - 1
        behind = self.classes
        while axis and behind * self.shape[axis] <= PIECE:
            behind *= self.shape[axis]
            axis -= 1
        step = max(1, PIECE // max(behind, 1))
        for outer in np.ndindex(self.shape[:axis]):
            for first in range(0, self.shape[axis], step):
                yield (*outer, slice(first, first + step))


def gradient_pair(grad_output: Any, values: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the two arrays of a backward function, of one shape, the first as exact as needed."""
    g = _arrays.as_array(grad_output, "grad_output")
    p = _arrays.as_array(values, name)
    if g.shape != p.shape:
        raise ValueError(f"grad_output has shape {g.shape}; allowed is that of {name}, {p.shape}")
    with np.errstate(all="ignore"):
        return g.astype(_arrays.work_dtype(p.dtype), copy=False), p
