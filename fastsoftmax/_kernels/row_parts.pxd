# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A long row in parts, for several threads, with the bits that one thread gives it.

Each block has lanes of its own, so that it does not matter who adds which. Another thread may write
the row meanwhile: the block of the maximum is compared with others, and never an index.
"""

from fastsoftmax._kernels.abi cimport (
    LOGSUMEXP,
    LOG_SOFTMAX,
    ROW_MAXIMA,
    ROW_MAXIMUM,
    ROW_PIVOT,
    ROW_RESULT,
    ROW_SUM,
    ROW_SUMS,
    SOFTMAX,
    LongRow,
)
from fastsoftmax._kernels.exp_scale cimport (
    ExpScale,
    inverse_temperature,
    max_invertible_sum,
    max_term,
    scale_from_max,
    scale_from_pivot,
    target_exponent,
)
from fastsoftmax._kernels.maxima cimport RowMax, init_max, update_max
from fastsoftmax._kernels.normalize cimport log1p_sums, logsumexp_of
from fastsoftmax._kernels.row cimport exp_of_row, lanes_excluding_max
from fastsoftmax._kernels.softmax_row cimport (
    PREFETCH_BYTES,
    log_softmax_write,
    normalize_row,
    pivot_of_row,
)
from fastsoftmax._kernels.sums cimport BLOCK, DoubleDouble, LaneSums, fold_lanes
from fastsoftmax._kernels.types cimport infinity, real


cdef inline void block_maxima(const real *x, Py_ssize_t n, LaneSums *lanes) noexcept nogil:
    """Write the maximum of each block of x[0:n] into the first of its `lanes`."""
    cdef Py_ssize_t start
    cdef RowMax top
    for start from 0 <= start < n by BLOCK:
        init_max(&top)
        update_max(&top, x, start, n)
        lanes[start // BLOCK].high[0] = top.value


cdef inline bint find_max_block(LongRow *row, Py_ssize_t blocks, real like) noexcept nogil:
    """Find the row's maximum and its block by those of all; return whether it is finite."""
    cdef LaneSums *lanes = <LaneSums *>row.lanes
    cdef Py_ssize_t i
    row.is_max = True
    row.pivot = -infinity(<double>0)
    row.max_block = 0
    for i in range(blocks):
        if lanes[i].high[0] > row.pivot:
            row.pivot = lanes[i].high[0]
            row.max_block = i
    return -infinity(<double>0) < row.pivot < infinity(<double>0)


cdef inline ExpScale scale_of(const LongRow *row, real like) noexcept nogil:
    """Return what the row's exponentials are made with, by its maximum or a pivot."""
    cdef real pivot = <real>row.pivot
    if row.is_max:
        return scale_from_max(pivot, row.temperature)
    return scale_from_pivot(pivot, row.temperature, target_exponent(pivot), False)


cdef inline void add_blocks(
    LongRow *row, const real *x, real *y, Py_ssize_t first, Py_ssize_t n
) noexcept nogil:
    """Write the lanes of the sums of x[0:n], which begins at block `first`.

    For softmax the exponentials go into y; else the maximum's term is not in the sum.
    """
    cdef LaneSums *lanes = <LaneSums *>row.lanes + first
    cdef ExpScale exp_scale = scale_of(row, <real>0)
    cdef const real *next_row
    cdef Py_ssize_t start
    if row.op == SOFTMAX:
        next_row = <const real *>row.next_part
        if next_row == NULL:
            next_row = x + PREFETCH_BYTES // sizeof(real)
        exp_of_row(x, y, n, &exp_scale, True, lanes, NULL, NULL, next_row)
        return
    for start from 0 <= start < n by BLOCK:
        lanes_excluding_max(
            x + start, min(BLOCK, n - start), <real>row.pivot, &exp_scale,
            first + start // BLOCK == row.max_block, lanes + start // BLOCK, <const real *>NULL,
        )


cdef inline bint fold_blocks(LongRow *row, Py_ssize_t blocks, real like) noexcept nogil:
    """Add the lanes of all blocks in their order; return whether the pivot served."""
    cdef Py_ssize_t i
    cdef DoubleDouble s
    cdef ExpScale exp_scale
    cdef real max_e
    s.high = s.low = 0
    for i in range(blocks):
        fold_lanes(&s, <LaneSums *>row.lanes + i, like)
    row.sum_high = s.high
    row.sum_low = s.low
    if row.op != SOFTMAX:
        exp_scale = scale_of(row, like)
        max_e = max_term(<real>row.pivot, &exp_scale)
        log1p_sums(&s, &max_e, 1, &row.log_sum)
    return row.is_max or s.high <= max_invertible_sum(like)


cdef inline void write_result(
    const LongRow *row, const real *x, real *y, Py_ssize_t n
) noexcept nogil:
    """Write the result for x[0:n] into y."""
    cdef real inverse = inverse_temperature(row.temperature, <real>0)
    cdef DoubleDouble s
    if row.op == SOFTMAX:
        s.high = row.sum_high
        s.low = row.sum_low
        normalize_row(x, y, n, &s)
    elif row.op == LOG_SOFTMAX:
        log_softmax_write(x, y, n, <real>row.pivot, inverse, <real>row.log_sum)
    else:
        y[0] = logsumexp_of(<real>row.pivot, row.log_sum)


cdef inline int long_row_phase(
    LongRow *row, int phase, Py_ssize_t start, Py_ssize_t stop, real like
) noexcept nogil:
    """Do `phase` of a row for its blocks `start` to `stop`; a `phase_fn` for the type of `like`."""
    cdef Py_ssize_t first = start * BLOCK
    cdef Py_ssize_t n = min(stop * BLOCK, row.n) - first
    cdef const real *x = <const real *>row.x + first
    cdef real *y = <real *>row.y + (0 if row.op == LOGSUMEXP else first)
    if phase == ROW_PIVOT:
        row.is_max = False
        row.pivot = pivot_of_row(x, n, row.temperature)
        return row.pivot == row.pivot
    elif phase == ROW_MAXIMA:
        block_maxima(x, n, <LaneSums *>row.lanes + start)
    elif phase == ROW_MAXIMUM:
        return find_max_block(row, stop, like)
    elif phase == ROW_SUMS:
        add_blocks(row, x, y, start, n)
    elif phase == ROW_SUM:
        return fold_blocks(row, stop, like)
    elif phase == ROW_RESULT:
        write_result(row, x, y, n)
    return True
