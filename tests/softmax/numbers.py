"""Numbers that are exact in every dtype."""

import numpy as np

SHAPE = (3, 4, 50)


def numbers(shape=SHAPE, dtype=np.float32):
    """Return numbers from -8 to 8 without a pattern, exact in every dtype with 8 bits."""
    n = int(np.prod(shape))
    return ((np.arange(n) * 97 % 127 - 63).astype(dtype) / 8).astype(dtype).reshape(shape)
