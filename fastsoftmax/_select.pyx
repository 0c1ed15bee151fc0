# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""top_k of contiguous rows. Built once per instruction set.

Formula
    The first k entries in the order: larger value, then lower index, NaN last.

Passes over memory
    One read of the row for block maxima, then at most 2k blocks of 32 elements (``_partial.pxd``);
    for k above n / 64 a few reads, by digits. The k entries that were picked are merge-sorted.

Precision policy
    Comparisons only. Smallest, half types and small integers reach these kernels as values that
    order the same way.

Source
    See ``_partial.pxd``.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels cimport SelectFunctions
from fastsoftmax._partial cimport Work, allocate, key, order_of, pick, release

cdef enum:
    RUN = 16  # shorter pieces are sorted by insertion
    CHUNK = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds


cdef void sort_picked(
    uint64_t *keys, Py_ssize_t *index, Py_ssize_t n, uint64_t *keys2, Py_ssize_t *index2
) noexcept nogil:
    """Sort by key, highest first; equal keys keep their order. The second arrays are scratch."""
    cdef Py_ssize_t start, i, j, place, a, b, middle, stop
    cdef Py_ssize_t width = RUN
    cdef uint64_t moved
    for start from 0 <= start < n by RUN:
        for i in range(start + 1, min(start + RUN, n)):
            moved = keys[i]
            place = index[i]
            j = i
            while j > start and keys[j - 1] < moved:
                keys[j] = keys[j - 1]
                index[j] = index[j - 1]
                j -= 1
            keys[j] = moved
            index[j] = place
    while width < n:
        start = 0
        while start < n:
            middle = min(start + width, n)
            stop = min(start + 2 * width, n)
            a = start
            b = middle
            for i in range(start, stop):
                if a < middle and (b >= stop or keys[a] >= keys[b]):
                    keys2[i] = keys[a]
                    index2[i] = index[a]
                    a += 1
                else:
                    keys2[i] = keys[b]
                    index2[i] = index[b]
                    b += 1
            start = stop
        for i in range(n):
            keys[i] = keys2[i]
            index[i] = index2[i]
        width *= 2


cdef void top_k_row(
    const key *x, Py_ssize_t n, Py_ssize_t k, bint sort, key *values, int64_t *indices, Work *work
) noexcept nogil:
    """Write the first k elements of a row and their places."""
    cdef Py_ssize_t i
    pick(x, n, k, <key *>work.maxima, False, work)
    if sort:
        for i in range(k):
            work.keys[i] = order_of(x[work.index[i]])
        sort_picked(
            work.keys, work.index, k, <uint64_t *>work.masses, <Py_ssize_t *>work.weight
        )
    for i in range(k):
        values[i] = x[work.index[i]]
        indices[i] = work.index[i]


cdef bint top_k(
    const key *x, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, bint sort,
    key *values, int64_t *indices,
) noexcept nogil:
    """Do the same for a few rows; tell if memory sufficed."""
    cdef Work work
    cdef Py_ssize_t i
    if not allocate(&work, n, k):
        return False
    for i in range(rows):
        top_k_row(x + i * n, n, k, sort, values + i * k, indices + i * k, &work)
    release(&work)
    return True


def top_k_rows(
    const key[:, ::1] x, key[:, ::1] values, int64_t[:, ::1] indices, bint sort
):
    """Write the k largest of each row of `x` and their indices, k being the width of `values`."""
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t k = values.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t stop, start = 0
    cdef bint done
    if k == 0:
        return
    while start < rows:
        stop = min(rows, start + max(1, CHUNK // n))
        with nogil:
            done = top_k(&x[start, 0], stop - start, n, k, sort, &values[start, 0], &indices[start, 0])
        if not done:
            raise MemoryError(f"no memory to select from rows of {n} elements")
        PyErr_CheckSignals()
        start = stop


cdef SelectFunctions functions
functions.top_k32 = top_k[float]
functions.top_k64 = top_k[double]

#: The same for `_front`, by pointer.
select_functions = PyCapsule_New(&functions, "fastsoftmax.SelectFunctions", NULL)
