# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Draws by walking weights in index order: the first whose cumulative weight exceeds u * total."""

from libc.stdint cimport int64_t

from fastsoftmax._math cimport real
from fastsoftmax._rows cimport BLOCK
from fastsoftmax._weights cimport (
    add_up,
    first_above,
    rough_error,
    sum_blocks,
    sum_in_order,
    walk,
    walk_surely,
    weigh_all,
    weigh_blocks,
    weigh_roughly,
)


cdef inline Py_ssize_t draw_from_row(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, double *sums
) noexcept nogil:
    """Draw from a whole row: find the block by the blocks' sums, then the place within it."""
    cdef double weight[BLOCK]
    cdef double target
    cdef Py_ssize_t block, start, m
    target = u * weigh_blocks(x, n, highest, inverse, sums)
    block = walk(sums, (n + BLOCK - 1) // BLOCK, 0, target)
    start = block * BLOCK
    m = min(<Py_ssize_t>BLOCK, n - start)
    weigh_all(x + start, weight, m, highest, inverse)
    return start + walk(weight, m, sum_in_order(sums, block), target)


cdef inline Py_ssize_t draw_roughly(
    const float *x, Py_ssize_t n, double u, double highest, double inverse, double *sums
) noexcept nogil:
    """Return what `draw_from_row` does, by sums in float32; -1 if these are too rough to tell."""
    cdef double weight[BLOCK]
    cdef double total = weigh_roughly(x, n, highest, inverse, sums)
    cdef double error = rough_error(n, total)
    cdef double target = u * total
    cdef Py_ssize_t block = walk(sums, (n + BLOCK - 1) // BLOCK, 0, target)
    cdef Py_ssize_t start = block * BLOCK
    cdef Py_ssize_t m = min(<Py_ssize_t>BLOCK, n - start)
    cdef Py_ssize_t place
    weigh_all(x + start, weight, m, highest, inverse)
    place = walk_surely(weight, m, sum_in_order(sums, block), target, 2.1 * error * total)
    return start + place if place >= 0 else -1


cdef inline void draw_distinct(
    double *weight, Py_ssize_t n, const double *u, Py_ssize_t m, double *sums, int64_t *places
) noexcept nogil:
    """Draw m places of n weights one after the other, each from what is left; -1 if nothing is.

    The weights drawn become 0.
    """
    cdef double target, total
    cdef Py_ssize_t i, block, start, size
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    sum_blocks(weight, n, sums)
    for i in range(m):
        total = sum_in_order(sums, blocks)
        if total == 0:
            places[i] = -1
            continue
        target = u[i] * total
        block = walk(sums, blocks, 0, target)
        start = block * BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        places[i] = start + walk(weight + start, size, sum_in_order(sums, block), target)
        weight[places[i]] = 0
        sum_blocks(weight + start, size, sums + block)


cdef inline void draw_again(
    const double *weight, Py_ssize_t n, const double *u, Py_ssize_t m,
    double *cumulative, double *ends, int64_t *places,
) noexcept nogil:
    """Draw m places of n weights, each from all of them: what walking finds, by bisection."""
    cdef double target, before, total = 0
    cdef Py_ssize_t i, block, start, size, place
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    sum_blocks(weight, n, ends)
    for block in range(blocks):
        total += ends[block]
        ends[block] = total
        cumulative[block * BLOCK] = -1  # not known yet: few draws meet few blocks
    for i in range(m):
        target = u[i] * total
        block = min(first_above(ends, blocks, target), blocks - 1)
        start = block * BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        before = ends[block - 1] if block else 0
        if cumulative[start] < 0:
            add_up(weight + start, size, before, cumulative + start)
        place = first_above(cumulative + start, size, target)
        if place == size:  # the lanes' sum was larger; `walk` says what is drawn then
            place = walk(weight + start, size, before, target)
        places[i] = start + place
