# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Draws by a race from what a chain leaves: from candidates, or from a row that it only divides."""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.abi cimport Race, SampleCall
from fastsoftmax._kernels.block_maxima cimport block_maxima_of_row
from fastsoftmax._kernels.chain_list cimport Candidates, highest_score, sort_by_id, weigh
from fastsoftmax._kernels.packed_row cimport is_listed
from fastsoftmax._kernels.race cimport race_for_draws
from fastsoftmax._kernels.race_blocks cimport RACE_BLOCK
from fastsoftmax._kernels.radix cimport Descending
from fastsoftmax._kernels.types cimport infinity, noinline_void, real
from fastsoftmax._kernels.workspace cimport Workspace


cdef inline int64_t race_for_one(
    const Race *by, Py_ssize_t row, const real *x, Py_ssize_t n, const Py_ssize_t *index,
    Py_ssize_t length, double highest, double inverse, Workspace *work,
) noexcept nogil:
    """Return the place that wins among n elements of a row of `length`; -1 after a signal."""
    cdef SampleCall one
    cdef int64_t place
    one.n = length
    one.m = 1
    one.replace = True
    one.race = by
    race_for_draws(
        &one, row, x, n, index, highest, inverse, -infinity(<double>0), work, &place
    )
    return place


cdef inline Py_ssize_t race_in_row(
    const Race *by, Py_ssize_t row, const real *x, Py_ssize_t n, double highest, double inverse,
    Workspace *work,
) noexcept nogil:
    """Return the id that wins in a whole row, -1 after a signal.

    `work` has the block maxima of RACE_BLOCK; they are lost.
    """
    if is_listed(work.packed):
        block_maxima_of_row(
            x, <Descending>0, n, RACE_BLOCK, <real *>work.maxima, <real *>NULL, work.packed
        )
    return race_for_one(by, row, x, n, NULL, n, highest, inverse, work)


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
        by, row, <const double *>c.score, c.count, c.id, n, highest_score(c), 1, work
    )
    if place >= 0:
        id[0] = c.id[place]
