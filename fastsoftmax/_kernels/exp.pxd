# cython: language_level=3, cdivision=True
"""exp: one scalar source, vectorised by the compiler.

Every function is straight-line code, so that a loop over it becomes vector instructions, and made
of IEEE operations with explicit fused multiply-adds only, so that every vector width gives the same
bits.
"""

from libc.stdint cimport int32_t, uint32_t

from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    bits32,
    bits64,
    fma32,
    fma64,
    from_bits32,
    from_bits64,
    real,
)

cdef extern from *:
    """
    /* gcc makes the clamp of exp_neg one max instruction only if it does not know the bound. */
    static inline float fs_lowest32(void) { static const volatile float d = -88.0f; return d; }
    static inline double fs_lowest64(void) { static const volatile double d = -709.0; return d; }
    """
    float exp_underflow_bound32 "fs_lowest32"() noexcept nogil
    double exp_underflow_bound64 "fs_lowest64"() noexcept nogil


cdef inline real exp_underflow_bound(real like) noexcept nogil:
    """Return a difference whose `exp_nonpositive` is +0, as a number the compiler does not know."""
    if real is float:
        return exp_underflow_bound32()
    else:
        return exp_underflow_bound64()


cdef inline real exp_nonpositive(real d, real low) noexcept nogil:
    """Return ``exp(d)`` for d <= 0 or NaN; `low` is ``exp_underflow_bound()``, and what lies below it gives +0.

    Error and order are those of `exp_core`; results below the smallest normal number are 0.
    """
    if real is float:
        return exp_floored(d, low, <float>12583039.0)  # 1.5 * 2**23 + 127
    else:
        return exp_floored(d, low, <double>6755399441056767.0)  # 1.5 * 2**52 + 1023


cdef inline real exp_floored(real d, real low, real magic) noexcept nogil:
    """Return ``exp(d) / 2**K``, for the K and `low` that `set_range` has chosen: +0 below `low`."""
    # In this form NaN passes.
    return exp_core(low if low > d else d, <real>0, magic, <BaseE>0)


cdef inline real clamp(real d, real low, real high) noexcept nogil:
    """Return `d`, but `low` below that, and `high` above that; NaN stays, or becomes `high`."""
    cdef int32_t bits, most
    d = low if low > d else d
    if real is float:
        # Floats have the order of their bits, below a positive one. It takes other units of the
        # processor than the maximum and the multiplications.
        bits = <int32_t>bits32(d)
        most = <int32_t>bits32(high)
        return from_bits32(<uint32_t>(most if most < bits else bits))
    else:
        return high if high < d else d


cdef inline real exp_clamped(real d, real low, real high, real magic) noexcept nogil:
    """`exp_floored`, but not finite from `high` on, nor for NaN."""
    return exp_core(clamp(d, low, high), <real>0, magic, <BaseE>0)

# Whose power, as a type: two functions and a third that both call would be too deep for gcc, which
# leaves loops over them scalar.
ctypedef char BaseE
ctypedef short Base2
ctypedef fused base:
    BaseE
    Base2


cdef inline real exp_core(real d, real factor, real magic, base kind) noexcept nogil:
    """Return ``exp(d) / 2**K`` or ``2**(d * factor) / 2**K``, where 2**n / 2**K is normal.

    `magic` is that of `exp_nonpositive` minus K. K changes no bit but the exponent's. With u = 2**-24 for
    float32, 2**-53 for float64, at most 1.3 u for E, for float32 0.05 |d| u more; 1.6 u for Two
    (without fma, whose difference is rounded once, |d * factor| u more). Monotone over every
    float32, at any factor.

    It is ``2**n e**r`` with n = round(d / ln 2), r = d - n ln 2, or n = round(d * factor),
    r = (d * factor - n) ln 2. The bits of ``n + magic`` hold n - K plus the exponent's bias, so
    that a shift makes 2**(n - K) of them. r of E is exact, but for what ln 2 lacks: and that is the
    factor of a power of n, the same in all exponentials of a row but for 0.05 u a unit of their
    distance. ``e**r = 1 + (r + r**2 s(r))``: this order of the last operations is what keeps it
    monotone. s: minimax for (e**r - 1 - r) / r**2 on |r| <= ln(2) / 2, weighted for the relative
    error of e**r, which is 0.05 u.

    Source: M. Tang's table-free reduction as in Muller, "Elementary Functions" (3rd ed., 2016),
    chapter 6, https://doi.org/10.1007/978-1-4899-7983-4; coefficients by Remez exchange.
    """
    cdef float z, n, k, r, t, w
    cdef double zz, nn, kk, rr, tt, ww
    if real is float:
        if base is Base2:
            z = fma32(d, factor, magic)
            r = fma32(d, factor, magic - z) * <float>0.693147182464599609375
        else:
            z = fma32(d, <float>1.44269502162933349609375, magic)
            n = z - magic
            if HAS_FMA:
                r = fma32(n, <float>-0.693147182464599609375, d)
            else:  # ln 2 in two parts: n times the first is exact
                r = (d - n * <float>0.69317626953125) + n * <float>2.9088971132296138e-05
        k = from_bits32(bits32(z) << 23)
        t = r * r
        w = fma32(
            fma32(
                fma32(
                    <float>0.0013814577832818031,
                    t,
                    fma32(<float>0.008368726819753647, r, <float>0.04166838899254799),
                ),
                t,
                fma32(<float>0.1666652113199234, r, <float>0.4999999403953552),
            ),
            t,
            r,
        )
        return fma32(w, k, k)
    else:
        if base is Base2:
            zz = fma64(d, factor, magic)
            rr = fma64(d, factor, magic - zz) * 0.6931471805599453
        else:
            zz = fma64(d, 1.4426950408889634, magic)
            nn = zz - magic
            # ln 2 in two parts: n times the first is exact, with or without fma
            rr = fma64(nn, -0.6931471805601177, d)
            rr = fma64(nn, 1.7239444525614835e-13, rr)
        kk = from_bits64(bits64(zz) << 52)
        tt = rr * rr
        ww = fma64(fma64(2.5000025644168424e-08, rr, 2.763026867696925e-07), tt,
                   fma64(2.755758658417979e-06, rr, 2.4801493046741027e-05))
        ww = fma64(ww, tt, fma64(0.00019841269506239013, rr, 0.0013888888943675286))
        ww = fma64(ww, tt, fma64(0.008333333333494664, rr, 0.04166666666653001))
        ww = fma64(ww, tt, fma64(0.16666666666666413, rr, 0.5000000000000011))
        return fma64(fma64(ww, tt, rr), kk, kk)
