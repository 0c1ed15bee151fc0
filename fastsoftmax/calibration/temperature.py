"""The temperature at which probabilities fit labels best: Newton's method on the exact loss.

Formula
    With b = 1/T and d = x - max(x), the mean loss is log(sum(exp(b d))) - b d[label]. Its
    derivative by b is E[d] - d[label], its second derivative is E[d^2] - E[d]^2, both means over
    the rows, expectations under softmax(x / T). It is convex in b.

Passes over memory
    One for the limits, and one for each iteration, by blocks that stay in cache.

Precision policy
    float64, whatever the logits are; but steps that others follow are taken from float32 where the
    logits are.

Source
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks"
    (ICML 2017), section 4.2.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import fastsoftmax

from .._arguments.values import id_array, reals, require, shown
from .labelled import BLOCK, invalid, labels_of, place, rows_of, slices

#: What is further below the maximum counts as -inf: its square still is a float64. Where nothing is
#: below the second one, squares are float32.
LOWEST, LOWEST32 = -1e100, -1e15
#: The largest step of log(b), one that is not the last but one, and one that leaves an error of its
#: square, 1e-8.
LONGEST, LONG, SHORTEST = 2.0, 0.02, 1e-4


class TemperatureFit(NamedTuple):
    """What `fit_temperature` returns.

    Attributes
    ----------
    temperature : float, or ndarray of float64
        The temperature; with `groups`, one for each group.
    loss_before, loss_after : float
        The mean cross entropy of the labels at a temperature of 1, and at the one fitted.
    iterations : int
        How many times all rows were read to find it.
    """

    temperature: Any
    loss_before: float
    loss_after: float
    iterations: int


@np.errstate(all="ignore")  # of differences beyond float64, and of what is as good as 0
def fit_temperature(
    logits: Any, labels: Any, *, groups: Any = None, bounds: Any = None
) -> TemperatureFit:
    """Return the temperature at which the softmax of logits fits their labels best.

    It minimizes the mean cross entropy, ``cross_entropy(logits, labels, temperature=T)``. Fit it to
    rows that the classifier was not trained on; then ``softmax(logits, temperature=T)`` are
    probabilities that can be taken at their word. The order of the classes stays as it is.

    Parameters
    ----------
    logits : array_like, shape (..., classes)
        Scores, two classes or more. -inf is a class of probability 0.
    labels : array_like of int, shape (...)
        The class of each row.
    groups : array_like of int, shape (...), optional
        The group of each row, from 0 on: each has a temperature of its own, and at least one row.
        A group must be known without the label: a source of the rows, or a group of the predicted
        class, ``group_of_class[logits.argmax(axis=-1)]``.
    bounds : (float, float), optional
        The lowest and the highest temperature to return, above 0 and finite. Without them it is an
        error where the loss has no minimum at a finite temperature above 0.

    Returns
    -------
    TemperatureFit
        Named tuple of ``temperature``, ``loss_before`` (at 1), ``loss_after`` and ``iterations``.
        With groups the temperature of each row is ``fit.temperature[groups]``, which is what
        `softmax` takes.

    Raises
    ------
    ValueError
        A row with NaN, +inf or nothing above -inf, a label whose logit is -inf, fewer than two
        classes, a shape that does not fit, no rows or a group without; `bounds` out of range.
        Without bounds, labels that are all their rows' largest logits (the loss falls all the way
        to T = 0), or that have no larger logits than other classes on average (to T = inf).
    IndexError
        A label that is not from 0 to the number of classes - 1.
    TypeError
        A dtype without probabilities, a masked array, labels or groups that are no integers.

    Notes
    -----
    Newton's method in log(T), inside a bracket; it ends after a step below 1e-4, which leaves an
    error below 1e-8. Four to six readings of the rows are usual.

    A score of a binary classifier, one number a row, is the logit of its second class:
    ``np.stack([np.zeros_like(score), score], axis=-1)``.

    Examples
    --------
    >>> from fastsoftmax.calibration import fit_temperature
    >>> logits = [[4.0, 0.0], [3.0, 0.0], [0.0, 4.0], [2.0, 0.0]]
    >>> fit = fit_temperature(logits, [0, 0, 1, 1])
    >>> round(fit.temperature, 4), round(fit.loss_before, 4), round(fit.loss_after, 4)
    (1.9719, 0.553, 0.4421)
    """
    x = rows_of(logits, 2)
    y = labels_of(labels, x)
    group, count = _groups(groups, x)
    low, high = (0.0, np.inf) if bounds is None else _checked(bounds)
    rows = _Rows(x, y)
    limit = _limit(rows, group, count)
    if bounds is None:
        _require_minimum(limit, groups is not None)
    lowest, highest = -np.log([high, low])  # of log(b), b = 1/T
    limit = np.where(limit == 0, highest, np.where(limit == np.inf, lowest, np.nan))
    left, right = np.full(count, lowest), np.full(count, highest)  # where the slope changes sign
    log_b, iterations, before, moved = np.zeros(count), 0, np.inf, 0.0
    while True:
        iterations += 1
        rough = rows.close and moved > LONG
        loss, slope, curvature = rows.derivatives(log_b, group, np.float32 if rough else np.float64)
        before = loss if iterations == 1 else before
        here = np.clip(log_b, lowest, highest)
        left, right = np.where(slope < 0, here, left), np.where(slope > 0, here, right)
        new = log_b - _step(slope, np.exp(log_b) * curvature)
        passed = ((new < left) & (left != lowest)) | ((new > right) & (right != highest))
        new = np.where(passed, (left + right) / 2, np.clip(new, left, right))
        new = np.where(np.isnan(limit), new, limit)
        moved, log_b = np.abs(new - log_b).max(), new
        if moved <= SHORTEST and not rough:
            break
    temperature = np.where(log_b >= highest, low, np.where(log_b <= lowest, high, np.exp(-log_b)))
    return TemperatureFit(
        float(temperature[0]) if groups is None else temperature, before, loss, iterations
    )


def _step(slope: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """Return Newton's step of log(b), or where that is long, one of `LONGEST` in its direction."""
    step = slope / curvature
    return np.where(np.abs(step) < LONGEST, step, LONGEST * np.sign(slope))


# ---- the loss ------------------------------------------------------------------------------------


class _Rows:
    """Rows and their labels, and what does not change with the temperature.

    Attributes
    ----------
    top : ndarray
        The largest entry of each row.
    place : ndarray
        Its index.
    of_label, of_mean : ndarray
        How far the label's logit, and the mean of what is above -inf, is below it.
    masked : bool
        Whether there is something at -inf, or as good as there.
    close : bool
        Whether the rows are float32, and so are squares of all differences.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.top = x.max(axis=-1).astype(np.float64).reshape(-1)
        if not np.isfinite(self.top).all():
            raise invalid(x)
        self.rows = x.reshape(-1, x.shape[-1])
        self.place = self.rows.argmax(axis=-1)
        self.of_label, self.of_mean = np.empty((2, len(y)))
        lowest = 0.0
        for part, d, counted in self.parts(np.float64):
            self.of_label[part] = d[np.arange(len(d)), y[part]]
            least = d.min()
            lowest = min(lowest, least)
            if least > LOWEST:
                self.of_mean[part] = d.mean(axis=-1)
            else:
                np.greater(d, LOWEST, out=counted)
                np.maximum(d, LOWEST, out=d)
                self.of_mean[part] = np.vecdot(d, counted) / counted.sum(axis=-1)
        self.masked = lowest <= LOWEST
        self.close = x.dtype == np.float32 and lowest > LOWEST32
        bad = self.of_label <= LOWEST
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"labels[{place(row, x)}] is {y[row]}, whose logit is {self.rows[row, y[row]]}, "
                f"not within {-LOWEST:g} of its row's largest: its loss is infinite at any "
                "temperature; allowed are classes of logits that are"
            )

    def parts(self, dtype: type) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield which rows, what they have above their maxima in `dtype`, and scratch alike."""
        n, top = self.rows.shape[1], self.top[:, np.newaxis].astype(dtype)
        memory: np.ndarray = np.empty((2, max(1, BLOCK // n), n), dtype)
        for part in slices(self.rows, BLOCK):
            d, scratch = memory[:, : part.stop - part.start]
            if self.rows.dtype == dtype:
                np.subtract(self.rows[part], top[part], out=d)
            else:
                np.copyto(d, self.rows[part], casting="unsafe")
                d -= top[part]
            yield part, d, scratch

    def derivatives(
        self, log_b: np.ndarray, group: np.ndarray, dtype: type
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the mean loss, and for each group the sums of its derivatives by b."""
        b = np.exp(log_b)[group]
        temperature = 1 / b
        best, mean, square = np.empty((3, len(b)))
        for part, d, p in self.parts(dtype):
            if self.masked:
                np.maximum(d, LOWEST, out=d)
            fastsoftmax.softmax(d, temperature=temperature[part], out=p)
            best[part] = p[np.arange(len(p)), self.place[part]]
            mean[part] = np.vecdot(p, d)
            square[part] = np.vecdot(np.multiply(p, d, out=p), d)
        loss = -np.log(best) - b * self.of_label  # best is 1 / sum(exp(b d))
        slope = np.bincount(group, mean - self.of_label, len(log_b))
        return float(loss.mean()), slope, np.bincount(group, square - mean**2, len(log_b))


# ---- where it has no minimum ---------------------------------------------------------------------


def _limit(rows: _Rows, group: np.ndarray, count: int) -> np.ndarray:
    """Return for each group 0 or inf, the temperature that its loss falls to, or else NaN."""
    at_end = np.bincount(group, rows.of_label, count)  # less than 0: the slope at b = inf is not 0
    at_start = np.bincount(group, rows.of_mean - rows.of_label, count)  # the slope at b = 0
    return np.where(at_end == 0, 0.0, np.where(at_start >= 0, np.inf, np.nan))


def _require_minimum(limit: np.ndarray, grouped: bool) -> None:
    """Raise where the `limit` of a group is a number, which it names."""
    if np.isnan(limit).all():
        return
    group = int(np.isnan(limit).argmin())
    where = f" in group {group}" * grouped
    if limit[group] == 0:
        raise ValueError(
            f"labels are the largest logits of all rows{where}: the loss falls down to a "
            "temperature of 0; allowed are rows of which one at least is classified wrongly, or "
            "pass bounds=(lowest, highest)"
        )
    raise ValueError(
        f"labels have no larger logits than the mean of their rows{where}: the loss falls up to a "
        "temperature of inf; allowed are labels that the logits say something of, or pass "
        "bounds=(lowest, highest)"
    )


# ---- arguments -----------------------------------------------------------------------------------


def _groups(groups: Any, x: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the group of each row, and how many there are: one if `groups` is None."""
    shape = x.shape[:-1]
    if groups is None:
        return np.zeros(int(np.prod(shape)), np.int64), 1
    array = id_array(groups, "groups")
    if array.shape != shape:
        raise ValueError(f"groups has shape {array.shape}; allowed is {shape}, one a row")
    require(array >= 0, array, "groups", f"0 to {array.size - 1}, each with a row")
    require(array < array.size, array, "groups", f"0 to {array.size - 1}, each with a row")
    group = array.astype(np.int64).reshape(-1)
    empty = np.bincount(group) == 0
    if empty.any():
        raise ValueError(
            f"groups has no {int(empty.argmax())} but {group.max()}; allowed are groups from 0 on, "
            "each with a row"
        )
    return group, len(empty)


def _checked(bounds: Any) -> tuple[float, float]:
    """Return `bounds` as two floats."""
    allowed = "are two finite numbers above 0, the lower one first"
    array = reals(bounds, "bounds", allowed)
    good = array.shape == (2,) and 0 < array[0] <= array[1] < np.inf
    if not good:
        raise ValueError(f"bounds is {shown(bounds)}; allowed {allowed}")
    return float(array[0]), float(array[1])
