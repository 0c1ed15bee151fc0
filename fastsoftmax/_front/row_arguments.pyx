# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Arguments with one value a row, temperatures and token ids, and which entries count."""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free

cimport numpy as cnp

import numpy as np

from .._arguments import arrays as arguments
from .._arguments import values

from fastsoftmax._front.arrays cimport as_int64, is_input, numbers_as_array
from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.pack cimport LOAD, pack, pack_part
from fastsoftmax._front.plan cimport (
    Plan,
    allocate,
    batch_shape_of,
    broadcast,
    set_operand,
    shape_of,
)
from fastsoftmax._front.values cimport is_behaved_c, number_within
from fastsoftmax._kernels.abi cimport FLOAT64, PackingKernels

cnp.import_array()

cdef object Int64 = np.int64

ctypedef fused real:
    float
    double

cdef enum:
    COUNTED = 4096  # entries of a mask that are counted at once


cdef object set_mask(Plan *p, cnp.ndarray x, object where):
    """Plan the argument `where`, for the input x; return it as an array, or None."""
    if where is None:
        return None
    if not (
        cnp.PyArray_CheckExact(where) and cnp.PyArray_TYPE(where) == cnp.NPY_BOOL
        and broadcast(&p.mask, where, p, False)
    ):
        where = arguments.mask(where, shape_of(p, x))
        broadcast(&p.mask, where, p, False)
    set_operand(&p.mask, where)
    return where


cdef object set_temperature(Plan *p, object temperature, double *one):
    """Take an argument `temperature`: a number into `one`, or one a row into a begun plan.

    Return what must live as long as the plan. Raise where it is none; whether those of an array
    are, `row_temperatures` tells.
    """
    cdef uint64_t environment
    if number_within(temperature, INFINITY, one):
        return None
    temperature = numbers_as_array(temperature)
    if not (
        p.rows > 0 and p.n > 0  # else no one looks at them
        and is_input(temperature) and cnp.PyArray_TYPE(temperature) != cnp.NPY_BOOL
        and broadcast(&p.t, temperature, p, True)
    ):
        shape = batch_shape_of(p)
        environment = enter_environment()
        try:
            temperature = values.temperatures(temperature, shape)
        finally:
            leave_environment(environment)
        if temperature.size != 1:
            temperature = temperature.reshape(shape)
        broadcast(&p.t, temperature, p, True)
    set_operand(&p.t, temperature)
    return temperature


cdef double *row_temperatures(const Plan *p, const PackingKernels *packing) except? NULL:
    """Return the temperatures of a finished plan, one a row, from malloc; NULL if it has none."""
    cdef double *each
    cdef Py_ssize_t i, bad = -1
    cdef uint64_t environment
    if p.t.data == NULL or p.rows == 0:
        return NULL
    each = <double *>allocate(p.rows, sizeof(double))
    if each == NULL:
        raise MemoryError(f"no memory for {p.rows} temperatures")
    environment = enter_environment()
    pack(packing, p, &p.t, NULL, 0, p.rows, FLOAT64, <char *>each, LOAD)
    for i in range(p.rows):
        if not each[i] >= 0:
            bad = i
            break
    leave_environment(environment)
    if bad >= 0:
        number = each[bad]
        free(each)
        raise ValueError(f"temperature is {number}; allowed is 0 to inf")
    return each


cdef double *row_counts(const Plan *p, const PackingKernels *packing) except NULL:
    """Return how many entries the mask of a finished plan leaves of each row, from malloc."""
    cdef double scratch[COUNTED]
    cdef double *counts = <double *>allocate(p.rows, sizeof(double))
    cdef Py_ssize_t rows = max(<Py_ssize_t>1, COUNTED // max(p.n, <Py_ssize_t>1))
    cdef Py_ssize_t first, start, i, r, m
    cdef uint64_t environment
    if counts == NULL:
        raise MemoryError(f"no memory for {p.rows} counts")
    with nogil:
        environment = enter_environment()
        for first from 0 <= first < p.rows by rows:
            m = min(rows, p.rows - first)
            for r in range(m):
                counts[first + r] = 0
            for start from 0 <= start < p.n by COUNTED:
                i = min(<Py_ssize_t>COUNTED, p.n - start)
                if p.n <= COUNTED:
                    pack(
                        packing, p, &p.mask, NULL, first, m, p.dtype, <char *>scratch, LOAD
                    )
                else:
                    pack_part(packing, p, &p.mask, NULL, first, start, i, <char *>scratch, LOAD)
                for r in range(m):
                    if p.dtype == FLOAT64:
                        counts[first + r] += ones_of(scratch + r * i, i)
                    else:
                        counts[first + r] += ones_of(<const float *>scratch + r * i, i)
        leave_environment(environment)
    return counts


cdef inline Py_ssize_t ones_of(const real *x, Py_ssize_t n) noexcept nogil:
    """Return how many of n numbers, 0 or 1, are 1."""
    cdef Py_ssize_t j
    cdef int count = 0
    for j in range(n):
        count += x[j] != 0
    return count


cdef cnp.ndarray checked_ids(object ids, const Plan *p):
    """Return the argument `ids` as int64, C-contiguous: one, or a list, for each row of the plan.

    Raise where one is no id of an element of a row.
    """
    cdef cnp.ndarray a
    cdef const int64_t *id
    cdef int d, ndim = p.ndim - 1
    cdef Py_ssize_t i
    cdef bint good
    if type(ids) is int and ndim == 0 and 0 <= ids < p.n:
        a = cnp.PyArray_EMPTY(0, NULL, cnp.NPY_INT64, 0)
        (<int64_t *>cnp.PyArray_DATA(a))[0] = ids
        return a
    if type(ids) is Int64:
        ids = np.asarray(ids)
    ids = as_int64(numbers_as_array(ids))
    good = (
        is_behaved_c(ids) and cnp.PyArray_TYPE(ids) == cnp.NPY_INT64
        and ndim <= cnp.PyArray_NDIM(ids) <= ndim + 1
    )
    if good:
        a = ids
        for d in range(ndim):
            good = good and cnp.PyArray_DIM(a, d) == p.shape[d]
        id = <const int64_t *>cnp.PyArray_DATA(a)
        for i in range(cnp.PyArray_SIZE(a) if good else 0):
            good &= 0 <= id[i] < p.n
    if not good:
        a = values.token_ids(ids, batch_shape_of(p), p.n)
    return a
