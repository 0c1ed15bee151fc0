# cython: language_level=3, cdivision=True
"""exp, log1p and the casts they need: one scalar source, vectorised by the compiler.

Every function is straight-line code, so that a loop over it becomes vector instructions, and made
of IEEE operations with explicit fused multiply-adds only, so that every vector width gives the same
bits. Where there is no fused multiply-add (x86-64 without AVX2) ``fma`` is a multiply and an add.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

ctypedef fused real:
    float
    double

# A row that a loop writes and reaches by no other name: without the promise the compiler would
# check for overlap at each step, or give up.
cdef extern from *:
    ctypedef float *out_ptr32 "float *__restrict"
    ctypedef double *out_ptr64 "double *__restrict"

ctypedef fused out_ptr:
    out_ptr32
    out_ptr64

# What a function returns that is not to be built into others, nor to be built twice: the larger a
# function, the more of its loops stay scalar.
cdef extern from *:
    """
    #ifdef __clang__
    #define FS_SEPARATE __attribute__((noinline)) void
    #else
    #define FS_SEPARATE __attribute__((noinline, noclone)) void
    #endif
    """
    ctypedef void noinline_void "FS_SEPARATE"

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__FMA__) || defined(__aarch64__)
    #define FS_HAS_FMA 1
    #define fs_fma32(a, b, c) __builtin_fmaf(a, b, c)
    #define fs_fma64(a, b, c) __builtin_fma(a, b, c)
    #else
    #define FS_HAS_FMA 0
    #define fs_fma32(a, b, c) ((a) * (b) + (c))
    #define fs_fma64(a, b, c) ((a) * (b) + (c))
    #endif
    static inline uint32_t fs_bits32(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
    static inline uint64_t fs_bits64(double x) { uint64_t b; memcpy(&b, &x, 8); return b; }
    static inline float fs_float(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
    static inline double fs_double(uint64_t b) { double x; memcpy(&x, &b, 8); return x; }
    /* gcc makes the clamp of exp_neg one max instruction only if it does not know the bound. */
    static inline float fs_lowest32(void) { static const volatile float d = -88.0f; return d; }
    static inline double fs_lowest64(void) { static const volatile double d = -709.0; return d; }
    """
    const bint HAS_FMA "FS_HAS_FMA"
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil
    int lowest_bit "__builtin_ctz"(uint32_t mask) noexcept nogil
    float fma32 "fs_fma32"(float a, float b, float c) noexcept nogil
    double fma64 "fs_fma64"(double a, double b, double c) noexcept nogil
    uint32_t bits32 "fs_bits32"(float x) noexcept nogil
    uint64_t bits64 "fs_bits64"(double x) noexcept nogil
    float from_bits32 "fs_float"(uint32_t b) noexcept nogil
    double from_bits64 "fs_double"(uint64_t b) noexcept nogil
    float exp_underflow_bound32 "fs_lowest32"() noexcept nogil
    double exp_underflow_bound64 "fs_lowest64"() noexcept nogil


cdef inline real infinity(real like) noexcept nogil:
    """Return +inf of the argument's type."""
    if real is float:
        return from_bits32(0x7F800000)
    else:
        return from_bits64(0x7FF0000000000000ULL)


cdef inline real not_a_number(real like) noexcept nogil:
    """Return the NaN of all results: which one comes out of several is the compiler's choice."""
    if real is float:
        return from_bits32(0x7FC00000)
    else:
        return from_bits64(0x7FF8000000000000ULL)


cdef inline real exp_underflow_bound(real like) noexcept nogil:
    """Return a difference whose `exp_nonpositive` is +0, as a number the compiler does not know."""
    if real is float:
        return exp_underflow_bound32()
    else:
        return exp_underflow_bound64()


cdef inline real fma(real a, real b, real c) noexcept nogil:
    """Return ``a * b + c``, rounded once where the instruction set can."""
    if real is float:
        return fma32(a, b, c)
    else:
        return fma64(a, b, c)


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


cdef inline double log1p_nonneg(double s) noexcept nogil:
    """Return ``log(1 + s)`` for s >= 0 or NaN, within 1 u (u = 2**-53).

    ``log(1 + s) = k ln 2 + log(m)``, m from sqrt(1/2) to sqrt(2), and what the rounding of 1 + s
    lost as a first-order term. ``log(1 + f) = f - (f*f/2 - t (f*f/2 + R(t**2)))`` with
    t = f / (2 + f); R: minimax, 0.02 u.

    Source: the form is that of K. C. Ng's log in FDLIBM (1993); coefficients by Remez exchange.
    """
    cdef double w = 1.0 + s
    cdef double lost = 1.0 - (w - s) if s >= 1.0 else s - (w - 1.0)
    cdef uint64_t b = bits64(w)
    cdef uint64_t k = (b - 0x3FE6A09E667F3BCDULL) >> 52  # w >= 1: nothing is negative
    cdef double f = from_bits64(b - (k << 52)) - 1.0
    cdef double t = f / (2.0 + f)
    cdef double z = t * t
    cdef double h = 0.5 * f * f
    # A cast of 64 bits would keep a loop over this from becoming vector instructions.
    cdef double e = from_bits64(k | 0x4330000000000000ULL) - 4503599627370496.0
    cdef double p = fma64(0.14797465750741423, z, 0.15313907169147561)
    p = fma64(p, z, 0.1818356959787981)
    p = fma64(p, z, 0.2222219847848389)
    p = fma64(p, z, 0.28571428743240684)
    p = fma64(p, z, 0.3999999999941118)
    p = fma64(p, z, 0.6666666666666735) * z
    # ln 2 in two parts: k times the first is exact
    return e * 0.693147180559663 + (
        f - (h - (t * (h + p) + (e * 2.8235290563031577e-13 + lost / w)))
    )


cdef inline double log1p_ratio(double s, real e) noexcept nogil:
    """Return ``log(1 + s / e)`` for s >= 0 or NaN and a normal e > 0.

    For float64 it is `log1p_nonneg` of the quotient. Results of float32 rows are rounded to 29 bits
    less, and need no more than 4 u (u = 2**-53): one division serves, ``2 atanh(t)`` with
    ``t = (s + e - 2**k e) / (s + e + 2**k e)``, whose numerator is s for k = 0.
    """
    cdef double total, power, t, z, p, n
    cdef uint64_t k
    if real is double:
        return log1p_nonneg(s / e)
    else:
        total = s + e
        # Of the bits of positive numbers the difference is nearly that of their logarithms.
        k = (bits64(total) - bits64(<double>e) + 0x0008000000000000ULL) >> 52
        power = from_bits64(bits64(<double>e) + (k << 52))
        t = (s - (power - e)) / (total + power)
        z = t * t
        p = fma64(0.14797465750741423, z, 0.15313907169147561)
        p = fma64(p, z, 0.1818356959787981)
        p = fma64(p, z, 0.2222219847848389)
        p = fma64(p, z, 0.28571428743240684)
        p = fma64(p, z, 0.3999999999941118)
        p = fma64(p, z, 0.6666666666666735) * z
        n = from_bits64(k | 0x4330000000000000ULL) - 4503599627370496.0
        return fma64(n, 0.6931471805599453, fma64(t, p, t + t))
