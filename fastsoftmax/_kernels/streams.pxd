# cython: language_level=3
"""Stores that go around the caches: a line that is written whole need not be read before.

For results that no cache would keep until they are read.
"""

# stream copies `size` bytes; stream_fence makes them seen by other threads before what follows.
cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <immintrin.h>
    #define FS_HAS_STREAMS 1
    #if defined(__AVX512F__)
    #define FS_STREAM_BYTES 64
    #define FS_STREAM_ONE(to, from) \\
        _mm512_stream_si512((__m512i *)(to), _mm512_loadu_si512((const __m512i *)(from)))
    #elif defined(__AVX__)
    #define FS_STREAM_BYTES 32
    #define FS_STREAM_ONE(to, from) \\
        _mm256_stream_si256((__m256i *)(to), _mm256_loadu_si256((const __m256i *)(from)))
    #else
    #define FS_STREAM_BYTES 16
    #define FS_STREAM_ONE(to, from) \\
        _mm_stream_si128((__m128i *)(to), _mm_loadu_si128((const __m128i *)(from)))
    #endif
    static inline void fs_stream_fence(void) { _mm_sfence(); }
    #else
    #define FS_HAS_STREAMS 0
    #define FS_STREAM_BYTES 64
    #define FS_STREAM_ONE(to, from) memcpy(to, from, FS_STREAM_BYTES)
    static inline void fs_stream_fence(void) {}
    #endif
    static inline void fs_stream(char *to, const char *from, ptrdiff_t size) {
        ptrdiff_t head = -(intptr_t)to & 63;  // to the first whole line of cache
        if (head > size) head = size;
        memcpy(to, from, (size_t)head);
        to += head; from += head; size -= head;
        for (; size >= 64; size -= 64)
            for (int k = 0; k < 64; k += FS_STREAM_BYTES) {
                FS_STREAM_ONE(to, from);
                to += FS_STREAM_BYTES;
                from += FS_STREAM_BYTES;
            }
        memcpy(to, from, (size_t)size);
    }
    """
    const bint HAS_STREAMS "FS_HAS_STREAMS"
    void stream "fs_stream"(char *to, const char *source, Py_ssize_t size) noexcept nogil
    void stream_fence "fs_stream_fence"() noexcept nogil
