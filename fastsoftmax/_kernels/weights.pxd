# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Weights exp((x - max) / T) in float64, their sums, and the walk along them.

The order of each sum is fixed, so that every vector width gives the same bits.
"""

from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.packed_row cimport PackedRow, open_part
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real, wide_void

ctypedef fused weight_t:
    float
    double

cdef enum:
    TIE_GROUP = 64  # elements among which ties are looked for at once

cdef struct Prefix:
    # What is left of a row, in the order of selection: all above `threshold`, and the first `ties`
    # of what equals it.
    double threshold
    Py_ssize_t ties


cdef inline wide_void softmax_weights_above_zero(
    const real *x, double *weight, Py_ssize_t n, double highest, double inverse, double low
) noexcept nogil:
    """weight = exp((x - highest) * inverse), for inverse > 0"""
    cdef Py_ssize_t j
    for j in range(n):
        weight[j] = exp_nonpositive((<double>x[j] - highest) * inverse, low)


cdef inline void softmax_weights(
    const real *x, double *weight, Py_ssize_t n, double highest, double inverse
) noexcept nogil:
    """weight = exp((x - highest) * inverse), where inverse = 0 still gives -inf no weight"""
    cdef Py_ssize_t j
    if inverse > 0:
        softmax_weights_above_zero(x, weight, n, highest, inverse, exp_underflow_bound(<double>0))
    else:
        for j in range(n):
            weight[j] = 1 if x[j] > -infinity(<real>0) else 0


cdef inline double sum_lanes(const weight_t *weight, Py_ssize_t n) noexcept nogil:
    """Return the sum of n weights, over eight lanes."""
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
    """Return the sum of n weights, added as `cdf_search` adds them."""
    cdef double total = 0
    cdef Py_ssize_t j
    for j in range(n):
        total += weight[j]
    return total


cdef inline Py_ssize_t cdf_search(
    const double *weight, Py_ssize_t n, double before, double target
) noexcept nogil:
    """Return the first place whose cumulative weight, on top of `before`, exceeds `target`.

    If none does, the last one that has a weight; 0 if n is 0.
    """
    cdef Py_ssize_t j, last = 0
    for j in range(n):
        before += weight[j]
        if before > target:
            return j
        if weight[j] > 0:
            last = j
    return last  # a sum in another order said that it would be exceeded here


cdef inline Py_ssize_t cdf_search_certain(
    const double *weight, Py_ssize_t n, double target, double margin
) noexcept nogil:
    """Return what `cdf_search` from 0 does; -1 if another target within `margin` may differ."""
    cdef double before = 0
    cdef Py_ssize_t j
    for j in range(n):
        if before + weight[j] > target:
            return j if before < target - margin and before + weight[j] > target + margin else -1
        before += weight[j]
    return -1


cdef inline void keep_weights_above(
    const real *x, weight_t *weight, Py_ssize_t n, real threshold
) noexcept nogil:
    """Set the weights to 0 where x is not above `threshold`."""
    cdef weight_t w
    cdef Py_ssize_t j
    for j in range(n):
        w = weight[j]  # read in any case: a vector
        weight[j] = w if x[j] > threshold else 0


cdef inline bint any_equal(const real *x, Py_ssize_t n, real v) noexcept nogil:
    """Return whether one of n elements (a constant) equals v."""
    cdef int found = 0
    cdef Py_ssize_t l
    for l in range(n):
        found |= x[l] == v
    return found


cdef inline Py_ssize_t keep_prefix_weights(
    const real *x, weight_t *weight, Py_ssize_t n, const Prefix *kept, Py_ssize_t ties
) noexcept nogil:
    """Set the weights of what is not in the prefix to 0, with `ties` of it left to come.

    Return how many ties are still to come after these n elements.
    """
    cdef real threshold = <real>kept.threshold
    cdef Py_ssize_t start, j, size
    for start from 0 <= start < n by TIE_GROUP:
        if ties <= 0:
            keep_weights_above(x + start, weight + start, n - start, threshold)
            return 0
        size = min(<Py_ssize_t>TIE_GROUP, n - start)
        if size == TIE_GROUP and not any_equal(x + start, TIE_GROUP, threshold):
            keep_weights_above(x + start, weight + start, TIE_GROUP, threshold)
            continue
        for j in range(start, start + size):
            if x[j] == threshold:
                weight[j] = weight[j] if ties > 0 else 0
                ties -= 1
            elif not x[j] > threshold:
                weight[j] = 0
    return max(<Py_ssize_t>0, ties)


cdef inline double softmax_weights_by_block(
    const real *x, Py_ssize_t n, double highest, double inverse, const Prefix *kept, double *sums,
    PackedRow *packed,
) noexcept nogil:
    """Write the sums of each block's weights; return the total, added in order.

    Only of what is in the prefix `kept`, unless that is NULL.
    """
    cdef double weight[BLOCK]
    cdef double total = 0
    cdef const real *block
    cdef Py_ssize_t start, m, ties = kept.ties if kept != NULL else 0
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        block = open_part(x, start, m, packed, &m)
        softmax_weights(block, weight, m, highest, inverse)
        if kept != NULL:
            ties = keep_prefix_weights(block, weight, m, kept, ties)
        sums[start // BLOCK] = sum_lanes(<const double *>weight, m)
        total += sums[start // BLOCK]
    return total


cdef inline void sum_blocks(const double *weight, Py_ssize_t n, double *sums) noexcept nogil:
    """Write the sums of each block of n weights, as `softmax_weights_by_block` does."""
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
