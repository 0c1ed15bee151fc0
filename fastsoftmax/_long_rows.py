"""One long row over several threads, with the bits that one gives it.

In phases, each shared out by blocks: the maximum; the exponentials and the lanes of each block's
sum; then, by one thread and in order, the sum over the blocks; the quotients or differences.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._workers import share


class LongRows:
    """Rows of one element type.

    Parameters
    ----------
    kernel : module
        An instruction set's ``_softmax``.
    kind : {"float", "double"}
    """

    def __init__(self, kernel: Any, kind: str) -> None:
        self._block: int = kernel.row_block
        self._highest = kernel.highest_part[kind]
        self._exponentials = kernel.exponentials_part[kind]
        self._add = kernel.add_parts[kind]
        self._scale = kernel.scale_part[kind]
        self._subtract = kernel.subtract_part[kind]

    def softmax(
        self, x: NDArray[Any], y: NDArray[Any], temperature: float, work: float, threads: int
    ) -> bool:
        """Write softmax of a row; tell if its maximum is finite, and nothing is done if not."""
        found = self._sum(x, y, temperature, work, threads)
        if found:
            _, total, _ = found
            self._share(lambda part: self._scale(y[part], *total), len(x), work / 4, threads)
        return found is not None

    def log_softmax(
        self, x: NDArray[Any], y: NDArray[Any], temperature: float, work: float, threads: int
    ) -> bool:
        """Write log_softmax of a row; tell the same."""
        found = self._sum(x, None, temperature, work, threads)
        if found:
            highest, total, _ = found

            def subtract(part: slice) -> None:
                self._subtract(x[part], y[part], highest, temperature, *total)

            self._share(subtract, len(x), work / 4, threads)
        return found is not None

    def logsumexp(self, x: NDArray[Any], y: NDArray[Any], work: float, threads: int) -> bool:
        """Write logsumexp of a row into ``y[0]``; tell the same."""
        found = self._sum(x, None, 1.0, work, threads)
        if found:
            y[0] = found[2]
        return found is not None

    def _share(self, call: Any, n: int, work: float, threads: int) -> None:
        """Call ``call(slice)`` for parts of n elements that begin at a block."""
        b = self._block
        share(lambda i, j: call(slice(i * b, j * b)), -(-n // b), work, threads)

    def _sum(
        self, x: NDArray[Any], y: NDArray[Any] | None, temperature: float, work: float, threads: int
    ) -> tuple[float, tuple[float, float], float] | None:
        """Return the maximum, the sum of exponentials as a pair, and the maximum plus log1p of it.

        The exponentials go into y. Without y, the largest entry's own is left out of the sum. None
        if the maximum is not finite.
        """
        maxima = {}

        def maximum(part: slice) -> None:
            maxima[part.start] = self._highest(x[part])

        self._share(maximum, len(x), work / 4, threads)
        highest, block = -np.inf, -1
        for start, (high, at) in sorted(maxima.items()):
            if high > highest:
                highest, block = high, start + at
        if not np.isfinite(highest):
            return None
        lanes = np.empty((-(-len(x) // self._block), 16))

        def exponentials(part: slice) -> None:
            own = -1 if y is not None else block - part.start
            mine = slice(part.start // self._block, part.stop // self._block)
            z = None if y is None else y[part]
            self._exponentials(x[part], z, highest, temperature, own, lanes[mine])

        self._share(exponentials, len(x), work / 2, threads)
        high, low, log = self._add(x[:1], lanes, highest)
        return highest, (high, low), log
