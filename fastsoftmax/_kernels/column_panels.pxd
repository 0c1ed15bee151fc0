# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Softmax along an axis that is not the last: panel by panel, each read once and written once.

A panel is read into scratch that fits the second cache, and nothing is written before its sums are
known: whole lines of memory both times, and lines a power of two apart, which would drive each
other out of the caches, are met only in the array. Columns too long for that are read several
times, a part after the other.
"""

from libc.string cimport memset

from fastsoftmax._kernels.abi cimport LOGSUMEXP, SOFTMAX, Op, SoftmaxCall
from fastsoftmax._kernels.batch_scale cimport RATE, RATE_LOW, SCALE_FIELDS, max_terms, set_rate
from fastsoftmax._kernels.column_exp cimport exp_step, reads_rows_in_place
from fastsoftmax._kernels.column_io cimport (
    NARROW,
    STREAMS,
    VECTOR,
    Panel,
    clear_padding,
    leaps,
    round_to_vector,
    row_ahead,
    store_tiles,
)
from fastsoftmax._kernels.column_lanes cimport planes_summed
from fastsoftmax._kernels.column_sums cimport (
    PIVOT_ODDS,
    SIGNAL_INTERVAL,
    PanelState,
    check_signals,
    load_rows,
    sums_from_maxima,
    sums_from_some_pivot,
)
from fastsoftmax._kernels.columns cimport (
    DOUBLE_VECTORS,
    EXP_SCALE,
    FACTOR,
    FACTOR_LOW,
    HIGHEST,
    INVERSE,
    LANE_SUMS,
    LOGS,
    MIN_PLACED_ROWS,
    PANEL_COLUMNS,
    REST,
    SHORT_PANEL,
    SPARE,
    SUM,
    VECTORS,
    ZEROS,
    column_logs,
    column_reciprocals,
    difference_row,
    exp_columns,
    plane_pitch,
    scale_row,
)
from fastsoftmax._kernels.exp_blocks cimport prefetch_lines
from fastsoftmax._kernels.exp_scale cimport ExpVariant, inverse_temperature
from fastsoftmax._kernels.normalize cimport all_finite, propagate_nan, write_logsumexp
from fastsoftmax._kernels.reserve cimport LINE, borrow, give_back
from fastsoftmax._kernels.sums cimport STEP
from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)

cdef enum:
    PANEL_BYTES = 1 << 18  # bytes of scratch, which leave room for lines that come and go in L2
    TILES_BYTES = 1 << 15  # of them for short tiles, each one piece of memory: the first cache's
    MIN_SEGMENT_BYTES = 256  # bytes of a row below which memory is slow, whatever fits a cache
    SOLO_COLUMNS = 64  # columns of one `outer` from which on they make a panel alone


# ---- results -------------------------------------------------------------------------------------


cdef inline noinline_void store_rows(
    const real *e, Py_ssize_t pitch, const Panel *p, Py_ssize_t i, Py_ssize_t rows, real *y,
    out_ptr other, const real *v, Op op,
) noexcept nogil:
    """Write `rows` rows of results, from row i on, to the panel at `y`: `e` times their factor.

    For LOG_SOFTMAX, `e` has elements, the logarithms of whose sums are subtracted. Rows of `e` are
    `pitch` apart; `other` is scratch for them.
    """
    cdef const real *highest = v + HIGHEST * PANEL_COLUMNS
    cdef const real *inverse = v + INVERSE * PANEL_COLUMNS
    cdef const real *high = v + FACTOR * PANEL_COLUMNS
    cdef const real *low = v + FACTOR_LOW * PANEL_COLUMNS
    cdef Py_ssize_t t, r, c
    cdef Py_ssize_t columns = p.columns
    cdef out_ptr to
    if p.tiles > 1 and columns < NARROW:
        for r in range(rows):
            if op == SOFTMAX:
                scale_row(e + r * pitch, p.width, other + r * pitch, high, low)
            else:
                difference_row(e + r * pitch, p.width, other + r * pitch, highest, inverse, high)
        store_tiles(<const real *>other, p, i, rows, <out_ptr>y)
        return
    for t in range(p.tiles):
        c = t * columns
        to = <out_ptr>(y + (t * p.n + i) * p.stride)
        for r in range(rows):
            if leaps(p):
                prefetch_lines(row_ahead(<const real *>y, p, i + r), columns)
            if op == SOFTMAX:
                scale_row(e + r * pitch + c, columns, to + r * p.stride, high + c, low + c)
            else:
                difference_row(
                    e + r * pitch + c, columns, to + r * p.stride, highest + c, inverse + c,
                    high + c,
                )


cdef inline int store_panel(
    const real *x, real *y, const Panel *p, PanelState *state, out_ptr e, out_ptr kept, real *v,
    bint from_pivot, const real *pivot_scale, ExpVariant variant,
) except -1 nogil:
    """Write the results of the panel at `x`, whose sums are known, to that at `y`."""
    cdef Py_ssize_t i, m
    for i from 0 <= i < p.n by p.rows:
        m = min(p.rows, p.n - i)
        if p.rows < p.n:  # as the sums left them, but for the last rows
            if from_pivot:
                exp_step(x, p, i, m, e, kept, v, pivot_scale, state.op)
            else:
                load_rows(x, p, i, m, kept, v)
                if state.op == SOFTMAX:
                    exp_columns(
                        <const real *>kept, m, p.width, p.pitch, e,
                        <const real *>v + EXP_SCALE * PANEL_COLUMNS, variant,
                    )
        if state.op == SOFTMAX:
            store_rows(<const real *>e, p.pitch, p, i, m, y, kept, <const real *>v, state.op)
        elif from_pivot and p.n < MIN_PLACED_ROWS and reads_rows_in_place(p):
            store_rows(x, p.stride, p, i, m, y, e, <const real *>v, state.op)
        else:
            store_rows(<const real *>kept, p.pitch, p, i, m, y, e, <const real *>v, state.op)
        check_signals(m * p.width, &state.since_check)
    return 0


cdef inline void store_logsumexp(
    const real *x, const Panel *p, real *y, const real *highest, const double *logs
) noexcept nogil:
    """Write the logarithms of the sums of the panel at `x` to y, where its columns follow."""
    cdef Py_ssize_t columns = p.columns * p.tiles
    cdef Py_ssize_t c, t
    if all_finite(highest, columns):
        for c in range(columns):
            y[c] = <real>(highest[c] + logs[c])
        propagate_nan(<const real *>y, y, columns, 1, 1, 1)
        return
    for t in range(p.tiles):
        c = t * p.columns
        write_logsumexp(
            x + t * p.n * p.stride, y + c, p.columns, p.n, 1, p.stride, highest + c, logs + c
        )


cdef inline int softmax_panel(
    const real *x, real *y, const Panel *p, PanelState *state, out_ptr e, out_ptr kept, real *v,
    double *s, real *pivot_scale,
) except -1 nogil:
    """Write the results of the panel at `x` to that at `y`, or for LOGSUMEXP one a column.

    y may be x. `e` and `kept` are scratch for `p.rows` rows, `e` 0 from row n on.
    """
    cdef const real *highest = v + HIGHEST * PANEL_COLUMNS
    cdef real *factor = v + FACTOR * PANEL_COLUMNS
    cdef double *logs = s + LOGS * PANEL_COLUMNS
    cdef Py_ssize_t c, t
    cdef bint from_pivot = state.pivot_credit >= 0
    cdef ExpVariant variant = <ExpVariant>0
    if (p.tiles > 1 or p.n < MIN_PLACED_ROWS) and p.columns * p.tiles < p.width:
        clear_padding(p, kept)  # other rows are copied by whole vectors
    if from_pivot:
        from_pivot = sums_from_some_pivot(x, p, state, e, kept, v, s, pivot_scale)
        state.pivot_credit += 1 if from_pivot else 1 - PIVOT_ODDS
    if not from_pivot:
        variant = sums_from_maxima(x, p, state, e, kept, v, s)
    if state.op == SOFTMAX:
        if not from_pivot:
            column_reciprocals(
                <const double *>s + SUM * PANEL_COLUMNS, <const double *>s + REST * PANEL_COLUMNS,
                p.width, factor, v + FACTOR_LOW * PANEL_COLUMNS,
            )
    else:
        if not from_pivot:
            max_terms(
                highest, <const real *>v + EXP_SCALE * PANEL_COLUMNS, p.width, PANEL_COLUMNS,
                <out_ptr>factor,
            )
            column_logs(
                <const double *>s + SUM * PANEL_COLUMNS, <const double *>s + REST * PANEL_COLUMNS,
                <const real *>factor, p.width, <out_ptr64>logs,
                <out_ptr64>(s + LANE_SUMS * PANEL_COLUMNS),
            )
        if state.op == LOGSUMEXP:
            store_logsumexp(x, p, y, highest, <const double *>logs)
            return 0
        for c in range(p.width):
            factor[c] = <real>logs[c]
    store_panel(x, y, p, state, e, kept, v, from_pivot, <const real *>pivot_scale, variant)
    if not from_pivot:
        for t in range(p.tiles):
            propagate_nan(
                <const real *>factor + t * p.columns, y + t * p.n * p.stride, p.columns, p.n, 1,
                p.stride,
            )
    return 0


# ---- all panels ----------------------------------------------------------------------------------


cdef inline void set_temperatures(
    const double *temperature, Py_ssize_t temperature_stride, Py_ssize_t columns, real *v
) noexcept nogil:
    """Set what columns have of their temperatures; what fills up vectors has the first one's."""
    cdef real *inverse = v + INVERSE * PANEL_COLUMNS
    cdef real *rate = v + (EXP_SCALE + RATE) * PANEL_COLUMNS
    cdef real *rate_low = v + (EXP_SCALE + RATE_LOW) * PANEL_COLUMNS
    cdef Py_ssize_t c, known = columns if temperature_stride else 1
    for c in range(known):
        inverse[c] = inverse_temperature(temperature[c], <real>0)
        set_rate(temperature[c], v + EXP_SCALE * PANEL_COLUMNS + c, PANEL_COLUMNS)
    for c in range(known, round_to_vector(columns)):
        inverse[c] = inverse[0]
        rate[c] = rate[0]
        rate_low[c] = rate_low[0]


cdef inline Py_ssize_t max_panel_width(Py_ssize_t n, real like) noexcept nogil:
    """Return how many columns of n elements a panel may have, a multiple of VECTOR."""
    cdef Py_ssize_t size = sizeof(real)
    if n <= STEP:
        if n <= STREAMS:
            return PANEL_COLUMNS
        return SHORT_PANEL if n * size <= 128 else SHORT_PANEL // 2
    return min(
        max(PANEL_BYTES // (n * size), MIN_SEGMENT_BYTES // size), PANEL_COLUMNS
    ) // VECTOR * VECTOR


cdef inline Py_ssize_t panel_width(
    Py_ssize_t n, Py_ssize_t inner, Py_ssize_t columns, real like
) noexcept nogil:
    """Return how many of `columns` columns of n elements, `inner` apart, a panel may have."""
    cdef Py_ssize_t size = sizeof(real)
    cdef Py_ssize_t width = min(max_panel_width(n, like), round_to_vector(columns))
    if n > STEP and inner < SOLO_COLUMNS:
        return min(width, max(TILES_BYTES // (n * size) // VECTOR * VECTOR, round_to_vector(inner)))
    return width


cdef inline Py_ssize_t even_panel_width(Py_ssize_t inner, Py_ssize_t at_most) noexcept nogil:
    """Return how many of `inner` columns to take at once so that none of the panels has few."""
    cdef Py_ssize_t parts = (inner + at_most - 1) // at_most
    return inner if parts == 1 else round_to_vector((inner + parts - 1) // parts)


cdef inline Py_ssize_t panel_rows(Py_ssize_t n, Py_ssize_t at_once, real like) noexcept nogil:
    """Return how many rows of panels of `at_once` columns are kept between looks for Ctrl-C."""
    if n * at_once > SIGNAL_INTERVAL:
        return PANEL_BYTES // (at_once * <Py_ssize_t>sizeof(real)) // STEP * STEP
    return n


cdef inline Py_ssize_t panel_bytes(Py_ssize_t n, Py_ssize_t at_once, real like) noexcept nogil:
    """Return the bytes, in whole lines, that panels of `at_once` columns are worked on in."""
    cdef Py_ssize_t size = sizeof(real)
    cdef Py_ssize_t pitch = plane_pitch(n) if n <= STEP else at_once
    cdef Py_ssize_t planes = planes_summed(n) if n <= STEP else 0
    cdef Py_ssize_t rows = max(panel_rows(n, at_once, like), planes)
    return ((rows * pitch + VECTOR) * size + LINE) // LINE * LINE


cdef inline Py_ssize_t softmax_columns_bytes(
    Py_ssize_t n, Py_ssize_t columns, real like
) noexcept nogil:
    """Return the bytes that `softmax_columns` works in, with `columns` columns or fewer."""
    cdef Py_ssize_t size = sizeof(real)
    cdef Py_ssize_t at_once = min(max_panel_width(n, like), round_to_vector(columns))
    cdef Py_ssize_t most = panel_bytes(n, at_once, like)
    if panel_rows(n, at_once, like) < n:  # of fewer columns all rows may be kept
        most = max(most, ((SIGNAL_INTERVAL + VECTOR) * size + LINE) // LINE * LINE)
    return 2 * most + LINE + PANEL_COLUMNS * (VECTORS * size + DOUBLE_VECTORS * 8)


cdef inline int softmax_columns(
    SoftmaxCall *call, Py_ssize_t inner, Py_ssize_t start, Py_ssize_t stop, const real *x, real *y
) except -1 nogil:
    """Write the results along the middle axis of (outer, n, inner) for columns `start` to `stop`.

    Columns are counted as in ``x[:, 0, :].ravel()``, and so are temperatures, which are
    `temperature_in_range`, and 1 for all or none. y is x, or does not overlap it; for LOGSUMEXP it
    has one element for each column.
    """
    cdef Op op = call.op
    cdef Py_ssize_t n = call.n
    cdef const double *temperature = call.temperature
    cdef Py_ssize_t temperature_stride = call.temperature_stride
    cdef Py_ssize_t size = sizeof(real)
    cdef Py_ssize_t at_once = panel_width(n, inner, stop - start, <real>0)
    cdef Py_ssize_t part = even_panel_width(inner, at_once)
    cdef Py_ssize_t end = (stop + inner - 1) // inner * inner * n  # of what may be read
    cdef Py_ssize_t pitch = plane_pitch(n) if n <= STEP else at_once
    cdef Py_ssize_t columns, within, first
    cdef PanelState state
    cdef Panel p
    cdef real pivot_scale[SCALE_FIELDS]
    cdef char *memory = borrow(call.workspace)
    cdef double *s = <double *>memory
    cdef real *v = <real *>(s + DOUBLE_VECTORS * PANEL_COLUMNS)
    cdef real *e = v + VECTORS * PANEL_COLUMNS
    cdef real *kept = e + panel_bytes(n, at_once, <real>0) // size
    state.op = op
    state.since_check = 0
    state.temperature = temperature[0]
    state.has_pivot = False
    state.pivot = 0
    state.pivot_credit = -1
    if not temperature_stride and (temperature[0] == 1 or HAS_FMA):
        state.pivot_credit = PIVOT_ODDS
    p.n = n
    p.stride = inner
    p.rows = panel_rows(n, at_once, <real>0)
    if op != SOFTMAX and (n * at_once * size > PANEL_BYTES or p.rows < n):
        state.pivot_credit = -1
    try:
        memset(v + ZEROS * PANEL_COLUMNS, 0, at_once * size)
        memset(v + SPARE * PANEL_COLUMNS, 0, at_once * size)
        memset(s + REST * PANEL_COLUMNS, 0, at_once * sizeof(double))
        if n <= STEP and planes_summed(n) > n:
            memset(e + n * pitch, 0, (planes_summed(n) - n) * pitch * size)
        if not temperature_stride:
            set_temperatures(temperature, 0, at_once, v)
        while start < stop:
            within = start % inner
            columns = min(min(part, stop - start), inner - within)
            p.columns = columns
            p.tiles = 1
            if columns == inner and columns < SOLO_COLUMNS:
                p.tiles = min(at_once, stop - start) // inner
            p.width = round_to_vector(columns * p.tiles)
            p.pitch = pitch if n <= STEP else p.width
            if n > STEP and op == SOFTMAX and columns == inner and p.tiles == 1:
                p.pitch = columns
            if temperature_stride:
                set_temperatures(temperature + start, 1, columns * p.tiles, v)
            first = (start - within) * n + within
            p.next_panel = columns
            if within + columns == inner:  # the panel is the end of an `outer`
                p.next_panel += inner * (p.tiles * n - 1)
            p.readable = end - first
            if real is float:
                softmax_panel(
                    x + first, y + (start if op == LOGSUMEXP else first), &p, &state,
                    <out_ptr32>e, <out_ptr32>kept, v, s, pivot_scale,
                )
            else:
                softmax_panel(
                    x + first, y + (start if op == LOGSUMEXP else first), &p, &state,
                    <out_ptr64>e, <out_ptr64>kept, v, s, pivot_scale,
                )
            start += columns * p.tiles
    finally:
        give_back(call.workspace, memory)
    return 0
