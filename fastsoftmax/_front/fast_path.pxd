# cython: language_level=3
"""What the fast road takes: ordinary arrays and numbers."""

cimport cython
cimport numpy as cnp

cdef enum:
    SIGNAL_INTERVAL = 1 << 21  # elements; above, a look for Ctrl-C is due


cdef inline bint is_behaved_c(object a) noexcept:
    """Tell whether `a` is an ndarray (no subclass) whose data a kernel can walk through."""
    return (
        cnp.PyArray_CheckExact(a)
        and cnp.PyArray_IS_C_CONTIGUOUS(a)
        and cnp.PyArray_ISALIGNED(a)
        and cnp.PyArray_ISNOTSWAPPED(a)
    )


cdef inline bint is_fast_array(object x) noexcept:
    """Tell whether x can take the fast road."""
    return (
        is_behaved_c(x)
        and cnp.PyArray_TYPE(x) in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64)
        and cnp.PyArray_NDIM(x) > 0
    )


cdef inline bint is_last_axis(object axis, object x) except -1:
    """Tell whether `axis`, an int, is the last one of x."""
    return type(axis) is int and (axis == -1 or axis == cnp.PyArray_NDIM(x) - 1)


cdef inline double scalar(object temperature) except? -1:
    """Return an ordinary temperature, or -1 for one that takes the slow road."""
    cdef double t
    if type(temperature) is not float:
        return -1
    t = temperature
    return t if t >= 0 else -1


cdef inline bint as_nonneg(object value, double high, double *number) noexcept:
    """Take an int or a float (no subclass) from 0 to `high`; tell if it is one."""
    # An int of 54 bits or more may not be a float64.
    if type(value) is float or (type(value) is int and -1 < value < 1 << 53):
        number[0] = value
        return 0 <= number[0] <= high
    return False


cdef inline double draws_that_fit(cnp.ndarray x) noexcept:
    """Return how many draws from each row are little work, for an x that is."""
    return <double>SIGNAL_INTERVAL / rows_of(x)


@cython.cdivision(True)
cdef inline Py_ssize_t rows_of(cnp.ndarray x) noexcept:
    """Return how many rows there are along the last axis of x, which has elements."""
    return cnp.PyArray_SIZE(x) // cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)


cdef inline bint same_kind_and_shape(object a, object x) noexcept:
    """Tell whether `a` can take the fast road beside x, which does."""
    return (
        is_fast_array(a)
        and cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(x)
        and cnp.PyArray_SAMESHAPE(a, x)
    )


cdef inline bint classes_for(object targets, object logits) noexcept:
    """Tell whether `targets` can take the fast road: int64, a class for each row of the logits."""
    return (
        ids_for(targets, logits) and cnp.PyArray_NDIM(targets) == cnp.PyArray_NDIM(logits) - 1
    )


cdef inline bint starts_with(cnp.ndarray a, const cnp.npy_intp *shape, int ndim) noexcept:
    """Tell whether the first axes of `a`, which has as many, are these."""
    cdef int d
    for d in range(ndim):
        if cnp.PyArray_DIM(a, d) != shape[d]:
            return False
    return True


cdef inline bint ids_for(object ids, object x) noexcept:
    """Tell whether `ids` can take the fast road: int64, one or a list of them for each row of x."""
    cdef int ndim = cnp.PyArray_NDIM(x) - 1
    return (
        is_behaved_c(ids)
        and cnp.PyArray_TYPE(ids) == cnp.NPY_INT64
        and ndim <= cnp.PyArray_NDIM(ids) <= ndim + 1
        and starts_with(ids, cnp.PyArray_DIMS(x), ndim)
    )


cdef inline bint words_for(object value, int ndim, const cnp.npy_intp *shape) noexcept:
    """Tell whether `value` can take the fast road: an integer of 64 bits for each row."""
    return (
        is_behaved_c(value)
        and cnp.PyArray_TYPE(value) in (cnp.NPY_INT64, cnp.NPY_UINT64)
        and cnp.PyArray_NDIM(value) == ndim
        and starts_with(value, shape, ndim)
    )


cdef inline bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Tell whether two C-contiguous arrays share memory."""
    cdef char *p = <char *>cnp.PyArray_DATA(a)
    cdef char *q = <char *>cnp.PyArray_DATA(b)
    return p < q + cnp.PyArray_NBYTES(b) and q < p + cnp.PyArray_NBYTES(a)
