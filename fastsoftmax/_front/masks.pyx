# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Masks of ids: bools, or packed bits, for all rows, for each, or for some.

What a kernel needs of one, `load_mask` makes when it turns to the row: a bit for each id. So all
masks are read once for each row, whoever writes them meanwhile.
"""

cimport numpy as cnp

from .._arguments import masks as arguments

from fastsoftmax._front.arrays cimport element_of
from fastsoftmax._front.plan cimport Plan, batch_shape_of
from fastsoftmax._kernels.abi cimport ELEMENT_BOOL, ELEMENT_INT32, ELEMENT_UINT32, Block

cnp.import_array()


cdef class MaskArgs:
    """The masks of a call, and the arrays that hold them."""

    cdef object row(self, tuple shape, Py_ssize_t i):
        """Return the mask of a row of logits of `shape` as bools, None if it has none."""
        return arguments.mask_of_row(self.array, self.numbers, shape, i)


cdef bint load_mask(const PackedRows *rows, Py_ssize_t row, uint32_t *bits) noexcept nogil:
    """Write the bits of a row's mask, if it has one; a `load_mask_fn`."""
    cdef const Masks *m = <const Masks *>rows.masks
    cdef Py_ssize_t offset = 0
    cdef int d
    cdef Block block
    if m.numbers != NULL:
        row = m.numbers[row]
        if row < 0:
            return False
    for d in range(m.ndim - 1, -1, -1):
        offset += row % m.shape[d] * m.strides[d]
        row //= m.shape[d]
    block.data = m.data + offset
    block.element = m.element
    block.swapped = m.swapped
    block.step = m.step
    block.row_step = 0
    rows.packing.load_bits(&block, m.count, (<const Plan *>rows.plan).n, bits)
    return True


cdef inline bint set_axes(Masks *m, cnp.ndarray a, const Plan *p) noexcept:
    """Take the axes that count the rows; return whether those of the masks broadcast to them."""
    cdef int d, own
    m.ndim = p.ndim - 1
    for d in range(p.ndim - 1):
        own = cnp.PyArray_NDIM(a) - p.ndim + d
        m.shape[d] = p.shape[d]
        m.strides[d] = 0
        if own >= 0 and cnp.PyArray_DIM(a, own) != 1:
            if cnp.PyArray_DIM(a, own) != p.shape[d]:
                return False
            m.strides[d] = cnp.PyArray_STRIDE(a, own)
    return cnp.PyArray_NDIM(a) <= p.ndim


cdef bint is_mask(object mask) except -1:
    """Return whether `mask` is an ndarray, no subclass, of bools or of words of 32 bits."""
    cdef int element
    if not cnp.PyArray_CheckExact(mask):
        return False
    element = element_of(mask)
    return element == ELEMENT_BOOL or element == ELEMENT_INT32 or element == ELEMENT_UINT32


cdef MaskArgs parse_mask(const Plan *p, object mask, object mask_rows):
    """Return the arguments `mask` and `mask_rows` for a begun plan, None for none; or raise."""
    cdef MaskArgs args
    cdef Masks *m
    cdef cnp.ndarray a
    cdef bint good
    if mask is None and mask_rows is None:
        return None
    args = MaskArgs.__new__(MaskArgs)
    m = &args.masks
    if mask is None:
        arguments.check(None, mask_rows, ())
    if not is_mask(mask):
        mask = arguments.as_mask(mask)
    args.array = a = mask
    m.data = <char *>cnp.PyArray_DATA(a)
    m.element = element_of(a)
    m.swapped = not cnp.PyArray_ISNOTSWAPPED(a)
    m.numbers = NULL
    m.count = m.step = 1
    if cnp.PyArray_NDIM(a) > 0:
        m.count = cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1)
        m.step = cnp.PyArray_STRIDE(a, cnp.PyArray_NDIM(a) - 1)
    good = m.count == p.n if m.element == ELEMENT_BOOL else cnp.PyArray_NDIM(a) > 0
    if mask_rows is None:
        good = good and set_axes(m, a, p)
    if not good or mask_rows is not None:
        shape = batch_shape_of(p)
        arguments.check(a, mask_rows, (*shape, p.n))
    if mask_rows is not None:
        args.numbers = arguments.numbers_of(mask_rows, cnp.PyArray_DIM(a, 0), p.rows)
        m.numbers = <const int64_t *>cnp.PyArray_DATA(args.numbers)
        m.ndim = 1
        m.shape[0] = cnp.PyArray_DIM(a, 0)
        m.strides[0] = cnp.PyArray_STRIDE(a, 0)
    return args
