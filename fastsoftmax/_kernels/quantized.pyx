# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""softmax and log_softmax of rows of bytes. Built once per instruction set.

Formula
    p = exp(s (q - max(q))) / sum(...), s the scale of the codes over the temperature. The weights
    are products from two tables of 16 (``byte_weights``).

Passes over memory
    Three over the codes: maximum, sum, result.

Precision policy
    Tables are made in float64 and rounded once to float32. Sums in float32 over 16 terms, then in
    float64, without the largest code's terms, which are counted.

Source
    A softmax by tables: J. R. Stevens et al., "Softermax" (DAC 2021); the split in two is ours.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.math cimport log1p
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from fastsoftmax._kernels.byte_weights cimport (
    Factors,
    load_factors,
    max_byte,
    sum_weights,
    write_weights,
)

cdef enum:
    STEP = 64
    BLOCK = 16 * STEP  # the lanes' float32 sums go to float64 after so many codes


cdef inline double sum_of_others(
    const uint8_t *q, Py_ssize_t n, uint8_t shift, const float *high, const float *low
) noexcept nogil:
    """Return the sum of a row's weights less that of its maximum, which is 1."""
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
        return total + (count - 1)
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
    return total + (count - 1)


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


cdef void softmax_rows(
    const uint8_t *q, Py_ssize_t rows, Py_ssize_t n, bint is_signed, bint log,
    const double *tables, Py_ssize_t stride, float *y
) noexcept nogil:
    """Write the softmax of each row, or its logarithm; `tables` has 33 numbers a row, or for all.

    They are the tables of the upper and of the lower four bits, and the step of the logarithms.
    """
    cdef float high[16]
    cdef float low[16]
    cdef float step, minus_log
    cdef double rest, inverse
    cdef uint8_t shift
    cdef Py_ssize_t _r, j
    for _r in range(rows):
        for j in range(16):
            high[j] = <float>tables[j]
            low[j] = <float>tables[16 + j]
        shift = 255 - max_byte(q, n, 0x80 if is_signed else 0)  # makes the largest code 255
        rest = sum_of_others(q, n, shift, high, low)
        if log:
            step = <float>tables[32]
            minus_log = <float>-log1p(rest)
            for j in range(n):
                y[j] = (<int><uint8_t>(q[j] + shift) - 255) * step + minus_log
        else:
            inverse = 1 / (1 + rest)
            for j in range(16):
                high[j] = <float>(tables[j] * inverse)
            write_softmax(q, n, shift, high, low, y)
        q += n
        y += n
        tables += stride


def softmax(object q, object y, object tables, Py_ssize_t n, bint is_signed, bint log):
    """Write the rows of n bytes in `q` into `y`, float32; all contiguous and of fitting sizes."""
    cdef Py_buffer a, b, t
    cdef Py_ssize_t rows
    PyObject_GetBuffer(q, &a, PyBUF_C_CONTIGUOUS)
    PyObject_GetBuffer(y, &b, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    PyObject_GetBuffer(tables, &t, PyBUF_C_CONTIGUOUS)
    rows = a.len // n
    with nogil:
        softmax_rows(
            <const uint8_t *>a.buf, rows, n, is_signed, log, <const double *>t.buf,
            33 if t.len > 33 * <Py_ssize_t>sizeof(double) else 0, <float *>b.buf,
        )
    PyBuffer_Release(&a)
    PyBuffer_Release(&b)
    PyBuffer_Release(&t)
