# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One pass over a row that adds up its weights and picks out what lies between two logits."""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.flush_to_zero cimport flush_to_zero, keep_subnormal
from fastsoftmax._kernels.histogram cimport Range
from fastsoftmax._kernels.marks cimport append_marked, count_marked, mark_and_sum, mark_within
from fastsoftmax._kernels.packed_row cimport is_shut, row_part
from fastsoftmax._kernels.sums cimport BLOCK, STEP, round_to_step
from fastsoftmax._kernels.types cimport largest_finite, real
from fastsoftmax._kernels.weights cimport (
    Prefix,
    keep_weights_above,
    softmax_weights,
    sum_lanes,
    weight_t,
)
from fastsoftmax._kernels.weights_f32 cimport (
    WeightScale,
    block_weights_f32,
    weigh_list,
    whole_steps,
)
from fastsoftmax._kernels.workspace cimport Workspace

cdef struct Nucleus:
    Prefix prefix
    double threshold_weight  # weight of what equals the threshold
    bint has_sums  # whether the sums and the list of `partition_pass` are in the workspace
    bint has_weights  # whether those of all of the row are, in float64
    bint is_listed  # whether what is near the threshold is in it; else all that is near equals it
    bint is_float32  # whether the weights are,
    WeightScale scale  # made with this,
    double total  # and have this sum over the row


cdef inline Py_ssize_t partition_pass(
    const real *x, Py_ssize_t n, double highest, double inverse, Range r, Workspace *work,
    Nucleus *found, double *above, weight_t like,
) noexcept nogil:
    """Leave what lies within r in `work`, and its weights, block by block; return how many.

    If r is one number, that is left once, and only counted. `work.maxima` gets, for each block, the
    mass above r and how many elements lie within r up to its end. Write the mass of all to `found`,
    and that above r. Weights are of the type of `like`, and so is what is left. -inf, which has no
    weight, is never left. Where room is wanting for the list, the pass ends.
    """
    cdef real low = max(<real>r.low, -largest_finite(<real>0))
    cdef real high = <real>r.high
    cdef weight_t *value = <weight_t *>work.value
    cdef double *sums = <double *>work.maxima
    cdef Py_ssize_t *ends = <Py_ssize_t *>work.maxima + (n + BLOCK - 1) // BLOCK
    cdef weight_t weight[BLOCK]
    cdef real padded[BLOCK]
    cdef uint64_t marks[BLOCK >> 6]
    cdef const real *block
    cdef double rest
    cdef Py_ssize_t start, b, size, whole, m = 0
    cdef unsigned int control = flush_to_zero(n if weight_t is float else 0)
    found.total = above[0] = 0
    for start from 0 <= start < n by BLOCK:
        b = start // BLOCK
        size = min(<Py_ssize_t>BLOCK, n - start)
        whole = round_to_step(size + STEP - 1)
        if is_shut(work.packed, start, size):
            sums[b] = 0
            ends[b] = m
            continue
        block = whole_steps(row_part(x, start, size, work.packed), size, padded)
        if weight_t is float:
            block_weights_f32(<const float *>block, weight, whole, &found.scale)
            mark_and_sum(
                <const float *>block, weight, whole, <float>low, <float>high, marks, sums + b,
                &rest, <uint32_t>0,
            )
            # Of what is above r and of the rest by themselves, so that the error of a weight in the
            # total is that in the sum above r.
            found.total += sums[b] + rest
        else:
            softmax_weights(block, weight, size, highest, inverse)
            found.total += sum_lanes(<const weight_t *>weight, size)
            keep_weights_above(block, weight, size, high)
            sums[b] = sum_lanes(<const weight_t *>weight, size)
            if real is float:
                mark_within(<const real *>block, whole, low, high, marks, <uint32_t>0)
            else:
                mark_within(<const real *>block, whole, low, high, marks, <uint64_t>0)
        if (
            low < high and m + whole + STEP > work.room
            and m + count_marked(<const uint64_t *>marks, whole) + STEP > work.room
        ):
            work.is_full = True
            break
        if low < high:
            m = append_marked(block, <const uint64_t *>marks, whole, m, value)
        else:
            m += count_marked(<const uint64_t *>marks, whole)
        above[0] += sums[b]
        ends[b] = m
    keep_subnormal(control)
    size = m
    if m == 0 or low >= high:
        value[0] = low
        size = 1
    weigh_list(value, <weight_t *>work.weight, size, highest, inverse, &found.scale)
    return m
