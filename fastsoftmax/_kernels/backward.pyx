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

from cpython.pycapsule cimport PyCapsule_New

from fastsoftmax._kernels.abi cimport FLOAT32, LOG_SOFTMAX, BackwardCall, BackwardKernels
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.short_backward cimport (
    backward_of_short_rows,
    finite_factor,
    inverse_of,
    max_short_length,
)
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


# ---- sums ----------------------------------------------------------------------------------------


cdef void accumulate_products_block(
    LaneSums *lanes, const real *a, const real *b, Py_ssize_t n, Py_ssize_t b_step
) noexcept nogil:
    """Add a * b to the lanes, n elements in whole steps; b advances by `b_step` a step.

    As `accumulate_block`, but products and sums of four neighbouring eighths are of float64, too.
    """
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
                <double>a[j + l] * <double>b[l]
                + <double>a[j + 8 + l] * <double>b[8 + l]
            ) + (
                <double>a[j + 16 + l] * <double>b[16 + l]
                + <double>a[j + 24 + l] * <double>b[24 + l]
            )
        b += b_step
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


ctypedef void (*adder32)(
    LaneSums *lanes, const float *a, const float *b, Py_ssize_t n, Py_ssize_t b_step
) noexcept nogil
ctypedef void (*adder64)(
    LaneSums *lanes, const double *a, const double *b, Py_ssize_t n, Py_ssize_t b_step
) noexcept nogil

# By pointer, which keeps gcc from inlining them: inlined, sums of float64 stay scalar.
cdef adder32 add_products32 = accumulate_products_block[float]
cdef adder64 add_products64 = accumulate_products_block[double]


cdef inline void accumulate_products(
    LaneSums *lanes, const real *a, const real *b, Py_ssize_t n, Py_ssize_t b_step
) noexcept nogil:
    """Add a * b to the lanes, n elements in whole steps; b advances by `b_step` a step."""
    if real is float:
        add_products32(lanes, a, b, n, b_step)
    else:
        add_products64(lanes, a, b, n, b_step)


cdef inline void pad_with_zeros(const real *x, real *step, Py_ssize_t n) noexcept nogil:
    """Copy n < STEP elements of x and fill up with 0."""
    cdef Py_ssize_t j
    for j in range(STEP):  # masked loads; a memcpy of so few bytes is slow
        step[j] = x[j] if j < n else <real>0


cdef inline double dot(const real *a, const real *b, Py_ssize_t n) noexcept nogil:
    """Return sum a * b; b NULL is 1."""
    cdef Py_ssize_t start, m, w, j
    cdef DoubleDouble s
    cdef LaneSums lanes
    cdef real ones[STEP]
    cdef real last_a[STEP]
    cdef real last_b[STEP]
    s.high = s.low = 0
    for j in range(STEP):
        ones[j] = last_b[j] = 1
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = round_to_step(m)
        zero(&lanes)
        if b != NULL:
            accumulate_products(&lanes, a + start, b + start, w, STEP)
        else:
            accumulate_products(&lanes, a + start, <const real *>ones, w, 0)
        if w < m:
            pad_with_zeros(a + start + w, last_a, m - w)
            if b != NULL:
                pad_with_zeros(b + start + w, last_b, m - w)
            accumulate_products(&lanes, <const real *>last_a, <const real *>last_b, STEP, STEP)
        fold_lanes(&s, &lanes, <real>0)
    return to_double(s)


# ---- one step of a row: all of it is read before any is written, so y may be an input ------------


cdef inline void softmax_vjp(
    const real *g, const real *p, real *y, real mean, real inverse
) noexcept nogil:
    """y = (g - mean) * (p * inverse)"""
    cdef real result[STEP]
    cdef Py_ssize_t j
    for j in range(STEP):
        result[j] = (g[j] - mean) * (p[j] * inverse)
    for j in range(STEP):
        y[j] = result[j]


cdef inline void log_softmax_vjp(
    const real *g, const real *log_p, real *y, double total, double inverse, real low
) noexcept nogil:
    """y = (g - exp(log_p) * total) * inverse; exp is 1 where log_p is above 0."""
    cdef real p[STEP]
    cdef real result[STEP]
    cdef Py_ssize_t j
    for j in range(STEP):
        p[j] = exp_nonpositive(<real>0 if log_p[j] > <real>0 else log_p[j], low)
    for j in range(STEP):
        result[j] = <real>(fma64(-<double>p[j], total, <double>g[j]) * inverse)
    for j in range(STEP):
        y[j] = result[j]


# ---- rows ----------------------------------------------------------------------------------------


cdef inline void softmax_backward_row(
    const real *g, const real *p, real *y, Py_ssize_t n, double inverse
) noexcept nogil:
    """y = (g - sum(g * p)) * p * inverse; y may be g or p."""
    cdef real last_g[STEP]
    cdef real last_p[STEP]
    cdef real factor = finite_factor(inverse, <real>0)
    cdef real mean = <real>dot(g, p, n)
    cdef Py_ssize_t j, w = round_to_step(n)
    for j from 0 <= j < w by STEP:
        softmax_vjp(g + j, p + j, y + j, mean, factor)
    if w < n:
        pad_with_zeros(g + w, last_g, n - w)
        pad_with_zeros(p + w, last_p, n - w)
        softmax_vjp(<const real *>last_g, <const real *>last_p, last_g, mean, factor)
        for j in range(n - w):
            y[w + j] = last_g[j]


cdef inline void log_softmax_backward_row(
    const real *g, const real *log_p, real *y, Py_ssize_t n, double inverse
) noexcept nogil:
    """y = (g - exp(log_p) * sum(g)) * inverse; y may be g or log_p."""
    cdef real last_g[STEP]
    cdef real last_p[STEP]
    cdef real low = exp_underflow_bound(<real>0)
    cdef double total = dot(g, <const real *>NULL, n)
    cdef Py_ssize_t j, w = round_to_step(n)
    for j from 0 <= j < w by STEP:
        log_softmax_vjp(g + j, log_p + j, y + j, total, inverse, low)
    if w < n:
        pad_with_zeros(g + w, last_g, n - w)
        pad_with_zeros(log_p + w, last_p, n - w)
        log_softmax_vjp(
            <const real *>last_g, <const real *>last_p, last_g, total, inverse, low
        )
        for j in range(n - w):
            y[w + j] = last_g[j]


# ---- all rows ------------------------------------------------------------------------------------


cdef void backward(
    const BackwardCall *call, const double *temperature, Py_ssize_t rows, const real *g,
    const real *p, real *y,
) noexcept nogil:
    """Write the gradient of each row into y, which may be g or p."""
    cdef Py_ssize_t i, n = call.n
    cdef double inverse
    if n <= max_short_length(<real>0) and rows > 1:
        backward_of_short_rows(call, temperature, rows, g, p, y)
        return
    for i in range(rows):
        inverse = inverse_of(temperature[i * call.temperature_stride])
        if call.op == LOG_SOFTMAX:
            log_softmax_backward_row(g + i * n, p + i * n, y + i * n, n, inverse)
        else:
            softmax_backward_row(g + i * n, p + i * n, y + i * n, n, inverse)


# ---- the table of this instruction set -----------------------------------------------------------


cdef int backward_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write gradients of rows; a `rows_fn`. x is the result's gradient, x2 the result."""
    cdef const BackwardCall *call = <const BackwardCall *>_call
    cdef const double *t = call.temperature + first * call.temperature_stride
    if call.dtype == FLOAT32:
        backward(call, t, rows, <const float *>x, <const float *>x2, <float *>y)
    else:
        backward(call, t, rows, <const double *>x, <const double *>x2, <double *>y)
    return 0


cdef BackwardKernels table
table.backward = backward_entry

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.BackwardKernels", NULL)
