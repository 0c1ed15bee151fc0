# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""softmax, log_softmax and logsumexp of contiguous rows. Built once per instruction set.

Formula
    softmax:      exp((x - max) / T) / S,        S = sum exp((x - max) / T)
    log_softmax:  (x - max) / T - log1p(S'),     S' = S without the largest entry's own term
    logsumexp:    max + log1p(S')

Passes over memory
    softmax: maximum (read); exponentials and their sum, a block that fits L1 at a time (read,
    write); scale (read, write). log_softmax: maximum, sum, difference. logsumexp: maximum, sum.

Precision policy
    Elements in the row's own type, sums in more. The exponentials of a block are made by one loop
    and added by another: four neighbouring eighths in the element type, then eight lanes in float64
    (float32 rows) or in a pair of float64 (float64 rows); the end of a block closes the lanes. The
    map has no order and the sum has this fixed one, so every vector width gives the same bits.
    1/S is a pair too: its first part alone would cost one more rounding.
    The last, partial step of 32 elements goes through a padded copy: no scalar tails.

Source
    P. Blanchard, D. J. Higham, N. J. Higham, IMA Journal of Numerical Analysis 41 (2021),
    https://doi.org/10.1093/imanum/draa038
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy

from fastsoftmax._kernels cimport RowFunctions
from fastsoftmax._math cimport HAS_FMA, exp_neg, fma, infinity, log1p_pos, lowest, real

cdef enum:
    STEP = 32  # elements that a sum takes at once
    BLOCK = 2048  # elements whose exponentials stay in L1 until they are added
    CHUNK = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds

cdef struct Lanes:
    double high[8]
    double low[8]


cdef struct Pair:
    double high
    double low


# ---- loops over a multiple of STEP elements, each a function of its own for the vectoriser -------


cdef real max_of(const real *x, Py_ssize_t n, real highest) noexcept nogil:
    """Return the largest of `highest` and x[0:n]; NaN is passed over."""
    cdef real lane[STEP]
    cdef Py_ssize_t j, l
    for l in range(STEP):
        lane[l] = highest
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
    for l in range(STEP):
        highest = lane[l] if lane[l] > highest else highest
    return highest


cdef void exp_of(const real *x, real *y, Py_ssize_t n, real highest, real low) noexcept nogil:
    """y = exp(x - highest)"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = exp_neg(x[j] - highest, low)


cdef void exp_of_scaled(
    const real *x, real *y, Py_ssize_t n, real highest, real inverse, real low
) noexcept nogil:
    """y = exp((x - highest) * inverse)"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = exp_neg((x[j] - highest) * inverse, low)


cdef void add_to(Lanes *lanes, const real *e, Py_ssize_t n) noexcept nogil:
    """Add e[0:n] to the lanes."""
    cdef double high[8]
    cdef double low[8]
    cdef double quad[8]
    cdef double total, part
    cdef Py_ssize_t j, l
    for l in range(8):
        high[l] = lanes.high[l]
        low[l] = lanes.low[l]
    for j from 0 <= j < n by STEP:
        for l in range(8):
            quad[l] = (e[j + l] + e[j + 8 + l]) + (e[j + 16 + l] + e[j + 24 + l])
        if real is float:
            for l in range(8):
                high[l] += quad[l]
        else:  # Knuth's TwoSum: high + low stays exact
            for l in range(8):
                total = high[l] + quad[l]
                part = total - high[l]
                low[l] += (high[l] - (total - part)) + (quad[l] - part)
                high[l] = total
    for l in range(8):
        lanes.high[l] = high[l]
        lanes.low[l] = low[l]


cdef void scale(real *y, Py_ssize_t n, real high, real low) noexcept nogil:
    """y = y * (high + low), rounded once (nearly)"""
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            y[j + l] = fma(y[j + l], high, y[j + l] * low)


cdef void subtract(
    const real *x, real *y, Py_ssize_t n, real highest, real inverse, real log_sum
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = (x[j] - highest) * inverse - log_sum


# ---- blocks --------------------------------------------------------------------------------------


cdef inline Py_ssize_t whole(Py_ssize_t n) noexcept nogil:
    """Return how many of n elements fill whole steps."""
    return n & ~(<Py_ssize_t>STEP - 1)


cdef inline void pad(const real *x, real *tail, Py_ssize_t n) noexcept nogil:
    """Copy n < STEP elements of x and fill up with -inf, whose exponential is 0."""
    cdef Py_ssize_t j
    for j in range(STEP):
        tail[j] = -infinity(<real>0)
    memcpy(tail, x, n * sizeof(real))


cdef inline void two_sum(Pair *s, double x) noexcept nogil:
    """Add x to the pair, exactly (Knuth's TwoSum)."""
    cdef double total = s.high + x
    cdef double part = total - s.high
    s.low += (s.high - (total - part)) + (x - part)
    s.high = total


cdef void exp_block(
    const real *x, real *y, Py_ssize_t n, real highest, real inverse
) noexcept nogil:
    """y = exp((x - highest) * inverse) over any whole number of steps"""
    # A product with 1 changes nothing, but costs a fifteenth of the loop.
    if inverse == 1:
        exp_of(x, y, n, highest, lowest(<real>0))
    else:
        exp_of_scaled(x, y, n, highest, inverse, lowest(<real>0))


cdef void close(Pair *s, Lanes *lanes, real like) noexcept nogil:
    """Add the lanes of a block to the sum, in one order for every implementation."""
    cdef double *a = lanes.high
    cdef Py_ssize_t l
    if real is float:
        two_sum(s, ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])))
    else:
        for l in range(8):
            two_sum(s, a[l])
            s.low += lanes.low[l]


cdef real highest_of(const real *x, Py_ssize_t n, Py_ssize_t *block) noexcept nogil:
    """Return the largest of a row (NaN is passed over), and where the block starts that has it."""
    cdef Py_ssize_t start, m, w
    cdef real highest = -infinity(<real>0)
    cdef real before
    cdef real tail[STEP]
    block[0] = 0
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = whole(m)
        before = highest
        highest = max_of(x + start, w, highest)
        if w < m:
            pad(x + start + w, tail, m - w)
            highest = max_of(tail, STEP, highest)
        if highest > before:
            block[0] = start
    return highest


cdef Py_ssize_t place_of(const real *x, Py_ssize_t n, real highest) noexcept nogil:
    """Return the first place of `highest` in a block, n if it is not there."""
    cdef Py_ssize_t j = 0, l
    cdef int found = 0
    while j + STEP <= n:
        for l in range(STEP):
            found |= x[j + l] == highest
        if found:
            break
        j += STEP
    while j < n and x[j] != highest:
        j += 1
    return j


cdef Pair sum_of_others(
    const real *x, Py_ssize_t n, real highest, Py_ssize_t block, real inverse
) noexcept nogil:
    """Return the sum of exp((x - highest) * inverse) without the largest entry's own term."""
    cdef Py_ssize_t start, m, w, j
    cdef Pair s
    cdef Lanes lanes
    cdef real e[BLOCK + 1]  # the last one takes the 0 of a row of NaN
    s.high = s.low = 0
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = whole(m)
        for j in range(8):
            lanes.high[j] = lanes.low[j] = 0
        exp_block(x + start, e, w, highest, inverse)
        if w < m:
            pad(x + start + w, e + w, m - w)
            exp_padded(e + w, highest, inverse)
        if start == block and highest < infinity(<real>0):
            e[place_of(x + start, m, highest)] = 0
        add_to(&lanes, e, w + (STEP if w < m else 0))
        close(&s, &lanes, <real>0)
    return s


cdef void exp_padded(real *tail, real highest, real inverse) noexcept nogil:
    """exp_block over one step, in place"""
    cdef real x[STEP]
    memcpy(x, tail, sizeof(x))
    exp_block(x, tail, STEP, highest, inverse)


# ---- rows ----------------------------------------------------------------------------------------


cdef bint substitute(const real *x, real *y, Py_ssize_t n, double temperature) noexcept nogil:
    """Write scores into y whose softmax at T = 1 is that of x at T = 0 or inf; tell if it did so.

    Rows that have no probabilities stay as they are, and become NaN as every such row does.
    """
    cdef real inf = infinity(<real>0)
    cdef real highest
    cdef Py_ssize_t block, j, first = -1
    cdef bint bad = False
    if temperature == 0:
        highest = highest_of(x, n, &block)
        for j in range(n):
            bad |= x[j] != x[j]
            if first < 0 and x[j] == highest:
                first = j
        bad |= highest == inf or highest == -inf
        for j in range(n):
            y[j] = inf if bad else -inf
        if not bad:
            y[first] = 0
        return True
    if <real>(1 / temperature) == 0:
        for j in range(n):
            y[j] = 0 if -inf < x[j] < inf else x[j]
        return True
    return False


cdef real inverse_of(double temperature, real like) noexcept nogil:
    """Return 1/T, held at the largest finite number."""
    cdef real inverse = <real>(1 / temperature)
    if real is float:
        return min(inverse, <float>3.4028234663852886e+38)
    else:
        return min(inverse, <double>1.7976931348623157e+308)


cdef void softmax_row(const real *x, real *y, Py_ssize_t n, double temperature) noexcept nogil:
    """y = softmax(x / temperature); y is x or does not overlap it."""
    cdef Py_ssize_t start, m, w, j, block
    cdef Pair s
    cdef Lanes lanes
    cdef real highest, inverse, high, low
    cdef double total
    cdef real tail[STEP]
    cdef real copy[BLOCK]
    cdef const real *source
    if temperature != 1 and substitute(x, y, n, temperature):
        x = y
        temperature = 1
    inverse = inverse_of(temperature, <real>0)
    highest = highest_of(x, n, &block)
    s.high = s.low = 0
    w = m = 0
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = whole(m)
        for j in range(8):
            lanes.high[j] = lanes.low[j] = 0
        source = x + start
        if x == y:  # the loop must know that it does not read what it writes
            memcpy(copy, source, w * sizeof(real))
            source = copy
        exp_block(source, y + start, w, highest, inverse)
        add_to(&lanes, y + start, w)
        if w < m:
            pad(x + start + w, tail, m - w)
            exp_padded(tail, highest, inverse)
            add_to(&lanes, tail, STEP)
        close(&s, &lanes, <real>0)
    total = s.high + s.low
    if real is float:
        total = 1 / total
        high = <float>total
        low = <float>(total - high)
    else:
        s.low -= total - s.high
        s.high = total
        high = 1 / s.high
        low = (fma(-high, s.high, 1.0) - high * s.low) * high
    if not HAS_FMA:
        low = 0  # the second rounding would cost the order
    w = whole(n)
    scale(y, w, high, low)
    if w < n:
        scale(tail, STEP, high, low)
        memcpy(y + w, tail, (n - w) * sizeof(real))


cdef void log_softmax_row(const real *x, real *y, Py_ssize_t n, double temperature) noexcept nogil:
    """y = log_softmax(x / temperature); y is x or does not overlap it."""
    cdef Py_ssize_t start, m, block
    cdef Pair s
    cdef real highest, inverse, log_sum
    cdef real copy[BLOCK]
    cdef const real *source
    if temperature != 1 and substitute(x, y, n, temperature):
        x = y
        temperature = 1
    inverse = inverse_of(temperature, <real>0)
    highest = highest_of(x, n, &block)
    s = sum_of_others(x, n, highest, block, inverse)
    log_sum = <real>log1p_pos(s.high + s.low)
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        source = x + start
        if x == y:
            memcpy(copy, source, m * sizeof(real))
            source = copy
        subtract(source, y + start, m, highest, inverse, log_sum)


cdef real logsumexp_row(const real *x, Py_ssize_t n) noexcept nogil:
    """Return logsumexp(x)."""
    cdef real inf = infinity(<real>0)
    cdef Py_ssize_t block, j
    cdef Pair s
    cdef real highest = highest_of(x, n, &block)
    if highest == inf or highest == -inf:
        for j in range(n):
            if x[j] != x[j]:
                return x[j]
        return highest
    s = sum_of_others(x, n, highest, block, <real>1)
    return <real>(highest + log1p_pos(s.high + s.low))


# ---- what Python and _front see ------------------------------------------------------------------


def map_rows(
    const real[:, ::1] x, real[:, ::1] y, const double[::1] temperature, bint log
):
    """Write softmax, or log_softmax if `log`, of each row of `x` into `y`, which may be `x`.

    `temperature` has one element, or one for each row.
    """
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t each = temperature.shape[0] > 1
    cdef Py_ssize_t i, stop, start = 0
    if n == 0:
        return
    while start < rows:
        stop = min(rows, start + max(1, CHUNK // n))
        with nogil:
            for i in range(start, stop):
                if log:
                    log_softmax_row(&x[i, 0], &y[i, 0], n, temperature[i * each])
                else:
                    softmax_row(&x[i, 0], &y[i, 0], n, temperature[i * each])
        PyErr_CheckSignals()
        start = stop


def reduce_rows(const real[:, ::1] x, real[::1] y):
    """Write logsumexp of each row of `x` into `y`."""
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t i, stop, start = 0
    while start < rows:
        stop = min(rows, start + max(1, CHUNK // max(n, 1)))
        with nogil:
            for i in range(start, stop):
                y[i] = logsumexp_row(&x[i, 0], n) if n else -infinity(<real>0)
        PyErr_CheckSignals()
        start = stop


def exp_rows(const real[::1] x, real[::1] y):
    """Write exp of `x` (<= 0 or NaN) into `y`: the bare kernel, for the exhaustive tests."""
    cdef Py_ssize_t n = x.shape[0]
    with nogil:
        if n:
            exp_of(&x[0], &y[0], n, <real>0, lowest(<real>0))


cdef RowFunctions functions
functions.softmax32 = softmax_row[float]
functions.softmax64 = softmax_row[double]
functions.log_softmax32 = log_softmax_row[float]
functions.log_softmax64 = log_softmax_row[double]
functions.logsumexp32 = logsumexp_row[float]
functions.logsumexp64 = logsumexp_row[double]

#: The same functions for `_front`, by pointer.
row_functions = PyCapsule_New(&functions, "fastsoftmax.RowFunctions", NULL)
