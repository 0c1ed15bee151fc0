# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""float16 and bfloat16 to float32 and back, as loops over contiguous elements.

float16 by the instruction set's own conversion where there is one (F16C, AVX-512, NEON), else by
integer arithmetic that a compiler vectorises; both round to nearest, ties to even, and keep a
NaN's sign and what fits of its payload. NumPy's casts are right and slow, above all for numbers
that are subnormal in float16: 90 ns each.

Source: IEEE 754-2019, sections 3.4 and 4.3.1; the trick for subnormal numbers (a difference, or a
sum, that rounds where it has to) is F. Giesen's, https://gist.github.com/rygorous/2156668
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t

from fastsoftmax._kernels.types cimport bits32, from_bits32

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #if defined(__F16C__)
    #include <immintrin.h>
    #define FS_HALF_STEP 8
    static inline void fs_widen_halves(const uint16_t *x, float *y) {
        _mm256_storeu_ps(y, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x)));
    }
    static inline void fs_narrow_halves(const float *x, uint16_t *y) {
        _mm_storeu_si128((__m128i *)y, _mm256_cvtps_ph(_mm256_loadu_ps(x), 0));
    }
    #if defined(__AVX2__)
    #define FS_BFLOAT_STEP 16
    static inline __m256i fs_round_bfloats(__m256 x) {  /* no NaN */
        __m256i b = _mm256_castps_si256(x);
        __m256i odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
        b = _mm256_add_epi32(b, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
        return _mm256_srli_epi32(b, 16);
    }
    static inline int fs_narrow_bfloats(const float *x, uint16_t *y) {
        __m256 a = _mm256_loadu_ps(x), b = _mm256_loadu_ps(x + 8);
        if (_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_UNORD_Q))) return 0;
        _mm256_storeu_si256((__m256i *)y, _mm256_permute4x64_epi64(
            _mm256_packus_epi32(fs_round_bfloats(a), fs_round_bfloats(b)), 0xD8));
        return 1;
    }
    #endif
    #elif defined(__aarch64__)
    #include <arm_neon.h>
    #define FS_HALF_STEP 4
    static inline void fs_widen_halves(const uint16_t *x, float *y) {
        vst1q_f32(y, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))));
    }
    static inline void fs_narrow_halves(const float *x, uint16_t *y) {
        vst1_u16(y, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x))));
    }
    #else
    #define FS_HALF_STEP 0
    static inline void fs_widen_halves(const uint16_t *x, float *y) { (void)x; (void)y; }
    static inline void fs_narrow_halves(const float *x, uint16_t *y) { (void)x; (void)y; }
    #endif
    #if !defined(FS_BFLOAT_STEP)
    #define FS_BFLOAT_STEP 0
    static inline int fs_narrow_bfloats(const float *x, uint16_t *y) {
        (void)x; (void)y; return 0;
    }
    #endif
    """
    ctypedef const uint16_t *in_halves "const uint16_t *__restrict"
    ctypedef uint16_t *out_halves "uint16_t *__restrict"
    ctypedef const float *in_floats "const float *__restrict"
    ctypedef float *out_floats "float *__restrict"
    const Py_ssize_t HALF_STEP "FS_HALF_STEP"  # elements that an instruction converts; 0: none
    void widen_step "fs_widen_halves"(const uint16_t *x, float *y) noexcept nogil
    const Py_ssize_t BFLOAT_STEP "FS_BFLOAT_STEP"  # elements rounded to bfloat16 at once; 0: none
    # Return whether it was done: not where there is a NaN.
    bint narrow_bfloats "fs_narrow_bfloats"(const float *x, uint16_t *y) noexcept nogil
    void narrow_step "fs_narrow_halves"(const float *x, uint16_t *y) noexcept nogil


# Signed, where a vector comparison of unsigned numbers would take three instructions.


cdef inline float from_half(uint16_t half) noexcept nogil:
    """Return the float16 whose bits are `half`."""
    cdef int32_t h = half & 0x7FFF
    cdef int32_t b = (h << 13) + (112 << 23)
    # Subnormal ones: the difference of two normal numbers.
    cdef int32_t small = bits32(from_bits32(b + (1 << 23)) - from_bits32(113 << 23))
    b += (112 << 23) if h >= 0x7C00 else 0
    b = small if h < 0x400 else b
    return from_bits32(<uint32_t>b | <uint32_t>(half & 0x8000) << 16)


cdef inline uint16_t to_half(float v) noexcept nogil:
    """Return the bits of `v` as float16; NaN becomes quiet."""
    cdef int32_t b = bits32(v) & 0x7FFFFFFF
    # Below the smallest normal number the addition rounds at the last bit there is.
    cdef int32_t small = bits32(from_bits32(b) + <float>0.5) - 0x3F000000
    cdef int32_t h = (b + 0xFFF + (b >> 13 & 1) - (112 << 23)) >> 13
    h = small if b < 113 << 23 else h
    h = 0x7C00 if h > 0x7C00 else h
    h = 0x7E00 | (b >> 13 & 0x3FF) if b > 0x7F800000 else h
    return <uint16_t>(h | (bits32(v) >> 16 & 0x8000))


cdef inline uint16_t to_bfloat16(float v) noexcept nogil:
    """Return the bits of `v` as bfloat16; NaN becomes the quiet one of its sign."""
    cdef uint32_t b = bits32(v)
    cdef int32_t size = b & 0x7FFFFFFF
    cdef uint32_t h = b + 0x7FFF + (b >> 16 & 1)
    h = (b >> 16 & 0x8000 | 0x7FC0) << 16 if size > 0x7F800000 else h
    return <uint16_t>(h >> 16)


cdef inline void widen_float16(in_halves x, Py_ssize_t n, out_floats y) noexcept nogil:
    """Write n numbers of float16 as float32."""
    cdef Py_ssize_t j = 0
    if HALF_STEP:
        while j + HALF_STEP <= n:
            widen_step(x + j, y + j)
            j += HALF_STEP
        while j < n:
            y[j] = from_half(x[j])
            j += 1
    else:
        for j in range(n):
            y[j] = from_half(x[j])


cdef inline void narrow_float16(in_floats x, Py_ssize_t n, out_halves y) noexcept nogil:
    """Write n numbers of float32 as float16."""
    cdef Py_ssize_t j = 0
    if HALF_STEP:
        while j + HALF_STEP <= n:
            narrow_step(x + j, y + j)
            j += HALF_STEP
        while j < n:
            y[j] = to_half(x[j])
            j += 1
    else:
        for j in range(n):
            y[j] = to_half(x[j])


cdef inline void widen_bfloat16(in_halves x, Py_ssize_t n, out_floats y) noexcept nogil:
    """Write n numbers of bfloat16 as float32."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = from_bits32(<uint32_t>x[j] << 16)


cdef inline void narrow_bfloat16(in_floats x, Py_ssize_t n, out_halves y) noexcept nogil:
    """Write n numbers of float32 as bfloat16."""
    cdef Py_ssize_t l, j = 0
    if BFLOAT_STEP:
        while j + BFLOAT_STEP <= n:
            if not narrow_bfloats(x + j, y + j):
                for l in range(BFLOAT_STEP):
                    y[j + l] = to_bfloat16(x[j + l])
            j += BFLOAT_STEP
        while j < n:
            y[j] = to_bfloat16(x[j])
            j += 1
    else:
        for j in range(n):
            y[j] = to_bfloat16(x[j])
