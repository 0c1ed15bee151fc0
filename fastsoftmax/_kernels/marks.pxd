# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Which elements of a block lie between two numbers: a bit for each, and a list of the few.

Bit b of word l is for element 8 b + l of MARKED: that is how the lanes of a vector come, so that
there is nothing to gather from them. A list of marked elements is by words: not in index order.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.bisection cimport lane
from fastsoftmax._kernels.sums cimport STEP, LaneSums
from fastsoftmax._kernels.types cimport bits32, from_bits32, real
from fastsoftmax._kernels.weights cimport weight_t
from fastsoftmax._kernels.weights_f32 cimport fold

cdef extern from *:
    int count_bits64 "__builtin_popcountll"(uint64_t mask) noexcept nogil
    uint32_t lowest_bit64 "(uint32_t)__builtin_ctzll"(uint64_t mask) noexcept nogil

cdef enum:
    MARKED = 512  # elements that eight words mark
    FEW_HITS = 3  # elements of a word that are written without a branch


cdef inline void mark_and_sum(
    const real *x, const float *e, Py_ssize_t n, real low, real high, uint64_t *marks,
    double *above, double *rest, lane zero,
) noexcept nogil:
    """Mark which of n elements, whole steps, are within these bounds, and add up their weights `e`.

    The sums are that of those where x is above `high`, and that of the others; none if e is NULL.
    `zero` is as wide as the elements.
    """
    cdef LaneSums lanes
    cdef double high_sum[8]
    cdef double rest_sum[8]
    cdef lane mark[8]
    cdef lane unit = <lane>1 << (8 * sizeof(lane) - 4)  # marks come in at the top
    cdef lane in_a, in_b, in_c, in_d
    cdef uint32_t a, b, c, d
    cdef Py_ssize_t start, stop, j, l
    for l in range(8):
        high_sum[l] = rest_sum[l] = 0
    for start from 0 <= start < n by 64 * sizeof(lane):
        stop = min(n, start + <Py_ssize_t>(64 * sizeof(lane)))
        for l in range(8):
            mark[l] = zero
        for j from start <= j < stop by STEP:
            for l in range(8):
                # All ones where it is above, so that one comparison serves for all.
                in_a = -<lane>(x[j + l] > high)
                in_b = -<lane>(x[j + 8 + l] > high)
                in_c = -<lane>(x[j + 16 + l] > high)
                in_d = -<lane>(x[j + 24 + l] > high)
                if real is float:
                    if e != NULL:
                        a = bits32(e[j + l])
                        b = bits32(e[j + 8 + l])
                        c = bits32(e[j + 16 + l])
                        d = bits32(e[j + 24 + l])
                        high_sum[l] += (from_bits32(a & in_a) + from_bits32(b & in_b)) + (
                            from_bits32(c & in_c) + from_bits32(d & in_d)
                        )
                        rest_sum[l] += (from_bits32(a & ~in_a) + from_bits32(b & ~in_b)) + (
                            from_bits32(c & ~in_c) + from_bits32(d & ~in_d)
                        )
                in_a ^= -<lane>(x[j + l] >= low)
                in_b ^= -<lane>(x[j + 8 + l] >= low)
                in_c ^= -<lane>(x[j + 16 + l] >= low)
                in_d ^= -<lane>(x[j + 24 + l] >= low)
                mark[l] = mark[l] >> 4 | (
                    (in_a & unit | in_b & 2 * unit) | (in_c & 4 * unit | in_d & 8 * unit)
                )
        j = (start + <Py_ssize_t>(64 * sizeof(lane)) - stop) >> 3  # bits that are not there
        for l in range(8):
            mark[l] = mark[l] >> j
        if start % MARKED == 0:
            for l in range(8):
                marks[l] = mark[l]
        else:
            for l in range(8):
                marks[l] |= <uint64_t>mark[l] << 32
            marks += 8
        if lane is uint64_t:
            marks += 8
    if e != NULL:
        for l in range(8):
            lanes.high[l] = high_sum[l]
        above[0] = fold(&lanes)
        for l in range(8):
            lanes.high[l] = rest_sum[l]
        rest[0] = fold(&lanes)


cdef inline Py_ssize_t append_marked(
    const real *x, const uint64_t *marks, Py_ssize_t n, Py_ssize_t m, weight_t *value
) noexcept nogil:
    """Append what is marked of n elements, whole steps, to the m in `value`; return how many then.
    """
    cdef const real *column
    cdef uint64_t mask, last
    cdef Py_ssize_t start, l, i, hits
    for start from 0 <= start < n by MARKED:
        last = <uint64_t>1 << ((min(<Py_ssize_t>MARKED, n - start) >> 3) - 1)
        for l in range(8):
            mask = marks[l]
            column = x + start + l
            hits = count_bits64(mask)
            for i in range(FEW_HITS):  # without a branch, which could not be predicted
                value[m + i] = <weight_t>column[<uint64_t>lowest_bit64(mask | last) << 3]
                mask &= mask - 1
            for i in range(FEW_HITS, hits):
                value[m + i] = <weight_t>column[<uint64_t>lowest_bit64(mask) << 3]
                mask &= mask - 1
            m += hits
        marks += 8
    return m


cdef inline void mark_within(
    const real *x, Py_ssize_t n, real low, real high, uint64_t *marks, lane zero
) noexcept nogil:
    """Mark which of n elements, whole steps, are within these bounds; `zero` is as wide as they."""
    mark_and_sum(x, NULL, n, low, high, marks, NULL, NULL, zero)


cdef inline Py_ssize_t count_marked(const uint64_t *marks, Py_ssize_t n) noexcept nogil:
    """Return how many of n elements, whole steps, are marked."""
    cdef Py_ssize_t i, m = 0
    for i in range((n + MARKED - 1) // MARKED * 8):
        m += count_bits64(marks[i])
    return m
