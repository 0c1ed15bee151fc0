# cython: language_level=3, cdivision=True
"""A value that the k first of some numbers reach, and few others, by bisection: it counts those
that reach the middle.

Bisected are the keys of the values (``radix.pxd``): each step halves the numbers that there are.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.block_maxima cimport STEP
from fastsoftmax._kernels.radix cimport (
    from_sortable_key,
    lowest_value,
    order_t,
    oriented,
    sortable_key,
    value_t,
)
from fastsoftmax._kernels.signals cimport stopped
from fastsoftmax._kernels.types cimport infinity, real

cdef enum:
    FEW = 32  # numbers of which the k-th is found by counting

ctypedef fused lane:
    uint32_t
    uint64_t


cdef inline real kth_of_few(const real *x, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Return the k-th largest of n >= k numbers, FEW at most; those above each are counted."""
    cdef real padded[FEW]
    cdef real above[FEW]  # as numbers, of which gcc makes vectors
    cdef real v, most = k
    cdef Py_ssize_t i, l
    for l in range(FEW):
        padded[l] = x[l] if l < n else -infinity(<real>0)
        above[l] = 0
    for i in range(n):
        v = x[i]
        for l in range(FEW):
            above[l] += 1 if padded[l] < v else 0
    for l in range(FEW):
        padded[l] = padded[l] if above[l] < most else infinity(<real>0)
    for l in range(16):  # in halves: no branch that cannot be foreseen
        padded[l] = padded[16 + l] if padded[16 + l] < padded[l] else padded[l]
    for l in range(8):
        padded[l] = padded[8 + l] if padded[8 + l] < padded[l] else padded[l]
    for l in range(4):
        padded[l] = padded[4 + l] if padded[4 + l] < padded[l] else padded[l]
    for l in range(2):
        padded[l] = padded[2 + l] if padded[2 + l] < padded[l] else padded[l]
    return padded[1] if padded[1] < padded[0] else padded[0]


cdef inline Py_ssize_t count_reaching(
    const value_t *x, order_t order, Py_ssize_t n, value_t t, lane zero
) noexcept nogil:
    """Return how many of x[0:n], `oriented` by `order`, reach t; `zero` is as wide as they are."""
    cdef lane found[STEP]
    cdef Py_ssize_t rest = n & (STEP - 1)
    cdef Py_ssize_t j, m = 0
    cdef int l
    for l in range(STEP):
        found[l] = zero
    for j from 0 <= j < n - rest by STEP:
        for l in range(STEP):
            found[l] += oriented(x[j + l], order) >= t
    if n < STEP:
        for j in range(n):
            m += oriented(x[j], order) >= t
        return m
    for l in range(STEP):  # the last step again, but for what has been counted
        found[l] += <lane>(oriented(x[n - STEP + l], order) >= t) & <lane>(l >= STEP - rest)
    for l in range(STEP):
        m += found[l]
    return m


cdef inline uint32_t reaching_mask(
    const value_t *x, order_t order, value_t t, lane zero
) noexcept nogil:
    """Return a bit for each of STEP elements, `oriented` by `order`: 1 if it reaches t.

    `zero` is as wide as the elements.
    """
    cdef lane mask = zero
    cdef int l
    for l in range(STEP):
        mask |= <lane>(oriented(x[l], order) >= t) << <lane>l
    return <uint32_t>mask


cdef inline uint32_t step_mask(const value_t *x, order_t order, value_t t) noexcept nogil:
    """Return `reaching_mask`, with the integers that are as wide as the elements."""
    if value_t is float:
        return reaching_mask(x, order, t, <uint32_t>0)
    else:
        return reaching_mask(x, order, t, <uint64_t>0)


cdef inline value_t above_lowest(value_t like) noexcept nogil:
    """Return the second lowest value."""
    cdef uint64_t unit = <uint64_t>1 << 32 if value_t is float else 1
    return from_sortable_key(sortable_key(lowest_value(like)) + unit, like)


cdef inline value_t least_but_lowest(
    const value_t *x, order_t order, Py_ssize_t n
) noexcept nogil:
    """Return the least of x[0:n], `oriented` by `order`, that is above what is lowest of all.

    The highest value of all if there is none.
    """
    cdef value_t bottom[STEP]
    cdef value_t v
    cdef Py_ssize_t j, l
    for l in range(STEP):
        bottom[l] = -1 - lowest_value(<value_t>0)
    for j from 0 <= j <= n - STEP by STEP:
        for l in range(STEP):
            v = oriented(x[j + l], order)
            v = v if v > lowest_value(<value_t>0) else -1 - lowest_value(<value_t>0)
            bottom[l] = v if v < bottom[l] else bottom[l]
    for j in range(n & ~(<Py_ssize_t>STEP - 1), n):
        v = oriented(x[j], order)
        bottom[0] = v if lowest_value(<value_t>0) < v < bottom[0] else bottom[0]
    for l in range(1, STEP):
        bottom[0] = bottom[l] if bottom[l] < bottom[0] else bottom[0]
    return bottom[0]


cdef inline Py_ssize_t kth_lower_bound(
    const value_t *x, order_t order, Py_ssize_t n, Py_ssize_t k, Py_ssize_t max_count, value_t *t
) noexcept nogil:
    """Find a value t that the k first of x[0:n], `oriented` by `order`, reach; return how many do.

    If these are more than `max_count`, t is the k-th. NaN is passed over; if there are fewer than k
    numbers, t is the lowest of them, or below. What is lowest of all, -inf, of which a row under a
    mask is full, takes no steps.
    """
    cdef uint64_t unit = <uint64_t>1 << 32 if value_t is float else 1
    cdef value_t bottom[STEP]
    cdef value_t top[STEP]
    cdef value_t v
    cdef uint64_t low, high, middle
    cdef Py_ssize_t j, l, m, reached = n
    t[0] = lowest_value(<value_t>0)
    if n <= max_count:
        return n
    for l in range(STEP):
        top[l] = lowest_value(<value_t>0)
        bottom[l] = -1 - lowest_value(<value_t>0)  # the highest
    for j from 0 <= j <= n - STEP by STEP:
        for l in range(STEP):
            v = oriented(x[j + l], order)
            top[l] = v if v > top[l] else top[l]
            bottom[l] = v if v < bottom[l] else bottom[l]
    for j in range(n & ~(<Py_ssize_t>STEP - 1), n):
        v = oriented(x[j], order)
        top[0] = v if v > top[0] else top[0]
        bottom[0] = v if v < bottom[0] else bottom[0]
    for l in range(1, STEP):
        top[0] = top[l] if top[l] > top[0] else top[0]
        bottom[0] = bottom[l] if bottom[l] < bottom[0] else bottom[0]
    low = sortable_key(bottom[0])
    high = sortable_key(top[0])
    if bottom[0] == t[0]:
        v = least_but_lowest(x, order, n)
        if value_t is float:
            reached = count_reaching(x, order, n, v, <uint32_t>0)
        else:
            reached = count_reaching(x, order, n, v, <uint64_t>0)
        if reached < k:
            return n
        low = sortable_key(v)
    while low < high and reached > max_count and not stopped(n):
        middle = (high - low) // unit
        middle = low + (middle - middle // 2) * unit
        if value_t is float:
            m = count_reaching(x, order, n, from_sortable_key(middle, <value_t>0), <uint32_t>0)
        else:
            m = count_reaching(x, order, n, from_sortable_key(middle, <value_t>0), <uint64_t>0)
        if m >= k:
            low = middle
            reached = m
        else:
            high = middle - unit
    t[0] = from_sortable_key(low, <value_t>0)
    return reached
