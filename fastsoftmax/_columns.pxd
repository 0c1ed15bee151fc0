# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The phases of softmax over a panel: some neighbouring columns, reduced from top to bottom.

The array is seen as (outer, n, inner), the lanes of a vector are columns. A panel is read once,
into scratch that fits the second cache, and written once: whole lines of memory both times, and
lines a power of two apart, which would drive each other out of the caches, are met only then.

The order of sums is that of ``_rows.pxd``: a column has the bits of the same numbers in a row. In
scratch a panel's columns are whole vectors; what fills up the last one is computed and not used.
"""

from libc.string cimport memcpy

from fastsoftmax._groups cimport LANES, larger, power, scaling
from fastsoftmax._math cimport fma, infinity, prefetch, real, written, written64
from fastsoftmax._rows cimport BLOCK, STEP, Pair, two_sum

cdef enum:
    VECTOR = 16  # columns that a loop takes at once
    PANEL = 256  # most columns of a panel: theirs and the sums' scratch fit the first cache
    FITS = 1 << 17  # elements of a panel, which is then in the second cache or not far from it
    AHEAD = 8  # rows that are fetched in advance: no stream of neighbours, but leaps


cdef inline Py_ssize_t panel_width(Py_ssize_t n, Py_ssize_t inner) noexcept nogil:
    """Return how many columns a panel has in scratch."""
    cdef Py_ssize_t most = min(max(FITS // n, 4 * VECTOR), PANEL)
    return min(most, inner + VECTOR - 1) // VECTOR * VECTOR


cdef inline void take_columns(
    const real *x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t columns, written e,
    Py_ssize_t width, written highest,
) noexcept nogil:
    """e = the columns, and the largest element of each; NaN is passed over."""
    cdef Py_ssize_t whole = columns // VECTOR * VECTOR
    cdef Py_ssize_t i, c, l
    cdef const real *p
    cdef written o
    for c in range(width):
        highest[c] = -infinity(<real>0)
    for i in range(n):
        p = x + i * stride
        o = e + i * width
        for c from 0 <= c < whole by VECTOR:
            prefetch(p + AHEAD * stride + c)
            for l in range(VECTOR):
                highest[c + l] = larger(p[c + l], highest[c + l])
            for l in range(VECTOR):
                o[c + l] = p[c + l]
        for c in range(whole, columns):
            highest[c] = larger(p[c], highest[c])
            o[c] = p[c]


cdef inline void column_exponentials(
    written e, Py_ssize_t rows, Py_ssize_t width, const real *highest, const real *inverse,
    scaling kind, real low,
) noexcept nogil:
    """e = exp((e - highest) * inverse)"""
    cdef Py_ssize_t i, c
    cdef written p
    for i in range(rows):
        p = e + i * width
        for c in range(width):
            p[c] = power(p[c], highest[c], inverse[c], kind, low)


cdef inline void drop_largest_of_columns(
    const real *x, written e, Py_ssize_t rows, Py_ssize_t width, written sought
) noexcept nogil:
    """Take the first element that equals `sought` out of e; make that NaN, which none equals."""
    cdef real nan = infinity(<real>0) - infinity(<real>0)
    cdef Py_ssize_t i, c
    cdef real v
    for i in range(rows):
        for c in range(width):
            v = sought[c]
            e[i * width + c] = 0 if x[i * width + c] == v else e[i * width + c]
            sought[c] = nan if x[i * width + c] == v else v


cdef inline void add_planes(
    const real *a, const real *b, const real *c, const real *d, Py_ssize_t width,
    written64 high, written64 low,
) noexcept nogil:
    """Add (a + b) + (c + d) to one lane of each column."""
    cdef Py_ssize_t i
    cdef double quad, total, part
    for i in range(width):
        quad = (a[i] + b[i]) + (c[i] + d[i])
        if real is float:
            high[i] += quad
        else:  # Knuth's TwoSum
            total = high[i] + quad
            part = total - high[i]
            low[i] += (high[i] - (total - part)) + (quad - part)
            high[i] = total


cdef inline const real *plane(
    const real *e, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t width, const real *zeros
) noexcept nogil:
    """Return element i of each column of a step, 0 behind its end."""
    return e + i * width if i < rows else zeros


cdef inline void add_step_of_columns(
    const real *e, Py_ssize_t rows, Py_ssize_t width, const real *zeros, double *high, double *low
) noexcept nogil:
    """Add a step of `rows` <= STEP elements of each column to its lanes."""
    cdef Py_ssize_t l
    for l in range(min(LANES, rows)):
        add_planes(
            e + l * width,
            plane(e, l + 8, rows, width, zeros),
            plane(e, l + 16, rows, width, zeros),
            plane(e, l + 24, rows, width, zeros),
            width, <written64>(high + l * width), <written64>(low + l * width),
        )


cdef inline void close_columns(
    Pair *s, double *a, double *low, Py_ssize_t width, real like
) noexcept nogil:
    """Add the lanes of a block to the sum of each column, and clear them."""
    cdef Py_ssize_t c, l, w = width
    for c in range(w):
        if real is float:
            two_sum(
                s + c,
                ((a[c] + a[4 * w + c]) + (a[2 * w + c] + a[6 * w + c]))
                + ((a[w + c] + a[5 * w + c]) + (a[3 * w + c] + a[7 * w + c])),
            )
        else:
            for l in range(LANES):
                two_sum(s + c, a[l * w + c])
                s[c].low += low[l * w + c]
    for c in range(LANES * w):
        a[c] = 0
    if real is double:
        for c in range(LANES * w):
            low[c] = 0


cdef inline void put_scaled(
    const real *e, Py_ssize_t width, written y, Py_ssize_t stride, Py_ssize_t n,
    Py_ssize_t columns, const real *high, const real *low,
) noexcept nogil:
    """y = e * (high + low), rounded once (nearly)"""
    cdef Py_ssize_t whole = columns // VECTOR * VECTOR
    cdef Py_ssize_t i, c, l
    cdef const real *p
    cdef written o
    for i in range(n):
        p = e + i * width
        o = y + i * stride
        for c from 0 <= c < whole by VECTOR:
            prefetch(<real *>o + AHEAD * stride + c)
            for l in range(VECTOR):
                o[c + l] = fma(p[c + l], high[c + l], p[c + l] * low[c + l])
        for c in range(whole, columns):
            o[c] = fma(p[c], high[c], p[c] * low[c])


cdef inline void put_differences(
    const real *x, Py_ssize_t width, written y, Py_ssize_t stride, Py_ssize_t n,
    Py_ssize_t columns, const real *highest, const real *inverse, const real *log_sum,
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum"""
    cdef Py_ssize_t i, c
    cdef const real *p
    cdef written o
    for i in range(n):
        p = x + i * width
        o = y + i * stride
        for c in range(columns):
            o[c] = (p[c] - highest[c]) * inverse[c] - log_sum[c]


cdef inline void put_logs(
    const real *x, Py_ssize_t width, real *y, Py_ssize_t n, Py_ssize_t columns,
    const real *highest, const double *logs,
) noexcept nogil:
    """y = highest + logs; columns without a finite maximum are looked at again."""
    cdef real inf = infinity(<real>0)
    cdef Py_ssize_t i, c
    for c in range(columns):
        if -inf < highest[c] < inf:
            y[c] = <real>(highest[c] + logs[c])
            continue
        y[c] = highest[c]
        for i in range(n):
            if x[i * width + c] != x[i * width + c]:
                y[c] = x[i * width + c]
                break
