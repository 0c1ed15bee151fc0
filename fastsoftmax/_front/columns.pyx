# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Runs a plan whose rows lie side by side: lanes of vectors are columns, not elements of a row.

Columns go to a kernel as they stand, or by blocks of neighbouring ones, packed line by line into
scratch that stays in cache; the kernel works there in place.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t
from libc.stdlib cimport llabs

from .. import _threads

from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.execute cimport allocate_reserves, free_reserves, threads_for
from fastsoftmax._front.pack cimport (
    FILL,
    LOAD,
    STORE,
    Direction,
    block_at,
    move,
    pack,
)
from fastsoftmax._front.plan cimport (
    BLOCK_BYTES,
    CONTIGUOUS,
    SIGNAL_INTERVAL,
    WITH_GIL,
    Operand,
    Plan,
    is_nan,
    place_of,
    size_of,
)
from fastsoftmax._kernels.abi cimport (
    LOGSUMEXP,
    Block,
    PackingKernels,
    SoftmaxCall,
    columns_bytes_fn,
    columns_fn,
)
from fastsoftmax._kernels.reserve cimport borrow, give_back

cdef enum:
    # Columns side by side below which rows are faster; twice as many for columns of some length.
    MIN_COLUMNS = 8
    SHORT_COLUMN = 1 << 13
    LONG_COLUMN = 1 << 18
    NEIGHBOURS = 32  # columns of a block, or more: two lines of memory from each row


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


cdef Py_ssize_t columns_of_arrays(const Plan *p) noexcept:
    """Return `inner` where all arrays are (outer, n, inner) with columns side by side, else 0."""
    if (
        is_by_columns(p) and stands(p, &p.x) and (p.x2.data == NULL or stands(p, &p.x2))
        and (p.y.data == NULL or stands(p, &p.y))
    ):
        return p.batch_shape[p.batch_ndim - 1]
    return 0


cdef inline bint is_line(const Plan *p, const Operand *o) noexcept nogil:
    """Return whether results, one a column, are contiguous in the order of the columns."""
    return o.access == CONTIGUOUS and o.n == 1


cdef inline Block lines_at(const Plan *p, const Operand *o, Py_ssize_t first) noexcept nogil:
    """Describe the lines of columns from number `first` on."""
    return block_at(o, place_of(p, o, first), o.batch[p.batch_ndim - 1], o.inner[0])


cdef void move_columns(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t first, Py_ssize_t pieces, Py_ssize_t width, char *e, Direction direction,
) noexcept nogil:
    """Move columns from number `first` on as `pack` does rows: pieces of n lines of `width`."""
    cdef Py_ssize_t _i
    cdef Block block, masking
    for _i in range(pieces):
        block = lines_at(p, o, first)
        if mask != NULL:
            masking = lines_at(p, mask, first)
        move(
            packing, &block, &masking if mask != NULL else NULL, p.n, width, p.dtype, e, direction,
            p.masked,
        )
        first += p.batch_shape[p.batch_ndim - 1]
        e += p.n * width * size_of(p.dtype)


cdef bint has_nan_column(
    const Plan *p, Py_ssize_t pieces, Py_ssize_t width, const char *e
) noexcept nogil:
    """Return whether a column of results is NaN; then all of it is."""
    cdef Py_ssize_t size = size_of(p.dtype)
    cdef Py_ssize_t i, c
    for i in range(pieces):
        for c in range(width):
            if is_nan(e + (i * p.n * width + c) * size, p.dtype):
                return True
    return False


cdef Py_ssize_t columns_at_once(const Plan *p) noexcept nogil:
    """Return how many columns a packed block has."""
    cdef Py_ssize_t most = BLOCK_BYTES // (p.n * size_of(p.dtype))
    return min(max(most, <Py_ssize_t>NEIGHBOURS), p.rows)


cdef inline bint is_read_in_place(const Plan *p) noexcept nogil:
    """Return whether the kernel can read the columns as they stand."""
    return p.mask.data == NULL and stands(p, &p.x)


cdef inline bint is_written_in_place(const Plan *p, const SoftmaxCall *call) noexcept nogil:
    """Return whether the kernel can write results where they belong."""
    return is_line(p, &p.y) if call.op == LOGSUMEXP else stands(p, &p.y)


cdef int run_column_range(
    const PackingKernels *packing, columns_fn kernel, SoftmaxCall *call, const Plan *p,
    Py_ssize_t start, Py_ssize_t stop,
) except -1 nogil:
    """Run the kernel on columns `start` to `stop`, with looks for Ctrl-C on the way."""
    cdef Py_ssize_t size = size_of(p.dtype)
    cdef Py_ssize_t columns = p.batch_shape[p.batch_ndim - 1]
    cdef Py_ssize_t most = columns_at_once(p)
    cdef Py_ssize_t within, width, pieces, count, done = 0
    cdef const Operand *mask = &p.mask if p.mask.data != NULL else NULL
    cdef bint reduces = call.op == LOGSUMEXP
    cdef bint writes = is_written_in_place(p, call)
    cdef char *e
    cdef char *y
    cdef SoftmaxCall part = call[0]
    if writes and is_read_in_place(p):
        return kernel(call, columns, start, stop, p.x.data, p.y.data)
    e = borrow(&p.scratch)
    try:
        while start < stop:
            within = start % columns
            count = min(min(most, stop - start), columns - within)
            pieces = 1
            if count == columns:
                pieces = min(most, stop - start) // columns
                count *= pieces
            width = count // pieces
            move_columns(packing, p, &p.x, mask, start, pieces, width, e, LOAD)
            y = e
            if reduces:
                y = e + most * p.n * size if not writes else p.y.data + start * size
            part.temperature = call.temperature + start * call.temperature_stride
            kernel(&part, width, 0, count, e, y)
            if not reduces:
                if mask != NULL and has_nan_column(p, pieces, width, e):
                    move_columns(packing, p, mask, NULL, start, pieces, width, e, FILL)
                move_columns(packing, p, &p.y, NULL, start, pieces, width, e, STORE)
            elif not writes:
                pack(packing, p, &p.y, NULL, start, count, p.dtype, y, STORE)
            start += count
            done += count * p.n
            if done >= SIGNAL_INTERVAL:
                done = 0
                with gil:
                    PyErr_CheckSignals()
    finally:
        give_back(&p.scratch, e)
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
    const PackingKernels *packing, columns_fn kernel, columns_bytes_fn bytes_fn, SoftmaxCall *call,
    Plan *p, double work, object workers,
) except -1:
    """Run the kernel on all columns of a plan, which take `work` ns; `workers` is parsed."""
    cdef Py_ssize_t threads = threads_for(work, workers)
    cdef Py_ssize_t most = p.rows
    cdef ColumnsJob job
    if not (is_written_in_place(p, call) and is_read_in_place(p)):
        most = columns_at_once(p)
        p.scratch.bytes = (most * p.n + most) * size_of(p.dtype)
    p.workspace.bytes = bytes_fn(call, most)
    call.workspace = &p.workspace
    allocate_reserves(p, threads)
    try:
        if threads < 2:
            return run_columns_here(packing, kernel, call, p, 0, p.rows)
        job = ColumnsJob.__new__(ColumnsJob)
        job.packing, job.kernel, job.call, job.plan = packing, kernel, call, p
        _threads.share(job, p.rows, work, threads)
    finally:
        free_reserves(p)
    return 0
