# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Runs a plan: its rows go to a kernel as they stand, or by blocks of rows that stay in cache.

Where a kernel cannot read an array as it stands
(strides, half types, byte order, misalignment, integers, masks), the block is packed into scratch
in the type that is computed in; the kernel answers from there, into the result if that can be
written as it stands, else into scratch, from which it is stored. Nothing of the array's size is
ever copied, and all scratch is allocated before anything is written.

Between pieces of some milliseconds there is a look for Ctrl-C, within long rows the kernels ask for
it (``signals.pyx``). Kernels run in a floating-point
environment of their own (``environment.pxd``), in threads too.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t

from .. import _threads, _workers

from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.pack cimport FILL, LOAD, STORE, pack
from fastsoftmax._front.plan cimport (
    BLOCK_BYTES,
    BY_ROW,
    CONTIGUOUS,
    PACKED,
    SIGNAL_INTERVAL,
    WITH_GIL,
    Blocks,
    Operand,
    Plan,
    is_nan,
    place_of,
    size_of,
)
from fastsoftmax._front.signals cimport raise_if_stopped
from fastsoftmax._kernels.abi cimport PackingKernels, rows_fn
from fastsoftmax._kernels.reserve cimport (
    LINE,
    allocate_reserve,
    borrow,
    free_reserve,
    give_back,
)

cdef enum:
    LONG_ROW_BYTES = 1 << 11  # from which on a call for a row alone costs less than to move it
    PIVOT_ROW = 2048  # elements from which on a kernel is faster if it does not work in place

cdef double MIN_NS_PER_THREAD = _threads.LEAST


cdef object parse_workers(object workers):
    """Return the argument `workers` as None or a number of threads."""
    if workers is None or type(workers) is int and workers == 1:
        return workers
    return _threads.count(workers)


cdef Py_ssize_t threads_for(double work, object workers) except -1:
    """Return how many threads `work` ns are for; `workers` is parsed."""
    # The default is read where it matters alone: small calls don't pay for it.
    if work < 2 * MIN_NS_PER_THREAD:
        return 1
    if workers is None:
        workers = _workers.get_workers()
    return min(workers, <Py_ssize_t>(work / MIN_NS_PER_THREAD))


cdef char *row_pointer(const Plan *p, const Operand *o, Py_ssize_t row) noexcept nogil:
    """Return where a row of an array begins that is CONTIGUOUS or BY_ROW."""
    if o.access == CONTIGUOUS:
        return o.data + row * o.n * o.itemsize
    return o.data + place_of(p, o, row)


cdef void mend_rows(
    const PackingKernels *packing, const Plan *p, Py_ssize_t first, Py_ssize_t rows, char *y
) noexcept nogil:
    """Write what the masked entries of NaN rows have, into results that are contiguous.

    Other rows have it already: exp(-inf) is 0, its logarithm -inf.
    """
    cdef Py_ssize_t r
    cdef Py_ssize_t width = p.n * size_of(p.dtype)
    for r in range(rows):
        if is_nan(y + r * width, p.dtype):
            pack(packing, p, &p.mask, NULL, first + r, rows - r, p.dtype, y + r * width, FILL)
            break


cdef Py_ssize_t rows_at_once(const Plan *p) noexcept nogil:
    """Return how many rows a block has."""
    cdef Py_ssize_t bytes = max(<Py_ssize_t>1, p.n) * size_of(p.dtype)
    cdef bint packs = (
        p.x.access == PACKED or p.x2.data != NULL and p.x2.access == PACKED
        or p.y.data != NULL and p.y.access == PACKED
    )
    cdef bint apart = (
        p.x.access == BY_ROW or p.x2.data != NULL and p.x2.access == BY_ROW
        or p.y.data != NULL and p.y.access == BY_ROW
    )
    if not packs and not apart:
        return SIGNAL_INTERVAL
    if not packs and bytes >= LONG_ROW_BYTES:
        return 1
    return max(<Py_ssize_t>1, BLOCK_BYTES // bytes)


cdef inline bint is_moved(const Operand *o, Py_ssize_t rows) noexcept nogil:
    """Return whether blocks of `rows` rows of an array, if there is one, go through scratch."""
    return o.data != NULL and (o.access == PACKED or o.access == BY_ROW and rows > 1)


cdef void set_blocks(Plan *p) noexcept nogil:
    """Plan the blocks, what of them goes through scratch, and how much that is."""
    cdef Blocks *b = &p.blocks
    b.rows = min(rows_at_once(p), p.rows)
    b.load_x = is_moved(&p.x, b.rows)
    b.load_x2 = is_moved(&p.x2, b.rows)
    b.store_y = is_moved(&p.y, b.rows)
    b.in_place = b.load_x and b.store_y and p.y.n == p.n and (
        p.n < PIVOT_ROW or p.x2.data != NULL
    )
    b.bytes = (b.rows * p.n * size_of(p.dtype) + LINE - 1) // LINE * LINE
    p.scratch.bytes = b.bytes * (b.load_x + b.load_x2 + b.store_y - b.in_place)


cdef int run_blocks(
    const PackingKernels *packing, rows_fn kernel, void *call, const Plan *p, Py_ssize_t start,
    Py_ssize_t stop,
) noexcept nogil:
    """Run the kernel on rows `start` to `stop`; return 0, or -1 if there was no memory.

    If `packing` is NULL, the kernel gets at the rows itself, from where the arrays begin.
    """
    cdef const Blocks *b = &p.blocks
    cdef const Operand *mask = &p.mask if p.mask.data != NULL else NULL
    cdef const Operand *mask_x2 = mask if p.masks_x2 else NULL
    cdef char *scratch = NULL
    cdef char *x_scratch
    cdef char *x2_scratch
    cdef char *y_scratch
    cdef char *x
    cdef char *x2 = NULL
    cdef char *y = NULL
    cdef Py_ssize_t count
    cdef int result = 0
    cdef uint64_t environment
    if packing == NULL:
        environment = enter_environment()
        result = kernel(call, start, stop - start, p.x.data, p.x2.data, p.y.data)
        leave_environment(environment)
        return result
    if p.scratch.bytes > 0:
        scratch = borrow(&p.scratch)
    x_scratch = scratch
    x2_scratch = x_scratch + (b.bytes if b.load_x else 0)
    y_scratch = x_scratch if b.in_place else x2_scratch + (b.bytes if b.load_x2 else 0)
    environment = enter_environment()
    while start < stop:
        count = min(b.rows, stop - start)
        if b.load_x:
            x = x_scratch
            pack(packing, p, &p.x, mask, start, count, p.dtype, x, LOAD)
        else:
            x = row_pointer(p, &p.x, start)
        if b.load_x2:
            x2 = x2_scratch
            pack(packing, p, &p.x2, mask_x2, start, count, p.dtype, x2, LOAD)
        elif p.x2.data != NULL:
            x2 = row_pointer(p, &p.x2, start)
        if b.store_y:
            y = y_scratch
        elif p.y.data != NULL:
            y = row_pointer(p, &p.y, start)
        result = kernel(call, start, count, x, x2, y)
        if result < 0:
            break
        if mask != NULL and p.y.data != NULL and p.y.n == p.n:
            mend_rows(packing, p, start, count, y)
        if b.store_y:
            pack(packing, p, &p.y, NULL, start, count, p.dtype, y, STORE)
        start += count
    leave_environment(environment)
    if scratch != NULL:
        give_back(&p.scratch, scratch)
    return result


cdef int run_range(
    const PackingKernels *packing, rows_fn kernel, void *call, const Plan *p, Py_ssize_t start,
    Py_ssize_t stop,
) except -1:
    """Run the kernel on rows `start` to `stop`, with looks for Ctrl-C on the way."""
    cdef Py_ssize_t effort = max(<Py_ssize_t>1, p.effort if p.effort > 0 else p.n)
    cdef Py_ssize_t step = max(<Py_ssize_t>1, SIGNAL_INTERVAL // effort)
    cdef Py_ssize_t end
    cdef int result
    while start < stop:
        end = min(stop, start + step)
        if (end - start) * effort <= WITH_GIL:
            result = run_blocks(packing, kernel, call, p, start, end)
        else:
            with nogil:
                result = run_blocks(packing, kernel, call, p, start, end)
            raise_if_stopped()
        if result < 0:
            raise MemoryError(f"no memory to work on rows of {p.n} elements")
        start = end
        if start < stop:
            PyErr_CheckSignals()
    return 0


cdef class RowsJob:
    """The rows of a plan, for threads to share: a call works on those from `start` to `stop`."""

    cdef const PackingKernels *packing
    cdef rows_fn kernel
    cdef void *call
    cdef const Plan *plan

    def __call__(self, Py_ssize_t start, Py_ssize_t stop):
        run_range(self.packing, self.kernel, self.call, self.plan, start, stop)


cdef int allocate_reserves(Plan *p, Py_ssize_t threads) except -1:
    """Allocate what so many threads need; before any of them writes, so that none runs short."""
    p.scratch.memory = p.spare.memory = NULL
    if (
        allocate_reserve(&p.workspace, threads) and allocate_reserve(&p.scratch, threads)
        and allocate_reserve(&p.spare, threads)
    ):
        return 0
    free_reserves(p)
    raise MemoryError(f"no memory to work on rows of {p.n} elements")


cdef void free_reserves(Plan *p) noexcept nogil:
    """Free what `allocate_reserves` has allocated."""
    free_reserve(&p.spare)
    free_reserve(&p.scratch)
    free_reserve(&p.workspace)


cdef int run_rows(
    const PackingKernels *packing, rows_fn kernel, void *call, Plan *p, double work, object workers,
) except -1:
    """Run the kernel on all rows of a plan, which take `work` ns; `workers` is parsed."""
    cdef Py_ssize_t threads = min(threads_for(work, workers), p.rows)
    cdef RowsJob job
    if packing != NULL:
        set_blocks(p)
    if threads < 2 and p.scratch.bytes + p.workspace.bytes == 0:
        return run_range(packing, kernel, call, p, 0, p.rows)
    allocate_reserves(p, max(<Py_ssize_t>1, threads))
    try:
        if threads < 2:
            return run_range(packing, kernel, call, p, 0, p.rows)
        job = RowsJob.__new__(RowsJob)
        job.packing, job.kernel, job.call, job.plan = packing, kernel, call, p
        _threads.share(job, p.rows, work, threads)
    finally:
        free_reserves(p)
    return 0
