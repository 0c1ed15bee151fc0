# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Log-probabilities and ranks of entries of a row."""

from libc.math cimport NAN, log
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.abi cimport temperature_in_range
from fastsoftmax._kernels.block_maxima cimport CHUNK, block_maxima, rank_in_block
from fastsoftmax._kernels.block_select cimport Workspace, select_superset
from fastsoftmax._kernels.exp_scale cimport ExpScale, inverse_temperature, max_term, scale_from_max
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.maxima cimport RowMax, find_first, row_max
from fastsoftmax._kernels.normalize cimport log1p_sums
from fastsoftmax._kernels.radix cimport radix_sort_pairs, sortable_key
from fastsoftmax._kernels.row cimport sum_excluding_max
from fastsoftmax._kernels.sums cimport BLOCK, DoubleDouble, to_double
from fastsoftmax._kernels.truncation cimport SMALL_ROW, first_max, max_and_block_maxima
from fastsoftmax._kernels.types cimport HAS_FMA, infinity, real, wide_double
from fastsoftmax._kernels.weights cimport (
    softmax_weights,
    sum_blocks,
    sum_in_order,
    sum_lanes,
)

cdef enum:
    MANY = 512  # draws from which on a sort finds their ranks sooner than looks into the row


cdef inline double log1p_excluding_max(
    const real *value, double *weight, Py_ssize_t n, double highest, double *sums
) noexcept nogil:
    """Return log1p of the sum of n weights without the first largest entry's own term.

    `sums` has room for the sum of each block.
    """
    cdef double total, max_weight
    cdef Py_ssize_t j = 0
    while j < n - 1 and value[j] != highest:
        j += 1
    max_weight = weight[j]
    weight[j] = 0
    sum_blocks(weight, n, sums)
    total = sum_in_order(sums, (n + BLOCK - 1) // BLOCK)
    weight[j] = max_weight
    return log1p_nonneg(total)


cdef inline double log1p_excluding_max_f64(
    const real *x, Py_ssize_t n, Py_ssize_t first, double highest, double inverse, double *sums
) noexcept nogil:
    """Return what `row_log1p_excluding_max` does, by float64 weights, at any 1/T.

    `first` is where the first largest entry is; `sums` has room for the sum of each block.
    """
    cdef double weight[BLOCK]
    cdef Py_ssize_t start, size
    for start from 0 <= start < n by BLOCK:
        size = min(<Py_ssize_t>BLOCK, n - start)
        softmax_weights(x + start, weight, size, highest, inverse)
        if start <= first < start + size:
            weight[first - start] = 0
        sums[start // BLOCK] = sum_lanes(<const double *>weight, size)
    return log1p_nonneg(sum_in_order(sums, (n + BLOCK - 1) // BLOCK))


cdef inline wide_double row_log1p_excluding_max(
    const float *x, Py_ssize_t n, double temperature, RowMax *top, const float *next_row,
    double *sums,
) noexcept nogil:
    """Return log1p of the sum of a row's weights without its first maximum's, at most 8 u off.

    By float32 weights; NaN if there are no probabilities. `top` is the row's maximum, and becomes
    that of `next_row`, unless that is NULL. For a `temperature_in_range`; `sums` has room for the
    sum of each block.
    """
    cdef ExpScale exp_scale
    cdef float highest = <float>top.value
    cdef float max_e
    cdef double log_sum, rest
    cdef DoubleDouble s
    cdef Py_ssize_t first = top.block
    exp_scale = scale_from_max(highest, temperature)
    max_e = max_term(highest, &exp_scale)
    s = sum_excluding_max(x, n, &exp_scale, top, next_row)
    rest = to_double(s) / max_e
    if not (-infinity(<float>0) < highest < infinity(<float>0) and rest < infinity(<double>0)):
        return NAN
    log1p_sums(&s, &max_e, 1, &log_sum)
    # At other temperatures log2(e) / T is rounded: an exponent d / T costs |d| / T u. On average,
    # by weight, those of the rest are at most log(n / rest): that plus log(rest) is an entropy.
    if exp_scale.rate != 0 and rest > 0 and (
        4 + (1.1 if HAS_FMA else 3.6) * log(max(1.0, n / rest))
    ) * rest > 8 * (1 + rest) * log_sum:
        first += find_first(x + first, min(<Py_ssize_t>BLOCK, n - first), highest)
        return log1p_excluding_max_f64(
            x, n, min(first, n - 1), highest, inverse_temperature(temperature, <double>0), sums
        )
    return log_sum


cdef inline double log1p_of_others(
    const real *x, Py_ssize_t n, Py_ssize_t first, double highest, double temperature,
    double *sums,
) noexcept nogil:
    """Return log1p of the sum of a row's weights without that of its first maximum, at `first`.

    For T > 0; `sums` has room for the sum of each block.
    """
    cdef RowMax top
    if real is float:
        if temperature_in_range(temperature):
            top.value = highest
            top.block = first // BLOCK * BLOCK
            return row_log1p_excluding_max(x, n, temperature, &top, NULL, sums)
    return log1p_excluding_max_f64(
        x, n, first, highest, inverse_temperature(temperature, <double>0), sums
    )


cdef inline double logprob(
    double x, double highest, double inverse, double log_others
) noexcept nogil:
    """Return the log-probability of the logit x; NaN stays."""
    if x > -infinity(<double>0):
        x = (x - highest) * inverse if inverse > 0 else 0
    return x - log_others


cdef inline void write_logprobs(
    const real *x, Py_ssize_t n, const int64_t *ids, Py_ssize_t m, double highest, double inverse,
    double log_others, real *y,
) noexcept nogil:
    """Write the log-probabilities of m entries of a row of n, for T > 0; NaN for ids outside it.

    Each id is read once: another thread may write them.
    """
    cdef int64_t i
    cdef Py_ssize_t j
    for j in range(m):
        i = ids[j]
        y[j] = <real>logprob(x[i] if 0 <= i < n else NAN, highest, inverse, log_others)


cdef inline void write_argmax_logprobs(
    const int64_t *ids, Py_ssize_t n, Py_ssize_t m, Py_ssize_t first, real *y
) noexcept nogil:
    """Write the log-probabilities of m entries of a row of n at T = 0, with its maximum at `first`.
    """
    cdef int64_t i
    cdef Py_ssize_t j
    for j in range(m):
        i = ids[j]
        y[j] = -infinity(<real>0) if 0 <= i < n else NAN
        if i == first:
            y[j] = 0


cdef inline void ranks_among(
    const real *x, Py_ssize_t n, const int64_t *places, Py_ssize_t m, Workspace *work,
    int64_t *ranks,
) noexcept nogil:
    """Write the ranks of m of n numbers, -1 for places outside; uses up all but `work.index`."""
    cdef real *maxima = <real *>work.maxima
    cdef Py_ssize_t *order = <Py_ssize_t *>work.weight
    cdef Py_ssize_t i
    cdef int64_t place
    if m > MANY and n <= work.room:
        for i in range(n):
            work.keys[i] = sortable_key(x[i])
            order[i] = i
        radix_sort_pairs(work.keys, order, n, <uint64_t *>work.masses, <Py_ssize_t *>work.value)
        for i in range(n):
            work.keys[order[i]] = i
        for i in range(m):
            place = places[i]
            ranks[i] = <int64_t>work.keys[place] if 0 <= place < n else -1
        return
    block_maxima(x, n, CHUNK, maxima, <real *>NULL)
    for i in range(m):
        place = places[i]
        ranks[i] = rank_in_block(x[place], place, x, n, maxima) if 0 <= place < n else -1


cdef inline void logprobs_row(
    const real *x, Py_ssize_t n, double temperature, const int64_t *ids, Py_ssize_t m,
    Workspace *work, RowMax *top, const real *next_row, real *y,
) noexcept nogil:
    """Write the log-probabilities of the entries `ids` of a row.

    For float32 `top` is its maximum, and becomes that of `next_row`, unless that is NULL.
    """
    cdef double highest = top.value
    cdef double inverse = inverse_temperature(temperature, <double>0) if temperature > 0 else 0
    cdef double log_others = NAN
    cdef double *sums = <double *>work.keys
    cdef Py_ssize_t first
    if real is float:
        if temperature_in_range(temperature):
            log_others = row_log1p_excluding_max(
                x, n, temperature, top, next_row, sums
            )
            write_logprobs(x, n, ids, m, highest, inverse, log_others, y)
            return
        if next_row != NULL:
            top[0] = row_max(next_row, n)
    highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima)
    if highest == highest:
        first = first_max(x, n, CHUNK, <real>highest, <real *>work.maxima)
        if temperature == 0:
            write_argmax_logprobs(ids, n, m, first, y)
            return
        log_others = log1p_excluding_max_f64(x, n, first, highest, inverse, sums)
    write_logprobs(x, n, ids, m, highest, inverse, log_others, y)


cdef inline void top_logprobs_row(
    const real *x, Py_ssize_t n, Py_ssize_t k, double temperature, Workspace *work,
    int64_t *indices, real *y,
) noexcept nogil:
    """Write the k > 0 most likely entries of a row, and their log-probabilities."""
    cdef double highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima)
    cdef double inverse = inverse_temperature(temperature, <double>0) if temperature > 0 else 0
    cdef double log_others = NAN
    cdef Py_ssize_t j, m = n
    if n <= SMALL_ROW:
        for j in range(n):
            work.keys[j] = sortable_key(x[j])
            work.index[j] = j
    else:
        m = select_superset(x, n, k, k, <real *>work.maxima, True, work)
        for j in range(m):
            work.keys[j] = sortable_key((<real *>work.value)[j])
    radix_sort_pairs(
        work.keys, work.index, m, <uint64_t *>work.masses, <Py_ssize_t *>work.weight
    )
    if highest == highest and temperature > 0:
        log_others = log1p_of_others(
            x, n, work.index[0], highest, temperature, work.masses
        )
    for j in range(k):
        indices[j] = work.index[j]
        if temperature == 0 and highest == highest:
            y[j] = -infinity(<real>0) if j > 0 else 0
        else:
            y[j] = <real>logprob(x[work.index[j]], highest, inverse, log_others)
