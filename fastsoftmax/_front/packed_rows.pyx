# cython: language_level=3, cdivision=True
"""Rows for kernels that find them one by one, or read them by parts: packed, or under masks."""

from fastsoftmax._front.execute cimport row_pointer
from fastsoftmax._front.masks cimport Masks, load_mask
from fastsoftmax._front.pack cimport LOAD, STORE, pack_part
from fastsoftmax._front.plan cimport PACKED, Operand, Plan
from fastsoftmax._kernels.abi cimport PackedRows, PackingKernels
from fastsoftmax._kernels.verify_abi cimport RowSource

cdef enum:
    MASKED_ROW = 1 << 11  # elements from which on a row that must be packed and has a mask is, too


cdef void load_part(
    const PackedRows *rows, Py_ssize_t row, Py_ssize_t start, Py_ssize_t n, void *part
) noexcept nogil:
    """Load a part of a row; a `move_part_fn`."""
    cdef const Plan *p = <const Plan *>rows.plan
    pack_part(
        rows.packing, p, &p.x, &p.mask if p.mask.data != NULL else NULL, row, start, n,
        <char *>part, LOAD,
    )


cdef void load_part_of_x2(
    const PackedRows *rows, Py_ssize_t row, Py_ssize_t start, Py_ssize_t n, void *part
) noexcept nogil:
    """Load a part of a row of the second input; a `move_part_fn`."""
    cdef const Plan *p = <const Plan *>rows.plan
    cdef const Operand *mask = &p.mask if p.masks_x2 and p.mask.data != NULL else NULL
    pack_part(rows.packing, p, &p.x2, mask, row, start, n, <char *>part, LOAD)


cdef void store_part(
    const PackedRows *rows, Py_ssize_t row, Py_ssize_t start, Py_ssize_t n, void *part
) noexcept nogil:
    """Store a part of a row's result; a `move_part_fn`."""
    cdef const Plan *p = <const Plan *>rows.plan
    pack_part(rows.packing, p, &p.y, NULL, row, start, n, <char *>part, STORE)


cdef void *place_part(const PackedRows *rows, Py_ssize_t row, Py_ssize_t start) noexcept nogil:
    """Return where a part of a row's result lies; a `place_part_fn`."""
    cdef const Plan *p = <const Plan *>rows.plan
    return row_pointer(p, &p.y, row) + start * p.y.itemsize


cdef bint is_packed(const Operand *o) noexcept:
    """Return whether there is such an array, and it must be packed."""
    return o.data != NULL and o.access == PACKED


cdef const PackedRows *long_rows(
    PackedRows *rows, const PackingKernels *packing, const Plan *p, bint any_row
) noexcept:
    """Do what `packed_rows` does for rows that are long."""
    if not (any_row or is_packed(&p.x) or is_packed(&p.x2) or is_packed(&p.y)):
        return NULL
    rows.load = load_part
    rows.load_x2 = load_part_of_x2
    rows.store = store_part
    rows.place = NULL
    if is_packed(&p.x) and p.y.data != NULL and p.y.access != PACKED:
        if p.y.data != p.x.data and p.y.data != p.x2.data:  # what is packed there spoils no input
            rows.place = place_part
    rows.load_mask = NULL
    rows.packing = packing
    rows.plan = p
    rows.workspace = &p.workspace
    return rows


cdef const void *locate_row(const void *plan, Py_ssize_t row) noexcept nogil:
    """Return where a row begins, NULL if it must be packed; a `locate_fn`."""
    cdef const Plan *p = <const Plan *>plan
    return NULL if p.x.access == PACKED else row_pointer(p, &p.x, row)


cdef const RowSource *row_source(
    RowSource *source, const PackingKernels *packing, const Plan *p, const Masks *masks
) noexcept:
    """Return `source`, set to the rows of a finished plan, under masks if that is not NULL."""
    source.locate = locate_row
    source.is_packed = p.x.access == PACKED
    source.packed.load = load_part
    source.packed.load_x2 = source.packed.store = NULL
    source.packed.place = NULL
    source.packed.load_mask = NULL
    if masks != NULL:
        source.packed.load_mask = load_mask
    source.packed.masks = masks
    source.packed.packing = packing
    source.packed.plan = p
    return source


cdef const PackedRows *rows_under(
    PackedRows *rows, const PackingKernels *packing, const Plan *p, const Masks *masks
) noexcept:
    """Return `rows`, set to those of a finished plan that has masks.

    Of rows that must be packed, what a mask shuts is not read, but where they are short.
    """
    if p.n < MASKED_ROW or long_rows(rows, packing, p, False) == NULL:
        rows.load = rows.load_x2 = rows.store = NULL
        rows.place = NULL
        rows.packing = packing
        rows.plan = p
    rows.load_mask = load_mask
    rows.masks = masks
    return rows
