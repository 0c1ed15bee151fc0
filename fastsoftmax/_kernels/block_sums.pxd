# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A block of a row, in L1: its exponentials, their sum, and that of their distances from a maximum.

The sums are those of `logsumexp` (``sums.pxd``), with distances added in the same order.
"""

from fastsoftmax._kernels.block_maxima cimport CHUNK, count_blocks
from fastsoftmax._kernels.exp_blocks cimport exp_prefetching_loop
from fastsoftmax._kernels.exp_scale cimport Centered, CenteredPow2, ExpScale
from fastsoftmax._kernels.maxima cimport find_first, max_of_eight
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
    sum_of,
    sum_of_lanes,
    two_sum,
    zero,
)
from fastsoftmax._kernels.types cimport (
    fma,
    infinity,
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
    wide_void,
)

cdef struct Running:  # of the blocks so far
    double highest  # largest entry
    Py_ssize_t first  # its place
    DoubleDouble total  # of exponentials
    DoubleDouble rest  # without the largest entry's own
    DoubleDouble far  # of their products with distances from the largest entry


cdef inline noinline_void exp_of_part(
    const real *x, real *e, Py_ssize_t n, const ExpScale *exp_scale, const real *ahead
) noexcept nogil:
    """Write the exponentials of n elements, whole steps; bring as many, `ahead`, to L1."""
    wide_exp_of_part(x, e, n, exp_scale, ahead)


cdef inline wide_void wide_exp_of_part(
    const real *x, real *e, Py_ssize_t n, const ExpScale *exp_scale, const real *ahead
) noexcept nogil:
    """Do what `exp_of_part` does, which is there once."""
    if real is float:
        exp_centered(x, <out_ptr32>e, n, exp_scale, ahead)
    else:
        exp_centered(x, <out_ptr64>e, n, exp_scale, ahead)


cdef inline void exp_centered(
    const real *x, out_ptr e, Py_ssize_t n, const ExpScale *exp_scale, const real *ahead
) noexcept nogil:
    """Call the loop for the temperature of `exp_scale`. A shift of 0 changes nothing."""
    if exp_scale.rate != 0:
        exp_prefetching_loop(x, e, n, exp_scale, ahead, <CenteredPow2>0)
    else:
        exp_prefetching_loop(x, e, n, exp_scale, ahead, <Centered>0)


cdef inline void accumulate_both(
    out_ptr64 sums, out_ptr64 far, const real *x, const real *e, Py_ssize_t n, real highest,
    real farthest,
) noexcept nogil:
    """Add e, and e (highest - x), of n elements, whole steps, each to 8 lanes.

    Where that distance is `farthest` and more, e is 0. Of float64 the sums are left out.
    """
    cdef real a, b, c, d, p, q, r, s
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        for l in range(LANES):
            p = e[j + l]
            q = e[j + 8 + l]
            r = e[j + 16 + l]
            s = e[j + 24 + l]
            a = highest - x[j + l]
            b = highest - x[j + 8 + l]
            c = highest - x[j + 16 + l]
            d = highest - x[j + 24 + l]
            a = farthest if farthest < a else a
            b = farthest if farthest < b else b
            c = farthest if farthest < c else c
            d = farthest if farthest < d else d
            a = fma(q, b, p * a)
            c = fma(s, d, r * c)
            far[l] = sum_of(far[l], a + c)
            if real is float:
                sums[l] = sum_of(sums[l], (p + q) + (r + s))


cdef inline void zero_sums(LaneSums *lanes, double *far) noexcept nogil:
    """Set sums and distances to 0."""
    cdef Py_ssize_t l
    zero(lanes)
    for l in range(LANES):
        far[l] = 0


cdef inline noinline_void sum_part(
    LaneSums *lanes, double *far, const real *x, const real *e, Py_ssize_t n, real highest,
    real farthest,
) noexcept nogil:
    """Add exponentials of n elements, whole steps, and distances if `farthest` is above 0."""
    if farthest > 0:
        if highest == -infinity(<real>0):  # then all e are 0
            highest = 0
        accumulate_both(
            <out_ptr64>lanes.high, <out_ptr64>far, x, e, n, highest, farthest
        )
    if real is double or not farthest > 0:
        accumulate(lanes, e, n)


cdef inline double max_distance(double temperature, real like) noexcept nogil:
    """Return the distance from the maximum from which on exponentials are 0, in units of x."""
    return temperature * (1000 if real is float else 10000)


cdef inline real max_of_maxima(const real *maxima, Py_ssize_t n) noexcept nogil:
    """Return the largest of n block maxima, whole LANES."""
    cdef real lane[8]
    cdef Py_ssize_t j, l
    for l in range(LANES):
        lane[l] = maxima[l]
    for j from LANES <= j < n by LANES:
        for l in range(LANES):
            lane[l] = maxima[j + l] if maxima[j + l] > lane[l] else lane[l]
    return max_of_eight(lane)


cdef inline Py_ssize_t find_by_maxima(
    const real *x, Py_ssize_t n, const real *maxima, real highest
) noexcept nogil:
    """Return the first place of `highest` in a block by its block maxima, n if it is not there."""
    cdef Py_ssize_t i = find_first(maxima, count_blocks(n, CHUNK), highest)
    cdef Py_ssize_t start = min(i // LANES * CHUNK, n)
    return start + find_first(x + start, min(<Py_ssize_t>CHUNK, n - start), highest)


cdef inline wide_void add_block(
    Running *sums, const real *x, Py_ssize_t start, Py_ssize_t n, bint is_last,
    const real *maxima, const ExpScale *exp_scale, real farthest,
) noexcept nogil:
    """Add a block, which begins at `start` of the row, with its block `maxima`.

    Distances if `farthest` is above 0. Those of blocks before are from a maximum of then: where it
    rises, all of them grow alike, and nothing cancels.
    """
    cdef real e[BLOCK + 1]  # the last one takes the 0 of a block that has no `highest` (any more)
    cdef real tail[STEP]
    cdef double far[8]
    cdef LaneSums lanes
    cdef double before = sums.highest
    cdef real highest = max_of_maxima(maxima, count_blocks(n, CHUNK))
    cdef bint rises = highest > before
    cdef Py_ssize_t first, whole = round_to_step(n), w = whole
    e[0] = 0  # what gcc must be told
    exp_of_part(x, e, whole, exp_scale, x + BLOCK)
    if whole < n:
        pad(x + whole, tail, n - whole)
        exp_of_part(<const real *>tail, e + whole, STEP, exp_scale, <const real *>tail)
        w += STEP
    if rises:
        if before > -infinity(<double>0):
            two_sum(&sums.far, (highest - before) * (sums.total.high + sums.total.low))
        sums.highest = highest
        sums.rest = sums.total
        if not is_last:
            zero(&lanes)
            accumulate(&lanes, <const real *>e, w)
            fold_lanes(&sums.total, &lanes, <real>0)
        first = find_by_maxima(x, n, maxima, highest)
        sums.first = start + min(first, n - 1)  # another thread may write into the row
        e[first] = 0
    zero_sums(&lanes, far)
    highest = <real>sums.highest
    sum_part(&lanes, far, x, <const real *>e, whole, highest, farthest)
    if whole < n:
        sum_part(
            &lanes, far, <const real *>tail, <const real *>e + whole, STEP, highest, farthest
        )
    two_sum(&sums.far, sum_of_lanes(far))
    fold_lanes(&sums.rest, &lanes, <real>0)
    if not rises:
        fold_lanes(&sums.total, &lanes, <real>0)
