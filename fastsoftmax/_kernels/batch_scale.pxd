# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What the exponentials of a batch of rows, or of columns, are made with, and whether it served.

`exp_scale` has `spacing` numbers of each kind; where there is no `spacing`, BATCH_ROWS.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.exp_scale cimport (
    CENTERED,
    CENTERED_POW2,
    CLAMPED,
    CLAMPED_POW2,
    HIGH,
    LOW,
    MAGIC,
    RATE,
    SCALE_FIELDS,
    SHIFT,
    Centered,
    CenteredPow2,
    ExpVariant,
    max_invertible_sum,
    max_term_at,
    needs_no_shift,
    pivot_exponent,
    pivot_in_range,
    set_exponent_range,
    target_exponent,
)
from fastsoftmax._kernels.normalize cimport all_within
from fastsoftmax._kernels.types cimport HAS_FMA, bits32, bits64, infinity, out_ptr, real

cdef enum:
    BATCH_ROWS = 64  # most rows of a group: GROUP // STEP


cdef inline ExpVariant scales_from_maxima(
    const real *highest, const real *inverse, Py_ssize_t rows, real *exp_scale, Py_ssize_t spacing
) noexcept nogil:
    """set_how for each row, in loops without branches; return what serves all.

    They have T = 1, all or none.
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
        set_exponent_range((highest[r] - shift[r]) * inverse[r], target_exponent(<real>0), True, exp_scale + r, spacing)
    if scaled:
        return CENTERED_POW2
    for r in range(rows):
        if real is float:
            other32 |= bits32(shift[r])
        else:
            other64 |= bits64(shift[r])
    return CLAMPED if other32 == 0 and other64 == 0 else CENTERED


cdef inline void max_terms(
    const real *highest, const real *exp_scale, Py_ssize_t rows, Py_ssize_t spacing, out_ptr max_e
) noexcept nogil:
    """Write the exponential of each row's largest entry; they have T = 1, all or none."""
    cdef Py_ssize_t r
    if exp_scale[RATE * spacing] != 0:
        for r in range(rows):
            max_e[r] = max_term_at(highest[r], exp_scale + r, spacing, <CenteredPow2>0)
    else:
        for r in range(rows):
            max_e[r] = max_term_at(highest[r], exp_scale + r, spacing, <Centered>0)

# One K serves all rows of one temperature whose largest elements are not far from its `pivot`.
# What the rows of a group have had in common serves the next ones, too: then softmax needs no
# maxima, as the sums show whether it did.


cdef inline bint within_pivot_reach(
    const real *highest, Py_ssize_t rows, real pivot, real inverse
) noexcept nogil:
    """Tell whether `pivot`, if guessable, serves all rows."""
    return all_within(highest, rows, pivot, <real>0, <real>16 / inverse)


cdef inline void broadcast_scale(real pivot, real inverse, real *exp_scale) noexcept nogil:
    """Set what serves ROWS rows of a reference and the temperature that is set."""
    cdef real one[SCALE_FIELDS]
    cdef Py_ssize_t r
    one[RATE] = exp_scale[RATE * BATCH_ROWS]
    set_exponent_range(pivot * inverse, pivot_exponent(pivot), False, one, 1)
    for r in range(BATCH_ROWS):
        exp_scale[LOW * BATCH_ROWS + r] = one[LOW]
        exp_scale[HIGH * BATCH_ROWS + r] = one[HIGH]
        exp_scale[MAGIC * BATCH_ROWS + r] = one[MAGIC]
        exp_scale[SHIFT * BATCH_ROWS + r] = 0


cdef inline ExpVariant batch_variant(const real *exp_scale) noexcept nogil:
    """Return what serves rows that have a reference."""
    return CLAMPED_POW2 if exp_scale[RATE * BATCH_ROWS] != 0 else CLAMPED


cdef inline ExpVariant choose_scale(
    const real *highest, const real *inverse, Py_ssize_t rows, real *exp_scale, real *pivot
) noexcept nogil:
    """Choose `exp_scale`, and the reference if there is one; return what serves all.

    There is none, and each row has its own K, if `pivot` is NaN.
    """
    cdef real each = inverse[0]
    if pivot[0] == pivot[0]:
        if pivot_in_range(pivot[0], each) and within_pivot_reach(highest, rows, pivot[0], each):
            return batch_variant(<const real *>exp_scale)
        pivot[0] = highest[0]
        if pivot_in_range(pivot[0], each) and within_pivot_reach(highest, rows, pivot[0], each):
            broadcast_scale(pivot[0], each, exp_scale)
            return batch_variant(<const real *>exp_scale)
        pivot[0] = infinity(<real>0)
    return scales_from_maxima(highest, inverse, rows, exp_scale, BATCH_ROWS)


cdef inline bint reciprocals_in_range(const real *rate, Py_ssize_t rows) noexcept nogil:
    """Tell whether the reciprocals of all sums show that no entry was too large or too small."""
    cdef real least = 1 / max_invertible_sum(<real>0)
    if real is float:  # the largest of GROUP entries is 2**lift() and more
        return all_within(rate, rows, <real>0, least, <float>1.4551915228366852e-11)  # 2**-36
    else:
        return all_within(rate, rows, <real>0, least, <double>1.3234889800848443e-23)  # 2**-76
