# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Of a row that is read by blocks: maximum, sum of exponentials, their mean distance from it.

Exponentials and the order of their sums are those of `logsumexp` (``sums.pxd``). The distance of an
entry is (max - x) / T; distances are weighted by the exponentials and added in the same order, in
the row's own type up to four of them. At a temperature that is not `temperature_in_range`
exponentials and sums are float64.

A block is read once: its block maxima (``block_maxima.pxd``), exponentials and sums come one after
the other while it is in L1. The first block's maximum is the pivot of all exponentials.
"""

from fastsoftmax._kernels.abi cimport PackedRows, temperature_in_range
from fastsoftmax._kernels.block_maxima cimport CHUNK, block_maxima, count_blocks
from fastsoftmax._kernels.block_sums cimport (
    Running,
    add_block,
    find_by_maxima,
    max_distance,
    max_of_maxima,
)
from fastsoftmax._kernels.exp_scale cimport (
    ExpScale,
    inverse_temperature,
    max_term,
    pivot_in_range,
    scale_from_max,
    scale_from_pivot,
    target_exponent,
)
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.normalize cimport log1p_sums, pivot_kept_precision
from fastsoftmax._kernels.sums cimport BLOCK, LANES, STEP
from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    infinity,
    noinline_void,
    not_a_number,
    real,
    wide_void,
)
from fastsoftmax._kernels.weights cimport softmax_weights, sum_lanes

cdef enum:
    MAX_ABOVE_PIVOT = 40  # of a maximum: 58 powers of 2 above `target_exponent`
    MAXIMA_OF_BLOCK = 64  # of BLOCK elements
    MAX_PIVOT_TEMPERATURE = 1 << 20  # those, and distances, are no more than float32 has

cdef struct RowBlocks:  # where a kernel reads a row
    const PackedRows *packed  # NULL: it lies as it is to be read
    Py_ssize_t row
    Py_ssize_t n

cdef struct RowSums:
    double highest  # the largest entry; NaN is passed over
    Py_ssize_t first  # its first place
    double log_sum  # log(sum of exp((x - max) / T))
    double distance  # the mean of (max - x) / T, by the exponentials
    bint with_nan
    bint done


cdef inline const real *block_of(
    const real *x, const RowBlocks *blocks, Py_ssize_t start, Py_ssize_t n, bint second,
    real *scratch,
) noexcept nogil:
    """Return n elements, BLOCK at most, of a row from `start` on, or of the `second` input's."""
    if blocks.packed == NULL:
        return x + start
    if second:
        blocks.packed.load_x2(blocks.packed, blocks.row, start, n, scratch)
    else:
        blocks.packed.load(blocks.packed, blocks.row, start, n, scratch)
    return scratch


cdef inline bint has_nan(const real *x, const RowBlocks *blocks, real *scratch) noexcept nogil:
    """Return whether a row has a NaN; `scratch` is for a BLOCK."""
    cdef const real *block
    cdef Py_ssize_t start, j, m
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        for j in range(m):
            if block[j] != block[j]:
                return True
    return False


cdef inline bint is_finite(double x) noexcept nogil:
    """Return whether x is neither infinite nor NaN."""
    return -infinity(<double>0) < x < infinity(<double>0)


# ---- a row, block by block -----------------------------------------------------------------------


cdef inline noinline_void maxima_of_part(
    const real *x, Py_ssize_t n, real *maxima, real *sums
) noexcept nogil:
    """Write block maxima, and `sums` unless that is NULL."""
    block_maxima(x, n, CHUNK, maxima, sums)


cdef inline noinline_void sums_by_blocks(
    const real *x, const RowBlocks *blocks, real *maxima, double temperature, double highest,
    bint with_distance, RowSums *sums,
) noexcept nogil:
    """Do what `row_sums` does for a `temperature_in_range`, by the maximum `highest` of the row.

    If that is NaN, it is found meanwhile, and the first block's maximum is the pivot; where none
    serves, `done` is False.
    """
    cdef real scratch[BLOCK]
    cdef real own[MAXIMA_OF_BLOCK]
    cdef real pivot = 0, max_e
    cdef real farthest = 0
    cdef real inverse = inverse_temperature(temperature, <real>0)
    cdef const real *block
    cdef real *here = own
    cdef Running running
    cdef ExpScale exp_scale
    cdef double total
    cdef Py_ssize_t start, m
    cdef bint by_pivot = highest != highest and blocks.n > BLOCK
    sums.done = False
    running.highest = -infinity(<double>0)
    running.first = 0
    running.total.high = running.total.low = running.rest.high = running.rest.low = 0
    running.far.high = running.far.low = 0
    if with_distance:
        farthest = <real>max_distance(temperature, <real>0)
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        if maxima != NULL:
            here = maxima + start // CHUNK * LANES
        maxima_of_part(block, m, here, <real *>NULL)
        if start == 0 or by_pivot:
            max_e = max_of_maxima(<const real *>here, count_blocks(m, CHUNK))
            if not by_pivot:
                highest = highest if highest == highest else max_e
                if not is_finite(highest):
                    return
                exp_scale = scale_from_max(<real>highest, temperature)
            elif start == 0:
                pivot = max_e
                if not (
                    pivot_in_range(pivot, inverse) and temperature <= MAX_PIVOT_TEMPERATURE
                    and (HAS_FMA or temperature == 1)
                ):
                    return
                exp_scale = scale_from_pivot(pivot, temperature, target_exponent(pivot), False)
            elif not (max_e - pivot) * inverse < MAX_ABOVE_PIVOT:
                return
        add_block(
            &running, block, start, m, start + m == blocks.n, <const real *>here, &exp_scale,
            farthest,
        )
    max_e = max_term(<real>running.highest, &exp_scale)
    log1p_sums(&running.rest, &max_e, 1, &sums.log_sum)
    total = (running.rest.high + running.rest.low) + max_e
    if not total < infinity(<double>0):  # with NaN
        return
    if by_pivot and not pivot_kept_precision(&sums.log_sum, 1):
        return
    sums.highest = running.highest
    sums.first = running.first
    sums.distance = (running.far.high + running.far.low) / (temperature * total)
    sums.done = True


# ---- temperatures out of range -------------------------------------------------------------------


cdef inline wide_void weigh_distances(
    const real *x, double *e, Py_ssize_t n, double highest, double inverse
) noexcept nogil:
    """Multiply the weights e of n elements by their distances; 0 stays."""
    cdef double distance
    cdef Py_ssize_t j
    for j in range(n):
        distance = e[j] * ((highest - x[j]) * inverse)
        e[j] = 0 if e[j] == 0 else distance


cdef inline noinline_void sums_in_float64(
    const real *x, const RowBlocks *blocks, double temperature, bint with_distance, RowSums *sums
) noexcept nogil:
    """Do what `row_sums` does by weights in float64, at any temperature; the maximum is there."""
    cdef real scratch[BLOCK]
    cdef double e[BLOCK + 1]
    cdef const real *block
    cdef double inverse = inverse_temperature(temperature, <double>0)
    cdef double rest = 0, distance = 0
    cdef Py_ssize_t start, m
    if temperature == 0:
        sums.log_sum = sums.distance = 0
        return
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        softmax_weights(block, e, m, sums.highest, inverse)
        if start <= sums.first < start + m:
            e[sums.first - start] = 0
        rest += sum_lanes(<const double *>e, m)
        if with_distance:
            weigh_distances(block, e, m, sums.highest, inverse)
            distance += sum_lanes(<const double *>e, m)
    sums.log_sum = log1p_nonneg(rest)
    sums.distance = distance / (1 + rest)


# ---- rows ----------------------------------------------------------------------------------------


cdef inline void maximum_of_row(
    const real *x, const RowBlocks *blocks, real *maxima, RowSums *sums
) noexcept nogil:
    """Write the maximum of a row and its first place, and whether there is a NaN.

    And the block maxima unless `maxima` is NULL.
    """
    cdef real scratch[BLOCK]
    cdef real own[MAXIMA_OF_BLOCK]
    cdef real partial[STEP]
    cdef real high
    cdef real *here = own
    cdef const real *block
    cdef Py_ssize_t start, m, l
    cdef bint suspect = False
    sums.highest = -infinity(<double>0)
    sums.first = 0
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        if maxima != NULL:
            here = maxima + start // CHUNK * LANES
        maxima_of_part(block, m, here, partial)
        for l in range(STEP):
            suspect |= partial[l] != partial[l]
        high = max_of_maxima(<const real *>here, count_blocks(m, CHUNK))
        if high > sums.highest:
            sums.highest = high
            sums.first = start + min(
                find_by_maxima(block, m, <const real *>here, high), m - 1
            )
    # NaN, or +inf, from an overflow, perhaps, and -inf
    sums.with_nan = suspect and has_nan(x, blocks, scratch)


cdef inline noinline_void row_sums(
    const real *x, const RowBlocks *blocks, real *maxima, double temperature, bint with_sums,
    bint with_distance, RowSums *sums,
) noexcept nogil:
    """Write the maximum of a row and, if `with_sums`, its sums, the distance if `with_distance`.

    Those are NaN where the maximum is not finite, or there is a NaN. Write the block maxima, too,
    unless `maxima` is NULL.
    """
    # Beyond 1e20 distances times exponentials might be too large for float32.
    cdef bint ordinary = temperature_in_range(temperature) and (
        temperature <= 1e20 or not with_distance
    )
    sums.with_nan = False
    if with_sums and ordinary:
        sums_by_blocks(
            x, blocks, maxima, temperature, not_a_number(<double>0), with_distance, sums
        )
        if sums.done:
            return
    maximum_of_row(x, blocks, maxima, sums)
    sums.log_sum = sums.distance = not_a_number(<double>0)
    if not with_sums or sums.with_nan or not is_finite(sums.highest):
        return
    if ordinary:
        sums_by_blocks(x, blocks, maxima, temperature, sums.highest, with_distance, sums)
        if not sums.done:  # another thread has written into the row
            sums.log_sum = sums.distance = not_a_number(<double>0)
    else:
        sums_in_float64(x, blocks, temperature, with_distance, sums)
