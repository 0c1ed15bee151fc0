# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""From NumPy arrays to a plan: which axes make up a row, how the others count rows, what merges.

Nothing here computes, and nothing is copied: a plan holds pointers and strides.
"""

from cpython.ref cimport Py_INCREF
from libc.stdlib cimport llabs

cimport numpy as cnp

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray like, cnp.NPY_ORDER order, cnp.dtype dtype, int subok)

import numpy as np

from .._arguments import arrays as arguments

from fastsoftmax._front.arrays cimport (
    element_of,
    empty_array,
    is_input,
    is_narrow_float,
    native_dtype,
    overlap,
    result_dtype,
    same_memory,
)
from fastsoftmax._kernels.abi cimport ELEMENT_FLOAT32, ELEMENT_FLOAT64, FLOAT32, FLOAT64

cnp.import_array()


# ---- results -------------------------------------------------------------------------------------


cdef inline bint repeats(const Plan *p) noexcept:
    """Return whether the input has a stride of 0 along some axis: the same elements again."""
    cdef int d
    for d in range(p.ndim):
        if p.x.axes[d] == 0 and p.shape[d] > 1:
            return True
    return False


cdef cnp.ndarray empty_result(const Plan *p, cnp.ndarray x, str name):
    """Return an array for a result of the shape of x, the input `name`, that lies in memory as x.

    In C order where the elements of x repeat.
    """
    return empty_as(p, x, name, result_dtype(x))


cdef cnp.ndarray empty_for(const Plan *p, cnp.ndarray x, str name, cnp.ndarray out):
    """Return what `empty_result` does, of the type of `out`, into which it is copied later."""
    return empty_as(p, x, name, native_dtype(out))


cdef inline cnp.ndarray empty_as(const Plan *p, cnp.ndarray x, str name, cnp.dtype dtype):
    """Return what `empty_result` does, of another type."""
    cdef int d
    cdef cnp.ndarray y
    if cnp.PyArray_IS_C_CONTIGUOUS(x):
        d = p.ndim if cnp.PyArray_NDIM(x) > 0 else 0
        return empty_array(d, <cnp.npy_intp *>p.shape, dtype)
    Py_INCREF(dtype)  # the next takes it over
    y = PyArray_NewLikeArray(x, cnp.NPY_CORDER if repeats(p) else cnp.NPY_KEEPORDER, dtype, 0)
    for d in range(cnp.PyArray_NDIM(y)):
        if cnp.PyArray_NDIM(y) != p.ndim or cnp.PyArray_DIM(y, d) != p.shape[d]:
            raise ValueError(f"the shape of {name} changed during the call")
    return y


cdef inline bint is_real(int element) noexcept:
    """Return whether an element type is a floating-point one."""
    return element == ELEMENT_FLOAT32 or element == ELEMENT_FLOAT64 or is_narrow_float(element)


cdef inline bint has_shape(cnp.ndarray a, const Plan *p, cnp.ndarray x) noexcept:
    """Return whether an array has the planned shape of x, the input."""
    cdef int d
    if cnp.PyArray_NDIM(a) != (p.ndim if cnp.PyArray_NDIM(x) > 0 else 0):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) != p.shape[d]:
            return False
    return True


cdef object writable_result(object out, const Plan *p, cnp.ndarray x, str name, object other):
    """Return where to write a result of the shape of x: `out` if it is given and spoils no input.

    Raise where `out` is of another shape, not writable, or of a type that it cannot have. `other`
    is another input that is read meanwhile, or None.
    """
    if out is None:
        return empty_result(p, x, name)
    if not (
        is_input(out)
        and cnp.PyArray_ISWRITEABLE(out)
        and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)
        and is_real(p.x.element)
        and has_shape(out, p, x)
    ):
        arguments.check_out(out, shape_of(p, x), result_dtype(x))
        out = np.asarray(out)
    if overlap(out, x) and not same_memory(out, x) or other is not None and overlap(out, other):
        return empty_for(p, x, name, out)
    return out


# ---- axes ----------------------------------------------------------------------------------------


cdef tuple normal_axes(object axis, int ndim):
    """Return an `axis` that is no int as a tuple of axes from 0 on; raise where it is wrong."""
    cdef Py_ssize_t a
    cdef list found = []
    if type(axis) is tuple:
        for each in axis:
            if type(each) is not int or not -ndim <= each < ndim:
                return arguments.reduced_axes(axis, ndim)
            a = each
            a = a + ndim if a < 0 else a
            if a in found:
                return arguments.reduced_axes(axis, ndim)
            found.append(a)
        return tuple(found)
    if cnp.PyArray_CheckScalar(axis) and axis.dtype.kind in "iu":
        return normal_axes((int(axis),), ndim)
    return arguments.reduced_axes(axis, ndim)


cdef int reduce_axes(Plan *p, object axis) except -1:
    """Mark the axes that make up a row: an int, None for all, or a tuple of axes from 0 on."""
    cdef int d
    cdef Py_ssize_t a
    for d in range(p.ndim):
        p.reduced[d] = axis is None
    if axis is None:
        return 0
    if type(axis) is int:
        if not -p.ndim <= axis < p.ndim:
            arguments.reduced_axes(axis, p.ndim)
        a = axis
        p.reduced[a + p.ndim if a < 0 else a] = True
        return 0
    for each in axis:
        p.reduced[<int>each] = True
    return 0


cdef inline bint result_is_float32(int element) noexcept:
    """Return whether what is computed of an element type is computed in float32."""
    return element == ELEMENT_FLOAT32 or is_narrow_float(element)


cdef int begin_plan(Plan *p, cnp.ndarray x, object axis) except -1:
    """Begin the plan of a call on `x`: its shape, its strides, the axes that make up a row."""
    cdef int d
    if type(axis) is not int and axis is not None:  # before anything is measured
        axis = normal_axes(axis, max(1, cnp.PyArray_NDIM(x)))
    p.ndim = cnp.PyArray_NDIM(x)
    for d in range(p.ndim):
        p.shape[d] = cnp.PyArray_DIM(x, d)
    if p.ndim == 0:  # a row of one
        p.ndim = 1
        p.shape[0] = 1
    if p.ndim == 1 and type(axis) is int and (axis == -1 or axis == 0):
        p.reduced[0] = True
    else:
        reduce_axes(p, axis)
    p.n = p.rows = 1
    for d in range(p.ndim):
        if p.reduced[d]:
            p.n *= p.shape[d]
        else:
            p.rows *= p.shape[d]
    set_operand(&p.x, x)
    for d in range(p.ndim):
        p.x.axes[d] = cnp.PyArray_STRIDE(x, d) if cnp.PyArray_NDIM(x) else p.x.itemsize
    p.dtype = FLOAT32 if result_is_float32(p.x.element) else FLOAT64
    p.x2.data = p.mask.data = p.y.data = p.t.data = NULL
    p.masks_x2 = False
    p.masked = 0
    p.effort = 0
    p.scratch.bytes = p.workspace.bytes = p.spare.bytes = 0
    return 0


cdef int set_operand(Operand *o, cnp.ndarray a) except -1:
    """Describe an array's memory; its strides are for the caller to set."""
    o.data = <char *>cnp.PyArray_DATA(a)
    o.element = element_of(a)
    o.swapped = not cnp.PyArray_ISNOTSWAPPED(a)
    o.aligned = cnp.PyArray_ISALIGNED(a)
    o.itemsize = cnp.PyArray_ITEMSIZE(a)
    o.n = 0
    return 0


cdef bint broadcast(Operand *o, cnp.ndarray a, const Plan *p, bint per_row) noexcept:
    """Set the strides of an array that broadcasts to the input's shape; return whether it does.

    If `per_row`, to the shape without the axes that make up a row, along which it has stride 0.
    """
    cdef int d
    cdef int left = cnp.PyArray_NDIM(a)
    for d in range(p.ndim - 1, -1, -1):
        o.axes[d] = 0
        if per_row and p.reduced[d] or left == 0:
            continue
        left -= 1
        if cnp.PyArray_DIM(a, left) == p.shape[d]:
            o.axes[d] = cnp.PyArray_STRIDE(a, left)
        elif cnp.PyArray_DIM(a, left) != 1:
            return False
    return left == 0


cdef int set_array(Operand *o, cnp.ndarray a, str name, const Plan *p) except -1:
    """Plan the array `name` of the input's shape."""
    set_operand(o, a)
    if not broadcast(o, a, p, False):
        raise ValueError(f"the shape of {name} changed during the call")
    return 0


cdef tuple shape_of(const Plan *p, cnp.ndarray x):
    """Return the shape of the input, x."""
    cdef int d
    return tuple([p.shape[d] for d in range(cnp.PyArray_NDIM(x))])


cdef tuple batch_shape_of(const Plan *p):
    """Return the input's shape without the axes that make up a row."""
    cdef int d
    return tuple([p.shape[d] for d in range(p.ndim) if not p.reduced[d]])


cdef void add_axis(Plan *p, int axis, bint inner) noexcept:
    """Append an axis of the input to those of a row, or to those that count rows; merge it."""
    cdef Operand *o
    cdef Py_ssize_t *shape = &p.inner_shape[0] if inner else &p.batch_shape[0]
    cdef int ndim = p.inner_ndim if inner else p.batch_ndim
    cdef Py_ssize_t length = p.shape[axis]
    cdef bint one = ndim > 0
    cdef Operand *operands[5]
    cdef Py_ssize_t *strides
    cdef int i
    operands[0], operands[1], operands[2] = &p.x, &p.x2, &p.mask
    operands[3], operands[4] = &p.y, &p.t
    for i in range(5):
        o = operands[i]
        strides = &o.inner[0] if inner else &o.batch[0]
        if one and o.data != NULL and not (inner and o.n == 1):
            one = strides[ndim - 1] == length * o.axes[axis]
    if one:
        ndim -= 1
        length *= shape[ndim]
    shape[ndim] = length
    for i in range(5):
        o = operands[i]
        if o.data != NULL:
            strides = &o.inner[0] if inner else &o.batch[0]
            strides[ndim] = o.axes[axis]
    if inner:
        p.inner_ndim = ndim + 1
    else:
        p.batch_ndim = ndim + 1


cdef void set_access(const Plan *p, Operand *o) noexcept:
    """Decide how a kernel gets at the rows of an array."""
    cdef Py_ssize_t size = o.itemsize
    cdef int d
    o.access = PACKED
    if o.element != p.dtype or o.swapped or not o.aligned:
        return
    if o.n > 1 and (p.inner_ndim > 1 or p.inner_ndim == 1 and o.inner[0] != size):
        return
    o.access = CONTIGUOUS
    size *= o.n
    for d in range(p.batch_ndim - 1, -1, -1):
        if o.batch[d] != size:
            o.access = BY_ROW if o.n == p.n else PACKED
        size *= p.batch_shape[d]


cdef void finish_plan(Plan *p, bint sort) noexcept:
    """Merge axes and decide how to get at each array, all of which are set.

    If `sort`, rows are counted in the order in which the input lies in memory; else in C order.
    """
    cdef int order[MAX_AXES]
    cdef int count = 0
    cdef int d, i
    p.batch_ndim = p.inner_ndim = 0
    if p.x.n == 0:
        p.x.n = p.n
    if p.x2.data != NULL and p.x2.n == 0:
        p.x2.n = p.n
    if p.y.data != NULL and p.y.n == 0:
        p.y.n = p.n
    p.mask.n = p.n
    p.t.n = 1
    sort = sort and p.ndim > 2 and not repeats(p)
    for d in range(p.ndim):
        if p.shape[d] == 1:
            continue
        if p.reduced[d]:
            add_axis(p, d, True)
            continue
        i = count
        while sort and i > 0 and llabs(p.x.axes[order[i - 1]]) < llabs(p.x.axes[d]):
            order[i] = order[i - 1]
            i -= 1
        order[i] = d
        count += 1
    for i in range(count):
        add_axis(p, order[i], False)
    set_access(p, &p.x)
    if p.mask.data != NULL:
        p.x.access = PACKED
    if p.x2.data != NULL:
        set_access(p, &p.x2)
        if p.masks_x2 and p.mask.data != NULL:
            p.x2.access = PACKED
    if p.y.data != NULL:
        set_access(p, &p.y)
