# cython: language_level=3
"""What `packed_rows.pyx` gives to the other modules of the front."""

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport PackedRows, PackingKernels


cdef const PackedRows *packed_rows(
    PackedRows *rows, const PackingKernels *packing, const Plan *p
) noexcept


cdef inline const PackingKernels *packing_for(
    const PackedRows *rows, const PackingKernels *packing
) noexcept nogil:
    """Return what `run_rows` is to pack with: nothing if the kernel reads `rows` by parts."""
    return packing if rows == NULL else NULL
