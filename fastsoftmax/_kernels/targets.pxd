# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What a cross entropy makes of integer targets and of losses, over all rows.

Another thread may write to the targets meanwhile: each is read once where it is used as an index.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport CrossEntropyCall
from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS
from fastsoftmax._kernels.sums cimport LANES, DoubleDouble, to_double, two_sum

cdef enum:
    CHECKED = 1024  # targets whose range is checked at once


cdef inline bint read_targets(
    const CrossEntropyCall *call, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t *target
) noexcept nogil:
    """Copy targets of up to BATCH_ROWS rows, -1 where they do not count; return whether all do."""
    cdef int64_t copy[BATCH_ROWS]
    cdef int64_t counts, all_count = 1
    cdef Py_ssize_t r
    if call.targets == NULL or call.n == 0:
        for r in range(rows):
            target[r] = 0 if call.n else -1
        return call.n > 0
    memcpy(copy, call.targets + first, rows * sizeof(int64_t))
    for r in range(rows):
        counts = <int64_t>(<uint64_t>copy[r] < <uint64_t>call.n) & (copy[r] != call.ignore_index)
        target[r] = copy[r] | (counts - 1)
        all_count &= counts
    return all_count


cdef inline Py_ssize_t count_targets(
    const int64_t *targets, Py_ssize_t rows, Py_ssize_t n, int64_t ignore_index, bint *bad
) noexcept nogil:
    """Return how many targets are not `ignore_index`, and tell in `bad` if one is no class."""
    cdef int64_t count = 0
    cdef int64_t wrong = 0
    cdef int64_t counts, is_class
    cdef Py_ssize_t i
    for i in range(rows):
        counts = targets[i] != ignore_index
        is_class = <uint64_t>targets[i] < <uint64_t>n
        count += counts
        wrong |= counts & ~is_class
    bad[0] = wrong & 1
    return count


cdef inline Py_ssize_t weigh_targets(
    const int64_t *targets, Py_ssize_t rows, Py_ssize_t n, int64_t ignore_index,
    const double *weight, double *total,
) noexcept nogil:
    """Return where the first target is that is no class, -1 if there is none.

    In that case write the sum of the weights of those that are not `ignore_index`.
    """
    cdef Py_ssize_t i, m, start, count = 0
    cdef int64_t t
    cdef bint bad = False
    cdef DoubleDouble s
    s.high = s.low = 0
    for start from 0 <= start < rows by CHECKED:
        m = min(CHECKED, rows - start)
        if weight == NULL:
            count += count_targets(targets + start, m, n, ignore_index, &bad)
            if not bad:
                continue
        for i in range(start, start + m):
            t = targets[i]
            if t != ignore_index:
                if not <uint64_t>t < <uint64_t>n:
                    return i
                if weight != NULL:
                    two_sum(&s, weight[t])
    total[0] = count if weight == NULL else to_double(s)
    return -1


cdef inline double sum_losses(const double *losses, Py_ssize_t rows) noexcept nogil:
    """Return the sum of the losses, in 8 lanes that are added in order."""
    cdef double high[LANES]
    cdef double low[LANES]
    cdef double total[LANES]
    cdef double part[LANES]
    cdef const double *v
    cdef Py_ssize_t i, l
    cdef Py_ssize_t whole = rows // LANES * LANES
    cdef DoubleDouble s
    for l in range(LANES):
        high[l] = low[l] = 0
    for i from 0 <= i < whole by LANES:
        v = losses + i
        for l in range(LANES):
            total[l] = high[l] + v[l]
        for l in range(LANES):
            part[l] = total[l] - high[l]
        for l in range(LANES):
            low[l] += (high[l] - (total[l] - part[l])) + (v[l] - part[l])
        for l in range(LANES):
            high[l] = total[l]
    s.high = s.low = 0
    for l in range(LANES):
        two_sum(&s, high[l])
        s.low += low[l]
    for i in range(whole, rows):
        two_sum(&s, losses[i])
    return to_double(s)
