# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Elements of any type to numbers that are computed with, and back, a contiguous piece at once."""

from libc.stdint cimport (
    int8_t,
    int16_t,
    int32_t,
    int64_t,
    uint8_t,
    uint16_t,
    uint32_t,
    uint64_t,
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
from fastsoftmax._kernels.types cimport bits32, from_bits32, inlined_void

cdef extern from *:
    uint16_t swap16 "__builtin_bswap16"(uint16_t x) noexcept nogil
    uint32_t swap32 "__builtin_bswap32"(uint32_t x) noexcept nogil
    uint64_t swap64 "__builtin_bswap64"(uint64_t x) noexcept nogil
    ctypedef double *out_doubles "double *__restrict"
    ctypedef const double *in_doubles "const double *__restrict"

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


cdef inline inlined_void move_each(
    const char *x, Py_ssize_t x_step, char *y, Py_ssize_t y_step, Py_ssize_t size, Py_ssize_t n
) noexcept nogil:
    """Copy n elements of `size` bytes, a literal, to y, one by one."""
    cdef Py_ssize_t j
    for j in range(n):
        memcpy(y + j * y_step, x + j * x_step, size)


cdef inline inlined_void move_apart(
    const char *x, char *y, Py_ssize_t step, Py_ssize_t size, Py_ssize_t n, bint out
) noexcept nogil:
    """Copy n elements, of `size` bytes, a literal, to y: from `step` apart, or if `out` to there.

    8 bytes by one store, or load: one element at a time these are what takes the time.
    """
    cdef char several[8]
    cdef Py_ssize_t many = 8 // size
    cdef Py_ssize_t whole = n - n % many if many > 1 else 0
    cdef Py_ssize_t j, l
    for j from 0 <= j < whole by many:
        if out:
            memcpy(several, x + j * size, 8)
        for l in range(many):
            if out:
                memcpy(y + (j + l) * step, several + l * size, size)
            else:
                memcpy(several + l * size, x + (j + l) * step, size)
        if not out:
            memcpy(y + j * size, several, 8)
    if out:
        move_each(x + whole * size, size, y + whole * step, step, size, n - whole)
    else:
        move_each(x + whole * step, step, y + whole * size, size, size, n - whole)


cdef inline void move_elements(
    const char *x, char *y, Py_ssize_t step, Py_ssize_t size, Py_ssize_t n, bint out
) noexcept nogil:
    """Call `move_apart` for any `size`."""
    if step == size:
        memcpy(y, x, n * size)
    elif size == 8:
        move_apart(x, y, step, 8, n, out)
    elif size == 4:
        move_apart(x, y, step, 4, n, out)
    elif size == 2:
        move_apart(x, y, step, 2, n, out)
    else:
        move_apart(x, y, step, 1, n, out)


cdef inline void gather(
    const char *x, Py_ssize_t step, Py_ssize_t size, Py_ssize_t n, char *y
) noexcept nogil:
    """Copy n elements of `size` bytes that are `step` apart to y, side by side."""
    move_elements(x, y, step, size, n, False)


cdef inline void scatter(
    const char *x, Py_ssize_t size, Py_ssize_t n, char *y, Py_ssize_t step
) noexcept nogil:
    """Copy n elements of `size` bytes, side by side, to y, `step` apart."""
    move_elements(x, y, step, size, n, True)


cdef inline void swap_bytes(char *x, Py_ssize_t size, Py_ssize_t n) noexcept nogil:
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


# ---- conversions of contiguous elements, a loop each for the vectoriser --------------------------


cdef inline void widen(in_floats x, Py_ssize_t n, out_doubles y) noexcept nogil:
    """Write n numbers of float32 as float64."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = x[j]


cdef inline void narrow(in_doubles x, Py_ssize_t n, out_floats y) noexcept nogil:
    """Write n numbers of float64 as float32."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = <float>x[j]


cdef inline void narrow_to_odd(in_doubles x, Py_ssize_t n, out_floats y) noexcept nogil:
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


cdef inline void floats_of_integers(
    const small_integer *x, Py_ssize_t n, out_floats y
) noexcept nogil:
    """Write n integers as float32, exactly."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = <float>x[j]


cdef inline void doubles_of_integers(
    const large_integer *x, Py_ssize_t n, out_doubles y
) noexcept nogil:
    """Write n integers as float64."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = <double>x[j]


cdef inline void load_integers(int element, const char *x, Py_ssize_t n, int64_t *y) noexcept nogil:
    """Write n integers as int64 of the same order."""
    cdef Py_ssize_t j
    if element == ELEMENT_UINT64:
        for j in range(n):
            y[j] = <int64_t>((<const uint64_t *>x)[j] ^ 0x8000000000000000ULL)
    else:
        memcpy(y, x, n * 8)


cdef inline void load_floats(int element, const char *x, Py_ssize_t n, float *y) noexcept nogil:
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


cdef inline void load_doubles(int element, const char *x, Py_ssize_t n, double *y) noexcept nogil:
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


cdef inline void convert(
    int element, const char *x, Py_ssize_t n, int dtype, char *y
) noexcept nogil:
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


cdef inline void convert_back(
    int element, const char *x, Py_ssize_t n, int dtype, char *y
) noexcept nogil:
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
