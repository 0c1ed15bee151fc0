# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What the filters leave of a row, as conditions on an element and its index; its mass."""

from fastsoftmax._kernels.abi cimport Filters
from fastsoftmax._kernels.block_maxima cimport CHUNK, count_equal
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.nucleus cimport sum_nucleus
from fastsoftmax._kernels.packed_row cimport PackedRow, row_element, row_part
from fastsoftmax._kernels.partition cimport Nucleus
from fastsoftmax._kernels.row_maximum cimport max_and_block_maxima
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.truncation cimport apply_filters, has_filters
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.weights cimport softmax_weights, sum_blocks, sum_in_order, sum_lanes
from fastsoftmax._kernels.weights_f32 cimport (
    WeightScale,
    fits_float32,
    set_weight_scale,
    total_error,
    weights_f32_by_block,
)
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum Form:  # how the filters left a row
    LISTED  # in the workspace, with weights, in index order
    NUCLEUS  # a threshold, with what the pass that found it has left in the workspace
    WHOLE

cdef struct Kept:
    # An element is kept if it is above `threshold`, or equals it and lies before `ties_end`; and
    # lies before `end`. Its weight is exp((x - highest) * inverse).
    double threshold
    Py_ssize_t ties_end
    Py_ssize_t end
    double highest
    double inverse
    double total  # sum of the weights
    double error  # by what share of it that may be off
    Form form
    Py_ssize_t count  # of what is LISTED
    Nucleus nucleus


cdef inline Py_ssize_t end_of_ties(
    const real *x, Py_ssize_t n, real threshold, Py_ssize_t ties, PackedRow *packed
) noexcept nogil:
    """Return where the first `ties` elements end that equal `threshold`."""
    cdef const real *part
    cdef Py_ssize_t start, size, found, i
    if ties <= 0:
        return 0
    for start from 0 <= start < n by BLOCK:
        size = min(<Py_ssize_t>BLOCK, n - start)
        part = row_part(x, start, size, packed)
        found = count_equal(part, size, threshold)
        if found >= ties:
            for i in range(size):
                ties -= part[i] == threshold
                if ties == 0:
                    return start + i + 1
        ties -= found
    return n


cdef inline void describe_list(const real *x, Kept *kept, Workspace *work) noexcept nogil:
    """Set the conditions and the total of what is LISTED in `work`."""
    cdef const real *value = <const real *>work.value
    cdef real v, least = infinity(<real>0)
    cdef double *sums = <double *>work.masses
    cdef Py_ssize_t i
    for i in range(kept.count):
        # At T = inf the list has no logits.
        v = value[i] if kept.inverse > 0 else row_element(x, work.index[i], work.packed)
        if v <= least:
            least = v
            kept.ties_end = work.index[i] + 1
    kept.threshold = least
    if kept.inverse == 0 and kept.count > 0:
        kept.end = work.index[kept.count - 1] + 1
    sum_blocks(work.weight, kept.count, sums)
    kept.total = sum_in_order(sums, (kept.count + BLOCK - 1) // BLOCK)


cdef inline double weigh(
    const real *x, Py_ssize_t n, const Kept *kept, double *sums, PackedRow *packed
) noexcept nogil:
    """Write the sum of each block's weights that are kept; return their sum: in float64."""
    cdef double weight[BLOCK]
    cdef double total = 0
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        if start > 0 and start % LOOK_INTERVAL == 0 and stopped(LOOK_INTERVAL):
            break
        m = min(<Py_ssize_t>BLOCK, n - start)
        kept_weights(row_part(x, start, m, packed), start, m, kept, weight)
        sums[start // BLOCK] = sum_lanes(<const double *>weight, m)
        total += sums[start // BLOCK]
    return total


cdef inline void make_total_exact(
    const real *x, Py_ssize_t n, Kept *kept, double *sums, PackedRow *packed
) noexcept nogil:
    """Sum the weights in float64, unless they are."""
    if kept.error > 0:
        kept.total = weigh(x, n, kept, sums, packed)
        kept.error = 0


cdef inline void sum_kept(
    const real *x, Py_ssize_t n, Kept *kept, Workspace *work
) noexcept nogil:
    """Set the total of what is no list: in float32 for float32, if that may serve."""
    cdef WeightScale scale
    cdef double *sums = <double *>work.maxima
    cdef const Nucleus *left = &kept.nucleus
    kept.error = 0
    if kept.form == NUCLEUS and left.has_sums:
        kept.total = sum_nucleus(n, left, work)
        if left.is_float32:
            # Twice the bound: what lies at the threshold has been added up by itself.
            kept.error = 2 * total_error(&left.scale, n, kept.total)
            kept.total /= left.scale.max_weight
        return
    if real is float:
        if fits_float32(kept.inverse) and (kept.form != NUCLEUS or left.prefix.ties == 0):
            set_weight_scale(kept.highest, kept.inverse, &scale)
            kept.total = weights_f32_by_block(
                x, n, &scale, &left.prefix if kept.form == NUCLEUS else NULL, sums, work.packed
            )
            kept.error = 2 * total_error(&scale, n, kept.total)
            kept.total /= scale.max_weight
            return
    kept.total = weigh(x, n, kept, sums, work.packed)


cdef inline bint read_row(
    const real *x, Py_ssize_t n, const Filters *f, Workspace *work, Kept *kept
) noexcept nogil:
    """Find what the filters, at T > 0, leave of a row; return False if it has no probabilities.

    What is found is of no use if the workspace is full. Of what is not LISTED the total is not set.
    """
    kept.highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima, work.packed)
    if kept.highest != kept.highest:
        return False
    kept.inverse = inverse_temperature(f.temperature, <double>0)
    kept.threshold = -infinity(<double>0)
    kept.ties_end = 0
    kept.end = n
    kept.error = 0
    kept.count = 0
    kept.form = WHOLE
    if not has_filters(f, n):
        return True
    kept.count = apply_filters(x, n, kept.highest, f, work, &kept.nucleus)
    if work.is_full:
        return True
    kept.form = LISTED if kept.count >= 0 else NUCLEUS
    if kept.form == LISTED:
        describe_list(x, kept, work)
    else:
        kept.nucleus.has_weights = False  # the workspace is for several rows
        kept.threshold = kept.nucleus.prefix.threshold
        kept.ties_end = end_of_ties(
            x, n, <real>kept.threshold, kept.nucleus.prefix.ties, work.packed
        )
    return True


cdef inline bint is_kept(double v, Py_ssize_t i, const Kept *kept) noexcept nogil:
    """Return whether the element v at i is kept."""
    return i < kept.end and (v > kept.threshold or v == kept.threshold and i < kept.ties_end)


cdef inline double kept_weight(double v, Py_ssize_t i, const Kept *kept) noexcept nogil:
    """Return the weight of the element v at i: 0 if it is not kept."""
    if not (is_kept(v, i, kept) and v > -infinity(<double>0)):
        return 0
    if kept.inverse == 0:
        return 1
    return exp_nonpositive((v - kept.highest) * kept.inverse, exp_underflow_bound(<double>0))


cdef inline void kept_weights(
    const real *x, Py_ssize_t start, Py_ssize_t n, const Kept *kept, double *weight
) noexcept nogil:
    """Write the weights of n elements of a row from `start` on: 0 where they are not kept."""
    cdef real threshold = <real>kept.threshold
    cdef Py_ssize_t ties = max(<Py_ssize_t>0, min(n, kept.ties_end - start))
    cdef Py_ssize_t end = max(<Py_ssize_t>0, min(n, kept.end - start))
    cdef double w
    cdef Py_ssize_t j
    softmax_weights(x, weight, n, kept.highest, kept.inverse)
    for j in range(ties):
        w = weight[j]  # read in any case: a vector
        weight[j] = w if x[j] >= threshold else 0
    for j in range(ties, n):
        w = weight[j]
        weight[j] = w if x[j] > threshold else 0
    for j in range(end, n):
        weight[j] = 0
