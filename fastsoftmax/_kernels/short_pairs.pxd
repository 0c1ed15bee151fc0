# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Divergences and weighted sums of a batch of rows of at most MAX_PAIR_LENGTH elements.

Both rows lie in planes of float64: plane j, ``soa[j * PAIR_ROWS:]``, holds element j of each row.
Sums have the order, and results the bits, of rows one by one (``weighted_sums.pxd``).
"""

from libc.stdint cimport uint64_t

from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.maxima cimport larger
from fastsoftmax._kernels.row_sums cimport is_finite
from fastsoftmax._kernels.sums cimport LANES
from fastsoftmax._kernels.types cimport (
    bits64,
    from_bits64,
    infinity,
    loop_void,
    noinline_void,
    not_a_number,
    out_ptr64,
    real,
)
from fastsoftmax._kernels.weighted_sums cimport log_of_weighted

cdef enum:
    MAX_PAIR_LENGTH = 32  # three arrays of that leave the stack room
    PAIR_ROWS = 32  # of a batch


cdef inline noinline_void load_planes(
    const real *x, Py_ssize_t rows, Py_ssize_t n, out_ptr64 soa
) noexcept nogil:
    """soa[j] = element j of each row, 0 behind the rows"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(rows):
            soa[j * PAIR_ROWS + r] = x[r * n + j]
        for r in range(rows, PAIR_ROWS):
            soa[j * PAIR_ROWS + r] = 0


cdef inline noinline_void plane_maxima(
    const double *soa, Py_ssize_t n, out_ptr64 highest
) noexcept nogil:
    """Write the maximum of each row; NaN is passed over."""
    cdef Py_ssize_t r, j
    for r in range(PAIR_ROWS):
        highest[r] = -infinity(<double>0)
    for j in range(n):
        for r in range(PAIR_ROWS):
            highest[r] = larger(soa[j * PAIR_ROWS + r], highest[r])


cdef inline loop_void plane_weights(
    const double *soa, Py_ssize_t n, const double *highest, const double *inverse, out_ptr64 e
) noexcept nogil:
    """e = exp((x - highest) / T)"""
    cdef double low = exp_underflow_bound(<double>0)
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(PAIR_ROWS):
            e[j * PAIR_ROWS + r] = exp_nonpositive(
                (soa[j * PAIR_ROWS + r] - highest[r]) * inverse[r], low
            )


cdef inline noinline_void plane_sums(
    const double *e, Py_ssize_t n, out_ptr64 sum
) noexcept nogil:
    """Add the planes as `sum_lanes` adds a row."""
    cdef double lanes[LANES * PAIR_ROWS]
    cdef Py_ssize_t r, j
    cdef Py_ssize_t b = PAIR_ROWS
    cdef Py_ssize_t whole = n & ~(<Py_ssize_t>LANES - 1)
    for r in range(LANES * PAIR_ROWS):
        lanes[r] = 0
    for j from 0 <= j < whole by LANES:
        for r in range(LANES * PAIR_ROWS):
            lanes[r] += e[j * PAIR_ROWS + r]
    for r in range(PAIR_ROWS):
        sum[r] = ((lanes[r] + lanes[4 * b + r]) + (lanes[2 * b + r] + lanes[6 * b + r])) + (
            (lanes[b + r] + lanes[5 * b + r]) + (lanes[3 * b + r] + lanes[7 * b + r])
        )
        lanes[r] = 0
    for j in range(whole, n):
        for r in range(PAIR_ROWS):
            lanes[r] += e[j * PAIR_ROWS + r]
    for r in range(PAIR_ROWS):
        sum[r] += lanes[r]


cdef inline noinline_void replace_max(
    const double *soa, Py_ssize_t n, const double *highest, double value, out_ptr64 e
) noexcept nogil:
    """Make e `value` where a row's first maximum is."""
    cdef double unmatched[PAIR_ROWS]  # NaN, which nothing equals, once that is met
    cdef uint64_t hit
    cdef Py_ssize_t r, j
    for r in range(PAIR_ROWS):
        unmatched[r] = highest[r]
    for j in range(n):
        for r in range(PAIR_ROWS):  # masks: of a condition gcc makes more instructions
            hit = -<uint64_t>(soa[j * PAIR_ROWS + r] == unmatched[r])
            e[j * PAIR_ROWS + r] = from_bits64(
                (bits64(e[j * PAIR_ROWS + r]) & ~hit) | (bits64(value) & hit)
            )
            unmatched[r] = from_bits64(bits64(unmatched[r]) | hit)


# ---- divergence ----------------------------------------------------------------------------------


cdef inline noinline_void weigh_planes(
    const double *x, const double *y, Py_ssize_t n, const double *highest, const double *highest_y,
    const double *inverse, out_ptr64 e,
) noexcept nogil:
    """Multiply e by the differences, as `weigh_differences` does."""
    cdef double d, w
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(PAIR_ROWS):
            w = e[j * PAIR_ROWS + r]
            d = (x[j * PAIR_ROWS + r] - highest[r]) * inverse[r] - (
                y[j * PAIR_ROWS + r] - highest_y[r]
            ) * inverse[r]
            d = infinity(<double>0) if y[j * PAIR_ROWS + r] == -infinity(<double>0) else d
            d = w * d
            e[j * PAIR_ROWS + r] = 0 if w == 0 else d


cdef inline noinline_void short_divergences(
    const double *soa, const double *soa2, Py_ssize_t rows, Py_ssize_t n, const double *inverse,
    double *results,
) noexcept nogil:
    """Write the divergences of at most PAIR_ROWS rows; `inverse` is 1/T, above 0 and finite."""
    cdef double e[MAX_PAIR_LENGTH * PAIR_ROWS]
    cdef double highest[PAIR_ROWS]
    cdef double highest2[PAIR_ROWS]
    cdef double rest[PAIR_ROWS]
    cdef double rest2[PAIR_ROWS]
    cdef double mean[PAIR_ROWS]
    cdef Py_ssize_t r
    plane_maxima(soa, n, <out_ptr64>highest)
    plane_maxima(soa2, n, <out_ptr64>highest2)
    plane_weights(soa, n, highest, inverse, <out_ptr64>e)
    replace_max(soa, n, highest, 0, <out_ptr64>e)
    plane_sums(<const double *>e, n, <out_ptr64>rest)
    replace_max(soa, n, highest, 1, <out_ptr64>e)
    weigh_planes(
        soa, soa2, n, highest, highest2, inverse, <out_ptr64>e
    )
    plane_sums(<const double *>e, n, <out_ptr64>mean)
    plane_weights(soa2, n, highest2, inverse, <out_ptr64>e)
    replace_max(soa2, n, highest2, 0, <out_ptr64>e)
    plane_sums(<const double *>e, n, <out_ptr64>rest2)
    for r in range(PAIR_ROWS):
        mean[r] = mean[r] / (1 + rest[r])
        rest[r] = log1p_nonneg(rest[r])
        rest2[r] = log1p_nonneg(rest2[r])
    for r in range(rows):
        results[r] = mean[r] - (rest[r] - rest2[r])
        if results[r] < 0:
            results[r] = 0
        if not is_finite(highest[r]) or not is_finite(highest2[r]):
            results[r] = not_a_number(<double>0)


# ---- weighted sums -------------------------------------------------------------------------------


cdef inline noinline_void mask_planes(
    const double *b, Py_ssize_t n, out_ptr64 x
) noexcept nogil:
    """Make x -inf where b is 0."""
    cdef double v
    cdef Py_ssize_t j
    for j in range(n * PAIR_ROWS):
        v = x[j]  # read in any case: a vector
        x[j] = -infinity(<double>0) if b[j] == 0 else v


cdef inline noinline_void multiply_planes(
    out_ptr64 x, const double *b, Py_ssize_t n, const double *highest, out_ptr64 e
) noexcept nogil:
    """Multiply e by b, as `multiply_weights` does, for maxima that are finite."""
    cdef double product, v, w
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(PAIR_ROWS):
            v = x[j * PAIR_ROWS + r]
            w = b[j * PAIR_ROWS + r]
            product = e[j * PAIR_ROWS + r] * w
            product = 0 if v == -infinity(<double>0) else product
            product = 0 if w == 0 else product
            x[j * PAIR_ROWS + r] = product if v == highest[r] else 0
            e[j * PAIR_ROWS + r] = 0 if v == highest[r] else product


cdef inline noinline_void short_weighted_sums(
    double *soa, const double *b, Py_ssize_t rows, Py_ssize_t n, double *results, double *signs,
    bint *done,
) noexcept nogil:
    """Write logarithms and signs of at most PAIR_ROWS sums.

    Where a maximum is not finite, `done` becomes False, and nothing is written.
    """
    cdef double e[MAX_PAIR_LENGTH * PAIR_ROWS]
    cdef double highest[PAIR_ROWS]
    cdef double largest[PAIR_ROWS]
    cdef double rest[PAIR_ROWS]
    cdef Py_ssize_t r
    for r in range(PAIR_ROWS):
        rest[r] = 1
    mask_planes(b, n, <out_ptr64>soa)
    plane_maxima(<const double *>soa, n, <out_ptr64>highest)
    plane_weights(<const double *>soa, n, highest, <const double *>rest, <out_ptr64>e)
    multiply_planes(<out_ptr64>soa, b, n, highest, <out_ptr64>e)
    plane_sums(<const double *>soa, n, <out_ptr64>largest)
    plane_sums(<const double *>e, n, <out_ptr64>rest)
    for r in range(rows):
        done[r] = is_finite(highest[r])
        if done[r]:
            log_of_weighted(highest[r], largest[r], rest[r], results + r, signs + r)
