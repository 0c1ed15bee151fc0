# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""One drawn index for each contiguous row of logits. Built once per instruction set.

Formula
    weight_i = exp((x_i - max) / T). Temperature, then top_k, then top_p, then min_p leave a prefix
    of the order (larger logit, lower index). The index drawn is the first, walking what is left in
    index order, whose cumulative weight exceeds u * total.

Passes over memory
    One read for the block maxima and the checks. With top_k nothing else of the row's size; without
    it a second one for the weights. top_p and min_p look at a few hundred candidates first, and at
    eight times more while those do not settle it. Nothing is sorted.

Precision policy
    Weights and their sums in float64, whatever the logits' type: the same index from every
    implementation, and from the reference.

Source
    See ``_partial.pxd``; A. Holtzman et al., ICLR 2020, https://arxiv.org/abs/1904.09751 (top-p);
    N. N. Minh et al., ICLR 2025, https://arxiv.org/abs/2407.01082 (min-p).
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._math cimport exp_neg, infinity, lowest, real
from fastsoftmax._partial cimport (
    LANES,
    SIZE,
    Work,
    allocate,
    blocks_of,
    cut,
    order_of,
    pick,
    release,
    scan,
)

cdef enum:
    HAS_NAN = -1
    HAS_INF = -2
    HAS_NOTHING = -3
    BLOCK = 2048  # weights that stay in L1 until they are added
    FIRST = 256  # candidates that are looked at first
    CHUNK = 1 << 21  # elements between two looks for Ctrl-C: some milliseconds

cdef struct Filters:
    double inverse  # 1/T
    Py_ssize_t top_k  # 0 for all
    double top_p
    double log_min_p
    Py_ssize_t min_keep


cdef void weigh(
    const real *x, double *weight, Py_ssize_t n, double highest, double inverse, double low
) noexcept nogil:
    """weight = exp((x - highest) * inverse)"""
    cdef Py_ssize_t j
    for j in range(n):
        weight[j] = exp_neg((<double>x[j] - highest) * inverse, low)


cdef void weigh_all(
    const real *x, double *weight, Py_ssize_t n, double highest, double inverse
) noexcept nogil:
    """The same for every temperature above 0."""
    cdef Py_ssize_t j
    if inverse > 0:
        weigh(x, weight, n, highest, inverse, lowest(<double>0))
    else:  # T = inf, where -inf still has no weight
        for j in range(n):
            weight[j] = 1 if x[j] > -infinity(<real>0) else 0


cdef bint has_nan(const real *x, Py_ssize_t n) noexcept nogil:
    """Tell whether there is a NaN."""
    cdef Py_ssize_t j, l
    cdef int found = 0
    for j from 0 <= j < (n & ~31) by LANES:
        for l in range(LANES):
            found |= x[j + l] != x[j + l]
    for j in range(n & ~31, n):
        found |= x[j] != x[j]
    return found


cdef double sum_of(const double *weight, Py_ssize_t n) noexcept nogil:
    """Return the sum, over eight lanes."""
    cdef double lane[8]
    cdef double rest = 0
    cdef Py_ssize_t j, l
    for l in range(8):
        lane[l] = 0
    for j from 0 <= j < (n & ~7) by 8:
        for l in range(8):
            lane[l] += weight[j + l]
    for j in range(n & ~7, n):
        rest += weight[j]
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + (
        (lane[1] + lane[5]) + (lane[3] + lane[7])
    ) + rest


cdef double sum_in_order(const double *weight, Py_ssize_t n) noexcept nogil:
    """Return the sum as `walk` adds it."""
    cdef double total = 0
    cdef Py_ssize_t j
    for j in range(n):
        total += weight[j]
    return total


cdef Py_ssize_t walk(
    const double *weight, Py_ssize_t n, double before, double target
) noexcept nogil:
    """Return the first place whose cumulative weight, on top of `before`, exceeds `target`."""
    cdef Py_ssize_t j, last = 0
    for j in range(n):
        before += weight[j]
        if before > target:
            return j
        if weight[j] > 0:
            last = j
    return last  # a sum in another order said that it would be exceeded here


cdef double weigh_blocks(
    const real *x, Py_ssize_t n, double highest, double inverse, double *sums
) noexcept nogil:
    """Write the sum of the weights of each block; return the total, added in order."""
    cdef double weight[BLOCK]
    cdef double total = 0
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        weigh_all(x + start, weight, m, highest, inverse)
        sums[start // BLOCK] = sum_of(weight, m)
        total += sums[start // BLOCK]
    return total


cdef Py_ssize_t draw_from_row(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, double *sums
) noexcept nogil:
    """Draw from a whole row: find the block by the blocks' sums, then the place within it."""
    cdef double weight[BLOCK]
    cdef double before = 0
    cdef double target = u * weigh_blocks(x, n, highest, inverse, sums)
    cdef Py_ssize_t block = walk(sums, (n + BLOCK - 1) // BLOCK, 0, target)
    cdef Py_ssize_t j, m = min(<Py_ssize_t>BLOCK, n - block * BLOCK)
    for j in range(block):
        before += sums[j]
    weigh_all(x + block * BLOCK, weight, m, highest, inverse)
    return block * BLOCK + walk(weight, m, before, target)


cdef Py_ssize_t keep(
    real *value, Work *work, Py_ssize_t n, bint weighted, double target, Py_ssize_t least
) noexcept nogil:
    """Keep the shortest prefix of the n candidates whose mass (or number) reaches `target`.

    At least the first `least` of them stay. What is kept stays in index order.
    """
    cdef uint64_t last, order
    cdef Py_ssize_t ties, i, m = 0
    for i in range(n):
        work.keys[i] = order_of(value[i])
        work.masses[i] = work.weight[i]
    cut(work.keys, work.masses if weighted else NULL, n, target, &last, &ties)
    for i in range(n):
        order = order_of(value[i])
        work.keys[i] = order
        m += order > last
    if m + ties < min(least, n):
        cut(work.keys, NULL, n, <double>min(least, n), &last, &ties)
    m = 0
    for i in range(n):
        order = order_of(value[i])
        if order > last or (order == last and ties > 0):
            ties -= order == last
            value[m] = value[i]
            work.index[m] = work.index[i]
            work.weight[m] = work.weight[i]
            m += 1
    return m


cdef Py_ssize_t count_min_p(
    const real *value, Py_ssize_t n, double highest, const Filters *f
) noexcept nogil:
    """Return how many candidates are likely enough for min_p."""
    cdef Py_ssize_t i, m = 0
    for i in range(n):
        m += (<double>value[i] - highest) * f.inverse >= f.log_min_p
    return m


cdef Py_ssize_t candidates(
    const real *x, Py_ssize_t n, double highest, const Filters *f, Work *work
) noexcept nogil:
    """Apply top_k, top_p and min_p; leave value, index and weight in `work`, in index order."""
    cdef real *value = <real *>work.value
    cdef bint limited = 0 < f.top_k < n
    cdef double eps = 1.1920928955078125e-07 if real is float else 2.220446049250313e-16
    cdef double total = 0, mass
    cdef Py_ssize_t count = f.top_k if limited else max(<Py_ssize_t>FIRST, f.min_keep)
    cdef Py_ssize_t kept
    if not limited and f.top_p < 1:
        total = weigh_blocks(x, n, highest, f.inverse, work.masses)
    while True:
        if limited or count <= n // 64:
            pick(x, n, count, <real *>work.maxima, True, work)
        else:
            count = n
            for kept in range(n):
                value[kept] = x[kept]
                work.index[kept] = kept
        weigh_all(value, work.weight, count, highest, f.inverse)
        mass = sum_of(work.weight, count)
        if limited or count == n:
            break
        if f.top_p < 1:
            if mass >= f.top_p * total * (1 - 4 * eps):
                break
        elif count_min_p(value, count, highest, f) < count:
            break
        count *= 8
    if limited:
        total = mass
    if f.top_p < 1:
        count = keep(
            value, work, count, True, f.top_p * total * (1 - 4 * eps), f.min_keep
        )
    kept = count_min_p(value, count, highest, f)
    if kept < count:
        count = keep(value, work, count, False, <double>kept, f.min_keep)
    return count


cdef Py_ssize_t draw_row(
    const real *x, Py_ssize_t n, double u, double temperature, Filters *f, Work *work
) noexcept nogil:
    """Return the index that the uniform u draws, or why there is none."""
    cdef real *maxima = <real *>work.maxima
    cdef real high = -infinity(<real>0)
    cdef Py_ssize_t i, j, count
    if n == 0:
        return HAS_NOTHING
    if has_nan(x, n):
        return HAS_NAN
    scan(x, n, maxima)
    for i in range(blocks_of(n)):
        high = maxima[i] if maxima[i] > high else high
    if high == infinity(<real>0):
        return HAS_INF
    if high == -infinity(<real>0):
        return HAS_NOTHING
    if temperature == 0:
        i = 0
        while maxima[i] != high:
            i += 1
        j = i // LANES * SIZE  # the first chunk that has the maximum
        while x[j] != high:
            j += 1
        return j
    f.inverse = min(1 / temperature, 1.7976931348623157e+308)
    if f.top_k > 0:
        f.top_k = max(f.top_k, f.min_keep)
    f.min_keep = min(f.min_keep, n)
    if not 0 < f.top_k < n and f.top_p >= 1 and f.log_min_p == -infinity(<double>0):
        return draw_from_row(x, n, u, high, f.inverse, work.masses)
    count = candidates(x, n, high, f, work)
    return work.index[walk(work.weight, count, 0, u * sum_in_order(work.weight, count))]


def draw_rows(
    const real[:, ::1] x,
    const double[::1] u,
    const double[::1] temperature,
    const int64_t[::1] top_k,
    const double[::1] top_p,
    const double[::1] log_min_p,
    Py_ssize_t min_keep,
    int64_t[::1] ids,
):
    """Write the index drawn from each row of `x` into `ids`, or a negative code.

    The parameters have one element, or one for each row; top_k = 0, top_p = 1 and log_min_p = -inf
    keep everything.
    """
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t each_t = temperature.shape[0] > 1
    cdef Py_ssize_t each_k = top_k.shape[0] > 1
    cdef Py_ssize_t each_p = top_p.shape[0] > 1
    cdef Py_ssize_t each_m = log_min_p.shape[0] > 1
    cdef Py_ssize_t i, stop, start = 0
    cdef const real *row = NULL
    cdef Filters f
    cdef Work work
    try:
        if not allocate(&work, n):
            raise MemoryError(f"no memory to draw from rows of {n} elements")
        while start < rows:
            stop = min(rows, start + max(1, CHUNK // max(n, 1)))
            with nogil:
                for i in range(start, stop):
                    f.top_k = top_k[i * each_k]
                    f.top_p = top_p[i * each_p]
                    f.log_min_p = log_min_p[i * each_m]
                    f.min_keep = min_keep
                    if n:
                        row = &x[i, 0]
                    ids[i] = draw_row(row, n, u[i], temperature[i * each_t], &f, &work)
            PyErr_CheckSignals()
            start = stop
    finally:
        release(&work)
