# cython: language_level=3
"""The uniforms of a seed and a position in C: numpy.random's Philox4x64-10."""

from libc.stdint cimport uint64_t

cdef extern from *:
    ctypedef unsigned long long wide "unsigned __int128"


cdef inline void philox_rows(
    const uint64_t *seed, Py_ssize_t seed_stride, const uint64_t *position,
    Py_ssize_t position_stride, Py_ssize_t rows, Py_ssize_t m, bint apart, double *u,
) noexcept nogil:
    """Write ``Generator(Philox(key=seed, counter=position)).random(m)`` of each row to u.

    If `apart`, those of all positions are independent: block b of four uniforms is that of the
    counter ``position + (b << 64)``, not ``position + b``. `seed_stride` is 1 if there is a seed
    for each row, else 0; so for the positions.
    """
    cdef uint64_t c0, c1, c2, c3, k0, k1, first
    cdef wide even, odd
    cdef uint64_t word[4]
    cdef Py_ssize_t r, j, l
    for r in range(rows):
        for j from 0 <= j < m by 4:
            first = position[r * position_stride] + <uint64_t>(0 if apart else j // 4) + 1
            c0, c1, c2, c3 = first, first <= position[r * position_stride], 0, 0
            c1 += <uint64_t>(j // 4 if apart else 0)
            k0, k1 = seed[r * seed_stride], 0
            for _ in range(10):
                even = <wide>c0 * 0xD2E7470EE14C6C93ULL
                odd = <wide>c2 * 0xCA5A826395121157ULL
                c0 = <uint64_t>(odd >> 64) ^ c1 ^ k0
                c1 = <uint64_t>odd
                c2 = <uint64_t>(even >> 64) ^ c3 ^ k1
                c3 = <uint64_t>even
                k0 += 0x9E3779B97F4A7C15ULL
                k1 += 0xBB67AE8584CAA73BULL
            word[0], word[1], word[2], word[3] = c0, c1, c2, c3
            for l in range(min(<Py_ssize_t>4, m - j)):
                u[r * m + j + l] = (word[l] >> 11) * 2.0**-53
