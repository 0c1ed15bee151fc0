# cython: language_level=3
"""What `history.pyx` gives to the other modules of the front."""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.history cimport HistoryRow
from fastsoftmax._kernels.history_queries cimport HistoryScratch


cdef class History:
    cdef HistoryRow *row  # of each row, `rows` of them
    cdef readonly Py_ssize_t rows
    cdef HistoryScratch scratch  # of the methods here; a worker has one of its own
    cdef Py_ssize_t readers  # calls that read the rows without the GIL

    cdef int borrow(self) except -1
    cdef int give_back(self) except -1
    cdef int _append(self, Py_ssize_t row, int64_t id) except -1
    cdef int take(self, const int64_t *id, Py_ssize_t m) except -1
    cdef int begin(self, Py_ssize_t row, object prompt) except -1
