# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The candidates of a chain: what is left of a row as a list of ids and scores, and cuts of it.

The order everywhere is: larger value first, lower id first among equals. The list need not be in
that of the ids: tokens that are named come behind the others, and are sorted in where it matters.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastsoftmax._kernels.chain_abi cimport Left
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.radix cimport (
    from_sortable_key,
    radix_select_by_mass,
    radix_sort_pairs,
    sortable_key,
)
from fastsoftmax._kernels.types cimport infinity, noinline_void, real
from fastsoftmax._kernels.weights cimport cdf_search, softmax_weights, sum_in_order, sum_lanes

cdef enum:
    FEW = 64  # candidates that are sorted by insertion: most of them are in order

cdef struct Candidates:
    Py_ssize_t count
    Py_ssize_t room
    bint ascending  # whether the ids are
    Py_ssize_t *id
    double *score  # none is -inf
    Py_ssize_t *name  # place among the named ids, -1 for a token that is none
    # Scratch:
    double *value  # what candidates are cut by, where that is not the score
    double *weight
    double *masses
    uint64_t *keys
    # By `weigh`: weights are exp(score - highest),
    double highest
    double total
    double log_total
    double weighted  # the sum of weight * (score - highest), by `weigh_scores`
    double bound  # what `TopNSigma` keeps from, of a whole row


cdef inline bint make_room(Candidates *c, Py_ssize_t room) noexcept nogil:
    """Allocate room for so many candidates, none of which is kept; return whether it could."""
    cdef double *start
    if room <= c.room:
        return True
    free(c.score)
    start = <double *>malloc(7 * 8 * room)
    c.score = start
    c.room = room if start != NULL else 0
    if start == NULL:
        return False
    c.id = <Py_ssize_t *>(start + room)
    c.name = <Py_ssize_t *>(start + 2 * room)
    c.value = start + 3 * room
    c.weight = start + 4 * room
    c.masses = start + 5 * room
    c.keys = <uint64_t *>(start + 6 * room)
    return True


cdef inline void drop_lowest(Candidates *c) noexcept nogil:
    """Remove what has a score of -inf, or NaN."""
    cdef Py_ssize_t i, m = 0
    cdef int lowest = 0
    for i in range(c.count):
        lowest |= not c.score[i] > -infinity(<double>0)
    if not lowest:
        return
    for i in range(c.count):
        c.id[m] = c.id[i]
        c.score[m] = c.score[i]
        c.name[m] = c.name[i]
        m += c.score[m] > -infinity(<double>0)
    c.count = m


cdef inline void insert_by_id(Candidates *c) noexcept nogil:
    """Sort few candidates by their ids."""
    cdef Py_ssize_t i, j, id, name
    cdef double score, value
    for i in range(1, c.count):
        id, name, score, value = c.id[i], c.name[i], c.score[i], c.value[i]
        j = i
        while j > 0 and c.id[j - 1] > id:
            c.id[j] = c.id[j - 1]
            c.name[j] = c.name[j - 1]
            c.score[j] = c.score[j - 1]
            c.value[j] = c.value[j - 1]
            j -= 1
        c.id[j], c.name[j], c.score[j], c.value[j] = id, name, score, value


cdef inline void permute(
    double *x, const Py_ssize_t *order, Py_ssize_t n, double *spare
) noexcept nogil:
    """Put n numbers, of 8 bytes, in the order of their places."""
    cdef Py_ssize_t i
    for i in range(n):
        spare[i] = x[order[i]]
    for i in range(n):
        x[i] = spare[i]


cdef inline void sort_by_id(Candidates *c) noexcept nogil:
    """Put the candidates in the order of their ids; what `weigh` leaves is lost."""
    cdef Py_ssize_t *order = c.id
    cdef Py_ssize_t i
    if c.ascending:
        return
    c.ascending = True
    if c.count <= FEW:
        insert_by_id(c)
        return
    for i in range(c.count):
        c.keys[i] = ~<uint64_t>c.id[i]
        order[i] = i
    radix_sort_pairs(c.keys, order, c.count, <uint64_t *>c.masses, <Py_ssize_t *>c.weight)
    permute(c.score, order, c.count, c.masses)
    permute(c.value, order, c.count, c.masses)
    permute(<double *>c.name, order, c.count, c.masses)
    for i in range(c.count):
        c.id[i] = <Py_ssize_t>~c.keys[i]


cdef inline double highest_score(const Candidates *c) noexcept nogil:
    """Return the largest score."""
    cdef double high = -infinity(<double>0)
    cdef Py_ssize_t i
    for i in range(c.count):
        high = c.score[i] if c.score[i] > high else high
    return high


cdef inline noinline_void weigh_to_highest(Candidates *c) noexcept nogil:
    """Weigh the candidates relative to `c.highest`, the score of one of them."""
    cdef Py_ssize_t first = 0
    cdef double rest
    softmax_weights(<const double *>c.score, c.weight, c.count, c.highest, 1)
    while first < c.count - 1 and c.score[first] != c.highest:
        first += 1
    c.weight[first] = 0
    rest = sum_lanes(<const double *>c.weight, c.count)
    c.weight[first] = 1
    c.total = 1 + rest
    c.log_total = log1p_nonneg(rest)


cdef inline bint weigh(Candidates *c) noexcept nogil:
    """Weigh the candidates, of which there is one; return False where a score is infinite."""
    c.highest = highest_score(c)
    if not -infinity(<double>0) < c.highest < infinity(<double>0):
        return False
    weigh_to_highest(c)
    return True


cdef inline void weigh_scores(Candidates *c) noexcept nogil:
    """Sum up what the entropy of candidates needs, which are weighed."""
    cdef Py_ssize_t i
    c.weighted = 0
    for i in range(c.count):
        c.weighted += c.weight[i] * (c.score[i] - c.highest)


cdef inline double entropy(const Candidates *c) noexcept nogil:
    """Return -sum(p log p), by the sums of `weigh_scores`."""
    return c.log_total - c.weighted / c.total


cdef inline void cut_at(
    Candidates *c, const double *value, double bound, Py_ssize_t ties, bint invert
) noexcept nogil:
    """Keep what has a `value` above `bound`, and the first `ties` of what equals it.

    If `invert`, keep all but these. Where only some ties are, ids ascend.
    """
    cdef Py_ssize_t i, m = 0
    cdef bint equal, above
    for i in range(c.count):  # without branches that could not be predicted
        equal = value[i] == bound
        above = value[i] > bound
        c.id[m] = c.id[i]
        c.score[m] = c.score[i]
        c.name[m] = c.name[i]
        m += (above | (equal & (ties > 0))) ^ invert
        ties -= equal
    c.count = m


cdef inline double find_first_prefix(
    Candidates *c, const double *value, const double *mass, double target, Py_ssize_t min_keep,
    bint every_tie, Py_ssize_t *ties,
) noexcept nogil:
    """Return the last value of the shortest prefix, by `value`, whose mass reaches `target`.

    It has `min_keep` candidates at least. Without `mass` (NULL) each has the mass 1. Write how many
    of that value are in it: all, if `every_tie`; else, where that matters, ids ascend. `value` is
    that of the list or the score.
    """
    cdef uint64_t last
    cdef Py_ssize_t i, above, equal
    cdef double bound = 0
    cdef int _turn
    for _turn in range(2):
        for i in range(c.count):
            c.keys[i] = sortable_key(value[i])
        if mass != NULL:
            memcpy(c.masses, mass, c.count * sizeof(double))
        radix_select_by_mass(
            c.keys, c.masses if mass != NULL else NULL, c.count, target, &last, ties
        )
        bound = from_sortable_key(last, <double>0)
        above = equal = 0
        for i in range(c.count):
            above += value[i] > bound
            equal += value[i] == bound
        if above + ties[0] >= min(min_keep, c.count):
            break
        mass = NULL
        target = <double>min_keep
    if every_tie:
        ties[0] = equal
    elif ties[0] < equal:
        sort_by_id(c)
    return bound


cdef inline void keep_first(
    Candidates *c, const double *value, const double *mass, double target, Py_ssize_t min_keep,
    bint every_tie, bint invert,
) noexcept nogil:
    """Keep the prefix that `find_first_prefix` finds, or if `invert`, what is not in it."""
    cdef Py_ssize_t ties
    cdef double bound = find_first_prefix(c, value, mass, target, min_keep, every_tie, &ties)
    cut_at(c, value, bound, ties, invert)


cdef inline void keep_best(Candidates *c, Py_ssize_t k, bint every_tie) noexcept nogil:
    """Keep the k candidates with the highest scores."""
    if k < c.count:
        keep_first(c, c.score, NULL, <double>k, 1, every_tie, False)


cdef inline void keep_above(Candidates *c, double bound, Py_ssize_t min_keep) noexcept nogil:
    """Keep what scores `bound` and more, at least the `min_keep` best."""
    cdef Py_ssize_t i, good = 0, m = 0
    for i in range(c.count):
        good += c.score[i] >= bound
    if good < min_keep:
        keep_best(c, min_keep, False)
        return
    for i in range(c.count):
        c.id[m] = c.id[i]
        c.score[m] = c.score[i]
        c.name[m] = c.name[i]
        m += c.score[m] >= bound
    c.count = m


cdef inline Py_ssize_t draw_candidate(Candidates *c, double u) noexcept nogil:
    """Return the id that `u` draws: the first whose cumulative weight exceeds u * total; or -1."""
    sort_by_id(c)
    if not weigh(c):
        return -1
    return c.id[cdf_search(
        c.weight, c.count, 0, u * sum_in_order(<const double *>c.weight, c.count)
    )]


cdef inline bint keep_left(Candidates *c, Left *left) noexcept nogil:
    """Copy the candidates; return whether there was memory."""
    sort_by_id(c)
    left.ids = <int64_t *>malloc(16 * c.count)
    if left.ids == NULL:
        return False
    left.count = c.count
    left.scores = <double *>(left.ids + c.count)
    memcpy(left.ids, c.id, 8 * c.count)
    memcpy(left.scores, c.score, 8 * c.count)
    return True


cdef inline double logprob_of(const Candidates *c, int64_t id) noexcept nogil:
    """Return the log-probability of an id among candidates that are weighed; it is one of them."""
    cdef Py_ssize_t i = 0
    while i < c.count - 1 and c.id[i] != id:
        i += 1
    return (c.score[i] - c.highest) - c.log_total


cdef inline void write_scores(const Candidates *c, real *y, Py_ssize_t n) noexcept nogil:
    """Write the scores of what is left into a row of n, and -inf elsewhere."""
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = -infinity(<real>0)
    for i in range(c.count):
        y[c.id[i]] = <real>c.score[i]
