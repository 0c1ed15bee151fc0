# cython: language_level=3, cdivision=True
"""What is asked of a row's tokens so far: counts, how they end, and what would repeat them.

Counts are there without a pass, a window is counted from its own places, and where the end of the
tokens has occurred before is found by following the places of one of its ids.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free

from fastsoftmax._kernels.history cimport (
    HistoryEntry, HistoryRow, history_find, history_resize,
)

cdef struct HistoryScratch:  # of one worker; all zero at first
    int64_t *ids  # the results of `history_distinct` and `history_continuations`:
    int32_t *counts  # for each of these ids, a count or a length
    Py_ssize_t room
    int32_t *longest  # of each entry; zero between calls
    Py_ssize_t longest_room
    int32_t *common
    Py_ssize_t common_room


cdef inline void history_scratch_free(HistoryScratch *scratch) noexcept nogil:
    """Free what a scratch has allocated."""
    free(scratch.ids)
    free(scratch.counts)
    free(scratch.longest)
    free(scratch.common)


cdef inline int history_scratch_reserve(HistoryScratch *scratch, Py_ssize_t n) noexcept nogil:
    """Make room for n results; return -1 without memory."""
    cdef Py_ssize_t room = max(n, 2 * scratch.room)
    if n <= scratch.room:
        return 0
    if not (
        history_resize(<void **>&scratch.ids, room, sizeof(int64_t))
        and history_resize(<void **>&scratch.counts, room, sizeof(int32_t))
    ):
        return -1
    scratch.room = room
    return 0


cdef inline Py_ssize_t history_start(
    const HistoryRow *row, Py_ssize_t last, bint with_prompt
) noexcept nogil:
    """Return the first place of the latest `last` tokens (below 0: all), maybe after the prompt."""
    cdef Py_ssize_t start = 0 if with_prompt else row.prompt
    return start if last < 0 else max(start, row.size - last)


cdef inline Py_ssize_t history_distinct(
    const HistoryRow *row, Py_ssize_t last, bint with_prompt, HistoryScratch *scratch
) noexcept nogil:
    """Find the distinct ids of the latest `last` tokens (below 0: of all), and their counts.

    Returns how many there are, in no order: `scratch.ids` and `scratch.counts`; -1 without memory.
    It takes as long as there are tokens or, from the beginning or after the prompt, distinct ids.
    """
    cdef Py_ssize_t start = history_start(row, last, with_prompt), found = 0, i, j
    cdef bint by_entry = start == 0 or start == row.prompt
    cdef int32_t times
    cdef const HistoryEntry *entry
    if history_scratch_reserve(scratch, min(row.n_entries, max(row.size - start, 0))):
        return -1
    if by_entry and row.n_entries <= row.size - start:
        for i in range(row.n_entries):
            entry = &row.entries[i]
            times = entry.total if start == 0 else entry.generated
            if times:
                scratch.ids[found] = entry.id
                scratch.counts[found] = times
                found += 1
        return found
    for i in range(row.size - 1, start - 1, -1):
        entry = &row.entries[row.entry[i]]
        if entry.last == i:  # the latest of its id: the others are those before it
            times = 0
            j = i
            while j >= start:
                times += 1
                j = row.before[j]
            scratch.ids[found] = entry.id
            scratch.counts[found] = times
            found += 1
    return found


cdef inline bint ends_with(
    const int64_t *tokens, Py_ssize_t size, Py_ssize_t start, const int64_t *ids, Py_ssize_t n
) noexcept nogil:
    """Return whether ``tokens[start:size]`` end with these n ids."""
    cdef Py_ssize_t i, first = size - n
    if first < start:
        return False
    for i in range(n):
        if tokens[first + i] != ids[i]:
            return False
    return True


cdef inline bint history_ends_with(
    const HistoryRow *row, const int64_t *ids, Py_ssize_t n, bint with_prompt
) noexcept nogil:
    """Return whether the tokens, or those generated, end with these n ids."""
    return ends_with(row.ids, row.size, 0 if with_prompt else row.prompt, ids, n)


cdef inline Py_ssize_t history_since(
    const HistoryRow *row,
    Py_ssize_t last,
    const int64_t *ids,
    const Py_ssize_t *starts,
    Py_ssize_t n,
) noexcept nogil:
    """Return how many of the latest `last` tokens (below 0: of all) follow the latest breaker.

    Breaker b is ``ids[starts[b]:starts[b + 1]]``, one id and more. The latest is the one of the n
    that begins last; of several that begin there, the longest. Without any, all of those tokens.
    """
    cdef Py_ssize_t start = history_start(row, last, True), place, b, i, length
    cdef Py_ssize_t begin = -1, longest = 0
    cdef const int64_t *breaker
    for b in range(n):
        breaker = ids + starts[b]
        length = starts[b + 1] - starts[b]
        place = history_find(row, breaker[0])
        while place >= start and place >= begin:
            i = 0
            if place + length <= row.size:
                i = 1
                while i < length and row.ids[place + i] == breaker[i]:
                    i += 1
            if i == length:
                if place > begin or length > longest:
                    begin = place
                    longest = length
                break
            place = row.before[place]
    return row.size - start if begin < 0 else row.size - begin - longest


cdef inline Py_ssize_t history_note(
    const HistoryRow *row,
    Py_ssize_t place,
    int32_t length,
    HistoryScratch *scratch,
    Py_ssize_t found,
) noexcept nogil:
    """Note that the token at `place` would continue a repetition; return how many ids are found."""
    cdef int32_t entry = row.entry[place]
    if scratch.longest[entry] == 0:
        scratch.ids[found] = entry
        found += 1
    scratch.longest[entry] = max(scratch.longest[entry], length)
    return found


cdef inline Py_ssize_t history_common(
    const HistoryRow *row,
    Py_ssize_t start,
    int32_t least,
    int32_t most,
    HistoryScratch *scratch,
    Py_ssize_t found,
) noexcept nogil:
    """Note every repetition from the place `start` on, by the Z algorithm: in linear time.

    ``common[k]`` is how many tokens before the last k equal those before the end.
    """
    cdef Py_ssize_t n = row.size - start, k, same, left = 0, right = 0
    cdef const int64_t *end = row.ids + row.size - 1
    if scratch.common_room < n:
        if not history_resize(<void **>&scratch.common, row.room, sizeof(int32_t)):
            return -1
        scratch.common_room = row.room
    for k in range(1, n):
        same = 0
        if k < right:
            same = min(right - k, <Py_ssize_t>scratch.common[k - left])
        while k + same < n and end[-same] == end[-k - same]:
            same += 1
        scratch.common[k] = <int32_t>same
        if k + same > right:
            left = k
            right = k + same
        if same >= least:
            found = history_note(row, row.size - k, min(<int32_t>same, most), scratch, found)
    return found


cdef inline Py_ssize_t history_continuations(
    const HistoryRow *row, Py_ssize_t last, int32_t least, Py_ssize_t most, HistoryScratch *scratch
) noexcept nogil:
    """Find the tokens that would continue a repetition among the latest `last` (below 0: all).

    Wherever at least `least` (from 1) tokens of the end occur further back, the token that follows
    there is one. Returns how many there are, in no order: `scratch.ids`, and in `scratch.counts`
    the longest repetition that each would continue, at most `most`; -1 without memory.
    """
    cdef Py_ssize_t start = history_start(row, last, True), n = row.size, found = 0, i, t, place
    cdef Py_ssize_t work = 4 * (n - start), rarest = 0, same, limit, known
    cdef int32_t entry
    if least < 1 or most < least or n - start <= least:
        return 0
    most = min(most, n)
    if history_scratch_reserve(scratch, row.n_entries):
        return -1
    if scratch.longest_room < row.n_entries:
        free(scratch.longest)
        scratch.longest = <int32_t *>calloc(row.entry_room, sizeof(int32_t))
        scratch.longest_room = row.entry_room if scratch.longest != NULL else 0
        if scratch.longest == NULL:
            return -1
    # Each repetition has the same id at this distance from its end: the fewer places, the better.
    for t in range(1, least):
        if row.entries[row.entry[n - 1 - t]].total < row.entries[row.entry[n - 1 - rarest]].total:
            rarest = t
    i = row.before[n - 1 - rarest]
    while i >= start:
        place = i + rarest
        limit = min(most, place - start + 1)
        known = scratch.longest[row.entry[place + 1]]
        same = 0
        # What is no longer than one known for the same token does not matter.
        if known < limit and row.ids[place - known] == row.ids[n - 1 - known]:
            while same < limit and row.ids[place - same] == row.ids[n - 1 - same]:
                same += 1
        if same >= least:
            found = history_note(row, place + 1, <int32_t>same, scratch, found)
        work -= same + 1
        if work < 0:  # long repetitions in many places
            found = history_common(row, start, least, <int32_t>most, scratch, found)
            if found < 0:
                free(scratch.longest)  # what it holds is no longer known
                scratch.longest = NULL
                scratch.longest_room = 0
            break
        i = row.before[i]
    for i in range(max(found, 0)):
        entry = <int32_t>scratch.ids[i]
        scratch.ids[i] = row.entries[entry].id
        scratch.counts[i] = scratch.longest[entry]
        scratch.longest[entry] = 0
    return found
