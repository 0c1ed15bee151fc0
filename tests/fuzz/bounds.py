"""How far a result may be from the reference's: SPEC's bounds, generously, by the arguments."""

import contextlib

import numpy as np

#: Arguments that are numbers to compute with; of several, the last decides the arithmetic's type.
INPUTS = ("x", "a", "chunk", "scores", "logits", "grad_output", "probs", "log_probs")
#: Functions of which results may be near 0, as differences.
SUMS = ("logsumexp", "logmeanexp", "kl_divergence", "row_stats", "LogSumExp")
#: exp(-750) is 0.
FARTHEST = 750.0


def plain(value):
    """Return numbers as an array of no other class; what is none of NumPy's or Python's as 1."""
    if issubclass(type(value), np.ndarray):
        return value.view(np.ndarray)
    if type(value) in (int, float, list) or issubclass(type(value), np.generic):
        with contextlib.suppress(ValueError):  # a ragged list
            return np.asarray(value)
    return np.ones(())


def _numbers(value):
    """Return numbers as float64; what are none as 1."""
    array = plain(value)
    good = array.dtype.kind in "fiub" or array.dtype.num >= 256
    return array.astype(np.float64) if good and array.size < 1 << 24 else np.ones(())


class Bounds:
    """What is known of a call's arguments before the call, which may overwrite them."""

    def __init__(self, function, given):
        with np.errstate(all="ignore"):
            self.function = function.split(".")[-1] if function[0].islower() else function
            inputs = [name for name in INPUTS if name in given]
            arrays = [_numbers(given[name]) for name in inputs]
            self.finite = all(np.isfinite(a).all() for a in arrays)
            self.largest = max((_largest(a) for a in arrays), default=0.0)
            self.width = max((a.size for a in arrays), default=1)
            first = plain(given[inputs[-1]]) if inputs else np.ones(())
            self.narrow = first.dtype.kind in "fV" and first.dtype.itemsize <= 4
            t = _numbers(given.get("temperature", 1.0))
            self.coldest = t.min(initial=np.inf)
            self.least = t[t > 0].min(initial=np.inf)
            weights = [_numbers(given.get(name, 0)) for name in ("weight", "targets")]
            self.weight = max(1.0, *(_largest(a) for a in weights)) if inputs else 1.0
            self.weighted = given.get("b") is not None  # sums may cancel
            self.logs = "return_lse" in given or function in SUMS
            self.negative = any((a < 0).any() for a in weights)

    def of(self, dtype):
        """Return the errors that a result of `dtype` may have; None for any.

        They are relative to each number, relative to the largest of all, and absolute.
        """
        u = 2.0**-24 if self.narrow or dtype.itemsize <= 4 else 2.0**-53  # of the arithmetic
        rounded = u
        if dtype.itemsize == 2:
            rounded = 2.0**-8 if dtype.kind == "V" else 2.0**-11
        smallest = {2: 6.2e-5, 4: 1.2e-38}.get(dtype.itemsize, 1.2e-38 if self.narrow else 2.3e-308)
        if "backward" in self.function:
            if self.largest > 1e9 or not self.finite or self.coldest < 1e-9:
                return None  # overflows in float32
            sums = 64 * u * self.width * max(1.0, self.largest) ** 2 / min(1.0, self.least)
            return 4 * rounded, 4 * rounded, sums + smallest
        if self.largest > 1e30 or (self.narrow and self.coldest < 1e-30):
            return None  # x - max, or 1/T, is not within the arithmetic's range
        spread = min(2 * self.largest / self.least if self.least < np.inf else 0, FARTHEST)
        bound = (16 + 7 * spread) * u + 2 * rounded
        if self.function.startswith("cross_entropy"):
            if self.coldest < 1e-30 and self.negative:
                return None  # labels below 0: inf - inf
            if self.coldest < 1e-300:
                return None  # a sum of labels above 1, over T, is beyond float64: inf * 0
            return bound, 8 * bound, 8 * bound * self.weight**2 / min(1.0, self.least) + smallest
        if self.weighted:
            return None
        if self.function == "fit_temperature":
            return 1e-5, 0.0, 1e-5 * max(1.0, self.largest)
        if self.logs:  # max / T + log1p(...) may be near 0, and so may a divergence
            sums = 8 * rounded + 8 * u * max(1.0, self.largest) / min(1.0, self.least)
            return bound, 0.0, sums * (1 + spread * (self.function == "kl_divergence")) + smallest
        if self.function == "beam_step":  # a sum with the scores, which may be near 0
            return bound, 0.0, 8 * u * max(1.0, self.largest) + smallest
        if self.function.startswith("Sampler"):
            return (1e-9 if dtype.itemsize == 8 else 4 * rounded), 1e-9, smallest
        return bound, 0.0, smallest


def _largest(a):
    return float(np.abs(a[np.isfinite(a)]).max(initial=0))
