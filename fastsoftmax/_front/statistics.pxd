# cython: language_level=3
"""What `statistics.pyx` gives to the other modules of the front."""

cimport numpy as cnp

from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport PackingKernels, rows_fn
from fastsoftmax._kernels.statistics_abi cimport RowStatsCall, StatisticRows, StatisticsKernels


cdef enum RowSum:  # a number for each row
    LOG_SUM_EXP  # of x / T
    LOG_MEAN_EXP
    ENTROPY  # of softmax(x / T)


cdef class StatisticsFunctions:
    cdef readonly str NAME
    cdef StatisticsKernels kernels
    cdef PackingKernels packing

    cdef object sums(self, RowSum wanted, x, str name, axis, temperature, where, keepdims, workers)
    cdef object pair(
        self, int statistic, x, str name, x2, str name2, axis, temperature, where, keepdims,
        bint with_sign, workers,
    )
    cdef int run(
        self, Plan *p, rows_fn kernel, void *call, StatisticRows *rows, double temperature,
        bint narrow, workers, RowStatsCall *means=*,
    ) except -1
    cdef object finished(self, const Plan *p, cnp.ndarray x, cnp.ndarray y)
    cdef cnp.ndarray of_rows(self, const Plan *p, bint asked, int number, double absent)
    cdef object result(self, const Plan *p, cnp.ndarray x, cnp.ndarray y)
