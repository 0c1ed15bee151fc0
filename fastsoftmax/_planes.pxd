# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The phases of softmax over a group of rows of fewer than SHORTEST elements, which lie across.

Plane j holds element j of each row; the lanes of a vector are rows. ``_groups.pxd`` has the phases
of longer rows, and the reason for groups. The order of sums is that of ``_rows.pxd``. The distance
of planes is a constant, without which the compiler would check them for overlap.
"""

from fastsoftmax._groups cimport LANES, ROWS, larger
from fastsoftmax._math cimport fma, infinity, real, written
from fastsoftmax._rows cimport (
    CENTRE,
    HIGH,
    INVERSE,
    LOW,
    MAGIC,
    Pair,
    power,
    scaling,
    two_sum,
)


cdef inline void to_planes(
    const real *x, Py_ssize_t rows, Py_ssize_t n, written planes, written highest
) noexcept nogil:
    """planes[j] = element j of each row, for rows of n < SHORTEST; and the largest of each."""
    cdef Py_ssize_t r, j
    for r in range(rows):
        highest[r] = -infinity(<real>0)
    for j from 0 <= j <= n - 4 by 4:
        gather(x + j, n, rows, 4, planes + j * ROWS, highest)
    j = n // 4 * 4
    if n == 1:  # a literal distance of rows too
        gather(x, 1, rows, 1, planes, highest)
    elif n == 2:
        gather(x, 2, rows, 2, planes, highest)
    elif n == 3:
        gather(x, 3, rows, 3, planes, highest)
    elif n - j == 1:
        gather(x + j, n, rows, 1, planes + j * ROWS, highest)
    elif n - j == 2:
        gather(x + j, n, rows, 2, planes + j * ROWS, highest)
    elif n - j == 3:
        gather(x + j, n, rows, 3, planes + j * ROWS, highest)


cdef inline void gather(
    const real *x, Py_ssize_t n, Py_ssize_t rows, int columns, written planes, written highest
) noexcept nogil:
    """Copy some columns; their number is a literal: four together cost half of four alone."""
    cdef Py_ssize_t r
    cdef int j
    cdef real h
    for r in range(rows):
        h = highest[r]
        for j in range(columns):
            h = larger(x[r * n + j], h)
            planes[j * ROWS + r] = x[r * n + j]
        highest[r] = h


cdef inline void scatter(
    const real *planes, written y, Py_ssize_t n, Py_ssize_t rows, int columns
) noexcept nogil:
    """Copy some columns back."""
    cdef Py_ssize_t r
    cdef int j
    for r in range(rows):
        for j in range(columns):
            y[r * n + j] = planes[j * ROWS + r]


cdef inline void from_planes(
    const real *planes, written y, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Element j of each row of y = planes[j]"""
    cdef Py_ssize_t j
    for j from 0 <= j <= n - 4 by 4:
        scatter(planes + j * ROWS, y + j, n, rows, 4)
    j = n // 4 * 4
    if n == 1:
        scatter(planes, y, 1, rows, 1)
    elif n == 2:
        scatter(planes, y, 2, rows, 2)
    elif n == 3:
        scatter(planes, y, 3, rows, 3)
    elif n - j == 1:
        scatter(planes + j * ROWS, y + j, n, rows, 1)
    elif n - j == 2:
        scatter(planes + j * ROWS, y + j, n, rows, 2)
    elif n - j == 3:
        scatter(planes + j * ROWS, y + j, n, rows, 3)


cdef inline void plane_exponentials(
    const real *planes,
    written e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *how,
    scaling kind,
) noexcept nogil:
    """e = the exponentials of each plane"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(rows):
            e[j * ROWS + r] = power(
                planes[j * ROWS + r], how[CENTRE * ROWS + r], how[INVERSE * ROWS + r],
                how[LOW * ROWS + r], how[HIGH * ROWS + r], how[MAGIC * ROWS + r], kind,
            )


cdef inline void drop_largest_plane(
    const real *planes, written e, Py_ssize_t rows, Py_ssize_t n, const real *highest
) noexcept nogil:
    """Take the first largest element of each row out of e."""
    cdef bint found[ROWS]
    cdef bint hit
    cdef Py_ssize_t r, j
    for r in range(rows):
        found[r] = highest[r] == infinity(<real>0)  # +inf stays in the sum and makes it NaN
    for j in range(n):
        for r in range(rows):
            hit = planes[j * ROWS + r] == highest[r] and not found[r]
            e[j * ROWS + r] = 0 if hit else e[j * ROWS + r]
            found[r] |= hit


cdef inline void plane_sums(
    const real *e, real *quads, Py_ssize_t rows, Py_ssize_t n, Pair *s
) noexcept nogil:
    """Write the sum over the planes, 0 from n on; `quads` is scratch for LANES of them."""
    cdef Py_ssize_t r, l
    cdef const real *t = e
    if n > LANES:
        for l in range(LANES):
            for r in range(rows):
                quads[l * ROWS + r] = e[l * ROWS + r] + e[(LANES + l) * ROWS + r]
        t = quads
    for r in range(rows):
        if real is float:
            s[r].high = (
                (<double>t[r] + <double>t[4 * ROWS + r])
                + (<double>t[2 * ROWS + r] + <double>t[6 * ROWS + r])
            ) + (
                (<double>t[ROWS + r] + <double>t[5 * ROWS + r])
                + (<double>t[3 * ROWS + r] + <double>t[7 * ROWS + r])
            )
        else:
            for l in range(LANES):
                two_sum(s + r, t[l * ROWS + r])


cdef inline void scale_planes(
    written e, Py_ssize_t rows, Py_ssize_t n, const real *high, const real *low
) noexcept nogil:
    """e = e * (high + low), rounded once (nearly)"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(rows):
            e[j * ROWS + r] = fma(e[j * ROWS + r], high[r], e[j * ROWS + r] * low[r])


cdef inline void plane_differences(
    written planes,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """plane = (plane - highest) * inverse - log_sum"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(rows):
            planes[j * ROWS + r] = (planes[j * ROWS + r] - highest[r]) * inverse[r] - log_sum[r]
