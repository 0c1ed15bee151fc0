# cython: language_level=3, cdivision=True
"""Parts of a row: where they lie, or packed into scratch that stays in cache, one at a time."""

from fastsoftmax._kernels.abi cimport PackedRows
from fastsoftmax._kernels.radix cimport value_t
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped

cdef enum:
    PART = 2048  # elements of a part at most

cdef struct PackedRow:  # NULL stands for a row that is read where it lies
    const PackedRows *rows
    Py_ssize_t index  # among them
    void *part  # scratch
    bint over  # after a signal: nothing is moved any more


cdef inline const value_t *row_part(
    const value_t *x, Py_ssize_t start, Py_ssize_t n, PackedRow *packed
) noexcept nogil:
    """Return n elements, PART at most, of the row x, from `start` on: until the next such call."""
    if packed == NULL:
        return x + start
    if start % LOOK_INTERVAL == 0 and stopped(LOOK_INTERVAL):
        packed.over = True
    if not packed.over:
        packed.rows.load(packed.rows, packed.index, start, n, packed.part)
    return <const value_t *>packed.part


cdef inline value_t row_element(
    const value_t *x, Py_ssize_t i, PackedRow *packed
) noexcept nogil:
    """Return an element of the row x."""
    cdef value_t v
    if packed == NULL:
        return x[i]
    packed.rows.load(packed.rows, packed.index, i, 1, &v)
    return v


cdef inline Py_ssize_t part_length(Py_ssize_t n, PackedRow *packed) noexcept nogil:
    """Return how many elements of a row of n can be had at once."""
    return n if packed == NULL else PART
