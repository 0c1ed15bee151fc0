# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Log-probabilities and ranks of entries of a row."""

from libc.math cimport NAN
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.block_select cimport CHUNK, Workspace, block_maxima, rank_in_block
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.radix cimport radix_sort_pairs, sortable_key
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.weights cimport softmax_weights, sum_blocks, sum_in_order, sum_lanes

cdef enum:
    MANY = 512  # draws from which on a sort finds their ranks sooner than looks into the row


cdef inline double log1p_excluding_max(
    const real *value, double *weight, Py_ssize_t n, double highest, double *sums
) noexcept nogil:
    """Return log1p of the sum of the weights without the first largest entry's own."""
    cdef double total, own
    cdef Py_ssize_t j = 0
    while j < n - 1 and value[j] != highest:
        j += 1
    own = weight[j]
    weight[j] = 0
    sum_blocks(weight, n, sums)
    total = sum_in_order(sums, (n + BLOCK - 1) // BLOCK)
    weight[j] = own
    return log1p_nonneg(total)


cdef inline double row_log1p_excluding_max(
    const real *x, Py_ssize_t n, Py_ssize_t first, double highest, double inverse, double *sums
) noexcept nogil:
    """Return the same for a whole row, to the same bits, by what `weigh_blocks` has written.

    `first` is where the first largest entry is.
    """
    cdef double weight[BLOCK]
    cdef Py_ssize_t block = first // BLOCK
    cdef Py_ssize_t start = block * BLOCK
    cdef Py_ssize_t size = min(<Py_ssize_t>BLOCK, n - start)
    softmax_weights(x + start, weight, size, highest, inverse)
    weight[first - start] = 0
    sums[block] = sum_lanes(weight, size)
    return log1p_nonneg(sum_in_order(sums, (n + BLOCK - 1) // BLOCK))


cdef inline void write_logprobs(
    const real *x, const int64_t *ids, Py_ssize_t m, double highest, double inverse,
    double log_others, real *y,
) noexcept nogil:
    """Write those of m entries of a row, for T > 0; NaN for the index -1."""
    cdef double inf = infinity(<double>0)
    cdef double d
    cdef Py_ssize_t i
    for i in range(m):
        d = x[ids[i]] if ids[i] >= 0 else NAN
        if d > -inf:
            d = (d - highest) * inverse if inverse > 0 else 0
        y[i] = <real>(d - log_others)


cdef inline void ranks_among(
    const real *x, Py_ssize_t n, const int64_t *places, Py_ssize_t m, Workspace *work, int64_t *ranks
) noexcept nogil:
    """Write the ranks of m of n numbers, -1 for the place -1; uses up all but the index in `work`.
    """
    cdef real *maxima = <real *>work.maxima
    cdef Py_ssize_t *order = <Py_ssize_t *>work.weight
    cdef Py_ssize_t i
    if m > MANY and n <= work.room:
        for i in range(n):
            work.keys[i] = sortable_key(x[i])
            order[i] = i
        radix_sort_pairs(work.keys, order, n, <uint64_t *>work.masses, <Py_ssize_t *>work.value)
        for i in range(n):
            work.keys[order[i]] = i
        for i in range(m):
            ranks[i] = <int64_t>work.keys[places[i]] if places[i] >= 0 else -1
        return
    block_maxima(x, n, CHUNK, maxima, <real *>NULL)
    for i in range(m):
        ranks[i] = rank_in_block(x[places[i]], places[i], x, n, maxima) if places[i] >= 0 else -1
