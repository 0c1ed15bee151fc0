# cython: language_level=3, cdivision=True
"""Parts of long rows that must be packed, and of their results: blocks that stay in cache.

Parts of x are packed where those of the result lie, if those can be written as they stand, and read
from there when they are wanted again; else all parts go through scratch.
"""

from fastsoftmax._kernels.abi cimport PackedRows
from fastsoftmax._kernels.reserve cimport borrow, give_back
from fastsoftmax._kernels.sums cimport BLOCK

cdef struct PackedParts:
    const PackedRows *rows
    Py_ssize_t row  # that is worked on
    void *x  # scratch for a part of each
    void *x2
    void *y


cdef inline Py_ssize_t parts_bytes() noexcept nogil:
    """Return the bytes of scratch that a thread needs."""
    return 3 * BLOCK * sizeof(double)


cdef inline void borrow_parts(PackedParts *parts, const PackedRows *rows) noexcept nogil:
    """Borrow the scratch of a call; `return_parts` gives it back."""
    cdef double *scratch = <double *>borrow(rows.workspace)
    parts.rows = rows
    parts.x = scratch
    parts.x2 = scratch + BLOCK
    parts.y = scratch + 2 * BLOCK


cdef inline void return_parts(PackedParts *parts) noexcept nogil:
    """Give back what `borrow_parts` has borrowed."""
    give_back(parts.rows.workspace, <char *>parts.x)


cdef inline Py_ssize_t part_size(Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    """Return how many elements the part from `start` on has, in a row of n."""
    return min(<Py_ssize_t>BLOCK, n - start)


cdef inline void *place_of_result(const PackedParts *parts, Py_ssize_t start) noexcept nogil:
    """Return where to write the part of the result from `start` on, for `store_part`."""
    if parts.rows.place == NULL:
        return parts.y
    return parts.rows.place(parts.rows, parts.row, start)


cdef inline void *first_part(
    const PackedParts *parts, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """Return n elements of x from `start` on, of a row that is read for the first time."""
    cdef void *part = parts.x
    if parts.rows.place != NULL:
        part = place_of_result(parts, start)
    parts.rows.load(parts.rows, parts.row, start, n, part)
    return part


cdef inline void *part_again(
    const PackedParts *parts, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """Return n elements of x from `start` on, of a row that `first_part` has gone over."""
    if parts.rows.place != NULL:
        return place_of_result(parts, start)
    return first_part(parts, start, n)


cdef inline void *part_of_x2(
    const PackedParts *parts, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """Return n elements of the second input from `start` on."""
    parts.rows.load_x2(parts.rows, parts.row, start, n, parts.x2)
    return parts.x2


cdef inline void store_part(
    const PackedParts *parts, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """Store n elements of the result that were written at `place_of_result`."""
    if parts.rows.place == NULL:
        parts.rows.store(parts.rows, parts.row, start, n, parts.y)
