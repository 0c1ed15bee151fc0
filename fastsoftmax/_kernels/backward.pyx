# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The gradients of softmax and log_softmax. Built once per instruction set.

Formula
    softmax: (g - sum(g p)) p / T,     log_softmax: (g - exp(log_p) sum(g)) / T

Passes over memory
    Sum (read), result (read, write).

Precision policy
    The sum in float64 for float32 rows, where the products are exact, in a pair of float64 for
    float64 rows (``row.pxd`` says in which order).

Source
    C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), equation 4.106, the Jacobian.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy

from fastsoftmax._front.strided cimport FLOAT32
from fastsoftmax._kernels.abi cimport LOG_SOFTMAX, BackwardCall, BackwardKernels
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    STEP,
    DoubleDouble,
    LaneSums,
    fold_lanes,
    round_to_step,
    to_double,
    zero,
)
from fastsoftmax._kernels.types cimport fma64, real

cdef enum:
    SIGNAL_INTERVAL = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds


# ---- loops over elements, each a function of its own for the vectoriser --------------------------


cdef void accumulate_products_block(LaneSums *lanes, const real *a, const real *b, Py_ssize_t n) noexcept nogil:
    """Add a * b to the lanes, n whole steps of it; as `add_to`, but four at a time in float64."""
    cdef double high[8]
    cdef double low[8]
    cdef double quad[8]
    cdef double total[8]
    cdef double part[8]
    cdef Py_ssize_t j, l
    for l in range(8):
        high[l] = lanes.high[l]
        low[l] = lanes.low[l]
    for j from 0 <= j < n by STEP:
        for l in range(8):
            quad[l] = (
                <double>a[j + l] * <double>b[j + l]
                + <double>a[j + 8 + l] * <double>b[j + 8 + l]
            ) + (
                <double>a[j + 16 + l] * <double>b[j + 16 + l]
                + <double>a[j + 24 + l] * <double>b[j + 24 + l]
            )
        if real is float:
            for l in range(8):
                high[l] += quad[l]
        else:
            for l in range(8):
                total[l] = high[l] + quad[l]
            for l in range(8):
                part[l] = total[l] - high[l]
            for l in range(8):
                low[l] += (high[l] - (total[l] - part[l])) + (quad[l] - part[l])
            for l in range(8):
                high[l] = total[l]
    for l in range(8):
        lanes.high[l] = high[l]
        lanes.low[l] = low[l]


cdef void softmax_vjp(
    const real *g, const real *p, real *y, Py_ssize_t n, real mean, real inverse
) noexcept nogil:
    """y = (g - mean) * (p * inverse)"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = (g[j] - mean) * (p[j] * inverse)


cdef void exp_loop_of_logs(const real *log_p, real *y, Py_ssize_t n, real low) noexcept nogil:
    """y = exp(log_p); 1 where log_p is above 0"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = exp_nonpositive(<real>0 if log_p[j] > <real>0 else log_p[j], low)


cdef void log_softmax_vjp(
    const real *g, const real *p, real *y, Py_ssize_t n, double total, double inverse
) noexcept nogil:
    """y = (g - p * total) * inverse"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = <real>(fma64(-<double>p[j], total, <double>g[j]) * inverse)


# ---- rows ----------------------------------------------------------------------------------------

ctypedef void (*adder32)(
    LaneSums *lanes, const float *a, const float *b, Py_ssize_t n
) noexcept nogil
ctypedef void (*adder64)(
    LaneSums *lanes, const double *a, const double *b, Py_ssize_t n
) noexcept nogil

# By pointer, which keeps gcc from inlining them: inlined, sums of float64 stay scalar.
cdef adder32 add_products32 = accumulate_products_block[float]
cdef adder64 add_products64 = accumulate_products_block[double]


cdef inline void accumulate_products(
    LaneSums *lanes, const real *a, const real *b, Py_ssize_t n
) noexcept nogil:
    """Add a * b to the lanes, n whole steps of it."""
    if real is float:
        add_products32(lanes, a, b, n)
    else:
        add_products64(lanes, a, b, n)


cdef DoubleDouble dot(const real *a, const real *b, Py_ssize_t n) noexcept nogil:
    """Return sum a * b; b NULL is 1."""
    cdef Py_ssize_t start, m, w, j
    cdef DoubleDouble s
    cdef LaneSums lanes
    cdef real ones[BLOCK]
    cdef real tail_a[STEP]
    cdef real tail_b[STEP]
    cdef const real *other = ones
    s.high = s.low = 0
    if b == NULL:
        for j in range(min(BLOCK, n)):
            ones[j] = 1
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = round_to_step(m)
        if b != NULL:
            other = b + start
        zero(&lanes)
        accumulate_products(&lanes, a + start, other, w)
        if w < m:
            for j in range(STEP):
                tail_a[j] = tail_b[j] = 0
            memcpy(tail_a, a + start + w, (m - w) * sizeof(real))
            memcpy(tail_b, other + w, (m - w) * sizeof(real))
            accumulate_products(&lanes, <const real *>tail_a, <const real *>tail_b, STEP)
        fold_lanes(&s, &lanes, <real>0)
    return s


cdef void softmax_backward_row(
    const real *g, const real *p, real *y, Py_ssize_t n, double inverse
) noexcept nogil:
    """y = (g - sum(g * p)) * p * inverse; y may be g or p."""
    cdef Py_ssize_t start, m
    cdef real copy_g[BLOCK]
    cdef real copy_p[BLOCK]
    cdef const real *from_g
    cdef const real *from_p
    cdef real most = <real>(3.4028234663852886e+38 if real is float else 1.7976931348623157e+308)
    cdef real mean = <real>to_double(dot(g, p, n))
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        from_g = g + start
        from_p = p + start
        if y == g:  # the loop must know that it does not read what it writes
            memcpy(copy_g, from_g, m * sizeof(real))
            from_g = copy_g
        if y == p:
            memcpy(copy_p, from_p, m * sizeof(real))
            from_p = copy_p
        softmax_vjp(from_g, from_p, y + start, m, mean, <real>min(inverse, <double>most))


cdef void log_softmax_backward_row(
    const real *g, const real *log_p, real *y, Py_ssize_t n, double inverse
) noexcept nogil:
    """y = (g - exp(log_p) * sum(g)) * inverse; y may be g or log_p."""
    cdef Py_ssize_t start, m
    cdef real p[BLOCK]
    cdef real result[BLOCK]
    cdef double total = to_double(dot(g, <const real *>NULL, n))
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        exp_loop_of_logs(log_p + start, p, m, exp_underflow_bound(<real>0))
        log_softmax_vjp(g + start, p, result, m, total, inverse)
        memcpy(y + start, result, m * sizeof(real))


# ---- what _front sees ----------------------------------------------------------------------------


def backward_rows(
    const real[:, ::1] g,
    const real[:, ::1] p,
    real[:, ::1] y,
    const double[::1] temperature,
    bint log,
):
    """Write the gradient of softmax, or of log_softmax if `log`, of each row into `y`.

    `p` is what that function gave. `y` may be `g` or `p`. `temperature` has one element, or one for
    each row.
    """
    cdef Py_ssize_t n = p.shape[1]
    cdef Py_ssize_t rows = p.shape[0]
    cdef Py_ssize_t temperature_stride = temperature.shape[0] > 1
    cdef Py_ssize_t i, stop, start = 0
    cdef double t, inverse
    if n == 0:
        return
    while start < rows:
        stop = min(rows, start + max(1, SIGNAL_INTERVAL // n))
        with nogil:
            for i in range(start, stop):
                t = temperature[i * temperature_stride]
                # At T = 0 softmax is constant, almost everywhere.
                inverse = min(1 / t, <double>1.7976931348623157e+308) if t != 0 else 0.0
                if log:
                    log_softmax_backward_row(&g[i, 0], &p[i, 0], &y[i, 0], n, inverse)
                else:
                    softmax_backward_row(&g[i, 0], &p[i, 0], &y[i, 0], n, inverse)
        PyErr_CheckSignals()
        start = stop


# ---- the table of this instruction set -----------------------------------------------------------


cdef void backward_loop(
    BackwardCall *call, const double *temperature, Py_ssize_t rows, const real *g,
    const real *p, real *y,
) noexcept nogil:
    """Write the gradient of each row into y, which may be g or p."""
    cdef Py_ssize_t i, n = call.n
    cdef double t, inverse
    for i in range(rows):
        t = temperature[i * call.temperature_stride]
        # At T = 0 softmax is constant, almost everywhere.
        inverse = min(1 / t, <double>1.7976931348623157e+308) if t != 0 else 0.0
        if call.op == LOG_SOFTMAX:
            log_softmax_backward_row(g + i * n, p + i * n, y + i * n, n, inverse)
        else:
            softmax_backward_row(g + i * n, p + i * n, y + i * n, n, inverse)


cdef int backward_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write gradients of rows; a `rows_fn`. x is the result's gradient, x2 the result."""
    cdef BackwardCall *call = <BackwardCall *>_call
    cdef const double *t = call.temperature + first * call.temperature_stride
    if call.dtype == FLOAT32:
        backward_loop(call, t, rows, <const float *>x, <const float *>x2, <float *>y)
    else:
        backward_loop(call, t, rows, <const double *>x, <const double *>x2, <double *>y)
    return 0


cdef BackwardKernels table
table.backward = backward_entry

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.BackwardKernels", NULL)
