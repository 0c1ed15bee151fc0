# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Arrays for results with some numbers a row, and their last step: rounded, a scalar, an error."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cimport numpy as cnp

import numpy as np

from .._arguments.results import finish_draw

from fastsoftmax._front.arrays cimport empty_array, is_narrow_float, result_dtype, same_memory
from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.masks cimport MaskArgs
from fastsoftmax._front.plan cimport MAX_AXES, Plan, batch_shape_of
from fastsoftmax._front.values cimport scalar_or_array
from fastsoftmax._kernels.abi cimport FLOAT32, Block, PackingKernels

cnp.import_array()

new_tuple = tuple.__new__


cdef cnp.ndarray empty_draws(const Plan *p, Py_ssize_t m, bint has_axis, int number):
    """Return an array of NumPy's type `number` for m results a row; without their axis if not
    `has_axis`."""
    cdef cnp.npy_intp shape[MAX_AXES]
    cdef int d
    for d in range(p.ndim - 1):
        shape[d] = p.shape[d]
    shape[p.ndim - 1] = m
    return cnp.PyArray_EMPTY(p.ndim if has_axis else p.ndim - 1, shape, number, 0)


cdef cnp.ndarray empty_reduced(const Plan *p, cnp.ndarray x, bint keepdims, cnp.dtype dtype):
    """Return an array for one result a row of x; with reduced axes of length 1 if `keepdims`."""
    cdef cnp.npy_intp shape[MAX_AXES]
    cdef int d, ndim = 0
    for d in range(cnp.PyArray_NDIM(x)):
        if not p.reduced[d] or keepdims:
            shape[ndim] = 1 if p.reduced[d] else p.shape[d]
            ndim += 1
    return empty_array(ndim, shape, dtype)


cdef cnp.ndarray first_columns(cnp.ndarray a, Py_ssize_t width, Py_ssize_t count):
    """Return the first `count` of the `width` columns of a contiguous array, contiguous too."""
    cdef cnp.npy_intp shape[MAX_AXES]
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a), r
    cdef int d, ndim = cnp.PyArray_NDIM(a)
    cdef cnp.ndarray y
    if count == width:
        return a
    for d in range(ndim):
        shape[d] = cnp.PyArray_DIM(a, d)
    shape[ndim - 1] = count
    y = cnp.PyArray_EMPTY(ndim, shape, cnp.PyArray_TYPE(a), 0)
    for r in range(cnp.PyArray_SIZE(a) // width):
        memcpy(
            <char *>cnp.PyArray_DATA(y) + r * count * size,
            <const char *>cnp.PyArray_DATA(a) + r * width * size, count * size,
        )
    return y


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


cdef double largest_of(cnp.ndarray y) except? -1:
    """Return the largest finite number of an array's type that is computed with."""
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT32:
        return 3.4028234663852886e+38
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT64:
        return 1.7976931348623157e+308
    return 65504 if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT16 else 3.3895313892515355e+38


cdef class RowsOf:
    """The rows of logits, by their numbers, as an error looks at them: -inf where a mask shuts."""

    cdef object x, shape
    cdef MaskArgs masks

    def __getitem__(self, i):
        cdef object allowed = None
        row = self.x[np.unravel_index(i, self.shape)] if self.shape else self.x.reshape(-1)
        if self.masks is not None:
            allowed = self.masks.row((*self.shape, row.size), i)
        return row if allowed is None else np.where(allowed, row, -np.inf)


cdef object raise_for_missing(
    const Plan *p, object x, MaskArgs masks, cnp.ndarray ids, Py_ssize_t m, object size
):
    """Raise the error for ids, m a row of the logits x, of which some are -1."""
    cdef RowsOf rows = RowsOf.__new__(RowsOf)
    rows.x, rows.shape, rows.masks = x, batch_shape_of(p), masks
    finish_draw(ids.reshape(p.rows, m), rows, rows.shape, size, False, masks is not None)
