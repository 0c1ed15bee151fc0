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
from libc.stdint cimport (
    int8_t,
    int16_t,
    int32_t,
    int64_t,
    uint8_t,
    uint16_t,
    uint32_t,
    uint64_t,
    uintptr_t,
)
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport (
    ELEMENT_BFLOAT16,
    ELEMENT_BOOL,
    ELEMENT_FLOAT16,
    ELEMENT_FLOAT32,
    ELEMENT_FLOAT64,
    ELEMENT_INT16,
    ELEMENT_INT32,
    ELEMENT_INT64,
    ELEMENT_INT8,
    ELEMENT_UINT16,
    ELEMENT_UINT32,
    ELEMENT_UINT64,
    ELEMENT_UINT8,
    FLOAT32,
    FLOAT64,
    INT64,
    Block,
    PackingKernels,
)
from fastsoftmax._kernels.half cimport (
    in_floats,
    in_halves,
    narrow_bfloat16,
    narrow_float16,
    out_floats,
    out_halves,
    widen_bfloat16,
    widen_float16,
)
from fastsoftmax._kernels.transpose cimport SIDE32, SIDE64, gather32, gather64, scatter32, scatter64
from fastsoftmax._kernels.types cimport (
    bits32,
    bits64,
    from_bits32,
    from_bits64,
    infinity,
    noinline_void,
    out_ptr,
    prefetch,
    real,
)

cdef extern from *:
    uint16_t swap16 "__builtin_bswap16"(uint16_t x) noexcept nogil
    uint32_t swap32 "__builtin_bswap32"(uint32_t x) noexcept nogil
    uint64_t swap64 "__builtin_bswap64"(uint64_t x) noexcept nogil
    ctypedef double *out_doubles "double *__restrict"
    ctypedef const double *in_doubles "const double *__restrict"
    ctypedef const unsigned char *in_bytes "const unsigned char *__restrict"

ctypedef fused small_integer:  # exact in float32
    int8_t
    uint8_t
    int16_t
    uint16_t

ctypedef fused large_integer:
    int32_t
    uint32_t
    int64_t
    uint64_t

cdef enum:
    PIECE = 512  # elements that are gathered and converted at once
    AHEAD = 1024  # elements that are fetched in advance, where rows are copied


cdef inline Py_ssize_t size_of(int element) noexcept nogil:
    """Return the bytes of an element."""
    if element == ELEMENT_FLOAT32 or element == ELEMENT_INT32 or element == ELEMENT_UINT32:
        return 4
    if element == ELEMENT_FLOAT64 or element == ELEMENT_INT64 or element == ELEMENT_UINT64:
        return 8
    if element == ELEMENT_BOOL or element == ELEMENT_INT8 or element == ELEMENT_UINT8:
        return 1
    return 2


# ---- bytes ---------------------------------------------------------------------------------------


cdef void gather(
    const char *x, Py_ssize_t step, Py_ssize_t size, Py_ssize_t n, char *y
) noexcept nogil:
    """Copy n elements of `size` bytes that are `step` apart to y, side by side."""
    cdef Py_ssize_t j
    if step == size:
        memcpy(y, x, n * size)
    elif size == 8:
        for j in range(n):
            memcpy(y + j * 8, x + j * step, 8)
    elif size == 4:
        for j in range(n):
            memcpy(y + j * 4, x + j * step, 4)
    elif size == 2:
        for j in range(n):
            memcpy(y + j * 2, x + j * step, 2)
    else:
        for j in range(n):
            y[j] = x[j * step]


cdef void scatter(
    const char *x, Py_ssize_t size, Py_ssize_t n, char *y, Py_ssize_t step
) noexcept nogil:
    """Copy n elements of `size` bytes, side by side, to y, `step` apart."""
    cdef Py_ssize_t j
    if step == size:
        memcpy(y, x, n * size)
    elif size == 8:
        for j in range(n):
            memcpy(y + j * step, x + j * 8, 8)
    elif size == 4:
        for j in range(n):
            memcpy(y + j * step, x + j * 4, 4)
    elif size == 2:
        for j in range(n):
            memcpy(y + j * step, x + j * 2, 2)
    else:
        for j in range(n):
            y[j * step] = x[j]


cdef void swap_bytes(char *x, Py_ssize_t size, Py_ssize_t n) noexcept nogil:
    """Reverse the bytes of each of n elements of `size` bytes."""
    cdef Py_ssize_t j
    if size == 8:
        for j in range(n):
            (<uint64_t *>x)[j] = swap64((<uint64_t *>x)[j])
    elif size == 4:
        for j in range(n):
            (<uint32_t *>x)[j] = swap32((<uint32_t *>x)[j])
    elif size == 2:
        for j in range(n):
            (<uint16_t *>x)[j] = swap16((<uint16_t *>x)[j])


# ---- conversions of contiguous elements, a loop each for the vectoriser ---------------------------


cdef void widen(in_floats x, Py_ssize_t n, out_doubles y) noexcept nogil:
    """Write n numbers of float32 as float64."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = x[j]


cdef void narrow(in_doubles x, Py_ssize_t n, out_floats y) noexcept nogil:
    """Write n numbers of float64 as float32."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = <float>x[j]


cdef void narrow_to_odd(in_doubles x, Py_ssize_t n, out_floats y) noexcept nogil:
    """Write n numbers of float64 as float32, rounded to odd: another rounding is then the only one.

    Source: S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums", IEEE
    Transactions on Computers 57 (2008), https://doi.org/10.1109/TC.2007.70819
    """
    cdef Py_ssize_t j
    cdef float v
    for j in range(n):
        v = <float>x[j]
        if <double>v != x[j] and x[j] == x[j] and not bits32(v) & 1:
            # Away from the even neighbour, to the side on which x lies; infinity comes down.
            v = from_bits32(bits32(v) + (1 if (<double>v < x[j]) == (x[j] > 0) else -1))
        y[j] = v


cdef void floats_of_integers(const small_integer *x, Py_ssize_t n, out_floats y) noexcept nogil:
    """Write n integers as float32, exactly."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = <float>x[j]


cdef void doubles_of_integers(const large_integer *x, Py_ssize_t n, out_doubles y) noexcept nogil:
    """Write n integers as float64."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = <double>x[j]


cdef void load_integers(int element, const char *x, Py_ssize_t n, int64_t *y) noexcept nogil:
    """Write n integers as int64 of the same order."""
    cdef Py_ssize_t j
    if element == ELEMENT_UINT64:
        for j in range(n):
            y[j] = <int64_t>((<const uint64_t *>x)[j] ^ 0x8000000000000000ULL)
    else:
        memcpy(y, x, n * 8)


cdef void load_floats(int element, const char *x, Py_ssize_t n, float *y) noexcept nogil:
    """Write n elements of a type that is exact in float32."""
    if element == ELEMENT_FLOAT16:
        widen_float16(<in_halves>x, n, <out_floats>y)
    elif element == ELEMENT_BFLOAT16:
        widen_bfloat16(<in_halves>x, n, <out_floats>y)
    elif element == ELEMENT_INT8:
        floats_of_integers(<const int8_t *>x, n, <out_floats>y)
    elif element == ELEMENT_INT16:
        floats_of_integers(<const int16_t *>x, n, <out_floats>y)
    elif element == ELEMENT_UINT16:
        floats_of_integers(<const uint16_t *>x, n, <out_floats>y)
    elif element == ELEMENT_UINT8 or element == ELEMENT_BOOL:
        floats_of_integers(<const uint8_t *>x, n, <out_floats>y)
    else:
        memcpy(y, x, n * sizeof(float))


cdef void load_doubles(int element, const char *x, Py_ssize_t n, double *y) noexcept nogil:
    """Write n elements of a type that is not exact in float32."""
    if element == ELEMENT_INT32:
        doubles_of_integers(<const int32_t *>x, n, <out_doubles>y)
    elif element == ELEMENT_UINT32:
        doubles_of_integers(<const uint32_t *>x, n, <out_doubles>y)
    elif element == ELEMENT_INT64:
        doubles_of_integers(<const int64_t *>x, n, <out_doubles>y)
    elif element == ELEMENT_UINT64:
        doubles_of_integers(<const uint64_t *>x, n, <out_doubles>y)
    else:
        memcpy(y, x, n * sizeof(double))


cdef inline bint is_large(int element) noexcept nogil:
    """Return whether an element type is not exact in float32."""
    return (
        element == ELEMENT_FLOAT64 or element == ELEMENT_INT32 or element == ELEMENT_UINT32
        or element == ELEMENT_INT64 or element == ELEMENT_UINT64
    )


cdef void convert(int element, const char *x, Py_ssize_t n, int dtype, char *y) noexcept nogil:
    """Write n <= PIECE contiguous, aligned elements as numbers of `dtype`."""
    cdef float floats[PIECE]
    cdef double doubles[PIECE]
    if dtype == INT64:
        load_integers(element, x, n, <int64_t *>y)
    elif not is_large(element):
        if dtype == FLOAT32:
            load_floats(element, x, n, <float *>y)
        else:
            load_floats(element, x, n, floats)
            widen(<in_floats>floats, n, <out_doubles>y)
    elif dtype == FLOAT64:
        load_doubles(element, x, n, <double *>y)
    else:
        load_doubles(element, x, n, doubles)
        narrow(<in_doubles>doubles, n, <out_floats>y)


cdef void convert_back(int element, const char *x, Py_ssize_t n, int dtype, char *y) noexcept nogil:
    """Write n <= PIECE contiguous numbers of `dtype` as elements of a floating-point type."""
    cdef float floats[PIECE]
    if element == ELEMENT_FLOAT64:
        if dtype == FLOAT64:
            memcpy(y, x, n * sizeof(double))
        else:
            widen(<in_floats>x, n, <out_doubles>y)
        return
    if element == ELEMENT_FLOAT32:
        if dtype == FLOAT32:
            memcpy(y, x, n * sizeof(float))
        else:
            narrow(<in_doubles>x, n, <out_floats>y)
        return
    if dtype == FLOAT64:
        narrow_to_odd(<in_doubles>x, n, <out_floats>floats)
        x = <const char *>floats
    if element == ELEMENT_FLOAT16:
        narrow_float16(<in_floats>x, n, <out_halves>y)
    else:
        narrow_bfloat16(<in_floats>x, n, <out_halves>y)


# ---- masks ---------------------------------------------------------------------------------------


cdef inline real choose(unsigned char mask, real x, real value) noexcept nogil:
    """Return x where the mask is not 0, else value; by bits: of a condition gcc makes a branch."""
    cdef uint32_t m32 = -<uint32_t>(mask != 0)
    cdef uint64_t m64 = -<uint64_t>(mask != 0)
    if real is float:
        return from_bits32((bits32(x) & m32) | (bits32(value) & ~m32))
    else:
        return from_bits64((bits64(x) & m64) | (bits64(value) & ~m64))


cdef noinline_void fill_masked(in_bytes mask, out_ptr y, Py_ssize_t n, real value) noexcept nogil:
    """y = value where the mask is 0"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = choose(mask[j], <real>y[j], value)


cdef noinline_void copy_masked(
    in_bytes mask, const real *x, out_ptr y, Py_ssize_t n, real value
) noexcept nogil:
    """y = x where the mask is not 0, else value"""
    cdef Py_ssize_t j, l, whole = n & ~(<Py_ssize_t>31)
    for j from 0 <= j < whole by 32:
        for l from 0 <= l < 32 by 64 // sizeof(real):
            prefetch(x + j + AHEAD + l)
        prefetch(mask + j + AHEAD)
        for l in range(32):
            y[j + l] = choose(mask[j + l], x[j + l], value)
    for j in range(whole, n):
        y[j] = choose(mask[j], x[j], value)


cdef inline void fill_row(
    const char *mask, Py_ssize_t step, Py_ssize_t n, int dtype, double value, char *y
) noexcept nogil:
    """Write `value` into a contiguous row where its mask, `step` bytes an element, is False."""
    cdef unsigned char bytes[PIECE]
    cdef const unsigned char *m
    cdef Py_ssize_t j, k
    cdef Py_ssize_t size = 4 if dtype == FLOAT32 else 8
    for j from 0 <= j < n by PIECE:
        k = min(<Py_ssize_t>PIECE, n - j)
        m = <const unsigned char *>mask + j
        if step != 1:
            gather(mask + j * step, step, 1, k, <char *>bytes)
            m = bytes
        if dtype == FLOAT32:
            fill_masked(<in_bytes>m, <out_floats>(y + j * size), k, <float>value)
        else:
            fill_masked(<in_bytes>m, <out_doubles>(y + j * size), k, value)


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
            elif mask.step == 1 and dtype == FLOAT32:
                m = mask.data + r * mask.row_step
                copy_masked(
                    <in_bytes>m, <const float *>p, <out_floats>to, n,
                    -infinity(<float>0),
                )
            elif mask.step == 1 and dtype == FLOAT64:
                m = mask.data + r * mask.row_step
                copy_masked(
                    <in_bytes>m, <const double *>p, <out_doubles>to, n,
                    -infinity(<double>0),
                )
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
