# cython: language_level=3, cdivision=True
"""The loss of a row at T = 0 or infinity, where some classes are equally likely.

At 0 that is the first maximum alone, else all above -inf. The loss is infinite where another class
has a label; NaN for a row without probabilities.
"""

from libc.math cimport NAN

from fastsoftmax._kernels.labels cimport Labels
from fastsoftmax._kernels.log1p cimport log1p_nonneg
from fastsoftmax._kernels.types cimport infinity, real

cdef struct LimitTerms:
    double highest  # the largest score
    double total  # the sum of the labels
    Py_ssize_t likely  # classes
    bint wrong  # whether there is a NaN
    bint elsewhere  # whether a class that is not likely has a label


cdef inline bint is_limit(double temperature) noexcept nogil:
    """Return whether a temperature is 0 or infinity."""
    return temperature == 0 or temperature == infinity(<double>0)


cdef inline void init_limit(LimitTerms *t, double highest) noexcept nogil:
    """Begin the terms of a row, of which `highest` is the maximum."""
    t.highest = highest
    t.total = 0
    t.likely = 0
    t.wrong = t.elsewhere = False


cdef inline void add_limit_terms(
    const Labels *labels, const real *x, const real *label, Py_ssize_t n, Py_ssize_t target,
    LimitTerms *t,
) noexcept nogil:
    """Add the terms of n classes, with which `labels`, `label` and `target` begin."""
    cdef Py_ssize_t c
    cdef double q
    for c in range(n):
        t.wrong |= x[c] != x[c]
        if label != NULL:
            q = labels.kept * label[c] + labels.uniform
        else:
            q = labels.uniform + (labels.kept if c == target else 0)
        q *= labels.weight[c] if labels.weight != NULL else 1
        t.total += q
        if x[c] > -infinity(<real>0) and (
            labels.temperature != 0 or t.likely == 0 and x[c] == t.highest
        ):
            t.likely += 1
        elif q != 0:
            t.elsewhere = True


cdef inline double limit_of_terms(const LimitTerms *t) noexcept nogil:
    """Return the loss of a row, whose terms are complete."""
    if t.wrong or not -infinity(<double>0) < t.highest < infinity(<double>0):
        return NAN
    return infinity(<double>0) if t.elsewhere else t.total * log1p_nonneg(t.likely - 1)
