# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows and columns of any strides, and of half types, to a kernel by blocks that stay in cache.

A block is some rows, or some neighbouring columns. Its lines (whole rows; or, across, what n rows
have of the columns) come one after the other into scratch, or into the result if a kernel can work
there; the kernel answers in place; from scratch the lines go to where they belong. What a kernel
can read as it stands, it does: all of the array, or each row, if it is long.

NumPy's casts to and from float16 are right and slow, above all for small probabilities, which are
subnormal there: 90 ns each. These here are vector code with the same results.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, uint16_t, uint32_t
from libc.stdlib cimport free, llabs, malloc
from libc.string cimport memcpy

cimport numpy as cnp

from fastsoftmax._kernels.abi cimport LOGSUMEXP, Op
from fastsoftmax._kernels.legacy_abi cimport OldSoftmaxKernels
from fastsoftmax._kernels.types cimport bits32, from_bits32

cdef extern from *:
    ctypedef const uint16_t *halves "const uint16_t *__restrict"
    ctypedef uint16_t *written16 "uint16_t *__restrict"
    ctypedef const float *floats "const float *__restrict"
    ctypedef float *written_floats "float *__restrict"

cdef enum DType:
    FLOAT32
    FLOAT64
    FLOAT16
    BFLOAT16

cdef enum:
    BLOCK_BYTES = 3 << 15  # of scratch: it stays in the second cache, and malloc keeps it at hand
    NEIGHBOURS = 32  # columns of a block, or more: two lines of memory from each row
    HALF_PART = 512  # elements of a half type that are cast at once
    READ_IN_PLACE_BYTES = 1 << 11  # bytes of a row from which on a call for it alone costs less than to move it
    MIN_COLUMNS = 8  # columns side by side below which rows are faster
    SHORT_COLUMN = 1 << 13  # elements of a column from which on that are twice as many
    LONG_COLUMN = 1 << 18  # elements of a column from which on columns are faster again
    SIGNAL_INTERVAL = 1 << 20  # elements between two looks for Ctrl-C

# One of two arrays: its axes that stay, in the order in which they are counted, then lines of
# elements. A line is a row; or, across, one of n stretches of neighbouring columns.
cdef struct Operand:
    char *data
    DType form
    Py_ssize_t strides[64]  # in bytes, as the next two
    Py_ssize_t line
    Py_ssize_t step
    bint rows  # a kernel can walk through a line
    bint whole  # or through all of it

cdef struct StridedPlan:
    Operand x
    Operand y
    Py_ssize_t shape[64]
    int ndim
    Py_ssize_t n
    Py_ssize_t lines  # 1 in rows
    Py_ssize_t length
    bint by_columns


cdef inline bint is_strided_input(object x) except -1:
    """Tell whether x is an ndarray with elements of one of the four types, in any layout."""
    return (
        cnp.PyArray_CheckExact(x)
        and cnp.PyArray_ISNOTSWAPPED(x)
        and cnp.PyArray_NDIM(x) > 0
        and cnp.PyArray_SIZE(x) > 0
        and (
            cnp.PyArray_TYPE(x) in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64, cnp.NPY_FLOAT16)
            or cnp.PyArray_ITEMSIZE(x) == 2 and x.dtype.name == "bfloat16"
        )
    )


cdef inline DType dtype_of(cnp.ndarray a) noexcept:
    """Return the form of an array of one of the four types."""
    if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32:
        return FLOAT32
    if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64:
        return FLOAT64
    return FLOAT16 if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT16 else BFLOAT16


cdef inline bint has_zero_stride(cnp.ndarray x) noexcept:
    """Tell whether x has the same elements again and again, along some axis."""
    cdef int d
    for d in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_STRIDE(x, d) == 0 and cnp.PyArray_DIM(x, d) > 1:
            return True
    return False


cdef inline int kept_axes(cnp.ndarray x, int axis, bint sort, int *kept) noexcept:
    """Write the axes beside `axis` of more than one element; return how many there are.

    If `sort`, in NumPy's order "K", those of the widest strides first; where elements repeat, in
    the order "C".
    """
    cdef int count = 0
    cdef int d, i
    sort = sort and not has_zero_stride(x)
    for d in range(cnp.PyArray_NDIM(x)):
        if d == axis or cnp.PyArray_DIM(x, d) == 1:
            continue
        i = count
        while sort and i > 0 and llabs(
            cnp.PyArray_STRIDE(x, kept[i - 1])
        ) < llabs(cnp.PyArray_STRIDE(x, d)):
            kept[i] = kept[i - 1]
            i -= 1
        kept[i] = d
        count += 1
    return count


cdef inline Operand side(cnp.ndarray a, cnp.ndarray x, int axis, const int *kept, int count) noexcept:
    """Return what is known of `a`, of the shape of x or that without `axis`."""
    cdef Operand s
    cdef int i
    cdef bint reduced = cnp.PyArray_NDIM(a) < cnp.PyArray_NDIM(x)
    s.data = <char *>cnp.PyArray_DATA(a)
    s.form = dtype_of(a)
    for i in range(count):
        s.strides[i] = cnp.PyArray_STRIDE(a, kept[i] - (reduced and kept[i] > axis))
    s.step = 0 if reduced else cnp.PyArray_STRIDE(a, axis)
    s.line = 0
    s.rows = s.whole = s.form <= FLOAT64 and cnp.PyArray_ISALIGNED(a)
    return s


cdef inline void join(StridedPlan *c) noexcept:
    """Make axes one where they lie in both arrays as if they were."""
    cdef Py_ssize_t most = 0
    cdef int i, ndim = 0
    for i in range(c.ndim):
        most = c.shape[i]
        if (
            ndim > 0
            and c.x.strides[ndim - 1] == most * c.x.strides[i]
            and c.y.strides[ndim - 1] == most * c.y.strides[i]
        ):
            ndim -= 1
            most *= c.shape[ndim]
        c.shape[ndim] = most
        c.x.strides[ndim] = c.x.strides[i]
        c.y.strides[ndim] = c.y.strides[i]
        ndim += 1
    c.ndim = ndim


cdef inline void complete(Operand *s, const StridedPlan *c) noexcept:
    """Find out what a kernel can walk through."""
    cdef Py_ssize_t size = 8 if s.form == FLOAT64 else 4
    cdef int i = c.ndim - 1
    s.rows = s.rows and (s.step == size or c.length == 1)
    s.whole = s.rows and (c.lines == 1 or s.line == c.length * size)
    size *= c.n * (c.length if c.by_columns else 1)
    while i >= 0:
        s.whole = s.whole and s.strides[i] == size
        size *= c.shape[i]
        i -= 1


cdef inline StridedPlan plan_strided(
    cnp.ndarray x, cnp.ndarray y, int axis, bint sort, bint ordinary
) noexcept:
    """Describe an array that is reduced along `axis`, and its result, that may be without it.

    `sort` is that of `kept_axes`. Rows it is, not columns, unless the temperatures are `ordinary`.
    """
    cdef StridedPlan c
    cdef int kept[64]
    cdef int i = 0
    cdef Py_ssize_t few
    c.ndim = kept_axes(x, axis, sort, kept)
    for i in range(c.ndim):
        c.shape[i] = cnp.PyArray_DIM(x, kept[i])
    c.x = side(x, x, axis, kept, c.ndim)
    c.y = side(y, x, axis, kept, c.ndim)
    join(&c)
    c.n = cnp.PyArray_DIM(x, axis)
    c.lines = 1
    c.length = c.n
    c.by_columns = False
    if ordinary and c.ndim > 0:
        i = c.ndim - 1
        few = MIN_COLUMNS if c.n <= SHORT_COLUMN or c.n > LONG_COLUMN else 2 * MIN_COLUMNS
        c.by_columns = c.shape[i] >= few and 0 < llabs(c.x.strides[i]) < llabs(c.x.step)
    if c.by_columns:
        c.ndim -= 1
        c.lines = c.n
        c.length = c.shape[i]
        c.x.line = c.x.step
        c.y.line = c.y.step
        c.x.step = c.x.strides[i]
        c.y.step = c.y.strides[i]
    complete(&c.x, &c)
    complete(&c.y, &c)
    return c


cdef inline char *place(const Operand *s, const StridedPlan *c, Py_ssize_t i) noexcept nogil:
    """Return where the i-th row, or set of columns, begins."""
    cdef char *p = s.data
    cdef int d = c.ndim - 1
    while d > 0:
        p += i % c.shape[d] * s.strides[d]
        i //= c.shape[d]
        d -= 1
    return p + i * s.strides[0] if d == 0 else p


# ---- lines ---------------------------------------------------------------------------------------


cdef inline void gather(
    const char *p, Py_ssize_t step, Py_ssize_t size, Py_ssize_t n, char *e
) noexcept nogil:
    """e = n elements of `size` bytes that are `step` bytes apart"""
    cdef Py_ssize_t j
    if step == size:
        memcpy(e, p, n * size)
    elif size == 8:
        for j in range(n):
            memcpy(e + j * 8, p + j * step, 8)
    elif size == 4:
        for j in range(n):
            memcpy(e + j * 4, p + j * step, 4)
    else:
        for j in range(n):
            memcpy(e + j * 2, p + j * step, 2)


cdef inline void scatter(
    char *p, Py_ssize_t step, Py_ssize_t size, Py_ssize_t n, const char *e
) noexcept nogil:
    """The way back."""
    cdef Py_ssize_t j
    if step == size:
        memcpy(p, e, n * size)
    elif size == 8:
        for j in range(n):
            memcpy(p + j * step, e + j * 8, 8)
    elif size == 4:
        for j in range(n):
            memcpy(p + j * step, e + j * 4, 4)
    else:
        for j in range(n):
            memcpy(p + j * step, e + j * 2, 2)


# Signed, where a vector comparison of unsigned numbers would take three instructions.


cdef inline float from_half(uint16_t half) noexcept nogil:
    """Return the float16 with these bits."""
    cdef int32_t h = half & 0x7FFF
    cdef int32_t b = (h << 13) + (112 << 23)
    # Subnormal ones: the difference of two normal numbers.
    cdef int32_t small = bits32(from_bits32(b + (1 << 23)) - from_bits32(113 << 23))
    b += (112 << 23) if h >= 0x7C00 else 0
    b = small if h < 0x400 else b
    return from_bits32(<uint32_t>b | <uint32_t>(half & 0x8000) << 16)


cdef inline uint16_t to_half(float v) noexcept nogil:
    """Return the bits of `v` as float16, to nearest even; NaN is quiet and keeps what fits."""
    cdef int32_t b = bits32(v) & 0x7FFFFFFF
    # Below the smallest normal number the addition rounds at the last bit there is.
    cdef int32_t small = bits32(from_bits32(b) + <float>0.5) - 0x3F000000
    cdef int32_t h = (b + 0xFFF + (b >> 13 & 1) - (112 << 23)) >> 13
    h = small if b < 113 << 23 else h
    h = 0x7C00 if h > 0x7C00 else h
    h = 0x7E00 | (b >> 13 & 0x3FF) if b > 0x7F800000 else h
    return <uint16_t>(h | (bits32(v) >> 16 & 0x8000))


cdef inline uint16_t to_bfloat(float v) noexcept nogil:
    """Return the bits of `v` as bfloat16, to nearest even; NaN is the quiet one of its sign."""
    cdef uint32_t b = bits32(v)
    cdef int32_t size = b & 0x7FFFFFFF
    cdef uint32_t h = b + 0x7FFF + (b >> 16 & 1)
    h = (b >> 16 & 0x8000 | 0x7FC0) << 16 if size > 0x7F800000 else h
    return <uint16_t>(h >> 16)


cdef inline void widen(halves h, Py_ssize_t n, bint is_bf16, written_floats e) noexcept nogil:
    cdef Py_ssize_t j
    if is_bf16:
        for j in range(n):
            e[j] = from_bits32(<uint32_t>h[j] << 16)
    else:
        for j in range(n):
            e[j] = from_half(h[j])


cdef inline void narrow(floats e, Py_ssize_t n, bint is_bf16, written16 h) noexcept nogil:
    cdef Py_ssize_t j
    if is_bf16:
        for j in range(n):
            h[j] = to_bfloat(e[j])
    else:
        for j in range(n):
            h[j] = to_half(e[j])


cdef inline void move_halves(
    const Operand *s, char *p, Py_ssize_t n, float *e, bint out
) noexcept nogil:
    """`move_line` for a half type."""
    cdef uint16_t raw[HALF_PART]
    cdef bint is_bf16 = s.form == BFLOAT16
    cdef Py_ssize_t j, m
    for j from 0 <= j < n by HALF_PART:
        m = min(HALF_PART, n - j)
        if out:
            narrow(<floats>(e + j), m, is_bf16, <written16>raw)
            scatter(p + j * s.step, s.step, 2, m, <char *>raw)
        else:
            gather(p + j * s.step, s.step, 2, m, <char *>raw)
            widen(<halves>raw, m, is_bf16, <written_floats>(e + j))


cdef inline void move_line(
    const Operand *s, char *p, Py_ssize_t n, Py_ssize_t size, char *e, bint out
) noexcept nogil:
    """e = a line that begins at p; or, if `out`, the way back."""
    if s.form > FLOAT64:
        move_halves(s, p, n, <float *>e, out)
    elif out:
        scatter(p, s.step, size, n, e)
    else:
        gather(p, s.step, size, n, e)


cdef inline void move_lines(
    const StridedPlan *c, const Operand *s, Py_ssize_t first, Py_ssize_t pieces, Py_ssize_t within,
    Py_ssize_t width, Py_ssize_t size, char *e, bint out,
) noexcept nogil:
    """Likewise for elements `within` to `within + width` of all lines of some pieces."""
    cdef Py_ssize_t i, k
    cdef char *p
    for i in range(first, first + pieces):
        p = place(s, c, i) + within * s.step
        for k in range(c.lines):
            move_line(s, p + k * s.line, width, size, e, out)
            e += width * size


# ---- blocks --------------------------------------------------------------------------------------


cdef inline int call_kernel(
    const OldSoftmaxKernels *kernel, const StridedPlan *c, const char *x, char *y, Py_ssize_t width,
    Py_ssize_t start, Py_ssize_t stop, const double *temperature, Py_ssize_t each, Op kind,
) except -1 nogil:
    """Answer for `start` to `stop` of the rows, from 0, or of the columns, in pieces of `width`."""
    if c.by_columns and c.x.form == FLOAT64:
        kernel.columns64(
            <const double *>x, <double *>y, c.n, width, temperature, each, kind, start, stop
        )
    elif c.by_columns:
        kernel.columns32(
            <const float *>x, <float *>y, c.n, width, temperature, each, kind, start, stop
        )
    elif c.x.form == FLOAT64:
        kernel.rows64(<const double *>x, <double *>y, stop, c.n, temperature, each, kind)
    else:
        kernel.rows32(<const float *>x, <float *>y, stop, c.n, temperature, each, kind)
    return 0


cdef inline int run_strided(
    const OldSoftmaxKernels *kernel, const StridedPlan *c, const double *temperature, Py_ssize_t each,
    Op kind, Py_ssize_t start, Py_ssize_t stop,
) except -1 nogil:
    """Write the answer for rows or columns `start` to `stop`, counted along the axes that stay.

    `each` is 1 if there is a temperature for each of them, else 0. y is x, or does not overlap it.
    The values of LOGSUMEXP lie in the order in which they are counted.
    """
    cdef Py_ssize_t size = 8 if c.x.form == FLOAT64 else 4
    cdef Py_ssize_t columns = c.length if c.by_columns else 1  # in a piece
    cdef Py_ssize_t most = max(BLOCK_BYTES // (c.n * size), NEIGHBOURS if c.by_columns else 1)
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t first, within, width, pieces, count
    cdef bint ready = c.x.whole and (kind == LOGSUMEXP or c.y.whole)
    # Alone, a row is read once more: its maximum is not found on the way through the one before.
    cdef Py_ssize_t alone = BLOCK_BYTES if kind == LOGSUMEXP else READ_IN_PLACE_BYTES
    cdef bint reads_in_place = ready or not c.by_columns and c.x.rows and c.n * size >= alone
    cdef bint writes_in_place = kind == LOGSUMEXP or c.y.whole or reads_in_place and c.y.rows
    cdef char *e = NULL
    cdef char *source
    cdef char *target
    if ready and c.by_columns:
        return call_kernel(
            kernel, c, c.x.data, c.y.data, c.length, start, stop, temperature, each, kind
        )
    if ready:
        most = max(1, SIGNAL_INTERVAL // c.n)
    elif reads_in_place:
        most = 1
    most = min(most, stop - start)
    if not writes_in_place or kind == LOGSUMEXP and not reads_in_place or c.by_columns:
        e = <char *>malloc(most * c.n * size)
        if e == NULL:
            with gil:
                raise MemoryError
    try:
        while start < stop:
            first = start // columns
            within = start % columns
            count = min(min(most, stop - start), columns - within)
            pieces = 1
            if count == columns:
                pieces = min(most, stop - start) // columns
                count *= pieces
            width = count // pieces if c.by_columns else c.length
            target = e
            if kind != LOGSUMEXP and writes_in_place and width == c.length:
                target = place(&c.y, c, first)
            source = target
            if reads_in_place:
                source = place(&c.x, c, first)
            else:
                move_lines(c, &c.x, first, pieces, within, width, size, target, False)
            if kind == LOGSUMEXP:
                target = c.y.data + start * size
            call_kernel(
                kernel, c, source, target, width, 0, count, temperature + start * each, each, kind
            )
            if target == e:
                move_lines(c, &c.y, first, pieces, within, width, size, e, True)
            start += count
            done += count * c.n
            if done >= SIGNAL_INTERVAL:
                done = 0
                with gil:
                    PyErr_CheckSignals()
    finally:
        free(e)
    return 0
