# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Short rows to planes and back: plane j holds element j of each row of a batch.

The distance of planes is a constant, without which the compiler would check them for overlap.
"""

from libc.string cimport memcpy

from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS
from fastsoftmax._kernels.types cimport inlined_void, noinline_void, real

cdef enum:
    STRIP = 16  # rows, a multiple of every vector's length

# Rows become planes and back by shuffles of vectors: of loops that do it gcc makes loads and stores
# of single elements. A vector of AVX is two halves that go the same way; of rows, they are `half`
# elements apart. gather32 and scatter32 have 4 columns, gather64 and scatter64 2.
cdef extern from *:
    """
    #define FS_VECTOR(size, type) \
        __attribute__((vector_size(size), aligned(sizeof(type)), may_alias))
    typedef float fs_half32 FS_VECTOR(16, float);
    typedef double fs_half64 FS_VECTOR(16, double);
    #if defined(__AVX__) && (defined(__clang__) || __GNUC__ >= 12)
    #define FS_SIDE32 8
    #define FS_SIDE64 4
    typedef float fs_v32 FS_VECTOR(32, float);
    typedef double fs_v64 FS_VECTOR(32, double);
    #define FS_IN(i) ((i) < 4 ? (i) : (i) + 4)
    #define FS_PICK32(a, b, i, j, k, l) __builtin_shufflevector(a, b, \
        FS_IN(i), FS_IN(j), FS_IN(k), FS_IN(l), \
        FS_IN(i) + 4, FS_IN(j) + 4, FS_IN(k) + 4, FS_IN(l) + 4)
    #define FS_PICK64(a, b, i, j) __builtin_shufflevector(a, b, i, (j) + 2, (i) + 2, (j) + 4)
    #define FS_JOIN32(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7)
    #define FS_JOIN64(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3)
    #else
    #define FS_SIDE32 4
    #define FS_SIDE64 2
    typedef fs_half32 fs_v32;
    typedef fs_half64 fs_v64;
    #ifdef __clang__
    #define FS_PICK32(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
    #define FS_PICK64(a, b, i, j) __builtin_shufflevector(a, b, i, j)
    #else
    typedef int32_t fs_i32 __attribute__((vector_size(16)));
    typedef int64_t fs_i64 __attribute__((vector_size(16)));
    #define FS_PICK32(a, b, i, j, k, l) __builtin_shuffle(a, b, (fs_i32){i, j, k, l})
    #define FS_PICK64(a, b, i, j) __builtin_shuffle(a, b, (fs_i64){i, j})
    #endif
    #define FS_JOIN32(a, b) (a)
    #define FS_JOIN64(a, b) (a)
    #endif
    #define FS_GET32(x, half) FS_JOIN32(*(const fs_half32 *)(x), *(const fs_half32 *)((x) + (half)))
    #define FS_GET64(x, half) FS_JOIN64(*(const fs_half64 *)(x), *(const fs_half64 *)((x) + (half)))
    // No functions: as an argument, a vector of less than its own alignment ends gcc 16 on aarch64.
    #define FS_PUT(type, side, half_type, y, gap, vector) do { \
        union { type whole; half_type half[side]; } u_ = {vector}; \
        for (int i_ = 0; i_ < (side); i_++) *(half_type *)((y) + i_ * (gap)) = u_.half[i_]; \
    } while (0)
    #define FS_PUT32(y, gap, ...) FS_PUT(fs_v32, FS_SIDE32 / 4, fs_half32, y, gap, (__VA_ARGS__))
    #define FS_PUT64(y, gap, ...) FS_PUT(fs_v64, FS_SIDE64 / 2, fs_half64, y, gap, (__VA_ARGS__))
    static inline void fs_turn(fs_v32 *a, fs_v32 *b, fs_v32 *c, fs_v32 *d) {
        fs_v32 p = FS_PICK32(*a, *b, 0, 4, 1, 5), q = FS_PICK32(*c, *d, 0, 4, 1, 5);
        fs_v32 r = FS_PICK32(*a, *b, 2, 6, 3, 7), s = FS_PICK32(*c, *d, 2, 6, 3, 7);
        *a = FS_PICK32(p, q, 0, 1, 4, 5);
        *b = FS_PICK32(p, q, 2, 3, 6, 7);
        *c = FS_PICK32(r, s, 0, 1, 4, 5);
        *d = FS_PICK32(r, s, 2, 3, 6, 7);
    }
    static inline void fs_gather32(const float *x, ptrdiff_t n, float *p, ptrdiff_t m) {
        fs_v32 a = FS_GET32(x, 4 * n), b = FS_GET32(x + n, 4 * n);
        fs_v32 c = FS_GET32(x + 2 * n, 4 * n), d = FS_GET32(x + 3 * n, 4 * n);
        fs_turn(&a, &b, &c, &d);
        *(fs_v32 *)p = a;
        *(fs_v32 *)(p + m) = b;
        *(fs_v32 *)(p + 2 * m) = c;
        *(fs_v32 *)(p + 3 * m) = d;
    }
    static inline void fs_scatter32(const float *p, ptrdiff_t m, float *y, ptrdiff_t n) {
        fs_v32 a = *(const fs_v32 *)p, b = *(const fs_v32 *)(p + m);
        fs_v32 c = *(const fs_v32 *)(p + 2 * m), d = *(const fs_v32 *)(p + 3 * m);
        fs_turn(&a, &b, &c, &d);
        FS_PUT32(y, 4 * n, a);
        FS_PUT32(y + n, 4 * n, b);
        FS_PUT32(y + 2 * n, 4 * n, c);
        FS_PUT32(y + 3 * n, 4 * n, d);
    }
    static inline void fs_gather64(const double *x, ptrdiff_t n, double *p, ptrdiff_t m) {
        fs_v64 a = FS_GET64(x, 2 * n), b = FS_GET64(x + n, 2 * n);
        *(fs_v64 *)p = FS_PICK64(a, b, 0, 2);
        *(fs_v64 *)(p + m) = FS_PICK64(a, b, 1, 3);
    }
    static inline void fs_scatter64(const double *p, ptrdiff_t m, double *y, ptrdiff_t n) {
        fs_v64 a = *(const fs_v64 *)p, b = *(const fs_v64 *)(p + m);
        FS_PUT64(y, 2 * n, FS_PICK64(a, b, 0, 2));
        FS_PUT64(y + n, 2 * n, FS_PICK64(a, b, 1, 3));
    }
    static inline void fs_deinterleave3(const float *x, float *p, ptrdiff_t m) {
        fs_v32 a = FS_GET32(x, 12), b = FS_GET32(x + 4, 12), c = FS_GET32(x + 8, 12);
        fs_v32 late = FS_PICK32(b, c, 2, 3, 5, 6), early = FS_PICK32(a, b, 1, 2, 4, 5);
        *(fs_v32 *)p = FS_PICK32(a, late, 0, 3, 4, 6);
        *(fs_v32 *)(p + m) = FS_PICK32(early, late, 0, 2, 5, 7);
        *(fs_v32 *)(p + 2 * m) = FS_PICK32(early, c, 1, 3, 4, 7);
    }
    static inline void fs_interleave3(const float *p, ptrdiff_t m, float *y) {
        fs_v32 a = *(const fs_v32 *)p, b = *(const fs_v32 *)(p + m);
        fs_v32 c = *(const fs_v32 *)(p + 2 * m);
        fs_v32 ab = FS_PICK32(a, b, 0, 2, 4, 6), bc = FS_PICK32(b, c, 1, 3, 5, 7);
        fs_v32 ca = FS_PICK32(c, a, 0, 2, 5, 7);
        FS_PUT32(y, 12, FS_PICK32(ab, ca, 0, 2, 4, 6));
        FS_PUT32(y + 4, 12, FS_PICK32(bc, ab, 0, 2, 5, 7));
        FS_PUT32(y + 8, 12, FS_PICK32(ca, bc, 1, 3, 5, 7));
    }
    """
    const Py_ssize_t SIDE32 "FS_SIDE32"
    const Py_ssize_t SIDE64 "FS_SIDE64"
    void gather32 "fs_gather32"(
        const float *x, Py_ssize_t n, float *p, Py_ssize_t m
    ) noexcept nogil
    void gather64 "fs_gather64"(
        const double *x, Py_ssize_t n, double *p, Py_ssize_t m
    ) noexcept nogil
    void scatter32 "fs_scatter32"(
        const float *p, Py_ssize_t m, float *y, Py_ssize_t n
    ) noexcept nogil
    void scatter64 "fs_scatter64"(
        const double *p, Py_ssize_t m, double *y, Py_ssize_t n
    ) noexcept nogil
    void deinterleave3 "fs_deinterleave3"(const float *x, float *p, Py_ssize_t m) noexcept nogil
    void interleave3 "fs_interleave3"(const float *p, Py_ssize_t m, float *y) noexcept nogil


cdef inline Py_ssize_t whole_strips(Py_ssize_t rows) noexcept nogil:
    """Return `rows`, which fill strips, so that the compiler knows it and makes no epilogues."""
    return rows & ~(<Py_ssize_t>STRIP - 1)


cdef inline Py_ssize_t padded_rows(Py_ssize_t rows) noexcept nogil:
    """Return `rows`, rounded up to whole strips."""
    return whole_strips(rows + STRIP - 1)


cdef inline void pad_rows(
    const real *x, real *whole, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Copy `rows` rows of `n` elements into `whole`, and repeat them until strips are full."""
    cdef Py_ssize_t left
    memcpy(whole, x, rows * n * sizeof(real))
    while rows < padded_rows(rows):
        left = min(rows, padded_rows(rows) - rows)
        memcpy(whole + rows * n, whole, left * n * sizeof(real))
        rows += left


cdef inline void transpose_in(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *soa
) noexcept nogil:
    """Write element j of each row of `x` into plane j of `soa`; a row has n < MIN_BATCH_LENGTH."""
    cdef Py_ssize_t r, j, k
    if n == 1:
        gather_columns(x, 1, rows, soa)
    elif real is float:
        if n == 2:
            gather_columns(x, 2, rows, soa)
        elif n == 3:
            for r from 0 <= r < whole_strips(rows) by SIDE32:
                deinterleave3(x + 3 * r, soa + r, BATCH_ROWS)
        else:
            for j from 0 <= j < n by 4:
                k = min(j, n - 4)  # the last columns overlap those before
                for r from 0 <= r < whole_strips(rows) by SIDE32:
                    gather32(x + r * n + k, n, soa + k * BATCH_ROWS + r, BATCH_ROWS)
    else:
        for j from 0 <= j < n by 2:
            k = min(j, n - 2)
            for r from 0 <= r < whole_strips(rows) by SIDE64:
                gather64(x + r * n + k, n, soa + k * BATCH_ROWS + r, BATCH_ROWS)


cdef inline inlined_void gather_columns(
    const real *x, int n, Py_ssize_t rows, real *soa
) noexcept nogil:
    """Call `transpose_in` for rows of `n` elements, a literal, by loops."""
    cdef Py_ssize_t r
    cdef int j
    for r in range(whole_strips(rows)):
        for j in range(n):
            soa[j * BATCH_ROWS + r] = x[r * n + j]


cdef inline void transpose_out(
    const real *soa, real *y, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Write plane j of `soa` into element j of each row of `y`."""
    cdef Py_ssize_t r, j, k
    if n == 1:
        scatter_columns(soa, y, 1, rows)
    elif real is float:
        if n == 2:
            scatter_columns(soa, y, 2, rows)
        elif n == 3:
            for r from 0 <= r < whole_strips(rows) by SIDE32:
                interleave3(soa + r, BATCH_ROWS, y + 3 * r)
        else:
            for j from 0 <= j < n by 4:
                k = min(j, n - 4)
                for r from 0 <= r < whole_strips(rows) by SIDE32:
                    scatter32(soa + k * BATCH_ROWS + r, BATCH_ROWS, y + r * n + k, n)
    else:
        for j from 0 <= j < n by 2:
            k = min(j, n - 2)
            for r from 0 <= r < whole_strips(rows) by SIDE64:
                scatter64(soa + k * BATCH_ROWS + r, BATCH_ROWS, y + r * n + k, n)


cdef inline inlined_void scatter_columns(
    const real *soa, real *y, int n, Py_ssize_t rows
) noexcept nogil:
    """Call `transpose_out` for rows of `n` elements, a literal, by loops."""
    cdef Py_ssize_t r
    cdef int j
    for r in range(whole_strips(rows)):
        for j in range(n):
            y[r * n + j] = soa[j * BATCH_ROWS + r]


# ---- built into one function with the loops between them, these keep vectors in memory -----------


cdef inline noinline_void transpose_in_apart(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *soa
) noexcept nogil:
    """Call `transpose_in`."""
    transpose_in(x, rows, n, soa)


cdef inline noinline_void transpose_out_apart(
    const real *soa, real *y, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Call `transpose_out`."""
    transpose_out(soa, y, rows, n)
