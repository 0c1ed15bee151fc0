# cython: language_level=3
"""What `masks.pyx` gives to the other modules of the front."""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t

from fastsoftmax._front.plan cimport MAX_AXES, Plan
from fastsoftmax._kernels.abi cimport PackedRows

cdef struct Masks:  # of ids, for the rows of a plan
    char *data
    int element  # Element
    bint swapped
    Py_ssize_t count  # entries of a mask: bools, or words of bits
    Py_ssize_t step  # bytes from one to the next
    const int64_t *numbers  # which mask each row has, -1 for none; NULL: those of its place
    int ndim  # axes that count the rows, or the masks
    Py_ssize_t shape[MAX_AXES]
    Py_ssize_t strides[MAX_AXES]

cdef class MaskArgs:
    cdef Masks masks
    cdef cnp.ndarray array, numbers
    cdef object row(self, tuple shape, Py_ssize_t i)

cdef MaskArgs parse_mask(const Plan *p, object mask, object mask_rows)
cdef bint load_mask(const PackedRows *rows, Py_ssize_t row, uint32_t *bits) noexcept nogil


cdef inline const Masks *masks_of(MaskArgs args) noexcept:
    """Return the masks of a call, NULL for none."""
    return NULL if args is None else &args.masks
