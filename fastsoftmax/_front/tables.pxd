# cython: language_level=3
"""The tables of kernels that modules of one instruction set offer, copied by their type."""

from cpython.pycapsule cimport PyCapsule_GetPointer

from fastsoftmax._front.signals cimport look
from fastsoftmax._kernels.abi cimport (
    BackwardKernels,
    LossKernels,
    PackingKernels,
    SamplingKernels,
    SelectionKernels,
    SoftmaxKernels,
)
from fastsoftmax._kernels.statistics_abi cimport StatisticsKernels

ctypedef fused Table:
    BackwardKernels
    LossKernels
    PackingKernels
    SamplingKernels
    SelectionKernels
    SoftmaxKernels
    StatisticsKernels


cdef inline int copy_table(capsule, Table *table) except -1:
    """Copy the table in the capsule ``kernels`` of a module of kernels, named after its type."""
    cdef const char *name
    if Table is BackwardKernels:
        name = "fastsoftmax.BackwardKernels"
    elif Table is LossKernels:
        name = "fastsoftmax.LossKernels"
    elif Table is PackingKernels:
        name = "fastsoftmax.PackingKernels"
    elif Table is SamplingKernels:
        name = "fastsoftmax.SamplingKernels"
    elif Table is SelectionKernels:
        name = "fastsoftmax.SelectionKernels"
    elif Table is SoftmaxKernels:
        name = "fastsoftmax.SoftmaxKernels"
    else:
        name = "fastsoftmax.StatisticsKernels"
    table[0] = (<const Table *>PyCapsule_GetPointer(capsule, name))[0]
    if Table is SamplingKernels or Table is SelectionKernels:
        table.look[0] = look
    return 0
