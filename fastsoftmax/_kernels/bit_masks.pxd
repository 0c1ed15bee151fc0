# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Numbers of a row, and -inf where a mask of bits is 0: bit j of word i is for element 32 i + j.

What no bit of a word allows is not read of the row. With AVX2 by its own instructions, with AVX-512
by the same, which take no longer there: compilers find no way from bits to the lanes of a vector.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastsoftmax._kernels.types cimport infinity, leading_zeros, noinline_void, prefetch, real

cdef extern from *:
    """
    #include <string.h>
    #if defined(__AVX2__)
    #include <immintrin.h>
    #define FS_BITS_AT_ONCE 1
    /* A bit becomes the sign of its lane, by which a blend chooses. */
    static inline __m256 fs_open8(__m256i word, int l, const float *x) {
        const __m256i up = _mm256_sub_epi32(
            _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24), _mm256_set1_epi32(l));
        __m256i sign = _mm256_sllv_epi32(word, up);
        return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), _mm256_loadu_ps(x + l),
                                _mm256_castsi256_ps(sign));
    }
    static inline void fs_open_floats(uint32_t word, const float *x, float *y) {
        const __m256i all = _mm256_set1_epi32((int)word);
        _mm256_storeu_ps(y, fs_open8(all, 0, x));
        _mm256_storeu_ps(y + 8, fs_open8(all, 8, x));
        _mm256_storeu_ps(y + 16, fs_open8(all, 16, x));
        _mm256_storeu_ps(y + 24, fs_open8(all, 24, x));
    }
    static inline void fs_open_doubles(uint32_t word, const double *x, double *y) {
        const __m256d shut = _mm256_set1_pd(-__builtin_inf());
        const __m256i up = _mm256_setr_epi64x(63, 62, 61, 60);
        for (int l = 0; l < 32; l += 4) {
            __m256i sign = _mm256_sllv_epi64(_mm256_set1_epi64x((long long)(word >> l)), up);
            _mm256_storeu_pd(y + l, _mm256_blendv_pd(
                shut, _mm256_loadu_pd(x + l), _mm256_castsi256_pd(sign)));
        }
    }
    /* From memory: gcc takes it by way of a register, which makes draws a tenth slower. */
    static inline __m256i fs_broadcast(const uint32_t *bits) {
        __m256i word;
        __asm__("vpbroadcastd %1, %0" : "=x"(word) : "m"(*bits));
        return word;
    }
    /* The places of the bits of a byte, one a byte. */
    #define FS_PLACE(m, b) \
        ((m) >> (b) & 1 ? (uint64_t)(b) << 8 * __builtin_popcount((m) & ((1 << (b)) - 1)) : 0)
    #define FS_PLACES(m) FS_PLACE(m, 0) | FS_PLACE(m, 1) | FS_PLACE(m, 2) | FS_PLACE(m, 3) \
        | FS_PLACE(m, 4) | FS_PLACE(m, 5) | FS_PLACE(m, 6) | FS_PLACE(m, 7)
    #define FS_4P(m) FS_PLACES(m), FS_PLACES(m + 1), FS_PLACES(m + 2), FS_PLACES(m + 3)
    #define FS_16P(m) FS_4P(m), FS_4P(m + 4), FS_4P(m + 8), FS_4P(m + 12)
    #define FS_64P(m) FS_16P(m), FS_16P(m + 16), FS_16P(m + 32), FS_16P(m + 48)
    static const uint64_t fs_places[256] = {FS_64P(0), FS_64P(64), FS_64P(128), FS_64P(192)};
    static inline void fs_take8(uint32_t byte, const float *x, float *y) {
        __m256i at = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(fs_places + byte)));
        _mm256_storeu_ps(y, _mm256_permutevar8x32_ps(_mm256_loadu_ps(x), at));
    }
    static inline Py_ssize_t fs_take_open(
        const uint32_t *bits, Py_ssize_t words, const float *x, float *y
    ) {
        float *end = y;
        for (; words > 0; words--, bits++, x += 32) {
            const uint32_t word = *bits;
            if (!word) continue;
            __builtin_prefetch(x + 1536);
            __builtin_prefetch(x + 1552);
            fs_take8(word & 255, x, end);
            fs_take8(word >> 8 & 255, x + 8, end + __builtin_popcount(word & 0xFF));
            fs_take8(word >> 16 & 255, x + 16, end + __builtin_popcount(word & 0xFFFF));
            fs_take8(word >> 24, x + 24, end + __builtin_popcount(word & 0xFFFFFF));
            end += __builtin_popcount(word);
        }
        return end - y;
    }
    #define FS_TAKE(l, high, sum) \
        y = fs_open8(word, l, x), high = _mm256_max_ps(y, high), sum = _mm256_add_ps(sum, y)
    static inline void fs_open_maxima(
        const uint32_t *bits, Py_ssize_t chunks, int words, const float *x, float *maxima,
        float *sums
    ) {
        const __m256 shut = _mm256_set1_ps(-__builtin_inff());
        __m256 s = _mm256_setzero_ps(), t = s, u = s, v = s, a, b, c, d, y;
        for (; chunks > 0; chunks--, maxima += 8) {
            a = b = c = d = shut;
            for (int i = 0; i < words; i++, bits++, x += 32) {
                if (!*bits) continue;
                const __m256i word = fs_broadcast(bits);
                __builtin_prefetch(x + 1536);
                __builtin_prefetch(x + 1552);
                FS_TAKE(0, a, s), FS_TAKE(8, b, t), FS_TAKE(16, c, u), FS_TAKE(24, d, v);
            }
            _mm256_storeu_ps(maxima, _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d)));
        }
        _mm256_storeu_ps(sums, s), _mm256_storeu_ps(sums + 8, t);
        _mm256_storeu_ps(sums + 16, u), _mm256_storeu_ps(sums + 24, v);
    }
    #else
    #define FS_BITS_AT_ONCE 0
    static inline void fs_open_maxima(
        const uint32_t *bits, Py_ssize_t chunks, int words, const float *x, float *maxima,
        float *sums
    ) { (void)bits; (void)chunks; (void)words; (void)x; (void)maxima; (void)sums; }
    static inline Py_ssize_t fs_take_open(
        const uint32_t *bits, Py_ssize_t words, const float *x, float *y
    ) { (void)bits; (void)words; (void)x; (void)y; return 0; }
    /* Of variable shifts SSE2 makes no vectors. */
    #define FS_4(a, b) a(b), a(b + 1), a(b + 2), a(b + 3)
    #define FS_32(a) FS_4(a, 0), FS_4(a, 4), FS_4(a, 8), FS_4(a, 12), \
                     FS_4(a, 16), FS_4(a, 20), FS_4(a, 24), FS_4(a, 28)
    #define FS_BIT(l) (1ULL << (l))
    static const uint32_t fs_unit32[32] = {FS_32(FS_BIT)};
    static const uint64_t fs_unit64[32] = {FS_32(FS_BIT)};
    static inline void fs_open_floats(uint32_t word, const float *x, float *y) {
        uint32_t v[32];
        memcpy(v, x, sizeof(v));
        for (int l = 0; l < 32; l++) {
            uint32_t open = -(uint32_t)((word & fs_unit32[l]) != 0);
            v[l] = (v[l] & open) | (0xFF800000u & ~open);
        }
        memcpy(y, v, sizeof(v));
    }
    static inline void fs_open_doubles(uint32_t word, const double *x, double *y) {
        uint64_t v[32];
        memcpy(v, x, sizeof(v));
        for (int l = 0; l < 32; l++) {
            uint64_t open = -(uint64_t)((word & fs_unit64[l]) != 0);
            v[l] = (v[l] & open) | (0xFFF0000000000000ULL & ~open);
        }
        memcpy(y, v, sizeof(v));
    }
    #endif
    """
    int count_bits "__builtin_popcountll"(uint64_t pair) noexcept nogil
    const bint BITS_AT_ONCE "FS_BITS_AT_ONCE"  # whether `open_maxima` and `take_open` are there
    void open_floats "fs_open_floats"(uint32_t word, const float *x, float *y) noexcept nogil
    void open_doubles "fs_open_doubles"(uint32_t word, const double *x, double *y) noexcept nogil
    # Of so many words, what is open, closed up; up to 8 elements behind are written, too.
    Py_ssize_t take_open "fs_take_open"(
        const uint32_t *bits, Py_ssize_t words, const float *x, float *y
    ) noexcept nogil
    # Of chunks of so many words: maximum l of a chunk is that of its elements l, 8 + l, ..., the
    # first of equal ones, as in ``block_maxima.pxd``; 32 sums hold each element once.
    void open_maxima "fs_open_maxima"(
        const uint32_t *bits, Py_ssize_t chunks, int words, const float *x, float *maxima,
        float *sums
    ) noexcept nogil

cdef enum:
    WORD = 32  # elements of a word
    GROUP = 8  # words that are looked at together
    AHEAD = 1536  # elements from the one read to the one fetched, which is in another page


# ---- bits ----------------------------------------------------------------------------------------


cdef inline Py_ssize_t words_for(Py_ssize_t n) noexcept nogil:
    """Return how many words there is to be room for, for n bits: whole groups, and one of zeros."""
    return (n + WORD * GROUP - 1) // (WORD * GROUP) * GROUP + GROUP


cdef inline uint32_t word_at(const uint32_t *bits, Py_ssize_t i) noexcept nogil:
    """Return the 32 bits from bit i on."""
    cdef Py_ssize_t place = i // WORD
    cdef int shift = i % WORD
    if shift == 0:
        return bits[place]
    return bits[place] >> shift | bits[place + 1] << (WORD - shift)


cdef inline bint is_open(const uint32_t *bits, Py_ssize_t i) noexcept nogil:
    """Return whether bit i is set."""
    return bits[i // WORD] >> (i % WORD) & 1


cdef inline bint any_open(const uint32_t *bits, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    """Return whether a bit is set in the words of n elements, from `start`, where a word begins."""
    cdef uint32_t found = 0
    cdef Py_ssize_t i
    for i in range(start // WORD, (start + n + WORD - 1) // WORD):
        found |= bits[i]
    return found != 0


cdef inline bint is_mostly_open(
    const uint32_t *bits, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """Return whether most of n elements seem to be open, from `start` on, where a word begins.

    Some words are looked at.
    """
    cdef Py_ssize_t i, seen = 0, m = 0
    for i from start // WORD <= i < (start + n) // WORD by GROUP:
        m += count_bits(bits[i])
        seen += WORD
    return 4 * m > 3 * seen


cdef inline uint64_t pair_at(const uint32_t *bits) noexcept nogil:
    """Return 64 bits from the start of a word on."""
    return bits[0] | <uint64_t>bits[1] << 32


cdef inline Py_ssize_t list_open(
    const uint32_t *bits, Py_ssize_t n, Py_ssize_t most, Py_ssize_t *ids
) noexcept nogil:
    """Write which of n bits are set, in order; return how many are, -1 if more than `most`.

    First the groups that have some, in `ids`, too: no more than there are ids before and in them,
    so that the ids, from the last on, overwrite what has been read.
    """
    cdef Py_ssize_t i, l, m = 0, groups = 0
    cdef uint64_t pair
    for i from 0 <= i < (n + WORD - 1) // WORD by GROUP:
        if (pair_at(bits + i) | pair_at(bits + i + 2)
                | pair_at(bits + i + 4) | pair_at(bits + i + 6)) == 0:
            continue
        for l from 0 <= l < GROUP by 2:
            m += count_bits(pair_at(bits + i + l))
        if m > most:
            return -1
        ids[groups] = i
        groups += 1
    most = m
    while groups > 0:
        groups -= 1
        i = ids[groups]
        for l from GROUP > l >= 0 by 2:
            pair = pair_at(bits + i + l - 1)
            while pair:
                m -= 1
                ids[m] = (i + l - 1) * WORD + 63 - leading_zeros(pair)
                pair &= ~(<uint64_t>1 << (63 - leading_zeros(pair)))
    return most


cdef inline Py_ssize_t place_among_open(
    const uint32_t *bits, Py_ssize_t start, Py_ssize_t i
) noexcept nogil:
    """Return where an element is among those from `start` on if words that are shut are left out.
    """
    cdef Py_ssize_t word, m = 0
    for word in range(start // WORD, i // WORD):
        m += WORD if bits[word] != 0 else 0
    return m + i % WORD


cdef inline Py_ssize_t place_of_open(
    const uint32_t *bits, Py_ssize_t start, Py_ssize_t n, Py_ssize_t place
) noexcept nogil:
    """Return which element of n from `start` on it is of which `place_among_open` returns `place`.
    """
    cdef Py_ssize_t word, m = 0
    for word in range(start // WORD, (start + n) // WORD):
        if bits[word] != 0:
            if place < m + WORD:
                return word * WORD + place - m
            m += WORD
    # In the last word, which is not whole; within the row, even if another thread writes that.
    return min((start + n) // WORD * WORD + place - m, start + n - 1)


# ---- numbers -------------------------------------------------------------------------------------


cdef inline void open_word(uint32_t word, const real *x, real *y) noexcept nogil:
    """Write WORD elements of x into y where bits are set, else -inf; y is x or apart from it."""
    if real is float:
        open_floats(word, x, y)
    else:
        open_doubles(word, x, y)


cdef inline noinline_void copy_taken(
    const uint32_t *bits, Py_ssize_t start, const float *x, Py_ssize_t n, float *y,
    Py_ssize_t *count,
) noexcept nogil:
    """Write those of n elements of x into y whose bits are set, closed up; write how many.

    They are elements `start` on of a row, where a word begins. y has room for 8 more.
    """
    cdef Py_ssize_t whole = n // WORD, m = take_open(bits + start // WORD, whole, x, y)
    cdef Py_ssize_t l
    for l in range(whole * WORD, n):
        if is_open(bits, start + l):
            y[m] = x[l]
            m += 1
    count[0] = m


cdef inline noinline_void copy_open(
    const uint32_t *bits, Py_ssize_t start, const real *x, Py_ssize_t n, bint compact, real *y,
    Py_ssize_t *count,
) noexcept nogil:
    """Write n elements of x, which are elements `start` on of a row, into y, else -inf.

    y is x or does not overlap it. If `compact`, words that are shut are left out; `start` is where
    a word begins then. Write how many elements there are.
    """
    cdef Py_ssize_t whole = n - n % WORD
    cdef Py_ssize_t j, l, m = 0
    cdef uint32_t word
    for j from 0 <= j < whole by WORD:
        word = word_at(bits, start + j)
        if word != 0:
            for l from 0 <= l < WORD by 64 // sizeof(real):
                prefetch(x + j + AHEAD + l)
            open_word(word, x + j, y + m)
            m += WORD
        elif not compact:
            for l in range(WORD):
                y[m + l] = -infinity(<real>0)
            m += WORD
    word = word_at(bits, start + whole) if whole < n else 0
    if word != 0 or not compact:
        for l in range(n - whole):
            y[m + l] = x[whole + l] if word >> l & 1 else -infinity(<real>0)
        m += n - whole
    count[0] = m
