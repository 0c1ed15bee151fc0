# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""softmax, log_softmax and logsumexp of one row after the other, of any length and temperature."""

from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport LOGSUMEXP, LOG_SOFTMAX, SOFTMAX, Op, temperature_in_range
from fastsoftmax._kernels.exp_blocks cimport exp_block
from fastsoftmax._kernels.exp_scale cimport (
    RAISED,
    ExpScale,
    inverse_temperature,
    max_invertible_sum,
    max_term,
    pivot_exponent,
    pivot_in_range,
    scale_from_max,
    scale_from_pivot,
    target_exponent,
)
from fastsoftmax._kernels.maxima cimport RowMax, init_max, max_of, row_max
from fastsoftmax._kernels.normalize cimport (
    log1p_sums,
    logsumexp_of,
    nan_if_any,
    pivot_kept_precision,
    propagate_nan,
    reciprocals,
)
from fastsoftmax._kernels.row cimport (
    exp_of_row,
    scale,
    scale_row,
    subtract,
    sum_and_max_from_pivot,
    sum_excluding_max,
)
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate,
    fold_lanes,
    pad,
    zero,
)
from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    infinity,
    loop_int,
    noinline_void,
    not_a_number,
    real,
)

cdef enum:
    PREFETCH_BYTES = 4096  # how far ahead a long row is fetched; 2048 to 8192 do as well
    MAX_ABOVE_PIVOT = 40  # of a maximum: 58 powers of 2 above `target_exponent`


cdef inline bint rewrite_extreme_temperature(
    const real *x, real *y, Py_ssize_t n, double temperature, RowMax *top
) noexcept nogil:
    """Write scores into y whose softmax at T = 1 is that of x; return False if T is in range.

    `top` is the maximum of x, and becomes that of y. Rows that have no probabilities become NaN
    later, as every such row does.
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
        if not bad and first >= 0:  # another thread may have changed x since `top` was found
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


cdef inline real pivot_of_row(const real *x, Py_ssize_t n, double temperature) noexcept nogil:
    """Return the first block's maximum as a pivot for the row, NaN if that cannot serve."""
    cdef real pivot = <real>row_max(x, min(n, BLOCK)).value
    cdef bint serves = pivot_in_range(pivot, inverse_temperature(temperature, <real>0))
    return pivot if serves and (HAS_FMA or temperature == 1) else not_a_number(pivot)


cdef inline noinline_void normalize_row(
    const real *x, real *y, Py_ssize_t n, const DoubleDouble *s
) noexcept nogil:
    """Divide y[0:n], as `exp_of_row` made it of x, by the sum `s`; NaN if that is no number."""
    cdef real high, low
    reciprocals(s, 1, &high, &low)
    scale_row(x, y, n, high, low, RAISED)
    propagate_nan(<const real *>&high, y, 1, n, n, 1)


cdef inline noinline_void log_softmax_write(
    const real *x, real *y, Py_ssize_t n, real highest, real inverse, real log_sum
) noexcept nogil:
    """Write (x - highest) * inverse - log_sum into y[0:n]; y is x or does not overlap it."""
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


# ---- by the maximum ------------------------------------------------------------------------------
#
# In these, `top` is the row's maximum, and becomes that of `next_row` unless that is NULL.


cdef inline noinline_void softmax_row(
    const real *x, real *y, Py_ssize_t n, double temperature, RowMax *top, const real *next_row
) noexcept nogil:
    """Write softmax(x / `temperature`) into y, which is x or does not overlap it."""
    cdef DoubleDouble s
    cdef LaneSums lanes
    cdef ExpScale exp_scale
    if temperature != 1 and rewrite_extreme_temperature(x, y, n, temperature, top):
        x = y
        temperature = 1
    exp_scale = scale_from_max(<real>top.value, temperature)
    s.high = s.low = 0
    exp_of_row(x, y, n, &exp_scale, True, &lanes, &s, top, next_row)
    normalize_row(x, y, n, &s)


cdef inline noinline_void log_softmax_row(
    const real *x, real *y, Py_ssize_t n, double temperature, RowMax *top, const real *next_row
) noexcept nogil:
    """Write log_softmax(x / `temperature`) into y, which is x or does not overlap it."""
    cdef DoubleDouble s
    cdef ExpScale exp_scale
    cdef real highest, max_e
    cdef double log_sum
    if temperature != 1 and rewrite_extreme_temperature(x, y, n, temperature, top):
        x = y
        temperature = 1
    highest = <real>top.value
    exp_scale = scale_from_max(highest, temperature)
    max_e = max_term(highest, &exp_scale)
    s = sum_excluding_max(x, n, &exp_scale, top, next_row)
    log1p_sums(&s, &max_e, 1, &log_sum)
    log_softmax_write(
        x, y, n, highest, inverse_temperature(temperature, <real>0), <real>log_sum
    )


cdef inline noinline_void logsumexp_row(
    const real *x, real *y, Py_ssize_t n, RowMax *top, const real *next_row
) noexcept nogil:
    """Write logsumexp(x) into y[0]."""
    cdef real inf = infinity(<real>0)
    cdef DoubleDouble s
    cdef double log_sum
    cdef real highest = <real>top.value
    cdef ExpScale exp_scale = scale_from_max(highest, 1)
    cdef real max_e = max_term(highest, &exp_scale)
    s = sum_excluding_max(x, n, &exp_scale, top, next_row)
    if highest == inf or highest == -inf:
        y[0] = nan_if_any(highest, x, n, 1)
        return
    log1p_sums(&s, &max_e, 1, &log_sum)
    y[0] = logsumexp_of(highest, log_sum)


cdef inline loop_int short_softmax(
    const real *x, real *y, Py_ssize_t n, double temperature
) noexcept nogil:
    """Write softmax(x / `temperature`) of a row of less than a step, kept in scratch, into y.

    Half the time of `softmax_row`. y may be x. Return False, with nothing done, where T is not in
    range.
    """
    cdef real entries[STEP]
    cdef real step[STEP]
    cdef Py_ssize_t j
    cdef ExpScale exp_scale
    cdef real highest, high, low
    cdef LaneSums lanes
    cdef DoubleDouble s
    if not temperature_in_range(temperature):
        return False
    pad(x, step, n)
    highest = max_of(<const real *>step, STEP, -infinity(<real>0))
    if temperature == 1 and -16 < highest < 16:  # a branch that is foreseen, no chain to wait for
        exp_scale = scale_from_pivot(<real>0, 1, pivot_exponent(<real>0), True)
    else:
        exp_scale = scale_from_max(highest, temperature)
    for j in range(STEP):
        entries[j] = step[j]
    exp_block(<const real *>entries, step, STEP, &exp_scale)
    zero(&lanes)
    accumulate(&lanes, <const real *>step, STEP)
    s.high = s.low = 0
    fold_lanes(&s, &lanes, <real>0)
    reciprocals(&s, 1, &high, &low)
    scale(step, STEP, high, low, RAISED)
    memcpy(y, step, n * sizeof(real))
    propagate_nan(<const real *>&high, y, 1, n, n, 1)
    return True


# ---- by a pivot: without a pass for the maximum --------------------------------------------------


cdef inline bint softmax_row_from_pivot(
    const real *x, real *y, Py_ssize_t n, double temperature
) noexcept nogil:
    """Write softmax(x / `temperature`) into y; return False where no pivot serves.

    y does not overlap x.
    """
    cdef DoubleDouble s
    cdef LaneSums lanes
    cdef ExpScale exp_scale
    cdef real pivot = pivot_of_row(x, n, temperature)
    if pivot != pivot:
        return False
    exp_scale = scale_from_pivot(pivot, temperature, target_exponent(pivot), False)
    s.high = s.low = 0
    exp_of_row(
        x, y, n, &exp_scale, True, &lanes, &s, NULL, x + PREFETCH_BYTES // sizeof(real)
    )
    if not s.high <= max_invertible_sum(<real>0):
        return False
    normalize_row(x, y, n, &s)
    return True


cdef inline double log1p_sum_from_pivot(
    const real *x, Py_ssize_t n, real *highest
) noexcept nogil:
    """Return log1p of a row's sum at T = 1, and write its maximum; NaN if no pivot serves."""
    cdef DoubleDouble s
    cdef ExpScale exp_scale
    cdef real max_e
    cdef double log_sum
    cdef real pivot = pivot_of_row(x, n, 1)
    if pivot != pivot:
        return not_a_number(<double>0)
    exp_scale = scale_from_pivot(pivot, 1, target_exponent(pivot), False)
    s = sum_and_max_from_pivot(x, n, &exp_scale, highest, x + PREFETCH_BYTES // sizeof(real))
    if not highest[0] - pivot < MAX_ABOVE_PIVOT:
        return not_a_number(<double>0)
    max_e = max_term(highest[0], &exp_scale)
    log1p_sums(&s, &max_e, 1, &log_sum)
    return log_sum if pivot_kept_precision(&log_sum, 1) else not_a_number(<double>0)


cdef inline bint row_from_pivot(
    const real *x, real *y, Py_ssize_t n, double temperature, Op op
) noexcept nogil:
    """Write the result of `op` for a long row by a pivot; return False where none serves."""
    cdef real highest
    cdef double log_sum
    if op == SOFTMAX:
        return (
            temperature_in_range(temperature)
            and x != y
            and softmax_row_from_pivot(x, y, n, temperature)
        )
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


# ---- all rows ------------------------------------------------------------------------------------


cdef inline noinline_void softmax_rows_one_by_one(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t n, const double *temperature,
    Py_ssize_t temperature_stride, Op op,
) noexcept nogil:
    """Write the result of `op` for rows that are long, few, or differ in temperature.

    `temperature_stride` is 1 if there is a temperature for each row, else 0.
    """
    cdef const real *top_row = NULL  # the row that `top` is of
    cdef const real *row
    cdef double t
    cdef Py_ssize_t i
    cdef RowMax top
    init_max(&top)
    for i in range(rows):
        row = x
        x += n
        t = temperature[i * temperature_stride]
        if not (n > BLOCK and row_from_pivot(row, y, n, t, op)):
            if top_row != row:
                top = row_max(row, n)
            top_row = x if i + 1 < rows else NULL
            if op == SOFTMAX:
                softmax_row(row, y, n, t, &top, top_row)
            elif op == LOG_SOFTMAX:
                log_softmax_row(row, y, n, t, &top, top_row)
            else:
                logsumexp_row(row, y, n, &top, top_row)
        y += 1 if op == LOGSUMEXP else n
