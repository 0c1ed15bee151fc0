# cython: language_level=3
"""What a call is planned into: the arrays as rows, with axes merged and strides in bytes."""

cimport numpy as cnp

from fastsoftmax._kernels.abi cimport ELEMENT_BFLOAT16, ELEMENT_FLOAT16, PackingKernels

cdef enum:
    MAX_AXES = 64  # NumPy's limit
    SIGNAL_INTERVAL = 1 << 21  # elements between two looks for Ctrl-C: some milliseconds
    WITH_GIL = 16384  # elements; below, the GIL's release would be felt

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
    Operand y
    Operand t  # temperatures, one a row
    double masked  # what the result has where the mask is False


cdef inline bint is_narrow_float(int element) noexcept:
    """Return whether an element type is a float that is computed in float32 and rounded to."""
    return element == ELEMENT_FLOAT16 or element == ELEMENT_BFLOAT16


cdef int element_of(cnp.ndarray a) except -1
cdef bint is_input(object x) except -1
cdef object as_input(object x, str name)
cdef cnp.dtype result_dtype(cnp.ndarray x)
cdef cnp.ndarray empty_result(const Plan *p, cnp.ndarray x)
cdef object writable_result(object out, const Plan *p, cnp.ndarray x, object other)
cdef int reduce_axes(Plan *p, object axis) except -1
cdef int begin_plan(Plan *p, cnp.ndarray x, object axis) except -1
cdef int set_operand(Operand *o, cnp.ndarray a) except -1
cdef int set_array(Operand *o, cnp.ndarray a, const Plan *p) except -1
cdef bint broadcast(Operand *o, cnp.ndarray a, const Plan *p, bint per_row) noexcept
cdef void finish_plan(Plan *p, bint sort) noexcept
cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept
cdef bint same_memory(cnp.ndarray a, cnp.ndarray b) noexcept
cdef tuple batch_shape_of(const Plan *p)
cdef tuple shape_of(const Plan *p, cnp.ndarray x)
cdef void pack(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t first, Py_ssize_t rows, int dtype, char *y, bint out,
) noexcept nogil
cdef object set_temperature(Plan *p, object temperature, double *one)
cdef double *row_temperatures(const Plan *p, const PackingKernels *packing) except? NULL
cdef cnp.ndarray checked_ids(object ids, const Plan *p)
