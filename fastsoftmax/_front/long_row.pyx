# cython: language_level=3, cdivision=True
"""One long row of softmax, log_softmax or logsumexp in parts: by several threads, or packed.

In phases, each shared out by blocks: the maximum, if no pivot will do; the lanes of each block's
sum of exponentials; then, by one thread and in order, the sum over the blocks; the quotients or
differences. So a row has the bits that it has as a whole, and where it must be packed, a piece of
it at a time is, in each phase. Exponentials stay in the result, or where that must be packed, too,
in scratch of a row that stays in cache; those of a longer one are made a second time.
"""

from libc.math cimport NAN
from libc.stdint cimport uint64_t

from .._threads import share

from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.execute cimport allocate_reserves, free_reserves, row_pointer, run_rows
from fastsoftmax._front.pack cimport FILL, LOAD, STORE, pack, pack_part
from fastsoftmax._front.plan cimport PACKED, SIGNAL_INTERVAL, Operand, Plan, is_nan, size_of
from fastsoftmax._front.signals cimport look, raise_if_stopped
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
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
from fastsoftmax._kernels.reserve cimport borrow, give_back

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


cdef Py_ssize_t block_count(const SoftmaxKernels *kernels, const Plan *p) noexcept nogil:
    """Return how many blocks a row has."""
    return (p.n + kernels.row_block - 1) // kernels.row_block


cdef bint keeps_exps(const SoftmaxKernels *kernels, int op, const Plan *p) noexcept nogil:
    """Return whether a copy of a row's exponentials stays in scratch."""
    return op == SOFTMAX and p.y.access == PACKED and block_count(kernels, p) <= CACHED_BLOCKS


cdef void set_reserves(const SoftmaxKernels *kernels, int op, Plan *p) noexcept nogil:
    """Plan what a thread needs: `workspace` for a row, `scratch` for a piece of it."""
    p.workspace.bytes = block_count(kernels, p) * 16 * sizeof(double)
    if keeps_exps(kernels, op, p):
        p.workspace.bytes += p.n * size_of(p.dtype)
    p.scratch.bytes = 0
    if p.x.access == PACKED or p.y.access == PACKED:
        p.scratch.bytes = 2 * PIECE_BLOCKS * kernels.row_block * size_of(p.dtype)


cdef bint are_in_range(const SoftmaxCall *call, Py_ssize_t rows) noexcept:
    """Return whether rows can go in parts by their temperatures."""
    cdef Py_ssize_t i
    for i in range(rows if call.temperature_stride else 1):
        if not temperature_in_range(call.temperature[i]):
            return False
    return True


cdef void set_parts(
    Parts *parts, const SoftmaxKernels *kernels, const SoftmaxCall *call, char *memory
) noexcept nogil:
    """Set all of `parts`, of which plan and packing are set, but the row."""
    cdef const Plan *p = parts.plan
    parts.do_phase = kernels.long_row
    parts.block = kernels.row_block
    parts.blocks = block_count(kernels, p)
    parts.loads = p.x.access == PACKED
    parts.stores = p.y.access == PACKED and call.op != LOGSUMEXP
    parts.row.dtype = call.dtype
    parts.row.op = call.op
    parts.row.n = call.n
    parts.row.next_part = NULL
    parts.row.lanes = <double *>memory
    parts.exps = NULL
    if keeps_exps(kernels, call.op, p):
        parts.exps = memory + parts.blocks * 16 * sizeof(double)


cdef int first_phase(Parts *parts, const SoftmaxCall *call, Py_ssize_t index) noexcept nogil:
    """Set which row it is, at a temperature in range; return the phase to begin with."""
    cdef const Plan *p = parts.plan
    parts.index = index
    parts.row.temperature = call.temperature[index * call.temperature_stride]
    parts.row.x = row_pointer(p, &p.x, index)
    parts.row.y = row_pointer(p, &p.y, index)
    # In place, exponentials would overwrite what another try has to read.
    return ROW_PIVOT if call.op == SOFTMAX and p.x.data != p.y.data else ROW_MAXIMA


cdef Py_ssize_t piece_bytes(const Parts *parts) noexcept nogil:
    """Return the bytes of a piece."""
    return PIECE_BLOCKS * parts.block * size_of(parts.row.dtype)


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
    """Do `phase` for blocks `start` to `stop`, with scratch; return what it does."""
    cdef const Plan *p = parts.plan
    cdef bint in_result = phase == ROW_RESULT and parts.row.op == SOFTMAX and not parts.stores
    cdef Py_ssize_t step = stop - start if in_result else PIECE_BLOCKS
    cdef Py_ssize_t looked = max(step, SIGNAL_INTERVAL // parts.block // step * step)
    cdef Py_ssize_t at
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


cdef bint has_nan(Parts *parts, char *scratch) noexcept nogil:
    """Return whether there is NaN in a row."""
    cdef const Plan *p = parts.plan
    cdef const Operand *mask = &p.mask if p.mask.data != NULL else NULL
    cdef Py_ssize_t size = size_of(p.dtype)
    cdef Py_ssize_t first, count, i
    cdef const char *x
    for first from 0 <= first < p.n by PIECE_BLOCKS * parts.block:
        if first > 0 and first % SIGNAL_INTERVAL == 0 and look():
            return False
        count = min(PIECE_BLOCKS * parts.block, p.n - first)
        x = <const char *>parts.row.x + first * size
        if parts.loads:
            pack_part(parts.packing, p, &p.x, mask, parts.index, first, count, scratch, LOAD)
            x = scratch
        for i in range(count):
            if is_nan(x + i * size, p.dtype):
                return True
    return False


cdef inline void write_number(char *y, double number, int dtype) noexcept nogil:
    """Write a number of `dtype`."""
    if dtype == FLOAT32:
        (<float *>y)[0] = <float>number
    else:
        (<double *>y)[0] = number


cdef void write_failed(Parts *parts, char *scratch) noexcept nogil:
    """Write the result of a row without a finite maximum: NaN, but where it is masked.

    Of LOGSUMEXP the maximum, unless there is NaN.
    """
    cdef const Plan *p = parts.plan
    cdef const Operand *mask = &p.mask if p.mask.data != NULL else NULL
    cdef Py_ssize_t size = size_of(p.dtype)
    cdef Py_ssize_t first, count, i
    cdef char *y = <char *>parts.row.y
    if parts.row.op == LOGSUMEXP:
        if p.y.access == PACKED:
            y = scratch + piece_bytes(parts)
        write_number(y, NAN if has_nan(parts, scratch) else parts.row.pivot, p.dtype)
        if p.y.access == PACKED:
            pack(parts.packing, p, &p.y, NULL, parts.index, 1, p.dtype, y, STORE)
        return
    for first from 0 <= first < p.n by PIECE_BLOCKS * parts.block:
        if first > 0 and first % SIGNAL_INTERVAL == 0 and look():
            return
        count = min(PIECE_BLOCKS * parts.block, p.n - first)
        y = scratch if parts.stores else <char *>parts.row.y + first * size
        for i in range(count):
            write_number(y + i * size, NAN, p.dtype)
        if mask != NULL:
            pack_part(parts.packing, p, mask, NULL, parts.index, first, count, y, FILL)
        if parts.stores:
            pack_part(parts.packing, p, &p.y, NULL, parts.index, first, count, y, STORE)


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
    cdef const Plan *p = packed.plan
    cdef Parts parts
    cdef Py_ssize_t i
    cdef int phase
    cdef char *memory = borrow(&p.workspace)
    cdef char *scratch = borrow(&p.scratch)
    parts.packing = packed.packing
    parts.plan = p
    set_parts(&parts, packed.kernels, packed.call, memory)
    for i in range(first, first + rows):
        phase = first_phase(&parts, packed.call, i)
        while phase >= 0:
            phase = next_phase(phase, do_blocks(&parts, phase, 0, parts.blocks, scratch))
        if phase == ROW_FAILED and not look():
            write_failed(&parts, scratch)
    give_back(&p.scratch, scratch)
    give_back(&p.workspace, memory)
    return 0


cdef bint run_by_pieces(
    const PackingKernels *packing, const SoftmaxKernels *kernels, SoftmaxCall *call, Plan *p,
    double work, object workers,
) except -1:
    """Run a plan of rows that are packed by pieces; return False for other rows."""
    cdef PiecesCall packed
    cdef Py_ssize_t blocks = block_count(kernels, p)
    if p.x.access != PACKED and (p.y.access != PACKED or call.op == LOGSUMEXP):
        return False
    # Logarithms pack a row as often as they have phases.
    if blocks < (MIN_PACKED_BLOCKS if call.op == SOFTMAX else CACHED_BLOCKS):
        return False
    if not are_in_range(call, p.rows):
        return False
    set_reserves(kernels, call.op, p)
    packed.kernels, packed.packing, packed.plan, packed.call = kernels, packing, p, call
    run_rows(NULL, rows_by_pieces, &packed, p, work, workers)
    return True


# ---- by several threads --------------------------------------------------------------------------


cdef class _Phases:
    """The row and the phase it is in; called with a range of blocks, it does the phase for them."""

    cdef Parts parts
    cdef int phase

    def __call__(self, Py_ssize_t start, Py_ssize_t stop):
        self.do(start, stop)

    cdef int do(self, Py_ssize_t start, Py_ssize_t stop) except -1:
        """Do the phase for blocks `start` to `stop`; return what it does."""
        cdef const Plan *p = self.parts.plan
        cdef int done = 0
        cdef uint64_t environment
        cdef char *scratch = NULL
        with nogil:
            if p.scratch.bytes > 0:
                scratch = borrow(&p.scratch)
            environment = enter_environment()
            if self.phase == ROW_FAILED:
                write_failed(&self.parts, scratch)
            else:
                done = do_blocks(&self.parts, self.phase, start, stop, scratch)
            leave_environment(environment)
            if scratch != NULL:
                give_back(&p.scratch, scratch)
        raise_if_stopped()
        return done


cdef bint run_long_rows(
    const PackingKernels *packing, const SoftmaxKernels *kernels, const SoftmaxCall *call,
    Plan *p, double work, Py_ssize_t threads,
) except -1:
    """Write the results of `call` for the rows of a plan, each by `threads` threads.

    `work` is what one thread would take for a row, in nanoseconds. Return False, with nothing
    written, where rows are for one thread: a temperature is not in range.
    """
    cdef _Phases phases = _Phases()
    cdef Parts *parts = &phases.parts
    cdef bint done
    cdef Py_ssize_t i
    if not are_in_range(call, p.rows):
        return False
    set_reserves(kernels, call.op, p)
    allocate_reserves(p, threads)
    parts.packing = packing
    parts.plan = p
    set_parts(parts, kernels, call, borrow(&p.workspace))
    try:
        for i in range(p.rows):
            phases.phase = first_phase(parts, call, i)
            while phases.phase >= 0:
                done = True
                if (
                    phases.phase == ROW_MAXIMA or phases.phase == ROW_SUMS
                    or phases.phase == ROW_RESULT and call.op != LOGSUMEXP
                ):
                    share(
                        phases, parts.blocks, work / 2 if phases.phase == ROW_SUMS else work / 4,
                        threads,
                    )
                else:
                    done = phases.do(0, parts.blocks)
                phases.phase = next_phase(phases.phase, done)
            if phases.phase == ROW_FAILED:
                phases.do(0, parts.blocks)
    finally:
        free_reserves(p)
    return True
