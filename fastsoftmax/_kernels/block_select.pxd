# cython: language_level=3, cdivision=True
"""Partial selection: the k largest (or smallest) of a row, unsorted.

The order everywhere is: larger value first, lower index first among equals, NaN last.

Threshold
    A value that k block maxima (``block_maxima.pxd``) reach is reached by the k largest elements,
    and by few others: k different blocks hold them. It is found by bisection (``bisection.pxd``).

Candidates
    What reaches that value is collected in index order, from the chunks that hold such elements.
    Where that is much more than k, as in sorted rows, or among equal values, the same bisection
    narrows it down, and what comes later must exceed what was found.

Bounds
    Counting compares floats, bisection the order of their bits; if the two disagree (denormals read
    as zero, a row that another thread writes) more may reach the threshold than was allocated. So
    `compact_reaching` ends when the workspace is full.

Source
    Block maxima are folklore. The bisection is the bucket select of T. Alabi et al., "Fast
    k-selection algorithms for graphics processing units", ACM JEA 17 (2012),
    https://doi.org/10.1145/2133803.2345676, with two buckets.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.bisection cimport above_lowest, kth_lower_bound, step_mask
from fastsoftmax._kernels.bit_masks cimport word_at
from fastsoftmax._kernels.block_maxima cimport (
    CHUNK,
    LANES,
    SMALL_CHUNK,
    STEP,
    block_maxima_of_row,
    count_blocks,
)
from fastsoftmax._kernels.packed_row cimport (
    is_listed,
    is_moved,
    open_bits,
    part_length,
    row_element,
    row_part,
)
from fastsoftmax._kernels.radix cimport (
    Descending,
    from_sortable_key,
    is_nan,
    lowest_value,
    order_t,
    oriented,
    sortable_key,
    value_t,
)
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.types cimport lowest_bit
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    SPARSE_RATIO = 64  # block maxima serve up to k = n / SPARSE_RATIO;
    DENSE_RATIO = 16  # those of small chunks up to k = n / DENSE_RATIO


cdef inline Py_ssize_t compact_reaching(
    const value_t *x, order_t order, const Py_ssize_t *place, const uint32_t *bits,
    Py_ssize_t start, Py_ssize_t stop, value_t t, Py_ssize_t m, Workspace *work,
) noexcept nogil:
    """Append what reaches t in x[start:stop], `oriented` by `order`, to the m elements in `work`.

    Only that whose bit is set, unless `bits` is NULL. The index of x[i] is place[i], or i if
    `place` is NULL; x may be the values of `work`. Return how many elements `work` has. End when it
    is full, whatever reaches t.
    """
    cdef value_t *value = <value_t *>work.value
    cdef Py_ssize_t *index = work.index
    cdef Py_ssize_t full = work.room - STEP
    cdef Py_ssize_t j, i, l
    cdef uint32_t mask
    for j from start <= j < stop by STEP:
        if m > full:
            work.is_full = True
            break
        i = min(j, stop - STEP)
        mask = 0
        if bits != NULL and word_at(bits, j) == 0:
            continue
        if i < 0:
            for i in range(j, stop):
                mask |= <uint32_t>(oriented(x[i], order) >= t) << (i - j)
        else:
            mask = step_mask(x + i, order, t) >> (j - i)
        if bits != NULL:
            mask &= word_at(bits, j)
        if mask == 0xFFFFFFFFu:  # sorted rows are full of it
            for l in range(STEP):
                value[m + l] = oriented(x[j + l], order)
            for l in range(STEP):
                index[m + l] = place[j + l] if place != NULL else j + l
            m += STEP
            continue
        while mask:
            i = j + lowest_bit(mask)
            mask &= mask - 1
            value[m] = oriented(x[i], order)
            index[m] = place[i] if place != NULL else i
            m += 1
    return m


cdef inline Py_ssize_t shrink(
    Workspace *work, Py_ssize_t n, Py_ssize_t k, Py_ssize_t max_count, value_t *t
) noexcept nogil:
    """Keep of n numbers in `work` the first k, and up to `max_count`, in index order.

    Return how many are kept. t becomes what later ones must reach to come before the k-th.
    """
    cdef value_t *value = <value_t *>work.value
    cdef Py_ssize_t reached = kth_lower_bound(
        <const value_t *>value, <Descending>0, n, k, max_count, t
    )
    cdef Py_ssize_t start = 0, stop = n, m = 0, i, _part
    cdef value_t threshold = t[0]
    cdef uint64_t above = sortable_key(threshold) + (<uint64_t>1 << 32 if value_t is float else 1)
    if above > 0:  # else it is the highest integer
        t[0] = from_sortable_key(above, <value_t>0)  # after +inf a NaN, which none reaches
    if reached > max_count:  # only some of those that equal t
        for i in range(n):
            k -= value[i] > threshold
        stop = 0
        while k > 0 and stop < n:
            k -= value[stop] == threshold
            stop += 1
    for _part in range(2):  # and then what exceeds the ties
        m = compact_reaching(
            <const value_t *>value, <Descending>0, work.index, NULL, start, stop, threshold, m,
            work,
        )
        start = stop
        stop = n if above > 0 else start
        threshold = t[0]
    return m


cdef inline Py_ssize_t select_listed(
    const value_t *x, order_t order, Py_ssize_t k, Py_ssize_t max_count, Workspace *work
) noexcept nogil:
    """Do what `select_candidates` does, of a row whose open ids are listed."""
    cdef value_t *value = <value_t *>work.value
    cdef value_t t
    cdef Py_ssize_t i, m = 0
    for i in range(work.packed.count):
        value[m] = oriented(row_element(x, work.packed.ids[i], work.packed), order)
        work.index[m] = work.packed.ids[i]
        m += value[m] > lowest_value(<value_t>0)
    return shrink(work, m, k, max_count, &t) if m > max_count else m


cdef inline Py_ssize_t select_candidates(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t k, Py_ssize_t max_count,
    value_t *maxima, bint scanned, Workspace *work,
) noexcept nogil:
    """Write the first k numbers of x[0:n], and perhaps others, as `select_oriented_superset`.

    Return how many `work` has: fewer than k if fewer are above what is lowest of all, none of which
    it has.
    """
    cdef bint blocks = k <= n // DENSE_RATIO
    cdef Py_ssize_t size = SMALL_CHUNK if blocks and k > n // SPARSE_RATIO else CHUNK
    cdef Py_ssize_t count = count_blocks(n, size)
    cdef Py_ssize_t slack = 4 + (k >> 3) if n >= STEP else STEP
    cdef Py_ssize_t start, stop, first, j, l, m = 0, looked = 0
    cdef uint32_t mask = 0xFFFFFFFFu
    cdef value_t t = lowest_value(<value_t>0)
    cdef const uint32_t *bits = open_bits(work.packed)
    if is_listed(work.packed):
        return select_listed(x, order, k, max_count, work)
    if blocks:
        if size == SMALL_CHUNK or not scanned:
            block_maxima_of_row(x, order, n, size, maxima, <value_t *>NULL, work.packed)
        for l in range(STEP):
            maxima[count + l] = lowest_value(<value_t>0)
        kth_lower_bound(<const value_t *>maxima, <Descending>0, count, k, k + slack, &t)
    elif work.packed == NULL:
        kth_lower_bound(x, order, n, k, k + slack, &t)
    if t == lowest_value(<value_t>0):
        t = above_lowest(t)
    for j from 0 <= j < count + STEP by STEP:  # and once more, to narrow down what is left
        start = j // LANES * size
        if start - looked >= LOOK_INTERVAL:
            looked = start
            if stopped(n):
                return m
        if j >= count:
            mask = 0
        elif blocks:
            mask = step_mask(<const value_t *>maxima + j, <Descending>0, t)
        for l from 0 <= l < STEP by LANES:
            if mask >> l & 255 and start < n:
                stop = min(n, start + size)
                if is_moved(work.packed):  # a whole step is read
                    first = max(<Py_ssize_t>0, min(start, stop - STEP))
                    m = compact_reaching(
                        row_part(x, first, stop - first, work.packed) - first, order, NULL, NULL,
                        start, stop, t, m, work,
                    )
                else:
                    m = compact_reaching(x, order, NULL, bits, start, stop, t, m, work)
            if m > max_count + (k if j < count else 0):
                if stopped(n):
                    return m
                m = shrink(work, m, k, max_count, &t)
            start += size
    return m


cdef inline Py_ssize_t append_last(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t m, Py_ssize_t k, bint nans,
    Workspace *work,
) noexcept nogil:
    """Add to the m elements in `work` the first of x[0:n] that are lowest of all, or if `nans` NaN.

    As many as make k elements, in index order; return how many there are then. If there are too few
    NaN, as another thread has written into the row, add index 0 for each.
    """
    cdef value_t *value = <value_t *>work.value
    cdef Py_ssize_t *places = <Py_ssize_t *>work.keys
    cdef Py_ssize_t step = part_length(n, work.packed)
    cdef const value_t *part
    cdef Py_ssize_t start, i, missing = 0
    for start from 0 <= start < n by step:
        if missing == k - m:
            break
        part = row_part(x, start, min(step, n - start), work.packed)
        for i in range(min(step, n - start)):
            if missing == k - m:
                break
            if is_nan(part[i]) if nans else oriented(part[i], order) == lowest_value(<value_t>0):
                places[missing] = start + i
                missing += 1
    for i in range(missing, k - m if nans else missing):
        places[i] = 0
        missing += 1
    n = k = m + missing
    while missing > 0:
        k -= 1
        if m > 0 and work.index[m - 1] > places[missing - 1]:
            m -= 1
            work.index[k] = work.index[m]
        else:
            missing -= 1
            work.index[k] = places[missing]
        value[k] = oriented(row_element(x, work.index[k], work.packed), order)
    return n


cdef inline Py_ssize_t select_oriented_superset(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t k, Py_ssize_t max_count,
    value_t *maxima, bint scanned, Workspace *work,
) noexcept nogil:
    """Write the first k elements of x[0:n], `oriented` by `order`, into `work`, 0 < k <= n.

    They are in index order, and there may be others among them. Return how many there are:
    `max_count` at most, unless the row changes meanwhile. `maxima` has room for the block maxima;
    `scanned` says that those of CHUNK are there.
    """
    cdef Py_ssize_t m = select_candidates(x, order, n, k, max_count, maxima, scanned, work)
    if m < k:
        m = append_last(x, order, n, m, k, False, work)
    if m < k:
        m = append_last(x, order, n, m, k, True, work)
    return m


cdef inline Py_ssize_t select_superset(
    const value_t *x, Py_ssize_t n, Py_ssize_t k, Py_ssize_t max_count,
    value_t *maxima, bint scanned, Workspace *work,
) noexcept nogil:
    """Write the k largest elements of x[0:n], and perhaps others, as `select_oriented_superset`."""
    return select_oriented_superset(x, <Descending>0, n, k, max_count, maxima, scanned, work)


cdef inline Py_ssize_t select_k(
    const value_t *x, Py_ssize_t n, Py_ssize_t k, value_t *maxima, bint scanned, Workspace *work
) noexcept nogil:
    """Write the k largest elements of x[0:n], and no others, as `select_oriented_superset`.

    Return k, or 0 where there is no room for so many.
    """
    if k > work.most:
        work.is_full = True
        return 0
    return select_superset(x, n, k, k, maxima, scanned, work)
