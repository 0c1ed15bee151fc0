# cython: language_level=3
"""What `signals.pyx` gives to the other modules of the front."""

cdef int look() noexcept nogil
cdef int raise_if_stopped() except -1
cdef int look_for_signals(bint whether) noexcept nogil
