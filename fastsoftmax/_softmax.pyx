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
    Elements in the row's own type, sums in more (``_rows.pxd`` says in which order). 1/S is a pair
    too: its first part alone would cost one more rounding.

Source
    P. Blanchard, D. J. Higham, N. J. Higham, IMA Journal of Numerical Analysis 41 (2021),
    https://doi.org/10.1093/imanum/draa038
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy

from fastsoftmax._kernels cimport RowFunctions
from fastsoftmax._math cimport HAS_FMA, fma, infinity, log1p_pos, lowest, real
from fastsoftmax._rows cimport (
    BLOCK,
    STEP,
    Lanes,
    Pair,
    add_to,
    close,
    exp_block,
    exp_of,
    exp_padded,
    highest_of,
    pad,
    scale,
    subtract,
    sum_of_others,
    whole,
)

cdef enum:
    CHUNK = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds


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
