# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Weights of float32 rows in float32, four times as fast as in float64, and how far they are off.

A weight is exp((x - max) / T) times a number near a power of two that all of a row have in common:
what counts is what share of the row's total the elements have. With u = 2**-24 and
d = (x - max) / T a weight is off by at most ``fixed`` u + ``per_nat`` |d| u of itself, its part in
a sum of four included, and by a factor exp(``common`` d u), for ln 2 is rounded (without fma
log2(e) / T, too).
Over n elements |d| is on average, by weight, at most log(n) - log(total): that plus log(total) is
the entropy of their probabilities.
"""

from libc.math cimport fabs, log
from libc.string cimport memcpy

from fastsoftmax._kernels.exp_blocks cimport exp_block, exp_loop
from fastsoftmax._kernels.exp_scale cimport ExpScale, Unclamped, max_term, scale_from_max
from fastsoftmax._kernels.flush_to_zero cimport flush_to_zero, keep_subnormal
from fastsoftmax._kernels.packed_row cimport PackedRow, open_elements
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate,
    fold_lanes,
    round_to_step,
    zero,
)
from fastsoftmax._kernels.types cimport HAS_FMA, infinity, noinline_void, real, wide_void
from fastsoftmax._kernels.weights cimport Prefix, softmax_weights, sum_lanes, weight_t

cdef struct WeightScale:
    ExpScale exp_scale
    double max_weight  # weight of the largest element
    double fixed  # error of a weight, see above
    double per_nat
    double common


cdef inline bint fits_float32(double inverse) noexcept nogil:
    """Return whether float32 weights serve at this 1/T."""
    return 1e-30 < inverse < 1e30


cdef inline noinline_void set_weight_scale(
    double highest, double inverse, WeightScale *scale
) noexcept nogil:
    """Choose what the weights of a row with this maximum are made with.

    A function of its own: in a larger one gcc would stop to build in the exponential.
    """
    scale.exp_scale = scale_from_max(<float>highest, 1 / inverse)
    scale.max_weight = max_term(<float>highest, &scale.exp_scale)
    scale.fixed = 3.4
    scale.per_nat = 0
    scale.common = 0.05
    if scale.exp_scale.rate != 0:
        scale.fixed = 3.7
    if scale.exp_scale.rate != 0 and not HAS_FMA:
        scale.per_nat = 2.6  # two more numbers are rounded
        scale.common += fabs(scale.exp_scale.rate / (0.7213475204444817 * inverse) - 1) * 2.0**24


cdef inline double mean_exponent(
    const WeightScale *scale, Py_ssize_t n, double total
) noexcept nogil:
    """Return what the |d| of n elements with this total are at most on average, by weight."""
    return log(max(1.0, n * scale.max_weight / total))


cdef inline double share_error(
    const WeightScale *scale, Py_ssize_t n, double total, double kept, double share
) noexcept nogil:
    """Return how far the mass of elements may be from `share` of `kept` when it seems to be that.

    `total` is the mass of the row, `kept` of that part of it which counts. An error that all
    weights have in common does not matter, so that each counts by the share of the others; and of
    ``common``, how far the mean d of the elements is from that of the others.
    """
    cdef double smaller = max(min(share, 1 - share), 1e-9)
    return (
        (
            2.2 * scale.fixed
            + 1.1 * scale.common * mean_exponent(scale, n, smaller * kept)
        ) * smaller * (1 - smaller) * kept
        + 1.1 * scale.per_nat * max(share, 1 - share) * mean_exponent(scale, n, total) * total
    ) * 2.0**-24 + 1e-11 * kept


cdef inline double total_error(
    const WeightScale *scale, Py_ssize_t n, double total
) noexcept nogil:
    """Return how far a row's total may be off, against the largest element's weight; a share of it.
    """
    return 1.1 * (
        scale.fixed + 1.7 + (scale.per_nat + scale.common) * mean_exponent(scale, n, total)
    ) * 2.0**-24


# ---- blocks --------------------------------------------------------------------------------------


cdef inline const real *whole_steps(const real *x, Py_ssize_t n, real *padded) noexcept nogil:
    """Return x, or a copy filled up to whole steps with -inf, which has no weight."""
    cdef Py_ssize_t j, whole = round_to_step(n + STEP - 1)
    if n == whole:
        return x
    memcpy(padded, x, n * sizeof(real))
    for j in range(n, whole):
        padded[j] = -infinity(<real>0)
    return padded


cdef inline wide_void block_weights_f32(
    const float *x, float *e, Py_ssize_t n, const WeightScale *scale
) noexcept nogil:
    """e = the weights of x, over whole steps"""
    if scale.exp_scale.rate == 0 and scale.exp_scale.shift == 0:
        exp_loop(x, e, n, &scale.exp_scale, <Unclamped>0)
    else:
        exp_block(x, e, n, &scale.exp_scale)


cdef inline double fold(LaneSums *lanes) noexcept nogil:
    """Return the sum of the lanes."""
    cdef DoubleDouble s
    s.high = s.low = 0
    fold_lanes(&s, lanes, <float>0)
    return s.high


cdef inline double sum_lanes_f32(const float *e, Py_ssize_t n) noexcept nogil:
    """Return the sum of whole steps of weights."""
    cdef LaneSums lanes
    cdef double high[8]
    cdef Py_ssize_t j, l
    for l in range(8):
        high[l] = 0
    for j from 0 <= j < n by STEP:
        for l in range(8):
            high[l] += (e[j + l] + e[j + 8 + l]) + (e[j + 16 + l] + e[j + 24 + l])
    for l in range(8):
        lanes.high[l] = high[l]
    return fold(&lanes)


cdef inline double sum_above_f32(
    const float *x, const float *e, Py_ssize_t n, float threshold
) noexcept nogil:
    """Return the sum of whole steps of weights where x is above `threshold`."""
    cdef LaneSums lanes
    cdef double high[8]
    cdef float a, b, c, d
    cdef Py_ssize_t j, l
    for l in range(8):
        high[l] = 0
    for j from 0 <= j < n by STEP:
        for l in range(8):
            a = e[j + l]  # read in any case: a vector
            b = e[j + 8 + l]
            c = e[j + 16 + l]
            d = e[j + 24 + l]
            a = a if x[j + l] > threshold else 0
            b = b if x[j + 8 + l] > threshold else 0
            c = c if x[j + 16 + l] > threshold else 0
            d = d if x[j + 24 + l] > threshold else 0
            high[l] += (a + b) + (c + d)
    for l in range(8):
        lanes.high[l] = high[l]
    return fold(&lanes)


cdef inline double weights_f32_by_block(
    const float *x, Py_ssize_t n, const WeightScale *scale, const Prefix *kept, double *sums,
    PackedRow *packed,
) noexcept nogil:
    """Do what `softmax_weights_by_block` does, in float32; `kept` has no ties."""
    cdef float e[BLOCK]
    cdef float padded[BLOCK]
    cdef const float *block
    cdef double total = 0
    cdef Py_ssize_t start, m, w
    cdef unsigned int control = flush_to_zero(n)
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        block = open_elements(x, start, m, packed, &m)
        w = round_to_step(m + STEP - 1)
        block = whole_steps(block, m, padded)
        block_weights_f32(block, e, w, scale)
        if kept == NULL:
            sums[start // BLOCK] = sum_lanes_f32(e, w)
        else:
            sums[start // BLOCK] = sum_above_f32(block, e, w, <float>kept.threshold)
        total += sums[start // BLOCK]
    keep_subnormal(control)
    return total


# ---- estimates, of both types --------------------------------------------------------------------


cdef inline void estimate_weights(
    const real *x, real *weight, Py_ssize_t n, double highest, double inverse,
    const WeightScale *scale,
) noexcept nogil:
    """weight = exp((x - highest) * inverse), made in float32 for float32, by `scale`"""
    cdef float e[BLOCK]
    cdef float padded[BLOCK]
    cdef float factor
    cdef Py_ssize_t start, j, m
    if real is double:
        softmax_weights(x, weight, n, highest, inverse)
    else:
        factor = <float>(1 / scale.max_weight)
        for start from 0 <= start < n by BLOCK:
            m = min(<Py_ssize_t>BLOCK, n - start)
            block_weights_f32(
                whole_steps(x + start, m, padded), e, round_to_step(m + STEP - 1), scale
            )
            for j in range(m):
                weight[start + j] = e[j] * factor


cdef inline double sum_estimates(const real *weight, Py_ssize_t n) noexcept nogil:
    """Return the sum of n estimates."""
    cdef Py_ssize_t whole = round_to_step(n) if real is float else 0
    cdef double total = sum_lanes(weight + whole, n - whole)
    if real is float:
        total += sum_lanes_f32(weight, whole)
    return total


cdef inline void weigh_list(
    weight_t *value, weight_t *weight, Py_ssize_t n, double highest, double inverse,
    const WeightScale *scale,
) noexcept nogil:
    """Write the weights of n elements of a list, of its type; it is filled up to whole steps."""
    cdef Py_ssize_t i, whole = round_to_step(n + STEP - 1)
    if weight_t is float:
        for i in range(n, whole):
            value[i] = -infinity(<float>0)
        block_weights_f32(value, weight, whole, scale)
    else:
        softmax_weights(<const double *>value, weight, n, highest, inverse)
