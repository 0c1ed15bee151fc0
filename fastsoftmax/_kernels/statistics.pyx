# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Sums over rows, and what goes with them, of contiguous rows. Built once per instruction set.

Formula
    entropy: L + sum(e d) / sum(e),         d = (max - x) / T, e = exp(-d), L = log(sum(e))
    divergence: sum(e (log-odds)) / sum(e) - (L - L'); weighted: max + log(abs(sum(b e)))
    exp_digits: sums of exponentials that do not depend on how a row is cut (``exp_digits.pxd``).

Passes over memory
    One for the maximum, or the block maxima, one for the sums; `row_stats` looks for the best
    entries and for ranks into the chunks whose maxima reach them.

Precision policy
    Exponentials in the row's own type, sums in more, as `logsumexp`; what has a second row, or
    digits, in float64. Results are float64, for the front to round.

Source
    P. Blanchard, D. J. Higham, N. J. Higham, IMA Journal of Numerical Analysis 41 (2021),
    https://doi.org/10.1093/imanum/draa038
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport NAN
from libc.stdlib cimport free, malloc

from fastsoftmax._kernels.abi cimport FLOAT32
from fastsoftmax._kernels.exp_digits cimport exp_digits_of
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.maxima cimport RowMax
from fastsoftmax._kernels.row_stats cimport room_for_maxima, row_stats_of
from fastsoftmax._kernels.row_sums cimport (
    RowBlocks,
    RowSums,
    has_nan,
    is_finite,
    max_of_blocks,
    row_sums,
)
from fastsoftmax._kernels.statistics_abi cimport (
    DIGITS,
    DIVERGENCE,
    ENTROPY,
    LOG_MEAN_EXP,
    WEIGHTED_SUM,
    ExpDigitsCall,
    RowStatsCall,
    StatisticCall,
    StatisticsKernels,
)
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport one_nan, real
from fastsoftmax._kernels.weighted_sums cimport Blocks64, divergence, log_of, weighted_sum


cdef double sum_of_row(
    const StatisticCall *call, Py_ssize_t row, const real *x, const RowBlocks *blocks
) noexcept nogil:
    """Return what is asked for of a row, which needs no second one."""
    cdef double temperature = call.temperature[row * call.temperature_stride]
    cdef real scratch[BLOCK]
    cdef RowMax top
    cdef RowSums sums
    max_of_blocks(x, blocks, &top)
    if not is_finite(top.value):
        if call.statistic == ENTROPY or has_nan(x, blocks, scratch):
            return NAN
        if call.statistic == LOG_MEAN_EXP and call.counts[row * call.count_stride] == 0:
            return NAN
        return top.value
    row_sums(x, blocks, &top, temperature, call.statistic == ENTROPY, &sums)
    if call.statistic == ENTROPY:
        return sums.log_sum + sums.distance
    if call.statistic == LOG_MEAN_EXP:
        return top.value + (sums.log_sum - log_of(call.counts[row * call.count_stride]))
    return top.value * inverse_temperature(temperature, <double>0) + sums.log_sum


cdef void statistic_of_rows(
    const StatisticCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, const real *x2
) noexcept nogil:
    """Write a result for each row."""
    cdef Blocks64 r
    cdef double temperature
    cdef Py_ssize_t i
    r.blocks.packed, r.blocks.n, r.dtype = call.packed, call.n, call.dtype
    for i in range(first, first + rows):
        r.blocks.row, r.x, r.x2 = i, x, x2
        temperature = call.temperature[i * call.temperature_stride]
        if call.statistic == WEIGHTED_SUM:
            call.results[i] = one_nan(weighted_sum(&r, call.signs + i))
        elif call.statistic == DIVERGENCE:
            call.results[i] = one_nan(divergence(&r, temperature))
        else:
            call.results[i] = one_nan(sum_of_row(call, i, x, &r.blocks))
        x += call.n
        x2 += call.n


cdef int row_stats(
    const RowStatsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x
) noexcept nogil:
    """Write what is asked for of each row; return -1 without memory."""
    cdef RowBlocks blocks
    cdef Py_ssize_t i
    cdef real *maxima = <real *>malloc(room_for_maxima(call.n) * sizeof(real))
    if maxima == NULL:
        return -1
    blocks.packed, blocks.n = call.packed, call.n
    for i in range(first, first + rows):
        blocks.row = i
        row_stats_of(call, i, x, &blocks, maxima)
        x += call.n
    free(maxima)
    return 0


# ---- the table of this instruction set -----------------------------------------------------------


cdef int statistic_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write a sum of each row, for a `StatisticCall`; a `rows_fn`."""
    cdef const StatisticCall *call = <const StatisticCall *>_call
    if call.dtype == FLOAT32:
        statistic_of_rows(call, first, rows, <const float *>x, <const float *>x2)
    else:
        statistic_of_rows(call, first, rows, <const double *>x, <const double *>x2)
    return 0


cdef int row_stats_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write what is asked for of rows, for a `RowStatsCall`; a `rows_fn`."""
    cdef const RowStatsCall *call = <const RowStatsCall *>_call
    if call.dtype == FLOAT32:
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
table.statistic = statistic_entry
table.row_stats = row_stats_entry
table.exp_digits = exp_digits_entry

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.StatisticsKernels", NULL)
