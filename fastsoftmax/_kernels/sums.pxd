# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sums of exponentials, by steps and blocks, in one order for every vector width.

Order of sums
    The exponentials of a block are made by one loop and added by another: four neighbouring eighths
    in the element type, then eight lanes in float64 (float32 rows) or in a pair of float64 (float64
    rows); the end of a block closes the lanes. The map has no order and the sum has this fixed one,
    so every vector width gives the same bits.
"""

from fastsoftmax._kernels.types cimport HAS_FMA, fma64, infinity, noinline_void, out_ptr64, real

# A step of a float32 row. In a loop of Cython's gcc 16 would make vectors of steps, with
# permutations: 1.7 times softmax's time.
cdef extern from *:
    """
    static inline __attribute__((always_inline)) void fs_add_step(const float *e, double *lane) {
        FS_ROLLED
        for (int l = 0; l < 8; l++)
            lane[l] += (e[l] + e[8 + l]) + (e[16 + l] + e[24 + l]);
    }
    """
    void add_step "fs_add_step"(const float *e, double *lane) noexcept nogil

cdef enum:
    STEP = 32  # elements that a sum takes at once
    BLOCK = 2048  # elements whose exponentials stay in L1 until they are added
    LANES = 8  # of a sum, and elements of the last vector

cdef struct LaneSums:
    double high[8]
    double low[8]  # 0 for float32 rows

cdef struct DoubleDouble:
    double high
    double low


cdef inline Py_ssize_t round_to_step(Py_ssize_t n) noexcept nogil:
    """Return how many of `n` elements fill whole steps."""
    return n & ~(<Py_ssize_t>STEP - 1)


cdef inline void pad(const real *x, real *tail, Py_ssize_t n) noexcept nogil:
    """Copy `n` < STEP elements of `x` into `tail`; fill it up with -inf, whose exponential is 0."""
    cdef int j, m = <int>n
    for j in range(STEP):  # masked loads; a memcpy of so few bytes is slow
        tail[j] = x[j] if j < m else -infinity(<real>0)


cdef inline double sum_of(double a, double b) noexcept nogil:
    """Return a + b, on the units that multiply: conversions to float64 keep those that add busy."""
    return fma64(a, 1, b) if HAS_FMA else a + b


# ---- lanes ---------------------------------------------------------------------------------------


cdef inline void zero(LaneSums *lanes) noexcept nogil:
    """Set `lanes` to 0."""
    cdef Py_ssize_t j
    for j in range(8):
        lanes.high[j] = lanes.low[j] = 0


cdef inline void accumulate_lanes(
    out_ptr64 high, out_ptr64 low, const real *e, Py_ssize_t n
) noexcept nogil:
    """Add e[0:n], whole steps, to the lanes `high`, for float64 with `low`.

    Of lanes in local arrays gcc would make vectors, and scalars beside them.
    """
    cdef double quad, total, part
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        if real is float:
            add_step(e + j, high)
        else:  # Knuth's TwoSum: high + low stays exact
            for l in range(LANES):
                quad = (e[j + l] + e[j + 8 + l]) + (e[j + 16 + l] + e[j + 24 + l])
                total = high[l] + quad
                part = total - high[l]
                low[l] += (high[l] - (total - part)) + (quad - part)
                high[l] = total


cdef inline noinline_void accumulate(
    LaneSums *lanes, const real *e, Py_ssize_t n
) noexcept nogil:
    """Add e[0:n], whole steps, to `lanes`.

    In a function of its own: inlined, float32 sums stay in memory, and float64 sums scalar.
    """
    accumulate_lanes(<out_ptr64>lanes.high, <out_ptr64>lanes.low, e, n)


# ---- pairs ---------------------------------------------------------------------------------------


cdef inline void two_sum(DoubleDouble *s, double x) noexcept nogil:
    """Add `x` to the pair `s`, exactly (Knuth's TwoSum)."""
    cdef double total = s.high + x
    cdef double part = total - s.high
    s.low += (s.high - (total - part)) + (x - part)
    s.high = total


cdef inline double to_double(DoubleDouble s) noexcept nogil:
    """Return the pair `s` as one number; an infinite sum has left NaN in its low part."""
    return s.high + s.low if s.low == s.low else s.high


cdef inline double sum_of_lanes(const double *a) noexcept nogil:
    """Return the sum of 8 lanes."""
    cdef double half[4]
    cdef Py_ssize_t l
    for l in range(4):
        half[l] = a[l] + a[4 + l]
    return (half[0] + half[2]) + (half[1] + half[3])


cdef inline void fold_lanes(DoubleDouble *s, LaneSums *lanes, real like) noexcept nogil:
    """Add the `lanes` of a block to `s`, in one order for every instruction set."""
    cdef Py_ssize_t l
    if real is float:
        two_sum(s, sum_of_lanes(lanes.high))
    else:
        for l in range(8):
            two_sum(s, lanes.high[l])
            s.low += lanes.low[l]
