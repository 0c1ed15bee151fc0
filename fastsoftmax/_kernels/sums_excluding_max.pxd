# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The sums of a batch of rows of exponentials, each without that of the row's first maximum.

Nearly always one exponential of a row is as large as the maximum's. In short rows a comparison on
the way leaves it out, and where it stood need not be known; how many were left out of all rows
together shows whether there was one in each. In others its place is found by the partial maxima,
which costs less than a comparison of each element. The order of sums is that of ``sums.pxd``.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS
from fastsoftmax._kernels.maxima cimport find_first, place_of_max
from fastsoftmax._kernels.normalize cimport all_finite
from fastsoftmax._kernels.row_batch cimport add_halves, batch_sums, lane_sums
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
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)

cdef enum:
    LONG = 256  # elements of a row from which on places are sought


cdef inline Py_ssize_t copy_others(
    const real *e, out_ptr others, Py_ssize_t width, real m
) noexcept nogil:
    """Copy a row of whole steps, but 0 where it equals `m`; return how often that is.

    Of bits: with a condition the loop would stay scalar. By way of memory: of vectors longer than
    the lanes of a sum gcc would make scalars.
    """
    cdef uint32_t hit32, count32 = 0
    cdef uint64_t hit64, count64 = 0
    cdef Py_ssize_t j
    for j in range(width // STEP * STEP):
        if real is float:
            hit32 = -<uint32_t>(e[j] == m)
            others[j] = from_bits32(bits32(e[j]) & ~hit32)
            count32 -= hit32
        else:
            hit64 = -<uint64_t>(e[j] == m)
            others[j] = from_bits64(bits64(e[j]) & ~hit64)
            count64 -= hit64
    return count32 + count64


cdef inline Py_ssize_t sums_of_others(
    const real *e, Py_ssize_t width, Py_ssize_t rows, const real *max_e, double *d, DoubleDouble *s
) noexcept nogil:
    """Write the sum of each row without what equals its `max_e`; return how often that is.

    `d` is scratch for 12 a row, and for one row.
    """
    cdef Py_ssize_t start, r
    cdef Py_ssize_t count = 0
    cdef LaneSums lanes[LANES]
    cdef double *sums = d + (width if real is double else width >> 1)
    if real is float:
        for r in range(rows):
            count += copy_others(e + r * width, <out_ptr32>d, width, max_e[r])
            lane_sums(<const float *>d, width, 1, sums + LANES * r)
        add_halves(sums, sums + LANES * rows, rows, 4)
        add_halves(sums + LANES * rows, sums, rows, 2)
        for r in range(rows):
            s[r].high = sums[2 * r] + sums[2 * r + 1]
            s[r].low = 0
    else:
        for start from 0 <= start < rows by LANES:
            for r in range(start, min(start + LANES, rows)):
                count += copy_others(e + r * width, <out_ptr64>d, width, max_e[r])
                zero(lanes + (r - start))
                accumulate(lanes + (r - start), <const double *>d, width)
            for r in range(start, min(start + LANES, rows)):  # several chains run at once
                s[r].high = s[r].low = 0
                fold_lanes(s + r, lanes + (r - start), <double>0)
    return count


# In a larger function its loops would stay scalar.
cdef inline noinline_void batch_sums_excluding_max(
    const real *x,
    real *e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *max_e,
    real *lane,  # read alone: of a const one that only some rows fill gcc would warn
    double *d,
    DoubleDouble *s,
) noexcept nogil:
    """Write the sum of each row of `e`, of `width` elements, without the first maximum's.

    `x` are the rows of n elements, `highest` their maxima, `max_e` the exponentials of these; if
    n > STEP, `lane` is what `partial_maxima` wrote. `d` is scratch for 12 a row, and for one row.
    """
    cdef Py_ssize_t place[BATCH_ROWS]
    cdef Py_ssize_t r
    if width < LONG and sums_of_others(<const real *>e, width, rows, max_e, d, s) == rows:
        if all_finite(highest, rows):
            return
    for r in range(rows):
        place[r] = n
        if -infinity(<real>0) < highest[r] < infinity(<real>0):
            if n > STEP:
                place[r] = place_of_max(x + r * n, n, highest[r], <const real *>lane + r * STEP)
            else:
                place[r] = find_first(x + r * n, n, highest[r])
        if place[r] < n:  # n also if another thread has written x
            e[r * width + place[r]] = 0
    memset(s, 0, rows * sizeof(DoubleDouble))
    batch_sums(<const real *>e, width, rows, d, s)
    for r in range(rows):
        if place[r] < n:
            e[r * width + place[r]] = max_e[r]
