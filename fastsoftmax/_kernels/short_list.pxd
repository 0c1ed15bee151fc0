# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Candidates of a row by its block maxima, and bounds that are known before any weight is."""

from libc.math cimport log
from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.bisection cimport step_mask
from fastsoftmax._kernels.bit_masks cimport word_at
from fastsoftmax._kernels.block_maxima cimport CHUNK, count_blocks
from fastsoftmax._kernels.packed_row cimport (
    is_listed,
    is_moved,
    open_bits,
    row_element,
    row_part,
)
from fastsoftmax._kernels.radix cimport Descending, from_sortable_key, sortable_key
from fastsoftmax._kernels.sums cimport LANES, STEP
from fastsoftmax._kernels.types cimport infinity, lowest_bit, real
from fastsoftmax._kernels.workspace cimport Workspace


cdef inline double max_logit_span(
    Py_ssize_t n, double inverse, double share, double total
) noexcept nogil:
    """Return within what distance from the largest logit `share` of the mass is reached.

    What is lighter than its part of the rest cannot be where that happens. `total` is a lower
    bound of the mass of all.
    """
    return log(n / ((1 - share) * total)) / inverse


cdef inline uint32_t mask_at_least(const real *x, Py_ssize_t n, real low) noexcept nogil:
    """Return a bit for each of up to STEP elements: 1 if it is at least `low`."""
    cdef uint32_t mask = 0
    cdef Py_ssize_t l
    if n < STEP:
        for l in range(n):
            mask |= <uint32_t>(x[l] >= low) << l
        return mask
    return step_mask(x, <Descending>0, low)


cdef inline Py_ssize_t compact_at_least(
    const real *x, Py_ssize_t n, real low, const real *maxima, Py_ssize_t most, Workspace *work
) noexcept nogil:
    """Write what is at least `low`, by the block maxima, in index order; return how many.

    At most n: each element is looked at once. -1 if so far there are more than `most`.
    """
    cdef real *value = <real *>work.value
    cdef const real *part
    cdef Py_ssize_t block, start, size, j, i, m = 0
    cdef const uint32_t *bits = NULL
    cdef uint32_t mask, hits
    if is_listed(work.packed):
        for i in range(work.packed.count):
            value[m] = row_element(x, work.packed.ids[i], work.packed)
            work.index[m] = work.packed.ids[i]
            m += value[m] >= low
        return m
    if not is_moved(work.packed):
        bits = open_bits(work.packed)
    for block from 0 <= block < count_blocks(n, CHUNK) by STEP:
        hits = mask_at_least(maxima + block, STEP, low)  # and of what lies behind them, perhaps
        start = block // LANES * CHUNK - CHUNK
        while hits and start < n - CHUNK:
            start += CHUNK
            if hits & 255 == 0:
                hits >>= LANES
                continue
            hits >>= LANES
            size = min(<Py_ssize_t>CHUNK, n - start)
            if m > most:
                return -1
            if m + size + 1 > work.room:
                work.is_full = True
                return 0
            part = x + start if bits != NULL else row_part(x, start, size, work.packed)
            for j from 0 <= j < size by STEP:
                if bits == NULL:
                    mask = mask_at_least(part + j, size - j, low)
                elif word_at(bits, start + j) == 0:
                    continue
                else:
                    mask = mask_at_least(part + j, size - j, low) & word_at(bits, start + j)
                i = j + lowest_bit(mask | (mask == 0))  # mostly one at most: without a branch
                value[m] = part[i]
                work.index[m] = start + i
                m += mask != 0
                mask &= mask - 1
                while mask:
                    i = j + lowest_bit(mask)
                    value[m] = part[i]
                    work.index[m] = start + i
                    m += 1
                    mask &= mask - 1
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
