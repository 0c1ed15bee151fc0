# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Sums over rows, and what goes with them, of contiguous rows. Built once per instruction set.

Formula
    entropy: L + sum(e d) / sum(e),         d = (max - x) / T, e = exp(-d), L = log(sum(e))
    divergence: sum(e (log-odds)) / sum(e) - (L - L'); weighted: max + log(abs(sum(b e)))
    exp_digits: sums of exponentials that do not depend on how a row is cut (``exp_digits.pxd``).

Passes over memory
    One, by blocks that stay in L1: block maxima, exponentials, sums. A second one where the first
    block's maximum is no pivot for the row. `row_stats` looks for the best entries and for ranks
    into the chunks whose maxima reach them. Of two rows, or a weighted one: two.

Precision policy
    Exponentials in the row's own type, sums in more, as `logsumexp`; what has a second row, or
    digits, in float64; results are rounded once.

Source
    P. Blanchard, D. J. Higham, N. J. Higham, IMA Journal of Numerical Analysis 41 (2021),
    https://doi.org/10.1093/imanum/draa038
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport NAN
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastsoftmax._kernels.abi cimport FLOAT32, temperature_in_range
from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS
from fastsoftmax._kernels.exp_digits cimport exp_digits_of
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.maxima cimport MIN_BATCH_LENGTH
from fastsoftmax._kernels.row_stats cimport needs_maxima, room_for_maxima, row_stats_of
from fastsoftmax._kernels.row_sums cimport RowBlocks
from fastsoftmax._kernels.short_pairs cimport (
    MAX_PAIR_LENGTH,
    PAIR_ROWS,
    load_planes,
    short_divergences,
    short_weighted_sums,
)
from fastsoftmax._kernels.short_stats cimport short_stats
from fastsoftmax._kernels.statistics_abi cimport (
    DIGITS,
    WEIGHTED_SUM,
    ExpDigitsCall,
    PairCall,
    RowStatsCall,
    StatisticsKernels,
)
from fastsoftmax._kernels.stats_batch cimport MAX_BATCH_LENGTH, RowTerms, stats_batch
from fastsoftmax._kernels.sums cimport STEP, round_to_step
from fastsoftmax._kernels.types cimport noinline_void, one_nan, out_ptr64, real
from fastsoftmax._kernels.weighted_sums cimport Blocks64, divergence, log_of, weighted_sum

cdef enum:
    FEW_ROWS = 4  # short ones, from which on a batch takes less time
    FEW_PAIRS = 8  # all of PAIR_ROWS are worked on
    BATCH_DOUBLES = 1024  # of scratch for a batch: these or twice as many float32
    ROOM = 512  # block maxima that are found without memory of their own


cdef noinline_void one_pair(
    const PairCall *call, Py_ssize_t row, const real *x, const real *x2, double *result,
    double *sign,
) noexcept nogil:
    """Write the result of a row, and its sum's sign."""
    cdef Blocks64 r
    r.blocks.packed, r.blocks.n, r.dtype = call.rows.packed, call.rows.n, call.rows.dtype
    r.blocks.row, r.x, r.x2 = row, x, x2
    if call.statistic == WEIGHTED_SUM:
        result[0] = weighted_sum(&r, sign)
    else:
        result[0] = divergence(
            &r, call.rows.temperature[row * call.rows.temperature_stride]
        )


cdef noinline_void pairs_of_batch(
    const PairCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, const real *x2,
    double *results, double *signs, bint *done,
) noexcept nogil:
    """Write results of at most PAIR_ROWS short rows, and signs; say which are `done`."""
    cdef double soa[MAX_PAIR_LENGTH * PAIR_ROWS]
    cdef double soa2[MAX_PAIR_LENGTH * PAIR_ROWS]
    cdef double inverse[PAIR_ROWS]
    cdef double t
    cdef Py_ssize_t i, n = call.rows.n
    for i in range(PAIR_ROWS):
        inverse[i] = 1
    for i in range(rows):
        t = call.rows.temperature[(first + i) * call.rows.temperature_stride]
        if not temperature_in_range(t):
            return
        inverse[i] = inverse_temperature(t, <double>0)
    load_planes(x, rows, n, <out_ptr64>soa)
    load_planes(x2, rows, n, <out_ptr64>soa2)
    if call.statistic == WEIGHTED_SUM:
        short_weighted_sums(soa, <const double *>soa2, rows, n, results, signs, done)
        return
    short_divergences(<const double *>soa, <const double *>soa2, rows, n, inverse, results)
    for i in range(rows):
        done[i] = True


cdef void pair_statistic(
    const PairCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, const real *x2
) noexcept nogil:
    """Write a result for each row, and a sign."""
    cdef double results[PAIR_ROWS]
    cdef double signs[PAIR_ROWS]
    cdef bint done[PAIR_ROWS]
    cdef Py_ssize_t i, start, count, n = call.rows.n
    for start from 0 <= start < rows by PAIR_ROWS:
        count = min(<Py_ssize_t>PAIR_ROWS, rows - start)
        for i in range(count):
            signs[i] = 1
            done[i] = False
        if n <= MAX_PAIR_LENGTH and count >= FEW_PAIRS:
            pairs_of_batch(call, first + start, count, x, x2, results, signs, done)
        for i in range(count):
            if not done[i]:
                one_pair(call, first + start + i, x, x2, results + i, signs + i)
            if call.signs != NULL:
                (<real *>call.signs)[first + start + i] = <real>signs[i]
            elif signs[i] < 0:
                results[i] = NAN
            (<real *>call.results)[first + start + i] = <real>one_nan(results[i])
            x += n
            x2 += n


cdef void stats_one_by_one(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, real *maxima
) noexcept nogil:
    """Write what is asked for of each row, with room for `maxima` where those are needed."""
    cdef RowBlocks blocks
    cdef Py_ssize_t i
    blocks.packed, blocks.n = call.rows.packed, call.rows.n
    for i in range(first, first + rows):
        blocks.row = i
        row_stats_of(call, i, x, &blocks, maxima)
        x += call.rows.n


cdef bint set_temperatures(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, RowTerms *t
) noexcept nogil:
    """Set temperatures of a batch; return whether it can have them: T = 1 in all rows, or in none.
    """
    cdef Py_ssize_t stride = call.rows.temperature_stride
    cdef double temperature = call.rows.temperature[first * stride], inverse
    cdef bint scaled = temperature != 1, good = True
    cdef Py_ssize_t i
    if stride == 0:
        inverse = inverse_temperature(temperature, <double>0)
        for i in range(BATCH_ROWS):
            t.temperature[i] = temperature
            t.inverse[i] = inverse
        return 1e-20 <= temperature <= 1e20
    for i in range(BATCH_ROWS):
        temperature = call.rows.temperature[(first + i % rows) * stride]
        t.temperature[i] = temperature
        t.inverse[i] = inverse_temperature(temperature, <double>0)
        good &= 1e-20 <= temperature <= 1e20 and (temperature != 1) == scaled
    return good


cdef noinline_void stats_of_batches(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, real *maxima
) noexcept nogil:
    """Write what is asked for of short rows, batch by batch where temperatures are in range."""
    cdef double _e[BATCH_DOUBLES]
    cdef double _scratch[BATCH_DOUBLES]
    cdef real *e = <real *>_e
    cdef real *scratch = <real *>_scratch
    cdef RowTerms terms
    cdef bint batchable = True
    cdef Py_ssize_t i, count, start, n = call.rows.n
    cdef Py_ssize_t size = sizeof(_e) // sizeof(real) // round_to_step(n + STEP - 1)
    size = min(<Py_ssize_t>BATCH_ROWS, size)
    if n < MIN_BATCH_LENGTH:
        size = BATCH_ROWS
        memset(e + n * BATCH_ROWS, 0, (MIN_BATCH_LENGTH - n) * BATCH_ROWS * sizeof(real))
    for start from 0 <= start < rows by size:
        count = min(size, rows - start)
        if start == 0 or call.rows.temperature_stride:
            batchable = set_temperatures(call, first + start, count, &terms)
        if call.counts != NULL and (start == 0 or call.count_stride):
            for i in range(count if call.count_stride else 1):
                log_of(call.counts[(first + start + i) * call.count_stride], terms.log_count + i)
            for i in range(0 if call.count_stride else BATCH_ROWS):
                terms.log_count[i] = terms.log_count[0]
        if batchable and n < MIN_BATCH_LENGTH:
            short_stats(call, first + start, count, x + start * n, &terms, e)
        elif batchable:
            stats_batch(call, first + start, count, x + start * n, &terms, scratch, e)
        for i in range(count):
            if not batchable or not terms.ordinary[i]:
                stats_one_by_one(call, first + start + i, 1, x + (start + i) * n, maxima)


cdef int row_stats(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x
) noexcept nogil:
    """Write what is asked for of each row; return -1 without memory."""
    cdef real few[ROOM]
    cdef real *maxima = NULL
    cdef real *room = NULL
    if needs_maxima(call):
        maxima = few
        if room_for_maxima(call.rows.n) > ROOM:
            maxima = room = <real *>malloc(room_for_maxima(call.rows.n) * sizeof(real))
            if room == NULL:
                return -1
    if call.rows.n <= MAX_BATCH_LENGTH and rows >= FEW_ROWS:
        stats_of_batches(call, first, rows, x, maxima)
    else:
        stats_one_by_one(call, first, rows, x, maxima)
    free(room)
    return 0


# ---- the table of this instruction set -----------------------------------------------------------


cdef int pair_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write a number for each pair of rows, for a `PairCall`; a `rows_fn`."""
    cdef const PairCall *call = <const PairCall *>_call
    if call.rows.dtype == FLOAT32:
        pair_statistic(call, first, rows, <const float *>x, <const float *>x2)
    else:
        pair_statistic(call, first, rows, <const double *>x, <const double *>x2)
    return 0


cdef int row_stats_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write what is asked for of rows, for a `RowStatsCall`; a `rows_fn`."""
    cdef const RowStatsCall *call = <const RowStatsCall *>_call
    if call.rows.dtype == FLOAT32:
        return row_stats(call, first, rows, <const float *>x)
    return row_stats(call, first, rows, <const double *>x)


cdef int exp_digits_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Add the digits of rows, for an `ExpDigitsCall`; a `rows_fn`."""
    cdef const ExpDigitsCall *call = <const ExpDigitsCall *>_call
    cdef Py_ssize_t i, width = call.n * (4 if call.dtype == FLOAT32 else 8)
    cdef Blocks64 r
    r.blocks.packed, r.blocks.n, r.dtype = call.packed, call.n, call.dtype
    for i in range(first, first + rows):
        r.blocks.row, r.x = i, <const char *>x + (i - first) * width
        exp_digits_of(&r, call.origin[i], call.top[i], call.digits + i * DIGITS)
    return 0


cdef StatisticsKernels table
table.pair = pair_entry
table.row_stats = row_stats_entry
table.exp_digits = exp_digits_entry

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.StatisticsKernels", NULL)
