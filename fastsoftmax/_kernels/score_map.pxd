# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What temperatures and caps of a chain make of scores: as the readable chain, nearly, and back.

The C library's tanh takes 15 ns, an exponential and a division 1 to 2: `map_nearly` does for sums
over a row and for bounds, as it is known how far off its scores are.
"""

from libc.math cimport atanh, fabs, tanh

from fastsoftmax._kernels.chain_abi cimport SOFT_CAP, TEMPERATURE, ChainStep
from fastsoftmax._kernels.exp cimport exp_nonpositive, exp_underflow_bound
from fastsoftmax._kernels.types cimport infinity, largest_finite, noinline_void, wide_void

cdef enum:
    ULPS = 16  # of error of each step, more than those of a C library's tanh

cdef struct ScoreMap:
    const ChainStep *steps  # those that are no temperatures or caps are passed over
    Py_ssize_t n_steps


cdef inline void divide_scores(double *score, Py_ssize_t n, double temperature) noexcept nogil:
    """Divide n scores, 1/T being held at the largest finite number."""
    cdef Py_ssize_t i
    if temperature == 1:
        return
    if 1 / temperature == infinity(<double>0):
        for i in range(n):
            score[i] *= largest_finite(<double>0)
    else:
        for i in range(n):
            score[i] /= temperature


cdef inline noinline_void cap_scores(double *score, Py_ssize_t n, double limit) noexcept nogil:
    """Hold n scores between -limit and limit; what is removed stays so."""
    cdef Py_ssize_t i
    for i in range(n):
        if score[i] > -infinity(<double>0):
            score[i] = limit * tanh(score[i] / limit)


cdef inline void map_scores(const ScoreMap *by, double *score, Py_ssize_t n) noexcept nogil:
    """Do to n scores what the readable chain does."""
    cdef Py_ssize_t i
    for i in range(by.n_steps):
        if by.steps[i].op == TEMPERATURE:
            divide_scores(score, n, by.steps[i].a)
        elif by.steps[i].op == SOFT_CAP:
            cap_scores(score, n, by.steps[i].a)


cdef inline wide_void cap_nearly(double *score, Py_ssize_t n, double limit) noexcept nogil:
    """Do nearly what `cap_scores` does, by tanh(z) = (1 - e) / (1 + e), e = exp(-2 z), z >= 0."""
    cdef double low = exp_underflow_bound(<double>0), rate = -2 / limit
    cdef double e, t
    cdef Py_ssize_t i
    for i in range(n):
        e = exp_nonpositive(fabs(score[i]) * rate, low)
        t = limit * (1 - e) / (1 + e)
        t = t if score[i] > 0 else -t
        score[i] = t if score[i] > -infinity(<double>0) else score[i]


cdef inline void map_nearly(const ScoreMap *by, double *score, Py_ssize_t n) noexcept nogil:
    """Do nearly what `map_scores` does: each score is off by at most `map_error`."""
    cdef double inverse
    cdef Py_ssize_t i, j
    for i in range(by.n_steps):
        if by.steps[i].op == TEMPERATURE:
            inverse = min(1 / by.steps[i].a, largest_finite(<double>0))
            for j in range(n):
                score[j] *= inverse
        elif by.steps[i].op == SOFT_CAP:
            cap_nearly(score, n, by.steps[i].a)


cdef inline double map_error(const ScoreMap *by) noexcept nogil:
    """Return how far scores by `map_nearly` may be from those by `map_scores`, and these from true.

    infinity where nothing is known; 0 without caps, for then they are the same.
    """
    cdef double ulp = 2.220446049250313e-16, error = 0, most = 0, a
    cdef Py_ssize_t i
    for i in range(by.n_steps):
        a = by.steps[i].a
        if by.steps[i].op == SOFT_CAP:
            if not 1e-30 < a < 1e30:
                return infinity(<double>0)
            error += ULPS * ulp * a
            most = a
        elif by.steps[i].op == TEMPERATURE and most > 0:
            error = (error + ULPS * ulp * most) / a
            most /= a
    return error


cdef inline void map_above(const ScoreMap *by, double *score, Py_ssize_t n) noexcept nogil:
    """Make n scores at least what `map_scores` makes of them, and of all that are less."""
    cdef double error = map_error(by)
    cdef Py_ssize_t i
    map_nearly(by, score, n)
    for i in range(n):
        score[i] += error


cdef inline double least_before(const ScoreMap *by, double score) noexcept nogil:
    """Return a number that each score is at least that becomes `score` or more by `map_scores`."""
    cdef double slack = ULPS * 2.220446049250313e-16, most = largest_finite(<double>0), a
    cdef Py_ssize_t i
    for i in range(by.n_steps - 1, -1, -1):
        a = by.steps[i].a
        score -= slack * fabs(score)
        if by.steps[i].op == TEMPERATURE:
            score /= min(1 / a, most)
        elif by.steps[i].op == SOFT_CAP:
            if not -a < score < a:
                return most if score > 0 else -most
            score = a * atanh(score / a)
    return score - slack * fabs(score)
