# cython: language_level=3, cdivision=True
"""Exponential and Gumbel numbers of random words: in plain +, -, * and / of a fixed order, so that
every machine, and NumPy, gives the same bits."""

from libc.stdint cimport uint64_t

from fastsoftmax._kernels.types cimport bits64, from_bits64, inlined_double


cdef inline inlined_double log_of_parts(double f, double k) noexcept nogil:
    """Return ``k ln 2 + log(1 + f)``, f from sqrt(1/2) - 1 to sqrt(2) - 1, within 1.5 u (2**-53).

    For k = 0 the error is relative to f, however small that is. The series is that of `log1p`.
    """
    cdef double t = f / (2.0 + f)
    cdef double z = t * t
    cdef double h = 0.5 * f * f
    cdef double p = 0.14797465750741423 * z + 0.15313907169147561
    p = p * z + 0.1818356959787981
    p = p * z + 0.2222219847848389
    p = p * z + 0.28571428743240684
    p = p * z + 0.3999999999941118
    p = (p * z + 0.6666666666666735) * z
    # ln 2 in two parts: k times the first is exact
    return k * 0.693147180559663 + (f - (h - (t * (h + p) + k * 2.8235290563031577e-13)))


cdef inline inlined_double parts_of(double y, double *k) noexcept nogil:
    """Return m and write k, y = m * 2**k, m from sqrt(1/2) to sqrt(2), of a normal y > 0."""
    # 1023 too many, so that nothing is negative: a shift of signed words is no vector instruction.
    cdef uint64_t n = (bits64(y) + 0x00095F619980C433ULL) >> 52
    k[0] = from_bits64(n | 0x4330000000000000ULL) - 4503599627371519.0
    return from_bits64(bits64(y) - (n << 52) + 0x3FF0000000000000ULL)


cdef inline inlined_double middle_of(uint64_t word) noexcept nogil:
    """Return ``(word + 1/2) / 2**64``, rounded once."""
    cdef double high = from_bits64(word >> 32 | 0x4330000000000000ULL) - 4503599627370496.0
    cdef double low = from_bits64(word & 0xFFFFFFFFULL | 0x4330000000000000ULL) - 4503599627370496.0
    return (high * 4294967296.0 + (low + 0.5)) * 5.421010862427522e-20


cdef inline inlined_double exponential_of(uint64_t word) noexcept nogil:
    """Return ``-log(u)`` of ``u = (word + 1/2) / 2**64``: from 2**-65 to 45.1, within 3 u.

    Near u = 1 it is made of 1 - u, all of whose bits count.
    """
    cdef double k
    cdef double f = parts_of(middle_of(word), &k) - 1.0
    f = -middle_of(~word) if k == 0.0 else f
    return -log_of_parts(f, k)


cdef inline inlined_double gumbel_of(double exponential) noexcept nogil:
    """Return ``-log(exponential)``."""
    cdef double k
    cdef double m = parts_of(exponential, &k)
    return -log_of_parts(m - 1.0, k)


cdef inline inlined_double exponential_below(uint64_t word) noexcept nogil:
    """Return somewhat less than `exponential_of` a word, for less: -log(u) is at least 1 - u."""
    return from_bits64(~word >> 12 | 0x3FF0000000000000ULL) - 1.0


cdef inline inlined_double gumbel_above(double exponential) noexcept nogil:
    """Return somewhat more than `gumbel_of` a number, for less.

    A number's logarithm to base 2 is at least what its bits are, taken as a number.
    """
    cdef double log2 = from_bits64(bits64(exponential) >> 12 | 0x4330000000000000ULL)
    return (1023.0000001 - (log2 - 4503599627370496.0) * 2.0**-40) * 0.6931471805599454
