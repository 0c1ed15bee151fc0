# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows of a planned array, of any layout, to contiguous copies and back.

The loops over elements are in the kernels' ``packing.pyx``; here are those over axes.
"""

from fastsoftmax._front.plan cimport Operand, Plan, place_of
from fastsoftmax._kernels.abi cimport FLOAT32, Block, PackingKernels

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
        offset = place_of(p, o, first)
        if last >= 0:
            row_step = o.batch[last]
            run = min(rows, p.batch_shape[last] - first % p.batch_shape[last])
        if mask != NULL:
            mask_offset = place_of(p, mask, first)
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
