# cython: language_level=3
"""Exponentials of bytes from two tables of 16: exp(s q) = exp(16 s (q >> 4)) exp(s (q & 15)).

A table of 16 floats is a vector or two, in which a permutation looks up as many entries at once; of
256 they would be loads, one by one. A row's codes are moved so that its largest is 255.
"""

from libc.stdint cimport uint8_t

# max_byte returns the largest of n codes, their sign bit flipped if they are signed (0x80, else 0).
# sum_weights adds the weights of n codes, a multiple of 64 and 1024 at most, in lanes of float32;
# codes of 255 count as 0, and their number is added to `count`. write_weights writes the weights.
cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    // In Cython the choice goes through an int, and is no instruction on bytes.
    static inline uint8_t fs_max_byte(const uint8_t *q, ptrdiff_t n, uint8_t flip) {
        uint8_t top = 0;
        for (ptrdiff_t j = 0; j < n; j++) {
            uint8_t x = (uint8_t)(q[j] ^ flip);
            top = x > top ? x : top;
        }
        return (uint8_t)(top ^ flip);
    }
    #if defined(__AVX512F__) && defined(__AVX512BW__)
    #include <immintrin.h>
    typedef struct { __m512 high, low; } fs_factors;
    static inline fs_factors fs_load_factors(const float *high, const float *low) {
        fs_factors t = {_mm512_loadu_ps(high), _mm512_loadu_ps(low)};
        return t;
    }
    static inline double fs_sum_weights(
        fs_factors t, const uint8_t *q, ptrdiff_t n, uint8_t shift, ptrdiff_t *count
    ) {
        const __m512i move = _mm512_set1_epi8((char)shift), top = _mm512_set1_epi8(-1);
        __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
        __m512d sums;
        for (ptrdiff_t j = 0; j < n; j += 64) {
            __m512i x = _mm512_add_epi8(_mm512_loadu_si512(q + j), move);
            __mmask64 others = _mm512_cmpneq_epi8_mask(x, top);
            *count += 64 - (ptrdiff_t)__builtin_popcountll(others);
            x = _mm512_maskz_mov_epi8(others, x);
            __m512i h = _mm512_srli_epi32(x, 4);
            #define FS_ADD(k, sum) sum = _mm512_fmadd_ps( \\
                _mm512_permutexvar_ps(_mm512_srli_epi32(h, 8 * k), t.high), \\
                _mm512_permutexvar_ps(_mm512_srli_epi32(x, 8 * k), t.low), sum)
            FS_ADD(0, a); FS_ADD(1, b); FS_ADD(2, c); FS_ADD(3, d);
            #undef FS_ADD
        }
        a = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
        sums = _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(a)),
                             _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)));
        return _mm512_reduce_add_pd(sums);
    }
    static inline void fs_write_weights(
        fs_factors t, const uint8_t *q, ptrdiff_t n, uint8_t shift, float *y
    ) {
        const __m128i move = _mm_set1_epi8((char)shift);
        for (ptrdiff_t j = 0; j < n; j += 16) {
            __m512i i = _mm512_cvtepu8_epi32(
                _mm_add_epi8(_mm_loadu_si128((const __m128i *)(q + j)), move));
            _mm512_storeu_ps(y + j, _mm512_mul_ps(
                _mm512_permutexvar_ps(_mm512_srli_epi32(i, 4), t.high),
                _mm512_permutexvar_ps(i, t.low)));
        }
    }
    #elif defined(__AVX2__) && defined(__FMA__)
    #include <immintrin.h>
    typedef struct { __m256 high[2], low[2]; } fs_factors;
    static inline fs_factors fs_load_factors(const float *high, const float *low) {
        fs_factors t = {{_mm256_loadu_ps(high), _mm256_loadu_ps(high + 8)},
                        {_mm256_loadu_ps(low), _mm256_loadu_ps(low + 8)}};
        return t;
    }
    // Bit 3 of an index goes up to the sign, which chooses between the halves of a table.
    #define FS_PICK(table, i) _mm256_blendv_ps( \\
        _mm256_permutevar8x32_ps(table[0], i), _mm256_permutevar8x32_ps(table[1], i), \\
        _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)))
    static inline double fs_sum_weights(
        fs_factors t, const uint8_t *q, ptrdiff_t n, uint8_t shift, ptrdiff_t *count
    ) {
        const __m256i move = _mm256_set1_epi8((char)shift), top = _mm256_set1_epi8(-1);
        __m256 s[2][4];
        double lanes[8], total = 0;
        for (int k = 0; k < 4; k++) s[0][k] = s[1][k] = _mm256_setzero_ps();
        for (ptrdiff_t j = 0; j < n; j += 64) {
            for (int half = 0; half < 2; half++) {
                __m256i x = _mm256_add_epi8(
                    _mm256_loadu_si256((const __m256i *)(q + j + 32 * half)), move);
                __m256i is_top = _mm256_cmpeq_epi8(x, top);
                *count += __builtin_popcount((unsigned)_mm256_movemask_epi8(is_top));
                x = _mm256_andnot_si256(is_top, x);
                for (int k = 0; k < 4; k++) {
                    __m256i i = _mm256_srli_epi32(x, 8 * k), h = _mm256_srli_epi32(i, 4);
                    s[half][k] = _mm256_fmadd_ps(FS_PICK(t.high, h), FS_PICK(t.low, i), s[half][k]);
                }
            }
        }
        for (int half = 0; half < 2; half++)
            s[half][0] = _mm256_add_ps(_mm256_add_ps(s[half][0], s[half][1]),
                                       _mm256_add_ps(s[half][2], s[half][3]));
        for (int k = 0; k < 2; k++)
            _mm256_storeu_pd(lanes + 4 * k, _mm256_add_pd(
                _mm256_cvtps_pd(k ? _mm256_extractf128_ps(s[0][0], 1)
                                  : _mm256_castps256_ps128(s[0][0])),
                _mm256_cvtps_pd(k ? _mm256_extractf128_ps(s[1][0], 1)
                                  : _mm256_castps256_ps128(s[1][0]))));
        for (int l = 0; l < 4; l++) lanes[l] += lanes[l + 4];
        total = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
        return total;
    }
    static inline void fs_write_weights(
        fs_factors t, const uint8_t *q, ptrdiff_t n, uint8_t shift, float *y
    ) {
        const __m128i move = _mm_set1_epi8((char)shift);
        for (ptrdiff_t j = 0; j < n; j += 8) {
            __m256i i = _mm256_cvtepu8_epi32(
                _mm_add_epi8(_mm_loadl_epi64((const __m128i *)(q + j)), move));
            __m256i h = _mm256_srli_epi32(i, 4);
            _mm256_storeu_ps(y + j, _mm256_mul_ps(FS_PICK(t.high, h), FS_PICK(t.low, i)));
        }
    }
    #else
    #if defined(__FMA__) || defined(__aarch64__)
    #define FS_BYTE_FMA(a, b, c) __builtin_fmaf(a, b, c)
    #else
    #define FS_BYTE_FMA(a, b, c) ((a) * (b) + (c))
    #endif
    typedef struct { float high[16], low[16], weights[256]; } fs_factors;
    static inline fs_factors fs_load_factors(const float *high, const float *low) {
        fs_factors t;
        memcpy(t.high, high, sizeof(t.high));
        memcpy(t.low, low, sizeof(t.low));
        for (int c = 0; c < 256; c++) t.weights[c] = high[c >> 4] * low[c & 15];
        return t;
    }
    #define fs_sum_weights(t, q, n, shift, count) fs_sum_of(&(t), q, n, shift, count)
    #define fs_write_weights(t, q, n, shift, y) fs_write_of(&(t), q, n, shift, y)
    // In the order of the vectors above.
    static inline double fs_sum_of(
        const fs_factors *t, const uint8_t *q, ptrdiff_t n, uint8_t shift, ptrdiff_t *count
    ) {
        float s[64] = {0};
        double lanes[8];
        for (ptrdiff_t j = 0; j < n; j += 64)
            for (int l = 0; l < 64; l++) {
                uint8_t x = (uint8_t)(q[j + l] + shift);
                *count += x == 255;
                x = x == 255 ? 0 : x;
                s[l] = FS_BYTE_FMA(t->high[x >> 4], t->low[x & 15], s[l]);
            }
        for (int l = 0; l < 16; l++)
            s[l] = (s[4 * l] + s[4 * l + 1]) + (s[4 * l + 2] + s[4 * l + 3]);
        for (int l = 0; l < 8; l++) lanes[l] = (double)s[l] + s[8 + l];
        for (int l = 0; l < 4; l++) lanes[l] += lanes[l + 4];
        return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    }
    static inline void fs_write_of(
        const fs_factors *t, const uint8_t *q, ptrdiff_t n, uint8_t shift, float *y
    ) {
        for (ptrdiff_t j = 0; j < n; j++) y[j] = t->weights[(uint8_t)(q[j] + shift)];
    }
    #endif
    """
    uint8_t max_byte "fs_max_byte"(const uint8_t *q, Py_ssize_t n, uint8_t flip) noexcept nogil
    ctypedef struct Factors "fs_factors":
        pass
    Factors load_factors "fs_load_factors"(const float *high, const float *low) noexcept nogil
    double sum_weights "fs_sum_weights"(
        Factors t, const uint8_t *q, Py_ssize_t n, uint8_t shift, Py_ssize_t *count
    ) noexcept nogil
    void write_weights "fs_write_weights"(
        Factors t, const uint8_t *q, Py_ssize_t n, uint8_t shift, float *y
    ) noexcept nogil
