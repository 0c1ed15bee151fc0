# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The uniforms of a call: from a generator, or of each row's seed and position alone."""

import os

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer

import numpy as np

from .._arguments import values

from fastsoftmax._front.plan cimport Plan, batch_shape_of
from fastsoftmax._front.values cimport is_behaved_c
from fastsoftmax._kernels.philox cimport philox_rows

cnp.import_array()

cdef extern from "numpy/random/bitgen.h":
    ctypedef struct bitgen_t:
        void *state
        double (*next_double)(void *state) noexcept nogil

cdef enum:
    MAX_FRESH = 256  # numbers: from there on a new generator takes less time, 20 us at first

#: numpy.random's, once there is one: importing numpy.random takes as long as importing all of us.
cdef object Generator = None


cdef bint parse_words(
    object value, const Plan *p, uint64_t *one, const uint64_t **word, Py_ssize_t *stride
) except -1:
    """Take an ordinary seed or position, or one a row; return whether it is that.

    An int of 64 bits goes into `one`, an array of the rows' shape stays where it is; negative
    numbers are their two's complement.
    """
    cdef int d
    word[0] = one
    stride[0] = 0
    if type(value) is int:
        if not -(1 << 63) <= value < 1 << 64:
            return False
        one[0] = value if value >= 0 else <uint64_t><int64_t>value
        return True
    if not (
        is_behaved_c(value)
        and (cnp.PyArray_TYPE(value) == cnp.NPY_INT64 or cnp.PyArray_TYPE(value) == cnp.NPY_UINT64)
        and cnp.PyArray_NDIM(value) == p.ndim - 1
    ):
        return False
    for d in range(p.ndim - 1):
        if cnp.PyArray_DIM(value, d) != p.shape[d]:
            return False
    word[0] = <const uint64_t *>cnp.PyArray_DATA(value)
    stride[0] = 1
    return True


cdef object philox_array(
    const uint64_t[::1] seed, const uint64_t[::1] position, Py_ssize_t m, bint apart
):
    """Return m uniforms for each row, of a seed and a position for each."""
    u = np.empty((seed.shape[0], m))
    cdef double[:, ::1] target = u
    if u.size:
        philox_rows(&seed[0], 1, &position[0], 1, seed.shape[0], m, apart, &target[0, 0])
    return u


def philox(seed, position, m):
    """Return m uniforms for each row; those behind the first four are of the positions behind."""
    return philox_array(seed, position, m, False)


def philox_apart(seed, position, m):
    """Return m uniforms for each row, all of its own position."""
    return philox_array(seed, position, m, True)


cdef int fresh_uniforms(Py_ssize_t n, double *u) except -1:
    """Write n uniforms, each of 64 bits of the system's entropy, as a generator makes them."""
    cdef uint64_t word
    cdef Py_ssize_t i
    cdef const char *source
    cdef bytes entropy = os.urandom(n * sizeof(uint64_t))
    source = entropy
    for i in range(n):
        memcpy(&word, source + i * sizeof(uint64_t), sizeof(uint64_t))
        u[i] = <double>(word >> 11) * 2.0**-53
    return 0


cdef object uniforms_for(const Plan *p, Py_ssize_t m, rng, seed, position, double *one):
    """Return m uniforms for each row, in an array or, if it is a single one, in `one`."""
    return uniforms_of(p, m, rng, seed, position, one, False)


cdef object independent_uniforms(const Plan *p, Py_ssize_t m, rng, seed, position, double *one):
    """Do as `uniforms_for`, but those of a seed are independent at all positions, for any m."""
    return uniforms_of(p, m, rng, seed, position, one, True)


cdef object uniforms_of(
    const Plan *p, Py_ssize_t m, rng, seed, position, double *one, bint apart
):
    """Do what `uniforms_for` and `independent_uniforms` do."""
    cdef uint64_t s, t
    cdef const uint64_t *seeds
    cdef const uint64_t *positions
    cdef Py_ssize_t seed_stride, position_stride
    cdef bitgen_t *bits
    cdef cnp.ndarray u
    cdef cnp.npy_intp size
    global Generator
    if rng is not None and Generator is None:
        Generator = np.random.Generator
    if type(rng) is Generator and seed is None and position is None:
        if p.rows * m != 1:
            return rng.random(p.rows * m)
        source = rng.bit_generator  # as `random` does it, in half the time
        with source.lock:
            bits = <bitgen_t *>PyCapsule_GetPointer(source.capsule, "BitGenerator")
            one[0] = bits.next_double(bits.state)
        return None
    if rng is None and seed is None and position is None and 0 < p.rows * m <= MAX_FRESH:
        if p.rows * m == 1:
            fresh_uniforms(1, one)
            return None
        size = p.rows * m
        u = cnp.PyArray_EMPTY(1, &size, cnp.NPY_FLOAT64, 0)
        fresh_uniforms(size, <double *>cnp.PyArray_DATA(u))
        return u
    if (
        rng is None
        and parse_words(seed, p, &s, &seeds, &seed_stride)
        and parse_words(position, p, &t, &positions, &position_stride)
    ):
        if p.rows * m == 1:
            philox_rows(seeds, seed_stride, positions, position_stride, 1, 1, apart, one)
            return None
        size = p.rows * m
        u = cnp.PyArray_EMPTY(1, &size, cnp.NPY_FLOAT64, 0)  # np.empty keeps a reference to a dtype
        philox_rows(
            seeds, seed_stride, positions, position_stride, p.rows, m, apart,
            <double *>cnp.PyArray_DATA(u),
        )
        return u
    given = values.uniforms(
        rng, seed, position, batch_shape_of(p), m, philox_apart if apart else philox
    )
    return np.require(given, dtype=np.float64, requirements=["C", "A"])
