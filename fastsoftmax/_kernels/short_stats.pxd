# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What `row_stats` gives of a batch of rows of fewer than MIN_BATCH_LENGTH elements, transposed.

``short_rows.pxd`` says how. Sums have the order, and results the bits, of rows one by one.
"""

from libc.math cimport NAN
from libc.stdint cimport int64_t

from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS, SCALE_FIELDS
from fastsoftmax._kernels.block_sums cimport max_distance
from fastsoftmax._kernels.exp_blocks cimport prefetch_lines
from fastsoftmax._kernels.maxima cimport MIN_BATCH_LENGTH
from fastsoftmax._kernels.short_rows cimport (
    soa_exp_centered,
    soa_log1p_excluding_max,
    soa_maxima,
    soa_tree,
)
from fastsoftmax._kernels.statistics_abi cimport RowStatsCall
from fastsoftmax._kernels.stats_batch cimport RowTerms, set_scales, write_figures
from fastsoftmax._kernels.sums cimport LANES
from fastsoftmax._kernels.transpose cimport (
    pad_rows,
    padded_rows,
    transpose_in_apart,
    whole_strips,
)
from fastsoftmax._kernels.types cimport (
    fma,
    infinity,
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)

# Built into one function, these loops keep vectors in memory.


cdef inline void soa_two_best(
    const real *soa, Py_ssize_t rows, Py_ssize_t n, out_ptr highest, out_ptr second, out_ptr place
) noexcept nogil:
    """Write the largest two elements of each row, and the first place of the first, as a number.

    NaN is passed over.
    """
    cdef real v, lower, j_real
    cdef Py_ssize_t r, j
    for r in range(whole_strips(rows)):
        highest[r] = second[r] = -infinity(<real>0)
        place[r] = 0
    for j in range(n):
        j_real = j
        for r in range(whole_strips(rows)):
            v = soa[j * BATCH_ROWS + r]
            lower = v if v < highest[r] else highest[r]
            second[r] = lower if lower > second[r] else second[r]
            place[r] = j_real if v > highest[r] else place[r]
            highest[r] = v if v > highest[r] else highest[r]


cdef inline void soa_places(
    const real *soa, out_ptr places, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Write the place of each element of a row without NaN in `top_k`'s order, as a number."""
    cdef real later
    cdef Py_ssize_t r, i, j
    for i in range(n):
        for r in range(whole_strips(rows)):
            places[i * BATCH_ROWS + r] = n - 1 - i
    for i in range(n):
        for j in range(i + 1, n):
            for r in range(whole_strips(rows)):
                later = 1 if soa[i * BATCH_ROWS + r] >= soa[j * BATCH_ROWS + r] else 0
                places[i * BATCH_ROWS + r] -= later
                places[j * BATCH_ROWS + r] += later


cdef inline void soa_distances(
    const real *soa, const real *e, out_ptr terms, out_ptr64 far, Py_ssize_t rows, Py_ssize_t n,
    const real *highest, const real *farthest,
) noexcept nogil:
    """Write the sum of e (highest - x) of each row; `terms` is scratch for LANES planes."""
    cdef real a, b
    cdef Py_ssize_t r, j
    for j in range(min(n, LANES)):
        if j + LANES < n:
            for r in range(whole_strips(rows)):
                a = highest[r] - soa[j * BATCH_ROWS + r]
                b = highest[r] - soa[(j + LANES) * BATCH_ROWS + r]
                a = farthest[r] if farthest[r] < a else a
                b = farthest[r] if farthest[r] < b else b
                terms[j * BATCH_ROWS + r] = fma(
                    e[(j + LANES) * BATCH_ROWS + r], b, e[j * BATCH_ROWS + r] * a
                )
        else:
            for r in range(whole_strips(rows)):
                a = highest[r] - soa[j * BATCH_ROWS + r]
                a = farthest[r] if farthest[r] < a else a
                terms[j * BATCH_ROWS + r] = e[j * BATCH_ROWS + r] * a
    for j in range(n, LANES):
        for r in range(whole_strips(rows)):
            terms[j * BATCH_ROWS + r] = 0
    if n <= LANES // 2:
        for r in range(whole_strips(rows)):
            far[r] = soa_tree(<const real *>terms + r, LANES // 2)
    else:
        for r in range(whole_strips(rows)):
            far[r] = soa_tree(<const real *>terms + r, LANES)


cdef inline noinline_void stats_maxima(
    const real *soa, Py_ssize_t rows, Py_ssize_t n, real *highest
) noexcept nogil:
    """Call `soa_maxima`."""
    if real is float:
        soa_maxima(soa, rows, n, <out_ptr32>highest)
    else:
        soa_maxima(soa, rows, n, <out_ptr64>highest)


cdef inline noinline_void stats_two_best(
    const real *soa, Py_ssize_t rows, Py_ssize_t n, real *highest, real *second, real *place
) noexcept nogil:
    """Call `soa_two_best`."""
    if real is float:
        soa_two_best(soa, rows, n, <out_ptr32>highest, <out_ptr32>second, <out_ptr32>place)
    else:
        soa_two_best(soa, rows, n, <out_ptr64>highest, <out_ptr64>second, <out_ptr64>place)


cdef inline noinline_void add_nan(
    const real *soa, Py_ssize_t rows, Py_ssize_t n, double *sum
) noexcept nogil:
    """Add NaN to the number of each row that has one."""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            sum[r] += 0 if soa[j * BATCH_ROWS + r] == soa[j * BATCH_ROWS + r] else NAN


cdef inline noinline_void stats_places(
    const real *soa, real *places, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Call `soa_places`."""
    if real is float:
        soa_places(soa, <out_ptr32>places, rows, n)
    else:
        soa_places(soa, <out_ptr64>places, rows, n)


cdef inline noinline_void stats_soa_distances(
    const real *soa, const real *e, double *far, Py_ssize_t rows, Py_ssize_t n,
    const real *highest, const real *farthest,
) noexcept nogil:
    """Call `soa_distances`."""
    cdef real terms[LANES * BATCH_ROWS]
    if real is float:
        soa_distances(soa, e, <out_ptr32>terms, <out_ptr64>far, rows, n, highest, farthest)
    else:
        soa_distances(soa, e, <out_ptr64>terms, <out_ptr64>far, rows, n, highest, farthest)


cdef inline noinline_void write_places(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *soa, real *places
) noexcept nogil:
    """Write the best entries of each row, and ranks."""
    cdef Py_ssize_t order[MIN_BATCH_LENGTH]
    cdef Py_ssize_t r, j, at
    cdef int64_t id
    for j in range(MIN_BATCH_LENGTH):  # a row with NaN does not fill it
        order[j] = 0
    for r in range(rows):
        if call.k > 0:
            for j in range(call.rows.n):
                order[<Py_ssize_t>places[j * BATCH_ROWS + r]] = j
            at = (first + r) * call.k
            for j in range(call.k):
                (<real *>call.best)[at + j] = soa[order[j] * BATCH_ROWS + r]
                call.best_indices[at + j] = order[j]
        for j in range(call.m):
            at = (first + r) * call.m + j
            id = call.ids[at]
            call.ranks[at] = -1
            if 0 <= id < call.rows.n:
                call.ranks[at] = <int64_t>places[id * BATCH_ROWS + r]


cdef inline void short_sums(
    const RowStatsCall *call, Py_ssize_t rows, RowTerms *t, const real *soa, const real *highest,
    real *e,
) noexcept nogil:
    """Set the sums of rows, which fill whole strips."""
    cdef real scales[SCALE_FIELDS * BATCH_ROWS]
    cdef real farthest[BATCH_ROWS]
    cdef real max_e[BATCH_ROWS]
    cdef Py_ssize_t n = call.rows.n
    cdef Py_ssize_t r
    set_scales(t, highest, rows, scales, max_e)
    soa_exp_centered(soa, e, rows, n, <const real *>scales)
    soa_log1p_excluding_max(
        soa, e, rows, n, highest, <const real *>max_e, t.total, t.log_sum
    )
    for r in range(rows):
        t.total[r] += max_e[r]
    if call.entropies != NULL:
        farthest[0] = 0  # rows > 0, which the compiler does not know
        for r in range(rows):
            farthest[r] = <real>max_distance(t.temperature[r], <real>0)
        stats_soa_distances(
            soa, <const real *>e, t.far, rows, n, highest, <const real *>farthest
        )


cdef inline noinline_void short_stats(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, RowTerms *t,
    real *e,
) noexcept nogil:
    """Write what is asked for of a batch of rows; of those that are not `ordinary` it is not right.

    Temperatures are 1 in all rows, or in none; `e` is scratch, 0 from plane n on. Set `ordinary`.
    """
    cdef real soa[MIN_BATCH_LENGTH * BATCH_ROWS]
    cdef real whole[MIN_BATCH_LENGTH * BATCH_ROWS]
    cdef real highest[BATCH_ROWS]
    cdef real second[BATCH_ROWS]
    cdef real place[BATCH_ROWS]
    cdef Py_ssize_t n = call.rows.n
    cdef Py_ssize_t r, filled = padded_rows(rows)
    cdef const real *source = x
    if filled > rows:
        pad_rows(x, whole, rows, n)
        source = whole
    highest[0] = second[0] = 0  # rows > 0, which the compiler does not know
    transpose_in_apart(source, filled, n, soa)
    prefetch_lines(x + rows * n, rows * n)  # the next batch
    if call.argmax != NULL or call.margins != NULL:
        stats_two_best(<const real *>soa, filled, n, highest, second, place)
    else:
        stats_maxima(<const real *>soa, filled, n, highest)
    if call.logsumexps != NULL or call.entropies != NULL:
        short_sums(call, filled, t, <const real *>soa, <const real *>highest, e)
    else:
        for r in range(filled):
            t.log_sum[r] = 0
        add_nan(<const real *>soa, filled, n, t.log_sum)
    write_figures(call, first, rows, t, <const real *>highest, <const real *>second)
    if call.argmax != NULL:
        for r in range(rows):
            call.argmax[first + r] = <int64_t>place[r]
    if call.k > 0 or call.m > 0:
        stats_places(<const real *>soa, whole, filled, n)
        write_places(call, first, rows, <const real *>soa, whole)
