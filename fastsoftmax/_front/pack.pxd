# cython: language_level=3
"""What `pack.pyx` gives to the other modules of the front."""

from fastsoftmax._front.plan cimport Operand, Plan
from fastsoftmax._kernels.abi cimport Block, PackingKernels

cdef enum Direction:
    LOAD
    STORE
    FILL


cdef void pack_part(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t row, Py_ssize_t first, Py_ssize_t count, char *y, Direction direction,
) noexcept nogil
cdef void pack(
    const PackingKernels *packing, const Plan *p, const Operand *o, const Operand *mask,
    Py_ssize_t first, Py_ssize_t rows, int dtype, char *y, Direction direction,
) noexcept nogil


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
    Py_ssize_t n, int dtype, char *y, Direction direction, double masked,
) noexcept nogil:
    """Move a block as `pack` says; where it fills, x is that of the mask."""
    if direction == LOAD:
        packing.load(x, mask, rows, n, dtype, y)
    elif direction == STORE:
        packing.store(x, rows, n, dtype, y)
    else:
        packing.fill(x, rows, n, dtype, masked, y)
