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
from fastsoftmax._kernels.inverse_cdf cimport draw_from_block, draw_from_row, draw_from_weights
from fastsoftmax._kernels.packed_row cimport is_moved, is_shut_piece, row_element, row_part
from fastsoftmax._kernels.partition cimport Nucleus, partition_pass
from fastsoftmax._kernels.radix cimport from_sortable_key, radix_select_by_mass, sortable_key
from fastsoftmax._kernels.sums cimport BLOCK, STEP, round_to_step
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.weights cimport (
    cdf_search,
    keep_prefix_weights,
    sum_in_order,
    sum_lanes,
    weight_t,
)
from fastsoftmax._kernels.weights_f32 cimport (
    WeightScale,
    estimate_weights,
    share_error,
    sum_above_f32,
    sum_estimates,
    weigh_list,
)
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    SAMPLE_SIZE = 4096
    HEAVY_SHARE = 1024  # what has a larger share of the mass is left out of the sample
    PIECE = 4  # neighbours that come into the sample together
    RADIX_MAX = 256  # elements that are cut by digits rather than put into buckets

cdef inline Range sample_bracket(
    Py_ssize_t n, double share, double span, double bound, double above, double stride,
    Workspace *work, double *row_total, real like,
) noexcept nogil:
    """Return between which logits, not above `bound`, a sample says that the mass is reached.

    `work` has n logits of the type of `like`, one of each `stride`, and their weights. `above` is
    the mass above `bound`, which few large weights may have: these are left out. Write about what
    the mass of the row is.
    """
    cdef real *value = <real *>work.value
    cdef real *weight = <real *>work.weight
    cdef real *square = <real *>work.masses
    cdef double mass[BUCKETS]
    cdef double total, target, scale, before, off
    cdef real low, high, centre
    cdef Py_ssize_t i, count = 0
    cdef Range r, few
    high = <real>bound
    for i in range(n):
        low = weight[i]
        weight[i] = low if value[i] <= high else 0
    total = sum_estimates(<const real *>weight, n)
    row_total[0] = stride * total + above
    target = share * total - (1 - share) * above / stride
    r = min_max(value, n)
    r.high = bound
    if r.low >= bound:
        r.low = bound
        return r
    scale = buckets_per_unit(r, span)
    mass_histogram(<const real *>value, <const real *>weight, n, bound, scale, mass)
    centre = <real>(bound - bucket_reaching(mass, target, &before) / scale)
    for i in range(n):
        low = <real>(1 - share) if value[i] > centre else <real>share
        low *= weight[i]
        square[i] = low * low
    # Seldom more, by the central limit theorem.
    off = 2 * sqrt(sum_estimates(<const real *>square, n))
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
    Py_ssize_t n, double highest, double inverse, double target, double span, Workspace *work,
    Nucleus *found, weight_t like,
) noexcept nogil:
    """Find where the mass of the n elements in `work`, of the type of `like`, reaches `target`."""
    # What is left of them goes to where there are no indices yet, and to the end of where keys and
    # masses will be.
    cdef Py_ssize_t behind = work.room * (8 // <Py_ssize_t>sizeof(weight_t) - 1)
    cdef weight_t *value = <weight_t *>work.index
    cdef weight_t *spare = <weight_t *>work.keys + behind
    cdef weight_t *left = <weight_t *>work.masses + behind
    cdef weight_t *x = <weight_t *>work.value
    cdef weight_t *weight = <weight_t *>work.weight
    cdef double mass[BUCKETS]
    cdef double before, scale
    cdef int bucket
    cdef uint64_t last
    cdef Py_ssize_t i, m
    cdef Range r
    while True:
        r = min_max(<const weight_t *>x, n)
        if n <= RADIX_MAX or r.low == r.high:
            break
        scale = buckets_per_unit(r, span)
        mass_histogram(<const weight_t *>x, <const weight_t *>weight, n, r.high, scale, mass)
        bucket = bucket_reaching(mass, target, &before)
        m = compact_bucket(<const weight_t *>x, n, r.high, scale, bucket, value)
        weight = left
        weigh_list(value, weight, m, highest, inverse, &found.scale)
        x = value
        value = spare
        spare = x
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
    found.prefix.threshold = from_sortable_key(last, like)


cdef inline bint bracket_threshold(
    const real *x, Py_ssize_t n, double highest, double inverse, double share, double span,
    Range r, Workspace *work, Nucleus *found, weight_t like,
) noexcept nogil:
    """Find where the mass reaches `share` of the row's, at best within r, for 1/T above 0.

    By weights of the type of `like`; return whether their errors cannot matter. What is found is of
    no use if the workspace is full.
    """
    cdef weight_t *value = <weight_t *>work.value
    cdef weight_t *weight = <weight_t *>work.weight
    cdef weight_t *kept = <weight_t *>work.masses
    cdef double above = 0, higher_mass, within, goal, error
    cdef Py_ssize_t m
    cdef double width
    cdef bint higher, lower
    cdef int misses = 0
    while True:
        found.is_listed = r.low < r.high
        m = partition_pass(x, n, highest, inverse, r, work, found, &above, like)
        if work.is_full:
            return True
        if found.is_listed:
            within = sum_estimates(<const weight_t *>weight, m)
        else:
            found.prefix.threshold = r.low
            found.threshold_weight = weight[0]
            within = m * found.threshold_weight
        goal = share * found.total
        higher = above >= goal and r.high < highest
        lower = (m == 0 or above + within < goal) and r.low > -infinity(<double>0)
        if not higher and not lower or misses == 3:
            break
        # The sample was wrong: not by much, as a rule. If that does not help it was by rounding, or
        # another thread writes into the row.
        misses += 1
        width = 2 * (r.high - r.low)
        r.low, r.high = (
            r.high if higher and misses < 3 else -infinity(<double>0),
            r.low if lower and misses < 3 else highest,
        )
        if misses == 1 and higher and width < highest - r.low:
            r.high = <real>(r.low + width)
        elif misses == 1 and lower and width < infinity(<double>0):
            r.low = <real>(r.high - width)
        if r.low == r.high:
            r.low, r.high = -infinity(<double>0), highest
    if found.is_listed:
        refine(
            max(<Py_ssize_t>1, m), highest, inverse, goal - above, span, work, found, like
        )
    else:
        count_ties(m, goal - above, found)
    if weight_t is double:
        return True
    else:
        higher_mass = above
        if found.is_listed:
            kept[0] = <weight_t>found.prefix.threshold
            weigh_list(kept, kept + STEP, 1, highest, inverse, &found.scale)
            found.threshold_weight = kept[STEP]
            above += sum_above_f32(
                value, weight, round_to_step(m + STEP - 1), <float>found.prefix.threshold
            )
        above += (found.prefix.ties - 1) * found.threshold_weight
        # A sum of four is off by 2 u: these are not those of the total.
        error = 4.4 * 2.0**-24 * (above - higher_mass) + share_error(
            &found.scale, n, found.total, found.total, share
        )
        return above < goal - error and above + found.threshold_weight >= goal + error


cdef inline Range sample_row(
    const real *x, Py_ssize_t n, double highest, double inverse, const WeightScale *scale,
    double share, double span, double bound, double above, Workspace *work, double *total,
) noexcept nogil:
    """Return between which logits a sample says that `share` of the row's mass is reached.

    That has logits within `span` from the largest, and about the mass `above` is above `bound`.
    Write about what the mass of the row is. n is at least SAMPLE_SIZE.
    """
    cdef real *value = <real *>work.value
    cdef const real *part
    cdef Py_ssize_t stride = n // (SAMPLE_SIZE // PIECE)
    cdef Py_ssize_t i, l, place
    cdef uint64_t chance = 0
    cdef bint found = False
    cdef Range r
    for i in range(SAMPLE_SIZE // PIECE):  # a piece of each `stride` neighbours
        chance = chance * 6364136223846793005ULL + 1442695040888963407ULL
        place = i * stride + <Py_ssize_t>((chance >> 32) * <uint64_t>(stride - PIECE + 1) >> 32)
        part = value + PIECE * i
        if work.packed != NULL and not is_moved(work.packed):
            for l in range(PIECE):
                value[PIECE * i + l] = row_element(x, place + l, work.packed)
        elif is_shut_piece(work.packed, place, PIECE):
            for l in range(PIECE):
                value[PIECE * i + l] = -infinity(<real>0)
        else:
            part = row_part(x, place, PIECE, work.packed)
        for l in range(PIECE):
            value[PIECE * i + l] = part[l]
            found |= part[l] > -infinity(<real>0)
    if not found and above > 0:  # what `sample_bracket` returns, and that there is nothing else
        total[0] = above
        r.low = <real>(bound - 1 / (BUCKETS / span))
        r.high = <real>bound
        return r
    estimate_weights(
        <const real *>value, <real *>work.weight, SAMPLE_SIZE, highest, inverse, scale
    )
    r = sample_bracket(
        SAMPLE_SIZE, share, span, bound, above, <double>n / SAMPLE_SIZE, work, total, <real>0
    )
    r.low = <real>r.low
    r.high = <real>r.high
    return r


cdef inline void find_nucleus(
    const real *x, Py_ssize_t n, double highest, double inverse, const WeightScale *scale,
    double share, double span, Range r, Workspace *work, Nucleus *found,
) noexcept nogil:
    """Find the shortest prefix whose mass reaches `share` of the row's, for 1/T above 0.

    It has logits within `span` from the largest; r is what `sample_row` says.
    """
    found.has_sums = True
    found.has_weights = False
    found.is_float32 = False
    if real is float:
        found.is_float32 = True
        found.scale = scale[0]
        if bracket_threshold(
            x, n, highest, inverse, share, span, r, work, found, <float>0
        ):
            return
        found.is_float32 = False
    bracket_threshold(x, n, highest, inverse, share, span, r, work, found, <double>0)


cdef inline void add_listed(
    Py_ssize_t blocks, const Nucleus *left, Workspace *work, weight_t like
) noexcept nogil:
    """Add what a nucleus keeps of its list, of the type of `like`, to the blocks' sums."""
    cdef const weight_t *value = <const weight_t *>work.value
    cdef weight_t *weight = <weight_t *>work.weight
    cdef double *sums = <double *>work.maxima
    cdef const Py_ssize_t *ends = <const Py_ssize_t *>work.maxima + blocks
    cdef Py_ssize_t block, m = 0
    keep_prefix_weights(value, weight, ends[blocks - 1], &left.prefix, left.prefix.ties)
    for block in range(blocks):
        sums[block] += sum_lanes(<const weight_t *>(weight + m), ends[block] - m)
        m = ends[block]


cdef inline Py_ssize_t count_listed(
    Py_ssize_t n, double threshold, Workspace *work, weight_t like
) noexcept nogil:
    """Return how many of the first n elements of the list, of the type of `like`, equal it."""
    cdef const weight_t *value = <const weight_t *>work.value
    cdef weight_t v = <weight_t>threshold
    cdef Py_ssize_t i, m = 0
    for i in range(n):
        m += value[i] == v
    return m


cdef inline double sum_nucleus(
    Py_ssize_t n, const Nucleus *left, Workspace *work
) noexcept nogil:
    """Make the blocks' sums those of what a nucleus keeps, once; return the sum of these.

    For one that has just been found, with sums.
    """
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef double *sums = <double *>work.maxima
    cdef const Py_ssize_t *ends = <const Py_ssize_t *>work.maxima + blocks
    cdef Py_ssize_t block, m = 0
    if not left.is_listed:
        for block in range(blocks):
            sums[block] += (
                max(0, min(left.prefix.ties, ends[block]) - m) * left.threshold_weight
            )
            m = ends[block]
    elif left.is_float32:
        add_listed(blocks, left, work, <float>0)
    else:
        add_listed(blocks, left, work, <double>0)
    return sum_in_order(sums, blocks)


cdef inline Py_ssize_t draw_from_nucleus(
    const real *x, Py_ssize_t n, double u, double highest, double inverse, const Nucleus *left,
    Workspace *work,
) noexcept nogil:
    """Draw from a nucleus that has just been found: by blocks, then within one."""
    cdef Py_ssize_t blocks = (n + BLOCK - 1) // BLOCK
    cdef double *sums = <double *>work.maxima
    cdef const Py_ssize_t *ends = <const Py_ssize_t *>work.maxima + blocks
    cdef double target, kept, margin = 0
    cdef Py_ssize_t block, i, m, ties = left.prefix.ties
    if left.has_weights:
        return draw_from_weights(x, n, u, &left.prefix, work.weight, sums)
    if not left.has_sums:
        return draw_from_row(x, n, u, highest, inverse, &left.prefix, sums, work.packed)
    kept = sum_nucleus(n, left, work)
    target = u * kept
    block = cdf_search(sums, blocks, 0, target)
    m = ends[block - 1] if block > 0 else 0
    if not left.is_listed:
        ties -= m
    elif left.is_float32:
        ties -= count_listed(m, left.prefix.threshold, work, <float>0)
    else:
        ties -= count_listed(m, left.prefix.threshold, work, <double>0)
    if left.is_float32:
        margin = share_error(&left.scale, n, left.total, kept, u)
    i = draw_from_block(
        x, n, highest, inverse, &left.prefix, ties, sums, block, target, margin, &left.scale,
        work.packed,
    )
    if i < 0:
        i = draw_from_row(x, n, u, highest, inverse, &left.prefix, sums, work.packed)
    return i
