# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The nucleus of a row that is no short list: found without a sort, and without making the list.

A sample of the row tells between which two logits the mass will be reached, rather surely. One pass
over the row adds up all weights and those above the two, and picks out what lies between, some
per cent of it. Only that is searched: its weights are added up in buckets, the bucket in which the
mass is reached is divided in its turn, and the last few hundred elements are cut by digits. If the
sample was wrong, the pass is done again for what lies on the right side of the two.

What is found is a threshold, and how many of the elements that equal it belong to the nucleus. For
float32 rows weights are float32 at first, and float64 where the errors of their sums might matter.

Source: sampling before a selection is R. W. Floyd and R. L. Rivest, "Expected time bounds for
selection", CACM 18 (1975), https://doi.org/10.1145/360680.360691, here on masses.
"""

from libc.math cimport ceil, sqrt
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from fastsoftmax._kernels.block_select cimport Workspace
from fastsoftmax._kernels.exp cimport infinity, real
from fastsoftmax._kernels.histogram cimport (
    BUCKETS,
    Range,
    bucket_reaching,
    buckets_per_unit,
    compact_bucket,
    mass_histogram,
    min_max,
    min_max_within,
)
from fastsoftmax._kernels.inverse_cdf cimport draw_from_block, draw_from_row
from fastsoftmax._kernels.partition cimport Nucleus, partition_pass
from fastsoftmax._kernels.radix cimport from_sortable_key, radix_select_by_mass, sortable_key
from fastsoftmax._kernels.row cimport BLOCK, find_first
from fastsoftmax._kernels.weights cimport (
    cdf_search,
    keep_prefix_weights,
    keep_weights_above,
    sum_in_order,
    sum_lanes,
)
from fastsoftmax._kernels.weights_f32 cimport (
    WeightScale,
    estimate_weights,
    share_error,
)

cdef enum:
    SAMPLE_SIZE = 4096
    HEAVY_SHARE = 1024  # what has a larger share of the mass is left out of the sample
    RADIX_MAX = 256  # elements that are cut by digits rather than put into buckets

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
    off = 2 * sqrt(sum_lanes(work.masses, n))  # seldom more, by the central limit theorem
    r.low = -infinity(<double>0)
    if target + off < total:
        r.low = bound - (bucket_reaching(mass, target + off, &before) + 1) / scale
    if target - off > 0:
        r.high = bound - bucket_reaching(mass, target - off, &before) / scale
    few = min_max_within(value, n, r, &count)
    if count > SAMPLE_SIZE // 64 and few.low == few.high:  # one number, over and over
        return few
    return r


cdef inline void count_ties(Py_ssize_t n, double target, Nucleus *found) noexcept nogil:
    """Find how many of n elements of the same weight reach `target`."""
    found.prefix.ties = n
    if found.threshold_weight > 0:
        found.prefix.ties = <Py_ssize_t>max(
            1.0, min(<double>n, ceil(target / found.threshold_weight))
        )


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
    found.prefix.threshold = r.low
    found.threshold_weight = weight[0]
    if r.low == r.high:
        count_ties(n, target, found)
        return
    for i in range(n):
        work.keys[i] = sortable_key(x[i])
        work.masses[i] = weight[i]
    radix_select_by_mass(work.keys, work.masses, n, target, &last, &found.prefix.ties)
    found.prefix.threshold = from_sortable_key(last, <double>0)


cdef inline bint bracket_threshold(
    const real *x, Py_ssize_t n, double highest, double inverse, double share, double span,
    Range r, Workspace *work, Nucleus *found,
) noexcept nogil:
    """Find where the mass reaches `share` of the row's, at best within r, for 1/T above 0.

    The weights are what `found` says; return whether their errors cannot matter.
    """
    cdef double above = 0, within, goal, error, before
    cdef Py_ssize_t m, i
    cdef bint higher, lower, missed = False
    while True:
        found.is_listed = r.low < r.high
        m = partition_pass(x, n, highest, inverse, r, work, found, &above)
        if found.is_listed:
            within = sum_lanes(work.weight, m)
        else:
            found.prefix.threshold = r.low
            found.threshold_weight = work.weight[0]
            within = m * found.threshold_weight
        goal = share * found.total
        higher = above >= goal and r.high < highest
        lower = (m == 0 or above + within < goal) and r.low > -infinity(<double>0)
        if not higher and not lower:
            break
        if missed:  # by rounding, or because another thread writes into the row
            higher = lower = False
        r.low, r.high = (
            r.high if higher else -infinity(<double>0), r.low if lower else highest
        )
        missed = True
    if found.is_listed:
        refine(max(<Py_ssize_t>1, m), goal - above, span, work, found)
    else:
        count_ties(m, goal - above, found)
    if not found.is_float32:
        return True
    before = above
    if found.is_listed:
        i = find_first(<double *>work.value, m, found.prefix.threshold)
        found.threshold_weight = work.weight[i] if i < m else 0
        memcpy(work.masses, work.weight, m * sizeof(double))
        keep_weights_above(<double *>work.value, work.masses, m, found.prefix.threshold)
        before += sum_lanes(work.masses, m)
    before += (found.prefix.ties - 1) * found.threshold_weight
    error = share_error(&found.scale, n, found.total, found.total, share)
    return before < goal - error and before + found.threshold_weight >= goal + error


cdef inline void find_nucleus(
    const real *x, Py_ssize_t n, double highest, double inverse, const WeightScale *scale,
    double share, double span, double bound, double above, Workspace *work, Nucleus *found,
) noexcept nogil:
    """Find the shortest prefix whose mass reaches `share` of the row's, for 1/T above 0.

    It has logits within `span` from the largest, and about the mass `above` is above `bound`.
    """
    cdef real *value = <real *>work.masses
    cdef Py_ssize_t stride = (n + SAMPLE_SIZE - 1) // SAMPLE_SIZE
    cdef Py_ssize_t i, m = n // stride
    cdef uint64_t chance = 0
    cdef Range r
    for i in range(m):  # one of each `stride` neighbours
        chance = chance * 6364136223846793005ULL + 1442695040888963407ULL
        value[i] = x[i * stride + <Py_ssize_t>((chance >> 32) * <uint64_t>stride >> 32)]
    estimate_weights(<const real *>value, work.weight, m, highest, inverse, scale)
    for i in range(m):
        (<double *>work.value)[i] = value[i]
    r = sample_bracket(m, share, span, bound, above, stride, work)
    r.low = <real>r.low
    r.high = <real>r.high
    found.has_sums = True
    found.is_float32 = False
    if real is float:
        found.is_float32 = True
        found.scale = scale[0]
        if bracket_threshold(x, n, highest, inverse, share, span, r, work, found):
            return
        found.is_float32 = False
    bracket_threshold(x, n, highest, inverse, share, span, r, work, found)


cdef inline Py_ssize_t draw_from_nucleus(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, const Nucleus *left,
    Workspace *work,
) noexcept nogil:
    """Draw from a nucleus that has just been found: by blocks, then within one."""
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef double *sums = <double *>work.maxima
    cdef const Py_ssize_t *ends = <const Py_ssize_t *>work.maxima + blocks
    cdef const double *near = <const double *>work.value
    cdef double target, margin = 0, kept
    cdef Py_ssize_t block, start, i, m = 0, ties = left.prefix.ties
    if not left.has_sums:
        return draw_from_row(x, n, u, highest, inverse, &left.prefix, sums)
    if left.is_listed:
        keep_prefix_weights(near, work.weight, ends[blocks - 1], &left.prefix, ties)
    for block in range(blocks):
        if left.is_listed:
            sums[block] += sum_lanes(work.weight + m, ends[block] - m)
        else:
            sums[block] += (
                max(0, min(left.prefix.ties, ends[block]) - m) * left.threshold_weight
            )
        m = ends[block]
    kept = sum_in_order(sums, blocks)
    target = u * kept
    block = cdf_search(sums, blocks, 0, target)
    start = ends[block - 1] if block > 0 else 0
    if left.is_listed:
        for i in range(start):
            ties -= near[i] == left.prefix.threshold
    else:
        ties -= start
    if left.is_float32:
        margin = share_error(&left.scale, n, left.total, kept, u)
    i = draw_from_block(
        x, n, highest, inverse, &left.prefix, ties, sums, block, target, margin
    )
    if i < 0:
        i = draw_from_row(x, n, u, highest, inverse, &left.prefix, sums)
    return i
