# cython: language_level=3
"""What `row_arguments.pyx` gives to the other modules of the front."""

cimport numpy as cnp

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport PackingKernels

cdef object set_mask(Plan *p, cnp.ndarray x, object where)
cdef object set_temperature(Plan *p, object temperature, double *one)
cdef double *row_temperatures(const Plan *p, const PackingKernels *packing) except? NULL
cdef double *row_counts(const Plan *p, const PackingKernels *packing) except NULL
cdef cnp.ndarray checked_ids(object ids, const Plan *p)
