"""What this machine could do at best: the limit that a cell's time is held against.

An operation reads its input, perhaps writes its output, and makes some passes of arithmetic over
the elements. Its limit is the larger of two times, both measured in the same run:

- moving: the input copied (or only read) by NumPy at the cell's own size, in turns with
  fastsoftmax, into memory made beforehand; less the time of the same call on one element.
- passes: elements times what each pass alone costs an element in the first cache: the maximum
  (NumPy's), exp (the compiled kernel) and a multiplication (NumPy's), each the difference of two
  lengths, so that the cost of a call drops out. The sum has no pass of its own here.
"""

import importlib
from functools import cache, partial
from statistics import median

import numpy as np

from benchmarks.timing import shortest

FULL, GUESSED = ("max", "exp", "scale"), ("exp", "scale")
SUMMED, FOUND = ("max", "exp"), ("max",)


def implementation():
    """The name of the implementation that fastsoftmax runs."""
    import fastsoftmax

    return fastsoftmax.show_config(mode="dicts")["implementation"]


def computed_in(dtype):
    """The dtype of the arithmetic on rows of the dtype called `dtype`."""
    return "float64" if dtype == "float64" else "float32"


def pass_ns(dtype):
    """Nanoseconds an element of each pass, in the first cache, in the dtype that is computed in."""
    long = 12 * 1024 // np.dtype(dtype).itemsize  # two arrays of it fit the smallest first caches
    found = {}
    for name in FULL:
        short, whole = (_pass(name, dtype, n) for n in (long // 3, long))
        # The median of some differences: a disturbance may make one too small as well as too large.
        found[name] = median(max(0.0, shortest(whole) - shortest(short)) for _ in range(7))
        found[name] /= long - long // 3
    return found


def _pass(name, dtype, n):
    x = np.linspace(-20, 0, n, dtype=dtype)
    if name == "max":
        return partial(np.maximum.reduce, x)
    if name == "scale":
        return partial(np.multiply, x, x.dtype.type(0.999), out=x)
    return partial(_exp(), x, np.empty_like(x))


def _exp():
    """The compiled exp up to 0, into an array; NumPy's if fastsoftmax runs its reference."""
    name = implementation()
    if name == "reference":
        return np.exp
    rows = importlib.import_module(f"fastsoftmax._kernels.softmax_{name}").exp_rows
    return lambda x, y: rows(x, y, 0.0, True)


def pace_ns():
    """Nanoseconds a few thousand exp take right now: it rises while the core is disturbed."""
    return shortest(_pace(), samples=5)


@cache
def _pace():
    return _pass("exp", "float32", 3072)


def mover(x, written):
    """A call that copies `x`, or only reads it."""
    flat = x.reshape(-1)
    if x.itemsize < 4:  # NumPy has no fast maximum of half types
        flat = flat.view(f"i{x.itemsize}")
    return partial(np.copyto, np.zeros_like(flat), flat) if written else partial(_read, flat)


_read = np.maximum.reduce  # as fast as any read


@cache
def call_ns(written):
    """What the call of a `mover` costs with next to nothing to move."""
    return shortest(mover(np.zeros(1, "float32"), written))
