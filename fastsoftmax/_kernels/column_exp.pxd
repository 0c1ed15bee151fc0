# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The exponentials of a panel of columns by a pivot, made of the array while more is fetched."""

from fastsoftmax._kernels.abi cimport SOFTMAX, Op
from fastsoftmax._kernels.batch_scale cimport RATE
from fastsoftmax._kernels.column_io cimport (
    VECTOR,
    Panel,
    copy_row,
    leaps,
    load_tiles,
    readable_row,
    round_to_vector,
    row_ahead,
)
from fastsoftmax._kernels.columns cimport (
    FACTOR,
    HIGHEST,
    PANEL_COLUMNS,
    PLACE,
    SPARE,
    SUM,
    exclude_max_of_few,
    exp_max_row,
    exp_row,
    split_max_of,
)
from fastsoftmax._kernels.exp_blocks cimport prefetch_lines
from fastsoftmax._kernels.exp_scale cimport Clamped, ClampedPow2, Unclamped, exp_variant
from fastsoftmax._kernels.types cimport loop_void, out_ptr, out_ptr32, out_ptr64, real


cdef inline void exp_flat(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e, real *v,
    const real *exp_scale, exp_variant variant,
) noexcept nogil:
    """Write the exponentials of `rows` rows of the panel at `x`, from row i on, to `e`.

    Rows follow each other without a gap, in scratch as in the array.
    """
    cdef Py_ssize_t first = i * p.stride
    cdef Py_ssize_t elements = rows * p.stride
    cdef Py_ssize_t whole = round_to_vector(elements)
    if first + whole > p.readable:
        whole -= VECTOR
    exp_row(x + first, whole, e, exp_scale, variant)
    if whole < elements:
        copy_row(x + first + whole, elements - whole, <out_ptr>(v + SPARE * PANEL_COLUMNS))
        exp_row(<const real *>v + SPARE * PANEL_COLUMNS, VECTOR, e + whole, exp_scale, variant)


cdef inline loop_void exp_rows(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e, out_ptr kept, real *v,
    const real *exp_scale, exp_variant variant,
) noexcept nogil:
    """Write the exponentials of `rows` rows of the panel at `x`, from row i on, to `e`.

    `kept` is scratch for the rows.
    """
    cdef Py_ssize_t r
    cdef Py_ssize_t pitch = p.pitch
    if p.tiles > 1:
        load_tiles(x, p, i, rows, kept)
        for r in range(rows):
            exp_row(<const real *>kept + r * pitch, p.width, e + r * pitch, exp_scale, variant)
    elif pitch == p.stride == p.columns:
        exp_flat(x, p, i, rows, e, v, exp_scale, variant)
    else:
        for r in range(rows):  # of a function that did nothing but prefetch gcc would drop the call
            if leaps(p):
                prefetch_lines(row_ahead(x, p, i + r), p.columns)
            exp_row(
                readable_row(x, p, i + r, <out_ptr>(v + SPARE * PANEL_COLUMNS)), p.width,
                e + r * pitch, exp_scale, variant,
            )


cdef inline loop_void exp_max_rows(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e, out_ptr kept, real *v,
    const real *exp_scale, exp_variant variant,
) noexcept nogil:
    """Write the exponentials of `rows` rows of the panel at `x`, from row i on, to `e`.

    The rows themselves go to `kept`. The maxima so far and their places are taken along.
    """
    cdef Py_ssize_t r
    cdef Py_ssize_t pitch = p.pitch
    cdef out_ptr highest = <out_ptr>(v + HIGHEST * PANEL_COLUMNS)
    cdef out_ptr place = <out_ptr>(v + PLACE * PANEL_COLUMNS)
    if p.tiles > 1:
        load_tiles(x, p, i, rows, kept)
        for r in range(rows):
            exp_max_row(
                <const real *>kept + r * pitch, p.width, e + r * pitch, e, highest, place, i + r,
                exp_scale, variant, False,
            )
    else:
        for r in range(rows):
            if leaps(p):
                prefetch_lines(row_ahead(x, p, i + r), p.columns)
            exp_max_row(
                readable_row(x, p, i + r, <out_ptr>(v + SPARE * PANEL_COLUMNS)), p.width,
                e + r * pitch, kept + r * pitch, highest, place, i + r, exp_scale, variant, True,
            )


cdef inline void exp_step(
    const real *x, const Panel *p, Py_ssize_t i, Py_ssize_t rows, out_ptr e, out_ptr kept, real *v,
    const real *exp_scale, Op op,
) noexcept nogil:
    """Call `exp_rows`, or for logarithms `exp_max_rows`, for what `exp_scale` says."""
    if op == SOFTMAX:
        if exp_scale[RATE] != 0:
            exp_rows(x, p, i, rows, e, kept, v, exp_scale, <ClampedPow2>0)
        else:
            exp_rows(x, p, i, rows, e, kept, v, exp_scale, <Clamped>0)
    elif exp_scale[RATE] != 0:
        exp_max_rows(x, p, i, rows, e, kept, v, exp_scale, <ClampedPow2>0)
    else:
        exp_max_rows(x, p, i, rows, e, kept, v, exp_scale, <Unclamped>0)


cdef inline bint reads_rows_in_place(const Panel *p) noexcept nogil:
    """Return whether whole vectors of all rows of a panel can be read where they are."""
    return p.tiles == 1 and (p.n - 1) * p.stride + p.width <= p.readable


cdef inline bint exp_few_rows(
    const real *x, const Panel *p, out_ptr e, out_ptr kept, real *v, double *s,
    const real *exp_scale,
) noexcept nogil:
    """Write the exponentials of the panel at `x`, of n < MIN_PLACED_ROWS rows, and its maxima.

    The largest element's own exponential goes to FACTOR, and is 0 in `e`; or the sums without it
    are written, too, and True returned. Rows are copied to `kept` unless they can be read in place.
    """
    cdef out_ptr highest = <out_ptr>(v + HIGHEST * PANEL_COLUMNS)
    cdef out_ptr max_e = <out_ptr>(v + FACTOR * PANEL_COLUMNS)
    cdef out_ptr64 sums = <out_ptr64>(s + SUM * PANEL_COLUMNS)
    cdef const real *rows = x
    cdef Py_ssize_t r
    cdef Py_ssize_t pitch = p.stride
    if not reads_rows_in_place(p):
        rows = <const real *>kept
        pitch = p.pitch
        if p.tiles > 1:
            load_tiles(x, p, 0, p.n, kept)
        else:
            for r in range(p.n):
                copy_row(x + r * p.stride, p.columns, kept + r * pitch)
    for r in range(p.n):
        if exp_scale[RATE] != 0:
            exp_row(rows + r * pitch, p.width, e + r * p.pitch, exp_scale, <ClampedPow2>0)
        else:
            exp_row(rows + r * pitch, p.width, e + r * p.pitch, exp_scale, <Unclamped>0)
    if real is float and out_ptr is out_ptr32:
        if p.n == 2:
            split_max_of(rows, pitch, 2, p.width, <const float *>e, highest, max_e, sums)
            return True
        if p.n == 3:
            split_max_of(rows, pitch, 3, p.width, <const float *>e, highest, max_e, sums)
            return True
    exclude_max_of_few(rows, pitch, p.n, p.width, e, highest, max_e)
    return False
