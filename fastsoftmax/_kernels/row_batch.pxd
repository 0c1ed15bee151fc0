# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The phases of softmax over a group of rows that fills L1: maxima, exponentials, sums, scale.

A row alone loses some 200 cycles between its phases: reductions through memory, a division, a
pipeline that drains. Phase by phase over a group these are paid once, or become vector work over
the rows. The order of sums is that of ``row.pxd``: a row has the same bits in any group.

This is for rows of SHORTEST elements and more; ``short_rows.pxd`` has shorter ones. In scratch a row
takes whole steps. The last vector of a row reads up to 7 elements past its end, whose exponentials
a mask makes +0: the caller sees to it that they can be read.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.exp cimport (
    HAS_FMA,
    bits32,
    bits64,
    fma,
    from_bits32,
    from_bits64,
    infinity,
    out_ptr,
    out_ptr32,
    out_ptr64,
    prefetch,
    real,
)
from fastsoftmax._kernels.exp_scale cimport (
    CENTERED,
    CENTERED_POW2,
    CLAMPED,
    CLAMPED_POW2,
    HIGH,
    LOW,
    MAGIC,
    RATE,
    SCALE_FIELDS,
    SHIFT,
    Centered,
    CenteredPow2,
    ExpVariant,
    Unclamped,
    exp_variant,
    max_invertible_sum,
    max_term_at,
    needs_no_shift,
    pivot_exponent,
    pivot_in_range,
    scaled_exp,
    set_exponent_range,
    target_exponent,
)
from fastsoftmax._kernels.normalize cimport all_within
from fastsoftmax._kernels.row cimport (
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate_fn,
    find_first,
    fold_lanes,
    zero,
)

cdef enum:
    LANES = 8  # of a sum, and elements of the last vector
    MIN_BATCH_LENGTH = 16  # elements of a row that does not lie across
    BATCH_ELEMENTS = 2048  # elements of scratch
    BATCH_ROWS = 64  # most rows of a group: GROUP // STEP
    MASKED_SEARCH_LENGTH = 128  # elements of a row up to which its largest one is sought in all rows at once


# ---- maxima --------------------------------------------------------------------------------------


cdef inline void row_maxima(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *highest, real *q
) noexcept nogil:
    """Write the largest element of each row of n >= SHORTEST; `q` is scratch for 40 a row.

    Of a row with NaN it may be NaN.
    """
    if n > STEP:
        partial_maxima(x, rows, n, q)
        x = q
        n = STEP
    row_maxima_of_steps(x, rows, n, highest, q)


cdef inline void row_maxima_of_steps(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *highest, real *q
) noexcept nogil:
    """maxima, of rows up to STEP; x may be q"""
    cdef real *other = q + STEP * rows
    if real is float:
        partial_maxima_of_step(x, rows, n, <out_ptr32>other)
    else:
        partial_maxima_of_step(x, rows, n, <out_ptr64>other)
    reduce_halves(other, q, rows, 4)
    reduce_halves(q, other, rows, 2)
    reduce_halves(other, highest, rows, 1)


cdef inline real larger(real a, real b) noexcept nogil:
    """Return the larger one, `b` if one is NaN."""
    return a if a > b else b


cdef inline void partial_maxima(const real *x, Py_ssize_t rows, Py_ssize_t n, real *q) noexcept nogil:
    """Write 32 partial maxima of each row of n >= STEP elements."""
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
    """Write 8 partial maxima of each row of SHORTEST <= n <= STEP elements."""
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
    """b = the larger of the first and the second half of each row of a"""
    cdef Py_ssize_t r, l
    for r in range(rows):
        for l in range(half):
            b[r * half + l] = larger(a[2 * r * half + l], a[(2 * r + 1) * half + l])


# ---- what exponentials are made with: `exp_scale` has `spacing` numbers of each kind, or ROWS ------------


cdef inline ExpVariant scales_from_maxima(
    const real *highest, const real *inverse, Py_ssize_t rows, real *exp_scale, Py_ssize_t spacing
) noexcept nogil:
    """set_how for each row, in loops without branches; return what serves all.

    They have T = 1, all or none.
    """
    cdef Py_ssize_t r
    cdef uint32_t other32 = 0
    cdef uint64_t other64 = 0
    cdef real *shift = exp_scale + SHIFT * spacing
    cdef bint scaled = exp_scale[RATE * spacing] != 0
    for r in range(rows):
        shift[r] = 0 if needs_no_shift(highest[r] * inverse[r]) else highest[r]
    for r in range(rows):
        shift[r] = highest[r] if not HAS_FMA and scaled else shift[r]
    for r in range(rows):
        set_exponent_range((highest[r] - shift[r]) * inverse[r], target_exponent(<real>0), True, exp_scale + r, spacing)
    if scaled:
        return CENTERED_POW2
    for r in range(rows):
        if real is float:
            other32 |= bits32(shift[r])
        else:
            other64 |= bits64(shift[r])
    return CLAMPED if other32 == 0 and other64 == 0 else CENTERED


cdef inline void max_terms(
    const real *highest, const real *exp_scale, Py_ssize_t rows, Py_ssize_t spacing, out_ptr max_e
) noexcept nogil:
    """Write the exponential of each row's largest entry; they have T = 1, all or none."""
    cdef Py_ssize_t r
    if exp_scale[RATE * spacing] != 0:
        for r in range(rows):
            max_e[r] = max_term_at(highest[r], exp_scale + r, spacing, <CenteredPow2>0)
    else:
        for r in range(rows):
            max_e[r] = max_term_at(highest[r], exp_scale + r, spacing, <Centered>0)


# One K serves all rows of one temperature whose largest elements are not far from its `pivot`.
# What the rows of a group have had in common serves the next ones, too: then softmax needs no
# maxima, as the sums show whether it did.


cdef inline bint within_pivot_reach(
    const real *highest, Py_ssize_t rows, real pivot, real inverse
) noexcept nogil:
    """Tell whether `pivot`, if guessable, serves all rows."""
    return all_within(highest, rows, pivot, <real>0, <real>16 / inverse)


cdef inline void broadcast_scale(real pivot, real inverse, real *exp_scale) noexcept nogil:
    """Set what serves ROWS rows of a reference and the temperature that is set."""
    cdef real one[SCALE_FIELDS]
    cdef Py_ssize_t r
    one[RATE] = exp_scale[RATE * BATCH_ROWS]
    set_exponent_range(pivot * inverse, pivot_exponent(pivot), False, one, 1)
    for r in range(BATCH_ROWS):
        exp_scale[LOW * BATCH_ROWS + r] = one[LOW]
        exp_scale[HIGH * BATCH_ROWS + r] = one[HIGH]
        exp_scale[MAGIC * BATCH_ROWS + r] = one[MAGIC]
        exp_scale[SHIFT * BATCH_ROWS + r] = 0


cdef inline ExpVariant batch_variant(const real *exp_scale) noexcept nogil:
    """Return what serves rows that have a reference."""
    return CLAMPED_POW2 if exp_scale[RATE * BATCH_ROWS] != 0 else CLAMPED


cdef inline ExpVariant choose_scale(
    const real *highest, const real *inverse, Py_ssize_t rows, real *exp_scale, real *pivot
) noexcept nogil:
    """Choose `exp_scale`, and the reference if there is one; return what serves all.

    There is none, and each row has its own K, if `pivot` is NaN.
    """
    cdef real each = inverse[0]
    if pivot[0] == pivot[0]:
        if pivot_in_range(pivot[0], each) and within_pivot_reach(highest, rows, pivot[0], each):
            return batch_variant(<const real *>exp_scale)
        pivot[0] = highest[0]
        if pivot_in_range(pivot[0], each) and within_pivot_reach(highest, rows, pivot[0], each):
            broadcast_scale(pivot[0], each, exp_scale)
            return batch_variant(<const real *>exp_scale)
        pivot[0] = infinity(<real>0)
    return scales_from_maxima(highest, inverse, rows, exp_scale, BATCH_ROWS)


cdef inline bint reciprocals_in_range(const real *rate, Py_ssize_t rows) noexcept nogil:
    """Tell whether the reciprocals of all sums show that no entry was too large or too small."""
    cdef real least = 1 / max_invertible_sum(<real>0)
    if real is float:  # the largest of GROUP entries is 2**lift() and more
        return all_within(rate, rows, <real>0, least, <float>1.4551915228366852e-11)  # 2**-36
    else:
        return all_within(rate, rows, <real>0, least, <double>1.3234889800848443e-23)  # 2**-76


# ---- exponentials --------------------------------------------------------------------------------


cdef inline real bitmask(real e, const uint32_t *m32, const uint64_t *m64) noexcept nogil:
    """Return `e` where the mask is all ones, +0 where it is 0."""
    if real is float:
        return from_bits32(bits32(e) & m32[0])
    else:
        return from_bits64(bits64(e) & m64[0])


cdef inline void exp_batch(
    const real *x,
    out_ptr e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *exp_scale,
    exp_variant variant,
    const real *out,
    real *q,
) noexcept nogil:
    """Write the exponentials of each row.

    `width` is the distance of rows in `e`, where what lies between them must be 0. `out` is where
    the answer will be, or x. If Open, n is at least STEP, and q gets what `partial_maxima` writes.
    """
    cdef Py_ssize_t j = n // STEP * STEP
    if j:
        exp_steps(x, e, width, rows, n, exp_scale, variant, out, q)
    if j < n:
        exp_tails(x + j, e + j, width, rows, n, n - j, exp_scale, variant, out + j)


cdef inline void exp_steps(
    const real *x,
    out_ptr e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *exp_scale,
    exp_variant variant,
    const real *out,
    real *q,
) noexcept nogil:
    """The whole steps of each row.

    Exponentials wait for nothing. Meanwhile the next group is fetched, and the lines of `out`,
    where this one's answer will be written.
    """
    cdef Py_ssize_t r, l, _
    cdef const real *p
    cdef out_ptr y
    cdef real shift, rate, low, high, magic
    cdef real lane[STEP]
    cdef Py_ssize_t ahead = rows * n
    for r in range(rows):
        p = x + r * n
        y = e + r * width
        if exp_variant is Unclamped:
            for l in range(STEP):
                lane[l] = p[n - STEP + l]
        shift = exp_scale[SHIFT * BATCH_ROWS + r]
        rate = exp_scale[RATE * BATCH_ROWS + r]
        low = exp_scale[LOW * BATCH_ROWS + r]
        high = exp_scale[HIGH * BATCH_ROWS + r]
        magic = exp_scale[MAGIC * BATCH_ROWS + r]
        for _ in range(n // STEP):
            prefetch(p + ahead)
            prefetch(p + ahead + STEP // 2)
            prefetch(p + (out - x))
            prefetch(p + (out - x) + STEP // 2)
            for l in range(STEP):
                if exp_variant is Unclamped:
                    lane[l] = larger(p[l], lane[l])
                y[l] = scaled_exp(p[l], shift, rate, low, high, magic, variant)
            p += STEP
            y += STEP
        if exp_variant is Unclamped:
            for l in range(STEP):
                q[r * STEP + l] = lane[l]


cdef inline void exp_tails(
    const real *x,
    out_ptr e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    Py_ssize_t left,
    const real *exp_scale,
    exp_variant variant,
    const real *out,
) noexcept nogil:
    """The `left` elements of each row that fill no step, in vectors of LANES."""
    cdef uint32_t m32[STEP]
    cdef uint64_t m64[STEP]
    cdef Py_ssize_t r, j, l
    cdef const real *p
    cdef out_ptr y
    cdef real shift, rate, low, high, magic
    for l in range(STEP):
        m64[l] = -<uint64_t>(left > l)
        m32[l] = <uint32_t>m64[l]
    for r in range(rows):
        p = x + r * n
        y = e + r * width
        shift = exp_scale[SHIFT * BATCH_ROWS + r]
        rate = exp_scale[RATE * BATCH_ROWS + r]
        low = exp_scale[LOW * BATCH_ROWS + r]
        high = exp_scale[HIGH * BATCH_ROWS + r]
        magic = exp_scale[MAGIC * BATCH_ROWS + r]
        prefetch(p + rows * n)
        prefetch(out + r * n)
        for j from 0 <= j < left by LANES:
            for l in range(LANES):
                y[j + l] = bitmask(
                    scaled_exp(p[j + l], shift, rate, low, high, magic, variant),
                    m32 + (j + l), m64 + (j + l),
                )


cdef inline void exclude_max(
    const real *x,
    real *e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    real *place,
    out_ptr places,
    real *q,
    real *max_e,
) noexcept nogil:
    """Move the first largest element of each row from what `exp_batch` wrote into `max_e`.

    `places` is scratch for the rows, `q` for 40 a row, `place` for one.
    """
    cdef Py_ssize_t r
    if n <= MASKED_SEARCH_LENGTH:  # in all rows at once
        r = (n + LANES - 1) // LANES * LANES
        mark_max(x, places, r, rows, n, highest)
        row_maxima(<const real *>places, rows, r, place, q)
    else:
        for r in range(rows):
            place[r] = <real>-find_first(x + r * n, n, highest[r])
    for r in range(rows):
        max_e[r] = 1
        if place[r] > -n and highest[r] < infinity(<real>0):
            max_e[r] = e[r * width - <Py_ssize_t>place[r]]
            e[r * width - <Py_ssize_t>place[r]] = 0  # NaN and +inf stay and make the sum NaN


cdef inline void mark_max(
    const real *x,
    out_ptr places,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
) noexcept nogil:
    """Write minus its place where an element is the largest of its row, elsewhere -inf."""
    cdef real none = -infinity(<real>0)
    cdef real at[MASKED_SEARCH_LENGTH]
    cdef const real *p
    cdef out_ptr o
    cdef real h
    cdef Py_ssize_t r, j
    cdef int i
    for i in range(MASKED_SEARCH_LENGTH):
        at[i] = <real>-i if i < n else none
    for r in range(rows):
        p = x + r * n
        o = places + r * width
        h = highest[r]
        for j in range(width // LANES * LANES):
            o[j] = at[j] if p[j] == h else none


# ---- sums ----------------------------------------------------------------------------------------


cdef inline void batch_sums(
    const real *e, Py_ssize_t width, Py_ssize_t rows, double *d, DoubleDouble *s, accumulate_fn add_double
) noexcept nogil:
    """Add each row of `width` elements, whole steps, to `s`, which is 0; `d` has 12 a row."""
    cdef Py_ssize_t r
    cdef LaneSums lanes[BATCH_ROWS]
    if real is float:
        lane_sums(e, width, rows, d)
        add_halves(d, d + LANES * rows, rows, 4)
        add_halves(d + LANES * rows, d, rows, 2)
        for r in range(rows):
            s[r].high = d[2 * r] + d[2 * r + 1]
    else:
        for r in range(rows):
            zero(lanes + r)
            add_double(lanes + r, e + r * width, width)
        for r in range(rows):  # apart, more of these chains run at once
            fold_lanes(s + r, lanes + r, <real>0)


cdef inline void lane_sums(
    const float *e, Py_ssize_t width, Py_ssize_t rows, double *d
) noexcept nogil:
    """Add each row in eight lanes."""
    cdef double lane[LANES]
    cdef Py_ssize_t r, l, _
    for r in range(rows):
        for l in range(LANES):
            lane[l] = 0
        for _ in range(width // STEP):
            for l in range(LANES):
                lane[l] += (e[l] + e[8 + l]) + (e[16 + l] + e[24 + l])
            e += STEP
        for l in range(LANES):
            d[LANES * r + l] = lane[l]


cdef inline void add_halves(const double *a, double *b, Py_ssize_t rows, Py_ssize_t half) noexcept nogil:
    """b = the first half of each row of a + the second half"""
    cdef Py_ssize_t r, l
    for r in range(rows):
        for l in range(half):
            b[r * half + l] = a[2 * r * half + l] + a[(2 * r + 1) * half + l]


# ---- scale ---------------------------------------------------------------------------------------


cdef inline void scaled_rows(
    const real *e,
    Py_ssize_t width,
    out_ptr y,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *high,
    const real *low,
) noexcept nogil:
    """y = e * (high + low) of each row, rounded once (nearly)"""
    cdef Py_ssize_t r, j, i, l
    cdef const real *p
    cdef out_ptr o
    cdef real a[LANES]
    cdef real h, g
    for r in range(rows):
        p = e + r * width
        o = y + r * n
        h = high[r]
        g = low[r]
        for j from 0 <= j <= n - STEP by STEP:
            for l in range(STEP):
                o[j + l] = fma(p[j + l], h, p[j + l] * g)
        for j from n // STEP * STEP <= j < n by LANES:
            i = min(j, n - LANES)  # the last vector overlaps the one before
            for l in range(LANES):  # all read first: mixed with what is written they stay scalar
                a[l] = p[i + l]
            for l in range(LANES):
                o[i + l] = fma(a[l], h, a[l] * g)


cdef inline void difference_rows(
    const real *x,
    out_ptr y,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum of each row"""
    cdef Py_ssize_t r, j, i, l
    cdef const real *p
    cdef out_ptr o
    cdef real a[LANES]
    cdef real h, f, s
    for r in range(rows):
        p = x + r * n
        o = y + r * n
        h = highest[r]
        f = inverse[r]
        s = log_sum[r]
        for j from 0 <= j <= n - STEP by STEP:
            for l in range(STEP):
                o[j + l] = (p[j + l] - h) * f - s
        for j from n // STEP * STEP <= j < n by LANES:
            i = min(j, n - LANES)
            for l in range(LANES):
                a[l] = p[i + l] - h
            for l in range(LANES):
                o[i + l] = a[l] * f - s
