# cython: language_level=3
"""What `statistics.pyx` gives to the other modules of the front."""

cimport numpy as cnp

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport PackingKernels
from fastsoftmax._kernels.statistics_abi cimport StatisticCall, StatisticsKernels


cdef class StatisticsFunctions:
    cdef readonly str NAME
    cdef StatisticsKernels kernels
    cdef PackingKernels packing

    cdef object reduce(
        self, int statistic, x, str name, x2, str name2, axis, temperature, where, keepdims,
        bint with_sign, workers,
    )
    cdef int run(self, Plan *p, StatisticCall *call, double temperature, workers) except -1
    cdef object rounded(self, const Plan *p, cnp.ndarray x, cnp.ndarray results)
