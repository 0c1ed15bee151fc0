# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One pass over a row that adds up its weights and picks out what lies between two logits."""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.block_maxima cimport STEP, count_equal
from fastsoftmax._kernels.block_select cimport Workspace, lane
from fastsoftmax._kernels.histogram cimport Range
from fastsoftmax._kernels.maxima cimport find_first
from fastsoftmax._kernels.sums cimport BLOCK, LaneSums, round_to_step
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.weights cimport (
    Prefix,
    keep_weights_above,
    softmax_weights,
    sum_lanes,
    weight_t,
)
from fastsoftmax._kernels.weights_f32 cimport WeightScale, block_weights_f32, fold, whole_steps

cdef extern from *:
    int count_bits "__builtin_popcount"(uint32_t mask) noexcept nogil
    uint64_t lowest_bit64 "__builtin_ctzll"(uint64_t mask) noexcept nogil

cdef enum:
    FEW_HITS = 3  # elements of a step that are written without a branch

cdef struct Nucleus:
    Prefix prefix
    double threshold_weight  # weight of what equals the threshold
    bint has_sums  # whether the sums and the list of `partition_pass` are in the workspace
    bint is_listed  # whether what is near the threshold is in it; else all that is near equals it
    bint is_float32  # whether the weights are,
    WeightScale scale  # made with this,
    double total  # and have this sum over the row


cdef inline void sum_all_and_above(
    const float *x, const float *e, Py_ssize_t n, float high, double *total, double *above
) noexcept nogil:
    """Add up whole steps of weights, and those of them where x is above `high`."""
    cdef LaneSums lanes
    cdef double every[8]
    cdef double some[8]
    cdef float a, b, c, d
    cdef Py_ssize_t j, l
    for l in range(8):
        every[l] = some[l] = 0
    for j from 0 <= j < n by STEP:
        for l in range(8):
            a = e[j + l]
            b = e[j + 8 + l]
            c = e[j + 16 + l]
            d = e[j + 24 + l]
            every[l] += (a + b) + (c + d)
            a = a if x[j + l] > high else 0
            b = b if x[j + 8 + l] > high else 0
            c = c if x[j + 16 + l] > high else 0
            d = d if x[j + 24 + l] > high else 0
            some[l] += (a + b) + (c + d)
    for l in range(8):
        lanes.high[l] = every[l]
    total[0] += fold(&lanes)
    for l in range(8):
        lanes.high[l] = some[l]
    above[0] = fold(&lanes)


cdef inline uint32_t within_mask(const real *x, real low, real high, lane zero) noexcept nogil:
    """Return which of STEP elements are within these bounds, a bit for each."""
    cdef lane mask = zero
    cdef int l
    for l in range(STEP):
        mask |= <lane>((x[l] >= low) & (x[l] <= high)) << <lane>l
    return <uint32_t>mask


cdef inline Py_ssize_t append_within(
    const real *x, const weight_t *weight, Py_ssize_t n, real low, real high, Py_ssize_t m,
    weight_t *value, weight_t *mass,
) noexcept nogil:
    """Append what is within these bounds to the m elements in `value` and `mass`.

    x and `weight` have n elements, and whole steps. Return how many there are then.
    """
    cdef Py_ssize_t j, l, hits
    cdef uint64_t mask, i
    for j from 0 <= j < n by STEP:
        if real is float:
            mask = within_mask(x + j, low, high, <uint32_t>0)
        else:
            mask = within_mask(x + j, low, high, <uint64_t>0)
        if n - j < STEP:
            mask &= (<uint64_t>1 << (n - j)) - 1
        hits = count_bits(<uint32_t>mask)
        mask |= <uint64_t>7 << 61  # so that there is a lowest bit
        for l in range(FEW_HITS):  # without a branch, which could not be predicted
            i = lowest_bit64(mask) & 31
            value[m + l] = <weight_t>x[j + i]
            mass[m + l] = weight[j + i]
            mask &= mask - 1
        if hits > FEW_HITS:
            for l in range(FEW_HITS, hits):
                i = lowest_bit64(mask)
                value[m + l] = <weight_t>x[j + i]
                mass[m + l] = weight[j + i]
                mask &= mask - 1
        m += hits
    return m


cdef inline Py_ssize_t partition_pass(
    const real *x, Py_ssize_t n, double highest, double inverse, Range r, Workspace *work,
    Nucleus *found, double *above, weight_t like,
) noexcept nogil:
    """Leave what lies within r in `work`, and its weights, in index order; return how many.

    If r is one number, they are only counted, and one is weighed. `work.maxima` gets, for each
    block, the mass above r and how many elements lie within r up to its end. Write the mass of all
    to `found`, and that above r. Weights are of the type of `like`, and so is what is left.
    """
    cdef real low = <real>r.low
    cdef real high = <real>r.high
    cdef weight_t *value = <weight_t *>work.value
    cdef weight_t *mass = <weight_t *>work.weight
    cdef double *sums = <double *>work.maxima
    cdef Py_ssize_t *ends = <Py_ssize_t *>work.maxima + (n + BLOCK - 1) // BLOCK
    cdef weight_t weight[BLOCK]
    cdef real padded[BLOCK]
    cdef const real *block
    cdef Py_ssize_t start, b, i, size, count, m = 0
    found.total = above[0] = 0
    for start from 0 <= start < n by BLOCK:
        b = start // BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        block = whole_steps(x + start, size, padded)
        if weight_t is float:
            i = round_to_step(size + STEP - 1)
            block_weights_f32(<const float *>block, weight, i, &found.scale)
            sum_all_and_above(
                <const float *>block, weight, i, <float>high, &found.total, sums + b
            )
        else:
            softmax_weights(block, weight, size, highest, inverse)
            found.total += sum_lanes(<const weight_t *>weight, size)
        if low < high:
            m = append_within(
                block, <const weight_t *>weight, size, low, high, m, value, mass
            )
        else:
            count = count_equal(block, size, low)
            if count > 0 and m == 0:
                mass[0] = weight[min(size - 1, find_first(block, size, low))]
            m += count
        if weight_t is double:
            keep_weights_above(block, weight, size, high)
            sums[b] = sum_lanes(<const weight_t *>weight, size)
        above[0] += sums[b]
        ends[b] = m
    return m
