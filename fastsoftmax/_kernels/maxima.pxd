# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Maxima: of one row, block by block, or of each row of a batch."""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.sums cimport BLOCK, LANES, STEP, pad, round_to_step
from fastsoftmax._kernels.types cimport infinity, lowest_bit, out_ptr, out_ptr32, out_ptr64, real

cdef enum:
    MIN_BATCH_LENGTH = 16  # elements of a row below which a batch is transposed

cdef struct RowMax:
    double value  # the largest element of a row; NaN is passed over
    Py_ssize_t block  # where the block starts that has it


# ---- of one row ----------------------------------------------------------------------------------


cdef inline real max_of_eight(real *lane) noexcept nogil:
    """Return the largest of the 8 numbers in `lane`, which are overwritten."""
    cdef Py_ssize_t l
    for l in range(4):
        lane[l] = lane[4 + l] if lane[4 + l] > lane[l] else lane[l]
    for l in range(2):
        lane[l] = lane[2 + l] if lane[2 + l] > lane[l] else lane[l]
    return lane[1] if lane[1] > lane[0] else lane[0]


cdef inline real max_of_lanes(real *lane) noexcept nogil:
    """Return the largest of the STEP numbers in `lane`, which are overwritten."""
    cdef Py_ssize_t l
    for l in range(16):  # in halves: one chain of 32 would take as long as hundreds of elements
        lane[l] = lane[16 + l] if lane[16 + l] > lane[l] else lane[l]
    for l in range(8):
        lane[l] = lane[8 + l] if lane[8 + l] > lane[l] else lane[l]
    return max_of_eight(lane)


cdef inline real max_of(const real *x, Py_ssize_t n, real highest) noexcept nogil:
    """Return the largest of `highest` and x[0:n]; NaN is passed over."""
    cdef real lane[STEP]
    cdef Py_ssize_t j, l
    for l in range(STEP):
        lane[l] = highest
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
    return max_of_lanes(lane)


cdef inline void init_max(RowMax *top) noexcept nogil:
    """Set `top` to the maximum of no elements."""
    top.value = -infinity(<double>0)
    top.block = 0


cdef inline void update_max(
    RowMax *top, const real *x, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """Update `top` with the block of the row x[0:n] that begins at `start`."""
    cdef Py_ssize_t m = min(BLOCK, n - start)
    cdef Py_ssize_t w = round_to_step(m)
    cdef real highest = <real>top.value
    cdef real tail[STEP]
    if w:
        highest = max_of(x + start, w, highest)
    if w < m:
        pad(x + start + w, tail, m - w)
        highest = max_of(<const real *>tail, STEP, highest)
    if highest > top.value:
        top.value = highest
        top.block = start


cdef inline RowMax row_max(const real *x, Py_ssize_t n) noexcept nogil:
    """Return the maximum of the row x[0:n]."""
    cdef Py_ssize_t start
    cdef RowMax top
    init_max(&top)
    for start from 0 <= start < n by BLOCK:
        update_max(&top, x, start, n)
    return top


cdef inline Py_ssize_t find_first(const real *x, Py_ssize_t n, real highest) noexcept nogil:
    """Return the first place of `highest` in the block x[0:n], `n` if it is not there."""
    cdef Py_ssize_t j = 0, l
    cdef uint32_t hit32, found
    cdef uint64_t hit64
    while j + STEP <= n:
        hit32 = 0
        hit64 = 0
        for l in range(STEP):  # whether it is in the step takes half the time of where
            if real is float:
                hit32 |= -<uint32_t>(x[j + l] == highest)
            else:
                hit64 |= -<uint64_t>(x[j + l] == highest)
        if hit32 or hit64:
            found = 0
            for l in range(STEP):
                found |= <uint32_t>(x[j + l] == highest) << l
            if found:  # another thread may have written x meanwhile
                return j + lowest_bit(found)
        j += STEP
    while j < n and x[j] != highest:
        j += 1
    return j


# ---- of each row of a batch ----------------------------------------------------------------------


cdef inline void row_maxima(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *highest, real *q
) noexcept nogil:
    """Write the maximum of each of `rows` rows of n >= MIN_BATCH_LENGTH into `highest`.

    `q` is scratch for 48 a row; if n > STEP it begins with what `partial_maxima` writes. The
    maximum of a row with NaN may be NaN.
    """
    if n > STEP:
        partial_maxima(x, rows, n, q)
        x = q
        n = STEP
    row_maxima_of_steps(x, rows, n, highest, q + STEP * rows)


cdef inline void row_maxima_of_steps(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *highest, real *q
) noexcept nogil:
    """Call `row_maxima` for rows of up to STEP elements; `q` is scratch for 16 a row."""
    cdef real *other = q + LANES * rows
    if real is float:
        partial_maxima_of_step(x, rows, n, <out_ptr32>q)
    else:
        partial_maxima_of_step(x, rows, n, <out_ptr64>q)
    reduce_halves(q, other, rows, 4)
    reduce_halves(other, q, rows, 2)
    reduce_halves(q, highest, rows, 1)


cdef inline real larger(real a, real b) noexcept nogil:
    """Return the larger of `a` and `b`, `b` if one is NaN."""
    return a if a > b else b


cdef inline void partial_maxima(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *q
) noexcept nogil:
    """Write STEP partial maxima of each row of n >= STEP elements into `q`."""
    cdef real lane[STEP]
    cdef const real *p
    cdef Py_ssize_t r, j, l
    for r in range(rows):
        p = x + r * n
        for l in range(STEP):  # the last step first: it may overlap the one before
            lane[l] = p[n - STEP + l]
        for j from 0 <= j < n - STEP by STEP:
            for l in range(STEP):
                lane[l] = larger(p[j + l], lane[l])
        for l in range(STEP):
            q[r * STEP + l] = lane[l]


cdef inline void partial_maxima_of_step(
    const real *x, Py_ssize_t rows, Py_ssize_t n, out_ptr q
) noexcept nogil:
    """Write 8 partial maxima of each row of MIN_BATCH_LENGTH <= n <= STEP elements into `q`."""
    cdef real a[LANES]
    cdef real b[LANES]
    cdef const real *p
    cdef const real *o
    cdef out_ptr t
    cdef Py_ssize_t r, l
    for r in range(rows):
        p = x + r * n
        o = p + n - MIN_BATCH_LENGTH  # may overlap the first half
        t = q + r * LANES
        for l in range(LANES):  # an operation each: one loop of all would stay scalar
            a[l] = larger(p[l], p[8 + l])
        for l in range(LANES):
            b[l] = larger(o[l], o[8 + l])
        for l in range(LANES):
            t[l] = larger(a[l], b[l])


cdef inline void reduce_halves(
    const real *a, real *b, Py_ssize_t rows, Py_ssize_t half
) noexcept nogil:
    """Write the larger of the first and the second `half` of each row of `a` into `b`."""
    cdef Py_ssize_t r, l
    for r in range(rows):
        for l in range(half):
            b[r * half + l] = larger(a[2 * r * half + l], a[(2 * r + 1) * half + l])


cdef inline Py_ssize_t place_of_max(
    const real *x, Py_ssize_t n, real highest, const real *lane
) noexcept nogil:
    """Return the first place of the row's maximum `highest`, of n > STEP elements.

    `lane` is what `partial_maxima` wrote. Without branches that random places would mislead.
    """
    cdef uint32_t lanes = 0
    cdef Py_ssize_t l, j, i, first
    for l in range(STEP):
        lanes |= <uint32_t>(lane[l] == highest) << l
    if lanes == 0:  # another thread has written x
        return 0
    first = n - STEP + lowest_bit(lanes)  # if it is in no whole step
    while lanes:
        l = lowest_bit(lanes)
        i = first
        for j from round_to_step(n) - STEP + l >= j >= 0 by STEP:
            i = j if x[j] >= highest else i
        first = min(first, i)
        lanes &= lanes - 1
    return first
