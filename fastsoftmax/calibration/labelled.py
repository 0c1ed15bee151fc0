"""Rows of logits with a label each: checked, and walked by blocks of float64 that stay in cache."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._arguments.arrays import as_array
from .._arguments.results import why_invalid
from .._arguments.values import id_array, shown

#: Elements of a block: where it has fewer, NumPy's calls cost more than what a larger one misses.
BLOCK = 1 << 17


def rows_of(logits: Any, least_classes: int = 1) -> np.ndarray:
    """Return `logits` as an array of at least one axis, with `least_classes` or more a row.

    Raises
    ------
    TypeError
        If they have a dtype without probabilities, or are a masked array.
    ValueError
        If there are fewer classes.
    """
    x = as_array(logits, "logits")
    if x.ndim == 0 or x.shape[-1] < least_classes:
        raise ValueError(
            f"logits has shape {x.shape}; allowed is (..., classes) with {least_classes} classes "
            "or more (scores of a binary classifier: np.stack([np.zeros_like(s), s], axis=-1))"
        )
    return x


def labels_of(labels: Any, x: np.ndarray) -> np.ndarray:
    """Return `labels` as one int64 for each row of `x`, in row order.

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If there is not one for each row, or no row.
    IndexError
        If one is not from 0 to the number of classes - 1.
    """
    array = id_array(labels, "labels")
    if array.shape != x.shape[:-1]:
        raise ValueError(f"labels has shape {array.shape}; allowed is {x.shape[:-1]}, one a row")
    if array.size == 0:
        raise ValueError(f"logits has shape {x.shape}; allowed are shapes with at least one row")
    bad = (array < 0) | (array >= x.shape[-1])
    if bad.any():
        at = place(int(bad.argmax()), x)
        raise IndexError(
            f"labels[{at}] is {shown(array[bad][0])}; allowed is 0 to {x.shape[-1] - 1}"
        )
    return array.astype(np.int64).reshape(-1)


def place(row: int, x: np.ndarray) -> str:
    """Return the indices of a row of `x`, counted in C order, as an error shows them."""
    return ", ".join(str(i) for i in np.unravel_index(row, x.shape[:-1])) or "()"


def invalid(x: np.ndarray) -> ValueError:
    """Return the error that names the first row of `x` that has no probabilities."""
    top = x.max(axis=-1).astype(np.float64)
    row = int(np.isfinite(top).argmin())
    return ValueError(
        f"logits has {why_invalid(x.reshape(-1, x.shape[-1])[row])} in row {place(row, x)}; "
        "allowed are rows of finite numbers and -inf, one of them finite"
    )


def slices(rows: np.ndarray, elements: int) -> Iterator[slice]:
    """Yield parts of `rows` that have about so many `elements`, one row at least."""
    size = max(1, elements // rows.shape[1])
    for start in range(0, len(rows), size):
        yield slice(start, min(start + size, len(rows)))
