# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What top_k, top_p and min_p leave of a row: a list of survivors, or a threshold."""

from libc.math cimport NAN, log
from libc.stdint cimport uint64_t

from fastsoftmax._digits cimport cut, keep, order_of, value_of
from fastsoftmax._exponents cimport inverse_of
from fastsoftmax._kernels cimport Filters
from fastsoftmax._math cimport infinity, real
from fastsoftmax._nuclei cimport HEAVY, Nucleus, find_nucleus, list_from, threshold, widest
from fastsoftmax._partial cimport DENSE, LANES, SIZE, STEP, Work, blocks_of, pick, scan
from fastsoftmax._rows cimport place_of as first_of
from fastsoftmax._weights cimport (
    rough_error,
    sum_of,
    weigh_all,
    weigh_blocks,
    weigh_until,
    within_float,
)

cdef enum:
    FIRST = 256  # candidates that min_p looks at first
    WIDE = 2048  # elements of a chunk where nothing but the largest one is looked for
    LONG = 4096  # elements of a row whose block maxima serve to find its nucleus


cdef inline bint cut_by_mass(
    const real *value, Py_ssize_t n, double target, double error, Work *work,
    uint64_t *last, Py_ssize_t *ties,
) noexcept nogil:
    """Find the shortest prefix of the candidates whose mass reaches `target`, as `cut` says it.

    Tell whether it is the same if `target` is off by that share of it.
    """
    cdef Py_ssize_t i
    cdef double mass = 0, lightest = 0
    for i in range(n):
        work.keys[i] = order_of(value[i])
        work.masses[i] = work.weight[i]
    cut(work.keys, work.masses, n, target, last, ties)
    if error == 0:
        return True
    for i in range(n):
        if value[i] > value_of(last[0], <real>0):
            mass += work.weight[i]
        elif value[i] == value_of(last[0], <real>0):
            lightest = work.weight[i]
    mass += ties[0] * lightest
    return mass - lightest < target * (1 - error) and mass >= target * (1 + error)


cdef inline Py_ssize_t keep_prefix(
    real *value, Work *work, Py_ssize_t n, uint64_t last, Py_ssize_t ties, Py_ssize_t least
) noexcept nogil:
    """Keep of n candidates what `cut` says, and at least the first `least`, in index order."""
    cdef Py_ssize_t i, m = 0
    least = min(least, n)
    if least > 1:
        for i in range(n):
            work.keys[i] = order_of(value[i])
            m += work.keys[i] > last
        if m + ties < least:
            cut(work.keys, NULL, n, <double>least, &last, &ties)
    return keep(
        value, work.index, n, value_of(last, <real>0), ties, value, work.index, work.weight
    )


cdef inline Py_ssize_t count_min_p(
    const real *value, Py_ssize_t n, double highest, double inverse, double log_min_p
) noexcept nogil:
    """Return how many candidates are likely enough for min_p."""
    cdef Py_ssize_t i, m = 0
    for i in range(n):
        m += (<double>value[i] - highest) * inverse >= log_min_p
    return m


cdef inline bint filtering(const Filters *f, Py_ssize_t n) noexcept nogil:
    """Tell whether something may be removed."""
    return 0 < f.top_k < n or f.top_p < 1 or f.log_min_p > -infinity(<double>0)


cdef inline Py_ssize_t shorten(
    const real *x, Py_ssize_t n, double highest, double inverse, double total, double share,
    double error, Py_ssize_t count, Py_ssize_t least, Work *work,
) noexcept nogil:
    """Keep of the first `count` candidates of a row the shortest prefix with this share of `total`.

    Which may be off by `error` of it: it is summed up again if that might matter.
    """
    cdef real *value = <real *>work.value
    cdef uint64_t last
    cdef Py_ssize_t ties
    while not cut_by_mass(
        <const real *>value, count, share * total, error, work, &last, &ties
    ):
        total = weigh_blocks(x, n, highest, inverse, work.masses)
        error = 0
    return keep_prefix(value, work, count, last, ties, least)


cdef inline Py_ssize_t nucleus(
    const real *x, Py_ssize_t n, double highest, double inverse, double total, double share,
    Py_ssize_t least, Work *work, Nucleus *left,
) noexcept nogil:
    """Apply top_p alone to a long row; the rest as for `candidates`, but for the weights."""
    cdef const real *value = <const real *>work.value
    cdef const real *maxima = <const real *>work.maxima
    cdef Py_ssize_t blocks = blocks_of(n, SIZE)
    cdef Py_ssize_t i, count
    cdef double mass, goal, error = 0, bound = highest, above = 0
    cdef Nucleus here
    # What the block maxima weigh alone tells whether few elements can have the mass.
    weigh_all(maxima, work.weight, blocks, highest, inverse)
    mass = sum_of(work.weight, blocks)
    if total == 0:
        total = weigh_until(x, n, highest, inverse, mass / share)
        if real is float:
            error = 1.1 * rough_error(n, total)
    goal = share * total * (1 + error)
    if total > 0 and mass >= goal:
        count = list_from(
            x, n,
            <real>threshold(maxima, blocks, goal, widest(n, inverse, share, total), work),
            maxima, work,
        )
        weigh_all(value, work.weight, count, highest, inverse)
        if sum_of(work.weight, count) >= goal:
            count = shorten(x, n, highest, inverse, total, share, error, count, 1, work)
            if count >= least:
                return count
    elif mass < HEAVY:
        bound = <real>(highest + log(mass / HEAVY) / inverse)
        for i in range(blocks):
            above += work.weight[i] if maxima[i] > bound else 0
    find_nucleus(
        x, n, highest, inverse, share, widest(n, inverse, share, mass), bound, above, work, &here
    )
    if left != NULL and least == 1:
        left[0] = here
        return -1
    count = keep(
        x, NULL, n, <real>here.last, here.ties, <real *>work.value, work.index, NULL
    )
    if count < least:
        count = least
        pick(x, n, least, <real *>work.maxima, False, work)
    return count


cdef inline Py_ssize_t list_candidates(
    const real *x, Py_ssize_t n, double highest, double inverse, const Filters *f, Work *work
) noexcept nogil:
    """Leave in `work` what top_k leaves, or min_p alone does not remove, or all; return how many.
    """
    cdef real *value = <real *>work.value
    cdef bint limited = 0 < f.top_k < n
    cdef bint alone = not limited and f.top_p == 1 and filtering(f, n)  # is min_p
    cdef Py_ssize_t count = n
    cdef Py_ssize_t i
    if limited:
        count = min(n, max(f.top_k, f.min_keep))
    elif alone:
        count = max(<Py_ssize_t>FIRST, f.min_keep)
    while True:
        # At T = inf the order of the logits says nothing about that of the probabilities.
        if limited and count < n or (count <= n // DENSE and inverse > 0):
            pick(x, n, count, <real *>work.maxima, True, work)
        else:
            count = n
            for i in range(n):
                value[i] = x[i]
                work.index[i] = i
        if (
            not alone or count == n
            or count_min_p(value, count, highest, inverse, f.log_min_p) < count
        ):
            return count
        count *= 8


cdef inline Py_ssize_t candidates(
    const real *x, Py_ssize_t n, double highest, double inverse, double total,
    const Filters *f, Work *work, Nucleus *left,
) noexcept nogil:
    """Apply top_k, top_p and min_p; leave value, index and weight in `work`, in index order.

    `total` is the sum of the row's weights, 0 if it is not known. Return how many; -1 if they are
    too many to be listed and a threshold is left in `left`, unless that is NULL.
    """
    cdef real *value = <real *>work.value
    cdef double eps = 1.1920928955078125e-07 if real is float else 2.220446049250313e-16
    cdef double share = f.top_p * (1 - 4 * eps)
    cdef bint by_mass = f.top_p < 1
    cdef bint min_p = f.log_min_p > -infinity(<double>0)
    cdef Py_ssize_t least = min(f.min_keep, n)
    cdef Py_ssize_t count, likely, ties, i
    cdef uint64_t last
    if (
        by_mass and not 0 < f.top_k < n and n >= LONG and inverse > 0
        and (real is double or within_float(inverse))
    ):
        by_mass = False
        count = nucleus(
            x, n, highest, inverse, total, share, least, work, NULL if min_p else left
        )
        if count < 0:
            return count
    else:
        count = list_candidates(x, n, highest, inverse, f, work)
    weigh_all(<const real *>value, work.weight, count, highest, inverse)
    if inverse == 0:
        for i in range(count):
            value[i] = <real>highest if value[i] > -infinity(<real>0) else value[i]
    if by_mass:
        total = sum_of(work.weight, count)
        count = shorten(x, n, highest, inverse, total, share, 0, count, least, work)
    if min_p:
        likely = count_min_p(value, count, highest, inverse, f.log_min_p)
        if likely < count:
            for i in range(count):
                work.keys[i] = order_of(value[i])
            cut(work.keys, NULL, count, <double>max(likely, least), &last, &ties)
            count = keep_prefix(value, work, count, last, ties, 1)
    return count


cdef inline double highest_of(
    const real *x, Py_ssize_t n, Py_ssize_t size, real *maxima
) noexcept nogil:
    """Write the block maxima of a row, from chunks of `size`; return the largest.

    NaN if there are no probabilities.
    """
    cdef real sums[STEP]
    cdef real high = -infinity(<real>0)
    cdef Py_ssize_t blocks = blocks_of(n, size)
    cdef Py_ssize_t i
    cdef bint suspect = False
    scan(x, n, size, maxima, sums)
    scan(maxima, blocks, SIZE, maxima + blocks, NULL)
    for i in range(blocks, blocks + blocks_of(blocks, SIZE)):
        high = maxima[i] if maxima[i] > high else high
    for i in range(STEP):
        suspect |= sums[i] != sums[i]
    if suspect:  # a NaN, or +inf (from an overflow, perhaps) and -inf
        for i in range(n):
            if x[i] != x[i]:
                return x[i]
    return high if -infinity(<real>0) < high < infinity(<real>0) else NAN


cdef inline Py_ssize_t place_of(
    const real *x, Py_ssize_t n, Py_ssize_t size, real highest, const real *maxima
) noexcept nogil:
    """Return the first place of the largest element, by what `highest_of` has written."""
    cdef Py_ssize_t i = first_of(maxima, blocks_of(n, size), highest)
    cdef Py_ssize_t start = i // LANES * size  # the first chunk that has it
    # The bound: another thread may write into the row.
    return min(n - 1, start + first_of(x + start, n - start, highest))


cdef inline Py_ssize_t first_largest(const real *x, Py_ssize_t n, real *maxima) noexcept nogil:
    """Return the first place of the largest element, -1 if there are no probabilities."""
    cdef double highest = highest_of(x, n, WIDE, maxima)
    return place_of(x, n, WIDE, <real>highest, maxima) if highest == highest else -1


cdef inline Py_ssize_t survivors(
    const real *x, Py_ssize_t n, double highest, double total, const Filters *f, Work *work,
    Nucleus *left,
) noexcept nogil:
    """Leave what the filters leave of a valid row in `work`, in index order; return how many.

    `total`, `left` and -1 as for `candidates`.
    """
    if f.temperature == 0:
        work.index[0] = place_of(x, n, SIZE, <real>highest, <real *>work.maxima)
        (<real *>work.value)[0] = x[work.index[0]]
        work.weight[0] = 1
        return 1
    return candidates(x, n, highest, inverse_of(f.temperature, <double>0), total, f, work, left)
