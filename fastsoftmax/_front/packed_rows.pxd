# cython: language_level=3
"""What `packed_rows.pyx` gives to the other modules of the front."""

from fastsoftmax._front.masks cimport Masks
from fastsoftmax._front.plan cimport Plan
from fastsoftmax._kernels.abi cimport LONG_ROW, PackedRows, PackingKernels
from fastsoftmax._kernels.verify_abi cimport RowSource


cdef const PackedRows *long_rows(
    PackedRows *rows, const PackingKernels *packing, const Plan *p, bint any_row
) noexcept
cdef const RowSource *row_source(
    RowSource *source, const PackingKernels *packing, const Plan *p, const Masks *masks
) noexcept


cdef const PackedRows *rows_under(
    PackedRows *rows, const PackingKernels *packing, const Plan *p, const Masks *masks
) noexcept


cdef inline const PackedRows *packed_rows(
    PackedRows *rows, const PackingKernels *packing, const Plan *p, bint any_row=False
) noexcept:
    """Return `rows`, set to those of a plan, if a kernel is to read them by parts; else NULL.

    For a plan that is finished. Those are long rows that must be packed, or `any_row` that is long.
    The kernel is to run without packing then.
    """
    return long_rows(rows, packing, p, any_row) if p.n >= LONG_ROW else NULL


cdef inline const PackedRows *masked_rows(
    PackedRows *rows, const PackingKernels *packing, const Plan *p, const Masks *masks
) noexcept:
    """Return what `packed_rows` does, but `rows` also where there are `masks`, NULL for none.

    The kernel is to run with what `packing_for` returns then.
    """
    return packed_rows(rows, packing, p) if masks == NULL else rows_under(rows, packing, p, masks)


cdef inline const PackingKernels *packing_for(
    const PackedRows *rows, const PackingKernels *packing
) noexcept nogil:
    """Return what `run_rows` is to pack with: nothing if the kernel reads `rows` by parts."""
    return packing if rows == NULL or rows.load == NULL else NULL
