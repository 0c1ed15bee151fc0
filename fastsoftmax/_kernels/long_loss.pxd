# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cross entropy and its gradient for a long row that must be packed: part by part, in cache.

Passes: maximum; exponentials and their sum; the gradient, of these exponentials if they are where
the result lies, else of new ones. Sums are added block by block, as those of other rows are, so the
bits are the same.
"""

from libc.math cimport NAN

from fastsoftmax._kernels.abi cimport temperature_in_range
from fastsoftmax._kernels.exp_scale cimport ExpScale
from fastsoftmax._kernels.labels cimport Labels, add_cross_terms, labels_from
from fastsoftmax._kernels.limit_loss cimport (
    LimitTerms,
    add_limit_terms,
    init_limit,
    is_limit,
    limit_of_terms,
)
from fastsoftmax._kernels.loss_batch cimport loss_scale
from fastsoftmax._kernels.loss_row cimport (
    RowLoss,
    gradient_of_sums,
    init_loss,
    loss_of_sums,
    noinline_exp_of_row,
    scaled_scores,
    set_target,
)
from fastsoftmax._kernels.maxima cimport RowMax, init_max, update_max
from fastsoftmax._kernels.packed_parts cimport (
    PackedParts,
    first_part,
    part_again,
    part_of_x2,
    part_size,
    place_of_result,
    store_part,
)
from fastsoftmax._kernels.row cimport lanes_excluding_max
from fastsoftmax._kernels.sums cimport BLOCK, DoubleDouble, LaneSums, fold_lanes, to_double
from fastsoftmax._kernels.types cimport noinline_void, real

# A function of a .pxd is inline for Cython, also where it returns `noinline_void`.
cdef extern from *:
    """
    #pragma GCC diagnostic ignored "-Wattributes"
    """


cdef inline noinline_void update_max_of_part(
    RowMax *top, const real *x, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """Update `top` with the n elements x of a row from `start` on."""
    cdef double before = top.value
    update_max(top, x, 0, n)
    if top.value > before:
        top.block = start


cdef inline RowMax max_of_parts(
    const PackedParts *parts, Py_ssize_t n, real like
) noexcept nogil:
    """Return the maximum of a row, which is read for the first time."""
    cdef Py_ssize_t start, m
    cdef RowMax top
    init_max(&top)
    for start from 0 <= start < n by BLOCK:
        m = part_size(start, n)
        update_max_of_part(&top, <const real *>first_part(parts, start, m), start, m)
    return top


cdef inline const real *scores_of_part(
    const Labels *labels, const real *x, real *y, Py_ssize_t n, real highest
) noexcept nogil:
    """Return what exponentials are made of: x, or y if the temperature needs other scores."""
    if temperature_in_range(labels.temperature):
        return x
    scaled_scores(x, y, n, highest, labels.temperature)
    return y


cdef inline RowMax max_of_scores(
    const Labels *labels, const PackedParts *parts, Py_ssize_t n, real highest
) noexcept nogil:
    """Return the maximum of the scores of a row at a temperature that needs other ones."""
    cdef Py_ssize_t start, m
    cdef const real *x
    cdef RowMax top
    init_max(&top)
    for start from 0 <= start < n by BLOCK:
        m = part_size(start, n)
        x = <const real *>part_again(parts, start, m)
        x = scores_of_part(labels, x, <real *>parts.y, m, highest)
        update_max_of_part(&top, x, start, m)
    return top


cdef inline noinline_void add_exponentials(
    const real *x, Py_ssize_t n, real highest, const ExpScale *exp_scale, bint with_max,
    DoubleDouble *rest,
) noexcept nogil:
    """Add the exponentials of a block to `rest`, without the maximum's if it has that."""
    cdef LaneSums lanes
    lanes_excluding_max(x, n, highest, exp_scale, with_max, &lanes, <const real *>NULL)
    fold_lanes(rest, &lanes, <real>0)


cdef inline void exp_of_part(
    const real *x, real *y, Py_ssize_t n, RowMax top, Py_ssize_t start, const ExpScale *exp_scale,
    DoubleDouble *rest,
) noexcept nogil:
    """Do what `add_exponentials` does for the block at `start`, and write them into y."""
    top.block = 0 if top.block == start else -1
    noinline_exp_of_row(x, y, n, exp_scale, rest, &top, <const real *>NULL)


cdef inline const real *labels_of_part(
    const PackedParts *parts, bint has_labels, Py_ssize_t start, Py_ssize_t n, real like
) noexcept nogil:
    """Return the label probabilities of n classes from `start` on, NULL if there are none."""
    return <const real *>part_of_x2(parts, start, n) if has_labels else <const real *>NULL


cdef inline double loss_of_parts(
    const Labels *labels, const PackedParts *parts, Py_ssize_t n, Py_ssize_t target,
    bint has_labels, bint has_y, real like,
) noexcept nogil:
    """Return what `loss_of_row` does for a packed row, and store its gradient if `has_y`."""
    cdef RowMax top = max_of_parts(parts, n, like)
    cdef real highest = <real>top.value
    cdef bint in_range = temperature_in_range(labels.temperature)
    cdef bint keep = parts.rows.place != NULL  # exponentials of the second pass
    cdef ExpScale exp_scale
    cdef DoubleDouble cross, sum_q, rest
    cdef Labels own
    cdef Py_ssize_t start, m
    cdef double loss
    cdef const real *x
    cdef const real *label
    cdef real *y
    cdef RowLoss r
    init_loss(labels, &r, highest, has_labels)
    if not has_labels:
        x = <const real *>part_again(parts, target, 1)
        set_target(labels, &r, highest, x[0], target)
    if not in_range:
        top = max_of_scores(labels, parts, n, highest)
    exp_scale = loss_scale(<real>top.value, labels.temperature if in_range else 1.0)
    cross.high = cross.low = sum_q.high = sum_q.low = rest.high = rest.low = 0
    for start from 0 <= start < n by BLOCK:
        m = part_size(start, n)
        x = <const real *>part_again(parts, start, m)
        if r.spread:
            own = labels_from(labels, start)
            label = labels_of_part(parts, has_labels, start, m, like)
            add_cross_terms(&own, x, label, m, highest, &cross, &sum_q)
        y = <real *>place_of_result(parts, start)
        x = scores_of_part(labels, x, y, m, highest)
        if keep:
            exp_of_part(x, y, m, top, start, &exp_scale, &rest)
        else:
            add_exponentials(x, m, <real>top.value, &exp_scale, start == top.block, &rest)
    r.rest = rest
    if r.spread:
        r.others = to_double(sum_q) if has_labels else labels.uniform_sum
        r.linear += to_double(cross)
    loss = loss_of_sums(labels, &r, like)
    for start from 0 <= start < (n if has_y else 0) by BLOCK:
        m = part_size(start, n)
        x = <const real *>part_again(parts, start, m)
        label = labels_of_part(parts, has_labels, start, m, like)
        y = <real *>place_of_result(parts, start)
        own = labels_from(labels, start)
        if not keep:
            x = scores_of_part(labels, x, y, m, highest)
            exp_of_part(x, y, m, top, start, &exp_scale, &rest)
        gradient_of_sums(&own, &r, x, label, y, m, target - start)
        store_part(parts, start, m)
    return loss


cdef inline double limit_of_parts(
    const Labels *labels, const PackedParts *parts, Py_ssize_t n, Py_ssize_t target,
    bint has_labels, real like,
) noexcept nogil:
    """Return what `limit_loss` does for a packed row."""
    cdef RowMax top = max_of_parts(parts, n, like)
    cdef LimitTerms terms
    cdef Labels own
    cdef Py_ssize_t start, m
    cdef const real *x
    init_limit(&terms, top.value)
    for start from 0 <= start < n by BLOCK:
        m = part_size(start, n)
        x = <const real *>part_again(parts, start, m)
        own = labels_from(labels, start)
        add_limit_terms(
            &own, x, labels_of_part(parts, has_labels, start, m, like), m, target - start, &terms
        )
    return limit_of_terms(&terms)


cdef inline void fill_parts(
    const PackedParts *parts, Py_ssize_t n, double value, real like
) noexcept nogil:
    """Store `value` as the gradient of a row."""
    cdef Py_ssize_t start, j, m
    cdef real *y
    for start from 0 <= start < n by BLOCK:
        m = part_size(start, n)
        y = <real *>place_of_result(parts, start)
        for j in range(m):
            y[j] = <real>value
        store_part(parts, start, m)


cdef inline double loss_of_packed_row(
    const Labels *labels, const PackedParts *parts, Py_ssize_t n, Py_ssize_t target,
    bint has_labels, bint has_y, real like,
) noexcept nogil:
    """Return the loss of a packed row at any temperature, and store its gradient if `has_y`."""
    cdef double loss = 0  # that of a row without a target
    if target >= 0 and not is_limit(labels.temperature):
        return loss_of_parts(labels, parts, n, target, has_labels, has_y, like)
    if target >= 0:
        loss = limit_of_parts(labels, parts, n, target, has_labels, like)
    if has_y:
        fill_parts(parts, n, NAN if loss != loss else 0.0, like)
    return loss
