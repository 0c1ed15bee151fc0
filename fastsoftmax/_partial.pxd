# cython: language_level=3, cdivision=True
"""Partial selection: the k largest of a row, and the shortest prefix of a given mass, unsorted.

The order everywhere is: larger value first, lower index first among equals, NaN last.

Block maxima
    A row is cut into chunks of 256 elements (or 64), and lane l of a chunk (elements l, 8 + l, ...)
    is a block, so that one pass of vertical maxima gives all block maxima. The k-th largest maximum
    t is a lower bound of the k-th largest element: k different blocks reach it. Fewer than k blocks
    exceed it, so what exceeds t is in at most k - 1 blocks. t itself is found by the same function.
    No order of the input is slow: at most k chunks are looked into again, and those that t equals.

Digits
    What block maxima cannot narrow down (few elements, or k of the order of n) is cut by its
    digits: 8 bits (or 5) at a time of a key that orders as the values do, from the highest bit in
    which the keys differ. With weights the same walk finds where a cumulative mass is reached.

Source
    The second is the radix select of T. Alabi et al., "Fast k-selection algorithms for graphics
    processing units", ACM JEA 17 (2012), https://doi.org/10.1145/2133803.2345676; the first is
    folklore.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from fastsoftmax._math cimport bits32, bits64, from_bits32, from_bits64, infinity

ctypedef fused key:
    float
    double
    int64_t

cdef enum:
    LANES = 8
    SIZE = 256  # elements of a chunk: LANES blocks of 32;
    SMALL = 64  # of 8 where many are wanted
    STEP = 32  # elements that a loop takes at once
    FEW = 16  # elements that are not worth a histogram
    MANY = 512  # elements that are worth eight bits a histogram, others five
    RUN = 16  # shorter pieces are sorted by insertion
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
    # One piece: seven of them would go back to the system at each call, and be zeroed again.
    cdef Py_ssize_t blocks = n // 7 + 16 * LANES
    cdef Py_ssize_t room = n // SIZE + SIZE + (n if k > n // SPARSE else SPARSE * k)
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


cdef inline key lowest_key(key like) noexcept nogil:
    """Return what no element is below."""
    if key is int64_t:
        return <int64_t>0x8000000000000000ULL
    else:
        return -infinity(like)


cdef inline bint unordered(key x) noexcept nogil:
    """Tell whether x is NaN."""
    if key is int64_t:
        return False
    else:
        return x != x


cdef inline uint64_t order_of(key x) noexcept nogil:
    """Return an unsigned key in the order of the values: NaN is lowest, -0 and +0 are equal."""
    cdef uint32_t b
    cdef uint64_t bb
    if key is float:
        b = bits32(x + <float>0.0)
        b ^= (~(b >> 31) + 1) | 0x80000000u  # all bits of a negative number, else its sign
        return <uint64_t>(b if x == x else 0) << 32
    elif key is double:
        bb = bits64(x + 0.0)
        bb ^= (~(bb >> 63) + 1) | 0x8000000000000000ULL
        return bb if x == x else 0
    else:
        return <uint64_t>x ^ 0x8000000000000000ULL


cdef inline key value_of(uint64_t order, key like) noexcept nogil:
    """Return the value of a key, or one equal to it."""
    cdef uint32_t b = <uint32_t>(order >> 32)
    if key is float:
        return from_bits32(b ^ 0x80000000u if b >> 31 else ~b)
    elif key is double:
        return from_bits64(order ^ 0x8000000000000000ULL if order >> 63 else ~order)
    else:
        return <int64_t>(order ^ 0x8000000000000000ULL)


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
    cdef Py_ssize_t whole = n & ~(<Py_ssize_t>STEP - 1)
    cdef Py_ssize_t start, j, l, half
    for l in range(STEP):
        part[l] = 0
    for start from 0 <= start < n by size:
        for l in range(STEP):
            lane[l] = lowest_key(<key>0)
        for j from start <= j < min(whole, start + size) by STEP:
            for l in range(STEP):
                lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
            if sums != NULL:
                for l in range(STEP):
                    part[l] += x[j + l]
        half = STEP >> 1
        while half >= LANES:  # written so, it stays in vectors
            for l in range(half):
                lane[l] = lane[l] if lane[l] > lane[half + l] else lane[half + l]
            half //= 2
        for l in range(LANES):
            maxima[l] = lane[l]
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


cdef inline Py_ssize_t collect(
    const key *x, Py_ssize_t n, Py_ssize_t size, Py_ssize_t k, key t, const key *maxima, Work *work
) noexcept nogil:
    """Write everything above t, and at least the first k that equal it, in index order."""
    cdef key *value = <key *>work.value
    cdef Py_ssize_t *index = work.index
    cdef const key *high = maxima - LANES
    cdef Py_ssize_t start, stop, j, i, l, lane, lanes, m = 0, ties = 0
    for start from 0 <= start < n by size:
        high += LANES
        if not reaches(high, LANES, t, ties < k):
            continue
        if m + size > work.room:  # another thread has written into the row
            break
        stop = min(n, start + size)
        lane = lanes = 0
        for l in range(LANES):
            lane = l if high[l] >= t else lane
            lanes += high[l] >= t
        if lanes == 1 and ties < k:  # as a rule; without a branch, which could not be predicted
            j = m
            for i from start + lane <= i < stop by LANES:
                value[m] = x[i]
                index[m] = i
                m += x[i] >= t
            for j in range(j, m):
                ties += value[j] == t
            continue
        for j from start <= j < stop by STEP:
            if j + STEP <= stop and not reaches(x + j, STEP, t, ties < k):
                continue
            for i in range(j, min(stop, j + STEP)):
                if x[i] >= t and (x[i] > t or ties < k):
                    value[m] = x[i]
                    index[m] = i
                    m += 1
                    ties += x[i] == t
    return m


cdef inline void cut(
    uint64_t *keys, double *masses, Py_ssize_t n, double target, uint64_t *last, Py_ssize_t *ties
) noexcept nogil:
    """Find the shortest prefix (in key order) whose mass reaches `target`.

    It is everything above `last`, and the first `ties` of what equals it. All of it, if the mass
    falls short. ``masses == NULL`` gives each element the mass 1. Both arrays are used up.
    """
    cdef double mass[512]  # two for each digit: neighbours are often equal, and would have to wait
    cdef double reached = 0, here
    cdef int most = 255 if n > MANY else 31  # the largest digit: few elements, few counters
    cdef uint64_t all_have, one_has, highest
    cdef Py_ssize_t i, m
    cdef int shift, d
    while n > FEW:
        all_have = one_has = keys[0]
        for i in range(n):
            all_have &= keys[i]
            one_has |= keys[i]
        if all_have == one_has:
            break
        shift = 0
        while (all_have ^ one_has) >> shift > <uint64_t>most:
            shift += 1
        for d in range(2 * most + 2):
            mass[d] = 0
        for i in range(n):
            d = keys[i] >> shift & most
            mass[2 * d + (i & 1)] += masses[i] if masses != NULL else 1
        d = most
        while d >= 0:
            here = mass[2 * d] + mass[2 * d + 1]
            if here > 0:
                if reached + here >= target:
                    break
                reached += here
            d -= 1
        if d < 0:  # the lowest digit there is takes what rounding has left
            d = most
            for i in range(n):
                d = min(d, <int>(keys[i] >> shift & most))
            reached -= mass[2 * d] + mass[2 * d + 1]
        m = 0
        for i in range(n):
            keys[m] = keys[i]
            if masses != NULL:
                masses[m] = masses[i]
            m += <int>(keys[i] >> shift & most) == d
        n = m
    while True:
        highest = keys[0]
        for i in range(n):
            highest = max(highest, keys[i])
        last[0] = highest
        ties[0] = m = 0
        for i in range(n):
            if keys[i] == highest:
                ties[0] += 1
                reached += masses[i] if masses != NULL else 1
                if reached >= target:
                    return
            else:
                keys[m] = keys[i]
                if masses != NULL:
                    masses[m] = masses[i]
                m += 1
        if m == 0:
            return
        n = m


cdef inline Py_ssize_t keep(
    const key *x,
    const Py_ssize_t *place,
    Py_ssize_t n,
    key last,
    Py_ssize_t ties,
    key *value,
    Py_ssize_t *index,
    double *weight,
) noexcept nogil:
    """Write what is above `last`, and the first `ties` of what equals it, in the order given.

    The place of x[i] is place[i], or i if that is NULL. Works in place; so does `weight`, if not
    NULL. NaN equals itself and is below all else.
    """
    cdef bint numbers = unordered(last)
    cdef Py_ssize_t i, m = 0
    for i in range(n):
        if x[i] > last or (x[i] == last and ties > 0) or (
            numbers and (not unordered(x[i]) or ties > 0)
        ):
            ties -= not x[i] > last and not (numbers and not unordered(x[i]))
            value[m] = x[i]
            index[m] = place[i] if place != NULL else i
            if weight != NULL:
                weight[m] = weight[i]
            m += 1
    return m


cdef inline void take(
    const key *x, const Py_ssize_t *place, Py_ssize_t n, Py_ssize_t k, Work *work
) noexcept nogil:
    """Pick the first k of x[0:n] by digits, in index order; `place` as in `keep`."""
    cdef uint64_t last
    cdef Py_ssize_t ties, i, m
    for i in range(n):
        work.keys[i] = order_of(x[i])
    cut(work.keys, NULL, n, <double>k, &last, &ties)
    m = keep(x, place, n, value_of(last, <key>0), ties, <key *>work.value, work.index, NULL)
    for i in range(m, k):  # another thread has written into the row
        work.index[i] = 0


cdef inline void pick(
    const key *x, Py_ssize_t n, Py_ssize_t k, key *maxima, bint scanned, Work *work
) noexcept nogil:
    """Write the first k elements of x[0:n] into `work` (value, index), in index order, 0 < k <= n.

    `maxima` has room for the block maxima; `scanned` tells that those of SIZE are there.
    """
    cdef key *value = <key *>work.value
    cdef Py_ssize_t size = SIZE
    cdef Py_ssize_t blocks, i, m, missing
    cdef key t
    if k > n // DENSE:
        take(x, NULL, n, k, work)
        return
    if k > n // SPARSE:
        size = SMALL
        scanned = False
    blocks = blocks_of(n, size)
    if not scanned:
        scan(x, n, size, maxima, NULL)
    pick(maxima, blocks, k, maxima + blocks, False, work)
    t = value[0]
    for i in range(1, k):
        t = value[i] if value[i] < t else t
    m = collect(x, n, size, k, t, maxima, work)
    if m > k:
        take(value, work.index, m, k, work)
    elif m < k:  # these are all numbers that there are: fill up with NaN
        missing = k - m
        m = 0
        for i in range(n):
            if m < k and (missing > 0 or not unordered(x[i])):
                missing -= unordered(x[i])
                value[m] = x[i]
                work.index[m] = i
                m += 1
        for i in range(m, k):  # another thread has written into the row
            work.index[i] = 0


cdef inline void sort_picked(
    uint64_t *keys, Py_ssize_t *index, Py_ssize_t n, uint64_t *keys2, Py_ssize_t *index2
) noexcept nogil:
    """Sort by key, highest first; equal keys keep their order. The second arrays are scratch."""
    cdef Py_ssize_t start, i, j, place, a, b, middle, stop
    cdef Py_ssize_t width = RUN
    cdef uint64_t moved
    for start from 0 <= start < n by RUN:
        for i in range(start + 1, min(start + RUN, n)):
            moved = keys[i]
            place = index[i]
            j = i
            while j > start and keys[j - 1] < moved:
                keys[j] = keys[j - 1]
                index[j] = index[j - 1]
                j -= 1
            keys[j] = moved
            index[j] = place
    while width < n:
        start = 0
        while start < n:
            middle = min(start + width, n)
            stop = min(start + 2 * width, n)
            a = start
            b = middle
            for i in range(start, stop):
                if a < middle and (b >= stop or keys[a] >= keys[b]):
                    keys2[i] = keys[a]
                    index2[i] = index[a]
                    a += 1
                else:
                    keys2[i] = keys[b]
                    index2[i] = index[b]
                    b += 1
            start = stop
        for i in range(n):
            keys[i] = keys2[i]
            index[i] = index2[i]
        width *= 2
