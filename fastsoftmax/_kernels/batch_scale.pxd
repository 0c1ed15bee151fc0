# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What the exponentials of a batch of rows, or of columns, are made with, and whether it served.

A batch has an array for each field of `ExpScale`, in the rows' own type, one after the other: field
f of row r is ``exp_scale[f * spacing + r]``; where no `spacing` is given it is BATCH_ROWS.

One K serves all rows of one temperature whose maxima are not far from a `pivot`. What the rows of a
batch have had in common serves the next ones, too: then softmax needs no maxima, as the sums show
whether it did.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.exp_scale cimport (
    CENTERED,
    CENTERED_POW2,
    CLAMPED,
    CLAMPED_POW2,
    RAISED,
    Centered,
    CenteredPow2,
    ExpScale,
    ExpVariant,
    exp_rate,
    exp_variant,
    max_invertible_sum,
    needs_no_shift,
    pivot_exponent,
    pivot_in_range,
    power_of_two,
    raised,
    scaled_exp,
    set_exponent_range,
    target_exponent,
)
from fastsoftmax._kernels.normalize cimport all_within
from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    bits32,
    bits64,
    infinity,
    loop_int,
    loop_void,
    out_ptr,
    real,
)

cdef enum:
    BATCH_ROWS = 64  # most rows of a batch: BATCH_ELEMENTS // STEP

cdef enum:  # the fields
    LOW
    HIGH
    MAGIC
    SHIFT
    RATE
    RATE_LOW
    SCALE_FIELDS


cdef inline void store_scale(
    const ExpScale *scale, real *exp_scale, Py_ssize_t spacing
) noexcept nogil:
    """Write a row's `scale` into the row that `exp_scale` points to."""
    exp_scale[LOW * spacing] = <real>scale.low
    exp_scale[HIGH * spacing] = <real>scale.high
    exp_scale[MAGIC * spacing] = <real>scale.magic
    exp_scale[SHIFT * spacing] = <real>scale.shift
    exp_scale[RATE * spacing] = <real>scale.rate
    exp_scale[RATE_LOW * spacing] = <real>scale.rate_low


cdef inline void set_rate(double temperature, real *exp_scale, Py_ssize_t spacing) noexcept nogil:
    """Set the rate of the row that `exp_scale` points to."""
    exp_rate(temperature, exp_scale + RATE * spacing, exp_scale + RATE_LOW * spacing)


cdef inline void set_row_range(
    real pivot, real exponent, bint is_max, real *exp_scale, Py_ssize_t spacing
) noexcept nogil:
    """Call `set_exponent_range` for the row that `exp_scale` points to; its rate is set."""
    set_exponent_range(
        pivot, exponent, is_max, exp_scale[RATE * spacing], exp_scale + LOW * spacing,
        exp_scale + HIGH * spacing, exp_scale + MAGIC * spacing,
    )


cdef inline ExpVariant scales_from_maxima(
    const real *highest, const real *inverse, Py_ssize_t rows, real *exp_scale, Py_ssize_t spacing
) noexcept nogil:
    """Call `scale_from_max` for each row, in loops without branches; return the variant for all.

    The rates are set: all are 0 (T = 1), or none is. `inverse` is 1/T.
    """
    cdef Py_ssize_t r
    cdef uint32_t other32 = 0
    cdef uint64_t other64 = 0
    cdef real *shift = exp_scale + SHIFT * spacing
    cdef bint scaled = exp_scale[RATE * spacing] != 0
    for r in range(rows):
        shift[r] = 0 if needs_no_shift(highest[r] * inverse[r]) else highest[r]
    for r in range(rows):
        shift[r] = highest[r] if not HAS_FMA and scaled else shift[r]
    for r in range(rows):
        set_row_range(
            (highest[r] - shift[r]) * inverse[r], target_exponent(<real>0), True, exp_scale + r,
            spacing,
        )
    if scaled:
        return CENTERED_POW2
    for r in range(rows):
        if real is float:
            other32 |= bits32(shift[r])
        else:
            other64 |= bits64(shift[r])
    return CLAMPED if other32 == 0 and other64 == 0 else CENTERED


cdef inline real max_term_at(
    real highest, const real *exp_scale, Py_ssize_t spacing, exp_variant variant
) noexcept nogil:
    """Return the exponential of `highest`, of the row that `exp_scale` points to."""
    return scaled_exp(
        highest, exp_scale[SHIFT * spacing], exp_scale[RATE * spacing],
        exp_scale[RATE_LOW * spacing], exp_scale[LOW * spacing], exp_scale[HIGH * spacing],
        exp_scale[MAGIC * spacing], variant,
    )


cdef inline loop_void max_terms(
    const real *highest, const real *exp_scale, Py_ssize_t rows, Py_ssize_t spacing, out_ptr max_e
) noexcept nogil:
    """Write the exponential of each row's maximum; all have T = 1, or none has."""
    cdef Py_ssize_t r
    if exp_scale[RATE * spacing] != 0:
        for r in range(rows):
            max_e[r] = max_term_at(highest[r], exp_scale + r, spacing, <CenteredPow2>0)
    else:
        for r in range(rows):
            max_e[r] = max_term_at(highest[r], exp_scale + r, spacing, <Centered>0)


# ---- by a pivot ----------------------------------------------------------------------------------


cdef inline bint within_pivot_reach(
    const real *highest, Py_ssize_t rows, real pivot, real inverse
) noexcept nogil:
    """Return whether `pivot`, which is in range, serves all rows; `inverse` is 1/T."""
    return all_within(highest, rows, pivot, <real>0, <real>16 / inverse)


cdef inline void broadcast_scale(real pivot, real inverse, real *exp_scale) noexcept nogil:
    """Set what serves BATCH_ROWS rows by one `pivot`; the rates are set, `inverse` is 1/T."""
    cdef real low, high, magic
    cdef Py_ssize_t r
    set_exponent_range(
        pivot * inverse, pivot_exponent(pivot), False, exp_scale[RATE * BATCH_ROWS], &low, &high,
        &magic,
    )
    for r in range(BATCH_ROWS):
        exp_scale[LOW * BATCH_ROWS + r] = low
        exp_scale[HIGH * BATCH_ROWS + r] = high
        exp_scale[MAGIC * BATCH_ROWS + r] = magic
        exp_scale[SHIFT * BATCH_ROWS + r] = 0


cdef inline ExpVariant batch_variant(const real *exp_scale) noexcept nogil:
    """Return the variant for rows that have a pivot."""
    return CLAMPED_POW2 if exp_scale[RATE * BATCH_ROWS] != 0 else CLAMPED


cdef inline loop_int choose_scale(
    const real *highest, const real *inverse, Py_ssize_t rows, real *exp_scale, real *pivot
) noexcept nogil:
    """Choose `exp_scale`, and a new `pivot` where the old one does not serve; return the variant.

    If `pivot` is NaN, or none serves (then it becomes infinite), each row has its own K.
    """
    cdef real first_inverse = inverse[0]
    if pivot[0] == pivot[0]:
        if pivot_in_range(pivot[0], first_inverse) and within_pivot_reach(
            highest, rows, pivot[0], first_inverse
        ):
            return batch_variant(<const real *>exp_scale)
        pivot[0] = highest[0]
        if pivot_in_range(pivot[0], first_inverse) and within_pivot_reach(
            highest, rows, pivot[0], first_inverse
        ):
            broadcast_scale(pivot[0], first_inverse, exp_scale)
            return batch_variant(<const real *>exp_scale)
        pivot[0] = infinity(<real>0)
    return scales_from_maxima(highest, inverse, rows, exp_scale, BATCH_ROWS)


cdef inline bint reciprocals_in_range(const real *rate, Py_ssize_t rows) noexcept nogil:
    """Return whether the reciprocals of all sums show that no entry was too large or too small."""
    cdef real lowest = raised(<real>0) / max_invertible_sum(<real>0)
    # The largest of BATCH_ELEMENTS entries is 2**target_exponent and more.
    if real is float:
        return all_within(rate, rows, <real>0, lowest, power_of_two(RAISED - 36, <float>0))
    else:
        return all_within(rate, rows, <real>0, lowest, <double>1.3234889800848443e-23)  # 2**-76
