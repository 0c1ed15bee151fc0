# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is asked for of a row, block maxima found once: maximum, sums, best entries, ranks."""

from libc.math cimport INFINITY, NAN
from libc.stdint cimport int64_t

from fastsoftmax._kernels.block_maxima cimport (
    CHUNK,
    LANES,
    STEP,
    block_maxima,
    count_blocks,
    rank_in_block,
)
from fastsoftmax._kernels.best_list cimport BestList, list_best
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.maxima cimport RowMax, find_first
from fastsoftmax._kernels.row_sums cimport (
    RowBlocks,
    RowSums,
    block_of,
    has_nan,
    is_finite,
    row_sums,
)
from fastsoftmax._kernels.statistics_abi cimport RowStatsCall
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real


cdef inline Py_ssize_t room_for_maxima(Py_ssize_t n) noexcept nogil:
    """Return how many block maxima a row has, those of the maxima included, and so on."""
    return n // 7 + 16 * LANES


cdef inline bint maxima_of_blocks(
    const real *x, const RowBlocks *blocks, real *maxima, real *highest
) noexcept nogil:
    """Write the block maxima of a row, of those and so on, and its maximum.

    Return whether there may be a NaN, which is passed over.
    """
    cdef real scratch[BLOCK]
    cdef real sums[STEP]
    cdef Py_ssize_t start, m, i, count = count_blocks(blocks.n, CHUNK)
    cdef Py_ssize_t step = blocks.n if blocks.packed == NULL else BLOCK
    cdef bint suspect = False
    for start from 0 <= start < blocks.n by step:
        m = min(step, blocks.n - start)
        block_maxima(
            block_of(x, blocks, start, m, False, scratch), m, CHUNK,
            maxima + start // CHUNK * LANES, sums,
        )
        for i in range(STEP):
            suspect |= sums[i] != sums[i]
    while count > LANES:
        block_maxima(<const real *>maxima, count, CHUNK, maxima + count, <real *>NULL)
        maxima += count
        count = count_blocks(count, CHUNK)
    highest[0] = -infinity(<real>0)
    for i in range(count):
        highest[0] = maxima[i] if maxima[i] > highest[0] else highest[0]
    return suspect


cdef inline Py_ssize_t place_of_max(
    const real *x, const RowBlocks *blocks, const real *maxima, real highest
) noexcept nogil:
    """Return the first place of the largest entry of a row, by its block maxima."""
    cdef real scratch[BLOCK]
    cdef Py_ssize_t i = find_first(maxima, count_blocks(blocks.n, CHUNK), highest)
    cdef Py_ssize_t start = min(i // LANES * CHUNK, (blocks.n - 1) // CHUNK * CHUNK)
    cdef Py_ssize_t m = min(<Py_ssize_t>CHUNK, blocks.n - start)
    # The bound: another thread may write into the row.
    return min(
        blocks.n - 1,
        start + find_first(block_of(x, blocks, start, m, False, scratch), m, highest),
    )


cdef inline real second_of(
    const real *x, const RowBlocks *blocks, const real *maxima, Py_ssize_t first
) noexcept nogil:
    """Return the largest entry of a row but that at `first`, by its block maxima; NaN are none."""
    cdef real scratch[BLOCK]
    cdef real high = -infinity(<real>0)
    cdef real v
    cdef Py_ssize_t start = first // CHUNK * CHUNK
    cdef Py_ssize_t m = min(<Py_ssize_t>CHUNK, blocks.n - start)
    cdef Py_ssize_t i, own = first // CHUNK * LANES + first % LANES
    cdef const real *chunk = block_of(x, blocks, start, m, False, scratch)
    for i from first % LANES <= i < m by LANES:
        v = chunk[i] if start + i != first else high
        high = v if v > high else high
    for i in range(own):
        high = maxima[i] if maxima[i] > high else high
    for i in range(own + 1, count_blocks(blocks.n, CHUNK)):
        high = maxima[i] if maxima[i] > high else high
    return high


cdef inline Py_ssize_t rank_of(
    const real *x, const RowBlocks *blocks, const real *maxima, int64_t id
) noexcept nogil:
    """Return how many entries of a row come before one of it, in `top_k`'s order."""
    cdef real scratch[BLOCK]
    cdef real v
    cdef const real *block
    cdef Py_ssize_t start, m, j, rank = 0
    v = block_of(x, blocks, id, 1, False, scratch)[0]
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        if v == v:
            rank += rank_in_block(v, id - start, block, m, maxima + start // CHUNK * LANES)
        else:
            for j in range(m):
                rank += block[j] == block[j] or start + j < id
    return rank


cdef inline void row_stats_of(
    const RowStatsCall *call, Py_ssize_t row, const real *x, const RowBlocks *blocks, real *maxima
) noexcept nogil:
    """Write what is asked for of a row, with room for its `maxima`."""
    cdef BestList best
    cdef RowMax top
    cdef RowSums sums
    cdef real scratch[BLOCK]
    cdef real highest, second
    cdef double temperature = call.temperature[row * call.temperature_stride]
    cdef double inverse = inverse_temperature(temperature, <double>0)
    cdef bint with_nan = maxima_of_blocks(x, blocks, maxima, &highest)
    cdef bint has_sums = call.logsumexps != NULL or call.entropies != NULL
    cdef int64_t id
    cdef Py_ssize_t j, place, first = 0
    if with_nan:  # or +inf, from an overflow, perhaps, and -inf
        with_nan = has_nan(x, blocks, scratch)
    best.k = call.k
    if best.k > 0:
        list_best(x, blocks, <const real *>maxima, with_nan, &best)
    if call.argmax != NULL or call.margins != NULL or has_sums:
        first = place_of_max(x, blocks, <const real *>maxima, highest)
    if call.maxima != NULL:
        call.maxima[row] = NAN if with_nan else <double>highest
    if call.argmax != NULL:
        call.argmax[row] = -1 if with_nan else first
    if call.margins != NULL:
        call.margins[row] = NAN
        if is_finite(highest) and not with_nan:
            second = second_of(x, blocks, <const real *>maxima, first)
            call.margins[row] = 0
            if inverse > 0 or second == -infinity(<real>0):
                call.margins[row] = (<double>highest - second) * max(inverse, 2.0**-1022)
    if has_sums:
        sums.log_sum = sums.distance = NAN
        if is_finite(highest) and not with_nan:
            top.value = highest
            top.block = first // BLOCK * BLOCK
            row_sums(x, blocks, &top, temperature, call.entropies != NULL, &sums)
        if call.entropies != NULL:
            call.entropies[row] = sums.log_sum + sums.distance
        if call.logsumexps != NULL:
            call.logsumexps[row] = NAN
            if is_finite(highest):
                call.logsumexps[row] = highest * inverse + sums.log_sum
            elif not with_nan:
                call.logsumexps[row] = highest
    for j in range(call.k):
        call.best[row * call.k + j] = best.value[j]
        call.best_indices[row * call.k + j] = best.index[j]
    for j in range(call.m):
        place = row * call.m + j
        id = call.ids[place]
        call.ranks[place] = -1
        if 0 <= id < blocks.n:
            call.ranks[place] = rank_of(x, blocks, <const real *>maxima, id)
