# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The sums of a batch of rows of exponentials, each without that of the row's first maximum.

Nearly always one exponential of a row is as large as the maximum's. A comparison on the way leaves
it out, and where it stood need not be known; how many were left out of all rows together shows
whether there was one in each. The order of sums is that of ``sums.pxd``.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS
from fastsoftmax._kernels.maxima cimport find_first
from fastsoftmax._kernels.normalize cimport all_finite
from fastsoftmax._kernels.row_batch cimport add_halves
from fastsoftmax._kernels.sums cimport (
    LANES,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate,
    fold_lanes,
    zero,
)
from fastsoftmax._kernels.types cimport (
    bits32,
    bits64,
    from_bits32,
    from_bits64,
    infinity,
    out_ptr64,
    real,
)


cdef inline Py_ssize_t float_sums_excluding_max(
    const float *e, Py_ssize_t width, Py_ssize_t rows, const float *max_e, double *d,
    DoubleDouble *s,
) noexcept nogil:
    """Write the sum of each row without what equals its `max_e`; return how often that is.

    `d` is scratch for 12 a row.
    """
    cdef float kept[STEP]
    cdef uint32_t hit[STEP]
    cdef uint32_t count[STEP]  # minus it
    cdef double lane[LANES]
    cdef float m
    cdef Py_ssize_t r, l, _
    cdef Py_ssize_t total = 0
    for l in range(STEP):
        count[l] = 0
    for r in range(rows):
        m = max_e[r]
        for l in range(LANES):
            lane[l] = 0
        for _ in range(width // STEP):
            for l in range(STEP):  # of bits: with a condition the loop would stay scalar
                hit[l] = -<uint32_t>(e[l] == m)
                kept[l] = from_bits32(bits32(e[l]) & ~hit[l])
                count[l] += hit[l]
            for l in range(LANES):
                lane[l] += (kept[l] + kept[8 + l]) + (kept[16 + l] + kept[24 + l])
            e += STEP
        for l in range(LANES):
            d[LANES * r + l] = lane[l]
    add_halves(d, d + LANES * rows, rows, 4)
    add_halves(d + LANES * rows, d, rows, 2)
    for r in range(rows):
        s[r].high = d[2 * r] + d[2 * r + 1]
        s[r].low = 0
    for l in range(STEP):
        total -= <int32_t>count[l]
    return total


cdef inline Py_ssize_t double_sums_excluding_max(
    const double *e, Py_ssize_t width, Py_ssize_t rows, const double *max_e, double *d,
    DoubleDouble *s,
) noexcept nogil:
    """Write the sum of each row without what equals its `max_e`; return how often that is.

    `d` is scratch for a row.
    """
    cdef Py_ssize_t start, r
    cdef Py_ssize_t total = 0
    cdef LaneSums lanes[LANES]
    for start from 0 <= start < rows by LANES:
        for r in range(start, min(start + LANES, rows)):
            total += copy_others(e + r * width, <out_ptr64>d, width, max_e[r])
            zero(lanes + (r - start))
            accumulate(lanes + (r - start), <const double *>d, width)
        for r in range(start, min(start + LANES, rows)):  # several chains run at once
            s[r].high = s[r].low = 0
            fold_lanes(s + r, lanes + (r - start), <double>0)
    return total


cdef inline Py_ssize_t copy_others(
    const double *e, out_ptr64 others, Py_ssize_t width, double m
) noexcept nogil:
    """Copy a row, but 0 where it equals `m`; return how often that is."""
    cdef uint64_t count = 0
    cdef uint64_t hit
    cdef Py_ssize_t j
    for j in range(width // STEP * STEP):
        hit = -<uint64_t>(e[j] == m)
        others[j] = from_bits64(bits64(e[j]) & ~hit)
        count -= hit
    return count


cdef inline Py_ssize_t sums_of_others(
    const real *e, Py_ssize_t width, Py_ssize_t rows, const real *max_e, double *d, DoubleDouble *s
) noexcept nogil:
    """Write the sum of each row without what equals its `max_e`; return how often that is."""
    if real is float:
        return float_sums_excluding_max(e, width, rows, max_e, d, s)
    else:
        return double_sums_excluding_max(e, width, rows, max_e, d, s)


cdef inline bint is_once(const real *e, Py_ssize_t width, real m) noexcept nogil:
    """Return whether one entry of a row of whole steps equals `m`."""
    cdef uint32_t count32 = 0
    cdef uint64_t count64 = 0
    cdef Py_ssize_t j
    for j in range(width // STEP * STEP):
        if real is float:
            count32 += <uint32_t>(e[j] == m)
        else:
            count64 += <uint64_t>(e[j] == m)
    return count32 + count64 == 1


cdef inline void batch_sums_excluding_max(
    const real *x,
    real *e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *max_e,
    double *d,
    DoubleDouble *s,
) noexcept nogil:
    """Write the sum of each row of `e`, of `width` elements, without the first maximum's.

    `x` are the rows of n elements, `highest` their maxima, `max_e` the exponentials of these. `d`
    is scratch for 12 a row, and for one row.
    """
    cdef real left_out[BATCH_ROWS]
    cdef Py_ssize_t place[BATCH_ROWS]
    cdef Py_ssize_t r
    cdef Py_ssize_t count = sums_of_others(<const real *>e, width, rows, max_e, d, s)
    if count == rows and all_finite(highest, rows):
        return
    for r in range(rows):
        left_out[r] = max_e[r]
        place[r] = n
        if -infinity(<real>0) < highest[r] < infinity(<real>0):
            if is_once(<const real *>(e + r * width), width, max_e[r]):
                continue
            place[r] = find_first(x + r * n, n, highest[r])
        left_out[r] = -1  # which no exponential is
        if place[r] < n:  # n also if another thread has written x
            e[r * width + place[r]] = 0
    sums_of_others(<const real *>e, width, rows, <const real *>left_out, d, s)
    for r in range(rows):
        if place[r] < n:
            e[r * width + place[r]] = max_e[r]
