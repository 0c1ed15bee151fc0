# cython: language_level=3, cdivision=True
"""Partial selection from many short rows at once: the lanes of a vector are rows.

The order everywhere is: larger value first, lower index first among equals, NaN last.

Formula
    Insertion sort. Each row has a sorted list of the k first of its elements so far. An element
    goes down the lists of all rows in step; from where it comes before another, all move on.

Passes over memory
    One, by tiles of 16 rows and 16 elements, which are transposed.

Precision policy
    Comparisons of integer keys, which have the order of the values.

Source
    Folklore.
"""

from libc.stdint cimport int32_t, int64_t

from fastsoftmax._kernels.radix cimport value_t
from fastsoftmax._kernels.transpose cimport SIDE32, SIDE64, gather32, gather64
from fastsoftmax._kernels.types cimport bits32, bits64

ctypedef fused key_t:
    int32_t
    int64_t

cdef enum:
    BATCH_ROWS = 16  # rows in step
    TILE = 16  # elements of them that are transposed together
    MAX_BATCH_K = 32  # elements that a list has room for
    # Up to so many bytes of a row times k + 3, one row after the other is slower;
    MAX_BATCH_WORK = 5632
    # of rows of which only the first is wanted, up to so many bytes, or fewer elements than these.
    MAX_BATCH_ONE = 160
    MIN_ROW_ONE = 32


cdef inline bint selects_in_batch(
    Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, Py_ssize_t size
) noexcept nogil:
    """Return whether to select k of n elements of `size` bytes from `rows` by `batch_select`."""
    if k == 1 and n >= MIN_ROW_ONE and n * size > MAX_BATCH_ONE:
        return False
    return rows >= BATCH_ROWS and k <= MAX_BATCH_K and n * (k + 3) * size <= MAX_BATCH_WORK


cdef inline key_t bits_of(value_t x, key_t like) noexcept nogil:
    """Return the bits of x as an integer of the type of `like`, which is as wide as x."""
    if value_t is float:
        return <key_t>bits32(x)
    elif value_t is double:
        return <key_t>bits64(x)
    else:
        return x


cdef inline key_t signed_key(key_t bits, value_t like, key_t flip) noexcept nogil:
    """Return a key in the order of the values, of the type of `like`, that have such `bits`.

    NaN is lowest, -0 and +0 are equal. If `flip` is -1 (else 0), numbers are in the reverse order.
    Straight-line integer code, which gcc vectorises.
    """
    cdef key_t sign, magnitude
    cdef key_t sign_bit = <key_t>0x80000000u if key_t is int32_t else <key_t>0x8000000000000000ULL
    cdef key_t inf = 0x7F800000 if key_t is int32_t else <key_t>0x7FF0000000000000ULL
    if value_t is int64_t:
        return bits ^ flip
    else:
        sign = (bits ^ flip) >> (8 * sizeof(key_t) - 1)
        magnitude = bits & ~sign_bit
        return (magnitude ^ sign) - sign if magnitude <= inf else sign_bit


cdef inline void transpose_tile(
    const value_t *x, Py_ssize_t n, Py_ssize_t size, key_t *tile
) noexcept nogil:
    """Write the bits of element j of BATCH_ROWS rows, n elements apart, to row j of `tile`.

    j goes up to `size`, TILE at most.
    """
    cdef Py_ssize_t whole = size & ~(<Py_ssize_t>3)
    cdef Py_ssize_t l, j
    cdef Py_ssize_t side = SIDE32 if value_t is float else SIDE64
    for l from 0 <= l < BATCH_ROWS by side:
        if value_t is float:
            for j from 0 <= j < whole by 4:
                gather32(x + l * n + j, n, <float *>tile + j * BATCH_ROWS + l, BATCH_ROWS)
        else:
            for j from 0 <= j < whole by 2:
                gather64(
                    <const double *>x + l * n + j, n, <double *>tile + j * BATCH_ROWS + l,
                    BATCH_ROWS,
                )
    for j in range(whole, size):
        for l in range(BATCH_ROWS):
            tile[j * BATCH_ROWS + l] = bits_of(x[l * n + j], <key_t>0)


cdef inline void insert_in_step(
    const value_t *x, Py_ssize_t n, Py_ssize_t k, key_t flip, key_t *index
) noexcept nogil:
    """Write the indices of the first k elements of BATCH_ROWS rows of n; lanes of `index` are rows.

    `flip` as for `signed_key`.
    """
    cdef key_t keys[MAX_BATCH_K * BATCH_ROWS]
    cdef key_t tile[TILE * BATCH_ROWS]
    cdef key_t new_key[BATCH_ROWS]
    cdef key_t key[BATCH_ROWS]  # what goes down the list, and
    cdef key_t place[BATCH_ROWS]  # its index
    cdef key_t key2, place2
    cdef Py_ssize_t start, size, i, j, s
    cdef int l
    for start from 0 <= start < n by TILE:
        size = min(<Py_ssize_t>TILE, n - start)
        transpose_tile(x + start, n, size, tile)
        for i in range(size * BATCH_ROWS):  # gcc would unroll a shorter loop, and not vectorise it
            tile[i] = signed_key(tile[i], <value_t>0, flip)
        for j in range(start, start + size):
            for l in range(BATCH_ROWS):
                new_key[l] = key[l] = tile[(j - start) * BATCH_ROWS + l]
            for l in range(BATCH_ROWS):
                place[l] = <key_t>j
            for s in range(min(j, k)):
                for l in range(BATCH_ROWS):
                    key2 = keys[s * BATCH_ROWS + l]
                    place2 = index[s * BATCH_ROWS + l]
                    keys[s * BATCH_ROWS + l] = key[l] if key[l] > key2 else key2
                    key[l] = key2 if key[l] > key2 else key[l]
                    # Where the new one has its place, all behind it move on, equal or not.
                    index[s * BATCH_ROWS + l] = place[l] if new_key[l] > key2 else place2
                    place[l] = place2 if new_key[l] > key2 else place[l]
            if j < k:
                for l in range(BATCH_ROWS):
                    keys[j * BATCH_ROWS + l] = key[l]
                for l in range(BATCH_ROWS):
                    index[j * BATCH_ROWS + l] = place[l]


cdef inline void write_selected(
    const value_t *x, Py_ssize_t n, Py_ssize_t k, bint sort, const key_t *index,
    value_t *values, int64_t *indices,
) noexcept nogil:
    """Write to k `values` and `indices` a row what `index` has for BATCH_ROWS rows of n elements.

    If `sort` is false, in index order.
    """
    cdef Py_ssize_t l, s, i
    cdef int64_t place
    for l in range(BATCH_ROWS):
        for s in range(k):
            place = index[s * BATCH_ROWS + l]
            i = s
            if not sort:
                while i > 0 and indices[i - 1] > place:
                    indices[i] = indices[i - 1]
                    i -= 1
            indices[i] = place
        for s in range(k):
            values[s] = x[indices[s]]
        x += n
        values += k
        indices += k


cdef inline void batch_select(
    const value_t *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint largest, bint sort,
    value_t *values, int64_t *indices,
) noexcept nogil:
    """Write the k `largest` (or smallest) elements of each of `rows` of n, and their indices.

    The rows are BATCH_ROWS at least. If `sort` is false, write them in index order.
    """
    cdef int32_t index[MAX_BATCH_K * BATCH_ROWS]
    cdef int64_t index64[MAX_BATCH_K * BATCH_ROWS]
    cdef Py_ssize_t start, i
    for start from 0 <= start < rows by BATCH_ROWS:
        i = min(start, rows - BATCH_ROWS)  # some rows twice, in the end
        if value_t is float:
            insert_in_step(x + i * n, n, k, <int32_t>(0 if largest else -1), index)
            write_selected(
                x + i * n, n, k, sort, <const int32_t *>index, values + i * k, indices + i * k
            )
        else:
            insert_in_step(x + i * n, n, k, <int64_t>(0 if largest else -1), index64)
            write_selected(
                x + i * n, n, k, sort, <const int64_t *>index64, values + i * k, indices + i * k
            )
