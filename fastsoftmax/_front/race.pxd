# cython: language_level=3
"""What a race is drawn by, as the kernels take it."""

from libc.stdint cimport uint64_t

cimport numpy as cnp

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport Race


cdef class RaceArgs:
    cdef Race race
    cdef uint64_t one_seed, one_position
    cdef double one_score
    cdef object seed, position, highest, scores  # what `race` points into, if not to those

    cdef int set_part(self, const Plan *p, object first_id, object highest) except -1


cdef RaceArgs race_args(const Plan *p, Py_ssize_t m, rng, seed, position)
