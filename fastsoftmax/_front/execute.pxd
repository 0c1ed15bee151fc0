# cython: language_level=3
"""What runs a plan: rows by blocks, without the GIL, over threads, open to signals."""

from fastsoftmax._front.plan cimport Operand, Plan
from fastsoftmax._kernels.abi cimport PackingKernels, rows_fn


cdef object parse_workers(object workers)
cdef Py_ssize_t threads_for(double work, object workers) except -1
cdef char *row_pointer(const Plan *p, const Operand *o, Py_ssize_t row) noexcept nogil
cdef int run_blocks(
    const PackingKernels *packing, rows_fn kernel, void *call, const Plan *p, Py_ssize_t start,
    Py_ssize_t stop,
) noexcept nogil
cdef int run_range(
    const PackingKernels *packing, rows_fn kernel, void *call, const Plan *p, Py_ssize_t start,
    Py_ssize_t stop,
) except -1
cdef int allocate_reserves(Plan *p, Py_ssize_t threads) except -1
cdef void free_reserves(Plan *p) noexcept nogil
cdef int run_rows(
    const PackingKernels *packing, rows_fn kernel, void *call, Plan *p, double work, object workers,
) except -1
