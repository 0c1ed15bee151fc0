# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One draw by a race from what the filters leave of a row: the id that `sample` draws."""

from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.abi cimport Filters, Race, SampleCall
from fastsoftmax._kernels.block_maxima cimport CHUNK, block_maxima_of_row
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.partition cimport Nucleus
from fastsoftmax._kernels.race cimport all_ties_are_left, race_for_draws
from fastsoftmax._kernels.race_blocks cimport RACE_BLOCK, max_for_race
from fastsoftmax._kernels.radix cimport Descending
from fastsoftmax._kernels.row_maximum cimport max_and_block_maxima
from fastsoftmax._kernels.truncation cimport apply_filters, has_filters, list_prefix
from fastsoftmax._kernels.types cimport infinity, noinline_void, real
from fastsoftmax._kernels.workspace cimport Workspace


cdef inline noinline_void race_of_row(
    uint64_t seed, uint64_t position, const real *x, Py_ssize_t n, const Filters *f,
    Workspace *work, int64_t *id,
) noexcept nogil:
    """Write the id that wins at T > 0, -1 if the row has no probabilities.

    It is of no use if the workspace is full.
    """
    cdef bint whole = not has_filters(f, n)
    cdef double inverse = inverse_temperature(f.temperature, <double>0)
    cdef double least = -infinity(<double>0), score
    cdef double highest
    cdef const uint64_t *words = NULL
    cdef Nucleus left
    cdef SampleCall one
    cdef Race by
    cdef Py_ssize_t count = -1
    id[0] = -1
    by.seeds, by.positions, by.scores = &seed, &position, &score
    by.seed_stride = by.position_stride = by.first_id = 0
    by.highest = NULL
    by.map = NULL
    if whole:
        highest = max_for_race(&by, 0, x, n, work, &words)
    else:
        highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima, work.packed)
    if highest != highest:
        return
    one.race = &by
    one.n = n
    one.m = one.replace = 1
    if not whole:
        count = apply_filters(x, n, highest, f, work, &left)
        if count < 0 and all_ties_are_left(x, n, &left.prefix, work.packed):
            least = left.prefix.threshold
            block_maxima_of_row(
                x, <Descending>0, n, RACE_BLOCK, <real *>work.maxima, <real *>NULL, work.packed
            )
        elif count < 0:
            count = list_prefix(x, n, &left.prefix, work)
        if work.is_full:
            return
    if count < 0:
        race_for_draws(&one, 0, x, n, NULL, highest, inverse, least, words, work, id)
        return
    race_for_draws(
        &one, 0, <const real *>work.value, count, work.index, highest, inverse, least, NULL, work,
        id,
    )
    if id[0] >= 0:
        id[0] = work.index[id[0]]
