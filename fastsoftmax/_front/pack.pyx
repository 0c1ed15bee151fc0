# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows of a planned array, of any layout, to contiguous copies and back.

The loops over elements are in the kernels' ``packing.pyx``; here are those over axes.
"""

from fastsoftmax._front.plan cimport Operand, Plan, place_of, size_of
from fastsoftmax._kernels.abi cimport Block, PackingKernels


cdef void pack_part(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t row, Py_ssize_t first, Py_ssize_t count, char *y, Direction direction,
) noexcept nogil:
    """Move `count` elements of a row, from number `first` on, as `pack` does whole rows."""
    cdef int last = max(p.inner_ndim - 1, 0)
    cdef Py_ssize_t n = p.inner_shape[last] if p.inner_ndim > 1 else p.n
    cdef Py_ssize_t offset = place_of(p, o, row)
    cdef Py_ssize_t mask_offset = place_of(p, mask, row) if mask != NULL else 0
    cdef Py_ssize_t step = o.inner[last] if p.inner_ndim > 0 else o.itemsize
    cdef Py_ssize_t mask_step = mask.inner[last] if mask != NULL and p.inner_ndim > 0 else 1
    cdef Py_ssize_t j, within, lines, width, at, mask_at
    cdef int d
    cdef Block block, mask_block
    while count > 0:
        j = first // n  # the line, along the last axis, and where in it
        within = first % n
        width = min(n - within, count)
        lines = 1
        if width == n and last > 0:
            lines = min(count // n, p.inner_shape[last - 1] - j % p.inner_shape[last - 1])
        at = offset + within * step
        mask_at = mask_offset + within * mask_step
        for d in range(last - 1, -1, -1):
            at += j % p.inner_shape[d] * o.inner[d]
            if mask != NULL:
                mask_at += j % p.inner_shape[d] * mask.inner[d]
            j //= p.inner_shape[d]
        block = block_at(o, at, step, o.inner[last - 1] if last > 0 else 0)
        if mask != NULL:
            mask_block = block_at(mask, mask_at, mask_step, mask.inner[last - 1] if last > 0 else 0)
        move(
            packing, &block, &mask_block if mask != NULL else NULL, lines, width, p.dtype, y,
            direction, p.masked,
        )
        y += lines * width * size_of(p.dtype)
        first += lines * width
        count -= lines * width


cdef void pack(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t first, Py_ssize_t rows, int dtype, char *y, Direction direction,
) noexcept nogil:
    """Move rows of an array to or from `y`, contiguous and of `dtype`.

    LOAD them into y, with -inf where `mask`, unless NULL, is False; STORE them from there; or where
    the array is a mask itself, FILL y with what masked entries have.
    """
    cdef int last = p.batch_ndim - 1
    cdef Py_ssize_t run, i, row_step = 0, mask_offset = 0, mask_step = 0
    cdef Py_ssize_t step = o.inner[0] if o.n > 1 and p.inner_ndim > 0 else o.itemsize
    cdef Block block, mask_block
    cdef Block *masking = NULL
    if o.n > 1 and p.inner_ndim > 1:
        for i in range(rows):
            pack_part(
                packing, p, o, mask, first + i, 0, p.n, y + i * p.n * size_of(dtype), direction
            )
        return
    while rows > 0:
        run = rows
        if last >= 0:
            row_step = o.batch[last]
            run = min(rows, p.batch_shape[last] - first % p.batch_shape[last])
        block = block_at(o, place_of(p, o, first), step, row_step)
        if mask != NULL:
            mask_offset = place_of(p, mask, first)
            mask_step = mask.batch[last] if last >= 0 else 0
            mask_block = block_at(
                mask, mask_offset, mask.inner[0] if p.inner_ndim > 0 else 1, mask_step
            )
            masking = &mask_block
        move(packing, &block, masking, run, o.n, dtype, y, direction, p.masked)
        y += run * o.n * size_of(dtype)
        first += run
        rows -= run
