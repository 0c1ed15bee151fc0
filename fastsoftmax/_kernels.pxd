# cython: language_level=3
"""The C functions that an instruction set's kernels offer to ``_front``: contiguous rows, C types.

They travel in a capsule, because a module of an instruction set may only be imported by name once
the CPU is known to run it, never cimported.
"""

from libc.stdint cimport int64_t

cdef enum Kind:
    SOFTMAX
    LOG_SOFTMAX
    LOGSUMEXP


cdef inline bint tame(double temperature) noexcept nogil:
    """Tell whether exponentials can be made at this temperature: at others, of substitutes."""
    return 1e-30 <= temperature <= 1e30


# `each` is 1 if there is a temperature for each row, else 0; y has one element a row for LOGSUMEXP.
ctypedef void (*answer32)(
    const float *x, float *y, Py_ssize_t rows, Py_ssize_t n,
    const double *temperature, Py_ssize_t each, Kind kind,
) noexcept nogil
ctypedef void (*answer64)(
    const double *x, double *y, Py_ssize_t rows, Py_ssize_t n,
    const double *temperature, Py_ssize_t each, Kind kind,
) noexcept nogil

# For columns `start` to `stop` of (outer, n, inner), along the middle axis.
ctypedef int (*across32)(
    const float *x, float *y, Py_ssize_t n, Py_ssize_t inner,
    const double *temperature, Py_ssize_t each, Kind kind, Py_ssize_t start, Py_ssize_t stop,
) except -1 nogil
ctypedef int (*across64)(
    const double *x, double *y, Py_ssize_t n, Py_ssize_t inner,
    const double *temperature, Py_ssize_t each, Kind kind, Py_ssize_t start, Py_ssize_t stop,
) except -1 nogil

cdef struct RowFunctions:
    answer32 rows32
    answer64 rows64
    across32 columns32
    across64 columns64


# Below, but for ranks: False if there is no memory for the work.

ctypedef bint (*top32)(
    const float *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort,
    float *values, int64_t *indices,
) noexcept nogil
ctypedef bint (*top64)(
    const double *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort,
    double *values, int64_t *indices,
) noexcept nogil

# ids and ranks have m elements a row.
ctypedef void (*ranking32)(
    const float *x, Py_ssize_t rows, Py_ssize_t n,
    const int64_t *ids, Py_ssize_t m, int64_t *ranks,
) noexcept nogil
ctypedef void (*ranking64)(
    const double *x, Py_ssize_t rows, Py_ssize_t n,
    const int64_t *ids, Py_ssize_t m, int64_t *ranks,
) noexcept nogil

cdef struct SelectFunctions:
    top32 top_k32
    top64 top_k64
    ranking32 rank32
    ranking64 rank64

cdef struct Filters:
    double temperature
    Py_ssize_t top_k  # 0 for all
    double top_p  # 1 for all
    double log_min_p  # -inf for all
    Py_ssize_t min_keep

cdef struct Report:
    # Of the ids drawn, the former two of the logits' type.
    void *logprobs
    void *filtered
    int64_t *ranks

# x is of float64 if `wide`, else of float32. u, ids and what is reported, unless that is NULL, have
# m elements a row; `each` is 1 if there are filters, or a temperature, for each row, else 0.
ctypedef bint (*drawing)(
    const void *x, bint wide, Py_ssize_t rows, Py_ssize_t n,
    const double *u, Py_ssize_t m, bint replace, const Filters *f, Py_ssize_t each,
    int64_t *ids, const Report *report,
) noexcept nogil
ctypedef bint (*telling)(
    const void *x, bint wide, Py_ssize_t rows, Py_ssize_t n,
    const double *temperature, Py_ssize_t each, const int64_t *ids, Py_ssize_t m, void *y,
) noexcept nogil

cdef struct SampleFunctions:
    drawing draw
    telling logprobs
