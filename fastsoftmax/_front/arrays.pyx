# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Arrays as arguments: of which elements they are, and where in memory.

What is no plain array (lists, subclasses, other providers of arrays) goes through NumPy once, in
`as_input`; what is wrong goes to `_arguments`, which says what.
"""

cimport numpy as cnp
from cpython.ref cimport Py_INCREF

cdef extern from "numpy/arrayobject.h":
    object PyArray_Empty(int ndim, cnp.npy_intp *shape, cnp.dtype dtype, int fortran)

import numpy as np

from .._arguments import arrays as arguments
from .._arguments import values

from fastsoftmax._kernels.abi cimport (
    ELEMENT_BFLOAT16,
    ELEMENT_BOOL,
    ELEMENT_FLOAT16,
    ELEMENT_FLOAT32,
    ELEMENT_FLOAT64,
    ELEMENT_INT16,
    ELEMENT_INT32,
    ELEMENT_INT64,
    ELEMENT_INT8,
    ELEMENT_UINT16,
    ELEMENT_UINT32,
    ELEMENT_UINT64,
    ELEMENT_UINT8,
    ELEMENT_UNKNOWN,
)

cnp.import_array()

cdef extern from *:
    """
    /* NumPy's number of ml_dtypes.bfloat16, once a thread has seen it. */
    static _Atomic int fs_bfloat16_number = -1;
    """
    int bfloat16_number "fs_bfloat16_number"


cdef int integer_of(int size, bint signed) noexcept:
    """Return the element type of an integer of `size` bytes."""
    if size == 1:
        return ELEMENT_INT8 if signed else ELEMENT_UINT8
    if size == 2:
        return ELEMENT_INT16 if signed else ELEMENT_UINT16
    if size == 4:
        return ELEMENT_INT32 if signed else ELEMENT_UINT32
    return ELEMENT_INT64 if signed else ELEMENT_UINT64


cdef int element_of(cnp.ndarray a) except -1:
    """Return the element type of an array, ELEMENT_UNKNOWN if it is none of ours."""
    global bfloat16_number
    cdef int number = cnp.PyArray_TYPE(a)
    if number == cnp.NPY_FLOAT32:
        return ELEMENT_FLOAT32
    if number == cnp.NPY_FLOAT64:
        return ELEMENT_FLOAT64
    if number == cnp.NPY_FLOAT16:
        return ELEMENT_FLOAT16
    if number == cnp.NPY_BOOL:
        return ELEMENT_BOOL
    if cnp.NPY_BYTE <= number <= cnp.NPY_ULONGLONG:  # signed and unsigned ones alternate
        return integer_of(cnp.PyArray_ITEMSIZE(a), (number - cnp.NPY_BYTE) % 2 == 0)
    if number == bfloat16_number:
        return ELEMENT_BFLOAT16
    if number >= 256 and cnp.PyArray_ITEMSIZE(a) == 2 and values.is_extension_float(a.dtype):
        bfloat16_number = number
        return ELEMENT_BFLOAT16
    return ELEMENT_UNKNOWN


cdef bint is_input(object x) except -1:
    """Return whether `x` is an ndarray, no subclass, with elements that can be planned."""
    return cnp.PyArray_CheckExact(x) and element_of(x) != ELEMENT_UNKNOWN


cdef object as_input(object x, str name):
    """Return the argument `name` as an ndarray with elements that can be planned, or raise."""
    if is_input(x):
        return x
    if type(x) is list or type(x) is float or type(x) is tuple or type(x) is int:
        try:
            array = np.asarray(x)
        except ValueError:  # ragged
            return arguments.as_array(x, name)
        if is_input(array):
            return array
    return arguments.as_array(x, name)


cdef object numbers_as_array(object numbers):
    """Return a list of int and float as an array, anything else as it is."""
    if type(numbers) is not list:
        return numbers
    cdef bint whole = True
    for each in numbers:
        if type(each) is float:
            whole = False
        elif type(each) is not int:
            return numbers
    array = np.asarray(numbers)
    if not is_input(array) or whole and not cnp.PyArray_ISINTEGER(array):  # 2**63 beside -1
        return numbers
    return array


cdef object as_int64(object integers):
    """Return an array of smaller integers as one of int64, anything else as it is."""
    if (
        cnp.PyArray_CheckExact(integers) and cnp.PyArray_ISINTEGER(integers)
        and cnp.PyArray_ITEMSIZE(integers) < 8
    ):
        return cnp.PyArray_Cast(integers, cnp.NPY_INT64)
    return integers


cdef cnp.dtype native_dtype(cnp.ndarray x):
    """Return the dtype of an array, in native byte order."""
    if cnp.PyArray_TYPE(x) < 256:
        return cnp.PyArray_DescrFromType(cnp.PyArray_TYPE(x))
    return x.dtype if cnp.PyArray_ISNOTSWAPPED(x) else x.dtype.newbyteorder("=")


cdef cnp.dtype result_dtype(cnp.ndarray x):
    """Return the dtype of a result: native, that of a float input, else float64."""
    cdef int element = element_of(x)
    if element != ELEMENT_FLOAT32 and not is_narrow_float(element):
        return cnp.PyArray_DescrFromType(cnp.NPY_FLOAT64)
    return native_dtype(x)


cdef cnp.ndarray empty_array(int ndim, cnp.npy_intp *shape, cnp.dtype dtype):
    """Return a new array in C order."""
    Py_INCREF(dtype)  # the next takes it over
    return PyArray_Empty(ndim, shape, dtype, 0)


cdef inline void extent(cnp.ndarray a, char **low, char **high) noexcept:
    """Write where the memory of an array's elements begins and ends."""
    cdef int d
    cdef Py_ssize_t reach
    low[0] = high[0] = <char *>cnp.PyArray_DATA(a)
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) == 0:
            high[0] = low[0]
            return
        reach = (cnp.PyArray_DIM(a, d) - 1) * cnp.PyArray_STRIDE(a, d)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    high[0] += cnp.PyArray_ITEMSIZE(a)


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Return whether the memory of two arrays may overlap, by where it begins and ends."""
    cdef char *a_low
    cdef char *a_high
    cdef char *b_low
    cdef char *b_high
    extent(a, &a_low, &a_high)
    extent(b, &b_low, &b_high)
    return a_low < b_high and b_low < a_high


cdef bint same_memory(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Return whether two arrays of one shape have the same elements in the same places."""
    cdef int d
    if cnp.PyArray_DATA(a) != cnp.PyArray_DATA(b) or cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_STRIDE(a, d) != cnp.PyArray_STRIDE(b, d):
            return False
    return True
