# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Coarse weights of float32 scores that are capped once: for a third of the time of `map_nearly`.

They tell what the many weigh beside the few best, whose weights are made anew.
"""

from libc.math cimport fabsf

from fastsoftmax._kernels.chain_abi cimport SOFT_CAP, TEMPERATURE
from fastsoftmax._kernels.coarse cimport (
    CoarseScale,
    Quartic,
    coarse_scale,
    coarse_weights,
    fits_coarse,
)
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.packed_row cimport PackedRow, is_shut, row_part
from fastsoftmax._kernels.score_map cimport ScoreMap
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.types cimport infinity, real, wide_void
from fastsoftmax._kernels.weights cimport sum_lanes

cdef struct CoarseCap:
    float rate  # -2 / cap, of logits
    CoarseScale scale  # for what tanh gives
    double error  # by what share of itself a weight may be off; 0: none are made
    double total  # of a row's weights


cdef inline bint set_coarse_cap(
    const ScoreMap *by, double highest, CoarseCap *coarse
) noexcept nogil:
    """Choose what the weights are made with; return False where they would not serve."""
    cdef double before = 1, after = 0  # what is divided and multiplied by tanh's argument and value
    cdef Py_ssize_t i
    for i in range(by.n_steps):
        if by.steps[i].op == TEMPERATURE and after > 0:
            after /= by.steps[i].a
        elif by.steps[i].op == TEMPERATURE:
            before *= by.steps[i].a
        elif by.steps[i].op == SOFT_CAP and after > 0:
            return False
        elif by.steps[i].op == SOFT_CAP:
            after = by.steps[i].a
            before *= after
    if not 1e-30 < before < 1e30 or not fits_coarse(highest / after, after, <float>0):
        return False
    coarse.rate = <float>(-2 / before)
    coarse.scale = coarse_scale(highest / after, after, True, <float>0)
    # exp within 1.3 u, whatever it is multiplied by in tanh's error less than 1; five roundings
    coarse.error = coarse.scale.error + 8 * 2.0**-24 * after
    return coarse.error < 0.01


cdef inline wide_void capped_values(
    const real *x, float *y, Py_ssize_t n, float rate
) noexcept nogil:
    """y = tanh(-x rate / 2), but what is removed stays so"""
    cdef float low = exp_underflow_bound(<float>0)
    cdef float one = 1  # a literal would make them float64
    cdef float v, e, t
    cdef Py_ssize_t i
    for i in range(n):
        v = <float>x[i]
        e = exp_nonpositive(fabsf(v) * rate, low)
        t = (one - e) / (one + e)
        t = t if v > 0 else -t
        y[i] = t if v > -infinity(<float>0) else v


cdef inline double sum_capped(
    const real *x, Py_ssize_t n, const CoarseCap *coarse, PackedRow *packed
) noexcept nogil:
    """Return the sum of the coarse weights of a row, or with NULL of a list of logits."""
    cdef float value[BLOCK]
    cdef float weight[BLOCK]
    cdef double total = 0
    cdef Py_ssize_t start, size
    for start from 0 <= start < n by BLOCK:
        size = min(<Py_ssize_t>BLOCK, n - start)
        if is_shut(packed, start, size):
            continue
        capped_values(row_part(x, start, size, packed), value, size, coarse.rate)
        coarse_weights(<const float *>value, weight, size, &coarse.scale, <Quartic>0)
        total += sum_lanes(<const float *>weight, size)
    return coarse.scale.factor * total
