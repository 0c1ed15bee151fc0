# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What softmax and the losses share: sums and results of one contiguous row, or of a part of one.

A part begins at a block. ``exp_blocks.pxd`` has the exponentials, ``sums.pxd`` the order of sums.
"""

from libc.string cimport memcpy

from fastsoftmax._kernels.exp_blocks cimport (
    exp_and_max_loop,
    exp_block,
    exp_block_prefetching,
    exp_of_block,
    exp_step,
)
from fastsoftmax._kernels.exp_scale cimport ExpScale, lowered
from fastsoftmax._kernels.flush_to_zero cimport flush_to_zero, keep_subnormal
from fastsoftmax._kernels.maxima cimport (
    RowMax,
    find_first,
    init_max,
    max_of,
    update_max,
)
from fastsoftmax._kernels.reserve cimport LINE
from fastsoftmax._kernels.sums cimport (
    BLOCK,
    STEP,
    DoubleDouble,
    LaneSums,
    accumulate,
    fold_lanes,
    pad,
    round_to_step,
    zero,
)
from fastsoftmax._kernels.types cimport (
    fma,
    infinity,
    out_ptr32,
    out_ptr64,
    real,
    wide_void,
)

cdef enum:
    ALIGNED_WRITE_LENGTH = BLOCK  # elements from which on vectors that share no line pay


# ---- results of whole steps ----------------------------------------------------------------------


cdef inline void scale(
    real *y, Py_ssize_t n, real high, real low, int exponent
) noexcept nogil:
    """Multiply y[0:n] by `high` + `low`, rounded once (nearly) and `lowered` by `exponent`."""
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            y[j + l] = lowered(fma(y[j + l], high, y[j + l] * low), exponent)


cdef inline void subtract(
    const real *x, real *y, Py_ssize_t n, real highest, real inverse, real log_sum
) noexcept nogil:
    """Write (x - highest) * inverse - log_sum into y, for n elements; y does not overlap x."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = (x[j] - highest) * inverse - log_sum


# ---- blocks --------------------------------------------------------------------------------------


cdef inline wide_void lanes_excluding_max(
    const real *x, Py_ssize_t n, real highest, const ExpScale *exp_scale, bint with_max,
    LaneSums *lanes, const real *prefetch_src
) noexcept nogil:
    """Write the lanes of a block's exponentials; without that of `highest` if `with_max`.

    `with_max` says that this is the block of the row's maximum.
    """
    cdef real e[BLOCK + 1]  # the last one takes the 0 of a block that has no `highest` (any more)
    cdef Py_ssize_t w = exp_of_block(x, e, n, exp_scale, prefetch_src)
    if with_max and highest < infinity(<real>0):
        e[find_first(x, n, highest)] = 0
    zero(lanes)
    accumulate(lanes, e, w)


# ---- rows, and parts of a row that begin at a block ----------------------------------------------
#
# While a row's exponentials are made, which waits for nothing, `next_row` (NULL if there is none)
# is brought to L1 and its maximum found: alone that would wait for memory.


cdef inline DoubleDouble sum_excluding_max(
    const real *x, Py_ssize_t n, const ExpScale *exp_scale, RowMax *top, const real *next_row
) noexcept nogil:
    """Return the sum of a row's exponentials without the maximum's own term.

    `top` is the row's maximum, and becomes that of `next_row`.
    """
    cdef Py_ssize_t start
    cdef Py_ssize_t block = top.block
    cdef real highest = <real>top.value
    cdef LaneSums lanes
    cdef DoubleDouble s
    init_max(top)
    s.high = s.low = 0
    for start from 0 <= start < n by BLOCK:
        lanes_excluding_max(
            x + start, min(BLOCK, n - start), highest, exp_scale, start == block, &lanes,
            next_row + start if next_row != NULL else NULL,
        )
        fold_lanes(&s, &lanes, <real>0)
        if next_row != NULL:
            update_max(top, next_row, start, n)
    return s


cdef inline DoubleDouble sum_and_max_from_pivot(
    const real *x, Py_ssize_t n, const ExpScale *exp_scale, real *largest,
    const real *next_row
) noexcept nogil:
    """Return the sum of a row's exponentials without the maximum's term; write the maximum.

    `exp_scale` is by a pivot, for T = 1. Where a block has an entry larger than all before, its sum
    is made again without that.
    """
    cdef real low = <real>exp_scale.low, magic = <real>exp_scale.magic
    cdef Py_ssize_t start, m, w
    cdef real e[BLOCK + 1]
    cdef real highest = -infinity(<real>0)
    cdef real before
    cdef DoubleDouble total, s
    cdef LaneSums lanes
    total.high = total.low = s.high = s.low = 0
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = round_to_step(m)
        before = highest
        if real is float:
            highest = <real>exp_and_max_loop(
                x + start, <out_ptr32>e, w, low, magic, highest, next_row + start
            )
        else:
            highest = <real>exp_and_max_loop(
                x + start, <out_ptr64>e, w, low, magic, highest, next_row + start
            )
        if w < m:
            pad(x + start + w, e + w, m - w)
            highest = max_of(<const real *>e + w, STEP, highest)
            exp_step(<const real *>e + w, e + w, exp_scale)
            w += STEP
        zero(&lanes)
        accumulate(&lanes, <const real *>e, w)
        if highest > before:
            s = total
            fold_lanes(&total, &lanes, <real>0)
            e[find_first(x + start, m, highest)] = 0
            zero(&lanes)
            accumulate(&lanes, <const real *>e, w)
        else:
            fold_lanes(&total, &lanes, <real>0)
        fold_lanes(&s, &lanes, <real>0)
    largest[0] = highest
    return s


cdef inline Py_ssize_t unaligned_head(const real *x, const real *y, Py_ssize_t n) noexcept nogil:
    """Return how many of n elements of y, made of x, come before its first line of cache.

    0 where lines do not matter: in a short row, or in place.
    """
    if n < ALIGNED_WRITE_LENGTH or x == y:
        return 0
    return (-<size_t>y & (LINE - 1)) // sizeof(real)


cdef inline void exp_of_row(
    const real *x, real *y, Py_ssize_t n, const ExpScale *exp_scale, bint with_max, LaneSums *lanes,
    DoubleDouble *s, RowMax *top, const real *next_row
) noexcept nogil:
    """Write the exponentials of x[0:n] into y, and add their sum to `s`.

    y is x or does not overlap it. If `s` is NULL, block i leaves its lanes in lanes[i]. Unless
    `top` is NULL it is the row's maximum, whose term is not in the sum if not `with_max`, and
    becomes that of `next_row`; else n elements from `next_row` on are brought to L1.
    """
    cdef unsigned int control = flush_to_zero(n if with_max else 0)  # not for a gradient
    cdef real highest = <real>top.value if top != NULL else <real>0
    cdef Py_ssize_t block = -1 if with_max else top.block
    cdef Py_ssize_t start, m, w, ahead, w_ahead, place, end = round_to_step(n)
    cdef const real *prefetch_src
    cdef Py_ssize_t skip = unaligned_head(x, <const real *>y, n)
    cdef real tail[STEP]
    cdef real copy[BLOCK]
    cdef real largest = 0
    if top != NULL:
        init_max(top)
    if skip:  # all but the first and the last step is written line by line
        exp_step(x, y, exp_scale)
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = round_to_step(m)
        place = find_first(x + start, m, highest) if start == block else m
        if x == y:  # the loop must know that it does not read what it writes
            memcpy(copy, x + start, w * sizeof(real))
            exp_block(<const real *>copy, y + start, w, exp_scale)
        else:
            ahead = start + skip
            prefetch_src = next_row + start if next_row != NULL else NULL
            w_ahead = round_to_step(min(BLOCK, end - ahead))
            if real is float:
                exp_block_prefetching(
                    x + ahead, <out_ptr32>(y + ahead), w_ahead, exp_scale, prefetch_src
                )
            else:
                exp_block_prefetching(
                    x + ahead, <out_ptr64>(y + ahead), w_ahead, exp_scale, prefetch_src
                )
        if skip and start < end <= start + BLOCK:
            exp_step(x + end - STEP, y + end - STEP, exp_scale)
        zero(lanes)
        if w < m:
            pad(x + start + w, tail, m - w)
            exp_step(<const real *>tail, tail, exp_scale)
            memcpy(y + start + w, tail, (m - w) * sizeof(real))
        if place < w:
            largest = y[start + place]
            y[start + place] = 0
        elif place < m:
            tail[place - w] = 0
        accumulate(lanes, <const real *>(y + start), w)
        accumulate(lanes, <const real *>tail, STEP if w < m else 0)
        if place < w:
            y[start + place] = largest
        if s == NULL:
            lanes += 1
        else:
            fold_lanes(s, lanes, <real>0)
        if top != NULL and next_row != NULL:
            update_max(top, next_row, start, n)
    keep_subnormal(control)


cdef inline void scale_row(
    const real *x, real *y, Py_ssize_t n, real high, real low, int exponent
) noexcept nogil:
    """Call `scale` for y[0:n], as `exp_of_row` made it of x."""
    cdef real step[STEP]
    cdef Py_ssize_t end = round_to_step(n), skip = unaligned_head(x, <const real *>y, n)
    if skip:
        memcpy(step, y, skip * sizeof(real))
        memcpy(step + skip, y + end - (STEP - skip), (STEP - skip) * sizeof(real))
        scale(step, STEP, high, low, exponent)
        scale(y + skip, end - STEP, high, low, exponent)
        memcpy(y, step, skip * sizeof(real))
        memcpy(y + end - (STEP - skip), step + skip, (STEP - skip) * sizeof(real))
    else:
        scale(y, end, high, low, exponent)
    if end < n:
        pad(<const real *>(y + end), step, n - end)
        scale(step, STEP, high, low, exponent)
        memcpy(y + end, step, (n - end) * sizeof(real))
