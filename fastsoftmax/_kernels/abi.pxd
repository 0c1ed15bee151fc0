# cython: language_level=3
"""The C functions that an instruction set's kernels offer to ``_front``: contiguous rows, C types.

They travel in a capsule, because a module of an instruction set may only be imported by name once
the CPU is known to run it, never cimported.
"""

from libc.stdint cimport int64_t

cdef enum Op:
    SOFTMAX
    LOG_SOFTMAX
    LOGSUMEXP


cdef inline bint temperature_in_range(double temperature) noexcept nogil:
    """Tell whether exponentials can be made at this temperature: at others, of substitutes."""
    return 1e-30 <= temperature <= 1e30


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

cdef struct SoftmaxKernels:
    rows_fn32 rows32
    rows_fn64 rows64
    columns_fn32 columns32
    columns_fn64 columns64


# Below, but for ranks: False if there is no memory for the work.

ctypedef bint (*top_k_fn32)(
    const float *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort,
    float *values, int64_t *indices,
) noexcept nogil
ctypedef bint (*top_k_fn64)(
    const double *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort,
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

cdef struct SelectKernels:
    top_k_fn32 top_k32
    top_k_fn64 top_k64
    rank_fn32 rank32
    rank_fn64 rank64

cdef struct Filters:
    double temperature
    Py_ssize_t top_k  # 0 for all
    double top_p  # 1 for all
    double log_min_p  # -inf for all
    Py_ssize_t min_keep

cdef struct LogprobOutput:
    # Of the ids drawn, the former two of the logits' type.
    void *logprobs
    void *filtered
    int64_t *ranks

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

cdef struct SampleKernels:
    draw_fn draw
    logprobs_fn logprobs
