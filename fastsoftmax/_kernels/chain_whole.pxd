# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sums over a whole row as a chain's first steps leave its scores, block by block.

The scores of tokens that no step names are those of the row, divided by the temperatures and
capped; those of the named are put in their places. So nothing of the row's size is written.
"""

from libc.math cimport sqrt
from libc.stdint cimport uint64_t

from fastsoftmax._kernels.chain_list cimport Candidates
from fastsoftmax._kernels.chain_names cimport Names
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.packed_row cimport PackedRow, is_shut, row_part
from fastsoftmax._kernels.radix cimport radix_sort_pairs
from fastsoftmax._kernels.score_map cimport ScoreMap, map_nearly, map_scores
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.weights cimport (
    cdf_search,
    cdf_search_certain,
    softmax_weights,
    sum_in_order,
    sum_lanes,
)

cdef struct Scores:  # of a row, after the first steps
    ScoreMap map  # of these
    double error  # by which the scores of sums may be off, and no more; 0: they are exact
    const Names *names
    Py_ssize_t next  # the first name, in the order of the ids, that is not in the blocks so far
    PackedRow *packed


cdef inline void order_names(Names *names, Candidates *c) noexcept nogil:
    """Take the scores of the names from candidates, and sort the names by their ids."""
    cdef Py_ssize_t i
    for i in range(names.count):
        names.score[i] = -infinity(<double>0)
        names.order[i] = i
        c.keys[i] = ~<uint64_t>names.id[i]
    for i in range(c.count):
        if c.name[i] >= 0:
            names.score[c.name[i]] = c.score[i]
    radix_sort_pairs(
        c.keys, names.order, names.count, <uint64_t *>c.masses, <Py_ssize_t *>c.weight
    )


cdef inline void load_scores(
    Scores *s, const real *x, Py_ssize_t start, Py_ssize_t n, double *score
) noexcept nogil:
    """Write the scores of a block of n from `start` on, blocks coming in their order.

    Within `s.error` of them, for those that no step names.
    """
    cdef const real *part = row_part(x, start, n, s.packed)
    cdef Py_ssize_t i
    for i in range(n):
        score[i] = part[i]
    if s.error > 0:
        map_nearly(&s.map, score, n)
    else:
        map_scores(&s.map, score, n)
    while s.next < s.names.count:
        i = s.names.order[s.next]
        if s.names.id[i] >= start + n:
            break
        if s.names.id[i] >= start:  # else it is of a block that is shut
            score[s.names.id[i] - start] = s.names.score[i]
        s.next += 1


cdef inline void skip_names(Scores *s, Py_ssize_t start) noexcept nogil:
    """Go to the first name that is not before `start`."""
    s.next = 0
    while s.next < s.names.count and s.names.id[s.names.order[s.next]] < start:
        s.next += 1


cdef inline void sum_weights(
    Scores *s, const real *x, Py_ssize_t n, bint weighted, double *sums, Candidates *c
) noexcept nogil:
    """Sum up the weights of a row, relative to `c.highest`, and if `weighted`, those by scores.

    `sums` gets the sum of each block, unless it is NULL.
    """
    cdef double score[BLOCK]
    cdef double weight[BLOCK]
    cdef double part
    cdef Py_ssize_t start, i, size
    c.total = c.weighted = 0
    s.next = 0
    for start from 0 <= start < n by BLOCK:
        size = min(<Py_ssize_t>BLOCK, n - start)
        if is_shut(s.packed, start, size):
            if sums != NULL:
                sums[start // BLOCK] = 0
            continue
        load_scores(s, x, start, size, score)
        softmax_weights(<const double *>score, weight, size, c.highest, 1)
        part = sum_lanes(<const double *>weight, size)
        c.total += part
        if sums != NULL:
            sums[start // BLOCK] = part
        if weighted:
            for i in range(size):
                weight[i] *= score[i] - c.highest if score[i] > -infinity(<double>0) else 0
            c.weighted += sum_lanes(<const double *>weight, size)
    c.log_total = log1p_nonneg(max(<double>0, c.total - 1))


cdef inline double sum_distances(
    Scores *s, const real *x, Py_ssize_t n, double highest, double mean, Py_ssize_t *count
) noexcept nogil:
    """Return the sum of (highest - score) over a row, and count the scores above -inf.

    With a `mean` of that, the sum of the squares of the deviations from it.
    """
    cdef double score[BLOCK]
    cdef double total = 0, d
    cdef Py_ssize_t start, i, size
    cdef bint squares = mean >= 0
    s.next = count[0] = 0
    for start from 0 <= start < n by BLOCK:
        size = min(<Py_ssize_t>BLOCK, n - start)
        if is_shut(s.packed, start, size):
            continue
        load_scores(s, x, start, size, score)
        for i in range(size):
            d = highest - score[i]
            count[0] += d < infinity(<double>0)
            d = d if d < infinity(<double>0) else max(<double>0, mean)
            score[i] = (d - mean) * (d - mean) if squares else d
        total += sum_lanes(<const double *>score, size)
    return total


cdef inline void set_bound(
    Scores *s, const real *x, Py_ssize_t n, double deviations, Candidates *c
) noexcept nogil:
    """Write to `c.bound` what is so many standard deviations below `c.highest`."""
    cdef Py_ssize_t count
    cdef double mean = sum_distances(s, x, n, c.highest, -1, &count) / count
    c.bound = c.highest - deviations * sqrt(
        sum_distances(s, x, n, c.highest, mean, &count) / count
    )


cdef inline double sums_error(const Scores *s) noexcept nogil:
    """Return how far sums of weights may be off, as a share of them."""
    return 2 * s.error + 1e-12 if s.error > 0 else 0


cdef inline Py_ssize_t draw_from_scores(
    Scores *s, const real *x, Py_ssize_t n, double u, double *sums, Candidates *c
) noexcept nogil:
    """Draw from a whole row: the block by the sums of the blocks, then the place within it.

    Leave what is drawn, and its score, as a candidate that is weighed, all within `s.error`; where
    that may matter for what is drawn, there are none.
    """
    cdef double score[BLOCK]
    cdef double weight[BLOCK]
    cdef double before, target
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK, block, i, size
    while True:
        sum_weights(s, x, n, False, sums, c)
        target = u * c.total
        block = cdf_search(sums, blocks, 0, target)
        before = sum_in_order(sums, block)
        size = min(<Py_ssize_t>BLOCK, n - block * BLOCK)
        skip_names(s, block * BLOCK)
        load_scores(s, x, block * BLOCK, size, score)
        softmax_weights(<const double *>score, weight, size, c.highest, 1)
        if s.error == 0:
            i = cdf_search(weight, size, before, target)
            break
        i = cdf_search_certain(weight, size, target - before, 2 * sums_error(s) * c.total)
        if i >= 0:
            break
        s.error = 0
    c.count = 1
    c.id[0] = block * BLOCK + i
    c.score[0] = score[i]
    return c.id[0]
