# cython: language_level=3
"""What `long_row.pyx` gives to the other modules of the front."""

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport PackingKernels, SoftmaxCall, SoftmaxKernels


cdef bint run_by_pieces(
    const PackingKernels *packing, const SoftmaxKernels *kernels, SoftmaxCall *call, Plan *p,
    double work, object workers,
) except -1
cdef bint run_long_rows(
    const PackingKernels *packing, const SoftmaxKernels *kernels, const SoftmaxCall *call,
    Plan *p, double work, Py_ssize_t threads,
) except -1
