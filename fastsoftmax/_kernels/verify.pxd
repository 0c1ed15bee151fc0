# cython: language_level=3, cdivision=True
"""Verification of drafted tokens: speculative decoding.

Formula
    p_j and q_j are the probabilities that the filters leave of the target's and the draft's row j,
    t_j is the id drafted there. By the chain rule t_j is accepted if u_j q_j(t_j) < p_j(t_j); at
    the first that is not, an id is drawn from the positive part of p_j - q_j. By blocks, with
    f_0 = 1 and f_(j+1) = min(1, f_j p_j(t_j) / q_j(t_j)), the first j drafts may be kept if
    u_(j-1) (s_j + 1 - f_j) < s_j, where s_j is the sum of the positive part of f_j p_j - q_j, and
    all K of them if u_(K-1) < f_K; the largest such j is taken, and an id drawn from that part.
    After all drafts one more id is drawn from p_K. At T = 0 all of that is the largest entry.
    By races row j draws the id r_j with the noise of the request's seed and position + j alone; ids
    are r_0, r_1, ... up to the first that is not the draft's.

Passes over memory
    For each row that is needed, those of a draw by `sample`; rows behind the first rejection of a
    chain are not read, nor is the draft's at T = 0. Where an id is rejected, one pass more over
    what the filters left, and, unless that is a list, over the draft's row. By blocks that pass is
    made for each row if there is a draft's.

Precision policy
    As for `sample`: decisions are those of weights and sums in float64. Sums in float32 come first,
    with a bound of their error, where the sum of a row alone is needed.

Source
    Y. Leviathan, M. Kalman, Y. Matias, ICML 2023, https://arxiv.org/abs/2211.17192; C. Chen et al.,
    2023, https://arxiv.org/abs/2302.01318 (the chain); Z. Sun et al., ICLR 2025,
    https://arxiv.org/abs/2403.10444 (blocks).
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free

from fastsoftmax._kernels.abi cimport FLOAT32, Filters, Race
from fastsoftmax._kernels.found_row cimport Scratch, allocate_scratch, find_row, free_scratch
from fastsoftmax._kernels.kept cimport (
    LISTED,
    Kept,
    kept_weight,
    make_total_exact,
    read_row,
    sum_kept,
)
from fastsoftmax._kernels.packed_row cimport PackedRow, row_element
from fastsoftmax._kernels.race_row cimport race_of_row
from fastsoftmax._kernels.residual cimport Pair, draw_kept, draw_residual, sum_residuals
from fastsoftmax._kernels.row_maximum cimport argmax
from fastsoftmax._kernels.signals cimport stopped
from fastsoftmax._kernels.truncation cimport max_selected_of
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.verify_abi cimport BLOCKS, RACES, VerifyCall
from fastsoftmax._kernels.workspace cimport Workspace, enlarge_workspace

cdef enum:
    NO_MEMORY = 1  # what the functions below return, beside 0 and codes below 0 for bad rows

cdef inline int read_kept(
    const void *x, PackedRow *packed, Py_ssize_t n, const Filters *f, bint summed, Scratch *s,
    Kept *kept, real like,
) noexcept nogil:
    """Find what the filters leave of a row, and its total if it is to be `summed`.

    Return 0, NO_MEMORY, or -1 if the row has no probabilities.
    """
    cdef bint valid
    while True:
        s.work.packed = packed
        valid = read_row(<const real *>x, n, f, &s.work, kept)
        if not valid:
            return -1
        if not s.work.is_full or s.work.most >= n:
            break
        s.work.packed = NULL
        if not enlarge_workspace(&s.work, n):
            return NO_MEMORY
    if summed and kept.form != LISTED:
        sum_kept(<const real *>x, n, kept, &s.work)
    return 0


cdef inline int read_pair(
    const VerifyCall *call, Py_ssize_t request, Py_ssize_t j, int64_t id, const Filters *f,
    Scratch *s, Pair *pair, real like,
) noexcept nogil:
    """Read the rows at place j, where `id` (-1 for none) is drafted: the target's last.

    Return 0, NO_MEMORY, or the code of a row without probabilities.
    """
    cdef Py_ssize_t n = call.n
    cdef int result
    pair.id = id
    pair.has_y = call.draft != NULL and id >= 0
    if pair.has_y:
        pair.y = find_row(
            call.draft, request * call.length + j, n, &s.y_packed, &pair.y_packed, like
        )
        result = read_kept(pair.y, pair.y_packed, n, f, True, s, &pair.q, like)
        if result != 0:
            return result if result > 0 else <int>(-2 - 2 * j)
    pair.x = find_row(
        call.target, request * (call.length + 1) + j, n, &s.x_packed, &pair.x_packed, like
    )
    result = read_kept(pair.x, pair.x_packed, n, f, id >= 0, s, &pair.p, like)
    return result if result >= 0 else <int>(-1 - 2 * j)


cdef inline double drafted_weight(
    const void *x, PackedRow *packed, int64_t id, const Kept *kept, real like
) noexcept nogil:
    """Return the weight of the id drafted in a row as kept."""
    return kept_weight(row_element(<const real *>x, id, packed), id, kept)


cdef inline bint accepts(
    Pair *pair, Py_ssize_t n, double u, Workspace *work, real like
) noexcept nogil:
    """Return whether u accepts the id drafted: u q < p."""
    cdef double *sums = <double *>work.maxima
    cdef double w = drafted_weight(pair.x, pair.x_packed, pair.id, &pair.p, like)
    cdef double v = 1, low, high
    cdef double off = pair.p.error
    if pair.has_y:
        v = drafted_weight(pair.y, pair.y_packed, pair.id, &pair.q, like)
        off += pair.q.error
    if w == 0 or v == 0:  # what q has no part of cannot have been drawn from it
        return False
    low = u * v * pair.p.total
    high = w * (pair.q.total if pair.has_y else 1)
    if off > 0 and low < high * (1 + 2 * off) and high < low * (1 + 2 * off):
        make_total_exact(<const real *>pair.x, n, &pair.p, sums, pair.x_packed)
        if pair.has_y:
            make_total_exact(<const real *>pair.y, n, &pair.q, sums, pair.y_packed)
        low = u * v * pair.p.total
        high = w * (pair.q.total if pair.has_y else 1)
    return low < high


cdef inline int64_t draw_next(
    Pair *pair, Py_ssize_t n, double u, double factor, Workspace *work, real like
) noexcept nogil:
    """Return the id that u draws after the drafts that were accepted; -1 for none."""
    cdef double total
    if pair.id < 0:
        return draw_kept(n, u, pair, work, like)
    total = sum_residuals(n, pair, factor, work, like)
    if not total > 0:  # by rounding: there was nothing to reject
        pair.has_y = False
        pair.id = -1
        total = sum_residuals(n, pair, 1, work, like)
    return draw_residual(n, u, pair, factor, total, work, like)


cdef inline int verify_greedily(
    const VerifyCall *call, Py_ssize_t request, Scratch *s, int64_t *ids, real like
) noexcept nogil:
    """Verify the drafts of a request at T = 0; return as `verify_chain` does."""
    cdef const int64_t *drafts = call.drafts + request * call.length
    cdef Py_ssize_t j = 0
    cdef const void *x
    for j in range(call.length + 1):
        x = find_row(
            call.target, request * (call.length + 1) + j, call.n, &s.x_packed, &s.work.packed,
            like,
        )
        ids[j] = argmax(<const real *>x, call.n, <real *>s.work.maxima, s.work.packed)
        if ids[j] < 0:
            return <int>(-1 - 2 * j)
        if j == call.length or drafts[j] != ids[j] or stopped(call.n):
            break
    call.counts[request] = j + 1
    return 0


cdef inline int64_t race_at(
    const VerifyCall *call, Py_ssize_t request, Py_ssize_t j, const Filters *f, Scratch *s,
    int *result, real like,
) noexcept nogil:
    """Return the id that the target's race at place j draws.

    `result` becomes 0, NO_MEMORY, or the code of a row without probabilities.
    """
    cdef const Race *race = call.race
    cdef PackedRow *packed
    cdef const void *x = find_row(
        call.target, request * (call.length + 1) + j, call.n, &s.x_packed, &packed, like
    )
    cdef int64_t id
    while True:
        s.work.packed = packed
        race_of_row(
            race.seeds[request * race.seed_stride],
            race.positions[request * race.position_stride] + <uint64_t>j,
            <const real *>x, call.n, f, &s.work, &id,
        )
        if not s.work.is_full or s.work.most >= call.n:
            break
        s.work.packed = NULL
        if not enlarge_workspace(&s.work, call.n):
            result[0] = NO_MEMORY
            return -1
    result[0] = 0 if id >= 0 else <int>(-1 - 2 * j)
    return id


cdef inline int verify_races(
    const VerifyCall *call, Py_ssize_t request, const Filters *f, Scratch *s, int64_t *ids,
    real like,
) noexcept nogil:
    """Verify the drafts of a request by the target's races; return as `verify_chain` does."""
    cdef const int64_t *drafts = call.drafts + request * call.length
    cdef Py_ssize_t j = 0
    cdef int result = 0
    for j in range(call.length + 1):
        ids[j] = race_at(call, request, j, f, s, &result, like)
        if result != 0:
            return result
        if j == call.length or drafts[j] != ids[j] or stopped(call.n):
            break
    call.counts[request] = j + 1
    return 0


cdef inline int verify_chain(
    const VerifyCall *call, Py_ssize_t request, const Filters *f, const double *u, Scratch *s,
    Pair *pair, int64_t *ids, real like,
) noexcept nogil:
    """Verify the drafts of a request one after the other; write how many ids there are.

    Return 0, NO_MEMORY, or the code of a row without probabilities.
    """
    cdef Py_ssize_t j = 0, n = call.n
    cdef int result
    cdef int64_t id
    for j in range(call.length + 1):
        id = call.drafts[request * call.length + j] if j < call.length else -1
        result = read_pair(call, request, j, id if 0 <= id < n else -1, f, s, pair, like)
        if result != 0:
            return result
        if pair.id < 0 or stopped(n) or not accepts(pair, n, u[1 + j], &s.work, like):
            break
        ids[j] = pair.id
    ids[j] = draw_next(pair, n, u[0], 1, &s.work, like)
    call.counts[request] = j + 1
    return 0 if ids[j] >= 0 else <int>(-1 - 2 * j)


cdef inline double share_left(
    Pair *pair, Py_ssize_t n, double factor, Workspace *work, double *ratio, real like
) noexcept nogil:
    """Return the sum of the positive part of factor * p - q; write p / q of the id drafted."""
    cdef double p, q
    make_total_exact(
        <const real *>pair.x, n, &pair.p, <double *>work.maxima, pair.x_packed
    )
    p = drafted_weight(pair.x, pair.x_packed, pair.id, &pair.p, like) / pair.p.total
    if not pair.has_y:
        ratio[0] = p
        return factor * (1 - p)
    make_total_exact(
        <const real *>pair.y, n, &pair.q, <double *>work.maxima, pair.y_packed
    )
    q = drafted_weight(pair.y, pair.y_packed, pair.id, &pair.q, like) / pair.q.total
    ratio[0] = p / q if q > 0 else 0
    return sum_residuals(n, pair, factor, work, like)


cdef inline int verify_block(
    const VerifyCall *call, Py_ssize_t request, const Filters *f, const double *u, Scratch *s,
    Pair *pair, int64_t *ids, real like,
) noexcept nogil:
    """Verify the drafts of a request as a block; write and return as `verify_chain` does."""
    cdef Py_ssize_t j = 0, kept = 0, n = call.n
    cdef double factor = 1, kept_factor = 1, ratio, left
    cdef int64_t id
    cdef int result
    for j in range(call.length + 1):
        id = call.drafts[request * call.length + j] if j < call.length else -1
        result = read_pair(call, request, j, id if 0 <= id < n else -1, f, s, pair, like)
        if result != 0:
            return result
        if pair.id < 0:
            if j == 0 or u[j] < factor:
                kept = j
            break
        left = share_left(pair, n, factor, &s.work, &ratio, like)
        if j > 0 and u[j] * (left + 1 - factor) < left:
            kept = j
            kept_factor = factor
        ids[j] = pair.id
        factor = min(1.0, factor * ratio)
        if factor == 0 or stopped(n):
            break
    if kept < j or pair.id >= 0:
        result = read_pair(call, request, kept, ids[kept], f, s, pair, like)
        if result != 0:
            return result
    ids[kept] = draw_next(pair, n, u[0], kept_factor, &s.work, like)
    call.counts[request] = kept + 1
    return 0 if ids[kept] >= 0 else <int>(-1 - 2 * kept)


cdef inline int verify_some(
    const VerifyCall *call, Py_ssize_t first, Py_ssize_t requests, real like
) noexcept nogil:
    """Verify the drafts of some requests; return 0, or -1 if there was no memory."""
    cdef const Filters *f = call.filters + first * call.filter_stride
    cdef const double *u
    cdef Scratch s
    cdef Pair pair
    cdef Py_ssize_t i, j
    cdef int64_t *ids
    cdef int result = 0
    if not allocate_scratch(
        &s, call.n, max_selected_of(call.n, f, requests if call.filter_stride else 1, 0),
        call.target.is_packed or call.target.packed.load_mask != NULL
        or call.draft != NULL and call.draft.is_packed,
    ):
        return -1
    for i in range(first, first + requests):
        f = call.filters + i * call.filter_stride
        u = call.uniforms + (i * (call.length + 1) if call.race == NULL else 0)
        ids = call.ids + i * (call.length + 1)
        if f.temperature == 0:
            result = verify_greedily(call, i, &s, ids, like)
        elif call.method == RACES:
            result = verify_races(call, i, f, &s, ids, like)
        elif call.method == BLOCKS:
            result = verify_block(call, i, f, u, &s, &pair, ids, like)
        else:
            result = verify_chain(call, i, f, u, &s, &pair, ids, like)
        if result == NO_MEMORY:
            break
        if result < 0:
            call.counts[i] = result
        for j in range(max(<Py_ssize_t>0, call.counts[i]), call.length + 1):
            ids[j] = -1
    if result != NO_MEMORY:
        free_scratch(&s)
        return 0
    free(s.x_packed.part)
    return -1


cdef inline int verify_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Verify the drafts of requests; a `rows_fn`."""
    cdef const VerifyCall *call = <const VerifyCall *>_call
    if call.dtype == FLOAT32:
        return verify_some(call, first, rows, <float>0)
    return verify_some(call, first, rows, <double>0)
