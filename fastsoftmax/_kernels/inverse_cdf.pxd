# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Draws by the inverse of the cumulative weights: the first place, in index order, whose cumulative
weight exceeds u * total."""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.block_maxima cimport count_equal
from fastsoftmax._kernels.packed_row cimport PackedRow, element_at, open_part, row_part
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.sums cimport BLOCK, STEP, round_to_step
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
    block_weights_f32,
    fits_float32,
    set_weight_scale,
    share_error,
    sum_lanes_f32,
    weights_f32_by_block,
    whole_steps,
)

cdef enum:
    FEW = 192  # elements of a row that are weighed in float64 as fast
    GROUP = 256  # elements among which a step is looked for
    DRAWS = 1 << 17  # with replacement, between two looks for a signal


cdef inline Py_ssize_t weigh_block(
    const float *x, Py_ssize_t n, const WeightScale *scale, const Prefix *kept, Py_ssize_t ties,
    float *e,
) noexcept nogil:
    """Write the weights of the block x[0:n], filled up to whole steps; return how many these are.

    `kept` and `ties` as for `draw_from_block`.
    """
    cdef float padded[BLOCK]
    cdef Py_ssize_t whole = round_to_step(n + STEP - 1)
    block_weights_f32(whole_steps(x, n, padded), e, whole, scale)
    if kept != NULL:
        keep_prefix_weights(x, e, n, kept, ties)
    return whole


cdef inline Py_ssize_t draw_by_steps(
    const float *x, const float *e, Py_ssize_t n, Py_ssize_t whole, double highest, double inverse,
    const Prefix *kept, Py_ssize_t ties, double target, double margin,
) noexcept nogil:
    """Draw from the block x[0:n] by its float32 weights, and those of one step in float64.

    `e` is what `weigh_block` wrote, of `whole` elements. Return -1 if it may matter that the sums
    may be off by `margin` at the target.
    """
    cdef double weight[STEP]
    cdef double before = 0, sum = 0, ratio
    cdef Py_ssize_t start = 0, size = GROUP, m
    while True:
        while start < whole:
            sum = sum_lanes_f32(e + start, min(size, whole - start))
            if before + sum > target:
                break
            before += sum
            start += size
        if start >= whole:
            return -1
        if size == STEP:
            break
        size = STEP
    m = min(<Py_ssize_t>STEP, n - start)
    softmax_weights(x + start, weight, m, highest, inverse)
    if kept != NULL:
        if ties > 0:
            ties -= count_equal(x, start, <float>kept.threshold)
        keep_prefix_weights(x + start, weight, m, kept, ties)
    ratio = sum_lanes(<const double *>weight, m) / sum
    m = cdf_search_certain(weight, m, (target - before) * ratio, margin * ratio)
    return start + m if m >= 0 else -1


cdef inline Py_ssize_t draw_from_block(
    const real *x, Py_ssize_t n, double highest, double inverse, const Prefix *kept,
    Py_ssize_t ties, const double *sums, Py_ssize_t block, double target, double margin,
    const WeightScale *scale, PackedRow *packed,
) noexcept nogil:
    """Draw from the block of a row of n elements in which `target` falls, by the blocks' sums.

    `kept` is NULL if all of the row is, else `ties` of its ties are still to come in the block.
    Where the sums are of float32 weights, made by `scale`, and may be off by `margin` at the
    target, return -1 if that may matter; for sums of others `margin` is 0.
    """
    cdef double weight[BLOCK]
    cdef float e[BLOCK]
    cdef double before = sum_in_order(sums, block)
    cdef Py_ssize_t start = block * BLOCK
    cdef Py_ssize_t size = min(<Py_ssize_t>BLOCK, n - start)
    cdef Py_ssize_t place, m
    cdef const real *part = open_part(x, start, size, packed, &m)
    if real is float:
        if margin > 0:
            place = draw_by_steps(
                part, e, m, weigh_block(part, m, scale, kept, ties, e), highest, inverse, kept,
                ties, target - before, margin,
            )
            return element_at(packed, start, size, place) if place >= 0 else -1
    softmax_weights(part, weight, m, highest, inverse)
    if kept != NULL:
        keep_prefix_weights(part, weight, m, kept, ties)
    place = cdf_search(weight, m, before, target)
    return element_at(packed, start, size, place) if place >= 0 else -1


cdef inline Py_ssize_t draw_from_row(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, const Prefix *kept,
    double *sums, PackedRow *packed,
) noexcept nogil:
    """Draw from a row, or what is `kept` of it: find the block by the blocks' sums, then the place.
    """
    cdef WeightScale scale
    cdef float e[BLOCK]
    cdef double weight[BLOCK]
    cdef double total, margin
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef Py_ssize_t block, i, start, ties = 0
    if blocks == 1:
        x = row_part(x, 0, n, packed)
        if real is float:
            if n > FEW and fits_float32(inverse):
                set_weight_scale(highest, inverse, &scale)
                ties = kept.ties if kept != NULL else 0
                i = weigh_block(x, n, &scale, kept, ties, e)
                total = sum_lanes_f32(e, i)
                margin = share_error(&scale, n, total, total, u)
                i = draw_by_steps(
                    x, e, n, i, highest, inverse, kept, ties, u * total, margin
                )
                if i >= 0:
                    return i
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
                x, n, highest, inverse, kept, 0, sums, block, u * total, margin, &scale, packed
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
        x, n, highest, inverse, kept, ties, sums, block, u * total, 0, NULL, packed
    )


cdef inline Py_ssize_t draw_from_weights(
    const real *x, Py_ssize_t n, double u, const Prefix *kept, double *weight, double *sums
) noexcept nogil:
    """Do what `draw_from_row` does by the row's weights; what is not `kept` loses its own."""
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef Py_ssize_t block, start
    cdef double target
    keep_prefix_weights(x, weight, n, kept, kept.ties)
    sum_blocks(weight, n, sums)
    target = u * sum_in_order(sums, blocks)
    block = cdf_search(sums, blocks, 0, target)
    start = block * BLOCK
    return start + cdf_search(
        weight + start, min(<Py_ssize_t>BLOCK, n - start), sum_in_order(sums, block), target
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
