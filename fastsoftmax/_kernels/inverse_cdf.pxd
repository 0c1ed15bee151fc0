# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Draws by walking weights in index order: the first whose cumulative weight exceeds u * total."""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.weights cimport (
    cdf_search,
    cdf_search_certain,
    cumsum,
    softmax_weights,
    softmax_weights_by_block,
    sum_blocks,
    sum_in_order,
    upper_bound,
    weights_f32,
    weights_f32_error,
)


cdef inline Py_ssize_t draw_from_row(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, double *sums
) noexcept nogil:
    """Draw from a whole row: find the block by the blocks' sums, then the place within it."""
    cdef double weight[BLOCK]
    cdef double target
    cdef Py_ssize_t block, start, m
    target = u * softmax_weights_by_block(x, n, highest, inverse, sums)
    block = cdf_search(sums, (n + BLOCK - 1) // BLOCK, 0, target)
    start = block * BLOCK
    m = min(<Py_ssize_t>BLOCK, n - start)
    softmax_weights(x + start, weight, m, highest, inverse)
    return start + cdf_search(weight, m, sum_in_order(sums, block), target)


cdef inline Py_ssize_t draw_f32(
    const float *x, Py_ssize_t n, double u, double highest, double inverse, double *sums
) noexcept nogil:
    """Return what `draw_from_row` does, by sums in float32; -1 if these are too rough to tell."""
    cdef double weight[BLOCK]
    cdef double total = weights_f32(x, n, highest, inverse, sums)
    cdef double error = weights_f32_error(n, total)
    cdef double target = u * total
    cdef Py_ssize_t block = cdf_search(sums, (n + BLOCK - 1) // BLOCK, 0, target)
    cdef Py_ssize_t start = block * BLOCK
    cdef Py_ssize_t m = min(<Py_ssize_t>BLOCK, n - start)
    cdef Py_ssize_t place
    softmax_weights(x + start, weight, m, highest, inverse)
    place = cdf_search_certain(weight, m, sum_in_order(sums, block), target, 2.1 * error * total)
    return start + place if place >= 0 else -1


cdef inline void draw_without_replacement(
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
        block = cdf_search(sums, blocks, 0, target)
        start = block * BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        places[i] = start + cdf_search(weight + start, size, sum_in_order(sums, block), target)
        weight[places[i]] = 0
        sum_blocks(weight + start, size, sums + block)


cdef inline void draw_with_replacement(
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
        block = min(upper_bound(ends, blocks, target), blocks - 1)
        start = block * BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        before = ends[block - 1] if block else 0
        if cumulative[start] < 0:
            cumsum(weight + start, size, before, cumulative + start)
        place = upper_bound(cumulative + start, size, target)
        if place == size:  # the lanes' sum was larger; `cdf_search` says what is drawn then
            place = cdf_search(weight + start, size, before, target)
        places[i] = start + place
