# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""softmax and log_softmax of rows of bytes. Built once per instruction set.

Formula
    p = exp(s (q - max(q))) / sum(...), s the scale of the codes over the temperature. The weights
    are products from two tables of 16 (``byte_weights``).

Passes over memory
    Three over the codes: maximum, sum, result.

Precision policy
    Tables are made in float64 and rounded once to float32. Sums in float32 over 16 terms, then in
    float64, without the largest code's terms, which are counted; of tables times a power of two.

Source
    A softmax by tables: J. R. Stevens et al., "Softermax" (DAC 2021); the split in two is ours.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._kernels.byte_weights cimport (
    Factors,
    load_factors,
    max_byte,
    sum_weights,
    write_weights,
)
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.types cimport loop_void, noinline_void

cdef enum:
    STEP = 64
    BLOCK = 16 * STEP  # the lanes' float32 sums go to float64 after so many codes


cdef extern from *:
    """
    #define FS_BYTE_SCALE 4294967296.0 /* 2**32: twice that leaves 1024 weights of 1 room */
    """
    const double SCALE "FS_BYTE_SCALE"


cdef inline double sum_of_others(
    const uint8_t *q, Py_ssize_t n, uint8_t shift, const float *high, const float *low
) noexcept nogil:
    """Return the sum of a row's weights less that of its maximum, which is 1.

    Both tables are SCALE times what they are: weights too small for float32 count, too.
    """
    cdef Factors factors
    cdef uint8_t last[STEP]
    cdef uint8_t code
    cdef Py_ssize_t start, j, count = 0, whole = n - n % STEP
    cdef double total = 0
    if n < STEP:  # filled up, it would be a sum of what fills it up
        for j in range(n):
            code = <uint8_t>(q[j] + shift)
            if code == 255:
                count += 1
            else:
                total += <double>high[code >> 4] * low[code & 15]
        return total / (SCALE * SCALE) + (count - 1)
    factors = load_factors(high, low)
    for start from 0 <= start < whole by BLOCK:
        total += sum_weights(factors, q + start, min(BLOCK, whole - start), shift, &count)
    if whole < n:
        memset(last, 255 - shift, sizeof(last))
        memcpy(last, q + whole, n - whole)
        total += sum_weights(factors, last, STEP, shift, &count)
    # What was the maximum was added as code 0, and so was what fills up the last step.
    total -= count * (<double>high[0] * low[0])
    count -= (n + STEP - 1) // STEP * STEP - n
    return total / (SCALE * SCALE) + (count - 1)


cdef inline void write_softmax(
    const uint8_t *q, Py_ssize_t n, uint8_t shift, const float *high, const float *low, float *y
) noexcept nogil:
    """Write the products of a row's two tables."""
    cdef Factors factors = load_factors(high, low)
    cdef uint8_t last[STEP]
    cdef float end[STEP]
    cdef Py_ssize_t whole = n - n % STEP
    write_weights(factors, q, whole, shift, y)
    if n >= STEP:  # the last step overlaps the one before
        write_weights(factors, q + n - STEP, STEP, shift, y + n - STEP)
    else:
        memset(last, 0, sizeof(last))
        memcpy(last, q, n)
        write_weights(factors, last, STEP, shift, end)
        memcpy(y, end, n * sizeof(float))


cdef inline loop_void fill_tables(double step, double *tables) noexcept nogil:
    """Write 16 exponentials of the upper four bits, then of the lower; the last of each is 1."""
    cdef Py_ssize_t j
    cdef double low = exp_underflow_bound(<double>0)
    for j in range(16):
        tables[j] = exp_nonpositive(16 * step * (j - 15), low)
        tables[16 + j] = exp_nonpositive(step * (j - 15), low)


cdef noinline_void softmax_rows(  # inlined, divisions would move out of the environment
    const uint8_t *q, Py_ssize_t rows, Py_ssize_t n, bint is_signed, bint log,
    const double *scales, Py_ssize_t stride, float *y
) noexcept nogil:
    """Write the softmax of each row, or its logarithm; `scales` are (scale, temperature) pairs."""
    cdef double tables[32]
    cdef float high[16]
    cdef float low[16]
    cdef float step, minus_log
    cdef double rest, inverse
    cdef uint8_t shift
    cdef Py_ssize_t r, j
    for r in range(rows):
        if r == 0 or stride:
            fill_tables(scales[0] / scales[1], tables)
        for j in range(16):
            high[j] = <float>(tables[j] * SCALE)
            low[j] = <float>(tables[16 + j] * SCALE)
        shift = 255 - max_byte(q, n, 0x80 if is_signed else 0)  # makes the largest code 255
        rest = sum_of_others(q, n, shift, high, low)
        if log:
            step = <float>(scales[0] / scales[1])
            minus_log = <float>-log1p_nonneg(rest)
            for j in range(n):
                y[j] = (<int><uint8_t>(q[j] + shift) - 255) * step + minus_log
        else:
            inverse = 1 / (1 + rest)
            for j in range(16):
                high[j] = <float>(tables[j] * inverse)
                low[j] = <float>tables[16 + j]
            write_softmax(q, n, shift, high, low, y)
        q += n
        y += n
        scales += stride


def softmax(object q, object y, object scales, Py_ssize_t n, bint is_signed, bint log):
    """Write the softmax of the rows of n bytes in `q` into `y`, float32, or its logarithm.

    `scales` is a scale and a temperature, for all rows or for each; all are contiguous, and fit.
    """
    cdef Py_buffer a, b, c
    cdef uint64_t caller
    memset(&a, 0, sizeof(a))  # which is nothing to release
    memset(&b, 0, sizeof(b))
    memset(&c, 0, sizeof(c))
    try:
        PyObject_GetBuffer(q, &a, PyBUF_C_CONTIGUOUS)
        PyObject_GetBuffer(y, &b, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        PyObject_GetBuffer(scales, &c, PyBUF_C_CONTIGUOUS)
        with nogil:
            caller = enter_environment()
            softmax_rows(
                <const uint8_t *>a.buf, a.len // n, n, is_signed, log, <const double *>c.buf,
                2 if c.len > 2 * <Py_ssize_t>sizeof(double) else 0, <float *>b.buf,
            )
            leave_environment(caller)
    finally:
        PyBuffer_Release(&a)
        PyBuffer_Release(&b)
        PyBuffer_Release(&c)
