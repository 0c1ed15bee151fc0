# cython: language_level=3, cdivision=True
"""Parts of a row: where they lie, or packed into scratch that stays in cache, one at a time.

A row that has a mask is packed, too: an id that is shut is -inf.
"""

from libc.stdint cimport uint32_t

from fastsoftmax._kernels.abi cimport PackedRows
from fastsoftmax._kernels.bit_masks cimport (
    BITS_AT_ONCE,
    WORD,
    any_open,
    copy_open,
    copy_taken,
    is_mostly_open,
    is_open,
    list_open,
    place_among_open,
    place_of_open,
    word_at,
    words_for,
)
from fastsoftmax._kernels.radix cimport lowest_value, value_t
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.types cimport noinline_void

cdef enum:
    PART = 2048  # elements of a part at most
    LISTED = 256  # of so many elements, one may be open in a row whose open ids are listed

cdef struct PackedRow:  # NULL stands for a row that is read where it lies
    const PackedRows *rows
    Py_ssize_t index  # among them
    void *part  # scratch
    Py_ssize_t size  # elements that are in it
    bint over  # after a signal: nothing is moved any more
    bint masked  # whether the row has a mask
    uint32_t *bits  # of the mask, with 0 behind them
    Py_ssize_t *ids  # what the mask allows, in order, if it is listed; NULL: it never is
    Py_ssize_t count  # how many these are; -1: not listed


cdef inline Py_ssize_t packed_bytes(Py_ssize_t n, const PackedRows *rows) noexcept nogil:
    """Return the bytes of scratch for a row of n elements, a multiple of 8."""
    cdef Py_ssize_t bytes = PART * 8
    if rows.load_mask != NULL:
        bytes += words_for(n) * sizeof(uint32_t) + n // LISTED * sizeof(Py_ssize_t)
    return bytes


cdef inline void place_packed(
    PackedRow *packed, const PackedRows *rows, Py_ssize_t n, void *memory
) noexcept nogil:
    """Set up a row of n elements, but for which one it is, with scratch of `packed_bytes`."""
    packed.rows = rows
    packed.part = memory
    packed.bits = <uint32_t *>(<double *>memory + PART)
    packed.ids = <Py_ssize_t *>(packed.bits + words_for(n))
    packed.over = packed.masked = False


cdef inline bint is_listed(PackedRow *packed) noexcept nogil:
    """Return whether a row has a mask whose open ids are listed."""
    return packed != NULL and packed.masked and packed.count >= 0


cdef inline noinline_void load_row_mask(PackedRow *packed, Py_ssize_t n) noexcept nogil:
    """Load the mask of a row of n elements, if it has one."""
    cdef Py_ssize_t i, words = (n + WORD - 1) // WORD
    packed.masked = packed.rows.load_mask(packed.rows, packed.index, packed.bits)
    packed.count = -1
    if packed.masked:
        for i in range(words, words_for(n)):
            packed.bits[i] = 0
        if n >= LISTED and packed.ids != NULL:
            packed.count = list_open(packed.bits, n, n // LISTED, packed.ids)


cdef inline void begin_row(PackedRow *packed, Py_ssize_t index, Py_ssize_t n) noexcept nogil:
    """Turn to a row of n elements; NULL needs no turning."""
    if packed != NULL:
        packed.index = index
        if packed.rows.load_mask != NULL:
            load_row_mask(packed, n)


cdef inline bint is_moved(PackedRow *packed) noexcept nogil:
    """Return whether elements are loaded and stored rather than read and written where they lie."""
    return packed != NULL and packed.rows.load != NULL


cdef inline const uint32_t *open_bits(PackedRow *packed) noexcept nogil:
    """Return the bits of a row's mask, NULL if it has none."""
    return packed.bits if packed != NULL and packed.masked else NULL


cdef inline noinline_void move_part(
    const value_t *x, Py_ssize_t start, Py_ssize_t n, bint compact, PackedRow *packed
) noexcept nogil:
    """Write a part of a row that is to be loaded or has a mask into scratch, -inf for what is shut.

    If `compact`, words of the mask that are shut are left out; `start` is where a word begins then.
    """
    cdef value_t *part = <value_t *>packed.part
    cdef Py_ssize_t j = 0, stop = n
    packed.size = n
    if start > 0 and start % LOOK_INTERVAL == 0 and stopped(LOOK_INTERVAL):
        packed.over = True
    if packed.over:
        return
    if packed.rows.load != NULL:
        x = part
        while j < n:
            if packed.masked:  # run by run of words that are not shut
                while j < n and word_at(packed.bits, start + j) == 0:
                    j += WORD
                stop = j
                while stop < n and word_at(packed.bits, start + stop) != 0:
                    stop += WORD
                stop = min(stop, n)
            if j < stop:
                packed.rows.load(packed.rows, packed.index, start + j, stop - j, part + j)
            j = stop
    else:
        x += start
    if packed.masked:
        if value_t is float:
            copy_open(packed.bits, start, x, n, compact, part, &packed.size)
        elif value_t is double:
            copy_open(packed.bits, start, x, n, compact, part, &packed.size)


cdef inline const value_t *row_part(
    const value_t *x, Py_ssize_t start, Py_ssize_t n, PackedRow *packed
) noexcept nogil:
    """Return n elements, PART at most, of the row x, from `start` on: until the next such call."""
    if packed == NULL or packed.rows.load == NULL and not packed.masked:
        return x + start
    move_part(x, start, n, False, packed)
    return <const value_t *>packed.part


cdef inline const value_t *open_part(
    const value_t *x, Py_ssize_t start, Py_ssize_t n, PackedRow *packed, Py_ssize_t *count
) noexcept nogil:
    """Return n elements, as `row_part` does, without words that a mask shuts; write how many.

    They are multiples of WORD elements, from a multiple of it, so that lanes stay what they are.
    """
    count[0] = n
    if packed == NULL or not packed.masked:
        return row_part(x, start, n, packed)
    move_part(x, start, n, True, packed)
    count[0] = packed.size
    return <const value_t *>packed.part


cdef inline const float *open_elements(
    const float *x, Py_ssize_t start, Py_ssize_t n, PackedRow *packed, Py_ssize_t *count
) noexcept nogil:
    """Return those of n elements, PART at most, that are open, in order; write how many.

    `start` is where a word begins. It may do what `open_part` does.
    """
    if packed == NULL or not packed.masked or packed.rows.load != NULL or not BITS_AT_ONCE:
        return open_part(x, start, n, packed, count)
    if is_mostly_open(packed.bits, start, n):  # closing up costs more than it saves
        return open_part(x, start, n, packed, count)
    copy_taken(packed.bits, start, x + start, n, <float *>packed.part, count)
    return <const float *>packed.part


cdef inline Py_ssize_t open_place(
    PackedRow *packed, Py_ssize_t start, Py_ssize_t i
) noexcept nogil:
    """Return where element i of a row is in an `open_part` that begins at `start`."""
    if packed == NULL or not packed.masked:
        return i - start
    return place_among_open(packed.bits, start, i)


cdef inline Py_ssize_t element_at(
    PackedRow *packed, Py_ssize_t start, Py_ssize_t n, Py_ssize_t place
) noexcept nogil:
    """Return which element of a row it is of which `open_place` returns `place`."""
    if packed == NULL or not packed.masked:
        return start + place
    return place_of_open(packed.bits, start, n, place)


cdef inline bint is_shut(PackedRow *packed, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    """Return whether nothing is open of the n elements from `start` on, where a word begins."""
    return packed != NULL and packed.masked and not any_open(packed.bits, start, n)


cdef inline bint is_shut_piece(PackedRow *packed, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    """Return whether nothing is open of the n elements from `start` on, a word's at most."""
    return (
        packed != NULL and packed.masked
        and word_at(packed.bits, start) & (<uint32_t>0xFFFFFFFFu >> (WORD - n)) == 0
    )


cdef inline bint has_shut_chunk(
    PackedRow *packed, Py_ssize_t start, Py_ssize_t n, Py_ssize_t size
) noexcept nogil:
    """Return whether a chunk of `size` of the n elements from `start` on is shut."""
    cdef Py_ssize_t chunk
    if packed.masked:
        for chunk from start <= chunk < start + n by size:
            if not any_open(packed.bits, chunk, min(size, start + n - chunk)):
                return True
    return False


cdef inline value_t row_element(
    const value_t *x, Py_ssize_t i, PackedRow *packed
) noexcept nogil:
    """Return an element of the row x."""
    cdef value_t v
    if packed == NULL:
        return x[i]
    if packed.masked and not is_open(packed.bits, i):
        return lowest_value(<value_t>0)
    if packed.rows.load == NULL:
        return x[i]
    packed.rows.load(packed.rows, packed.index, i, 1, &v)
    return v


cdef inline Py_ssize_t part_length(Py_ssize_t n, PackedRow *packed) noexcept nogil:
    """Return how many elements of a row of n can be had at once."""
    return n if packed == NULL else PART
