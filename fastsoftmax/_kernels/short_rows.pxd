# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loops of softmax over a batch of rows of fewer than MIN_BATCH_LENGTH elements, transposed.

Plane j of such a batch, ``soa[j * BATCH_ROWS:]``, holds element j of each row; the lanes of a
vector are rows, which fill whole strips. ``row_batch.pxd`` has the loops for longer rows, and the
reason for batches. The order of sums is that of ``sums.pxd``.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS, HIGH, LOW, MAGIC, RATE, RATE_LOW, SHIFT
from fastsoftmax._kernels.exp_scale cimport (
    RAISED,
    Centered,
    CenteredPow2,
    exp_variant,
    lowered,
    scaled_exp,
)
from fastsoftmax._kernels.log1p cimport log1p_ratio
from fastsoftmax._kernels.maxima cimport larger
from fastsoftmax._kernels.normalize cimport reciprocal
from fastsoftmax._kernels.sums cimport LANES, DoubleDouble, sum_of, two_sum
from fastsoftmax._kernels.transpose cimport whole_strips
from fastsoftmax._kernels.types cimport (
    bits32,
    bits64,
    fma,
    from_bits32,
    from_bits64,
    infinity,
    inlined_double,
    inlined_void,
    loop_void,
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)


cdef inline void soa_maxima(
    const real *soa, Py_ssize_t rows, Py_ssize_t n, out_ptr highest
) noexcept nogil:
    """Write the maximum of each row into `highest`; NaN is passed over."""
    cdef Py_ssize_t r, j
    for r in range(whole_strips(rows)):
        highest[r] = -infinity(<real>0)
    for j in range(n):
        for r in range(whole_strips(rows)):
            highest[r] = larger(soa[j * BATCH_ROWS + r], highest[r])


cdef inline loop_void soa_exp(
    const real *soa,
    out_ptr e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *exp_scale,
    exp_variant variant,
) noexcept nogil:
    """Write the exponentials of each plane of `soa` into `e`."""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            e[j * BATCH_ROWS + r] = scaled_exp(
                soa[j * BATCH_ROWS + r], exp_scale[SHIFT * BATCH_ROWS + r],
                exp_scale[RATE * BATCH_ROWS + r], exp_scale[RATE_LOW * BATCH_ROWS + r],
                exp_scale[LOW * BATCH_ROWS + r], exp_scale[HIGH * BATCH_ROWS + r],
                exp_scale[MAGIC * BATCH_ROWS + r], variant,
            )


cdef inline void soa_exclude_max(
    const real *soa, out_ptr e, Py_ssize_t rows, Py_ssize_t n, const real *highest
) noexcept nogil:
    """Set the exponential of each row's first maximum, in `e`, to 0."""
    cdef real unmatched[BATCH_ROWS]  # NaN, which nothing equals, once that is met
    cdef real inf = infinity(<real>0)
    cdef uint32_t hit32
    cdef uint64_t hit64
    cdef Py_ssize_t r, j
    for r in range(whole_strips(rows)):
        # +inf stays in the sum and makes it NaN
        unmatched[r] = highest[r] if highest[r] < inf else inf - inf
    for j in range(n):
        for r in range(whole_strips(rows)):  # masks: of a condition gcc makes more instructions
            if real is float:
                hit32 = -<uint32_t>(soa[j * BATCH_ROWS + r] == unmatched[r])
                e[j * BATCH_ROWS + r] = from_bits32(bits32(e[j * BATCH_ROWS + r]) & ~hit32)
                unmatched[r] = from_bits32(bits32(unmatched[r]) | hit32)
            else:
                hit64 = -<uint64_t>(soa[j * BATCH_ROWS + r] == unmatched[r])
                e[j * BATCH_ROWS + r] = from_bits64(bits64(e[j * BATCH_ROWS + r]) & ~hit64)
                unmatched[r] = from_bits64(bits64(unmatched[r]) | hit64)


cdef inline void soa_sums(
    const real *e, Py_ssize_t rows, Py_ssize_t n, out_ptr64 high, out_ptr64 low
) noexcept nogil:
    """Write the sum of each row as `high`, for float64 with `low`; planes from `n` on are 0."""
    if n == 2:
        soa_add(e, rows, 2, high, low)
    elif n == 3:
        soa_add(e, rows, 3, high, low)
    elif n <= LANES // 2:
        soa_add(e, rows, LANES // 2, high, low)
    elif n <= LANES:
        soa_add(e, rows, LANES, high, low)
    else:
        soa_add(e, rows, 2 * LANES, high, low)


cdef inline inlined_double soa_lane(const real *e, int l, int count) noexcept nogil:
    """Return what lane `l` of the sum of row ``e[0]`` gets, of `count` planes."""
    if count > LANES:
        return e[l * BATCH_ROWS] + e[(LANES + l) * BATCH_ROWS]
    return e[l * BATCH_ROWS]


cdef inline inlined_double soa_lane_pair(const real *e, int l, int count) noexcept nogil:
    """Return what lanes `l` and `l` + 4 get, of `count` planes."""
    if count > LANES // 2:
        return sum_of(soa_lane(e, l, count), soa_lane(e, l + 4, count))
    return e[l * BATCH_ROWS]


cdef inline inlined_double soa_tree(const real *e, int count) noexcept nogil:
    """Return the sum of row ``e[0]`` of `count` planes, a literal."""
    if count == 2:
        return sum_of(e[0], e[BATCH_ROWS])
    if count == 3:
        return sum_of(sum_of(e[0], e[2 * BATCH_ROWS]), e[BATCH_ROWS])
    return sum_of(
        sum_of(soa_lane_pair(e, 0, count), soa_lane_pair(e, 2, count)),
        sum_of(soa_lane_pair(e, 1, count), soa_lane_pair(e, 3, count)),
    )


cdef inline inlined_void soa_add(
    const real *e, Py_ssize_t rows, int count, out_ptr64 high, out_ptr64 low
) noexcept nogil:
    """Call `soa_sums` for `count` planes, a literal."""
    cdef Py_ssize_t r
    cdef int l
    cdef DoubleDouble s
    for r in range(whole_strips(rows)):
        s.high = s.low = 0
        if real is float:
            s.high = soa_tree(e + r, count)
        else:
            for l in range(min(count, LANES)):
                two_sum(&s, soa_lane(e + r, l, count))
        high[r] = s.high
        if real is double:
            low[r] = s.low


cdef inline void soa_reciprocals(
    const double *s, const double *rest, Py_ssize_t rows, real *high, real *low
) noexcept nogil:
    """Write `raised` / (s + rest) of each row as `high`, `low`; NaN where the sum is infinite."""
    cdef Py_ssize_t r
    for r in range(whole_strips(rows)):
        reciprocal(s[r], <double>0 if real is float else rest[r], high + r, low + r)


cdef inline void soa_log1p_sums(
    const double *s, const double *rest, const real *max_e, Py_ssize_t rows, out_ptr64 logs
) noexcept nogil:
    """Write log1p((s + rest) / max_e) of each row into `logs`."""
    cdef Py_ssize_t r
    for r in range(whole_strips(rows)):
        logs[r] = log1p_ratio(s[r] if real is float else s[r] + rest[r], max_e[r])


cdef inline void soa_scale(
    out_ptr e, Py_ssize_t rows, Py_ssize_t n, const real *high, const real *low
) noexcept nogil:
    """Multiply each row of `e` by its `high` + `low`, rounded once (nearly) and `lowered`."""
    cdef real v
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            v = e[j * BATCH_ROWS + r]
            e[j * BATCH_ROWS + r] = lowered(fma(v, high[r], v * low[r]), RAISED)


cdef inline void soa_log_softmax(
    out_ptr soa,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """Make each row of `soa` (row - highest) * inverse - log_sum."""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            soa[j * BATCH_ROWS + r] = (
                (soa[j * BATCH_ROWS + r] - highest[r]) * inverse[r] - log_sum[r]
            )


# ---- built into one function with the loops between them, these keep vectors in memory -----------


cdef inline noinline_void soa_exp_centered(
    const real *soa, real *e, Py_ssize_t rows, Py_ssize_t n, const real *exp_scale
) noexcept nogil:
    """Call `soa_exp` for rows with a shift each, by the temperatures of `exp_scale`."""
    if real is float:
        if exp_scale[RATE * BATCH_ROWS] != 0:
            soa_exp(soa, <out_ptr32>e, rows, n, exp_scale, <CenteredPow2>0)
        else:
            soa_exp(soa, <out_ptr32>e, rows, n, exp_scale, <Centered>0)
    elif exp_scale[RATE * BATCH_ROWS] != 0:
        soa_exp(soa, <out_ptr64>e, rows, n, exp_scale, <CenteredPow2>0)
    else:
        soa_exp(soa, <out_ptr64>e, rows, n, exp_scale, <Centered>0)


cdef inline noinline_void soa_log1p_excluding_max(
    const real *soa, real *e, Py_ssize_t rows, Py_ssize_t n, const real *highest,
    const real *max_e, double *total, double *logs,
) noexcept nogil:
    """Write the sum of each row's exponentials but its maximum's, and log1p of it by that."""
    cdef double low[BATCH_ROWS]
    cdef Py_ssize_t r
    if real is float:
        soa_exclude_max(soa, <out_ptr32>e, rows, n, highest)
    else:
        soa_exclude_max(soa, <out_ptr64>e, rows, n, highest)
    soa_sums(<const real *>e, rows, n, <out_ptr64>total, <out_ptr64>low)
    soa_log1p_sums(total, low, max_e, rows, <out_ptr64>logs)
    if real is double:
        for r in range(whole_strips(rows)):
            total[r] += low[r]
