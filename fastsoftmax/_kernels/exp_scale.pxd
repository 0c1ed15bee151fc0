# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What exponentials are made with: the power of two that divides them, shift, temperature.

exp(x / T) / 2**K for any K has the same bits but for the exponent, as long as nothing is too small
or too large, and so have the sums and what is divided by them. K is chosen so that the exponential
of an entry near the largest is 2**`target_exponent`: then what is 2**-150 of it (float32) is still
a normal number. The maximum itself, or a `pivot` near it (the first block's maximum, that of rows
before), chooses K.
"""

from libc.stdint cimport int32_t, uint32_t

from fastsoftmax._kernels.exp cimport (
    clamp,
    exp2_core,
    exp_clamped,
    exp_floored,
    rounding_magic,
)
from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    bits32,
    bits64,
    fma64,
    from_bits32,
    from_bits64,
    infinity,
    real,
)

cdef enum:
    # Powers of two in quotients by a sum. Of softmax: the largest is 1, the largest sum 2**100. Of
    # losses: weights up to 2**31.
    RAISED = 126
    LOSS_RAISED = 96


cdef struct ExpScale:
    # The exponentials exp((x - shift) / T) / 2**K of one row. A double holds each float32, and a
    # struct cannot be fused; loops read it into numbers of their own type first.
    double low  # what x - shift is not to exceed for +0
    double high  # from which on it gives no finite number
    double magic  # chooses K
    double shift
    double rate  # of log2(e) / T a half, in two parts; 0 at T = 1, where exp is faster
    double rate_low

# How much of it there is to do is a type, so that each loop is compiled for one answer. Pow2 is for
# T other than 1; Centered has a shift; Clamped needs `high`, as its maximum may be above the pivot.
# The maximum for Unclamped, T = 1 without a shift, is found meanwhile.
ctypedef signed char Unclamped
ctypedef char Clamped
ctypedef short Centered
ctypedef int ClampedPow2
ctypedef long CenteredPow2
ctypedef fused exp_variant:
    Unclamped
    Clamped
    Centered
    ClampedPow2
    CenteredPow2

cdef enum ExpVariant:  # these types as numbers
    CLAMPED
    CENTERED
    CLAMPED_POW2
    CENTERED_POW2


cdef inline real scaled_exp(
    real x, real shift, real rate, real rate_low, real low, real high, real magic,
    exp_variant variant,
) noexcept nogil:
    """Return exp((x - shift) / T) / 2**K, or what that is for `variant`."""
    if exp_variant is CenteredPow2:
        x = x - shift
        return exp2_core(low if low > x else x, rate, rate_low, magic)
    elif exp_variant is ClampedPow2:
        return exp2_core(clamp(x, low, high), rate, rate_low, magic)
    elif exp_variant is Centered:
        return exp_floored(x - shift, low, magic)
    elif exp_variant is Unclamped:
        return exp_floored(x, low, magic)
    else:
        return exp_clamped(x, low, high, magic)


cdef inline ExpVariant variant_of(const ExpScale *scale) noexcept nogil:
    """Return which variant makes the exponentials of `scale`."""
    if scale.rate != 0:
        return CENTERED_POW2 if scale.high == infinity(<double>0) else CLAMPED_POW2
    return CENTERED if scale.shift != 0 else CLAMPED


cdef inline real inverse_temperature(double temperature, real like) noexcept nogil:
    """Return 1/T, held at the largest finite number of the type of `like`."""
    cdef real inverse = <real>(1 / temperature)
    if real is float:
        return min(inverse, <float>3.4028234663852886e+38)
    else:
        return min(inverse, <double>1.7976931348623157e+308)


cdef inline void exp_rate(double temperature, real *rate, real *rate_low) noexcept nogil:
    """Write log2(e) / T / 2 as the sum of two, the first one rounded toward 0; 0 for T = 1.

    Without fma the first one is rounded to nearest, and the second one 0: the product counts more.
    """
    cdef double half = 0.7213475204444817  # log2(e) / 2 - 1e-17
    cdef double quotient = half / temperature
    cdef double rest
    rate[0] = rate_low[0] = 0
    if temperature == 1:
        return
    rate[0] = <real>quotient
    if not HAS_FMA:
        return
    if real is float:
        if rate[0] > quotient:
            rate[0] = from_bits32(bits32(rate[0]) - 1)
        rate_low[0] = <float>(quotient - rate[0])
    else:
        rest = fma64(-quotient, temperature, half) + 1.0177636870465517e-17
        if rest < 0:
            rate[0] = from_bits64(bits64(quotient) - 1)
            rest = fma64(-rate[0], temperature, half) + 1.0177636870465517e-17
        rate_low[0] = rest / temperature


# ---- the power of two ----------------------------------------------------------------------------


cdef inline real target_exponent(real like) noexcept nogil:
    """Return an exponent of the largest exponential that keeps the smallest results.

    That exponential is 2**(target_exponent - 1) at least, so half the smallest number times it is
    normal.
    """
    return 26 if real is float else 64


cdef inline real pivot_exponent(real like) noexcept nogil:
    """Return the exponent of a pivot's exponential that leaves room below and above.

    It lies between `target_exponent` and `max_invertible_sum`.
    """
    return 60 if real is float else 450


cdef inline real max_invertible_sum(real like) noexcept nogil:
    """Return the largest sum whose reciprocal, a pair, keeps all of its bits."""
    if real is float:
        return from_bits32(0x71800000)  # 2**100
    else:
        return from_bits64(0x7830000000000000ULL)  # 2**900


cdef inline bint needs_no_shift(real pivot) noexcept nogil:
    """Return whether exponentials are those of x itself, not of x - `pivot`.

    Beyond, all differences that matter are exact, because x is within a factor of 2.
    """
    cdef real limit = 256 if real is float else 2048
    return -limit < pivot < limit


cdef inline bint pivot_in_range(real pivot, real inverse) noexcept nogil:
    """Return whether rows with maxima not far from `pivot` surely need no shift; False for NaN.

    `inverse` is 1/T.
    """
    cdef real limit = 128 if real is float else 1024
    return -40 < pivot * inverse < limit


cdef inline real binade_offset(real pivot, real exponent) noexcept nogil:
    """Return the K for which exp(`pivot`) / 2**K is about 2**`exponent`.

    K is even, as `exponent` must be: without fma there are ties in `exp_core`, and they go by the
    parity of n - K.
    """
    cdef real half = 12582912 if real is float else 6755399441055744  # 1.5 * 2**23, 1.5 * 2**52
    return 2 * ((pivot * <real>0.7213475204444817 + half) - half) - exponent


cdef inline void set_exponent_range(
    real pivot, real exponent, bint is_max, real rate, real *low, real *high, real *magic
) noexcept nogil:
    """Choose K so that exp(`pivot`) / 2**K is about 2**`exponent`; write the three it shows in.

    `pivot` is divided by T; `rate` is of `exp_rate`. If `is_max`, nothing is above `pivot`; else
    exponentials too large for the type are no finite numbers.
    """
    cdef real k = binade_offset(pivot, exponent)
    cdef real bias = 127 if real is float else 1023
    cdef real half = 0.5
    cdef real step = half / rate if rate != 0 else <real>0.6931471805599453  # of x, for a 2
    low[0] = (k - bias) * step
    high[0] = infinity(<real>0) if is_max else (k + bias + 1) * step
    magic[0] = rounding_magic(k) - k
    if rate != 0:
        magic[0] *= half


cdef inline real power_of_two(int exponent, real like) noexcept nogil:
    """Return 2**`exponent`, a normal number, for float32; 1 for float64, which has room."""
    return from_bits32(<uint32_t>(127 + exponent) << 23) if real is float else <real>1


cdef inline real raised(real like) noexcept nogil:
    """Return what reciprocals of sums are multiplied by: 2**RAISED for float32.

    With it neither they nor their products with exponentials are subnormal numbers, each of which
    may take a CPU a hundred cycles.
    """
    return power_of_two(RAISED, like)


cdef inline real lowered(real y, int exponent) noexcept nogil:
    """Return y / 2**`exponent`, for finite y >= 0 of float32; of NaN and infinity something else.

    By the bits: where the quotient is normal the first number is the larger one, and where it is
    subnormal the second, for which the sum has rounded y.
    """
    cdef int32_t normal, subnormal
    if real is float:
        normal = <int32_t>bits32(y) - (exponent << 23)
        subnormal = (
            <int32_t>bits32(y + power_of_two(exponent - 126, y)) - ((exponent + 1) << 23)
        )
        return from_bits32(<uint32_t>(normal if normal > subnormal else subnormal))
    else:
        return y


# ---- of one row ----------------------------------------------------------------------------------


cdef inline ExpScale make_scale(
    real shift, double temperature, real pivot, real exponent, bint is_max
) noexcept nogil:
    """Return the scale with this `shift` and 1/T, the rest by `set_exponent_range`."""
    cdef real rate, rate_low, low, high, magic
    cdef ExpScale scale
    exp_rate(temperature, &rate, &rate_low)
    set_exponent_range(pivot, exponent, is_max, rate, &low, &high, &magic)
    scale.low = low
    scale.high = high
    scale.magic = magic
    scale.shift = shift
    scale.rate = rate
    scale.rate_low = rate_low
    return scale


cdef inline ExpScale scale_from_pivot(
    real pivot, double temperature, real exponent, bint is_max
) noexcept nogil:
    """Return the scale of exp(x / `temperature`) / 2**K, K by `set_exponent_range`."""
    cdef real inverse = inverse_temperature(temperature, pivot)
    return make_scale(<real>0, temperature, pivot * inverse, exponent, is_max)


cdef inline ExpScale scale_from_max(real highest, double temperature) noexcept nogil:
    """Return the scale of a row's exponentials by its maximum `highest`."""
    cdef real inverse = inverse_temperature(temperature, highest)
    cdef real shift = 0 if needs_no_shift(highest * inverse) else highest
    # Without fma the rounding of a product with x itself would count.
    shift = highest if not HAS_FMA and temperature != 1 else shift
    return make_scale(
        shift, temperature, (highest - shift) * inverse, target_exponent(highest), True
    )


cdef inline real max_term(real highest, const ExpScale *scale) noexcept nogil:
    """Return the exponential of a row's maximum `highest`."""
    cdef real shift = <real>scale.shift
    cdef real rate = <real>scale.rate
    cdef real rate_low = <real>scale.rate_low
    cdef real low = <real>scale.low
    cdef real magic = <real>scale.magic
    highest = highest - shift
    if rate != 0:
        return exp2_core(low if low > highest else highest, rate, rate_low, magic)
    return exp_floored(highest, low, magic)
