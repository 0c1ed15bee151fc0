# cython: language_level=3, cdivision=True
"""What a call is planned into: the arrays as rows, with axes merged and strides in bytes."""

from libc.stdlib cimport malloc

cimport numpy as cnp

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

from fastsoftmax._kernels.abi cimport FLOAT32, FLOAT64
from fastsoftmax._kernels.reserve cimport Reserve

cdef enum:
    MAX_AXES = 64  # NumPy's limit
    SIGNAL_INTERVAL = 1 << 21  # elements between two looks for Ctrl-C: some milliseconds
    WITH_GIL = 16384  # elements; below, the GIL's release would be felt
    BLOCK_BYTES = 3 << 15  # of scratch: it stays in the second cache, and malloc keeps it at hand

cdef enum Access:  # how a kernel gets at an array's rows
    CONTIGUOUS  # all of them as they stand
    BY_ROW  # each as it stands
    PACKED  # in contiguous copies of some at a time

cdef struct Operand:
    char *data  # NULL where there is no such array
    int element  # Element
    int access  # Access
    bint swapped
    bint aligned
    Py_ssize_t itemsize
    Py_ssize_t n  # elements a row: that of the plan, or 1 where a row has one result
    Py_ssize_t axes[MAX_AXES]  # strides along the axes of the input, until `finish_plan`,
    Py_ssize_t batch[MAX_AXES]  # then along the axes that count the rows,
    Py_ssize_t inner[MAX_AXES]  # and along those of a row

cdef struct Blocks:  # of rows that go to a kernel together
    Py_ssize_t rows
    bint load_x  # into scratch
    bint load_x2
    bint store_y  # from scratch
    bint in_place  # the kernel's result goes where x was loaded
    Py_ssize_t bytes  # of scratch for one array

cdef struct Plan:
    int dtype  # DType: what is computed in
    Py_ssize_t n
    Py_ssize_t rows
    Py_ssize_t effort  # elements that a row counts for between two looks for Ctrl-C; 0: n
    int ndim  # of the input, at least 1
    Py_ssize_t shape[MAX_AXES]
    bint reduced[MAX_AXES]  # axes that make up a row
    int batch_ndim
    int inner_ndim
    Py_ssize_t batch_shape[MAX_AXES]
    Py_ssize_t inner_shape[MAX_AXES]
    Operand x
    Operand x2
    Operand mask
    bint masks_x2  # whether the mask is that of x2, too
    Operand y
    Operand t  # temperatures, one a row
    double masked  # what the result has where the mask is False
    Blocks blocks
    Reserve scratch  # for the blocks that are packed
    Reserve workspace  # for the kernel; whoever plans the call sets its bytes,
    Reserve spare  # and of more of it for a row that turns out to need it


cdef cnp.ndarray empty_result(const Plan *p, cnp.ndarray x, str name)
cdef cnp.ndarray empty_for(const Plan *p, cnp.ndarray x, str name, cnp.ndarray out)
cdef object writable_result(object out, const Plan *p, cnp.ndarray x, str name, object other)
cdef int reduce_axes(Plan *p, object axis) except -1
cdef int begin_plan(Plan *p, cnp.ndarray x, object axis) except -1
cdef int set_operand(Operand *o, cnp.ndarray a) except -1
cdef int set_array(Operand *o, cnp.ndarray a, str name, const Plan *p) except -1
cdef bint broadcast(Operand *o, cnp.ndarray a, const Plan *p, bint per_row) noexcept
cdef void finish_plan(Plan *p, bint sort) noexcept
cdef tuple batch_shape_of(const Plan *p)
cdef tuple shape_of(const Plan *p, cnp.ndarray x)


cdef inline Py_ssize_t size_of(int dtype) noexcept nogil:
    """Return the bytes of a number of `dtype`."""
    return 4 if dtype == FLOAT32 else 8


cdef inline void *allocate(Py_ssize_t count, Py_ssize_t size) noexcept nogil:
    """Return malloc's memory for so many elements and one more; NULL where bytes can't tell it.

    Rows that have one element a stride of 0 apart may be more than memory has bytes.
    """
    if count > PY_SSIZE_T_MAX // size - 1:
        return NULL
    return malloc((count + 1) * size)


cdef inline Py_ssize_t place_of(const Plan *p, const Operand *o, Py_ssize_t row) noexcept nogil:
    """Return how many bytes from the start of an array the row, or column, `row` begins."""
    cdef Py_ssize_t bytes = 0
    cdef int d
    for d in range(p.batch_ndim - 1, -1, -1):
        bytes += row % p.batch_shape[d] * o.batch[d]
        row //= p.batch_shape[d]
    return bytes


cdef inline bint is_nan(const char *number, int dtype) noexcept nogil:
    """Return whether a number of `dtype` is NaN."""
    if dtype == FLOAT32:
        return (<const float *>number)[0] != (<const float *>number)[0]
    return dtype == FLOAT64 and (<const double *>number)[0] != (<const double *>number)[0]
