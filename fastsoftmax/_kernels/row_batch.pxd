# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loops of softmax over a batch of rows that fills L1: exponentials, sums, results.

A row alone loses some 200 cycles between its phases: reductions through memory, a division, a
pipeline that drains. Phase by phase over a batch these are paid once, or become vector work over
the rows. The order of sums is that of ``sums.pxd``: a row has the same bits in any batch.

This is for rows of MIN_BATCH_LENGTH elements and more; ``short_rows.pxd`` has shorter ones. In
scratch a row takes whole steps. The last vector of a row reads up to 7 elements past its end, whose
exponentials a mask makes +0: the caller sees to it that they can be read.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS, HIGH, LOW, MAGIC, RATE, RATE_LOW, SHIFT
from fastsoftmax._kernels.exp_scale cimport (
    Centered,
    CenteredPow2,
    Unclamped,
    exp_variant,
    lowered,
    scaled_exp,
)
from fastsoftmax._kernels.maxima cimport larger
from fastsoftmax._kernels.sums cimport (
    LANES,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate,
    add_step,
    fold_lanes,
    zero,
)
from fastsoftmax._kernels.types cimport (
    bits32,
    bits64,
    fma,
    from_bits32,
    from_bits64,
    loop_void,
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    prefetch,
    real,
)

cdef enum:
    BATCH_ELEMENTS = 2048  # of scratch


# ---- exponentials --------------------------------------------------------------------------------


cdef inline real bitmask(real e, const uint32_t *m32, const uint64_t *m64) noexcept nogil:
    """Return `e` where the mask (`m32` or `m64`, by its type) is all ones, +0 where it is 0."""
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
    """Write the exponentials of `rows` rows of `n` elements of `x` into `e`.

    `width` is the distance of rows in `e`, where what lies between them must be 0. `out` is where
    the result will be, or `x`. If Unclamped, `n` is at least STEP, and `q` gets what
    `partial_maxima` writes.
    """
    cdef Py_ssize_t j = n // STEP * STEP
    if j:
        exp_steps(x, e, width, rows, n, exp_scale, variant, out, q)
    if j < n:
        exp_tails(x + j, e + j, width, rows, n, n - j, exp_scale, variant, out + j)


cdef inline loop_void exp_steps(
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
    """Write the exponentials of the whole steps of each row; arguments as in `exp_batch`.

    Exponentials wait for nothing. Meanwhile the next batch is fetched, and the lines of `out`,
    where this one's result will be written.
    """
    cdef Py_ssize_t r, l, _
    cdef const real *p
    cdef out_ptr y
    cdef real shift, rate, rate_low, low, high, magic
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
        rate_low = exp_scale[RATE_LOW * BATCH_ROWS + r]
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
                y[l] = scaled_exp(p[l], shift, rate, rate_low, low, high, magic, variant)
            p += STEP
            y += STEP
        if exp_variant is Unclamped:
            for l in range(STEP):
                q[r * STEP + l] = lane[l]


cdef inline loop_void exp_tails(
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
    """Write the exponentials of the `left` last elements of each row, in vectors of LANES."""
    cdef uint32_t m32[STEP]
    cdef uint64_t m64[STEP]
    cdef Py_ssize_t r, j, l
    cdef const real *p
    cdef out_ptr y
    cdef real shift, rate, rate_low, low, high, magic
    for l in range(STEP):
        m64[l] = -<uint64_t>(left > l)
        m32[l] = <uint32_t>m64[l]
    for r in range(rows):
        p = x + r * n
        y = e + r * width
        shift = exp_scale[SHIFT * BATCH_ROWS + r]
        rate = exp_scale[RATE * BATCH_ROWS + r]
        rate_low = exp_scale[RATE_LOW * BATCH_ROWS + r]
        low = exp_scale[LOW * BATCH_ROWS + r]
        high = exp_scale[HIGH * BATCH_ROWS + r]
        magic = exp_scale[MAGIC * BATCH_ROWS + r]
        prefetch(p + rows * n)
        prefetch(out + r * n)
        for j from 0 <= j < left by LANES:
            for l in range(LANES):
                y[j + l] = bitmask(
                    scaled_exp(p[j + l], shift, rate, rate_low, low, high, magic, variant),
                    m32 + (j + l), m64 + (j + l),
                )


cdef inline void exp_batch_centered_to(
    const real *x, out_ptr e, Py_ssize_t width, Py_ssize_t rows, Py_ssize_t n,
    const real *exp_scale, const real *out,
) noexcept nogil:
    """Do what `exp_batch_centered` does."""
    if exp_scale[RATE * BATCH_ROWS] != 0:
        exp_batch(x, e, width, rows, n, exp_scale, <CenteredPow2>0, out, <real *>NULL)
    else:
        exp_batch(x, e, width, rows, n, exp_scale, <Centered>0, out, <real *>NULL)


# Built into one function with others, it keeps vectors in memory.
cdef inline noinline_void exp_batch_centered(
    const real *x, real *e, Py_ssize_t width, Py_ssize_t rows, Py_ssize_t n,
    const real *exp_scale, const real *out,
) noexcept nogil:
    """Call `exp_batch` for rows with a shift each, by the temperature of `exp_scale`."""
    if real is float:
        exp_batch_centered_to(x, <out_ptr32>e, width, rows, n, exp_scale, out)
    else:
        exp_batch_centered_to(x, <out_ptr64>e, width, rows, n, exp_scale, out)


# ---- sums ----------------------------------------------------------------------------------------


cdef inline void batch_sums(
    const real *e, Py_ssize_t width, Py_ssize_t rows, double *d, DoubleDouble *s
) noexcept nogil:
    """Add each row of `width` elements, whole steps, to its `s`, which is 0.

    `d` is scratch for 12 a row.
    """
    cdef Py_ssize_t start, r
    cdef LaneSums lanes[LANES]
    if real is float:
        lane_sums(e, width, rows, d)
        add_halves(d, d + LANES * rows, rows, 4)
        add_halves(d + LANES * rows, d, rows, 2)
        for r in range(rows):
            s[r].high = d[2 * r] + d[2 * r + 1]
    else:
        for start from 0 <= start < rows by LANES:
            for r in range(start, min(start + LANES, rows)):
                zero(lanes + (r - start))
                accumulate(lanes + (r - start), e + r * width, width)
            for r in range(start, min(start + LANES, rows)):  # several chains run at once
                fold_lanes(s + r, lanes + (r - start), <real>0)


cdef inline void lane_sums(
    const float *e, Py_ssize_t width, Py_ssize_t rows, double *d
) noexcept nogil:
    """Write the sums of each row in eight lanes into `d`."""
    cdef double lane[LANES]
    cdef Py_ssize_t r, l, _
    for r in range(rows):
        for l in range(LANES):
            lane[l] = 0
        for _ in range(width // STEP):
            add_step(e, lane)
            e += STEP
        for l in range(LANES):
            d[LANES * r + l] = lane[l]


cdef inline void add_halves(
    const double *a, double *b, Py_ssize_t rows, Py_ssize_t half
) noexcept nogil:
    """Write the first plus the second `half` of each row of `a` into `b`."""
    cdef Py_ssize_t r, l
    for r in range(rows):
        for l in range(half):
            b[r * half + l] = a[2 * r * half + l] + a[(2 * r + 1) * half + l]


# ---- results -------------------------------------------------------------------------------------


cdef inline void scaled_rows(
    const real *e,
    Py_ssize_t width,
    out_ptr y,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *high,
    const real *low,
    int exponent,
) noexcept nogil:
    """Write e * (high + low) of each row, rounded once (nearly) and `lowered`, into `y`."""
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
                o[j + l] = lowered(fma(p[j + l], h, p[j + l] * g), exponent)
        for j from n // STEP * STEP <= j < n by LANES:
            i = min(j, n - LANES)  # the last vector overlaps the one before
            for l in range(LANES):  # all read first: mixed with what is written they stay scalar
                a[l] = p[i + l]
            for l in range(LANES):
                a[l] = lowered(fma(a[l], h, a[l] * g), exponent)
            for l in range(LANES):
                o[i + l] = a[l]


cdef inline void difference_rows(
    const real *x,
    out_ptr y,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """Write (x - highest) * inverse - log_sum of each row into `y`."""
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
