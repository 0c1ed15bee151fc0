# cython: language_level=3, cdivision=True
"""Partial selection: the k largest of a row, unsorted.

The order everywhere is: larger value first, lower index first among equals, NaN last.

Block maxima
    A row is cut into chunks of 256 elements (or 64), and lane l of a chunk (elements l, 8 + l, ...)
    is a block, so that one pass of vertical maxima gives all block maxima. A value that k maxima
    reach is reached by the k largest elements, and by few others: k different blocks hold them.
    It is found by bisection, which counts the maxima that reach the middle.

Candidates
    What reaches that value is collected in index order, from the chunks that hold such elements.
    Where that is much more than k, as in sorted rows, or among equal values, the same bisection
    narrows it down, and what comes later must exceed what was found.

Source
    Block maxima are folklore. The bisection is the bucket select of T. Alabi et al., "Fast
    k-selection algorithms for graphics processing units", ACM JEA 17 (2012),
    https://doi.org/10.1145/2133803.2345676, with two buckets.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from fastsoftmax._kernels.exp cimport lowest_bit, prefetch
from fastsoftmax._kernels.radix cimport (
    from_sortable_key,
    is_nan,
    lowest_value,
    sortable_key,
    value_t,
)

ctypedef fused lane:
    uint32_t
    uint64_t

cdef enum:
    LANES = 8
    CHUNK = 256  # elements of a chunk: LANES blocks of 32;
    SMALL_CHUNK = 64  # of 8 where many are wanted
    STEP = 32  # elements that a loop takes at once
    PREFETCH_ELEMENTS = 1536  # elements from the one read to the one fetched, which is in another page
    SPARSE_RATIO = 64  # block maxima serve up to k = n / SPARSE;
    DENSE_RATIO = 16  # those of small chunks up to k = n / DENSE

cdef struct Workspace:
    void *maxima  # the block maxima of the row, behind them those of the maxima, and so on
    void *value  # the values picked (of the row's type),
    Py_ssize_t *index  # their places,
    double *weight  # and their weights
    uint64_t *keys
    double *masses
    Py_ssize_t room  # elements that there is room for


cdef inline bint allocate_workspace(Workspace *work, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Make room to pick k of n elements of up to 8 bytes; tell if there was memory for it."""
    # The candidates are 5/2 k at most, and a chunk. One piece: seven of them would go back to the
    # system at each call, and be zeroed again.
    cdef Py_ssize_t blocks = n // 7 + 16 * LANES
    cdef Py_ssize_t room = n // CHUNK + 2 * CHUNK + min(n, 3 * k)
    cdef double *start = <double *>malloc(8 * (blocks + 5 * room))
    work.maxima = start
    if start == NULL:
        return False
    start += blocks
    work.room = room
    work.value = start
    work.index = <Py_ssize_t *>(start + room)
    work.weight = start + 2 * room
    work.keys = <uint64_t *>(start + 3 * room)
    work.masses = start + 4 * room
    return True


cdef inline void free_workspace(Workspace *work) noexcept nogil:
    """Give the room back."""
    free(work.maxima)


cdef inline Py_ssize_t count_blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """Return how many block maxima a row of n elements has."""
    return (n + size - 1) // size * LANES


cdef inline void block_maxima(
    const value_t *x, Py_ssize_t n, Py_ssize_t size, value_t *maxima, value_t *sums
) noexcept nogil:
    """Write the block maxima of chunks of `size`, NaN passed over; add up in STEP sums, or NULL."""
    # Indexed by constants alone, so that they stay in registers.
    cdef value_t lane[STEP]
    cdef value_t part[STEP]
    cdef value_t wide[2 * STEP]
    cdef value_t high, other
    cdef Py_ssize_t whole = n & ~(<Py_ssize_t>STEP - 1)
    cdef Py_ssize_t start, j, l
    for l in range(STEP):
        part[l] = 0
        wide[STEP + l] = lowest_value(<value_t>0)
    for start from 0 <= start < n by size:
        for l in range(STEP):
            lane[l] = lowest_value(<value_t>0)
        for j from start <= j < min(whole, start + size) by STEP:
            for l from 0 <= l < STEP by 64 // sizeof(value_t):
                prefetch(x + j + PREFETCH_ELEMENTS + l)
            for l in range(STEP):
                lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
            if sums != NULL:
                for l in range(STEP):
                    part[l] += x[j + l]
        for l in range(STEP):
            wide[l] = lane[l]
        for l in range(STEP):  # LANES are wanted; but gcc makes no vectors of shorter loops
            high = wide[l] if wide[l] > wide[8 + l] else wide[8 + l]
            other = wide[16 + l] if wide[16 + l] > wide[24 + l] else wide[24 + l]
            maxima[l] = high if high > other else other
        maxima += LANES
    maxima -= LANES
    for j in range(whole, n):
        l = j & (LANES - 1)
        maxima[l] = x[j] if x[j] > maxima[l] else maxima[l]
        if sums != NULL:
            part[0] += x[j]
    if sums != NULL:
        for l in range(STEP):
            sums[l] = part[l]


cdef inline bint any_reaching(const value_t *x, Py_ssize_t n, value_t t, bint equal) noexcept nogil:
    """Tell whether one of n elements (a constant) is above t, or equals it if that counts."""
    cdef int found = 0
    cdef Py_ssize_t l
    if equal:
        for l in range(n):
            found |= x[l] >= t
    else:
        for l in range(n):
            found |= x[l] > t
    return found


cdef inline Py_ssize_t count_above(const value_t *x, Py_ssize_t n, value_t v) noexcept nogil:
    """Return how many elements of a chunk are above the number v."""
    cdef Py_ssize_t j
    cdef int m = 0
    for j in range(n):
        m += x[j] > v
    return m


cdef inline Py_ssize_t count_equal(const value_t *x, Py_ssize_t n, value_t v) noexcept nogil:
    """Return how many elements of a chunk equal the number v."""
    cdef Py_ssize_t j
    cdef int m = 0
    for j in range(n):
        m += x[j] == v
    return m


cdef inline Py_ssize_t rank_in_block(
    value_t v, Py_ssize_t place, const value_t *x, Py_ssize_t n, const value_t *maxima
) noexcept nogil:
    """Return how many of n elements come before the number v at `place`, which may lie outside.

    By the block maxima of SIZE: only chunks that hold such elements are looked into.
    """
    cdef Py_ssize_t start, size, rank = 0
    for start from 0 <= start < n by CHUNK:
        if any_reaching(maxima, LANES, v, start < place):
            size = min(<Py_ssize_t>CHUNK, n - start)
            rank += count_above(x + start, size, v)
            if start < place:
                rank += count_equal(x + start, min(size, place - start), v)
        maxima += LANES
    return rank


cdef inline Py_ssize_t count_reaching(
    const value_t *x, Py_ssize_t n, value_t t, lane zero
) noexcept nogil:
    """Return how many of n elements reach t; `zero` is as wide as they are."""
    cdef lane found[STEP]
    cdef Py_ssize_t rest = n & (STEP - 1)
    cdef Py_ssize_t j, m = 0
    cdef int l
    for l in range(STEP):
        found[l] = zero
    for j from 0 <= j < n - rest by STEP:
        for l in range(STEP):
            found[l] += x[j + l] >= t
    if n < STEP:
        for j in range(n):
            m += x[j] >= t
        return m
    for l in range(STEP):  # the last step again, but for what has been counted
        found[l] += <lane>(x[n - STEP + l] >= t) & <lane>(l >= STEP - rest)
    for l in range(STEP):
        m += found[l]
    return m


cdef inline uint32_t reaching_mask(const value_t *x, value_t t, lane zero) noexcept nogil:
    """Return which of STEP elements reach t, a bit for each; `zero` as above."""
    cdef lane mask = zero
    cdef int l
    for l in range(STEP):
        mask |= <lane>(x[l] >= t) << <lane>l
    return <uint32_t>mask


cdef inline Py_ssize_t kth_lower_bound(
    const value_t *x, Py_ssize_t n, Py_ssize_t k, Py_ssize_t most, value_t *t
) noexcept nogil:
    """Find a value t that the k largest of n elements reach, and return how many do.

    If these are more than `most`, t is the k-th largest. NaN is passed over; if there are fewer
    than k numbers, t is the lowest of them, or below.
    """
    cdef uint64_t unit = <uint64_t>1 << 32 if value_t is float else 1
    cdef value_t least[STEP]
    cdef value_t top[STEP]
    cdef uint64_t low, high, middle
    cdef Py_ssize_t j, l, m, reached = n
    t[0] = lowest_value(<value_t>0)
    if n <= most:
        return n
    for l in range(STEP):
        top[l] = lowest_value(<value_t>0)
        least[l] = -1 - lowest_value(<value_t>0)  # the highest
    for j from 0 <= j <= n - STEP by STEP:
        for l in range(STEP):
            top[l] = x[j + l] if x[j + l] > top[l] else top[l]
            least[l] = x[j + l] if x[j + l] < least[l] else least[l]
    for j in range(n & ~(<Py_ssize_t>STEP - 1), n):
        top[0] = x[j] if x[j] > top[0] else top[0]
        least[0] = x[j] if x[j] < least[0] else least[0]
    for l in range(1, STEP):
        top[0] = top[l] if top[l] > top[0] else top[0]
        least[0] = least[l] if least[l] < least[0] else least[0]
    low = sortable_key(least[0])
    high = sortable_key(top[0])
    while low < high and reached > most:
        middle = (high - low) // unit
        middle = low + (middle - middle // 2) * unit
        if value_t is float:
            m = count_reaching(x, n, from_sortable_key(middle, <value_t>0), <uint32_t>0)
        else:
            m = count_reaching(x, n, from_sortable_key(middle, <value_t>0), <uint64_t>0)
        if m >= k:
            low = middle
            reached = m
        else:
            high = middle - unit
    t[0] = from_sortable_key(low, <value_t>0)
    return reached


cdef inline Py_ssize_t compact_reaching(
    const value_t *x, const Py_ssize_t *place, Py_ssize_t start, Py_ssize_t stop, value_t t,
    Py_ssize_t m, Workspace *work,
) noexcept nogil:
    """Append what reaches t in x[start:stop] to the m elements in `work`; return how many it has.

    The index of x[i] is place[i], or i if `place` is NULL; x may be the values of `work`. It ends
    when `work` is full: t is a lower bound, but only of values that nothing changes meanwhile.
    """
    cdef value_t *value = <value_t *>work.value
    cdef Py_ssize_t j, i, l
    cdef uint32_t mask
    for j from start <= j < stop by STEP:
        if m > work.room - STEP:
            break
        i = min(j, stop - STEP)
        mask = 0
        if i < 0:
            for i in range(j, stop):
                mask |= <uint32_t>(x[i] >= t) << (i - j)
        elif value_t is float:
            mask = reaching_mask(x + i, t, <uint32_t>0) >> (j - i)
        else:
            mask = reaching_mask(x + i, t, <uint64_t>0) >> (j - i)
        if mask == 0xFFFFFFFFu:  # sorted rows are full of it
            for l in range(STEP):
                value[m + l] = x[j + l]
            for l in range(STEP):
                work.index[m + l] = place[j + l] if place != NULL else j + l
            m += STEP
            continue
        while mask:
            i = j + lowest_bit(mask)
            mask &= mask - 1
            value[m] = x[i]
            work.index[m] = place[i] if place != NULL else i
            m += 1
    return m


cdef inline Py_ssize_t shrink(
    Workspace *work, Py_ssize_t n, Py_ssize_t k, Py_ssize_t most, value_t *t
) noexcept nogil:
    """Keep the first k of more than `most` numbers in `work`, `most` at most, in index order.

    t becomes what later ones must reach to come before the k-th.
    """
    cdef value_t *value = <value_t *>work.value
    cdef Py_ssize_t reached = kth_lower_bound(value, n, k, most, t)
    cdef Py_ssize_t start = 0, stop = n, m = 0, i, _part
    cdef value_t least = t[0]
    cdef uint64_t above = sortable_key(least) + (<uint64_t>1 << 32 if value_t is float else 1)
    if above > 0:  # else it is the highest integer
        t[0] = from_sortable_key(above, <value_t>0)  # after +inf a NaN, which none reaches
    if reached > most:  # only some of those that equal t
        for i in range(n):
            k -= value[i] > least
        stop = 0
        while k > 0 and stop < n:
            k -= value[stop] == least
            stop += 1
    for _part in range(2):  # and then what exceeds the ties
        m = compact_reaching(value, work.index, start, stop, least, m, work)
        start = stop
        stop = n if above > 0 else start
        least = t[0]
    return m


cdef inline Py_ssize_t select_candidates(
    const value_t *x, Py_ssize_t n, Py_ssize_t k, Py_ssize_t most, value_t *maxima, bint scanned, Workspace *work
) noexcept nogil:
    """Do what `select_superset` does, but for NaN: return a number below k if there are fewer numbers.
    """
    cdef bint blocks = k <= n // DENSE_RATIO
    cdef Py_ssize_t size = SMALL_CHUNK if blocks and k > n // SPARSE_RATIO else CHUNK
    cdef Py_ssize_t count = count_blocks(n, size)
    cdef Py_ssize_t slack = 4 + (k >> 3) if n >= STEP else STEP
    cdef Py_ssize_t start, j, l, m = 0
    cdef uint32_t mask = 0xFFFFFFFFu
    cdef value_t t
    if blocks:
        if size == SMALL_CHUNK or not scanned:
            block_maxima(x, n, size, maxima, NULL)
        for l in range(STEP):
            maxima[count + l] = lowest_value(<value_t>0)
        kth_lower_bound(<const value_t *>maxima, count, k, k + slack, &t)
    else:
        kth_lower_bound(x, n, k, k + slack, &t)
    for j from 0 <= j < count + STEP by STEP:  # and once more, to narrow down what is left
        start = j // LANES * size
        if j >= count or (
            blocks and t == lowest_value(<value_t>0)
            and not count_reaching(x + start, min(STEP // LANES * size, n - start), t, <uint32_t>0)
        ):
            mask = 0  # the end, or nothing but NaN
        elif blocks:
            if value_t is float:
                mask = reaching_mask(<const value_t *>maxima + j, t, <uint32_t>0)
            else:
                mask = reaching_mask(<const value_t *>maxima + j, t, <uint64_t>0)
        for l from 0 <= l < STEP by LANES:
            if mask >> l & 255 and start < n:
                m = compact_reaching(x, NULL, start, min(n, start + size), t, m, work)
            if m > most + (k if j < count else 0):
                m = shrink(work, m, k, most, &t)
            start += size
    return m


cdef inline void append_nans(
    const value_t *x, Py_ssize_t n, Py_ssize_t m, Py_ssize_t k, Workspace *work
) noexcept nogil:
    """Add the first NaN of a row to the m numbers in it, so that there are k, in index order."""
    cdef value_t *value = <value_t *>work.value
    cdef Py_ssize_t *places = <Py_ssize_t *>work.keys
    cdef Py_ssize_t i, missing = 0
    for i in range(n):
        if missing == k - m:
            break
        if is_nan(x[i]):
            places[missing] = i
            missing += 1
    for i in range(missing, k - m):  # another thread has written into the row
        places[i] = 0
    missing = k - m
    while missing > 0:
        k -= 1
        if m > 0 and work.index[m - 1] > places[missing - 1]:
            m -= 1
            work.index[k] = work.index[m]
        else:
            missing -= 1
            work.index[k] = places[missing]
        value[k] = x[work.index[k]]


cdef inline Py_ssize_t select_superset(
    const value_t *x, Py_ssize_t n, Py_ssize_t k, Py_ssize_t most, value_t *maxima, bint scanned, Workspace *work
) noexcept nogil:
    """Write the first k elements of x[0:n] into `work` (value, index), 0 < k <= n.

    They are in index order, and there may be others among them. Return how many it has, `most` at
    most. `maxima` has room for the block maxima; `scanned` tells that those of SIZE are there.
    """
    cdef Py_ssize_t m = select_candidates(x, n, k, most, maxima, scanned, work)
    if m < k:
        append_nans(x, n, m, k, work)
        m = k
    return m


cdef inline void select_k(
    const value_t *x, Py_ssize_t n, Py_ssize_t k, value_t *maxima, bint scanned, Workspace *work
) noexcept nogil:
    """Do the same with no others among them."""
    select_superset(x, n, k, k, maxima, scanned, work)
