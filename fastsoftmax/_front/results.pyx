# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Arrays for results with some numbers a row, and their last step: rounded, or a scalar."""

from libc.stdint cimport uint64_t

cimport numpy as cnp

import numpy as np

from fastsoftmax._front.arrays cimport empty_array, is_narrow_float, result_dtype, same_memory
from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.plan cimport MAX_AXES, Plan
from fastsoftmax._front.values cimport scalar_or_array
from fastsoftmax._kernels.abi cimport FLOAT32, Block, PackingKernels

cnp.import_array()


cdef cnp.ndarray empty_draws(const Plan *p, Py_ssize_t m, bint has_axis, int number):
    """Return an array of NumPy's type `number` for m results a row; without their axis if not
    `has_axis`."""
    cdef cnp.npy_intp shape[MAX_AXES]
    cdef int d
    for d in range(p.ndim - 1):
        shape[d] = p.shape[d]
    shape[p.ndim - 1] = m
    return cnp.PyArray_EMPTY(p.ndim if has_axis else p.ndim - 1, shape, number, 0)


cdef int number_of(const Plan *p) noexcept:
    """Return NumPy's number of the type that is computed in."""
    return cnp.NPY_FLOAT32 if p.dtype == FLOAT32 else cnp.NPY_FLOAT64


cdef object as_result(
    const PackingKernels *packing, const Plan *p, cnp.ndarray x, cnp.ndarray y
):
    """Return results of the type that is computed in as those of the input x: rounded, a scalar."""
    cdef cnp.ndarray rounded
    cdef Block block
    cdef uint64_t environment
    if is_narrow_float(p.x.element):
        rounded = empty_array(cnp.PyArray_NDIM(y), cnp.PyArray_DIMS(y), result_dtype(x))
        block.data = <char *>cnp.PyArray_DATA(rounded)
        block.element = p.x.element
        block.swapped = False
        block.step = cnp.PyArray_ITEMSIZE(rounded)
        block.row_step = 0
        environment = enter_environment()
        packing.store(&block, 1, cnp.PyArray_SIZE(y), p.dtype, cnp.PyArray_DATA(y))
        leave_environment(environment)
        y = rounded
    return scalar_or_array(y)


cdef object given_to(object out, cnp.ndarray y):
    """Return the argument `out` with a result in it, which is copied if it stands elsewhere."""
    cdef uint64_t environment
    if y is not out:
        a = np.asarray(out)
        if not same_memory(y, a):
            with np.errstate(all="ignore"):  # to a narrower type
                environment = enter_environment()
                try:
                    np.copyto(a, y, casting="same_kind")
                finally:
                    leave_environment(environment)
    return out
