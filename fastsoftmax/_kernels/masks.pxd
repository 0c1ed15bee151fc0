# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Contiguous numbers and another value where a mask of bytes is 0; and such a mask as bits.

With AVX2 by its own instructions: compilers widen the bytes in three steps, where one does it.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from fastsoftmax._kernels.types cimport (
    bits32,
    bits64,
    from_bits32,
    from_bits64,
    noinline_void,
    prefetch,
    real,
)

cdef extern from *:
    """
    #if defined(__AVX2__)
    #include <immintrin.h>
    #include <string.h>
    #define FS_MASK_BYTES 32
    static inline void fs_choose_floats(
        const unsigned char *mask, const float *x, float *y, float value
    ) {
        __m256i m = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)mask));
        __m256 out = _mm256_castsi256_ps(_mm256_cmpeq_epi32(m, _mm256_setzero_si256()));
        _mm256_storeu_ps(y, _mm256_blendv_ps(_mm256_loadu_ps(x), _mm256_set1_ps(value), out));
    }
    static inline void fs_choose_doubles(
        const unsigned char *mask, const double *x, double *y, double value
    ) {
        int bytes;
        memcpy(&bytes, mask, 4);
        __m256i m = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(bytes));
        __m256d out = _mm256_castsi256_pd(_mm256_cmpeq_epi64(m, _mm256_setzero_si256()));
        _mm256_storeu_pd(y, _mm256_blendv_pd(_mm256_loadu_pd(x), _mm256_set1_pd(value), out));
    }
    #else
    #define FS_MASK_BYTES 0
    static inline void fs_choose_floats(
        const unsigned char *mask, const float *x, float *y, float value
    ) { (void)mask; (void)x; (void)y; (void)value; }
    static inline void fs_choose_doubles(
        const unsigned char *mask, const double *x, double *y, double value
    ) { (void)mask; (void)x; (void)y; (void)value; }
    #endif
    #if defined(__AVX2__)
    static inline uint32_t fs_bits_of(const unsigned char *mask) {
        __m256i m = _mm256_loadu_si256((const __m256i *)mask);
        return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(m, _mm256_setzero_si256()));
    }
    #elif defined(__SSE2__)
    #include <emmintrin.h>
    static inline uint32_t fs_bits_of(const unsigned char *mask) {
        const __m128i zero = _mm_setzero_si128();
        __m128i a = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)mask), zero);
        __m128i b = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(mask + 16)), zero);
        return ~((uint32_t)_mm_movemask_epi8(a) | (uint32_t)_mm_movemask_epi8(b) << 16);
    }
    #else
    static inline uint32_t fs_bits_of(const unsigned char *mask) {
        uint32_t bits = 0;
        for (int l = 0; l < 32; l++) bits |= (uint32_t)(mask[l] != 0) << l;
        return bits;
    }
    #endif
    """
    const Py_ssize_t MASK_BYTES "FS_MASK_BYTES"  # of numbers that are chosen at once; 0: none
    void choose_floats "fs_choose_floats"(
        const unsigned char *mask, const float *x, float *y, float value
    ) noexcept nogil
    void choose_doubles "fs_choose_doubles"(
        const unsigned char *mask, const double *x, double *y, double value
    ) noexcept nogil
    uint32_t bits_of "fs_bits_of"(const unsigned char *mask) noexcept nogil

cdef enum:
    STEP = 32  # elements between two prefetches
    AHEAD = 1024  # elements that are fetched in advance


cdef inline real choose(unsigned char mask, real x, real value) noexcept nogil:
    """Return x where the mask is not 0, else value; by bits: of a condition gcc makes a branch."""
    cdef uint32_t m32 = -<uint32_t>(mask != 0)
    cdef uint64_t m64 = -<uint64_t>(mask != 0)
    if real is float:
        return from_bits32((bits32(x) & m32) | (bits32(value) & ~m32))
    else:
        return from_bits64((bits64(x) & m64) | (bits64(value) & ~m64))


cdef inline void choose_step(
    const unsigned char *mask, const real *x, real *y, real value
) noexcept nogil:
    """Write STEP elements of x into y where the mask is not 0, else `value`."""
    cdef Py_ssize_t l
    cdef real chosen[STEP]
    if MASK_BYTES == 0:
        for l in range(STEP):
            chosen[l] = choose(mask[l], x[l], value)
        memcpy(y, chosen, sizeof(chosen))
    elif real is float:
        for l from 0 <= l < STEP by MASK_BYTES // sizeof(float):
            choose_floats(mask + l, x + l, y + l, value)
    else:
        for l from 0 <= l < STEP by MASK_BYTES // sizeof(double):
            choose_doubles(mask + l, x + l, y + l, value)


cdef inline noinline_void copy_masked(
    const unsigned char *mask, const real *x, real *y, Py_ssize_t n, real value
) noexcept nogil:
    """Write x[0:n] into y where the mask is not 0, else `value`; y is x or does not overlap it."""
    cdef Py_ssize_t j, l
    cdef Py_ssize_t whole = n - n % STEP
    for j from 0 <= j < whole by STEP:
        for l from 0 <= l < STEP by 64 // sizeof(real):
            prefetch(x + j + AHEAD + l)
        prefetch(mask + j + AHEAD)
        choose_step(mask + j, x + j, y + j, value)
    for j in range(whole, n):
        y[j] = choose(mask[j], x[j], value)


cdef inline void bits_of_bytes(
    const unsigned char *mask, Py_ssize_t n, uint32_t *bits
) noexcept nogil:
    """Write a bit for each byte of a mask, 1 if it is not 0; 0 in the rest of the last word."""
    cdef Py_ssize_t whole = n - n % STEP
    cdef Py_ssize_t j
    for j from 0 <= j < whole by STEP:
        bits[j // STEP] = bits_of(mask + j)
    if whole < n:
        bits[whole // STEP] = 0
        for j in range(whole, n):
            bits[whole // STEP] |= <uint32_t>(mask[j] != 0) << (j - whole)
