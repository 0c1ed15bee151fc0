# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What the filters leave of a row, most likely first."""

from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.abi cimport Filters
from fastsoftmax._kernels.block_maxima cimport CHUNK
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.radix cimport from_sortable_key, radix_sort_pairs, sortable_key
from fastsoftmax._kernels.row_maximum cimport max_and_block_maxima
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.truncation cimport apply_filters
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.weights cimport softmax_weights, sum_lanes
from fastsoftmax._kernels.workspace cimport Workspace


cdef inline Py_ssize_t support_row(
    const real *x, Py_ssize_t n, const Filters *f, Workspace *work,
    int64_t *indices, real *probs, Py_ssize_t width,
) noexcept nogil:
    """Write what the filters `f` leave of a row and can be drawn, most likely first.

    Return how many; nothing is written if these are more than `width`, or if the workspace is full.
    -1 and 0 fill it up.
    """
    cdef real *value = <real *>work.value
    cdef double highest = max_and_block_maxima(
        x, n, CHUNK, <real *>work.maxima, work.packed
    )
    cdef double inverse = 0, total = 0
    cdef Py_ssize_t i, start, size, m = 0, count = 0
    if highest == highest and not stopped(n):
        count = apply_filters(x, n, highest, f, work, NULL)
    if work.is_full or stopped(n):
        return 0
    for i from 0 <= i < count by BLOCK:  # by blocks: exact to the last bits for any number of them
        total += sum_lanes(<const double *>(work.weight + i), min(<Py_ssize_t>BLOCK, count - i))
    for i in range(count):
        if work.weight[i] > 0:
            work.index[m] = work.index[i]
            work.keys[m] = sortable_key(value[i])
            m += 1
    if m <= width:
        radix_sort_pairs(
            work.keys, work.index, m, <uint64_t *>work.masses, <Py_ssize_t *>work.weight
        )
        if f.temperature > 0:
            inverse = inverse_temperature(f.temperature, <double>0)
        for start from 0 <= start < m by LOOK_INTERVAL:
            size = min(<Py_ssize_t>LOOK_INTERVAL, m - start)
            if stopped(size):
                return 0
            for i in range(start, start + size):
                value[i] = from_sortable_key(work.keys[i], <real>0)
            softmax_weights(value + start, work.weight + start, size, highest, inverse)
            for i in range(start, start + size):
                indices[i] = work.index[i]
                probs[i] = <real>(work.weight[i] / total)
        for i in range(m, width):
            indices[i] = -1
            probs[i] = 0
    return m
