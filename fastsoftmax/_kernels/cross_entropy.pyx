# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Cross entropy with its gradient. Built once per instruction set.

Formula
    With p = softmax(x), S = sum exp(x - max), q the labels times the weights of the classes, Q
    their sum: loss = sum q (max - x) + Q log1p(S - 1),     gradient = factor (Q p - q).

Passes over memory
    Maximum (read); exponentials and their sum, a block that fits L1 at a time (read; they go to
    where the gradient will be, if it is wanted); scale (read, write). Labels other than one target
    a row cost another reading pass for the loss.

Precision policy
    Exponentials and gradient in the row's own type; sums, losses and labels in float64
    (``row.pxd`` says in which order). No term is lost by cancellation: those of the loss have one
    sign, and at the target p - 1 is computed as minus the sum of the other exponentials over S.

Source
    C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4; R. Müller,
    S. Kornblith, G. Hinton, "When does label smoothing help?", NeurIPS 2019,
    https://arxiv.org/abs/1906.02629
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t

from fastsoftmax._front.strided cimport FLOAT32
from fastsoftmax._kernels.abi cimport CrossEntropyCall, LossKernels
from fastsoftmax._kernels.exp_scale cimport ExpScale, scale_to_one
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.maxima cimport RowMax, row_max
from fastsoftmax._kernels.row cimport exp_of_row, scale_row, sum_excluding_max
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate_doubles,
    fold_lanes,
    to_double,
    two_sum,
    zero,
)
from fastsoftmax._kernels.types cimport HAS_FMA, fma, fma64, infinity, noinline_void, real

cdef enum:
    SIGNAL_INTERVAL = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds


# ---- loops over elements, each a function of its own for the vectoriser --------------------------


cdef void uniform_labels(double *q, Py_ssize_t n, double share) noexcept nogil:
    """q = share"""
    cdef Py_ssize_t j
    for j in range(n):
        q[j] = share


cdef void smooth_labels(
    const real *label, double *q, Py_ssize_t n, double keep, double share
) noexcept nogil:
    """q = label * keep + share"""
    cdef Py_ssize_t j
    for j in range(n):
        q[j] = fma64(<double>label[j], keep, share)


cdef void weight_labels(const double *weight, double *q, Py_ssize_t n) noexcept nogil:
    """q = q * weight"""
    cdef Py_ssize_t j
    for j in range(n):
        q[j] *= weight[j]


cdef void cross_terms(
    const real *x, const double *q, double *term, Py_ssize_t n, double highest
) noexcept nogil:
    """term = q * (highest - x), 0 where q is 0"""
    cdef Py_ssize_t j
    cdef double product
    for j in range(n):
        product = q[j] * (highest - <double>x[j])
        term[j] = 0.0 if q[j] == 0.0 else product


cdef void subtract_labels(
    real *y, const double *q, Py_ssize_t n, double scale_by, double factor
) noexcept nogil:
    """y = y * scale_by - q * factor"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = <real>fma64(<double>y[j], scale_by, -(q[j] * factor))


# ---- rows ----------------------------------------------------------------------------------------

cdef struct Labels:
    double keep  # what is left of a label: 1 - label_smoothing
    double share  # what every class gets of it: label_smoothing / classes
    const double *weight  # of each class; NULL is 1
    double shares  # the sum of share * weight over the classes


cdef inline void weighted_labels(
    const Labels *labels, const real *label, Py_ssize_t start, double *q, Py_ssize_t n
) noexcept nogil:
    """Write the weighted labels of n classes from `start`, without that of a target, into q."""
    if label == NULL:
        uniform_labels(q, n, labels.share)
    else:
        smooth_labels(label + start, q, n, labels.keep, labels.share)
    if labels.weight != NULL:
        weight_labels(labels.weight + start, q, n)


cdef inline void add_padded(LaneSums *lanes, double *term, Py_ssize_t n) noexcept nogil:
    """Add n <= BLOCK terms to the lanes; fills up the last step with 0."""
    cdef Py_ssize_t j, m = (n + STEP - 1) & ~(<Py_ssize_t>STEP - 1)
    for j in range(n, m):
        term[j] = 0
    accumulate_doubles(lanes, term, m)


cdef double cross_term(
    const Labels *labels,
    const real *x,
    const real *label,
    Py_ssize_t n,
    real highest,
    double *total,
) noexcept nogil:
    """Return sum q (highest - x) without a target's own q, and sum q likewise in `total`."""
    cdef Py_ssize_t start, m
    cdef DoubleDouble fall, sum_q
    cdef LaneSums lanes
    cdef double q[BLOCK]
    cdef double term[BLOCK]
    fall.high = fall.low = sum_q.high = sum_q.low = 0
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        weighted_labels(labels, label, start, q, m)
        cross_terms(x + start, q, term, m, highest)
        zero(&lanes)
        add_padded(&lanes, term, m)
        fold_lanes(&fall, &lanes, <double>0)
        if label != NULL:
            zero(&lanes)
            add_padded(&lanes, q, m)
            fold_lanes(&sum_q, &lanes, <double>0)
    total[0] = labels.shares if label == NULL else to_double(sum_q)
    return to_double(fall)


cdef void reciprocal_of_sum(double a, DoubleDouble s, real *high, real *low) noexcept nogil:
    """high + low = a / s"""
    cdef double total = s.high + s.low
    if real is float:
        a /= total
        high[0] = <float>a
        low[0] = <float>(a - high[0])
    else:
        s.low -= total - s.high
        high[0] = a / total
        low[0] = (fma(-high[0], total, a) - high[0] * s.low) / total
    if not HAS_FMA:
        low[0] = 0  # as in softmax


# Not within loss_row: gcc would not put exp into so large a function, but call it for each element.


cdef noinline_void noinline_sum_excluding_max(
    const real *x, Py_ssize_t n, const ExpScale *how, DoubleDouble *rest, RowMax *top, const real *next_row
) noexcept nogil:
    """rest = the sum of a row's exponentials without the largest entry's own term"""
    rest[0] = sum_excluding_max(x, n, how, top, next_row)


cdef noinline_void noinline_exp_of_row(
    const real *x, real *y, Py_ssize_t n, const ExpScale *how, DoubleDouble *rest, RowMax *top,
    const real *next_row
) noexcept nogil:
    """y = the exponentials of a row, and that sum added to `rest`"""
    cdef LaneSums lanes
    exp_of_row(x, y, n, how, False, &lanes, rest, top, next_row)


cdef double loss_row(
    const Labels *labels,
    const real *x,
    real *y,
    Py_ssize_t n,
    Py_ssize_t target,
    const real *label,
    double factor,
    RowMax *top,
    const real *next_row,
) noexcept nogil:
    """Return the loss of a row, and write its gradient times `factor` into y unless that is NULL.

    `label` has the probabilities of the classes, or is NULL and `target` is the right class. y may
    be x. `top` is the row's, and becomes that of the `next_row` one, if that is not NULL.
    """
    cdef Py_ssize_t start, m
    cdef DoubleDouble rest, s
    cdef double q[BLOCK]
    cdef double loss = 0, own = 0, others = 0, total = 0
    cdef double weight = 1, at_target = 0, rest_of_target = 0
    cdef double log_sum, sum_e, share, rate
    cdef real at = 0, high, low
    cdef real highest = <real>top.value
    cdef ExpScale how
    cdef bint spread = label != NULL or labels.share != 0
    if label == NULL:
        at = x[target]
        weight = labels.weight[target] if labels.weight != NULL else 1.0
        own = labels.keep * weight
        if own != 0:
            loss = own * (<double>highest - <double>at)
    if spread:
        loss += cross_term(labels, x, label, n, highest, &others)
    total = own + others
    how = scale_to_one(highest, 1)
    if y == NULL:
        noinline_sum_excluding_max(x, n, &how, &rest, top, next_row)
    else:
        rest.high = rest.low = 0
        noinline_exp_of_row(x, y, n, &how, &rest, top, next_row)
    if not (-infinity(<real>0) < highest < infinity(<real>0)):
        rest.high = infinity(<double>0) - infinity(<double>0)
    log_sum = log1p_nonneg(rest.high + rest.low)
    loss += total * log_sum
    if y == NULL:
        return loss

    s = rest
    two_sum(&s, 1.0)
    sum_e = s.high + s.low
    if label == NULL:
        at_target = y[target]
        rest_of_target = rest.high + rest.low
        if at != highest:
            rest_of_target = ((1.0 - at_target) + rest.high) + rest.low
    if spread:
        rate = factor * total / sum_e
        for start from 0 <= start < n by BLOCK:
            m = min(BLOCK, n - start)
            weighted_labels(labels, label, start, q, m)
            subtract_labels(y + start, q, m, rate, factor)
    else:
        reciprocal_of_sum(factor * total, s, &high, &low)
        scale_row(x, y, n, high, low)
    if label == NULL:
        share = labels.share * weight
        at_target *= total / sum_e
        if at_target + own + share > total:  # of the two ways to write it, what cancels less
            at_target = (others - share) - total * (rest_of_target / sum_e)
        else:
            at_target -= own + share
        y[target] = <real>(factor * at_target)
    return loss


# ---- what _front sees ----------------------------------------------------------------------------


def weigh_targets(
    const int64_t[::1] targets, Py_ssize_t classes, int64_t ignore, const double[::1] weight
):
    """Return where the first target is that is no class (-1: nowhere), and the sum of the weights.

    Targets equal to `ignore` do not count. `weight` has one element a class; None is 1.
    """
    cdef Py_ssize_t i, bad = -1
    cdef int64_t target
    cdef DoubleDouble s
    s.high = s.low = 0
    with nogil:
        for i in range(targets.shape[0]):
            target = targets[i]
            if target == ignore:
                continue
            if not 0 <= target < classes:
                bad = i
                break
            two_sum(&s, weight[target] if weight is not None else 1.0)
    return bad, to_double(s)


def add_losses(const double[::1] losses):
    """Return the sum of the losses, in their order."""
    cdef Py_ssize_t i
    cdef DoubleDouble s
    s.high = s.low = 0
    for i in range(losses.shape[0]):
        two_sum(&s, losses[i])
    return to_double(s)


def loss_rows(
    const real[:, ::1] x,
    real[:, ::1] y,
    double[::1] losses,
    const int64_t[::1] targets,
    const real[:, ::1] labels,
    const double[::1] weight,
    double smoothing,
    int64_t ignore,
    double factor,
):
    """Write the loss of each row, and its gradient times `factor` into `y`, which may be `x`.

    Either `targets` or `labels` is None. `y` None: no gradient. `weight` None: 1 for every class.
    """
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t i, j, stop, start = 0
    cdef Py_ssize_t seen = -1  # the row that `top` is of
    cdef RowMax top
    cdef int64_t target
    cdef Labels how
    cdef DoubleDouble shares
    how.keep = 1 - smoothing
    how.share = smoothing / n if n else 0.0
    how.weight = &weight[0] if weight is not None and n else NULL
    shares.high = shares.low = 0
    for j in range(n if weight is not None and smoothing != 0 else 0):
        two_sum(&shares, how.share * weight[j])
    how.shares = to_double(shares) if weight is not None else how.share * n
    while start < rows:
        stop = min(rows, start + max(1, SIGNAL_INTERVAL // max(n, 1)))
        with nogil:
            for i in range(start, stop):
                # Checked again: another thread may have written to the targets meanwhile.
                target = targets[i] if targets is not None else -1
                if n and (targets is None or 0 <= target < n and target != ignore):
                    if seen != i:
                        top = row_max(&x[i, 0], n)
                    seen = i + 1
                    losses[i] = loss_row(
                        &how,
                        &x[i, 0],
                        &y[i, 0] if y is not None else NULL,
                        n,
                        target,
                        &labels[i, 0] if labels is not None else NULL,
                        factor,
                        &top,
                        &x[i + 1, 0] if i + 1 < rows else NULL,
                    )
                    continue
                losses[i] = 0
                if y is not None:
                    for j in range(n):
                        y[i, j] = 0
        PyErr_CheckSignals()
        start = stop


# ---- the table of this instruction set -----------------------------------------------------------


cdef void cross_entropy_loop(
    CrossEntropyCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x,
    const real *label, real *y,
) noexcept nogil:
    """Write the loss of each row, and its gradient into y unless that is NULL; y may be x."""
    cdef Py_ssize_t i, j, n = call.n
    cdef Py_ssize_t seen = -1  # the row that `top` is of
    cdef RowMax top
    cdef int64_t target
    cdef Labels how
    cdef DoubleDouble shares
    how.keep = 1 - call.smoothing
    how.share = call.smoothing / n if n else 0.0
    how.weight = call.weight
    shares.high = shares.low = 0
    for j in range(n if call.weight != NULL and call.smoothing != 0 else 0):
        two_sum(&shares, how.share * call.weight[j])
    how.shares = to_double(shares) if call.weight != NULL else how.share * n
    for i in range(rows):
        # Read once: another thread may write to the targets meanwhile.
        target = call.targets[first + i] if call.targets != NULL else -1
        if n and (call.targets == NULL or 0 <= target < n and target != call.ignore_index):
            if seen != i:
                top = row_max(x + i * n, n)
            seen = i + 1
            call.losses[first + i] = loss_row(
                &how, x + i * n, y + i * n if y != NULL else NULL, n, target,
                label + i * n if label != NULL else NULL, call.factor, &top,
                x + (i + 1) * n if i + 1 < rows else NULL,
            )
            continue
        call.losses[first + i] = 0
        if y != NULL:
            for j in range(n):
                y[i * n + j] = 0


cdef int cross_entropy_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write losses and gradients of rows; a `rows_fn`. x2 are label probabilities, or NULL."""
    cdef CrossEntropyCall *call = <CrossEntropyCall *>_call
    if call.dtype == FLOAT32:
        cross_entropy_loop(
            call, first, rows, <const float *>x, <const float *>x2, <float *>y
        )
    else:
        cross_entropy_loop(
            call, first, rows, <const double *>x, <const double *>x2, <double *>y
        )
    return 0


cdef LossKernels table
table.cross_entropy = cross_entropy_entry

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.LossKernels", NULL)
