# cython: language_level=3
"""Memory that a call's threads work in, all of it allocated before any of them writes a result.

So a MemoryError leaves the caller's arrays as they were. There are as many pieces as threads; who
needs one borrows it.
"""

from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    static inline int fs_borrow(char *lent) {
        return !__atomic_exchange_n(lent, 1, __ATOMIC_ACQUIRE);
    }
    static inline void fs_give_back(char *lent) { __atomic_store_n(lent, 0, __ATOMIC_RELEASE); }
    """
    bint mark_borrowed "fs_borrow"(char *lent) noexcept nogil
    void mark_returned "fs_give_back"(char *lent) noexcept nogil

cdef enum:
    LINE = 64  # bytes of a line of cache

cdef struct Reserve:
    char *memory  # NULL: none
    Py_ssize_t bytes  # of a piece; 0 if none is needed
    Py_ssize_t pieces


cdef inline char *first_line(char *scratch) noexcept nogil:
    """Return where the first whole line of some scratch begins."""
    return scratch + (-<size_t>scratch & (LINE - 1))


cdef inline Py_ssize_t spacing(const Reserve *r) noexcept nogil:
    """Return the bytes from a piece to the next: its own in whole lines, and one."""
    return ((r.bytes + LINE - 1) // LINE + 1) * LINE


cdef inline char *piece_at(const Reserve *r, Py_ssize_t i) noexcept nogil:
    """Return the piece number `i`; in the line before it is whether it is lent."""
    return first_line(r.memory) + LINE + i * spacing(r)


cdef inline bint allocate_reserve(Reserve *r, Py_ssize_t pieces) noexcept nogil:
    """Allocate the pieces, if they have bytes; return whether it could. `free_reserve` frees."""
    cdef Py_ssize_t i
    r.memory = NULL
    if r.bytes == 0:
        return True
    r.pieces = pieces
    r.memory = <char *>malloc(pieces * spacing(r) + LINE)
    if r.memory == NULL:
        return False
    for i in range(pieces if pieces > 1 else 0):
        piece_at(r, i)[-LINE] = 0
    return True


cdef inline void free_reserve(Reserve *r) noexcept nogil:
    """Free what was allocated."""
    free(r.memory)
    r.memory = NULL


cdef inline char *borrow(const Reserve *r) noexcept nogil:
    """Return a piece, aligned to lines, for this thread alone until it is given back."""
    cdef Py_ssize_t i = 0
    if r.pieces > 1:
        while not mark_borrowed(piece_at(r, i) - LINE):
            i = (i + 1) % r.pieces
    return piece_at(r, i)


cdef inline void give_back(const Reserve *r, char *piece) noexcept nogil:
    """End what `borrow` began."""
    if r.pieces > 1:
        mark_returned(piece - LINE)
