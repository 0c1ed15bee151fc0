# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""From sums to results, for several rows or columns at once: reciprocals, logarithms, NaN."""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.exp_scale cimport RAISED, power_of_two, raised
from fastsoftmax._kernels.log1p cimport log1p_ratio
from fastsoftmax._kernels.sums cimport DoubleDouble
from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    bits32,
    bits64,
    fma,
    fma64,
    infinity,
    not_a_number,
    real,
)


cdef inline bint all_within(
    const real *v, Py_ssize_t n, real middle, real lowest, real highest
) noexcept nogil:
    """Return whether `lowest` <= abs(v - `middle`) <= `highest` for each of `n` numbers `v`.

    Positive numbers have the order of their bits. Of comparisons of floats gcc makes branches.
    """
    cdef Py_ssize_t r
    cdef uint32_t a, out32 = 0
    cdef uint64_t b, out64 = 0
    for r in range(n):
        if real is float:
            a = bits32(v[r] - middle) & 0x7FFFFFFF
            out32 |= (a - bits32(lowest)) | (bits32(highest) - a)
        else:
            b = bits64(v[r] - middle) & 0x7FFFFFFFFFFFFFFFULL
            out64 |= (b - bits64(lowest)) | (bits64(highest) - b)
    return out32 >> 31 == 0 and out64 >> 63 == 0


cdef inline bint all_finite(const real *v, Py_ssize_t n) noexcept nogil:
    """Return whether all of the `n` numbers `v` are finite."""
    if real is float:
        return all_within(v, n, <real>0, <real>0, <float>3.4028234663852886e+38)
    else:
        return all_within(v, n, <real>0, <real>0, <double>1.7976931348623157e+308)


cdef inline bint any_infinite(const real *v, Py_ssize_t n) noexcept nogil:
    """Return whether one of the `n` numbers `v` is infinite."""
    cdef Py_ssize_t r
    cdef uint32_t any32 = 0
    cdef uint64_t any64 = 0
    for r in range(n):
        if real is float:
            any32 |= bits32(v[r]) << 1 == <uint32_t>0xFF000000
        else:
            any64 |= bits64(v[r]) << 1 == 0xFFE0000000000000ULL
    return any32 != 0 or any64 != 0


# ---- reciprocals ---------------------------------------------------------------------------------


cdef inline void reciprocal(double s, double rest, real *high, real *low) noexcept nogil:
    """Write `raised` / (s + rest) as the pair `high`, `low`; NaN where the sum is infinite.

    For float32 the division is one of float32, of which a CPU does two to four in the time of one
    of float64; `low` is what it leaves, by 2**-47 of `high`.
    """
    cdef double total = s + rest
    cdef double ratio
    cdef float inverse, above, below, left
    if real is float and HAS_FMA:
        above = <float>total
        below = <float>(total - above)
        inverse = raised(<float>0) / above
        left = fma(-inverse, below, fma(-inverse, above, raised(<float>0)))
        high[0] = fma(<float>0, above, inverse)
        low[0] = left * power_of_two(-RAISED, <float>0) * inverse
        return
    # The sum of 0 and the quotient is one addition less than with 0 * total.
    ratio = fma64(0, total, raised(<real>0) / total)
    high[0] = <real>ratio
    if HAS_FMA:
        low[0] = (fma(-high[0], total, 1.0) - high[0] * (rest - (total - s))) * high[0]
    else:
        low[0] = 0  # the second rounding would cost the order


cdef inline void reciprocals(
    const DoubleDouble *s, Py_ssize_t rows, real *high, real *low
) noexcept nogil:
    """Write `raised` / s of each row as the pair `high`, `low`; NaN where `s` is infinite."""
    cdef Py_ssize_t r
    for r in range(rows):
        reciprocal(s[r].high, s[r].low, high + r, low + r)


# ---- logarithms ----------------------------------------------------------------------------------


cdef inline void log1p_sums(
    DoubleDouble *s, const real *max_e, Py_ssize_t rows, double *logs
) noexcept nogil:
    """Write log1p(s / max_e) of each row, `max_e` the exponential of its maximum, into `logs`."""
    cdef Py_ssize_t r
    for r in range(rows):
        logs[r] = log1p_ratio(s[r].high + s[r].low, max_e[r])


cdef inline bint pivot_kept_precision(const double *logs, Py_ssize_t rows) noexcept nogil:
    """Return whether the `logs` of all rows are so large that no K shows in them; False for NaN.

    What any K leaves out is less than 2**-140 of the largest entry, so 2**-80 of the others.
    """
    return all_within(logs, rows, <double>0, 2.0**-60, infinity(<double>0))


cdef inline real logsumexp_of(real highest, double log_sum) noexcept nogil:
    """Return `highest` + `log_sum`, or the one NaN of results."""
    return <real>(highest + log_sum) if log_sum == log_sum else not_a_number(highest)


cdef inline real nan_if_any(real v, const real *x, Py_ssize_t n, Py_ssize_t stride) noexcept nogil:
    """Return NaN if one of `n` elements of `x`, `stride` apart, is NaN; else `v`."""
    cdef Py_ssize_t j
    for j in range(n):
        if x[j * stride] != x[j * stride]:
            return not_a_number(v)
    return v


cdef inline void write_logsumexp(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t spacing, Py_ssize_t stride,
    const real *highest, const double *logs,
) noexcept nogil:
    """Write `highest` + `logs` of each row into `y`; its NaN, or `highest`, if that is not finite.

    A row, or column, of `x` has `n` elements, `stride` apart; the next one begins at `spacing`.
    """
    cdef Py_ssize_t r
    for r in range(rows):
        if -infinity(<real>0) < highest[r] < infinity(<real>0):
            y[r] = logsumexp_of(highest[r], logs[r])
        else:
            y[r] = nan_if_any(highest[r], x + r * spacing, n, stride)


# ---- rows of NaN ---------------------------------------------------------------------------------


cdef inline void propagate_nan(
    const real *reciprocal_or_log, real *y, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t spacing,
    Py_ssize_t stride,
) noexcept nogil:
    """Make those rows of `y` NaN whose reciprocal, or logarithm, is NaN.

    A row, or column, has `n` elements, `stride` apart; the next one begins at `spacing`.
    """
    cdef Py_ssize_t r, j
    if not all_within(reciprocal_or_log, rows, <real>0, <real>0, infinity(<real>0)):
        for r in range(rows):
            if reciprocal_or_log[r] != reciprocal_or_log[r]:
                for j in range(n):
                    y[r * spacing + j * stride] = not_a_number(<real>0)
