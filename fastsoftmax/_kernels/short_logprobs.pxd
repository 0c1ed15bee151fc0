# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Log-probabilities of entries of many short rows, a batch of them at a time.

``short_rows.pxd`` has the loops for the shortest ones, of which the lanes of a vector are rows, and
``row_batch.pxd`` those for others, and why there are batches. A row has the bits that
``token_logprobs.pxd`` gives it.
"""

from libc.math cimport NAN
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    SampleCall,
    TopLogprobsCall,
    temperature_in_range,
)
from fastsoftmax._kernels.batch_scale cimport (
    BATCH_ROWS,
    SCALE_FIELDS,
    max_terms,
    scales_from_maxima,
    set_rate,
)
from fastsoftmax._kernels.batch_select cimport MAX_BATCH_K, batch_select, selects_in_batch
from fastsoftmax._kernels.block_maxima cimport count_before
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.maxima cimport MIN_BATCH_LENGTH, row_maxima
from fastsoftmax._kernels.normalize cimport log1p_sums
from fastsoftmax._kernels.packed_row cimport PackedRow
from fastsoftmax._kernels.row_batch cimport BATCH_ELEMENTS, exp_batch_centered
from fastsoftmax._kernels.short_rows cimport (
    soa_exp_centered,
    soa_log1p_excluding_max,
    soa_maxima,
)
from fastsoftmax._kernels.sums cimport LANES, STEP, DoubleDouble
from fastsoftmax._kernels.sums_excluding_max cimport batch_sums_excluding_max
from fastsoftmax._kernels.token_logprobs cimport write_logprobs
from fastsoftmax._kernels.transpose cimport STRIP, transpose_in_apart, whole_strips
from fastsoftmax._kernels.types cimport HAS_FMA, infinity, noinline_void, out_ptr32


cdef enum:
    MAX_LENGTH = 256  # entries of a row


cdef inline bint logprobs_in_batch(
    Py_ssize_t rows, Py_ssize_t n, double temperature, Py_ssize_t temperature_stride
) noexcept nogil:
    """Return whether float32 rows as they are, all of one temperature, are for this file."""
    return (
        rows > STRIP and n <= MAX_LENGTH and temperature_stride == 0
        and temperature_in_range(temperature) and (HAS_FMA or temperature == 1)
    )


cdef inline noinline_void logs_of_short_batch(
    const float *x, Py_ssize_t rows, Py_ssize_t n, const float *inverse, float *exp_scale,
    float *e, float *highest, double *logs,
) noexcept nogil:
    """Do what `logs_of_batch` does for rows of n < MIN_BATCH_LENGTH, which fill whole strips."""
    cdef float soa[MIN_BATCH_LENGTH * BATCH_ROWS]
    cdef float max_e[BATCH_ROWS]
    cdef double sums[BATCH_ROWS]
    max_e[0] = 0  # rows > 0, which the compiler does not know
    transpose_in_apart(x, rows, n, soa)
    soa_maxima(<const float *>soa, rows, n, <out_ptr32>highest)
    scales_from_maxima(<const float *>highest, inverse, rows, exp_scale, BATCH_ROWS)
    soa_exp_centered(<const float *>soa, e, rows, n, <const float *>exp_scale)
    max_terms(
        <const float *>highest, <const float *>exp_scale, rows, BATCH_ROWS, <out_ptr32>max_e
    )
    soa_log1p_excluding_max(
        <const float *>soa, e, rows, n, <const float *>highest, <const float *>max_e, sums, logs
    )


cdef inline noinline_void logs_of_batch(
    const float *x, Py_ssize_t rows, Py_ssize_t n, const float *inverse, float *exp_scale,
    float *e, float *highest, double *logs,
) noexcept nogil:
    """Write the maximum of each row, and the logarithm of the sum of its weights.

    `e` is 0 between rows. Up to 7 elements behind the last row are read.
    """
    cdef float scratch[48 * BATCH_ROWS]
    cdef double lanes[13 * BATCH_ROWS]
    cdef float max_e[BATCH_ROWS]
    cdef DoubleDouble s[BATCH_ROWS]
    cdef Py_ssize_t width = (n + STEP - 1) // STEP * STEP
    max_e[0] = 0  # rows > 0, which the compiler does not know
    row_maxima(x, rows, n, highest, scratch)
    scales_from_maxima(<const float *>highest, inverse, rows, exp_scale, BATCH_ROWS)
    exp_batch_centered(x, e, width, rows, n, <const float *>exp_scale, x)
    max_terms(
        <const float *>highest, <const float *>exp_scale, rows, BATCH_ROWS, <out_ptr32>max_e
    )
    batch_sums_excluding_max(
        x, e, width, rows, n, <const float *>highest, <const float *>max_e, scratch,
        lanes, s,
    )
    log1p_sums(s, <const float *>max_e, rows, logs)


cdef inline Py_ssize_t logprobs_of_short_rows(
    const float *x, Py_ssize_t rows, Py_ssize_t n, double temperature, const int64_t *ids,
    Py_ssize_t m, float *y,
) noexcept nogil:
    """Write the log-probabilities of m entries of rows for which `logprobs_in_batch` is true.

    Return how many rows are done: all, or all but the last, behind which nothing may be read.
    """
    cdef float e[BATCH_ELEMENTS]
    cdef float exp_scale[SCALE_FIELDS * BATCH_ROWS]
    cdef float inverse[BATCH_ROWS]
    cdef float highest[BATCH_ROWS]
    cdef double logs[BATCH_ROWS]
    cdef double inverse64 = inverse_temperature(temperature, <double>0)
    cdef double log_sum
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t size = BATCH_ROWS
    cdef Py_ssize_t r, k
    cdef bint in_planes = n < MIN_BATCH_LENGTH
    if not in_planes:
        size = min(size, BATCH_ELEMENTS // ((n + STEP - 1) // STEP * STEP))
        rows -= n % LANES != 0
    memset(e, 0, sizeof(e))
    for r in range(BATCH_ROWS):
        inverse[r] = inverse_temperature(temperature, <float>0)
        set_rate(temperature, exp_scale + r, BATCH_ROWS)
    while first < rows:
        if in_planes:
            first = min(first, rows - STRIP)  # the last strip may begin among rows that are done
            k = min(size, whole_strips(rows - first))
            logs_of_short_batch(
                x + first * n, k, n, <const float *>inverse, exp_scale, e, highest, logs
            )
        else:
            k = min(size, rows - first)
            logs_of_batch(
                x + first * n, k, n, <const float *>inverse, exp_scale, e, highest, logs
            )
        for r in range(k):
            log_sum = logs[r]
            if not -infinity(<float>0) < highest[r] < infinity(<float>0):
                log_sum = NAN
            write_logprobs(
                x + (first + r) * n, n, ids + (first + r) * m, m, highest[r], inverse64, log_sum,
                y + (first + r) * m, <PackedRow *>NULL,
            )
        first += k
    return rows


cdef inline bint reports_in_batch(
    const SampleCall *call, Py_ssize_t rows, double temperature
) noexcept nogil:
    """Return whether what is asked for of one draw from each whole row is for this file, if at all.
    """
    return not call.has_output or (
        call.dtype == FLOAT32 and logprobs_in_batch(rows, call.n, temperature, 0)
    )


cdef inline Py_ssize_t report_short_rows(
    const SampleCall *call, Py_ssize_t first, Py_ssize_t rows, const float *x, double temperature
) noexcept nogil:
    """Write log-probabilities and ranks of the ids drawn; return how many rows are done.

    Where nothing is filtered, both log-probabilities are the same.
    """
    cdef Py_ssize_t n = call.n
    cdef const int64_t *ids = call.ids + first
    cdef float *logprobs = <float *>call.output.logprobs + first
    cdef int64_t *ranks = call.output.ranks + first
    cdef Py_ssize_t done = logprobs_of_short_rows(x, rows, n, temperature, ids, 1, logprobs)
    cdef Py_ssize_t r
    memcpy(<float *>call.output.filtered + first, logprobs, done * sizeof(float))
    for r in range(done):
        ranks[r] = -1
        if ids[r] >= 0:
            ranks[r] = count_before(x[r * n + ids[r]], ids[r], x + r * n, n)
    return done


cdef inline Py_ssize_t top_logprobs_of_short_rows(
    const TopLogprobsCall *call, Py_ssize_t first, Py_ssize_t rows, const float *x
) noexcept nogil:
    """Write the most likely entries of rows and their log-probabilities; return how many are done.

    0 where the rows are not for this file.
    """
    cdef float values[MAX_BATCH_K * BATCH_ROWS]
    cdef Py_ssize_t n = call.n, k = call.k
    cdef double temperature = call.temperature[first * call.temperature_stride]
    cdef int64_t *indices = call.indices + first * k
    cdef Py_ssize_t start = 0, count
    if (
        call.packed != NULL or not selects_in_batch(rows, n, k, sizeof(float))
        or not logprobs_in_batch(rows, n, temperature, call.temperature_stride)
    ):
        return 0
    while start < rows:
        start = min(start, rows - STRIP)  # some rows twice, in the end
        count = min(<Py_ssize_t>BATCH_ROWS, rows - start)
        batch_select(x + start * n, count, n, k, True, True, values, indices + start * k)
        start += count
    return logprobs_of_short_rows(
        x, rows, n, temperature, indices, k, <float *>call.logprobs + first * k
    )
