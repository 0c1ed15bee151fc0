# cython: language_level=3, cdivision=True
"""The tokens of a row so far: kept with their counts and the places where each has occurred.

A token is taken in O(1). Every distinct id has an entry, found by a hash; every place knows the
entry of its id and the last place before it with the same id.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

cdef enum:
    STATE = 2  # numbers that a step may remember from token to token
    MOST_TOKENS = 0x1FFFFFFF  # of a row: places, and slots of the hash, are 32 bits wide

cdef struct HistoryEntry:  # a distinct id of a row; entries are in the order of first appearance
    int64_t id
    int32_t total  # how often it occurs
    int32_t generated  # how often after the prompt
    int32_t last  # its last place
    int32_t slot  # where the hash has it

cdef struct HistoryRow:  # all zero: no tokens
    int64_t *ids  # the prompt, then what was generated, the oldest first
    int32_t *entry  # of each place: the entry of its id
    int32_t *before  # of each place: the last place before it with the same id, or -1
    Py_ssize_t size
    Py_ssize_t prompt  # how many of the tokens are the prompt
    Py_ssize_t room
    int64_t highest  # no id is above it, once there is one
    HistoryEntry *entries
    Py_ssize_t n_entries
    Py_ssize_t entry_room
    int32_t *slots  # the hash: a power of 2 of entries' numbers, plus one; 0 where there is none
    Py_ssize_t slot_mask
    double state[STATE]  # what a step remembers; the first n_state numbers
    int n_state
    double pending[STATE]  # what it will remember if the next token is pending_id
    int n_pending
    int64_t pending_id


cdef inline Py_ssize_t history_slot(const HistoryRow *row, int64_t id) noexcept nogil:
    """Return the slot that has `id`, or the free one where it would be."""
    # The upper bits of the product depend on all bits of the id.
    cdef uint64_t mixed = <uint64_t>id * <uint64_t>0x9E3779B97F4A7C15
    cdef Py_ssize_t slot = <Py_ssize_t>(mixed >> 32) & row.slot_mask
    while row.slots[slot] and row.entries[row.slots[slot] - 1].id != id:
        slot = (slot + 1) & row.slot_mask
    return slot


cdef inline Py_ssize_t history_find(const HistoryRow *row, int64_t id) noexcept nogil:
    """Return the last place of `id` among the tokens, or -1."""
    if row.n_entries == 0:
        return -1
    cdef int32_t entry = row.slots[history_slot(row, id)]
    return row.entries[entry - 1].last if entry else -1


cdef inline bint history_resize(void **array, Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """Give an array room for n elements of `size` bytes; return whether there was memory."""
    cdef void *larger = realloc(array[0], n * size)
    if larger != NULL:
        array[0] = larger
    return larger != NULL


cdef inline int history_reserve(HistoryRow *row, Py_ssize_t n) noexcept nogil:
    """Make room for n tokens; return -1 without memory, and then nothing has changed."""
    cdef Py_ssize_t room = max(n, 2 * row.room, 64)
    if n <= row.room:
        return 0
    if n > MOST_TOKENS:
        return -1
    room = min(room, MOST_TOKENS)
    if not (
        history_resize(<void **>&row.ids, room, sizeof(int64_t))
        and history_resize(<void **>&row.entry, room, sizeof(int32_t))
        and history_resize(<void **>&row.before, room, sizeof(int32_t))
    ):
        return -1
    row.room = room
    return 0


cdef inline int history_reserve_entry(HistoryRow *row) noexcept nogil:
    """Make room for one more entry, and for it in a hash at most half full; -1 without memory."""
    cdef Py_ssize_t room = max(2 * row.entry_room, 64), i
    cdef int32_t *slots
    if row.n_entries < row.entry_room:
        return 0
    slots = <int32_t *>calloc(2 * room, sizeof(int32_t))
    if slots == NULL:
        return -1
    if not history_resize(<void **>&row.entries, room, sizeof(HistoryEntry)):
        free(slots)
        return -1
    free(row.slots)
    row.slots = slots
    row.slot_mask = 2 * room - 1
    row.entry_room = room
    for i in range(row.n_entries):
        row.entries[i].slot = <int32_t>history_slot(row, row.entries[i].id)
        slots[row.entries[i].slot] = <int32_t>(i + 1)
    return 0


cdef inline int history_push(HistoryRow *row, int64_t id, bint is_prompt) noexcept nogil:
    """Take one more token; return -1 without memory, and then nothing has changed."""
    cdef Py_ssize_t slot
    cdef HistoryEntry *entry
    if history_reserve(row, row.size + 1) or history_reserve_entry(row):
        return -1
    slot = history_slot(row, id)
    if row.slots[slot] == 0:
        entry = &row.entries[row.n_entries]
        entry.id = id
        entry.total = entry.generated = 0
        entry.last = -1
        entry.slot = <int32_t>slot
        row.n_entries += 1
        row.slots[slot] = <int32_t>row.n_entries
    entry = &row.entries[row.slots[slot] - 1]
    row.ids[row.size] = id
    row.entry[row.size] = row.slots[slot] - 1
    row.before[row.size] = entry.last
    entry.last = <int32_t>row.size
    entry.total += 1
    entry.generated += not is_prompt
    row.highest = max(row.highest, id) if row.size else id
    row.size += 1
    return 0


cdef inline int history_append(HistoryRow *row, int64_t id) noexcept nogil:
    """Take a generated token, and the state that goes with it; return -1 without memory."""
    if history_push(row, id, False):
        return -1
    if row.n_pending and row.pending_id == id:
        row.n_state = row.n_pending
        memcpy(row.state, row.pending, sizeof(row.state))
    row.n_pending = 0
    return 0


cdef inline void history_pend(
    HistoryRow *row, int64_t id, const double *state, int n
) noexcept nogil:
    """Keep the n numbers that are the row's state once `id` is appended next."""
    cdef int i
    row.pending_id = id
    row.n_pending = n
    for i in range(n):
        row.pending[i] = state[i]


cdef inline void history_clear(HistoryRow *row) noexcept nogil:
    """Forget all tokens and the state; the memory is kept."""
    cdef Py_ssize_t i
    for i in range(row.n_entries):
        row.slots[row.entries[i].slot] = 0
    row.n_entries = row.size = row.prompt = 0
    row.n_state = row.n_pending = 0


cdef inline int history_set(
    HistoryRow *row, const int64_t *ids, Py_ssize_t n, Py_ssize_t prompt
) noexcept nogil:
    """Forget all, then take n tokens, the first `prompt` of them the prompt; -1 without memory."""
    cdef Py_ssize_t i
    history_clear(row)
    if history_reserve(row, n):
        return -1
    for i in range(n):
        if history_push(row, ids[i], i < prompt):
            history_clear(row)
            return -1
    row.prompt = prompt
    return 0


cdef inline void history_free(HistoryRow *row) noexcept nogil:
    """Free what a row has allocated."""
    free(row.ids)
    free(row.entry)
    free(row.before)
    free(row.entries)
    free(row.slots)
