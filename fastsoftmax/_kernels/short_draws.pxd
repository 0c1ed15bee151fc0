# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Draws from whole rows of few entries, many rows at once: the lanes of a vector are rows.

Plane j of a batch holds entry j of each row. The weights, the order of their sums and the walk
along them are those of ``weights.pxd``, so that a row has the same draw in any batch.
"""

from libc.stdint cimport int32_t, int64_t

from fastsoftmax._kernels.abi cimport Filters, SampleCall
from fastsoftmax._kernels.batch_select cimport BATCH_ROWS, transpose_tile
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.truncation cimport has_filters
from fastsoftmax._kernels.types cimport infinity, loop_void, out_ptr64, real
from fastsoftmax._kernels.weights cimport cdf_search

cdef enum:
    MAX_LENGTH = 64  # entries of a row
    PLANES = 1024  # MAX_LENGTH of BATCH_ROWS


cdef inline bint draws_in_batch(
    const SampleCall *call, Py_ssize_t rows, const Filters *f
) noexcept nogil:
    """Return whether a call draws one id from each row as it is, of rows for `draw_short_rows`."""
    return (
        rows >= BATCH_ROWS and call.n <= MAX_LENGTH and call.packed == NULL
        and call.m == 1 and call.race == NULL
        and call.filter_stride == 0 and not has_filters(f, call.n)
        and f.temperature > 0 and inverse_temperature(f.temperature, <double>0) > 0
    )


cdef inline void read_planes(const real *x, Py_ssize_t n, double *plane) noexcept nogil:
    """Write the planes of BATCH_ROWS rows of n."""
    cdef int64_t bits64[PLANES]
    cdef int32_t bits32[PLANES]
    cdef Py_ssize_t i
    if real is float:
        transpose_tile(x, n, n, bits32)
        for i in range(n * BATCH_ROWS):
            plane[i] = (<const float *>bits32)[i]
    else:
        transpose_tile(x, n, n, bits64)
        for i in range(n * BATCH_ROWS):
            plane[i] = (<const double *>bits64)[i]


cdef inline loop_void plane_weights(
    out_ptr64 plane, Py_ssize_t n, double inverse, double low, out_ptr64 valid
) noexcept nogil:
    """Replace each number by its weight; `valid` becomes 0 where the maximum is no number, else 1.
    """
    cdef double highest[BATCH_ROWS]
    cdef double checked[BATCH_ROWS]  # NaN where an element is NaN
    cdef double v
    cdef Py_ssize_t j, r
    for r in range(BATCH_ROWS):
        highest[r] = -infinity(<double>0)
    for r in range(BATCH_ROWS):
        checked[r] = 0
    for j in range(n):
        for r in range(BATCH_ROWS):
            v = plane[j * BATCH_ROWS + r]
            highest[r] = v if v > highest[r] else highest[r]
        for r in range(BATCH_ROWS):
            v = plane[j * BATCH_ROWS + r]
            checked[r] = v if v != v else checked[r]
    for r in range(BATCH_ROWS):
        v = highest[r] - highest[r] + checked[r]
        valid[r] = 1.0 if v == v else 0.0
    for j in range(n):
        for r in range(BATCH_ROWS):
            plane[j * BATCH_ROWS + r] = exp_nonpositive(
                (plane[j * BATCH_ROWS + r] - highest[r]) * inverse, low
            )


cdef inline loop_void plane_sums(const double *plane, Py_ssize_t n, out_ptr64 total) noexcept nogil:
    """Write the sum of each row's weights, as `sum_lanes` adds them."""
    cdef double lane[8 * BATCH_ROWS]
    cdef double rest[BATCH_ROWS]
    cdef Py_ssize_t j, r
    for r in range(BATCH_ROWS):
        rest[r] = 0
    for r in range(BATCH_ROWS):
        total[r] = 0
    for j in range(n & ~7, n):
        for r in range(BATCH_ROWS):
            rest[r] += plane[j * BATCH_ROWS + r]
    if n >= 8:
        for r in range(8 * BATCH_ROWS):
            lane[r] = plane[r]
        for j from 8 <= j < (n & ~7) by 8:
            for r in range(8 * BATCH_ROWS):
                lane[r] += plane[j * BATCH_ROWS + r]
        for r in range(BATCH_ROWS):
            total[r] = (
                (lane[r] + lane[4 * BATCH_ROWS + r])
                + (lane[2 * BATCH_ROWS + r] + lane[6 * BATCH_ROWS + r])
            ) + (
                (lane[BATCH_ROWS + r] + lane[5 * BATCH_ROWS + r])
                + (lane[3 * BATCH_ROWS + r] + lane[7 * BATCH_ROWS + r])
            )
    for r in range(BATCH_ROWS):
        total[r] += rest[r]


cdef inline loop_void plane_places(
    const double *plane, Py_ssize_t n, const double *target, out_ptr64 place
) noexcept nogil:
    """Write how many of each row's cumulative weights do not exceed its `target`."""
    cdef double before[BATCH_ROWS]
    cdef Py_ssize_t j, r
    for r in range(BATCH_ROWS):
        before[r] = 0
    for r in range(BATCH_ROWS):
        place[r] = 0
    for j in range(n):
        for r in range(BATCH_ROWS):
            before[r] += plane[j * BATCH_ROWS + r]
        for r in range(BATCH_ROWS):
            place[r] += 0.0 if before[r] > target[r] else 1.0


cdef inline Py_ssize_t place_of_last(
    const double *plane, Py_ssize_t n, double target
) noexcept nogil:
    """Return what `cdf_search` does for one row of planes."""
    cdef double weight[MAX_LENGTH]
    cdef Py_ssize_t j
    for j in range(n):
        weight[j] = plane[j * BATCH_ROWS]
    return cdf_search(weight, n, 0, target)


cdef inline void draw_short_rows(
    const real *x, Py_ssize_t rows, Py_ssize_t n, double temperature, const double *u, int64_t *ids
) noexcept nogil:
    """Write an id drawn from each of `rows` rows of n by its uniform; -1 if there are no weights.

    The rows are BATCH_ROWS at least; 1/T is above 0.
    """
    cdef double plane[PLANES]
    cdef double valid[BATCH_ROWS]
    cdef double target[BATCH_ROWS]
    cdef double place[BATCH_ROWS]
    cdef double inverse = inverse_temperature(temperature, <double>0)
    cdef double low = exp_underflow_bound(<double>0)
    cdef Py_ssize_t start, i, r
    for start from 0 <= start < rows by BATCH_ROWS:
        i = min(start, rows - BATCH_ROWS)  # some rows twice, in the end
        read_planes(x + i * n, n, plane)
        plane_weights(<out_ptr64>plane, n, inverse, low, <out_ptr64>valid)
        plane_sums(plane, n, <out_ptr64>target)
        for r in range(BATCH_ROWS):
            target[r] *= u[i + r]
        plane_places(plane, n, target, <out_ptr64>place)
        for r in range(BATCH_ROWS):
            ids[i + r] = <int64_t>place[r] if valid[r] > 0 else -1
            if place[r] == n and valid[r] > 0:
                ids[i + r] = place_of_last(plane + r, n, target[r])
