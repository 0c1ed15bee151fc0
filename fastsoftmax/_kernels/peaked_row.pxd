# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The nucleus of a row whose mass few blocks hold: listed by the block maxima.

One pass adds coarse weights up, by blocks. From these sums and the block maxima follows about which
logit the mass reaches; what is above it is listed, and weighed in float64. The coarse sum of the
others, the list's own coarse weights subtracted, bounds the row's mass. Where the nucleus would not
be the same anywhere within the bounds, which is rare, more exact sums decide.
"""

from libc.math cimport log, sqrt

from fastsoftmax._kernels.block_maxima cimport CHUNK, LANES, count_blocks
from fastsoftmax._kernels.coarse cimport (
    CoarseScale,
    coarse_scale,
    coarse_sum,
    coarse_sums,
    sum_error,
)
from fastsoftmax._kernels.mass_prefix cimport Target
from fastsoftmax._kernels.short_list cimport compact_at_least
from fastsoftmax._kernels.sums cimport STEP, round_to_step
from fastsoftmax._kernels.types cimport largest_finite, real
from fastsoftmax._kernels.weights cimport softmax_weights, sum_lanes
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    LOOP = 16  # numbers that a loop takes at once
    HALVINGS = 6  # of the interval in which the list's least weight is looked for
    ATTEMPTS = 3  # at a list that has the mass
    MOST_SHARE = 32  # the part of a row that makes a list take longer than a nucleus by a sample
    MIN_MOST = 2048  # elements that do not, in any row

cdef enum Peak:  # what part of the blocks reaches into the nucleus
    FLAT  # too many for a list
    BROAD
    SHARP  # so few that the least exact weights serve


cdef inline float lesser_weight() noexcept nogil:
    """Return what an element of a block that is below the list weighs on average, about.

    In units of the list's least weight.
    """
    return 0.1


cdef inline double mass_reaching(
    const real *weight, const float *sums, Py_ssize_t n, float least, float factor
) noexcept nogil:
    """Return about what mass the elements have that weigh at least `least`, by n blocks.

    These are whole steps, with the sums of their weights divided by `factor`.
    """
    cdef float lane[LOOP]
    cdef float rest = least * lesser_weight() * (CHUNK // LANES)
    cdef float w, s
    cdef double total = 0
    cdef Py_ssize_t j, l
    for l in range(LOOP):
        lane[l] = 0
    for j from 0 <= j < n by LOOP:
        for l in range(LOOP):
            w = <float>weight[j + l]
            s = sums[j + l] * factor - rest
            s = s if s > w else w
            lane[l] += s if w >= least else 0
    for l in range(LOOP):
        total += lane[l]
    return total


cdef inline Py_ssize_t count_heavier(
    const real *weight, Py_ssize_t n, real least, double *mass
) noexcept nogil:
    """Return how many of n weights, whole steps, are above `least`, and write their sum."""
    cdef real lane[STEP]
    cdef real w
    cdef int found[STEP]
    cdef Py_ssize_t j, l, m = 0
    for l in range(STEP):
        found[l] = 0
        lane[l] = 0
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            w = weight[j + l]
            lane[l] += w if w > least else 0
            found[l] += weight[j + l] > least
    mass[0] = 0
    for l in range(STEP):
        m += found[l]
        mass[0] += lane[l]
    return m


cdef inline Peak peak_of(real *weight, Py_ssize_t n, double mass, double share) noexcept nogil:
    """Return how peaked a row is, by the weights of its n block maxima, `mass` in all.

    What weighs less than twice the average of what is to be left out is seldom in the nucleus. The
    weights are filled up with 0 to whole steps.
    """
    cdef double average = (1 - share) * mass / n
    cdef double heavy_mass, _mass
    cdef Py_ssize_t i, heavy, whole = round_to_step(n + STEP - 1)
    for i in range(n, whole):
        weight[i] = 0
    heavy = count_heavier(<const real *>weight, whole, <real>(2 * average), &heavy_mass)
    if heavy <= n // 6 and heavy_mass >= share * mass:
        return SHARP
    # Where nearly all blocks weigh about as much, more elements are in the nucleus than blocks,
    # unless it is a small part of the mass.
    if heavy >= n // 3 or heavy_mass < 3 * share * mass and n - n // 4 < count_heavier(
        <const real *>weight, whole, <real>(average / 4), &_mass
    ):
        return FLAT
    return BROAD


cdef inline Py_ssize_t list_peak(
    const real *x, Py_ssize_t n, double highest, double inverse, double share, bint is_fine,
    const real *maxima, Workspace *work, Target *target,
) noexcept nogil:
    """List what has at least `share` of a row's mass, with weights; return how many these are.

    Write what mass is to be reached. None if more would have to be listed, or the workspace is
    full. `work.weight` has the weights of the block maxima, filled up with 0 to whole steps.
    """
    cdef const real *value = <const real *>work.value
    cdef const real *weight = <const real *>work.weight
    cdef float *sums = <float *>work.masses
    cdef CoarseScale scale = coarse_scale(highest, inverse, is_fine, <real>0)
    cdef double sum, listed, rest, middle, low, high = 1
    cdef Py_ssize_t blocks = count_blocks(n, CHUNK)
    cdef Py_ssize_t i, _i, whole = round_to_step(blocks + STEP - 1), count
    coarse_sums(x, n, &scale, work.packed, sums)
    for i in range(blocks, whole):
        sums[i] = 0
    sum = scale.factor * sum_lanes(<const float *>sums, blocks)
    low = (1 - share) * sum / n  # what is left out weighs no more than what is not
    for _i in range(HALVINGS):
        middle = sqrt(low * high)
        if share * sum <= mass_reaching(
            weight, <const float *>sums, whole, <float>middle, <float>scale.factor
        ):
            low = middle
        else:
            high = middle
    for _i in range(ATTEMPTS):
        middle = highest + (log(low) - 1e-5) / inverse
        count = compact_at_least(
            x, n, <real>max(middle, <double>-largest_finite(<real>0)), maxima,
            max(<Py_ssize_t>MIN_MOST, n // MOST_SHARE), work,
        )
        if work.is_full or count < 0:
            return 0
        softmax_weights(value, work.weight, count, highest, inverse)
        listed = sum_lanes(<const double *>work.weight, count)
        rest = max(0.0, sum - scale.factor * coarse_sum(value, count, &scale))
        target.total = listed + rest
        target.error = (scale.error * rest + sum_error() * sum) / target.total
        target.last = high
        if listed >= share * target.total * (1 + target.error):
            return count
        low *= 0.6  # where neighbours weigh as much, as in sorted rows
    return 0
