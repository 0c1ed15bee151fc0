# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Panels of columns: their sums, and the answers that are made with them.

Softmax at T = 1 goes by a guess first. One K (see ``exp_scale.pxd``) serves all columns of most
panels, and the largest entry of the first row is near enough to choose it by. So exponentials are
made of the array itself, while its next rows are fetched, and without maxima; the sums show whether
the guess served. Until then nothing is written. All else, and a panel whose guess was of no use,
goes by the maxima of its columns, with the same bits.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastsoftmax._kernels.abi cimport LOGSUMEXP, LOG_SOFTMAX, SOFTMAX, Op
from fastsoftmax._kernels.batch_scale cimport SCALE_FIELDS, max_terms, scales_from_maxima, set_rate
from fastsoftmax._kernels.columns cimport (
    PANEL_BYTES,
    PANEL_COLUMNS,
    SOLO_COLUMNS,
    accumulate_step,
    even_panel_width,
    exclude_max_of_columns,
    exp_columns,
    fold_columns,
    load_panel,
    max_panel_width,
    round_to_vector,
    row_ahead,
    store_differences,
    store_scaled,
    store_scaled_row,
)
from fastsoftmax._kernels.exp cimport exp_clamped
from fastsoftmax._kernels.exp_scale cimport (
    ExpScale,
    ExpVariant,
    inverse_temperature,
    max_invertible_sum,
    pivot_exponent,
    pivot_in_range,
    scale_from_pivot,
)
from fastsoftmax._kernels.maxima cimport row_max
from fastsoftmax._kernels.normalize cimport log1p_sums, propagate_nan, reciprocals, write_logsumexp
from fastsoftmax._kernels.row cimport prefetch_lines
from fastsoftmax._kernels.sums cimport BLOCK, LANES, STEP, DoubleDouble
from fastsoftmax._kernels.types cimport infinity, out_ptr, out_ptr32, out_ptr64, real

cdef enum:
    SIGNAL_INTERVAL = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds


cdef inline int check_signals(Py_ssize_t elements, Py_ssize_t *since_check) except -1 nogil:
    """Look for Ctrl-C if, with `elements` more, enough is done since the last time."""
    since_check[0] += elements
    if since_check[0] >= SIGNAL_INTERVAL:
        since_check[0] = 0
        with gil:
            PyErr_CheckSignals()
    return 0


cdef inline void zero_sums(
    DoubleDouble *s, double *lanes, double *lows, real *zeros, Py_ssize_t width
) noexcept nogil:
    """Set the sums of a panel to 0, and a row of zeros."""
    memset(zeros, 0, width * sizeof(real))
    memset(s, 0, width * sizeof(DoubleDouble))
    memset(lanes, 0, LANES * width * sizeof(double))
    if real is double:
        memset(lows, 0, LANES * width * sizeof(double))


# ---- by a guess ----------------------------------------------------------------------------------


cdef inline void copy_row(const real *x, Py_ssize_t columns, out_ptr e) noexcept nogil:
    """e = x"""
    cdef Py_ssize_t c
    for c in range(columns):
        e[c] = x[c]


cdef inline void copy_tiles(
    const real *x, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t tiles,
    Py_ssize_t tile_stride, out_ptr e, Py_ssize_t width,
) noexcept nogil:
    """e = the columns of each piece, side by side"""
    cdef Py_ssize_t i, p
    for p in range(tiles):
        for i in range(rows):
            copy_row(x + p * tile_stride + i * stride, columns, e + p * columns + i * width)


cdef inline void exp_row(
    const real *x, out_ptr e, Py_ssize_t n, real low, real high, real magic
) noexcept nogil:
    """e = the exponentials of x"""
    cdef Py_ssize_t c
    for c in range(n):
        e[c] = exp_clamped(x[c], low, high, magic)


cdef inline void exp_in_place(
    out_ptr e, Py_ssize_t n, real low, real high, real magic
) noexcept nogil:
    """e = its exponentials"""
    cdef Py_ssize_t c
    for c in range(n):
        e[c] = exp_clamped(e[c], low, high, magic)


cdef inline void exp_step(
    const real *x, Py_ssize_t stride, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t n,
    Py_ssize_t columns, Py_ssize_t tiles, out_ptr e, const ExpScale *exp_scale, const real *next_panel,
) noexcept nogil:
    """e = the exponentials of `rows` rows of n, from row i on; `next_panel` are rows to be met later."""
    cdef Py_ssize_t width = columns * tiles
    cdef Py_ssize_t r
    cdef real low = <real>exp_scale.low
    cdef real high = <real>exp_scale.high
    cdef real magic = <real>exp_scale.magic
    if tiles > 1:
        copy_tiles(x + i * stride, stride, rows, columns, tiles, n * stride, e, width)
        exp_in_place(e, rows * width, low, high, magic)
    elif columns == stride:  # the rows are one
        exp_row(x + i * stride, e, rows * width, low, high, magic)
    else:
        for r in range(i, i + rows):
            prefetch_lines(row_ahead(x, r, n, stride, next_panel), columns)
            exp_row(
                x + r * stride, e + (r - i) * width, columns, low, high, magic
            )


cdef inline bint sums_in_range(
    const DoubleDouble *s, Py_ssize_t columns, Py_ssize_t n, real like
) noexcept nogil:
    """Tell whether all sums show that no column's largest entry was too large or too small.

    The largest of n is at least the n-th part of the sum; it must be 2**lift() and more.
    """
    cdef double least = n * (33554432.0 if real is float else 36893488147419103232.0)
    cdef double largest = max_invertible_sum(like)
    cdef Py_ssize_t c
    cdef bint all_are = True
    for c in range(columns):
        all_are &= least <= s[c].high
        all_are &= s[c].high <= largest
    return all_are


cdef inline bint sums_from_pivot(
    const real *x, out_ptr e, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns,
    Py_ssize_t tiles, Py_ssize_t rows, ExpScale *exp_scale, DoubleDouble *s, const real *next_panel, Py_ssize_t *since_check,
) except -1 nogil:
    """Write the sums of the exponentials of a panel, and those of its last `rows` into e.

    Return False where the guess is of no use. `next_panel` are the rows to be met afterwards.
    """
    cdef real zeros[PANEL_COLUMNS]
    cdef double lanes[LANES * PANEL_COLUMNS]
    cdef double lows[LANES * PANEL_COLUMNS]
    cdef Py_ssize_t width = columns * tiles
    cdef Py_ssize_t i, k
    cdef out_ptr d
    cdef real highest = <real>row_max(x, columns).value
    if not pivot_in_range(highest, <real>1):
        return False
    exp_scale[0] = scale_from_pivot(highest, 1, pivot_exponent(highest), False)
    zero_sums(s, lanes, lows, zeros, width)
    for i from 0 <= i < n by STEP:
        k = min(STEP, n - i)
        d = e + i % rows * width
        exp_step(x, stride, i, k, n, columns, tiles, d, exp_scale, next_panel)
        accumulate_step(<const real *>d, k, width, zeros, lanes, lows)
        if (i + k) % BLOCK == 0 or i + k == n:
            fold_columns(s, lanes, lows, width, highest)
        check_signals(k * width, since_check)
    return sums_in_range(s, width, n, highest)


cdef inline void store_repeated(
    const real *e, out_ptr y, Py_ssize_t n, Py_ssize_t width, real *high, real *low
) noexcept nogil:
    """y = e * (high + low) for n rows without anything between them, many at a time"""
    cdef Py_ssize_t many = PANEL_COLUMNS // width * width
    cdef Py_ssize_t c
    for c in range(width, many):
        high[c] = high[c - width]
        low[c] = low[c - width]
    for c from 0 <= c < n * width by many:
        store_scaled_row(e + c, min(many, n * width - c), y + c, <const real *>high, <const real *>low)


cdef inline int store_from_pivot(
    const real *x, real *y, out_ptr e, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns,
    Py_ssize_t tiles, Py_ssize_t rows, const ExpScale *exp_scale, real *high, real *low, const real *next_panel,
    Py_ssize_t *since_check,
) except -1 nogil:
    """y = the exponentials of the panel, times high + low, which have room for PANEL columns"""
    cdef Py_ssize_t width = columns * tiles
    cdef Py_ssize_t tile_stride = n * stride
    cdef Py_ssize_t i, k, p, c
    for i from 0 <= i < n by rows:
        k = min(rows, n - i)
        if rows < n:
            exp_step(x, stride, i, k, n, columns, tiles, e, exp_scale, <const real *>y)
        if columns == stride and tiles == 1 and columns <= SOLO_COLUMNS:
            store_repeated(<const real *>e, <out_ptr>(y + i * stride), k, width, high, low)
            check_signals(k * width, since_check)
            continue
        for p in range(tiles):
            c = p * columns
            store_scaled(
                <const real *>e + c, width, <out_ptr>(y + p * tile_stride), stride, i, k, n, columns,
                <const real *>high + c, <const real *>low + c, next_panel,
            )
        check_signals(k * width, since_check)
    return 0


# ---- by maxima -----------------------------------------------------------------------------------


cdef inline int sums_from_maxima(
    const real *x, out_ptr e, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns,
    Py_ssize_t tiles, Py_ssize_t rows, const real *inverse, Op op, real *highest, real *exp_scale,
    DoubleDouble *s, const real *next_panel, Py_ssize_t *since_check,
) except -1 nogil:
    """Write maxima and sums of exponentials of a panel; return their form.

    In e the last `rows` exponentials are left, for LOG_SOFTMAX elements. The sums are without the
    largest entries' own terms, but for SOFTMAX. `next_panel` are the rows to be met afterwards.
    """
    cdef real unmatched_max[PANEL_COLUMNS]
    cdef real zeros[PANEL_COLUMNS]
    cdef double lanes[LANES * PANEL_COLUMNS]
    cdef double lows[LANES * PANEL_COLUMNS]
    cdef real inf = infinity(<real>0)
    cdef Py_ssize_t width = round_to_vector(columns * tiles)
    cdef Py_ssize_t tile_stride = n * stride
    cdef Py_ssize_t i, j, c, m, k
    cdef ExpVariant variant
    cdef out_ptr d
    for c in range(width):
        highest[c] = -inf
    zero_sums(s, lanes, lows, zeros, width)
    for i from 0 <= i < n by rows:
        m = min(rows, n - i)
        load_panel(
            x, stride, i, m, n, columns, tiles, tile_stride, e, width, <out_ptr>highest, next_panel
        )
        check_signals(m * width, since_check)
    variant = scales_from_maxima(<const real *>highest, inverse, width, exp_scale, PANEL_COLUMNS)
    for c in range(width):  # +inf stays in the sum and makes it NaN
        unmatched_max[c] = highest[c] if highest[c] < inf else inf - inf
    for i from 0 <= i < n by rows:
        m = min(rows, n - i)
        if rows < n:
            load_panel(
                x, stride, i, m, n, columns, tiles, tile_stride, e, width, <out_ptr>highest, next_panel
            )
        for j from 0 <= j < m by STEP:
            k = min(STEP, m - j)
            d = e + j * width
            if op == LOG_SOFTMAX:
                d = e + rows * width
                memcpy(<real *>d, <real *>e + j * width, k * width * sizeof(real))
            if op != SOFTMAX:
                exclude_max_of_columns(d, k, width, <out_ptr>unmatched_max, inf)
            exp_columns(d, k, width, <const real *>exp_scale, variant)
            accumulate_step(<const real *>d, k, width, zeros, lanes, lows)
            if (i + j + k) % BLOCK == 0 or i + j + k == n:
                fold_columns(s, lanes, lows, width, inf)
        check_signals(m * width, since_check)
    return variant


cdef inline int store_panel(
    const real *x, real *y, out_ptr e, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns,
    Py_ssize_t tiles, Py_ssize_t rows, const real *inverse, Op op, real *highest,
    const real *exp_scale, ExpVariant variant, const real *high, const real *low, const real *next_panel,
    Py_ssize_t *since_check,
) except -1 nogil:
    """y = the exponentials of the panel, times high + low; for LOG_SOFTMAX, logarithms - high"""
    cdef Py_ssize_t width = round_to_vector(columns * tiles)
    cdef Py_ssize_t tile_stride = n * stride
    cdef Py_ssize_t i, c, m, p
    cdef out_ptr z
    for i from 0 <= i < n by rows:
        m = min(rows, n - i)
        if rows < n:
            load_panel(
                x, stride, i, m, n, columns, tiles, tile_stride, e, width, <out_ptr>highest,
                <const real *>y,
            )
            if op == SOFTMAX:
                exp_columns(e, m, width, exp_scale, variant)
        for p in range(tiles):
            c = p * columns
            z = <out_ptr>(y + p * tile_stride)
            if op == SOFTMAX:
                store_scaled(
                    <const real *>e + c, width, z, stride, i, m, n, columns, high + c, low + c,
                    next_panel,
                )
            else:
                store_differences(
                    <const real *>e + c, width, z, stride, i, m, n, columns,
                    <const real *>highest + c, inverse + c, high + c, next_panel,
                )
        check_signals(m * width, since_check)
    return 0


# ---- answers -------------------------------------------------------------------------------------


cdef inline int softmax_panel(
    const real *x,
    real *y,
    out_ptr e,
    Py_ssize_t n,
    Py_ssize_t stride,
    Py_ssize_t columns,
    Py_ssize_t tiles,
    Py_ssize_t rows,
    const real *inverse,
    Op op,
    real *exp_scale,
    bint *try_pivot,
    const real *next_panel,
    Py_ssize_t *since_check,
) except -1 nogil:
    """The answer for `columns` columns of n elements that are `stride` apart; y may be x.

    So many from each of some `tiles`, `n * stride` apart. `e` is scratch for `rows` of them, and
    for STEP more. If they are longer, they are read two or three times, `rows` at a time. `try_pivot`
    tells whether to try one, and whether it served. `next_panel` is where the next panel begins.
    """
    cdef real highest[PANEL_COLUMNS]
    cdef ExpScale pivot_scale
    cdef real max_e[PANEL_COLUMNS]
    cdef real high[PANEL_COLUMNS]
    cdef real low[PANEL_COLUMNS]
    cdef double logs[PANEL_COLUMNS]
    cdef DoubleDouble s[PANEL_COLUMNS]
    cdef Py_ssize_t width = round_to_vector(columns * tiles)
    cdef Py_ssize_t c, p
    cdef ExpVariant variant
    cdef const real *next = <const real *>y if rows == n and op != LOGSUMEXP else x
    if try_pivot[0]:
        try_pivot[0] = sums_from_pivot(
            x, e, n, stride, columns, tiles, rows, &pivot_scale, s, next, since_check
        )
    if try_pivot[0]:
        reciprocals(s, columns * tiles, high, low)
        store_from_pivot(
            x, y, e, n, stride, columns, tiles, rows, &pivot_scale, high, low, next_panel,
            since_check,
        )
        return 0
    variant = <ExpVariant>sums_from_maxima(
        x, e, n, stride, columns, tiles, rows, inverse, op, highest, exp_scale, s, next, since_check
    )
    if op == SOFTMAX:
        reciprocals(s, width, high, low)
    else:
        max_terms(<const real *>highest, <const real *>exp_scale, width, PANEL_COLUMNS, <out_ptr>max_e)
        log1p_sums(s, <const real *>max_e, width, logs)
        for c in range(width):
            high[c] = <real>logs[c]
    if op == LOGSUMEXP:
        for p in range(tiles):
            c = p * columns
            write_logsumexp(
                x + p * n * stride, y + c, columns, n, 1, stride, highest + c, logs + c
            )
        return 0
    store_panel(
        x, y, e, n, stride, columns, tiles, rows, inverse, op, highest, <const real *>exp_scale,
        variant, <const real *>high, <const real *>low, next_panel, since_check,
    )
    for p in range(tiles):
        c = p * columns
        propagate_nan(<const real *>high + c, y + p * n * stride, columns, n, 1, stride)
    return 0


cdef inline int softmax_columns(
    const real *x,
    real *y,
    Py_ssize_t n,
    Py_ssize_t inner,
    const double *temperature,
    Py_ssize_t temperature_stride,
    Op op,
    Py_ssize_t start,
    Py_ssize_t stop,
) except -1 nogil:
    """Write the answer along the middle axis of (outer, n, inner) for columns `start` to `stop`.

    The columns are counted as in ``x[:, 0, :].ravel()``; `temperature_stride` is 1 if there is a temperature for
    each, else 0. All are `tame`, and 1 or none is. y is x, or does not overlap it; it has one
    element for each column for LOGSUMEXP.
    """
    cdef Py_ssize_t at_once = min(max_panel_width(n, <real>0), round_to_vector(stop - start))
    cdef Py_ssize_t part = even_panel_width(inner, at_once)
    cdef Py_ssize_t rows = n
    cdef Py_ssize_t since_check = 0
    cdef Py_ssize_t c, columns, tiles, within, first, place
    cdef real inverse[PANEL_COLUMNS]
    cdef real exp_scale[SCALE_FIELDS * PANEL_COLUMNS]
    cdef real *e
    cdef const real *next_panel
    cdef bint try_pivot = op == SOFTMAX and not temperature_stride and temperature[0] == 1
    if n * at_once > SIGNAL_INTERVAL:
        rows = PANEL_BYTES // (at_once * <Py_ssize_t>sizeof(real)) // STEP * STEP
    e = <real *>malloc((rows + STEP) * at_once * sizeof(real))
    if e == NULL:
        with gil:
            raise MemoryError
    try:
        while start < stop:
            within = start % inner
            columns = min(min(part, stop - start), inner - within)
            tiles = 1
            if columns == inner and columns < SOLO_COLUMNS:
                tiles = min(at_once, stop - start) // inner
            for c in range(columns * tiles):
                inverse[c] = inverse_temperature(temperature[(start + c) * temperature_stride], <real>0)
                set_rate(temperature[(start + c) * temperature_stride], exp_scale + c, PANEL_COLUMNS)
            for c in range(columns * tiles, round_to_vector(columns * tiles)):
                inverse[c] = inverse[0]
                set_rate(temperature[start * temperature_stride], exp_scale + c, PANEL_COLUMNS)
            first = (start - within) * n + within
            place = start if op == LOGSUMEXP else first
            next_panel = x + first + columns
            if within + columns == inner:  # the panel is the end of an `outer`
                next_panel += inner * (tiles * n - 1)
            if real is float:
                softmax_panel(
                    x + first, y + place, <out_ptr32>e, n, inner, columns,
                    tiles, rows, inverse, op, exp_scale, &try_pivot, next_panel, &since_check,
                )
            else:
                softmax_panel(
                    x + first, y + place, <out_ptr64>e, n, inner, columns,
                    tiles, rows, inverse, op, exp_scale, &try_pivot, next_panel, &since_check,
                )
            start += columns * tiles
    finally:
        free(e)
    return 0
