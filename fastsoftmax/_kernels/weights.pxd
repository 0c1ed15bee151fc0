# cython: language_level=3, cdivision=True
"""Weights exp((x - highest) / T) in float64, and their sums; sums of float32 ones, with a bound.

The order of each sum is fixed, so that every vector width gives the same bits.
"""

from libc.math cimport log

from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.exp_scale cimport ExpScale, scale_to_one
from fastsoftmax._kernels.row cimport exp_block
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate_block,
    fold_lanes,
    pad,
    round_to_step,
    zero,
)
from fastsoftmax._kernels.types cimport infinity, real

cdef inline void softmax_weights_above_zero(
    const real *x, double *weight, Py_ssize_t n, double highest, double inverse, double low
) noexcept nogil:
    """weight = exp((x - highest) * inverse)"""
    cdef Py_ssize_t j
    for j in range(n):
        weight[j] = exp_nonpositive((<double>x[j] - highest) * inverse, low)


cdef inline void softmax_weights(
    const real *x, double *weight, Py_ssize_t n, double highest, double inverse
) noexcept nogil:
    """The same for every temperature above 0."""
    cdef Py_ssize_t j
    if inverse > 0:
        softmax_weights_above_zero(x, weight, n, highest, inverse, exp_underflow_bound(<double>0))
    else:  # T = inf, where -inf still has no weight
        for j in range(n):
            weight[j] = 1 if x[j] > -infinity(<real>0) else 0


cdef inline double sum_lanes(const double *weight, Py_ssize_t n) noexcept nogil:
    """Return the sum, over eight lanes."""
    cdef double lane[8]
    cdef double rest = 0
    cdef Py_ssize_t j, l
    for l in range(8):
        lane[l] = 0
    for j from 0 <= j < (n & ~7) by 8:
        for l in range(8):
            lane[l] += weight[j + l]
    for j in range(n & ~7, n):
        rest += weight[j]
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + (
        (lane[1] + lane[5]) + (lane[3] + lane[7])
    ) + rest


cdef inline double sum_in_order(const double *weight, Py_ssize_t n) noexcept nogil:
    """Return the sum as `cdf_search` adds it."""
    cdef double total = 0
    cdef Py_ssize_t j
    for j in range(n):
        total += weight[j]
    return total


cdef inline Py_ssize_t cdf_search(
    const double *weight, Py_ssize_t n, double before, double target
) noexcept nogil:
    """Return the first place whose cumulative weight, on top of `before`, exceeds `target`."""
    cdef Py_ssize_t j, last = 0
    for j in range(n):
        before += weight[j]
        if before > target:
            return j
        if weight[j] > 0:
            last = j
    return last  # a sum in another order said that it would be exceeded here


cdef inline double softmax_weights_by_block(
    const real *x, Py_ssize_t n, double highest, double inverse, double *sums
) noexcept nogil:
    """Write the sum of the weights of each block; return the total, added in order."""
    cdef double weight[BLOCK]
    cdef double total = 0
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        softmax_weights(x + start, weight, m, highest, inverse)
        sums[start // BLOCK] = sum_lanes(weight, m)
        total += sums[start // BLOCK]
    return total


cdef inline bint fits_float32(double inverse) noexcept nogil:
    """Tell whether float32 weights serve at this 1/T."""
    return 1e-30 < inverse < 1e30


cdef inline double block_weights_f32(
    const float *x, float *e, Py_ssize_t n, double highest, double inverse
) noexcept nogil:
    """Write the weights of a block in float32, filled up with 0 to whole steps; return their sum.
    """
    cdef ExpScale exp_scale = scale_to_one(<float>highest, inverse)
    cdef float step[STEP]
    cdef Py_ssize_t w = round_to_step(n)
    exp_block(x, e, w, &exp_scale)
    if w < n:
        pad(x + w, step, n - w)
        exp_block(<const float *>step, e + w, STEP, &exp_scale)
        w += STEP
    return sum_lanes_f32(e, w)


cdef inline double sum_lanes_f32(const float *e, Py_ssize_t n) noexcept nogil:
    """Return the sum of whole steps."""
    cdef LaneSums lanes
    cdef DoubleDouble s
    zero(&lanes)
    accumulate_block(&lanes, e, n)
    s.high = s.low = 0
    fold_lanes(&s, &lanes, <float>0)
    return s.high


cdef inline double weights_f32_error(Py_ssize_t n, double total) noexcept nogil:
    """Return how far a sum of some of a row's float32 weights may be off, of their total.

    With u = 2**-24 and d the exponent, a weight is off by 2 u for the exponential and 3 |d| u for
    d itself, a sum of four by 2 u. Over the row |d| is on average, by weight, at most
    log(n) - log(total): that plus log(total) is the entropy.
    """
    return (4 + 4 * log(max(1.0, n / total))) * 2.0**-24


cdef inline double weights_f32(
    const float *x, Py_ssize_t n, double highest, double inverse, double *sums
) noexcept nogil:
    """`softmax_weights_by_block` in float32, four times as fast; `weights_f32_error` tells how exact."""
    cdef float e[BLOCK]
    cdef double total = 0
    cdef Py_ssize_t start
    for start from 0 <= start < n by BLOCK:
        sums[start // BLOCK] = block_weights_f32(
            x + start, e, min(<Py_ssize_t>BLOCK, n - start), highest, inverse
        )
        total += sums[start // BLOCK]
    return total


cdef inline double sum_weights_until(
    const real *x, Py_ssize_t n, double highest, double inverse, double enough
) noexcept nogil:
    """Return the sum of the weights, rough for float32; 0 as soon as it exceeds `enough`."""
    cdef real e[BLOCK]
    cdef double total = 0
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        if real is float:
            total += block_weights_f32(x + start, e, m, highest, inverse)
        else:
            softmax_weights(x + start, e, m, highest, inverse)
            total += sum_lanes(e, m)
        if total > enough:
            return 0
    return total


cdef inline Py_ssize_t cdf_search_certain(
    const double *weight, Py_ssize_t n, double before, double target, double margin
) noexcept nogil:
    """Return what `cdf_search` does, -1 if that `before - target` is off by `margin` may matter."""
    cdef Py_ssize_t j
    for j in range(n):
        if before + weight[j] > target:
            return j if before < target - margin and before + weight[j] > target + margin else -1
        before += weight[j]
    return -1


cdef inline void sum_blocks(const double *weight, Py_ssize_t n, double *sums) noexcept nogil:
    """Write the sum of each block of weights, as `softmax_weights_by_block` does."""
    cdef Py_ssize_t start
    for start from 0 <= start < n by BLOCK:
        sums[start // BLOCK] = sum_lanes(weight + start, min(<Py_ssize_t>BLOCK, n - start))


cdef inline void cumsum(
    const double *weight, Py_ssize_t n, double before, double *cumulative
) noexcept nogil:
    """Write the cumulative weights, on top of `before`, as `cdf_search` adds them."""
    cdef Py_ssize_t j
    for j in range(n):
        before += weight[j]
        cumulative[j] = before


cdef inline Py_ssize_t upper_bound(
    const double *rising, Py_ssize_t n, double target
) noexcept nogil:
    """Return the first of n rising numbers that exceeds `target`; n if none does."""
    cdef Py_ssize_t half, start = 0
    while n > 0:
        half = n >> 1
        if rising[start + half] <= target:
            start += half + 1
            n -= half + 1
        else:
            n = half
    return start
