# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Rows of any layout and element type to contiguous rows, and back. Built once per instruction set.

Formula
    y[r, j] = x[r, j] in the type that is computed in, -inf where a mask is False.

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
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport FLOAT32, INT64, Block, PackingKernels
from fastsoftmax._kernels.conversions cimport (
    PIECE,
    convert,
    convert_back,
    gather,
    scatter,
    size_of,
    swap_bytes,
)
from fastsoftmax._kernels.masks cimport copy_masked
from fastsoftmax._kernels.transpose cimport SIDE32, SIDE64, gather32, gather64, scatter32, scatter64
from fastsoftmax._kernels.types cimport infinity, real


# ---- masks ---------------------------------------------------------------------------------------


cdef inline void copy_row(
    const char *mask, const char *x, char *y, Py_ssize_t n, int dtype, double value
) noexcept nogil:
    """Copy n contiguous numbers of `dtype` into y, but `value` where their mask is False."""
    cdef const unsigned char *bytes = <const unsigned char *>mask
    if dtype == FLOAT32:
        copy_masked(bytes, <const float *>x, <float *>y, n, <float>value)
    else:
        copy_masked(bytes, <const double *>x, <double *>y, n, value)


cdef inline void fill_row(
    const char *mask, Py_ssize_t step, Py_ssize_t n, int dtype, double value, char *y
) noexcept nogil:
    """Write `value` into a contiguous row where its mask, `step` bytes an element, is False."""
    cdef char bytes[PIECE]
    cdef const char *m
    cdef Py_ssize_t j, k
    cdef Py_ssize_t size = 4 if dtype == FLOAT32 else 8
    for j from 0 <= j < n by PIECE:
        k = min(<Py_ssize_t>PIECE, n - j)
        m = mask + j
        if step != 1:
            gather(mask + j * step, step, 1, k, bytes)
            m = bytes
        copy_row(m, y + j * size, y + j * size, k, dtype, value)


cdef void fill(
    const Block *mask, Py_ssize_t rows, Py_ssize_t n, int dtype, double value, void *y
) noexcept nogil:
    """Write `value` into rows where `mask` is False; a `fill_fn`."""
    cdef Py_ssize_t r
    cdef Py_ssize_t width = n * (4 if dtype == FLOAT32 else 8)
    for r in range(rows):
        fill_row(
            mask.data + r * mask.row_step, mask.step, n, dtype, value, <char *>y + r * width
        )


# ---- rows ----------------------------------------------------------------------------------------


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


cdef void load(
    const Block *x, const Block *mask, Py_ssize_t rows, Py_ssize_t n, int dtype, void *y
) noexcept nogil:
    """Load rows; a `load_fn`."""
    cdef Py_ssize_t size = size_of(x.element)
    cdef Py_ssize_t wide = 4 if dtype == FLOAT32 else 8
    cdef bint beside = x.step == size and not x.swapped and <uintptr_t>x.data % size == 0
    cdef bint same = x.element == dtype
    cdef char raw[8 * PIECE]
    cdef char *to = <char *>y
    cdef const char *p
    cdef const char *source
    cdef const char *m
    cdef Py_ssize_t r, j, k
    if lies_across(x, dtype, rows):
        if dtype == FLOAT32:
            transpose_to_rows(<const float *>x.data, x.step // 4, rows, n, <float *>y)
        else:
            transpose_to_rows(<const double *>x.data, x.step // 8, rows, n, <double *>y)
        if mask != NULL:
            fill(mask, rows, n, dtype, -infinity(<double>0), y)
        return
    beside = beside and x.row_step % size == 0
    for r in range(rows):
        p = x.data + r * x.row_step
        if beside and same:
            if mask == NULL:
                memcpy(to, p, n * size)
            elif mask.step == 1:
                m = mask.data + r * mask.row_step
                copy_row(m, p, to, n, dtype, -infinity(<double>0))
            else:
                memcpy(to, p, n * size)
                fill_row(
                    mask.data + r * mask.row_step, mask.step, n, dtype, -infinity(<double>0), to
                )
            to += n * wide
            continue
        for j from 0 <= j < n by PIECE:
            k = min(<Py_ssize_t>PIECE, n - j)
            source = p + j * x.step
            if not beside:
                gather(source, x.step, size, k, raw)
                if x.swapped:
                    swap_bytes(raw, size, k)
                source = raw
            convert(x.element, source, k, dtype, to)
            if mask != NULL:
                fill_row(
                    mask.data + r * mask.row_step + j * mask.step, mask.step, k, dtype,
                    -infinity(<double>0), to,
                )
            to += k * wide


cdef void store(
    const Block *y, Py_ssize_t rows, Py_ssize_t n, int dtype, const void *x
) noexcept nogil:
    """Store rows; a `store_fn`."""
    cdef Py_ssize_t size = size_of(y.element)
    cdef Py_ssize_t wide = 4 if dtype == FLOAT32 else 8
    cdef bint same = y.element == dtype and not y.swapped
    cdef bint beside = y.step == size and not y.swapped and <uintptr_t>y.data % size == 0
    cdef char raw[8 * PIECE]
    cdef const char *source = <const char *>x
    cdef char *p
    cdef Py_ssize_t r, j, k
    if lies_across(y, dtype, rows):
        if dtype == FLOAT32:
            transpose_from_rows(<const float *>x, rows, n, <float *>y.data, y.step // 4)
        else:
            transpose_from_rows(<const double *>x, rows, n, <double *>y.data, y.step // 8)
        return
    beside = beside and y.row_step % size == 0
    for r in range(rows):
        p = y.data + r * y.row_step
        if same:
            scatter(source, size, n, p, y.step)
            source += n * wide
            continue
        for j from 0 <= j < n by PIECE:
            k = min(<Py_ssize_t>PIECE, n - j)
            if beside:
                convert_back(y.element, source, k, dtype, p + j * size)
            else:
                convert_back(y.element, source, k, dtype, raw)
                if y.swapped:
                    swap_bytes(raw, size, k)
                scatter(raw, size, k, p + j * y.step, y.step)
            source += k * wide


cdef PackingKernels table
table.load = load
table.store = store
table.fill = fill

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.PackingKernels", NULL)
