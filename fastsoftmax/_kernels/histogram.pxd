# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Weights added up in buckets of equal width in the logits: where a mass is reached, by one pass.

Nearer logits are never in farther buckets. The sums of the buckets are float64.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.marks cimport append_marked, mark_within
from fastsoftmax._kernels.radix cimport next_below
from fastsoftmax._kernels.sums cimport BLOCK, STEP, round_to_step
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.weights cimport sum_in_order

cdef enum:
    BUCKETS = 512
    TABLES = 4  # for neighbours: equal ones would have to wait for each other's sums
    LOOP = 16  # numbers that a loop takes at once

cdef struct Range:
    double low
    double high


cdef inline Range min_max(const real *x, Py_ssize_t n) noexcept nogil:
    """Return the smallest and the largest of n numbers, n > 0."""
    cdef real least[STEP]
    cdef real most[STEP]
    cdef real v
    cdef Range r
    cdef Py_ssize_t j, l
    for l in range(STEP):  # of fewer lanes gcc makes no vectors
        least[l] = most[l] = x[0]
    for j from 0 <= j < n - STEP + 1 by STEP:
        for l in range(STEP):
            v = x[j + l]
            most[l] = v if v > most[l] else most[l]
            least[l] = v if v < least[l] else least[l]
    r.low = r.high = x[0]
    for l in range(STEP):
        r.low = min(r.low, least[l])
        r.high = max(r.high, most[l])
    for j in range(n - n % STEP, n):
        r.low = min(r.low, x[j])
        r.high = max(r.high, x[j])
    return r


cdef inline Range min_max_within(
    const real *x, Py_ssize_t n, Range bounds, Py_ssize_t *count
) noexcept nogil:
    """Return the smallest and the largest of what lies within `bounds`, and write how many do.

    n is a multiple of LOOP.
    """
    cdef real least[LOOP]
    cdef real most[LOOP]
    cdef int found[LOOP]
    cdef real v, w
    cdef real low = <real>bounds.low
    cdef real high = <real>bounds.high
    cdef Range r
    cdef Py_ssize_t j, l
    for l in range(LOOP):
        least[l] = high
        most[l] = low
        found[l] = 0
    for j from 0 <= j < n by LOOP:
        for l in range(LOOP):
            v = x[j + l]
            w = v if v <= high else low
            v = v if v >= low else high
            most[l] = w if w > most[l] else most[l]
            least[l] = v if v < least[l] else least[l]
            found[l] += (x[j + l] >= low) & (x[j + l] <= high)
    r.low = bounds.high
    r.high = bounds.low
    count[0] = 0
    for l in range(LOOP):
        r.low = min(r.low, least[l])
        r.high = max(r.high, most[l])
        count[0] += found[l]
    return r


cdef inline double buckets_per_unit(Range r, double span) noexcept nogil:
    """Return how many buckets there are for a unit of the logits: they cover at most `span`."""
    return BUCKETS / min(span, r.high - r.low)


cdef inline real place_in_buckets(real x, real high, real scale) noexcept nogil:
    """Return (high - x) * scale, held within the buckets; it never falls where x falls.

    The whole part of it is the bucket. NaN comes into the last one.
    """
    cdef real d = (high - x) * scale
    d = d if d < BUCKETS - 1 else BUCKETS - 1
    return d if d > 0 else 0


cdef inline void bucket_indices(
    const real *x, int *bucket, Py_ssize_t n, real high, real scale
) noexcept nogil:
    """Write the buckets of n elements."""
    cdef Py_ssize_t j
    for j in range(n):
        bucket[j] = <int>place_in_buckets(x[j], high, scale)


cdef inline void places_in_buckets(
    const real *x, real *place, Py_ssize_t n, real high, real scale
) noexcept nogil:
    """Write the places in the buckets of n elements."""
    cdef Py_ssize_t j
    for j in range(n):
        place[j] = place_in_buckets(x[j], high, scale)


cdef inline void accumulate_buckets(
    const int *bucket, const real *weight, Py_ssize_t n, double *mass
) noexcept nogil:
    """Add the weights up in their buckets, in TABLES sums each."""
    cdef Py_ssize_t j, l
    for j from 0 <= j < n - TABLES + 1 by TABLES:
        for l in range(TABLES):
            mass[TABLES * bucket[j + l] + l] += weight[j + l]
    for j in range(n - n % TABLES, n):
        mass[TABLES * bucket[j]] += weight[j]


cdef inline void mass_histogram(
    const real *x, const real *weight, Py_ssize_t n, double high, double scale, double *mass
) noexcept nogil:
    """Write the sums of the weights in buckets."""
    cdef double part[TABLES * BUCKETS]
    cdef int bucket[BLOCK]
    cdef Py_ssize_t i, m
    for i in range(TABLES * BUCKETS):
        part[i] = 0
    for i from 0 <= i < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - i)
        bucket_indices(x + i, bucket, m, <real>high, <real>scale)
        accumulate_buckets(bucket, weight + i, m, part)
    for i in range(BUCKETS):
        mass[i] = sum_in_order(part + TABLES * i, TABLES)


cdef inline int bucket_reaching(const double *mass, double target, double *before) noexcept nogil:
    """Return the bucket in which the cumulative mass reaches `target`, else the last that has any.

    Write to `before` what the buckets before it have.
    """
    cdef double reached = 0
    cdef int b, found = 0
    before[0] = 0
    for b in range(BUCKETS):
        if mass[b] > 0:
            found = b
            before[0] = reached
            reached += mass[b]
            if reached >= target:
                break
    return found


cdef inline Py_ssize_t compact_bucket(
    const real *x, Py_ssize_t n, double high, double scale, int chosen, real *value
) noexcept nogil:
    """Write the elements of the bucket `chosen`, block by block; return how many.

    Both x and `value`, which do not overlap, have room for a step more than n.
    """
    cdef real place[BLOCK]
    cdef uint64_t marks[BLOCK >> 6]
    cdef real first = <real>chosen
    cdef real last = next_below(<real>(chosen + 1))
    cdef Py_ssize_t start, j, size, whole, m = 0
    for start from 0 <= start < n by BLOCK:
        size = min(<Py_ssize_t>BLOCK, n - start)
        whole = round_to_step(size + STEP - 1)
        places_in_buckets(x + start, place, size, <real>high, <real>scale)
        for j in range(size, whole):
            place[j] = -1
        if real is float:
            mark_within(<const real *>place, whole, first, last, marks, <uint32_t>0)
        else:
            mark_within(<const real *>place, whole, first, last, marks, <uint64_t>0)
        m = append_marked(x + start, <const uint64_t *>marks, whole, m, value)
    return m
