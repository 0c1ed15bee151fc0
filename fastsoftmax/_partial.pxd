# cython: language_level=3
"""Partial selection: the k largest of a row, and the shortest prefix of a given mass, unsorted.

The order everywhere is: larger value first, lower index first among equals, NaN last.

Block maxima
    A row is cut into chunks of 32 x 32 elements; lane l of a chunk (elements l, 32 + l, ...) is a
    block, so that one pass of vertical maxima, without a horizontal step, gives all block maxima.
    The k-th largest maximum t is a lower bound of the k-th largest element: k different blocks
    reach it. Fewer than k blocks exceed it, so everything above t is in at most k - 1 blocks, and
    if fewer than k elements exceed t then t is the k-th largest. No order of the input is slow:
    at most 2k blocks are looked into. t itself is found by the same function.

Digits
    What block maxima cannot narrow down (few elements, or k of the order of n) is cut by its
    digits: 8 bits at a time of a key that orders as the values do, from the highest bit in which
    the keys differ. With weights the same walk finds where a cumulative mass is reached.

Source
    The second is the radix select of T. Alabi et al., "Fast k-selection algorithms for graphics
    processing units", ACM JEA 17 (2012), https://doi.org/10.1145/2133803.2345676; the first is
    folklore.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from fastsoftmax._math cimport bits32, bits64, infinity

ctypedef fused key:
    float
    double
    int64_t

cdef enum:
    LANES = 32
    SIZE = 1024  # elements of a chunk: LANES blocks of 32
    SPARSE = 64  # block maxima serve up to k = n / SPARSE

cdef struct Work:
    void *value  # n: the values picked (of the row's type)
    void *maxima  # the block maxima of the row, behind them those of the maxima, and so on
    Py_ssize_t *index  # n: their places
    Py_ssize_t *tied  # n / SPARSE + 1
    uint64_t *keys  # n
    double *masses  # n
    double *weight  # n: the weights of what was picked


cdef inline bint allocate(Work *work, Py_ssize_t n) noexcept nogil:
    """Make room for rows of n elements of up to 8 bytes; tell if there was memory for it."""
    # One piece: seven of them would go back to the system at each call, and be zeroed again.
    cdef Py_ssize_t row = 8 * (n + 8)
    cdef Py_ssize_t blocks = 8 * (n // 31 + 16 * LANES)
    cdef char *room = <char *>malloc(blocks + row // SPARSE + 64 + 5 * row)
    work.maxima = room
    if room == NULL:
        return False
    work.tied = <Py_ssize_t *>(room + blocks)
    room += blocks + row // SPARSE // 8 * 8 + 64
    work.value = room
    work.index = <Py_ssize_t *>(room + row)
    work.keys = <uint64_t *>(room + 2 * row)
    work.masses = <double *>(room + 3 * row)
    work.weight = <double *>(room + 4 * row)
    return True


cdef inline void release(Work *work) noexcept nogil:
    """Give the room back."""
    free(work.maxima)


cdef inline key lowest_key(key like) noexcept nogil:
    """Return what no element is below."""
    if key is int64_t:
        return <int64_t>0x8000000000000000ULL
    else:
        return -infinity(like)


cdef inline uint64_t order_of(key x) noexcept nogil:
    """Return an unsigned key in the order of the values: NaN is lowest, -0 and +0 are equal."""
    cdef uint32_t b
    cdef uint64_t bb
    if key is float:
        if x != x:
            return 0
        b = bits32(x + <float>0.0)
        return <uint64_t>(~b if b >> 31 else b | 0x80000000u) << 32
    elif key is double:
        if x != x:
            return 0
        bb = bits64(x + 0.0)
        return ~bb if bb >> 63 else bb | 0x8000000000000000ULL
    else:
        return <uint64_t>x ^ 0x8000000000000000ULL


cdef inline Py_ssize_t blocks_of(Py_ssize_t n) noexcept nogil:
    """Return how many block maxima a row of n elements has."""
    return (n + SIZE - 1) // SIZE * LANES


cdef inline void lane_maxima(const key *x, Py_ssize_t n, key *high) noexcept nogil:
    """Write the maxima of the lanes of a chunk; n is a multiple of LANES."""
    # Indexed by constants alone, so that the lanes stay in registers.
    cdef key lane[LANES]
    cdef Py_ssize_t j, l
    for l in range(LANES):
        lane[l] = lowest_key(<key>0)
    for j from 0 <= j < n by LANES:
        for l in range(LANES):
            lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
    for l in range(LANES):
        high[l] = lane[l]


cdef inline void scan(const key *x, Py_ssize_t n, key *maxima) noexcept nogil:
    """Write the block maxima; NaN is passed over."""
    cdef Py_ssize_t start, m, j
    cdef key *high
    for start from 0 <= start < n by SIZE:
        m = min(<Py_ssize_t>SIZE, n - start)
        high = maxima + start // SIZE * LANES
        lane_maxima(x + start, m & ~(<Py_ssize_t>LANES - 1), high)
        for j in range(start + (m & ~(<Py_ssize_t>LANES - 1)), start + m):
            if x[j] > high[j & (LANES - 1)]:
                high[j & (LANES - 1)] = x[j]


cdef inline void cut(
    uint64_t *keys, double *masses, Py_ssize_t n, double target, uint64_t *last, Py_ssize_t *ties
) noexcept nogil:
    """Find the shortest prefix (in key order) whose mass reaches `target`.

    It is everything above `last`, and the first `ties` of what equals it. All of it, if the mass
    falls short. ``masses == NULL`` gives each element the mass 1. Both arrays are used up.
    """
    cdef double mass[256]
    cdef Py_ssize_t count[256]
    cdef double reached = 0
    cdef uint64_t low, high
    cdef Py_ssize_t i, m
    cdef int shift, digit
    while True:
        low = high = keys[0]
        for i in range(1, n):
            low = keys[i] if keys[i] < low else low
            high = keys[i] if keys[i] > high else high
        if low == high:
            break
        shift = 0
        while (low ^ high) >> shift > 255:
            shift += 1
        for digit in range(256):
            mass[digit] = 0
            count[digit] = 0
        for i in range(n):
            digit = (keys[i] >> shift) & 255
            mass[digit] += masses[i] if masses != NULL else 1
            count[digit] += 1
        digit = (high >> shift) & 255
        while reached + mass[digit] < target:
            # The lowest occupied digit takes whatever rounding has left.
            if digit == <int>((low >> shift) & 255):
                break
            reached += mass[digit]
            digit -= 1
        m = 0
        for i in range(n):
            if <int>((keys[i] >> shift) & 255) == digit:
                keys[m] = keys[i]
                if masses != NULL:
                    masses[m] = masses[i]
                m += 1
        n = m
    last[0] = low
    ties[0] = n
    for i in range(n):
        reached += masses[i] if masses != NULL else 1
        if reached >= target:
            ties[0] = i + 1
            break


cdef inline Py_ssize_t take(
    const key *x, Py_ssize_t n, Py_ssize_t k, key *value, Py_ssize_t *index, uint64_t *keys
) noexcept nogil:
    """Pick the first k of x[0:n] by digits, in index order."""
    cdef uint64_t last, order
    cdef Py_ssize_t ties, i, m = 0
    for i in range(n):
        keys[i] = order_of(x[i])
    cut(keys, NULL, n, <double>k, &last, &ties)
    for i in range(n):
        order = order_of(x[i])
        if order > last or (order == last and ties > 0):
            ties -= order == last
            value[m] = x[i]
            index[m] = i
            m += 1
    return m


cdef inline void pick(
    const key *x, Py_ssize_t n, Py_ssize_t k, key *maxima, bint scanned, Work *work
) noexcept nogil:
    """Write the first k elements of x[0:n] into `work` (value, index), in index order, 0 < k <= n.

    `maxima` has room for the block maxima; `scanned` tells that they are there already.
    """
    cdef key *value = <key *>work.value
    cdef Py_ssize_t *index = work.index
    cdef Py_ssize_t *tied = work.tied
    cdef Py_ssize_t blocks = blocks_of(n)
    cdef Py_ssize_t start, j, i, m, active, above = 0, ties = 0
    cdef int lane[LANES]
    cdef int l
    cdef key t, v
    cdef key *high
    if k > n // SPARSE:
        take(x, n, k, value, index, work.keys)
        return
    if not scanned:
        scan(x, n, maxima)
    pick(maxima, blocks, k, maxima + blocks, False, work)
    t = value[0]
    for i in range(1, k):
        t = value[i] if value[i] < t else t

    for start from 0 <= start < n by SIZE:
        high = maxima + start // SIZE * LANES
        active = 0
        for l in range(LANES):
            lane[active] = l
            active += high[l] > t or (high[l] == t and ties < k)
        if active == 0:
            continue
        for j from start <= j < min(n, start + SIZE) by LANES:
            for i in range(active):
                if j + lane[i] >= n:
                    break
                v = x[j + lane[i]]
                if v > t:
                    value[above] = v
                    index[above] = j + lane[i]
                    above += 1
                elif v == t and ties < k:
                    tied[ties] = j + lane[i]
                    ties += 1
    if above >= k:
        narrow(value, index, above, k, work.keys)
        return
    ties = min(ties, k - above)
    m = above + ties  # less than k only if the rest is NaN
    i = m
    while ties > 0:  # merge from the back, by index
        i -= 1
        if above > 0 and index[above - 1] > tied[ties - 1]:
            above -= 1
            value[i] = value[above]
            index[i] = index[above]
        else:
            ties -= 1
            value[i] = x[tied[ties]]
            index[i] = tied[ties]
    if key is not int64_t:
        if m < k:
            take(x, n, k, value, index, work.keys)


cdef inline void narrow(
    key *value, Py_ssize_t *index, Py_ssize_t n, Py_ssize_t k, uint64_t *keys
) noexcept nogil:
    """Keep the first k of n picked elements, in index order."""
    cdef uint64_t last, order
    cdef Py_ssize_t ties, i, m = 0
    for i in range(n):
        keys[i] = order_of(value[i])
    cut(keys, NULL, n, <double>k, &last, &ties)
    for i in range(n):
        order = order_of(value[i])
        if order > last or (order == last and ties > 0):
            ties -= order == last
            value[m] = value[i]
            index[m] = index[i]
            m += 1
