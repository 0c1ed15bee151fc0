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

from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.types cimport (
    bits32,
    bits64,
    from_bits32,
    from_bits64,
    infinity,
    leading_zeros,
)

ctypedef fused value_t:
    float
    double
    int64_t

# Which values come first, as a type, so that each order has loops of its own.
ctypedef char Descending
ctypedef short Ascending

ctypedef fused order_t:
    Descending
    Ascending

cdef enum:
    RANK_GROUP = 8  # elements that are ranked together
    HISTOGRAM_MIN = 16  # elements: up to these, a histogram costs more than it saves
    WIDE_HISTOGRAM_MIN = 512  # elements: above these, a histogram has 8 bits, else 5
    MAX_RANK_SORT = 128  # elements that are sorted by their ranks,
    DIGIT = 256  # others by digits of so many values


cdef inline value_t lowest_value(value_t like) noexcept nogil:
    """Return what no element is below."""
    if value_t is int64_t:
        return <int64_t>0x8000000000000000ULL
    else:
        return -infinity(like)


cdef inline value_t oriented(value_t x, order_t order) noexcept nogil:
    """Return x, or if `order` is Ascending a value in the reverse order; both are exact."""
    if order_t is Descending:
        return x
    elif value_t is int64_t:
        return ~x
    else:
        return -x


cdef inline bint is_nan(value_t x) noexcept nogil:
    """Return whether x is NaN."""
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


cdef inline value_t from_sortable_key(uint64_t key, value_t like) noexcept nogil:
    """Return the value that `key` was made of, or one equal to it."""
    cdef uint32_t b = <uint32_t>(key >> 32)
    if value_t is float:
        return from_bits32(b ^ 0x80000000u if b >> 31 else ~b)
    elif value_t is double:
        return from_bits64(key ^ 0x8000000000000000ULL if key >> 63 else ~key)
    else:
        return <int64_t>(key ^ 0x8000000000000000ULL)


cdef inline value_t next_below(value_t x) noexcept nogil:
    """Return the largest number below x, which is above the lowest."""
    cdef uint64_t unit = <uint64_t>1 << 32 if value_t is float else 1
    cdef uint64_t key = sortable_key(x) - unit
    if not from_sortable_key(key, <value_t>0) < x:  # -0
        key -= unit
    return from_sortable_key(key, <value_t>0)


cdef inline void radix_select_by_mass(
    uint64_t *keys, double *masses, Py_ssize_t n, double target, uint64_t *last, Py_ssize_t *ties
) noexcept nogil:
    """Find the shortest prefix, in the order of `keys`, whose mass reaches `target`.

    It is everything above `last`, and the first `ties` of what equals it: all of it, if the mass
    falls short. ``masses == NULL`` gives each element the mass 1. Both arrays are overwritten.
    """
    cdef double mass[512]  # two for each digit: neighbours are often equal, and would have to wait
    cdef double reached = 0, digit_mass
    cdef int max_digit = 255 if n > WIDE_HISTOGRAM_MIN else 31
    cdef uint64_t common, present, highest
    cdef Py_ssize_t i, m
    cdef int shift, d
    while n > HISTOGRAM_MIN:
        common = present = keys[0]
        for i in range(n):
            common &= keys[i]
            present |= keys[i]
        if common == present:
            break
        shift = max(0, (59 if max_digit == 31 else 56) - leading_zeros(common ^ present))
        for d in range(2 * max_digit + 2):
            mass[d] = 0
        for i in range(n):
            d = keys[i] >> shift & max_digit
            mass[2 * d + (i & 1)] += masses[i] if masses != NULL else 1
        d = max_digit
        while d >= 0:
            digit_mass = mass[2 * d] + mass[2 * d + 1]
            if digit_mass > 0:
                if reached + digit_mass >= target:
                    break
                reached += digit_mass
            d -= 1
        if d < 0:  # the lowest digit there is takes what rounding has left
            d = max_digit
            for i in range(n):
                d = min(d, <int>(keys[i] >> shift & max_digit))
            reached -= mass[2 * d] + mass[2 * d + 1]
        m = 0
        for i in range(n):
            keys[m] = keys[i]
            if masses != NULL:
                masses[m] = masses[i]
            m += <int>(keys[i] >> shift & max_digit) == d
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
    """Keep of x[0:n] what is above `last`, and the first `ties` of what equals it, in index order.

    The index of x[i] is place[i]; `value` and `index` may be these arrays.
    `weight` is compacted in place, if it is not NULL. NaN equals itself and is below all else.
    Return how many are kept: `room` at most, the elements that `value` and `index` have room for.
    """
    cdef bint last_is_nan = is_nan(last)
    cdef bint above, equal
    cdef Py_ssize_t i, m = 0
    for i in range(n):  # without branches that could not be predicted
        if m == room:
            break
        equal = (x[i] == last) | (last_is_nan & is_nan(x[i]))
        above = (x[i] > last) | (last_is_nan & (not is_nan(x[i])))
        value[m] = x[i]
        index[m] = place[i]
        if weight != NULL:
            weight[m] = weight[i]
        m += above | (equal & (ties > 0))
        ties -= equal
    return m


cdef inline void rank_sort(
    uint64_t *keys, Py_ssize_t *index, Py_ssize_t n, uint64_t *keys2, Py_ssize_t *index2
) noexcept nogil:
    """Write up to MAX_RANK_SORT elements by key, highest first, into the second arrays.

    Equal keys keep their order.
    """
    cdef int64_t order[MAX_RANK_SORT + RANK_GROUP]  # signed, as vectors compare them
    cdef int64_t rank[RANK_GROUP]
    cdef int64_t signed_key
    cdef Py_ssize_t start, j, l
    for j in range(n):
        order[j] = <int64_t>(keys[j] ^ 0x8000000000000000ULL)
    for l in range(RANK_GROUP):
        order[n + l] = <int64_t>0x8000000000000000ULL
    for start from 0 <= start < n by RANK_GROUP:
        for l in range(RANK_GROUP):
            rank[l] = 0
        for j in range(start):
            signed_key = order[j]
            for l in range(RANK_GROUP):
                rank[l] += signed_key >= order[start + l]
        for j in range(start, n):
            signed_key = order[j]
            for l in range(RANK_GROUP):
                rank[l] += signed_key > order[start + l]
        for j in range(RANK_GROUP):
            for l in range(RANK_GROUP):
                rank[l] += (order[start + j] == order[start + l]) & (j < l)
        for l in range(min(<Py_ssize_t>RANK_GROUP, n - start)):
            keys2[rank[l]] = keys[start + l]
            index2[rank[l]] = index[start + l]


cdef inline bint sort_by_digit(
    const uint64_t *keys, const Py_ssize_t *index, Py_ssize_t n, int shift,
    uint64_t *keys2, Py_ssize_t *index2,
) noexcept nogil:
    """Write n elements into the second arrays by the digit of `keys` at `shift`, highest first.

    Equal digits keep their order. Return False where a signal was in between.
    """
    cdef Py_ssize_t first[DIGIT]
    cdef Py_ssize_t i, start, count, place = 0
    cdef int d
    for d in range(DIGIT):
        first[d] = 0
    for i in range(n):
        first[keys[i] >> shift & (DIGIT - 1)] += 1
    for d in range(DIGIT - 1, -1, -1):
        count = first[d]
        first[d] = place
        place += count
    for start from 0 <= start < n by LOOK_INTERVAL:
        if stopped(n - start):
            return False
        for i in range(start, min(n, start + LOOK_INTERVAL)):
            d = keys[i] >> shift & (DIGIT - 1)
            place = first[d]
            first[d] = place + 1
            keys2[place] = keys[i]
            index2[place] = index[i]
    return True


cdef inline void radix_sort_pairs(
    uint64_t *keys, Py_ssize_t *index, Py_ssize_t n, uint64_t *keys2, Py_ssize_t *index2
) noexcept nogil:
    """Sort n elements by key, highest first; equal keys keep their order.

    The second arrays are scratch. After a signal they are in some other order.
    """
    cdef uint64_t *target = keys2
    cdef uint64_t *source = keys
    cdef Py_ssize_t *index_target = index2
    cdef Py_ssize_t *index_source = index
    cdef uint64_t common = ~<uint64_t>0, differing = 0
    cdef Py_ssize_t i
    cdef int shift = 0
    if n <= MAX_RANK_SORT:
        rank_sort(keys, index, n, keys2, index2)
        source, index_source = keys2, index2
    else:
        for i in range(n):
            common &= keys[i]
            differing |= keys[i]
        differing ^= common
        while shift < 64 and differing >> shift:  # from the lowest bit in which they differ
            if differing >> shift & 1:
                if not sort_by_digit(source, index_source, n, shift, target, index_target):
                    break
                source, target = target, source
                index_source, index_target = index_target, index_source
                shift += 8
            else:
                shift += 1
    if source != keys and n > 0:  # of nothing `keys` may be NULL, which memcpy must not get
        memcpy(keys, source, n * sizeof(uint64_t))
        memcpy(index, index_source, n * sizeof(Py_ssize_t))


cdef inline void ranks_by_sort(
    const value_t *x, Py_ssize_t n, const int64_t *places, Py_ssize_t m, int64_t *ranks,
    uint64_t *keys, Py_ssize_t *order, uint64_t *keys2, Py_ssize_t *order2,
) noexcept nogil:
    """Write the ranks of m of n elements, -1 for places outside.

    The last four arrays are scratch for n. After a signal the ranks are some others.
    """
    cdef Py_ssize_t i
    cdef int64_t place
    for i in range(n):
        keys[i] = sortable_key(x[i])
        order[i] = i
    radix_sort_pairs(keys, order, n, keys2, order2)
    for i in range(n):
        keys[order[i]] = i
    for i in range(m):
        place = places[i]
        ranks[i] = <int64_t>keys[place] if 0 <= place < n else -1
