# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cross entropy and its gradient for one row after the other, of any length and temperature."""

from fastsoftmax._kernels.exp_scale cimport LOSS_RAISED, ExpScale, inverse_temperature
from fastsoftmax._kernels.labels cimport (
    Labels,
    at_target,
    cross_term,
    labels_gradient,
    own_label,
    quotient,
    uniform_label,
)
from fastsoftmax._kernels.log1p cimport log1p_ratio
from fastsoftmax._kernels.loss_batch cimport exp_of_max, loss_scale, rate_of_sum
from fastsoftmax._kernels.maxima cimport RowMax, row_max
from fastsoftmax._kernels.normalize cimport propagate_nan
from fastsoftmax._kernels.row cimport exp_of_row, scale_row, sum_excluding_max
from fastsoftmax._kernels.sums cimport DoubleDouble, LaneSums, two_sum
from fastsoftmax._kernels.types cimport infinity, noinline_void, one_nan, real

# A function of a .pxd is inline for Cython, also where it returns `noinline_void`.
cdef extern from *:
    """
    #pragma GCC diagnostic ignored "-Wattributes"
    """

cdef struct RowLoss:  # what the loss of a row and its gradient are made of
    double highest  # the largest score
    double gap  # the target's
    double own  # the target's label, without what smoothing gives it
    double others  # the sum of the other labels
    double linear  # sum q (highest - x)
    DoubleDouble rest  # the sum of exponentials without the largest entry's, where that is 1
    bint spread  # whether every class has a label


# Not within loss_of_row: gcc would not put exp into so large a function, but call it each time.


cdef inline noinline_void noinline_sum_excluding_max(
    const real *x, Py_ssize_t n, const ExpScale *exp_scale, DoubleDouble *rest, RowMax *top,
    const real *next_row,
) noexcept nogil:
    """rest = the sum of a row's exponentials without the largest entry's own term"""
    rest[0] = sum_excluding_max(x, n, exp_scale, top, next_row)


cdef inline noinline_void noinline_exp_of_row(
    const real *x, real *y, Py_ssize_t n, const ExpScale *exp_scale, DoubleDouble *rest,
    RowMax *top, const real *next_row,
) noexcept nogil:
    """y = the exponentials of a row; their sum, without the largest entry's, is added to `rest`"""
    cdef LaneSums lanes
    exp_of_row(x, y, n, exp_scale, False, &lanes, rest, top, next_row)


cdef inline double loss_of_sums(const Labels *labels, RowLoss *r, real like) noexcept nogil:
    """Return the loss of a row, whose sums are made; divide `rest` by `exp_of_max`."""
    cdef double log_sum
    r.rest.high /= exp_of_max(like)
    r.rest.low /= exp_of_max(like)
    if not (-infinity(<real>0) < r.highest < infinity(<real>0)):
        r.rest.high = infinity(<double>0) - infinity(<double>0)
    log_sum = log1p_ratio(r.rest.high + r.rest.low, <real>1)
    return one_nan(r.linear * labels.inverse + (r.own + r.others) * log_sum)


cdef inline void gradient_of_sums(
    const Labels *labels, const RowLoss *r, const real *x, const real *label, real *y,
    Py_ssize_t n, Py_ssize_t target,
) noexcept nogil:
    """Make the exponentials y, which `exp_of_row` made of x, the gradient.

    Those of a row, or of a part of one, where `labels`, `label` and `target` begin; there a target
    may lie outside.
    """
    cdef DoubleDouble s = r.rest
    cdef double total = r.own + r.others
    cdef double sum_e, inverse_sum, rate
    cdef double target_e = 0, others_e = 0
    cdef real high = 0, low = 0
    cdef bint has_target = label == NULL and 0 <= target < n
    two_sum(&s, 1.0)
    sum_e = s.high + s.low
    inverse_sum = 1 / sum_e
    rate = quotient(labels.factor * total, sum_e, inverse_sum, <real>0)
    if has_target:
        target_e = <double>y[target] / exp_of_max(<real>0)
        others_e = r.rest.high + r.rest.low
        if r.gap != r.highest:
            others_e = ((1.0 - target_e) + r.rest.high) + r.rest.low
    rate_of_sum(labels.factor * total, s, inverse_sum, &high, &low)
    if r.spread or not -infinity(<real>0) < high < infinity(<real>0):
        labels_gradient(labels, <const real *>y, label, y, n, rate / exp_of_max(<real>0))
    else:
        scale_row(x, y, n, high, low, LOSS_RAISED)
    if has_target:
        y[target] = <real>(labels.factor * at_target(
            target_e, sum_e, inverse_sum, others_e, r.own, uniform_label(labels, target), r.others,
            <real>0,
        ))
    propagate_nan(<const real *>&high, y, 1, n, n, 1)


cdef inline void set_target(
    const Labels *labels, RowLoss *r, real highest, real gap, Py_ssize_t target
) noexcept nogil:
    """Begin the terms of a row with the label of a `target`, of which the score is `gap`."""
    r.gap = gap
    r.own = own_label(labels, target)
    if r.own != 0:
        r.linear = r.own * (<double>highest - <double>gap)


cdef inline void init_loss(
    const Labels *labels, RowLoss *r, real highest, bint has_labels
) noexcept nogil:
    """Begin the terms of a row, of which `highest` is the maximum."""
    r.highest = highest
    r.own = r.others = r.linear = r.gap = 0
    r.rest.high = r.rest.low = 0
    r.spread = has_labels or labels.uniform != 0


cdef inline double loss_of_row(
    const Labels *labels, const real *x, const real *scores, const real *label, real *y,
    Py_ssize_t n, Py_ssize_t target, real highest, RowMax *top, const real *next_row,
) noexcept nogil:
    """Return the loss of a row x, and write its gradient into y unless that is NULL.

    `label` has the probabilities of the classes, or is NULL and `target` is the right class.
    `highest` is the largest element. Exponentials are made of `scores`: x, or what `scaled_scores`
    made of it. `top` is their maximum, and becomes that of `next_row`, if that is not NULL. y may
    be x.
    """
    cdef RowLoss r
    cdef DoubleDouble rest
    cdef double loss
    cdef ExpScale exp_scale
    init_loss(labels, &r, highest, label != NULL)
    if label == NULL:
        set_target(labels, &r, highest, x[target], target)
    if r.spread:
        r.linear += cross_term(labels, x, label, n, highest, &r.others)
    exp_scale = loss_scale(<real>top.value, labels.temperature if scores == x else 1.0)
    rest.high = rest.low = 0
    if y == NULL:
        noinline_sum_excluding_max(scores, n, &exp_scale, &rest, top, next_row)
    else:
        noinline_exp_of_row(scores, y, n, &exp_scale, &rest, top, next_row)
    r.rest = rest
    loss = loss_of_sums(labels, &r, <real>0)
    if y != NULL:
        gradient_of_sums(labels, &r, x, label, y, n, target)
    return loss


cdef inline void scaled_scores(
    const real *x, real *scores, Py_ssize_t n, real highest, double temperature
) noexcept nogil:
    """Write scores whose softmax at T = 1 is that of x at a T not `temperature_in_range`."""
    cdef real inf = infinity(<real>0)
    cdef real inverse = inverse_temperature(temperature, <real>0)
    cdef Py_ssize_t j
    if inverse == 0:
        for j in range(n):
            scores[j] = 0 if -inf < x[j] < inf else x[j]
    else:
        for j in range(n):
            scores[j] = (x[j] - highest) * inverse


cdef inline noinline_void losses_sequential(
    const Labels *labels, const real *x, const real *label, real *y, Py_ssize_t rows,
    Py_ssize_t n, const Py_ssize_t *target, double *losses, real *scores,
) noexcept nogil:
    """Write the losses and gradients of rows, one after the other.

    `target` has -1 for rows that do not count. `scores` is scratch for a row, NULL where the
    temperature is `temperature_in_range`.
    """
    cdef const real *known = NULL  # the row that `top` is of
    cdef const real *source
    cdef const real *exp_source
    cdef real highest
    cdef Py_ssize_t i
    cdef RowMax top
    for i in range(rows):
        if target[i] >= 0:
            source = x + i * n
            if known != source:
                top = row_max(source, n)
            known = NULL
            if i + 1 < rows and target[i + 1] >= 0 and scores == NULL:
                known = source + n
            highest = <real>top.value
            exp_source = source
            if scores != NULL:
                exp_source = scores
                scaled_scores(source, scores, n, highest, labels.temperature)
                top = row_max(<const real *>scores, n)
            losses[i] = loss_of_row(
                labels, source, exp_source, label + i * n if label != NULL else NULL,
                y + i * n if y != NULL else NULL, n, target[i], highest, &top, known,
            )
