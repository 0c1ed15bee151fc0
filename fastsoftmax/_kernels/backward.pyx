# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The gradients of softmax and log_softmax. Built once per instruction set.

Formula
    softmax: (g - sum(g p)) p / T,     log_softmax: (g - exp(log_p) sum(g)) / T

Passes over memory
    Sum (read), result (read, write); of long rows that must be packed part by part. Results that no
    cache would keep go around them: without that their lines would be read, too.

Precision policy
    The sum in float64 for float32 rows, where the products are exact, in a pair of float64 for
    float64 rows (``sums.pxd`` says in which order).

Source
    C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), equation 4.106, the Jacobian.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    LOG_SOFTMAX,
    SOFTMAX,
    BackwardCall,
    BackwardKernels,
    Op,
)
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.packed_parts cimport (
    PackedParts,
    borrow_parts,
    first_part,
    part_again,
    part_of_x2,
    part_size,
    parts_bytes,
    place_of_result,
    return_parts,
    store_part,
)
from fastsoftmax._kernels.short_backward cimport (
    backward_of_short_rows,
    finite_factor,
    inverse_of,
    max_short_length,
)
from fastsoftmax._kernels.streams cimport HAS_STREAMS, stream, stream_fence
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    LANES,
    STEP,
    DoubleDouble,
    LaneSums,
    fold_lanes,
    round_to_step,
    sum_of_lanes,
    to_double,
    zero,
)
from fastsoftmax._kernels.types cimport fma64, loop_void, real


cdef enum:
    # Of some short rows the sums are made before the results: none waits for its sum. Of long ones
    # memory is what takes the time, and asks for one after the other.
    MANY_ROWS = 16
    MANY_ROWS_ELEMENTS = 1024


# ---- sums ----------------------------------------------------------------------------------------


cdef inline double product_sum(
    const real *a, const real *b, Py_ssize_t i, Py_ssize_t k
) noexcept nogil:
    """Return a[i] * b[i] + a[k] * b[k]; the products of float32 are exact."""
    if real is float:
        return fma64(<double>a[i], <double>b[i], <double>a[k] * <double>b[k])
    else:
        return a[i] * b[i] + a[k] * b[k]


cdef inline void pad_with_zeros(
    const real *x, real *step, Py_ssize_t n, int width
) noexcept nogil:
    """Copy n elements of x and fill up with 0 to `width`, LANES or STEP."""
    cdef int j, m = <int>n
    for j in range(LANES):  # masked loads; a memcpy of so few bytes is slow
        step[j] = x[j] if j < m else <real>0
    if width > LANES:
        for j in range(LANES, STEP):
            step[j] = x[j] if j < m else <real>0


cdef inline void add_to_lanes(LaneSums *lanes, const double *quad, real like) noexcept nogil:
    """Add 8 numbers to the lanes, exactly for float64."""
    cdef double total, part
    cdef Py_ssize_t l
    for l in range(LANES):
        total = lanes.high[l] + quad[l]
        if real is double:
            part = total - lanes.high[l]
            lanes.low[l] += (lanes.high[l] - (total - part)) + (quad[l] - part)
        lanes.high[l] = total


cdef double accumulate_products(
    LaneSums *lanes, const real *a, const real *b, Py_ssize_t n, Py_ssize_t b_step
) noexcept nogil:
    """Write the lanes of sum a * b over n elements, or if `lanes` is NULL, return their sum.

    b advances by `b_step` a step. As `accumulate`, but products and sums of four neighbouring
    eighths are of float64, too.
    """
    cdef double quad[8]
    cdef real last_a[STEP]
    cdef real last_b[STEP]
    cdef Py_ssize_t j, l, m = n & (STEP - 1)
    cdef int width = LANES if m <= LANES else STEP
    cdef LaneSums sums
    zero(&sums)
    for j from 0 <= j < n - m by STEP:
        for l in range(LANES):
            quad[l] = product_sum(a, b, l, 8 + l) + product_sum(a, b, 16 + l, 24 + l)
        add_to_lanes(&sums, quad, <real>0)
        a += STEP
        b += b_step
    if m:
        pad_with_zeros(a, last_a, m, width)
        if b_step:
            pad_with_zeros(b, last_b, m, width)
            b = last_b
        a = last_a
        if m > 2 * LANES:
            for l in range(LANES):
                quad[l] = product_sum(a, b, l, 8 + l) + product_sum(a, b, 16 + l, 24 + l)
        elif m > LANES:
            for l in range(LANES):
                quad[l] = product_sum(a, b, l, 8 + l)
        else:
            for l in range(LANES):
                quad[l] = <double>a[l] * <double>b[l]
        add_to_lanes(&sums, quad, <real>0)
    if lanes != NULL:
        lanes[0] = sums
        return 0
    return sum_of_lanes(sums.high)


ctypedef double (*adder32)(
    LaneSums *lanes, const float *a, const float *b, Py_ssize_t n, Py_ssize_t b_step
) noexcept nogil
ctypedef double (*adder64)(
    LaneSums *lanes, const double *a, const double *b, Py_ssize_t n, Py_ssize_t b_step
) noexcept nogil

# By pointer, which keeps gcc from inlining them: inlined, sums of float64 stay scalar.
cdef adder32 add_products32 = accumulate_products[float]
cdef adder64 add_products64 = accumulate_products[double]


cdef inline void add_dot(
    DoubleDouble *s, const real *a, const real *b, Py_ssize_t n
) noexcept nogil:
    """Add sum a * b of a row, or of a part of one that begins at a block; b NULL is 1."""
    cdef Py_ssize_t start, j
    cdef Py_ssize_t b_step = STEP if b != NULL else 0
    cdef LaneSums lanes
    cdef real ones[STEP]
    if b == NULL:
        for j in range(STEP):
            ones[j] = 1
        b = ones
    for start from 0 <= start < n by BLOCK:
        if real is float:
            add_products32(&lanes, a + start, b, min(BLOCK, n - start), b_step)
        else:
            add_products64(&lanes, a + start, b, min(BLOCK, n - start), b_step)
        fold_lanes(s, &lanes, <real>0)
        if b_step:
            b += BLOCK


cdef inline double dot(const real *a, const real *b, Py_ssize_t n) noexcept nogil:
    """Return sum a * b; b NULL is 1."""
    cdef Py_ssize_t j
    cdef Py_ssize_t b_step = STEP if b != NULL else 0
    cdef DoubleDouble s
    cdef real ones[STEP]
    if real is float and n <= BLOCK:
        if b == NULL:
            for j in range(STEP):
                ones[j] = 1
            b = ones
        return 0.0 + add_products32(NULL, a, b, n, b_step)  # what a pair would have
    s.high = s.low = 0
    add_dot(&s, a, b, n)
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


cdef inline loop_void log_softmax_vjp(
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


cdef inline void backward_row(
    Op op, const real *g, const real *p, real *y, Py_ssize_t n, double total, double inverse
) noexcept nogil:
    """Write the gradient of a row into y, which may be g or p, for its sum `total`."""
    cdef real last[STEP]
    cdef real last_g[STEP]
    cdef real mean = <real>total
    cdef real factor = finite_factor(inverse, <real>0)
    cdef real low = exp_underflow_bound(<real>0)
    cdef Py_ssize_t j, w = round_to_step(n)
    cdef Py_ssize_t end = max(n - STEP, <Py_ssize_t>0)
    cdef const real *g_end = g + end
    cdef const real *p_end = p + end
    if n < STEP:
        pad_with_zeros(g, last_g, n, STEP)
        pad_with_zeros(p, last, n, STEP)
        g_end = last_g
        p_end = last
    # The last step before any is overwritten: it may overlap the one before.
    if op == LOG_SOFTMAX:
        if w < n:
            log_softmax_vjp(g_end, p_end, last, total, inverse, low)
        for j from 0 <= j < w by STEP:
            log_softmax_vjp(g + j, p + j, y + j, total, inverse, low)
    else:
        if w < n:
            softmax_vjp(g_end, p_end, last, mean, factor)
        for j from 0 <= j < w by STEP:
            softmax_vjp(g + j, p + j, y + j, mean, factor)
    if n < STEP:
        for j in range(n):
            y[j] = last[j]
    elif w < n:
        memcpy(y + end, last, sizeof(last))


cdef inline void stream_row(
    const real *g, const real *p, real *y, Py_ssize_t n, double total, double inverse
) noexcept nogil:
    """Write softmax's gradient of a row into y, which overlaps neither input, by `stream`."""
    cdef real block[BLOCK]
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        backward_row(SOFTMAX, g + start, p + start, block, m, total, inverse)
        stream(<char *>(y + start), <const char *>block, m * <Py_ssize_t>sizeof(real))


# ---- all rows ------------------------------------------------------------------------------------


cdef void backward(
    const BackwardCall *call, const double *temperature, Py_ssize_t rows, const real *g,
    const real *p, real *y,
) noexcept nogil:
    """Write the gradient of each row into y, which may be g or p."""
    cdef Py_ssize_t i, start, stop, n = call.n
    cdef Py_ssize_t at_once = min(
        <Py_ssize_t>MANY_ROWS, max(<Py_ssize_t>1, MANY_ROWS_ELEMENTS // n)
    )
    cdef double inverse
    cdef double sums[MANY_ROWS]
    cdef bint streams = HAS_STREAMS and call.streams and y != g and y != p
    if n <= max_short_length(<real>0) and rows > 1:
        backward_of_short_rows(call, temperature, rows, g, p, y)
        return
    for start from 0 <= start < rows by at_once:
        stop = min(start + at_once, rows)
        for i in range(start, stop):
            sums[i - start] = dot(
                g + i * n, p + i * n if call.op != LOG_SOFTMAX else <const real *>NULL, n
            )
        for i in range(start, stop):
            inverse = inverse_of(temperature[i * call.temperature_stride])
            if call.op == LOG_SOFTMAX:
                backward_row(
                    LOG_SOFTMAX, g + i * n, p + i * n, y + i * n, n, sums[i - start], inverse
                )
            elif streams:
                stream_row(g + i * n, p + i * n, y + i * n, n, sums[i - start], inverse)
            else:
                backward_row(
                    SOFTMAX, g + i * n, p + i * n, y + i * n, n, sums[i - start], inverse
                )
    if streams:
        stream_fence()


cdef void backward_of_packed_row(
    const BackwardCall *call, const PackedParts *parts, real like
) noexcept nogil:
    """Store the gradient of a packed row."""
    cdef double inverse = inverse_of(call.temperature[parts.row * call.temperature_stride])
    cdef double total
    cdef Py_ssize_t start, m, n = call.n
    cdef const real *g
    cdef const real *p = NULL
    cdef real *y
    cdef DoubleDouble s
    s.high = s.low = 0
    for start from 0 <= start < n by BLOCK:
        m = part_size(start, n)
        g = <const real *>first_part(parts, start, m)
        if call.op != LOG_SOFTMAX:
            p = <const real *>part_of_x2(parts, start, m)
        add_dot(&s, g, p, m)
    total = to_double(s)
    for start from 0 <= start < n by BLOCK:
        m = part_size(start, n)
        g = <const real *>part_again(parts, start, m)
        p = <const real *>part_of_x2(parts, start, m)
        y = <real *>place_of_result(parts, start)
        if call.op == LOG_SOFTMAX:
            backward_row(LOG_SOFTMAX, g, p, y, m, total, inverse)
        else:
            backward_row(SOFTMAX, g, p, y, m, total, inverse)
        store_part(parts, start, m)


cdef void packed_backward(
    const BackwardCall *call, Py_ssize_t first, Py_ssize_t rows, real like
) noexcept nogil:
    """Store the gradients of packed rows."""
    cdef PackedParts parts
    cdef Py_ssize_t i
    borrow_parts(&parts, call.packed)
    for i in range(first, first + rows):
        parts.row = i
        backward_of_packed_row(call, &parts, like)
    return_parts(&parts)


# ---- the table of this instruction set -----------------------------------------------------------


cdef int backward_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write gradients of rows; a `rows_fn`. x is the result's gradient, x2 the result."""
    cdef const BackwardCall *call = <const BackwardCall *>_call
    cdef const double *t = call.temperature + first * call.temperature_stride
    if call.packed != NULL and call.dtype == FLOAT32:
        packed_backward(call, first, rows, <float>0)
    elif call.packed != NULL:
        packed_backward(call, first, rows, <double>0)
    elif call.dtype == FLOAT32:
        backward(call, t, rows, <const float *>x, <const float *>x2, <float *>y)
    else:
        backward(call, t, rows, <const double *>x, <const double *>x2, <double *>y)
    return 0


cdef BackwardKernels table
table.backward = backward_entry
table.packed_bytes = parts_bytes()

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.BackwardKernels", NULL)
