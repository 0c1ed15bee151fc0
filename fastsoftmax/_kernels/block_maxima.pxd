# cython: language_level=3, cdivision=True
"""Block maxima of a row, and ranks by them.

A row is cut into chunks of 256 elements (or 64), and lane l of a chunk (elements l, 8 + l, ...) is
a block, so that one pass of vertical maxima gives all block maxima. A chunk none of whose maxima
reaches a value need not be looked into.

Source
    Folklore.
"""

from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.bit_masks cimport BITS_AT_ONCE, WORD, open_maxima
from fastsoftmax._kernels.packed_row cimport (
    PART,
    PackedRow,
    has_shut_chunk,
    is_listed,
    open_part,
    row_element,
    row_part,
)
from fastsoftmax._kernels.philox cimport Stream, philox_words
from fastsoftmax._kernels.radix cimport Descending, lowest_value, order_t, oriented, value_t
from fastsoftmax._kernels.types cimport noinline_void

# Lanes are taken apart in what includes this, and wider vectors would go through memory for it.
cdef extern from *:
    """
    #if defined(__AVX512F__) && !defined(__clang__)
    #pragma GCC target("prefer-vector-width=256")
    #endif
    """

cdef extern from *:
    """
    #define FS_MAXIMA_OF_LANES(name, type) \\
    static inline void name(const type *x, type *y) { \\
        FS_ROLLED \\
        for (int l = 0; l < 8; l++) { \\
            type a = x[l] > x[8 + l] ? x[l] : x[8 + l]; \\
            type b = x[16 + l] > x[24 + l] ? x[16 + l] : x[24 + l]; \\
            y[l] = a > b ? a : b; \\
        } \\
    }
    FS_MAXIMA_OF_LANES(fs_maxima_of_lanes32, float)
    FS_MAXIMA_OF_LANES(fs_maxima_of_lanes64, double)
    FS_MAXIMA_OF_LANES(fs_maxima_of_lanes_int, int64_t)
    """
    void maxima_of_lanes32 "fs_maxima_of_lanes32"(const float *x, float *y) noexcept nogil
    void maxima_of_lanes64 "fs_maxima_of_lanes64"(const double *x, double *y) noexcept nogil
    void maxima_of_lanes_int "fs_maxima_of_lanes_int"(
        const int64_t *x, int64_t *y
    ) noexcept nogil

cdef enum:
    LANES = 8
    CHUNK = 256  # elements of a chunk: LANES blocks of 32;
    SMALL_CHUNK = 64  # of 8 where many are wanted
    STEP = 32  # elements that a loop takes at once


cdef inline Py_ssize_t count_blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """Return how many block maxima a row of n elements has in chunks of `size`."""
    return (n + size - 1) // size * LANES


cdef inline void write_maxima(const value_t *lane, value_t *maxima) noexcept nogil:
    """Write the maxima of a chunk by its STEP lanes."""
    if value_t is float:
        maxima_of_lanes32(lane, maxima)
    elif value_t is double:
        maxima_of_lanes64(lane, maxima)
    else:
        maxima_of_lanes_int(lane, maxima)


cdef inline void oriented_block_maxima(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t size, value_t *maxima
) noexcept nogil:
    """Write the block maxima of x[0:n], `oriented` by `order`, in chunks of `size`.

    NaN is passed over.
    """
    # Indexed by constants alone, so that they stay in registers.
    cdef value_t lane[STEP]
    cdef value_t v
    cdef Py_ssize_t whole = n & ~(<Py_ssize_t>STEP - 1)
    cdef Py_ssize_t start, j, l
    for start from 0 <= start < n by size:
        for l in range(STEP):
            lane[l] = lowest_value(<value_t>0)
        for j from start <= j < min(whole, start + size) by STEP:
            for l in range(STEP):
                v = oriented(x[j + l], order)
                lane[l] = v if v > lane[l] else lane[l]
        write_maxima(lane, maxima)
        maxima += LANES
    maxima -= LANES
    for j in range(whole, n):
        l = j & (LANES - 1)
        v = oriented(x[j], order)
        maxima[l] = v if v > maxima[l] else maxima[l]


cdef inline noinline_void separate_words(
    const Stream *key, uint64_t first, uint64_t *word
) noexcept nogil:
    """Write four words of stream 1: no registers of a loop that they are made in."""
    philox_words(key.keys, first, key.position, key.draw, 1, word)


cdef inline void maxima_of_few(
    const value_t *x, Py_ssize_t n, value_t *maxima, value_t *sums
) noexcept nogil:
    """Do what `maxima_and_sums` does for n < STEP elements, for which a call would cost as much."""
    cdef Py_ssize_t j, l
    for l in range(LANES):
        maxima[l] = lowest_value(<value_t>0)
    for l in range(STEP):
        sums[l] = 0
    for j in range(n):
        l = j & (LANES - 1)
        maxima[l] = x[j] if x[j] > maxima[l] else maxima[l]
        sums[0] += x[j]


cdef inline noinline_void maxima_and_sums(
    const value_t *x, Py_ssize_t n, Py_ssize_t size, value_t *maxima, value_t *sums,
    const Stream *key, uint64_t first, uint64_t *word,
) noexcept nogil:
    """Write the block maxima of x[0:n], in chunks of `size`, and STEP sums of each element once.

    Most rows are read so first. Unless `key` is NULL, write four words of stream 1 for each 512
    elements, too, from block `first` of Philox: beside the loads they cost less.
    """
    cdef value_t lane[STEP]
    cdef value_t partial[STEP]
    cdef Py_ssize_t whole = n & ~(<Py_ssize_t>STEP - 1)
    cdef Py_ssize_t start, j, l
    for l in range(STEP):
        partial[l] = 0
    for start from 0 <= start < n by size:
        for l in range(STEP):
            lane[l] = lowest_value(<value_t>0)
        for j from start <= j < min(whole, start + size) by STEP:
            for l in range(STEP):
                lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
            for l in range(STEP):
                partial[l] += x[j + l]
        write_maxima(lane, maxima)
        maxima += LANES
        if key != NULL and start % 512 == 0:
            separate_words(key, first, word)
            first += 1
            word += 4
    maxima -= LANES
    for j in range(whole, n):
        l = j & (LANES - 1)
        maxima[l] = x[j] if x[j] > maxima[l] else maxima[l]
        partial[0] += x[j]
    for l in range(STEP):
        sums[l] = partial[l]


cdef inline void block_maxima(
    const value_t *x, Py_ssize_t n, Py_ssize_t size, value_t *maxima, value_t *sums
) noexcept nogil:
    """Write the block maxima of x[0:n] in chunks of `size`, and `sums` unless that is NULL.

    NaN is passed over.
    """
    if sums == NULL:
        oriented_block_maxima(x, <Descending>0, n, size, maxima)
    elif n < STEP:
        maxima_of_few(x, n, maxima, sums)
    else:
        maxima_and_sums(x, n, size, maxima, sums, NULL, 0, NULL)


cdef inline void block_maxima_of_listed(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t size, value_t *maxima,
    value_t *sums, PackedRow *packed,
) noexcept nogil:
    """Do what `block_maxima_of_row` does for a row whose open ids are listed."""
    cdef value_t v
    cdef Py_ssize_t i, place
    for i in range(count_blocks(n, size)):
        maxima[i] = lowest_value(<value_t>0)
    for i in range(packed.count):
        v = row_element(x, packed.ids[i], packed)
        if sums != NULL:
            sums[0] += v
        place = packed.ids[i] // size * LANES + (packed.ids[i] & (LANES - 1))
        v = oriented(v, order)
        maxima[place] = v if v > maxima[place] else maxima[place]


cdef inline Py_ssize_t block_maxima_of_open(
    const float *x, Py_ssize_t n, Py_ssize_t size, float *maxima, float *sums, PackedRow *packed
) noexcept nogil:
    """Do what `block_maxima_of_row` does for whole chunks of a row under a mask, read once.

    Return how many elements these have: none where there are no instructions for it.
    """
    cdef float partial[STEP]
    cdef Py_ssize_t chunks = n // size if BITS_AT_ONCE else 0
    if chunks > 0:
        open_maxima(
            packed.bits, chunks, size // WORD, x, maxima, sums if sums != NULL else partial
        )
    return chunks * size


cdef inline void block_maxima_of_row(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t size, value_t *maxima,
    value_t *sums, PackedRow *packed,
) noexcept nogil:
    """Call `oriented_block_maxima` for the row x, which may be packed; `size` divides PART.

    With `sums`, for which `order` is Descending, `block_maxima`.
    """
    cdef value_t partial[STEP]
    cdef const value_t *part
    cdef Py_ssize_t start, length, l, count
    cdef bint by_chunk
    if packed == NULL:
        if sums != NULL:
            block_maxima(x, n, size, maxima, sums)
        else:
            oriented_block_maxima(x, order, n, size, maxima)
        return
    for l in range(STEP if sums != NULL else 0):
        sums[l] = 0
    if is_listed(packed):
        block_maxima_of_listed(x, order, n, size, maxima, sums, packed)
        return
    start = 0
    if value_t is float and order_t is Descending:
        if packed.masked and packed.rows.load == NULL:
            start = block_maxima_of_open(x, n, size, maxima, sums, packed)
            maxima += start // size * LANES
    while start < n:
        length = min(<Py_ssize_t>PART - start % PART, n - start)
        by_chunk = has_shut_chunk(packed, start, length, size)
        if by_chunk:  # without words that are shut, an element still comes into its lane
            length = min(size, length)
            part = open_part(x, start, length, packed, &count)
        else:
            count = length
            part = row_part(x, start, length, packed)
        if count == 0:
            for l in range(LANES):
                maxima[l] = lowest_value(<value_t>0)
        elif sums == NULL:
            oriented_block_maxima(part, order, count, size, maxima)
        else:
            block_maxima(part, count, size, maxima, partial)
            for l in range(STEP):
                sums[l] += partial[l]
        maxima += (length + size - 1) // size * LANES
        start += length


cdef inline bint any_reaching(const value_t *x, Py_ssize_t n, value_t t, bint equal) noexcept nogil:
    """Return whether one of n elements (a literal) is above t, or equals it if `equal` is true."""
    cdef int found = 0
    cdef Py_ssize_t l
    if equal:
        for l in range(n):
            found |= x[l] >= t
    else:
        for l in range(n):
            found |= x[l] > t
    return found


cdef inline Py_ssize_t count_above(const value_t *x, Py_ssize_t n, value_t v) noexcept nogil:
    """Return how many of n elements of a chunk are above the number v."""
    cdef Py_ssize_t j
    cdef int m = 0
    for j in range(n):
        m += x[j] > v
    return m


cdef inline Py_ssize_t count_equal(const value_t *x, Py_ssize_t n, value_t v) noexcept nogil:
    """Return how many of n elements of a chunk equal the number v."""
    cdef Py_ssize_t j
    cdef int m = 0
    for j in range(n):
        m += x[j] == v
    return m


cdef inline Py_ssize_t count_before(
    value_t v, Py_ssize_t index, const value_t *x, Py_ssize_t n
) noexcept nogil:
    """Return how many of n elements come before the number v at `index`, which may lie outside."""
    cdef Py_ssize_t rank = count_above(x, n, v)
    if index > 0:
        rank += count_equal(x, min(n, index), v)
    return rank


cdef inline Py_ssize_t rank_in_block(
    value_t v, Py_ssize_t index, const value_t *x, Py_ssize_t n, const value_t *maxima
) noexcept nogil:
    """Return how many of n elements come before the number v at `index`, which may lie outside.

    Only chunks of CHUNK elements with such elements are looked into, by their block maxima.
    """
    cdef Py_ssize_t start, size, rank = 0
    for start from 0 <= start < n by CHUNK:
        if any_reaching(maxima, LANES, v, start < index):
            size = min(<Py_ssize_t>CHUNK, n - start)
            rank += count_before(v, index - start, x + start, size)
        maxima += LANES
    return rank
