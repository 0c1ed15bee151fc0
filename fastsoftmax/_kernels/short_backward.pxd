# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The gradients of softmax and log_softmax over a batch of short rows, a structure of arrays.

Element j of all rows lies in one array, so that the lanes of a vector are rows (``short_rows.pxd``
says how). The order of sums is that of ``backward.pyx``.
"""

from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport LOG_SOFTMAX, BackwardCall, Op
from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.maxima cimport MIN_BATCH_LENGTH
from fastsoftmax._kernels.sums cimport LANES, STEP, DoubleDouble, to_double, two_sum
from fastsoftmax._kernels.transpose cimport (
    STRIP,
    pad_rows,
    padded_rows,
    transpose_in,
    transpose_out,
    whole_strips,
)
from fastsoftmax._kernels.types cimport (
    fma64,
    loop_void,
    noinline_void,
    out_ptr,
    out_ptr32,
    out_ptr64,
    real,
)


cdef inline double inverse_of(double temperature) noexcept nogil:
    """Return 1 / T, held at the largest finite number; 0 at T = 0, where softmax is constant."""
    return min(1 / temperature, <double>1.7976931348623157e+308) if temperature != 0 else 0.0


cdef inline real finite_factor(double inverse, real like) noexcept nogil:
    """Return `inverse`, held at the largest finite number of the type."""
    return <real>min(inverse, 3.4028234663852886e+38 if real is float else inverse)


cdef inline double product(const real *a, const real *b, Py_ssize_t i) noexcept nogil:
    """Return a[i] * b[i]; b NULL is 1."""
    return <double>a[i] if b == NULL else <double>a[i] * <double>b[i]


cdef inline void soa_lane(
    const real *a, const real *b, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t l, out_ptr64 lane
) noexcept nogil:
    """Write what lane l of sum a * b of each row gets, for n <= STEP."""
    cdef Py_ssize_t r, i, k
    for r in range(whole_strips(rows)):
        lane[r] = 0
    for i from l <= i < n by 16:
        k = i + 8
        if k < n:
            for r in range(whole_strips(rows)):
                lane[r] += product(a, b, i * BATCH_ROWS + r) + product(a, b, k * BATCH_ROWS + r)
        else:
            for r in range(whole_strips(rows)):
                lane[r] += product(a, b, i * BATCH_ROWS + r)


cdef inline noinline_void soa_dot(
    const real *a, const real *b, Py_ssize_t rows, Py_ssize_t n, double *dots
) noexcept nogil:
    """Write sum a * b of each row, for n <= STEP; b NULL is 1."""
    cdef double lanes[LANES * BATCH_ROWS]
    cdef double low[BATCH_ROWS]
    cdef double *d = lanes
    cdef DoubleDouble s
    cdef Py_ssize_t r, l
    for l in range(LANES):
        if b == NULL:
            soa_lane(a, <const real *>NULL, rows, n, l, <out_ptr64>(d + l * BATCH_ROWS))
        else:
            soa_lane(a, b, rows, n, l, <out_ptr64>(d + l * BATCH_ROWS))
    if real is float:
        for r in range(whole_strips(rows)):
            dots[r] = (
                (d[r] + d[4 * BATCH_ROWS + r]) + (d[2 * BATCH_ROWS + r] + d[6 * BATCH_ROWS + r])
            ) + (
                (d[BATCH_ROWS + r] + d[5 * BATCH_ROWS + r])
                + (d[3 * BATCH_ROWS + r] + d[7 * BATCH_ROWS + r])
            )
    else:
        for r in range(whole_strips(rows)):
            dots[r] = low[r] = 0
        for l in range(min(n, LANES)):
            for r in range(whole_strips(rows)):
                s.high = dots[r]
                s.low = low[r]
                two_sum(&s, d[l * BATCH_ROWS + r])
                dots[r] = s.high
                low[r] = s.low
        for r in range(whole_strips(rows)):
            s.high = dots[r]
            s.low = low[r]
            dots[r] = to_double(s)


cdef inline void soa_softmax_vjp(
    out_ptr g, const real *p, Py_ssize_t rows, Py_ssize_t n, const real *mean, const real *factor
) noexcept nogil:
    """g = (g - mean) * (p * factor)"""
    cdef Py_ssize_t r, j
    for j in range(n):
        for r in range(whole_strips(rows)):
            g[j * BATCH_ROWS + r] = (
                (g[j * BATCH_ROWS + r] - mean[r]) * (p[j * BATCH_ROWS + r] * factor[r])
            )


cdef inline loop_void soa_log_softmax_vjp(
    out_ptr g, const real *log_p, Py_ssize_t rows, Py_ssize_t n, const double *total,
    const double *inverse, real low,
) noexcept nogil:
    """g = (g - exp(log_p) * total) * inverse; exp is 1 where log_p is above 0."""
    cdef Py_ssize_t r, j
    cdef real p
    for j in range(n):
        for r in range(whole_strips(rows)):
            p = log_p[j * BATCH_ROWS + r]
            p = exp_nonpositive(<real>0 if p > <real>0 else p, low)
            g[j * BATCH_ROWS + r] = <real>(
                fma64(-<double>p, total[r], <double>g[j * BATCH_ROWS + r]) * inverse[r]
            )


cdef inline noinline_void soa_vjp(
    Op op, real *g, const real *p, Py_ssize_t rows, Py_ssize_t n, const double *dots,
    const double *inverse,
) noexcept nogil:
    """g = the gradients"""
    cdef real mean[BATCH_ROWS]
    cdef real factor[BATCH_ROWS]
    cdef real low = exp_underflow_bound(<real>0)
    cdef Py_ssize_t r
    for r in range(whole_strips(rows)):
        mean[r] = <real>dots[r]
        factor[r] = finite_factor(inverse[r], <real>0)
    if op == LOG_SOFTMAX:
        if real is float:
            soa_log_softmax_vjp(<out_ptr32>g, p, rows, n, dots, inverse, low)
        else:
            soa_log_softmax_vjp(<out_ptr64>g, p, rows, n, dots, inverse, low)
    elif real is float:
        soa_softmax_vjp(<out_ptr32>g, p, rows, n, <const real *>mean, <const real *>factor)
    else:
        soa_softmax_vjp(<out_ptr64>g, p, rows, n, <const real *>mean, <const real *>factor)


cdef inline noinline_void soa_of_rows(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *whole, real *soa
) noexcept nogil:
    """soa[j] = element j of each row, and of repeated rows that fill a strip, made in `whole`"""
    if rows < padded_rows(rows):
        pad_rows(x, whole, rows, n)
        x = whole
    transpose_in(x, padded_rows(rows), n, soa)


cdef inline noinline_void rows_of_soa(
    const real *soa, Py_ssize_t rows, Py_ssize_t n, real *whole, real *y
) noexcept nogil:
    """Element j of each row of y = soa[j]"""
    if rows < padded_rows(rows):
        transpose_out(soa, whole, padded_rows(rows), n)
        memcpy(y, whole, rows * n * sizeof(real))
    else:
        transpose_out(soa, y, rows, n)


cdef inline Py_ssize_t max_short_length(real like) noexcept nogil:
    """Return how long rows of a batch may be."""
    return STEP if real is float else MIN_BATCH_LENGTH


cdef inline noinline_void backward_of_short_rows(
    const BackwardCall *call, const double *temperature, Py_ssize_t rows, const real *g,
    const real *p, real *y,
) noexcept nogil:
    """Write the gradient of each row of at most `max_short_length` elements, by batches."""
    cdef double _soa_g[BATCH_ROWS * MIN_BATCH_LENGTH]
    cdef double _soa_p[BATCH_ROWS * MIN_BATCH_LENGTH]
    cdef double _whole[STRIP * MIN_BATCH_LENGTH]
    cdef real *soa_g = <real *>_soa_g
    cdef real *soa_p = <real *>_soa_p
    cdef real *whole = <real *>_whole
    cdef double dots[BATCH_ROWS]
    cdef double inverse[BATCH_ROWS]
    cdef Py_ssize_t r, k, start = 0, n = call.n
    while start < rows:
        k = min(rows - start, BATCH_ROWS)
        if k > STRIP:
            k = whole_strips(k)
        for r in range(padded_rows(k)):
            inverse[r] = inverse_of(temperature[min(start + r, rows - 1) * call.temperature_stride])
        soa_of_rows(g + start * n, k, n, whole, soa_g)
        soa_of_rows(p + start * n, k, n, whole, soa_p)
        soa_dot(
            <const real *>soa_g, <const real *>(soa_p if call.op != LOG_SOFTMAX else NULL),
            padded_rows(k), n, dots,
        )
        soa_vjp(call.op, soa_g, <const real *>soa_p, padded_rows(k), n, dots, inverse)
        rows_of_soa(<const real *>soa_g, k, n, whole, y + start * n)
        start += k
