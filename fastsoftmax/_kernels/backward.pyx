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
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport FLOAT32, LOG_SOFTMAX, BackwardCall, BackwardKernels, Op
from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.maxima cimport MIN_BATCH_LENGTH
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    LANES,
    STEP,
    DoubleDouble,
    LaneSums,
    fold_lanes,
    round_to_step,
    to_double,
    two_sum,
    zero,
)
from fastsoftmax._kernels.transpose cimport (
    STRIP,
    pad_rows,
    padded_rows,
    transpose_in,
    transpose_out,
    whole_strips,
)
from fastsoftmax._kernels.types cimport fma64, noinline_void, out_ptr, out_ptr32, out_ptr64, real


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


cdef inline double inverse_of(double temperature) noexcept nogil:
    """Return 1 / T, held at the largest finite number; 0 at T = 0, where softmax is constant."""
    return min(1 / temperature, <double>1.7976931348623157e+308) if temperature != 0 else 0.0


cdef inline real finite_factor(double inverse, real like) noexcept nogil:
    """Return `inverse`, held at the largest finite number of the type."""
    return <real>min(inverse, 3.4028234663852886e+38 if real is float else inverse)


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


# ---- short rows, a structure of arrays: the lanes of a vector are rows ---------------------------


cdef inline double product(const real *a, const real *b, Py_ssize_t i) noexcept nogil:
    """Return a[i] * b[i]; b NULL is 1."""
    return <double>a[i] if b == NULL else <double>a[i] * <double>b[i]


cdef inline void soa_lane(
    const real *a, const real *b, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t l, out_ptr64 lane
) noexcept nogil:
    """Write what lane l of sum a * b of each row gets, for n <= STEP."""
    cdef Py_ssize_t r, i, k
    for r in range(whole_strips(rows)):
        lane[r] = 0
    for i from l <= i < n by 16:
        k = i + 8
        if k < n:
            for r in range(whole_strips(rows)):
                lane[r] += product(a, b, i * BATCH_ROWS + r) + product(a, b, k * BATCH_ROWS + r)
        else:
            for r in range(whole_strips(rows)):
                lane[r] += product(a, b, i * BATCH_ROWS + r)


cdef noinline_void soa_dot(
    const real *a, const real *b, Py_ssize_t rows, Py_ssize_t n, double *dots
) noexcept nogil:
    """Write sum a * b of each row, for n <= STEP; b NULL is 1."""
    cdef double lanes[LANES * BATCH_ROWS]
    cdef double low[BATCH_ROWS]
    cdef double *d = lanes
    cdef DoubleDouble s
    cdef Py_ssize_t r, l
    for l in range(LANES):
        if b == NULL:
            soa_lane(a, <const real *>NULL, rows, n, l, <out_ptr64>(d + l * BATCH_ROWS))
        else:
            soa_lane(a, b, rows, n, l, <out_ptr64>(d + l * BATCH_ROWS))
    if real is float:
        for r in range(whole_strips(rows)):
            dots[r] = (
                (d[r] + d[4 * BATCH_ROWS + r]) + (d[2 * BATCH_ROWS + r] + d[6 * BATCH_ROWS + r])
            ) + (
                (d[BATCH_ROWS + r] + d[5 * BATCH_ROWS + r])
                + (d[3 * BATCH_ROWS + r] + d[7 * BATCH_ROWS + r])
            )
    else:
        for r in range(whole_strips(rows)):
            dots[r] = low[r] = 0
        for l in range(min(n, LANES)):
            for r in range(whole_strips(rows)):
                s.high = dots[r]
                s.low = low[r]
                two_sum(&s, d[l * BATCH_ROWS + r])
                dots[r] = s.high
                low[r] = s.low
        for r in range(whole_strips(rows)):
            s.high = dots[r]
            s.low = low[r]
            dots[r] = to_double(s)


cdef inline void soa_softmax_vjp(
    out_ptr g, const real *p, Py_ssize_t rows, Py_ssize_t n, const real *mean, const real *factor
) noexcept nogil:
    """g = (g - mean) * (p * factor)"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            g[j * BATCH_ROWS + r] = (
                (g[j * BATCH_ROWS + r] - mean[r]) * (p[j * BATCH_ROWS + r] * factor[r])
            )


cdef inline void soa_log_softmax_vjp(
    out_ptr g, const real *log_p, Py_ssize_t rows, Py_ssize_t n, const double *total,
    const double *inverse, real low,
) noexcept nogil:
    """g = (g - exp(log_p) * total) * inverse; exp is 1 where log_p is above 0."""
    cdef Py_ssize_t r, j
    cdef real p
    for j in range(n):
        for r in range(whole_strips(rows)):
            p = log_p[j * BATCH_ROWS + r]
            p = exp_nonpositive(<real>0 if p > <real>0 else p, low)
            g[j * BATCH_ROWS + r] = <real>(
                fma64(-<double>p, total[r], <double>g[j * BATCH_ROWS + r]) * inverse[r]
            )


cdef noinline_void soa_vjp(
    Op op, real *g, const real *p, Py_ssize_t rows, Py_ssize_t n, const double *dots,
    const double *inverse,
) noexcept nogil:
    """g = the gradients"""
    cdef real mean[BATCH_ROWS]
    cdef real factor[BATCH_ROWS]
    cdef real low = exp_underflow_bound(<real>0)
    cdef Py_ssize_t r
    for r in range(whole_strips(rows)):
        mean[r] = <real>dots[r]
        factor[r] = finite_factor(inverse[r], <real>0)
    if op == LOG_SOFTMAX:
        if real is float:
            soa_log_softmax_vjp(<out_ptr32>g, p, rows, n, dots, inverse, low)
        else:
            soa_log_softmax_vjp(<out_ptr64>g, p, rows, n, dots, inverse, low)
    elif real is float:
        soa_softmax_vjp(<out_ptr32>g, p, rows, n, <const real *>mean, <const real *>factor)
    else:
        soa_softmax_vjp(<out_ptr64>g, p, rows, n, <const real *>mean, <const real *>factor)


cdef noinline_void soa_of_rows(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *whole, real *soa
) noexcept nogil:
    """soa[j] = element j of each row, and of repeated rows that fill a strip, made in `whole`"""
    if rows < padded_rows(rows):
        pad_rows(x, whole, rows, n)
        x = whole
    transpose_in(x, padded_rows(rows), n, soa)


cdef noinline_void rows_of_soa(
    const real *soa, Py_ssize_t rows, Py_ssize_t n, real *whole, real *y
) noexcept nogil:
    """Element j of each row of y = soa[j]"""
    if rows < padded_rows(rows):
        transpose_out(soa, whole, padded_rows(rows), n)
        memcpy(y, whole, rows * n * sizeof(real))
    else:
        transpose_out(soa, y, rows, n)


cdef inline Py_ssize_t max_short_length(real like) noexcept nogil:
    """Return how long rows of a batch may be."""
    return STEP if real is float else MIN_BATCH_LENGTH


cdef void backward_of_short_rows(
    const BackwardCall *call, const double *temperature, Py_ssize_t rows, const real *g,
    const real *p, real *y,
) noexcept nogil:
    """Write the gradient of each row of at most `max_short_length` elements, by batches."""
    cdef double _soa_g[BATCH_ROWS * MIN_BATCH_LENGTH]
    cdef double _soa_p[BATCH_ROWS * MIN_BATCH_LENGTH]
    cdef double _whole[STRIP * MIN_BATCH_LENGTH]
    cdef real *soa_g = <real *>_soa_g
    cdef real *soa_p = <real *>_soa_p
    cdef real *whole = <real *>_whole
    cdef double dots[BATCH_ROWS]
    cdef double inverse[BATCH_ROWS]
    cdef Py_ssize_t r, k, start = 0, n = call.n
    while start < rows:
        k = min(rows - start, BATCH_ROWS)
        if k > STRIP:
            k = whole_strips(k)
        for r in range(padded_rows(k)):
            inverse[r] = inverse_of(temperature[min(start + r, rows - 1) * call.temperature_stride])
        soa_of_rows(g + start * n, k, n, whole, soa_g)
        soa_of_rows(p + start * n, k, n, whole, soa_p)
        soa_dot(
            <const real *>soa_g, <const real *>(soa_p if call.op != LOG_SOFTMAX else NULL),
            padded_rows(k), n, dots,
        )
        soa_vjp(call.op, soa_g, <const real *>soa_p, padded_rows(k), n, dots, inverse)
        rows_of_soa(<const real *>soa_g, k, n, whole, y + start * n)
        start += k


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
