# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is drawn where a draft ends: the positive part of factor * p - q, of two rows as kept.

p and q are the probabilities of the target's and of the draft's row. Without a draft's row q is one
at the drafted id, which is left out then; or there is no q, and p itself is drawn from.
"""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.inverse_cdf cimport draw_from_row, draw_without_replacement
from fastsoftmax._kernels.kept cimport (
    LISTED,
    NUCLEUS,
    Kept,
    is_kept,
    kept_weights,
    make_total_exact,
)
from fastsoftmax._kernels.nucleus cimport draw_from_nucleus
from fastsoftmax._kernels.packed_row cimport PackedRow, row_element, row_part
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.weights cimport (
    cdf_search,
    softmax_weights,
    sum_blocks,
    sum_in_order,
    sum_lanes,
)
from fastsoftmax._kernels.workspace cimport Workspace


cdef struct Pair:  # the target's and the draft's row at one place
    const void *x
    const void *y  # NULL where it is packed
    PackedRow *x_packed  # NULL where it is read as it lies
    PackedRow *y_packed
    bint has_y  # whether there is a draft's row
    int64_t id  # drafted, -1 for none
    Kept p
    Kept q


cdef inline void block_residuals(
    const real *x, const real *y, Py_ssize_t start, Py_ssize_t n, const Pair *pair, double factor,
    double *residual,
) noexcept nogil:
    """Write the residuals of n elements, BLOCK at most, of two rows from `start` on."""
    cdef double other[BLOCK]
    cdef double a = factor / pair.p.total
    cdef double b
    cdef double d
    cdef Py_ssize_t j
    kept_weights(x, start, n, &pair.p, residual)
    if not pair.has_y:
        if start <= pair.id < start + n:
            residual[pair.id - start] = 0
        return
    b = 1 / pair.q.total
    kept_weights(y, start, n, &pair.q, other)
    for j in range(n):
        d = residual[j] * a - other[j] * b
        residual[j] = d if d > 0 else 0


cdef inline void residuals_of_block(
    Py_ssize_t n, Py_ssize_t block, const Pair *pair, double factor, double *residual, real like
) noexcept nogil:
    """Write the residuals of one block of two rows of n elements."""
    cdef Py_ssize_t start = block * BLOCK
    cdef Py_ssize_t size = min(<Py_ssize_t>BLOCK, n - start)
    cdef const real *y = NULL
    if pair.has_y:
        y = row_part(<const real *>pair.y, start, size, pair.y_packed)
    block_residuals(
        row_part(<const real *>pair.x, start, size, pair.x_packed), y, start, size, pair, factor,
        residual,
    )


cdef inline void list_residuals(
    const Pair *pair, double factor, Workspace *work, real like
) noexcept nogil:
    """Write the residuals of what is LISTED into `work.masses`."""
    cdef real *value = <real *>work.keys
    cdef double *residual = work.masses
    cdef double a = factor / pair.p.total
    cdef double b, d
    cdef Py_ssize_t i, j, n = pair.p.count
    if not pair.has_y:
        for i in range(n):
            residual[i] = work.weight[i] if work.index[i] != pair.id else 0
        return
    b = 1 / pair.q.total
    for i in range(n):
        j = work.index[i]
        value[i] = row_element(<const real *>pair.y, j, pair.y_packed)
        if not is_kept(value[i], j, &pair.q):
            value[i] = -infinity(<real>0)
    softmax_weights(<const real *>value, residual, n, pair.q.highest, pair.q.inverse)
    for i in range(n):
        d = work.weight[i] * a - residual[i] * b
        residual[i] = d if d > 0 else 0


cdef inline double sum_residuals(
    Py_ssize_t n, Pair *pair, double factor, Workspace *work, real like
) noexcept nogil:
    """Return the sum of the residuals; leave those of the list, or the blocks' sums, in `work`.

    If there is a q, in units of probability.
    """
    cdef double residual[BLOCK]
    cdef double *sums = <double *>work.maxima
    cdef double total = 0
    cdef Py_ssize_t block, blocks = (n + BLOCK - 1) // BLOCK
    if pair.has_y:
        make_total_exact(<const real *>pair.x, n, &pair.p, sums, pair.x_packed)
        make_total_exact(<const real *>pair.y, n, &pair.q, sums, pair.y_packed)
    if pair.p.form == LISTED:
        list_residuals(pair, factor, work, like)
        sum_blocks(work.masses, pair.p.count, sums)
        return sum_in_order(sums, (pair.p.count + BLOCK - 1) // BLOCK)
    for block in range(blocks):
        if block > 0 and block * BLOCK % LOOK_INTERVAL == 0 and stopped(LOOK_INTERVAL):
            break
        residuals_of_block(n, block, pair, factor, residual, like)
        sums[block] = sum_lanes(
            <const double *>residual, min(<Py_ssize_t>BLOCK, n - block * BLOCK)
        )
        total += sums[block]
    return total


cdef inline int64_t draw_residual(
    Py_ssize_t n, double u, Pair *pair, double factor, double total, Workspace *work, real like
) noexcept nogil:
    """Return the id that u draws by what `sum_residuals` has left, `total` > 0; -1 for none."""
    cdef double residual[BLOCK]
    cdef double *sums = <double *>work.maxima
    cdef Py_ssize_t block, start, blocks = (n + BLOCK - 1) // BLOCK
    cdef int64_t place
    if pair.p.form == LISTED:
        draw_without_replacement(work.masses, pair.p.count, &u, 1, sums, &place)
        return work.index[place] if place >= 0 else -1
    block = cdf_search(sums, blocks, 0, u * total)
    start = block * BLOCK
    residuals_of_block(n, block, pair, factor, residual, like)
    return start + cdf_search(
        residual, min(<Py_ssize_t>BLOCK, n - start), sum_in_order(sums, block), u * total
    )


cdef inline int64_t draw_kept(
    Py_ssize_t n, double u, const Pair *pair, Workspace *work, real like
) noexcept nogil:
    """Return the id that u draws of what is kept of a row that has just been read: -1 for none."""
    cdef const real *x = <const real *>pair.x
    cdef const Kept *p = &pair.p
    cdef double *sums = <double *>work.keys
    cdef int64_t place
    if p.form == LISTED:
        draw_without_replacement(work.weight, p.count, &u, 1, sums, &place)
        return work.index[place] if place >= 0 else -1
    if p.form == NUCLEUS:
        return draw_from_nucleus(x, n, u, p.highest, p.inverse, &p.nucleus, work)
    return draw_from_row(x, n, u, p.highest, p.inverse, NULL, sums, pair.x_packed)
