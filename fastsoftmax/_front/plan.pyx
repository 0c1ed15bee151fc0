# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""From NumPy arrays to a plan: which axes make up a row, how the others count rows, what merges.

Nothing here computes, and nothing is copied: a plan holds pointers and strides. What it does not
know (lists, subclasses, other providers of arrays) goes through NumPy once, in `as_input`.
"""

from cpython.ref cimport Py_INCREF
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.stdlib cimport free, llabs, malloc

cimport numpy as cnp

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray like, cnp.NPY_ORDER order, cnp.dtype dtype, int subok)

import numpy as np

from .._arguments import arrays as arguments
from .._arguments import values

from fastsoftmax._front.values cimport is_behaved_c, number_within
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
    FLOAT32,
    FLOAT64,
    Block,
    PackingKernels,
)

cnp.import_array()

cdef object Int64 = np.int64
cdef int bfloat16_number = -1  # NumPy's number of ml_dtypes.bfloat16, once it was seen


# ---- arrays --------------------------------------------------------------------------------------


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
    if number >= 256 and cnp.PyArray_ITEMSIZE(a) == 2 and arguments.is_bfloat16(a.dtype):
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


cdef cnp.dtype result_dtype(cnp.ndarray x):
    """Return the dtype of a result: native, that of a float input, else float64."""
    cdef int element = element_of(x)
    if element == ELEMENT_FLOAT32:
        return cnp.PyArray_DescrFromType(cnp.NPY_FLOAT32)
    if element == ELEMENT_FLOAT16:
        return cnp.PyArray_DescrFromType(cnp.NPY_FLOAT16)
    if element == ELEMENT_BFLOAT16:
        return x.dtype.newbyteorder("=")
    return cnp.PyArray_DescrFromType(cnp.NPY_FLOAT64)


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


cdef inline bint repeats(const Plan *p) noexcept:
    """Return whether the input has a stride of 0 along some axis: the same elements again."""
    cdef int d
    for d in range(p.ndim):
        if p.x.axes[d] == 0 and p.shape[d] > 1:
            return True
    return False


cdef cnp.ndarray empty_result(const Plan *p, cnp.ndarray x):
    """Return an array for a result of the shape of x, the input, that lies in memory as x does.

    In C order where the elements of x repeat.
    """
    cdef cnp.dtype dtype = result_dtype(x)
    cdef int d
    cdef cnp.ndarray y
    if dtype.num < 256 and cnp.PyArray_IS_C_CONTIGUOUS(x):
        d = p.ndim if cnp.PyArray_NDIM(x) > 0 else 0
        return cnp.PyArray_EMPTY(d, <cnp.npy_intp *>p.shape, dtype.num, 0)
    Py_INCREF(dtype)  # the next takes it over
    y = PyArray_NewLikeArray(x, cnp.NPY_CORDER if repeats(p) else cnp.NPY_KEEPORDER, dtype, 0)
    for d in range(cnp.PyArray_NDIM(y)):
        if cnp.PyArray_NDIM(y) != p.ndim or cnp.PyArray_DIM(y, d) != p.shape[d]:
            raise ValueError("the shape of x changed during the call")
    return y


cdef inline bint is_real(int element) noexcept:
    """Return whether an element type is a floating-point one."""
    return (
        element == ELEMENT_FLOAT32 or element == ELEMENT_FLOAT64 or element == ELEMENT_FLOAT16
        or element == ELEMENT_BFLOAT16
    )


cdef inline bint has_shape(cnp.ndarray a, const Plan *p, cnp.ndarray x) noexcept:
    """Return whether an array has the planned shape of x, the input."""
    cdef int d
    if cnp.PyArray_NDIM(a) != (p.ndim if cnp.PyArray_NDIM(x) > 0 else 0):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) != p.shape[d]:
            return False
    return True


cdef object writable_result(object out, const Plan *p, cnp.ndarray x, object other):
    """Return where to write a result of the shape of x: `out`, unless that would spoil an input.

    Raise where `out` is of another shape, not writable, or of a type that it cannot have. `other`
    is another input that is read meanwhile, or None.
    """
    if not (
        is_input(out)
        and cnp.PyArray_ISWRITEABLE(out)
        and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)
        and is_real(p.x.element)
        and has_shape(out, p, x)
    ):
        arguments.check_out(out, shape_of(p, x), result_dtype(x))
        out = np.asarray(out)
        if not is_input(out):  # a type that NumPy knows how to write
            return empty_result(p, x)
    if overlap(out, x) and not same_memory(out, x) or other is not None and overlap(out, other):
        return empty_result(p, x)
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
    return (
        element == ELEMENT_FLOAT32 or element == ELEMENT_FLOAT16 or element == ELEMENT_BFLOAT16
    )


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
    p.masked = 0
    p.effort = 0
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


cdef int set_array(Operand *o, cnp.ndarray a, const Plan *p) except -1:
    """Plan an array of the input's shape."""
    set_operand(o, a)
    if not broadcast(o, a, p, False):
        raise ValueError("the shape of an array changed during the call")
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
    if p.y.data != NULL:
        set_access(p, &p.y)


# ---- rows to contiguous copies, and back ---------------------------------------------------------


cdef inline Py_ssize_t offset_of(const Plan *p, const Operand *o, Py_ssize_t row) noexcept nogil:
    """Return how many bytes from the start of an array its row number `row` begins."""
    cdef Py_ssize_t bytes = 0
    cdef int d = p.batch_ndim - 1
    while d > 0:
        bytes += row % p.batch_shape[d] * o.batch[d]
        row //= p.batch_shape[d]
        d -= 1
    return bytes + row * o.batch[0] if p.batch_ndim > 0 else 0


cdef inline Block block_at(
    const Operand *o, Py_ssize_t offset, Py_ssize_t step, Py_ssize_t row_step
) noexcept nogil:
    """Describe rows of an array that begin at `offset`."""
    cdef Block block
    block.data = o.data + offset
    block.element = o.element
    block.swapped = o.swapped
    block.step = step
    block.row_step = row_step
    return block


cdef inline void move(
    const PackingKernels *packing, const Block *x, const Block *mask, Py_ssize_t rows,
    Py_ssize_t n, int dtype, char *y, bint out,
) noexcept nogil:
    """Load a block into `y`, or if `out` store it from there."""
    if out:
        packing.store(x, rows, n, dtype, y)
    else:
        packing.load(x, mask, rows, n, dtype, y)


cdef void move_row(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t offset, Py_ssize_t mask_offset, int dtype, char *y, bint out,
) noexcept nogil:
    """Load a row with several axes into `y`, or if `out` store it from there."""
    cdef int last = p.inner_ndim - 1
    cdef Py_ssize_t rows = p.inner_shape[last - 1]
    cdef Py_ssize_t n = p.inner_shape[last]
    cdef Py_ssize_t size = 4 if dtype == FLOAT32 else 8
    cdef Py_ssize_t i, j, at, mask_at
    cdef int d
    cdef Block block, mask_block
    for i in range(p.n // (rows * n)):
        at = offset
        mask_at = mask_offset
        j = i
        for d in range(last - 2, -1, -1):
            at += j % p.inner_shape[d] * o.inner[d]
            if mask != NULL:
                mask_at += j % p.inner_shape[d] * mask.inner[d]
            j //= p.inner_shape[d]
        block = block_at(o, at, o.inner[last], o.inner[last - 1])
        if mask != NULL:
            mask_block = block_at(mask, mask_at, mask.inner[last], mask.inner[last - 1])
        move(packing, &block, &mask_block if mask != NULL else NULL, rows, n, dtype, y, out)
        y += rows * n * size


cdef void pack(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t first, Py_ssize_t rows, int dtype, char *y, bint out,
) noexcept nogil:
    """Load rows of an array into `y`, contiguous and of `dtype`, or if `out` store them from there.

    `mask` is NULL, or where it is False, -inf is loaded.
    """
    cdef Py_ssize_t size = 4 if dtype == FLOAT32 else 8
    cdef int last = p.batch_ndim - 1
    cdef Py_ssize_t run, i, offset, row_step = 0, mask_step = 0, mask_offset = 0
    cdef Py_ssize_t step = o.inner[0] if o.n > 1 and p.inner_ndim > 0 else o.itemsize
    cdef Block block, mask_block
    cdef Block *masking = NULL
    while rows > 0:
        run = rows
        offset = offset_of(p, o, first)
        if last >= 0:
            row_step = o.batch[last]
            run = min(rows, p.batch_shape[last] - first % p.batch_shape[last])
        if mask != NULL:
            mask_offset = offset_of(p, mask, first)
            mask_step = mask.batch[last] if last >= 0 else 0
        if o.n == 1 or p.inner_ndim <= 1:
            block = block_at(o, offset, step, row_step)
            if mask != NULL:
                mask_block = block_at(
                    mask, mask_offset, mask.inner[0] if p.inner_ndim > 0 else 1, mask_step
                )
                masking = &mask_block
            move(packing, &block, masking, run, o.n, dtype, y, out)
        else:
            for i in range(run):
                move_row(
                    packing, p, o, mask, offset + i * row_step, mask_offset + i * mask_step,
                    dtype, y + i * o.n * size, out,
                )
        y += run * o.n * size
        first += run
        rows -= run


# ---- arguments with one value a row --------------------------------------------------------------


cdef object set_temperature(Plan *p, object temperature, double *one):
    """Take an argument `temperature`: a number into `one`, or one a row into a begun plan.

    Return what must live as long as the plan. Raise where it is none; whether those of an array
    are, `row_temperatures` tells.
    """
    if number_within(temperature, INFINITY, one):
        return None
    if not (
        is_input(temperature) and cnp.PyArray_TYPE(temperature) != cnp.NPY_BOOL
        and broadcast(&p.t, temperature, p, True)
    ):
        shape = batch_shape_of(p)
        temperature = values.temperatures(temperature, shape)
        if temperature.size != 1:
            temperature = temperature.reshape(shape)
        broadcast(&p.t, temperature, p, True)
    set_operand(&p.t, temperature)
    return temperature


cdef double *row_temperatures(const Plan *p, const PackingKernels *packing) except? NULL:
    """Return the temperatures of a finished plan, one a row, from malloc; NULL if it has none."""
    cdef double *each
    cdef Py_ssize_t i
    if p.t.data == NULL:
        return NULL
    each = <double *>malloc((p.rows + 1) * sizeof(double))
    if each == NULL:
        raise MemoryError(f"no memory for {p.rows} temperatures")
    pack(packing, p, &p.t, NULL, 0, p.rows, FLOAT64, <char *>each, False)
    for i in range(p.rows):
        if not each[i] >= 0:
            bad = each[i]
            free(each)
            raise ValueError(f"temperature is {bad}; allowed is 0 to inf")
    return each


cdef cnp.ndarray checked_ids(object ids, const Plan *p):
    """Return the argument `ids` as int64, C-contiguous: one, or a list, for each row of the plan.

    Raise where one is no id of an element of a row.
    """
    cdef cnp.ndarray a
    cdef const int64_t *id
    cdef int d, ndim = p.ndim - 1
    cdef Py_ssize_t i
    cdef bint good
    if type(ids) is int and ndim == 0 and 0 <= ids < p.n:
        a = cnp.PyArray_EMPTY(0, NULL, cnp.NPY_INT64, 0)
        (<int64_t *>cnp.PyArray_DATA(a))[0] = ids
        return a
    if type(ids) is Int64:
        ids = np.asarray(ids)
    good = (
        is_behaved_c(ids) and cnp.PyArray_TYPE(ids) == cnp.NPY_INT64
        and ndim <= cnp.PyArray_NDIM(ids) <= ndim + 1
    )
    if good:
        a = ids
        for d in range(ndim):
            good = good and cnp.PyArray_DIM(a, d) == p.shape[d]
        id = <const int64_t *>cnp.PyArray_DATA(a)
        for i in range(cnp.PyArray_SIZE(a) if good else 0):
            good &= 0 <= id[i] < p.n
    if not good:
        a = values.token_ids(ids, batch_shape_of(p), p.n)
    return a
