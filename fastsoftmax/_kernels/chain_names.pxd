# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The tokens of a row that a chain's steps name, and how often each has occurred: a hash table."""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastsoftmax._kernels.chain_abi cimport (
    FREQUENCY_PENALTY,
    LOGIT_BIAS,
    PRESENCE_PENALTY,
    REPETITION_PENALTY,
    SUPPRESS_TOKENS,
    ChainStep,
    PastTokens,
)

cdef struct Names:
    Py_ssize_t count
    Py_ssize_t room
    int64_t *id
    Py_ssize_t *times  # how often each occurs in the history from `counted` on
    double *score  # by `score_names`: as the first steps leave them, -inf if they are removed
    Py_ssize_t *order  # and their places in the order of their ids
    Py_ssize_t counted  # -1 for not counted yet
    int32_t *slots  # place of a name and 1, 0 for none
    int shift  # of a hash to a slot
    const PastTokens *history


cdef inline bint looks_back(const ChainStep *step) noexcept nogil:
    """Return whether a step looks at the tokens so far."""
    return (
        step.op == REPETITION_PENALTY or step.op == FREQUENCY_PENALTY
        or step.op == PRESENCE_PENALTY
    )


cdef inline Py_ssize_t window(const ChainStep *step, const PastTokens *history) noexcept nogil:
    """Return from which token of a history on a step counts."""
    cdef Py_ssize_t start = 0 if step.prompt else history.prompt
    if step.last >= 0:
        start = max(start, history.size - step.last)
    return start


cdef inline Py_ssize_t slot_of(const Names *names, int64_t id) noexcept nogil:
    """Return the slot of an id: where it is, or else where it belongs."""
    cdef Py_ssize_t mask = (<Py_ssize_t>1 << (64 - names.shift)) - 1
    cdef Py_ssize_t slot = <Py_ssize_t>(<uint64_t>id * 0x9E3779B97F4A7C15ULL >> names.shift)
    while names.slots[slot] and names.id[names.slots[slot] - 1] != id:
        slot = (slot + 1) & mask
    return slot


cdef inline Py_ssize_t name_of(const Names *names, int64_t id) noexcept nogil:
    """Return the place of an id among the names, -1 if it is none."""
    return names.slots[slot_of(names, id)] - 1 if names.count else -1


cdef inline Py_ssize_t add_name(Names *names, int64_t id) noexcept nogil:
    """Return the place of an id among the names, to which it is added."""
    cdef Py_ssize_t slot = slot_of(names, id)
    if names.slots[slot] == 0:
        names.id[names.count] = id
        names.times[names.count] = 0
        names.count += 1
        names.slots[slot] = <int32_t>names.count
    return names.slots[slot] - 1


cdef inline bint name_tokens(
    Names *names, const ChainStep *steps, Py_ssize_t n_steps, const PastTokens *history,
    Py_ssize_t n,
) noexcept nogil:
    """Name what the steps name in a row of n; return False if there is no memory."""
    cdef const ChainStep *step
    cdef Py_ssize_t i, s, room = 0, start = history.size
    cdef Py_ssize_t place
    names.count = 0
    names.counted = -1
    names.history = history
    for s in range(n_steps):
        step = steps + s
        if looks_back(step):
            start = min(start, window(step, history))
        elif step.op == LOGIT_BIAS or step.op == SUPPRESS_TOKENS:
            room += step.n_ids
    room += history.size - start
    if room == 0:
        return True
    names.shift = 60
    while <Py_ssize_t>1 << (64 - names.shift) < 2 * room:
        names.shift -= 1
    if room > names.room:
        free(names.id)
        names.id = <int64_t *>malloc(32 * room + (4 << (64 - names.shift)))
        names.room = room if names.id != NULL else 0
        if names.id == NULL:
            return False
        names.times = <Py_ssize_t *>(names.id + room)
        names.score = <double *>(names.id + 2 * room)
        names.order = <Py_ssize_t *>(names.id + 3 * room)
        names.slots = <int32_t *>(names.id + 4 * room)
    memset(names.slots, 0, <size_t>4 << (64 - names.shift))
    for i in range(start, history.size):
        if 0 <= history.ids[i] < n:
            place = add_name(names, history.ids[i])
            names.times[place] += 1
    names.counted = start
    for s in range(n_steps):
        step = steps + s
        if step.op == LOGIT_BIAS or step.op == SUPPRESS_TOKENS:
            for i in range(step.n_ids):
                add_name(names, step.ids[i])
    return True


cdef inline void count_window(Names *names, Py_ssize_t start) noexcept nogil:
    """Count how often each name occurs in the history from `start` on."""
    cdef Py_ssize_t i, place
    if names.counted == start:
        return
    names.counted = start
    for i in range(names.count):
        names.times[i] = 0
    for i in range(start, names.history.size):
        place = name_of(names, names.history.ids[i])
        if place >= 0:
            names.times[place] += 1
