# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Log-probabilities and ranks of entries of a row."""

from libc.math cimport NAN, log
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.abi cimport MANY_IDS, temperature_in_range
from fastsoftmax._kernels.block_maxima cimport (
    CHUNK,
    LANES,
    any_reaching,
    block_maxima_of_row,
    rank_in_block,
)
from fastsoftmax._kernels.block_select cimport select_superset
from fastsoftmax._kernels.exp_scale cimport ExpScale, inverse_temperature, max_term, scale_from_max
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.maxima cimport RowMax, find_first, init_max, row_max
from fastsoftmax._kernels.normalize cimport log1p_sums
from fastsoftmax._kernels.packed_row cimport (
    PackedRow,
    open_part,
    open_place,
    row_element,
    row_part,
)
from fastsoftmax._kernels.radix cimport Descending, radix_sort_pairs, ranks_by_sort, sortable_key
from fastsoftmax._kernels.row cimport lanes_excluding_max, sum_excluding_max
from fastsoftmax._kernels.row_maximum cimport first_max, max_and_block_maxima
from fastsoftmax._kernels.sums cimport BLOCK, DoubleDouble, LaneSums, fold_lanes, to_double
from fastsoftmax._kernels.truncation cimport SMALL_ROW
from fastsoftmax._kernels.types cimport HAS_FMA, infinity, real, wide_double
from fastsoftmax._kernels.weights cimport (
    softmax_weights,
    sum_blocks,
    sum_in_order,
    sum_lanes,
)
from fastsoftmax._kernels.workspace cimport Workspace

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
    const real *x, Py_ssize_t n, Py_ssize_t first, double highest, double inverse, double *sums,
    PackedRow *packed,
) noexcept nogil:
    """Return what `row_log1p_excluding_max` does, by float64 weights, at any 1/T.

    `first` is where the first largest entry is; `sums` has room for the sum of each block.
    """
    cdef double weight[BLOCK]
    cdef const real *part
    cdef Py_ssize_t start, size, m
    for start from 0 <= start < n by BLOCK:
        size = min(<Py_ssize_t>BLOCK, n - start)
        part = open_part(x, start, size, packed, &m)
        softmax_weights(part, weight, m, highest, inverse)
        if start <= first < start + size:
            weight[open_place(packed, start, first)] = 0
        sums[start // BLOCK] = sum_lanes(<const double *>weight, m)
    return log1p_nonneg(sum_in_order(sums, (n + BLOCK - 1) // BLOCK))


cdef inline RowMax packed_row_max(
    const float *x, Py_ssize_t n, PackedRow *packed
) noexcept nogil:
    """Return what `row_max` does."""
    cdef RowMax top, of_part
    cdef const float *part
    cdef Py_ssize_t start, size
    init_max(&top)
    for start from 0 <= start < n by BLOCK:
        part = open_part(x, start, min(<Py_ssize_t>BLOCK, n - start), packed, &size)
        of_part = row_max(part, size)
        if of_part.value > top.value:
            top.value = of_part.value
            top.block = start
    return top


cdef inline DoubleDouble packed_sum_excluding_max(
    const float *x, Py_ssize_t n, const ExpScale *exp_scale, const RowMax *top,
    PackedRow *packed,
) noexcept nogil:
    """Return what `sum_excluding_max` does."""
    cdef DoubleDouble s
    cdef LaneSums lanes
    cdef const float *part
    cdef Py_ssize_t start, size
    s.high = s.low = 0
    for start from 0 <= start < n by BLOCK:
        part = open_part(x, start, min(<Py_ssize_t>BLOCK, n - start), packed, &size)
        lanes_excluding_max(
            part, size, <float>top.value, exp_scale, start == top.block, &lanes,
            <const float *>NULL,
        )
        fold_lanes(&s, &lanes, <float>0)
    return s


cdef inline wide_double row_log1p_excluding_max(
    const float *x, Py_ssize_t n, double temperature, RowMax *top, const float *next_row,
    double *sums, PackedRow *packed,
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
    cdef Py_ssize_t size, first = top.block
    exp_scale = scale_from_max(highest, temperature)
    max_e = max_term(highest, &exp_scale)
    if packed == NULL:
        s = sum_excluding_max(x, n, &exp_scale, top, next_row)
    else:
        s = packed_sum_excluding_max(x, n, &exp_scale, top, packed)
    rest = to_double(s) / max_e
    if not (-infinity(<float>0) < highest < infinity(<float>0) and rest < infinity(<double>0)):
        return NAN
    log1p_sums(&s, &max_e, 1, &log_sum)
    # Without fma d / T is rounded at other temperatures, twice: 3.6 |d| / T u. On average, by
    # weight, those of the rest are at most log(n / rest): that plus log(rest) is an entropy.
    if not HAS_FMA and exp_scale.rate != 0 and rest > 0 and (
        4 + 3.6 * log(max(1.0, n / rest))
    ) * rest > 8 * (1 + rest) * log_sum:
        size = min(<Py_ssize_t>BLOCK, n - first)
        first += find_first(row_part(x, first, size, packed), size, highest)
        return log1p_excluding_max_f64(
            x, n, min(first, n - 1), highest, inverse_temperature(temperature, <double>0), sums,
            packed,
        )
    return log_sum


cdef inline double log1p_of_others(
    const real *x, Py_ssize_t n, Py_ssize_t first, double highest, double temperature,
    double *sums, PackedRow *packed,
) noexcept nogil:
    """Return log1p of the sum of a row's weights without that of its first maximum, at `first`.

    For T > 0; `sums` has room for the sum of each block.
    """
    cdef RowMax top
    if real is float:
        if temperature_in_range(temperature):
            top.value = highest
            top.block = first // BLOCK * BLOCK
            return row_log1p_excluding_max(x, n, temperature, &top, NULL, sums, packed)
    return log1p_excluding_max_f64(
        x, n, first, highest, inverse_temperature(temperature, <double>0), sums, packed
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
    double log_others, real *y, PackedRow *packed,
) noexcept nogil:
    """Write the log-probabilities of m entries of a row of n, for T > 0; NaN for ids outside it.

    Each id is read once: another thread may write them.
    """
    cdef int64_t i
    cdef Py_ssize_t j
    for j in range(m):
        i = ids[j]
        y[j] = <real>logprob(
            row_element(x, i, packed) if 0 <= i < n else NAN, highest, inverse, log_others
        )


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


cdef inline Py_ssize_t rank_in_row(
    const real *x, Py_ssize_t place, Py_ssize_t n, const real *maxima, PackedRow *packed
) noexcept nogil:
    """Return the rank of an element of a row, by its block maxima."""
    cdef real v = row_element(x, place, packed)
    cdef Py_ssize_t start, size, rank = 0
    if packed == NULL:
        return rank_in_block(v, place, x, n, maxima)
    for start from 0 <= start < n by CHUNK:
        if any_reaching(maxima, LANES, v, start < place):
            size = min(<Py_ssize_t>CHUNK, n - start)
            rank += rank_in_block(
                v, place - start, row_part(x, start, size, packed), size, maxima
            )
        maxima += LANES
    return rank


cdef inline void ranks_among(
    const real *x, Py_ssize_t n, const int64_t *places, Py_ssize_t m, Workspace *work,
    int64_t *ranks, PackedRow *packed,
) noexcept nogil:
    """Write the ranks of m of n numbers, -1 for places outside; uses up all but `work.index`."""
    cdef real *maxima = <real *>work.maxima
    cdef Py_ssize_t i
    cdef int64_t place
    if m >= MANY_IDS and n <= work.room and packed == NULL:
        ranks_by_sort(
            x, n, places, m, ranks, work.keys, <Py_ssize_t *>work.weight,
            <uint64_t *>work.masses, <Py_ssize_t *>work.value,
        )
        return
    block_maxima_of_row(x, <Descending>0, n, CHUNK, maxima, <real *>NULL, packed)
    for i in range(m):
        place = places[i]
        ranks[i] = rank_in_row(x, place, n, maxima, packed) if 0 <= place < n else -1


cdef inline void logprobs_row(
    const real *x, Py_ssize_t n, double temperature, const int64_t *ids, Py_ssize_t m,
    Workspace *work, RowMax *top, const real *next_row, real *y,
) noexcept nogil:
    """Write the log-probabilities of the entries `ids` of a row.

    For float32 `top` is its maximum, and becomes that of `next_row`, unless that is NULL; but where
    the row is packed, it is found here.
    """
    cdef double highest = top.value
    cdef double inverse = inverse_temperature(temperature, <double>0) if temperature > 0 else 0
    cdef double log_others = NAN
    cdef double *sums = <double *>work.keys
    cdef Py_ssize_t first
    if real is float:
        if temperature_in_range(temperature):
            if work.packed != NULL:
                top[0] = packed_row_max(x, n, work.packed)
                highest = top.value
            log_others = row_log1p_excluding_max(
                x, n, temperature, top, next_row, sums, work.packed
            )
            write_logprobs(x, n, ids, m, highest, inverse, log_others, y, work.packed)
            return
        if next_row != NULL:
            top[0] = row_max(next_row, n)
    highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima, work.packed)
    if highest == highest:
        first = first_max(x, n, CHUNK, <real>highest, <real *>work.maxima, work.packed)
        if temperature == 0:
            write_argmax_logprobs(ids, n, m, first, y)
            return
        log_others = log1p_excluding_max_f64(
            x, n, first, highest, inverse, sums, work.packed
        )
    write_logprobs(x, n, ids, m, highest, inverse, log_others, y, work.packed)


cdef inline Py_ssize_t select_in_order(
    const real *x, Py_ssize_t n, Py_ssize_t k, Workspace *work
) noexcept nogil:
    """Leave the indices of the k > 0 best of n elements in `work.index`, best first.

    `work` has the block maxima of CHUNK. Return how many there are, k or more.
    """
    cdef const real *part
    cdef Py_ssize_t j, m = n
    if n <= SMALL_ROW:
        part = row_part(x, 0, n, work.packed)
        for j in range(n):
            work.keys[j] = sortable_key(part[j])
            work.index[j] = j
    else:
        m = select_superset(x, n, k, k, <real *>work.maxima, True, work)
        for j in range(m):
            work.keys[j] = sortable_key((<real *>work.value)[j])
    radix_sort_pairs(
        work.keys, work.index, m, <uint64_t *>work.masses, <Py_ssize_t *>work.weight
    )
    return m


cdef inline void top_logprobs_row(
    const real *x, Py_ssize_t n, Py_ssize_t k, double temperature, Workspace *work,
    int64_t *indices, real *y,
) noexcept nogil:
    """Write the k > 0 most likely entries of a row, and their log-probabilities."""
    cdef double highest = max_and_block_maxima(
        x, n, CHUNK, <real *>work.maxima, work.packed
    )
    cdef double inverse = inverse_temperature(temperature, <double>0) if temperature > 0 else 0
    cdef double log_others = NAN
    cdef Py_ssize_t j
    select_in_order(x, n, k, work)
    if highest == highest and temperature > 0:
        log_others = log1p_of_others(
            x, n, work.index[0], highest, temperature, work.masses, work.packed
        )
    for j in range(k):
        indices[j] = work.index[j]
        if temperature == 0 and highest == highest:
            y[j] = -infinity(<real>0) if j > 0 else 0
        else:
            y[j] = <real>logprob(
                row_element(x, work.index[j], work.packed), highest, inverse, log_others
            )
