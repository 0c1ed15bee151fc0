# cython: language_level=3
"""What `filters.pyx` gives to the other modules of the front."""

cimport numpy as cnp

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport Filters, PackingKernels

cdef class FilterArgs:
    cdef Filters one
    cdef cnp.ndarray each  # of `values.FILTERS`, or None
    cdef const Filters *data(self) noexcept
    cdef Py_ssize_t stride(self) noexcept
    cdef double fewest(self) noexcept

cdef FilterArgs parse_filters(
    const Plan *p, const PackingKernels *packing, temperature, top_k, top_p, min_p, min_keep
)
