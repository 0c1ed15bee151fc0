# cython: language_level=3, cdivision=True
"""log1p for sums of exponentials, as straight-line code that loops make vector instructions of."""

from libc.stdint cimport uint64_t

from fastsoftmax._kernels.types cimport bits64, fma64, from_bits64, inlined_double, real


cdef inline inlined_double log1p_nonneg(double s) noexcept nogil:
    """Return ``log(1 + s)`` for s >= 0 or NaN, within 1 u (u = 2**-53).

    ``log(1 + s) = k ln 2 + log(m)``, m from sqrt(1/2) to sqrt(2), and what the rounding of 1 + s
    lost as a first-order term. ``log(1 + f) = f - (f*f/2 - t (f*f/2 + R(t**2)))`` with
    t = f / (2 + f); R: minimax, 0.02 u.

    Source: the form is that of K. C. Ng's log in FDLIBM (1993); coefficients by Remez exchange.
    """
    cdef double t, f, k, low
    t = log1p_arguments(s, &f, &k, &low)
    return log1p_series(t, f, k, low)


# Each half as a loop of its own is faster: fewer operations wait for the divisions.


cdef inline inlined_double log1p_arguments(
    double s, double *f, double *k, double *low
) noexcept nogil:
    """Return the t of `log1p_nonneg`, and write its f, its k as a number, and the lowest terms."""
    cdef double w = 1.0 + s
    cdef double lost = 1.0 - (w - s) if s >= 1.0 else s - (w - 1.0)
    cdef uint64_t b = bits64(w)
    cdef uint64_t n = (b - 0x3FE6A09E667F3BCDULL) >> 52  # w >= 1: nothing is negative
    f[0] = from_bits64(b - (n << 52)) - 1.0
    # A cast of 64 bits would keep a loop over this from becoming vector instructions.
    k[0] = from_bits64(n | 0x4330000000000000ULL) - 4503599627370496.0
    low[0] = k[0] * 2.8235290563031577e-13 + lost / w
    return f[0] / (2.0 + f[0])


cdef inline inlined_double log1p_series(double t, double f, double k, double low) noexcept nogil:
    """Return `log1p_nonneg` by what `log1p_arguments` gave."""
    cdef double z = t * t
    cdef double h = 0.5 * f * f
    cdef double p = fma64(0.14797465750741423, z, 0.15313907169147561)
    p = fma64(p, z, 0.1818356959787981)
    p = fma64(p, z, 0.2222219847848389)
    p = fma64(p, z, 0.28571428743240684)
    p = fma64(p, z, 0.3999999999941118)
    p = fma64(p, z, 0.6666666666666735) * z
    # ln 2 in two parts: k times the first is exact
    return k * 0.693147180559663 + (f - (h - (t * (h + p) + low)))


cdef inline inlined_double log1p_ratio(double s, real e) noexcept nogil:
    """Return ``log(1 + s / e)`` for s >= 0 or NaN and a normal e > 0.

    For float64 it is `log1p_nonneg` of the quotient. Results of float32 rows are rounded to 29 bits
    less, and need no more than 4 u (u = 2**-53): one division serves.
    """
    cdef double t, n
    if real is double:
        return log1p_nonneg(s / e)
    else:
        t = log1p_ratio_arguments(s, e, &n)
        return log1p_ratio_series(t, n)


cdef inline inlined_double log1p_ratio_arguments(double s, float e, double *n) noexcept nogil:
    """Write n, and return the t of ``log(1 + s / e) = n ln 2 + 2 atanh(t)``.

    ``t = (s + e - 2**n e) / (s + e + 2**n e)``, whose numerator is s for n = 0.
    """
    cdef double total = s + e
    # Of the bits of positive numbers the difference is nearly that of their logarithms.
    cdef uint64_t k = (bits64(total) - bits64(<double>e) + 0x0008000000000000ULL) >> 52
    cdef double power = from_bits64(bits64(<double>e) + (k << 52))
    n[0] = from_bits64(k | 0x4330000000000000ULL) - 4503599627370496.0
    return (s - (power - e)) / (total + power)


cdef inline inlined_double log1p_ratio_series(double t, double n) noexcept nogil:
    """Return ``n ln 2 + 2 atanh(t)``."""
    cdef double z = t * t
    cdef double p = fma64(0.14797465750741423, z, 0.15313907169147561)
    p = fma64(p, z, 0.1818356959787981)
    p = fma64(p, z, 0.2222219847848389)
    p = fma64(p, z, 0.28571428743240684)
    p = fma64(p, z, 0.3999999999941118)
    p = fma64(p, z, 0.6666666666666735) * z
    return fma64(n, 0.6931471805599453, fma64(t, p, t + t))
