# cython: language_level=3, cdivision=True
"""Values as unsigned keys, whose digits sort them and find the shortest prefix of a given mass.

The order everywhere is: larger value first, lower index first among equals, NaN last.

Sorting
    By digits of 8 bits from the lowest bit in which the keys differ. A few elements go where the
    number of those before them says: all pairs are compared, without a branch.

A prefix
    By digits from the highest bit in which the keys differ, 8 bits (or 5) at a time: a histogram of
    the masses tells in which digit the cumulative mass is reached.

Source
    The second is the radix select of T. Alabi et al., "Fast k-selection algorithms for graphics
    processing units", ACM JEA 17 (2012), https://doi.org/10.1145/2133803.2345676; the first is
    folklore.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastsoftmax._kernels.exp cimport bits32, bits64, from_bits32, from_bits64, infinity

ctypedef fused value_t:
    float
    double
    int64_t

cdef enum:
    RANK_GROUP = 8  # elements that are ranked together
    HISTOGRAM_MIN = 16  # elements that are not worth a histogram
    WIDE_HISTOGRAM_MIN = 512  # elements that are worth eight bits a histogram, others five
    MAX_RANK_SORT = 128  # elements that are sorted by their ranks,
    DIGIT = 256  # others by digits of so many values


cdef inline value_t lowest_value(value_t like) noexcept nogil:
    """Return what no element is below."""
    if value_t is int64_t:
        return <int64_t>0x8000000000000000ULL
    else:
        return -infinity(like)


cdef inline bint is_nan(value_t x) noexcept nogil:
    """Tell whether x is NaN."""
    if value_t is int64_t:
        return False
    else:
        return x != x


cdef inline uint64_t sortable_key(value_t x) noexcept nogil:
    """Return an unsigned key in the order of the values: NaN is lowest, -0 and +0 are equal."""
    cdef uint32_t b
    cdef uint64_t bb
    if value_t is float:
        b = bits32(x + <float>0.0)
        b ^= (~(b >> 31) + 1) | 0x80000000u  # all bits of a negative number, else its sign
        return <uint64_t>(b if x == x else 0) << 32
    elif value_t is double:
        bb = bits64(x + 0.0)
        bb ^= (~(bb >> 63) + 1) | 0x8000000000000000ULL
        return bb if x == x else 0
    else:
        return <uint64_t>x ^ 0x8000000000000000ULL


cdef inline value_t from_sortable_key(uint64_t order, value_t like) noexcept nogil:
    """Return the value of a key, or one equal to it."""
    cdef uint32_t b = <uint32_t>(order >> 32)
    if value_t is float:
        return from_bits32(b ^ 0x80000000u if b >> 31 else ~b)
    elif value_t is double:
        return from_bits64(order ^ 0x8000000000000000ULL if order >> 63 else ~order)
    else:
        return <int64_t>(order ^ 0x8000000000000000ULL)


cdef inline void radix_select_by_mass(
    uint64_t *keys, double *masses, Py_ssize_t n, double target, uint64_t *last, Py_ssize_t *ties
) noexcept nogil:
    """Find the shortest prefix (in key order) whose mass reaches `target`.

    It is everything above `last`, and the first `ties` of what equals it. All of it, if the mass
    falls short. ``masses == NULL`` gives each element the mass 1. Both arrays are used up.
    """
    cdef double mass[512]  # two for each digit: neighbours are often equal, and would have to wait
    cdef double reached = 0, here
    cdef int most = 255 if n > WIDE_HISTOGRAM_MIN else 31  # the largest digit: few elements, few counters
    cdef uint64_t all_have, one_has, highest
    cdef Py_ssize_t i, m
    cdef int shift, d
    while n > HISTOGRAM_MIN:
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


cdef inline Py_ssize_t compact_prefix(
    const value_t *x,
    const Py_ssize_t *place,
    Py_ssize_t n,
    value_t last,
    Py_ssize_t ties,
    value_t *value,
    Py_ssize_t *index,
    double *weight,
    Py_ssize_t room,
) noexcept nogil:
    """Write what is above `last`, and the first `ties` of what equals it, in the order given.

    The index of x[i] is place[i], or i if that is NULL. Works in place; so does `weight`, if not
    NULL. NaN equals itself and is below all else. It ends when `room` elements are written.
    """
    cdef bint numbers = is_nan(last)
    cdef bint above, equal
    cdef Py_ssize_t i, m = 0
    for i in range(n):  # without branches that could not be predicted
        if m == room:
            break
        equal = (x[i] == last) | (numbers & is_nan(x[i]))
        above = (x[i] > last) | (numbers & (not is_nan(x[i])))
        value[m] = x[i]
        index[m] = place[i] if place != NULL else i
        if weight != NULL:
            weight[m] = weight[i]
        m += above | (equal & (ties > 0))
        ties -= equal
    return m


cdef inline void rank_sort(
    uint64_t *keys, Py_ssize_t *index, Py_ssize_t n, uint64_t *keys2, Py_ssize_t *index2
) noexcept nogil:
    """Write up to RANKED elements, sorted as below, into the second arrays."""
    cdef int64_t order[MAX_RANK_SORT + RANK_GROUP]  # signed, as vectors compare them
    cdef int64_t rank[RANK_GROUP]
    cdef int64_t moved
    cdef Py_ssize_t start, j, l
    for j in range(n):
        order[j] = <int64_t>(keys[j] ^ 0x8000000000000000ULL)
    for l in range(RANK_GROUP):
        order[n + l] = <int64_t>0x8000000000000000ULL
    for start from 0 <= start < n by RANK_GROUP:
        for l in range(RANK_GROUP):
            rank[l] = 0
        for j in range(start):
            moved = order[j]
            for l in range(RANK_GROUP):
                rank[l] += moved >= order[start + l]
        for j in range(start, n):
            moved = order[j]
            for l in range(RANK_GROUP):
                rank[l] += moved > order[start + l]
        for j in range(RANK_GROUP):
            for l in range(RANK_GROUP):
                rank[l] += (order[start + j] == order[start + l]) & (j < l)
        for l in range(min(<Py_ssize_t>RANK_GROUP, n - start)):
            keys2[rank[l]] = keys[start + l]
            index2[rank[l]] = index[start + l]


cdef inline void sort_by_digit(
    const uint64_t *keys, const Py_ssize_t *index, Py_ssize_t n, int shift,
    uint64_t *keys2, Py_ssize_t *index2,
) noexcept nogil:
    """Sort by one digit of the key, highest first; equal ones keep their order."""
    cdef Py_ssize_t first[DIGIT]
    cdef Py_ssize_t i, here, place = 0
    cdef int d
    for d in range(DIGIT):
        first[d] = 0
    for i in range(n):
        first[keys[i] >> shift & (DIGIT - 1)] += 1
    for d in range(DIGIT - 1, -1, -1):
        here = first[d]
        first[d] = place
        place += here
    for i in range(n):
        d = keys[i] >> shift & (DIGIT - 1)
        place = first[d]
        first[d] = place + 1
        keys2[place] = keys[i]
        index2[place] = index[i]


cdef inline void radix_sort_pairs(
    uint64_t *keys, Py_ssize_t *index, Py_ssize_t n, uint64_t *keys2, Py_ssize_t *index2
) noexcept nogil:
    """Sort by key, highest first; equal keys keep their order. The second arrays are scratch."""
    cdef uint64_t *there = keys2
    cdef uint64_t *here = keys
    cdef Py_ssize_t *index_there = index2
    cdef Py_ssize_t *index_here = index
    cdef uint64_t all_have = ~<uint64_t>0, one_has = 0
    cdef Py_ssize_t i
    cdef int shift = 0
    if n <= MAX_RANK_SORT:
        rank_sort(keys, index, n, keys2, index2)
        here, index_here = keys2, index2
    else:
        for i in range(n):
            all_have &= keys[i]
            one_has |= keys[i]
        one_has ^= all_have
        while shift < 64 and one_has >> shift:  # from the lowest bit in which they differ
            if one_has >> shift & 1:
                sort_by_digit(here, index_here, n, shift, there, index_there)
                here, there = there, here
                index_here, index_there = index_there, index_here
                shift += 8
            else:
                shift += 1
    if here != keys:
        memcpy(keys, here, n * sizeof(uint64_t))
        memcpy(index, index_here, n * sizeof(Py_ssize_t))
