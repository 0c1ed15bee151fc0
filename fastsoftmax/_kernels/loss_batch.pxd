# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cross entropy phase by phase over a batch of rows that fills L1: what is made of one row's sums.

``row_batch.pxd`` has the phases for the elements of rows, and why there are batches;
``short_losses.pxd`` has them for short rows. A row has the same bits in any batch, and alone.
"""

from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS, SHIFT, store_scale
from fastsoftmax._kernels.exp_scale cimport (
    LOSS_RAISED,
    ExpScale,
    make_scale,
    power_of_two,
)
from fastsoftmax._kernels.labels cimport (
    Labels,
    at_target,
    cross_term,
    labels_gradient,
    own_label,
    quotient,
    uniform_label,
)
from fastsoftmax._kernels.log1p cimport (
    log1p_arguments,
    log1p_ratio_arguments,
    log1p_ratio_series,
    log1p_series,
)
from fastsoftmax._kernels.maxima cimport row_maxima
from fastsoftmax._kernels.normalize cimport any_infinite, propagate_nan
from fastsoftmax._kernels.row_batch cimport exp_batch_centered, scaled_rows
from fastsoftmax._kernels.sums cimport STEP, DoubleDouble, two_sum
from fastsoftmax._kernels.sums_excluding_max cimport batch_sums_excluding_max
from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    fma,
    inlined_void,
    noinline_void,
    one_nan,
    out_ptr32,
    out_ptr64,
    real,
)

# A function of a .pxd is inline for Cython, also where it returns `noinline_void`.
cdef extern from *:
    """
    #pragma GCC diagnostic ignored "-Wattributes"
    """

cdef enum:
    BATCH_DOUBLES = 1024  # of scratch for the elements of a batch: these or twice as many float32
    MAX_EXPONENT = 26  # of the largest exponential of float32: none that counts is subnormal

cdef struct RowTerms:  # one number a row
    double own[BATCH_ROWS]  # the target's label, without what smoothing gives it; 0 without target
    double uniform[BATCH_ROWS]  # and that
    double gap[BATCH_ROWS]  # the largest score minus the target's
    double e[BATCH_ROWS]  # the target's exponential, where the largest one is 1
    double cross[BATCH_ROWS]  # sum q (max - x) of the other labels
    double others[BATCH_ROWS]  # and the sum of them
    double rest[BATCH_ROWS]  # the sum of exponentials without the largest one, where that is 1
    double rest_low[BATCH_ROWS]
    double loss[BATCH_ROWS]
    double rate[BATCH_ROWS]  # factor * total / sum_e, divided by `exp_of_max`
    double target_grad[BATCH_ROWS]
    bint done  # False if gradients are not written: a factor, raised, is infinite in the type


cdef inline real exp_of_max(real like) noexcept nogil:
    """Return the exponential of each row's maximum."""
    return <real>(1 << MAX_EXPONENT) if real is float else 1


cdef inline ExpScale loss_scale(real highest, double temperature) noexcept nogil:
    """Return the scale of exp((x - `highest`) / `temperature`) * `exp_of_max`."""
    return make_scale(
        highest, temperature, <real>0, <real>(MAX_EXPONENT if real is float else 0), True
    )


cdef inline void set_loss_scales(double temperature, real *exp_scale) noexcept nogil:
    """Write the scale of `loss_scale` for each of BATCH_ROWS rows, whose maxima are 0."""
    cdef ExpScale one = loss_scale(<real>0, temperature)
    cdef Py_ssize_t r
    for r in range(BATCH_ROWS):
        store_scale(&one, exp_scale + r, BATCH_ROWS)


cdef inline void rate_of_sum(
    double a, DoubleDouble s, double inverse_sum, real *high, real *low
) noexcept nogil:
    """high + low = a / s * 2**LOSS_RAISED / `exp_of_max`; infinite where the first factors are."""
    cdef double total = s.high + s.low
    cdef double factor = power_of_two(LOSS_RAISED, <real>0)
    cdef double ratio = quotient(a, total, inverse_sum, <real>0) * factor
    high[0] = <real>ratio
    if not HAS_FMA:
        low[0] = 0  # as in softmax
    elif real is float:
        low[0] = <float>(ratio - high[0]) / exp_of_max(<float>0)
    else:
        s.low -= total - s.high
        low[0] = (fma(-high[0], total, a) - high[0] * s.low) / total
    high[0] /= exp_of_max(<real>0)


cdef inline void set_row_labels(
    const Labels *labels, RowTerms *t, Py_ssize_t rows, const Py_ssize_t *target
) noexcept nogil:
    """Set own, uniform, cross and others of rows that have a target, but for `cross_term`.

    Nobody reads them of plain labels.
    """
    cdef Py_ssize_t r
    if labels.plain:
        return
    for r in range(rows):
        t.own[r] = own_label(labels, target[r])
        t.uniform[r] = uniform_label(labels, target[r])
    for r in range(rows):
        t.cross[r] = 0
        t.others[r] = 0


cdef inline void finish_losses(
    const Labels *labels, RowTerms *t, Py_ssize_t rows, real like
) noexcept nogil:
    """Set `loss` from the other terms."""
    cdef double log_sum[BATCH_ROWS]
    cdef double f[BATCH_ROWS]
    cdef double k[BATCH_ROWS]
    cdef double low[BATCH_ROWS]
    cdef Py_ssize_t r
    if real is float:
        for r in range(rows):
            log_sum[r] = log1p_ratio_arguments(t.rest[r] + t.rest_low[r], <float>1, k + r)
        for r in range(rows):
            log_sum[r] = log1p_ratio_series(log_sum[r], k[r])
    else:
        for r in range(rows):
            log_sum[r] = log1p_arguments(t.rest[r] + t.rest_low[r], f + r, k + r, low + r)
        for r in range(rows):
            log_sum[r] = log1p_series(log_sum[r], f[r], k[r], low[r])
    if labels.plain:  # as below, where own is 1, cross and others 0
        for r in range(rows):
            t.loss[r] = one_nan(t.gap[r] * labels.inverse + log_sum[r])
        return
    for r in range(rows):
        t.loss[r] = t.own[r] * t.gap[r]
    for r in range(rows):
        t.loss[r] = (0.0 if t.own[r] == 0.0 else t.loss[r]) + t.cross[r]
    for r in range(rows):
        t.loss[r] = one_nan(
            t.loss[r] * labels.inverse + (t.own[r] + t.others[r]) * log_sum[r]
        )


cdef inline inlined_void rates_of_labels(
    const Labels *labels, RowTerms *t, Py_ssize_t rows, real *high, real *low, bint plain
) noexcept nogil:
    """Call `finish_rates`; `plain` is a literal."""
    cdef double sum_e[BATCH_ROWS]
    cdef double inverse_sum[BATCH_ROWS]
    cdef DoubleDouble s
    cdef double others_e
    cdef Py_ssize_t r
    for r in range(rows):
        s.high = t.rest[r]
        s.low = t.rest_low[r]
        two_sum(&s, 1.0)
        sum_e[r] = s.high + s.low
        inverse_sum[r] = 1 / sum_e[r]
        rate_of_sum(
            labels.factor * (1.0 if plain else t.own[r] + t.others[r]), s, inverse_sum[r],
            high + r, low + r,
        )
    for r in range(0 if plain else rows):
        t.rate[r] = quotient(
            labels.factor * (t.own[r] + t.others[r]), sum_e[r], inverse_sum[r], <real>0
        ) / exp_of_max(<real>0)
    for r in range(rows):
        others_e = t.rest[r] + t.rest_low[r]
        if t.gap[r] != 0:
            others_e = ((1.0 - t.e[r]) + t.rest[r]) + t.rest_low[r]
        t.target_grad[r] = labels.factor * at_target(
            t.e[r], sum_e[r], inverse_sum[r], others_e, 1.0 if plain else t.own[r],
            0.0 if plain else t.uniform[r], 0.0 if plain else t.others[r], <real>0,
        )


cdef inline void finish_rates(
    const Labels *labels, RowTerms *t, Py_ssize_t rows, real *high, real *low
) noexcept nogil:
    """Set `rate`, but for plain labels, and `target_grad`; write `high`, `low` by `rate_of_sum`."""
    if labels.plain:
        rates_of_labels(labels, t, rows, high, low, True)
    else:
        rates_of_labels(labels, t, rows, high, low, False)


# ---- rows of MIN_BATCH_LENGTH elements and more --------------------------------------------------

# Built into one function with the others, these loops keep vectors in memory.


cdef inline void gradient_rows(
    const real *e, Py_ssize_t width, real *y, Py_ssize_t rows, Py_ssize_t n, const real *high,
    const real *low,
) noexcept nogil:
    """y = e * (high + low) of each row"""
    if real is float:
        scaled_rows(e, width, <out_ptr32>y, rows, n, high, low, LOSS_RAISED)
    else:
        scaled_rows(e, width, <out_ptr64>y, rows, n, high, low, LOSS_RAISED)


cdef inline noinline_void loss_of_rows(
    const Labels *labels, const real *x, const real *label, real *y, Py_ssize_t rows,
    Py_ssize_t n, const Py_ssize_t *target, real *exp_scale, real *e, RowTerms *t,
) noexcept nogil:
    """Set the losses of some rows of n >= MIN_BATCH_LENGTH elements, which fit BATCH_DOUBLES.

    Write the gradients into y unless that is NULL; y may be x. `label` has the probabilities of the
    classes, or is NULL and `target` has the right class of each row. Up to 7 elements behind the
    last row are read. `exp_scale` is of `set_loss_scales`; `e` is scratch, 0 before the first
    batch. Set `done`.
    """
    cdef double _scratch[24 * BATCH_ROWS]  # 48 a row: of float64 no more than half the rows fit
    cdef double d[13 * BATCH_ROWS]
    cdef real *scratch = <real *>_scratch
    cdef real max_e[BATCH_ROWS]
    cdef real high[BATCH_ROWS]
    cdef real low[BATCH_ROWS]
    cdef DoubleDouble s[BATCH_ROWS]
    cdef real *highest = exp_scale + SHIFT * BATCH_ROWS
    cdef Py_ssize_t width = (n + STEP - 1) // STEP * STEP
    cdef bint spread = label != NULL or labels.uniform != 0
    cdef const real *out = x  # to be fetched
    cdef Py_ssize_t r
    if y != NULL:
        out = y
    row_maxima(x, rows, n, highest, scratch)
    exp_batch_centered(x, e, width, rows, n, <const real *>exp_scale, out)
    for r in range(BATCH_ROWS):
        max_e[r] = exp_of_max(<real>0)
    batch_sums_excluding_max(
        x, e, width, rows, n, <const real *>highest, <const real *>max_e, scratch, d,
        s,
    )
    for r in range(rows):
        t.rest[r] = s[r].high / exp_of_max(<real>0)
        t.rest[r] += 0 * <double>highest[r]  # NaN where that is infinite
        t.rest_low[r] = s[r].low / exp_of_max(<real>0)
    if label == NULL:
        set_row_labels(labels, t, rows, target)
        for r in range(rows):
            t.gap[r] = <double>highest[r] - <double>x[r * n + target[r]]
            t.e[r] = <double>e[r * width + target[r]] / exp_of_max(<real>0)
    else:
        for r in range(rows):
            t.own[r] = t.uniform[r] = t.gap[r] = t.e[r] = 0
    if spread:
        for r in range(rows):
            t.cross[r] = cross_term(
                labels, x + r * n, label + r * n if label != NULL else NULL, n, highest[r],
                t.others + r,
            )
    finish_losses(labels, t, rows, <real>0)
    t.done = True
    if y == NULL:
        return
    finish_rates(labels, t, rows, high, low)
    t.done = not any_infinite(<const real *>high, rows)
    if not t.done:
        return
    if not spread:
        gradient_rows(
            <const real *>e, width, y, rows, n, <const real *>high, <const real *>low
        )
    for r in range(rows if spread else 0):
        labels_gradient(
            labels, <const real *>(e + r * width), label + r * n if label != NULL else NULL,
            y + r * n, n, t.rate[r],
        )
    for r in range(rows if label == NULL else 0):
        y[r * n + target[r]] = <real>t.target_grad[r]
    propagate_nan(<const real *>high, y, rows, n, n, 1)
