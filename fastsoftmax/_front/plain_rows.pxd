# cython: language_level=3, cdivision=True
"""Rows as they stand, from C: checks what the C interface is called with and runs the kernel.

Each function returns a status of ``include/fastsoftmax.h``. Numbers are checked, too, in the
floating-point environment of kernels. Nothing here needs the GIL.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, intptr_t, uint64_t

from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.signals cimport look_for_signals
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    LOGSUMEXP,
    CrossEntropyCall,
    DType,
    Filters,
    LossKernels,
    Op,
    SampleCall,
    SamplingKernels,
    SelectionKernels,
    SoftmaxCall,
    SoftmaxKernels,
    TopKCall,
)
from fastsoftmax._kernels.reserve cimport Reserve, allocate_reserve, free_reserve

cdef extern from "fastsoftmax.h":
    enum:
        FASTSOFTMAX_OK
        FASTSOFTMAX_NO_MEMORY
        FASTSOFTMAX_ARGUMENT

cdef enum:
    MAY_LOOK = 1 << 21  # elements of a row from which on selection and draws look for signals

cdef struct UnaryLoop:  # of a ufunc, for float64
    void (*function)(
        char **args, const intptr_t *n, const intptr_t *steps, void *data
    ) noexcept nogil
    void *data


cdef inline double apply(const UnaryLoop *loop, double x) noexcept nogil:
    """Return what the ufunc gives for a number."""
    cdef double y
    cdef char *args[2]
    cdef intptr_t one = 1
    cdef intptr_t steps[2]
    args[0], args[1] = <char *>&x, <char *>&y
    steps[0] = steps[1] = sizeof(double)
    loop.function(args, &one, steps, loop.data)
    return y


cdef inline int run_softmax(
    const SoftmaxKernels *kernels, const void *x, void *y, intptr_t rows, intptr_t n,
    double temperature, DType dtype, Op op,
) noexcept nogil:
    """Run the kernel of softmax, log_softmax or logsumexp on checked rows."""
    cdef SoftmaxCall call
    cdef uint64_t environment = enter_environment()
    cdef intptr_t i
    cdef int status = FASTSOFTMAX_OK
    if rows < 0 or n < 0 or not temperature >= 0:
        status = FASTSOFTMAX_ARGUMENT
    elif rows > 0 and (y == NULL and (n > 0 or op == LOGSUMEXP) or x == NULL and n > 0):
        status = FASTSOFTMAX_ARGUMENT
    elif n == 0 and op == LOGSUMEXP:
        for i in range(rows):
            if dtype == FLOAT32:
                (<float *>y)[i] = -INFINITY
            else:
                (<double *>y)[i] = -INFINITY
    elif n > 0 and rows > 0:
        call.dtype = dtype
        call.op = op
        call.n = n
        call.temperature = &temperature
        call.temperature_stride = 0
        call.workspace = NULL
        status = kernels.softmax_rows(&call, 0, rows, x, NULL, y)
    leave_environment(environment)
    return status


cdef inline int run_top_k(
    const SelectionKernels *kernels, const void *x, void *values, int64_t *indices, intptr_t rows,
    intptr_t n, intptr_t k, int largest, int in_order, DType dtype,
) noexcept nogil:
    """Run the kernel of top_k on checked rows."""
    cdef TopKCall call
    cdef uint64_t environment
    cdef int status
    if rows < 0 or not 0 <= k <= n:
        return FASTSOFTMAX_ARGUMENT
    if rows == 0 or k == 0:
        return FASTSOFTMAX_OK
    if x == NULL or values == NULL or indices == NULL:
        return FASTSOFTMAX_ARGUMENT
    if n >= MAY_LOOK and look_for_signals(False) < 0:
        return FASTSOFTMAX_NO_MEMORY
    call.dtype = dtype
    call.n = n
    call.k = k
    call.largest = largest != 0
    call.sorted = in_order != 0
    call.values = values
    call.indices = indices
    environment = enter_environment()
    status = kernels.top_k(&call, 0, rows, x, NULL, NULL)
    leave_environment(environment)
    if n >= MAY_LOOK:
        look_for_signals(True)
    return status


cdef inline bint are_uniforms(const double *u, intptr_t count) noexcept nogil:
    """Return whether all numbers are in [0, 1)."""
    cdef bint good = True
    cdef intptr_t i
    for i in range(count):
        good &= 0 <= u[i] < 1
    return good


cdef inline int run_sample(
    const SamplingKernels *kernels, const UnaryLoop *log, const void *logits,
    const double *uniforms, int64_t *ids, intptr_t rows, intptr_t n, double temperature,
    intptr_t top_k, double top_p, double min_p, DType dtype,
) noexcept nogil:
    """Run the kernel of sample on checked rows."""
    cdef SampleCall call
    cdef Filters filters
    cdef uint64_t environment
    cdef intptr_t i
    cdef int status = FASTSOFTMAX_ARGUMENT
    if rows < 0 or n < 0 or top_k < 0 or rows > 0 and (uniforms == NULL or ids == NULL):
        return FASTSOFTMAX_ARGUMENT
    if rows > 0 and n > 0 and logits == NULL:
        return FASTSOFTMAX_ARGUMENT
    if n >= MAY_LOOK and look_for_signals(False) < 0:
        return FASTSOFTMAX_NO_MEMORY
    environment = enter_environment()
    if (
        temperature >= 0 and 0 <= top_p <= 1 and 0 <= min_p <= 1
        and are_uniforms(uniforms, rows)
    ):
        status = FASTSOFTMAX_OK
        filters.temperature = temperature
        filters.top_k = top_k
        filters.top_p = top_p
        filters.log_min_p = -INFINITY if min_p == 0 else apply(log, min_p)
        filters.min_keep = 1
        call.dtype = dtype
        call.n = n
        call.packed = NULL
        call.filters = &filters
        call.filter_stride = 0
        call.m = 1
        call.uniforms = uniforms
        call.replace = True
        call.race = NULL
        call.ids = ids
        call.has_output = False
        if n > 0 and rows > 0:
            status = kernels.sample(&call, 0, rows, logits, NULL, NULL)
        else:
            for i in range(rows):
                ids[i] = -1
    leave_environment(environment)
    if n >= MAY_LOOK:
        look_for_signals(True)
    return status


cdef inline int run_cross_entropy(
    const LossKernels *kernels, const void *logits, const int64_t *targets, double *losses,
    void *grad, double *loss, intptr_t rows, intptr_t n, double temperature,
    double label_smoothing, int64_t ignore_index, int mean, DType dtype,
) noexcept nogil:
    """Run the kernel of cross entropy on checked rows, and add up the losses."""
    cdef CrossEntropyCall call
    cdef Reserve workspace
    cdef double total = 0
    cdef uint64_t environment
    cdef int status = FASTSOFTMAX_ARGUMENT
    if rows < 0 or n < 0 or rows > 0 and (targets == NULL or losses == NULL):
        return FASTSOFTMAX_ARGUMENT
    if rows > 0 and n > 0 and logits == NULL:
        return FASTSOFTMAX_ARGUMENT
    environment = enter_environment()
    if temperature >= 0 and 0 <= label_smoothing <= 1 and (
        kernels.weigh_targets(targets, rows, n, ignore_index, NULL, &total) < 0
    ):
        call.dtype = dtype
        call.n = n
        call.temperature = temperature
        call.targets = targets
        call.weight = NULL
        call.smoothing = label_smoothing
        call.ignore_index = ignore_index
        call.factor = 1
        if mean:
            call.factor = 1 / total if total != 0 else INFINITY
        call.losses = losses
        call.inner = 0
        call.packed = NULL
        workspace.bytes = kernels.cross_entropy_bytes(&call)
        call.workspace = &workspace
        status = FASTSOFTMAX_NO_MEMORY
        if allocate_reserve(&workspace, 1):
            status = FASTSOFTMAX_OK
            if rows > 0:
                status = kernels.cross_entropy(&call, 0, rows, logits, NULL, grad)
            if loss != NULL:
                loss[0] = kernels.sum_losses(losses, rows)
                if mean:
                    loss[0] /= total
            free_reserve(&workspace)
    leave_environment(environment)
    return status
