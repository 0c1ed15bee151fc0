"""Log-sums and best entries of rows that come in parts: updated by chunks, merged, in any order.

`LogSumExp` adds exponentials exactly, by the digits of ``_kernels/exp_digits.pxd``, so that nothing
shows how a row was cut. May import `_arguments` and `_dispatch`.
"""

import math
from typing import Any, Self

import numpy as np

from . import _dispatch
from ._arguments.arrays import as_array, mask, one_axis, reduced_axes, result_dtype
from ._arguments.results import TopK
from ._arguments.values import choice, count, shown

BUCKET = 1024.0  # what origins are multiples of
DIGITS = 4  # that are kept of a sum, the lowest first, 2**32 apart
BELOW = 422.0  # how far below its origin a maximum must be for the bucket below to count
HIGHEST_DIGIT = 23  # of a term at the upper end of a bucket
LOG2E = 1.4426950408889634


class LogSumExp:
    """Log-sum-exp of rows that come in parts, the same for any parts in any order.

    Parameters
    ----------
    axis : int, tuple of ints or None, default -1
        The axis of each chunk to sum along, as for `logsumexp`.

    Notes
    -----
    Each exponential is rounded once, in float64, as a function of its entry alone, and cut into
    digits at fixed powers of two; these are added as integers. Kept are the four digits of 32
    bits below the largest entry's: what is smaller than 2**-96 of that is left out of each
    term, whatever the others are. So every bit of the state is a function of the entries of a
    row and of how often each is there, not of their order, of chunks, or of what was merged
    with what; and AVX2, AVX-512 and NEON give the same. 2**32 entries fit; more may overflow.

    Accuracy: the terms' relative error is at most 1.5 u, u = 2**-53, the sum is exact but for
    what is left out, less than n 2**-96 of the largest term, and the logarithm is taken of the
    sum without that term (`log1p`): within a few u and n 2**-96, then rounded once to the dtype
    of the chunks. It is not bit for bit what `logsumexp` gives, which adds faster, in another
    way.

    Cost: some seven times that of `logsumexp` in float32; 80 bytes a row. Objects can be pickled,
    which is how parts travel from one process to another.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import LogSumExp
    >>> logits = np.array([[1.0, 2.0, 3.0, -40.0]])
    >>> left = LogSumExp().update(logits[:, :1])
    >>> right = LogSumExp().update(logits[:, 3:]).update(logits[:, 1:3])
    >>> left.merge(right).result() == LogSumExp().update(logits).result()
    array([ True])
    """

    implementation = _dispatch.active

    def __init__(self, axis: Any = -1) -> None:
        self.axis = axis
        self._shape: tuple[int, ...] | None = None  # of the results
        self._dtype: np.dtype | None = None
        self._highest = np.zeros(0)  # the maximum of each row
        self._digits = np.zeros((0, DIGITS), np.int64)
        self._below = np.zeros((0, DIGITS), np.int64)  # of the bucket below the maximum's

    def update(self, chunk: Any, *, where: Any = None) -> Self:
        """Add the entries of `chunk` to its rows; return self.

        Parameters
        ----------
        chunk : array_like
            Scores, as `logsumexp` takes them: their axes without `axis` are the rows, the same in
            each chunk.
        where : array_like of bool, optional
            The entries that count, broadcast to `chunk`.
        """
        x = as_array(chunk, "chunk")
        axes = reduced_axes(self.axis, max(x.ndim, 1))
        shape = tuple(n for a, n in enumerate(x.shape) if a not in axes)
        counts = mask(where, x.shape)
        rows = math.prod(shape)
        with np.errstate(all="ignore"):
            new = np.maximum.reduce(
                np.atleast_1d(x),
                axes,
                dtype=None if x.dtype.char in "fd" else np.float64,
                initial=-np.inf,
                where=True if counts is None else counts,
            )
            new = np.asarray(new, float).reshape(rows)  # of a NaN that signals, too
            # Of zeros of both signs, or several NaN, the order would say which is the maximum.
            new = np.where(np.isnan(new), np.nan, new + 0.0)
        state = _State.rebased(self._state(shape), new)
        state.add(self.implementation, x, axes, counts)
        self._take(state, shape, result_dtype(x.dtype))
        return self

    def merge(self, other: "LogSumExp") -> Self:
        """Add the entries of another accumulator, which stays as it is; return self."""
        if not isinstance(other, LogSumExp):
            raise TypeError(f"other is {shown(other)}; allowed is a LogSumExp")
        if other._shape is None or other._dtype is None:
            return self
        mine, theirs = self._state(other._shape), other._state(other._shape)
        state = _State.rebased(mine, theirs.highest)
        moved = _State.rebased(theirs, mine.highest)
        state.digits += moved.digits
        state.below += moved.below
        self._take(state, other._shape, other._dtype)
        return self

    def result(self) -> Any:
        """Return log(sum(exp(x))) of all entries so far, of each row.

        In the dtype of the chunks (float64 where they differ, or are integers), with their axes but
        `axis`. -inf where nothing came; ValueError before the first chunk.
        """
        if self._shape is None:
            raise ValueError("no chunk has come yet: the shape of the result is not known")
        state = self._state(self._shape)
        with np.errstate(all="ignore"):
            values = state.log_sums(self.implementation).astype(self._dtype)
        return values.reshape(self._shape)[()]

    def __repr__(self) -> str:
        return f"<LogSumExp along axis {self.axis} of rows {self._shape}>"

    def _state(self, shape: tuple[int, ...]) -> "_State":
        """Return the state for rows of `shape`."""
        if self._shape is None:
            return _State.empty(math.prod(shape))
        if self._shape != shape:
            raise ValueError(f"chunk has rows of shape {shape}; allowed is {self._shape}")
        return _State(self._highest, self._digits, self._below)

    def _take(self, state: "_State", shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Make `state` that of this object."""
        if self._dtype is not None and self._dtype != dtype:
            dtype = np.dtype(np.float64)
        self._shape, self._dtype = shape, dtype
        self._highest, self._digits, self._below = state.highest, state.digits, state.below


class _State:
    """Maxima and digits of some rows."""

    def __init__(self, highest: np.ndarray, digits: np.ndarray, below: np.ndarray) -> None:
        self.highest, self.digits, self.below = highest, digits, below
        self.origin, self.top, self.has_below = windows(highest)

    @classmethod
    def empty(cls, rows: int) -> "_State":
        """Return the state of rows without entries."""
        zeros = np.zeros((rows, DIGITS), np.int64)
        return cls(np.full(rows, -np.inf), zeros, zeros)

    @classmethod
    def rebased(cls, old: "_State", highest: np.ndarray) -> "_State":
        """Return a copy of a state, with digits for maxima that are not below `highest` either."""
        new = cls(np.maximum(old.highest, highest), old.digits, old.below)
        with np.errstate(all="ignore"):
            same = new.origin == old.origin
            next_one = new.origin - old.origin == BUCKET
        here = shifted(old.digits, np.where(same, new.top - old.top, DIGITS))
        there = shifted(old.digits, np.where(next_one, HIGHEST_DIGIT - old.top, DIGITS))
        new.digits = here
        new.below = np.where((same & new.has_below)[:, None], old.below, there)
        new.below[~new.has_below] = 0
        return new

    def add(self, implementation: Any, x: np.ndarray, axes: Any, counts: Any) -> None:
        """Add the digits of entries, none of which is above the maxima."""
        implementation.exp_digits(x, axes, counts, self.origin, self.top, self.digits)
        if self.has_below.any():
            origin = np.where(self.has_below, self.origin - BUCKET, np.nan)
            top = np.full_like(self.top, HIGHEST_DIGIT)
            implementation.exp_digits(x, axes, counts, origin, top, self.below)

    def log_sums(self, implementation: Any) -> np.ndarray:
        """Return the logarithms of the sums."""
        own = np.zeros_like(self.digits)
        rows = self.highest[:, None]
        implementation.exp_digits(rows, -1, None, self.origin, self.top, own)
        largest = value_of(own, self.top)
        rest = value_of(self.digits - own, self.top) / largest
        tiny = math.exp(-BUCKET / 2)
        below = value_of(self.below, np.full_like(self.top, HIGHEST_DIGIT))
        rest += below * tiny * (tiny / largest)
        finite = np.isfinite(self.highest)
        return np.where(finite, self.highest + np.log1p(rest), self.highest)


def windows(highest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return origin and highest digit for each maximum, and whether the bucket below counts.

    The origin is the multiple of BUCKET within half of it, NaN where the maximum is not finite.
    """
    with np.errstate(all="ignore"):
        rest = np.fmod(highest, BUCKET)
        origin = highest - rest
        origin = np.where(rest >= BUCKET / 2, origin + BUCKET, origin)
        origin = np.where(rest < -BUCKET / 2, origin - BUCKET, origin)
        distance = highest - origin
        finite = np.isfinite(highest)
        # Below 2**31 of the highest digit's unit; what is above it by rounding does no harm.
        top = np.floor((np.where(finite, distance, 0) * LOG2E + 1) / 32).astype(np.int64)
    return np.where(finite, origin, np.nan), top, finite & (distance < -BELOW)


def shifted(digits: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return digits for windows that are higher by so many digits, from 0: the lowest are lost."""
    places = np.arange(DIGITS) + by[:, None]
    found = np.take_along_axis(digits, np.minimum(places, DIGITS - 1), 1)
    return np.where(places < DIGITS, found, 0)


def value_of(digits: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Return the numbers that have these digits, within some units in the last place."""
    digits = digits.copy()
    for i in range(DIGITS - 1):
        whole = (digits[:, i] + (1 << 31)) >> 32
        digits[:, i] -= whole << 32
        digits[:, i + 1] += whole
    total = np.zeros(len(digits))
    for i in range(DIGITS):
        total += np.ldexp(digits[:, i].astype(float), 32 * i)
    return np.ldexp(total, 32 * (top - (DIGITS - 1)))


class RunningTopK:
    """The first `k` entries of rows that come in parts, and where they are in the whole row.

    Parameters
    ----------
    k : int
        How many to keep, from 0.
    axis : int, default -1
        The axis of each chunk to select along.
    mode : {"largest", "smallest"}
        As for `top_k`.

    Notes
    -----
    The order is `top_k`'s: NaN last, the lower index (in the whole row) first among equals. It is
    one order of all entries of a row, so neither the cuts nor the order in which chunks come or are
    merged change the result: it is what `top_k` gives for the whole row.

    Cost: `top_k` of each chunk, and of 2 k entries. Objects can be pickled.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import RunningTopK
    >>> row = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    >>> best = RunningTopK(3).update(row[4:], start=4).update(row[:4], start=0)
    >>> best.result()
    TopK(values=array([9., 5., 4.]), indices=array([5, 4, 2]))
    """

    implementation = _dispatch.active

    def __init__(self, k: int, *, axis: int = -1, mode: str = "largest") -> None:
        self.k = count(k, "k", 0)
        self.axis = axis
        self.mode = choice(mode, "mode", ("largest", "smallest"))
        self._next = 0  # where the next chunk begins unless it says so
        self._values: np.ndarray | None = None  # best first, along the last axis
        self._indices = np.zeros(0, np.int64)

    def update(self, chunk: Any, *, start: int | None = None) -> Self:
        """Take the entries of `chunk` into account; return self.

        Parameters
        ----------
        chunk : array_like
            As `top_k` takes it; the same dtype and the same rows in each chunk.
        start : int, optional
            Where in the whole row the chunk begins; None is behind what has come so far. The last
            index is at most 2**63 - 1.
        """
        x = np.atleast_1d(as_array(chunk, "chunk"))
        axis = one_axis(self.axis, x.ndim)
        n = x.shape[axis]
        start = self._next if start is None else start
        start = count(start, "start", 0, 2**63 - max(n, 1))  # indices are int64
        found = self.implementation.top_k(x, min(self.k, n), axis=axis, mode=self.mode)
        values = np.moveaxis(found.values, axis, -1)
        self._take(values, np.moveaxis(found.indices, axis, -1) + start)
        self._next = max(self._next, start + n)
        return self

    def merge(self, other: "RunningTopK") -> Self:
        """Take what another one, of the same k and mode, has kept into account; return self."""
        if not isinstance(other, RunningTopK):
            raise TypeError(f"other is {shown(other)}; allowed is a RunningTopK")
        if (other.k, other.mode) != (self.k, self.mode):
            raise ValueError(
                f"other has k {other.k} and mode {other.mode!r}; allowed are {self.k} and "
                f"{self.mode!r}"
            )
        if other._values is not None:
            self._take(other._values, other._indices)
            self._next = max(self._next, other._next)
        return self

    def result(self) -> TopK:
        """Return the values and their indices in the whole row, along `axis`, best first.

        Fewer than k if no more entries have come; ValueError before the first chunk.
        """
        if self._values is None:
            raise ValueError("no chunk has come yet: the shape of the result is not known")
        axis = one_axis(self.axis, self._values.ndim)
        values, indices = np.moveaxis(self._values, -1, axis), np.moveaxis(self._indices, -1, axis)
        return TopK(np.ascontiguousarray(values), np.ascontiguousarray(indices))

    def __repr__(self) -> str:
        return f"<RunningTopK of {self.k} along axis {self.axis}, {self._next} entries>"

    def _take(self, values: np.ndarray, indices: np.ndarray) -> None:
        """Keep the first k of what there is and of some more."""
        if self._values is not None:
            if values.dtype != self._values.dtype:
                raise TypeError(
                    f"chunk has dtype {values.dtype}; allowed is that of the others, "
                    f"{self._values.dtype}"
                )
            if values.shape[:-1] != self._values.shape[:-1]:
                raise ValueError(
                    f"chunk has rows of shape {values.shape[:-1]}; allowed is "
                    f"{self._values.shape[:-1]}"
                )
            values = np.concatenate([self._values, values], -1)
            indices = np.concatenate([self._indices, indices], -1)
            order = np.argsort(indices, -1, kind="stable")  # equals go by it
            values = np.take_along_axis(values, order, -1)
            indices = np.take_along_axis(indices, order, -1)
            k = min(self.k, values.shape[-1])
            values, places = self.implementation.top_k(values, k, mode=self.mode)
            indices = np.take_along_axis(indices, places, -1)
        self._values, self._indices = values, indices
