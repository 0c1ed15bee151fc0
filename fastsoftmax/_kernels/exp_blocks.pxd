# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Exponentials of steps and of blocks of a contiguous row.

Each loop over elements is a function of its own, for the vectoriser, and takes a multiple of STEP
elements; the last, partial step of a row goes through a padded copy: no scalar tails.
"""

from libc.string cimport memcpy

from fastsoftmax._kernels.exp cimport exp_floored
from fastsoftmax._kernels.exp_scale cimport (
    CENTERED,
    CENTERED_POW2,
    CLAMPED_POW2,
    Centered,
    CenteredPow2,
    Clamped,
    ClampedPow2,
    ExpScale,
    ExpVariant,
    exp_variant,
    scaled_exp,
    variant_of,
)
from fastsoftmax._kernels.maxima cimport max_of_lanes
from fastsoftmax._kernels.reserve cimport LINE
from fastsoftmax._kernels.sums cimport STEP, pad, round_to_step
from fastsoftmax._kernels.types cimport (
    loop_double,
    loop_void,
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    prefetch,
    real,
)

# ---- loops over steps ----------------------------------------------------------------------------


cdef inline loop_void exp_loop(
    const real *x, real *y, Py_ssize_t n, const ExpScale *exp_scale, exp_variant variant
) noexcept nogil:
    """Write the exponentials of x[0:n] into y, by `exp_scale`."""
    cdef real shift = <real>exp_scale.shift
    cdef real rate = <real>exp_scale.rate
    cdef real rate_low = <real>exp_scale.rate_low
    cdef real low = <real>exp_scale.low
    cdef real high = <real>exp_scale.high
    cdef real magic = <real>exp_scale.magic
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = scaled_exp(x[j], shift, rate, rate_low, low, high, magic, variant)


cdef inline void prefetch_lines(const real *p, Py_ssize_t n) noexcept nogil:
    """Bring the whole lines of p[0:n], which need not exist, to L1."""
    cdef Py_ssize_t line = LINE // sizeof(real)
    cdef Py_ssize_t j
    for j from 0 <= j <= n - line by line:
        prefetch(p + j)


cdef inline loop_void exp_prefetching_loop(
    const real *x, out_ptr y, Py_ssize_t n, const ExpScale *exp_scale, const real *prefetch_src,
    exp_variant variant,
) noexcept nogil:
    """Write the exponentials of x[0:n] into y; bring n elements from `prefetch_src` on to L1."""
    cdef real shift = <real>exp_scale.shift
    cdef real rate = <real>exp_scale.rate
    cdef real rate_low = <real>exp_scale.rate_low
    cdef real low = <real>exp_scale.low
    cdef real high = <real>exp_scale.high
    cdef real magic = <real>exp_scale.magic
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        prefetch_lines(prefetch_src + j, STEP)
        for l in range(STEP):
            y[j + l] = scaled_exp(x[j + l], shift, rate, rate_low, low, high, magic, variant)


cdef inline loop_double exp_and_max_loop(
    const real *x, out_ptr e, Py_ssize_t n, real low, real magic, real highest,
    const real *prefetch_src,
) noexcept nogil:
    """Write the Unclamped exponentials of x[0:n] into e; return the maximum of x and `highest`.

    Without it nothing would show whether some were too large. NaN is passed over. n elements from
    `prefetch_src` on are brought to L1.
    """
    cdef real lane[STEP]
    cdef Py_ssize_t j, l
    for l in range(STEP):
        lane[l] = highest
    for j from 0 <= j < n by STEP:
        prefetch_lines(prefetch_src + j, STEP)
        for l in range(STEP):
            lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
            e[j + l] = exp_floored(x[j + l], low, magic)
    return max_of_lanes(lane)


# ---- blocks --------------------------------------------------------------------------------------


cdef inline void exp_block(
    const real *x, real *y, Py_ssize_t n, const ExpScale *exp_scale
) noexcept nogil:
    """Write the exponentials of x[0:n], whole steps, into y, by the variant of `exp_scale`."""
    cdef ExpVariant variant = variant_of(exp_scale)
    if variant == CLAMPED_POW2:
        exp_loop(x, y, n, exp_scale, <ClampedPow2>0)
    elif variant == CENTERED_POW2:
        exp_loop(x, y, n, exp_scale, <CenteredPow2>0)
    elif variant == CENTERED:
        exp_loop(x, y, n, exp_scale, <Centered>0)
    else:
        exp_loop(x, y, n, exp_scale, <Clamped>0)


cdef inline void exp_block_prefetching(
    const real *x, out_ptr y, Py_ssize_t n, const ExpScale *exp_scale, const real *prefetch_src
) noexcept nogil:
    """Call `exp_block`; bring n elements from `prefetch_src` on, unless that is NULL, to L1."""
    cdef ExpVariant variant = variant_of(exp_scale)
    if prefetch_src == NULL:
        exp_block(x, <real *>y, n, exp_scale)
    elif variant == CLAMPED_POW2:
        exp_prefetching_loop(x, y, n, exp_scale, prefetch_src, <ClampedPow2>0)
    elif variant == CENTERED_POW2:
        exp_prefetching_loop(x, y, n, exp_scale, prefetch_src, <CenteredPow2>0)
    elif variant == CENTERED:
        exp_prefetching_loop(x, y, n, exp_scale, prefetch_src, <Centered>0)
    else:
        exp_prefetching_loop(x, y, n, exp_scale, prefetch_src, <Clamped>0)


cdef inline noinline_void exp_step(const real *x, real *y, const ExpScale *scale) noexcept nogil:
    """Write the exponentials of x[0:STEP], where a row begins or ends, into y, which may be x."""
    cdef real copy[STEP]
    memcpy(copy, x, sizeof(copy))
    exp_block(<const real *>copy, y, STEP, scale)


cdef inline Py_ssize_t exp_of_block(
    const real *x, real *e, Py_ssize_t n, const ExpScale *exp_scale, const real *prefetch_src
) noexcept nogil:
    """Write the exponentials of x[0:n] into e, filled up with 0 to whole steps; return how many.

    n elements from `prefetch_src` on, unless that is NULL, are brought to L1.
    """
    cdef Py_ssize_t w = round_to_step(n)
    if real is float:
        exp_block_prefetching(x, <out_ptr32>e, w, exp_scale, prefetch_src)
    else:
        exp_block_prefetching(x, <out_ptr64>e, w, exp_scale, prefetch_src)
    if w == n:
        return n
    pad(x + w, e + w, n - w)
    exp_step(<const real *>e + w, e + w, exp_scale)
    return w + STEP
