# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The labels of a cross entropy: smoothed and weighted, and what they add to the loss of a row.

With integer targets a label is 1 at the target and 0 elsewhere. The part of it that smoothing
leaves at the target (`own`) is kept apart from what smoothing gives to every class: own alone needs
no pass over the row. Label probabilities have no target, and all of them are read.

Order of sums
    That of ``sums.pxd``, of float64 terms: in lanes of float64 for float32 logits, of pairs for
    float64.
"""

from fastsoftmax._kernels.abi cimport CrossEntropyCall
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate,
    fold_lanes,
    round_to_step,
    to_double,
    two_sum,
    zero,
)
from fastsoftmax._kernels.types cimport fma64, loop_void, real

cdef enum:
    PIECE = 128  # elements of a row whose labels are in scratch, of float64

cdef struct Labels:
    double kept  # what smoothing leaves of a label: 1 - eps
    double uniform  # what smoothing gives to every class: eps / classes
    double uniform_sum  # the sum of uniform * weight over the classes
    const double *weight  # of each class; NULL is 1
    double temperature
    double inverse  # 1 / temperature, held at the largest finite number
    double factor  # of the gradient with respect to the logits
    bint plain  # there are targets alone: no weights, no smoothing


cdef inline void set_labels(const CrossEntropyCall *call, Labels *labels) noexcept nogil:
    """Fill `labels` from `call`."""
    cdef double most = 1.7976931348623157e+308
    cdef DoubleDouble s
    cdef Py_ssize_t j
    s.high = s.low = 0
    labels.kept = 1 - call.smoothing
    labels.uniform = call.smoothing / call.n if call.n else 0.0
    labels.uniform_sum = labels.uniform * call.n
    labels.weight = call.weight
    labels.plain = call.targets != NULL and call.weight == NULL and call.smoothing == 0
    if call.weight != NULL:
        for j in range(call.n if call.smoothing != 0 else 0):
            two_sum(&s, labels.uniform * call.weight[j])
        labels.uniform_sum = to_double(s)
    labels.temperature = call.temperature
    labels.inverse = min(1 / call.temperature, most)
    labels.factor = call.factor / call.temperature
    if -most <= call.factor <= most:  # infinity times a probability of 0 would be NaN
        labels.factor = max(-most, min(labels.factor, most))


cdef inline Labels labels_from(const Labels *labels, Py_ssize_t start) noexcept nogil:
    """Return the labels of the classes from `start` on."""
    cdef Labels part = labels[0]
    if part.weight != NULL:
        part.weight += start
    return part


cdef inline double own_label(const Labels *labels, Py_ssize_t target) noexcept nogil:
    """Return what smoothing leaves of the weighted label of the class `target`."""
    return labels.kept * (labels.weight[target] if labels.weight != NULL else 1.0)


cdef inline double uniform_label(const Labels *labels, Py_ssize_t j) noexcept nogil:
    """Return what smoothing gives to the class j, weighted."""
    return labels.uniform * (labels.weight[j] if labels.weight != NULL else 1.0)


cdef inline double quotient(double a, double b, double inverse_b, real like) noexcept nogil:
    """Return a / b: for float32, where two roundings of float64 do not count, a * inverse_b."""
    return a * inverse_b if real is float else a / b


cdef inline double at_target(
    double e, double sum_e, double inverse_sum, double others_e, double own, double uniform,
    double others, real like,
) noexcept nogil:
    """Return the gradient at a target, without `factor`: total * p - own - uniform.

    p = e / sum_e is the target's probability, `others_e` the sum of the exponentials of the other
    classes, `own` and `uniform` the two parts of the target's label, `others` the sum of `uniform`
    over all classes. Of the two ways to write the difference, the one that cancels less is taken.
    """
    cdef double total = own + others
    cdef double share = e * quotient(total, sum_e, inverse_sum, like)
    cdef double others_p = quotient(others_e, sum_e, inverse_sum, like)
    cdef double near_one = (others - uniform) - total * others_p
    cdef double near_zero = share - (own + uniform)
    return near_one if share + own + uniform > total else near_zero


# ---- loops over elements, each a function of its own for the vectoriser --------------------------


cdef inline void uniform_labels(double *q, Py_ssize_t n, double uniform) noexcept nogil:
    """q = uniform"""
    cdef Py_ssize_t j
    for j in range(n):
        q[j] = uniform


cdef inline void smooth_labels(
    const real *label, double *q, Py_ssize_t n, double kept, double uniform
) noexcept nogil:
    """q = label * kept + uniform"""
    cdef Py_ssize_t j
    for j in range(n):
        q[j] = fma64(<double>label[j], kept, uniform)


cdef inline void weight_labels(const double *weight, double *q, Py_ssize_t n) noexcept nogil:
    """q = q * weight"""
    cdef Py_ssize_t j
    for j in range(n):
        q[j] *= weight[j]


cdef inline void cross_terms(
    const real *x, const double *q, double *term, Py_ssize_t n, double highest
) noexcept nogil:
    """term = q * (highest - x), 0 where q is 0"""
    cdef Py_ssize_t j
    cdef double product
    for j in range(n):
        product = q[j] * (highest - <double>x[j])
        term[j] = 0.0 if q[j] == 0.0 else product


cdef inline void subtract_labels(
    const real *e, real *y, const double *q, Py_ssize_t n, double rate, double factor
) noexcept nogil:
    """y = e * rate - q * factor for n <= STEP; y may be e."""
    cdef real step[STEP]
    cdef Py_ssize_t j
    for j in range(n):  # all read first: the loop must know that it does not read what it writes
        step[j] = <real>fma64(<double>e[j], rate, -(q[j] * factor))
    for j in range(n):
        y[j] = step[j]


# ---- rows ----------------------------------------------------------------------------------------


cdef inline void weighted_labels(
    const Labels *labels, const real *label, Py_ssize_t start, double *q, Py_ssize_t n
) noexcept nogil:
    """q = the weighted labels of n classes from `start`, without `own` of a target.

    `label` has the probabilities of all classes, NULL if there is a target.
    """
    if label == NULL:
        uniform_labels(q, n, labels.uniform)
    else:
        smooth_labels(label + start, q, n, labels.kept, labels.uniform)
    if labels.weight != NULL:
        weight_labels(labels.weight + start, q, n)


cdef inline void accumulate_terms(
    LaneSums *lanes, const double *term, Py_ssize_t n, real like
) noexcept nogil:
    """Add n terms, whole steps, to the lanes."""
    cdef double lane[8]
    cdef Py_ssize_t j, l
    if real is double:
        accumulate(lanes, term, n)
    else:
        for l in range(8):
            lane[l] = lanes.high[l]
        for j from 0 <= j < n by STEP:
            for l in range(8):
                lane[l] += (term[j + l] + term[j + 8 + l]) + (term[j + 16 + l] + term[j + 24 + l])
        for l in range(8):
            lanes.high[l] = lane[l]


cdef inline loop_void add_cross_terms(
    const Labels *labels, const real *x, const real *label, Py_ssize_t n, real highest,
    DoubleDouble *cross, DoubleDouble *sum_q,
) noexcept nogil:
    """Add q (highest - x) and, where there are label probabilities, q of a row to the sums.

    Or of a part of a row that begins at a block, as `labels` and `label` do; both without `own` of
    a target.
    """
    cdef Py_ssize_t start, j, m, whole
    cdef LaneSums cross_lanes, q_lanes
    cdef double q[PIECE]
    cdef double term[PIECE]
    zero(&cross_lanes)
    zero(&q_lanes)
    for start from 0 <= start < n by PIECE:
        m = min(PIECE, n - start)
        whole = round_to_step(m)
        for j from 0 <= j < whole by STEP:
            weighted_labels(labels, label, start + j, q + j, STEP)
            cross_terms(x + start + j, q + j, term + j, STEP, highest)
        if whole < m:
            for j in range(STEP):
                q[whole + j] = term[whole + j] = 0
            weighted_labels(labels, label, start + whole, q + whole, m - whole)
            cross_terms(x + start + whole, q + whole, term + whole, m - whole, highest)
            whole += STEP
        accumulate_terms(&cross_lanes, term, whole, <real>0)
        if label != NULL:
            accumulate_terms(&q_lanes, q, whole, <real>0)
        if (start + PIECE) % BLOCK == 0 or start + PIECE >= n:
            fold_lanes(cross, &cross_lanes, <real>0)
            fold_lanes(sum_q, &q_lanes, <real>0)
            zero(&cross_lanes)
            zero(&q_lanes)


cdef inline double cross_term(
    const Labels *labels, const real *x, const real *label, Py_ssize_t n, real highest,
    double *total,
) noexcept nogil:
    """Return sum q (highest - x) over a row, and write sum q; both without `own` of a target."""
    cdef DoubleDouble cross, sum_q
    cross.high = cross.low = sum_q.high = sum_q.low = 0
    add_cross_terms(labels, x, label, n, highest, &cross, &sum_q)
    total[0] = labels.uniform_sum if label == NULL else to_double(sum_q)
    return to_double(cross)


cdef inline loop_void labels_gradient(
    const Labels *labels, const real *e, const real *label, real *y, Py_ssize_t n, double rate
) noexcept nogil:
    """y = e * rate - q * factor over a row; y is e or does not overlap it."""
    cdef Py_ssize_t j
    cdef Py_ssize_t whole = round_to_step(n)
    cdef double q[STEP]
    for j from 0 <= j < whole by STEP:
        weighted_labels(labels, label, j, q, STEP)
        subtract_labels(e + j, y + j, q, STEP, rate, labels.factor)
    if whole < n:
        weighted_labels(labels, label, whole, q, n - whole)
        subtract_labels(e + whole, y + whole, q, n - whole, rate, labels.factor)
