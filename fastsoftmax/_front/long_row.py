"""One long row over several threads, with the bits that one gives it.

In phases, each shared out by blocks: the maximum, if no guess will do; the lanes of each block's
sum of exponentials; then, by one thread and in order, the sum over the blocks; the quotients or
differences.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._threads import share


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
        self._largest_sum: float = kernel.largest_sum[kind]
        self._guess = kernel.pivot_of_part[kind]
        self._highest = kernel.part_max[kind]
        self._add = kernel.part_sums[kind]
        self._add_blocks = kernel.reduce_parts[kind]
        self._end = kernel.part_finish[kind]

    def map(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        temperature: float,
        log: bool,
        work: float,
        threads: int,
    ) -> bool:
        """Write softmax of a row, or log_softmax if `log`, into `y`, which may be `x`.

        Tell if its maximum is finite; if not, nothing is done.
        """
        found = self._sum(x, None if log else y, temperature, work, threads)
        if found:
            highest, total, _ = found

            def end(part: slice) -> None:
                self._end(x[part], y[part], highest, temperature, *total, log)

            self._share(end, len(x), work / 4, threads)
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
        self,
        x: NDArray[Any],
        y: NDArray[Any] | None,
        temperature: float,
        work: float,
        threads: int,
    ) -> tuple[float, tuple[float, float], float] | None:
        """Return the maximum, the sum of exponentials as a pair, and the maximum plus log1p of it.

        The exponentials go into `y`; without it the largest entry's own is left out of the sum.
        None if the maximum is not finite. For softmax a guess does for the maximum, mostly.
        """
        if y is not None and not np.may_share_memory(x, y):
            guess = self._guess(x, temperature)
            if guess == guess:
                found = self._add_all(x, y, guess, False, temperature, -1, work, threads)
                if found[1][0] <= self._largest_sum:
                    return found
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
        return self._add_all(x, y, highest, True, temperature, block, work, threads)

    def _add_all(
        self,
        x: NDArray[Any],
        y: NDArray[Any] | None,
        highest: float,
        sure: bool,
        temperature: float,
        block: int,
        work: float,
        threads: int,
    ) -> tuple[float, tuple[float, float], float]:
        """Return `highest`, the sum of exponentials, and `highest` plus log1p of it."""
        lanes = np.empty((-(-len(x) // self._block), 16))

        def add(part: slice) -> None:
            mine = slice(part.start // self._block, part.stop // self._block)
            end = None if y is None else y[part]
            self._add(x[part], end, highest, sure, temperature, block - part.start, lanes[mine])

        self._share(add, len(x), work / 2, threads)
        high, low, logarithm = self._add_blocks(x[:1], lanes, highest, temperature)
        return highest, (high, low), logarithm
