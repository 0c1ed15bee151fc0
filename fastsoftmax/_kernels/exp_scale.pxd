# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What exponentials are made with: the power of two that divides them, centre, temperature.

exp(x / T) / 2**K for any K has the same bits but for the exponent, as long as nothing is too small
or too large, and so have the sums and what is divided by them. K is chosen so that the exponential
of an entry near the largest is 2**lift(): then what is 2**-150 of it (float32) is still a normal
number.
"""

from fastsoftmax._kernels.exp cimport Base2, clamp, exp_clamped, exp_core, exp_floored
from fastsoftmax._kernels.types cimport HAS_FMA, from_bits32, from_bits64, infinity, real

# What the exponentials exp((x - CENTRE) / T) / 2**K of a row are made with: an array of HOW
# numbers, or of HOW times `spacing` for several rows. LOW, HIGH and MAGIC are those of `exp_clamped`.
# FACTOR is log2(e) / T, but 0 at T = 1, where exp is more exact than a power of 2.
cdef enum:
    LOW
    HIGH
    MAGIC
    SHIFT
    RATE
    SCALE_FIELDS

# How much of it there is to do is a type, so that each loop is compiled for one answer. T is 1 for
# Plain, Shifted and Open, CENTRE 0 for Plain, Heated and Open. Plain and Heated need HIGH: their
# largest entry may be a guess. Of Open it is found meanwhile.
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

cdef enum ExpVariant:  # the same as a number
    CLAMPED
    CENTERED
    CLAMPED_POW2
    CENTERED_POW2


cdef inline real scaled_exp(
    real x, real shift, real rate, real low, real high, real magic, exp_variant variant
) noexcept nogil:
    """Return exp((x - centre) / T) / 2**K, or what that is for `variant`."""
    if exp_variant is CenteredPow2:
        x = x - shift
        return exp_core(low if low > x else x, rate, magic, <Base2>0)
    elif exp_variant is ClampedPow2:
        return exp_core(clamp(x, low, high), rate, magic, <Base2>0)
    elif exp_variant is Centered:
        return exp_floored(x - shift, low, magic)
    elif exp_variant is Unclamped:
        return exp_floored(x, low, magic)
    else:
        return exp_clamped(x, low, high, magic)


cdef inline ExpVariant variant_of(const real *exp_scale) noexcept nogil:
    """Return which form serves."""
    if exp_scale[RATE] != 0:
        return CENTERED_POW2 if exp_scale[HIGH] == infinity(<real>0) else CLAMPED_POW2
    return CENTERED if exp_scale[SHIFT] != 0 else CLAMPED


cdef inline real inverse_temperature(double temperature, real like) noexcept nogil:
    """Return 1/T, held at the largest finite number."""
    cdef real inverse = <real>(1 / temperature)
    if real is float:
        return min(inverse, <float>3.4028234663852886e+38)
    else:
        return min(inverse, <double>1.7976931348623157e+308)


cdef inline void set_rate(double temperature, real *exp_scale, Py_ssize_t spacing) noexcept nogil:
    """Set FACTOR."""
    exp_scale[RATE * spacing] = <real>(1.4426950408889634 / temperature) if temperature != 1 else 0


cdef inline real target_exponent(real like) noexcept nogil:
    """Return an exponent of the largest exponential that keeps the smallest results.

    That exponential is 2**(lift - 1) at least, so half the smallest number times it is normal.
    """
    return 26 if real is float else 64


cdef inline real max_invertible_sum(real like) noexcept nogil:
    """Return the largest sum whose reciprocal, a pair, keeps all of its bits."""
    if real is float:
        return from_bits32(0x71800000)  # 2**100
    else:
        return from_bits64(0x7830000000000000ULL)  # 2**900


cdef inline bint needs_no_shift(real pivot) noexcept nogil:
    """Tell whether exponentials are those of x itself, not of x - reference.

    Beyond, all differences that matter are exact, because x is within a factor of 2.
    """
    cdef real limit = 256 if real is float else 2048
    return -limit < pivot < limit


cdef inline real binade_offset(real pivot, real exponent) noexcept nogil:
    """Return the K for which exp(reference) / 2**K is about 2**lifted.

    K is even, as `exponent` must be: without fma there are ties in `exp_core`, and they go by the
    parity of n - K.
    """
    cdef real half = 12582912 if real is float else 6755399441055744  # 1.5 * 2**23, 1.5 * 2**52
    return 2 * ((pivot * <real>0.7213475204444817 + half) - half) - exponent


cdef inline real rounding_magic(real k) noexcept nogil:
    """Return what chooses K, too."""
    cdef real magic = 12583039 if real is float else 6755399441056767  # as in `exp_neg`
    return magic - k


cdef inline void set_exponent_range(
    real pivot, real exponent, bint is_max, real *exp_scale, Py_ssize_t spacing
) noexcept nogil:
    """Choose K so that exp(reference) / 2**K is about 2**lifted; T is set.

    If `is_max`, nothing is above `pivot`; else exponentials too large for the type are infinite.
    """
    cdef real k = binade_offset(pivot, exponent)
    cdef real bias = 127 if real is float else 1023
    cdef real rate = exp_scale[RATE * spacing]
    cdef real one = 1
    cdef real step = one / rate if rate != 0 else <real>0.6931471805599453  # of x, for a 2
    exp_scale[LOW * spacing] = (k - bias) * step
    exp_scale[HIGH * spacing] = infinity(<real>0) if is_max else (k + bias + 1) * step
    exp_scale[MAGIC * spacing] = rounding_magic(k)


cdef inline void scale_from_pivot(
    real pivot, double temperature, real exponent, bint is_max, real *exp_scale
) noexcept nogil:
    """Make exponentials exp(x / T) / 2**K, by `set_exponent_range`."""
    exp_scale[SHIFT] = 0
    set_rate(temperature, exp_scale, 1)
    set_exponent_range(pivot * inverse_temperature(temperature, pivot), exponent, is_max, exp_scale, 1)


cdef inline void scale_from_max(real highest, double temperature, real *exp_scale) noexcept nogil:
    """Choose what the exponentials of a row are made with, by its largest element."""
    cdef real inverse = inverse_temperature(temperature, highest)
    cdef real shift = 0 if needs_no_shift(highest * inverse) else highest
    set_rate(temperature, exp_scale, 1)
    # Without fma the rounding of a product with x itself would count.
    shift = highest if not HAS_FMA and exp_scale[RATE] != 0 else shift
    exp_scale[SHIFT] = shift
    set_exponent_range((highest - shift) * inverse, target_exponent(<real>0), True, exp_scale, 1)


cdef inline void scale_to_one(real highest, double inverse, real *exp_scale) noexcept nogil:
    """Make exponentials exp((x - highest) * inverse) themselves: that of the largest entry is 1."""
    exp_scale[SHIFT] = highest
    set_rate(1 / inverse, exp_scale, 1)
    set_exponent_range(<real>0, <real>0, True, exp_scale, 1)


cdef inline real max_term_at(
    real highest, const real *exp_scale, Py_ssize_t spacing, exp_variant variant
) noexcept nogil:
    """Return the exponential of the largest entry."""
    return scaled_exp(
        highest, exp_scale[SHIFT * spacing], exp_scale[RATE * spacing], exp_scale[LOW * spacing], exp_scale[HIGH * spacing],
        exp_scale[MAGIC * spacing], variant,
    )


cdef inline real max_term(real highest, const real *exp_scale) noexcept nogil:
    """own_term of one row"""
    if exp_scale[RATE] != 0:
        return max_term_at(highest, exp_scale, 1, <CenteredPow2>0)
    return max_term_at(highest, exp_scale, 1, <Centered>0)


# ---- guesses of the largest entry ----------------------------------------------------------------


cdef inline real pivot_exponent(real like) noexcept nogil:
    """Return the exponent of the exponential of a reference, between `target_exponent` and `max_invertible_sum`."""
    return 60 if real is float else 450


cdef inline bint pivot_in_range(real pivot, real inverse) noexcept nogil:
    """Tell whether rows with largest elements not far from it are surely `needs_no_shift`. NaN is not."""
    cdef real limit = 128 if real is float else 1024
    return -40 < pivot * inverse < limit
