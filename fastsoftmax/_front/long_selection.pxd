# cython: language_level=3
"""What `long_selection.pyx` gives to the other modules of the front."""

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport PackingKernels, TopKCall, rows_fn


cdef bint run_packed_top_k(
    const PackingKernels *packing, rows_fn kernel, const TopKCall *call, Plan *p, double work,
    object workers,
) except -1
