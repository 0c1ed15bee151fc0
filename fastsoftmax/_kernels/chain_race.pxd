# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Draws by a race from what a chain leaves: from candidates, or from a row of which it leaves all.
"""

from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.abi cimport Race, SampleCall
from fastsoftmax._kernels.block_maxima cimport block_maxima_of_row
from fastsoftmax._kernels.chain_list cimport Candidates, highest_score, sort_by_id, weigh
from fastsoftmax._kernels.packed_row cimport is_listed
from fastsoftmax._kernels.chain_names cimport Names, name_of
from fastsoftmax._kernels.race cimport ABSOLUTE, race_for_draws
from fastsoftmax._kernels.race_blocks cimport RACE_BLOCK
from fastsoftmax._kernels.radix cimport Descending
from fastsoftmax._kernels.score_map cimport ScoreMap
from fastsoftmax._kernels.types cimport infinity, noinline_void, real
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    RACE_LIMIT = ABSOLUTE  # of highest scores: up to it, those of all races are comparable


cdef inline int64_t race_for_one(
    const Race *by, Py_ssize_t row, const real *x, Py_ssize_t n, const Py_ssize_t *index,
    Py_ssize_t length, double highest, double inverse, const uint64_t *words, Workspace *work,
) noexcept nogil:
    """Return the place that wins among n elements of a row of `length`; -1 after a signal."""
    cdef SampleCall one
    cdef int64_t place
    one.n = length
    one.m = 1
    one.replace = True
    one.race = by
    race_for_draws(
        &one, row, x, n, index, highest, inverse, -infinity(<double>0), words, work, &place
    )
    return place


cdef inline Py_ssize_t race_in_row(
    const Race *by, Py_ssize_t row, const real *x, Py_ssize_t n, double highest, double inverse,
    const uint64_t *words, Workspace *work,
) noexcept nogil:
    """Return the id that wins in a whole row, -1 after a signal.

    `work` has the block maxima of RACE_BLOCK, and perhaps the blocks' words; they are lost.
    """
    if is_listed(work.packed):
        block_maxima_of_row(
            x, <Descending>0, n, RACE_BLOCK, <real *>work.maxima, <real *>NULL, work.packed
        )
    return race_for_one(by, row, x, n, NULL, n, highest, inverse, words, work)


cdef inline Py_ssize_t race_of_others(
    Race *by, const real *x, Py_ssize_t n, double highest, double inverse, const Names *names,
    Workspace *work, Candidates *c, double *score,
) noexcept nogil:
    """Return the id that wins in a row among those that no step names, or -1; write its score.

    Values and keys of `c`, which has room for one more than the names, are lost.
    """
    cdef SampleCall some
    cdef int64_t *place = <int64_t *>c.keys
    cdef Py_ssize_t i
    by.scores = c.value
    some.n = n
    some.m = min(names.count + 1, 4)
    some.replace = False
    some.race = by
    while True:  # draw without replacement until one comes that is not named
        block_maxima_of_row(
            x, <Descending>0, n, RACE_BLOCK, <real *>work.maxima, <real *>NULL, work.packed
        )
        race_for_draws(
            &some, 0, x, n, NULL, highest, inverse, -infinity(<double>0), NULL, work, place
        )
        for i in range(some.m):
            score[0] = c.value[i]
            if place[i] < 0 or name_of(names, place[i]) < 0:
                return place[i]
        if some.m > names.count:
            return -1
        some.m = min(8 * some.m, names.count + 1)


cdef inline noinline_void race_beside_names(
    const Race *by, Py_ssize_t row, const real *x, Py_ssize_t n, double highest, double inverse,
    const ScoreMap *map, const Names *names, Workspace *work, Candidates *c,
) noexcept nogil:
    """Leave the winner of a race as the only candidate, its id -1 after a signal.

    Of a row whose scores are those of a map, or if that is NULL only divided, but for those of the
    names, which are among the candidates; all are up to RACE_LIMIT. A winner that is not named has
    no score.
    """
    cdef Race own = by[0]
    cdef double zero = 0, score, best
    cdef Py_ssize_t i, id = -1, other, m = 0
    own.seeds += row * by.seed_stride
    own.positions += row * by.position_stride
    own.seed_stride = own.position_stride = 0
    own.highest = &zero
    own.map = map
    other = race_of_others(&own, x, n, highest, inverse, names, work, c, &score)
    for i in range(c.count):
        c.id[m], c.score[m], c.name[m] = c.id[i], c.score[i], c.name[i]
        m += c.name[i] >= 0
    c.count = m
    if m > 0:
        sort_by_id(c)
        own.scores = &best
        own.map = NULL
        id = race_for_one(
            &own, 0, <const double *>c.score, m, c.id, n, highest_score(c), 1, NULL, work
        )
    if id >= 0 and (other < 0 or best > score or best == score and c.id[id] < other):
        c.id[0], c.score[0], c.name[0] = c.id[id], c.score[id], c.name[id]
    else:
        c.id[0], c.name[0] = other, -1
    c.count = 1


cdef inline noinline_void race_among(
    const Race *by, Py_ssize_t row, Candidates *c, Py_ssize_t n, bint weighed, Workspace *work,
    Py_ssize_t *id,
) noexcept nogil:
    """Write the id that wins among candidates of a row of n, -1 after a signal.

    If `weighed`, they are weighed, too; -1 where that cannot be.
    """
    cdef int64_t place
    id[0] = -1
    sort_by_id(c)
    if weighed and not weigh(c):
        return
    place = race_for_one(
        by, row, <const double *>c.score, c.count, c.id, n, highest_score(c), 1, NULL, work
    )
    if place >= 0:
        id[0] = c.id[place]
