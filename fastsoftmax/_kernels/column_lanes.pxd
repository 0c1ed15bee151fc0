# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The sums of columns: of short ones in one expression, of others step by step in lanes.

The order of sums is that of ``sums.pxd``: a column has the bits of the same numbers in a row.
"""

from libc.string cimport memset

from fastsoftmax._kernels.column_io cimport whole_vectors
from fastsoftmax._kernels.columns cimport LANE_RESTS, LANE_SUMS, PANEL_COLUMNS, plane_pitch
from fastsoftmax._kernels.sums cimport LANES, STEP, DoubleDouble, sum_of, two_sum
from fastsoftmax._kernels.types cimport inlined_double, inlined_void, out_ptr64, real


# ---- sums of at most STEP rows: one expression ---------------------------------------------------


cdef inline inlined_double plane_lane(const real *e, int l, int count) noexcept nogil:
    """Return what lane l of the sum of a column gets."""
    cdef Py_ssize_t pitch = plane_pitch(count)
    if count > 3 * LANES:
        return (e[l * pitch] + e[(LANES + l) * pitch]) + (
            e[(2 * LANES + l) * pitch] + e[(3 * LANES + l) * pitch]
        )
    if count > 2 * LANES:
        return (
            e[l * pitch] + e[(LANES + l) * pitch]
        ) + e[(2 * LANES + l) * pitch]
    if count > LANES:
        return e[l * pitch] + e[(LANES + l) * pitch]
    return e[l * pitch]


cdef inline inlined_double plane_lane_pair(const real *e, int l, int count) noexcept nogil:
    """Return what lanes l and l + 4 get; those from `count` on are 0."""
    if l + LANES // 2 < count:
        return sum_of(plane_lane(e, l, count), plane_lane(e, l + 4, count))
    return plane_lane(e, l, count) if l < count else 0


cdef inline inlined_double plane_sum(const float *e, int count) noexcept nogil:
    """Return the sum of `count` rows, a literal, of one column: the tree without what is 0."""
    cdef Py_ssize_t pitch = plane_pitch(count)
    if count < 3:
        return sum_of(e[0], e[pitch]) if count == 2 else e[0]
    if count == 3:
        return sum_of(sum_of(e[0], e[2 * pitch]), e[pitch])
    return sum_of(
        sum_of(plane_lane_pair(e, 0, count), plane_lane_pair(e, 2, count)),
        sum_of(plane_lane_pair(e, 1, count), plane_lane_pair(e, 3, count)),
    )


cdef inline inlined_void sum_count(
    const real *e, Py_ssize_t width, int count, out_ptr64 high, out_ptr64 low
) noexcept nogil:
    """Write the sum of `count` rows, a literal, of each column; for float32 `low` stays 0."""
    cdef Py_ssize_t c
    cdef int l
    cdef DoubleDouble s
    for c in range(whole_vectors(width)):
        if real is float:
            high[c] = plane_sum(e + c, count)
        else:
            s.high = s.low = 0
            for l in range(min(count, LANES)):
                two_sum(&s, plane_lane(e + c, l, count))
            high[c] = s.high
            low[c] = s.low


cdef inline Py_ssize_t planes_summed(Py_ssize_t n) noexcept nogil:
    """Return how many rows `sum_planes` reads, of which those from n on must be 0."""
    return n if n < LANES - 1 else (n + LANES - 1) // LANES * LANES


cdef inline void sum_planes(
    const real *e, Py_ssize_t n, Py_ssize_t width, out_ptr64 high, out_ptr64 low
) noexcept nogil:
    """Write the sum of n <= STEP rows of each column."""
    if n == 1:
        sum_count(e, width, 1, high, low)
    elif n == 2:
        sum_count(e, width, 2, high, low)
    elif n == 3:
        sum_count(e, width, 3, high, low)
    elif n == 4:
        sum_count(e, width, 4, high, low)
    elif n == 5:
        sum_count(e, width, 5, high, low)
    elif n == 6:
        sum_count(e, width, 6, high, low)
    elif n <= LANES:
        sum_count(e, width, LANES, high, low)
    elif n <= 2 * LANES:
        sum_count(e, width, 2 * LANES, high, low)
    elif n <= 3 * LANES:
        sum_count(e, width, 3 * LANES, high, low)
    else:
        sum_count(e, width, 4 * LANES, high, low)


# ---- sums step by step ---------------------------------------------------------------------------


cdef inline void accumulate_rows(
    const real *a, const real *b, const real *c, const real *d, Py_ssize_t width,
    out_ptr64 high, out_ptr64 low,
) noexcept nogil:
    """Add (a + b) + (c + d) to one lane of each column."""
    cdef Py_ssize_t i
    cdef double quad, total, part
    for i in range(width):
        quad = (a[i] + b[i]) + (c[i] + d[i])
        if real is float:
            high[i] += quad
        else:  # Knuth's TwoSum
            total = high[i] + quad
            part = total - high[i]
            low[i] += (high[i] - (total - part)) + (quad - part)
            high[i] = total


cdef inline const real *row_or_zeros(
    const real *e, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t width, const real *zeros
) noexcept nogil:
    """Return row i of a step of `rows`, zeros behind its end."""
    return e + i * width if i < rows else zeros


cdef inline void accumulate_step(
    const real *e, Py_ssize_t rows, Py_ssize_t width, const real *zeros, double *s
) noexcept nogil:
    """Add a step of `rows` <= STEP rows, `width` apart, to the lanes of each column."""
    cdef double *high = s + LANE_SUMS * PANEL_COLUMNS
    cdef double *low = s + LANE_RESTS * PANEL_COLUMNS
    cdef Py_ssize_t l
    if rows == STEP:  # eight rows are one
        l = LANES * width
        accumulate_rows(e, e + l, e + 2 * l, e + 3 * l, l, <out_ptr64>high, <out_ptr64>low)
        return
    for l in range(min(LANES, rows)):
        accumulate_rows(
            e + l * width,
            row_or_zeros(e, l + 8, rows, width, zeros),
            row_or_zeros(e, l + 16, rows, width, zeros),
            row_or_zeros(e, l + 24, rows, width, zeros),
            width, <out_ptr64>(high + l * width), <out_ptr64>(low + l * width),
        )


cdef inline void zero_lanes(double *s, Py_ssize_t width, real like) noexcept nogil:
    """Set the lanes of each column to 0."""
    memset(s + LANE_SUMS * PANEL_COLUMNS, 0, LANES * width * sizeof(double))
    if real is double:
        memset(s + LANE_RESTS * PANEL_COLUMNS, 0, LANES * width * sizeof(double))


cdef inline void fold_columns(
    const double *a, const double *rest, Py_ssize_t w, Py_ssize_t width, out_ptr64 high,
    out_ptr64 low, real like,
) noexcept nogil:
    """Add the lanes of a block, `w` apart, to the sum of each column."""
    cdef Py_ssize_t c
    cdef int l
    cdef DoubleDouble s
    for c in range(whole_vectors(width)):
        s.high = high[c]
        s.low = low[c]
        if real is float:
            two_sum(
                &s,
                ((a[c] + a[4 * w + c]) + (a[2 * w + c] + a[6 * w + c]))
                + ((a[w + c] + a[5 * w + c]) + (a[3 * w + c] + a[7 * w + c])),
            )
        else:
            for l in range(LANES):
                two_sum(&s, a[l * w + c])
                s.low += rest[l * w + c]
        high[c] = s.high
        low[c] = s.low
