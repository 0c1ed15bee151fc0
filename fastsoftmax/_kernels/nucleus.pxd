# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The nucleus of a row that is no short list: found without a sort, and without making the list.

A sample of the row tells between which two logits the mass will be reached, rather surely. One pass
over the row adds up all weights and those above the two, and picks out what lies between, some
per cent of it. Only that is searched: its weights are added up in buckets, the bucket in which the
mass is reached is divided in its turn, and the last few hundred elements are cut by digits. If the
sample was wrong, the pass is done again for what lies on the right side of the two.

What is found is a threshold, and how many of the elements that equal it belong to the nucleus.

Source: sampling before a selection is R. W. Floyd and R. L. Rivest, "Expected time bounds for
selection", CACM 18 (1975), https://doi.org/10.1145/360680.360691, here on masses.
"""

from libc.math cimport ceil, log, sqrt
from libc.stdint cimport uint64_t

from fastsoftmax._kernels.block_select cimport CHUNK, LANES, Workspace, count_equal
from fastsoftmax._kernels.histogram cimport (
    BUCKETS,
    Range,
    bucket_reaching,
    buckets_per_unit,
    compact_bucket,
    mass_histogram,
    min_max,
)
from fastsoftmax._kernels.radix cimport from_sortable_key, radix_select_by_mass, sortable_key
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.weights cimport cdf_search, softmax_weights, sum_in_order, sum_lanes

cdef enum:
    SAMPLE_SIZE = 4096
    HEAVY_SHARE = 1024  # what has a larger share of the mass is left out of the sample
    SKIP_ELEMENTS = 16  # elements that are passed over at once
    RADIX_MAX = 256  # elements that are cut by digits rather than put into buckets

cdef struct Nucleus:
    # Everything above `last`, and the first `ties` of what equals it.
    double threshold
    Py_ssize_t ties
    double threshold_weight  # weight of what equals `last`
    bint is_listed  # whether what is near `last` is in `work`; else all that is near equals it


# ---- loops ---------------------------------------------------------------------------------------


cdef inline bint any_at_least(const real *x, Py_ssize_t n, real low) noexcept nogil:
    """Tell whether one of n elements (a constant) is at least `low`."""
    cdef int found = 0
    cdef Py_ssize_t l
    for l in range(n):
        found |= x[l] >= low
    return found


cdef inline void mark_within(
    const real *x, unsigned char *within, Py_ssize_t n, real low, real high
) noexcept nogil:
    """Tell which elements are within these bounds."""
    cdef Py_ssize_t j
    for j in range(n):
        within[j] = (x[j] >= low) & (x[j] <= high)


cdef inline Py_ssize_t marked_places(
    const unsigned char *within, Py_ssize_t n, int *place
) noexcept nogil:
    """Write where the marks are, without a branch; return how many."""
    cdef Py_ssize_t j, m = 0
    for j in range(n):
        place[m] = <int>j
        m += within[j]
    return m


cdef inline void mask_above(
    const real *x, const double *weight, double *y, Py_ssize_t n, real last
) noexcept nogil:
    """y = weight where x is above `last`, else 0"""
    cdef double w
    cdef Py_ssize_t j
    for j in range(n):
        w = weight[j]  # read in any case: a vector
        y[j] = w if x[j] > last else 0


# ---- a short list --------------------------------------------------------------------------------


cdef inline double max_logit_span(
    Py_ssize_t n, double inverse, double share, double total
) noexcept nogil:
    """Return within what distance from the largest logit the mass is reached.

    What is lighter than its part of the rest cannot be where that happens. `total` is a lower
    bound of the mass of all.
    """
    return log(n / ((1 - share) * total)) / inverse


cdef inline double threshold_from_maxima(
    const real *maxima, Py_ssize_t n, double target, double span, Workspace *work
) noexcept nogil:
    """Return a number such that the block maxima above it have this mass, nearly no more.

    Their weights are in `work`.
    """
    cdef double *value = <double *>work.value
    cdef double mass[BUCKETS]
    cdef double before, scale
    cdef Py_ssize_t i
    cdef Range r
    for i in range(n):
        value[i] = maxima[i]
    r = min_max(value, n)
    scale = buckets_per_unit(r, span)
    mass_histogram(value, work.weight, n, r.high, scale, mass)
    return r.high - (bucket_reaching(mass, target, &before) + 1.01) / scale


cdef inline Py_ssize_t compact_at_least(
    const real *x, Py_ssize_t n, real low, const real *maxima, Workspace *work
) noexcept nogil:
    """Write what is at least `low`, by the block maxima, in index order; return how many."""
    cdef real *value = <real *>work.value
    cdef Py_ssize_t start, stop, j, i, l, lane, lanes, m = 0
    for start from 0 <= start < n by CHUNK:
        if any_at_least(maxima, LANES, low):
            stop = min(n, start + CHUNK)
            lane = lanes = 0
            for l in range(LANES):
                lane = l if maxima[l] >= low else lane
                lanes += maxima[l] >= low
            if lanes == 1:  # as a rule; without a branch, which could not be predicted
                for i from start + lane <= i < stop by LANES:
                    value[m] = x[i]
                    work.index[m] = i
                    m += x[i] >= low
            else:
                for j from start <= j < stop by SKIP_ELEMENTS:
                    if j + SKIP_ELEMENTS <= stop and not any_at_least(x + j, SKIP_ELEMENTS, low):
                        continue
                    for i in range(j, min(stop, j + SKIP_ELEMENTS)):
                        value[m] = x[i]
                        work.index[m] = i
                        m += x[i] >= low
        maxima += LANES
    return m


# ---- a threshold ---------------------------------------------------------------------------------


cdef inline Range sample_bracket(
    Py_ssize_t n, double share, double span, double bound, double above, double stride, Workspace *work
) noexcept nogil:
    """Return between which logits, not above `bound`, a sample says that the mass is reached.

    `work` has n numbers, one of each `stride`, and their weights. `above` is the mass above
    `bound`, which few large weights may have: these are left out.
    """
    cdef double *value = <double *>work.value
    cdef double *weight = work.weight
    cdef double mass[BUCKETS]
    cdef double total, target, scale, before, centre, off
    cdef double inner = 1 - share
    cdef Py_ssize_t i, count = 0
    cdef Range r, few
    for i in range(n):
        weight[i] = weight[i] if value[i] <= bound else 0
    total = sum_lanes(weight, n)
    target = share * total - inner * above / stride
    r = min_max(value, n)
    r.high = bound
    if r.low >= bound:
        r.low = bound
        return r
    scale = buckets_per_unit(r, span)
    mass_histogram(value, weight, n, bound, scale, mass)
    centre = bound - bucket_reaching(mass, target, &before) / scale
    for i in range(n):
        off = weight[i] * (inner if value[i] > centre else share)
        work.masses[i] = off * off
    off = 3 * sqrt(sum_lanes(work.masses, n))  # rarely more, by the central limit theorem
    r.low = -infinity(<double>0)
    if target + off < total:
        r.low = bound - (bucket_reaching(mass, target + off, &before) + 1) / scale
    if target - off > 0:
        r.high = bound - bucket_reaching(mass, target - off, &before) / scale
    for i in range(n):
        value[count] = value[i]
        count += (value[i] >= r.low) & (value[i] <= r.high)
    if count > SAMPLE_SIZE // 64:
        few = min_max(value, count)
        if few.low == few.high:  # one number, over and over
            return few
    return r


cdef inline Py_ssize_t partition_pass(
    const real *x, Py_ssize_t n, double highest, double inverse, Range r,
    Workspace *work, double *total, double *above,
) noexcept nogil:
    """Leave what lies within r in `work`, as float64 and in index order; return how many.

    If r is one number, they are only counted, and one is weighed. `work.maxima` gets, for each
    block, the mass above r and how many elements lie within r up to its end. And write the mass of
    all, and above r.
    """
    cdef double *value = <double *>work.value
    cdef real low = <real>r.low
    cdef real high = <real>r.high
    cdef double *sums = <double *>work.maxima
    cdef Py_ssize_t *ends = <Py_ssize_t *>work.maxima + (n + BLOCK - 1) // BLOCK
    cdef double weight[BLOCK]
    cdef double part[BLOCK]
    cdef unsigned char within[BLOCK]
    cdef int place[BLOCK]
    cdef Py_ssize_t start, i, size, count, m = 0
    total[0] = above[0] = 0
    for start from 0 <= start < n by BLOCK:
        size = min(<Py_ssize_t>BLOCK, n - start)
        softmax_weights(x + start, weight, size, highest, inverse)
        mask_above(x + start, weight, part, size, high)
        sums[start // BLOCK] = sum_lanes(part, size)
        total[0] += sum_lanes(weight, size)
        above[0] += sums[start // BLOCK]
        if low == high:
            count = count_equal(x + start, size, low)
            if count > 0 and m == 0:
                i = 0
                while i < size - 1 and x[start + i] != low:
                    i += 1
                work.weight[0] = weight[i]
            m += count
        else:
            mark_within(x + start, within, size, low, high)
            count = marked_places(within, size, place)
            for i in range(count):
                value[m + i] = x[start + place[i]]
                work.weight[m + i] = weight[place[i]]
                work.index[m + i] = start + place[i]
            m += count
        ends[start // BLOCK] = m
    return m


cdef inline void count_ties(Py_ssize_t n, double target, Nucleus *found) noexcept nogil:
    """Find how many of n elements of the same weight reach `target`."""
    found.ties = n
    if found.threshold_weight > 0:
        found.ties = <Py_ssize_t>max(1.0, min(<double>n, ceil(target / found.threshold_weight)))


cdef inline void refine(
    Py_ssize_t n, double target, double span, Workspace *work, Nucleus *found
) noexcept nogil:
    """Find where the mass of the n elements in `work` reaches `target`."""
    # What is left of them goes where their keys and masses will be.
    cdef double *value = <double *>work.keys
    cdef const double *x = <const double *>work.value
    cdef const double *weight = work.weight
    cdef double mass[BUCKETS]
    cdef double before, scale
    cdef int bucket
    cdef uint64_t last
    cdef Py_ssize_t i, m
    cdef Range r
    while True:
        r = min_max(x, n)
        if n <= RADIX_MAX or r.low == r.high:
            break
        scale = buckets_per_unit(r, span)
        mass_histogram(x, weight, n, r.high, scale, mass)
        bucket = bucket_reaching(mass, target, &before)
        m = compact_bucket(x, weight, n, r.high, scale, bucket, value, work.masses)
        x = value
        weight = work.masses
        target -= before
        if m > n - n // 4:  # spread over all scales: digits divide them better
            n = m
            break
        n = m
    found.threshold = r.low
    found.threshold_weight = weight[0]
    if r.low == r.high:
        count_ties(n, target, found)
        return
    for i in range(n):
        work.keys[i] = sortable_key(x[i])
        work.masses[i] = weight[i]
    radix_select_by_mass(work.keys, work.masses, n, target, &last, &found.ties)
    found.threshold = from_sortable_key(last, <double>0)


cdef inline void find_nucleus(
    const real *x, Py_ssize_t n, double highest, double inverse, double share, double span,
    double bound, double above, Workspace *work, Nucleus *found,
) noexcept nogil:
    """Find the shortest prefix whose mass reaches `share` of the row's, for 1/T above 0.

    It has logits within `span` from the largest, and about the mass `above` is above `bound`.
    """
    cdef double *value = <double *>work.value
    cdef double total, within
    cdef Py_ssize_t stride = (n + SAMPLE_SIZE - 1) // SAMPLE_SIZE
    cdef Py_ssize_t i, m = n // stride
    cdef uint64_t chance = 0
    cdef bint higher, lower, missed = False
    cdef Range r
    for i in range(m):  # one of each `stride` neighbours
        chance = chance * 6364136223846793005ULL + 1442695040888963407ULL
        value[i] = x[i * stride + <Py_ssize_t>((chance >> 32) * <uint64_t>stride >> 32)]
    softmax_weights(<const double *>value, work.weight, m, highest, inverse)
    r = sample_bracket(m, share, span, bound, above, stride, work)
    r.low = <real>r.low
    r.high = <real>r.high
    while True:
        found.is_listed = r.low < r.high
        m = partition_pass(x, n, highest, inverse, r, work, &total, &above)
        if found.is_listed:
            within = sum_lanes(work.weight, m)
        else:
            found.threshold = r.low
            found.threshold_weight = work.weight[0]
            within = m * found.threshold_weight
        higher = above >= share * total and r.high < highest
        lower = (m == 0 or above + within < share * total) and r.low > -infinity(<double>0)
        if not higher and not lower:
            break
        if missed:  # by rounding, or because another thread writes into the row
            higher = lower = False
        r.low, r.high = (
            r.high if higher else -infinity(<double>0), r.low if lower else highest
        )
        missed = True
    if found.is_listed:
        refine(max(<Py_ssize_t>1, m), share * total - above, span, work, found)
    else:
        count_ties(m, share * total - above, found)


cdef inline Py_ssize_t draw_from_nucleus(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, const Nucleus *left,
    Workspace *work,
) noexcept nogil:
    """Draw from the nucleus that has just been found: by blocks, then within one."""
    cdef double weight[BLOCK]
    cdef double part[BLOCK]
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef double *sums = <double *>work.maxima
    cdef const Py_ssize_t *ends = <const Py_ssize_t *>work.maxima + blocks
    cdef const double *near = <const double *>work.value
    cdef double *kept = work.masses
    cdef double target
    cdef Py_ssize_t block, start, i, m = 0, ties = left.ties
    if left.is_listed:
        mask_above(near, work.weight, kept, ends[blocks - 1], left.threshold)
        for i in range(ends[blocks - 1]):
            if near[i] == left.threshold and ties > 0:
                kept[i] = work.weight[i]
                ties -= 1
    for block in range(blocks):
        if left.is_listed:
            sums[block] += sum_lanes(kept + m, ends[block] - m)
        else:
            sums[block] += max(0, min(left.ties, ends[block]) - m) * left.threshold_weight
        m = ends[block]
    target = u * sum_in_order(sums, blocks)
    block = cdf_search(sums, blocks, 0, target)
    start = block * BLOCK
    m = min(<Py_ssize_t>BLOCK, n - start)
    softmax_weights(x + start, weight, m, highest, inverse)
    mask_above(x + start, weight, part, m, <real>left.threshold)
    i = ends[block - 1] if block > 0 else 0
    if left.is_listed:
        for i in range(i, ends[block]):
            part[work.index[i] - start] = kept[i]
    else:
        ties = left.ties - i
        for i in range(m):
            if x[start + i] == left.threshold and ties > 0:
                part[i] = left.threshold_weight
                ties -= 1
    return start + cdf_search(part, m, sum_in_order(sums, block), target)
