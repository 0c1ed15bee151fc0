# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The first cut of a row where it needs sums over all of it: by mass, probability or deviation.

With these sums known, the cut is one of the few best and the named again: it keeps nothing worse
than the worst of those that no step names, if there is enough that is better. More are selected
until that is so.
"""

from libc.math cimport fabs
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport Filters
from fastsoftmax._kernels.block_maxima cimport CHUNK
from fastsoftmax._kernels.block_select cimport select_k
from fastsoftmax._kernels.chain_abi cimport (
    EPSILON,
    ETA,
    MIN_P,
    TOP_K,
    TOP_N_SIGMA,
    TOP_P,
    TYPICAL_P,
    ChainStep,
)
from fastsoftmax._kernels.chain_list cimport (
    Candidates,
    drop_lowest,
    entropy,
    find_first_prefix,
    highest_score,
    keep_above,
    keep_best,
    make_room,
    sort_by_id,
)
from fastsoftmax._kernels.chain_names cimport Names, name_of
from fastsoftmax._kernels.chain_row cimport (
    INVALID,
    NO_MEMORY,
    Chain,
    allow_selection,
    list_few,
    raise_capped,
)
from fastsoftmax._kernels.chain_steps cimport (
    eta_threshold,
    keep_by_weight,
    run_step,
    surprise,
)
from fastsoftmax._kernels.chain_whole cimport (
    Scores,
    order_names,
    set_bound,
    sum_weights,
    sums_error,
)
from fastsoftmax._kernels.coarse_cap cimport CoarseCap, set_coarse_cap, sum_capped
from fastsoftmax._kernels.score_map cimport map_error
from fastsoftmax._kernels.signals cimport stopped
from fastsoftmax._kernels.truncation cimport apply_filters, initial_room
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.weights cimport softmax_weights, sum_lanes
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    LONG_ENOUGH = 4096  # elements from which on a row is summed up rather than listed
    FIRST_SELECTION = 64


cdef inline bint cuts_by_sums(const ChainStep *step) noexcept nogil:
    """Return whether a step removes what is below a bound that sums over all scores tell."""
    if step.op == TOP_P or step.op == TYPICAL_P:
        return step.a < 1
    return step.op == TOP_N_SIGMA or step.op == EPSILON or step.op == ETA


cdef inline double probability_error(
    const Candidates *c, const ChainStep *step, double slack
) noexcept nogil:
    """Return by what share a probability over the threshold may be off, where the sums are.

    Their entropy, which the threshold may depend on, is not off by more.
    """
    return slack if step.op == EPSILON else slack * (4 - 2 * c.weighted / c.total)


cdef inline bint is_within(
    const Candidates *c, const ChainStep *step, Py_ssize_t worst, double eps, double slack
) noexcept nogil:
    """Return whether what a step keeps of a row is better than the candidate at `worst`.

    Whatever the sums are within that share of themselves. For a step that is no `TopNSigma`,
    candidates have their weights.
    """
    cdef double mass = 0, threshold = step.a, h = entropy(c), d
    cdef Py_ssize_t i, better = 0
    if step.op == TYPICAL_P:
        d = surprise(c, c.score[worst], h) - 2 * probability_error(c, step, slack)
        for i in range(c.count):
            if fabs(surprise(c, c.score[i], h)) < d:
                mass += c.weight[i]
                better += 1
    else:
        for i in range(c.count):
            if c.score[i] > c.score[worst]:
                mass += c.weight[i]
                better += 1
    if step.op == EPSILON or step.op == ETA:
        if step.op == ETA:
            threshold = eta_threshold(c, threshold)
        threshold *= 1 - probability_error(c, step, slack)
        return better >= step.min_keep and c.weight[worst] / c.total < threshold
    return better >= step.min_keep and mass >= step.a * (1 - 4 * eps) * (1 + slack) * c.total


cdef inline bint is_far(const Candidates *c, double bound, double off) noexcept nogil:
    """Return whether no score is within `off` of a bound, where that is more than 0."""
    cdef Py_ssize_t i, near = 0
    for i in range(c.count):
        near += fabs(c.score[i] - bound) <= off
    return near == 0 or off == 0


cdef inline bint is_likely_certain(
    const Candidates *c, const ChainStep *step, double slack
) noexcept nogil:
    """Do what `is_certain` does for `Epsilon` and `Eta`."""
    cdef double threshold = (eta_threshold(c, step.a) if step.op == ETA else step.a) * c.total
    cdef double off = probability_error(c, step, slack) * threshold
    cdef Py_ssize_t i, near = 0
    for i in range(c.count):
        near += fabs(c.weight[i] - threshold) <= off
    return near == 0


cdef inline bint is_certain(
    Candidates *c, const ChainStep *step, double eps, double slack
) noexcept nogil:
    """Return whether a step keeps the same, whatever the sums are within that share of themselves.

    Candidates have their weights, and ids ascend.
    """
    cdef bint typical = step.op == TYPICAL_P, every = typical and step.every_tie
    cdef double goal = step.a * (1 - 4 * eps) * c.total, h = entropy(c)
    cdef double bound, off, mass = 0, last = 0, edge = 0
    cdef Py_ssize_t i, ties, least = 0, near = 0
    if slack == 0:
        return True
    if step.op == EPSILON or step.op == ETA:
        return is_likely_certain(c, step, slack)
    for i in range(c.count):
        c.value[i] = -fabs(surprise(c, c.score[i], h)) if typical else c.score[i]
    bound = find_first_prefix(c, c.value, c.weight, goal, step.min_keep, every, &ties)
    for i in range(c.count):  # the mass of what is kept, and that of its last one, or of all ties
        if c.value[i] == bound and ties > 0:
            last = last + c.weight[i] if every else c.weight[i]
            edge = c.score[i]
            least += ties > 1 and not every
            ties -= 1
        elif not c.value[i] > bound:
            continue
        else:
            least += 1
        mass += c.weight[i]
    if typical:  # others must not come to be as far from the entropy
        off = 2 * probability_error(c, step, slack)
        for i in range(c.count):
            near += fabs(c.value[i] - bound) <= off and c.score[i] != edge
    return near == 0 and mass >= goal * (1 + slack) and (
        least < step.min_keep or mass - last < goal * (1 - slack)
    )


cdef inline bint cuts_deeper(
    Candidates *c, const ChainStep *step, Py_ssize_t worst
) noexcept nogil:
    """Run a step if it keeps nothing but what is better than the candidate at `worst`.

    Return whether it does. The step before it removes nothing that is better.
    """
    cdef double bound
    cdef Py_ssize_t i, better = 0
    for i in range(c.count):
        better += c.score[i] > c.score[worst]
    if step.op == TOP_K and better >= max(step.k, step.min_keep):
        keep_best(c, max(step.k, step.min_keep), step.every_tie)
        return True
    bound = c.highest + step.log_a
    if step.op == MIN_P and better >= step.min_keep and bound > c.score[worst]:
        keep_above(c, bound, step.min_keep)
        return True
    return False


cdef inline bint is_cut_deeper(const ChainStep *step) noexcept nogil:
    """Return whether `cuts_deeper` may be so."""
    return step.op == TOP_K or step.op == MIN_P and step.a > 0


cdef inline Py_ssize_t place_of_id(const Candidates *c, Py_ssize_t id) noexcept nogil:
    """Return where an id is among candidates, -1 if it is not."""
    cdef Py_ssize_t i
    for i in range(c.count):
        if c.id[i] == id:
            return i
    return -1


cdef inline bint sum_up(
    Scores *s, const real *x, Py_ssize_t n, const ChainStep *step, Names *names, Candidates *c,
    CoarseCap *coarse,
) noexcept nogil:
    """Sum up over a row what a step needs, the best candidates being there; return if it is finite.

    For `TopP` of capped scores, if that serves, only coarse weights.
    """
    c.highest = highest_score(c)
    if not -infinity(<double>0) < c.highest < infinity(<double>0):
        return False
    order_names(names, c)
    if step.op == TOP_P and s.error > 0 and set_coarse_cap(&s.map, c.highest, coarse):
        coarse.total = sum_capped(x, n, coarse, s.packed)
        c.log_total = c.weighted = 0
        return True
    if step.op == TOP_N_SIGMA:
        set_bound(s, x, n, step.a, c)
        return -infinity(<double>0) < c.bound
    sum_weights(s, x, n, step.op == TYPICAL_P or step.op == ETA, NULL, c)
    return True


cdef inline Py_ssize_t cut_by_sums(
    const real *x, Py_ssize_t n, const Chain *chain, Names *names, const double **u,
    Workspace *work, Candidates *c,
) noexcept nogil:
    """Run the first steps and the one after them, by sums over the row; return how many have run.

    INVALID if that takes many candidates, or NO_MEMORY. `work` has the block maxima of CHUNK.
    """
    cdef const ChainStep *step = chain.steps + chain.n_first
    cdef Scores s
    cdef Py_ssize_t k = FIRST_SELECTION
    cdef Py_ssize_t selected, i, worst = 0
    cdef CoarseCap coarse
    cdef double slack, off, rest = 0
    cdef Py_ssize_t listed
    cdef int _turn
    cdef bint summed = False
    cdef bint followed = chain.n_first + 1 < chain.n_steps
    s.map.steps = chain.steps
    s.map.n_steps = chain.n_first
    s.error = map_error(&s.map)
    if s.error == infinity(<double>0):
        return INVALID
    slack = sums_error(&s)
    coarse.error = 0
    s.names = names
    s.packed = work.packed
    while k * (3 if chain.caps else 8) < n:  # caps take longer than all else
        if not allow_selection(x, n, k, work) or not make_room(c, k + names.count):
            return NO_MEMORY
        selected = min(k, select_k(x, n, k, <real *>work.maxima, True, work))
        selected = list_few(x, names, selected, work, c, &worst)
        if selected == 0:  # the best of the others is not there
            k *= 8
            continue
        listed = c.count
        memcpy(c.value, c.score, listed * sizeof(double))
        for i in range(chain.n_first):
            if c.count == 0 or not run_step(c, chain.steps + i, names, chain.eps, u):
                return INVALID
        if not summed and not sum_up(&s, x, n, step, names, c, &coarse):
            return INVALID
        summed = True
        if coarse.error > 0:
            rest = coarse.total - sum_capped(<const double *>c.value, listed, &coarse, NULL)
            rest = max(<double>0, rest)
        if chain.caps:
            raise_capped(c, worst)
            sort_by_id(c)
        worst = place_of_id(c, worst)
        if worst < 0:  # all above -inf are there
            return INVALID
        if step.op == TOP_N_SIGMA:
            off = 2 * step.a * s.error + slack * (c.highest - c.bound)
            if c.bound - off > c.score[worst]:
                if not is_far(c, c.bound, off):
                    return INVALID
                keep_above(c, c.bound, 1)
                return chain.n_first + 1
        else:
            softmax_weights(<const double *>c.score, c.weight, c.count, c.highest, 1)
            if coarse.error > 0:
                c.total = sum_lanes(<const double *>c.weight, c.count) + rest
                slack = (1.1 * coarse.error * rest + 1e-12 * coarse.total) / c.total + 1e-12
            for _turn in range(2):
                if not is_within(c, step, worst, chain.eps, slack):
                    break
                if is_certain(c, step, chain.eps, slack):
                    keep_by_weight(c, step, chain.eps)
                    return chain.n_first + 1
                if coarse.error == 0:
                    return INVALID
                coarse.error = 0
                sum_weights(&s, x, n, False, NULL, c)
                slack = sums_error(&s)
            if step.op == TOP_P and followed and not is_within(
                c, step, worst, chain.eps, -slack
            ) and cuts_deeper(c, step + 1, worst):
                return chain.n_first + 2
        if stopped(n):
            return INVALID
        k *= 4 if chain.caps else 8
    return INVALID


cdef inline Py_ssize_t cut_nucleus(
    const real *x, Py_ssize_t n, double highest, const Chain *chain, Names *names,
    const double **u, Workspace *work, Candidates *c,
) noexcept nogil:
    """Do as `cut_by_sums` for a nucleus of scores that are at most divided, as `sample` does."""
    cdef const ChainStep *step = chain.steps + chain.n_first
    cdef Filters f
    cdef Py_ssize_t i
    f.temperature = chain.steps[0].a if chain.n_first else 1
    f.top_k = 0
    f.top_p = step.a
    f.log_min_p = -infinity(<double>0)
    f.min_keep = step.min_keep
    if not allow_selection(x, n, min(n, max(initial_room(n), f.min_keep)), work):
        return NO_MEMORY
    work.is_full = False
    c.count = apply_filters(x, n, highest, &f, work, NULL)
    if work.is_full:
        return INVALID
    if not make_room(c, c.count):
        return NO_MEMORY
    for i in range(c.count):
        c.id[i] = work.index[i]
        c.score[i] = (<real *>work.value)[i]
        c.name[i] = name_of(names, work.index[i])
    c.ascending = True
    drop_lowest(c)  # of `min_keep`, where fewer are above -inf
    for i in range(chain.n_first):
        if not run_step(c, chain.steps + i, names, chain.eps, u):
            return INVALID
    return chain.n_first + 1
