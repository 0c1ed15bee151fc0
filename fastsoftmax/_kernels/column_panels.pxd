# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Softmax along an axis that is not the last: panel by panel, each read once and written once.

A panel goes by a pivot first. One K (see ``exp_scale.pxd``) serves all columns of most panels, and
the largest entry of the first row is near enough to choose it by. So exponentials are made of the
array itself while its next rows are fetched, and maxima, which softmax does not need, in the same
loop; sums and maxima show whether the pivot served. Until then nothing is written. All else goes by
the maxima of its columns, with the same bits. Scratch fits the second cache: lines a power of two
apart, which would drive each other out of the caches, are met only in the array.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastsoftmax._kernels.abi cimport LOGSUMEXP, SOFTMAX, Op
from fastsoftmax._kernels.column_io cimport (
    NARROW,
    VECTOR,
    Panel,
    copy_row,
    load_tiles,
    prefetch_ahead,
    readable_row,
    round_to_vector,
    store_tiles,
)
from fastsoftmax._kernels.columns cimport (
    DOUBLE_VECTORS,
    EXP_SCALE,
    FACTOR,
    FACTOR_LOW,
    HIGHEST,
    INVERSE,
    LANE_RESTS,
    LANE_SUMS,
    LOGS,
    PANEL_COLUMNS,
    PLACE,
    PLANE_PITCH,
    REST,
    SPARE,
    SUM,
    UNMATCHED,
    VECTORS,
    ZEROS,
    accumulate_step,
    column_logs,
    column_reciprocals,
    difference_row,
    exclude_max_in_row,
    exclude_places,
    exp_columns,
    exp_max_row,
    exp_row,
    fold_columns,
    mark_unmatched,
    max_row,
    planes_summed,
    raise_maxima,
    scale_row,
    sum_planes,
    zero_lanes,
)
from fastsoftmax._kernels.exp cimport HAS_FMA, infinity, out_ptr, out_ptr32, out_ptr64, real
from fastsoftmax._kernels.exp_scale cimport (
    RATE,
    SCALE_FIELDS,
    Clamped,
    ClampedPow2,
    ExpVariant,
    Unclamped,
    exp_variant,
    inverse_temperature,
    max_invertible_sum,
    pivot_exponent,
    pivot_in_range,
    scale_from_pivot,
    set_rate,
)
from fastsoftmax._kernels.normalize cimport (
    all_finite,
    all_within,
    pivot_kept_precision,
    propagate_nan,
    write_logsumexp,
)
from fastsoftmax._kernels.row cimport BLOCK, LINE, STEP, row_max
from fastsoftmax._kernels.row_batch cimport max_terms, scales_from_maxima, within_pivot_reach

cdef enum:
    SIGNAL_INTERVAL = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds
    PANEL_BYTES = 1 << 18  # bytes of scratch, which leave room for lines that come and go in L2
    MIN_SEGMENT_BYTES = 256  # bytes of a row below which memory is slow, even if a panel fits no cache
    MIN_PLACED_ROWS = 6  # rows from which on largest elements are remembered, not looked for
    SOLO_COLUMNS = 64  # columns of one `outer` from which on they make a panel alone

cdef struct ColumnCall:
    Op op
    double temperature  # of all columns, if a pivot may serve
    bint from_pivot  # it may; it did for the panels before
    bint has_pivot  # there is one
    double pivot
    Py_ssize_t since_check  # elements since the last look for Ctrl-C


cdef inline int check_signals(Py_ssize_t elements, Py_ssize_t *since_check) except -1 nogil:
    """Look for Ctrl-C if, with `elements` more, enough is done since the last time."""
    since_check[0] += elements
    if since_check[0] >= SIGNAL_INTERVAL:
        since_check[0] = 0
        with gil:
            PyErr_CheckSignals()
    return 0


# ---- by a pivot ----------------------------------------------------------------------------------


cdef inline void exp_flat(
    const real *x, const Panel *p, Py_ssize_t elements, bint is_end, out_ptr e, real *v,
    const real *exp_scale, exp_variant variant,
) noexcept nogil:
    """Write the exponentials of rows of x that follow each other, in scratch as in the array."""
    cdef Py_ssize_t whole = elements // VECTOR * VECTOR if is_end else round_to_vector(elements)
    exp_row(x, whole, e, exp_scale, variant)
    if whole < elements:
        copy_row(x + whole, elements - whole, <out_ptr>(v + SPARE * PANEL_COLUMNS))
        exp_row(<const real *>v + SPARE * PANEL_COLUMNS, VECTOR, e + whole, exp_scale, variant)


cdef inline void exp_rows(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e, out_ptr kept, real *v,
    const real *exp_scale, exp_variant variant,
) noexcept nogil:
    """Write the exponentials of `rows` rows of the panel at `x`, from row i on, to `e`.

    `kept` is scratch for the rows.
    """
    cdef Py_ssize_t r
    cdef Py_ssize_t pitch = p.pitch
    if p.tiles > 1:
        load_tiles(x, p, i, rows, kept)
        for r in range(rows):
            exp_row(<const real *>kept + r * pitch, p.width, e + r * pitch, exp_scale, variant)
    elif pitch == p.stride == p.columns:
        exp_flat(
            x + i * pitch, p, rows * pitch, p.last_is_end and i + rows == p.n, e, v, exp_scale,
            variant,
        )
    else:
        for r in range(rows):
            exp_row(
                readable_row(x, p, i + r, <out_ptr>(v + SPARE * PANEL_COLUMNS)), p.width,
                e + r * pitch, exp_scale, variant,
            )


cdef inline void exp_max_rows(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e, out_ptr kept, real *v,
    const real *exp_scale, exp_variant variant, bint find,
) noexcept nogil:
    """Write the exponentials of the same rows, and the rows themselves to `kept`.

    The maxima so far, and if `find`, a literal, their places, are taken along.
    """
    cdef Py_ssize_t r
    cdef Py_ssize_t pitch = p.pitch
    cdef out_ptr highest = <out_ptr>(v + HIGHEST * PANEL_COLUMNS)
    cdef out_ptr place = <out_ptr>(v + PLACE * PANEL_COLUMNS)
    if p.tiles > 1:
        load_tiles(x, p, i, rows, kept)
        for r in range(rows):
            exp_max_row(
                <const real *>kept + r * pitch, p.width, e + r * pitch, e, highest, place, i + r,
                exp_scale, variant, False, find,
            )
    else:
        for r in range(rows):
            exp_max_row(
                readable_row(x, p, i + r, <out_ptr>(v + SPARE * PANEL_COLUMNS)), p.width,
                e + r * pitch, kept + r * pitch, highest, place, i + r, exp_scale, variant, True,
                find,
            )


cdef inline void exp_step(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e, out_ptr kept, real *v,
    const real *exp_scale, Op op,
) noexcept nogil:
    """Call `exp_rows`, or for logarithms `exp_max_rows`."""
    if op == SOFTMAX:
        if exp_scale[RATE] != 0:
            exp_rows(x, p, i, rows, e, kept, v, exp_scale, <ClampedPow2>0)
        else:
            exp_rows(x, p, i, rows, e, kept, v, exp_scale, <Clamped>0)
    elif exp_scale[RATE] != 0:
        exp_max_rows(x, p, i, rows, e, kept, v, exp_scale, <ClampedPow2>0, True)
    elif p.n < MIN_PLACED_ROWS:
        exp_max_rows(x, p, i, rows, e, kept, v, exp_scale, <Unclamped>0, False)
    else:
        exp_max_rows(x, p, i, rows, e, kept, v, exp_scale, <Unclamped>0, True)


cdef inline void add_rows(
    const real *e, const Panel *p, Py_ssize_t i, Py_ssize_t rows, real *v, double *s
) noexcept nogil:
    """Add the exponentials of `rows` rows of the panel, from row i on, to the sums."""
    if p.n <= STEP:
        sum_planes(
            e, p.n, p.width, <out_ptr64>(s + SUM * PANEL_COLUMNS),
            <out_ptr64>(s + REST * PANEL_COLUMNS),
        )
        return
    accumulate_step(e, rows, p.pitch, <const real *>v + ZEROS * PANEL_COLUMNS, s)
    if (i + rows) % BLOCK == 0 or i + rows == p.n:
        fold_columns(
            <const double *>s + LANE_SUMS * PANEL_COLUMNS,
            <const double *>s + LANE_RESTS * PANEL_COLUMNS, p.pitch, p.width,
            <out_ptr64>(s + SUM * PANEL_COLUMNS), <out_ptr64>(s + REST * PANEL_COLUMNS), <real>0,
        )
        zero_lanes(s, p.pitch, <real>0)


cdef inline void exclude_max(
    const real *x, const Panel *p, Py_ssize_t rows, out_ptr e, real *v, bint is_first
) noexcept nogil:
    """Make 0 what is in `e`, for `rows` rows `x`, of each column's first largest element.

    It is looked for anew if these rows are the first ones.
    """
    cdef Py_ssize_t r
    cdef out_ptr unmatched = <out_ptr>(v + UNMATCHED * PANEL_COLUMNS)
    if is_first:
        mark_unmatched(<const real *>v + HIGHEST * PANEL_COLUMNS, p.width, unmatched)
    for r in range(rows):
        exclude_max_in_row(x + r * p.pitch, p.width, e + r * p.pitch, unmatched)


cdef inline void zero_sums(const Panel *p, double *s, real like) noexcept nogil:
    """Set the sums of a panel to 0."""
    if p.n > STEP:
        memset(s + SUM * PANEL_COLUMNS, 0, p.width * sizeof(double))
        memset(s + REST * PANEL_COLUMNS, 0, p.width * sizeof(double))
        zero_lanes(s, p.pitch, like)


cdef inline bint sums_from_pivot(
    const real *x, const Panel *p, ColumnCall *call, out_ptr e, out_ptr kept, real *v, double *s,
    real *exp_scale,
) except -1 nogil:
    """Write the sums of the panel at `x`; return False where the pivot did not serve.

    In `e` the exponentials are left, or the last `p.rows` of them. For logarithms, the sums are
    without the largest elements' own terms, and elements are left in `kept`.
    """
    cdef real *highest = v + HIGHEST * PANEL_COLUMNS
    cdef real inf = infinity(<real>0)
    cdef real inverse = v[INVERSE * PANEL_COLUMNS]
    cdef Py_ssize_t columns = p.columns * p.tiles
    cdef Py_ssize_t i, k, c
    cdef out_ptr d
    cdef bint is_log = call.op != SOFTMAX
    zero_sums(p, s, inf)
    if is_log:
        for c in range(p.width):
            highest[c] = -inf
        memset(v + PLACE * PANEL_COLUMNS, 0, p.width * sizeof(real))
    for i from 0 <= i < p.n by STEP:
        k = min(STEP, p.n - i)
        d = e + i % p.rows * p.pitch
        exp_step(
            x, p, i, k, d, kept + i * p.pitch if is_log else kept, v, <const real *>exp_scale,
            call.op,
        )
        if not is_log:
            add_rows(<const real *>d, p, i, k, v, s)
            check_signals(k * p.width, &call.since_check)
    if not is_log:
        column_reciprocals(
            <const double *>s + SUM * PANEL_COLUMNS, <const double *>s + REST * PANEL_COLUMNS,
            p.width, v + FACTOR * PANEL_COLUMNS, v + FACTOR_LOW * PANEL_COLUMNS,
        )
        # The largest of n is at least the n-th part of the sum; it must be large enough, too.
        return all_within(
            <const real *>v + FACTOR * PANEL_COLUMNS, columns, <real>0,
            1 / max_invertible_sum(inf),
            <real>((1 / 33554432.0 if real is float else 1 / 36893488147419103232.0) / p.n),
        )
    if not within_pivot_reach(<const real *>highest, columns, <real>call.pivot, inverse):
        return False
    if p.n < MIN_PLACED_ROWS:
        exclude_max(<const real *>kept, p, p.n, e, v, True)
    else:
        exclude_places(<real *>e, p.pitch, columns, <const real *>v + PLACE * PANEL_COLUMNS)
    for i from 0 <= i < p.n by STEP:
        k = min(STEP, p.n - i)
        add_rows(<const real *>e + i * p.pitch, p, i, k, v, s)
    check_signals(p.n * p.width, &call.since_check)
    if exp_scale[RATE] != 0:
        exp_row(
            <const real *>highest, p.width, <out_ptr>(v + FACTOR * PANEL_COLUMNS),
            <const real *>exp_scale, <ClampedPow2>0,
        )
    else:
        exp_row(
            <const real *>highest, p.width, <out_ptr>(v + FACTOR * PANEL_COLUMNS),
            <const real *>exp_scale, <Unclamped>0,
        )
    column_logs(
        <const double *>s + SUM * PANEL_COLUMNS, <const double *>s + REST * PANEL_COLUMNS,
        <const real *>v + FACTOR * PANEL_COLUMNS, p.width, <out_ptr64>(s + LOGS * PANEL_COLUMNS),
    )
    return pivot_kept_precision(<const double *>s + LOGS * PANEL_COLUMNS, columns)


# ---- by maxima -----------------------------------------------------------------------------------


cdef inline void load_rows(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e, real *v
) noexcept nogil:
    """Copy `rows` rows of the panel at `x`, from row i on, to `e`, and take the maxima along."""
    cdef Py_ssize_t r
    cdef out_ptr highest = <out_ptr>(v + HIGHEST * PANEL_COLUMNS)
    cdef out_ptr spare = <out_ptr>(v + SPARE * PANEL_COLUMNS)
    if p.tiles > 1:
        load_tiles(x, p, i, rows, e)
        for r in range(rows):
            raise_maxima(<const real *>e + r * p.pitch, p.width, highest)
    else:
        for r in range(rows):
            max_row(readable_row(x, p, i + r, spare), p.width, e + r * p.pitch, highest)


cdef inline ExpVariant sums_from_maxima(
    const real *x, const Panel *p, ColumnCall *call, out_ptr e, out_ptr kept, real *v, double *s
) except? <ExpVariant>-1 nogil:
    """Write maxima and sums of the panel at `x`; return how its exponentials are made.

    What is left in `e` and `kept`, and not in the sums, is as `sums_from_pivot` leaves it.
    """
    cdef real *highest = v + HIGHEST * PANEL_COLUMNS
    cdef real *exp_scale = v + EXP_SCALE * PANEL_COLUMNS
    cdef real inf = infinity(<real>0)
    cdef Py_ssize_t i, j, c, m, k
    cdef ExpVariant variant
    cdef out_ptr d
    for c in range(p.width):
        highest[c] = -inf
    zero_sums(p, s, inf)
    for i from 0 <= i < p.n by p.rows:
        m = min(p.rows, p.n - i)
        load_rows(x, p, i, m, kept, v)
        check_signals(m * p.width, &call.since_check)
    variant = scales_from_maxima(
        <const real *>highest, <const real *>v + INVERSE * PANEL_COLUMNS, p.width, exp_scale,
        PANEL_COLUMNS,
    )
    for i from 0 <= i < p.n by p.rows:
        m = min(p.rows, p.n - i)
        if p.rows < p.n:
            load_rows(x, p, i, m, kept, v)
        for j from 0 <= j < m by STEP:
            k = min(STEP, m - j)
            d = e + j * p.pitch if call.op == SOFTMAX else e
            exp_columns(
                <const real *>kept + j * p.pitch, k, p.width, p.pitch, d, <const real *>exp_scale,
                variant,
            )
            if call.op != SOFTMAX:
                exclude_max(<const real *>kept + j * p.pitch, p, k, d, v, i + j == 0)
            add_rows(<const real *>d, p, i + j, k, v, s)
        check_signals(m * p.width, &call.since_check)
    return variant


# ---- results -------------------------------------------------------------------------------------


cdef inline void store_rows(
    const real *e, const Panel *p, Py_ssize_t i, Py_ssize_t rows, real *y, out_ptr other,
    const real *v, Op op,
) noexcept nogil:
    """Write `rows` rows of results, from row i on, to the panel at `y`: `e` times their factor.

    For LOG_SOFTMAX, `e` has elements, the logarithms of whose sums are subtracted. `other` is
    scratch for the rows.
    """
    cdef const real *highest = v + HIGHEST * PANEL_COLUMNS
    cdef const real *inverse = v + INVERSE * PANEL_COLUMNS
    cdef const real *high = v + FACTOR * PANEL_COLUMNS
    cdef const real *low = v + FACTOR_LOW * PANEL_COLUMNS
    cdef Py_ssize_t t, r, c
    cdef Py_ssize_t pitch = p.pitch
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
            if p.tiles == 1:
                prefetch_ahead(<const real *>y, p, i + r)
            if op == SOFTMAX:
                scale_row(e + r * pitch + c, columns, to + r * p.stride, high + c, low + c)
            else:
                difference_row(
                    e + r * pitch + c, columns, to + r * p.stride, highest + c, inverse + c, high + c
                )


cdef inline bint sums_from_some_pivot(
    const real *x, const Panel *p, ColumnCall *call, out_ptr e, out_ptr kept, real *v, double *s,
    real *exp_scale,
) except -1 nogil:
    """Call `sums_from_pivot` with the pivot of the panel before, or else with one of this panel."""
    cdef real pivot
    if call.has_pivot and sums_from_pivot(x, p, call, e, kept, v, s, exp_scale):
        return True
    pivot = <real>row_max(x, p.columns).value
    if not pivot_in_range(pivot, v[INVERSE * PANEL_COLUMNS]):
        return False
    scale_from_pivot(pivot, call.temperature, pivot_exponent(pivot), False, exp_scale)
    call.pivot = pivot
    call.has_pivot = sums_from_pivot(x, p, call, e, kept, v, s, exp_scale)
    return call.has_pivot


cdef inline int store_panel(
    const real *x, real *y, const Panel *p, ColumnCall *call, out_ptr e, out_ptr kept, real *v,
    bint from_pivot, const real *pivot_scale, ExpVariant variant,
) except -1 nogil:
    """Write the results of the panel at `x`, whose sums are known, to that at `y`."""
    cdef Py_ssize_t i, m
    for i from 0 <= i < p.n by p.rows:
        m = min(p.rows, p.n - i)
        if p.rows < p.n:  # as the sums left them, but for the last rows
            if from_pivot:
                exp_step(x, p, i, m, e, kept, v, pivot_scale, call.op)
            else:
                load_rows(x, p, i, m, kept, v)
                if call.op == SOFTMAX:
                    exp_columns(
                        <const real *>kept, m, p.width, p.pitch, e,
                        <const real *>v + EXP_SCALE * PANEL_COLUMNS, variant,
                    )
        if call.op == SOFTMAX:
            store_rows(<const real *>e, p, i, m, y, kept, <const real *>v, call.op)
        else:
            store_rows(<const real *>kept, p, i, m, y, e, <const real *>v, call.op)
        check_signals(m * p.width, &call.since_check)
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
    const real *x, real *y, const Panel *p, ColumnCall *call, out_ptr e, out_ptr kept, real *v,
    double *s, real *pivot_scale,
) except -1 nogil:
    """Write the results of the panel at `x` to that at `y`, or for LOGSUMEXP one a column.

    y may be x. `e` and `kept` are scratch for `p.rows` rows, `e` 0 from row n on.
    """
    cdef real *factor = v + FACTOR * PANEL_COLUMNS
    cdef double *logs = s + LOGS * PANEL_COLUMNS
    cdef Py_ssize_t c, t
    cdef bint from_pivot = call.from_pivot
    cdef ExpVariant variant = <ExpVariant>0
    if from_pivot:
        from_pivot = sums_from_some_pivot(x, p, call, e, kept, v, s, pivot_scale)
        call.from_pivot = from_pivot
    if not from_pivot:
        variant = sums_from_maxima(x, p, call, e, kept, v, s)
    if call.op == SOFTMAX:
        if not from_pivot:
            column_reciprocals(
                <const double *>s + SUM * PANEL_COLUMNS, <const double *>s + REST * PANEL_COLUMNS,
                p.width, factor, v + FACTOR_LOW * PANEL_COLUMNS,
            )
    else:
        if not from_pivot:
            max_terms(
                <const real *>v + HIGHEST * PANEL_COLUMNS, <const real *>v + EXP_SCALE * PANEL_COLUMNS,
                p.width, PANEL_COLUMNS, <out_ptr>factor,
            )
            column_logs(
                <const double *>s + SUM * PANEL_COLUMNS, <const double *>s + REST * PANEL_COLUMNS,
                <const real *>factor, p.width, <out_ptr64>logs,
            )
        if call.op == LOGSUMEXP:
            store_logsumexp(x, p, y, <const real *>v + HIGHEST * PANEL_COLUMNS, <const double *>logs)
            return 0
        for c in range(p.width):
            factor[c] = <real>logs[c]
    store_panel(x, y, p, call, e, kept, v, from_pivot, <const real *>pivot_scale, variant)
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
    """Set what columns have of their temperatures, and those that fill up vectors of the first's."""
    cdef Py_ssize_t c
    cdef double t
    for c in range(round_to_vector(columns)):
        t = temperature[c * temperature_stride if c < columns else 0]
        v[INVERSE * PANEL_COLUMNS + c] = inverse_temperature(t, <real>0)
        set_rate(t, v + EXP_SCALE * PANEL_COLUMNS + c, PANEL_COLUMNS)


cdef inline Py_ssize_t max_panel_width(Py_ssize_t n, real like) noexcept nogil:
    """Return how many columns of n elements a panel may have, a multiple of VECTOR."""
    cdef Py_ssize_t size = sizeof(real)
    if n <= STEP:
        return PLANE_PITCH
    return min(
        max(PANEL_BYTES // (n * size), MIN_SEGMENT_BYTES // size), PANEL_COLUMNS
    ) // VECTOR * VECTOR


cdef inline Py_ssize_t even_panel_width(Py_ssize_t inner, Py_ssize_t at_most) noexcept nogil:
    """Return how many of `inner` columns to take at once so that none of the panels has few."""
    cdef Py_ssize_t parts = (inner + at_most - 1) // at_most
    return inner if parts == 1 else round_to_vector((inner + parts - 1) // parts)


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
    """Write the results along the middle axis of (outer, n, inner) for columns `start` to `stop`.

    Columns are counted as in ``x[:, 0, :].ravel()``; `temperature_stride` is 1 if there is a
    `temperature` for each, else 0. All are `temperature_in_range`, and 1 or none is. y is x, or
    does not overlap it; it has one element for each column for LOGSUMEXP.
    """
    cdef Py_ssize_t size = sizeof(real)
    cdef Py_ssize_t at_once = min(max_panel_width(n, <real>0), round_to_vector(stop - start))
    cdef Py_ssize_t part = even_panel_width(inner, at_once)
    cdef Py_ssize_t end = (stop + inner - 1) // inner * inner * n  # of what may be read
    cdef Py_ssize_t pitch = PLANE_PITCH if n <= STEP else at_once
    cdef Py_ssize_t planes = planes_summed(n) if n <= STEP else 0
    cdef Py_ssize_t columns, within, first, scratch
    cdef ColumnCall call
    cdef Panel p
    cdef real pivot_scale[SCALE_FIELDS]
    cdef char *memory
    cdef double *s
    cdef real *v
    cdef real *e
    cdef real *kept
    call.op = op
    call.since_check = 0
    call.temperature = temperature[0]
    call.has_pivot = False
    call.pivot = 0
    call.from_pivot = not temperature_stride and (temperature[0] == 1 or HAS_FMA)
    p.n = n
    p.stride = inner
    p.rows = n
    if n * at_once > SIGNAL_INTERVAL:
        p.rows = PANEL_BYTES // (at_once * size) // STEP * STEP
    if op != SOFTMAX and (n * at_once * size > PANEL_BYTES or p.rows < n):
        call.from_pivot = False
    scratch = (max(p.rows, planes) * pitch + VECTOR) * size + LINE
    memory = <char *>malloc(
        2 * scratch + VECTORS * PANEL_COLUMNS * size + DOUBLE_VECTORS * PANEL_COLUMNS * 8 + LINE
    )
    if memory == NULL:
        with gil:
            raise MemoryError
    try:
        s = <double *>((<uintptr_t>memory + LINE - 1) & ~<uintptr_t>(LINE - 1))
        v = <real *>(s + DOUBLE_VECTORS * PANEL_COLUMNS)
        e = v + VECTORS * PANEL_COLUMNS
        kept = e + scratch // LINE * LINE // size
        memset(v, 0, VECTORS * PANEL_COLUMNS * size)
        if planes > n:
            memset(e + n * pitch, 0, (planes - n) * pitch * size)
        if not temperature_stride:
            set_temperatures(temperature, 0, PANEL_COLUMNS, v)
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
            p.last_is_end = first + (p.n - 1) * inner + p.width > end
            if real is float:
                softmax_panel(
                    x + first, y + (start if op == LOGSUMEXP else first), &p, &call,
                    <out_ptr32>e, <out_ptr32>kept, v, s, pivot_scale,
                )
            else:
                softmax_panel(
                    x + first, y + (start if op == LOGSUMEXP else first), &p, &call,
                    <out_ptr64>e, <out_ptr64>kept, v, s, pivot_scale,
                )
            start += columns * p.tiles
    finally:
        free(memory)
    return 0
