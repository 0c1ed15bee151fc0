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

from fastsoftmax._digits cimport key, lowest_key, order_of, unordered, value_of
from fastsoftmax._math cimport lowest_bit, prefetch

ctypedef fused lane:
    uint32_t
    uint64_t

cdef enum:
    LANES = 8
    SIZE = 256  # elements of a chunk: LANES blocks of 32;
    SMALL = 64  # of 8 where many are wanted
    STEP = 32  # elements that a loop takes at once
    AHEAD = 1536  # elements from the one read to the one fetched, which is in another page
    SPARSE = 64  # block maxima serve up to k = n / SPARSE;
    DENSE = 16  # those of small chunks up to k = n / DENSE

cdef struct Work:
    void *maxima  # the block maxima of the row, behind them those of the maxima, and so on
    void *value  # the values picked (of the row's type),
    Py_ssize_t *index  # their places,
    double *weight  # and their weights
    uint64_t *keys
    double *masses
    Py_ssize_t room  # elements that there is room for


cdef inline bint allocate(Work *work, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Make room to pick k of n elements of up to 8 bytes; tell if there was memory for it."""
    # The candidates are 5/2 k at most, and a chunk. One piece: seven of them would go back to the
    # system at each call, and be zeroed again.
    cdef Py_ssize_t blocks = n // 7 + 16 * LANES
    cdef Py_ssize_t room = n // SIZE + 2 * SIZE + min(n, 3 * k)
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


cdef inline void release(Work *work) noexcept nogil:
    """Give the room back."""
    free(work.maxima)


cdef inline Py_ssize_t blocks_of(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """Return how many block maxima a row of n elements has."""
    return (n + size - 1) // size * LANES


cdef inline void scan(
    const key *x, Py_ssize_t n, Py_ssize_t size, key *maxima, key *sums
) noexcept nogil:
    """Write the block maxima of chunks of `size`, NaN passed over; add up in STEP sums, or NULL."""
    # Indexed by constants alone, so that they stay in registers.
    cdef key lane[STEP]
    cdef key part[STEP]
    cdef key wide[2 * STEP]
    cdef key high, other
    cdef Py_ssize_t whole = n & ~(<Py_ssize_t>STEP - 1)
    cdef Py_ssize_t start, j, l
    for l in range(STEP):
        part[l] = 0
        wide[STEP + l] = lowest_key(<key>0)
    for start from 0 <= start < n by size:
        for l in range(STEP):
            lane[l] = lowest_key(<key>0)
        for j from start <= j < min(whole, start + size) by STEP:
            for l from 0 <= l < STEP by 64 // sizeof(key):
                prefetch(x + j + AHEAD + l)
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


cdef inline bint reaches(const key *x, Py_ssize_t n, key t, bint equal) noexcept nogil:
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


cdef inline Py_ssize_t count_above(const key *x, Py_ssize_t n, key v) noexcept nogil:
    """Return how many elements of a chunk are above the number v."""
    cdef Py_ssize_t j
    cdef int m = 0
    for j in range(n):
        m += x[j] > v
    return m


cdef inline Py_ssize_t count_equal(const key *x, Py_ssize_t n, key v) noexcept nogil:
    """Return how many elements of a chunk equal the number v."""
    cdef Py_ssize_t j
    cdef int m = 0
    for j in range(n):
        m += x[j] == v
    return m


cdef inline Py_ssize_t rank_of(
    key v, Py_ssize_t place, const key *x, Py_ssize_t n, const key *maxima
) noexcept nogil:
    """Return how many of n elements come before the number v at `place`, which may lie outside.

    By the block maxima of SIZE: only chunks that hold such elements are looked into.
    """
    cdef Py_ssize_t start, size, rank = 0
    for start from 0 <= start < n by SIZE:
        if reaches(maxima, LANES, v, start < place):
            size = min(<Py_ssize_t>SIZE, n - start)
            rank += count_above(x + start, size, v)
            if start < place:
                rank += count_equal(x + start, min(size, place - start), v)
        maxima += LANES
    return rank


cdef inline Py_ssize_t count_reaching(
    const key *x, Py_ssize_t n, key t, lane zero
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


cdef inline uint32_t mask_reaching(const key *x, key t, lane zero) noexcept nogil:
    """Return which of STEP elements reach t, a bit for each; `zero` as above."""
    cdef lane mask = zero
    cdef int l
    for l in range(STEP):
        mask |= <lane>(x[l] >= t) << <lane>l
    return <uint32_t>mask


cdef inline Py_ssize_t bound(
    const key *x, Py_ssize_t n, Py_ssize_t k, Py_ssize_t most, key *t
) noexcept nogil:
    """Find a value t that the k largest of n elements reach, and return how many do.

    If these are more than `most`, t is the k-th largest. NaN is passed over; if there are fewer
    than k numbers, t is the lowest of them, or below.
    """
    cdef uint64_t unit = <uint64_t>1 << 32 if key is float else 1
    cdef key least[STEP]
    cdef key top[STEP]
    cdef uint64_t low, high, middle
    cdef Py_ssize_t j, l, m, reached = n
    t[0] = lowest_key(<key>0)
    if n <= most:
        return n
    for l in range(STEP):
        top[l] = lowest_key(<key>0)
        least[l] = -1 - lowest_key(<key>0)  # the highest
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
    low = order_of(least[0])
    high = order_of(top[0])
    while low < high and reached > most:
        middle = (high - low) // unit
        middle = low + (middle - middle // 2) * unit
        if key is float:
            m = count_reaching(x, n, value_of(middle, <key>0), <uint32_t>0)
        else:
            m = count_reaching(x, n, value_of(middle, <key>0), <uint64_t>0)
        if m >= k:
            low = middle
            reached = m
        else:
            high = middle - unit
    t[0] = value_of(low, <key>0)
    return reached


cdef inline Py_ssize_t collect(
    const key *x, const Py_ssize_t *place, Py_ssize_t start, Py_ssize_t stop, key t,
    Py_ssize_t m, Work *work,
) noexcept nogil:
    """Append what reaches t in x[start:stop] to the m elements in `work`; return how many it has.

    `place` as in `keep`, and as there x may be what is written.
    """
    cdef key *value = <key *>work.value
    cdef Py_ssize_t j, i, l
    cdef uint32_t mask
    for j from start <= j < stop by STEP:
        i = min(j, stop - STEP)
        mask = 0
        if i < 0:
            for i in range(j, stop):
                mask |= <uint32_t>(x[i] >= t) << (i - j)
        elif key is float:
            mask = mask_reaching(x + i, t, <uint32_t>0) >> (j - i)
        else:
            mask = mask_reaching(x + i, t, <uint64_t>0) >> (j - i)
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


cdef inline Py_ssize_t narrow(
    Work *work, Py_ssize_t n, Py_ssize_t k, Py_ssize_t most, key *t
) noexcept nogil:
    """Keep the first k of more than `most` numbers in `work`, `most` at most, in index order.

    t becomes what later ones must reach to come before the k-th.
    """
    cdef key *value = <key *>work.value
    cdef Py_ssize_t reached = bound(value, n, k, most, t)
    cdef Py_ssize_t start = 0, stop = n, m = 0, i, _part
    cdef key least = t[0]
    cdef uint64_t above = order_of(least) + (<uint64_t>1 << 32 if key is float else 1)
    if above > 0:  # else it is the highest integer
        t[0] = value_of(above, <key>0)  # after +inf a NaN, which none reaches
    if reached > most:  # only some of those that equal t
        for i in range(n):
            k -= value[i] > least
        stop = 0
        while k > 0 and stop < n:
            k -= value[stop] == least
            stop += 1
    for _part in range(2):  # and then what exceeds the ties
        m = collect(value, work.index, start, stop, least, m, work)
        start = stop
        stop = n if above > 0 else start
        least = t[0]
    return m


cdef inline Py_ssize_t gather(
    const key *x, Py_ssize_t n, Py_ssize_t k, Py_ssize_t most, key *maxima, bint scanned, Work *work
) noexcept nogil:
    """Do what `pick_roughly` does, but for NaN: return a number below k if there are fewer numbers.
    """
    cdef bint blocks = k <= n // DENSE
    cdef Py_ssize_t size = SMALL if blocks and k > n // SPARSE else SIZE
    cdef Py_ssize_t count = blocks_of(n, size)
    cdef Py_ssize_t slack = 4 + (k >> 3) if n >= STEP else STEP
    cdef Py_ssize_t start, j, l, m = 0
    cdef uint32_t mask = 0xFFFFFFFFu
    cdef key t
    if blocks:
        if size == SMALL or not scanned:
            scan(x, n, size, maxima, NULL)
        for l in range(STEP):
            maxima[count + l] = lowest_key(<key>0)
        bound(<const key *>maxima, count, k, k + slack, &t)
    else:
        bound(x, n, k, k + slack, &t)
    for j from 0 <= j < count + STEP by STEP:  # and once more, to narrow down what is left
        start = j // LANES * size
        if j >= count or (
            blocks and t == lowest_key(<key>0)
            and not count_reaching(x + start, min(STEP // LANES * size, n - start), t, <uint32_t>0)
        ):
            mask = 0  # the end, or nothing but NaN
        elif blocks:
            if key is float:
                mask = mask_reaching(<const key *>maxima + j, t, <uint32_t>0)
            else:
                mask = mask_reaching(<const key *>maxima + j, t, <uint64_t>0)
        for l from 0 <= l < STEP by LANES:
            if mask >> l & 255 and start < n:
                m = collect(x, NULL, start, min(n, start + size), t, m, work)
            if m > most + (k if j < count else 0):
                m = narrow(work, m, k, most, &t)
            start += size
    return m


cdef inline void fill_up(
    const key *x, Py_ssize_t n, Py_ssize_t m, Py_ssize_t k, Work *work
) noexcept nogil:
    """Add the first NaN of a row to the m numbers in it, so that there are k, in index order."""
    cdef key *value = <key *>work.value
    cdef Py_ssize_t *places = <Py_ssize_t *>work.keys
    cdef Py_ssize_t i, missing = 0
    for i in range(n):
        if missing == k - m:
            break
        if unordered(x[i]):
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


cdef inline Py_ssize_t pick_roughly(
    const key *x, Py_ssize_t n, Py_ssize_t k, Py_ssize_t most, key *maxima, bint scanned, Work *work
) noexcept nogil:
    """Write the first k elements of x[0:n] into `work` (value, index), 0 < k <= n.

    They are in index order, and there may be others among them. Return how many it has, `most` at
    most. `maxima` has room for the block maxima; `scanned` tells that those of SIZE are there.
    """
    cdef Py_ssize_t m = gather(x, n, k, most, maxima, scanned, work)
    if m < k:
        fill_up(x, n, m, k, work)
        m = k
    return m


cdef inline void pick(
    const key *x, Py_ssize_t n, Py_ssize_t k, key *maxima, bint scanned, Work *work
) noexcept nogil:
    """Do the same with no others among them."""
    pick_roughly(x, n, k, k, maxima, scanned, work)
