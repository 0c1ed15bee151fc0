# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The place of a row's first element in the order of `top_k`: larger, then lower index, NaN last.

A row is read once, block by block, by vectors whose lanes come together once for each block. For
the place, the one lane that has the maximum is read again in the first such block, from L1; where
there are several, as ties are, all of the block up to it.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from fastsoftmax._kernels.bisection cimport step_mask
from fastsoftmax._kernels.block_maxima cimport STEP
from fastsoftmax._kernels.radix cimport (
    Descending,
    is_nan,
    lowest_value,
    order_t,
    oriented,
    value_t,
)
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.types cimport infinity, lowest_bit, real

cdef enum:
    BLOCK = 2048  # elements that are in L1 when they are read again


cdef inline value_t max_of_block(
    const value_t *x, order_t order, Py_ssize_t n, value_t *maxima, value_t *sums
) noexcept nogil:
    """Return the largest of x[0:n], `oriented` by `order`; NaN is passed over, n >= STEP.

    Write STEP `maxima`: of all STEP-th elements, and of one of the last STEP. Add all elements,
    some twice, to STEP `sums`, unless that is NULL: one is NaN if one of them is.
    """
    cdef value_t lane[STEP]
    cdef value_t partial[STEP]
    cdef value_t v
    cdef Py_ssize_t j, l
    for l in range(STEP):  # the last step first: it may overlap the one before
        v = oriented(x[n - STEP + l], order)
        lane[l] = v if v > lowest_value(<value_t>0) else lowest_value(<value_t>0)
    for l in range(STEP):
        partial[l] = oriented(x[n - STEP + l], order)
    for j from 0 <= j < n - STEP by STEP:
        for l in range(STEP):
            v = oriented(x[j + l], order)
            lane[l] = v if v > lane[l] else lane[l]
        if sums != NULL:
            for l in range(STEP):
                partial[l] += oriented(x[j + l], order)
    for l in range(STEP):
        maxima[l] = lane[l]
    if sums != NULL:
        for l in range(STEP):
            sums[l] += partial[l]
    for l in range(16):  # in halves: one chain of 32 would take as long as hundreds of elements
        lane[l] = lane[16 + l] if lane[16 + l] > lane[l] else lane[l]
    for l in range(8):
        lane[l] = lane[8 + l] if lane[8 + l] > lane[l] else lane[l]
    for l in range(4):
        lane[l] = lane[4 + l] if lane[4 + l] > lane[l] else lane[l]
    for l in range(2):
        lane[l] = lane[2 + l] if lane[2 + l] > lane[l] else lane[l]
    return lane[1] if lane[1] > lane[0] else lane[0]


cdef inline Py_ssize_t place_in_block(
    const value_t *x, order_t order, Py_ssize_t n, value_t highest, const value_t *maxima
) noexcept nogil:
    """Return the first place in x[0:n] that reaches `highest`, n >= STEP; 0 if there is none.

    `maxima` is what `max_of_block` wrote.
    """
    cdef uint32_t lanes = step_mask(maxima, <Descending>0, highest)
    cdef uint32_t mask
    cdef Py_ssize_t j, i, l
    if lanes & (lanes - 1) == 0 and lanes != 0:  # no branch that a random place would mislead
        l = lowest_bit(lanes)
        i = n - STEP + l
        for j from (n - 1 - l) // STEP * STEP + l >= j >= 0 by STEP:
            i = j if oriented(x[j], order) >= highest else i
        return i
    for j from 0 <= j < n by STEP:
        i = min(j, n - STEP)
        mask = step_mask(x + i, order, highest)
        if mask:
            return i + lowest_bit(mask)
    return 0  # another thread has written x


cdef inline Py_ssize_t argmax_of_few(
    const value_t *x, order_t order, Py_ssize_t n
) noexcept nogil:
    """Do what `argmax_oriented` does, element by element."""
    cdef Py_ssize_t i, first = 0
    for i in range(1, n):
        if oriented(x[i], order) > oriented(x[first], order) or is_nan(x[first]) > is_nan(x[i]):
            first = i
    return first


cdef inline Py_ssize_t first_block(
    const value_t *x, order_t order, Py_ssize_t n, value_t *maxima, value_t *sums, value_t *highest
) noexcept nogil:
    """Return where the first block begins that has the largest of x[0:n], `oriented` by `order`.

    It becomes `highest`. -1 if that is lowest of all; n >= STEP; `maxima` and `sums` are of that
    block, and of all, as `max_of_block` writes them.
    """
    cdef value_t lane[STEP]
    cdef Py_ssize_t start, first, piece, block = -1
    cdef value_t v
    highest[0] = lowest_value(<value_t>0)
    for piece from 0 <= piece < n by LOOK_INTERVAL:
        if stopped(n):
            break
        for start from piece <= start < min(n, piece + LOOK_INTERVAL) by BLOCK:
            first = min(start, n - STEP)
            v = max_of_block(x + first, order, min(n, start + BLOCK) - first, lane, sums)
            if v > highest[0]:
                highest[0] = v
                block = first
                memcpy(maxima, lane, STEP * sizeof(value_t))
    return block


cdef inline Py_ssize_t argmax_oriented(
    const value_t *x, order_t order, Py_ssize_t n
) noexcept nogil:
    """Return the place of the first of x[0:n], n > 0, `oriented` by `order`."""
    cdef value_t maxima[STEP]
    cdef value_t highest
    cdef Py_ssize_t block
    if n < STEP:
        return argmax_of_few(x, order, n)
    block = first_block(x, order, n, maxima, <value_t *>NULL, &highest)
    if block < 0:  # nothing but what is lowest, and NaN
        return argmax_of_few(x, order, n)
    n = min(<Py_ssize_t>BLOCK, n - block)
    return block + place_in_block(x + block, order, n, highest, <const value_t *>maxima)


cdef inline Py_ssize_t argmax_of_finite(const real *x, Py_ssize_t n) noexcept nogil:
    """Return the place of the largest of x[0:n]; -1 if it is infinite, or an element is NaN."""
    cdef real sums[STEP]
    cdef real maxima[STEP]
    cdef real highest
    cdef Py_ssize_t i, block
    cdef bint suspect = n < STEP
    for i in range(STEP):
        sums[i] = 0
    if n < STEP:
        block = argmax_of_few(x, <Descending>0, n)
        highest = x[block]
    else:
        block = first_block(x, <Descending>0, n, maxima, sums, &highest)
    for i in range(STEP):
        suspect |= sums[i] != sums[i]
    if suspect:  # a NaN, or +inf (from an overflow, perhaps) and -inf
        for i in range(n):
            if x[i] != x[i]:
                return -1
    if not -infinity(<real>0) < highest < infinity(<real>0):
        return -1
    if n < STEP:
        return block
    n = min(<Py_ssize_t>BLOCK, n - block)
    return block + place_in_block(x + block, <Descending>0, n, highest, <const real *>maxima)
