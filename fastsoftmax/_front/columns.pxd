# cython: language_level=3
"""What `columns.pyx` gives to the other modules of the front."""

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport PackingKernels, SoftmaxCall, columns_bytes_fn, columns_fn

cdef bint is_by_columns(const Plan *p) noexcept
cdef Py_ssize_t columns_of_arrays(const Plan *p) noexcept
cdef int run_columns(
    const PackingKernels *packing, columns_fn kernel, columns_bytes_fn bytes_fn, SoftmaxCall *call,
    Plan *p, double work, object workers,
) except -1
