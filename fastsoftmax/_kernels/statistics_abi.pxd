# cython: language_level=3
"""What `_front` and the kernels of sums over rows agree on; see ``abi.pxd``."""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.abi cimport PackedRows, rows_fn

cdef struct StatisticRows:  # what all of these are of
    int dtype  # DType, also of the results
    Py_ssize_t n
    const double *temperature
    Py_ssize_t temperature_stride  # 1 if there is one for each row, else 0
    const PackedRows *packed  # NULL: rows come as they are

cdef enum PairStatistic:  # of two rows
    WEIGHTED_SUM  # the logarithm of abs(sum of x2 exp(x)), and the sum's sign
    DIVERGENCE  # of softmax(x / T) from softmax(x2 / T)

cdef struct PairCall:
    StatisticRows rows
    int statistic  # PairStatistic
    void *results
    void *signs  # NULL: a result of a negative sum is NaN

cdef enum:
    MAX_BEST = 128  # entries that `row_stats` lists

cdef struct RowStatsCall:  # results that are not asked for are NULL
    StatisticRows rows
    void *maxima
    int64_t *argmax
    void *logsumexps
    const double *counts  # of entries that the mean of a row is over, not the sum; or NULL
    Py_ssize_t count_stride
    void *entropies
    void *margins
    Py_ssize_t k  # entries to list
    void *best
    int64_t *best_indices
    Py_ssize_t m  # ids to rank
    const int64_t *ids  # may change meanwhile: an id outside the row gets the rank -1
    int64_t *ranks

cdef enum:
    DIGITS = 4  # of a sum of exponentials, the lowest first
    DIGIT_BITS = 32

cdef struct ExpDigitsCall:
    int dtype  # DType
    Py_ssize_t n
    const PackedRows *packed
    const double *origin  # of each row: exp(x - origin) is added up; NaN: nothing is
    const int64_t *top  # the number of the highest digit, which counts 2**(32 top)
    int64_t *digits  # DIGITS a row, to add to

cdef struct StatisticsKernels:
    rows_fn pair
    rows_fn row_stats
    rows_fn exp_digits
