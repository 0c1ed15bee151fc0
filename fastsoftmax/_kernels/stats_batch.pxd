# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What `row_stats` gives of a batch of rows that fills L1, phase by phase.

A row is copied to scratch, where it fills whole steps: then the loops are those of a block
(``block_sums.pxd``), and what comes between them is done for all rows at once. Sums have the order,
and results the bits, of rows one by one. ``short_stats.pxd`` has shorter rows.
"""

from libc.math cimport NAN
from libc.stdint cimport int64_t

from fastsoftmax._kernels.batch_scale cimport (
    BATCH_ROWS,
    HIGH,
    LOW,
    MAGIC,
    RATE,
    RATE_LOW,
    SCALE_FIELDS,
    SHIFT,
    max_terms,
    scales_from_maxima,
    set_rate,
)
from fastsoftmax._kernels.block_maxima cimport CHUNK
from fastsoftmax._kernels.block_sums cimport exp_of_part, max_distance, sum_part, zero_sums
from fastsoftmax._kernels.exp_scale cimport ExpScale
from fastsoftmax._kernels.maxima cimport find_first
from fastsoftmax._kernels.normalize cimport log1p_sums
from fastsoftmax._kernels.row_stats cimport add_before, write_best
from fastsoftmax._kernels.row_sums cimport RowBlocks, is_finite
from fastsoftmax._kernels.statistics_abi cimport RowStatsCall
from fastsoftmax._kernels.sums cimport (
    LANES,
    STEP,
    DoubleDouble,
    LaneSums,
    fold_lanes,
    pad,
    round_to_step,
    sum_of_lanes,
)
from fastsoftmax._kernels.types cimport (
    infinity,
    loop_void,
    noinline_void,
    out_ptr32,
    out_ptr64,
    real,
)

cdef enum:
    MAX_BATCH_LENGTH = CHUNK  # elements of a row: LANES block maxima, each of one lane

cdef struct RowTerms:  # one number a row
    double temperature[BATCH_ROWS]
    double inverse[BATCH_ROWS]  # 1/T
    double log_count[BATCH_ROWS]  # of a mean
    double total[BATCH_ROWS]  # of exponentials
    double far[BATCH_ROWS]  # of their products with distances from the maximum
    double log_sum[BATCH_ROWS]  # of `total` by the maximum's own one
    bint ordinary[BATCH_ROWS]  # False where the maximum is not finite, or there is a NaN


cdef inline void merge_best(real *best, real *second, Py_ssize_t half) noexcept nogil:
    """Make the largest two of `half` lanes those of them and of the lanes `half` further."""
    cdef real lower, other
    cdef Py_ssize_t l
    for l in range(half):
        lower = best[half + l] if best[half + l] < best[l] else best[l]
        other = second[half + l] if second[half + l] > second[l] else second[l]
        second[l] = lower if lower > other else other
        best[l] = best[half + l] if best[half + l] > best[l] else best[l]


cdef inline noinline_void two_best(
    const real *x, Py_ssize_t n, real *maxima, real *highest, real *second
) noexcept nogil:
    """Write the largest of each lane of n elements, whole steps, and the largest two of all."""
    cdef real best[STEP]
    cdef real next_best[STEP]
    cdef real v, lower
    cdef Py_ssize_t j, l
    for l in range(STEP):
        best[l] = next_best[l] = -infinity(<real>0)
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            v = x[j + l]
            lower = v if v < best[l] else best[l]
            next_best[l] = lower if lower > next_best[l] else next_best[l]
            best[l] = v if v > best[l] else best[l]
    merge_best(best, next_best, 16)
    merge_best(best, next_best, 8)
    for l in range(LANES):
        maxima[l] = best[l]
    merge_best(best, next_best, 4)
    merge_best(best, next_best, 2)
    merge_best(best, next_best, 1)
    highest[0] = best[0]
    second[0] = next_best[0]


cdef inline noinline_void pad_row(const real *x, Py_ssize_t n, real *y) noexcept nogil:
    """Copy a row, and fill its last step up with -inf."""
    cdef Py_ssize_t j, l, whole = round_to_step(n)
    for j from 0 <= j < whole by STEP:
        for l in range(STEP):
            y[j + l] = x[j + l]
    if whole < n:
        pad(x + whole, y + whole, n - whole)


cdef inline double nan_in(const real *x, Py_ssize_t n) noexcept nogil:
    """Return NaN if there is one among n elements, else 0."""
    cdef Py_ssize_t j
    cdef int found = 0
    for j in range(n):
        found |= x[j] != x[j]
    return NAN if found else 0


cdef inline ExpScale scale_of_row(const real *scales) noexcept nogil:
    """Return the scale of the row that `scales` points to, which is by its maximum."""
    cdef ExpScale scale
    scale.low = scales[LOW * BATCH_ROWS]
    scale.high = scales[HIGH * BATCH_ROWS]
    scale.magic = scales[MAGIC * BATCH_ROWS]
    scale.shift = scales[SHIFT * BATCH_ROWS]
    scale.rate = scales[RATE * BATCH_ROWS]
    scale.rate_low = scales[RATE_LOW * BATCH_ROWS]
    return scale


cdef inline loop_void set_scales(
    const RowTerms *t, const real *highest, Py_ssize_t rows, real *scales, real *max_e
) noexcept nogil:
    """Write the scales of rows by their maxima, and the exponentials of those."""
    cdef real inverse[BATCH_ROWS]
    cdef Py_ssize_t r
    for r in range(BATCH_ROWS):
        inverse[r] = <real>t.inverse[r]
    for r in range(BATCH_ROWS):
        set_rate(t.temperature[r], scales + r, BATCH_ROWS)
    scales_from_maxima(highest, <const real *>inverse, rows, scales, BATCH_ROWS)
    if real is float:
        max_terms(highest, <const real *>scales, rows, BATCH_ROWS, <out_ptr32>max_e)
    else:
        max_terms(highest, <const real *>scales, rows, BATCH_ROWS, <out_ptr64>max_e)


cdef inline void sums_of_batch(
    const RowStatsCall *call, Py_ssize_t rows, RowTerms *t, const real *x,
    Py_ssize_t width, const real *highest, const Py_ssize_t *place, real *e, const real *ahead,
) noexcept nogil:
    """Set the sums of rows that are `width` apart."""
    cdef real scales[SCALE_FIELDS * BATCH_ROWS]
    cdef real max_e[BATCH_ROWS]
    cdef double distances[LANES]
    cdef DoubleDouble s[BATCH_ROWS]
    cdef LaneSums lanes
    cdef ExpScale exp_scale
    cdef real farthest = 0
    cdef Py_ssize_t r
    set_scales(t, highest, rows, scales, max_e)
    for r in range(rows):
        exp_scale = scale_of_row(<const real *>scales + r)
        exp_of_part(x + r * width, e + r * width, width, &exp_scale, ahead + r * width)
        e[r * width + place[r]] = 0
    for r in range(rows):
        if call.entropies != NULL:
            farthest = <real>max_distance(t.temperature[r], <real>0)
        zero_sums(&lanes, distances)
        sum_part(
            &lanes, distances, x + r * width, <const real *>(e + r * width), width, highest[r],
            farthest,
        )
        s[r].high = s[r].low = 0
        fold_lanes(s + r, &lanes, <real>0)
        t.far[r] = sum_of_lanes(distances)
    log1p_sums(s, max_e, rows, t.log_sum)
    for r in range(rows):
        t.total[r] = (s[r].high + s[r].low) + max_e[r]


cdef inline noinline_void write_figures(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, RowTerms *t, const real *highest,
    const real *second,
) noexcept nogil:
    """Write all but places, by `t` and the largest two entries; set `ordinary`.

    What `log_sum` is where sums are not asked for shows rows with NaN.
    """
    cdef real *y = <real *>call.logsumexps + first
    cdef Py_ssize_t r
    for r in range(rows):
        t.ordinary[r] = is_finite(highest[r]) and is_finite(t.log_sum[r])
    if call.logsumexps != NULL and call.counts != NULL:
        for r in range(rows):
            y[r] = <real>(highest[r] + (t.log_sum[r] - t.log_count[r]))
    elif call.logsumexps != NULL:
        for r in range(rows):
            y[r] = <real>(highest[r] * t.inverse[r] + t.log_sum[r])
    if call.entropies != NULL:
        y = <real *>call.entropies + first
        for r in range(rows):
            y[r] = <real>(t.log_sum[r] + t.far[r] / (t.temperature[r] * t.total[r]))
    if call.maxima != NULL:
        y = <real *>call.maxima + first
        for r in range(rows):
            y[r] = highest[r] + 0  # of zeros it may be either: 0
    if call.margins != NULL:
        y = <real *>call.margins + first
        for r in range(rows):
            y[r] = <real>(
                (<double>highest[r] - second[r] + 0) * max(t.inverse[r], 2.0**-1022)
            )


cdef inline noinline_void stats_batch(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, RowTerms *t,
    real *scratch, real *e,
) noexcept nogil:
    """Write what is asked for of a batch of rows; of those that are not `ordinary` it is not right.

    They have at most MAX_BATCH_LENGTH elements, in whole steps together what `scratch` and `e`
    have. Set `ordinary`.
    """
    cdef real maxima[LANES * BATCH_ROWS]
    cdef real highest[BATCH_ROWS]
    cdef real second[BATCH_ROWS]
    cdef Py_ssize_t place[BATCH_ROWS]
    cdef RowBlocks blocks
    cdef Py_ssize_t n = call.rows.n, width = round_to_step(n + STEP - 1)
    cdef Py_ssize_t r, j, at
    cdef int64_t id
    highest[0] = second[0] = 0  # rows > 0, which the compiler does not know
    for r in range(rows):
        pad_row(x + r * n, n, scratch + r * width)
    for r in range(rows):
        two_best(
            <const real *>(scratch + r * width), width, maxima + r * LANES, highest + r, second + r
        )
    for r in range(rows):  # the bound: with NaN alone it is not there
        place[r] = min(n - 1, find_first(<const real *>(scratch + r * width), n, highest[r]))
    if call.logsumexps != NULL or call.entropies != NULL:
        sums_of_batch(
            call, rows, t, <const real *>scratch, width, <const real *>highest, place, e,
            x + rows * n,
        )
    else:
        for r in range(rows):
            t.log_sum[r] = nan_in(<const real *>(scratch + r * width), width)
    write_figures(call, first, rows, t, <const real *>highest, <const real *>second)
    if call.argmax != NULL:
        for r in range(rows):
            call.argmax[first + r] = place[r]
    blocks.packed = NULL
    blocks.n = n
    for r in range(rows if call.k > 0 else 0):
        blocks.row = first + r
        if t.ordinary[r]:
            write_best(
                call, first + r, <const real *>(scratch + r * width), &blocks,
                <const real *>maxima + r * LANES, False,
            )
    for r in range(rows):
        for j in range(call.m):
            at = (first + r) * call.m + j
            id = call.ids[at]
            call.ranks[at] = -1
            if 0 <= id < n:
                call.ranks[at] = 0
                add_before(
                    <const real *>(scratch + r * width), n, scratch[r * width + id], id,
                    call.ranks + at,
                )
