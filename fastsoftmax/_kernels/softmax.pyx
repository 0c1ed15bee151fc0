# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""softmax, log_softmax and logsumexp of contiguous rows. Built once per instruction set.

Formula
    softmax:      e / sum(e),                    e = exp((x - c) / T) / 2**K
    log_softmax:  (x - max) / T - log1p(S),      S = sum(e) / e_max without the largest entry's term
    logsumexp:    max + log1p(S)
    for any K; c is 0, unless the maximum is far from 0 (``near``): then it is that.

Passes over memory
    softmax: exponentials and their sum, a block that fits L1 at a time (read, write); scale (read,
    write). K comes from the first block, or from rows before; what that makes too large or too
    small shows in the sum, and the row is done again, with the maximum (one more pass), as rows are
    that differ in T. log_softmax: sum, difference; logsumexp: sum. At T = 1 the maximum is found
    meanwhile, by the same guess; else in a pass before, that of a long row while the exponentials
    of the row before are made.

Precision policy
    Elements in the row's own type, sums in more (``row.pxd`` says in which order). 1 / sum is a
    pair too: its first part alone would cost one more rounding. x itself has no rounding that
    x - max would have; far from 0 that difference is exact where the result is not 0.

Source
    P. Blanchard, D. J. Higham, N. J. Higham, IMA Journal of Numerical Analysis 41 (2021),
    https://doi.org/10.1093/imanum/draa038
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy, memset

from fastsoftmax._front.strided cimport FLOAT32
from fastsoftmax._kernels.abi cimport (
    LOGSUMEXP,
    LOG_SOFTMAX,
    SOFTMAX,
    Op,
    SoftmaxCall,
    SoftmaxKernels,
    temperature_in_range,
)
from fastsoftmax._kernels.column_panels cimport softmax_columns
from fastsoftmax._kernels.column_sums cimport SIGNAL_INTERVAL
from fastsoftmax._kernels.exp cimport (
    HAS_FMA,
    infinity,
    noinline_void,
    not_a_number,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)
from fastsoftmax._kernels.exp_scale cimport (
    CENTERED_POW2,
    CLAMPED,
    CLAMPED_POW2,
    RATE,
    SCALE_FIELDS,
    Centered,
    CenteredPow2,
    Clamped,
    ClampedPow2,
    ExpVariant,
    Unclamped,
    inverse_temperature,
    max_invertible_sum,
    max_term,
    pivot_exponent,
    pivot_in_range,
    scale_from_max,
    scale_from_pivot,
    set_rate,
    target_exponent,
)
from fastsoftmax._kernels.legacy_abi cimport OldSoftmaxKernels
from fastsoftmax._kernels.normalize cimport (
    all_finite,
    log1p_sums,
    logsumexp_of,
    nan_if_any,
    pivot_kept_precision,
    propagate_nan,
    reciprocals,
    write_logsumexp,
)
from fastsoftmax._kernels.row cimport (
    BLOCK,
    STEP,
    DoubleDouble,
    LaneSums,
    RowMax,
    accumulate,
    accumulate_block,
    accumulate_fn,
    exp_block,
    exp_of_row,
    exp_padded,
    fold_lanes,
    init_max,
    lanes_excluding_max,
    max_of,
    pad,
    prefetch_lines,
    row_max,
    scale,
    scale_row,
    subtract,
    sum_and_max_from_pivot,
    sum_excluding_max,
    zero,
)
from fastsoftmax._kernels.row_batch cimport (
    BATCH_ELEMENTS,
    BATCH_ROWS,
    MIN_BATCH_LENGTH,
    batch_sums,
    batch_variant,
    choose_scale,
    difference_rows,
    exclude_max,
    exp_batch,
    max_terms,
    reciprocals_in_range,
    row_maxima,
    row_maxima_of_steps,
    scaled_rows,
    within_pivot_reach,
)
from fastsoftmax._kernels.short_rows cimport (
    pad_rows,
    padded_rows,
    soa_exclude_max,
    soa_exp,
    soa_log1p_sums,
    soa_log_softmax,
    soa_maxima,
    soa_reciprocals,
    soa_scale,
    soa_sums,
    transpose_in,
    transpose_out,
)

cdef enum:
    PREFETCH_BYTES = 4096  # bytes of a long row that are fetched in advance; 2048 to 8192 do the same
    MAX_ABOVE_PIVOT = 40  # how far above its guess a largest entry may be: 58 powers of 2 above `target_exponent`


cdef accumulate_fn add_double = accumulate_block[double]


# ---- rows ----------------------------------------------------------------------------------------


cdef bint rewrite_extreme_temperature(
    const real *x, real *y, Py_ssize_t n, double temperature, RowMax *top
) noexcept nogil:
    """Tell if T is not `temperature_in_range`; if so, write scores into y whose softmax at T = 1 is that of x.

    `top` is that of x, and becomes that of y. Rows that have no probabilities become NaN later, as
    every such row does.
    """
    cdef real inf = infinity(<real>0)
    cdef real highest = <real>top.value
    cdef real inverse
    cdef Py_ssize_t j, first = -1
    cdef bint bad = False
    if temperature_in_range(temperature):
        return False
    if temperature == 0:
        for j in range(n):
            bad |= x[j] != x[j]
            if first < 0 and x[j] == highest:
                first = j
        bad |= highest == inf or highest == -inf
        for j in range(n):
            y[j] = inf if bad else -inf
        if not bad:
            y[first] = 0
    elif <real>(1 / temperature) == 0:
        for j in range(n):
            y[j] = 0 if -inf < x[j] < inf else x[j]
    else:
        inverse = inverse_temperature(temperature, <real>0)
        for j in range(n):
            y[j] = (x[j] - highest) * inverse
    top[0] = row_max(<const real *>y, n)
    return True


cdef real pivot_of_row(const real *x, Py_ssize_t n, double temperature) noexcept nogil:
    """Return a guess of a row's largest element, no larger than that; NaN if it cannot serve."""
    cdef real pivot = <real>row_max(x, min(n, BLOCK)).value
    cdef bint serves = pivot_in_range(pivot, inverse_temperature(temperature, <real>0))
    return pivot if serves and (HAS_FMA or temperature == 1) else not_a_number(pivot)


cdef void normalize_row(const real *x, real *y, Py_ssize_t n, const DoubleDouble *s) noexcept nogil:
    """y = y / s, as `exp_of_row` made it of x; NaN if s is no number."""
    cdef real high, low
    reciprocals(s, 1, &high, &low)
    scale_row(x, y, n, high, low)
    propagate_nan(<const real *>&high, y, 1, n, n, 1)


cdef bint softmax_row_from_pivot(
    const real *x, real *y, Py_ssize_t n, double temperature
) noexcept nogil:
    """y = softmax(x / temperature), without its maximum; False where a guess is of no use.

    y does not overlap x.
    """
    cdef DoubleDouble s
    cdef LaneSums lanes
    cdef real exp_scale[SCALE_FIELDS]
    cdef real pivot = pivot_of_row(x, n, temperature)
    if pivot != pivot:
        return False
    scale_from_pivot(pivot, temperature, target_exponent(pivot), False, exp_scale)
    s.high = s.low = 0
    exp_of_row(
        x, y, n, <const real *>exp_scale, True, &lanes, &s, add_double, NULL,
        x + PREFETCH_BYTES // sizeof(real),
    )
    if not s.high <= max_invertible_sum(<real>0):
        return False
    normalize_row(x, y, n, &s)
    return True


cdef void softmax_row(
    const real *x, real *y, Py_ssize_t n, double temperature, RowMax *top, const real *next_row
) noexcept nogil:
    """y = softmax(x / temperature); y is x or does not overlap it.

    `top` is the row's, and becomes that of the `next_row` one, if that is not NULL.
    """
    cdef DoubleDouble s
    cdef LaneSums lanes
    cdef real exp_scale[SCALE_FIELDS]
    if temperature != 1 and rewrite_extreme_temperature(x, y, n, temperature, top):
        x = y
        temperature = 1
    scale_from_max(<real>top.value, temperature, exp_scale)
    s.high = s.low = 0
    exp_of_row(x, y, n, <const real *>exp_scale, True, &lanes, &s, add_double, top, next_row)
    normalize_row(x, y, n, &s)


cdef bint short_softmax(
    const real *x, real *y, Py_ssize_t n, double temperature
) noexcept nogil:
    """y = softmax(x / temperature) for one row of less than a step, which stays in scratch.

    Half the time of `softmax_row`. y may be x. False, and nothing done, where T is not `temperature_in_range`.
    """
    cdef real step[STEP]
    cdef real exp_scale[SCALE_FIELDS]
    cdef real highest, high, low
    cdef LaneSums lanes
    cdef DoubleDouble s
    if not temperature_in_range(temperature):
        return False
    pad(x, step, n)
    highest = max_of(<const real *>step, STEP, -infinity(<real>0))
    if temperature == 1 and -16 < highest < 16:  # a branch that is foreseen, no chain to wait for
        scale_from_pivot(<real>0, 1, pivot_exponent(<real>0), True, exp_scale)
    else:
        scale_from_max(highest, temperature, exp_scale)
    exp_padded(step, <const real *>exp_scale)
    zero(&lanes)
    accumulate(&lanes, <const real *>step, STEP, add_double)
    s.high = s.low = 0
    fold_lanes(&s, &lanes, <real>0)
    reciprocals(&s, 1, &high, &low)
    scale(step, STEP, high, low)
    memcpy(y, step, n * sizeof(real))
    propagate_nan(<const real *>&high, y, 1, n, n, 1)
    return True


cdef void log_softmax_write(
    const real *x, real *y, Py_ssize_t n, real highest, real inverse, real log_sum
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum; y is x or does not overlap it."""
    cdef Py_ssize_t start, m
    cdef real copy[BLOCK]
    cdef const real *source
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        source = x + start
        if x == y:
            memcpy(copy, source, m * sizeof(real))
            source = copy
        subtract(source, y + start, m, highest, inverse, log_sum)
    propagate_nan(<const real *>&log_sum, y, 1, n, n, 1)


cdef void log_softmax_row(
    const real *x, real *y, Py_ssize_t n, double temperature, RowMax *top, const real *next_row
) noexcept nogil:
    """y = log_softmax(x / temperature), likewise."""
    cdef DoubleDouble s
    cdef real exp_scale[SCALE_FIELDS]
    cdef real highest, inverse, max_e
    cdef double log_sum
    if temperature != 1 and rewrite_extreme_temperature(x, y, n, temperature, top):
        x = y
        temperature = 1
    inverse = inverse_temperature(temperature, <real>0)
    highest = <real>top.value
    scale_from_max(highest, temperature, exp_scale)
    max_e = max_term(highest, <const real *>exp_scale)
    s = sum_excluding_max(x, n, <const real *>exp_scale, add_double, top, next_row)
    log1p_sums(&s, &max_e, 1, &log_sum)
    log_softmax_write(x, y, n, highest, inverse, <real>log_sum)


cdef double log1p_sum_from_pivot(const real *x, Py_ssize_t n, real *highest) noexcept nogil:
    """Return log1p of a row's sum, and write its largest element; NaN if the guess is of no use."""
    cdef DoubleDouble s
    cdef real exp_scale[SCALE_FIELDS]
    cdef real max_e
    cdef double log_sum
    cdef real pivot = pivot_of_row(x, n, 1)
    if pivot != pivot:
        return not_a_number(<double>0)
    scale_from_pivot(pivot, 1, target_exponent(pivot), False, exp_scale)
    s = sum_and_max_from_pivot(x, n, <const real *>exp_scale, highest, add_double, x + PREFETCH_BYTES // sizeof(real))
    if not highest[0] - pivot < MAX_ABOVE_PIVOT:
        return not_a_number(<double>0)
    max_e = max_term(highest[0], <const real *>exp_scale)
    log1p_sums(&s, &max_e, 1, &log_sum)
    return log_sum if pivot_kept_precision(&log_sum, 1) else not_a_number(<double>0)


cdef real logsumexp_row(
    const real *x, Py_ssize_t n, RowMax *top, const real *next_row
) noexcept nogil:
    """Return logsumexp(x), likewise."""
    cdef real inf = infinity(<real>0)
    cdef DoubleDouble s
    cdef double log_sum
    cdef real exp_scale[SCALE_FIELDS]
    cdef real highest = <real>top.value
    cdef real max_e
    scale_from_max(highest, 1, exp_scale)
    max_e = max_term(highest, <const real *>exp_scale)
    s = sum_excluding_max(x, n, <const real *>exp_scale, add_double, top, next_row)
    if highest == inf or highest == -inf:
        return nan_if_any(highest, x, n, 1)
    log1p_sums(&s, &max_e, 1, &log_sum)
    return logsumexp_of(highest, log_sum)


# ---- groups of rows ------------------------------------------------------------------------------


# Built into one function with the others, these loops keep vectors in memory.


cdef noinline_void exp_batch_variants(
    const real *x, out_ptr e, Py_ssize_t width, Py_ssize_t rows, Py_ssize_t n, const real *exp_scale,
    ExpVariant variant, const real *out,
) noexcept nogil:
    """exponentials that are not Plain"""
    if variant == CLAMPED_POW2:
        exp_batch(x, e, width, rows, n, exp_scale, <ClampedPow2>0, out, <real *>NULL)
    elif variant == CENTERED_POW2:
        exp_batch(x, e, width, rows, n, exp_scale, <CenteredPow2>0, out, <real *>NULL)
    else:
        exp_batch(x, e, width, rows, n, exp_scale, <Centered>0, out, <real *>NULL)


cdef noinline_void soa_exp_variants(
    const real *soa, out_ptr e, Py_ssize_t rows, Py_ssize_t n, const real *exp_scale, ExpVariant variant
) noexcept nogil:
    """plane_exponentials likewise"""
    if variant == CLAMPED_POW2:
        soa_exp(soa, e, rows, n, exp_scale, <ClampedPow2>0)
    elif variant == CENTERED_POW2:
        soa_exp(soa, e, rows, n, exp_scale, <CenteredPow2>0)
    else:
        soa_exp(soa, e, rows, n, exp_scale, <Centered>0)


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
    """The answer for some rows of SHORTEST <= n <= GROUP elements; y may be x.

    Up to 7 elements behind the last row are read. `e` is scratch, 0 before the first group.
    If there is a `pivot`, `exp_scale` is that of the group before, and maybe of this one: False, and
    no answer, if not. It is NaN if each row has its own K. All rows have T = 1, or none.
    """
    cdef real scratch[40 * BATCH_ROWS]
    cdef real places[BATCH_ELEMENTS]
    cdef double lanes[12 * BATCH_ROWS]
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
    highest[0] = 0  # rows > 0, which the compiler does not know
    if not from_pivot:
        row_maxima(x, rows, n, highest, scratch)
        variant = choose_scale(<const real *>highest, inverse, rows, exp_scale, pivot)
    if from_pivot and op != SOFTMAX:
        exp_batch(x, e, width, rows, n, <const real *>exp_scale, <Unclamped>0, out, scratch)
        row_maxima_of_steps(<const real *>scratch, rows, STEP, highest, scratch)
        if not within_pivot_reach(<const real *>highest, rows, pivot[0], <real>1):
            pivot[0] = infinity(<real>0)
            return False
    elif variant == CLAMPED:
        exp_batch(x, e, width, rows, n, <const real *>exp_scale, <Clamped>0, out, scratch)
    elif real is float:
        exp_batch_variants(x, <out_ptr32>e, width, rows, n, <const real *>exp_scale, variant, out)
    else:
        exp_batch_variants(x, <out_ptr64>e, width, rows, n, <const real *>exp_scale, variant, out)
    if op != SOFTMAX:
        exclude_max(
            x, <real *>e, width, rows, n, highest, high, <out_ptr>places, scratch, low
        )
    memset(s, 0, rows * sizeof(DoubleDouble))
    batch_sums(<const real *>e, width, rows, lanes, s, add_double)
    if op == SOFTMAX:
        reciprocals(s, rows, high, low)
        if from_pivot and not reciprocals_in_range(<const real *>high, rows):
            pivot[0] = infinity(<real>0)
            return False
        scaled_rows(<const real *>e, width, <out_ptr>y, rows, n, high, low)
        propagate_nan(<const real *>high, y, rows, n, n, 1)
        return True
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


cdef noinline_void transpose_in_noinline(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *soa
) noexcept nogil:
    transpose_in(x, rows, n, soa)


cdef noinline_void soa_sums_noinline(
    const real *e, Py_ssize_t rows, Py_ssize_t n, double *total, double *rest
) noexcept nogil:
    soa_sums(e, rows, n, <out_ptr64>total, <out_ptr64>rest)


cdef noinline_void transpose_out_noinline(
    const real *soa, real *y, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    transpose_out(soa, y, rows, n)


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
    """The answer for some rows of n < SHORTEST elements, likewise; `e` is 0 from plane n on."""
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
    transpose_in_noinline(source, filled, n, soa)
    prefetch_lines(x + rows * n, rows * n)  # the next group
    highest[0] = 0
    if not from_pivot:
        soa_maxima(soa, filled, n, <out_ptr>highest)
        variant = choose_scale(<const real *>highest, inverse, filled, exp_scale, pivot)
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
        transpose_out_noinline(<const real *>e, target, filled, n)
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
        transpose_out_noinline(<const real *>soa, target, filled, n)
    if filled > rows:
        memcpy(y, whole, rows * n * sizeof(real))
    propagate_nan(<const real *>high, y, rows, n, n, 1)
    return True


cdef noinline_void batch(
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
    """The answer for some rows, in the form that suits their length."""
    cdef bint done = False
    while not done:  # again if a guess was of no use
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


cdef bint row_from_pivot(
    const real *x, real *y, Py_ssize_t n, double temperature, Op op
) noexcept nogil:
    """The answer for a long row without a pass for its maximum; False if a guess is of no use."""
    cdef real highest
    cdef double log_sum
    if op == SOFTMAX:
        return temperature_in_range(temperature) and x != y and softmax_row_from_pivot(x, y, n, temperature)
    if temperature != 1:
        return False
    log_sum = log1p_sum_from_pivot(x, n, &highest)
    if log_sum != log_sum:
        return False
    if op == LOGSUMEXP:
        y[0] = logsumexp_of(highest, log_sum)
    else:
        log_softmax_write(x, y, n, highest, <real>1, <real>log_sum)
    return True


cdef inline void one_row(
    const real *x, real *y, Py_ssize_t n, double temperature, Op op, RowMax *top,
    const real *next_row,
) noexcept nogil:
    """The answer for a row; `top` is the row's, and becomes that of the `next_row` one."""
    if op == SOFTMAX:
        softmax_row(x, y, n, temperature, top, next_row)
    elif op == LOG_SOFTMAX:
        log_softmax_row(x, y, n, temperature, top, next_row)
    else:
        y[0] = logsumexp_row(x, n, top, next_row)


cdef void rows_sequential(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t n, const double *temperature,
    Py_ssize_t temperature_stride, Op op,
) noexcept nogil:
    """The answer for rows that are long, or differ: T that is not `temperature_in_range`, or 1 for some alone."""
    cdef const real *known = NULL  # the row that `top` is of
    cdef const real *row
    cdef Py_ssize_t i
    cdef RowMax top
    init_max(&top)
    for i in range(rows):
        row = x
        x += n
        if not (n > BLOCK and row_from_pivot(row, y, n, temperature[i * temperature_stride], op)):
            if known != row:
                top = row_max(row, n)
            known = x if i + 1 < rows else NULL
            one_row(row, y, n, temperature[i * temperature_stride], op, &top, known)
        y += 1 if op == LOGSUMEXP else n


cdef void softmax_rows(
    const real *x,
    real *y,
    Py_ssize_t rows,
    Py_ssize_t n,
    const double *temperature,
    Py_ssize_t temperature_stride,
    Op op,
) noexcept nogil:
    """Write the answer for each row of n > 0 elements; y is x or does not overlap it.

    `temperature_stride` is 1 if there is a temperature for each row, else 0. LOGSUMEXP knows T = 1 alone.
    """
    cdef real e[BATCH_ELEMENTS]
    cdef real inverse[BATCH_ROWS]
    cdef real exp_scale[SCALE_FIELDS * BATCH_ROWS]
    cdef real pivot = infinity(<real>0)
    cdef bint common, ordinary = True
    cdef double t
    cdef Py_ssize_t i, r
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t width = 1 if op == LOGSUMEXP else n
    cdef Py_ssize_t size = BATCH_ROWS
    cdef Py_ssize_t last = 0
    if rows == 1:  # the shortest way
        if op == SOFTMAX and n < STEP and short_softmax(x, y, n, temperature[0]):
            return
        rows_sequential(x, y, rows, n, temperature, temperature_stride, op)
        return
    if n >= MIN_BATCH_LENGTH:
        size = BATCH_ELEMENTS // (STEP * ((n + STEP - 1) // STEP))
        # The last row goes alone: behind it there may be nothing that can be read.
        last = 1
    if size < 2:
        rows_sequential(x, y, rows, n, temperature, temperature_stride, op)
        return
    if n >= MIN_BATCH_LENGTH:
        memset(e, 0, sizeof(e))
    else:
        memset(e + n * BATCH_ROWS, 0, (MIN_BATCH_LENGTH - n) * BATCH_ROWS * sizeof(real))
    for i in range(BATCH_ROWS):
        inverse[i] = 1
    while start < rows:
        r = min(size, rows - last - start)
        if temperature_stride or start == 0:
            ordinary = True
            for i in range(r if temperature_stride else 1):
                t = temperature[start + i]
                inverse[i] = inverse_temperature(t, <real>0)
                set_rate(t, exp_scale + i, BATCH_ROWS)
                ordinary &= temperature_in_range(t) and (t == 1) == (temperature[start] == 1)
            for i in range(0 if temperature_stride else BATCH_ROWS):
                inverse[i] = inverse[0]
                exp_scale[RATE * BATCH_ROWS + i] = exp_scale[RATE * BATCH_ROWS]
            # One K serves rows of one temperature; it does not pay for logarithms but at T = 1.
            common = temperature[start] == 1 or not temperature_stride and HAS_FMA and op == SOFTMAX
            if not common or op != SOFTMAX and n < STEP:
                pivot = not_a_number(<real>0)
            elif pivot != pivot:
                pivot = infinity(<real>0)
        if ordinary and r > 1:
            batch(x + start * n, y + start * width, e, r, n, inverse, op, exp_scale, &pivot)
        else:
            r = max(r, 1)
            rows_sequential(
                x + start * n, y + start * width, r, n, temperature + start * temperature_stride, temperature_stride, op
            )
        start += r


# ---- what Python and _front see ------------------------------------------------------------------


def map_rows(
    const real[:, ::1] x, real[:, ::1] y, const double[::1] temperature, bint log
):
    """Write softmax, or log_softmax if `log`, of each row of `x` into `y`, which may be `x`.

    `temperature` has one element, or one for each row.
    """
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t temperature_stride = temperature.shape[0] > 1
    cdef Py_ssize_t stop, start = 0
    if n == 0:
        return
    while start < rows:
        stop = min(rows, start + max(1, SIGNAL_INTERVAL // n))
        with nogil:
            softmax_rows(
                &x[start, 0], &y[start, 0], stop - start, n, &temperature[start * temperature_stride], temperature_stride,
                LOG_SOFTMAX if log else SOFTMAX,
            )
        PyErr_CheckSignals()
        start = stop


def reduce_rows(const real[:, ::1] x, real[::1] y):
    """Write logsumexp of each row of `x` into `y`."""
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t stop, start = 0
    cdef double one = 1
    if n == 0:
        y[:] = -infinity(<real>0)
        return
    while start < rows:
        stop = min(rows, start + max(1, SIGNAL_INTERVAL // n))
        with nogil:
            softmax_rows(&x[start, 0], &y[start], stop - start, n, &one, 0, LOGSUMEXP)
        PyErr_CheckSignals()
        start = stop


# ---- parts of a long row, for several threads: each begins at a block ----------------------------

row_block = BLOCK
largest_sum = {"float": max_invertible_sum(<float>0), "double": max_invertible_sum(<double>0)}


def part_max(const real[::1] x):
    """Return the largest element of a part (NaN is passed over), and where its block starts."""
    cdef RowMax top
    with nogil:
        top = row_max(&x[0], x.shape[0])
    return top.value, top.block


def pivot_of_part(const real[::1] x, double temperature):
    """Return a guess of the largest element, for `part_sums`; NaN if it cannot serve."""
    with nogil:
        pivot = pivot_of_row(&x[0], x.shape[0], temperature)
    return pivot


def part_sums(
    const real[::1] x, real[::1] y, double highest, bint is_max, double temperature, Py_ssize_t max_e,
    double[:, ::1] lanes,
):
    """Write the lanes of the sum of exponentials over each block.

    The exponentials go into `y`, which may be `x`; or, if it is None, nowhere, and the sum of the
    block that starts at `max_e` is without the largest entry's term. If not `is_max`, `highest` is a
    guess, that served if the sum is at most `largest_sum`.
    """
    cdef Py_ssize_t start, n = x.shape[0]
    cdef LaneSums *temperature_stride = <LaneSums *>&lanes[0, 0]
    cdef real exp_scale[SCALE_FIELDS]
    if is_max:
        scale_from_max(<real>highest, temperature, exp_scale)
    else:
        scale_from_pivot(<real>highest, temperature, target_exponent(<real>highest), False, exp_scale)
    if y is not None:
        with nogil:
            exp_of_row(
                &x[0], &y[0], n, <const real *>exp_scale, True, temperature_stride, NULL, add_double, NULL,
                &x[0] + PREFETCH_BYTES // sizeof(real),
            )
        return
    with nogil:
        for start from 0 <= start < n by BLOCK:
            lanes_excluding_max(
                &x[start], min(BLOCK, n - start), <real>highest, <const real *>exp_scale, start == max_e,
                temperature_stride, add_double, <const real *>NULL,
            )
            temperature_stride += 1


cdef double log1p_sum_of(DoubleDouble s, real highest, double temperature) noexcept nogil:
    """Return log1p of a row's sum."""
    cdef real exp_scale[SCALE_FIELDS]
    cdef real max_e
    cdef double log_sum
    scale_from_max(highest, temperature, exp_scale)
    max_e = max_term(highest, <const real *>exp_scale)
    log1p_sums(&s, &max_e, 1, &log_sum)
    return log_sum


def reduce_parts(const real[::1] like, double[:, ::1] lanes, double highest, double temperature):
    """Return the sum of all blocks' lanes, a pair, and `highest` plus log1p of it."""
    cdef Py_ssize_t i
    cdef DoubleDouble s
    s.high = s.low = 0
    with nogil:
        for i in range(lanes.shape[0]):
            fold_lanes(&s, <LaneSums *>&lanes[i, 0], <real>0)
    return s.high, s.low, logsumexp_of(<real>highest, log1p_sum_of(s, <real>highest, temperature))


def part_finish(
    const real[::1] x, real[::1] y, double highest, double temperature, double sum_high,
    double sum_low, bint log,
):
    """Make `y` softmax of `x`, from its exponentials, or if `log` log_softmax, from `x`."""
    cdef DoubleDouble s
    cdef Py_ssize_t n = x.shape[0]
    cdef real inverse = inverse_temperature(temperature, <real>0)
    s.high = sum_high
    s.low = sum_low
    with nogil:
        if log:
            log_softmax_write(
                &x[0], &y[0], n, <real>highest, inverse,
                <real>log1p_sum_of(s, <real>highest, temperature),
            )
        else:
            normalize_row(&x[0], &y[0], n, &s)


def exp_rows(
    const real[::1] x, real[::1] y, double pivot, bint is_max, double temperature=1
):
    """Write exp of `x` / T divided by about exp(`pivot` / T): the bare kernel, for the tests.

    By a power of two, exactly. If `is_max`, no x is larger; else those much larger give no number.
    """
    cdef Py_ssize_t n = x.shape[0]
    cdef real exp_scale[SCALE_FIELDS]
    scale_from_pivot(<real>pivot, temperature, <real>0, is_max, exp_scale)
    with nogil:
        if n:
            exp_block(&x[0], &y[0], n, <const real *>exp_scale)


cdef int old_columns(
    const real *x, real *y, Py_ssize_t n, Py_ssize_t inner, const double *temperature,
    Py_ssize_t temperature_stride, Op op, Py_ssize_t start, Py_ssize_t stop,
) except -1 nogil:
    """Call `softmax_columns` for the front that is being replaced."""
    cdef SoftmaxCall call
    call.op = op
    call.n = n
    call.temperature = temperature
    call.temperature_stride = temperature_stride
    return softmax_columns(&call, inner, start, stop, x, y)


cdef OldSoftmaxKernels functions
functions.rows32 = softmax_rows[float]
functions.rows64 = softmax_rows[double]
functions.columns32 = old_columns[float]
functions.columns64 = old_columns[double]

#: The same functions for `_front`, by pointer.
row_functions = PyCapsule_New(&functions, "fastsoftmax.RowFunctions", NULL)


# ---- the table of this instruction set -----------------------------------------------------------


cdef int softmax_rows_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write softmax, log_softmax or logsumexp of rows; a `rows_fn`."""
    cdef SoftmaxCall *call = <SoftmaxCall *>_call
    cdef const double *t = call.temperature + first * call.temperature_stride
    if call.dtype == FLOAT32:
        softmax_rows(
            <const float *>x, <float *>y, rows, call.n, t, call.temperature_stride, call.op
        )
    else:
        softmax_rows(
            <const double *>x, <double *>y, rows, call.n, t, call.temperature_stride, call.op
        )
    return 0


cdef int softmax_columns_entry(
    SoftmaxCall *call, Py_ssize_t inner, Py_ssize_t start, Py_ssize_t stop,
    const void *x, void *y,
) except -1 nogil:
    """Write softmax, log_softmax or logsumexp of columns; a `columns_fn`."""
    if call.dtype == FLOAT32:
        return softmax_columns(call, inner, start, stop, <const float *>x, <float *>y)
    return softmax_columns(call, inner, start, stop, <const double *>x, <double *>y)


cdef SoftmaxKernels table
table.softmax_rows = softmax_rows_entry
table.softmax_columns = softmax_columns_entry

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.SoftmaxKernels", NULL)
