# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loops of softmax over rows of a panel: lanes are columns, one below the other in scratch.

``column_lanes.pxd`` has those of the sums. Numbers that each column has are vectors of scratch,
PANEL_COLUMNS apart: `v` has those of the elements' type, `s` those of float64.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.batch_scale cimport HIGH, LOW, MAGIC, RATE, RATE_LOW, SCALE_FIELDS, SHIFT
from fastsoftmax._kernels.column_io cimport STREAMS, whole_vectors
from fastsoftmax._kernels.exp_scale cimport (
    CENTERED,
    CLAMPED,
    RAISED,
    Centered,
    CenteredPow2,
    Clamped,
    ExpVariant,
    exp_variant,
    lowered,
    scaled_exp,
)
from fastsoftmax._kernels.log1p cimport (
    log1p_ratio,
    log1p_ratio_arguments,
    log1p_ratio_series,
)
from fastsoftmax._kernels.maxima cimport larger
from fastsoftmax._kernels.normalize cimport reciprocal
from fastsoftmax._kernels.sums cimport LANES
from fastsoftmax._kernels.types cimport (
    bits32,
    bits64,
    fma,
    from_bits32,
    from_bits64,
    infinity,
    inlined_void,
    loop_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)

cdef enum:
    PANEL_COLUMNS = 256  # most columns of a panel
    SHORT_PANEL = 128  # most columns of a panel of more than STREAMS, at most STEP elements
    MIN_PLACED_ROWS = 6  # rows from which on largest elements are remembered, not looked for

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


cdef inline Py_ssize_t plane_pitch(Py_ssize_t n) noexcept nogil:
    """Return how many elements of scratch lie between rows of columns of n <= STEP elements.

    Known to the compiler where n is a literal: loops need no checks for overlap.
    """
    return PANEL_COLUMNS + 32 if n <= STREAMS else SHORT_PANEL


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


cdef inline loop_void exp_row(
    const real *x, Py_ssize_t width, out_ptr e, const real *exp_scale, exp_variant variant
) noexcept nogil:
    """Write the exponentials of x by one `exp_scale` to e."""
    cdef real rate = exp_scale[RATE]
    cdef real rate_low = exp_scale[RATE_LOW]
    cdef real low = exp_scale[LOW]
    cdef real high = exp_scale[HIGH]
    cdef real magic = exp_scale[MAGIC]
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        e[c] = scaled_exp(x[c], <real>0, rate, rate_low, low, high, magic, variant)


cdef inline loop_void exp_max_row(
    const real *x, Py_ssize_t width, out_ptr e, out_ptr kept, out_ptr highest, out_ptr place,
    real row, const real *exp_scale, exp_variant variant, bint keep,
) noexcept nogil:
    """Write the exponentials of x to e, raise `highest` to x, make `place` `row` where it rises.

    If `keep`, a literal, copy x to `kept`.
    """
    cdef real rate = exp_scale[RATE]
    cdef real rate_low = exp_scale[RATE_LOW]
    cdef real low = exp_scale[LOW]
    cdef real high = exp_scale[HIGH]
    cdef real magic = exp_scale[MAGIC]
    cdef uint32_t hit32
    cdef uint64_t hit64
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):  # masks: of a condition gcc would make a branch
        if real is float:
            hit32 = -<uint32_t>(x[c] > highest[c])
            place[c] = from_bits32((bits32(place[c]) & ~hit32) | (bits32(row) & hit32))
        else:
            hit64 = -<uint64_t>(x[c] > highest[c])
            place[c] = from_bits64((bits64(place[c]) & ~hit64) | (bits64(row) & hit64))
        highest[c] = larger(x[c], highest[c])
        if keep:
            kept[c] = x[c]
        e[c] = scaled_exp(x[c], <real>0, rate, rate_low, low, high, magic, variant)


cdef inline loop_void exp_across(
    const real *x, Py_ssize_t width, out_ptr e, const real *exp_scale, exp_variant variant
) noexcept nogil:
    """Write the exponentials of x, each by its column's `exp_scale`, to e."""
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        e[c] = scaled_exp(
            x[c], exp_scale[SHIFT * PANEL_COLUMNS + c], exp_scale[RATE * PANEL_COLUMNS + c],
            exp_scale[RATE_LOW * PANEL_COLUMNS + c], exp_scale[LOW * PANEL_COLUMNS + c],
            exp_scale[HIGH * PANEL_COLUMNS + c], exp_scale[MAGIC * PANEL_COLUMNS + c], variant,
        )


cdef inline loop_void exp_columns(
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


cdef inline inlined_void exclude_max_of(
    const real *x, Py_ssize_t pitch, int count, Py_ssize_t width, out_ptr e, out_ptr highest,
    out_ptr max_e,
) noexcept nogil:
    """Write the maximum of each column of `count` rows, a literal, and make its own e 0.

    That goes to `max_e`.
    """
    cdef Py_ssize_t e_pitch = plane_pitch(count)
    cdef real top
    cdef uint32_t hit32, found32, own32
    cdef uint64_t hit64, found64, own64
    cdef Py_ssize_t c
    cdef int j
    for c in range(whole_vectors(width)):  # masks: of a condition gcc would make a branch
        top = -infinity(<real>0)
        for j in range(count):
            top = larger(x[j * pitch + c], top)
        highest[c] = top
        if real is float:
            found32 = own32 = 0
            for j in range(count):
                hit32 = -<uint32_t>(x[j * pitch + c] == top) & ~found32
                found32 |= hit32
                own32 |= bits32(e[j * e_pitch + c]) & hit32
                e[j * e_pitch + c] = from_bits32(bits32(e[j * e_pitch + c]) & ~hit32)
            max_e[c] = from_bits32(own32)
        else:
            found64 = own64 = 0
            for j in range(count):
                hit64 = -<uint64_t>(x[j * pitch + c] == top) & ~found64
                found64 |= hit64
                own64 |= bits64(e[j * e_pitch + c]) & hit64
                e[j * e_pitch + c] = from_bits64(bits64(e[j * e_pitch + c]) & ~hit64)
            max_e[c] = from_bits64(own64)


cdef inline void exclude_max_of_few(
    const real *x, Py_ssize_t pitch, Py_ssize_t n, Py_ssize_t width, out_ptr e, out_ptr highest,
    out_ptr max_e,
) noexcept nogil:
    """Call `exclude_max_of` for n < MIN_PLACED_ROWS rows."""
    if n == 1:
        exclude_max_of(x, pitch, 1, width, e, highest, max_e)
    elif n == 2:
        exclude_max_of(x, pitch, 2, width, e, highest, max_e)
    elif n == 3:
        exclude_max_of(x, pitch, 3, width, e, highest, max_e)
    elif n == 4:
        exclude_max_of(x, pitch, 4, width, e, highest, max_e)
    else:
        exclude_max_of(x, pitch, 5, width, e, highest, max_e)


cdef inline void split_max_of(
    const float *x, Py_ssize_t pitch, int count, Py_ssize_t width, const float *e,
    out_ptr32 highest, out_ptr32 max_e, out_ptr64 rest,
) noexcept nogil:
    """Write the maximum of each column of `count` rows, 2 or 3, its own e, and the others' sum.

    Exponentials rise with x: the largest is the maximum's. What two others add up to has no order.
    """
    cdef Py_ssize_t e_pitch = plane_pitch(count)
    cdef float top, small, large, other, middle
    cdef Py_ssize_t c
    cdef int j
    for c in range(whole_vectors(width)):
        top = -infinity(<float>0)
        for j in range(count):
            top = larger(x[j * pitch + c], top)
        highest[c] = top
        small = e[e_pitch + c] if e[e_pitch + c] < e[c] else e[c]  # no NaN is lost
        large = larger(e[c], e[e_pitch + c])
        if count == 2:
            max_e[c] = large
            rest[c] = small
        else:
            other = e[2 * e_pitch + c]
            middle = other if other < large else large
            max_e[c] = larger(large, other)
            rest[c] = <double>small + <double>middle


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


# ---- results -------------------------------------------------------------------------------------


cdef inline void column_reciprocals(
    const double *sums, const double *rests, Py_ssize_t width, real *high, real *low
) noexcept nogil:
    """Make high + low = `raised` / (sum + rest), NaN if that is infinite.

    `rests` is NULL, as a literal, where all are 0.
    """
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        reciprocal(sums[c], rests[c] if rests != NULL else 0, high + c, low + c)


cdef inline void column_logs(
    const double *sums, const double *rests, const real *max_e, Py_ssize_t width, out_ptr64 logs,
    out_ptr64 n,
) noexcept nogil:
    """Write log1p((sum + rest) / max_e), the logarithm of all by the largest one's own term.

    `n` is scratch. In float32 each half is a loop, as fewer operations wait for the divisions.
    """
    cdef Py_ssize_t c
    if real is float:
        for c in range(whole_vectors(width)):
            logs[c] = log1p_ratio_arguments(sums[c] + rests[c], max_e[c], n + c)
        for c in range(whole_vectors(width)):
            logs[c] = log1p_ratio_series(logs[c], n[c])
    else:
        for c in range(whole_vectors(width)):
            logs[c] = log1p_ratio(sums[c] + rests[c], max_e[c])


cdef inline void scale_row(
    const real *e, Py_ssize_t columns, out_ptr y, const real *high, const real *low
) noexcept nogil:
    """Write e * (high + low), rounded once (nearly) and `lowered`, to y."""
    cdef Py_ssize_t c
    for c in range(columns):
        y[c] = lowered(fma(e[c], high[c], e[c] * low[c]), RAISED)


cdef inline void difference_row(
    const real *x, Py_ssize_t columns, out_ptr y, const real *highest, const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """Write (x - highest) * inverse - log_sum to y."""
    cdef Py_ssize_t c
    for c in range(columns):
        y[c] = (x[c] - highest[c]) * inverse[c] - log_sum[c]
