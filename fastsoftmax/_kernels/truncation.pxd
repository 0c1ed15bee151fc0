# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What top_k, top_p and min_p leave of a row: a list of survivors, or a threshold."""

from libc.math cimport log
from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.abi cimport Filters
from fastsoftmax._kernels.bisection cimport count_reaching, kth_of_few
from fastsoftmax._kernels.block_maxima cimport CHUNK, block_maxima_of_row, count_blocks
from fastsoftmax._kernels.block_select cimport select_k
from fastsoftmax._kernels.coarse cimport fits_coarse
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.histogram cimport Range
from fastsoftmax._kernels.mass_prefix cimport (
    FEW,
    Target,
    compact_to_prefix,
    find_prefix,
    truncate_listed,
    truncate_to_mass,
)
from fastsoftmax._kernels.nucleus cimport HEAVY_SHARE, find_nucleus, sample_row
from fastsoftmax._kernels.packed_row cimport is_listed, part_length, row_part
from fastsoftmax._kernels.partition cimport Nucleus
from fastsoftmax._kernels.peaked_row cimport FLAT, SHARP, Peak, list_peak, peak_of
from fastsoftmax._kernels.radix cimport (
    Descending,
    compact_prefix,
    from_sortable_key,
    next_below,
    radix_select_by_mass,
    sortable_key,
)
from fastsoftmax._kernels.row_maximum cimport first_max
from fastsoftmax._kernels.short_list cimport (
    compact_at_least,
    mask_at_least,
    max_logit_span,
    min_p_threshold,
    reaches_min_p,
)
from fastsoftmax._kernels.sums cimport STEP
from fastsoftmax._kernels.types cimport infinity, largest_finite, lowest_bit, real
from fastsoftmax._kernels.weights cimport (
    Prefix,
    keep_weights_above,
    softmax_weights,
)
from fastsoftmax._kernels.weights_f32 cimport (
    WeightScale,
    estimate_weights,
    fits_float32,
    set_weight_scale,
    sum_estimates,
)
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    MANY_BLOCKS = 8  # the part of the blocks that make a list of what reaches min_p too long
    SMALL_ROW = 32  # elements of a row that are all looked at rather than selected from by blocks
    LONG_ROW = 1 << 20  # elements from which on all of them get room only if that is needed
    HEAVY_BLOCKS = 32  # the part of the blocks that are looked through before a row is sampled,
    MAX_HEAVY = 2048  # and how many elements of these
    PEAK_MIN_LENGTH = 512  # elements of a row whose nucleus is looked for near its maximum first,
    NUCLEUS_MIN_LENGTH = 5120  # and then by a sample: of a shorter one, by all weights
    NOT_FOUND = -2


cdef inline bint has_filters(const Filters *f, Py_ssize_t n) noexcept nogil:
    """Return whether the filters `f` may remove something of n elements."""
    return 0 < f.top_k < n or f.top_p < 1 or f.log_min_p > -infinity(<double>0)


cdef inline Py_ssize_t initial_room(Py_ssize_t n) noexcept nogil:
    """Return for how many of n elements there is room to begin with, where all may be selected."""
    return n if n <= LONG_ROW else n // 24


cdef inline Py_ssize_t max_selected(
    Py_ssize_t n, const Filters *f, Py_ssize_t unfiltered
) noexcept nogil:
    """Return how many of n elements there is to be room for to begin with, with the filters `f`.

    `unfiltered` if none is removed.
    """
    if 0 < f.top_k < n:
        return min(n, max(f.top_k, f.min_keep))
    if not has_filters(f, n):
        return unfiltered
    return min(n, max(initial_room(n), f.min_keep))


cdef inline Py_ssize_t max_selected_of(
    Py_ssize_t n, const Filters *f, Py_ssize_t count, Py_ssize_t unfiltered
) noexcept nogil:
    """Return how many elements may have to be picked with any of `count` filters."""
    cdef Py_ssize_t i, k = 0
    for i in range(count):
        k = max(k, max_selected(n, f + i, unfiltered))
    return k


cdef inline Py_ssize_t list_row(const real *x, Py_ssize_t n, Workspace *work) noexcept nogil:
    """Make candidates of all of a row; return how many: none if there is no room for them."""
    cdef Py_ssize_t step = part_length(n, work.packed)
    cdef const real *part
    cdef Py_ssize_t start, i
    if n > work.room:
        work.is_full = True
        return 0
    for start from 0 <= start < n by step:
        part = row_part(x, start, min(step, n - start), work.packed)
        for i in range(min(step, n - start)):
            (<real *>work.value)[start + i] = part[i]
    for i in range(n):
        work.index[i] = i
    return n


cdef inline Py_ssize_t list_prefix(
    const real *x, Py_ssize_t n, const Prefix *kept, Workspace *work
) noexcept nogil:
    """Make candidates of what is `kept` of a row, in index order; return how many."""
    cdef real *value = <real *>work.value
    cdef real last = <real>kept.threshold
    cdef Py_ssize_t step = part_length(n, work.packed)
    cdef const real *part
    cdef Py_ssize_t start, size, j, i, m = 0, ties = kept.ties
    cdef uint32_t mask
    cdef bint equal
    for start from 0 <= start < n by step:
        size = min(step, n - start)
        part = row_part(x, start, size, work.packed)
        for j from 0 <= j < size by STEP:
            if m + min(<Py_ssize_t>STEP, size - j) > work.room:
                work.is_full = True
                return m
            mask = mask_at_least(part + j, size - j, last)
            while mask:
                i = j + lowest_bit(mask)
                value[m] = part[i]
                work.index[m] = start + i
                equal = part[i] == last
                m += (not equal) | (ties > 0)
                ties -= equal
                mask &= mask - 1
    return m


cdef inline Py_ssize_t select_from_small_row(
    const real *x, Py_ssize_t n, Py_ssize_t k, Workspace *work
) noexcept nogil:
    """Leave the first k of n numbers in `work`, in index order; return how many these are."""
    cdef real *value = <real *>work.value
    cdef real last
    cdef Py_ssize_t i, ties = k
    list_row(x, n, work)  # what is read twice may differ the second time
    last = kth_of_few(<const real *>value, n, k)
    for i in range(n):
        ties -= value[i] > last
    return compact_prefix(
        <const real *>value, work.index, n, last, ties, value, work.index, NULL, work.room,
    )


cdef inline Py_ssize_t count_at_least(
    const real *maxima, Py_ssize_t blocks, real least
) noexcept nogil:
    """Return how many block maxima are at least `least`."""
    if real is float:
        return count_reaching(maxima, <Descending>0, blocks, least, <uint32_t>0)
    else:
        return count_reaching(maxima, <Descending>0, blocks, least, <uint64_t>0)


cdef inline double mass_above(
    const real *x, Py_ssize_t n, double highest, double inverse, const WeightScale *scale,
    double bound, const real *maxima, Workspace *work,
) noexcept nogil:
    """Return about what mass of a row lies above `bound`, by the block maxima.

    `work.weight` has their weights. They serve by themselves unless it is few blocks that reach it:
    these may have more than one such element each, as in sorted rows.
    """
    cdef real *weight = <real *>work.weight
    cdef Py_ssize_t blocks = count_blocks(n, CHUNK)
    cdef Py_ssize_t count = blocks, listed = -1
    if count_at_least(maxima, blocks, <real>bound) <= blocks // HEAVY_BLOCKS:
        listed = compact_at_least(x, n, <real>bound, maxima, MAX_HEAVY, work)
    if listed >= 0:
        count = listed
        maxima = <const real *>work.value
        estimate_weights(maxima, weight, count, highest, inverse, scale)
    keep_weights_above(maxima, weight, count, <real>bound)
    return sum_estimates(<const real *>weight, count)


cdef inline Py_ssize_t truncate_long_row(
    const real *x, Py_ssize_t n, double highest, double inverse, double share,
    Py_ssize_t min_keep, Workspace *work, Nucleus *left,
) noexcept nogil:
    """Apply top_p alone to a row of PEAK_MIN_LENGTH or more; return what `filter_candidates` does.

    NOT_FOUND for one that all weights serve better.
    """
    cdef const real *value = <const real *>work.value
    cdef const real *maxima = <const real *>work.maxima
    cdef Py_ssize_t blocks = count_blocks(n, CHUNK)
    cdef Py_ssize_t count
    cdef double mass, span, total, bound = highest, above = 0
    cdef Nucleus here
    cdef Range r
    cdef WeightScale scale
    cdef Target target
    cdef Peak peak
    if is_listed(work.packed):
        count = compact_at_least(x, n, -largest_finite(<real>0), maxima, n, work)
        softmax_weights(value, work.weight, count, highest, inverse)
        count = truncate_listed(share, count, 1, work, <real>0)
        if count >= min_keep:
            return count
        block_maxima_of_row(
            x, <Descending>0, n, CHUNK, <real *>work.maxima, <real *>NULL, work.packed
        )
    if real is float:
        set_weight_scale(highest, inverse, &scale)
    else:
        scale.max_weight = 0  # nobody reads it, but clang cannot know
    estimate_weights(maxima, <real *>work.weight, blocks, highest, inverse, &scale)
    mass = sum_estimates(<const real *>work.weight, blocks)
    peak = peak_of(<real *>work.weight, blocks, mass, share)
    if peak != FLAT and fits_coarse(highest, inverse, <real>0):
        count = list_peak(
            x, n, highest, inverse, share, peak != SHARP, maxima, work, &target
        )
        if work.is_full:
            return 0
        if count > 0:
            count = truncate_to_mass(x, n, highest, inverse, target, share, count, 1, work)
            if count >= min_keep:
                return count
        estimate_weights(maxima, <real *>work.weight, blocks, highest, inverse, &scale)
    if n < NUCLEUS_MIN_LENGTH:
        return NOT_FOUND
    span = max_logit_span(n, inverse, share, mass)
    if mass < HEAVY_SHARE:
        bound = <real>(highest + log(mass / HEAVY_SHARE) / inverse)
        above = mass_above(x, n, highest, inverse, &scale, bound, maxima, work)
    r = sample_row(
        x, n, highest, inverse, &scale, share, span, bound, above, work, &total
    )
    find_nucleus(x, n, highest, inverse, &scale, share, span, r, work, &here)
    if work.is_full:
        return 0
    if left != NULL and min_keep == 1:
        left[0] = here
        return -1
    count = list_prefix(x, n, &here.prefix, work)
    if count < min_keep:
        count = select_k(x, n, min_keep, <real *>work.maxima, False, work)
    softmax_weights(value, work.weight, count, highest, inverse)
    return count


cdef inline Py_ssize_t truncate_by_min_p(
    const real *x, Py_ssize_t n, double highest, double inverse, double log_min_p,
    Py_ssize_t min_keep, Workspace *work, Nucleus *left,
) noexcept nogil:
    """Apply min_p alone to a row, for 1/T above 0; return what `filter_candidates` does.

    It is a threshold: what reaches it is listed if few blocks do, else it is left as it is.
    """
    cdef const real *maxima = <const real *>work.maxima
    cdef real least = min_p_threshold(highest, inverse, log_min_p, <real>0)
    cdef Py_ssize_t blocks = count_blocks(n, CHUNK)
    cdef Py_ssize_t count, likely
    likely = 0 if is_listed(work.packed) else count_at_least(maxima, blocks, least)  # that is few
    if left != NULL and likely > blocks // MANY_BLOCKS and likely >= min_keep:
        left.prefix.threshold = next_below(least)
        left.prefix.ties = 0
        left.has_sums = False
        left.has_weights = False
        return -1
    count = compact_at_least(x, n, least, maxima, n, work)
    if count < min_keep and not work.is_full:
        count = select_k(x, n, min_keep, <real *>work.maxima, True, work)
    return count


cdef inline Py_ssize_t filter_candidates(
    const real *x, Py_ssize_t n, double highest, double inverse, const Filters *f, Workspace *work,
    Nucleus *left,
) noexcept nogil:
    """Apply top_k, top_p and min_p; leave value, index and weight in `work`, in index order.

    Return how many; -1 if they are too many to be listed and a threshold is in `left`, unless that
    is NULL. What is left is of no use if the workspace is full.
    """
    cdef real *value = <real *>work.value
    cdef double eps = 1.1920928955078125e-07 if real is float else 2.220446049250313e-16
    cdef double share = f.top_p * (1 - 4 * eps)
    cdef bint limited = 0 < f.top_k < n
    cdef bint by_mass = f.top_p < 1
    cdef bint min_p = f.log_min_p > -infinity(<double>0)
    cdef bint weighed = False
    cdef Py_ssize_t min_keep = min(f.min_keep, n)
    cdef Py_ssize_t count = NOT_FOUND
    cdef Prefix prefix
    cdef Py_ssize_t likely, ties, i
    cdef uint64_t last
    cdef real least
    if (
        by_mass and not limited and n >= PEAK_MIN_LENGTH and inverse > 0
        and (real is double or fits_float32(inverse))
    ):
        count = truncate_long_row(x, n, highest, inverse, share, min_keep, work, left)
    if count != NOT_FOUND:
        by_mass = False
        weighed = True
        if count < 0:
            if min_p:
                least = min_p_threshold(highest, inverse, f.log_min_p, <real>0)
                if least > left.prefix.threshold:
                    left.prefix.threshold = next_below(least)
                    left.prefix.ties = 0
                    left.has_sums = False
                    left.has_weights = False
            return count
    elif limited and max(f.top_k, min_keep) < n:
        count = max(f.top_k, min_keep)
        if n <= SMALL_ROW:
            count = select_from_small_row(x, n, count, work)
        else:
            count = select_k(x, n, count, <real *>work.maxima, True, work)
    elif min_p and not by_mass and inverse > 0:
        min_p = False
        count = truncate_by_min_p(
            x, n, highest, inverse, f.log_min_p, min_keep, work, left
        )
        if count < 0:
            return count
    elif by_mass and inverse > 0 and work.packed == NULL and FEW < n <= work.most:
        find_prefix(x, n, highest, inverse, share, work, &prefix)
        if left != NULL and min_keep <= 1 and not min_p:
            left.prefix = prefix
            left.has_sums = False
            left.has_weights = True
            return -1
        by_mass = False
        count = list_prefix(x, n, &prefix, work)
        if count < min_keep:
            count = select_k(x, n, min_keep, <real *>work.maxima, True, work)
    else:
        count = list_row(x, n, work)
    if work.is_full:
        return 0
    if not weighed:
        softmax_weights(<const real *>value, work.weight, count, highest, inverse)
    if inverse == 0:  # the order of the logits says nothing about that of the probabilities
        for i in range(count):
            value[i] = <real>highest if value[i] > -infinity(<real>0) else value[i]
    if by_mass:
        count = truncate_listed(share, count, min_keep, work, <real>0)
    if min_p:
        likely = 0
        for i in range(count):
            likely += reaches_min_p(value[i], highest, inverse, f.log_min_p)
        if likely < count:
            for i in range(count):
                work.keys[i] = sortable_key(value[i])
            radix_select_by_mass(
                work.keys, NULL, count, <double>max(likely, min_keep), &last, &ties
            )
            count = compact_to_prefix(value, work, count, last, ties, 1)
    return count


cdef inline Py_ssize_t apply_filters(
    const real *x, Py_ssize_t n, double highest, const Filters *f, Workspace *work, Nucleus *left,
) noexcept nogil:
    """Leave what the filters leave of a valid row in `work`, in index order; return how many.

    `left` and -1 as for `filter_candidates`. `work` has the block maxima of CHUNK.
    """
    if f.temperature == 0:
        work.index[0] = first_max(x, n, CHUNK, <real>highest, <real *>work.maxima, work.packed)
        (<real *>work.value)[0] = <real>highest
        work.weight[0] = 1
        return 1
    return filter_candidates(
        x, n, highest, inverse_temperature(f.temperature, <double>0), f, work, left
    )
