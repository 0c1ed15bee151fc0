# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The phases of softmax over a group of rows of fewer than SHORTEST elements, which lie across.

Plane j holds element j of each row; the lanes of a vector are rows, which fill whole strips.
``row_batch.pxd`` has the phases of longer rows, and the reason for groups. The order of sums is that
of ``row.pxd``. The distance of planes is a constant, without which the compiler would check them
for overlap.
"""

from libc.string cimport memcpy

from fastsoftmax._kernels.exp cimport fma, infinity, log1p_ratio, out_ptr, out_ptr64, real
from fastsoftmax._kernels.exp_scale cimport HIGH, LOW, MAGIC, RATE, SHIFT, exp_variant, scaled_exp
from fastsoftmax._kernels.normalize cimport reciprocal
from fastsoftmax._kernels.row cimport DoubleDouble, two_sum
from fastsoftmax._kernels.row_batch cimport BATCH_ROWS, LANES, larger

cdef enum:
    STRIP = 16  # rows that every vector divides

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
    static inline void fs_put32(float *y, ptrdiff_t half, fs_v32 v) {
        union { fs_v32 v; fs_half32 half[FS_SIDE32 / 4]; } u = {v};
        for (int i = 0; i < FS_SIDE32 / 4; i++) *(fs_half32 *)(y + i * half) = u.half[i];
    }
    static inline void fs_put64(double *y, ptrdiff_t half, fs_v64 v) {
        union { fs_v64 v; fs_half64 half[FS_SIDE64 / 2]; } u = {v};
        for (int i = 0; i < FS_SIDE64 / 2; i++) *(fs_half64 *)(y + i * half) = u.half[i];
    }
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
        fs_put32(y, 4 * n, a);
        fs_put32(y + n, 4 * n, b);
        fs_put32(y + 2 * n, 4 * n, c);
        fs_put32(y + 3 * n, 4 * n, d);
    }
    static inline void fs_gather64(const double *x, ptrdiff_t n, double *p, ptrdiff_t m) {
        fs_v64 a = FS_GET64(x, 2 * n), b = FS_GET64(x + n, 2 * n);
        *(fs_v64 *)p = FS_PICK64(a, b, 0, 2);
        *(fs_v64 *)(p + m) = FS_PICK64(a, b, 1, 3);
    }
    static inline void fs_scatter64(const double *p, ptrdiff_t m, double *y, ptrdiff_t n) {
        fs_v64 a = *(const fs_v64 *)p, b = *(const fs_v64 *)(p + m);
        fs_put64(y, 2 * n, FS_PICK64(a, b, 0, 2));
        fs_put64(y + n, 2 * n, FS_PICK64(a, b, 1, 3));
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
        fs_put32(y, 12, FS_PICK32(ab, ca, 0, 2, 4, 6));
        fs_put32(y + 4, 12, FS_PICK32(bc, ab, 0, 2, 5, 7));
        fs_put32(y + 8, 12, FS_PICK32(ca, bc, 1, 3, 5, 7));
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
    """Return `rows`, which fill strips: so that the compiler knows, and makes no epilogues."""
    return rows & ~(<Py_ssize_t>STRIP - 1)


cdef inline Py_ssize_t padded_rows(Py_ssize_t rows) noexcept nogil:
    """Return how many rows fill strips that hold `rows`."""
    return whole_strips(rows + STRIP - 1)


cdef inline void pad_rows(
    const real *x, real *whole, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Copy some rows, and copies of them until strips are full."""
    cdef Py_ssize_t left
    memcpy(whole, x, rows * n * sizeof(real))
    while rows < padded_rows(rows):
        left = min(rows, padded_rows(rows) - rows)
        memcpy(whole + rows * n, whole, left * n * sizeof(real))
        rows += left


cdef inline void transpose_in(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *soa
) noexcept nogil:
    """planes[j] = element j of each row, for rows of n < SHORTEST"""
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


cdef inline void gather_columns(
    const real *x, int n, Py_ssize_t rows, real *soa
) noexcept nogil:
    """Copy n columns, a literal, which are all."""
    cdef Py_ssize_t r
    cdef int j
    for r in range(whole_strips(rows)):
        for j in range(n):
            soa[j * BATCH_ROWS + r] = x[r * n + j]


cdef inline void transpose_out(
    const real *soa, real *y, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Element j of each row of y = planes[j]"""
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


cdef inline void scatter_columns(
    const real *soa, real *y, int n, Py_ssize_t rows
) noexcept nogil:
    """Copy n columns back, likewise."""
    cdef Py_ssize_t r
    cdef int j
    for r in range(whole_strips(rows)):
        for j in range(n):
            y[r * n + j] = soa[j * BATCH_ROWS + r]


cdef inline void soa_maxima(
    const real *soa, Py_ssize_t rows, Py_ssize_t n, out_ptr highest
) noexcept nogil:
    """Write the largest element of each row; NaN is passed over."""
    cdef Py_ssize_t r, j
    for r in range(whole_strips(rows)):
        highest[r] = -infinity(<real>0)
    for j in range(n):
        for r in range(whole_strips(rows)):
            highest[r] = larger(soa[j * BATCH_ROWS + r], highest[r])


cdef inline void soa_exp(
    const real *soa,
    out_ptr e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *exp_scale,
    exp_variant variant,
) noexcept nogil:
    """e = the exponentials of each plane"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            e[j * BATCH_ROWS + r] = scaled_exp(
                soa[j * BATCH_ROWS + r], exp_scale[SHIFT * BATCH_ROWS + r], exp_scale[RATE * BATCH_ROWS + r],
                exp_scale[LOW * BATCH_ROWS + r], exp_scale[HIGH * BATCH_ROWS + r], exp_scale[MAGIC * BATCH_ROWS + r], variant,
            )


cdef inline void soa_exclude_max(
    const real *soa, out_ptr e, Py_ssize_t rows, Py_ssize_t n, const real *highest
) noexcept nogil:
    """Take the first largest element of each row out of e."""
    cdef bint found[BATCH_ROWS]
    cdef bint hit
    cdef Py_ssize_t r, j
    for r in range(whole_strips(rows)):
        found[r] = highest[r] == infinity(<real>0)  # +inf stays in the sum and makes it NaN
    for j in range(n):
        for r in range(whole_strips(rows)):
            hit = soa[j * BATCH_ROWS + r] == highest[r] and not found[r]
            e[j * BATCH_ROWS + r] = 0 if hit else e[j * BATCH_ROWS + r]
            found[r] |= hit


cdef inline void soa_sums(
    const real *e, Py_ssize_t rows, Py_ssize_t n, out_ptr64 high, out_ptr64 low
) noexcept nogil:
    """Write the sum over the planes, of which those from n on are 0; float32 has no low part."""
    if n <= LANES // 2:
        soa_add(e, rows, LANES // 2, high, low)
    elif n <= LANES:
        soa_add(e, rows, LANES, high, low)
    else:
        soa_add(e, rows, 2 * LANES, high, low)


cdef inline real soa_lane(const real *e, int l, int count) noexcept nogil:
    """Return what lane l of a sum of a row gets."""
    if count > LANES:
        return e[l * BATCH_ROWS] + e[(LANES + l) * BATCH_ROWS]
    return e[l * BATCH_ROWS]


cdef inline double soa_lane_pair(const real *e, int l, int count) noexcept nogil:
    """Return what lanes l and l + 4 get."""
    if count > LANES // 2:
        return <double>soa_lane(e, l, count) + <double>soa_lane(e, l + 4, count)
    return e[l * BATCH_ROWS]


cdef inline void soa_add(
    const real *e, Py_ssize_t rows, int count, out_ptr64 high, out_ptr64 low
) noexcept nogil:
    """Write the sum over `count` planes, a literal."""
    cdef Py_ssize_t r
    cdef int l
    cdef DoubleDouble s
    for r in range(whole_strips(rows)):
        s.high = s.low = 0
        if real is float:
            s.high = (soa_lane_pair(e + r, 0, count) + soa_lane_pair(e + r, 2, count)) + (
                soa_lane_pair(e + r, 1, count) + soa_lane_pair(e + r, 3, count)
            )
        else:
            for l in range(min(count, LANES)):
                two_sum(&s, soa_lane(e + r, l, count))
        high[r] = s.high
        if real is double:
            low[r] = s.low


cdef inline void soa_reciprocals(
    const double *s, const double *rest, Py_ssize_t rows, real *high, real *low
) noexcept nogil:
    """high + low = 1 / (s + rest), NaN if that is infinite"""
    cdef Py_ssize_t r
    for r in range(whole_strips(rows)):
        reciprocal(s[r], <double>0 if real is float else rest[r], high + r, low + r)


cdef inline void soa_log1p_sums(
    const double *s, const double *rest, const real *max_e, Py_ssize_t rows, out_ptr64 logs
) noexcept nogil:
    """logs = log1p((s + rest) / own)"""
    cdef Py_ssize_t r
    for r in range(whole_strips(rows)):
        logs[r] = log1p_ratio(s[r] if real is float else s[r] + rest[r], max_e[r])


cdef inline void soa_scale(
    out_ptr e, Py_ssize_t rows, Py_ssize_t n, const real *high, const real *low
) noexcept nogil:
    """e = e * (high + low), rounded once (nearly)"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            e[j * BATCH_ROWS + r] = fma(e[j * BATCH_ROWS + r], high[r], e[j * BATCH_ROWS + r] * low[r])


cdef inline void soa_log_softmax(
    out_ptr soa,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *highest,
    const real *inverse,
    const real *log_sum,
) noexcept nogil:
    """plane = (plane - highest) * inverse - log_sum"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            soa[j * BATCH_ROWS + r] = (soa[j * BATCH_ROWS + r] - highest[r]) * inverse[r] - log_sum[r]
