# cython: language_level=3, cdivision=True
"""The scratch of a row's selection: room for what is selected, and for the row's block maxima."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, malloc

from fastsoftmax._kernels.abi cimport PackedRows
from fastsoftmax._kernels.block_maxima cimport CHUNK, LANES
from fastsoftmax._kernels.packed_row cimport PART, PackedRow

cdef struct Workspace:
    void *maxima  # the block maxima of the row, behind them those of the maxima, and so on
    void *value  # the values selected (of the row's type),
    Py_ssize_t *index  # their indices,
    double *weight  # and their weights
    uint64_t *keys
    double *masses
    Py_ssize_t room  # elements that there is room for
    Py_ssize_t most  # of them that can be selected
    bint is_full  # whether room was wanting: what was found then is of no use
    PackedRow *packed  # the row that is worked on, NULL where it is read as it lies
    PackedRow row


cdef inline bint allocate_workspace(Workspace *work, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Allocate what selecting k of n elements of up to 8 bytes needs; return whether it could."""
    # The candidates are 5/2 k at most, and a chunk. One piece: seven of them would go back to the
    # system at each call, and be zeroed again.
    cdef Py_ssize_t blocks = n // 7 + 16 * LANES
    cdef Py_ssize_t room = n // CHUNK + 2 * CHUNK + min(n, 3 * k)
    cdef double *start = <double *>malloc(8 * (blocks + 5 * room))
    work.maxima = start
    if start == NULL:
        return False
    start += blocks
    work.room = room
    work.most = k
    work.is_full = False
    work.packed = NULL
    work.row.part = NULL
    work.value = start
    work.index = <Py_ssize_t *>(start + room)
    work.weight = start + 2 * room
    work.keys = <uint64_t *>(start + 3 * room)
    work.masses = start + 4 * room
    return True


cdef inline void free_workspace(Workspace *work) noexcept nogil:
    """Free what `allocate_workspace` has allocated."""
    free(work.row.part)
    free(work.maxima)


cdef inline bint allocate_for_rows(
    Workspace *work, Py_ssize_t n, Py_ssize_t k, const PackedRows *packed
) noexcept nogil:
    """Call `allocate_workspace` for rows that are packed, unless `packed` is NULL."""
    if not allocate_workspace(work, n, k):
        return False
    if packed == NULL:
        return True
    work.row.rows = packed
    work.row.over = False
    work.row.part = calloc(PART, 8)  # it is read after a signal, whatever it holds
    work.packed = &work.row
    if work.row.part == NULL:
        free(work.maxima)
    return work.row.part != NULL


cdef inline bint enlarge_workspace(Workspace *work, Py_ssize_t n) noexcept nogil:
    """Allocate room for all of a row of n elements; return whether it could.

    Else nothing is allocated any more.
    """
    cdef const PackedRows *packed = work.row.rows if work.packed != NULL else NULL
    cdef Py_ssize_t index = work.row.index
    free_workspace(work)
    if not allocate_for_rows(work, n, n, packed):
        return False
    work.row.index = index
    return True
