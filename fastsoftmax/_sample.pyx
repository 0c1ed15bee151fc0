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
from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport NAN
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels cimport Filters, SampleFunctions
from fastsoftmax._math cimport exp_neg, infinity, lowest, real
from fastsoftmax._partial cimport (
    LANES,
    SIZE,
    SPARSE,
    STEP,
    Work,
    allocate,
    blocks_of,
    cut,
    keep,
    order_of,
    pick,
    release,
    scan,
)

cdef enum:
    BLOCK = 2048  # weights that stay in L1 until they are added
    FIRST = 256  # candidates that are looked at first
    CHUNK = 1 << 21  # elements between two looks for Ctrl-C: some milliseconds


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


cdef Py_ssize_t shorten(
    real *value, Work *work, Py_ssize_t n, bint weighted, double target, Py_ssize_t least
) noexcept nogil:
    """Keep the shortest prefix of the n candidates whose mass (or number) reaches `target`.

    At least the first `least` of them stay. What is kept stays in index order.
    """
    cdef uint64_t last
    cdef Py_ssize_t ties, i, m = 0
    for i in range(n):
        work.keys[i] = order_of(value[i])
        work.masses[i] = work.weight[i]
    cut(work.keys, work.masses if weighted else NULL, n, target, &last, &ties)
    least = min(least, n)
    if least > 1:
        for i in range(n):
            work.keys[i] = order_of(value[i])
            m += work.keys[i] > last
        if m + ties < least:
            cut(work.keys, NULL, n, <double>least, &last, &ties)
    return keep(value, work.index, n, last, ties, value, work.index, work.weight)


cdef Py_ssize_t count_min_p(
    const real *value, Py_ssize_t n, double highest, double inverse, double log_min_p
) noexcept nogil:
    """Return how many candidates are likely enough for min_p."""
    cdef Py_ssize_t i, m = 0
    for i in range(n):
        m += (<double>value[i] - highest) * inverse >= log_min_p
    return m


cdef Py_ssize_t candidates(
    const real *x, Py_ssize_t n, double highest, double inverse, const Filters *f, Work *work
) noexcept nogil:
    """Apply top_k, top_p and min_p; leave value, index and weight in `work`, in index order."""
    cdef real *value = <real *>work.value
    cdef double eps = 1.1920928955078125e-07 if real is float else 2.220446049250313e-16
    cdef double share = f.top_p * (1 - 4 * eps)
    cdef double total = 0, mass
    cdef bint limited = 0 < f.top_k < n
    cdef Py_ssize_t least = min(f.min_keep, n)
    cdef Py_ssize_t count, likely, i
    count = max(f.top_k, least) if limited else max(<Py_ssize_t>FIRST, least)
    if not limited and f.top_p < 1:
        total = weigh_blocks(x, n, highest, inverse, work.masses)
    while True:
        # At T = inf the order of the logits says nothing about that of the probabilities.
        if limited or (count <= n // SPARSE and inverse > 0):
            pick(x, n, count, <real *>work.maxima, True, work)
        else:
            count = n
            for i in range(n):
                value[i] = x[i]
                work.index[i] = i
        weigh_all(value, work.weight, count, highest, inverse)
        mass = sum_of(work.weight, count)
        if limited or count == n:
            break
        if f.top_p < 1:
            if mass >= share * total:
                break
        elif count_min_p(value, count, highest, inverse, f.log_min_p) < count:
            break
        count *= 8
    if limited:
        total = mass
    if inverse == 0:
        for i in range(count):
            value[i] = <real>highest if value[i] > -infinity(<real>0) else value[i]
    if f.top_p < 1:
        count = shorten(value, work, count, True, share * total, least)
    if f.log_min_p > -infinity(<double>0):
        likely = count_min_p(value, count, highest, inverse, f.log_min_p)
        if likely < count:
            count = shorten(value, work, count, False, <double>likely, least)
    return count


cdef double highest_of(const real *x, Py_ssize_t n, real *maxima) noexcept nogil:
    """Write the block maxima of a row and return the largest; NaN if there are no probabilities."""
    cdef real sums[STEP]
    cdef real high = -infinity(<real>0)
    cdef Py_ssize_t blocks = blocks_of(n)
    cdef Py_ssize_t i
    cdef bint suspect = False
    for i in range(STEP):
        sums[i] = 0
    scan(x, n, maxima, sums)
    scan(maxima, blocks, maxima + blocks, NULL)
    for i in range(blocks, blocks + blocks_of(blocks)):
        high = maxima[i] if maxima[i] > high else high
    for i in range(STEP):
        suspect |= sums[i] != sums[i]
    if suspect:  # a NaN, or +inf (from an overflow, perhaps) and -inf
        for i in range(n):
            if x[i] != x[i]:
                return x[i]
    return high if -infinity(<real>0) < high < infinity(<real>0) else NAN


cdef int64_t draw_row(
    const real *x, Py_ssize_t n, double u, const Filters *f, Work *work
) noexcept nogil:
    """Return the index that the uniform u draws, -1 from a row that has no probabilities."""
    cdef real *maxima = <real *>work.maxima
    cdef double high = highest_of(x, n, maxima)
    cdef double inverse
    cdef Py_ssize_t i, j, count
    if high != high:
        return -1
    if f.temperature == 0:
        i = 0
        while maxima[i] != high:
            i += 1
        j = i // LANES * SIZE  # the first chunk that has the maximum
        while x[j] != high:
            j += 1
        return j
    inverse = min(1 / f.temperature, 1.7976931348623157e+308)
    if not 0 < f.top_k < n and f.top_p >= 1 and f.log_min_p == -infinity(<double>0):
        return draw_from_row(x, n, u, high, inverse, work.masses)
    count = candidates(x, n, high, inverse, f, work)
    return work.index[walk(work.weight, count, 0, u * sum_in_order(work.weight, count))]


cdef Py_ssize_t most(Py_ssize_t n, const Filters *f) noexcept nogil:
    """Return how many elements of a row may have to be picked."""
    if 0 < f.top_k < n:
        return min(n, max(f.top_k, f.min_keep))
    return 0 if f.top_p >= 1 and f.log_min_p == -infinity(<double>0) else n


cdef bint draw(
    const real *x, Py_ssize_t rows, Py_ssize_t n, const double *u, const Filters *f, int64_t *ids
) noexcept nogil:
    """Write the index drawn from each of a few rows, or -1; tell if memory sufficed."""
    cdef Work work
    cdef Py_ssize_t i
    if not allocate(&work, n, most(n, f)):
        return False
    for i in range(rows):
        ids[i] = draw_row(x + i * n, n, u[i], f, &work)
    release(&work)
    return True


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
    """Write the index drawn from each row of `x` into `ids`, or -1.

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
    f.min_keep = min_keep
    try:
        if not allocate(&work, n, n):
            raise MemoryError(f"no memory to draw from rows of {n} elements")
        while start < rows:
            stop = min(rows, start + max(1, CHUNK // max(n, 1)))
            with nogil:
                for i in range(start, stop):
                    f.temperature = temperature[i * each_t]
                    f.top_k = top_k[i * each_k]
                    f.top_p = top_p[i * each_p]
                    f.log_min_p = log_min_p[i * each_m]
                    if n:
                        row = &x[i, 0]
                    ids[i] = draw_row(row, n, u[i], &f, &work)
            PyErr_CheckSignals()
            start = stop
    finally:
        release(&work)


cdef SampleFunctions functions
functions.draw32 = draw[float]
functions.draw64 = draw[double]

#: The same for `_front`, by pointer.
sample_functions = PyCapsule_New(&functions, "fastsoftmax.SampleFunctions", NULL)
