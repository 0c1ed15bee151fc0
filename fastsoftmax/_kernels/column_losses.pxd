# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cross entropy along an axis that is not the last: columns short enough for a batch in planes.

A plane of a batch is a row of neighbouring columns already: where rows are transposed, columns are
copied.
"""

from libc.string cimport memset

from fastsoftmax._kernels.abi cimport CrossEntropyCall
from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS, SCALE_FIELDS
from fastsoftmax._kernels.column_io cimport copy_row
from fastsoftmax._kernels.exp_blocks cimport prefetch_lines
from fastsoftmax._kernels.labels cimport Labels, set_labels
from fastsoftmax._kernels.loss_batch cimport BATCH_DOUBLES, RowTerms, set_loss_scales
from fastsoftmax._kernels.loss_row cimport losses_sequential
from fastsoftmax._kernels.reserve cimport borrow, give_back
from fastsoftmax._kernels.short_losses cimport LABEL_ROWS, loss_of_planes
from fastsoftmax._kernels.targets cimport read_targets
from fastsoftmax._kernels.transpose cimport padded_rows
from fastsoftmax._kernels.types cimport noinline_void, out_ptr32, out_ptr64, real


cdef enum:
    BATCHES = 16  # that are moved together: memory is slow in short segments


cdef inline Py_ssize_t spacing(Py_ssize_t n) noexcept nogil:
    """Return how many elements of scratch lie from a batch to the next; no power of two."""
    return n * BATCH_ROWS + 16


cdef inline void copy_segment(const real *x, Py_ssize_t columns, real *e) noexcept nogil:
    """Copy x[0:columns] to e."""
    if real is float:
        if columns == BATCH_ROWS:
            copy_row(x, BATCH_ROWS, <out_ptr32>e)
        else:
            copy_row(x, columns, <out_ptr32>e)
    else:
        copy_row(x, columns, <out_ptr64>e)


cdef inline noinline_void move_planes(
    real *x, Py_ssize_t n, Py_ssize_t inner, Py_ssize_t first, Py_ssize_t columns, Py_ssize_t size,
    real *soa, bint load,
) noexcept nogil:
    """Copy columns of (outer, n, inner), from number `first` on, to planes, or if not `load` back.

    A batch has `size` columns.
    """
    cdef Py_ssize_t j, c, k, m, within, r = 0
    cdef real *row
    cdef real *plane
    while r < columns:
        within = (first + r) % inner
        m = min(inner - within, columns - r)
        for j in range(n):
            row = x + (first + r - within) * n + within + j * inner
            c = r
            while c < r + m:
                k = min(size - c % size, r + m - c)
                plane = soa + c // size * spacing(n) + j * BATCH_ROWS + c % size
                if load:
                    copy_segment(<const real *>row + c - r, k, plane)
                else:
                    if j + 1 < n:  # lines that are written must be there first
                        prefetch_lines(<const real *>row + inner + c - r, k)
                    copy_segment(<const real *>plane, k, row + c - r)
                c += k
        r += m


cdef inline void fill_strips(
    real *soa, Py_ssize_t n, Py_ssize_t columns
) noexcept nogil:
    """Repeat the first of some columns in planes until they are whole strips."""
    cdef Py_ssize_t j, r
    for j in range(n if padded_rows(columns) > columns else 0):
        for r in range(columns, padded_rows(columns)):
            soa[j * BATCH_ROWS + r] = soa[j * BATCH_ROWS]


cdef inline noinline_void losses_one_by_one(
    const Labels *labels, real *soa, bint has_labels, Py_ssize_t columns, Py_ssize_t n,
    const Py_ssize_t *target, bint with_grad, double *losses,
) noexcept nogil:
    """Do what `loss_of_planes` does, with each of some columns as a row."""
    cdef real x[32]
    cdef real label[32]
    cdef real y[32]
    cdef Py_ssize_t j, r
    for r in range(columns):
        for j in range(n):
            x[j] = soa[j * BATCH_ROWS + r]
            label[j] = soa[j * BATCH_ROWS + LABEL_ROWS + r] if has_labels else 0
        losses_sequential(
            labels, <const real *>x, <const real *>label if has_labels else NULL,
            y if with_grad else NULL, 1, n, target + r, losses + r, <real *>NULL,
        )
        for j in range(n if with_grad else 0):
            soa[j * BATCH_ROWS + r] = y[j]


cdef inline noinline_void column_batch(
    const CrossEntropyCall *call, const Labels *labels, Py_ssize_t first, Py_ssize_t columns,
    real *soa, bint has_labels, bint with_grad, real *exp_scale, real *e,
) noexcept nogil:
    """Write the losses of a batch in planes; make these the gradients if they are wanted."""
    cdef Py_ssize_t target[BATCH_ROWS]
    cdef Py_ssize_t class_of[BATCH_ROWS]
    cdef Py_ssize_t n = call.n
    cdef Py_ssize_t j, r
    cdef RowTerms t
    cdef bint all_count = read_targets(call, first, columns, target)
    memset(class_of, 0, sizeof(class_of))
    for r in range(columns):
        class_of[r] = max(target[r], 0)
    fill_strips(soa, n, columns)
    if has_labels:
        fill_strips(soa + LABEL_ROWS, n, columns)
    loss_of_planes(
        labels, soa, has_labels, padded_rows(columns), n, class_of, with_grad, exp_scale, e, &t,
    )
    if t.done:
        for r in range(columns):
            call.losses[first + r] = t.loss[r]
    else:
        losses_one_by_one(
            labels, soa, has_labels, columns, n, target, with_grad, call.losses + first
        )
    for r in range(0 if all_count else columns):
        if target[r] < 0:
            call.losses[first + r] = 0
            for j in range(n):
                soa[j * BATCH_ROWS + r] = 0


cdef inline Py_ssize_t columns_bytes(Py_ssize_t n, real like) noexcept nogil:
    """Return the bytes that `cross_entropy_columns` works in."""
    return BATCHES * spacing(n) * sizeof(real)


cdef inline void cross_entropy_columns(
    const CrossEntropyCall *call, Py_ssize_t first, Py_ssize_t columns, const real *x,
    const real *label, real *y,
) noexcept nogil:
    """Write the losses of columns of (outer, n, inner) from number `first` on, and gradients.

    n is at most `max_short_length`, the temperature in range. x,
    `label` and y are whole arrays; y is NULL without gradients, and may be x.
    """
    cdef real exp_scale[SCALE_FIELDS * BATCH_ROWS]
    cdef Py_ssize_t n = call.n
    cdef Py_ssize_t inner = call.inner
    cdef Py_ssize_t stop = first + columns
    cdef bint has_labels = label != NULL
    cdef Py_ssize_t size = LABEL_ROWS if has_labels else BATCH_ROWS
    cdef Py_ssize_t b, m
    cdef Labels labels
    cdef double _e[BATCH_DOUBLES]
    cdef real *e = <real *>_e
    cdef real *soa = <real *>borrow(call.workspace)
    set_labels(call, &labels)
    set_loss_scales(labels.temperature, exp_scale)
    memset(e, 0, sizeof(_e))
    while first < stop:
        m = min(BATCHES * size, stop - first)
        move_planes(<real *>x, n, inner, first, m, size, soa, True)
        if has_labels:
            move_planes(<real *>label, n, inner, first, m, size, soa + LABEL_ROWS, True)
        for b in range((m + size - 1) // size):
            column_batch(
                call, &labels, first + b * size, min(size, m - b * size), soa + b * spacing(n),
                has_labels, y != NULL, exp_scale, e,
            )
        if y != NULL:
            move_planes(y, n, inner, first, m, size, soa, False)
        first += m
    give_back(call.workspace, <char *>soa)
