"""Arrays laid out as rows for the kernels, and back: what the compiled front still uses."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from .arrays import as_array, check_out, mask, one_axis, reduced_axes, result_dtype, work_dtype
from .losses import INT64, check_targets, class_weight, gradient_pair, out_of_range, smoothing
from .results import (
    LossAndGrad,
    SampleResult,
    Support,
    TopK,
    TopLogprobs,
    clip_to_dtype,
    finish_draw,
)
from .values import (
    choice,
    count,
    draws,
    filters,
    number,
    switch,
    temperatures,
    token_ids,
    uniforms,
)

__all__ = [
    "Layout",
    "LossAndGrad",
    "LossPlan",
    "Rows",
    "SampleResult",
    "Support",
    "TopK",
    "TopLogprobs",
    "as_array",
    "check_out",
    "choice",
    "class_weight",
    "clip_to_dtype",
    "count",
    "draws",
    "filters",
    "finish_draw",
    "gradient_pair",
    "mask",
    "number",
    "one_axis",
    "out_of_range",
    "reduced_axes",
    "result_dtype",
    "smoothing",
    "switch",
    "temperatures",
    "token_ids",
    "uniforms",
    "work_dtype",
]

PIECE = 1 << 16  # elements that are copied at a time where the layout asks for copies


class Layout:
    """An array in a float type with one axis to reduce, and the way back.

    Parameters
    ----------
    x : array_like
        The input, in any layout.
    axis : int, tuple of ints or None
        What a row runs along.
    where : array_like of bool, optional
        Entries that are False become -inf.

    Attributes
    ----------
    shape : tuple of int
        The shape of the rows: that of `x` without the reduced axes.
    dtype : dtype
        That of the result.
    """

    def __init__(self, x: Any, axis: int | tuple[int, ...] | None, where: Any = None) -> None:
        given, x = x, as_array(x, "x")
        self._given = given if isinstance(given, np.ndarray) else x
        self._full = x.shape
        self._wide = x = x.reshape(1) if x.ndim == 0 else x
        self._axes = axes = reduced_axes(axis, x.ndim)
        self._kept = tuple(a for a in range(x.ndim) if a not in axes)
        self.shape = tuple(x.shape[a] for a in self._kept)
        self.dtype = result_dtype(x.dtype)
        self._where = mask(where, self._full)
        # Several axes become one; for that they must be neighbours.
        self._axis = axes[0] if axes else x.ndim
        self._together = tuple(range(x.ndim))
        if axes and axes[-1] - axes[0] >= len(axes):
            self._axis, self._together = len(self._kept), self._kept + axes

    def _merge(self, a: np.ndarray) -> np.ndarray:
        """Return `a` with the reduced axes as one, a view where that is possible."""
        n = prod(a.shape[i] for i in self._axes)
        shape = (*self.shape[: self._axis], n, *self.shape[self._axis :])
        return a.transpose(self._together).reshape(shape)

    def arrange(self, out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Return the input, `out` if it can be written row by row, and the axis to reduce."""
        check_out(out, self._full, self.dtype)
        x = self._wide
        with np.errstate(all="ignore"):
            x = x.astype(self.dtype, copy=False)
        if self._where is not None:
            x = np.where(self._where.reshape(x.shape), x, x.dtype.type(-np.inf))
        x, y = self._merge(x), None
        if out is None and not np.may_share_memory(x, self._given):
            y = x  # a copy, that nobody else knows
        elif out is not None and out.dtype != x.dtype:
            return x, None, self._axis
        elif out is not None:
            y = self._merge(np.asarray(out).reshape(self._wide.shape))
            if not np.may_share_memory(y, out):  # it had to be copied
                return x, None, self._axis
            same = x.ctypes.data == y.ctypes.data and x.strides == y.strides
            if np.may_share_memory(x, y) and not same:
                x = x.copy("K")
        return x, y, self._axis

    def spread(self, y: np.ndarray, masked: float, out: np.ndarray | None) -> Any:
        """Return a result of the input's arrangement in the shape and place that were asked for."""
        if len(self._axes) != 1:
            y = y.reshape(tuple(self._wide.shape[a] for a in self._together))
            y = np.ascontiguousarray(y.transpose(np.argsort(self._together)))
        y = y.reshape(self._full)
        if out is None:
            out = y
        elif not np.may_share_memory(y, out):
            with np.errstate(all="ignore"):
                out[...] = y
        # What does not count is right already, but in rows of NaN.
        if self._where is not None and (out != out).any():
            np.copyto(out, masked, where=~self._where)
        return out[()] if out is y else out

    def reduce(self, y: np.ndarray, keepdims: bool) -> Any:
        """Return one value a row in the shape and dtype that were asked for."""
        with np.errstate(all="ignore"):
            y = y.astype(self.dtype, copy=False)
        if keepdims:
            y = y.reshape(tuple(1 if a in self._axes else n for a, n in enumerate(self._full)))
        return y[()]


class Rows:
    """An array laid out as rows for a kernel, and the way back.

    Parameters
    ----------
    x : array_like
        The input, in any layout.
    axis : int, tuple of ints or None
        What a row runs along.

    Attributes
    ----------
    data : ndarray, shape (rows, n)
        C-contiguous, aligned, float32 or float64; a view of `x` where that is possible.
    shape : tuple of int
        The shape of the rows: that of `x` without the reduced axes.
    """

    def __init__(self, x: Any, axis: int | tuple[int, ...] | None) -> None:
        x = as_array(x, "x")
        self._x = x
        self._full = x.shape
        ndim = max(x.ndim, 1)
        self._axes = axes = reduced_axes(axis, ndim)
        self.dtype = result_dtype(x.dtype)
        wide = x.reshape(1) if x.ndim == 0 else x
        keep = tuple(a for a in range(ndim) if a not in axes)
        self.shape = tuple(wide.shape[a] for a in keep)
        self._order = keep + axes
        moved = wide.transpose(self._order)
        data = moved.reshape(prod(self.shape), prod(moved.shape[len(self.shape) :]))
        with np.errstate(all="ignore"):
            self.data = np.require(data, dtype=work_dtype(x.dtype), requirements=["C", "A"])

    def target(self, out: np.ndarray | None) -> np.ndarray:
        """Return the array that a kernel writes into: `out` itself if that is safe."""
        check_out(out, self._full, self.dtype)
        if (
            out is not None
            and self._order == tuple(range(len(self._order)))
            and type(out) is np.ndarray
            and out.dtype == self.data.dtype
            and out.dtype.isnative
            and out.flags.c_contiguous
            and out.flags.aligned
        ):
            rows = out.reshape(self.data.shape)
            # A kernel may work in place, but not on rows that overlap other rows.
            same = rows.ctypes.data == self.data.ctypes.data
            if same or not np.may_share_memory(rows, self.data):
                return rows
        return np.empty_like(self.data)

    def spread(self, y: np.ndarray, out: np.ndarray | None) -> Any:
        """Return a kernel's (rows, n) result in the shape, dtype and place that were asked for."""
        if out is not None and np.may_share_memory(out, y):
            return out
        moved = tuple((self._full or (1,))[a] for a in self._order)
        y = y.reshape(moved).transpose(np.argsort(self._order)).reshape(self._full)
        with np.errstate(all="ignore"):
            if out is not None:
                out[...] = y
                return out
            y = y.astype(self.dtype, copy=False)
        return np.ascontiguousarray(y)[()] if y.ndim else y[()]

    def recentre(self, y: np.ndarray, temperature: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return filtered logits in `dtype`; of rows that overflow, those less the maximum."""
        largest = float(np.abs(clip_to_dtype(np.array([np.inf]), dtype))[0])
        ts = np.broadcast_to(temperature, len(y))
        y = y.copy()
        with np.errstate(all="ignore"):
            over = ((np.abs(y.astype(np.float64).astype(dtype).astype(np.float64)) >= largest)
                    & (y > -np.inf)).any(axis=1)
            for i in np.flatnonzero(over & (ts > 0)):
                kept = y[i] > -np.inf
                x = self.data[i].astype(np.float64)
                inverse = min(1 / ts[i], np.finfo(np.float64).max)
                if not np.isinf((x[kept] * inverse).astype(dtype)).any():
                    continue
                scores = np.maximum((x - x.max()) * inverse, -np.finfo(np.float64).max)
                y[i][kept] = clip_to_dtype(scores[kept], self.data.dtype)
        return clip_to_dtype(y, dtype)


class LossPlan:
    """The checked arguments of cross entropy, laid out as rows.

    Parameters
    ----------
    logits, targets, axis, weight, ignore_index, label_smoothing, reduction, temperature
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
        temperature: Any = 1.0,
    ) -> None:
        x = as_array(logits, "logits")
        self._x = x
        self.full = x.shape
        wide = x.reshape(1) if x.ndim == 0 else x
        self._axis = one_axis(axis, wide.ndim)
        self.logits = np.moveaxis(wide, self._axis, -1)
        self.shape = self.logits.shape[:-1]
        self.rows = prod(self.shape)
        self.classes = self.logits.shape[-1]
        self.dtype = result_dtype(x.dtype)
        self.work = work_dtype(x.dtype)
        self.weight = class_weight(weight, self.classes)
        self.ignore = count(ignore_index, "ignore_index", INT64.min, INT64.max)
        self.smoothing = smoothing(label_smoothing)
        self.reduction = choice(reduction, "reduction", ("none", "mean", "sum"))
        self.labels: np.ndarray | None = None
        self.targets: np.ndarray | None = None
        t = check_targets(targets, x.shape, self._axis, self.classes, self.ignore)
        if t.dtype.kind == "i":
            self.targets = t.reshape(-1)
        else:
            wide = t.reshape(1) if t.ndim == 0 else t
            self.labels = np.moveaxis(wide, self._axis, -1)
        check_out(out, x.shape, self.dtype)
        self.inverse = 1.0
        heat = number(temperature, "temperature", 0, np.inf)
        if heat != 1:
            self._rescale(heat)

    def _rescale(self, t: float) -> None:
        """Put ``(x - max) / t`` in place of the logits."""
        with np.errstate(all="ignore"):
            x = self.logits.astype(np.float64)
            highest = x.max(axis=-1, keepdims=True, initial=-np.inf)
            best = np.arange(self.classes) == x.argmax(axis=-1, keepdims=True) if x.size else x
            x = x - highest
            if t == 0:
                x = np.where(np.isnan(x), x, np.where(best, 0.0, -np.inf))
            elif t == np.inf:
                x = np.where(x > -np.inf, x * 0, x)
            else:
                x = x * min(1 / t, np.finfo(np.float64).max)
            self.inverse = min(1 / t, np.finfo(np.float64).max) if t else 0.0
            self.logits = x.astype(self.work)

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
