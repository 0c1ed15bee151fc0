# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Panels of columns: how they lie in the array and in scratch, and how they are loaded and stored.

The array is seen as (outer, n, inner). A panel is some neighbouring columns of one `outer`, or,
where `inner` is small, tiles side by side: all columns of several `outer`. In scratch a row of a
panel fills whole vectors; what is behind its columns is computed and not used.
"""

from fastsoftmax._kernels.types cimport out_ptr, real

cdef enum:
    VECTOR = 8  # columns that a row in scratch fills up to a multiple of
    PREFETCH_ROWS = 6  # rows that are fetched in advance: no stream of neighbours, but leaps
    STREAMS = 3  # so many rows the processor follows by itself
    NARROW = 16  # columns of a tile below which its rows are stored by overlapping vectors

cdef struct Panel:
    Py_ssize_t n  # rows: the elements of a column
    Py_ssize_t stride  # elements of the array from a row to the next
    Py_ssize_t columns  # of a tile
    Py_ssize_t tiles  # they are n * stride elements apart
    Py_ssize_t width  # columns in scratch: those of all tiles, in whole vectors
    Py_ssize_t pitch  # elements of scratch from a row to the next
    Py_ssize_t rows  # rows that scratch has room for
    Py_ssize_t next_panel  # elements of the array from this panel's first one to the next panel's
    Py_ssize_t readable  # elements of the array from this panel's first one to the last of all


cdef inline Py_ssize_t round_to_vector(Py_ssize_t columns) noexcept nogil:
    """Return how many columns the whole vectors have that hold `columns`."""
    return (columns + VECTOR - 1) // VECTOR * VECTOR


cdef inline Py_ssize_t whole_vectors(Py_ssize_t width) noexcept nogil:
    """Return `width`, which fills vectors: so the compiler knows, and makes no epilogues."""
    return width & ~(<Py_ssize_t>VECTOR - 1)


cdef inline void copy_row(const real *x, Py_ssize_t columns, out_ptr e) noexcept nogil:
    """Copy x[0:columns] to e."""
    cdef Py_ssize_t c
    for c in range(columns):
        e[c] = x[c]


cdef inline void copy_vectors(const real *x, Py_ssize_t columns, out_ptr e) noexcept nogil:
    """Copy the whole vectors that hold `columns` elements of x to e."""
    cdef Py_ssize_t c
    cdef int l
    for c from 0 <= c < columns by VECTOR:
        for l in range(VECTOR):
            e[c + l] = x[c + l]


cdef inline void clear_padding(const Panel *p, out_ptr kept) noexcept nogil:
    """Write 0 behind the columns of rows in scratch: numbers that are computed with, and not used.

    Left as malloc gives them, they might be slow, and no tool could tell them from a fault.
    """
    cdef Py_ssize_t r, c
    for r in range(p.rows):
        for c in range(p.columns * p.tiles, p.width):
            kept[r * p.pitch + c] = 0


# ---- rows of one tile ----------------------------------------------------------------------------


cdef inline const real *row_ahead(const real *x, const Panel *p, Py_ssize_t i) noexcept nogil:
    """Return the row that is met PREFETCH_ROWS after row i, in the panel at `x` or the next one.

    Of panels of fewer rows it is the next one's row i.
    """
    i += min(PREFETCH_ROWS, p.n)
    return x + i * p.stride if i < p.n else x + p.next_panel + (i - p.n) * p.stride


cdef inline const real *readable_row(
    const real *x, const Panel *p, Py_ssize_t i, out_ptr spare
) noexcept nogil:
    """Return row i of the panel at `x`, or a copy in `spare` where whole vectors reach too far."""
    x += i * p.stride
    if i * p.stride + p.width <= p.readable:
        return x
    copy_row(x, p.columns, spare)
    return <const real *>spare


cdef inline bint leaps(const Panel *p) noexcept nogil:
    """Return whether rows are to be fetched in advance, not streams that the processor sees."""
    return p.tiles == 1 and p.n > STREAMS


# ---- rows of several tiles -----------------------------------------------------------------------
#
# A row of a tile may be short: it is copied by whole vectors, which reach into what is copied
# afterwards, and only where nothing is, exactly.


cdef inline void load_tiles(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e
) noexcept nogil:
    """Copy `rows` rows of all tiles of `x`, from row i on, to `e`, where tiles lie side by side."""
    cdef Py_ssize_t columns = p.columns
    cdef Py_ssize_t vectors = round_to_vector(columns)
    cdef Py_ssize_t stride = p.stride
    cdef Py_ssize_t pitch = p.pitch
    cdef Py_ssize_t tile_stride = p.n * stride
    cdef Py_ssize_t left = p.tiles * tile_stride - i * stride - vectors
    cdef Py_ssize_t room = p.width - vectors
    cdef Py_ssize_t t, r
    x += i * stride
    for t in range(p.tiles):
        for r in range(rows):
            if r * stride <= left and t * columns <= room:
                copy_vectors(x + r * stride, columns, e + r * pitch)
            else:
                copy_row(x + r * stride, columns, e + r * pitch)
        x += tile_stride
        left -= tile_stride
        e += columns


cdef inline void store_tiles(
    const real *e, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr y
) noexcept nogil:
    """Copy `rows` rows of `e` to all tiles of `y`, from row i on."""
    cdef Py_ssize_t columns = p.columns
    cdef Py_ssize_t vectors = round_to_vector(columns)
    cdef Py_ssize_t stride = p.stride
    cdef Py_ssize_t pitch = p.pitch
    cdef Py_ssize_t tile_stride = p.n * stride
    cdef Py_ssize_t left = p.tiles * tile_stride - vectors
    cdef Py_ssize_t r, _
    y += i * stride
    for _ in range(p.tiles):
        if rows < p.n:  # the next tile's first rows are there already
            left = rows * stride - vectors
        for r in range(rows):
            if r * stride <= left:
                copy_vectors(e + r * pitch, columns, y + r * stride)
            else:
                copy_row(e + r * pitch, columns, y + r * stride)
        e += columns
        y += tile_stride
        left -= tile_stride
