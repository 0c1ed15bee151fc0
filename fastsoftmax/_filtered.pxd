# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Filtered logits: a row divided by its temperature, -inf where the filters remove."""

from libc.math cimport NAN
from libc.string cimport memcpy

from fastsoftmax._exponents cimport inverse_of
from fastsoftmax._kernels cimport Filters
from fastsoftmax._math cimport infinity, real
from fastsoftmax._nuclei cimport Nucleus
from fastsoftmax._partial cimport SIZE, Work, pick
from fastsoftmax._rows cimport BLOCK
from fastsoftmax._survivors cimport filtering, highest_of, survivors

cdef inline void scale_block(
    const real *x, real *y, Py_ssize_t n, double inverse
) noexcept nogil:
    """y = x * inverse, held at the largest finite number; -inf stays. They don't overlap."""
    cdef real most = (
        <real>3.4028234663852886e+38 if real is float else <real>1.7976931348623157e+308
    )
    cdef real z
    cdef Py_ssize_t j
    if inverse == 1:
        memcpy(y, x, n * sizeof(real))
        return
    for j in range(n):
        z = <real>(x[j] * inverse)
        z = z if z < most else most
        z = z if z > -most else -most
        y[j] = z if x[j] > -infinity(<real>0) else x[j]


cdef inline void scale_all(const real *x, real *y, Py_ssize_t n, double inverse) noexcept nogil:
    """The same; y is x or does not overlap it."""
    cdef real part[BLOCK]
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        scale_block(x + start, part, m, inverse)
        memcpy(y + start, part, m * sizeof(real))


cdef inline void select(
    const real *x, const real *scaled, real *y, Py_ssize_t n, real last
) noexcept nogil:
    """y = scaled where x is above `last`, else -inf; y overlaps neither."""
    cdef real z
    cdef Py_ssize_t j
    for j in range(n):
        z = scaled[j]
        y[j] = z if x[j] > last else -infinity(<real>0)


cdef inline void write_survivors(
    const real *x, real *y, Py_ssize_t n, double inverse, const Nucleus *left
) noexcept nogil:
    """y = x * inverse where x survives, else -inf; y is x or does not overlap it."""
    cdef real scaled[BLOCK]
    cdef real part[BLOCK]
    cdef real last = <real>left.last
    cdef Py_ssize_t start, j, m, ties = left.ties
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        scale_block(x + start, scaled, m, inverse)
        select(x + start, <const real *>scaled, part, m, last)
        if ties > 0:
            for j in range(m):
                if x[start + j] == last and ties > 0:
                    part[j] = scaled[j]
                    ties -= 1
        memcpy(y + start, part, m * sizeof(real))


cdef inline Py_ssize_t tied(const real *x, Py_ssize_t n, Py_ssize_t k, Work *work) noexcept nogil:
    """Return how many elements are at least the k-th."""
    cdef real *value = <real *>work.value
    cdef real t
    cdef Py_ssize_t i, m = 0
    pick(x, n, k, <real *>work.maxima, True, work)
    t = value[0]
    for i in range(k):
        t = min(t, value[i])
    for i in range(n):
        m += x[i] >= t
    return m


cdef inline void filter_row(
    const real *x, real *y, Py_ssize_t n, Filters f, bint every_tie, Work *work
) noexcept nogil:
    """y = x / T, -inf where the filters remove; y is x or does not overlap it."""
    cdef double highest = highest_of(x, n, SIZE, <real *>work.maxima)
    cdef double inverse = inverse_of(f.temperature, <double>0) if f.temperature > 0 else 0
    cdef real *value = <real *>work.value
    cdef Nucleus left
    cdef Py_ssize_t i, count
    if highest != highest:
        for i in range(n):
            y[i] = NAN
        return
    if f.temperature > 0 and not filtering(&f, n):
        scale_all(x, y, n, inverse)
        return
    if every_tie and 0 < f.top_k < n and f.temperature > 0:
        f.top_k = tied(x, n, min(n, max(f.top_k, f.min_keep)), work)
    count = survivors(x, n, highest, 0, &f, work, &left)
    if count < 0:
        write_survivors(x, y, n, inverse, &left)
        return
    scale_all(<const real *>value, value, count, inverse)
    if f.temperature == 0:
        value[0] = 0  # never -0
    for i in range(n):
        y[i] = -infinity(<real>0)
    for i in range(count):
        y[work.index[i]] = value[i]
