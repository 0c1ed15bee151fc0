# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Of a row that is read by blocks: its maximum, the sum of its exponentials, their mean distance.

Exponentials and the order of their sums are those of `logsumexp` (``row.pxd``, ``sums.pxd``). The
distance of an entry is (max - x) / T; distances are weighted by the exponentials and added in the
same order, in the row's own type up to four of them. At a temperature that is not
`temperature_in_range` exponentials and sums are float64.
"""

from fastsoftmax._kernels.abi cimport PackedRows, temperature_in_range
from fastsoftmax._kernels.exp_scale cimport ExpScale, inverse_temperature, max_term, scale_from_max
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.maxima cimport RowMax, find_first, init_max, row_max
from fastsoftmax._kernels.normalize cimport log1p_sums
from fastsoftmax._kernels.row cimport exp_of_block
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    LANES,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate,
    fold_lanes,
    pad,
    round_to_step,
    sum_of_lanes,
    two_sum,
    zero,
)
from fastsoftmax._kernels.types cimport (
    fma,
    infinity,
    noinline_void,
    not_a_number,
    out_ptr64,
    real,
    wide_void,
)
from fastsoftmax._kernels.weights cimport softmax_weights, sum_lanes

cdef struct RowBlocks:  # where a kernel reads a row
    const PackedRows *packed  # NULL: it lies as it is to be read
    Py_ssize_t row
    Py_ssize_t n

cdef struct RowSums:
    double log_sum  # log(sum of exp((x - max) / T))
    double distance  # the mean of (max - x) / T, by the exponentials


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


cdef inline noinline_void max_of_blocks(
    const real *x, const RowBlocks *blocks, RowMax *top
) noexcept nogil:
    """Write the maximum of a row, as `row_max`."""
    cdef RowMax of_block
    cdef real scratch[BLOCK]
    cdef Py_ssize_t start, m
    if blocks.packed == NULL:
        top[0] = row_max(x, blocks.n)
        return
    init_max(top)
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        of_block = row_max(block_of(x, blocks, start, m, False, scratch), m)
        if of_block.value > top.value:
            top.value = of_block.value
            top.block = start


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


# ---- loops over a block --------------------------------------------------------------------------


cdef inline void accumulate_distances(
    out_ptr64 lanes, const real *x, const real *e, Py_ssize_t n, real highest, real farthest
) noexcept nogil:
    """Add e (highest - x) of n elements, whole steps, to 8 lanes.

    Where that distance is `farthest` and more, e is 0.
    """
    cdef real a, b, c, d
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        for l in range(LANES):
            a = highest - x[j + l]
            b = highest - x[j + 8 + l]
            c = highest - x[j + 16 + l]
            d = highest - x[j + 24 + l]
            a = farthest if farthest < a else a
            b = farthest if farthest < b else b
            c = farthest if farthest < c else c
            d = farthest if farthest < d else d
            a = fma(e[j + 8 + l], b, e[j + l] * a)
            c = fma(e[j + 24 + l], d, e[j + 16 + l] * c)
            lanes[l] += a + c


cdef inline wide_void sum_block(
    const real *x, Py_ssize_t n, real highest, const ExpScale *exp_scale, bint with_max,
    real farthest, LaneSums *lanes, double *distances,
) noexcept nogil:
    """Write the lanes of a block's exponentials, without that of `highest` if `with_max`.

    Add their distances to 8 lanes unless `distances` is NULL.
    """
    cdef real e[BLOCK + 1]  # the last one takes the 0 of a block that has no `highest` (any more)
    cdef real tail[STEP]
    cdef Py_ssize_t w
    cdef Py_ssize_t whole = round_to_step(n)
    e[0] = 0  # what gcc must be told
    w = exp_of_block(x, e, n, exp_scale, <const real *>NULL)
    if with_max:
        e[find_first(x, n, highest)] = 0
    zero(lanes)
    accumulate(lanes, e, w)
    if distances == NULL:
        return
    accumulate_distances(<out_ptr64>distances, x, <const real *>e, whole, highest, farthest)
    if whole < n:
        pad(x + whole, tail, n - whole)
        accumulate_distances(
            <out_ptr64>distances, <const real *>tail, <const real *>e + whole, STEP, highest,
            farthest,
        )


cdef inline wide_void weigh_distances(
    const real *x, double *e, Py_ssize_t n, double highest, double inverse
) noexcept nogil:
    """Multiply the weights e of n elements by their distances; 0 stays."""
    cdef double distance
    cdef Py_ssize_t j
    for j in range(n):
        distance = e[j] * ((highest - x[j]) * inverse)
        e[j] = 0 if e[j] == 0 else distance


# ---- rows ----------------------------------------------------------------------------------------


cdef inline noinline_void sums_in_float64(
    const real *x, const RowBlocks *blocks, const RowMax *top, double temperature,
    bint with_distance, RowSums *sums,
) noexcept nogil:
    """Do what `row_sums` does by weights in float64, at any temperature above 0."""
    cdef real scratch[BLOCK]
    cdef double e[BLOCK + 1]
    cdef const real *block
    cdef double inverse = inverse_temperature(temperature, <double>0)
    cdef double highest = top.value
    cdef double rest = 0, distance = 0
    cdef Py_ssize_t start, m
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        softmax_weights(block, e, m, highest, inverse)
        if start == top.block:
            e[find_first(block, m, <real>highest)] = 0
        rest += sum_lanes(<const double *>e, m)
        if with_distance:
            weigh_distances(block, e, m, highest, inverse)
            distance += sum_lanes(<const double *>e, m)
    sums.log_sum = log1p_nonneg(rest)
    sums.distance = distance / (1 + rest)
    if inverse == 0 and has_nan(x, blocks, scratch):  # whose weight is 0 then
        sums.log_sum = sums.distance = not_a_number(<double>0)


cdef inline noinline_void sums_in_range(
    const real *x, const RowBlocks *blocks, const RowMax *top, double temperature,
    bint with_distance, RowSums *sums,
) noexcept nogil:
    """Do what `row_sums` does for a `temperature_in_range`, or 0."""
    cdef real scratch[BLOCK]
    cdef double distances[8]
    cdef const real *block
    cdef LaneSums lanes
    cdef DoubleDouble s, far
    cdef ExpScale exp_scale
    cdef real max_e, highest = <real>top.value
    cdef real farthest = <real>(temperature * (1000 if real is float else 10000))
    cdef Py_ssize_t start, m, l
    cdef double total
    if temperature == 0:
        sums.log_sum = sums.distance = 0
        if has_nan(x, blocks, scratch):
            sums.log_sum = not_a_number(<double>0)
        return
    exp_scale = scale_from_max(highest, temperature)
    max_e = max_term(highest, &exp_scale)
    s.high = s.low = far.high = far.low = 0
    for start from 0 <= start < blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, blocks.n - start)
        block = block_of(x, blocks, start, m, False, scratch)
        for l in range(8):
            distances[l] = 0
        sum_block(
            block, m, highest, &exp_scale, start == top.block, farthest, &lanes,
            distances if with_distance else NULL,
        )
        fold_lanes(&s, &lanes, <real>0)
        if with_distance:
            two_sum(&far, sum_of_lanes(distances))
    log1p_sums(&s, &max_e, 1, &sums.log_sum)
    total = (s.high + s.low) + max_e
    sums.distance = (far.high + far.low) / (temperature * total)
    if not total < infinity(<double>0):
        sums.log_sum = sums.distance = not_a_number(<double>0)


cdef inline void row_sums(
    const real *x, const RowBlocks *blocks, const RowMax *top, double temperature,
    bint with_distance, RowSums *sums,
) noexcept nogil:
    """Write the sums of a row whose maximum `top` is finite; NaN where it has a NaN.

    The distance is 0 if not `with_distance`.
    """
    # Beyond 1e20 distances times exponentials might be too large for float32.
    if temperature == 0 or temperature_in_range(temperature) and (
        temperature <= 1e20 or not with_distance
    ):
        sums_in_range(x, blocks, top, temperature, with_distance, sums)
    else:
        sums_in_float64(x, blocks, top, temperature, with_distance, sums)
