# cython: language_level=3, cdivision=True
"""One long row of softmax, log_softmax or logsumexp in parts: by several threads, or packed.

In phases, each shared out by blocks: the maximum, if no pivot will do; the lanes of each block's
sum of exponentials; then, by one thread and in order, the sum over the blocks; the quotients or
differences. So a row has the bits that it has as a whole, and where it must be packed, a piece of
it at a time is, in each phase. Exponentials stay in the result, or where that must be packed, too,
in scratch of a row that stays in cache; those of a longer one are made a second time.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from .._threads import share

from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.execute cimport row_pointer, run_blocks, run_rows
from fastsoftmax._front.pack cimport FILL, LOAD, STORE, pack, pack_part
from fastsoftmax._front.plan cimport (
    LINE,
    PACKED,
    SIGNAL_INTERVAL,
    Operand,
    Plan,
    first_line,
    is_nan,
    size_of,
)
from fastsoftmax._front.signals cimport look, raise_if_stopped
from fastsoftmax._kernels.abi cimport (
    LOGSUMEXP,
    ROW_MAXIMA,
    ROW_MAXIMUM,
    ROW_PIVOT,
    ROW_RESULT,
    ROW_SUM,
    ROW_SUMS,
    SOFTMAX,
    LongRow,
    PackingKernels,
    SoftmaxCall,
    SoftmaxKernels,
    phase_fn,
    temperature_in_range,
)

cdef enum:
    PIECE_BLOCKS = 8  # that are packed at once: they stay in cache, and results are whole lines
    MIN_PACKED_BLOCKS = 4  # of a row of softmax, from which on it is packed by pieces
    CACHED_BLOCKS = 512  # of a row of which a copy stays in cache
    ROW_FAILED = -1  # after ROW_MAXIMUM: the row has none, and is none to do in parts
    ROW_DONE = -2


cdef struct Parts:  # a row, and how its parts are packed
    LongRow row
    phase_fn do_phase
    Py_ssize_t block  # elements
    Py_ssize_t blocks
    const PackingKernels *packing
    const Plan *plan
    Py_ssize_t index  # of the row
    bint loads
    bint stores
    char *exps  # scratch for those of the whole row; NULL: they are made twice, or go to the result


cdef int next_phase(int phase, bint done) noexcept nogil:
    """Return the phase that comes after `phase`, which was `done` or to no use."""
    if phase == ROW_PIVOT:
        return ROW_SUMS if done else ROW_MAXIMA
    if phase == ROW_MAXIMA:
        return ROW_MAXIMUM
    if phase == ROW_MAXIMUM:
        return ROW_SUMS if done else ROW_FAILED
    if phase == ROW_SUMS:
        return ROW_SUM
    if phase == ROW_SUM:
        return ROW_RESULT if done else ROW_MAXIMA
    return ROW_DONE


cdef int allocate(
    Parts *parts, const SoftmaxKernels *kernels, const SoftmaxCall *call
) noexcept nogil:
    """Set all of `parts`, of which plan and packing are set, but the row; return 0, or -1."""
    cdef const Plan *p = parts.plan
    cdef bint stores = p.y.access == PACKED and call.op != LOGSUMEXP
    cdef Py_ssize_t exps = 0
    parts.do_phase = kernels.long_row
    parts.block = kernels.row_block
    parts.blocks = (call.n + kernels.row_block - 1) // kernels.row_block
    parts.loads = p.x.access == PACKED
    parts.stores = stores
    parts.row.dtype = call.dtype
    parts.row.op = call.op
    parts.row.n = call.n
    parts.row.next_part = NULL
    if stores and call.op == SOFTMAX and parts.blocks <= CACHED_BLOCKS:
        exps = call.n * size_of(call.dtype) + LINE
    parts.row.lanes = <double *>malloc(parts.blocks * 16 * sizeof(double) + exps)
    parts.exps = NULL
    if parts.row.lanes == NULL:
        return -1
    if exps > 0:
        parts.exps = first_line(<char *>(parts.row.lanes + parts.blocks * 16))
    return 0


cdef int first_phase(Parts *parts, const SoftmaxCall *call, Py_ssize_t index) noexcept nogil:
    """Set which row it is; return the phase to begin with."""
    cdef const Plan *p = parts.plan
    parts.index = index
    parts.row.temperature = call.temperature[index * call.temperature_stride]
    parts.row.x = row_pointer(p, &p.x, index)
    parts.row.y = row_pointer(p, &p.y, index)
    if not temperature_in_range(parts.row.temperature):
        return ROW_FAILED
    # In place, exponentials would overwrite what another try has to read.
    return ROW_PIVOT if call.op == SOFTMAX and p.x.data != p.y.data else ROW_MAXIMA


cdef Py_ssize_t piece_bytes(const Parts *parts) noexcept nogil:
    """Return the bytes of a piece."""
    return PIECE_BLOCKS * parts.block * size_of(parts.row.dtype)


cdef Py_ssize_t scratch_bytes(const Parts *parts) noexcept nogil:
    """Return the bytes of scratch that `do_blocks` needs."""
    if parts.plan.x.access != PACKED and parts.plan.y.access != PACKED:
        return 0
    return 2 * piece_bytes(parts) + LINE


cdef int do_piece(
    Parts *parts, int phase, Py_ssize_t start, Py_ssize_t stop, char *scratch
) noexcept nogil:
    """Do `phase` for blocks `start` to `stop`, packed in `scratch`; return what it does."""
    cdef LongRow row = parts.row
    cdef const Plan *p = parts.plan
    cdef const Operand *mask = &p.mask if p.mask.data != NULL else NULL
    cdef Py_ssize_t first = start * parts.block
    cdef Py_ssize_t count = min(stop * parts.block, row.n) - first
    cdef Py_ssize_t before = first * size_of(row.dtype)
    cdef bint again = phase == ROW_RESULT and row.op == SOFTMAX and parts.stores and (
        parts.exps == NULL
    )
    cdef char *y
    cdef int done
    if parts.loads and (phase != ROW_RESULT or row.op != SOFTMAX or again):
        pack_part(parts.packing, p, &p.x, mask, parts.index, first, count, scratch, LOAD)
        row.x = scratch - before
        if p.inner_ndim == 1 and p.x.inner[0] == p.x.itemsize:
            row.next_part = <char *>parts.row.x + (first + count) * p.x.itemsize
    if parts.exps != NULL:
        row.y = parts.exps
    elif parts.stores:
        row.y = scratch + piece_bytes(parts) - before
    if again:
        parts.do_phase(&row, ROW_SUMS, start, stop)
    done = parts.do_phase(&row, phase, start, stop)
    if phase == ROW_PIVOT:
        parts.row.is_max = row.is_max
        parts.row.pivot = row.pivot
    elif phase == ROW_RESULT:
        y = <char *>row.y + before
        if mask != NULL and is_nan(y, row.dtype):
            pack_part(parts.packing, p, mask, NULL, parts.index, first, count, y, FILL)
        if parts.stores:
            pack_part(parts.packing, p, &p.y, NULL, parts.index, first, count, y, STORE)
    return done


cdef int do_blocks(
    Parts *parts, int phase, Py_ssize_t start, Py_ssize_t stop, char *scratch
) noexcept nogil:
    """Do `phase` for blocks `start` to `stop`, with `scratch_bytes`; return what it does."""
    cdef const Plan *p = parts.plan
    cdef bint in_result = phase == ROW_RESULT and parts.row.op == SOFTMAX and not parts.stores
    cdef Py_ssize_t step = stop - start if in_result else PIECE_BLOCKS
    cdef Py_ssize_t looked = max(step, SIGNAL_INTERVAL // parts.block // step * step)
    cdef Py_ssize_t at
    scratch = first_line(scratch)
    if phase == ROW_PIVOT and parts.loads:
        return do_piece(parts, phase, 0, 1, scratch)
    if phase == ROW_RESULT and parts.row.op == LOGSUMEXP and p.y.access == PACKED:
        parts.row.y = scratch
        parts.do_phase(&parts.row, phase, start, stop)
        pack(parts.packing, p, &p.y, NULL, parts.index, 1, p.dtype, scratch, STORE)
    elif (
        phase == ROW_PIVOT or phase == ROW_MAXIMUM or phase == ROW_SUM
        or phase == ROW_RESULT and parts.row.op == LOGSUMEXP
        or not parts.loads and not parts.stores
    ):
        return parts.do_phase(&parts.row, phase, start, stop)
    else:
        for at from start <= at < stop by step:
            if (at - start) % looked == 0 and at > start and look():
                break
            do_piece(parts, phase, at, min(at + step, stop), scratch)
    return 1


# ---- by one thread -------------------------------------------------------------------------------


cdef struct PiecesCall:
    const SoftmaxKernels *kernels
    const PackingKernels *packing
    const Plan *plan
    SoftmaxCall *call


cdef int rows_by_pieces(
    const void *context, Py_ssize_t first, Py_ssize_t rows, const void *_x, const void *_x2,
    void *_y,
) noexcept nogil:
    """Write the results of rows that are packed by pieces; a `rows_fn` that finds them itself."""
    cdef const PiecesCall *packed = <const PiecesCall *>context
    cdef Parts parts
    cdef Py_ssize_t i
    cdef int phase, result = -1
    cdef char *scratch
    parts.packing = packed.packing
    parts.plan = packed.plan
    if allocate(&parts, packed.kernels, packed.call) < 0:
        return -1
    scratch = <char *>malloc(scratch_bytes(&parts))
    if scratch != NULL:
        result = 0
        for i in range(first, first + rows):
            phase = first_phase(&parts, packed.call, i)
            while phase >= 0:
                phase = next_phase(phase, do_blocks(&parts, phase, 0, parts.blocks, scratch))
            if phase == ROW_FAILED and not look():
                result |= run_blocks(
                    packed.packing, packed.kernels.softmax_rows, packed.call, packed.plan, i, i + 1
                )
    free(scratch)
    free(parts.row.lanes)
    return result


cdef bint run_by_pieces(
    const PackingKernels *packing, const SoftmaxKernels *kernels, SoftmaxCall *call, Plan *p,
    double work, object workers,
) except -1:
    """Run a plan of rows that are packed by pieces; return False for other rows."""
    cdef PiecesCall packed
    cdef Py_ssize_t blocks = (p.n + kernels.row_block - 1) // kernels.row_block
    if p.x.access != PACKED and (p.y.access != PACKED or call.op == LOGSUMEXP):
        return False
    # Logarithms pack a row as often as they have phases.
    if blocks < (MIN_PACKED_BLOCKS if call.op == SOFTMAX else CACHED_BLOCKS):
        return False
    packed.kernels, packed.packing, packed.plan, packed.call = kernels, packing, p, call
    run_rows(NULL, rows_by_pieces, &packed, p, work, workers)
    return True


# ---- by several threads --------------------------------------------------------------------------


cdef class _Phases:
    """The row and the phase it is in; called with a range of blocks, it does the phase for them."""

    cdef Parts parts
    cdef int phase

    def __dealloc__(self):
        free(self.parts.row.lanes)

    def __call__(self, Py_ssize_t start, Py_ssize_t stop):
        self.do(start, stop)

    cdef int do(self, Py_ssize_t start, Py_ssize_t stop) except -1:
        """Do the phase for blocks `start` to `stop`; return what it does."""
        cdef int done = 0
        cdef uint64_t environment
        cdef Py_ssize_t bytes = scratch_bytes(&self.parts)
        cdef char *scratch = <char *>malloc(bytes) if bytes > 0 else NULL
        if bytes > 0 and scratch == NULL:
            raise MemoryError(f"no memory to work on rows of {self.parts.row.n} elements")
        with nogil:
            environment = enter_environment()
            done = do_blocks(&self.parts, self.phase, start, stop, scratch)
            leave_environment(environment)
        free(scratch)
        raise_if_stopped()
        return done


cdef bint run_long_row(
    const PackingKernels *packing, const SoftmaxKernels *kernels, const SoftmaxCall *call,
    const Plan *p, Py_ssize_t index, double work, Py_ssize_t threads,
) except -1:
    """Write the result of `call` for one row of a plan by `threads` threads.

    `work` is what one thread would take, in nanoseconds. Return False, with nothing written that
    counts, where a row is for one thread: its maximum is not finite, or its temperature not in
    range.
    """
    cdef _Phases phases = _Phases()
    cdef Parts *parts = &phases.parts
    cdef bint done
    parts.packing = packing
    parts.plan = p
    if allocate(parts, kernels, call) < 0:
        raise MemoryError(f"no memory to work on rows of {p.n} elements")
    phases.phase = first_phase(parts, call, index)
    while phases.phase >= 0:
        done = True
        if (
            phases.phase == ROW_MAXIMA or phases.phase == ROW_SUMS
            or phases.phase == ROW_RESULT and call.op != LOGSUMEXP
        ):
            share(
                phases, parts.blocks, work / 2 if phases.phase == ROW_SUMS else work / 4, threads
            )
        else:
            done = phases.do(0, parts.blocks)
        phases.phase = next_phase(phases.phase, done)
    return phases.phase == ROW_DONE
