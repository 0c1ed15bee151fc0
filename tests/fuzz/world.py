"""What the text of a fuzzed call may name: arrays of all kinds, objects that break promises."""

import dataclasses
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np

from fastsoftmax import steps
from fastsoftmax.steps.base import Step

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None

#: Bytes before and behind an array, which no call may change.
PADDING = 256


class Mine(Exception):  # noqa: N818
    """What objects of users raise: it may go through, and nothing else may come of it."""


def words(text):
    """Return the words of a text."""
    return text.split()


# ---- arrays --------------------------------------------------------------------------------------


class Subclass(np.ndarray):
    """An array of another class, which NumPy's functions refuse."""

    def __array_function__(self, *args, **kwargs):
        raise Mine("__array_function__")

    def __array_ufunc__(self, *args, **kwargs):
        raise Mine("__array_ufunc__")


def dtype_of(name):
    """Return the dtype called `name`, which may be one of ml_dtypes; its swapped form with ">"."""
    if ml_dtypes is not None and hasattr(ml_dtypes, name):
        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


def _largest(dtype):
    if dtype.kind == "f":
        return float(np.finfo(dtype).max) if dtype.itemsize <= 8 else 1e308
    return 3.3e38 if dtype.kind == "V" else 2.0**31


def _values(shape, dtype, fill, seed):
    """Return float64 numbers for an array of `dtype`."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * 3
    top = _largest(dtype)
    some = rng.random(shape)
    if fill == "ties":
        return np.round(x / 2)
    if fill == "constant":
        return np.full(shape, np.round(x.flat[0] if x.size else 0))
    if fill == "ascending":
        return np.arange(x.size, dtype=float).reshape(shape) / 8
    if fill == "peaked":
        return np.where(some < 2 / max(2, x.shape[-1] if x.ndim else 1), 40.0, x)
    if fill == "wide":
        return x * 30
    if fill == "tiny":
        smallest = {"e": 6e-8, "f": 1e-45, "d": 5e-324}.get(dtype.char, 1e-40)
        return np.round(x) * smallest
    if fill == "probabilities":
        return np.abs(x) / max(1.0, np.abs(x).sum())
    marks = {
        "nan": [np.nan],
        "inf": [np.inf],
        "-inf": [-np.inf],
        "huge": [top, -top, 0.0],
        "zeros": [0.0, -0.0],
        "specials": [np.nan, np.inf, -np.inf, top, -top, 0.0, -0.0, 1.0],
    }.get(fill)
    if marks:
        chosen = np.array(marks)[rng.integers(len(marks), size=shape)]
        return np.where(some < (0.3, 0.9, 0.05, 1.1)[seed % 4], chosen, x)
    return x


def _strides(shape, size, layout):
    """Return strides in bytes, and where the first element is."""
    order = range(len(shape)) if layout in ("F", "transposed") else reversed(range(len(shape)))
    strides = [0] * len(shape)
    step = size * (3 if layout == "spaced" else 1)
    for d in order:
        strides[d] = step
        step *= max(1, shape[d])
    if layout == "transposed" and len(shape) > 2:
        strides[0], strides[1] = strides[1], strides[0]
        if shape[0] != shape[1]:
            strides[0], strides[1] = strides[1], strides[0]
    if layout == "repeated rows" and shape:
        strides[0] = 0
    if layout == "repeated" and shape:
        strides[-1] = 0
    offset = 0
    if layout == "reversed":
        offset = sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n > 1)
        strides = [-s for s in strides]
    return tuple(strides), offset + (1 if layout == "misaligned" else 0)


def array(shape, dtype="f4", fill="normal", seed=0, layout="C"):
    """Return an array whose memory lies in the middle of a padded buffer, its `base`."""
    dtype = dtype_of(dtype)
    if layout == "swapped":
        dtype = dtype.newbyteorder()
    if math.prod(shape) > 1 << 24:  # the same element everywhere
        return np.broadcast_to(np.zeros(1, dtype), shape)
    numbers = _values(shape, dtype, fill, seed)
    with np.errstate(all="ignore"):
        if dtype.kind in "fV" and dtype.names is None and dtype != np.dtype("V5"):
            numbers = numbers.astype(dtype)
        elif dtype.kind in "iub":
            info = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            edges = np.isinf(numbers) | (np.abs(numbers) > 1e30)
            whole = np.clip(np.nan_to_num(numbers, posinf=9, neginf=-9), -100, 100)
            whole = np.clip(np.round(whole), *(max(-100, info[0]), min(100, info[1])))
            numbers = np.where(edges, info[seed % 2], whole.astype(dtype)).astype(dtype)
        elif dtype.kind == "O":
            return numbers.astype(object)
        else:
            numbers = np.zeros(shape, dtype)
    view = _placed(shape, dtype, layout)
    view[...] = numbers
    if fill == "signaling" and dtype.kind in "fV":
        _signal(view)
    if layout == "read-only":
        view.flags.writeable = False
    return view.view(Subclass) if layout == "subclass" else view


def _signal(x):
    """Make every third element a NaN that signals an invalid operation when it is converted."""
    bits = {2: 0x7D00 if x.dtype.kind == "f" else 0x7FA0, 4: 0x7FA0_0000, 8: 0x7FF4 << 48}
    word = np.array(bits[x.dtype.itemsize], f"u{x.dtype.itemsize}")
    swapped = not x.dtype.isnative
    x.view(word.dtype.newbyteorder() if swapped else word.dtype).flat[::3] = word


def _placed(shape, dtype, layout):
    strides, offset = _strides(shape, dtype.itemsize, layout)
    size = dtype.itemsize + sum(max(0, n - 1) * abs(s) for n, s in zip(shape, strides, strict=True))
    buffer = np.zeros(size + 2 * PADDING, np.uint8)
    start = -buffer.ctypes.data % 64 + PADDING // 2
    return np.ndarray(shape, dtype, buffer, start + offset, strides)


def root(x):
    """Return the array that owns the memory of `x`."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def over(x, shift=0, dtype=None, shape=None, layout="C"):
    """Return an array in the memory of `x`: its own, or `shift` bytes from there."""
    base = root(x)
    dtype = x.dtype if dtype is None else dtype_of(dtype)
    shape = x.shape if shape is None else shape
    if shift == 0 and dtype == x.dtype and shape == x.shape and layout == "C":
        return x.view(np.ndarray)
    if base.dtype != np.uint8:
        return np.zeros(shape, dtype)
    strides, offset = _strides(shape, dtype.itemsize, layout)
    start = x.ctypes.data - base.ctypes.data + offset + shift
    low = start + sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True) if n)
    high = start + sum(max(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True) if n)
    if low < 0 or high + dtype.itemsize > base.size:
        return np.zeros(shape, dtype)
    return np.ndarray(shape, dtype, base, start, strides)


# ---- objects that break promises -----------------------------------------------------------------

_METHODS = ("__array__", "__index__", "__int__", "__float__", "__bool__", "__len__", "__iter__")


class _Object:
    def __init__(self, shown):
        self.shown = shown

    def __repr__(self):
        return self.shown


def broken(*methods):
    """Return an object whose `methods` raise."""

    def fails(self, *args, **kwargs):
        raise Mine(methods[0])

    return type("Broken", (_Object,), dict.fromkeys(methods, fails))(f"broken{methods}")


def lies(method, answer):
    """Return an object whose `method` returns what it must not."""
    members = {method: lambda self, *args, **kwargs: answer}
    return type("Lies", (_Object,), members)(f"lies({method!r}, ...)")


def spoils(value, how, *arrays):
    """Return an object that stands for `value`, and does something to arrays when asked for it."""

    def act(self):
        for x in arrays:
            if isinstance(x, np.ndarray):
                _spoil(x, how)
        return value

    members = {
        "__array__": lambda self, dtype=None, copy=None: np.asarray(act(self)),
        "__index__": lambda self: int(act(self)),
        "__float__": lambda self: float(act(self)),
    }
    if np.ndim(value) == 0 and isinstance(value, int):
        members = {"__index__": members["__index__"]}
    return type("Spoils", (_Object,), members)(f"spoils({value!r}, {how!r})")


def _spoil(x, how):
    try:
        if how == "values":
            x[...] = np.nan if x.dtype.kind in "fV" else -(1 << 7)
        elif how == "shape":
            x.shape = (x.size,) if x.ndim != 1 else (1, 1, x.size)
        elif how == "dtype":
            x.dtype = "f8" if x.dtype.itemsize == 4 else "i2"
        elif how == "read-only":
            x.flags.writeable = False
        elif how == "size":
            x.resize((1,))
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError):
        pass  # NumPy does not let it


# ---- steps of users ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, repr=False)
class Bad(Step):
    """A step that returns something wrong, or raises."""

    how: str

    def __call__(self, left):
        ids, scores = left.ids, left.scores

        def new(ids, scores):
            return type(left)(ids, scores, left.history, left.eps, left._uniforms)

        answers = {
            "raise": lambda: _raise(),
            "none": lambda: None,
            "array": lambda: scores,
            "same": lambda: left,
            "empty": lambda: left.keep([]),
            "nan": lambda: new(ids, scores * np.nan),
            "some nan": lambda: new(ids, np.where(ids % 2 == 0, np.nan, scores)),
            "-inf": lambda: new(ids, scores - np.inf),
            "inf": lambda: new(ids, scores + np.inf),
            "short": lambda: new(ids, scores[:0]),
            "text": lambda: new(ids, np.array(["a"] * ids.size)),
            "float32": lambda: new(ids, scores.astype(np.float32)),
            "list": lambda: new(ids, scores.tolist()),
            "unsorted": lambda: new(ids[::-1].copy(), scores[::-1].copy()),
            "twice": lambda: new(np.repeat(ids, 2), np.repeat(scores, 2)),
            "foreign": lambda: new(ids + 10**12, scores),
            "negative": lambda: new(ids - 10**12, scores),
            "float ids": lambda: new(ids + 0.5, scores),
            "two axes": lambda: new(ids[:, None], scores[:, None]),
            "fewer ids": lambda: new(ids[:0], scores),
            "uniforms": lambda: [left.uniform() for _ in range(100)] and left,
            "written": lambda: scores.fill(np.nan) or left,
        }
        return answers[self.how]()


def _raise():
    raise Mine("step")


NAMES = {
    "np": np,
    "nan": np.nan,
    "inf": np.inf,
    "Decimal": Decimal,
    "Fraction": Fraction,
    "array": array,
    "over": over,
    "broken": broken,
    "lies": lies,
    "spoils": spoils,
    "steps": steps,
    "Bad": Bad,
}
