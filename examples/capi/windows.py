"""A soft maximum of the neighbourhood of each pixel: SciPy calls fastsoftmax, not Python."""

import numpy as np
from scipy import LowLevelCallable, ndimage

from fastsoftmax import capi

logsumexp = LowLevelCallable.from_cython(capi, "logsumexp_of_window")


def soft_maximum(image, size, temperature):
    """Return T log(mean(exp(x / T))) of the `size` by `size` pixels around each pixel.

    It goes from their mean to their maximum as T goes to 0, and can be differentiated.
    """
    sums = ndimage.generic_filter(image / temperature, logsumexp, size, output=np.float64)
    return temperature * (sums - np.log(size * size))
