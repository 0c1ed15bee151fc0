"""A generator whose first numbers are known, for draws that are made again and go on."""

from math import prod
from typing import Any

import numpy as np


class Uniforms(np.random.Generator):
    """A generator whose first numbers are known: a row's, to be drawn again, and more behind."""

    def __init__(self, source: np.random.Generator, known: np.ndarray) -> None:
        super().__init__(source.bit_generator)
        self.source, self.known = source, known

    def random(self, size: Any, *_: Any) -> np.ndarray:  # type: ignore[override]
        """Return the first numbers, in the shape `size`."""
        total = prod(np.atleast_1d(size).tolist())
        if total > self.known.size:
            self.known = np.append(self.known, self.source.random(total - self.known.size))
        return self.known[:total].reshape(size)
