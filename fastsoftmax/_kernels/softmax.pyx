# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""softmax, log_softmax and logsumexp of contiguous rows. Built once per instruction set.

Formula
    softmax:      e / sum(e),                    e = exp((x - shift) / T) / 2**K
    log_softmax:  (x - max) / T - log1p(S),      S = sum(e) / e_max without the maximum's own term
    logsumexp:    max + log1p(S)
    for any K; shift is 0, unless the maximum is far from 0 (`needs_no_shift`): then it is that.

Passes over memory
    softmax: exponentials and their sum, a block that fits L1 at a time (read, write); scale (read,
    write). K comes from a pivot, the maximum of the first block or of rows before; what that makes
    too large or too small shows in the sum, and the row is done again, with its own maximum (one
    more pass), as rows are that differ in T. log_softmax: sum, difference; logsumexp: sum. At T = 1
    these go by a pivot, too, and find the maximum meanwhile; else in a pass before, that of a long
    row while the exponentials of the row before are made.

Precision policy
    Elements in the row's own type, sums in more (``sums.pxd`` says in which order). 1 / sum is a
    pair too: its first part alone would cost one more rounding. x itself has no rounding that
    x - max would have; far from 0 that difference is exact where the result is not 0.

Source
    P. Blanchard, D. J. Higham, N. J. Higham, IMA Journal of Numerical Analysis 41 (2021),
    https://doi.org/10.1093/imanum/draa038
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memset

from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    LOGSUMEXP,
    SOFTMAX,
    LongRow,
    Op,
    SoftmaxCall,
    SoftmaxKernels,
    temperature_in_range,
)
from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS, RATE, RATE_LOW, SCALE_FIELDS, set_rate
from fastsoftmax._kernels.column_panels cimport softmax_columns, softmax_columns_bytes
from fastsoftmax._kernels.exp_blocks cimport exp_block
from fastsoftmax._kernels.exp_scale cimport ExpScale, inverse_temperature, scale_from_pivot
from fastsoftmax._kernels.flush_to_zero cimport flush_to_zero, keep_subnormal
from fastsoftmax._kernels.maxima cimport MIN_BATCH_LENGTH
from fastsoftmax._kernels.row_batch cimport BATCH_ELEMENTS
from fastsoftmax._kernels.row_parts cimport long_row_phase
from fastsoftmax._kernels.softmax_batch cimport softmax_batch
from fastsoftmax._kernels.softmax_row cimport short_softmax, softmax_rows_one_by_one
from fastsoftmax._kernels.sums cimport BLOCK, LANES, STEP
from fastsoftmax._kernels.transpose cimport STRIP
from fastsoftmax._kernels.types cimport HAS_FMA, infinity, noinline_void, not_a_number, real

cdef enum:
    FEW_ROWS = 4  # of less than a step, up to which each alone takes less than a batch


cdef noinline_void softmax_batches(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t n, const double *temperature,
    Py_ssize_t temperature_stride, Op op,
) noexcept nogil:
    """Write the result of `op` for rows as `softmax_rows`, batch by batch where they fit one."""
    cdef real e[BATCH_ELEMENTS]
    cdef real inverse[BATCH_ROWS]
    cdef real exp_scale[SCALE_FIELDS * BATCH_ROWS]
    cdef real pivot = infinity(<real>0)
    cdef bint one_scale, batchable = True
    cdef double t
    cdef Py_ssize_t i, r
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t width = 1 if op == LOGSUMEXP else n
    cdef Py_ssize_t padded = STEP * ((n + STEP - 1) // STEP)
    cdef Py_ssize_t size = BATCH_ROWS
    cdef Py_ssize_t last = 0
    cdef unsigned int control = 0
    if n >= MIN_BATCH_LENGTH:
        size = BATCH_ELEMENTS // padded
        # If vectors reach beyond the last row, it goes alone: nothing may be there to be read.
        last = n % LANES != 0
    if size < 1 or size == 1 and rows <= FEW_ROWS:  # those begin with a pass for the maximum
        softmax_rows_one_by_one(x, y, rows, n, temperature, temperature_stride, op)
        return
    if n >= MIN_BATCH_LENGTH:
        memset(e, 0, min(size, rows) * padded * sizeof(real))
    elif rows > STRIP:
        memset(e + n * BATCH_ROWS, 0, (MIN_BATCH_LENGTH - n) * BATCH_ROWS * sizeof(real))
    else:
        for i in range(n, MIN_BATCH_LENGTH):
            for r in range(STRIP):
                e[i * BATCH_ROWS + r] = 0
    for i in range(BATCH_ROWS):
        inverse[i] = 1
    if real is float:
        control = flush_to_zero(rows * n if op == SOFTMAX else 0)
    while start < rows:
        r = min(size, rows - last - start)
        if temperature_stride or start == 0:
            # One batch has T = 1 in all rows, or in none.
            batchable = True
            for i in range(r if temperature_stride else 1):
                t = temperature[start + i]
                inverse[i] = inverse_temperature(t, <real>0)
                set_rate(t, exp_scale + i, BATCH_ROWS)
                batchable &= temperature_in_range(t) and (t == 1) == (temperature[start] == 1)
            for i in range(0 if temperature_stride else BATCH_ROWS):
                inverse[i] = inverse[0]
                exp_scale[RATE * BATCH_ROWS + i] = exp_scale[RATE * BATCH_ROWS]
                exp_scale[RATE_LOW * BATCH_ROWS + i] = exp_scale[RATE_LOW * BATCH_ROWS]
            # One K serves rows of one temperature; it does not pay for logarithms but at T = 1.
            one_scale = (
                temperature[start] == 1 or not temperature_stride and HAS_FMA and op == SOFTMAX
            )
            if not one_scale or op != SOFTMAX and n < STEP:
                pivot = not_a_number(<real>0)
            elif pivot != pivot:
                pivot = infinity(<real>0)
        if batchable and r > 0:
            softmax_batch(
                x + start * n, y + start * width, e, r, n, inverse, op, exp_scale, &pivot
            )
        else:
            r = max(r, 1)
            keep_subnormal(control)
            control = 0
            softmax_rows_one_by_one(
                x + start * n, y + start * width, r, n, temperature + start * temperature_stride,
                temperature_stride, op,
            )
        start += r
    keep_subnormal(control)


cdef void softmax_rows(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t n, const double *temperature,
    Py_ssize_t temperature_stride, Op op,
) noexcept nogil:
    """Write the result of `op` for each row of n > 0 elements; y is x or does not overlap it.

    `temperature_stride` is 1 if there is a temperature for each row, else 0. LOGSUMEXP takes T = 1
    alone.
    """
    cdef Py_ssize_t i
    cdef const double *t = temperature
    if rows > FEW_ROWS or rows > 1 and (op != SOFTMAX or n >= STEP):
        softmax_batches(x, y, rows, n, temperature, temperature_stride, op)
        return
    for i in range(rows):
        t = temperature + i * temperature_stride
        if not (op == SOFTMAX and n < STEP and short_softmax(x + i * n, y + i * n, n, t[0])):
            softmax_rows_one_by_one(x + i * n, y + i * n, 1, n, t, 0, op)


# ---- the bare exponential, for tests -------------------------------------------------------------


def exp_rows(
    const real[::1] x, real[::1] y, double pivot, bint is_max, double temperature=1
):
    """Write exp(`x` / `temperature`) over about exp(`pivot` / `temperature`) into `y`.

    The bare exponential, for the tests; the divisor is a power of two, exactly. If `is_max`, no
    element of `x` is above `pivot`; else those much larger give no number.
    """
    cdef Py_ssize_t n = x.shape[0]
    cdef ExpScale exp_scale = scale_from_pivot(<real>pivot, temperature, <real>0, is_max)
    with nogil:
        if n:
            exp_block(&x[0], &y[0], n, &exp_scale)


# ---- the table of this instruction set -----------------------------------------------------------


cdef int softmax_rows_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write softmax, log_softmax or logsumexp of rows; a `rows_fn`."""
    cdef SoftmaxCall *call = <SoftmaxCall *>_call
    cdef const double *t = call.temperature + first * call.temperature_stride
    if call.dtype == FLOAT32:
        softmax_rows(
            <const float *>x, <float *>y, rows, call.n, t, call.temperature_stride, call.op
        )
    else:
        softmax_rows(
            <const double *>x, <double *>y, rows, call.n, t, call.temperature_stride, call.op
        )
    return 0


cdef int softmax_columns_entry(
    SoftmaxCall *call, Py_ssize_t inner, Py_ssize_t start, Py_ssize_t stop,
    const void *x, void *y,
) except -1 nogil:
    """Write softmax, log_softmax or logsumexp of columns; a `columns_fn`."""
    if call.dtype == FLOAT32:
        return softmax_columns(call, inner, start, stop, <const float *>x, <float *>y)
    return softmax_columns(call, inner, start, stop, <const double *>x, <double *>y)


cdef Py_ssize_t softmax_columns_bytes_entry(
    const SoftmaxCall *call, Py_ssize_t columns,
) noexcept nogil:
    """Return the bytes that columns are worked on in; a `columns_bytes_fn`."""
    if call.dtype == FLOAT32:
        return softmax_columns_bytes(call.n, columns, <float>0)
    return softmax_columns_bytes(call.n, columns, <double>0)


cdef int long_row_entry(
    LongRow *row, int phase, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """Do a phase of a long row; a `phase_fn`."""
    if row.dtype == FLOAT32:
        return long_row_phase(row, phase, start, stop, <float>0)
    return long_row_phase(row, phase, start, stop, <double>0)


cdef SoftmaxKernels table
table.softmax_rows = softmax_rows_entry
table.softmax_columns = softmax_columns_entry
table.softmax_columns_bytes = softmax_columns_bytes_entry
table.long_row = long_row_entry
table.row_block = BLOCK

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.SoftmaxKernels", NULL)
