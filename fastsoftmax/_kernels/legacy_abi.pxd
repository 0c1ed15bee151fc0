# cython: language_level=3
"""The tables of the front that is being replaced."""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.abi cimport Filters, LogprobOutput, Op

# `temperature_stride` is 1 if there is a temperature for each row, else 0; y has one element a row for LOGSUMEXP.
ctypedef void (*rows_fn32)(
    const float *x, float *y, Py_ssize_t rows, Py_ssize_t n,
    const double *temperature, Py_ssize_t temperature_stride, Op op,
) noexcept nogil
ctypedef void (*rows_fn64)(
    const double *x, double *y, Py_ssize_t rows, Py_ssize_t n,
    const double *temperature, Py_ssize_t temperature_stride, Op op,
) noexcept nogil

# For columns `start` to `stop` of (outer, n, inner), along the middle axis.
ctypedef int (*columns_fn32)(
    const float *x, float *y, Py_ssize_t n, Py_ssize_t inner,
    const double *temperature, Py_ssize_t temperature_stride, Op op, Py_ssize_t start, Py_ssize_t stop,
) except -1 nogil
ctypedef int (*columns_fn64)(
    const double *x, double *y, Py_ssize_t n, Py_ssize_t inner,
    const double *temperature, Py_ssize_t temperature_stride, Op op, Py_ssize_t start, Py_ssize_t stop,
) except -1 nogil

cdef struct OldSoftmaxKernels:
    rows_fn32 rows32
    rows_fn64 rows64
    columns_fn32 columns32
    columns_fn64 columns64


# Below, but for ranks: False if there is no memory for the work.

ctypedef bint (*top_k_fn32)(
    const float *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort, bint largest,
    float *values, int64_t *indices,
) noexcept nogil
ctypedef bint (*top_k_fn64)(
    const double *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort, bint largest,
    double *values, int64_t *indices,
) noexcept nogil

# ids and ranks have m elements a row.
ctypedef void (*rank_fn32)(
    const float *x, Py_ssize_t rows, Py_ssize_t n,
    const int64_t *ids, Py_ssize_t m, int64_t *ranks,
) noexcept nogil
ctypedef void (*rank_fn64)(
    const double *x, Py_ssize_t rows, Py_ssize_t n,
    const int64_t *ids, Py_ssize_t m, int64_t *ranks,
) noexcept nogil

cdef struct OldSelectKernels:
    top_k_fn32 top_k32
    top_k_fn64 top_k64
    rank_fn32 rank32
    rank_fn64 rank64

# x is of float64 if `is_float64`, else of float32. u, ids and what is reported, unless that is NULL, have
# m elements a row; `temperature_stride` is 1 if there are filters, or a temperature, for each row, else 0.
ctypedef bint (*draw_fn)(
    const void *x, bint is_float64, Py_ssize_t rows, Py_ssize_t n,
    const double *u, Py_ssize_t m, bint replace, const Filters *f, Py_ssize_t temperature_stride,
    int64_t *ids, const LogprobOutput *report,
) noexcept nogil
ctypedef bint (*logprobs_fn)(
    const void *x, bint is_float64, Py_ssize_t rows, Py_ssize_t n,
    const double *temperature, Py_ssize_t temperature_stride, const int64_t *ids, Py_ssize_t m, void *y,
) noexcept nogil

cdef struct OldSampleKernels:
    draw_fn draw
    logprobs_fn logprobs
