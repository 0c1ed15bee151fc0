# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The steps of a chain on a list of candidates: what ``fastsoftmax.steps`` says, in its formulas.

Scores are float64 and divided, not multiplied; sums of weights have the order of their kernels.
"""

from libc.math cimport exp, fabs, log, pow, sqrt, tanh
from libc.stdint cimport int64_t

from fastsoftmax._kernels.chain_abi cimport (
    ADAPTIVE_P,
    ALLOWED_TOKENS,
    DYNAMIC_TEMPERATURE,
    EPSILON,
    ETA,
    FREQUENCY_PENALTY,
    LOGIT_BIAS,
    MIN_P,
    PRESENCE_PENALTY,
    REPETITION_PENALTY,
    SOFT_CAP,
    SUPPRESS_TOKENS,
    TEMPERATURE,
    TOP_K,
    TOP_N_SIGMA,
    TOP_P,
    TYPICAL_P,
    XTC,
    ChainStep,
    PastTokens,
)
from fastsoftmax._kernels.chain_list cimport (
    Candidates,
    drop_lowest,
    entropy,
    find_first_prefix,
    highest_score,
    keep_above,
    keep_best,
    keep_first,
    weigh,
    weigh_scores,
)
from fastsoftmax._kernels.chain_names cimport Names, count_window, window
from fastsoftmax._kernels.types cimport infinity, largest_finite


cdef inline bint preserves_order(const ChainStep *step) noexcept nogil:
    """Return what ``Step.order_preserving`` says; and of `SoftCap`, but for what that rounds."""
    return (
        step.op <= SUPPRESS_TOKENS or step.op == TOP_K or step.op == MIN_P or step.op == SOFT_CAP
    )


cdef inline Py_ssize_t max_kept(const ChainStep *step) noexcept nogil:
    """Return what ``Step.max_kept`` does: about how many the step keeps, 0 for all."""
    if step.op == TOP_K:
        return max(step.k, step.min_keep)
    if step.op == MIN_P and step.a > 0:
        return max(<Py_ssize_t>30, step.min_keep)
    return 1 if step.op == TEMPERATURE and step.a == 0 else 0


cdef inline Py_ssize_t find_id(const ChainStep *step, int64_t id) noexcept nogil:
    """Return where an id is among those of a step, -1 if it is not."""
    cdef Py_ssize_t low = 0, high = step.n_ids, middle
    while low < high:
        middle = (low + high) >> 1
        if step.ids[middle] < id:
            low = middle + 1
        else:
            high = middle
    return low if low < step.n_ids and step.ids[low] == id else -1


cdef inline void divide(Candidates *c, double temperature) noexcept nogil:
    """Divide the scores, 1/T being held at the largest finite number."""
    cdef Py_ssize_t i
    if 1 / temperature == infinity(<double>0):
        for i in range(c.count):
            c.score[i] *= largest_finite(<double>0)
    else:
        for i in range(c.count):
            c.score[i] /= temperature
    drop_lowest(c)


cdef inline void penalise(Candidates *c, const ChainStep *step, Names *names) noexcept nogil:
    """Lower the scores of the tokens that have occurred."""
    cdef Py_ssize_t i, times
    cdef double score
    if names.count == 0:
        return
    count_window(names, window(step, names.history))
    for i in range(c.count):
        times = names.times[c.name[i]] if c.name[i] >= 0 else 0
        if times == 0 or step.n_ids > 0 and find_id(step, c.id[i]) >= 0:
            continue
        score = c.score[i]
        if step.op == REPETITION_PENALTY:
            c.score[i] = score / step.a if score > 0 else score * step.a
        elif step.op == FREQUENCY_PENALTY:
            c.score[i] = score - step.a * <double>times
        else:
            c.score[i] = score - step.a
    drop_lowest(c)


cdef inline void bias(Candidates *c, const ChainStep *step) noexcept nogil:
    """Add to the scores of given tokens."""
    cdef Py_ssize_t i, place
    for i in range(c.count):
        place = find_id(step, c.id[i])
        if place >= 0:
            c.score[i] += step.values[place]
    drop_lowest(c)


cdef inline void keep_given(Candidates *c, const ChainStep *step, bint given) noexcept nogil:
    """Keep the tokens that are among those of a step, or if not `given`, the others."""
    cdef Py_ssize_t i, m = 0
    for i in range(c.count):
        c.id[m] = c.id[i]
        c.score[m] = c.score[i]
        c.name[m] = c.name[i]
        m += (find_id(step, c.id[m]) >= 0) == given
    c.count = m


cdef inline double surprise(const Candidates *c, double score, double h) noexcept nogil:
    """Return how much farther than the entropy `h` the surprise of a score is."""
    return -((score - c.highest) - c.log_total) - h


cdef inline void keep_typical(Candidates *c, const ChainStep *step, double goal) noexcept nogil:
    """Keep, of candidates that are weighed, those whose surprise is closest to the entropy.

    Their weights sum to `goal`.
    """
    cdef double h = entropy(c)
    cdef Py_ssize_t i
    for i in range(c.count):
        c.value[i] = -fabs(surprise(c, c.score[i], h))
    keep_first(c, c.value, c.weight, goal, step.min_keep, step.every_tie, False)


cdef inline double eta_threshold(const Candidates *c, double epsilon) noexcept nogil:
    """Return the probability from which on `Eta` keeps."""
    return min(epsilon, sqrt(epsilon) * exp(-entropy(c)))


cdef inline bint keep_within_sigma(Candidates *c, double n) noexcept nogil:
    """Keep the scores within n standard deviations of the highest; return whether they are finite.
    """
    cdef double high = highest_score(c), mean = 0, square = 0, d
    cdef Py_ssize_t i
    for i in range(c.count):
        mean += high - c.score[i]
    mean /= c.count
    for i in range(c.count):
        d = (high - c.score[i]) - mean
        square += d * d
    if not square < infinity(<double>0):
        return False
    keep_above(c, high - n * sqrt(square / c.count), 1)
    return True


cdef inline void keep_likely(
    Candidates *c, double threshold, Py_ssize_t min_keep, bint every_tie
) noexcept nogil:
    """Keep, of candidates that are weighed, those of a probability of at least `threshold`.

    And at least the `min_keep` best; if `every_tie`, with all that equal the last of them.
    """
    cdef Py_ssize_t i, good = 0, m = 0
    for i in range(c.count):
        good += c.weight[i] / c.total >= threshold
    if good < min(min_keep, c.count):
        keep_best(c, min_keep, every_tie)
        return
    for i in range(c.count):
        c.id[m] = c.id[i]
        c.score[m] = c.score[i]
        c.name[m] = c.name[i]
        m += c.weight[i] / c.total >= threshold
    c.count = m


cdef inline void exclude_top(Candidates *c, const ChainStep *step) noexcept nogil:
    """Remove, of candidates that are weighed, all likely ones but the least likely of them.

    And but those that are exempt.
    """
    cdef Py_ssize_t i, ties, m = 0, likely = 0
    cdef double bound
    cdef bint best
    for i in range(c.count):
        likely += c.weight[i] / c.total >= step.a
    if likely <= 1 or c.count - (likely - 1) < step.min_keep:
        return
    if step.n_ids == 0:
        keep_first(c, c.score, NULL, <double>(likely - 1), 1, False, True)
        return
    bound = find_first_prefix(c, c.score, NULL, <double>(likely - 1), 1, False, &ties)
    for i in range(c.count):
        best = c.score[i] > bound or c.score[i] == bound and ties > 0
        ties -= c.score[i] == bound
        c.id[m], c.score[m], c.name[m] = c.id[i], c.score[i], c.name[i]
        m += not best or find_id(step, c.id[m]) >= 0
    c.count = m


cdef inline void keep_by_weight(Candidates *c, const ChainStep *step, double eps) noexcept nogil:
    """Run `TopP`, `TypicalP`, `Epsilon` or `Eta` on candidates that are weighed."""
    cdef double goal = step.a * (1 - 4 * eps) * c.total
    if step.op == TOP_P:
        keep_first(c, c.score, c.weight, goal, step.min_keep, False, False)
    elif step.op == TYPICAL_P:
        keep_typical(c, step, goal)
    elif step.op == EPSILON:
        keep_likely(c, step.a, step.min_keep, step.every_tie)
    else:
        keep_likely(c, eta_threshold(c, step.a), step.min_keep, step.every_tie)


cdef inline void cap(Candidates *c, double limit) noexcept nogil:
    """Hold the scores between -limit and limit, by the C library's tanh."""
    cdef Py_ssize_t i
    for i in range(c.count):
        c.score[i] = limit * tanh(c.score[i] / limit)


cdef inline void set_temperature(Candidates *c, double temperature) noexcept nogil:
    """Run `Temperature`."""
    if temperature == 0:
        keep_best(c, 1, False)
    elif temperature != 1:
        divide(c, temperature)


cdef inline double dynamic_temperature(const Candidates *c, const ChainStep *step) noexcept nogil:
    """Return the temperature that the entropy of candidates tells, which are weighed."""
    cdef double low = max(step.a - step.b, <double>0), high = step.a + step.b
    cdef double share = min(max(entropy(c) / log(<double>c.count), <double>0), <double>1)
    return low + (high - low) * pow(share, step.c)


cdef inline double *adaptive_sums(
    const ChainStep *step, const PastTokens *past, double *sums
) noexcept nogil:
    """Write the sum of the probabilities so far, the latest weighing most, and its weight."""
    sums[0], sums[1] = step.a / (1 - step.b), 1 / (1 - step.b)
    if past.n_state > 1:
        sums[0], sums[1] = past.state[0], past.state[1]
    return sums


cdef inline void prefer_near(
    Candidates *c, const ChainStep *step, const PastTokens *past
) noexcept nogil:
    """Run `AdaptiveP` on candidates that are weighed; leave their probabilities as their values."""
    cdef double sums[2]
    cdef double aim, d
    cdef Py_ssize_t i
    adaptive_sums(step, past, sums)
    aim = min(max(2 * step.a - sums[0] / sums[1], <double>0), <double>1)
    for i in range(c.count):
        c.value[i] = c.weight[i] / c.total
        d = fabs(c.value[i] - aim) / 0.3
        c.score[i] = 5 - 10 * d * d / (1 + d)


cdef inline bint run_step(
    Candidates *c, const ChainStep *step, Names *names, double eps, const double **u
) noexcept nogil:
    """Run a step on candidates, of which there is one; return False where it has to do with inf.

    `u` is where the next random number is.
    """
    if step.op == TEMPERATURE:
        set_temperature(c, step.a)
    elif step.op <= PRESENCE_PENALTY:
        penalise(c, step, names)
    elif step.op == LOGIT_BIAS:
        bias(c, step)
    elif step.op == SUPPRESS_TOKENS:
        keep_given(c, step, False)
    elif step.op == ALLOWED_TOKENS:
        keep_given(c, step, True)
    elif step.op == TOP_K:
        keep_best(c, max(step.k, step.min_keep), step.every_tie)
    elif step.op == MIN_P:
        if step.a > 0:
            keep_above(c, highest_score(c) + step.log_a, step.min_keep)
    elif step.op == SOFT_CAP:
        cap(c, step.a)
    elif step.op == DYNAMIC_TEMPERATURE and c.count == 1:
        return True
    elif step.op == TOP_N_SIGMA:
        return keep_within_sigma(c, step.a)
    elif (step.op == TOP_P or step.op == TYPICAL_P) and step.a == 1:
        return True
    elif not weigh(c):
        return False
    elif step.op == XTC:
        if u[0][0] < step.b:
            exclude_top(c, step)
        u[0] += 1
    elif step.op == DYNAMIC_TEMPERATURE:
        weigh_scores(c)
        set_temperature(c, dynamic_temperature(c, step))
    elif step.op == ADAPTIVE_P:
        prefer_near(c, step, names.history)
    else:
        if step.op == TYPICAL_P or step.op == ETA:
            weigh_scores(c)
        keep_by_weight(c, step, eps)
    return True
