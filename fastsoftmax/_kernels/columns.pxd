# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The phases of softmax over a panel: some neighbouring columns, reduced from top to bottom.

The array is seen as (outer, n, inner), the lanes of a vector are columns. A panel is read once,
into scratch that fits the second cache, and written once: whole lines of memory both times, and
lines a power of two apart, which would drive each other out of the caches, are met only then.
Where `inner` is small, a panel is made of pieces: the columns of several `outer` side by side.

The order of sums is that of ``row.pxd``: a column has the bits of the same numbers in a row. In
scratch a panel's columns are whole vectors; what fills up the last one is computed and not used.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastsoftmax._kernels.batch_scale cimport HIGH, LOW, MAGIC, RATE, SHIFT
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
from fastsoftmax._kernels.maxima cimport larger
from fastsoftmax._kernels.row cimport prefetch_lines
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
    VECTOR = 8  # columns that a panel is filled up to a multiple of
    PANEL_COLUMNS = 256  # most columns of a panel: the scratch of their sums fits the first cache
    PANEL_BYTES = 1 << 18  # bytes of a panel, which leave room for lines that come and go in the second
    MIN_SEGMENT_BYTES = 256  # bytes of a row below which memory is slow, even if a panel of them fits no cache
    SOLO_COLUMNS = 64  # columns of one `outer` from which on they make a panel alone
    PREFETCH_ROWS = 6  # rows that are fetched in advance: no stream of neighbours, but leaps


cdef inline Py_ssize_t round_to_vector(Py_ssize_t columns) noexcept nogil:
    """Return how many columns a panel has in scratch."""
    return (columns + VECTOR - 1) // VECTOR * VECTOR


cdef inline Py_ssize_t max_panel_width(Py_ssize_t n, real like) noexcept nogil:
    """Return how many columns of n elements a panel may have, a multiple of VECTOR."""
    cdef Py_ssize_t size = sizeof(real)
    return min(max(PANEL_BYTES // (n * size), MIN_SEGMENT_BYTES // size), PANEL_COLUMNS) // VECTOR * VECTOR


cdef inline Py_ssize_t even_panel_width(Py_ssize_t inner, Py_ssize_t most) noexcept nogil:
    """Return how many columns to take at once, at most `most`, so that none are few."""
    cdef Py_ssize_t parts = (inner + most - 1) // most
    return inner if parts == 1 else round_to_vector((inner + parts - 1) // parts)


cdef inline void load_row(
    const real *x, Py_ssize_t columns, out_ptr e, out_ptr highest
) noexcept nogil:
    """e = x, and the larger one of each element and `highest`, unless it is NaN."""
    cdef Py_ssize_t c
    for c in range(columns):
        highest[c] = larger(x[c], highest[c])
        e[c] = x[c]


cdef inline const real *row_ahead(
    const real *x, Py_ssize_t i, Py_ssize_t n, Py_ssize_t stride, const real *next_panel
) noexcept nogil:
    """Return the row that is met AHEAD rows after row i of n; `next_panel` are those after them."""
    i += PREFETCH_ROWS
    return x + i * stride if i < n else next_panel + (i - n) * stride


cdef inline void load_columns(
    const real *x, Py_ssize_t stride, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t n,
    Py_ssize_t columns, out_ptr e, Py_ssize_t width, out_ptr highest, const real *next_panel,
) noexcept nogil:
    """e = `rows` rows of n, from row i on, and the largest element of each column so far.

    NaN is passed over. `next_panel` are the rows to be met after these n.
    """
    cdef Py_ssize_t r
    for r in range(i, i + rows):
        prefetch_lines(row_ahead(x, r, n, stride, next_panel), columns)
        load_row(x + r * stride, columns, e + (r - i) * width, highest)


cdef inline void load_panel(
    const real *x, Py_ssize_t stride, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t n,
    Py_ssize_t columns, Py_ssize_t tiles, Py_ssize_t tile_stride, out_ptr e, Py_ssize_t width,
    out_ptr highest, const real *next_panel,
) noexcept nogil:
    """take_columns for each piece, side by side"""
    cdef Py_ssize_t p
    for p in range(tiles):
        load_columns(
            x + p * tile_stride, stride, i, rows, n, columns, e + p * columns, width,
            highest + p * columns, next_panel,
        )


cdef inline Py_ssize_t whole_vectors(Py_ssize_t width) noexcept nogil:
    """Return `width`, the panel's: so the compiler knows, too, that nothing is left over."""
    return width & ~(<Py_ssize_t>VECTOR - 1)


cdef inline void exp_across(
    out_ptr e, Py_ssize_t width, const real *exp_scale, exp_variant variant
) noexcept nogil:
    """e = its exponentials"""
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):
        e[c] = scaled_exp(
            e[c], exp_scale[SHIFT * PANEL_COLUMNS + c], exp_scale[RATE * PANEL_COLUMNS + c], exp_scale[LOW * PANEL_COLUMNS + c],
            exp_scale[HIGH * PANEL_COLUMNS + c], exp_scale[MAGIC * PANEL_COLUMNS + c], variant,
        )


cdef inline void exp_columns(
    out_ptr e, Py_ssize_t rows, Py_ssize_t width, const real *exp_scale, ExpVariant form
) noexcept nogil:
    """e = its exponentials, for each row"""
    cdef Py_ssize_t i
    for i in range(rows):
        if form == CLAMPED:
            exp_across(e + i * width, width, exp_scale, <Clamped>0)
        elif form == CENTERED:
            exp_across(e + i * width, width, exp_scale, <Centered>0)
        else:
            exp_across(e + i * width, width, exp_scale, <CenteredPow2>0)


cdef inline void exclude_max_in_row(out_ptr x, Py_ssize_t width, out_ptr unmatched_max, real like) noexcept nogil:
    """Make elements that equal `unmatched_max` -inf, and `unmatched_max` there NaN, which none equals."""
    cdef real none = -infinity(like)
    cdef uint32_t hit32
    cdef uint64_t hit64
    cdef Py_ssize_t c
    for c in range(whole_vectors(width)):  # masks: of a condition gcc would make a branch
        if real is float:
            hit32 = -<uint32_t>(x[c] == unmatched_max[c])
            x[c] = from_bits32((bits32(x[c]) & ~hit32) | (bits32(none) & hit32))
            unmatched_max[c] = from_bits32(bits32(unmatched_max[c]) | hit32)
        else:
            hit64 = -<uint64_t>(x[c] == unmatched_max[c])
            x[c] = from_bits64((bits64(x[c]) & ~hit64) | (bits64(none) & hit64))
            unmatched_max[c] = from_bits64(bits64(unmatched_max[c]) | hit64)


cdef inline void exclude_max_of_columns(
    out_ptr x, Py_ssize_t rows, Py_ssize_t width, out_ptr unmatched_max, real like
) noexcept nogil:
    """Make the first element of each column that equals `unmatched_max` -inf, and that NaN."""
    cdef Py_ssize_t i
    for i in range(rows):
        exclude_max_in_row(x + i * width, width, unmatched_max, like)


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
    """Return element i of each column of a step, 0 behind its end."""
    return e + i * width if i < rows else zeros


cdef inline void accumulate_step(
    const real *e, Py_ssize_t rows, Py_ssize_t width, const real *zeros, double *high, double *low
) noexcept nogil:
    """Add a step of `rows` <= STEP elements of each column to its lanes."""
    cdef Py_ssize_t l
    if rows == STEP:  # eight planes are one
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


cdef inline void fold_columns(
    DoubleDouble *s, double *a, double *low, Py_ssize_t width, real like
) noexcept nogil:
    """Add the lanes of a block to the sum of each column, and clear them."""
    cdef Py_ssize_t c, l, w = width
    for c in range(w):
        if real is float:
            two_sum(
                s + c,
                ((a[c] + a[4 * w + c]) + (a[2 * w + c] + a[6 * w + c]))
                + ((a[w + c] + a[5 * w + c]) + (a[3 * w + c] + a[7 * w + c])),
            )
        else:
            for l in range(LANES):
                two_sum(s + c, a[l * w + c])
                s[c].low += low[l * w + c]
    memset(a, 0, LANES * w * sizeof(double))
    if real is double:
        memset(low, 0, LANES * w * sizeof(double))


cdef inline void store_scaled_row(
    const real *e, Py_ssize_t columns, out_ptr y, const real *high, const real *low
) noexcept nogil:
    """y = e * (high + low), rounded once (nearly)"""
    cdef Py_ssize_t c
    for c in range(columns):
        y[c] = fma(e[c], high[c], e[c] * low[c])


cdef inline void store_scaled(
    const real *e, Py_ssize_t width, out_ptr y, Py_ssize_t stride, Py_ssize_t i, Py_ssize_t rows,
    Py_ssize_t n, Py_ssize_t columns, const real *high, const real *low, const real *next_panel,
) noexcept nogil:
    """y = e * (high + low) for `rows` rows of n, from row i on"""
    cdef Py_ssize_t r
    for r in range(i, i + rows):
        prefetch_lines(row_ahead(<const real *>y, r, n, stride, next_panel), columns)
        store_scaled_row(e + (r - i) * width, columns, y + r * stride, high, low)


cdef inline void store_difference_row(
    const real *x, Py_ssize_t columns, out_ptr y, const real *highest, const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum"""
    cdef Py_ssize_t c
    for c in range(columns):
        y[c] = (x[c] - highest[c]) * inverse[c] - log_sum[c]


cdef inline void store_differences(
    const real *x, Py_ssize_t width, out_ptr y, Py_ssize_t stride, Py_ssize_t i, Py_ssize_t rows,
    Py_ssize_t n, Py_ssize_t columns, const real *highest, const real *inverse,
    const real *log_sum, const real *next_panel,
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum for `rows` rows of n, from row i on"""
    cdef Py_ssize_t r
    for r in range(i, i + rows):
        prefetch_lines(row_ahead(<const real *>y, r, n, stride, next_panel), columns)
        store_difference_row(
            x + (r - i) * width, columns, y + r * stride, highest, inverse, log_sum
        )
