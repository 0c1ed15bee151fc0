# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Filtered logits: a row divided by its temperature, -inf where the filters remove."""

from libc.math cimport NAN
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport Filters
from fastsoftmax._kernels.block_select cimport CHUNK, Workspace, select_k
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.nucleus cimport Nucleus
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.truncation cimport apply_filters, has_filters, max_and_block_maxima
from fastsoftmax._kernels.types cimport infinity, real

cdef inline void divide_block_by_temperature(
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


cdef inline void divide_by_temperature(const real *x, real *y, Py_ssize_t n, double inverse) noexcept nogil:
    """The same; y is x or does not overlap it."""
    cdef real part[BLOCK]
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        divide_block_by_temperature(x + start, part, m, inverse)
        memcpy(y + start, part, m * sizeof(real))


cdef inline void select_above(
    const real *x, const real *scaled, real *y, Py_ssize_t n, real last
) noexcept nogil:
    """y = scaled where x is above `last`, else -inf; y overlaps neither."""
    cdef real z
    cdef Py_ssize_t j
    for j in range(n):
        z = scaled[j]
        y[j] = z if x[j] > last else -infinity(<real>0)


cdef inline void write_nucleus(
    const real *x, real *y, Py_ssize_t n, double inverse, const Nucleus *left
) noexcept nogil:
    """y = x * inverse where x survives, else -inf; y is x or does not overlap it."""
    cdef real scaled[BLOCK]
    cdef real part[BLOCK]
    cdef real last = <real>left.threshold
    cdef Py_ssize_t start, j, m, ties = left.ties
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        divide_block_by_temperature(x + start, scaled, m, inverse)
        select_above(x + start, <const real *>scaled, part, m, last)
        if ties > 0:
            for j in range(m):
                if x[start + j] == last and ties > 0:
                    part[j] = scaled[j]
                    ties -= 1
        memcpy(y + start, part, m * sizeof(real))


cdef inline Py_ssize_t count_with_ties(const real *x, Py_ssize_t n, Py_ssize_t k, Workspace *work) noexcept nogil:
    """Return how many elements are at least the k-th."""
    cdef real *value = <real *>work.value
    cdef real t
    cdef Py_ssize_t i, m = 0
    select_k(x, n, k, <real *>work.maxima, True, work)
    t = value[0]
    for i in range(k):
        t = min(t, value[i])
    for i in range(n):
        m += x[i] >= t
    return m


cdef inline void filter_row(
    const real *x, real *y, Py_ssize_t n, Filters f, bint every_tie, Workspace *work
) noexcept nogil:
    """y = x / T, -inf where the filters remove; y is x or does not overlap it."""
    cdef double highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima)
    cdef double inverse = inverse_temperature(f.temperature, <double>0) if f.temperature > 0 else 0
    cdef real *value = <real *>work.value
    cdef Nucleus left
    cdef Py_ssize_t i, count
    if highest != highest:
        for i in range(n):
            y[i] = NAN
        return
    if f.temperature > 0 and not has_filters(&f, n):
        divide_by_temperature(x, y, n, inverse)
        return
    if every_tie and 0 < f.top_k < n and f.temperature > 0:
        f.top_k = count_with_ties(x, n, min(n, max(f.top_k, f.min_keep)), work)
    count = apply_filters(x, n, highest, 0, &f, work, &left)
    if count < 0:
        write_nucleus(x, y, n, inverse, &left)
        return
    divide_by_temperature(<const real *>value, value, count, inverse)
    if f.temperature == 0:
        value[0] = 0  # never -0
    for i in range(n):
        y[i] = -infinity(<real>0)
    for i in range(count):
        y[work.index[i]] = value[i]
