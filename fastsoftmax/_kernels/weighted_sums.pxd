# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sums of a row's exponentials with a second row: weights, or the logits of another distribution.

Exponentials and sums are float64, whatever the rows' type: they may cancel each other. Blocks of
float32 are widened first, so that all of this is compiled for one type.
"""

from libc.math cimport fabs
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport FLOAT32
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.maxima cimport RowMax, find_first, init_max, row_max
from fastsoftmax._kernels.row_sums cimport RowBlocks, block_of, is_finite
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport (
    infinity,
    noinline_void,
    not_a_number,
    out_ptr64,
    wide_void,
)
from fastsoftmax._kernels.weights cimport softmax_weights, sum_lanes

cdef struct Blocks64:  # a row, and a second one, whose blocks are had in float64
    RowBlocks blocks
    int dtype  # DType
    const void *x
    const void *x2


cdef inline wide_void widen(const float *x, double *y, Py_ssize_t n) noexcept nogil:
    """y = x, in float64"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = x[j]


cdef inline noinline_void load_block64(
    const Blocks64 *r, Py_ssize_t start, Py_ssize_t n, bint second, double *y
) noexcept nogil:
    """Write n elements, BLOCK at most, of a row from `start` on, or of the `second` one."""
    cdef float scratch[BLOCK]
    cdef const void *x = r.x2 if second else r.x
    cdef const double *block
    if r.dtype == FLOAT32:
        widen(block_of(<const float *>x, &r.blocks, start, n, second, scratch), y, n)
    else:
        block = block_of(<const double *>x, &r.blocks, start, n, second, y)
        if block != y:
            memcpy(y, block, n * sizeof(double))


cdef inline noinline_void update_max64(
    RowMax *top, const double *x, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """Update `top` with a block of a row, which begins at `start`."""
    cdef RowMax of_block = row_max(<const double *>x, n)
    if of_block.value > top.value:
        top.value = of_block.value
        top.block = start


cdef inline noinline_void log_of(double t, double *log) noexcept nogil:
    """Write log(t) for t >= 0 or NaN, within 2 u."""
    cdef double scaled = t * 2.0**100 if t < 1e-300 else t  # whose reciprocal is finite
    log[0] = -infinity(<double>0)
    if t == infinity(<double>0):
        log[0] = t
    elif t != 0:
        log[0] = -log1p_nonneg(1 / scaled - 1) if scaled < 1 else log1p_nonneg(scaled - 1)
        if scaled != t:
            log[0] -= 69.31471805599453


# ---- weighted sums -------------------------------------------------------------------------------


cdef inline wide_void multiply_weights(
    out_ptr64 x, const double *b, out_ptr64 e, Py_ssize_t n, double highest
) noexcept nogil:
    """Multiply e, the weights of x, by b: into x where that is `highest`, else into e.

    What is -inf, or has the weight 0, counts as 0.
    """
    cdef double lowest = -infinity(<double>0)
    cdef double product, v, w
    cdef Py_ssize_t j
    for j in range(n):
        v = x[j]
        w = b[j]
        product = e[j] * w
        product = 0 if v == lowest else product
        product = 0 if w == 0 else product
        x[j] = product if v == highest else 0
        e[j] = 0 if v == highest else product


cdef inline wide_void mask_weightless(const double *b, double *x, Py_ssize_t n) noexcept nogil:
    """Make x -inf where b is 0."""
    cdef double v
    cdef Py_ssize_t j
    for j in range(n):
        v = x[j]  # read in any case: a vector
        x[j] = -infinity(<double>0) if b[j] == 0 else v


cdef inline double sign_of(double x) noexcept nogil:
    """Return the sign of x: -1, 0, 1 or NaN."""
    return x if x != x else (x > 0) - <int>(x < 0)


cdef inline noinline_void log_of_weighted(
    double highest, double largest, double rest, double *log, double *sign
) noexcept nogil:
    """Write `highest` + log(abs(largest + rest)), and the sign of that sum.

    They are the sums of the weights of the largest entries, and of the others.
    """
    cdef double ratio = rest / largest
    sign[0] = sign_of(largest + rest)
    if -1 < ratio < 1e17 and is_finite(largest):  # nothing is lost where the ratio is small
        log_of(fabs(largest), log)
        log[0] += log1p_nonneg(ratio) if ratio >= 0 else -log1p_nonneg(-ratio / (1 + ratio))
    else:
        log_of(fabs(largest + rest), log)
    log[0] += highest


cdef inline double weighted_sum(const Blocks64 *r, double *sign) noexcept nogil:
    """Return log(abs(s)) of s = sum of x2 exp(x), and write the sign of s: -1, 0, 1 or NaN.

    It is max + log(abs(m)) + log1p(rest / m), m the sum of the weights of the largest x.
    """
    cdef double x[BLOCK]
    cdef double b[BLOCK]
    cdef double e[BLOCK]
    cdef double largest = 0, rest = 0, highest
    cdef double inf = infinity(<double>0)
    cdef RowMax top
    cdef Py_ssize_t start, m, j
    init_max(&top)
    for start from 0 <= start < r.blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, r.blocks.n - start)
        load_block64(r, start, m, False, x)
        load_block64(r, start, m, True, b)
        mask_weightless(b, x, m)
        update_max64(&top, x, start, m)
    highest = top.value
    for start from 0 <= start < r.blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, r.blocks.n - start)
        load_block64(r, start, m, False, x)
        load_block64(r, start, m, True, b)
        if is_finite(highest):
            softmax_weights(<const double *>x, e, m, highest, 1)
        else:  # what counts is +inf, NaN, or nothing
            for j in range(m):
                e[j] = 0 if -inf <= x[j] < inf else x[j]
        multiply_weights(<out_ptr64>x, b, <out_ptr64>e, m, highest)
        largest += sum_lanes(<const double *>x, m)
        rest += sum_lanes(<const double *>e, m)
    if not is_finite(highest):
        sign[0] = sign_of(largest + rest)
        return fabs(largest + rest) if largest + rest != 0 else -inf
    log_of_weighted(highest, largest, rest, &highest, sign)
    return highest


# ---- divergence ----------------------------------------------------------------------------------


cdef inline wide_void weigh_differences(
    const double *x, const double *y, out_ptr64 e, Py_ssize_t n, double highest,
    double highest_y, double inverse,
) noexcept nogil:
    """Multiply e by ((x - highest) - (y - highest_y)) inverse; 0 stays."""
    cdef double d, w
    cdef Py_ssize_t j
    for j in range(n):
        w = e[j]
        d = (x[j] - highest) * inverse - (y[j] - highest_y) * inverse
        d = infinity(<double>0) if y[j] == -infinity(<double>0) else d
        d = w * d
        e[j] = 0 if w == 0 else d


cdef inline bint any_nan(const double *x, Py_ssize_t n) noexcept nogil:
    """Return whether one of n numbers is NaN."""
    cdef Py_ssize_t j
    for j in range(n):
        if x[j] != x[j]:
            return True
    return False


cdef inline double divergence(const Blocks64 *r, double temperature) noexcept nogil:
    """Return the sum of p log(p / q), p = softmax(x / T), q = softmax(x2 / T).

    It is the mean of log-odds by p, less the difference of both log-sums.
    """
    cdef double x[BLOCK]
    cdef double y[BLOCK]
    cdef double e[BLOCK + 1]
    cdef double mean = 0, rest = 0, rest_y = 0, result
    cdef double inverse = inverse_temperature(temperature, <double>0) if temperature > 0 else 0
    cdef RowMax top, top_y
    cdef Py_ssize_t start, m, first = -1, first_y = -1
    init_max(&top)
    init_max(&top_y)
    for start from 0 <= start < r.blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, r.blocks.n - start)
        load_block64(r, start, m, False, x)
        load_block64(r, start, m, True, y)
        update_max64(&top, x, start, m)
        update_max64(&top_y, y, start, m)
        if inverse == 0 and (any_nan(x, m) or any_nan(y, m)):  # whose weight is 0 then
            return not_a_number(<double>0)
    if not is_finite(top.value) or not is_finite(top_y.value):
        return not_a_number(<double>0)
    for start from 0 <= start < r.blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, r.blocks.n - start)
        load_block64(r, start, m, False, x)
        load_block64(r, start, m, True, y)
        softmax_weights(<const double *>x, e, m, top.value, inverse)
        if start == top.block:
            first = start + find_first(<const double *>x, m, top.value)
            e[first - start] = 0
        rest += sum_lanes(<const double *>e, m)
        if start == top.block:
            e[first - start] = 1
        if temperature > 0:
            weigh_differences(x, y, <out_ptr64>e, m, top.value, top_y.value, inverse)
            mean += sum_lanes(<const double *>e, m)
        softmax_weights(<const double *>y, e, m, top_y.value, inverse)
        if start == top_y.block:
            first_y = start + find_first(<const double *>y, m, top_y.value)
            e[first_y - start] = 0
        rest_y += sum_lanes(<const double *>e, m)
    if temperature == 0:
        return 0 if first == first_y else infinity(<double>0)
    result = mean / (1 + rest) - (log1p_nonneg(rest) - log1p_nonneg(rest_y))
    return 0 if result < 0 else result
