# cython: language_level=3, cdivision=True
"""Long rows that must be packed, for kernels that read a row part by part."""

from fastsoftmax._front.pack cimport LOAD, STORE, pack_part
from fastsoftmax._front.plan cimport PACKED, Plan
from fastsoftmax._kernels.abi cimport PackedRows, PackingKernels

cdef enum:
    LONG_ROW = 1 << 20  # elements from which on a row is packed by parts


cdef void load_part(
    const PackedRows *rows, Py_ssize_t row, Py_ssize_t start, Py_ssize_t n, void *part
) noexcept nogil:
    """Load a part of a row; a `move_part_fn`."""
    cdef const Plan *p = <const Plan *>rows.plan
    pack_part(rows.packing, p, &p.x, NULL, row, start, n, <char *>part, LOAD)


cdef void store_part(
    const PackedRows *rows, Py_ssize_t row, Py_ssize_t start, Py_ssize_t n, void *part
) noexcept nogil:
    """Store a part of a row's result; a `move_part_fn`."""
    cdef const Plan *p = <const Plan *>rows.plan
    pack_part(rows.packing, p, &p.y, NULL, row, start, n, <char *>part, STORE)


cdef const PackedRows *packed_rows(
    PackedRows *rows, const PackingKernels *packing, const Plan *p
) noexcept:
    """Return `rows`, set to those of a plan, if a kernel is to read them by parts; else NULL.

    For a plan that is finished. The kernel is to run without packing then.
    """
    if p.n < LONG_ROW or p.x.access != PACKED and (p.y.data == NULL or p.y.access != PACKED):
        return NULL
    rows.load = load_part
    rows.store = store_part
    rows.packing = packing
    rows.plan = p
    return rows
