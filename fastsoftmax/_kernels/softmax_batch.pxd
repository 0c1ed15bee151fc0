# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""softmax, log_softmax and logsumexp of a batch of rows that fills L1, phase by phase."""

from libc.string cimport memcpy, memset

from fastsoftmax._kernels.abi cimport LOGSUMEXP, SOFTMAX, Op
from fastsoftmax._kernels.batch_scale cimport (
    BATCH_ROWS,
    batch_variant,
    choose_scale,
    max_terms,
    reciprocals_in_range,
    within_pivot_reach,
)
from fastsoftmax._kernels.exp_blocks cimport prefetch_lines
from fastsoftmax._kernels.exp_scale cimport (
    CENTERED_POW2,
    CLAMPED,
    CLAMPED_POW2,
    RAISED,
    Centered,
    CenteredPow2,
    Clamped,
    ClampedPow2,
    ExpVariant,
    Unclamped,
    pivot_in_range,
)
from fastsoftmax._kernels.maxima cimport MIN_BATCH_LENGTH, row_maxima, row_maxima_of_steps
from fastsoftmax._kernels.normalize cimport (
    all_finite,
    log1p_sums,
    pivot_kept_precision,
    propagate_nan,
    reciprocals,
    write_logsumexp,
)
from fastsoftmax._kernels.row_batch cimport (
    BATCH_ELEMENTS,
    batch_sums,
    difference_rows,
    exp_batch,
    scaled_rows,
)
from fastsoftmax._kernels.short_rows cimport (
    soa_exclude_max,
    soa_exp,
    soa_log1p_sums,
    soa_log_softmax,
    soa_maxima,
    soa_reciprocals,
    soa_scale,
    soa_sums,
)
from fastsoftmax._kernels.sums cimport STEP, DoubleDouble
from fastsoftmax._kernels.sums_excluding_max cimport batch_sums_excluding_max
from fastsoftmax._kernels.transpose cimport (
    pad_rows,
    padded_rows,
    transpose_in_apart,
    transpose_out_apart,
)
from fastsoftmax._kernels.types cimport (
    infinity,
    noinline_void,
    not_a_number,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)

# Built into one function with the others, these loops keep vectors in memory.


cdef inline noinline_void exp_batch_variants(
    const real *x, out_ptr e, Py_ssize_t width, Py_ssize_t rows, Py_ssize_t n,
    const real *exp_scale, ExpVariant variant, const real *out,
) noexcept nogil:
    """Call `exp_batch` for the variants that are rare."""
    if variant == CLAMPED_POW2:
        exp_batch(x, e, width, rows, n, exp_scale, <ClampedPow2>0, out, <real *>NULL)
    elif variant == CENTERED_POW2:
        exp_batch(x, e, width, rows, n, exp_scale, <CenteredPow2>0, out, <real *>NULL)
    else:
        exp_batch(x, e, width, rows, n, exp_scale, <Centered>0, out, <real *>NULL)


cdef inline noinline_void soa_exp_variants(
    const real *soa, out_ptr e, Py_ssize_t rows, Py_ssize_t n, const real *exp_scale,
    ExpVariant variant,
) noexcept nogil:
    """Call `soa_exp` for the variants that are rare."""
    if variant == CLAMPED_POW2:
        soa_exp(soa, e, rows, n, exp_scale, <ClampedPow2>0)
    elif variant == CENTERED_POW2:
        soa_exp(soa, e, rows, n, exp_scale, <CenteredPow2>0)
    else:
        soa_exp(soa, e, rows, n, exp_scale, <Centered>0)


cdef inline noinline_void soa_sums_noinline(
    const real *e, Py_ssize_t rows, Py_ssize_t n, double *total, double *rest
) noexcept nogil:
    """Call `soa_sums`."""
    soa_sums(e, rows, n, <out_ptr64>total, <out_ptr64>rest)


cdef inline bint batch_rows(
    const real *x,
    real *y,
    out_ptr e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *inverse,
    Op op,
    real *exp_scale,
    real *pivot,
) noexcept nogil:
    """Write the result of `op` for rows of MIN_BATCH_LENGTH <= n <= BATCH_ELEMENTS; y may be x.

    Up to 7 elements behind the last row are read. `e` is scratch, 0 before the first batch.
    `exp_scale` and `pivot` are those of the batch before; False, with nothing written, if the pivot
    did not serve this one. It is NaN if each row has its own K. All rows have T = 1, or none has.
    """
    cdef real scratch[48 * BATCH_ROWS]
    cdef double lanes[13 * BATCH_ROWS]
    cdef real highest[BATCH_ROWS]
    cdef real high[BATCH_ROWS]
    cdef real low[BATCH_ROWS]
    cdef double logs[BATCH_ROWS]
    cdef DoubleDouble s[BATCH_ROWS]
    cdef Py_ssize_t r
    cdef Py_ssize_t width = (n + STEP - 1) // STEP * STEP
    cdef const real *out = x if op == LOGSUMEXP else y  # to be fetched
    cdef bint from_pivot = (
        pivot_in_range(pivot[0], inverse[0]) and (op == SOFTMAX or n >= STEP)
    )
    cdef ExpVariant variant = batch_variant(<const real *>exp_scale)
    highest[0] = low[0] = 0  # rows > 0, which the compiler does not know
    if not from_pivot:
        row_maxima(x, rows, n, highest, scratch)
        variant = <ExpVariant>choose_scale(<const real *>highest, inverse, rows, exp_scale, pivot)
    if from_pivot and op != SOFTMAX:
        exp_batch(x, e, width, rows, n, <const real *>exp_scale, <Unclamped>0, out, scratch)
        row_maxima_of_steps(
            <const real *>scratch, rows, STEP, highest, scratch + STEP * rows
        )
        if not within_pivot_reach(<const real *>highest, rows, pivot[0], <real>1):
            pivot[0] = infinity(<real>0)
            return False
    elif variant == CLAMPED:
        exp_batch(x, e, width, rows, n, <const real *>exp_scale, <Clamped>0, out, scratch)
    elif real is float:
        exp_batch_variants(x, <out_ptr32>e, width, rows, n, <const real *>exp_scale, variant, out)
    else:
        exp_batch_variants(x, <out_ptr64>e, width, rows, n, <const real *>exp_scale, variant, out)
    if op == SOFTMAX:
        memset(s, 0, rows * sizeof(DoubleDouble))
        batch_sums(<const real *>e, width, rows, lanes, s)
        reciprocals(s, rows, high, low)
        if from_pivot and not reciprocals_in_range(<const real *>high, rows):
            pivot[0] = infinity(<real>0)
            return False
        scaled_rows(<const real *>e, width, <out_ptr>y, rows, n, high, low, RAISED)
        propagate_nan(<const real *>high, y, rows, n, n, 1)
        return True
    max_terms(<const real *>highest, <const real *>exp_scale, rows, BATCH_ROWS, <out_ptr>low)
    batch_sums_excluding_max(
        x, <real *>e, width, rows, n, <const real *>highest, <const real *>low,
        scratch, lanes, s,
    )
    log1p_sums(s, <const real *>low, rows, logs)
    if pivot_in_range(pivot[0], inverse[0]) and not pivot_kept_precision(logs, rows):
        pivot[0] = not_a_number(<real>0)
        return False
    if op == LOGSUMEXP:
        write_logsumexp(x, y, rows, n, n, 1, highest, logs)
        return True
    for r in range(rows):
        high[r] = <real>logs[r]
    if y == x:  # the loop is promised that it does not read what it writes
        for r in range(rows):
            memcpy(<real *>e, x + r * n, n * sizeof(real))
            difference_rows(
                <const real *>e, <out_ptr>(y + r * n), 1, n, highest + r, inverse + r, high + r
            )
        memset(<real *>e, 0, width * sizeof(real))
    else:
        difference_rows(x, <out_ptr>y, rows, n, highest, inverse, high)
    propagate_nan(<const real *>high, y, rows, n, n, 1)
    return True


cdef inline bint batch_short_rows(
    const real *x,
    real *y,
    out_ptr e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *inverse,
    Op op,
    real *exp_scale,
    real *pivot,
) noexcept nogil:
    """Write the result of `op` for rows of n < MIN_BATCH_LENGTH elements; y may be x.

    `e` is scratch, 0 from plane n on. `exp_scale` and `pivot` are those of the batch before; False,
    with nothing written, if the pivot did not serve this one. It is NaN if each row has its own K.
    All rows have T = 1, or none has.
    """
    cdef real soa[MIN_BATCH_LENGTH * BATCH_ROWS]
    cdef real whole[MIN_BATCH_LENGTH * BATCH_ROWS]
    cdef real highest[BATCH_ROWS]
    cdef real high[BATCH_ROWS]
    cdef real low[BATCH_ROWS]
    cdef double total[BATCH_ROWS]
    cdef double rest[BATCH_ROWS]
    cdef double logs[BATCH_ROWS]
    cdef Py_ssize_t r
    cdef Py_ssize_t filled = padded_rows(rows)
    cdef const real *source = x
    cdef real *target = y
    cdef bint from_pivot = op == SOFTMAX and pivot_in_range(pivot[0], inverse[0])
    cdef ExpVariant variant = batch_variant(<const real *>exp_scale)
    if filled > rows:
        pad_rows(x, whole, rows, n)
        source = whole
        target = whole
    transpose_in_apart(source, filled, n, soa)
    prefetch_lines(x + rows * n, rows * n)  # the next batch
    highest[0] = 0
    if not from_pivot:
        soa_maxima(soa, filled, n, <out_ptr>highest)
        variant = <ExpVariant>choose_scale(<const real *>highest, inverse, filled, exp_scale, pivot)
    if variant == CLAMPED:
        soa_exp(soa, e, filled, n, <const real *>exp_scale, <Clamped>0)
    elif real is float:
        soa_exp_variants(soa, <out_ptr32>e, filled, n, <const real *>exp_scale, variant)
    else:
        soa_exp_variants(soa, <out_ptr64>e, filled, n, <const real *>exp_scale, variant)
    if op != SOFTMAX:
        soa_exclude_max(soa, e, filled, n, highest)
    soa_sums_noinline(<const real *>e, filled, n, total, rest)
    if op == SOFTMAX:
        soa_reciprocals(total, rest, filled, high, low)
        if from_pivot and not reciprocals_in_range(<const real *>high, filled):
            pivot[0] = infinity(<real>0)
            return False
        soa_scale(e, filled, n, high, low)
        transpose_out_apart(<const real *>e, target, filled, n)
    else:
        max_terms(<const real *>highest, <const real *>exp_scale, filled, BATCH_ROWS, <out_ptr>low)
        soa_log1p_sums(total, rest, <const real *>low, filled, <out_ptr64>logs)
        if op == LOGSUMEXP:
            if all_finite(<const real *>highest, filled):
                for r in range(rows):
                    y[r] = <real>(highest[r] + logs[r])
                propagate_nan(<const real *>y, y, rows, 1, 1, 1)
            else:
                write_logsumexp(x, y, rows, n, n, 1, highest, logs)
            return True
        for r in range(filled):
            high[r] = <real>logs[r]
        soa_log_softmax(<out_ptr>soa, filled, n, highest, inverse, high)
        transpose_out_apart(<const real *>soa, target, filled, n)
    if filled > rows:
        memcpy(y, whole, rows * n * sizeof(real))
    propagate_nan(<const real *>high, y, rows, n, n, 1)
    return True


cdef inline noinline_void softmax_batch(
    const real *x,
    real *y,
    real *e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *inverse,
    Op op,
    real *exp_scale,
    real *pivot,
) noexcept nogil:
    """Write the result of `op` for a batch of rows, in the form that suits their length.

    `e` is scratch of BATCH_ELEMENTS; `exp_scale` and `pivot` go from batch to batch.
    """
    cdef bint done = False
    while not done:  # again if a pivot did not serve: at most twice
        if n < MIN_BATCH_LENGTH:
            if real is float:
                done = batch_short_rows(
                    x, y, <out_ptr32>e, rows, n, inverse, op, exp_scale, pivot
                )
            else:
                done = batch_short_rows(
                    x, y, <out_ptr64>e, rows, n, inverse, op, exp_scale, pivot
                )
        elif real is float:
            done = batch_rows(
                x, y, <out_ptr32>e, rows, n, inverse, op, exp_scale, pivot
            )
        else:
            done = batch_rows(
                x, y, <out_ptr64>e, rows, n, inverse, op, exp_scale, pivot
            )
