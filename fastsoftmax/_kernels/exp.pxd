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

# The constants of `exp_core`. MAGIC: added to n, it rounds n to an integer, and its last bits are
# n plus the exponent's bias. S: the minimax polynomial of (e**r - 1 - r) / r**2 on
# |r| <= ln(2) / 2, by Remez exchange, weighted for the relative error of e**r, which is 0.05 u.
# P: that of (2**(2 q) - 1 - c q) / (c q**2) on |q| <= 1/4, c = 2 ln(2): 0.05 u, float64 0.04 u.
cdef extern from *:
    """
    #define FS_MAGIC32 12583039.0f                      /* 1.5 * 2**23 + 127 */
    #define FS_LOG2E32 1.44269502162933349609375f       /* log2(e) - 1.9e-8 */
    #define FS_LN2_32 0.693147182464599609375f          /* ln(2) + 1.9e-9 */
    #define FS_2LN2_BITS32 0x317218                     /* the last bits of 2 * FS_LN2_32 */
    #define FS_LN2_HIGH32 0.69317626953125f             /* ln(2) + 2.9e-5, of 14 bits */
    #define FS_LN2_LOW32 2.9088971132296138e-05f        /* the former minus ln(2) */
    #define FS_S0_32 0.4999999403953552f
    #define FS_S1_32 0.1666652113199234f
    #define FS_S2_32 0.04166838899254799f
    #define FS_S3_32 0.008368726819753647f
    #define FS_S4_32 0.0013814577832818031f
    #define FS_P0_32 0.6931470632553101f
    #define FS_P1_32 0.32029908895492554f
    #define FS_P2_32 0.1110137403011322f
    #define FS_P3_32 0.030909819528460503f
    #define FS_P4_32 0.007064435165375471f
    #define FS_MAGIC64 6755399441056767.0               /* 1.5 * 2**52 + 1023 */
    #define FS_LOG2E64 1.4426950408889634
    #define FS_2LN2_64 1.3862943611198906
    #define FS_LN2_HIGH64 0.6931471805601177            /* ln(2) + 1.7e-13, of 40 bits */
    #define FS_LN2_LOW64 1.7239444525614835e-13         /* the former minus ln(2) */
    #define FS_S0_64 0.5000000000000011
    #define FS_S1_64 0.16666666666666413
    #define FS_S2_64 0.04166666666653001
    #define FS_S3_64 0.008333333333494664
    #define FS_S4_64 0.0013888888943675286
    #define FS_S5_64 0.00019841269506239013
    #define FS_S6_64 2.4801493046741027e-05
    #define FS_S7_64 2.755758658417979e-06
    #define FS_S8_64 2.763026867696925e-07
    #define FS_S9_64 2.5000025644168424e-08
    #define FS_P0_64 0.6931471805599464
    #define FS_P1_64 0.32030200927880187
    #define FS_P2_64 0.11100821732933377
    #define FS_P3_64 0.030778013144670775
    #define FS_P4_64 0.00711123103708962
    #define FS_P5_64 0.0014083227636988067
    #define FS_P6_64 0.00024404285587675413
    #define FS_P7_64 3.759098067002776e-05
    #define FS_P8_64 5.224709871621393e-06
    #define FS_P9_64 6.558306101909831e-07
    /* Of a bound that gcc knows it makes a compare and a blend, not one max instruction. */
    static inline float fs_lowest32(void) { static const volatile float d = -88.0f; return d; }
    static inline double fs_lowest64(void) { static const volatile double d = -709.0; return d; }
    """
    const float MAGIC32 "FS_MAGIC32"
    const float LOG2E32 "FS_LOG2E32"
    const float LN2_32 "FS_LN2_32"
    const int32_t TWICE_LN2_BITS32 "FS_2LN2_BITS32"
    const float LN2_HIGH32 "FS_LN2_HIGH32"
    const float LN2_LOW32 "FS_LN2_LOW32"
    const float S0_32 "FS_S0_32"
    const float S1_32 "FS_S1_32"
    const float S2_32 "FS_S2_32"
    const float S3_32 "FS_S3_32"
    const float S4_32 "FS_S4_32"
    const float P0_32 "FS_P0_32"
    const float P1_32 "FS_P1_32"
    const float P2_32 "FS_P2_32"
    const float P3_32 "FS_P3_32"
    const float P4_32 "FS_P4_32"
    const double MAGIC64 "FS_MAGIC64"
    const double LOG2E64 "FS_LOG2E64"
    const double TWICE_LN2_64 "FS_2LN2_64"
    const double LN2_HIGH64 "FS_LN2_HIGH64"
    const double LN2_LOW64 "FS_LN2_LOW64"
    const double S0_64 "FS_S0_64"
    const double S1_64 "FS_S1_64"
    const double S2_64 "FS_S2_64"
    const double S3_64 "FS_S3_64"
    const double S4_64 "FS_S4_64"
    const double S5_64 "FS_S5_64"
    const double S6_64 "FS_S6_64"
    const double S7_64 "FS_S7_64"
    const double S8_64 "FS_S8_64"
    const double S9_64 "FS_S9_64"
    const double P0_64 "FS_P0_64"
    const double P1_64 "FS_P1_64"
    const double P2_64 "FS_P2_64"
    const double P3_64 "FS_P3_64"
    const double P4_64 "FS_P4_64"
    const double P5_64 "FS_P5_64"
    const double P6_64 "FS_P6_64"
    const double P7_64 "FS_P7_64"
    const double P8_64 "FS_P8_64"
    const double P9_64 "FS_P9_64"
    float exp_underflow_bound32 "fs_lowest32"() noexcept nogil
    double exp_underflow_bound64 "fs_lowest64"() noexcept nogil


cdef inline real rounding_magic(real like) noexcept nogil:
    """Return MAGIC of the type of `like`."""
    return MAGIC32 if real is float else MAGIC64


cdef inline real exp_underflow_bound(real like) noexcept nogil:
    """Return a difference whose `exp_nonpositive` is +0, as a number the compiler does not know."""
    if real is float:
        return exp_underflow_bound32()
    else:
        return exp_underflow_bound64()


cdef inline real exp_nonpositive(real d, real low) noexcept nogil:
    """Return ``exp(d)`` for d <= 0 or NaN; +0 below `low`, which is ``exp_underflow_bound()``.

    Error and order are those of `exp_core`; results below the smallest normal number are 0.
    """
    return exp_floored(d, low, rounding_magic(d))


cdef inline real exp_floored(real d, real low, real magic) noexcept nogil:
    """Return ``exp(d) / 2**K``, +0 below `low`; `magic` and `low` are by `set_exponent_range`."""
    # In this form NaN passes.
    return exp_core(low if low > d else d, magic)


cdef inline real clamp(real d, real low, real high) noexcept nogil:
    """Return `d` held between `low` and `high` > 0; NaN stays, or becomes `high`."""
    cdef int32_t bits, bound
    d = low if low > d else d
    if real is float:
        # Floats have the order of their bits, below a positive one. It takes other units of the
        # processor than the maximum and the multiplications.
        bits = <int32_t>bits32(d)
        bound = <int32_t>bits32(high)
        return from_bits32(<uint32_t>(bound if bound < bits else bits))
    else:
        return high if high < d else d


cdef inline real exp_clamped(real d, real low, real high, real magic) noexcept nogil:
    """Return what `exp_floored` does, but no finite number from `high` on, nor for NaN."""
    return exp_core(clamp(d, low, high), magic)


cdef inline real exp_core(real d, real magic) noexcept nogil:
    """Return ``exp(d) / 2**K``, where 2**n / 2**K is normal.

    `magic` is MAGIC minus K; K changes no bit but the exponent's. With u = 2**-24 for float32,
    2**-53 for float64, the error is at most 1.3 u, for float32 0.05 |d| u more. Monotone over
    every float32.

    It is ``2**n e**r`` with n = round(d / ln 2), r = d - n ln 2. r is exact, but for what ln 2
    lacks: and that is the factor of a power of n, the same in all exponentials of a row but for
    0.05 u a unit of their distance. ``e**r = 1 + (r + r**2 s(r))``: this order of the last
    operations is what keeps it monotone.

    Source: M. Tang's table-free reduction as in Muller, "Elementary Functions" (3rd ed., 2016),
    chapter 6, https://doi.org/10.1007/978-1-4899-7983-4
    """
    cdef float z, n, k, r, t, s
    cdef double zz, nn, kk, rr, tt, ss
    if real is float:
        # n in the last bits of z; then r
        z = fma32(d, LOG2E32, magic)
        n = z - magic
        if HAS_FMA:
            r = fma32(n, -LN2_32, d)
        else:  # n times the first part of ln 2 is exact
            r = (d - n * LN2_HIGH32) + n * LN2_LOW32
        # k = 2**(n - K): the last bits of z, n - K and the bias, become the exponent
        k = from_bits32(bits32(z) << 23)
        # s(r) by Estrin's scheme, with r**2
        t = r * r
        s = fma32(S4_32, t, fma32(S3_32, r, S2_32))
        s = fma32(s, t, fma32(S1_32, r, S0_32))
        # k (1 + (r + r**2 s)): one rounding for the sum and the power of two
        return fma32(fma32(s, t, r), k, k)
    else:
        # n in the last bits of zz; then rr
        zz = fma64(d, LOG2E64, magic)
        nn = zz - magic
        # nn times the first part of ln 2 is exact, with or without fma
        rr = fma64(nn, -LN2_HIGH64, d)
        rr = fma64(nn, LN2_LOW64, rr)
        # kk = 2**(n - K)
        kk = from_bits64(bits64(zz) << 52)
        # s(rr), two coefficients at a time, by Horner's scheme in rr**2
        tt = rr * rr
        ss = fma64(fma64(S9_64, rr, S8_64), tt, fma64(S7_64, rr, S6_64))
        ss = fma64(ss, tt, fma64(S5_64, rr, S4_64))
        ss = fma64(ss, tt, fma64(S3_64, rr, S2_64))
        ss = fma64(ss, tt, fma64(S1_64, rr, S0_64))
        # kk (1 + (rr + rr**2 s))
        return fma64(fma64(ss, tt, rr), kk, kk)


cdef inline real exp2_core(real d, real rate, real rate_low, real magic) noexcept nogil:
    """Return ``2**(2 d (rate + rate_low)) / 2**K``, where 2**n / 2**K is normal or 0.

    `magic` is half of MAGIC minus K. The error is at most 1.6 u; without fma, where `rate_low` is
    not used and the product is rounded by itself, that of `rate` and |2 d rate| u more.

    It is ``2**n 2**(2 q)`` with n = round(2 d rate), q = d (rate + rate_low) - n / 2: halves,
    because ``2**(2 q) = 1 + c (q + q**2 p(q))`` with a c = 2 ln(2) between 1 and 2. So c k is k
    with other last bits, exactly, and q need not be multiplied by a logarithm.

    Monotone over every float32, at any rate. Within one n: the steps of q rise with d, because
    `rate` is rounded toward 0, so that `rate_low` has its sign; and ``k (1 + c (q + q**2 p))``
    rises with q (checked for every q). From n to n + 1: the result falls only if q falls by 1/2
    and more (checked for every q). Neighbours d are abs(n + 1/2) / 2**25 apart in q and more, and
    roundings of q come to 5 / 2**27 at most. That leaves n = 0 and -1, checked at every rate.
    """
    cdef float z, k, ck, q, t, p
    cdef double zz, kk, qq, tt, pp
    cdef uint32_t k_bits
    cdef int32_t c_bits
    if real is float:
        # n in the last bits of z, whose last place is 1/2; then q
        z = fma32(d, rate, magic)
        q = fma32(d, rate, magic - z)
        if HAS_FMA:
            q = fma32(d, rate_low, q)
        # k = 2**(n - K), as in `exp_core`; and c k, which must be 0 where k is
        k_bits = bits32(z) << 23
        c_bits = <int32_t>k_bits if <int32_t>k_bits < TWICE_LN2_BITS32 else TWICE_LN2_BITS32
        k = from_bits32(k_bits)
        ck = from_bits32(k_bits + <uint32_t>c_bits)
        # p(q) by Estrin's scheme, with q**2
        t = q * q
        p = fma32(P4_32, t, fma32(P3_32, q, P2_32))
        p = fma32(p, t, fma32(P1_32, q, P0_32))
        # k (1 + c (q + q**2 p)): one rounding for the sum and the power of two
        return fma32(fma32(p, t, q), ck, k)
    else:
        zz = fma64(d, rate, magic)
        qq = fma64(d, rate, magic - zz)
        if HAS_FMA:
            qq = fma64(d, rate_low, qq)
        kk = from_bits64(bits64(zz) << 52)
        # p(qq), two coefficients at a time, by Horner's scheme in qq**2
        tt = qq * qq
        pp = fma64(fma64(P9_64, qq, P8_64), tt, fma64(P7_64, qq, P6_64))
        pp = fma64(pp, tt, fma64(P5_64, qq, P4_64))
        pp = fma64(pp, tt, fma64(P3_64, qq, P2_64))
        pp = fma64(pp, tt, fma64(P1_64, qq, P0_64))
        # kk (1 + c (qq + qq**2 p)); of 64-bit integers AVX2 has no minimum
        return fma64(fma64(pp, tt, qq), kk * TWICE_LN2_64, kk)
