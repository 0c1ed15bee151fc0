# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Runs a plan: its rows, or columns, go to a kernel as they stand or by blocks that stay in cache.

A block is some rows, or some neighbouring columns. Where a kernel cannot read an array as it stands
(strides, half types, byte order, misalignment, integers, masks), the block is packed into scratch
in the type that is computed in; the kernel answers from there, into the result if that can be
written as it stands, else into scratch, from which it is stored. Nothing of the array's size is
ever copied.

Between pieces of some milliseconds there is a look for Ctrl-C. Kernels run in a floating-point
environment of their own (``environment.pxd``), in threads too.
"""

from cpython.contextvars cimport get_value
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, llabs, malloc

from .. import _threads

from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.plan cimport (
    BY_ROW,
    CONTIGUOUS,
    PACKED,
    SIGNAL_INTERVAL,
    WITH_GIL,
    Operand,
    Plan,
    pack,
)
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    FLOAT64,
    LOGSUMEXP,
    Block,
    PackingKernels,
    SoftmaxCall,
    columns_fn,
    rows_fn,
)

cdef enum:
    BLOCK_BYTES = 3 << 15  # of scratch: it stays in the second cache, and malloc keeps it at hand
    LONG_ROW_BYTES = 1 << 11  # from which on a call for a row alone costs less than to move it
    PIVOT_ROW = 2048  # elements from which on a kernel is faster if it does not work in place
    # Columns side by side below which rows are faster; twice as many for columns of some length.
    MIN_COLUMNS = 8
    SHORT_COLUMN = 1 << 13
    LONG_COLUMN = 1 << 18
    NEIGHBOURS = 32  # columns of a block, or more: two lines of memory from each row

cdef object default_workers = _threads.default
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
        workers = get_value(default_workers)
    return min(workers, <Py_ssize_t>(work / MIN_NS_PER_THREAD))


# ---- rows ----------------------------------------------------------------------------------------


cdef inline Py_ssize_t size_of(int dtype) noexcept nogil:
    """Return the bytes of a number."""
    return 4 if dtype == FLOAT32 else 8


cdef inline Py_ssize_t place_of(const Plan *p, const Operand *o, Py_ssize_t row) noexcept nogil:
    """Return how many bytes from the start of an array the row, or column, `row` begins."""
    cdef Py_ssize_t bytes = 0
    cdef int d
    for d in range(p.batch_ndim - 1, -1, -1):
        bytes += row % p.batch_shape[d] * o.batch[d]
        row //= p.batch_shape[d]
    return bytes


cdef char *row_pointer(const Plan *p, const Operand *o, Py_ssize_t row) noexcept nogil:
    """Return where a row of an array begins that is CONTIGUOUS or BY_ROW."""
    if o.access == CONTIGUOUS:
        return o.data + row * o.n * o.itemsize
    return o.data + place_of(p, o, row)


cdef inline bint is_nan(const char *number, int dtype) noexcept nogil:
    """Return whether a number of `dtype` is NaN."""
    if dtype == FLOAT32:
        return (<const float *>number)[0] != (<const float *>number)[0]
    return dtype == FLOAT64 and (<const double *>number)[0] != (<const double *>number)[0]


cdef void fill_row(
    const PackingKernels *packing, const Plan *p, Py_ssize_t row, char *y
) noexcept nogil:
    """Write what masked entries have into a contiguous row of results."""
    cdef const char *mask = p.mask.data + place_of(p, &p.mask, row)
    cdef Py_ssize_t i, j, at
    cdef int d
    cdef Block block
    if p.inner_ndim <= 1:
        block.data = <char *>mask
        block.step = p.mask.inner[0] if p.inner_ndim > 0 else 1
        block.row_step = 0
        packing.fill(&block, 1, p.n, p.dtype, p.masked, y)
        return
    for i in range(p.n):
        at = 0
        j = i
        for d in range(p.inner_ndim - 1, -1, -1):
            at += j % p.inner_shape[d] * p.mask.inner[d]
            j //= p.inner_shape[d]
        if not mask[at]:
            if p.dtype == FLOAT32:
                (<float *>y)[i] = <float>p.masked
            else:
                (<double *>y)[i] = p.masked


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
            fill_row(packing, p, first + r, y + r * width)


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


cdef int run_blocks(
    const PackingKernels *packing, rows_fn kernel, void *call, const Plan *p, Py_ssize_t start,
    Py_ssize_t stop,
) noexcept nogil:
    """Run the kernel on rows `start` to `stop`; return 0, or -1 if there was no memory."""
    cdef Py_ssize_t at_once = min(rows_at_once(p), stop - start)
    cdef Py_ssize_t bytes = at_once * p.n * size_of(p.dtype)
    cdef bint load_x = p.x.access == PACKED or p.x.access == BY_ROW and at_once > 1
    cdef bint has_x2 = p.x2.data != NULL
    cdef bint load_x2 = has_x2 and (p.x2.access == PACKED or p.x2.access == BY_ROW and at_once > 1)
    cdef bint has_y = p.y.data != NULL
    cdef bint store_y = has_y and (p.y.access == PACKED or p.y.access == BY_ROW and at_once > 1)
    cdef bint in_place = load_x and p.y.n == p.n and (p.n < PIVOT_ROW or has_x2)
    cdef const Operand *mask = &p.mask if p.mask.data != NULL else NULL
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
    bytes = (bytes + 63) // 64 * 64
    if load_x or load_x2 or store_y:
        scratch = <char *>malloc(
            bytes * (load_x + load_x2 + (store_y and not in_place)) + 128
        )
        if scratch == NULL:
            return -1
    x_scratch = scratch + (-<size_t>scratch & 63)  # whole lines
    x2_scratch = x_scratch + (bytes if load_x else 0)
    y_scratch = x_scratch if in_place else x2_scratch + (bytes if load_x2 else 0)
    environment = enter_environment()
    while start < stop:
        count = min(at_once, stop - start)
        if load_x:
            x = x_scratch
            pack(packing, p, &p.x, mask, start, count, p.dtype, x, False)
        else:
            x = row_pointer(p, &p.x, start)
        if load_x2:
            x2 = x2_scratch
            pack(packing, p, &p.x2, NULL, start, count, p.dtype, x2, False)
        elif has_x2:
            x2 = row_pointer(p, &p.x2, start)
        if store_y:
            y = y_scratch
        elif has_y:
            y = row_pointer(p, &p.y, start)
        result = kernel(call, start, count, x, x2, y)
        if result < 0:
            break
        if mask != NULL and has_y and p.y.n == p.n:
            mend_rows(packing, p, start, count, y)
        if store_y:
            pack(packing, p, &p.y, NULL, start, count, p.dtype, y, True)
        start += count
    leave_environment(environment)
    free(scratch)
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


cdef int run_rows(
    const PackingKernels *packing, rows_fn kernel, void *call, Plan *p, double work, object workers,
) except -1:
    """Run the kernel on all rows of a plan, which take `work` ns; `workers` is parsed."""
    cdef Py_ssize_t threads = threads_for(work, workers)
    cdef RowsJob job
    if threads < 2 or p.rows < 2:
        return run_range(packing, kernel, call, p, 0, p.rows)
    job = RowsJob.__new__(RowsJob)
    job.packing, job.kernel, job.call, job.plan = packing, kernel, call, p
    _threads.share(job, p.rows, work, min(threads, p.rows))
    return 0


# ---- columns -------------------------------------------------------------------------------------


cdef bint is_by_columns(const Plan *p) noexcept:
    """Return whether columns side by side go to a kernel together, not as rows one by one."""
    cdef int last = p.batch_ndim - 1
    cdef Py_ssize_t few = (
        MIN_COLUMNS if p.n <= SHORT_COLUMN or p.n > LONG_COLUMN else 2 * MIN_COLUMNS
    )
    return (
        p.inner_ndim == 1 and last >= 0 and p.batch_shape[last] >= few
        and 0 < llabs(p.x.batch[last]) < llabs(p.x.inner[0])
    )


cdef inline bint stands(const Plan *p, const Operand *o) noexcept nogil:
    """Return whether an array is (outer, n, inner), contiguous, in the type computed in."""
    cdef int last = p.batch_ndim - 1
    cdef Py_ssize_t inner = p.batch_shape[last]
    return (
        o.element == p.dtype and not o.swapped and o.aligned and o.n == p.n
        and o.batch[last] == o.itemsize and o.inner[0] == inner * o.itemsize
        and (last == 0 or last == 1 and o.batch[0] == p.n * inner * o.itemsize)
    )


cdef inline bint is_line(const Plan *p, const Operand *o) noexcept nogil:
    """Return whether results, one a column, are contiguous in the order of the columns."""
    return o.access == CONTIGUOUS and o.n == 1


cdef void move_columns(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t first, Py_ssize_t pieces, Py_ssize_t width, char *e, bint out,
) noexcept nogil:
    """Load columns from number `first` on into e, or store them: pieces of n lines of `width`."""
    cdef int last = p.batch_ndim - 1
    cdef Py_ssize_t columns = p.batch_shape[last]
    cdef Py_ssize_t i, offset, mask_offset, bytes = p.n * width * size_of(p.dtype)
    cdef Block block, masking
    for i in range(pieces):
        offset = place_of(p, o, first)
        block.data = o.data + offset
        block.element = o.element
        block.swapped = o.swapped
        block.step = o.batch[last]
        block.row_step = o.inner[0]
        if mask != NULL:
            mask_offset = place_of(p, mask, first)
            masking.data = mask.data + mask_offset
            masking.element = mask.element
            masking.swapped = False
            masking.step = mask.batch[last]
            masking.row_step = mask.inner[0]
        if out:
            packing.store(&block, p.n, width, p.dtype, e)
        else:
            packing.load(&block, &masking if mask != NULL else NULL, p.n, width, p.dtype, e)
        first += columns
        e += bytes


cdef void mend_columns(
    const PackingKernels *packing, const Plan *p, Py_ssize_t first, Py_ssize_t pieces,
    Py_ssize_t width, char *e,
) noexcept nogil:
    """Write what the masked entries of NaN columns have, into n lines of `width` results."""
    cdef int last = p.batch_ndim - 1
    cdef Py_ssize_t size = size_of(p.dtype)
    cdef Py_ssize_t i, c, j
    cdef const char *mask
    for i in range(pieces):
        for c in range(width):
            if not is_nan(e + c * size, p.dtype):
                continue
            mask = p.mask.data + place_of(p, &p.mask, first) + c * p.mask.batch[last]
            for j in range(p.n):
                if mask[j * p.mask.inner[0]]:
                    continue
                if p.dtype == FLOAT32:
                    (<float *>e)[j * width + c] = <float>p.masked
                else:
                    (<double *>e)[j * width + c] = p.masked
        first += p.batch_shape[last]
        e += p.n * width * size


cdef int run_column_range(
    const PackingKernels *packing, columns_fn kernel, SoftmaxCall *call, const Plan *p,
    Py_ssize_t start, Py_ssize_t stop,
) except -1 nogil:
    """Run the kernel on columns `start` to `stop`, with looks for Ctrl-C on the way."""
    cdef Py_ssize_t size = size_of(p.dtype)
    cdef Py_ssize_t columns = p.batch_shape[p.batch_ndim - 1]
    cdef Py_ssize_t most = max(BLOCK_BYTES // (p.n * size), <Py_ssize_t>NEIGHBOURS)
    cdef Py_ssize_t within, width, pieces, count, done = 0
    cdef const Operand *mask = &p.mask if p.mask.data != NULL else NULL
    cdef bint reduces = call.op == LOGSUMEXP
    cdef bint reads = mask == NULL and stands(p, &p.x)
    cdef bint writes = is_line(p, &p.y) if reduces else stands(p, &p.y)
    cdef char *e
    cdef char *y
    cdef SoftmaxCall part = call[0]
    if reads and writes:
        return kernel(call, columns, start, stop, p.x.data, p.y.data)
    most = min(most, stop - start)
    e = <char *>malloc((most * p.n + most) * size)
    if e == NULL:
        with gil:
            raise MemoryError(f"no memory to work on columns of {p.n} elements")
    try:
        while start < stop:
            within = start % columns
            count = min(min(most, stop - start), columns - within)
            pieces = 1
            if count == columns:
                pieces = min(most, stop - start) // columns
                count *= pieces
            width = count // pieces
            move_columns(packing, p, &p.x, mask, start, pieces, width, e, False)
            y = e
            if reduces:
                y = e + most * p.n * size if not writes else p.y.data + start * size
            part.temperature = call.temperature + start * call.temperature_stride
            kernel(&part, width, 0, count, e, y)
            if not reduces:
                if mask != NULL:
                    mend_columns(packing, p, start, pieces, width, e)
                move_columns(packing, p, &p.y, NULL, start, pieces, width, e, True)
            elif not writes:
                pack(packing, p, &p.y, NULL, start, count, p.dtype, y, True)
            start += count
            done += count * p.n
            if done >= SIGNAL_INTERVAL:
                done = 0
                with gil:
                    PyErr_CheckSignals()
    finally:
        free(e)
    return 0


cdef int run_columns_here(
    const PackingKernels *packing, columns_fn kernel, SoftmaxCall *call, const Plan *p,
    Py_ssize_t start, Py_ssize_t stop,
) except -1:
    """Run the kernel on columns `start` to `stop` in this thread."""
    cdef uint64_t environment = enter_environment()
    try:
        if (stop - start) * p.n <= WITH_GIL:
            run_column_range(packing, kernel, call, p, start, stop)
        else:
            with nogil:
                run_column_range(packing, kernel, call, p, start, stop)
    finally:
        leave_environment(environment)
    return 0


cdef class ColumnsJob:
    """The columns of a plan, for threads to share: a call works on those from `start` to `stop`."""

    cdef const PackingKernels *packing
    cdef columns_fn kernel
    cdef SoftmaxCall *call
    cdef const Plan *plan

    def __call__(self, Py_ssize_t start, Py_ssize_t stop):
        run_columns_here(self.packing, self.kernel, self.call, self.plan, start, stop)


cdef int run_columns(
    const PackingKernels *packing, columns_fn kernel, SoftmaxCall *call, Plan *p, double work,
    object workers,
) except -1:
    """Run the kernel on all columns of a plan, which take `work` ns; `workers` is parsed."""
    cdef Py_ssize_t threads = threads_for(work, workers)
    cdef ColumnsJob job
    if threads < 2:
        return run_columns_here(packing, kernel, call, p, 0, p.rows)
    job = ColumnsJob.__new__(ColumnsJob)
    job.packing, job.kernel, job.call, job.plan = packing, kernel, call, p
    _threads.share(job, p.rows, work, threads)
    return 0
