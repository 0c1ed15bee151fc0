"""Prediction sets of classes that hold the true one with a chosen probability: APS and RAPS.

Formula
    The score of a class is the mass of the classes before it, most likely first, and 1 - u of its
    own, u uniform in [0, 1); RAPS adds lam * max(0, place - k_reg), the most likely one having
    place 1. The threshold is the ceil((n + 1) (1 - alpha))-th smallest of the n labels' scores. The
    set of a row are its classes whose scores are not above the threshold.

Passes over memory
    To calibrate: two, and the label's mass is summed where its row stands. Of new rows: the sum of
    their exponentials, and the most likely classes by `top_k`, more of them where a set has more.

Precision policy
    Masses and scores in float64, whatever the logits are.

Source
    Y. Romano, M. Sesia and E. J. Candes, "Classification with Valid and Adaptive Coverage" (NeurIPS
    2020); A. N. Angelopoulos, S. Bates, M. Jordan and J. Malik, "Uncertainty Sets for Image
    Classifiers using Conformal Prediction" (ICLR 2021), algorithms 2 and 3.
"""

from math import ceil
from typing import Any, NamedTuple

import numpy as np

import fastsoftmax

from .._arguments.values import choice, count, generator, number, shown, switch
from .labelled import BLOCK, invalid, labels_of, rows_of, slices

#: How many classes are looked at first, and how many times as many after that.
FIRST, MORE = 64, 4
#: Elements of the rows that are selected from at once.
CHUNK = 1 << 18


class SetCalibration(NamedTuple):
    """What `calibrate_sets` returns, for `prediction_sets`.

    Attributes
    ----------
    threshold : float
        The largest score of a class that is in the set.
    classes : int
        How many classes a row has.
    k_reg, lam : int, float
        The penalty of RAPS; `lam` is 0 for APS.
    temperature : float
        By which logits are divided.
    randomized : bool
        Whether scores have a random part.
    """

    threshold: float
    classes: int
    k_reg: int
    lam: float
    temperature: float
    randomized: bool


@np.errstate(all="ignore")  # of differences beyond float64, and of what is as good as 0
def calibrate_sets(
    logits: Any,
    labels: Any,
    alpha: float,
    *,
    method: str = "aps",
    k_reg: int | None = None,
    lam: float | None = None,
    temperature: float = 1.0,
    randomized: bool = True,
    rng: Any = None,
) -> SetCalibration:
    """Return the threshold of prediction sets that miss the true class in `alpha` of the rows.

    Of rows like those given, and independent of them and of what the classifier was trained on,
    `prediction_sets` then holds the true class with a probability of at least 1 - `alpha`, however
    good the classifier is.

    Parameters
    ----------
    logits : array_like, shape (..., classes)
        Scores. -inf is a class of probability 0.
    labels : array_like of int, shape (...)
        The class of each row.
    alpha : float
        How often the set may miss the class, above 0 and below 1. It takes 1/alpha - 1 rows or
        more.
    method : {"aps", "raps"}
        The scores: the mass down to the class, or with a penalty for each place behind `k_reg`,
        which makes large sets smaller and small ones larger.
    k_reg, lam : int, float
        For "raps", and needed there: the places without a penalty, from 0, and the penalty of each
        one behind them, from 0. They must not be chosen by the rows given here. Usual are 0.01 to
        0.1, and the place that all but `alpha` of the labels of other rows reach.
    temperature : float, default 1.0
        T by which the logits are divided, above 0 and finite.
    randomized : bool, default True
        True: the last class is in or out by chance, so that the sets miss no less than `alpha`.
        False: scores hold the whole mass of their class.
    rng : None, int or numpy.random.Generator
        Where the random part comes from: ``rng.random(rows)``.

    Returns
    -------
    SetCalibration
        For `prediction_sets`.

    Raises
    ------
    ValueError
        A parameter out of range, too few rows for `alpha`, a shape that does not fit, a row with
        NaN, +inf or nothing above -inf.
    IndexError
        A label that is not from 0 to the number of classes - 1.
    TypeError
        A dtype without probabilities, a masked array, a parameter of another type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import sample
    >>> from fastsoftmax.calibration import calibrate_sets, prediction_sets
    >>> logits = 3 * np.random.default_rng(0).standard_normal((2000, 10))
    >>> labels = sample(logits, rng=1)
    >>> calibration = calibrate_sets(logits[:1000], labels[:1000], alpha=0.1, rng=2)
    >>> sets = prediction_sets(logits[1000:], calibration, rng=3)
    >>> sets.shape, sets[np.arange(1000), labels[1000:]].mean().round(2)
    ((1000, 10), np.float64(0.91))
    """
    choice(method, "method", ("aps", "raps"))
    if method == "aps":
        for value, name in ((k_reg, "k_reg"), (lam, "lam")):
            if value is not None:
                raise ValueError(f"{name} is {shown(value)}; allowed is None with method='aps'")
        k_reg, lam = 0, 0.0
    k_reg, lam = count(k_reg, "k_reg", 0), number(lam, "lam", 0, 1e300)
    temperature = _between(temperature, "temperature", np.inf)
    alpha = _between(alpha, "alpha", 1)
    x = rows_of(logits)
    y = labels_of(labels, x)
    n, classes = len(y), x.shape[-1]
    which = ceil((n + 1) * (1 - alpha) - 1e-9)  # 0.58 of 100 are 58
    if which > n:
        raise ValueError(f"alpha is {alpha}; allowed with {n} rows is {1 / (n + 1):.3g} and above")
    random = generator(rng).random(n) if switch(randomized, "randomized") else 0.0
    places = fastsoftmax.rank(x, y.reshape(x.shape[:-1])).reshape(-1)
    scores = _label_scores(x, y, places, temperature, random)
    scores += lam * np.maximum(places + 1 - k_reg, 0)
    threshold = float(np.partition(scores, which - 1)[which - 1])
    return SetCalibration(threshold, classes, k_reg, lam, temperature, bool(randomized))


@np.errstate(all="ignore")
def prediction_sets(
    logits: Any, calibration: SetCalibration, *, include_last: bool = False, rng: Any = None
) -> np.ndarray:
    """Return for each row the classes that hold the true one with the calibrated probability.

    Parameters
    ----------
    logits : array_like, shape (..., classes)
        Scores of the classifier that was calibrated.
    calibration : SetCalibration
        What `calibrate_sets` returned.
    include_last : bool, default False
        True: the class at which the threshold is reached is always in the set. Nothing is random
        then, no set is empty, and they miss less often than was asked for.
    rng : None, int or numpy.random.Generator
        Where the random part comes from: ``rng.random(rows)``.

    Returns
    -------
    ndarray of bool, the shape of `logits`
        Whether a class is in the set of its row. ``sets.sum(axis=-1)`` is their sizes.

    Raises
    ------
    ValueError
        Another number of classes, a row with NaN, +inf or nothing above -inf.
    TypeError
        A dtype without probabilities, a masked array, another `calibration`.

    Notes
    -----
    A set is a row's most likely classes; among equals the lower index comes first. It is empty
    where the threshold is below the first class's score.

    Cost: an exponential an entry, and a selection of the 64 best; where a set has more, of 256, and
    so on. No row whose set is small is sorted.
    """
    if not isinstance(calibration, SetCalibration):
        raise TypeError(
            f"calibration is {shown(calibration)}; allowed is what calibrate_sets returned"
        )
    x = rows_of(logits)
    if x.shape[-1] != calibration.classes:
        raise ValueError(
            f"logits has shape {x.shape}; allowed are {calibration.classes} classes, as calibrated"
        )
    switch(include_last, "include_last")
    rows = x.reshape(-1, x.shape[-1])
    random = np.zeros(len(rows))
    if calibration.randomized and not include_last:
        random = generator(rng).random(len(rows))
    sets = np.zeros(rows.shape, bool)
    for part in slices(rows, CHUNK):
        if not _mark(rows[part], random[part], calibration, include_last, sets[part]):
            raise invalid(x)
    return sets.reshape(x.shape)


def _mark(
    rows: np.ndarray,
    random: np.ndarray,
    calibration: SetCalibration,
    include_last: bool,
    sets: np.ndarray,
) -> bool:
    """Mark the classes in each row's set; return False if a row has no probabilities."""
    n, k = rows.shape[1], FIRST
    t = calibration.temperature
    left = np.arange(len(rows))  # rows whose set is not known yet
    while len(left):
        k = k if 2 * k < n else n
        first = len(left) == len(rows)
        values, places = fastsoftmax.top_k(rows if first else rows[left], k)
        values = values.astype(np.float64, copy=False)
        if first:
            log_best = fastsoftmax.token_logprobs(
                rows.astype(np.float64, copy=False), places[:, 0], temperature=t
            )
            if np.isnan(log_best).any():
                return False
        p = np.exp((values - values[:, :1]) / t + log_best[left, np.newaxis])
        sizes = _sizes(p, random[left], calibration, include_last)
        r, place = np.nonzero(np.arange(k) < sizes[:, np.newaxis])
        sets[left[r], places[r, place]] = True
        left = left[sizes == k] if k < n else left[:0]
        k *= MORE
    return True


def _sizes(
    p: np.ndarray, random: np.ndarray, calibration: SetCalibration, include_last: bool
) -> np.ndarray:
    """Return how many of the probabilities of each row, the largest ones, are in its set."""
    k = p.shape[1]
    scores = p.cumsum(axis=1)
    if calibration.lam:
        scores += calibration.lam * np.maximum(np.arange(1, k + 1) - calibration.k_reg, 0)
    if include_last:
        below = scores < calibration.threshold
        return np.where(below[:, -1], k, below.argmin(axis=1) + 1)
    scores -= random[:, np.newaxis] * p
    inside = scores <= calibration.threshold
    return np.where(inside[:, -1], k, inside.argmin(axis=1))


def _label_scores(
    x: np.ndarray, y: np.ndarray, places: np.ndarray, temperature: float, random: Any
) -> np.ndarray:
    """Return the mass of the classes before the label of each row, and 1 - `random` of its own.

    `places` says how many come before it: among equal classes the lower index does.
    """
    rows = x.reshape(-1, x.shape[-1])
    mass, own, larger = *np.empty((2, len(y))), np.empty(len(y), np.int64)
    for part in slices(rows, BLOCK):
        some = rows[part].astype(np.float64, "C", copy=False)  # sums by the order in memory
        label = np.arange(len(some)), y[part]
        above = some > some[label][:, np.newaxis]
        larger[part] = np.count_nonzero(above, axis=1)
        p = fastsoftmax.softmax(some, temperature=temperature)
        own[part] = p[label]
        mass[part] = np.multiply(p, above, out=p).sum(axis=1)
    if np.isnan(own).any():
        raise invalid(x)
    return mass + (places - larger + 1 - random) * own


def _between(value: Any, name: str, high: float) -> float:
    """Return the number `value` if it is above 0 and below `high`."""
    x = number(value, name, 0, high)
    if not 0 < x < high:
        raise ValueError(f"{name} is {shown(value)}; allowed are numbers above 0 and below {high}")
    return x
