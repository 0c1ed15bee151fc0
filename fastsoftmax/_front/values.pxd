# cython: language_level=3
"""Ordinary numbers out of Python objects, quickly; what is not ordinary is for `_arguments`."""

cimport cython
cimport numpy as cnp
from libc.stdint cimport uint64_t

from fastsoftmax._front.environment cimport enter_environment, leave_environment


cdef inline bint real_number(object value, double *number) except -1:
    """Take a real number of any ordinary type (no bool) out of `value`; return whether it is one.

    That is float, int, a NumPy scalar or an array of no axes, held exactly or rounded as NumPy
    does. What is NaN, infinite or out of range is for the caller to see.
    """
    cdef uint64_t environment
    if type(value) is float:
        number[0] = value
        return True
    if type(value) is int:
        if not -(1 << 53) < value < 1 << 53:  # may be no float64
            return False
        number[0] = value
        return True
    if cnp.PyArray_CheckScalar(value):  # a NumPy scalar, or an array of no axes
        kind = value.dtype.char
        if kind in "fdebBhHiIlLqQ":
            environment = enter_environment()
            try:
                number[0] = float(value)
            finally:
                leave_environment(environment)
            return True
    return False


cdef inline bint number_within(object value, double high, double *number) except -1:
    """Take a real number from 0 to `high` out of `value`; return whether it is one."""
    cdef double v
    if not real_number(value, &v) or not 0 <= v <= high:
        return False
    number[0] = v
    return True


cdef inline bint whole_number(object value, Py_ssize_t *number) except -1:
    """Take an integer from 0, of any ordinary type but bool, out of `value`; return whether it is.
    """
    cdef object v = value
    if type(v) is not int:
        if not cnp.PyArray_CheckScalar(v) or v.dtype.kind not in "iu":
            return False
        v = int(v)
    if not 0 <= v < 1 << 53:
        return False
    number[0] = v
    return True


cdef inline bint is_behaved_c(object a) noexcept:
    """Return whether `a` is an ndarray (no subclass), C-contiguous, aligned, of native byte order.
    """
    return (
        cnp.PyArray_CheckExact(a)
        and cnp.PyArray_IS_C_CONTIGUOUS(a)
        and cnp.PyArray_ISALIGNED(a)
        and cnp.PyArray_ISNOTSWAPPED(a)
    )


cdef inline bint is_plain(object x) noexcept:
    """Return whether `x` is a behaved array of float32 or float64 with an axis."""
    return (
        is_behaved_c(x)
        and (cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 or cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64)
        and cnp.PyArray_NDIM(x) > 0
    )


cdef inline bint is_last_axis(object axis, object x) noexcept:
    """Return whether `axis` is an int that names the last axis of `x`."""
    return type(axis) is int and (axis == -1 or axis == cnp.PyArray_NDIM(x) - 1)


cdef inline object scalar_or_array(cnp.ndarray y):
    """Return y, or its scalar if it has no axes."""
    return y if cnp.PyArray_NDIM(y) > 0 else cnp.PyArray_ToScalar(cnp.PyArray_DATA(y), y)
