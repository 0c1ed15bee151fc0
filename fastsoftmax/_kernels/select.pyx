# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""top_k and rank of contiguous rows. Built once per instruction set.

Formula
    The first k entries in the order: larger value, then lower index, NaN last. The rank of an entry
    is how many come before it.

Passes over memory
    Many short rows: one (``batch_select.pxd``). One entry: one, and of 2,048 elements another
    (``argmax.pxd``). Others: one read of the row for block maxima, then
    the chunks that hold candidates (``block_select.pxd``); for k above n / 16 a dozen reads
    instead, in which what reaches a value is counted. The candidates, half as many again as k at
    most, are sorted by rank or by digits (``radix.pxd``).
    rank: one read for block maxima, then the chunks that hold what comes before an entry; for many
    entries the row is sorted, once.

Precision policy
    Comparisons only. Half types and small integers come as float32, float64 or int64 of the same
    order.

Source
    See ``block_select.pxd`` and ``batch_select.pxd``.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    FLOAT64,
    MANY_IDS,
    RankCall,
    SelectionKernels,
    TopKCall,
)
from fastsoftmax._kernels.argmax cimport argmax_oriented
from fastsoftmax._kernels.batch_select cimport batch_select, selects_in_batch
from fastsoftmax._kernels.block_maxima cimport CHUNK, block_maxima, count_before, rank_in_block
from fastsoftmax._kernels.block_select cimport select_oriented_superset
from fastsoftmax._kernels.packed_row cimport PART, PackedRow, part_length, row_element, row_part
from fastsoftmax._kernels.radix cimport (
    Ascending,
    Descending,
    is_nan,
    order_t,
    radix_sort_pairs,
    ranks_by_sort,
    sortable_key,
    value_t,
)
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, look, stopped
from fastsoftmax._kernels.sums cimport STEP
from fastsoftmax._kernels.workspace cimport Workspace, allocate_workspace, free_workspace

cdef enum:
    BLOCK = 16384  # elements that stay in L2 while the ranks of all ids are counted,
    MAXIMA = 544  # and the room for the maxima of their blocks
    IDS = 256  # ids that are ranked together


cdef void top_k_row(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t k, bint sort,
    value_t *values, int64_t *indices, Workspace *work,
) noexcept nogil:
    """Write the first k elements of x[0:n], `oriented` by `order`, and their indices."""
    cdef Py_ssize_t m, i, start
    m = select_oriented_superset(
        x, order, n, k, k + (k >> 1) + STEP if sort else k, <value_t *>work.maxima, False, work
    )
    if sort:
        for start from 0 <= start < m by LOOK_INTERVAL:
            if stopped(m):
                return
            for i in range(start, min(m, start + LOOK_INTERVAL)):
                work.keys[i] = sortable_key((<value_t *>work.value)[i])
        radix_sort_pairs(
            work.keys, work.index, m, <uint64_t *>work.masses, <Py_ssize_t *>work.weight
        )
    for start from 0 <= start < k by LOOK_INTERVAL:
        if stopped(k):
            return
        for i in range(start, min(k, start + LOOK_INTERVAL)):
            values[i] = x[work.index[i]]
            indices[i] = work.index[i]


cdef void top_one(
    const value_t *x, Py_ssize_t rows, Py_ssize_t n, bint largest, value_t *values,
    int64_t *indices,
) noexcept nogil:
    """Write the `largest` (or smallest) element of each row, and its index."""
    cdef Py_ssize_t i
    for i in range(rows):
        if largest:
            indices[i] = argmax_oriented(x, <Descending>0, n)
        else:
            indices[i] = argmax_oriented(x, <Ascending>0, n)
        values[i] = x[indices[i]]
        x += n


cdef bint top_k(
    const value_t *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort, bint largest,
    value_t *values, int64_t *indices,
) noexcept nogil:
    """Write the k `largest` (or smallest) elements of each row, and their indices.

    If `sort` is false, write them in index order. Return whether there was enough memory.
    """
    cdef Workspace work
    cdef Py_ssize_t i
    if selects_in_batch(rows, n, k, sizeof(value_t)):
        batch_select(x, rows, n, k, largest, sort, values, indices)
        return True
    if k == 1:
        top_one(x, rows, n, largest, values, indices)
        return True
    if not allocate_workspace(&work, n, k, NULL):
        return False
    for i in range(rows):
        if largest:
            top_k_row(
                x + i * n, <Descending>0, n, k, sort, values + i * k, indices + i * k, &work
            )
        else:
            top_k_row(x + i * n, <Ascending>0, n, k, sort, values + i * k, indices + i * k, &work)
    free_workspace(&work)
    return True


cdef Py_ssize_t count_before_nan(const value_t *x, Py_ssize_t n, Py_ssize_t index) noexcept nogil:
    """Return how many of n elements come before a NaN at `index`, which may lie outside."""
    cdef Py_ssize_t j, m = 0
    for j in range(n):
        m += not is_nan(x[j]) or j < index
    return m


cdef void rank_row(
    const value_t *x, Py_ssize_t n, const int64_t *ids, Py_ssize_t m, int64_t *ranks,
    PackedRow *packed,
) noexcept nogil:
    """Write the rank of each of m entries of a row of n; -1 for an id outside it.

    Each id is read once: another thread may write `ids` meanwhile.
    """
    cdef value_t maxima[MAXIMA]
    cdef value_t values[IDS]
    cdef int64_t chosen[IDS]
    cdef const value_t *part
    cdef Py_ssize_t block = part_length(BLOCK, packed)
    cdef Py_ssize_t start, size, count, i
    cdef bint is_short
    while m > 0:
        count = min(<Py_ssize_t>IDS, m)
        for i in range(count):
            chosen[i] = ids[i]
            ranks[i] = 0 if 0 <= chosen[i] < n else -1
            if ranks[i] == 0:
                values[i] = row_element(x, chosen[i], packed)
        for start from 0 <= start < n by block:
            size = min(block, n - start)
            part = row_part(x, start, size, packed)
            is_short = size <= CHUNK and count == 1  # block maxima are not worth it
            if not is_short:
                block_maxima(part, size, CHUNK, maxima, <value_t *>NULL)
            for i in range(count):
                if not 0 <= chosen[i] < n:
                    continue
                if is_nan(values[i]):
                    ranks[i] += count_before_nan(part, size, chosen[i] - start)
                elif is_short:
                    ranks[i] += count_before(values[i], chosen[i] - start, part, size)
                else:
                    ranks[i] += rank_in_block(values[i], chosen[i] - start, part, size, maxima)
        ids += count
        ranks += count
        m -= count


cdef int rank(
    const RankCall *call, Py_ssize_t first, Py_ssize_t rows, const value_t *x
) noexcept nogil:
    """Write the ranks of the entries of each row, as `rank_row`; return -1 without memory."""
    cdef Py_ssize_t i, place, n = call.n, m = call.m
    cdef uint64_t *scratch = NULL
    cdef PackedRow row
    cdef PackedRow *packed = &row if call.packed != NULL else NULL
    row.rows = call.packed
    row.over = row.masked = False
    row.part = calloc(PART, sizeof(value_t)) if packed != NULL else NULL
    if m >= MANY_IDS:
        scratch = <uint64_t *>malloc(4 * n * sizeof(uint64_t))
    if packed != NULL and row.part == NULL or m >= MANY_IDS and scratch == NULL:
        free(row.part)
        free(scratch)
        return -1
    for i in range(rows):
        place = (first + i) * m
        row.index = first + i
        if scratch == NULL:
            rank_row(x, n, call.ids + place, m, call.ranks + place, packed)
        else:
            if packed != NULL:  # into what is written when the row is no longer read
                x = <const value_t *>(scratch + 2 * n)
                packed.rows.load(packed.rows, row.index, 0, n, scratch + 2 * n)
            ranks_by_sort(
                x, n, call.ids + place, m, call.ranks + place, scratch,
                <Py_ssize_t *>(scratch + n), scratch + 2 * n, <Py_ssize_t *>(scratch + 3 * n),
            )
        x += n
    free(row.part)
    free(scratch)
    return 0


# ---- the table of this instruction set -----------------------------------------------------------


cdef int top_k_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write the first k entries of `rows` for a `TopKCall`; a `rows_fn`."""
    cdef TopKCall *call = <TopKCall *>_call
    cdef Py_ssize_t offset = first * call.k
    cdef bint done
    if call.dtype == FLOAT32:
        done = top_k(
            <const float *>x, rows, call.n, call.k, call.sorted, call.largest,
            <float *>call.values + offset, call.indices + offset,
        )
    elif call.dtype == FLOAT64:
        done = top_k(
            <const double *>x, rows, call.n, call.k, call.sorted, call.largest,
            <double *>call.values + offset, call.indices + offset,
        )
    else:
        done = top_k(
            <const int64_t *>x, rows, call.n, call.k, call.sorted, call.largest,
            <int64_t *>call.values + offset, call.indices + offset,
        )
    return 0 if done else -1


cdef int rank_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write the ranks of entries of `rows` for a `RankCall`; a `rows_fn`."""
    cdef const RankCall *call = <const RankCall *>_call
    if call.dtype == FLOAT32:
        return rank(call, first, rows, <const float *>x)
    if call.dtype == FLOAT64:
        return rank(call, first, rows, <const double *>x)
    return rank(call, first, rows, <const int64_t *>x)


cdef SelectionKernels table
table.top_k = top_k_entry
table.rank = rank_entry
table.look = &look

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.SelectionKernels", NULL)
