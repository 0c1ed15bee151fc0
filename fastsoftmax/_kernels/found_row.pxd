# cython: language_level=3, cdivision=True
"""A thread's scratch for rows that are found one by one: a workspace, and rows that are packed."""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastsoftmax._kernels.packed_row cimport PART, PackedRow
from fastsoftmax._kernels.verify_abi cimport RowSource
from fastsoftmax._kernels.workspace cimport Workspace, allocate_workspace, free_workspace

cdef enum:
    LONG_ROW = 1 << 20  # elements from which on a row is packed by parts

cdef struct Scratch:
    Workspace work
    PackedRow x_packed
    PackedRow y_packed


cdef inline bint allocate_scratch(
    Scratch *s, Py_ssize_t n, Py_ssize_t most, bint is_packed
) noexcept nogil:
    """Allocate what `free_scratch` frees; return whether it could.

    For rows of n elements, of which `most` may be selected, and which may be packed.
    """
    cdef Py_ssize_t width = n if n < LONG_ROW else PART
    memset(&s.x_packed, 0, sizeof(PackedRow))
    if is_packed:
        s.x_packed.part = malloc(2 * width * 8)
        if s.x_packed.part == NULL:
            return False
        if n >= LONG_ROW:
            memset(s.x_packed.part, 0, 2 * width * 8)  # it may be read after a signal
    if not allocate_workspace(&s.work, n, most, NULL):
        free(s.x_packed.part)
        return False
    s.y_packed = s.x_packed
    if is_packed:
        s.y_packed.part = <double *>s.x_packed.part + width
    return True


cdef inline void free_scratch(Scratch *s) noexcept nogil:
    """Free what `allocate_scratch` has allocated."""
    free(s.x_packed.part)
    free_workspace(&s.work)


cdef inline const void *find_row(
    const RowSource *source, Py_ssize_t row, Py_ssize_t n, PackedRow *packed, PackedRow **used
) noexcept nogil:
    """Return where a row of n elements lies, or is packed until the next such call.

    NULL if it is read by parts through `packed`, which goes into `used`.
    """
    cdef const void *x = source.locate(source.packed.plan, row)
    used[0] = NULL
    if x != NULL:
        return x
    if n < LONG_ROW:
        source.packed.load(&source.packed, row, 0, n, packed.part)
        return packed.part
    packed.rows = &source.packed
    packed.index = row
    used[0] = packed
    return NULL
