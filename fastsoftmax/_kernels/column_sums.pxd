# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The sums of a panel of columns: by a pivot, or by the maxima of its columns.

One K (see ``exp_scale.pxd``) serves all columns of most panels, and the largest entry of the first
row of an earlier panel is near enough to choose it by: the pivot. So exponentials are made of the
array itself while its next rows are fetched, and maxima, which softmax does not need, in the same
loop. Sums and maxima show whether the pivot served. All else goes by the maxima of the columns,
with the same bits: what of an exponential depends on K is its exponent.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memset

from fastsoftmax._kernels.abi cimport SOFTMAX, Op
from fastsoftmax._kernels.batch_scale cimport RATE, scales_from_maxima, store_scale
from fastsoftmax._kernels.column_exp cimport exp_few_rows, exp_step
from fastsoftmax._kernels.column_io cimport Panel, leaps, load_tiles, readable_row, row_ahead
from fastsoftmax._kernels.column_lanes cimport (
    accumulate_step,
    fold_columns,
    sum_planes,
    zero_lanes,
)
from fastsoftmax._kernels.columns cimport (
    EXP_SCALE,
    FACTOR,
    FACTOR_LOW,
    HIGHEST,
    INVERSE,
    LANE_RESTS,
    LANE_SUMS,
    LOGS,
    MIN_PLACED_ROWS,
    PANEL_COLUMNS,
    PLACE,
    REST,
    SPARE,
    SUM,
    UNMATCHED,
    ZEROS,
    column_logs,
    column_reciprocals,
    exclude_max_in_row,
    exclude_places,
    exp_columns,
    exp_row,
    mark_unmatched,
    max_row,
    raise_maxima,
)
from fastsoftmax._kernels.exp_blocks cimport prefetch_lines
from fastsoftmax._kernels.exp_scale cimport (
    ClampedPow2,
    ExpScale,
    ExpVariant,
    Unclamped,
    max_invertible_sum,
    pivot_exponent,
    pivot_in_range,
    raised,
    scale_from_pivot,
)
from fastsoftmax._kernels.flush_to_zero cimport flush_to_zero, keep_subnormal
from fastsoftmax._kernels.maxima cimport row_max
from fastsoftmax._kernels.normalize cimport all_within, pivot_kept_precision
from fastsoftmax._kernels.sums cimport BLOCK, STEP
from fastsoftmax._kernels.types cimport infinity, out_ptr, out_ptr64, real

cdef enum:
    SIGNAL_INTERVAL = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds
    LOG_EXPONENT = 84  # of a pivot's exponential, for logarithms: no sum has to be inverted
    FEW_EXPONENT = 16  # more of it in few rows, whose maxima lie far below that of a whole panel
    PIVOT_ODDS = 5  # panels of which a pivot may fail for one, or they take less time without

cdef struct PanelState:  # what panels of a call have in common
    Op op
    double temperature  # of all columns, if a pivot may serve
    Py_ssize_t pivot_credit  # below 0 none is tried: it failed for one panel of PIVOT_ODDS or more
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


cdef inline void add_rows(
    const real *e, const Panel *p, Py_ssize_t i, Py_ssize_t rows, real *v, double *s
) noexcept nogil:
    """Add `rows` rows of the exponentials `e`, from row i of the panel on, to the sums in `s`."""
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
    """Make the exponential in `e` of each column's first largest element, among rows `x`, 0.

    `is_first` says that these `rows` rows are the first ones, so that none is found yet.
    """
    cdef Py_ssize_t r
    cdef out_ptr unmatched = <out_ptr>(v + UNMATCHED * PANEL_COLUMNS)
    if is_first:
        mark_unmatched(<const real *>v + HIGHEST * PANEL_COLUMNS, p.width, unmatched)
    for r in range(rows):
        exclude_max_in_row(x + r * p.pitch, p.width, e + r * p.pitch, unmatched)


cdef inline void zero_sums(const Panel *p, double *s, real like) noexcept nogil:
    """Set the sums in `s` to 0, where they are made step by step."""
    if p.n > STEP:
        memset(s + SUM * PANEL_COLUMNS, 0, p.width * sizeof(double))
        memset(s + REST * PANEL_COLUMNS, 0, p.width * sizeof(double))
        zero_lanes(s, p.pitch, like)


cdef inline bint log_pivot_serves(
    const real *highest, Py_ssize_t columns, real pivot, real inverse
) noexcept nogil:
    """Return whether all maxima lie from 47 T below `pivot` to 28 T above; `inverse` is 1/T.

    Their exponentials are then 2**16 to 2**125, and what a column leaves out of its sum is less
    than 2**-140 of that.
    """
    return all_within(highest, columns, pivot - <real>9.5 / inverse, <real>0, <real>37.5 / inverse)


cdef inline bint sums_from_pivot(
    const real *x, const Panel *p, PanelState *state, out_ptr e, out_ptr kept, real *v, double *s,
    real *exp_scale,
) except -1 nogil:
    """Write the sums of the panel at `x`; return False where the pivot did not serve.

    In `e` the exponentials are left, or the last `p.rows` of them. For logarithms, the sums are
    without the largest elements' own terms, and elements are left in `kept`, but those of fewer
    than MIN_PLACED_ROWS rows that can be read in place.
    """
    cdef real *highest = v + HIGHEST * PANEL_COLUMNS
    cdef real inf = infinity(<real>0)
    cdef real inverse = v[INVERSE * PANEL_COLUMNS]
    cdef Py_ssize_t columns = p.columns * p.tiles
    cdef Py_ssize_t i, k, c
    cdef out_ptr d
    cdef bint is_log = state.op != SOFTMAX
    cdef bint few = is_log and p.n < MIN_PLACED_ROWS
    cdef bint summed = False
    cdef unsigned int control
    zero_sums(p, s, inf)
    if few:
        summed = exp_few_rows(x, p, e, kept, v, s, <const real *>exp_scale)
    elif is_log:
        for c in range(p.width):
            highest[c] = -inf
        memset(v + PLACE * PANEL_COLUMNS, 0, p.width * sizeof(real))
    for i from 0 <= i < (0 if few else p.n) by STEP:
        k = min(STEP, p.n - i)
        d = e + i % p.rows * p.pitch
        control = flush_to_zero(k * p.width)
        exp_step(
            x, p, i, k, d, kept + i * p.pitch if is_log else kept, v, <const real *>exp_scale,
            state.op,
        )
        keep_subnormal(control)
        if not is_log:
            add_rows(<const real *>d, p, i, k, v, s)
            check_signals(k * p.width, &state.since_check)
    if not is_log:
        if real is float and p.n <= STEP:
            column_reciprocals(
                <const double *>s + SUM * PANEL_COLUMNS, <const double *>NULL, p.width,
                v + FACTOR * PANEL_COLUMNS, v + FACTOR_LOW * PANEL_COLUMNS,
            )
        else:
            column_reciprocals(
                <const double *>s + SUM * PANEL_COLUMNS, <const double *>s + REST * PANEL_COLUMNS,
                p.width, v + FACTOR * PANEL_COLUMNS, v + FACTOR_LOW * PANEL_COLUMNS,
            )
        # The largest of n is at least the n-th part of the sum; it must be large enough, too.
        return all_within(
            <const real *>v + FACTOR * PANEL_COLUMNS, columns, <real>0,
            raised(inf) / max_invertible_sum(inf),
            <real>(raised(inf) / (33554432.0 if real is float else 36893488147419103232.0) / p.n),
        )
    if not log_pivot_serves(<const real *>highest, columns, <real>state.pivot, inverse):
        return False
    if not few:
        exclude_places(<real *>e, p.pitch, columns, <const real *>v + PLACE * PANEL_COLUMNS)
    for i from 0 <= i < (0 if summed else p.n) by STEP:
        k = min(STEP, p.n - i)
        add_rows(<const real *>e + i * p.pitch, p, i, k, v, s)
    check_signals(p.n * p.width, &state.since_check)
    if few:
        pass
    elif exp_scale[RATE] != 0:
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
        <out_ptr64>(s + LANE_SUMS * PANEL_COLUMNS),
    )
    return pivot_kept_precision(<const double *>s + LOGS * PANEL_COLUMNS, columns)


cdef inline bint sums_from_some_pivot(
    const real *x, const Panel *p, PanelState *state, out_ptr e, out_ptr kept, real *v, double *s,
    real *exp_scale,
) except -1 nogil:
    """Call `sums_from_pivot` with the pivot of the panel before, or else with one of this panel."""
    cdef real pivot, exponent
    cdef ExpScale scale
    if state.has_pivot and sums_from_pivot(x, p, state, e, kept, v, s, exp_scale):
        return True
    pivot = <real>row_max(x, p.columns).value
    if not pivot_in_range(pivot, v[INVERSE * PANEL_COLUMNS]):
        return False
    exponent = LOG_EXPONENT
    if state.op == SOFTMAX:
        exponent = pivot_exponent(pivot) + (FEW_EXPONENT if p.n < MIN_PLACED_ROWS else 0)
    scale = scale_from_pivot(pivot, state.temperature, exponent, False)
    store_scale(&scale, exp_scale, 1)
    state.pivot = pivot
    state.has_pivot = sums_from_pivot(x, p, state, e, kept, v, s, exp_scale)
    return state.has_pivot


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
            if leaps(p):
                prefetch_lines(row_ahead(x, p, i + r), p.columns)
            max_row(readable_row(x, p, i + r, spare), p.width, e + r * p.pitch, highest)


cdef inline ExpVariant sums_from_maxima(
    const real *x, const Panel *p, PanelState *state, out_ptr e, out_ptr kept, real *v, double *s
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
    cdef unsigned int control
    for c in range(p.width):
        highest[c] = -inf
    zero_sums(p, s, inf)
    for i from 0 <= i < p.n by p.rows:
        m = min(p.rows, p.n - i)
        load_rows(x, p, i, m, kept, v)
        check_signals(m * p.width, &state.since_check)
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
            d = e + j * p.pitch if state.op == SOFTMAX else e
            control = flush_to_zero(k * p.width if state.op == SOFTMAX else 0)
            exp_columns(
                <const real *>kept + j * p.pitch, k, p.width, p.pitch, d, <const real *>exp_scale,
                variant,
            )
            keep_subnormal(control)
            if state.op != SOFTMAX:
                exclude_max(<const real *>kept + j * p.pitch, p, k, d, v, i + j == 0)
            add_rows(<const real *>d, p, i + j, k, v, s)
        check_signals(m * p.width, &state.since_check)
    return variant
