"""softmax and log_softmax of rows of bytes: a weight for each of the 256 codes, in float64."""

from typing import Any

import numpy as np


def quantized() -> Any:
    """Return the kernel of ``fastsoftmax.quantized``."""
    return softmax


@np.errstate(all="ignore")
def softmax(
    q: np.ndarray, y: np.ndarray, scales: np.ndarray, n: int, is_signed: bool, log: bool
) -> None:
    """Write the softmax of each row of bytes into `y`, or its logarithm; as the compiled kernel.

    `scales` is a scale and a temperature, for all rows or for each.
    """
    below = np.arange(256) - 255.0  # how far a code is below its row's largest
    steps = np.divide(*scales.reshape(-1, 2).T)
    weights = np.exp(steps[:, np.newaxis] * below)
    for i, codes in enumerate(q.reshape(-1, n).astype(np.int64)):
        table, step = (a[i % len(steps)] for a in (weights, steps))
        moved = codes - codes.max() + 255
        counts = np.bincount(moved, minlength=256)
        counts[255] -= 1
        rest = counts @ table
        row = below * step - np.log1p(rest) if log else table / (1 + rest)
        y.reshape(-1, n)[i] = row[moved]
