# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loops of softmax over rows of a panel: lanes are columns, one below the other in scratch.

The order of sums is that of ``row.pxd``: a column has the bits of the same numbers in a row.
Numbers that each column has are vectors of scratch, PANEL_COLUMNS apart: `v` has those of the
elements' type, `s` those of float64.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastsoftmax._kernels.batch_scale cimport HIGH, LOW, MAGIC, RATE, SCALE_FIELDS, SHIFT
from fastsoftmax._kernels.column_io cimport whole_vectors
from fastsoftmax._kernels.exp_scale cimport (
    CENTERED,
    CLAMPED,
    Centered,
    CenteredPow2,
    Clamped,
    ExpVariant,
    exp_variant,
    scaled_exp,
)
from fastsoftmax._kernels.log1p cimport log1p_ratio
from fastsoftmax._kernels.maxima cimport larger
from fastsoftmax._kernels.normalize cimport reciprocal
from fastsoftmax._kernels.sums cimport LANES, STEP, DoubleDouble, two_sum
from fastsoftmax._kernels.types cimport (
    bits32,
    bits64,
    fma,
    from_bits32,
    from_bits64,
    infinity,
    out_ptr,
    out_ptr64,
    real,
)

cdef enum:
    PANEL_COLUMNS = 256  # most columns of a panel
    PLANE_PITCH = 128  # elements from a row to the next of columns of at most STEP elements

cdef enum:  # vectors of `v`
    HIGHEST  # largest element
    PLACE  # row of the first such one
    UNMATCHED  # largest element, NaN once it has been met
    INVERSE  # 1 / temperature
    FACTOR  # of the exponentials, or the logarithm of their sum
    FACTOR_LOW  # what FACTOR lacks
    ZEROS
    SPARE  # a row of the array behind which nothing can be read
    EXP_SCALE  # SCALE_FIELDS of them
    VECTORS = EXP_SCALE + SCALE_FIELDS

cdef enum:  # vectors of `s`
    SUM
    REST  # what SUM lacks
    LOGS
    LANE_SUMS  # LANES of them, side by side
    LANE_RESTS = LANE_SUMS + LANES
    DOUBLE_VECTORS = LANE_RESTS + LANES


# ---- maxima --------------------------------------------------------------------------------------


cdef inline void max_row(
    const real *x, Py_ssize_t width, out_ptr e, out_ptr highest
) noexcept nogil:
    """Copy x to e, and make `highest` the larger of each element and that; NaN is passed over."""
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        highest[c] = larger(x[c], highest[c])
        e[c] = x[c]


cdef inline void raise_maxima(const real *x, Py_ssize_t width, out_ptr highest) noexcept nogil:
    """Make `highest` the larger of each element of x and that; NaN is passed over."""
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        highest[c] = larger(x[c], highest[c])


# ---- exponentials --------------------------------------------------------------------------------


cdef inline void exp_row(
    const real *x, Py_ssize_t width, out_ptr e, const real *exp_scale, exp_variant variant
) noexcept nogil:
    """Write the exponentials of x by one `exp_scale` to e."""
    cdef real rate = exp_scale[RATE]
    cdef real low = exp_scale[LOW]
    cdef real high = exp_scale[HIGH]
    cdef real magic = exp_scale[MAGIC]
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        e[c] = scaled_exp(x[c], <real>0, rate, low, high, magic, variant)


cdef inline void exp_max_row(
    const real *x, Py_ssize_t width, out_ptr e, out_ptr kept, out_ptr highest, out_ptr place,
    real row, const real *exp_scale, exp_variant variant, bint keep, bint find,
) noexcept nogil:
    """Write the exponentials of x to e, and raise `highest` to x; `keep` and `find` are literals.

    If `keep`, copy x to `kept`; if `find`, make `place` `row` where `highest` rises.
    """
    cdef real rate = exp_scale[RATE]
    cdef real low = exp_scale[LOW]
    cdef real high = exp_scale[HIGH]
    cdef real magic = exp_scale[MAGIC]
    cdef uint32_t hit32
    cdef uint64_t hit64
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):  # masks: of a condition gcc would make a branch
        if find:
            if real is float:
                hit32 = -<uint32_t>(x[c] > highest[c])
                place[c] = from_bits32((bits32(place[c]) & ~hit32) | (bits32(row) & hit32))
            else:
                hit64 = -<uint64_t>(x[c] > highest[c])
                place[c] = from_bits64((bits64(place[c]) & ~hit64) | (bits64(row) & hit64))
        highest[c] = larger(x[c], highest[c])
        if keep:
            kept[c] = x[c]
        e[c] = scaled_exp(x[c], <real>0, rate, low, high, magic, variant)


cdef inline void exp_across(
    const real *x, Py_ssize_t width, out_ptr e, const real *exp_scale, exp_variant variant
) noexcept nogil:
    """Write the exponentials of x, each by its column's `exp_scale`, to e."""
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        e[c] = scaled_exp(
            x[c], exp_scale[SHIFT * PANEL_COLUMNS + c], exp_scale[RATE * PANEL_COLUMNS + c],
            exp_scale[LOW * PANEL_COLUMNS + c], exp_scale[HIGH * PANEL_COLUMNS + c],
            exp_scale[MAGIC * PANEL_COLUMNS + c], variant,
        )


cdef inline void exp_columns(
    const real *x, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t pitch, out_ptr e,
    const real *exp_scale, ExpVariant variant,
) noexcept nogil:
    """Write the exponentials of `rows` rows of x, each by its column's `exp_scale`, to e."""
    cdef Py_ssize_t i
    for i in range(rows):
        if variant == CLAMPED:
            exp_across(x + i * pitch, width, e + i * pitch, exp_scale, <Clamped>0)
        elif variant == CENTERED:
            exp_across(x + i * pitch, width, e + i * pitch, exp_scale, <Centered>0)
        else:
            exp_across(x + i * pitch, width, e + i * pitch, exp_scale, <CenteredPow2>0)


# ---- the largest element's own term --------------------------------------------------------------


cdef inline void exclude_places(
    real *e, Py_ssize_t pitch, Py_ssize_t columns, const real *place
) noexcept nogil:
    """Make element `place`, a number of rows, of each column of e 0."""
    cdef Py_ssize_t c
    for c in range(columns):
        e[<Py_ssize_t>place[c] * pitch + c] = 0


cdef inline void mark_unmatched(
    const real *highest, Py_ssize_t width, out_ptr unmatched
) noexcept nogil:
    """Copy `highest`, but NaN for +inf, which stays in the sum and makes it NaN."""
    cdef real inf = infinity(<real>0)
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        unmatched[c] = highest[c] if highest[c] < inf else inf - inf


cdef inline void exclude_max_in_row(
    const real *x, Py_ssize_t width, out_ptr e, out_ptr unmatched
) noexcept nogil:
    """Make e 0 where x equals `unmatched`, and `unmatched` there NaN, which nothing equals."""
    cdef uint32_t hit32
    cdef uint64_t hit64
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):  # masks: of a condition gcc would make a branch
        if real is float:
            hit32 = -<uint32_t>(x[c] == unmatched[c])
            e[c] = from_bits32(bits32(e[c]) & ~hit32)
            unmatched[c] = from_bits32(bits32(unmatched[c]) | hit32)
        else:
            hit64 = -<uint64_t>(x[c] == unmatched[c])
            e[c] = from_bits64(bits64(e[c]) & ~hit64)
            unmatched[c] = from_bits64(bits64(unmatched[c]) | hit64)


# ---- sums of at most STEP rows: one expression ---------------------------------------------------


cdef inline real plane_lane(const real *e, int l, int count) noexcept nogil:
    """Return what lane l of the sum of a column gets."""
    if count > 3 * LANES:
        return (e[l * PLANE_PITCH] + e[(LANES + l) * PLANE_PITCH]) + (
            e[(2 * LANES + l) * PLANE_PITCH] + e[(3 * LANES + l) * PLANE_PITCH]
        )
    if count > 2 * LANES:
        return (
            e[l * PLANE_PITCH] + e[(LANES + l) * PLANE_PITCH]
        ) + e[(2 * LANES + l) * PLANE_PITCH]
    if count > LANES:
        return e[l * PLANE_PITCH] + e[(LANES + l) * PLANE_PITCH]
    return e[l * PLANE_PITCH]


cdef inline double plane_lane_pair(const real *e, int l, int count) noexcept nogil:
    """Return what lanes l and l + 4 get."""
    if count > LANES // 2:
        return <double>plane_lane(e, l, count) + <double>plane_lane(e, l + 4, count)
    return e[l * PLANE_PITCH]


cdef inline void sum_count(
    const real *e, Py_ssize_t width, int count, out_ptr64 high, out_ptr64 low
) noexcept nogil:
    """Write the sum of `count` rows, a literal, of each column."""
    cdef Py_ssize_t c
    cdef int l
    cdef DoubleDouble s
    for c in range(whole_vectors(width)):
        s.high = s.low = 0
        if real is float:
            s.high = (plane_lane_pair(e + c, 0, count) + plane_lane_pair(e + c, 2, count)) + (
                plane_lane_pair(e + c, 1, count) + plane_lane_pair(e + c, 3, count)
            )
        else:
            for l in range(min(count, LANES)):
                two_sum(&s, plane_lane(e + c, l, count))
        high[c] = s.high
        low[c] = s.low


cdef inline Py_ssize_t planes_summed(Py_ssize_t n) noexcept nogil:
    """Return how many rows `sum_planes` reads, of which those from n on must be 0."""
    return LANES // 2 if n <= LANES // 2 else (n + LANES - 1) // LANES * LANES


cdef inline void sum_planes(
    const real *e, Py_ssize_t n, Py_ssize_t width, out_ptr64 high, out_ptr64 low
) noexcept nogil:
    """Write the sum of n <= STEP rows of each column."""
    if n <= LANES // 2:
        sum_count(e, width, LANES // 2, high, low)
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


# ---- results -------------------------------------------------------------------------------------


cdef inline void column_reciprocals(
    const double *sums, const double *rests, Py_ssize_t width, real *high, real *low
) noexcept nogil:
    """Make high + low = 1 / (sum + rest), NaN if that is infinite."""
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        reciprocal(sums[c], rests[c], high + c, low + c)


cdef inline void column_logs(
    const double *sums, const double *rests, const real *max_e, Py_ssize_t width, out_ptr64 logs
) noexcept nogil:
    """Write log1p((sum + rest) / max_e), the logarithm of all by the largest one's own term."""
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        logs[c] = log1p_ratio(sums[c] + rests[c], max_e[c])


cdef inline void scale_row(
    const real *e, Py_ssize_t columns, out_ptr y, const real *high, const real *low
) noexcept nogil:
    """Write e * (high + low), rounded once (nearly), to y."""
    cdef Py_ssize_t c
    for c in range(columns):
        y[c] = fma(e[c], high[c], e[c] * low[c])


cdef inline void difference_row(
    const real *x, Py_ssize_t columns, out_ptr y, const real *highest, const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """Write (x - highest) * inverse - log_sum to y."""
    cdef Py_ssize_t c
    for c in range(columns):
        y[c] = (x[c] - highest[c]) * inverse[c] - log_sum[c]
