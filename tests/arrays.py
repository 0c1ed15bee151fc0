"""Arrays of every layout and dtype."""

import numpy as np
import pytest


class Subclass(np.ndarray):
    """An array of another class."""


def bfloat16():
    """Return ml_dtypes' bfloat16 as a dtype; skip where it is missing."""
    return np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 is ml_dtypes'").bfloat16)


def dtype_of(name):
    """Return the dtype called `name`, which may be "bfloat16"."""
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def spaced(x):
    """Return `x` as a view with gaps along every axis."""
    view = np.full([2 * n for n in x.shape], 7, x.dtype)[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


def misaligned(x):
    """Return `x` one byte off its alignment."""
    view = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned or x.dtype.alignment == 1
    return view


def byte_swapped(x):
    """Return `x` in the other byte order."""
    return x.astype(x.dtype.newbyteorder())


def read_only(x):
    """Return a copy of `x` that cannot be written."""
    x = x.copy()
    x.flags.writeable = False
    return x


#: Functions that return an array of the same numbers in another layout.
LAYOUTS = {
    "fortran": np.asfortranarray,
    "reversed": lambda x: np.flip(np.flip(x).copy()),
    "spaced": spaced,
    "spaced and reversed": lambda x: np.flip(spaced(np.flip(x))),
    "swapped axes": lambda x: x.swapaxes(0, -1).copy().swapaxes(0, -1),
    "misaligned": misaligned,
    "byte-swapped": byte_swapped,
    "misaligned and byte-swapped": lambda x: misaligned(byte_swapped(x)),
    "read-only": read_only,
    "subclass": lambda x: x.view(Subclass),
}
