# cython: language_level=3
"""The tables of kernels that sampling, chains and verification share."""

from cpython.pycapsule cimport PyCapsule_GetPointer

from fastsoftmax._front.signals cimport look
from fastsoftmax._kernels.abi cimport PackingKernels, SamplingKernels


cdef inline int copy_tables(
    sample, packing, SamplingKernels *kernels, PackingKernels *pack
) except -1:
    """Copy the tables of the modules ``sample`` and ``packing`` of one instruction set."""
    kernels[0] = (
        <SamplingKernels *>PyCapsule_GetPointer(sample.kernels, "fastsoftmax.SamplingKernels")
    )[0]
    kernels.look[0] = look
    pack[0] = (
        <PackingKernels *>PyCapsule_GetPointer(packing.kernels, "fastsoftmax.PackingKernels")
    )[0]
    return 0
