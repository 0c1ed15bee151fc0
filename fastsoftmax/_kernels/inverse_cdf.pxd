# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Draws by the inverse of the cumulative weights: the first place, in index order, whose cumulative
weight exceeds u * total."""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.block_maxima cimport count_equal
from fastsoftmax._kernels.packed_row cimport PackedRow, element_at, open_part, row_part
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.weights cimport (
    Prefix,
    cdf_search,
    cdf_search_certain,
    cumsum,
    keep_prefix_weights,
    softmax_weights,
    softmax_weights_by_block,
    sum_blocks,
    sum_in_order,
    sum_lanes,
    upper_bound,
)
from fastsoftmax._kernels.weights_f32 cimport (
    WeightScale,
    fits_float32,
    set_weight_scale,
    share_error,
    weights_f32_by_block,
)

cdef enum:
    DRAWS = 1 << 17  # with replacement, between two looks for a signal


cdef inline Py_ssize_t draw_from_block(
    const real *x, Py_ssize_t n, double highest, double inverse, const Prefix *kept,
    Py_ssize_t ties, const double *sums, Py_ssize_t block, double target, double margin,
    PackedRow *packed,
) noexcept nogil:
    """Draw from the block of a row of n elements in which `target` falls, by the blocks' sums.

    `kept` is NULL if all of the row is, else `ties` of its ties are still to come in the block.
    Where the sums may be off by `margin` at the target, return -1 if that may matter; what the
    block's own weights are is then known to a scale.
    """
    cdef double weight[BLOCK]
    cdef double before = sum_in_order(sums, block)
    cdef double ratio
    cdef Py_ssize_t start = block * BLOCK
    cdef Py_ssize_t size = min(<Py_ssize_t>BLOCK, n - start)
    cdef Py_ssize_t place, m
    cdef const real *part = open_part(x, start, size, packed, &m)
    softmax_weights(part, weight, m, highest, inverse)
    if kept != NULL:
        keep_prefix_weights(part, weight, m, kept, ties)
    if margin > 0:
        ratio = sum_lanes(<const double *>weight, m) / sums[block]
        place = cdf_search_certain(weight, m, (target - before) * ratio, margin * ratio)
    else:
        place = cdf_search(weight, m, before, target)
    return element_at(packed, start, size, place) if place >= 0 else -1


cdef inline Py_ssize_t draw_from_row(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, const Prefix *kept,
    double *sums, PackedRow *packed,
) noexcept nogil:
    """Draw from a row, or what is `kept` of it: find the block by the blocks' sums, then the place.
    """
    cdef WeightScale scale
    cdef double weight[BLOCK]
    cdef double total, margin
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef Py_ssize_t block, i, start, ties = 0
    if blocks == 1:
        x = row_part(x, 0, n, packed)
        softmax_weights(x, weight, n, highest, inverse)
        if kept != NULL:
            keep_prefix_weights(x, weight, n, kept, kept.ties)
        return cdf_search(weight, n, 0, u * sum_lanes(<const double *>weight, n))
    if real is float:  # mostly sums in float32 tell what those in float64 would
        if fits_float32(inverse) and (kept == NULL or kept.ties == 0):
            set_weight_scale(highest, inverse, &scale)
            total = weights_f32_by_block(x, n, &scale, kept, sums, packed)
            margin = share_error(&scale, n, total, total, u)
            block = cdf_search(sums, blocks, 0, u * total)
            i = draw_from_block(
                x, n, highest, inverse, kept, 0, sums, block, u * total, margin, packed
            )
            if i >= 0:
                return i
    total = softmax_weights_by_block(x, n, highest, inverse, kept, sums, packed)
    block = cdf_search(sums, blocks, 0, u * total)
    if kept != NULL and kept.ties > 0:
        ties = kept.ties
        for start from 0 <= start < block * BLOCK by BLOCK:
            ties -= count_equal(row_part(x, start, BLOCK, packed), BLOCK, <real>kept.threshold)
    return draw_from_block(
        x, n, highest, inverse, kept, ties, sums, block, u * total, 0, packed
    )


cdef inline void draw_without_replacement(
    double *weight, Py_ssize_t n, const double *u, Py_ssize_t m, double *sums, int64_t *places
) noexcept nogil:
    """Draw m places of n weights one after the other, each from what is left; -1 if nothing is.

    The weights drawn become 0.
    """
    cdef double target, total
    cdef Py_ssize_t i, block, start, size, place
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef Py_ssize_t done = 0
    cdef bint over = False
    sum_blocks(weight, n, sums)
    for i in range(m):
        total = sum_in_order(sums, blocks)
        done += blocks + BLOCK
        if done >= LOOK_INTERVAL:
            over = stopped(done)
            done = 0
        if over or not total > 0:
            places[i] = -1
            continue
        target = u[i] * total
        block = cdf_search(sums, blocks, 0, target)
        start = block * BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        place = start + cdf_search(weight + start, size, sum_in_order(sums, block), target)
        weight[place] = 0
        places[i] = place
        sum_blocks(weight + start, size, sums + block)


cdef inline bint are_few(Py_ssize_t m, Py_ssize_t n) noexcept nogil:
    """Return whether m draws from a row of n are made for less than a list of the row."""
    return m * 2 * BLOCK <= n


cdef inline void draw_few_without_replacement(
    const real *x, Py_ssize_t n, double highest, double inverse, const double *u, Py_ssize_t m,
    double *sums, int64_t *places,
) noexcept nogil:
    """Do for a whole row what `draw_without_replacement` does, its weights made where they matter.
    """
    cdef double weight[BLOCK]
    cdef double total, target
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef Py_ssize_t i, j, block, start, size
    cdef Py_ssize_t done = 0
    cdef bint over = False
    softmax_weights_by_block(x, n, highest, inverse, NULL, sums, NULL)
    for i in range(m):
        places[i] = -1
        total = sum_in_order(sums, blocks)
        done += blocks + BLOCK + i
        if done >= LOOK_INTERVAL:
            over = stopped(done)
            done = 0
        if over or not total > 0:
            continue
        target = u[i] * total
        block = cdf_search(sums, blocks, 0, target)
        start = block * BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        softmax_weights(x + start, weight, size, highest, inverse)
        for j in range(i):
            if start <= places[j] < start + size:
                weight[places[j] - start] = 0
        j = cdf_search(weight, size, sum_in_order(sums, block), target)
        weight[j] = 0
        places[i] = start + j
        sums[block] = sum_lanes(<const double *>weight, size)


cdef inline void draw_with_replacement(
    const double *weight, Py_ssize_t n, const double *u, Py_ssize_t m,
    double *cumulative, double *ends, int64_t *places,
) noexcept nogil:
    """Draw m places of n > 0 weights, each from all of them: what a walk finds, by bisection."""
    cdef double target, before, total = 0
    cdef Py_ssize_t i, j, block, start, size, place
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    sum_blocks(weight, n, ends)
    for block in range(blocks):
        total += ends[block]
        ends[block] = total
        cumulative[block * BLOCK] = -1  # not known yet: few draws meet few blocks
    for i in range(m):
        if i % DRAWS == 0 and stopped(m):
            for j in range(i, m):
                places[j] = -1
            return
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
