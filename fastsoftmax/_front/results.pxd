# cython: language_level=3
"""What `results.pyx` gives to the other modules of the front."""

cimport numpy as cnp

from fastsoftmax._front.masks cimport MaskArgs
from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport PackingKernels

cdef object new_tuple  # of a named tuple: its own takes three times as long

cdef cnp.ndarray empty_draws(const Plan *p, Py_ssize_t m, bint has_axis, int number)
cdef cnp.ndarray empty_reduced(const Plan *p, cnp.ndarray x, bint keepdims, cnp.dtype dtype)
cdef int number_of(const Plan *p) noexcept
cdef cnp.ndarray first_columns(cnp.ndarray a, Py_ssize_t width, Py_ssize_t count)
cdef object given_to(object out, cnp.ndarray y)
cdef object as_result(
    const PackingKernels *packing, const Plan *p, cnp.ndarray x, cnp.ndarray y
)
cdef double largest_of(cnp.ndarray y) except? -1
cdef object raise_for_missing(
    const Plan *p, object x, MaskArgs masks, cnp.ndarray ids, Py_ssize_t m, object size
)
