# cython: language_level=3, cdivision=True
"""A step of beam search: the best continuations of groups of beams.

Formula
    The score of a continuation is that of its beam and the log-probability of its id,
    (x_i - max) - log1p(sum of the other weights). Those of a group are in the order: larger score
    (times its beam's factor), then lower beam, then larger logit, then lower id. The first of each
    beam's, which its logits tell, are merged.

Passes over memory
    As for `top_logprobs`: one read for the maxima, one for the weights, and the few blocks that
    hold what is selected. Beams with a score of -inf are not read.

Precision policy
    Log-probabilities as `top_logprobs` has them, not rounded; scores in float64.

Source
    Folklore.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from fastsoftmax._kernels.abi cimport FLOAT32
from fastsoftmax._kernels.block_maxima cimport CHUNK
from fastsoftmax._kernels.found_row cimport Scratch, allocate_scratch, find_row, free_scratch
from fastsoftmax._kernels.packed_row cimport row_element
from fastsoftmax._kernels.row_maximum cimport max_and_block_maxima
from fastsoftmax._kernels.signals cimport stopped
from fastsoftmax._kernels.token_logprobs cimport log1p_of_others, logprob, select_in_order
from fastsoftmax._kernels.types cimport infinity, noinline_void, real
from fastsoftmax._kernels.verify_abi cimport BeamCall
from fastsoftmax._kernels.workspace cimport Workspace

cdef struct Continuation:
    double key  # the score by which it is ranked
    double score
    int64_t parent
    int64_t id


cdef inline noinline_void weigh_others(
    const real *x, Py_ssize_t n, double highest, Workspace *work, double *log_others
) noexcept nogil:
    """Write log1p of the sum of the weights of a row without that of the best, the first listed."""
    log_others[0] = log1p_of_others(
        x, n, work.index[0], highest, 1, work.masses, work.packed
    )


cdef inline Py_ssize_t rank_row(
    const real *x, Py_ssize_t n, Py_ssize_t k, Workspace *work, double *highest, double *log_others
) noexcept nogil:
    """Leave the indices of the k largest of n elements in `work`, in order; return how many.

    Write the maximum, and log1p of the sum of the others' weights. 0 if there are no probabilities.
    """
    cdef Py_ssize_t m
    highest[0] = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima, work.packed)
    if highest[0] != highest[0]:
        return 0
    m = select_in_order(x, n, k, work)
    weigh_others(x, n, highest[0], work, log_others)
    return min(m, k)


cdef inline Py_ssize_t merge_row(
    const real *x, Py_ssize_t n, Py_ssize_t count, double highest, double log_others,
    double running, double factor, int64_t parent, Workspace *work, const Continuation *best,
    Py_ssize_t size, Continuation *merged, Py_ssize_t width,
) noexcept nogil:
    """Merge the `size` best continuations so far and those of a row; return how many there are.

    `width` at most. The row has the first `count` of `work.index`.
    """
    cdef Continuation next
    cdef Py_ssize_t i = 0, j = 0, m = 0
    cdef bint fresh = False
    next.parent = parent
    while m < width:
        if not fresh and j < count:
            next.id = work.index[j]
            next.score = running + logprob(
                row_element(x, next.id, work.packed), highest, 1, log_others
            )
            next.key = next.score * factor
            fresh = True
            if not next.score > -infinity(<double>0):  # nor what follows
                count = j
        if j < count and not (i < size and best[i].key >= next.key):
            merged[m] = next
            fresh = False
            j += 1
        elif i < size:
            merged[m] = best[i]
            i += 1
        else:
            break
        m += 1
    return m


cdef inline void step_group(
    const BeamCall *call, Py_ssize_t group, Scratch *s, Continuation *best, Continuation *merged,
    real like,
) noexcept nogil:
    """Write the best continuations of a group of beams."""
    cdef Py_ssize_t n = call.n, width = call.width, b, row, count, size = 0, at = group * width
    cdef double highest, log_others = 0
    cdef Continuation *spare
    cdef const void *x
    call.bad[group] = -1
    for b in range(call.beams):
        row = group * call.beams + b
        if call.running[row] == -infinity(<double>0):
            continue
        if stopped(n):
            break
        x = find_row(call.source, row, n, &s.x_packed, &s.work.packed, like)
        count = rank_row(
            <const real *>x, n, min(n, width), &s.work, &highest, &log_others
        )
        if count == 0 and call.bad[group] < 0:
            call.bad[group] = b
        size = merge_row(
            <const real *>x, n, count, highest, log_others, call.running[row],
            1 if call.factors == NULL else call.factors[row], b, &s.work, best, size, merged,
            width,
        )
        spare = best
        best = merged
        merged = spare
    for b in range(width):
        call.scores[at + b] = best[b].score if b < size else -infinity(<double>0)
        call.parents[at + b] = best[b].parent if b < size else -1
        call.ids[at + b] = best[b].id if b < size else -1


cdef inline int step_some(
    const BeamCall *call, Py_ssize_t first, Py_ssize_t groups, real like
) noexcept nogil:
    """Write the best continuations of some groups; return 0, or -1 if there was no memory."""
    cdef Continuation *best = <Continuation *>malloc(
        2 * call.width * sizeof(Continuation)
    )
    cdef Scratch s
    cdef Py_ssize_t g
    if best == NULL:
        return -1
    if not allocate_scratch(&s, call.n, min(call.n, call.width), call.source.is_packed):
        free(best)
        return -1
    for g in range(first, first + groups):
        step_group(call, g, &s, best, best + call.width, like)
    free_scratch(&s)
    free(best)
    return 0


cdef inline int beam_step_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write the best continuations of groups of beams; a `rows_fn`."""
    cdef const BeamCall *call = <const BeamCall *>_call
    if call.dtype == FLOAT32:
        return step_some(call, first, rows, <float>0)
    return step_some(call, first, rows, <double>0)
