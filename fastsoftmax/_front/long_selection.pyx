# cython: language_level=3, cdivision=True
"""The k first of long rows that must be packed: piece by piece.

A piece is packed and its k first are found; those of it and of the pieces before are a row of 2 k,
in the order of their places, of which the k first are kept. So ties go to the lower index.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastsoftmax._front.execute cimport run_rows
from fastsoftmax._front.pack cimport LOAD, pack_part
from fastsoftmax._front.plan cimport PACKED, SIGNAL_INTERVAL, Plan, size_of
from fastsoftmax._front.signals cimport look
from fastsoftmax._kernels.abi cimport PackingKernels, TopKCall, rows_fn

cdef enum:
    PIECE = 1 << 17  # elements that are packed at once: they stay in cache
    MIN_PIECES = 2  # of a row, each of 64 k elements or more


cdef struct PackedTopK:
    const PackingKernels *packing
    const Plan *plan
    rows_fn kernel
    const TopKCall *call
    Py_ssize_t piece


cdef struct Kept:  # the first of a row so far, in the order of their places, and what comes after
    Py_ssize_t count
    char *values
    int64_t *indices
    char *chosen  # of them, by `keep_first`
    int64_t *places


cdef void keep_first(const PackedTopK *packed, Kept *kept, Py_ssize_t count) noexcept nogil:
    """Keep the k first of `count` values, those that were kept and others after them."""
    cdef Py_ssize_t size = size_of(packed.call.dtype)
    cdef Py_ssize_t i
    cdef TopKCall call = packed.call[0]
    if count > call.k:
        call.n = count
        call.sorted = False
        call.values = kept.chosen
        call.indices = kept.places
        packed.kernel(&call, 0, 1, kept.values, NULL, NULL)
        memcpy(kept.values, kept.chosen, call.k * size)
        for i in range(call.k):
            kept.indices[i] = kept.indices[kept.places[i]]
    kept.count = min(count, call.k)


cdef void add_piece(
    const PackedTopK *packed, Kept *kept, const char *x, Py_ssize_t first, Py_ssize_t n
) noexcept nogil:
    """Add the k first of x[0:n], elements `first` on of the row."""
    cdef Py_ssize_t i
    cdef TopKCall call = packed.call[0]
    call.n = n
    call.k = min(call.k, n)
    call.sorted = False
    call.values = kept.values + kept.count * size_of(call.dtype)
    call.indices = kept.indices + kept.count
    packed.kernel(&call, 0, 1, x, NULL, NULL)
    for i in range(call.k):
        call.indices[i] += first
    keep_first(packed, kept, kept.count + call.k)


cdef void finish_row(const PackedTopK *packed, Kept *kept, Py_ssize_t row) noexcept nogil:
    """Write the result of a row, of which the k first are kept."""
    cdef Py_ssize_t i
    cdef TopKCall call = packed.call[0]
    call.n = call.k
    call.values = <char *>call.values + row * call.k * size_of(call.dtype)
    call.indices += row * call.k
    packed.kernel(&call, 0, 1, kept.values, NULL, NULL)
    for i in range(call.k):
        call.indices[i] = kept.indices[call.indices[i]]


cdef int packed_top_k(
    const void *context, Py_ssize_t first, Py_ssize_t rows, const void *_x, const void *_x2,
    void *_y,
) noexcept nogil:
    """Write the k first of rows that are packed by pieces; a `rows_fn` that finds them itself."""
    cdef const PackedTopK *packed = <const PackedTopK *>context
    cdef const Plan *p = packed.plan
    cdef Py_ssize_t k = packed.call.k
    cdef Py_ssize_t row, at, count
    cdef Py_ssize_t done = 0  # elements since there was a look for a signal
    cdef Kept kept
    # Numbers of 8 bytes at most, and as large: three times k of values and of indices.
    cdef char *scratch = <char *>malloc((packed.piece + 6 * k) * sizeof(int64_t))
    if scratch == NULL:
        return -1
    kept.indices = <int64_t *>scratch + packed.piece
    kept.places = kept.indices + 2 * k
    kept.values = <char *>(kept.places + k)
    kept.chosen = kept.values + 2 * k * sizeof(int64_t)
    for row in range(first, first + rows):
        kept.count = 0
        for at from 0 <= at < p.n by packed.piece:
            count = min(packed.piece, p.n - at)
            done += count
            if done > SIGNAL_INTERVAL:
                done = 0
                if look():
                    free(scratch)
                    return 0
            pack_part(packed.packing, p, &p.x, NULL, row, at, count, scratch, LOAD)
            add_piece(packed, &kept, scratch, at, count)
        finish_row(packed, &kept, row)
    free(scratch)
    return 0


cdef bint run_packed_top_k(
    const PackingKernels *packing, rows_fn kernel, const TopKCall *call, Plan *p, double work,
    object workers,
) except -1:
    """Run a plan of long rows that must be packed; return False for other rows."""
    cdef PackedTopK packed
    packed.piece = max(<Py_ssize_t>PIECE, 64 * call.k)
    if p.x.access != PACKED or p.n // packed.piece < MIN_PIECES:
        return False
    packed.packing, packed.plan, packed.kernel, packed.call = packing, p, kernel, call
    run_rows(NULL, packed_top_k, &packed, p, work, workers)
    return True
