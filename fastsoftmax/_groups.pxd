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

from fastsoftmax._math cimport (
    bits32,
    bits64,
    exp_neg,
    fma,
    from_bits32,
    from_bits64,
    infinity,
    prefetch,
    real,
    written,
)
from fastsoftmax._rows cimport STEP, Pair, place_of, two_sum

cdef enum:
    LANES = 8  # of a sum, and elements of the last vector
    SHORTEST = 16  # elements of a row that does not lie across
    GROUP = 2048  # elements of scratch
    ROWS = 64  # most rows of a group: GROUP // STEP

# Whether exponents are multiplied by 1/T is a type, so that each loop is compiled for one answer: a
# flag would have both computed and one thrown away.
ctypedef char Plain
ctypedef int Scaled
ctypedef fused scaling:
    Plain
    Scaled


# ---- maxima --------------------------------------------------------------------------------------


cdef inline void maxima(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *highest, real *q
) noexcept nogil:
    """Write the largest element of each row of n >= SHORTEST; `q` is scratch for 48 a row.

    Of a row with NaN it may be NaN.
    """
    cdef real *other = q + 32 * rows
    if n < STEP:
        fold_short(x, rows, n, other)
    else:
        fold(x, rows, n, q)
        fold_halves(q, other, rows, 16)
    fold_halves(other, q, rows, 8)
    fold_halves(q, other, rows, 4)
    fold_halves(other, q, rows, 2)
    fold_halves(q, highest, rows, 1)


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


cdef inline void fold_short(const real *x, Py_ssize_t rows, Py_ssize_t n, real *q) noexcept nogil:
    """Write 16 partial maxima of each row of SHORTEST <= n < STEP elements."""
    cdef Py_ssize_t r, l
    for r in range(rows):
        for l in range(SHORTEST):
            q[16 * r + l] = larger(x[r * n + l], x[r * n + n - SHORTEST + l])


cdef inline void fold_halves(
    const real *a, real *b, Py_ssize_t rows, Py_ssize_t half
) noexcept nogil:
    """b = the larger of the first and the second half of each row of a"""
    cdef Py_ssize_t r, l
    for r in range(rows):
        for l in range(half):
            b[r * half + l] = larger(a[2 * r * half + l], a[(2 * r + 1) * half + l])


# ---- exponentials --------------------------------------------------------------------------------


cdef inline real masked(real e, const uint32_t *m32, const uint64_t *m64) noexcept nogil:
    """Return `e` where the mask is all ones, +0 where it is 0."""
    if real is float:
        return from_bits32(bits32(e) & m32[0])
    else:
        return from_bits64(bits64(e) & m64[0])


cdef inline real power(
    real x, real highest, real inverse, scaling kind, real low
) noexcept nogil:
    """Return exp((x - highest) * inverse), without the product if `kind` is Plain."""
    if scaling is Scaled:
        return exp_neg((x - highest) * inverse, low)
    else:
        return exp_neg(x - highest, low)


cdef inline void exponentials(
    const real *x,
    written e,
    Py_ssize_t width,
    written quads,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *inverse,
    scaling kind,
    real low,
) noexcept nogil:
    """Write exp((x - highest) * inverse) of each row, and the sums of four that begin its sum.

    The next group is fetched meanwhile: its maxima would wait for memory, exponentials do not.
    `width` is the distance of rows in `e`, where what lies between them must be 0. `quads` has
    eight for each begun step.
    """
    cdef uint32_t m32[LANES]
    cdef uint64_t m64[LANES]
    cdef Py_ssize_t whole = n // STEP
    cdef Py_ssize_t vectors = (n % STEP + LANES - 1) // LANES
    cdef Py_ssize_t r, j, l, _
    cdef const real *p
    cdef written y
    cdef written t = quads
    cdef real h, i
    cdef Py_ssize_t ahead = rows * n
    for l in range(LANES):
        m64[l] = -<uint64_t>(n % STEP - LANES * (vectors - 1) > l)
        m32[l] = <uint32_t>m64[l]
    for r in range(rows):
        p = x + r * n
        y = e + r * width
        h = highest[r]
        i = inverse[r]
        for _ in range(whole):
            prefetch(p + ahead)
            prefetch(p + ahead + STEP // 2)
            for l in range(STEP):
                y[l] = power(p[l], h, i, kind, low)
            for l in range(LANES):
                t[l] = (y[l] + y[8 + l]) + (y[16 + l] + y[24 + l])
            p += STEP
            y += STEP
            t += LANES
        if vectors:
            prefetch(p + ahead)
            for j from 0 <= j < LANES * (vectors - 1) by LANES:
                for l in range(LANES):
                    y[j + l] = power(p[j + l], h, i, kind, low)
            j = LANES * (vectors - 1)
            for l in range(LANES):
                y[j + l] = masked(power(p[j + l], h, i, kind, low), m32 + l, m64 + l)
            for l in range(LANES):
                t[l] = (y[l] + y[8 + l]) + (y[16 + l] + y[24 + l])
            t += LANES


cdef inline void drop_largest(
    const real *x,
    real *e,
    Py_ssize_t width,
    real *quads,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
) noexcept nogil:
    """Take the first largest element of each row out of what `exponentials` wrote."""
    cdef Py_ssize_t r, j
    cdef real *y
    for r in range(rows):
        j = place_of(x + r * n, n, highest[r])
        if j == n or highest[r] == infinity(<real>0):
            continue  # NaN and +inf stay in the sum and make it NaN
        e[r * width + j] = 0
        y = e + r * width + j // STEP * STEP + j % LANES
        quads[r * (width // 4) + j // STEP * LANES + j % LANES] = (y[0] + y[8]) + (y[16] + y[24])


# ---- sums ----------------------------------------------------------------------------------------


cdef inline void sums(
    const real *quads, Py_ssize_t rows, Py_ssize_t steps, double *d, Pair *s
) noexcept nogil:
    """Write the sum of each row's quads, `steps` times eight; `d` is scratch for 16 a row."""
    cdef Py_ssize_t r, l
    if real is float:
        lane_sums(quads, rows, steps, d)
        halve(d, d + 8 * rows, rows, 4)
        halve(d + 8 * rows, d, rows, 2)
        for r in range(rows):
            s[r].high = d[2 * r] + d[2 * r + 1]
            s[r].low = 0
    else:
        lane_pairs(quads, rows, steps, d)
        for r in range(rows):
            s[r].high = s[r].low = 0
            for l in range(LANES):
                two_sum(s + r, d[16 * r + l])
                s[r].low += d[16 * r + 8 + l]


cdef inline void lane_sums(
    const float *t, Py_ssize_t rows, Py_ssize_t steps, double *d
) noexcept nogil:
    """Add the quads of each row in eight lanes."""
    cdef double lane[LANES]
    cdef Py_ssize_t r, l, _
    for r in range(rows):
        for l in range(LANES):
            lane[l] = 0
        for _ in range(steps):
            for l in range(LANES):
                lane[l] += t[l]
            t += LANES
        for l in range(LANES):
            d[8 * r + l] = lane[l]


cdef inline void lane_pairs(
    const double *t, Py_ssize_t rows, Py_ssize_t steps, double *d
) noexcept nogil:
    """Add the quads of each row in eight lanes of two float64 (Knuth's TwoSum): exactly."""
    cdef double high[LANES]
    cdef double low[LANES]
    cdef double total[LANES]
    cdef double part[LANES]
    cdef Py_ssize_t r, l, _
    for r in range(rows):
        for l in range(LANES):
            high[l] = 0
            low[l] = 0
        for _ in range(steps):
            for l in range(LANES):  # an operation each: one loop of all would stay scalar
                total[l] = high[l] + t[l]
            for l in range(LANES):
                part[l] = total[l] - high[l]
            for l in range(LANES):
                low[l] += (high[l] - (total[l] - part[l])) + (t[l] - part[l])
            for l in range(LANES):
                high[l] = total[l]
            t += LANES
        for l in range(LANES):
            d[16 * r + l] = high[l]
            d[16 * r + 8 + l] = low[l]


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
    """y = e * (high + low) of each row of n >= LANES elements, rounded once (nearly)"""
    cdef Py_ssize_t r, j, l
    cdef const real *p
    cdef written o
    cdef real h, g
    for r in range(rows):
        p = e + r * width
        o = y + r * n
        h = high[r]
        g = low[r]
        for j from 0 <= j <= n - STEP by STEP:
            for l in range(STEP):
                o[j + l] = fma(p[j + l], h, p[j + l] * g)
        for j from n // STEP * STEP <= j <= n - LANES by LANES:
            for l in range(LANES):
                o[j + l] = fma(p[j + l], h, p[j + l] * g)
        if n % LANES:
            for l in range(LANES):  # overlaps the vector before
                o[n - LANES + l] = fma(p[n - LANES + l], h, p[n - LANES + l] * g)


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
    cdef Py_ssize_t r, j
    cdef const real *p
    cdef written o
    cdef real h, i, s
    for r in range(rows):
        p = x + r * n
        o = y + r * n
        h = highest[r]
        i = inverse[r]
        s = log_sum[r]
        for j in range(n):
            o[j] = (p[j] - h) * i - s
