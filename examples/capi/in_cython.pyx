# cython: language_level=3, boundscheck=False, wraparound=False
"""The share that a softmax gives to the largest score of each row, without a matrix of shares."""

from fastsoftmax cimport capi
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc


def confidence(const float[:, ::1] logits, float[::1] result, double temperature=1):
    """Write the largest probability of each row of `logits` into `result`."""
    cdef Py_ssize_t row, n = logits.shape[1]
    cdef int status = capi.OK
    cdef int64_t index
    cdef float *p = <float *>malloc(n * sizeof(float))
    if p == NULL:
        raise MemoryError
    with nogil:
        for row in range(logits.shape[0]):
            status = capi.softmax_float32(&logits[row, 0], p, 1, n, temperature)
            if status == capi.OK:
                status = capi.top_k_float32(p, &result[row], &index, 1, n, 1, True, True)
            if status != capi.OK:
                break
    free(p)
    if status == capi.NO_MEMORY:
        raise MemoryError
    if status != capi.OK:
        raise ValueError("temperature: allowed is 0 to inf")
