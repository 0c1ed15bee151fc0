# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What exponentials are made with: the power of two that divides them, centre, temperature.

exp(x / T) / 2**K for any K has the same bits but for the exponent, as long as nothing is too small
or too large, and so have the sums and what is divided by them. K is chosen so that the exponential
of an entry near the largest is 2**lift(): then what is 2**-150 of it (float32) is still a normal
number.
"""

from fastsoftmax._math cimport (
    HAS_FMA,
    Two,
    exp_above,
    exp_within,
    from_bits32,
    from_bits64,
    infinity,
    power_of,
    real,
    within,
)

# What the exponentials exp((x - CENTRE) / T) / 2**K of a row are made with: an array of HOW
# numbers, or of HOW times `apart` for several rows. LOW, HIGH and MAGIC are those of `exp_within`.
# FACTOR is log2(e) / T, but 0 at T = 1, where exp is more exact than a power of 2.
cdef enum:
    LOW
    HIGH
    MAGIC
    CENTRE
    FACTOR
    HOW

# How much of it there is to do is a type, so that each loop is compiled for one answer. T is 1 for
# Plain, Shifted and Open, CENTRE 0 for Plain, Heated and Open. Plain and Heated need HIGH: their
# largest entry may be a guess. Of Open it is found meanwhile.
ctypedef signed char Open
ctypedef char Plain
ctypedef short Shifted
ctypedef int Heated
ctypedef long Scaled
ctypedef fused scaling:
    Open
    Plain
    Shifted
    Heated
    Scaled

cdef enum Form:  # the same as a number
    PLAIN
    SHIFTED
    HEATED
    SCALED


cdef inline real power(
    real x, real centre, real factor, real low, real high, real magic, scaling kind
) noexcept nogil:
    """Return exp((x - centre) / T) / 2**K, or what that is for `kind`."""
    if scaling is Scaled:
        x = x - centre
        return power_of(low if low > x else x, factor, magic, <Two>0)
    elif scaling is Heated:
        return power_of(within(x, low, high), factor, magic, <Two>0)
    elif scaling is Shifted:
        return exp_above(x - centre, low, magic)
    elif scaling is Open:
        return exp_above(x, low, magic)
    else:
        return exp_within(x, low, high, magic)


cdef inline Form form_of(const real *how) noexcept nogil:
    """Return which form serves."""
    if how[FACTOR] != 0:
        return SCALED if how[HIGH] == infinity(<real>0) else HEATED
    return SHIFTED if how[CENTRE] != 0 else PLAIN


cdef inline real inverse_of(double temperature, real like) noexcept nogil:
    """Return 1/T, held at the largest finite number."""
    cdef real inverse = <real>(1 / temperature)
    if real is float:
        return min(inverse, <float>3.4028234663852886e+38)
    else:
        return min(inverse, <double>1.7976931348623157e+308)


cdef inline void heat(double temperature, real *how, Py_ssize_t apart) noexcept nogil:
    """Set FACTOR."""
    how[FACTOR * apart] = <real>(1.4426950408889634 / temperature) if temperature != 1 else 0


cdef inline real lift(real like) noexcept nogil:
    """Return an exponent of the largest exponential that keeps the smallest results.

    That exponential is 2**(lift - 1) at least, so half the smallest number times it is normal.
    """
    return 26 if real is float else 64


cdef inline real most(real like) noexcept nogil:
    """Return the largest sum whose reciprocal, a pair, keeps all of its bits."""
    if real is float:
        return from_bits32(0x71800000)  # 2**100
    else:
        return from_bits64(0x7830000000000000ULL)  # 2**900


cdef inline bint near(real reference) noexcept nogil:
    """Tell whether exponentials are those of x itself, not of x - reference.

    Beyond, all differences that matter are exact, because x is within a factor of 2.
    """
    cdef real limit = 256 if real is float else 2048
    return -limit < reference < limit


cdef inline real shift_of(real reference, real lifted) noexcept nogil:
    """Return the K for which exp(reference) / 2**K is about 2**lifted.

    K is even, as `lifted` must be: without fma there are ties in `power_of`, and they go by the
    parity of n - K.
    """
    cdef real half = 12582912 if real is float else 6755399441055744  # 1.5 * 2**23, 1.5 * 2**52
    return 2 * ((reference * <real>0.7213475204444817 + half) - half) - lifted


cdef inline real magic_of(real k) noexcept nogil:
    """Return what chooses K, too."""
    cdef real magic = 12583039 if real is float else 6755399441056767  # as in `exp_neg`
    return magic - k


cdef inline void set_range(
    real reference, real lifted, bint sure, real *how, Py_ssize_t apart
) noexcept nogil:
    """Choose K so that exp(reference) / 2**K is about 2**lifted; T is set.

    If `sure`, nothing is above `reference`; else exponentials too large for the type are infinite.
    """
    cdef real k = shift_of(reference, lifted)
    cdef real bias = 127 if real is float else 1023
    cdef real factor = how[FACTOR * apart]
    cdef real one = 1
    cdef real step = one / factor if factor != 0 else <real>0.6931471805599453  # of x, for a 2
    how[LOW * apart] = (k - bias) * step
    how[HIGH * apart] = infinity(<real>0) if sure else (k + bias + 1) * step
    how[MAGIC * apart] = magic_of(k)


cdef inline void set_guess(
    real reference, double temperature, real lifted, bint sure, real *how
) noexcept nogil:
    """Make exponentials exp(x / T) / 2**K, by `set_range`."""
    how[CENTRE] = 0
    heat(temperature, how, 1)
    set_range(reference * inverse_of(temperature, reference), lifted, sure, how, 1)


cdef inline void set_how(real highest, double temperature, real *how) noexcept nogil:
    """Choose what the exponentials of a row are made with, by its largest element."""
    cdef real inverse = inverse_of(temperature, highest)
    cdef real centre = 0 if near(highest * inverse) else highest
    heat(temperature, how, 1)
    # Without fma the rounding of a product with x itself would count.
    centre = highest if not HAS_FMA and how[FACTOR] != 0 else centre
    how[CENTRE] = centre
    set_range((highest - centre) * inverse, lift(<real>0), True, how, 1)


cdef inline void set_weights(real highest, double inverse, real *how) noexcept nogil:
    """Make exponentials exp((x - highest) * inverse) themselves: that of the largest entry is 1."""
    how[CENTRE] = highest
    heat(1 / inverse, how, 1)
    set_range(<real>0, <real>0, True, how, 1)


cdef inline real own_term(
    real highest, const real *how, Py_ssize_t apart, scaling kind
) noexcept nogil:
    """Return the exponential of the largest entry."""
    return power(
        highest, how[CENTRE * apart], how[FACTOR * apart], how[LOW * apart], how[HIGH * apart],
        how[MAGIC * apart], kind,
    )


cdef inline real own_of(real highest, const real *how) noexcept nogil:
    """own_term of one row"""
    if how[FACTOR] != 0:
        return own_term(highest, how, 1, <Scaled>0)
    return own_term(highest, how, 1, <Shifted>0)


# ---- guesses of the largest entry ----------------------------------------------------------------


cdef inline real guess_lift(real like) noexcept nogil:
    """Return the exponent of the exponential of a reference, between `lift` and `most`."""
    return 60 if real is float else 450


cdef inline bint guessable(real reference, real inverse) noexcept nogil:
    """Tell whether rows with largest elements not far from it are surely `near`. NaN is not."""
    cdef real limit = 128 if real is float else 1024
    return -40 < reference * inverse < limit
