# cython: language_level=3
"""The C functions that an instruction set's kernels offer to ``_front``: a few rows, C types.

They travel in a capsule, because a module of an instruction set may only be imported by name once
the CPU is known to run it, never cimported.
"""

from libc.stdint cimport int64_t

ctypedef void (*map32)(const float *x, float *y, Py_ssize_t n, double temperature) noexcept nogil
ctypedef void (*map64)(const double *x, double *y, Py_ssize_t n, double temperature) noexcept nogil

cdef struct RowFunctions:
    map32 softmax32
    map64 softmax64
    map32 log_softmax32
    map64 log_softmax64
    float (*logsumexp32)(const float *x, Py_ssize_t n) noexcept nogil
    double (*logsumexp64)(const double *x, Py_ssize_t n) noexcept nogil


# Below: a few contiguous rows of n elements; False if there is no memory for the work.

ctypedef bint (*top32)(
    const float *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort,
    float *values, int64_t *indices,
) noexcept nogil
ctypedef bint (*top64)(
    const double *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort,
    double *values, int64_t *indices,
) noexcept nogil

cdef struct SelectFunctions:
    top32 top_k32
    top64 top_k64

cdef struct Filters:
    double temperature
    Py_ssize_t top_k  # 0 for all
    double top_p  # 1 for all
    double log_min_p  # -inf for all
    Py_ssize_t min_keep

ctypedef bint (*drawing32)(
    const float *x, Py_ssize_t rows, Py_ssize_t n, const double *u, const Filters *f, int64_t *ids
) noexcept nogil
ctypedef bint (*drawing64)(
    const double *x, Py_ssize_t rows, Py_ssize_t n, const double *u, const Filters *f, int64_t *ids
) noexcept nogil

cdef struct SampleFunctions:
    drawing32 draw32
    drawing64 draw64
