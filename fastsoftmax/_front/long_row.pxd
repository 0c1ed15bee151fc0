# cython: language_level=3
"""What `long_row.pyx` gives to the other modules of the front."""

from fastsoftmax._kernels.abi cimport SoftmaxCall, SoftmaxKernels

cdef bint run_long_row(
    const SoftmaxKernels *kernels, const SoftmaxCall *call, const void *x, void *y, double work,
    Py_ssize_t threads,
) except -1
