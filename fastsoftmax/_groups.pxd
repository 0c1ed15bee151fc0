# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The phases of softmax over a group of rows that fills L1: maxima, exponentials, sums, scale.

A row alone loses some 200 cycles between its phases: reductions through memory, a division, a
pipeline that drains. Phase by phase over a group these are paid once, or become vector work over
the rows. The order of sums is that of ``_rows.pxd``: a row has the same bits in any group.

This is for rows of SHORTEST elements and more; ``_planes.pxd`` has shorter ones. In scratch a row
takes whole steps. The last vector of a row reads up to 7 elements past its end, whose exponentials
a mask makes +0: the caller sees to it that they can be read.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._exponents cimport (
    CENTRE,
    FACTOR,
    HEATED,
    HIGH,
    HOW,
    LOW,
    MAGIC,
    PLAIN,
    SCALED,
    SHIFTED,
    Form,
    Open,
    Scaled,
    Shifted,
    guess_lift,
    guessable,
    lift,
    most,
    near,
    own_term,
    power,
    scaling,
    set_range,
)
from fastsoftmax._math cimport (
    HAS_FMA,
    bits32,
    bits64,
    fma,
    from_bits32,
    from_bits64,
    infinity,
    prefetch,
    real,
    written,
    written32,
    written64,
)
from fastsoftmax._results cimport all_within
from fastsoftmax._rows cimport STEP, Lanes, Pair, adder, clear, close, place_of

cdef enum:
    LANES = 8  # of a sum, and elements of the last vector
    SHORTEST = 16  # elements of a row that does not lie across
    GROUP = 2048  # elements of scratch
    ROWS = 64  # most rows of a group: GROUP // STEP
    SEARCHED = 128  # elements of a row up to which its largest one is sought in all rows at once


# ---- maxima --------------------------------------------------------------------------------------


cdef inline void maxima(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *highest, real *q
) noexcept nogil:
    """Write the largest element of each row of n >= SHORTEST; `q` is scratch for 40 a row.

    Of a row with NaN it may be NaN.
    """
    if n > STEP:
        fold(x, rows, n, q)
        x = q
        n = STEP
    maxima_of_steps(x, rows, n, highest, q)


cdef inline void maxima_of_steps(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *highest, real *q
) noexcept nogil:
    """maxima, of rows up to STEP; x may be q"""
    cdef real *other = q + STEP * rows
    if real is float:
        fold_step(x, rows, n, <written32>other)
    else:
        fold_step(x, rows, n, <written64>other)
    fold_halves(other, q, rows, 4)
    fold_halves(q, other, rows, 2)
    fold_halves(other, highest, rows, 1)


cdef inline real larger(real a, real b) noexcept nogil:
    """Return the larger one, `b` if one is NaN."""
    return a if a > b else b


cdef inline void fold(const real *x, Py_ssize_t rows, Py_ssize_t n, real *q) noexcept nogil:
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


cdef inline void fold_step(
    const real *x, Py_ssize_t rows, Py_ssize_t n, written q
) noexcept nogil:
    """Write 8 partial maxima of each row of SHORTEST <= n <= STEP elements."""
    cdef real a[LANES]
    cdef real b[LANES]
    cdef const real *p
    cdef const real *o
    cdef written t
    cdef Py_ssize_t r, l
    for r in range(rows):
        p = x + r * n
        o = p + n - SHORTEST  # may overlap the first half
        t = q + r * LANES
        for l in range(LANES):  # an operation each: one loop of all would stay scalar
            a[l] = larger(p[l], p[8 + l])
        for l in range(LANES):
            b[l] = larger(o[l], o[8 + l])
        for l in range(LANES):
            t[l] = larger(a[l], b[l])


cdef inline void fold_halves(
    const real *a, real *b, Py_ssize_t rows, Py_ssize_t half
) noexcept nogil:
    """b = the larger of the first and the second half of each row of a"""
    cdef Py_ssize_t r, l
    for r in range(rows):
        for l in range(half):
            b[r * half + l] = larger(a[2 * r * half + l], a[(2 * r + 1) * half + l])


# ---- what exponentials are made with: `how` has `apart` numbers of each kind, or ROWS ------------


cdef inline Form set_hows(
    const real *highest, const real *inverse, Py_ssize_t rows, real *how, Py_ssize_t apart
) noexcept nogil:
    """set_how for each row, in loops without branches; return what serves all.

    They have T = 1, all or none.
    """
    cdef Py_ssize_t r
    cdef uint32_t other32 = 0
    cdef uint64_t other64 = 0
    cdef real *centre = how + CENTRE * apart
    cdef bint scaled = how[FACTOR * apart] != 0
    for r in range(rows):
        centre[r] = 0 if near(highest[r] * inverse[r]) else highest[r]
    for r in range(rows):
        centre[r] = highest[r] if not HAS_FMA and scaled else centre[r]
    for r in range(rows):
        set_range((highest[r] - centre[r]) * inverse[r], lift(<real>0), True, how + r, apart)
    if scaled:
        return SCALED
    for r in range(rows):
        if real is float:
            other32 |= bits32(centre[r])
        else:
            other64 |= bits64(centre[r])
    return PLAIN if other32 == 0 and other64 == 0 else SHIFTED


cdef inline void own_terms(
    const real *highest, const real *how, Py_ssize_t rows, Py_ssize_t apart, written own
) noexcept nogil:
    """Write the exponential of each row's largest entry; they have T = 1, all or none."""
    cdef Py_ssize_t r
    if how[FACTOR * apart] != 0:
        for r in range(rows):
            own[r] = own_term(highest[r], how + r, apart, <Scaled>0)
    else:
        for r in range(rows):
            own[r] = own_term(highest[r], how + r, apart, <Shifted>0)


# One K serves all rows of one temperature whose largest elements are not far from its `reference`.
# What the rows of a group have had in common serves the next ones, too: then softmax needs no
# maxima, as the sums show whether it did.


cdef inline bint all_close(
    const real *highest, Py_ssize_t rows, real reference, real inverse
) noexcept nogil:
    """Tell whether `reference`, if guessable, serves all rows."""
    return all_within(highest, rows, reference, <real>0, <real>16 / inverse)


cdef inline void set_common(real reference, real inverse, real *how) noexcept nogil:
    """Set what serves ROWS rows of a reference and the temperature that is set."""
    cdef real one[HOW]
    cdef Py_ssize_t r
    one[FACTOR] = how[FACTOR * ROWS]
    set_range(reference * inverse, guess_lift(reference), False, one, 1)
    for r in range(ROWS):
        how[LOW * ROWS + r] = one[LOW]
        how[HIGH * ROWS + r] = one[HIGH]
        how[MAGIC * ROWS + r] = one[MAGIC]
        how[CENTRE * ROWS + r] = 0


cdef inline Form common_form(const real *how) noexcept nogil:
    """Return what serves rows that have a reference."""
    return HEATED if how[FACTOR * ROWS] != 0 else PLAIN


cdef inline Form choose(
    const real *highest, const real *inverse, Py_ssize_t rows, real *how, real *reference
) noexcept nogil:
    """Choose `how`, and the reference if there is one; return what serves all.

    There is none, and each row has its own K, if `reference` is NaN.
    """
    cdef real each = inverse[0]
    if reference[0] == reference[0]:
        if guessable(reference[0], each) and all_close(highest, rows, reference[0], each):
            return common_form(<const real *>how)
        reference[0] = highest[0]
        if guessable(reference[0], each) and all_close(highest, rows, reference[0], each):
            set_common(reference[0], each, how)
            return common_form(<const real *>how)
        reference[0] = infinity(<real>0)
    return set_hows(highest, inverse, rows, how, ROWS)


cdef inline bint guessed_well(const real *factor, Py_ssize_t rows) noexcept nogil:
    """Tell whether the reciprocals of all sums show that no entry was too large or too small."""
    cdef real least = 1 / most(<real>0)
    if real is float:  # the largest of GROUP entries is 2**lift() and more
        return all_within(factor, rows, <real>0, least, <float>1.4551915228366852e-11)  # 2**-36
    else:
        return all_within(factor, rows, <real>0, least, <double>1.3234889800848443e-23)  # 2**-76


# ---- exponentials --------------------------------------------------------------------------------


cdef inline real masked(real e, const uint32_t *m32, const uint64_t *m64) noexcept nogil:
    """Return `e` where the mask is all ones, +0 where it is 0."""
    if real is float:
        return from_bits32(bits32(e) & m32[0])
    else:
        return from_bits64(bits64(e) & m64[0])


cdef inline void exponentials(
    const real *x,
    written e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *how,
    scaling kind,
    const real *out,
    real *q,
) noexcept nogil:
    """Write the exponentials of each row.

    `width` is the distance of rows in `e`, where what lies between them must be 0. `out` is where
    the answer will be, or x. If Open, n is at least STEP, and q gets what `fold` writes.
    """
    cdef Py_ssize_t j = n // STEP * STEP
    if j:
        exp_steps(x, e, width, rows, n, how, kind, out, q)
    if j < n:
        exp_rest(x + j, e + j, width, rows, n, n - j, how, kind, out + j)


cdef inline void exp_steps(
    const real *x,
    written e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *how,
    scaling kind,
    const real *out,
    real *q,
) noexcept nogil:
    """The whole steps of each row.

    Exponentials wait for nothing. Meanwhile the next group is fetched, and the lines of `out`,
    where this one's answer will be written.
    """
    cdef Py_ssize_t r, l, _
    cdef const real *p
    cdef written y
    cdef real centre, factor, low, high, magic
    cdef real lane[STEP]
    cdef Py_ssize_t ahead = rows * n
    for r in range(rows):
        p = x + r * n
        y = e + r * width
        if scaling is Open:
            for l in range(STEP):
                lane[l] = p[n - STEP + l]
        centre = how[CENTRE * ROWS + r]
        factor = how[FACTOR * ROWS + r]
        low = how[LOW * ROWS + r]
        high = how[HIGH * ROWS + r]
        magic = how[MAGIC * ROWS + r]
        for _ in range(n // STEP):
            prefetch(p + ahead)
            prefetch(p + ahead + STEP // 2)
            prefetch(p + (out - x))
            prefetch(p + (out - x) + STEP // 2)
            for l in range(STEP):
                if scaling is Open:
                    lane[l] = larger(p[l], lane[l])
                y[l] = power(p[l], centre, factor, low, high, magic, kind)
            p += STEP
            y += STEP
        if scaling is Open:
            for l in range(STEP):
                q[r * STEP + l] = lane[l]


cdef inline void exp_rest(
    const real *x,
    written e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    Py_ssize_t left,
    const real *how,
    scaling kind,
    const real *out,
) noexcept nogil:
    """The `left` elements of each row that fill no step, in vectors of LANES."""
    cdef uint32_t m32[STEP]
    cdef uint64_t m64[STEP]
    cdef Py_ssize_t r, j, l
    cdef const real *p
    cdef written y
    cdef real centre, factor, low, high, magic
    for l in range(STEP):
        m64[l] = -<uint64_t>(left > l)
        m32[l] = <uint32_t>m64[l]
    for r in range(rows):
        p = x + r * n
        y = e + r * width
        centre = how[CENTRE * ROWS + r]
        factor = how[FACTOR * ROWS + r]
        low = how[LOW * ROWS + r]
        high = how[HIGH * ROWS + r]
        magic = how[MAGIC * ROWS + r]
        prefetch(p + rows * n)
        prefetch(out + r * n)
        for j from 0 <= j < left by LANES:
            for l in range(LANES):
                y[j + l] = masked(
                    power(p[j + l], centre, factor, low, high, magic, kind),
                    m32 + (j + l), m64 + (j + l),
                )


cdef inline void drop_largest(
    const real *x,
    real *e,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    real *place,
    written places,
    real *q,
    real *own,
) noexcept nogil:
    """Move the first largest element of each row from what `exponentials` wrote into `own`.

    `places` is scratch for the rows, `q` for 40 a row, `place` for one.
    """
    cdef Py_ssize_t r
    if n <= SEARCHED:  # in all rows at once
        r = (n + LANES - 1) // LANES * LANES
        mark_largest(x, places, r, rows, n, highest)
        maxima(<const real *>places, rows, r, place, q)
    else:
        for r in range(rows):
            place[r] = <real>-place_of(x + r * n, n, highest[r])
    for r in range(rows):
        own[r] = 1
        if place[r] > -n and highest[r] < infinity(<real>0):
            own[r] = e[r * width - <Py_ssize_t>place[r]]
            e[r * width - <Py_ssize_t>place[r]] = 0  # NaN and +inf stay and make the sum NaN


cdef inline void mark_largest(
    const real *x,
    written places,
    Py_ssize_t width,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
) noexcept nogil:
    """Write minus its place where an element is the largest of its row, elsewhere -inf."""
    cdef real none = -infinity(<real>0)
    cdef real at[SEARCHED]
    cdef const real *p
    cdef written o
    cdef real h
    cdef Py_ssize_t r, j
    cdef int i
    for i in range(SEARCHED):
        at[i] = <real>-i if i < n else none
    for r in range(rows):
        p = x + r * n
        o = places + r * width
        h = highest[r]
        for j in range(width // LANES * LANES):
            o[j] = at[j] if p[j] == h else none


# ---- sums ----------------------------------------------------------------------------------------


cdef inline void sums(
    const real *e, Py_ssize_t width, Py_ssize_t rows, double *d, Pair *s, adder add_double
) noexcept nogil:
    """Add each row of `width` elements, whole steps, to `s`, which is 0; `d` has 12 a row."""
    cdef Py_ssize_t r
    cdef Lanes lanes[ROWS]
    if real is float:
        lane_sums(e, width, rows, d)
        halve(d, d + LANES * rows, rows, 4)
        halve(d + LANES * rows, d, rows, 2)
        for r in range(rows):
            s[r].high = d[2 * r] + d[2 * r + 1]
    else:
        for r in range(rows):
            clear(lanes + r)
            add_double(lanes + r, e + r * width, width)
        for r in range(rows):  # apart, more of these chains run at once
            close(s + r, lanes + r, <real>0)


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


cdef inline void halve(const double *a, double *b, Py_ssize_t rows, Py_ssize_t half) noexcept nogil:
    """b = the first half of each row of a + the second half"""
    cdef Py_ssize_t r, l
    for r in range(rows):
        for l in range(half):
            b[r * half + l] = a[2 * r * half + l] + a[(2 * r + 1) * half + l]


# ---- scale ---------------------------------------------------------------------------------------


cdef inline void scaled_rows(
    const real *e,
    Py_ssize_t width,
    written y,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *high,
    const real *low,
) noexcept nogil:
    """y = e * (high + low) of each row, rounded once (nearly)"""
    cdef Py_ssize_t r, j, i, l
    cdef const real *p
    cdef written o
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
    written y,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum of each row"""
    cdef Py_ssize_t r, j, i, l
    cdef const real *p
    cdef written o
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
