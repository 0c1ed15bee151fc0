# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sums of exponentials that are exact: in whatever order and parts, they have the same bits.

Formula
    The term of an entry is exp(x - origin), rounded once to a float64: a function of x alone as
    long as the origin is. It is cut at fixed powers of two, 2**32 apart, into digits, to nearest:
    (v + M) - M with M = 1.5 * 2**(52 + 32 i) is digit i of v, v less that goes on. Digits are whole
    numbers of at most 2**31, so float64 lanes add a block of them exactly, and int64 2**32 of them.
    What is below the last digit is left out of each term, whichever others there are.

Source
    The cut: J. Demmel, H. D. Nguyen, "Parallel Reproducible Summation", IEEE Transactions on
    Computers 64 (2015), https://doi.org/10.1109/TC.2014.2345391
"""

from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.exp cimport exp_core, rounding_magic
from fastsoftmax._kernels.statistics_abi cimport DIGIT_BITS, DIGITS
from fastsoftmax._kernels.sums cimport BLOCK, LANES, STEP, round_to_step
from fastsoftmax._kernels.types cimport from_bits64, out_ptr64, wide_void
from fastsoftmax._kernels.weighted_sums cimport Blocks64, load_block64

cdef enum:
    REACH = 512  # of entries from their origin, half-open


cdef inline double power_of_two(int64_t n) noexcept nogil:
    """Return 2**n, for a normal number."""
    return from_bits64(<uint64_t>(n + 1023) << 52)


cdef inline wide_void terms_of(
    double *e, Py_ssize_t n, double origin, double magic
) noexcept nogil:
    """Make e exp(e - origin); 0 for what is not within REACH."""
    cdef double d, within
    cdef Py_ssize_t j
    for j in range(n):
        d = e[j] - origin
        within = d if d >= -REACH else 0
        within = within if within < REACH else 0
        within = exp_core(within, magic)
        e[j] = within if -REACH <= d < REACH else 0


cdef inline wide_void cut_digit(
    out_ptr64 e, Py_ssize_t n, out_ptr64 lanes, double magic
) noexcept nogil:
    """Cut a digit off each of n terms, whole steps, and add them to 8 lanes; `magic` is its M."""
    cdef double a, b, c, d
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        for l in range(LANES):
            a = (e[j + l] + magic) - magic
            b = (e[j + 8 + l] + magic) - magic
            c = (e[j + 16 + l] + magic) - magic
            d = (e[j + 24 + l] + magic) - magic
            e[j + l] -= a
            e[j + 8 + l] -= b
            e[j + 16 + l] -= c
            e[j + 24 + l] -= d
            lanes[l] += (a + b) + (c + d)


cdef inline void exp_digits_of(
    const Blocks64 *r, double origin, int64_t top, int64_t *digits
) noexcept nogil:
    """Add the digits of a row's terms to `digits`, the lowest first."""
    cdef double e[BLOCK]
    cdef double lanes[8]
    cdef double total, unit
    cdef Py_ssize_t start, m, whole, i, l
    if origin != origin:
        return
    for start from 0 <= start < r.blocks.n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, r.blocks.n - start)
        whole = round_to_step(m + STEP - 1)
        load_block64(r, start, m, False, e)
        terms_of(e, m, origin, rounding_magic(<double>0))
        for i in range(m, whole):
            e[i] = 0
        for i in range(DIGITS):
            for l in range(LANES):
                lanes[l] = 0
            unit = power_of_two(DIGIT_BITS * (top - i))
            cut_digit(<out_ptr64>e, whole, <out_ptr64>lanes, 1.5 * power_of_two(52) * unit)
            total = 0
            for l in range(LANES):
                total += lanes[l]
            digits[DIGITS - 1 - i] += <int64_t>(total / unit)
