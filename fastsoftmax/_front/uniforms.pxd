# cython: language_level=3
"""What `uniforms.pyx` gives to the other modules of the front."""

from libc.stdint cimport uint64_t

from fastsoftmax._front.plan cimport Plan

cdef object uniforms_for(const Plan *p, Py_ssize_t m, rng, seed, position, double *one)
cdef object independent_uniforms(const Plan *p, Py_ssize_t m, rng, seed, position, double *one)
cdef bint parse_words(
    object value, const Plan *p, uint64_t *one, const uint64_t **word, Py_ssize_t *stride
) except -1
