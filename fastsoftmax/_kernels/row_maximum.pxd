# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The largest element of a row by its block maxima, and whether the row has probabilities."""

from libc.math cimport NAN

from fastsoftmax._kernels.argmax cimport argmax_of_finite
from fastsoftmax._kernels.block_maxima cimport (
    CHUNK,
    LANES,
    STEP,
    block_maxima,
    block_maxima_of_row,
    count_blocks,
)
from fastsoftmax._kernels.maxima cimport find_first
from fastsoftmax._kernels.packed_row cimport (
    PackedRow,
    is_listed,
    part_length,
    row_element,
    row_part,
)
from fastsoftmax._kernels.radix cimport Descending
from fastsoftmax._kernels.types cimport infinity, real

cdef enum:
    ARGMAX_CHUNK = 2048  # elements of a chunk where nothing but the largest one is looked for


cdef inline double max_of_listed(const real *x, PackedRow *packed) noexcept nogil:
    """Return what `max_and_block_maxima` does for a row whose open ids are listed."""
    cdef real high = -infinity(<real>0)
    cdef real v
    cdef Py_ssize_t i
    for i in range(packed.count):
        v = row_element(x, packed.ids[i], packed)
        if v != v:
            return NAN
        high = v if v > high else high
    return high if -infinity(<real>0) < high < infinity(<real>0) else NAN


cdef inline double max_and_block_maxima(
    const real *x, Py_ssize_t n, Py_ssize_t size, real *maxima, PackedRow *packed
) noexcept nogil:
    """Write the block maxima of a row, from chunks of `size`; return the largest element.

    But no block maxima where a mask allows so little that it is listed (`is_listed`). NaN if there
    are no probabilities: NaN, +inf or nothing but -inf in the row.
    """
    cdef real sums[STEP]
    if is_listed(packed):
        return max_of_listed(x, packed)
    block_maxima_of_row(x, <Descending>0, n, size, maxima, sums, packed)
    return max_or_nan(x, n, size, maxima, sums, packed)


cdef inline double max_or_nan(
    const real *x, Py_ssize_t n, Py_ssize_t size, real *maxima, const real *sums, PackedRow *packed
) noexcept nogil:
    """Return what `max_and_block_maxima` does, by block maxima and sums."""
    cdef real high = -infinity(<real>0)
    cdef Py_ssize_t blocks = count_blocks(n, size)
    cdef Py_ssize_t step = part_length(n, packed)
    cdef const real *part
    cdef Py_ssize_t start, i
    cdef bint suspect = False
    block_maxima(maxima, blocks, CHUNK, maxima + blocks, NULL)
    for i in range(blocks, blocks + count_blocks(blocks, CHUNK)):
        high = maxima[i] if maxima[i] > high else high
    for i in range(STEP):
        suspect |= sums[i] != sums[i]
    if suspect:  # a NaN, or +inf (from an overflow, perhaps) and -inf
        for start from 0 <= start < n by step:
            part = row_part(x, start, min(step, n - start), packed)
            for i in range(min(step, n - start)):
                if part[i] != part[i]:
                    return NAN
    return high if -infinity(<real>0) < high < infinity(<real>0) else NAN


cdef inline Py_ssize_t first_max(
    const real *x, Py_ssize_t n, Py_ssize_t size, real highest, const real *maxima,
    PackedRow *packed,
) noexcept nogil:
    """Return the first place of the largest element, by what `max_and_block_maxima` has written."""
    cdef Py_ssize_t i, start
    if is_listed(packed):
        for i in range(packed.count):
            if row_element(x, packed.ids[i], packed) == highest:
                return packed.ids[i]
        return packed.ids[0]  # another thread has written into the row
    i = find_first(maxima, count_blocks(n, size), highest)
    start = i // LANES * size  # the first chunk that has it
    size = min(size, n - start)
    # The bound: another thread may write into the row.
    return min(n - 1, start + find_first(row_part(x, start, size, packed), size, highest))


cdef inline Py_ssize_t argmax(
    const real *x, Py_ssize_t n, real *maxima, PackedRow *packed
) noexcept nogil:
    """Return the first place of the largest element, -1 if there are no probabilities."""
    cdef double highest
    if packed == NULL:
        return argmax_of_finite(x, n)
    highest = max_and_block_maxima(x, n, ARGMAX_CHUNK, maxima, packed)
    if highest != highest:
        return -1
    return first_max(x, n, ARGMAX_CHUNK, <real>highest, maxima, packed)
