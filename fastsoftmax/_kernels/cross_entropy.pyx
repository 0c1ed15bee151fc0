# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Cross entropy with its gradient. Built once per instruction set.

Formula
    With z = x / T, p = softmax(z), S = sum exp(z - max z), q the labels times the weights of the
    classes, Q their sum: loss = sum q (max z - z) + Q log1p(S - 1),
    gradient with respect to x = factor (Q p - q) / T.

Passes over memory
    By batches of rows that fill L1: maxima and exponentials (read), gradient (written). Rows too
    long for that go one by one, by blocks that fit L1: maximum (read); exponentials and their sum
    (read; they go to where the gradient will be, if it is wanted); scale (read, write). Labels
    other than one target a row cost another reading pass. Long rows that must be packed come by
    parts (``long_loss.pxd``).

Precision policy
    Exponentials and gradient in the row's own type; sums, losses and labels in float64
    (``sums.pxd`` says in which order). No term is lost by cancellation: those of the loss have one
    sign, and at the target p - 1 is computed as minus the sum of the other exponentials over S.
    The largest exponential is 2**26 and factors are 2**96 times larger for float32, so that nothing
    that counts is a subnormal number (``exp_scale.pxd``); where a factor is infinite then, that row
    is made in float64.

Source
    C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4; R. Müller,
    S. Kornblith, G. Hinton, "When does label smoothing help?", NeurIPS 2019,
    https://arxiv.org/abs/1906.02629
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport NAN
from libc.string cimport memset

from fastsoftmax._kernels.abi cimport FLOAT32, CrossEntropyCall, LossKernels, temperature_in_range
from fastsoftmax._kernels.batch_scale cimport BATCH_ROWS, SCALE_FIELDS
from fastsoftmax._kernels.column_losses cimport columns_bytes, cross_entropy_columns
from fastsoftmax._kernels.labels cimport Labels, set_labels
from fastsoftmax._kernels.limit_loss cimport (
    LimitTerms,
    add_limit_terms,
    init_limit,
    is_limit,
    limit_of_terms,
)
from fastsoftmax._kernels.long_loss cimport loss_of_packed_row
from fastsoftmax._kernels.loss_batch cimport BATCH_DOUBLES, RowTerms, loss_of_rows, set_loss_scales
from fastsoftmax._kernels.loss_row cimport losses_sequential
from fastsoftmax._kernels.maxima cimport row_max
from fastsoftmax._kernels.packed_parts cimport PackedParts, borrow_parts, parts_bytes, return_parts
from fastsoftmax._kernels.reserve cimport borrow, give_back
from fastsoftmax._kernels.short_losses cimport LABEL_ROWS, loss_of_short_rows, max_short_length
from fastsoftmax._kernels.sums cimport LANES, STEP
from fastsoftmax._kernels.targets cimport read_targets, sum_losses, weigh_targets as c_weigh_targets
from fastsoftmax._kernels.transpose cimport STRIP, padded_rows
from fastsoftmax._kernels.types cimport real


# ---- batches -------------------------------------------------------------------------------------


cdef bint batch_of_losses(
    const Labels *labels, const real *x, const real *label, real *y, Py_ssize_t rows,
    Py_ssize_t n, const Py_ssize_t *target, double *losses, real *exp_scale, real *e,
) noexcept nogil:
    """Write the losses and gradients of some rows; return False if they must go one by one."""
    cdef RowTerms t
    cdef Py_ssize_t class_of[BATCH_ROWS]
    cdef Py_ssize_t r
    for r in range(padded_rows(rows)):
        class_of[r] = 0
    for r in range(rows):
        class_of[r] = max(target[r], 0)
    if n <= max_short_length(<real>0):
        loss_of_short_rows(labels, x, label, y, rows, n, class_of, exp_scale, e, &t)
    else:
        loss_of_rows(labels, x, label, y, rows, n, class_of, exp_scale, e, &t)
    for r in range(rows):
        losses[r] = t.loss[r]
    return t.done


cdef inline Py_ssize_t batch_size(Py_ssize_t n, bint has_labels, real like) noexcept nogil:
    """Return how many rows make a batch; 1 or 0 if rows of n elements go one by one."""
    cdef Py_ssize_t fit = BATCH_DOUBLES * (2 if real is float else 1)
    if n <= max_short_length(like):
        return LABEL_ROWS if has_labels else BATCH_ROWS
    return min(BATCH_ROWS, fit // ((n + STEP - 1) // STEP * STEP))


cdef void cross_entropy_rows(
    const CrossEntropyCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x,
    const real *label, real *y, real *scores,
) noexcept nogil:
    """Write the loss of each row, and its gradient into y unless that is NULL; y may be x.

    `scores` is scratch for a row, NULL where the temperature is `temperature_in_range`.
    """
    cdef double e[BATCH_DOUBLES]
    cdef real exp_scale[SCALE_FIELDS * BATCH_ROWS]
    cdef Py_ssize_t target[BATCH_ROWS]
    cdef Labels labels
    cdef Py_ssize_t n = call.n
    cdef Py_ssize_t size = batch_size(n, label != NULL, <real>0)
    cdef bint short_rows = n <= max_short_length(<real>0)
    cdef bint batched = rows > 1 and size > 1 and scores == NULL
    # The last row goes alone if behind it there may be nothing that can be read.
    cdef Py_ssize_t last = 1 if batched and not short_rows and n % LANES else 0
    cdef Py_ssize_t i, r, skip, start = 0
    cdef const real *row_labels
    cdef real *row_y
    cdef bint done, all_count
    set_labels(call, &labels)
    if batched:
        set_loss_scales(labels.temperature, exp_scale)
        memset(e, 0, sizeof(e))
    else:
        size = BATCH_ROWS
    while start < rows:
        r = max(1, min(size, rows - last - start))
        all_count = read_targets(call, first + start, r, target)
        skip = 0
        while skip < r and target[skip] < 0:
            skip += 1
        while r > skip and target[r - 1] < 0:
            r -= 1
        if batched and short_rows and r - skip > STRIP:
            r -= (r - skip) % STRIP
        row_labels = label + (start + skip) * n if label != NULL else NULL
        row_y = y + (start + skip) * n if y != NULL else NULL
        done = False
        if batched and r - skip > 1:
            done = batch_of_losses(
                &labels, x + (start + skip) * n, row_labels, row_y, r - skip, n, target + skip,
                call.losses + first + start + skip, exp_scale, <real *>e,
            )
        if not done:
            losses_sequential(
                &labels, x + (start + skip) * n, row_labels, row_y, r - skip, n, target + skip,
                call.losses + first + start + skip, scores,
            )
        r = max(r, skip)
        for i in range(0 if all_count else r):
            if target[i] < 0:
                call.losses[first + start + i] = 0
                if y != NULL:
                    memset(y + (start + i) * n, 0, n * sizeof(real))
        start += r


cdef void limit_losses(
    const CrossEntropyCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x,
    const real *label, real *y,
) noexcept nogil:
    """Write the losses of rows at T = 0 or infinity, and the gradient 0: softmax is constant."""
    cdef Labels labels
    cdef LimitTerms terms
    cdef Py_ssize_t target
    cdef Py_ssize_t i, j, n = call.n
    cdef double loss
    set_labels(call, &labels)
    for i in range(rows):
        read_targets(call, first + i, 1, &target)
        loss = 0
        if target >= 0 and n:
            init_limit(&terms, row_max(x + i * n, n).value)
            add_limit_terms(
                &labels, x + i * n, label + i * n if label != NULL else NULL, n, target, &terms
            )
            loss = limit_of_terms(&terms)
        call.losses[first + i] = loss
        for j in range(n if y != NULL else 0):
            y[i * n + j] = NAN if loss != loss else 0


cdef void cross_entropy(
    const CrossEntropyCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x,
    const real *label, real *y,
) noexcept nogil:
    """Do what `cross_entropy_rows` does, at any temperature."""
    cdef real *scores
    if is_limit(call.temperature):
        limit_losses(call, first, rows, x, label, y)
    elif temperature_in_range(call.temperature):
        cross_entropy_rows(call, first, rows, x, label, y, <real *>NULL)
    else:
        scores = <real *>borrow(call.workspace)
        cross_entropy_rows(call, first, rows, x, label, y, scores)
        give_back(call.workspace, <char *>scores)


cdef void packed_cross_entropy(
    const CrossEntropyCall *call, Py_ssize_t first, Py_ssize_t rows, bint has_y, real like
) noexcept nogil:
    """Write the losses of packed rows, and store their gradients."""
    cdef Labels labels
    cdef PackedParts parts
    cdef Py_ssize_t i, target
    borrow_parts(&parts, call.packed)
    set_labels(call, &labels)
    for i in range(first, first + rows):
        parts.row = i
        read_targets(call, i, 1, &target)
        call.losses[i] = loss_of_packed_row(
            &labels, &parts, call.n, target, call.targets == NULL, has_y, like
        )
    return_parts(&parts)


# ---- the table of this instruction set -----------------------------------------------------------


cdef int cross_entropy_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write losses and gradients of rows; a `rows_fn`. x2 are label probabilities, or NULL."""
    cdef const CrossEntropyCall *call = <const CrossEntropyCall *>_call
    if call.packed != NULL and call.dtype == FLOAT32:
        packed_cross_entropy(call, first, rows, y != NULL, <float>0)
    elif call.packed != NULL:
        packed_cross_entropy(call, first, rows, y != NULL, <double>0)
    elif call.dtype == FLOAT32:
        cross_entropy(call, first, rows, <const float *>x, <const float *>x2, <float *>y)
    else:
        cross_entropy(call, first, rows, <const double *>x, <const double *>x2, <double *>y)
    return 0


cdef Py_ssize_t cross_entropy_bytes(const CrossEntropyCall *call) noexcept nogil:
    """Return the bytes that rows are worked on in; a `loss_bytes_fn`."""
    if call.packed != NULL:
        return parts_bytes()
    if temperature_in_range(call.temperature) or is_limit(call.temperature):
        return 0
    return max(1, call.n) * (4 if call.dtype == FLOAT32 else 8)


cdef int cross_entropy_columns_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t columns, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write losses and gradients of columns; a `rows_fn` but that it gets the arrays whole."""
    cdef const CrossEntropyCall *call = <const CrossEntropyCall *>_call
    if call.dtype == FLOAT32:
        cross_entropy_columns(
            call, first, columns, <const float *>x, <const float *>x2, <float *>y
        )
    else:
        cross_entropy_columns(
            call, first, columns, <const double *>x, <const double *>x2, <double *>y
        )
    return 0


cdef Py_ssize_t cross_entropy_columns_bytes(const CrossEntropyCall *call) noexcept nogil:
    """Return the bytes that columns are worked on in; a `loss_bytes_fn`."""
    if call.dtype == FLOAT32:
        return columns_bytes(call.n, <float>0)
    return columns_bytes(call.n, <double>0)


cdef LossKernels table
table.cross_entropy = cross_entropy_entry
table.cross_entropy_bytes = cross_entropy_bytes
table.cross_entropy_columns = cross_entropy_columns_entry
table.cross_entropy_columns_bytes = cross_entropy_columns_bytes
table.max_column_float32 = max_short_length(<float>0)
table.max_column_float64 = max_short_length(<double>0)
table.weigh_targets = c_weigh_targets
table.sum_losses = sum_losses

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.LossKernels", NULL)
