# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The C interface: the functions of ``include/fastsoftmax.h``, for Cython and in a capsule.

They run the kernels that were chosen at import (``_front/plain_rows.pxd``). Importing this module
raises an ImportError where nothing compiled is in use.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, intptr_t, uint64_t

from numpy import log as _log

from ._dispatch import active as _active
from ._dispatch import kernels as _kernels

from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.plain_rows cimport (
    UnaryLoop,
    run_cross_entropy,
    run_sample,
    run_softmax,
    run_top_k,
)
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    FLOAT64,
    LOGSUMEXP,
    LOG_SOFTMAX,
    SOFTMAX,
    LossKernels,
    SamplingKernels,
    SelectionKernels,
    SoftmaxKernels,
)
from fastsoftmax._kernels.philox cimport philox_rows

cdef extern from "fastsoftmax.h":
    enum:
        FASTSOFTMAX_API_VERSION
    const char *FASTSOFTMAX_CAPSULE
    ctypedef struct fastsoftmax_api:
        int64_t version
        const char *implementation
        void *softmax_float32
        void *softmax_float64
        void *log_softmax_float32
        void *log_softmax_float64
        void *logsumexp_float32
        void *logsumexp_float64
        void *top_k_float32
        void *top_k_float64
        void *sample_float32
        void *sample_float64
        void *uniform
        void *cross_entropy_float32
        void *cross_entropy_float64

cdef extern from "numpy/ndarraytypes.h":
    enum:
        NPY_DOUBLE

cdef extern from "numpy/ufuncobject.h":
    ctypedef struct PyUFuncObject:
        int ntypes
        const char *types
        void (**functions)(
            char **args, const intptr_t *n, const intptr_t *steps, void *data
        ) noexcept nogil
        void **data

cdef SoftmaxKernels softmax_kernels
cdef SelectionKernels selection_kernels
cdef SamplingKernels sampling_kernels
cdef LossKernels loss_kernels
cdef UnaryLoop log  # NumPy's, which may be another one than libm's


# ---- softmax -------------------------------------------------------------------------------------


cdef int softmax_float32(
    const float *x, float *y, intptr_t rows, intptr_t n, double temperature,
) noexcept nogil:
    """Write softmax of rows."""
    return run_softmax(&softmax_kernels, x, y, rows, n, temperature, FLOAT32, SOFTMAX)


cdef int softmax_float64(
    const double *x, double *y, intptr_t rows, intptr_t n, double temperature,
) noexcept nogil:
    """Write softmax of rows."""
    return run_softmax(&softmax_kernels, x, y, rows, n, temperature, FLOAT64, SOFTMAX)


cdef int log_softmax_float32(
    const float *x, float *y, intptr_t rows, intptr_t n, double temperature,
) noexcept nogil:
    """Write log_softmax of rows."""
    return run_softmax(&softmax_kernels, x, y, rows, n, temperature, FLOAT32, LOG_SOFTMAX)


cdef int log_softmax_float64(
    const double *x, double *y, intptr_t rows, intptr_t n, double temperature,
) noexcept nogil:
    """Write log_softmax of rows."""
    return run_softmax(&softmax_kernels, x, y, rows, n, temperature, FLOAT64, LOG_SOFTMAX)


cdef int logsumexp_float32(
    const float *x, float *y, intptr_t rows, intptr_t n,
) noexcept nogil:
    """Write logsumexp of rows."""
    return run_softmax(&softmax_kernels, x, y, rows, n, 1, FLOAT32, LOGSUMEXP)


cdef int logsumexp_float64(
    const double *x, double *y, intptr_t rows, intptr_t n,
) noexcept nogil:
    """Write logsumexp of rows."""
    return run_softmax(&softmax_kernels, x, y, rows, n, 1, FLOAT64, LOGSUMEXP)


cdef int logsumexp_of_window(
    double *window, intptr_t size, double *result, void *unused,
) noexcept nogil:
    """Write logsumexp of the elements of a window; return whether it could."""
    return logsumexp_float64(window, result, 1, size) == OK


# ---- selection and draws -------------------------------------------------------------------------


cdef int top_k_float32(
    const float *x, float *values, int64_t *indices, intptr_t rows, intptr_t n, intptr_t k,
    int largest, int sorted,
) noexcept nogil:
    """Write the first k elements of rows, and their indices."""
    return run_top_k(
        &selection_kernels, x, values, indices, rows, n, k, largest, sorted, FLOAT32
    )


cdef int top_k_float64(
    const double *x, double *values, int64_t *indices, intptr_t rows, intptr_t n, intptr_t k,
    int largest, int sorted,
) noexcept nogil:
    """Write the first k elements of rows, and their indices."""
    return run_top_k(
        &selection_kernels, x, values, indices, rows, n, k, largest, sorted, FLOAT64
    )


cdef int sample_float32(
    const float *logits, const double *uniforms, int64_t *ids, intptr_t rows, intptr_t n,
    double temperature, intptr_t top_k, double top_p, double min_p,
) noexcept nogil:
    """Draw an id from each row."""
    return run_sample(
        &sampling_kernels, &log, logits, uniforms, ids, rows, n, temperature, top_k, top_p, min_p,
        FLOAT32,
    )


cdef int sample_float64(
    const double *logits, const double *uniforms, int64_t *ids, intptr_t rows, intptr_t n,
    double temperature, intptr_t top_k, double top_p, double min_p,
) noexcept nogil:
    """Draw an id from each row."""
    return run_sample(
        &sampling_kernels, &log, logits, uniforms, ids, rows, n, temperature, top_k, top_p, min_p,
        FLOAT64,
    )


cdef double uniform(uint64_t seed, uint64_t position) noexcept nogil:
    """Return the uniform of a seed and a position."""
    cdef double u
    cdef uint64_t environment = enter_environment()
    philox_rows(&seed, 0, &position, 0, 1, 1, False, &u)
    leave_environment(environment)
    return u


# ---- losses --------------------------------------------------------------------------------------


cdef int cross_entropy_float32(
    const float *logits, const int64_t *targets, double *losses, float *grad, double *loss,
    intptr_t rows, intptr_t n, double temperature, double label_smoothing, int64_t ignore_index,
    int mean,
) noexcept nogil:
    """Write cross entropy of rows, and its gradient."""
    return run_cross_entropy(
        &loss_kernels, logits, targets, losses, grad, loss, rows, n, temperature, label_smoothing,
        ignore_index, mean, FLOAT32,
    )


cdef int cross_entropy_float64(
    const double *logits, const int64_t *targets, double *losses, double *grad, double *loss,
    intptr_t rows, intptr_t n, double temperature, double label_smoothing, int64_t ignore_index,
    int mean,
) noexcept nogil:
    """Write cross entropy of rows, and its gradient."""
    return run_cross_entropy(
        &loss_kernels, logits, targets, losses, grad, loss, rows, n, temperature, label_smoothing,
        ignore_index, mean, FLOAT64,
    )


# ---- the tables of the chosen implementation, and the capsule ------------------------------------

copy_table(_kernels("softmax"), &softmax_kernels)
copy_table(_kernels("select"), &selection_kernels)
copy_table(_kernels("sample"), &sampling_kernels)
copy_table(_kernels("cross_entropy"), &loss_kernels)

# NumPy takes the first loop that fits.
cdef int _loop = 0
while not (
    (<PyUFuncObject *>_log).types[2 * _loop] == NPY_DOUBLE
    and (<PyUFuncObject *>_log).types[2 * _loop + 1] == NPY_DOUBLE
):
    _loop += 1
log.function = (<PyUFuncObject *>_log).functions[_loop]
log.data = (<PyUFuncObject *>_log).data[_loop]

cdef bytes _name = _active.NAME.encode()
cdef fastsoftmax_api api
api.version = FASTSOFTMAX_API_VERSION
api.implementation = _name
api.softmax_float32 = <void *>softmax_float32
api.softmax_float64 = <void *>softmax_float64
api.log_softmax_float32 = <void *>log_softmax_float32
api.log_softmax_float64 = <void *>log_softmax_float64
api.logsumexp_float32 = <void *>logsumexp_float32
api.logsumexp_float64 = <void *>logsumexp_float64
api.top_k_float32 = <void *>top_k_float32
api.top_k_float64 = <void *>top_k_float64
api.sample_float32 = <void *>sample_float32
api.sample_float64 = <void *>sample_float64
api.uniform = <void *>uniform
api.cross_entropy_float32 = <void *>cross_entropy_float32
api.cross_entropy_float64 = <void *>cross_entropy_float64

#: The functions for C, in a capsule.
_C_API = PyCapsule_New(&api, FASTSOFTMAX_CAPSULE, NULL)
