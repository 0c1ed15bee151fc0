# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The words of a race's streams, and the blocks of 128 ids: their maxima, and bounds of scores."""

from libc.math cimport fabs
from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastsoftmax._kernels.abi cimport Race
from fastsoftmax._kernels.block_maxima cimport maxima_and_sums
from fastsoftmax._kernels.gumbel cimport (
    exponential_below,
    exponential_of,
    gumbel_above,
    gumbel_of,
)
from fastsoftmax._kernels.maxima cimport reduce_halves
from fastsoftmax._kernels.packed_row cimport row_part
from fastsoftmax._kernels.philox cimport Stream, philox_keys, philox_words
from fastsoftmax._kernels.row_maximum cimport max_and_block_maxima, max_or_nan
from fastsoftmax._kernels.score_map cimport ScoreMap, least_before, map_above
from fastsoftmax._kernels.sums cimport STEP
from fastsoftmax._kernels.types cimport infinity, loop_void, real
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    RACE_BLOCK = 128  # ids whose largest g comes first
    LEAST = 1  # the streams
    PLACE = 2
    OTHERS = 3
    WORDS = 256  # that are made at once
    STEPS = 4  # of 32 elements, in a block

# The blocks of a row, or of a list of some of its elements in index order.
cdef struct Blocks:
    Py_ssize_t count
    const void *x  # the row, or the list's values
    Py_ssize_t n  # elements of it
    const Py_ssize_t *index  # the list's; NULL for a row
    int64_t first  # the number of a row's first block
    double highest
    double pivot
    double inverse  # 1/T
    const ScoreMap *map  # what makes scores of logits, pivot and 1/T being 0 and 1; NULL: nothing
    double low  # what is below it does not take part
    void *maximum  # of each block, of the row's type
    int64_t *number  # of each block of a list,
    Py_ssize_t *start  # and where it begins; and the list's end
    # Of the blocks that may have the largest scores:
    int64_t *block  # which they are,
    double *least  # their least t
    double *largest  # and largest g,
    double *bound  # of their scores,
    int64_t *order  # and whose these are

cdef struct Block:
    const void *x
    Py_ssize_t n
    Py_ssize_t start  # of its elements in the row or the list
    int64_t number
    Py_ssize_t largest_at  # its element with the largest g, -1 if it has no such one


# ---- words ---------------------------------------------------------------------------------------


cdef inline void stream_words(
    const Stream *key, uint64_t stream, const int64_t *which, Py_ssize_t n, uint64_t *word
) noexcept nogil:
    """Write some words of a stream; neighbours come of one block of Philox."""
    cdef uint64_t four[4]
    cdef uint64_t w, last = ~<uint64_t>0
    cdef Py_ssize_t i
    for i in range(n):
        w = <uint64_t>which[i]
        if w >> 2 != last:
            last = w >> 2
            philox_words(key.keys, 1 + last, key.position, key.draw, stream, four)
        word[i] = four[w & 3]


cdef inline uint64_t *words_from(
    const Stream *key, uint64_t stream, int64_t first, Py_ssize_t n, uint64_t *room
) noexcept nogil:
    """Return n words of a stream, in `room` for six more."""
    cdef uint64_t quarter = <uint64_t>first >> 2
    cdef Py_ssize_t i
    for i from 0 <= i < n + (first & 3) by 4:
        philox_words(key.keys, 1 + quarter, key.position, key.draw, stream, room + i)
        quarter += 1
    return room + (first & 3)


# ---- all blocks ----------------------------------------------------------------------------------


cdef inline void begin_stream(const Race *by, Py_ssize_t row, Stream *key) noexcept nogil:
    """Set up the words of the first draw from a row."""
    philox_keys(by.seeds[row * by.seed_stride], key.keys)
    key.position = by.positions[row * by.position_stride]
    key.draw = 0


cdef inline double max_for_race(
    const Race *by, Py_ssize_t row, const real *x, Py_ssize_t n, Workspace *work,
    const uint64_t **words,
) noexcept nogil:
    """Call `max_and_block_maxima` for blocks of 128, and perhaps find the words of a first race.

    `words` becomes where these are, or NULL.
    """
    cdef Stream key
    cdef Blocks b
    cdef real sums[STEP]
    cdef int64_t first = by.first_id // RACE_BLOCK
    words[0] = NULL
    # In a single block the maxima's own ones would lie over the words.
    if n <= RACE_BLOCK or work.packed != NULL or first % 4:
        return max_and_block_maxima(x, n, RACE_BLOCK, <real *>work.maxima, work.packed)
    begin_stream(by, row, &key)
    place_arrays(&b, n, work)
    words[0] = <const uint64_t *>b.order
    maxima_and_sums(
        x, n, RACE_BLOCK, <real *>work.maxima, sums, &key, 1 + <uint64_t>first // 4,
        <uint64_t *>b.order,
    )
    return max_or_nan(x, n, RACE_BLOCK, <real *>work.maxima, sums, NULL)


cdef inline void place_arrays(Blocks *b, Py_ssize_t n, Workspace *work) noexcept nogil:
    """Place the arrays of the blocks of a row of n elements where its block maxima are, or were.

    Those for a row of blocks of 128, eight of each, stay where they are.
    """
    cdef Py_ssize_t most = (n + RACE_BLOCK - 1) // RACE_BLOCK  # n / 8 in all: it has n / 7
    cdef double *free = <double *>work.maxima + 8 * most
    b.maximum = free
    b.number = <int64_t *>(free + most)
    b.block = <int64_t *>(free + 2 * most)
    b.least = free + 3 * most
    b.largest = free + 4 * most
    b.bound = free + 5 * most
    b.order = <int64_t *>(free + 6 * most)
    b.start = <Py_ssize_t *>(free + 7 * most)


cdef inline void blocks_of_row(Blocks *b, Workspace *work, real like) noexcept nogil:
    """Find the maximum of each block of a row by eight of each, which `work` has."""
    cdef real *eight = <real *>work.maxima
    cdef real *maximum = <real *>b.maximum
    b.count = (b.n + RACE_BLOCK - 1) // RACE_BLOCK
    reduce_halves(eight, maximum, b.count, 4)  # these lie where nothing is yet
    reduce_halves(maximum, eight, b.count, 2)
    reduce_halves(eight, maximum, b.count, 1)


cdef inline void blocks_of_list(Blocks *b, real like) noexcept nogil:
    """Find the blocks of a list, and the maximum of each."""
    cdef const real *x = <const real *>b.x
    cdef real *maximum = <real *>b.maximum
    cdef int64_t number, last = -1
    cdef Py_ssize_t i
    b.count = 0
    for i in range(b.n):
        number = b.index[i] // RACE_BLOCK
        if number != last:
            last = number
            b.number[b.count] = number
            b.start[b.count] = i
            maximum[b.count] = x[i]
            b.count += 1
        elif x[i] > maximum[b.count - 1]:
            maximum[b.count - 1] = x[i]
    b.start[b.count] = b.n


cdef inline loop_void set_largest(
    const Blocks *b, const int64_t *word, Py_ssize_t n
) noexcept nogil:
    """Write the least t and the largest g of the first n blocks that may win, of these words."""
    cdef Py_ssize_t i
    for i in range(n):
        b.least[i] = exponential_of(<uint64_t>word[i]) * 0.0078125
    for i in range(n):
        b.largest[i] = gumbel_of(b.least[i])


cdef inline Py_ssize_t bound_blocks(
    const Stream *key, const Blocks *b, const uint64_t *words, double score, real like
) noexcept nogil:
    """Find the blocks that may reach a score, with their bounds; return how many.

    By the words of all blocks, unless `words` is NULL.
    """
    cdef uint64_t room[WORDS + 6]
    cdef const uint64_t *word = room
    cdef double above[WORDS]
    cdef const real *maximum = <const real *>b.maximum
    cdef double pivot = b.pivot, inverse = b.inverse
    cdef Py_ssize_t start, n, i, count = 0
    for start from 0 <= start < b.count by WORDS:
        n = min(<Py_ssize_t>WORDS, b.count - start)
        if words != NULL:
            word = words + start
        elif b.index != NULL:
            stream_words(key, LEAST, b.number + start, n, room)
        else:
            word = words_from(key, LEAST, b.first + start, n, room)
        if b.map == NULL:
            for i in range(n):
                above[i] = (<double>maximum[start + i] - pivot) * inverse + gumbel_above(
                    exponential_below(word[i]) * 0.0078125
                )
        else:
            for i in range(n):
                above[i] = maximum[start + i]
            map_above(b.map, above, n)
            for i in range(n):
                above[i] += gumbel_above(exponential_below(word[i]) * 0.0078125)
        for i in range(n):
            b.block[count] = start + i
            b.order[count] = <int64_t>word[i]
            count += above[i] >= score
    set_largest(b, b.order, count)
    for i in range(count):
        b.bound[i] = (<double>maximum[b.block[i]] - pivot) * inverse
    if b.map != NULL:
        map_above(b.map, b.bound, count)
    n = 0
    for i in range(count):
        b.bound[n] = b.bound[i] + b.largest[i]
        b.order[n] = i
        n += (b.bound[n] >= score) & (b.bound[n] > -infinity(<double>0)) & (
            maximum[b.block[i]] >= b.low
        )
    return n


# ---- one block -----------------------------------------------------------------------------------


cdef inline Block block_of(
    const Stream *key, const Blocks *b, Py_ssize_t i, Workspace *work, real like
) noexcept nogil:
    """Return block i, until the next such call."""
    cdef Block block
    cdef uint64_t word
    cdef Py_ssize_t j
    if b.index == NULL:
        block.number = b.first + i
        block.start = i * RACE_BLOCK
        block.n = min(<Py_ssize_t>RACE_BLOCK, b.n - block.start)
        block.x = row_part(<const real *>b.x, block.start, block.n, work.packed)
    else:
        block.number = b.number[i]
        block.start = b.start[i]
        block.n = b.start[i + 1] - block.start
        block.x = <const real *>b.x + block.start
    stream_words(key, PLACE, &block.number, 1, &word)
    block.largest_at = <Py_ssize_t>(word >> 57)
    if b.index != NULL:
        j = 0
        while j < block.n and b.index[block.start + j] % RACE_BLOCK != block.largest_at:
            j += 1
        block.largest_at = j
    if block.largest_at >= block.n:
        block.largest_at = -1
    return block


cdef inline real least_logit(const Blocks *b, double g, double score, real like) noexcept nogil:
    """Return a logit that each is at least that takes part, and with g reaches a score."""
    cdef double eps = 1.2e-7 if real is float else 1e-15
    cdef double d = (score - g - 1e-15 * (fabs(score) + fabs(g))) / b.inverse
    cdef double x = b.pivot + d - 1e-15 * (fabs(b.pivot) + fabs(d))
    cdef real low
    if b.map != NULL:
        x = least_before(b.map, x)
    low = <real>(x - eps * fabs(x) - 1e-44)
    return low if low > b.low else <real>b.low  # for NaN, too


cdef inline void mark_from(const real *x, Py_ssize_t n, real low, uint32_t *marks) noexcept nogil:
    """Mark which of up to 128 elements are at least `low`."""
    cdef Py_ssize_t i, l
    cdef uint32_t found
    for i in range(STEPS):
        marks[i] = 0
    for i from 0 <= i < n by STEP:
        found = 0
        if i + STEP <= n:
            for l in range(STEP):
                found |= <uint32_t>(x[i + l] >= low) << l
        else:
            for l in range(n - i):
                found |= <uint32_t>(x[i + l] >= low) << l
        marks[i // STEP] = found
