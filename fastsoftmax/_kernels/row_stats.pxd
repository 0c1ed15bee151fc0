# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is asked for of a row, block maxima found once: maximum, sums, best entries, ranks."""

from libc.math cimport NAN
from libc.stdint cimport int64_t, uint32_t

from fastsoftmax._kernels.best_list cimport BestList, list_best
from fastsoftmax._kernels.block_maxima cimport (
    CHUNK,
    LANES,
    STEP,
    any_reaching,
    block_maxima,
    count_blocks,
)
from fastsoftmax._kernels.block_sums cimport max_of_maxima
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.row_sums cimport (
    RowBlocks,
    RowSums,
    block_of,
    is_finite,
    row_sums,
)
from fastsoftmax._kernels.statistics_abi cimport RowStatsCall
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, noinline_void, one_nan, real
from fastsoftmax._kernels.weighted_sums cimport log_of


cdef inline Py_ssize_t room_for_maxima(Py_ssize_t n) noexcept nogil:
    """Return how many block maxima a row has, those of the maxima included, and so on."""
    return n // 7 + 16 * LANES


cdef inline void maxima_of_maxima(real *maxima, Py_ssize_t n) noexcept nogil:
    """Write the block maxima of a row's block maxima behind those, and so on."""
    cdef Py_ssize_t count = count_blocks(n, CHUNK)
    while count > LANES:
        block_maxima(<const real *>maxima, count, CHUNK, maxima + count, <real *>NULL)
        maxima += count
        count = count_blocks(count, CHUNK)


cdef inline real second_of(
    const real *x, const RowBlocks *blocks, real *maxima, Py_ssize_t first
) noexcept nogil:
    """Return the largest entry of a row but that at `first`, by its block maxima; NaN are none."""
    cdef real scratch[CHUNK]
    cdef real high = -infinity(<real>0)
    cdef real v
    cdef Py_ssize_t start = first // CHUNK * CHUNK
    cdef Py_ssize_t m = min(<Py_ssize_t>CHUNK, blocks.n - start)
    cdef Py_ssize_t i, own = first // CHUNK * LANES + first % LANES
    cdef const real *chunk = block_of(x, blocks, start, m, False, scratch)
    for i from first % LANES <= i < m by LANES:
        v = chunk[i] if start + i != first else high
        high = v if v > high else high
    v = maxima[own]
    maxima[own] = high
    high = max_of_maxima(<const real *>maxima, count_blocks(blocks.n, CHUNK))
    maxima[own] = v
    return high


cdef inline Py_ssize_t count_reaching(
    const real *x, Py_ssize_t n, real v, bint equal
) noexcept nogil:
    """Return how many of n elements, CHUNK at most, are above v, or equal it if `equal`, a literal.
    """
    cdef uint32_t lane[STEP]
    cdef uint32_t count = 0
    cdef Py_ssize_t whole = n & ~(<Py_ssize_t>STEP - 1), j, l
    for l in range(STEP):
        lane[l] = 0
    for j from 0 <= j < whole by STEP:
        for l in range(STEP):
            lane[l] += (x[j + l] >= v) if equal else (x[j + l] > v)
    for l in range(STEP):
        count += lane[l]
    for j in range(whole, n):
        count += (x[j] >= v) if equal else (x[j] > v)
    return count


cdef inline noinline_void add_before(
    const real *chunk, Py_ssize_t n, real v, Py_ssize_t place, int64_t *rank
) noexcept nogil:
    """Add how many of n elements, CHUNK at most, come before the number v at `place`.

    That may be before them, or behind.
    """
    cdef Py_ssize_t before = min(max(place, <Py_ssize_t>0), n)
    if before > 0:
        rank[0] += count_reaching(chunk, before, v, True)
    if before < n:
        rank[0] += count_reaching(chunk + before, n - before, v, False)


cdef inline noinline_void rank_of(
    const real *x, const RowBlocks *blocks, const real *maxima, Py_ssize_t id, int64_t *rank
) noexcept nogil:
    """Write how many entries of a row come before one of it, in `top_k`'s order."""
    cdef real scratch[BLOCK]
    cdef real v
    cdef const real *block
    cdef Py_ssize_t start, m, j
    rank[0] = 0
    v = block_of(x, blocks, id, 1, False, scratch)[0]
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        if v == v and not max_of_maxima(maxima, count_blocks(m, CHUNK)) >= v:
            maxima += count_blocks(m, CHUNK)
            continue
        block = block_of(x, blocks, start, m, False, scratch)
        if v == v:
            for j from 0 <= j < m by CHUNK:
                if any_reaching(maxima, LANES, v, start + j < id):
                    add_before(
                        block + j, min(<Py_ssize_t>CHUNK, m - j), v, id - start - j, rank
                    )
                maxima += LANES
        else:
            for j in range(m):
                rank[0] += block[j] == block[j] or start + j < id


cdef inline noinline_void write_best(
    const RowStatsCall *call, Py_ssize_t row, const real *x, const RowBlocks *blocks,
    const real *maxima, bint with_nan,
) noexcept nogil:
    """Write the largest entries of a row, by its block maxima, those of them, and so on."""
    cdef BestList best
    cdef Py_ssize_t j
    best.k = call.k
    list_best(x, blocks, maxima, with_nan, &best)
    for j in range(min(call.k, best.count)):
        (<real *>call.best)[row * call.k + j] = <real>best.value[j]
        call.best_indices[row * call.k + j] = best.index[j]


cdef inline bint needs_maxima(const RowStatsCall *call) noexcept nogil:
    """Return whether what is asked for of a row needs all of its block maxima."""
    return call.margins != NULL or call.k > 0 or call.m > 0


cdef inline void row_stats_of(
    const RowStatsCall *call, Py_ssize_t row, const real *x, const RowBlocks *blocks, real *maxima
) noexcept nogil:
    """Write what is asked for of a row, with room for its `maxima` if those are needed, or NULL."""
    cdef RowSums sums
    cdef real second
    cdef double temperature = call.rows.temperature[row * call.rows.temperature_stride]
    cdef double inverse = inverse_temperature(temperature, <double>0)
    cdef double v
    cdef bint certain
    cdef int64_t id
    cdef Py_ssize_t j, place
    row_sums(
        x, blocks, maxima, temperature, call.logsumexps != NULL or call.entropies != NULL,
        call.entropies != NULL, &sums,
    )
    certain = is_finite(sums.highest) and not sums.with_nan
    if call.maxima != NULL:
        (<real *>call.maxima)[row] = <real>(NAN if sums.with_nan else sums.highest + 0)
    if call.argmax != NULL:
        call.argmax[row] = -1 if sums.with_nan else sums.first
    if call.margins != NULL:
        v = NAN
        if certain:
            second = second_of(x, blocks, maxima, sums.first)
            v = 0
            if inverse > 0 or second == -infinity(<real>0):
                v = (sums.highest - second + 0) * max(inverse, 2.0**-1022)
        (<real *>call.margins)[row] = <real>v
    if call.entropies != NULL:
        (<real *>call.entropies)[row] = <real>one_nan(sums.log_sum + sums.distance)
    if call.logsumexps != NULL:
        v = NAN if sums.with_nan else sums.highest
        if call.counts != NULL:
            v = mean_of(&sums, certain, call.counts[row * call.count_stride])
        elif certain:
            v = sums.highest * inverse + sums.log_sum
        (<real *>call.logsumexps)[row] = <real>one_nan(v)
    if call.k > 0:
        maxima_of_maxima(maxima, blocks.n)
        write_best(call, row, x, blocks, <const real *>maxima, sums.with_nan)
    for j in range(call.m):
        place = row * call.m + j
        id = call.ids[place]
        call.ranks[place] = -1
        if 0 <= id < blocks.n:
            rank_of(x, blocks, <const real *>maxima, id, call.ranks + place)


cdef inline double mean_of(const RowSums *sums, bint certain, double count) noexcept nogil:
    """Return the logarithm of the mean over `count` entries."""
    cdef double log_count
    if sums.with_nan or count == 0:
        return NAN
    if not certain:
        return sums.highest
    log_of(count, &log_count)
    return sums.highest + (sums.log_sum - log_count)
