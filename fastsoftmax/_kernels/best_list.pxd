# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A few of the largest entries of a row, in `top_k`'s order, by the block maxima of the row.

The k-th largest of some block maxima bounds the k-th largest entry from below. Blocks that reach it
are looked into, and what reaches it is listed; where the list is full, the bound rises. At last
each entry goes to the place that its comparisons with all others give: hardly a branch that cannot
be foreseen, which are what a selection of few entries of a short row takes its time with.
"""

from libc.math cimport nextafter, nextafterf
from libc.stdint cimport int64_t

from fastsoftmax._kernels.bisection cimport FEW, kth_of_few
from fastsoftmax._kernels.block_maxima cimport CHUNK, LANES, count_blocks
from fastsoftmax._kernels.block_sums cimport max_of_maxima
from fastsoftmax._kernels.row_sums cimport RowBlocks, block_of
from fastsoftmax._kernels.statistics_abi cimport MAX_BEST
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real

cdef enum:
    ROOM = 512  # entries listed at once, more than CHUNK and MAX_BEST together

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
    cdef double value[129]  # of MAX_BEST, and of all that come later
    cdef int64_t index[129]
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
        place = min(place, <int>MAX_BEST)
        value[place] = v
        index[place] = at
    best.count = min(best.count, best.k)
    for i in range(best.count):
        best.value[i] = value[i]
        best.index[i] = index[i]


cdef inline real bound_of(const real *maxima, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Return a number that k entries of a row reach; -inf if the row's block maxima give none."""
    cdef real bound = infinity(<real>0)
    cdef real v
    cdef int above
    cdef Py_ssize_t i, l, blocks = count_blocks(n, CHUNK)
    while blocks > FEW and count_blocks(blocks, CHUNK) >= k:
        maxima += blocks
        blocks = count_blocks(blocks, CHUNK)
    if blocks < k:
        return -infinity(<real>0)
    if blocks <= FEW:
        return kth_of_few(maxima, blocks, k)
    blocks = min(blocks, <Py_ssize_t>ROOM)
    for l in range(blocks):
        above = 0
        for i in range(blocks):
            above += maxima[i] > maxima[l]
        v = maxima[l] if above < k else bound
        bound = v if v < bound else bound
    return bound


cdef inline void list_lane(
    const real *x, Py_ssize_t start, Py_ssize_t lane, Py_ssize_t n, real bound, BestList *best
) noexcept nogil:
    """List what reaches `bound` of a lane of a chunk of n elements, at `start` of the row."""
    cdef Py_ssize_t j, count = best.count
    for j from lane <= j < n by LANES:
        best.index[count] = start + j
        count += x[j] >= bound
    for j in range(best.count, count):
        best.value[j] = x[best.index[j] - start]
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
        count = 0
        if not max_of_maxima(maxima, count_blocks(m, CHUNK)) >= bound:
            maxima += count_blocks(m, CHUNK)
            continue
        block = block_of(x, blocks, start, m, False, scratch)
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
