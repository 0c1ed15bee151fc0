# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Steps that look at how the tokens so far end, or at a state, as plain steps for one row.

What they do is known before the row is read: they suppress some tokens, add to the scores of some,
or keep what a threshold tells.
"""

from libc.math cimport log, pow
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastsoftmax._kernels.chain_abi cimport (
    BAD_WORDS,
    DRY,
    EPSILON,
    LOGIT_BIAS,
    MIN_LENGTH,
    MIROSTAT,
    NO_REPEAT_NGRAM,
    SEQUENCE_BIAS,
    SUPPRESS_TOKENS,
    ChainStep,
    PastTokens,
)
from fastsoftmax._kernels.chain_steps cimport find_id
from fastsoftmax._kernels.history cimport HistoryRow, history_free, history_set
from fastsoftmax._kernels.history_queries cimport (
    HistoryScratch,
    ends_with,
    history_continuations,
    history_distinct,
    history_scratch_free,
    history_since,
)
from fastsoftmax._kernels.types cimport noinline_void

cdef enum:
    NOT_SET = -1

cdef struct Resolved:  # of one worker
    ChainStep *steps
    Py_ssize_t step_room
    int64_t *ids  # of what the steps name,
    double *values  # and what is added to their scores
    Py_ssize_t used
    Py_ssize_t room
    HistoryRow row  # tokens that no History keeps
    HistoryScratch scratch
    bint complete


cdef inline void begin_resolved(Resolved *r) noexcept nogil:
    """Set up what `free_resolved` frees."""
    memset(r, 0, sizeof(Resolved))


cdef inline void free_resolved(Resolved *r) noexcept nogil:
    """Free what the steps of rows were resolved in."""
    free(r.steps)
    free(r.ids)
    history_free(&r.row)
    history_scratch_free(&r.scratch)


cdef inline bint looks_for_repeats(const ChainStep *step) noexcept nogil:
    """Return whether a step asks where the end of the tokens has occurred before."""
    return step.op == NO_REPEAT_NGRAM or step.op == DRY


cdef inline bint reserve_resolved(
    Resolved *r, const ChainStep *steps, Py_ssize_t n_steps, const PastTokens *past
) noexcept nogil:
    """Make room for the steps and for all that they may name; return whether there was memory."""
    cdef Py_ssize_t i, room = 0
    r.used = 0
    for i in range(n_steps):
        room += past.size if looks_for_repeats(steps + i) else steps[i].n_sequences
    if n_steps > r.step_room:
        free(r.steps)
        r.steps = <ChainStep *>malloc(n_steps * sizeof(ChainStep))
        r.step_room = n_steps if r.steps != NULL else 0
    if room > r.room:
        free(r.ids)
        r.ids = <int64_t *>malloc(2 * room * sizeof(int64_t))
        r.values = <double *>(r.ids + room)
        r.room = room if r.ids != NULL else 0
    return r.step_room >= n_steps and r.room >= room


cdef inline void sift_id(
    int64_t *id, double *value, Py_ssize_t n, Py_ssize_t i
) noexcept nogil:
    """Move element i of a heap of n, whose root is the largest id, down to where it belongs."""
    cdef Py_ssize_t child = 2 * i + 1
    while child < n:
        child += child + 1 < n and id[child + 1] > id[child]
        if id[child] <= id[i]:
            break
        id[i], id[child] = id[child], id[i]
        value[i], value[child] = value[child], value[i]
        i, child = child, 2 * child + 1


cdef inline void sort_ids(int64_t *id, double *value, Py_ssize_t n) noexcept nogil:
    """Sort distinct ids, each with its value."""
    cdef Py_ssize_t i
    for i in range(n // 2 - 1, -1, -1):
        sift_id(id, value, n, i)
    for i in range(n - 1, 0, -1):
        id[0], id[i] = id[i], id[0]
        value[0], value[i] = value[i], value[0]
        sift_id(id, value, i, 0)


cdef inline void name_completions(
    Resolved *r, const ChainStep *step, const PastTokens *past
) noexcept nogil:
    """Name the tokens that would complete sequences of a step, which come in the order of these.

    The values of one token are summed up in the order of its sequences.
    """
    cdef Py_ssize_t s, first, last
    cdef int64_t latest = NOT_SET
    for s in range(step.n_sequences):
        first, last = step.starts[s], step.starts[s + 1] - 1
        if not ends_with(
            past.ids, past.size, 0 if step.prompt else past.prompt, step.sequences + first,
            last - first,
        ):
            continue
        if step.sequences[last] != latest:
            latest = r.ids[r.used] = step.sequences[last]
            r.values[r.used] = 0
            r.used += 1
        r.values[r.used - 1] += step.values[s]


cdef inline Py_ssize_t find_repeats(
    Resolved *r, const ChainStep *step, const HistoryRow *row
) noexcept nogil:
    """Find the tokens that would repeat what a step says; return how many, -1 without memory."""
    cdef Py_ssize_t most
    if step.op == NO_REPEAT_NGRAM:
        if step.k == 1:
            return history_distinct(row, -1, True, &r.scratch)
        if step.k > row.size:
            return 0
        return history_continuations(
            row, -1, <int32_t>(step.k - 1), step.k - 1, &r.scratch
        )
    most = history_since(row, step.last, step.sequences, step.starts, step.n_sequences)
    if step.b > 1.000001:  # else no power can exceed what follows, the largest float32
        most = min(most, step.k + <Py_ssize_t>(88.7228391 / log(step.b)))
    if step.k > row.size:
        return 0
    return history_continuations(row, step.last, <int32_t>step.k, most, &r.scratch)


cdef inline bint name_repeats(
    Resolved *r, const ChainStep *step, const HistoryRow *row, Py_ssize_t n
) noexcept nogil:
    """Name the tokens of a row of n that would repeat; return whether there was memory."""
    cdef Py_ssize_t i, first = r.used, found = find_repeats(r, step, row)
    for i in range(found):
        if 0 <= r.scratch.ids[i] < n and find_id(step, r.scratch.ids[i]) < 0:
            r.ids[r.used] = r.scratch.ids[i]
            if step.op == DRY:
                r.values[r.used] = -(
                    step.a * pow(step.b, <double>(r.scratch.counts[i] - step.k))
                )
            r.used += 1
    sort_ids(r.ids + first, r.values + first, r.used - first)
    return found >= 0


cdef inline double surprise_limit(const ChainStep *step, const PastTokens *past) noexcept nogil:
    """Return Mirostat's mu."""
    return past.state[0] if past.n_state > 0 else 2 * step.a


cdef inline noinline_void resolve(
    Resolved *r, const ChainStep *steps, Py_ssize_t n_steps, const PastTokens *past, Py_ssize_t n
) noexcept nogil:
    """Write to `r.steps` what steps do to a row of n, and to `r.complete` if there was memory."""
    cdef const HistoryRow *row = past.kept
    cdef const ChainStep *step
    cdef ChainStep *plain
    cdef Py_ssize_t i, first
    r.complete = False
    if not reserve_resolved(r, steps, n_steps, past):
        return
    for i in range(n_steps):
        step = steps + i
        plain = r.steps + i
        memcpy(plain, step, sizeof(ChainStep))
        first = r.used
        if step.op == MIN_LENGTH:
            plain.op = SUPPRESS_TOKENS
            if past.size - (0 if step.prompt else past.prompt) >= step.k:
                plain.n_ids = 0
            continue
        if step.op == MIROSTAT:
            plain.op = EPSILON
            plain.a = pow(2, min(-surprise_limit(step, past), <double>1))
            continue
        if looks_for_repeats(step):
            if row == NULL:
                if history_set(&r.row, past.ids, past.size, past.prompt):
                    return
                row = &r.row
            if not name_repeats(r, step, row, n):
                return
        elif step.op == BAD_WORDS or step.op == SEQUENCE_BIAS:
            name_completions(r, step, past)
        else:
            continue
        plain.op = LOGIT_BIAS if step.op == DRY or step.op == SEQUENCE_BIAS else SUPPRESS_TOKENS
        plain.ids, plain.values = r.ids + first, r.values + first
        plain.n_ids = r.used - first
    r.complete = True
