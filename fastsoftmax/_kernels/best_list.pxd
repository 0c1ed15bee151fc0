# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A few of the largest entries of a row, in `top_k`'s order, by the block maxima of the row.

The k-th largest of some block maxima bounds the k-th largest entry from below. Blocks that reach it
are looked into, and what reaches it is listed; where the list is full, the bound rises. At last
each entry goes to the place that its comparisons with all others give: hardly a branch that cannot
be foreseen, which are what a selection of few entries of a short row takes its time with.
"""

from libc.math cimport nextafter, nextafterf
from libc.stdint cimport int64_t

from fastsoftmax._kernels.block_maxima cimport CHUNK, LANES, count_blocks
from fastsoftmax._kernels.row_sums cimport RowBlocks, block_of
from fastsoftmax._kernels.statistics_abi cimport MAX_BEST
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real

cdef enum:
    ROOM = 512  # entries listed at once, more than CHUNK and MAX_BEST together
    MAX_STEPS = 12  # up to which the largest of some block maxima are found one by one
    MAX_BOUNDS = 64  # block maxima that a bound is chosen of, but where more are wanted

cdef struct BestList:
    double value[512]
    int64_t index[512]
    Py_ssize_t count
    Py_ssize_t k  # entries wanted, MAX_BEST at most


cdef inline real next_above(real x) noexcept nogil:
    """Return the least number above x, which is not +inf or NaN."""
    if real is float:
        return nextafterf(x, infinity(x))
    else:
        return nextafter(x, infinity(x))


cdef inline void rank_list(BestList *best) noexcept nogil:
    """Leave the first k entries of the list in their order."""
    cdef double value[128]
    cdef int64_t index[128]
    cdef double v
    cdef int64_t at
    cdef int place
    cdef Py_ssize_t i, j, n = best.count
    for i in range(n):
        v = best.value[i]
        at = best.index[i]
        place = 0
        for j in range(n):
            place += (best.value[j] > v) | ((best.value[j] == v) & (best.index[j] < at))
        if place < best.k:
            value[place] = v
            index[place] = at
    best.count = min(best.count, best.k)
    for i in range(best.count):
        best.value[i] = value[i]
        best.index[i] = index[i]


cdef inline real max_below(const real *x, Py_ssize_t n, real bound) noexcept nogil:
    """Return the largest of n numbers, whole LANES, that are below `bound`; -inf if none is."""
    cdef real lane[8]
    cdef real v
    cdef Py_ssize_t j, l
    for l in range(LANES):
        lane[l] = -infinity(<real>0)
    for j from 0 <= j < n by LANES:
        for l in range(LANES):
            v = x[j + l]
            v = v if v < bound else lane[l]
            lane[l] = v if v > lane[l] else lane[l]
    for l in range(4):
        lane[l] = lane[4 + l] if lane[4 + l] > lane[l] else lane[l]
    for l in range(2):
        lane[l] = lane[2 + l] if lane[2 + l] > lane[l] else lane[l]
    return lane[1] if lane[1] > lane[0] else lane[0]


cdef inline real bound_of(const real *maxima, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Return a number that k entries of a row reach; -inf if the row's block maxima give none."""
    cdef real bound = infinity(<real>0)
    cdef real v
    cdef int above[512]
    cdef Py_ssize_t i, l, _step, blocks = count_blocks(n, CHUNK)
    while blocks > MAX_BOUNDS and count_blocks(blocks, CHUNK) >= k:
        maxima += blocks
        blocks = count_blocks(blocks, CHUNK)
    if blocks < k:
        return -infinity(<real>0)
    blocks = min(blocks, <Py_ssize_t>ROOM)
    if k <= MAX_STEPS:  # down from one maximum to the next: of equal ones, too low a bound
        for _step in range(k):
            bound = max_below(maxima, blocks, bound)
        return bound
    for l in range(blocks):
        above[l] = 0
    for i in range(blocks):
        v = maxima[i]
        for l in range(blocks):
            above[l] += maxima[l] < v
    for l in range(blocks):
        v = maxima[l] if above[l] < k else bound
        bound = v if v < bound else bound
    return bound


cdef inline void list_lane(
    const real *x, Py_ssize_t start, Py_ssize_t lane, Py_ssize_t n, real bound, BestList *best
) noexcept nogil:
    """List what reaches `bound` of a lane of a chunk of n elements, at `start` of the row."""
    cdef Py_ssize_t j, count = best.count
    cdef real v
    for j from lane <= j < n by LANES:
        v = x[j]
        best.value[count] = v
        best.index[count] = start + j
        count += v >= bound
    best.count = count


cdef inline void list_best(
    const real *x, const RowBlocks *blocks, const real *maxima, bint with_nan, BestList *best
) noexcept nogil:
    """List the first k <= n entries of a row, whose block maxima are there; NaN come last."""
    cdef real scratch[BLOCK]
    cdef const real *block
    cdef Py_ssize_t reaching[65]  # block maxima of BLOCK elements, and one that is written in vain
    cdef Py_ssize_t start, chunk, m, i, j, count
    cdef real bound = bound_of(maxima, blocks.n, best.k)
    best.count = 0
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        count = 0
        for i in range(count_blocks(m, CHUNK)):
            reaching[count] = i
            count += maxima[i] >= bound
        chunk = -1
        for i in range(count):
            if reaching[i] // LANES * CHUNK != chunk:
                chunk = reaching[i] // LANES * CHUNK
                if best.count > ROOM - CHUNK - 1:  # what equals the last now comes too late
                    rank_list(best)
                    bound = next_above(<real>best.value[best.k - 1])
            if maxima[reaching[i]] >= bound:
                list_lane(
                    block + chunk, start + chunk, reaching[i] % LANES,
                    min(<Py_ssize_t>CHUNK, m - chunk), bound, best,
                )
        maxima += count_blocks(m, CHUNK)
    rank_list(best)
    for start from 0 <= start < blocks.n by BLOCK:
        if not with_nan or best.count == best.k:
            break
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        for j in range(m):
            if block[j] != block[j] and best.count < best.k:
                best.value[best.count] = block[j]
                best.index[best.count] = start + j
                best.count += 1
