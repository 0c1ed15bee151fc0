# cython: language_level=3
"""What `pack.pyx` gives to the other modules of the front."""

from fastsoftmax._front.plan cimport Operand, Plan
from fastsoftmax._kernels.abi cimport PackingKernels

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
