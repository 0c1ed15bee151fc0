# cython: language_level=3
"""The random words of a key and a counter in C: numpy.random's Philox4x64-10."""

from libc.stdint cimport uint64_t

cdef extern from *:
    ctypedef unsigned long long wide "unsigned __int128"


cdef struct Stream:  # the words of a key, a position and a draw
    uint64_t keys[20]
    uint64_t position
    uint64_t draw


cdef inline void philox_keys(uint64_t key, uint64_t *keys) noexcept nogil:
    """Write the 20 keys of the rounds of a key whose upper half is 0."""
    cdef Py_ssize_t i
    for i in range(10):
        keys[2 * i] = key + <uint64_t>i * 0x9E3779B97F4A7C15ULL
        keys[2 * i + 1] = <uint64_t>i * 0xBB67AE8584CAA73BULL


cdef inline void philox_words(
    const uint64_t *keys, uint64_t c0, uint64_t c1, uint64_t c2, uint64_t c3, uint64_t *word
) noexcept nogil:
    """Write the four words of a counter, by what `philox_keys` has written."""
    cdef wide even, odd
    cdef Py_ssize_t i
    for i in range(10):
        even = <wide>c0 * 0xD2E7470EE14C6C93ULL
        odd = <wide>c2 * 0xCA5A826395121157ULL
        c0 = <uint64_t>(odd >> 64) ^ c1 ^ keys[2 * i]
        c1 = <uint64_t>odd
        c2 = <uint64_t>(even >> 64) ^ c3 ^ keys[2 * i + 1]
        c3 = <uint64_t>even
    word[0], word[1], word[2], word[3] = c0, c1, c2, c3


cdef inline void philox_rows(
    const uint64_t *seed, Py_ssize_t seed_stride, const uint64_t *position,
    Py_ssize_t position_stride, Py_ssize_t rows, Py_ssize_t m, bint apart, double *u,
) noexcept nogil:
    """Write ``Generator(Philox(key=seed, counter=position)).random(m)`` of each row to u.

    If `apart`, those of all positions are independent: block b of four uniforms is that of the
    counter ``position + (b << 64)``, not ``position + b``. `seed_stride` is 1 if there is a seed
    for each row, else 0; so for the positions.
    """
    cdef uint64_t first
    cdef uint64_t word[4]
    cdef uint64_t keys[20]
    cdef Py_ssize_t r, j, l
    for r in range(rows):
        philox_keys(seed[r * seed_stride], keys)
        for j from 0 <= j < m by 4:
            first = position[r * position_stride] + <uint64_t>(0 if apart else j // 4) + 1
            philox_words(
                keys, first,
                <uint64_t>(first <= position[r * position_stride])
                + <uint64_t>(j // 4 if apart else 0),
                0, 0, word
            )
            for l in range(min(<Py_ssize_t>4, m - j)):
                u[r * m + j + l] = (word[l] >> 11) * 2.0**-53
