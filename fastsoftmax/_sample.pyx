# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Filters, draws and log-probabilities of contiguous rows. Built once per instruction set.

Formula
    weight_i = exp((x_i - max) / T). Temperature, then top_k, then top_p, then min_p leave a prefix
    of the order (larger logit, lower index): the survivors. The index drawn is the first, walking
    them in index order, whose cumulative weight exceeds u * total. The log-probability is
    (x_i - max) / T - log1p(sum of the other weights). The survivors being a prefix, the rank of one
    of them is its rank among them.

Passes over memory
    One read for the block maxima and the checks. With top_k nothing else of the row's size; without
    it a second one for the weights. top_p and min_p look at a few hundred candidates first, and at
    eight times more while those do not settle it. Nothing is sorted but what `support` returns.
    However many are drawn, the row is filtered and weighed once.
    Log-probabilities: one read for the block maxima, one for the weights. A draw that reports them
    shares both.

Precision policy
    Weights and their sums in float64, whatever the logits' type: the same index from every
    implementation, and from the reference. Over a whole row of float32, sums in float32 come first:
    with a bound of their error they mostly tell what those in float64 would, four times as fast.

Source
    See ``_partial.pxd``; A. Holtzman et al., ICLR 2020, https://arxiv.org/abs/1904.09751 (top-p);
    N. N. Minh et al., ICLR 2025, https://arxiv.org/abs/2407.01082 (min-p).
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport NAN
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._digits cimport cut, keep, order_of, sort_picked, value_of
from fastsoftmax._kernels cimport Filters, Report, SampleFunctions
from fastsoftmax._math cimport infinity, log1p_pos, real
from fastsoftmax._partial cimport (
    DENSE,
    LANES,
    SIZE,
    STEP,
    Work,
    allocate,
    blocks_of,
    pick,
    rank_of,
    release,
    scan,
)
from fastsoftmax._weights cimport (
    BLOCK,
    add_up,
    first_above,
    inverse_of,
    sum_blocks,
    sum_in_order,
    sum_of,
    walk,
    walk_surely,
    weigh_all,
    weigh_blocks,
    weigh_roughly,
    within_float,
)

cdef enum:
    FIRST = 256  # candidates that are looked at first
    MANY = 512  # draws from which on a sort finds their ranks sooner than looks into the row
    CHUNK = 1 << 21  # elements between two looks for Ctrl-C: some milliseconds


cdef Py_ssize_t draw_from_row(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, double *sums
) noexcept nogil:
    """Draw from a whole row: find the block by the blocks' sums, then the place within it."""
    cdef double weight[BLOCK]
    cdef double target
    cdef Py_ssize_t block, start, m
    target = u * weigh_blocks(x, n, highest, inverse, sums)
    block = walk(sums, (n + BLOCK - 1) // BLOCK, 0, target)
    start = block * BLOCK
    m = min(<Py_ssize_t>BLOCK, n - start)
    weigh_all(x + start, weight, m, highest, inverse)
    return start + walk(weight, m, sum_in_order(sums, block), target)


cdef Py_ssize_t draw_roughly(
    const float *x, Py_ssize_t n, double u, double highest, double inverse, double *sums
) noexcept nogil:
    """Return what `draw_from_row` does, by sums in float32; -1 if these are too rough to tell."""
    cdef double weight[BLOCK]
    cdef double error
    cdef double total = weigh_roughly(x, n, highest, inverse, sums, &error)
    cdef double target = u * total
    cdef Py_ssize_t block = walk(sums, (n + BLOCK - 1) // BLOCK, 0, target)
    cdef Py_ssize_t start = block * BLOCK
    cdef Py_ssize_t m = min(<Py_ssize_t>BLOCK, n - start)
    cdef Py_ssize_t place
    weigh_all(x + start, weight, m, highest, inverse)
    place = walk_surely(weight, m, sum_in_order(sums, block), target, 2.1 * error * total)
    return start + place if place >= 0 else -1


cdef void draw_distinct(
    double *weight, Py_ssize_t n, const double *u, Py_ssize_t m, double *sums, int64_t *places
) noexcept nogil:
    """Draw m places of n weights one after the other, each from what is left; -1 if nothing is.

    The weights drawn become 0.
    """
    cdef double target, total
    cdef Py_ssize_t i, block, start, size
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    sum_blocks(weight, n, sums)
    for i in range(m):
        total = sum_in_order(sums, blocks)
        if total == 0:
            places[i] = -1
            continue
        target = u[i] * total
        block = walk(sums, blocks, 0, target)
        start = block * BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        places[i] = start + walk(weight + start, size, sum_in_order(sums, block), target)
        weight[places[i]] = 0
        sum_blocks(weight + start, size, sums + block)


cdef void draw_again(
    const double *weight, Py_ssize_t n, const double *u, Py_ssize_t m,
    double *cumulative, double *ends, int64_t *places,
) noexcept nogil:
    """Draw m places of n weights, each from all of them: what walking finds, by bisection."""
    cdef double target, before, total = 0
    cdef Py_ssize_t i, block, start, size, place
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    sum_blocks(weight, n, ends)
    for block in range(blocks):
        total += ends[block]
        ends[block] = total
        cumulative[block * BLOCK] = -1  # not known yet: few draws meet few blocks
    for i in range(m):
        target = u[i] * total
        block = min(first_above(ends, blocks, target), blocks - 1)
        start = block * BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        before = ends[block - 1] if block else 0
        if cumulative[start] < 0:
            add_up(weight + start, size, before, cumulative + start)
        place = first_above(cumulative + start, size, target)
        if place == size:  # the lanes' sum was larger; `walk` says what is drawn then
            place = walk(weight + start, size, before, target)
        places[i] = start + place


cdef inline void cut_by_mass(
    const real *value, Py_ssize_t n, double target, Work *work, uint64_t *last, Py_ssize_t *ties
) noexcept nogil:
    """Find the shortest prefix of the candidates whose mass reaches `target`, as `cut` says it."""
    cdef Py_ssize_t i
    for i in range(n):
        work.keys[i] = order_of(value[i])
        work.masses[i] = work.weight[i]
    cut(work.keys, work.masses, n, target, last, ties)


cdef bint surely_cut(
    const real *value, Py_ssize_t n, double target, double error, Work *work
) noexcept nogil:
    """Tell whether the prefix is the same if `target` is off by that share of it."""
    cdef uint64_t last, other
    cdef Py_ssize_t ties, others
    cut_by_mass(value, n, target * (1 - error), work, &last, &ties)
    cut_by_mass(value, n, target * (1 + error), work, &other, &others)
    return last == other and ties == others


cdef Py_ssize_t shorten(
    real *value, Work *work, Py_ssize_t n, bint weighted, double target, Py_ssize_t least
) noexcept nogil:
    """Keep the shortest prefix of the n candidates whose mass (or number) reaches `target`.

    At least the first `least` of them stay. What is kept stays in index order.
    """
    cdef uint64_t last
    cdef Py_ssize_t ties, i, m = 0
    if weighted:
        cut_by_mass(<const real *>value, n, target, work, &last, &ties)
    else:
        for i in range(n):
            work.keys[i] = order_of(value[i])
        cut(work.keys, NULL, n, target, &last, &ties)
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


cdef Py_ssize_t count_min_p(
    const real *value, Py_ssize_t n, double highest, double inverse, double log_min_p
) noexcept nogil:
    """Return how many candidates are likely enough for min_p."""
    cdef Py_ssize_t i, m = 0
    for i in range(n):
        m += (<double>value[i] - highest) * inverse >= log_min_p
    return m


cdef bint filtering(const Filters *f, Py_ssize_t n) noexcept nogil:
    """Tell whether something may be removed."""
    return 0 < f.top_k < n or f.top_p < 1 or f.log_min_p > -infinity(<double>0)


cdef Py_ssize_t candidates(
    const real *x, Py_ssize_t n, double highest, double inverse, double total,
    const Filters *f, Work *work,
) noexcept nogil:
    """Apply top_k, top_p and min_p; leave value, index and weight in `work`, in index order.

    `total` is the sum of the row's weights, 0 if it is not known.
    """
    cdef real *value = <real *>work.value
    cdef double eps = 1.1920928955078125e-07 if real is float else 2.220446049250313e-16
    cdef double share = f.top_p * (1 - 4 * eps)
    cdef double mass, error = 0  # of the total, by its share
    cdef bint limited = 0 < f.top_k < n
    cdef Py_ssize_t least = min(f.min_keep, n)
    cdef Py_ssize_t count = max(<Py_ssize_t>FIRST, least)
    cdef Py_ssize_t likely, i
    if limited:
        count = max(f.top_k, least)
    elif not filtering(f, n):
        count = n
    if total == 0 and not limited and f.top_p < 1:
        if real is float:
            if within_float(inverse):
                total = weigh_roughly(x, n, highest, inverse, work.masses, &error)
        if total == 0:
            total = weigh_blocks(x, n, highest, inverse, work.masses)
    while True:
        # At T = inf the order of the logits says nothing about that of the probabilities.
        if limited and count < n or (count <= n // DENSE and inverse > 0):
            pick(x, n, count, <real *>work.maxima, True, work)
        else:
            count = n
            for i in range(n):
                value[i] = x[i]
                work.index[i] = i
        weigh_all(value, work.weight, count, highest, inverse)
        mass = sum_of(work.weight, count)
        if limited or count == n:
            if error > 0:
                total = weigh_blocks(x, n, highest, inverse, work.masses)
            break
        if f.top_p < 1:
            if mass >= share * total * (1 + error):
                if error == 0 or surely_cut(
                    <const real *>value, count, share * total, 1.1 * error, work
                ):
                    break
                total = weigh_blocks(x, n, highest, inverse, work.masses)
                error = 0
                continue
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
    cdef Py_ssize_t blocks = blocks_of(n, SIZE)
    cdef Py_ssize_t i
    cdef bint suspect = False
    scan(x, n, SIZE, maxima, sums)
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


cdef Py_ssize_t place_of(
    const real *x, Py_ssize_t n, real highest, const real *maxima
) noexcept nogil:
    """Return the first place of the largest element."""
    cdef Py_ssize_t i = 0, j
    while maxima[i] != highest:
        i += 1
    j = i // LANES * SIZE  # the first chunk that has it
    while j < n - 1 and x[j] != highest:  # the bound: another thread may write into the row
        j += 1
    return j


cdef Py_ssize_t survivors(
    const real *x, Py_ssize_t n, double highest, double total, const Filters *f, Work *work
) noexcept nogil:
    """Leave what the filters leave of a valid row in `work`, in index order; return how many.

    `total` as for `candidates`.
    """
    if f.temperature == 0:
        work.index[0] = place_of(x, n, <real>highest, <real *>work.maxima)
        (<real *>work.value)[0] = x[work.index[0]]
        work.weight[0] = 1
        return 1
    return candidates(x, n, highest, inverse_of(f.temperature), total, f, work)


cdef double log_of_others(
    const real *value, double *weight, Py_ssize_t n, double highest, double *sums
) noexcept nogil:
    """Return log1p of the sum of the weights without the first largest entry's own."""
    cdef double total, own
    cdef Py_ssize_t j = 0
    while j < n - 1 and value[j] != highest:
        j += 1
    own = weight[j]
    weight[j] = 0
    sum_blocks(weight, n, sums)
    total = sum_in_order(sums, (n + BLOCK - 1) // BLOCK)
    weight[j] = own
    return log1p_pos(total)


cdef double log_of_others_in_row(
    const real *x, Py_ssize_t n, Py_ssize_t first, double highest, double inverse, double *sums
) noexcept nogil:
    """Return the same for a whole row, to the same bits, by what `weigh_blocks` has written.

    `first` is where the first largest entry is.
    """
    cdef double weight[BLOCK]
    cdef Py_ssize_t block = first // BLOCK
    cdef Py_ssize_t start = block * BLOCK
    cdef Py_ssize_t size = min(<Py_ssize_t>BLOCK, n - start)
    weigh_all(x + start, weight, size, highest, inverse)
    weight[first - start] = 0
    sums[block] = sum_of(weight, size)
    return log1p_pos(sum_in_order(sums, (n + BLOCK - 1) // BLOCK))


cdef void log_probabilities(
    const real *x, const int64_t *ids, Py_ssize_t m, double highest, double inverse,
    double log_others, real *y,
) noexcept nogil:
    """Write those of m entries of a row, for T > 0; NaN for the index -1."""
    cdef double inf = infinity(<double>0)
    cdef double d
    cdef Py_ssize_t i
    for i in range(m):
        d = x[ids[i]] if ids[i] >= 0 else NAN
        if d > -inf:
            d = (d - highest) * inverse if inverse > 0 else 0
        y[i] = <real>(d - log_others)


cdef void ranks_of(
    const real *x, Py_ssize_t n, const int64_t *places, Py_ssize_t m, Work *work, int64_t *ranks
) noexcept nogil:
    """Write the ranks of m of n numbers, -1 for the place -1; uses up all but the index in `work`.
    """
    cdef real *maxima = <real *>work.maxima
    cdef Py_ssize_t *order = <Py_ssize_t *>work.weight
    cdef Py_ssize_t i
    if m > MANY and n <= work.room:
        for i in range(n):
            work.keys[i] = order_of(x[i])
            order[i] = i
        sort_picked(work.keys, order, n, <uint64_t *>work.masses, <Py_ssize_t *>work.value)
        for i in range(n):
            work.keys[order[i]] = i
        for i in range(m):
            ranks[i] = <int64_t>work.keys[places[i]] if places[i] >= 0 else -1
        return
    scan(x, n, SIZE, maxima, <real *>NULL)
    for i in range(m):
        ranks[i] = rank_of(x[places[i]], places[i], x, n, maxima) if places[i] >= 0 else -1


cdef void draw_row(
    const real *x, Py_ssize_t n, const double *u, Py_ssize_t m, bint replace,
    const Filters *f, Work *work, int64_t *ids, const Report *report, Py_ssize_t at,
) noexcept nogil:
    """Write the indices that m uniforms draw: -1 from a row without probabilities, or used up.

    And, unless it is NULL, what `report` is to hold of them, from its element `at` on.
    """
    cdef real *value = <real *>work.value
    cdef double highest = highest_of(x, n, <real *>work.maxima)
    cdef double inverse = inverse_of(f.temperature) if f.temperature > 0 else 0
    cdef double *sums = <double *>work.keys  # free once the survivors are known
    cdef double total = 0, log_others = 0, log_others_kept = 0
    cdef bint whole = f.temperature > 0 and not filtering(f, n)
    cdef bint prefix = False  # whether the survivors come first in the order, as ranked
    cdef Py_ssize_t i, count, first = 0
    if highest != highest:
        for i in range(m):
            ids[i] = -1
    elif whole and m == 1:
        ids[0] = -1
        if real is float:
            if report == NULL and within_float(inverse):
                ids[0] = draw_roughly(x, n, u[0], highest, inverse, sums)
        if ids[0] < 0:
            ids[0] = draw_from_row(x, n, u[0], highest, inverse, sums)
        if report != NULL:
            first = place_of(x, n, <real>highest, <real *>work.maxima)
            log_others = log_of_others_in_row(x, n, first, highest, inverse, sums)
            log_others_kept = log_others
    else:
        if report != NULL and f.temperature > 0 and not whole:
            first = place_of(x, n, <real>highest, <real *>work.maxima)
            total = weigh_blocks(x, n, highest, inverse, sums)
            log_others = log_of_others_in_row(x, n, first, highest, inverse, sums)
        count = survivors(x, n, highest, total, f, work)
        if report != NULL:
            log_others_kept = log_of_others(value, work.weight, count, highest, sums)
            if whole:
                log_others = log_others_kept
        if m == 1 or not replace:
            draw_distinct(work.weight, count, u, m, sums, ids)
        else:
            draw_again(work.weight, count, u, m, work.masses, sums, ids)
        prefix = f.temperature < infinity(<double>0)
        if report != NULL and prefix:
            ranks_of(<const real *>value, count, ids, m, work, report.ranks + at)
        for i in range(m):
            if ids[i] >= 0:
                ids[i] = work.index[ids[i]]
    if report != NULL:
        if not prefix:
            ranks_of(x, n, ids, m, work, report.ranks + at)
        log_probabilities(
            x, ids, m, highest, inverse, log_others, <real *>report.logprobs + at
        )
        log_probabilities(
            x, ids, m, highest, inverse, log_others_kept, <real *>report.filtered + at
        )


cdef real scaled(real x, double temperature) noexcept nogil:
    """Return x / T, held at the largest finite number; -inf stays."""
    cdef double y = 0
    cdef double most = 3.4028234663852886e+38 if real is float else 1.7976931348623157e+308
    if temperature == 1 or x == -infinity(<real>0):
        return x
    if temperature > 0:
        y = x * inverse_of(temperature)
    return <real>max(-most, min(most, y))


cdef Py_ssize_t tied(const real *x, Py_ssize_t n, Py_ssize_t k, Work *work) noexcept nogil:
    """Return how many elements are at least the k-th."""
    cdef real *value = <real *>work.value
    cdef real t
    cdef Py_ssize_t i, m = 0
    pick(x, n, k, <real *>work.maxima, True, work)
    t = value[0]
    for i in range(k):
        t = min(t, value[i])
    for i in range(n):
        m += x[i] >= t
    return m


cdef void filter_row(
    const real *x, real *y, Py_ssize_t n, Filters f, bint every_tie, Work *work
) noexcept nogil:
    """y = x / T, -inf where the filters remove; y is x or does not overlap it."""
    cdef double highest = highest_of(x, n, <real *>work.maxima)
    cdef Py_ssize_t i, count
    if highest != highest:
        for i in range(n):
            y[i] = NAN
        return
    if f.temperature > 0 and not filtering(&f, n):
        for i in range(n):
            y[i] = scaled(x[i], f.temperature)
        return
    if every_tie and 0 < f.top_k < n and f.temperature > 0:
        f.top_k = tied(x, n, min(n, max(f.top_k, f.min_keep)), work)
    count = survivors(x, n, highest, 0, &f, work)
    for i in range(n):
        y[i] = -infinity(<real>0)
    for i in range(count):
        y[work.index[i]] = scaled((<real *>work.value)[i], f.temperature)


cdef Py_ssize_t support_row(
    const real *x, Py_ssize_t n, const Filters *f, Work *work,
    int64_t *indices, real *probs, Py_ssize_t width,
) noexcept nogil:
    """Write what can be drawn, best first, if there is room for it; return how many there are."""
    cdef real *value = <real *>work.value
    cdef double highest = highest_of(x, n, <real *>work.maxima)
    cdef double inverse = 0, total = 0
    cdef Py_ssize_t i, m = 0, count = 0
    if highest == highest:
        count = survivors(x, n, highest, 0, f, work)
    for i from 0 <= i < count by BLOCK:  # by blocks: exact to the last bits for any number of them
        total += sum_of(work.weight + i, min(<Py_ssize_t>BLOCK, count - i))
    for i in range(count):
        if work.weight[i] > 0:
            work.index[m] = work.index[i]
            work.keys[m] = order_of(value[i])
            m += 1
    if m <= width:
        sort_picked(work.keys, work.index, m, <uint64_t *>work.masses, <Py_ssize_t *>work.weight)
        for i in range(m):
            value[i] = x[work.index[i]]
        if f.temperature > 0:
            inverse = inverse_of(f.temperature)
        weigh_all(value, work.weight, m, highest, inverse)
        for i in range(m):
            indices[i] = work.index[i]
            probs[i] = <real>(work.weight[i] / total)
        for i in range(m, width):
            indices[i] = -1
            probs[i] = 0
    return m


cdef void logprobs_row(
    const real *x, Py_ssize_t n, double temperature, const int64_t *ids, Py_ssize_t m,
    Work *work, real *y,
) noexcept nogil:
    """Write the log-probabilities of m entries."""
    cdef double *sums = <double *>work.keys
    cdef double highest = highest_of(x, n, <real *>work.maxima)
    cdef double inverse = 1, log_others = NAN
    cdef Py_ssize_t i, first = 0
    if highest == highest:
        first = place_of(x, n, <real>highest, <real *>work.maxima)
        if temperature == 0:
            for i in range(m):
                y[i] = 0 if ids[i] == first else -infinity(<real>0)
            return
        inverse = inverse_of(temperature)
        weigh_blocks(x, n, highest, inverse, sums)
        log_others = log_of_others_in_row(x, n, first, highest, inverse, sums)
    log_probabilities(x, ids, m, highest, inverse, log_others, y)


cdef Py_ssize_t most(Py_ssize_t n, const Filters *f, Py_ssize_t unfiltered) noexcept nogil:
    """Return how many elements of a row may have to be picked: `unfiltered` if none is removed."""
    if 0 < f.top_k < n:
        return min(n, max(f.top_k, f.min_keep))
    return n if filtering(f, n) else unfiltered


cdef Py_ssize_t most_of(
    Py_ssize_t n, const Filters *f, Py_ssize_t count, Py_ssize_t unfiltered
) noexcept nogil:
    """Return the same for several filters."""
    cdef Py_ssize_t i, k = 0
    for i in range(count):
        k = max(k, most(n, f + i, unfiltered))
    return k


cdef bint draw(
    const real *x, Py_ssize_t rows, Py_ssize_t n,
    const double *u, Py_ssize_t m, bint replace, const Filters *f, Py_ssize_t each,
    int64_t *ids, const Report *report,
) noexcept nogil:
    """Write the m indices drawn from each of a few rows, or -1, and what is to be reported.

    `each` is 1 if there are filters for each row, else 0. Tell if memory sufficed.
    """
    cdef Work work
    cdef Py_ssize_t i
    if not allocate(&work, n, most_of(n, f, rows if each else 1, n if m > 1 else 0)):
        return False
    for i in range(rows):
        draw_row(
            x + i * n, n, u + i * m, m, replace, f + i * each, &work, ids + i * m, report, i * m
        )
    release(&work)
    return True


cdef bint logprobs(
    const real *x, Py_ssize_t rows, Py_ssize_t n, const double *temperature, Py_ssize_t each,
    const int64_t *ids, Py_ssize_t m, real *y,
) noexcept nogil:
    """Write the log-probabilities of m entries of each of a few rows; tell if memory sufficed."""
    cdef Work work
    cdef Py_ssize_t i
    if not allocate(&work, n, 0):
        return False
    for i in range(rows):
        logprobs_row(x + i * n, n, temperature[i * each], ids + i * m, m, &work, y + i * m)
    release(&work)
    return True


# ---- what Python and _front see. Filters are one for all rows, or one for each. ------------------


cdef Py_ssize_t chunk_of(Py_ssize_t n) noexcept nogil:
    """Return how many rows of n elements may pass between two looks for Ctrl-C."""
    return max(1, CHUNK // max(n, 1))


cdef int prepare(Work *work, Py_ssize_t n, Py_ssize_t k) except -1:
    """Make room to pick k of n elements."""
    if not allocate(work, n, k):
        raise MemoryError(f"no memory to choose from rows of {n} elements")
    return 0


def draw_rows(
    const real[:, ::1] x, const double[:, ::1] u, int64_t[:, ::1] ids, real[:, ::1] logprobs,
    real[:, ::1] filtered, int64_t[:, ::1] ranks, const Filters[::1] f, bint replace,
):
    """Write the indices drawn from each row of `x`, one for each uniform, or -1.

    And their log-probabilities, before and after the filters, and ranks, unless `ranks` is empty.
    """
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t m = u.shape[1]
    cdef Py_ssize_t each = f.shape[0] > 1
    cdef Py_ssize_t stop, start = 0
    cdef Report report
    cdef const Report *asked = NULL
    cdef bint done
    if m == 0:
        return
    while start < x.shape[0]:
        stop = min(x.shape[0], start + chunk_of(n + m))
        if ranks.shape[0] > 0:
            report.logprobs = &logprobs[start, 0]
            report.filtered = &filtered[start, 0]
            report.ranks = &ranks[start, 0]
            asked = &report
        with nogil:
            done = draw(
                &x[start, 0], stop - start, n, &u[start, 0], m, replace, &f[start * each], each,
                &ids[start, 0], asked,
            )
        if not done:
            raise MemoryError(f"no memory to draw from rows of {n} elements")
        PyErr_CheckSignals()
        start = stop


def filter_rows(const real[:, ::1] x, real[:, ::1] y, const Filters[::1] f, bint every_tie):
    """Write the filtered logits of each row of `x` into `y`, which may be `x`."""
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t each = f.shape[0] > 1
    cdef Py_ssize_t i, stop, start = 0
    cdef Work work
    if n == 0:
        return
    prepare(&work, n, n if every_tie else most_of(n, &f[0], f.shape[0], 0))
    try:
        while start < x.shape[0]:
            stop = min(x.shape[0], start + chunk_of(n))
            with nogil:
                for i in range(start, stop):
                    filter_row(&x[i, 0], &y[i, 0], n, f[i * each], every_tie, &work)
            PyErr_CheckSignals()
            start = stop
    finally:
        release(&work)


def support_rows(
    const real[:, ::1] x, const Filters[::1] f,
    int64_t[:, ::1] indices, real[:, ::1] probs, int64_t[::1] counts,
):
    """Write what can be drawn from each row of `x`, where it fits, and how many there are."""
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t width = indices.shape[1]
    cdef Py_ssize_t each = f.shape[0] > 1
    cdef Py_ssize_t i, stop, start = 0
    cdef Work work
    if n == 0:
        counts[:] = 0
        return
    prepare(&work, n, most_of(n, &f[0], f.shape[0], n))
    try:
        while start < x.shape[0]:
            stop = min(x.shape[0], start + chunk_of(n))
            with nogil:
                for i in range(start, stop):
                    counts[i] = support_row(
                        &x[i, 0], n, &f[i * each], &work, &indices[i, 0], &probs[i, 0], width
                    )
            PyErr_CheckSignals()
            start = stop
    finally:
        release(&work)


def logprobs_rows(
    const real[:, ::1] x, const double[::1] temperature, const int64_t[:, ::1] ids, real[:, ::1] y
):
    """Write the log-probabilities of the entries of each row of `x` that `ids` names."""
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t m = ids.shape[1]
    cdef Py_ssize_t each = temperature.shape[0] > 1
    cdef Py_ssize_t stop, start = 0
    cdef bint done
    if m == 0:
        return
    while start < x.shape[0]:
        stop = min(x.shape[0], start + chunk_of(n + m))
        with nogil:
            done = logprobs(
                &x[start, 0], stop - start, n, &temperature[start * each], each, &ids[start, 0], m,
                &y[start, 0],
            )
        if not done:
            raise MemoryError(f"no memory to weigh rows of {n} elements")
        PyErr_CheckSignals()
        start = stop


cdef SampleFunctions functions
functions.draw32 = draw[float]
functions.draw64 = draw[double]
functions.logprobs32 = logprobs[float]
functions.logprobs64 = logprobs[double]

#: The same for `_front`, by pointer.
sample_functions = PyCapsule_New(&functions, "fastsoftmax.SampleFunctions", NULL)
