# cython: language_level=3
"""The C functions that an instruction set's kernels offer to ``_front``: one row, plain C types.

They travel in a capsule, because a module of an instruction set may only be imported by name once
the CPU is known to run it, never cimported.
"""

ctypedef void (*map32)(const float *x, float *y, Py_ssize_t n, double temperature) noexcept nogil
ctypedef void (*map64)(const double *x, double *y, Py_ssize_t n, double temperature) noexcept nogil

cdef struct RowFunctions:
    map32 softmax32
    map64 softmax64
    map32 log_softmax32
    map64 log_softmax64
    float (*logsumexp32)(const float *x, Py_ssize_t n) noexcept nogil
    double (*logsumexp64)(const double *x, Py_ssize_t n) noexcept nogil
