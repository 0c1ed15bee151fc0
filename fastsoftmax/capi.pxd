# cython: language_level=3
"""The C interface for Cython: ``from fastsoftmax cimport capi``.

``include/fastsoftmax.h`` says what each function does; they are the same ones. Each returns OK,
NO_MEMORY or ARGUMENT: one was wrong, and nothing has been written.
"""

from libc.stdint cimport int64_t, intptr_t, uint64_t

cdef enum:
    OK = 0
    NO_MEMORY = -1
    ARGUMENT = -2

cdef int softmax_float32(
    const float *x, float *y, intptr_t rows, intptr_t n, double temperature,
) noexcept nogil
cdef int softmax_float64(
    const double *x, double *y, intptr_t rows, intptr_t n, double temperature,
) noexcept nogil
cdef int log_softmax_float32(
    const float *x, float *y, intptr_t rows, intptr_t n, double temperature,
) noexcept nogil
cdef int log_softmax_float64(
    const double *x, double *y, intptr_t rows, intptr_t n, double temperature,
) noexcept nogil
cdef int logsumexp_float32(
    const float *x, float *y, intptr_t rows, intptr_t n,
) noexcept nogil
cdef int logsumexp_float64(
    const double *x, double *y, intptr_t rows, intptr_t n,
) noexcept nogil
cdef int top_k_float32(
    const float *x, float *values, int64_t *indices, intptr_t rows, intptr_t n, intptr_t k,
    int largest, int sorted,
) noexcept nogil
cdef int top_k_float64(
    const double *x, double *values, int64_t *indices, intptr_t rows, intptr_t n, intptr_t k,
    int largest, int sorted,
) noexcept nogil
cdef int sample_float32(
    const float *logits, const double *uniforms, int64_t *ids, intptr_t rows, intptr_t n,
    double temperature, intptr_t top_k, double top_p, double min_p,
) noexcept nogil
cdef int sample_float64(
    const double *logits, const double *uniforms, int64_t *ids, intptr_t rows, intptr_t n,
    double temperature, intptr_t top_k, double top_p, double min_p,
) noexcept nogil
cdef double uniform(uint64_t seed, uint64_t position) noexcept nogil
cdef int cross_entropy_float32(
    const float *logits, const int64_t *targets, double *losses, float *grad, double *loss,
    intptr_t rows, intptr_t n, double temperature, double label_smoothing, int64_t ignore_index,
    int mean,
) noexcept nogil
cdef int cross_entropy_float64(
    const double *logits, const int64_t *targets, double *losses, double *grad, double *loss,
    intptr_t rows, intptr_t n, double temperature, double label_smoothing, int64_t ignore_index,
    int mean,
) noexcept nogil

# For `scipy.LowLevelCallable.from_cython(capi, "logsumexp_of_window")`, in
# `scipy.ndimage.generic_filter`: of a window's elements, in float64. It returns 1, as asked there.
cdef int logsumexp_of_window(
    double *window, intptr_t size, double *result, void *unused,
) noexcept nogil
