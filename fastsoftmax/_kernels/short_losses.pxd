# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cross entropy phase by phase over a batch of short rows, a structure of arrays.

Element j of all rows lies in one array, so that the lanes of a vector are rows (``short_rows.pxd``
says how). The order of sums is that of ``sums.pxd``.
"""

from libc.string cimport memcpy, memset

from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS, SHIFT
from fastsoftmax._kernels.exp_blocks cimport prefetch_lines
from fastsoftmax._kernels.exp_scale cimport LOSS_RAISED, lowered
from fastsoftmax._kernels.labels cimport Labels
from fastsoftmax._kernels.loss_batch cimport (
    BATCH_DOUBLES,
    RowTerms,
    exp_of_max,
    finish_losses,
    finish_rates,
    set_row_labels,
)
from fastsoftmax._kernels.maxima cimport MIN_BATCH_LENGTH
from fastsoftmax._kernels.normalize cimport any_infinite, propagate_nan
from fastsoftmax._kernels.short_rows cimport soa_exclude_max, soa_exp_centered, soa_maxima, soa_sums
from fastsoftmax._kernels.sums cimport LANES, STEP, DoubleDouble, sum_of, to_double, two_sum
from fastsoftmax._kernels.transpose cimport (
    STRIP,
    pad_rows,
    padded_rows,
    transpose_in_apart,
    transpose_out_apart,
    whole_strips,
)
from fastsoftmax._kernels.types cimport (
    fma,
    fma64,
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)

cdef enum:
    LABEL_ROWS = BATCH_ROWS >> 1  # of a batch with label probabilities: these fill the other half


cdef inline void sums_of_step(const float *e, Py_ssize_t rows, out_ptr64 s) noexcept nogil:
    """Write the sum over STEP arrays."""
    cdef Py_ssize_t r
    for r in range(whole_strips(rows)):
        s[r] = sum_of(
            sum_of(quads(e + r, 0), quads(e + r, 2)), sum_of(quads(e + r, 1), quads(e + r, 3))
        )


cdef inline double quads(const float *e, int l) noexcept nogil:
    """Return what lanes l and l + 4 get."""
    return sum_of(quad(e, l), quad(e, l + 4))


cdef inline float quad(const float *e, int l) noexcept nogil:
    """Return what lane l of the sum of a row gets."""
    return (e[l * BATCH_ROWS] + e[(8 + l) * BATCH_ROWS]) + (
        e[(16 + l) * BATCH_ROWS] + e[(24 + l) * BATCH_ROWS]
    )


cdef inline Py_ssize_t max_short_length(real like) noexcept nogil:
    """Return how long rows of a batch may be: so that it fills 8 KiB in either type."""
    return STEP if real is float else MIN_BATCH_LENGTH


# Built into one function, these loops keep vectors in memory.


cdef inline noinline_void loss_soa_exp(
    const real *soa, real *e, Py_ssize_t rows, Py_ssize_t n, real *highest, real *exp_scale
) noexcept nogil:
    """Write the largest element of each row, and e = the exponentials without its own."""
    if real is float:
        soa_maxima(soa, rows, n, <out_ptr32>highest)
        soa_exp_centered(soa, e, rows, n, <const real *>exp_scale)
        soa_exclude_max(soa, <out_ptr32>e, rows, n, <const real *>highest)
    else:
        soa_maxima(soa, rows, n, <out_ptr64>highest)
        soa_exp_centered(soa, e, rows, n, <const real *>exp_scale)
        soa_exclude_max(soa, <out_ptr64>e, rows, n, <const real *>highest)


cdef inline noinline_void loss_soa_sums(
    const real *e, Py_ssize_t rows, Py_ssize_t n, double *high, double *low
) noexcept nogil:
    """Write the sum of each row; e is 0 from plane n to the next of 4, 8, 16 or 32."""
    if real is float and n > MIN_BATCH_LENGTH:
        sums_of_step(e, rows, <out_ptr64>high)
    else:
        soa_sums(e, rows, n, <out_ptr64>high, <out_ptr64>low)


cdef inline double soa_label(
    const Labels *labels, const real *label, Py_ssize_t j, Py_ssize_t r
) noexcept nogil:
    """Return what is not a target's own of the label of class j, not weighted."""
    if label == NULL:
        return labels.uniform
    return fma64(<double>label[j * BATCH_ROWS + r], labels.kept, labels.uniform)


cdef inline void soa_lane_terms(
    const Labels *labels, const real *soa, const real *label, Py_ssize_t rows, Py_ssize_t n,
    const real *highest, Py_ssize_t l, out_ptr64 term, out_ptr64 sum_q,
) noexcept nogil:
    """Write what lane l of the sums of q (highest - x) and of q gets, for n <= STEP."""
    cdef double pair_term[BATCH_ROWS]
    cdef double pair_q[BATCH_ROWS]
    cdef double q, product, weight
    cdef Py_ssize_t r, j, half
    for r in range(whole_strips(rows)):
        term[r] = 0
        sum_q[r] = 0
    for half from l <= half < n by 16:
        for r in range(whole_strips(rows)):
            pair_term[r] = pair_q[r] = 0
        for j from half <= j < min(n, half + 9) by 8:
            weight = labels.weight[j] if labels.weight != NULL else 1.0
            for r in range(whole_strips(rows)):
                q = soa_label(labels, label, j, r) * weight
                product = q * (<double>highest[r] - <double>soa[j * BATCH_ROWS + r])
                pair_term[r] += 0.0 if q == 0.0 else product
                pair_q[r] += q
        for r in range(whole_strips(rows)):
            term[r] += pair_term[r]
            sum_q[r] += pair_q[r]


cdef inline void fold_level(out_ptr64 level, double *value, Py_ssize_t rows) noexcept nogil:
    """value = level + value"""
    cdef Py_ssize_t r
    for r in range(whole_strips(rows)):
        value[r] = level[r] + value[r]


cdef inline void soa_two_sum(
    out_ptr64 high, out_ptr64 low, const double *value, Py_ssize_t rows
) noexcept nogil:
    """high + low = high + low + value"""
    cdef Py_ssize_t r
    cdef DoubleDouble s
    for r in range(whole_strips(rows)):
        s.high = high[r]
        s.low = low[r]
        two_sum(&s, value[r])
        high[r] = s.high
        low[r] = s.low


cdef inline void soa_cross_term(
    const Labels *labels, const real *soa, const real *label, Py_ssize_t rows, Py_ssize_t n,
    const real *highest, double *cross, double *total,
) noexcept nogil:
    """Write sum q (highest - x) of each row, and sum q.

    `label` has probabilities (NULL: there are targets, whose own label is left out).
    """
    cdef double term[BATCH_ROWS]
    cdef double sum_q[BATCH_ROWS]
    # float32: of neighbouring sums of the tree that adds the lanes, those that wait for their
    # partner. float64: the low parts.
    cdef double terms[3 * BATCH_ROWS]
    cdef double sums_q[3 * BATCH_ROWS]
    cdef DoubleDouble s
    cdef Py_ssize_t i, k, r
    if real is double:
        memset(cross, 0, rows * sizeof(double))
        memset(total, 0, rows * sizeof(double))
        memset(terms, 0, rows * sizeof(double))
        memset(sums_q, 0, rows * sizeof(double))
        for i in range(min(n, LANES)):
            soa_lane_terms(
                labels, soa, label, rows, n, highest, i, <out_ptr64>term, <out_ptr64>sum_q
            )
            soa_two_sum(<out_ptr64>cross, <out_ptr64>terms, term, rows)
            soa_two_sum(<out_ptr64>total, <out_ptr64>sums_q, sum_q, rows)
        for r in range(whole_strips(rows)):
            s.high = cross[r]
            s.low = terms[r]
            cross[r] = to_double(s)
            s.high = total[r]
            s.low = sums_q[r]
            total[r] = to_double(s)
    else:
        for i in range(LANES):  # lanes in the order 0 4 2 6 1 5 3 7
            soa_lane_terms(
                labels, soa, label, rows, n, highest, (i & 1) * 4 + (i & 2) + (i >> 2),
                <out_ptr64>term, <out_ptr64>sum_q,
            )
            k = 0
            while i >> k & 1:
                fold_level(<out_ptr64>(terms + k * BATCH_ROWS), term, rows)
                fold_level(<out_ptr64>(sums_q + k * BATCH_ROWS), sum_q, rows)
                k += 1
            if k < 3:
                memcpy(terms + k * BATCH_ROWS, term, rows * sizeof(double))
                memcpy(sums_q + k * BATCH_ROWS, sum_q, rows * sizeof(double))
        memcpy(cross, term, rows * sizeof(double))
        memcpy(total, sum_q, rows * sizeof(double))
    for r in range(whole_strips(rows) if label == NULL else 0):
        total[r] = labels.uniform_sum


cdef inline noinline_void loss_soa_cross_term(
    const Labels *labels, const real *soa, const real *label, Py_ssize_t rows, Py_ssize_t n,
    const real *highest, double *cross, double *total,
) noexcept nogil:
    """Write what `soa_cross_term` does."""
    if label == NULL:
        soa_cross_term(labels, soa, <const real *>NULL, rows, n, highest, cross, total)
    else:
        soa_cross_term(labels, soa, label, rows, n, highest, cross, total)


cdef inline void soa_gradient(
    out_ptr soa, const real *e, Py_ssize_t rows, Py_ssize_t n, const real *highest,
    const real *high, const real *low,
) noexcept nogil:
    """soa = e * (high + low), rounded once (nearly) and `lowered`; e lacks each largest one."""
    cdef Py_ssize_t r, j
    cdef real v, most = exp_of_max(<real>0)
    for j in range(n):
        for r in range(whole_strips(rows)):
            v = e[j * BATCH_ROWS + r]  # read in any case: else gcc would make a branch
            v = most if soa[j * BATCH_ROWS + r] == highest[r] else v
            soa[j * BATCH_ROWS + r] = lowered(fma(v, high[r], v * low[r]), LOSS_RAISED)


cdef inline void soa_gradient_of_labels(
    const Labels *labels, out_ptr soa, const real *label, const real *e, Py_ssize_t rows,
    Py_ssize_t n, const real *highest, const double *rate,
) noexcept nogil:
    """soa = e * rate - q * factor; e lacks each largest one."""
    cdef Py_ssize_t r, j
    cdef double q, weight
    cdef real v, most = exp_of_max(<real>0)
    for j in range(n):
        weight = labels.weight[j] if labels.weight != NULL else 1.0
        for r in range(whole_strips(rows)):
            q = soa_label(labels, label, j, r) * weight
            v = e[j * BATCH_ROWS + r]  # read in any case: else gcc would make a branch
            v = most if soa[j * BATCH_ROWS + r] == highest[r] else v
            soa[j * BATCH_ROWS + r] = <real>fma64(<double>v, rate[r], -(q * labels.factor))


cdef inline noinline_void loss_soa_gradient(
    const Labels *labels, real *soa, bint has_labels, const real *e, Py_ssize_t rows,
    Py_ssize_t n, const real *highest, const RowTerms *t, const real *high, const real *low,
) noexcept nogil:
    """soa = the gradient, but for that of a target."""
    if real is float:
        soa_gradients(labels, <out_ptr32>soa, has_labels, e, rows, n, highest, t, high, low)
    else:
        soa_gradients(labels, <out_ptr64>soa, has_labels, e, rows, n, highest, t, high, low)


cdef inline void soa_gradients(
    const Labels *labels, out_ptr soa, bint has_labels, const real *e, Py_ssize_t rows,
    Py_ssize_t n, const real *highest, const RowTerms *t, const real *high, const real *low,
) noexcept nogil:
    """soa = the gradient, by the kind of labels"""
    if has_labels:
        soa_gradient_of_labels(
            labels, soa, <const real *>soa + LABEL_ROWS, e, rows, n, highest, t.rate
        )
    elif labels.uniform != 0:
        soa_gradient_of_labels(labels, soa, <const real *>NULL, e, rows, n, highest, t.rate)
    else:
        soa_gradient(soa, e, rows, n, highest, high, low)


cdef inline noinline_void loss_of_planes(
    const Labels *labels, real *soa, bint has_labels, Py_ssize_t filled, Py_ssize_t n,
    const Py_ssize_t *target, bint with_grad, real *exp_scale, real *e, RowTerms *t,
) noexcept nogil:
    """Set the losses of a batch of rows in planes, which fill whole strips.

    Labels, if there are any, lie LABEL_ROWS behind the rows. Gradients, if they are wanted, take
    the place of rows. `e` is scratch, 0 from plane n on. All else is as in `loss_of_rows`.
    """
    cdef real target_x[BATCH_ROWS]
    cdef real target_e[BATCH_ROWS]
    cdef real high[BATCH_ROWS]
    cdef real low[BATCH_ROWS]
    cdef real *highest = exp_scale + SHIFT * BATCH_ROWS
    cdef const real *soa_labels = soa + LABEL_ROWS if has_labels else NULL
    cdef Py_ssize_t r
    loss_soa_exp(<const real *>soa, e, filled, n, highest, exp_scale)
    loss_soa_sums(<const real *>e, filled, n, t.rest, t.rest_low)
    for r in range(filled):
        t.rest[r] = t.rest[r] / exp_of_max(<real>0) + 0 * <double>highest[r]  # NaN where infinite
        if real is float:
            t.rest_low[r] = 0
    if has_labels:
        for r in range(filled):
            t.own[r] = t.uniform[r] = t.gap[r] = t.e[r] = 0
    else:
        set_row_labels(labels, t, filled, target)
        for r in range(filled):  # copied first: what follows is vector code then
            target_x[r] = soa[target[r] * BATCH_ROWS + r]
            target_e[r] = e[target[r] * BATCH_ROWS + r]
        for r in range(filled):  # the first largest entry is not in e any more
            t.gap[r] = <double>highest[r] - <double>target_x[r]
            t.e[r] = <double>target_e[r] / exp_of_max(<real>0)
            t.e[r] = t.e[r] if t.gap[r] != 0 else 1.0
    if has_labels or labels.uniform != 0:
        loss_soa_cross_term(
            labels, <const real *>soa, soa_labels, filled, n, highest, t.cross, t.others
        )
    finish_losses(labels, t, filled, <real>0)
    t.done = True
    if not with_grad:
        return
    high[0] = low[0] = 0  # gcc warns of none, as if there could be no row
    finish_rates(labels, t, filled, high, low)
    t.done = not any_infinite(<const real *>high, filled)
    if not t.done:
        return
    loss_soa_gradient(
        labels, soa, has_labels, <const real *>e, filled, n, highest, t, <const real *>high,
        <const real *>low,
    )
    for r in range(0 if has_labels else filled):
        soa[target[r] * BATCH_ROWS + r] = <real>t.target_grad[r]
    propagate_nan(<const real *>high, soa, filled, n, 1, BATCH_ROWS)


cdef inline noinline_void loss_of_short_rows(
    const Labels *labels, const real *x, const real *label, real *y, Py_ssize_t rows,
    Py_ssize_t n, const Py_ssize_t *target, real *exp_scale, real *e, RowTerms *t,
) noexcept nogil:
    """Set the losses of some rows of at most `max_short_length` elements.

    There are fewer than STRIP rows, or whole strips, and at most LABEL_ROWS with `label`; `target`
    has whole strips. All else is as in `loss_of_rows`, but that nothing is read behind the rows,
    and e is 0 from plane n on.
    """
    cdef double _soa[BATCH_DOUBLES]
    cdef double _whole[STEP * STRIP >> 1]
    cdef real *soa = <real *>_soa
    cdef real *whole = <real *>_whole
    cdef Py_ssize_t filled = padded_rows(rows)
    cdef const real *source = x
    if filled > rows:
        pad_rows(x, whole, rows, n)
        source = whole
    transpose_in_apart(source, filled, n, soa)
    if label != NULL:
        source = label
        if filled > rows:
            pad_rows(label, whole, rows, n)
            source = whole
        transpose_in_apart(source, filled, n, soa + LABEL_ROWS)
    prefetch_lines(x + rows * n, rows * n)  # the next batch
    if y != NULL:
        prefetch_lines(<const real *>y, rows * n)
    loss_of_planes(labels, soa, label != NULL, filled, n, target, y != NULL, exp_scale, e, t)
    if y == NULL or not t.done:
        return
    if filled > rows:
        transpose_out_apart(<const real *>soa, whole, filled, n)
        memcpy(y, whole, rows * n * sizeof(real))
    else:
        transpose_out_apart(<const real *>soa, y, filled, n)
