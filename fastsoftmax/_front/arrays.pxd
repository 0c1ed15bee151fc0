# cython: language_level=3
"""What `arrays.pyx` gives to the other modules of the front."""

cimport numpy as cnp

from fastsoftmax._kernels.abi cimport ELEMENT_BFLOAT16, ELEMENT_FLOAT16


cdef inline bint is_narrow_float(int element) noexcept:
    """Return whether an element type is a float that is computed in float32 and rounded to."""
    return element == ELEMENT_FLOAT16 or element == ELEMENT_BFLOAT16


cdef int element_of(cnp.ndarray a) except -1
cdef bint is_input(object x) except -1
cdef object as_input(object x, str name)
cdef object numbers_as_array(object numbers)
cdef object as_int64(object integers)
cdef cnp.dtype native_dtype(cnp.ndarray x)
cdef cnp.dtype result_dtype(cnp.ndarray x)
cdef cnp.ndarray empty_array(int ndim, cnp.npy_intp *shape, cnp.dtype dtype)
cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept
cdef bint same_memory(cnp.ndarray a, cnp.ndarray b) noexcept
