# cython: language_level=3
"""What `chain_arguments.pyx` gives to the other modules of the front."""

from libc.stdint cimport int64_t

from fastsoftmax._front.history cimport History
from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.chain_abi cimport ChainStep, NextState, PastTokens


cdef enum:
    ANY_SIZE = -1
    NO_SIZE = -2  # masks of several sizes


cdef class Program:
    cdef ChainStep *steps
    cdef Py_ssize_t n_steps
    cdef Py_ssize_t rows  # that have steps of their own, -1 for any number with the same
    cdef Py_ssize_t *starts  # which steps are each row's, NULL for all of them
    cdef Py_ssize_t *first_uniforms  # where the uniforms of each row begin, if rows have own steps
    cdef Py_ssize_t chances  # steps that take a random number, the most of a row
    cdef int64_t highest_id  # of those that steps are given, -1 for none
    cdef Py_ssize_t size  # of the vocabulary that steps have masks of, ANY_SIZE or NO_SIZE
    cdef bint resolves  # whether steps become others for each row
    cdef bint stateful  # whether one has a state
    cdef int set_ids(self, ChainStep *step, dict given) except -1
    cdef int make_room(self, Py_ssize_t n_steps, Py_ssize_t rows) except -1
    cdef int limit(self, Py_ssize_t size) except -1
    cdef Py_ssize_t fewest  # about how many a step keeps; 0 for all
    cdef list kept  # arrays that the steps point into


cdef class Histories:
    cdef PastTokens one
    cdef PastTokens *rows
    cdef Py_ssize_t n_rows
    cdef list kept  # what the rows point into
    cdef History history  # or None; what the rows point into between `borrow` and `give_back`
    cdef int borrow(self) except -1
    cdef int give_back(self) except -1
    cdef int foresee(self, const NextState *states) except -1
    cdef bint add(self, PastTokens *row, object tokens, Py_ssize_t n) except -1


cdef class Uniforms:
    cdef double one
    cdef const double *data
    cdef Py_ssize_t m  # of a row, the most where rows have steps of their own
    cdef const Py_ssize_t *first  # where those of each row begin; NULL: m a row
    cdef Py_ssize_t *own
    cdef object kept
    cdef int draw(
        self, const Plan *p, Program program, Py_ssize_t draws, rng, seed, position
    ) except -1
    cdef int take(self, list numbers) except -1


cdef Program join_programs(list programs)
cdef Histories parse_histories(const Plan *p, object ids, object prompt)
