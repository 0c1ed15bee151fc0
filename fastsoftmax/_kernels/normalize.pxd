# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is made of sums, for several rows or columns at once: reciprocals, logarithms, NaN."""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.exp cimport (
    HAS_FMA,
    bits32,
    bits64,
    fma,
    infinity,
    log1p_ratio,
    not_a_number,
    real,
)
from fastsoftmax._kernels.row cimport DoubleDouble


cdef inline bint all_within(
    const real *v, Py_ssize_t n, real middle, real least, real most
) noexcept nogil:
    """Tell whether the distance from `middle` is `least` to `most` for each of n numbers.

    Positive numbers have the order of their bits. Of comparisons of floats gcc makes branches.
    """
    cdef Py_ssize_t r
    cdef uint32_t a, out32 = 0
    cdef uint64_t b, out64 = 0
    for r in range(n):
        if real is float:
            a = bits32(v[r] - middle) & 0x7FFFFFFF
            out32 |= (a - bits32(least)) | (bits32(most) - a)
        else:
            b = bits64(v[r] - middle) & 0x7FFFFFFFFFFFFFFFULL
            out64 |= (b - bits64(least)) | (bits64(most) - b)
    return out32 >> 31 == 0 and out64 >> 63 == 0


cdef inline bint all_finite(const real *v, Py_ssize_t n) noexcept nogil:
    """Tell whether all of n numbers are."""
    if real is float:
        return all_within(v, n, <real>0, <real>0, <float>3.4028234663852886e+38)
    else:
        return all_within(v, n, <real>0, <real>0, <double>1.7976931348623157e+308)


# ---- reciprocals ---------------------------------------------------------------------------------


cdef inline void reciprocal(double s, double rest, real *high, real *low) noexcept nogil:
    """high + low = 1 / (s + rest), NaN if that is infinite"""
    cdef double total = s + rest
    cdef double ratio = 1 / total + 0 * total
    high[0] = <real>ratio
    if not HAS_FMA:
        low[0] = 0  # the second rounding would cost the order
    elif real is float:
        low[0] = <float>(ratio - high[0])
    else:
        low[0] = (fma(-high[0], total, 1.0) - high[0] * (rest - (total - s))) * high[0]


cdef inline void reciprocals(const DoubleDouble *s, Py_ssize_t rows, real *high, real *low) noexcept nogil:
    """high + low = 1 / s, NaN if s is infinite"""
    cdef Py_ssize_t r
    for r in range(rows):
        reciprocal(s[r].high, s[r].low, high + r, low + r)


# ---- logarithms ----------------------------------------------------------------------------------


cdef inline void log1p_sums(DoubleDouble *s, const real *max_e, Py_ssize_t rows, double *logs) noexcept nogil:
    """logs = log1p(s / own)"""
    cdef Py_ssize_t r
    for r in range(rows):
        logs[r] = log1p_ratio(s[r].high + s[r].low, max_e[r])


cdef inline bint pivot_kept_precision(const double *logs, Py_ssize_t rows) noexcept nogil:
    """Tell whether what the largest entries leave is so much that K does not show in `logs`.

    What any K leaves out is less than 2**-140 of the largest entry. Not so, too, if one is NaN.
    """
    return all_within(logs, rows, <double>0, 2.0**-40, infinity(<double>0))


cdef inline real logsumexp_of(real highest, double log_sum) noexcept nogil:
    """Return their sum."""
    return <real>(highest + log_sum) if log_sum == log_sum else not_a_number(highest)


cdef inline real nan_if_any(real v, const real *x, Py_ssize_t n, Py_ssize_t stride) noexcept nogil:
    """Return NaN if there is one among n elements that are `stride` apart, else `v`."""
    cdef Py_ssize_t j
    for j in range(n):
        if x[j * stride] != x[j * stride]:
            return not_a_number(v)
    return v


cdef inline void write_logsumexp(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t spacing, Py_ssize_t stride,
    const real *highest, const double *logs,
) noexcept nogil:
    """y = highest + logs; of rows (or columns) without a finite maximum their NaN or that."""
    cdef Py_ssize_t r
    for r in range(rows):
        if -infinity(<real>0) < highest[r] < infinity(<real>0):
            y[r] = logsumexp_of(highest[r], logs[r])
        else:
            y[r] = nan_if_any(highest[r], x + r * spacing, n, stride)


# ---- rows of NaN ---------------------------------------------------------------------------------


cdef inline void propagate_nan(
    const real *reciprocal_or_log, real *y, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t spacing, Py_ssize_t stride
) noexcept nogil:
    """Make rows NaN whose factor, or logarithm, is: n elements, `stride` apart."""
    cdef Py_ssize_t r, j
    if not all_within(reciprocal_or_log, rows, <real>0, <real>0, infinity(<real>0)):
        for r in range(rows):
            if reciprocal_or_log[r] != reciprocal_or_log[r]:
                for j in range(n):
                    y[r * spacing + j * stride] = not_a_number(<real>0)
