# cython: language_level=3
"""One long row over several threads, with the bits that one gives it.

In phases, each shared out by blocks: the maximum, if no pivot will do; the lanes of each block's
sum of exponentials; then, by one thread and in order, the sum over the blocks; the quotients or
differences.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from .._threads import share

from fastsoftmax._front.environment cimport enter_environment, leave_environment
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
    SoftmaxCall,
    SoftmaxKernels,
    phase_fn,
    temperature_in_range,
)


cdef class _Phases:
    """The row and the phase it is in; called with a range of blocks, it does the phase for them."""

    cdef LongRow row
    cdef phase_fn do_phase
    cdef int phase
    cdef Py_ssize_t blocks

    def __dealloc__(self):
        free(self.row.lanes)

    def __call__(self, Py_ssize_t start, Py_ssize_t stop):
        cdef uint64_t environment
        with nogil:
            environment = enter_environment()
            self.do_phase(&self.row, self.phase, start, stop)
            leave_environment(environment)

    cdef bint alone(self, int phase) noexcept nogil:
        """Do `phase` in this thread; return what it does."""
        cdef uint64_t environment = enter_environment()
        cdef bint done = self.do_phase(&self.row, phase, 0, self.blocks)
        leave_environment(environment)
        return done

    cdef int shared(self, int phase, double work, Py_ssize_t threads) except -1:
        """Do `phase`, some `work` nanoseconds of one thread, by `threads` threads."""
        self.phase = phase
        share(self, self.blocks, work, threads)
        return 0


cdef bint run_long_row(
    const SoftmaxKernels *kernels, const SoftmaxCall *call, const void *x, void *y, double work,
    Py_ssize_t threads,
) except -1:
    """Write the result of `call` for the contiguous row x into y by `threads` threads.

    y is x or does not overlap it. `work` is what one thread would take, in nanoseconds. Return
    False, with nothing in y that counts, where a row is for one thread: its maximum is not finite,
    or its temperature not in range.
    """
    cdef _Phases phases = _Phases()
    cdef LongRow *row = &phases.row
    cdef bint done = False
    if not temperature_in_range(call.temperature[0]):
        return False
    phases.do_phase = kernels.long_row
    phases.blocks = (call.n + kernels.row_block - 1) // kernels.row_block
    row.dtype = call.dtype
    row.op = call.op
    row.n = call.n
    row.temperature = call.temperature[0]
    row.x = x
    row.y = y
    row.lanes = <double *>malloc(phases.blocks * 16 * sizeof(double))
    if row.lanes == NULL:
        raise MemoryError
    if call.op == SOFTMAX and x != y and phases.alone(ROW_PIVOT):
        phases.shared(ROW_SUMS, work / 2, threads)
        done = phases.alone(ROW_SUM)
    if not done:
        phases.shared(ROW_MAXIMA, work / 4, threads)
        if not phases.alone(ROW_MAXIMUM):
            return False
        phases.shared(ROW_SUMS, work / 2, threads)
        phases.alone(ROW_SUM)
    if call.op == LOGSUMEXP:
        phases.alone(ROW_RESULT)
    else:
        phases.shared(ROW_RESULT, work / 4, threads)
    return True
