"""Where the C interface was not built: says so. What is built of ``capi.pyx`` is found before."""

from ._dispatch import kernels

kernels("softmax")  # raises where nothing compiled is in use
raise ImportError("fastsoftmax.capi was not built")
