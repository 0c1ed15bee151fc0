# cython: language_level=3, cdivision=True
"""The scratch of a row's selection: room for what is selected, and for the row's block maxima."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastsoftmax._kernels.abi cimport PackedRows
from fastsoftmax._kernels.block_maxima cimport CHUNK, LANES
from fastsoftmax._kernels.packed_row cimport PART, PackedRow, packed_bytes, place_packed
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL

cdef struct Workspace:
    void *memory  # what is to be freed, NULL where it is the caller's
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


cdef inline Py_ssize_t room_for(Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Return how many candidates there can be: 5/2 k at most, and a chunk."""
    return n // CHUNK + 2 * CHUNK + min(n, 3 * k)


cdef inline Py_ssize_t maxima_of(Py_ssize_t n) noexcept nogil:
    """Return how many block maxima there can be, those of the maxima included, and so on."""
    return n // 7 + 16 * LANES


cdef inline Py_ssize_t workspace_bytes(
    Py_ssize_t n, Py_ssize_t k, const PackedRows *packed
) noexcept nogil:
    """Return the bytes that selecting k of n elements of up to 8 bytes needs."""
    cdef Py_ssize_t bytes = 8 * (maxima_of(n) + 5 * room_for(n, k))
    return bytes + (packed_bytes(n, packed) if packed != NULL else 0)


cdef inline void place_workspace(
    Workspace *work, void *memory, Py_ssize_t n, Py_ssize_t k, const PackedRows *packed
) noexcept nogil:
    """Set up a workspace in memory of `workspace_bytes`, which it does not free.

    For rows that are packed, unless `packed` is NULL.
    """
    # One piece: seven of them would go back to the system at each call, and be zeroed again.
    cdef Py_ssize_t room = room_for(n, k)
    cdef double *start = <double *>memory + maxima_of(n)
    work.memory = NULL
    work.maxima = memory
    work.room = room
    work.most = k
    work.is_full = False
    work.value = start
    work.index = <Py_ssize_t *>(start + room)
    work.weight = start + 2 * room
    work.keys = <uint64_t *>(start + 3 * room)
    work.masses = start + 4 * room
    work.row.rows = packed
    work.packed = NULL
    if packed != NULL:
        work.packed = &work.row
        place_packed(&work.row, packed, n, start + 5 * room)
        if packed.load != NULL or n >= LOOK_INTERVAL:  # read after a signal, whatever it holds
            memset(work.row.part, 0, 8 * PART)


cdef inline bint allocate_workspace(
    Workspace *work, Py_ssize_t n, Py_ssize_t k, const PackedRows *packed
) noexcept nogil:
    """Call `place_workspace` with memory of its own; return whether there was some."""
    cdef void *memory = malloc(workspace_bytes(n, k, packed))
    if memory == NULL:
        return False
    place_workspace(work, memory, n, k, packed)
    work.memory = memory
    return True


cdef inline void free_workspace(Workspace *work) noexcept nogil:
    """Free what `allocate_workspace` has allocated."""
    free(work.memory)
    work.memory = NULL


cdef inline bint enlarge_workspace(Workspace *work, Py_ssize_t n) noexcept nogil:
    """Allocate room for all of a row of n elements; return whether it could.

    Else nothing is allocated any more.
    """
    cdef Py_ssize_t index = work.row.index
    free_workspace(work)
    if not allocate_workspace(work, n, n, work.row.rows):
        return False
    work.row.index = index
    return True
