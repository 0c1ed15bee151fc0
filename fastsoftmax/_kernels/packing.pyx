# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Rows of any layout and element type to contiguous rows, and back. Built once per instruction set.

Formula
    y[r, j] = x[r, j] in the type that is computed in, -inf where a mask is False. Masks of ids
    become bits.

Passes over memory
    One, in pieces that stay in L1: the bytes of a piece are gathered (if they do not lie side by
    side, or are swapped or misaligned), then converted. Rows that lie side by side, as columns of
    an array, are transposed in registers.

Precision policy
    Loading is exact but for integers beyond 2**53 and float64 into float32, which are rounded to
    nearest, ties to even. Storing rounds once, to nearest, ties to even.

Source
    See ``half.pxd`` and ``transpose``.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint32_t, uintptr_t
from libc.string cimport memcpy, memset

from fastsoftmax._kernels.abi cimport ELEMENT_BOOL, FLOAT32, INT64, Block, PackingKernels
from fastsoftmax._kernels.conversions cimport (
    PIECE,
    convert,
    convert_back,
    gather,
    scatter,
    size_of,
    swap_bytes,
)
from fastsoftmax._kernels.masks cimport bits_of_bytes, copy_masked
from fastsoftmax._kernels.transpose cimport SIDE32, SIDE64, gather32, gather64, scatter32, scatter64
from fastsoftmax._kernels.types cimport infinity, real


# ---- transposes ----------------------------------------------------------------------------------


cdef void transpose_to_rows(
    const real *x, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, real *y
) noexcept nogil:
    """y[r, j] = x[j, r], rows of x being `stride` elements apart."""
    cdef Py_ssize_t side = SIDE32 if real is float else SIDE64
    cdef Py_ssize_t columns = 4 if real is float else 2
    cdef Py_ssize_t r, j, k
    cdef Py_ssize_t whole = rows - rows % side if n >= columns else 0
    for r from 0 <= r < whole by side:
        for j from 0 <= j < n by columns:
            k = min(j, n - columns)  # the last ones overlap those before
            if real is float:
                scatter32(x + k * stride + r, stride, y + r * n + k, n)
            else:
                scatter64(x + k * stride + r, stride, y + r * n + k, n)
    for r in range(whole, rows):
        for j in range(n):
            y[r * n + j] = x[j * stride + r]


cdef void transpose_from_rows(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *y, Py_ssize_t stride
) noexcept nogil:
    """y[j, r] = x[r, j], rows of y being `stride` elements apart."""
    cdef Py_ssize_t side = SIDE32 if real is float else SIDE64
    cdef Py_ssize_t columns = 4 if real is float else 2
    cdef Py_ssize_t r, j, k
    cdef Py_ssize_t whole = rows - rows % side if n >= columns else 0
    for r from 0 <= r < whole by side:
        for j from 0 <= j < n by columns:
            k = min(j, n - columns)
            if real is float:
                gather32(x + r * n + k, n, y + k * stride + r, stride)
            else:
                gather64(x + r * n + k, n, y + k * stride + r, stride)
    for r in range(whole, rows):
        for j in range(n):
            y[j * stride + r] = x[r * n + j]


cdef inline bint lies_across(const Block *x, int dtype, Py_ssize_t rows) noexcept nogil:
    """Return whether rows are columns of contiguous numbers of `dtype`."""
    cdef Py_ssize_t size = 4 if dtype == FLOAT32 else 8
    return (
        dtype != INT64 and x.element == dtype and not x.swapped and rows > 1
        and x.row_step == size and x.step != size
        and x.step % size == 0 and <uintptr_t>x.data % size == 0
    )


# ---- pieces: PIECE elements of a row, or some short rows -----------------------------------------


cdef inline Py_ssize_t rows_of_piece(Py_ssize_t n) noexcept nogil:
    """Return how many rows of n elements are moved at once."""
    return max(PIECE // max(n, <Py_ssize_t>1), <Py_ssize_t>1)


cdef inline bint is_contiguous(const Block *x, Py_ssize_t size) noexcept nogil:
    """Return whether the elements of each row can be read as they stand."""
    return (
        x.step == size and not x.swapped and <uintptr_t>x.data % size == 0
        and x.row_step % size == 0
    )


cdef inline const char *side_by_side(
    const Block *x, Py_ssize_t row, Py_ssize_t first, Py_ssize_t size, Py_ssize_t rows,
    Py_ssize_t n, bint contiguous, char *y
) noexcept nogil:
    """Return where a piece of rows has its elements side by side: in y, if not in x.

    `contiguous` says whether those of a row are so in x.
    """
    cdef const char *p = x.data + row * x.row_step + first * x.step
    cdef Py_ssize_t r
    if contiguous and (rows == 1 or x.row_step == n * size):
        return p
    for r in range(rows):
        gather(p + r * x.row_step, x.step, size, n, y + r * n * size)
    if x.swapped:
        swap_bytes(y, size, rows * n)
    return y


cdef inline void copy_row(
    const char *mask, const char *x, char *y, Py_ssize_t n, int dtype, double value
) noexcept nogil:
    """Copy n contiguous numbers of `dtype` into y, but `value` where their mask is False."""
    cdef const unsigned char *bytes = <const unsigned char *>mask
    if dtype == FLOAT32:
        copy_masked(bytes, <const float *>x, <float *>y, n, <float>value)
    else:
        copy_masked(bytes, <const double *>x, <double *>y, n, value)


# ---- rows ----------------------------------------------------------------------------------------


cdef void load_or_fill(
    const Block *x, const Block *mask, double value, Py_ssize_t rows, Py_ssize_t n, int dtype,
    char *y,
) noexcept nogil:
    """Load rows into y, which may be x, and `value` where `mask`, unless NULL, is False."""
    cdef Py_ssize_t size = size_of(x.element)
    cdef Py_ssize_t wide = 4 if dtype == FLOAT32 else 8
    cdef bint contiguous = is_contiguous(x, size)
    cdef bint same = x.element == dtype
    cdef Py_ssize_t most = PIECE
    cdef char raw[8 * PIECE]
    cdef char bytes[PIECE]
    cdef const char *source
    cdef const char *m
    cdef Py_ssize_t r, j, k, c
    if x.row_step == n * x.step and (mask == NULL or mask.row_step == n * mask.step):
        n *= rows
        rows = 1
    if same and contiguous and (mask == NULL or mask.step == 1):  # no scratch is needed
        most = max(most, n)
    for r from 0 <= r < rows by rows_of_piece(n):
        c = min(rows_of_piece(n), rows - r)
        for j from 0 <= j < n by most:
            k = min(most, n - j)
            source = side_by_side(x, r, j, size, c, k, contiguous, y if same else raw)
            if not same:
                convert(x.element, source, c * k, dtype, y)
                source = y
            if mask != NULL:
                m = side_by_side(mask, r, j, 1, c, k, mask.step == 1, bytes)
                copy_row(m, source, y, c * k, dtype, value)
            elif source != y:
                memcpy(y, source, c * k * wide)
            y += c * k * wide


cdef void fill(
    const Block *mask, Py_ssize_t rows, Py_ssize_t n, int dtype, double value, void *y
) noexcept nogil:
    """Write `value` into rows where `mask` is False; a `fill_fn`."""
    cdef Block own
    own.data = <char *>y
    own.element = dtype
    own.swapped = False
    own.step = 4 if dtype == FLOAT32 else 8
    own.row_step = n * own.step
    load_or_fill(&own, mask, value, rows, n, dtype, own.data)


cdef void load(
    const Block *x, const Block *mask, Py_ssize_t rows, Py_ssize_t n, int dtype, void *y
) noexcept nogil:
    """Load rows; a `load_fn`."""
    if not lies_across(x, dtype, rows):
        load_or_fill(x, mask, -infinity(<double>0), rows, n, dtype, <char *>y)
        return
    if dtype == FLOAT32:
        transpose_to_rows(<const float *>x.data, x.step // 4, rows, n, <float *>y)
    else:
        transpose_to_rows(<const double *>x.data, x.step // 8, rows, n, <double *>y)
    if mask != NULL:
        fill(mask, rows, n, dtype, -infinity(<double>0), y)


cdef void store(
    const Block *y, Py_ssize_t rows, Py_ssize_t n, int dtype, const void *x
) noexcept nogil:
    """Store rows; a `store_fn`."""
    cdef Py_ssize_t size = size_of(y.element)
    cdef Py_ssize_t wide = 4 if dtype == FLOAT32 else 8
    cdef bint same = y.element == dtype and not y.swapped
    cdef bint contiguous = is_contiguous(y, size)
    cdef char raw[8 * PIECE]
    cdef const char *source = <const char *>x
    cdef const char *stored
    cdef char *p
    cdef Py_ssize_t r, i, j, k, c
    if lies_across(y, dtype, rows):
        if dtype == FLOAT32:
            transpose_from_rows(<const float *>x, rows, n, <float *>y.data, y.step // 4)
        else:
            transpose_from_rows(<const double *>x, rows, n, <double *>y.data, y.step // 8)
        return
    if y.row_step == n * y.step:
        n *= rows
        rows = 1
    for r from 0 <= r < rows by rows_of_piece(n):
        c = min(rows_of_piece(n), rows - r)
        for j from 0 <= j < n by PIECE:
            k = min(<Py_ssize_t>PIECE, n - j)
            p = y.data + r * y.row_step + j * y.step
            stored = source
            if not same and contiguous and c == 1:
                convert_back(y.element, source, k, dtype, p)
            else:
                if not same:
                    convert_back(y.element, source, c * k, dtype, raw)
                    if y.swapped:
                        swap_bytes(raw, size, c * k)
                    stored = raw
                for i in range(c):
                    scatter(stored + i * k * size, size, k, p + i * y.row_step, y.step)
            source += c * k * wide


cdef void load_bits(
    const Block *mask, Py_ssize_t count, Py_ssize_t n, uint32_t *bits
) noexcept nogil:
    """Write a bit for each of n elements of a row; a `load_bits_fn`."""
    cdef char bytes[PIECE]
    cdef Py_ssize_t words = (n + 31) // 32
    cdef Py_ssize_t j, k
    cdef const char *source
    if mask.element == ELEMENT_BOOL:
        for j from 0 <= j < n by PIECE:
            k = min(<Py_ssize_t>PIECE, n - j)
            source = side_by_side(mask, 0, j, 1, 1, k, mask.step == 1, bytes)
            bits_of_bytes(<const unsigned char *>source, k, bits + j // 32)
        return
    k = min(count, words)
    gather(mask.data, mask.step, 4, k, <char *>bits)
    if mask.swapped:
        swap_bytes(<char *>bits, 4, k)
    memset(bits + k, 0, (words - k) * sizeof(uint32_t))
    if k == words and n % 32:
        bits[k - 1] &= ((<uint32_t>1 << n % 32) - 1)


cdef PackingKernels table
table.load = load
table.store = store
table.fill = fill
table.load_bits = load_bits

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.PackingKernels", NULL)
