# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Candidates of a row by its block maxima, and thresholds that are known before any weight is."""

from libc.math cimport log
from libc.stdint cimport uint64_t

from fastsoftmax._kernels.block_maxima cimport CHUNK
from fastsoftmax._kernels.histogram cimport (
    BUCKETS,
    Range,
    bucket_reaching,
    buckets_per_unit,
    mass_histogram,
    min_max,
)
from fastsoftmax._kernels.packed_row cimport is_listed, row_element, row_part
from fastsoftmax._kernels.radix cimport from_sortable_key, sortable_key
from fastsoftmax._kernels.sums cimport LANES
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    SKIP_ELEMENTS = 16  # elements that are passed over at once


cdef inline bint any_at_least(const real *x, Py_ssize_t n, real low) noexcept nogil:
    """Return whether one of n elements (a constant) is at least `low`."""
    cdef int found = 0
    cdef Py_ssize_t l
    for l in range(n):
        found |= x[l] >= low
    return found


cdef inline double max_logit_span(
    Py_ssize_t n, double inverse, double share, double total
) noexcept nogil:
    """Return within what distance from the largest logit `share` of the mass is reached.

    What is lighter than its part of the rest cannot be where that happens. `total` is a lower
    bound of the mass of all.
    """
    return log(n / ((1 - share) * total)) / inverse


cdef inline double threshold_from_maxima(
    const real *maxima, Py_ssize_t n, double target, double span, Workspace *work
) noexcept nogil:
    """Return a number such that the n block maxima above it have the mass `target`, nearly no more.

    Their weights are in `work`; `span` is the distance from the largest that buckets cover.
    """
    cdef double mass[BUCKETS]
    cdef double before, scale
    cdef Range r = min_max(maxima, n)
    scale = buckets_per_unit(r, span)
    mass_histogram(maxima, <const real *>work.weight, n, r.high, scale, mass)
    return r.high - (bucket_reaching(mass, target, &before) + 1.01) / scale


cdef inline Py_ssize_t compact_at_least(
    const real *x, Py_ssize_t n, real low, const real *maxima, Workspace *work
) noexcept nogil:
    """Write what is at least `low`, by the block maxima, in index order; return how many.

    At most n: each element is looked at once.
    """
    cdef real *value = <real *>work.value
    cdef const real *part
    cdef Py_ssize_t start, stop, j, i, l, lane, lanes, m = 0
    if is_listed(work.packed):
        for i in range(work.packed.count):
            value[m] = row_element(x, work.packed.ids[i], work.packed)
            work.index[m] = work.packed.ids[i]
            m += value[m] >= low
        return m
    for start from 0 <= start < n by CHUNK:
        if any_at_least(maxima, LANES, low):
            stop = min(n, start + CHUNK)
            if m + (stop - start) > work.room:
                work.is_full = True
                break
            part = row_part(x, start, stop - start, work.packed) - start
            lane = lanes = 0
            for l in range(LANES):
                lane = l if maxima[l] >= low else lane
                lanes += maxima[l] >= low
            if lanes == 1:  # as a rule; without a branch, which could not be predicted
                for i from start + lane <= i < stop by LANES:
                    value[m] = part[i]
                    work.index[m] = i
                    m += part[i] >= low
            else:
                for j from start <= j < stop by SKIP_ELEMENTS:
                    if j + SKIP_ELEMENTS <= stop and not any_at_least(
                        part + j, SKIP_ELEMENTS, low
                    ):
                        continue
                    for i in range(j, min(stop, j + SKIP_ELEMENTS)):
                        value[m] = part[i]
                        work.index[m] = i
                        m += part[i] >= low
        maxima += LANES
    return m


# ---- min_p ---------------------------------------------------------------------------------------


cdef inline bint reaches_min_p(
    real value, double highest, double inverse, double log_min_p
) noexcept nogil:
    """Return whether a logit is likely enough for min_p."""
    return (<double>value - highest) * inverse >= log_min_p


cdef inline real min_p_threshold(
    double highest, double inverse, double log_min_p, real like
) noexcept nogil:
    """Return the smallest number that `reaches_min_p`, for 1/T above 0: keys are bisected.

    The interval around what real arithmetic says is doubled until it holds the step.
    """
    cdef uint64_t unit = <uint64_t>1 << 32 if real is float else 1
    cdef uint64_t lowest = sortable_key(-infinity(<real>0)) // unit
    cdef uint64_t high = sortable_key(<real>highest) // unit
    cdef uint64_t low, middle, width = 2
    middle = min(high, max(lowest, sortable_key(<real>(highest + log_min_p / inverse)) // unit))
    low = middle
    if reaches_min_p(from_sortable_key(middle * unit, like), highest, inverse, log_min_p):
        high = middle
        while low > lowest and reaches_min_p(
            from_sortable_key(low * unit, like), highest, inverse, log_min_p
        ):
            high = low
            low = low - width if low - lowest > width else lowest
            width *= 2
    else:
        while middle < high and not reaches_min_p(
            from_sortable_key(middle * unit, like), highest, inverse, log_min_p
        ):
            low = middle
            middle = middle + width if high - middle > width else high
            width *= 2
        high = middle
    while high - low > 1:
        middle = low + (high - low) // 2
        if reaches_min_p(from_sortable_key(middle * unit, like), highest, inverse, log_min_p):
            high = middle
        else:
            low = middle
    return from_sortable_key(high * unit, like)
