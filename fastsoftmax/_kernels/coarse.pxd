# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Coarse weights: exp((x - max) / T) within 1e-4 or 1e-5, for some half of the time of the others.

They bound sums of weights that few elements dominate: those of the few are made anew.
"""

from libc.math cimport exp2, floor
from libc.string cimport memcpy

from fastsoftmax._kernels.block_maxima cimport CHUNK, LANES, count_blocks
from fastsoftmax._kernels.packed_row cimport PackedRow, is_shut, part_length, row_part
from fastsoftmax._kernels.sums cimport BLOCK, STEP
from fastsoftmax._kernels.types cimport (
    HAS_FMA,
    bits32,
    fma32,
    from_bits32,
    infinity,
    real,
    wide_void,
)
from fastsoftmax._kernels.weights cimport sum_lanes

# The minimax polynomials of 2**f on |f| <= 1/2 by Remez exchange, for the relative error, which is
# 7.5e-5 for that of degree 3 and 2.7e-6 for that of degree 4.
cdef extern from *:
    """
    #define FS_CUBIC_0 0.9999280571937561f
    #define FS_CUBIC_1 0.6932609677314758f
    #define FS_CUBIC_2 0.2426111251115799f
    #define FS_CUBIC_3 0.0551716685295105f
    #define FS_QUARTIC_0 0.9999992847442627f
    #define FS_QUARTIC_1 0.6931217908859253f
    #define FS_QUARTIC_2 0.240247443318367f
    #define FS_QUARTIC_3 0.05591785907745361f
    #define FS_QUARTIC_4 0.009570102207362652f
    static inline void fs_sums_of_lanes(const float *x, float *y) {
        FS_ROLLED
        for (int l = 0; l < 8; l++)
            y[l] = (x[l] + x[8 + l]) + (x[16 + l] + x[24 + l]);
    }
    """
    void sums_of_lanes "fs_sums_of_lanes"(const float *x, float *y) noexcept nogil
    const float CUBIC_0 "FS_CUBIC_0"
    const float CUBIC_1 "FS_CUBIC_1"
    const float CUBIC_2 "FS_CUBIC_2"
    const float CUBIC_3 "FS_CUBIC_3"
    const float QUARTIC_0 "FS_QUARTIC_0"
    const float QUARTIC_1 "FS_QUARTIC_1"
    const float QUARTIC_2 "FS_QUARTIC_2"
    const float QUARTIC_3 "FS_QUARTIC_3"
    const float QUARTIC_4 "FS_QUARTIC_4"

# The degree as a type, so that each has loops of its own.
ctypedef char Cubic
ctypedef short Quartic
ctypedef fused degree_t:
    Cubic
    Quartic

cdef struct CoarseScale:
    float rate  # log2(e) / T
    float low  # x is not to be less: its weight is 2**-110
    float magic  # 1.5 * 2**23 minus n, for which 2**n is about the maximum's exponential
    double factor  # what makes a coarse weight that of exp((x - max) / T)
    bint is_fine  # whether the polynomials are of degree 4
    double error  # by what share of itself a coarse weight may be off


cdef inline double sum_error() noexcept nogil:
    """Return by what share of the sum of a row's coarse weights its additions may be off."""
    return 12 * 2.0**-24


cdef inline bint fits_coarse(double highest, double inverse, real like) noexcept nogil:
    """Return whether coarse weights of a row with this maximum are as exact as they say."""
    cdef double limit = 2.0**20 if real is float and HAS_FMA else 128
    return 1e-30 < inverse < 1e30 and -limit < highest * inverse < limit


cdef inline CoarseScale coarse_scale(
    double highest, double inverse, bint is_fine, real like
) noexcept nogil:
    """Return the scale for a row of the type of `like` that `fits_coarse`."""
    cdef CoarseScale scale
    cdef double n
    scale.rate = <float>(1.4426950408889634 * inverse)
    n = floor(highest * scale.rate + 0.5)
    scale.low = <float>(highest - 110 / <double>scale.rate)
    scale.magic = <float>(12582912 - n)
    scale.factor = exp2(n - highest * scale.rate)
    scale.is_fine = is_fine
    # 110 powers of 2 below the maximum, rounding the rate makes 4.6e-6 of it, and rounding x, or
    # its product with the rate, 1.3e-5.
    scale.error = 1e-5 if is_fine else 8e-5
    if not HAS_FMA or real is double:
        scale.error += 1.4e-5
    return scale


cdef inline float coarse_exp(
    float x, float rate, float low, float magic, degree_t degree
) noexcept nogil:
    """Return 2**(x * rate - n) for the n in `magic`, but about 2**-110 below `low`."""
    cdef float z, f, p
    x = low if low > x else x
    z = fma32(x, rate, magic)  # an integer in its last bits
    f = fma32(x, rate, magic - z)
    if degree_t is Cubic:
        p = fma32(fma32(fma32(CUBIC_3, f, CUBIC_2), f, CUBIC_1), f, CUBIC_0)
    else:
        p = fma32(fma32(QUARTIC_4, f, QUARTIC_3), f, QUARTIC_2)
        p = fma32(fma32(p, f, QUARTIC_1), f, QUARTIC_0)
    return from_bits32(bits32(p) + (bits32(z) << 23))


cdef inline wide_void coarse_weights(
    const real *x, float *weight, Py_ssize_t n, const CoarseScale *scale, degree_t degree
) noexcept nogil:
    """Write the coarse weights of n elements."""
    cdef float rate = scale.rate
    cdef float low = scale.low
    cdef float magic = scale.magic
    cdef Py_ssize_t j
    for j in range(n):
        weight[j] = coarse_exp(<float>x[j], rate, low, magic, degree)


cdef inline wide_void sum_chunks(
    const real *x, Py_ssize_t n, const CoarseScale *scale, float *sums, degree_t degree
) noexcept nogil:
    """Write the sums of the blocks of n elements, whole chunks, as block maxima lie.

    `sums` has room for STEP more.
    """
    cdef float rate = scale.rate
    cdef float low = scale.low
    cdef float magic = scale.magic
    cdef float lane[STEP]  # indexed by constants alone, so that they stay in registers
    cdef Py_ssize_t start, j, l
    for start from 0 <= start < n by CHUNK:
        for l in range(STEP):
            lane[l] = 0
        for j from 0 <= j < CHUNK by STEP:
            for l in range(STEP):
                lane[l] += coarse_exp(<float>x[j + l], rate, low, magic, degree)
        sums_of_lanes(<const float *>lane, sums)
        sums += LANES
        x += CHUNK


cdef inline double coarse_sum(
    const real *x, Py_ssize_t n, const CoarseScale *scale
) noexcept nogil:
    """Return the sum of the coarse weights of a list: it adds none of its own to their error."""
    cdef float weight[BLOCK]
    cdef double total = 0
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        if scale.is_fine:
            coarse_weights(x + start, weight, m, scale, <Quartic>0)
        else:
            coarse_weights(x + start, weight, m, scale, <Cubic>0)
        total += sum_lanes(<const float *>weight, m)
    return total


cdef inline void sum_by_degree(
    const real *x, Py_ssize_t n, const CoarseScale *scale, float *sums
) noexcept nogil:
    """Call `sum_chunks` for what `scale` says."""
    if scale.is_fine:
        sum_chunks(x, n, scale, sums, <Quartic>0)
    else:
        sum_chunks(x, n, scale, sums, <Cubic>0)


cdef inline void coarse_sums(
    const real *x, Py_ssize_t n, const CoarseScale *scale, PackedRow *packed, float *sums
) noexcept nogil:
    """Write the sum of the coarse weights of each block of a row, as its block maxima lie.

    `sums` has room for STEP more.
    """
    cdef real padded[CHUNK]
    cdef const real *part
    cdef Py_ssize_t step = part_length(n, packed)
    cdef Py_ssize_t start, size, whole, l
    for start from 0 <= start < n by step:
        size = min(step, n - start)
        whole = size - size % CHUNK
        if is_shut(packed, start, size):
            for l in range(count_blocks(size, CHUNK)):
                sums[l] = 0
        else:
            part = row_part(x, start, size, packed)
            sum_by_degree(part, whole, scale, sums)
            if whole < size:
                memcpy(padded, part + whole, (size - whole) * sizeof(real))
                for l in range(size - whole, CHUNK):
                    padded[l] = -infinity(<real>0)
                sum_by_degree(
                    <const real *>padded, CHUNK, scale, sums + whole // CHUNK * LANES
                )
        sums += count_blocks(size, CHUNK)
