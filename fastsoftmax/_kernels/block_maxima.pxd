# cython: language_level=3, cdivision=True
"""Block maxima of a row, and ranks by them.

A row is cut into chunks of 256 elements (or 64), and lane l of a chunk (elements l, 8 + l, ...) is
a block, so that one pass of vertical maxima gives all block maxima. A chunk none of whose maxima
reaches a value need not be looked into.

Source
    Folklore.
"""

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
from fastsoftmax._kernels.radix cimport Descending, lowest_value, order_t, oriented, value_t
from fastsoftmax._kernels.types cimport prefetch

# Lanes are taken apart in what includes this, and wider vectors would go through memory for it.
cdef extern from *:
    """
    #if defined(__AVX512F__) && !defined(__clang__)
    #pragma GCC target("prefer-vector-width=256")
    #endif
    """

cdef enum:
    LANES = 8
    CHUNK = 256  # elements of a chunk: LANES blocks of 32;
    SMALL_CHUNK = 64  # of 8 where many are wanted
    STEP = 32  # elements that a loop takes at once
    PREFETCH_ELEMENTS = 1536  # from the element read to the one fetched, which is in another page


cdef inline Py_ssize_t count_blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """Return how many block maxima a row of n elements has in chunks of `size`."""
    return (n + size - 1) // size * LANES


cdef inline void oriented_block_maxima(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t size, value_t *maxima, value_t *sums
) noexcept nogil:
    """Write the block maxima of x[0:n], `oriented` by `order`, in chunks of `size`; pass NaN over.

    If `sums` is not NULL, write STEP sums to it that hold each element once.
    """
    # Indexed by constants alone, so that they stay in registers.
    cdef value_t lane[STEP]
    cdef value_t partial[STEP]
    cdef value_t padded[2 * STEP]
    cdef value_t high, high2, v
    cdef Py_ssize_t whole = n & ~(<Py_ssize_t>STEP - 1)
    cdef Py_ssize_t start, j, l
    for l in range(STEP):
        partial[l] = 0
        padded[STEP + l] = lowest_value(<value_t>0)
    for start from 0 <= start < n by size:
        for l in range(STEP):
            lane[l] = lowest_value(<value_t>0)
        for j from start <= j < min(whole, start + size) by STEP:
            for l from 0 <= l < STEP by 64 // sizeof(value_t):
                prefetch(x + j + PREFETCH_ELEMENTS + l)
            for l in range(STEP):
                v = oriented(x[j + l], order)
                lane[l] = v if v > lane[l] else lane[l]
            if sums != NULL:
                for l in range(STEP):
                    partial[l] += x[j + l]
        for l in range(STEP):
            padded[l] = lane[l]
        for l in range(STEP):  # LANES are needed, but gcc makes no vectors of shorter loops
            high = padded[l] if padded[l] > padded[8 + l] else padded[8 + l]
            high2 = padded[16 + l] if padded[16 + l] > padded[24 + l] else padded[24 + l]
            maxima[l] = high if high > high2 else high2
        maxima += LANES
    maxima -= LANES
    for j in range(whole, n):
        l = j & (LANES - 1)
        v = oriented(x[j], order)
        maxima[l] = v if v > maxima[l] else maxima[l]
        if sums != NULL:
            partial[0] += x[j]
    if sums != NULL:
        for l in range(STEP):
            sums[l] = partial[l]


cdef inline void block_maxima(
    const value_t *x, Py_ssize_t n, Py_ssize_t size, value_t *maxima, value_t *sums
) noexcept nogil:
    """Write the block maxima of x[0:n] in chunks of `size`, and `sums`; pass NaN over."""
    oriented_block_maxima(x, <Descending>0, n, size, maxima, sums)


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
    """Call `oriented_block_maxima` for the row x, which may be packed; `size` divides PART."""
    cdef value_t partial[STEP]
    cdef const value_t *part
    cdef Py_ssize_t start, length, l, count
    cdef bint by_chunk
    if packed == NULL:
        oriented_block_maxima(x, order, n, size, maxima, sums)
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
        else:
            oriented_block_maxima(
                part, order, count, size, maxima, partial if sums != NULL else NULL
            )
            for l in range(STEP if sums != NULL else 0):
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
            rank += count_above(x + start, size, v)
            if start < index:
                rank += count_equal(x + start, min(size, index - start), v)
        maxima += LANES
    return rank
