# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Of candidates that are listed with their weights the shortest prefix that has a mass.

Of many candidates a bound below and one above the last of the prefix come nearer to each other by
the mass of what exceeds a number between them, which vectors add up, until few are left; those are
selected by digits. Whether the order of the sums might matter is known then: if so, all are.
"""

from libc.stdint cimport uint64_t

from fastsoftmax._kernels.radix cimport (
    compact_prefix,
    from_sortable_key,
    radix_select_by_mass,
    sortable_key,
)
from fastsoftmax._kernels.sums cimport STEP, round_to_step
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.weights cimport (
    Prefix,
    softmax_weights,
    softmax_weights_by_block,
    sum_lanes,
)
from fastsoftmax._kernels.weights_f32 cimport (
    WeightScale,
    fits_float32,
    set_weight_scale,
    total_error,
    weights_f32_by_block,
)
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    NEAR = 48  # candidates near the end of the prefix, among which keys decide
    ROUNDS = 24  # that are made to have no more of them,
    TIE_ROUNDS = 4  # and between two looks whether they are all equal
    FEW = 200  # candidates whose keys take less time

cdef struct Target:
    double total  # the mass of a row
    double error  # by what share of it that may be off
    double last  # about what the last element of the prefix weighs


cdef inline double mass_above(
    const double *weight, Py_ssize_t n, double bound, Py_ssize_t *count
) noexcept nogil:
    """Return the mass of those of n weights, whole steps, above `bound`; write how many these are.
    """
    cdef double lane[STEP]  # of fewer lanes gcc makes no vectors
    cdef double found[STEP]
    cdef double w, total = 0, m = 0
    cdef Py_ssize_t j, l
    for l in range(STEP):
        lane[l] = found[l] = 0
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            w = weight[j + l]
            lane[l] += w if w > bound else 0
            found[l] += 1 if w > bound else 0
    for l in range(STEP):
        total += lane[l]
        m += found[l]
    count[0] = <Py_ssize_t>m
    return total


cdef inline Py_ssize_t compact_between(
    const double *weight, const uint64_t *place, Py_ssize_t n, double low, double high,
    double *weight2, uint64_t *place2,
) noexcept nogil:
    """Write what is above `low`, up to `high`, of n weights, and their places; return how many.

    `place` is NULL where they are in place, and may be `place2` as `weight` may be `weight2`. The
    weights are filled up with 0 to whole steps.
    """
    cdef Py_ssize_t i, m = 0
    cdef double w
    for i in range(n):  # without branches that could not be predicted
        w = weight[i]
        weight2[m] = w
        place2[m] = place[i] if place != NULL else <uint64_t>i
        m += (w > low) & (w <= high)
    for i in range(m, round_to_step(m + STEP - 1)):
        weight2[i] = 0
    return m


cdef inline bint are_equal(
    const double *weight, Py_ssize_t n, double low, double high
) noexcept nogil:
    """Return whether those of n weights, whole steps, above `low`, up to `high`, are all equal."""
    cdef double least[STEP]
    cdef double most[STEP]
    cdef double w
    cdef Py_ssize_t j, l
    for l in range(STEP):
        least[l] = infinity(<double>0)
        most[l] = low
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            w = weight[j + l]
            least[l] = w if (w > low) & (w < least[l]) else least[l]
            most[l] = w if (w <= high) & (w > most[l]) else most[l]
    for l in range(1, STEP):
        least[0] = min(least[0], least[l])
        most[0] = max(most[0], most[l])
    return least[0] == most[0]


cdef inline Py_ssize_t count_ties(
    double mass, double weight, double goal, Py_ssize_t most
) noexcept nogil:
    """Return how often, up to `most`, a weight has to be added to `mass` for it to reach `goal`."""
    cdef Py_ssize_t ties = min(most, max(<Py_ssize_t>1, <Py_ssize_t>((goal - mass) / weight) - 1))
    while ties < most and mass + ties * weight < goal:
        ties += 1
    return ties


cdef inline bint select_near(
    const real *value, Py_ssize_t n, double goal, const Target *target, Workspace *work,
    uint64_t *last, Py_ssize_t *ties, bint *is_certain,
) noexcept nogil:
    """Do what `select_by_mass` does by the few candidates near the end of the prefix.

    Return whether they are few; write what that returns.
    """
    cdef uint64_t place[NEAR]
    cdef double near[NEAR]
    cdef double *weight = work.weight
    cdef uint64_t *places = NULL
    cdef double low = -1, high = infinity(<double>0), mass = 0, mass_low = 0, middle = target.last
    cdef double w, part, step = 1.1, outer = 0
    cdef Py_ssize_t below = n, beyond = 0, count = n, outside = 0, i
    cdef uint64_t key
    cdef int round = 0
    if n + STEP > work.room:
        return False
    for i in range(n, round_to_step(n + STEP - 1)):
        weight[i] = 0
    while below - beyond > NEAR:  # low and high come nearer to where the mass is reached
        if round == ROUNDS:
            return False
        round += 1
        w = outer + mass_above(<const double *>weight, round_to_step(count + STEP - 1), middle, &i)
        if w >= goal * (1 + target.error) and i + outside > 0:
            low, below, mass_low = middle, i + outside, w
        else:
            high, beyond, mass = middle, i + outside, w
        step *= step
        if high == infinity(<double>0):
            middle *= step
        elif low < 0:
            middle /= step
        else:  # somewhat to either side, so that both of them move
            part = (mass_low - goal) / (mass_low - mass) + (0.15 if round & 1 else -0.15)
            middle = low + max(0.1, min(0.9, part)) * (high - low)
        if below - beyond < count // 4:
            count = compact_between(weight, places, count, low, high, work.masses, work.keys)
            weight, places = work.masses, work.keys
            outer, outside = mass, beyond
        elif round % TIE_ROUNDS == 0 and are_equal(
            weight, round_to_step(count + STEP - 1), low, high
        ):
            break
    count = compact_between(weight, places, count, low, high, work.masses, work.keys)
    if count > NEAR:
        w = work.masses[0]
        for i in range(1, count):
            if work.masses[i] != w or value[work.keys[i]] != value[work.keys[0]]:
                return False
        if not w > 0:
            return False
        last[0] = sortable_key(value[work.keys[0]])
        ties[0] = count_ties(mass, w, goal, count)
        mass += ties[0] * w
        is_certain[0] = (
            mass - w < goal * (1 - target.error) and mass >= goal * (1 + target.error)
        )
        return True
    for i in range(count):
        place[i] = work.keys[i]
        near[i] = work.masses[i]
        work.keys[i] = sortable_key(value[place[i]])
    radix_select_by_mass(work.keys, work.masses, count, goal - mass, last, ties)
    w = 0
    for i in range(count):
        key = sortable_key(value[place[i]])
        mass += near[i] if key > last[0] else 0
        w = near[i] if key == last[0] else w
    mass += ties[0] * w
    is_certain[0] = (
        mass - w < goal * (1 - target.error) and mass >= goal * (1 + target.error)
    )
    return True


cdef inline bint select_by_mass(
    const real *value, Py_ssize_t n, double share, const Target *target, Workspace *work,
    uint64_t *last, Py_ssize_t *ties,
) noexcept nogil:
    """Find the shortest prefix of n candidates whose mass reaches `share` of the target's.

    Write it as `radix_select_by_mass` does. Return whether it would be no other whatever the target
    is, within its error.
    """
    cdef double goal = share * target.total
    cdef double mass = 0, lightest = 0
    cdef bint is_certain
    cdef Py_ssize_t i
    if n > NEAR and target.error > 0 and select_near(
        value, n, goal, target, work, last, ties, &is_certain
    ):
        return is_certain
    for i in range(n):
        work.keys[i] = sortable_key(value[i])
        work.masses[i] = work.weight[i]
    radix_select_by_mass(work.keys, work.masses, n, goal, last, ties)
    if target.error == 0:
        return True
    for i in range(n):
        if value[i] > from_sortable_key(last[0], <real>0):
            mass += work.weight[i]
        elif value[i] == from_sortable_key(last[0], <real>0):
            lightest = work.weight[i]
    mass += ties[0] * lightest
    return mass - lightest < goal * (1 - target.error) and mass >= goal * (1 + target.error)


cdef inline void select_by_weights(
    const real *value, Py_ssize_t n, double share, Workspace *work, uint64_t *last,
    Py_ssize_t *ties,
) noexcept nogil:
    """Do what `select_by_mass` does for a share of the mass of all n candidates.

    Sums in other orders differ by so little that they mostly find the same.
    """
    cdef Target target
    target.total = sum_lanes(<const double *>work.weight, n)
    target.error = n * 2.0**-52 if n > FEW else 0
    target.last = 2 * (1 - share) * target.total / n  # a guess
    if not select_by_mass(value, n, share, &target, work, last, ties):  # error is not 0
        target.error = 0
        select_by_mass(value, n, share, &target, work, last, ties)


cdef inline Py_ssize_t compact_to_prefix(
    real *value, Workspace *work, Py_ssize_t n, uint64_t last, Py_ssize_t ties, Py_ssize_t min_keep
) noexcept nogil:
    """Keep of n candidates all above the key `last`, and the first `ties` of what has that key.

    But at least the first `min_keep` in the order of selection. In index order; return how many.
    """
    cdef Py_ssize_t i, m = 0
    min_keep = min(min_keep, n)
    if min_keep > 1:
        for i in range(n):
            work.keys[i] = sortable_key(value[i])
            m += work.keys[i] > last
        if m + ties < min_keep:
            radix_select_by_mass(work.keys, NULL, n, <double>min_keep, &last, &ties)
    return compact_prefix(
        value, work.index, n, from_sortable_key(last, <real>0), ties, value, work.index,
        work.weight, work.room,
    )


cdef inline void make_more_exact(
    const real *x, Py_ssize_t n, double highest, double inverse, Workspace *work, Target *target
) noexcept nogil:
    """Sum a row's weights up, in float32 if that is more exact than `target`, else in float64."""
    cdef WeightScale scale
    cdef double total, error
    if real is float:
        if fits_float32(inverse):
            set_weight_scale(highest, inverse, &scale)
            error = total_error(&scale, n, target.total * scale.max_weight)
            if error < target.error / 1.5:
                total = weights_f32_by_block(x, n, &scale, NULL, work.masses, work.packed)
                target.error = total_error(&scale, n, total)
                target.total = total / scale.max_weight
                return
    target.error = 0
    target.total = softmax_weights_by_block(
        x, n, highest, inverse, NULL, work.masses, work.packed
    )


cdef inline Py_ssize_t truncate_to_mass(
    const real *x, Py_ssize_t n, double highest, double inverse, Target target, double share,
    Py_ssize_t count, Py_ssize_t min_keep, Workspace *work,
) noexcept nogil:
    """Keep of the first `count` candidates of a row the shortest prefix with this share of a mass.

    It is summed up again if the error of what is known might matter.
    """
    cdef real *value = <real *>work.value
    cdef uint64_t last
    cdef Py_ssize_t ties
    while not select_by_mass(<const real *>value, count, share, &target, work, &last, &ties):
        make_more_exact(x, n, highest, inverse, work, &target)
    return compact_to_prefix(value, work, count, last, ties, min_keep)


cdef inline Py_ssize_t truncate_listed(
    double share, Py_ssize_t count, Py_ssize_t min_keep, Workspace *work, real like
) noexcept nogil:
    """Keep of `count` candidates, of the type of `like`, the shortest prefix with a share of mass.
    """
    cdef real *value = <real *>work.value
    cdef uint64_t last
    cdef Py_ssize_t ties
    select_by_weights(<const real *>value, count, share, work, &last, &ties)
    return compact_to_prefix(value, work, count, last, ties, min_keep)


cdef inline void find_prefix(
    const real *x, Py_ssize_t n, double highest, double inverse, double share, Workspace *work,
    Prefix *prefix,
) noexcept nogil:
    """Write the shortest prefix that has a share of the mass of a row of n, which stays as it is.
    """
    cdef uint64_t last
    softmax_weights(x, work.weight, n, highest, inverse)
    select_by_weights(x, n, share, work, &last, &prefix.ties)
    prefix.threshold = from_sortable_key(last, <real>0)
