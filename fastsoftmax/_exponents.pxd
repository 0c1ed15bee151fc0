# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What exponentials are made with: the power of two that divides them, centre, temperature.

exp(x) / 2**K for any K has the same bits but for the exponent, as long as nothing is too small or
too large, and so have the sums and what is divided by them. K is chosen so that the exponential of
an entry near the largest is 2**lift(): then what is 2**-150 of it (float32) is still a normal
number.
"""

from fastsoftmax._math cimport exp_above, exp_within, from_bits32, from_bits64, infinity, real

# What the exponentials exp((x - CENTRE) * INVERSE) / 2**K of a row are made with: an array of HOW
# numbers, or of HOW times `apart` for several rows. LOW, HIGH and MAGIC are those of `exp_within`.
cdef enum:
    LOW
    HIGH
    MAGIC
    CENTRE
    INVERSE
    HOW

# How much of it there is to do is a type, so that each loop is compiled for one answer: Plain if
# CENTRE is 0 and INVERSE 1, Shifted if INVERSE is. A difference costs a loop 7 %, a product too.
# Open is Plain without HIGH, where the largest entry is found meanwhile, and is what tells.
ctypedef signed char Open
ctypedef char Plain
ctypedef short Shifted
ctypedef int Scaled
ctypedef fused scaling:
    Open
    Plain
    Shifted
    Scaled


cdef inline real power(
    real x, real centre, real inverse, real low, real high, real magic, scaling kind
) noexcept nogil:
    """Return exp((x - centre) * inverse) / 2**K, or what that is for `kind`."""
    if scaling is Scaled:
        return exp_above((x - centre) * inverse, low, magic)
    elif scaling is Shifted:
        return exp_above(x - centre, low, magic)
    elif scaling is Open:
        return exp_above(x, low, magic)
    else:  # alone, where the largest x may be a guess
        return exp_within(x, low, high, magic)


cdef inline real inverse_of(double temperature, real like) noexcept nogil:
    """Return 1/T, held at the largest finite number."""
    cdef real inverse = <real>(1 / temperature)
    if real is float:
        return min(inverse, <float>3.4028234663852886e+38)
    else:
        return min(inverse, <double>1.7976931348623157e+308)


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

    K is even, as `lifted` must be: without fma there are ties in `power_of_e`, and they go by the
    parity of n - K.
    """
    cdef real half = 12582912 if real is float else 6755399441055744  # 1.5 * 2**23, 1.5 * 2**52
    return 2 * ((reference * <real>0.7213475204444817 + half) - half) - lifted


cdef inline real low_of(real k) noexcept nogil:
    """Return the argument of `exp_within` below which it is 0, for K = k."""
    cdef real bias = 127 if real is float else 1023
    return (k - bias) * <real>0.6931471805599453


cdef inline real high_of(real k) noexcept nogil:
    """Return the one above which it is not finite."""
    cdef real bias = 127 if real is float else 1023
    return (k + bias + 1) * <real>0.6931471805599453


cdef inline real magic_of(real k) noexcept nogil:
    """Return what chooses K, too."""
    cdef real magic = 12583039 if real is float else 6755399441056767  # as in `exp_neg`
    return magic - k


cdef inline void set_range(
    real reference, real lifted, bint sure, real *how, Py_ssize_t apart
) noexcept nogil:
    """Choose K so that exp(reference) / 2**K is about 2**lifted.

    If `sure`, nothing is above `reference`; else exponentials too large for the type are infinite.
    """
    cdef real k = shift_of(reference, lifted)
    how[LOW * apart] = low_of(k)
    how[HIGH * apart] = infinity(<real>0) if sure else high_of(k)
    how[MAGIC * apart] = magic_of(k)


cdef inline void set_plain(real reference, real lifted, bint sure, real *how) noexcept nogil:
    """Make exponentials exp(x) / 2**K, by `set_range`."""
    how[CENTRE] = 0
    how[INVERSE] = 1
    set_range(reference, lifted, sure, how, 1)


cdef inline void set_how(real highest, real inverse, real *how, Py_ssize_t apart) noexcept nogil:
    """Choose what the exponentials of a row are made with, by its largest element."""
    cdef real centre = 0 if inverse == 1 and near(highest) else highest
    how[CENTRE * apart] = centre
    how[INVERSE * apart] = inverse
    set_range((highest - centre) * inverse, lift(<real>0), True, how, apart)


cdef inline void set_weights(real highest, real inverse, real *how) noexcept nogil:
    """Make exponentials exp((x - highest) * inverse) themselves: that of the largest entry is 1."""
    how[CENTRE] = highest
    how[INVERSE] = inverse
    set_range(<real>0, <real>0, True, how, 1)


cdef inline real own_term(real highest, const real *how, Py_ssize_t apart) noexcept nogil:
    """Return the exponential of the largest entry."""
    return power(
        highest, how[CENTRE * apart], how[INVERSE * apart], how[LOW * apart], how[HIGH * apart],
        how[MAGIC * apart], <Scaled>0,
    )


# ---- guesses of the largest entry ------------------------------------------------------------------


cdef inline real guess_lift(real like) noexcept nogil:
    """Return the exponent of the exponential of a reference, between `lift` and `most`."""
    return 60 if real is float else 450


cdef inline bint guessable(real reference) noexcept nogil:
    """Tell whether rows with largest elements not far from it are surely `near`. NaN is not."""
    cdef real limit = 128 if real is float else 1024
    return -40 < reference < limit
