# cython: language_level=3, cdivision=True
"""A thread's scratch for rows that are found one by one: a workspace, and rows that are packed."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastsoftmax._kernels.abi cimport LONG_ROW
from fastsoftmax._kernels.bit_masks cimport copy_open, words_for
from fastsoftmax._kernels.packed_row cimport PART, PackedRow, load_row_mask
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.verify_abi cimport RowSource
from fastsoftmax._kernels.workspace cimport Workspace, allocate_workspace, free_workspace

cdef struct Scratch:
    Workspace work
    PackedRow x_packed
    PackedRow y_packed


cdef inline bint allocate_scratch(
    Scratch *s, Py_ssize_t n, Py_ssize_t most, bint is_packed
) noexcept nogil:
    """Allocate what `free_scratch` frees; return whether it could.

    For rows of n elements, of which `most` may be selected, and which may be packed, or masked.
    """
    cdef Py_ssize_t width = n if n < LONG_ROW else PART
    cdef Py_ssize_t bytes = 2 * width * 8 + words_for(n) * sizeof(uint32_t)
    memset(&s.x_packed, 0, sizeof(PackedRow))
    if is_packed:
        s.x_packed.part = malloc(bytes)
        if s.x_packed.part == NULL:
            return False
        if n >= LONG_ROW:
            memset(s.x_packed.part, 0, bytes)  # it may be read after a signal
        s.x_packed.bits = <uint32_t *>(<double *>s.x_packed.part + 2 * width)
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
    const RowSource *source, Py_ssize_t row, Py_ssize_t n, PackedRow *packed, PackedRow **used,
    real like,
) noexcept nogil:
    """Return where a row of n elements of the type of `like` lies, or is packed for a while.

    That is until the next such call. What a mask shuts is -inf. NULL if the row is read by parts
    through `packed`, which goes into `used`.
    """
    cdef const void *x = source.locate(source.packed.plan, row)
    cdef Py_ssize_t count
    packed.rows = &source.packed
    packed.index = row
    used[0] = NULL
    packed.masked = False
    if source.packed.load_mask != NULL:
        load_row_mask(packed, n)
    if x != NULL and not packed.masked:
        return x
    if n >= LONG_ROW:
        used[0] = packed
        return NULL
    if x == NULL:
        source.packed.load(&source.packed, row, 0, n, packed.part)
        x = packed.part
    if packed.masked:
        copy_open(packed.bits, 0, <const real *>x, n, False, <real *>packed.part, &count)
    return packed.part
