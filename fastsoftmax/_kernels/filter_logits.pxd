# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Filtered logits: a row divided by its temperature, -inf where the filters remove."""

from libc.math cimport NAN, frexp, ldexp
from libc.string cimport memcpy

from fastsoftmax._kernels.abi cimport FilterLogitsCall, Filters
from fastsoftmax._kernels.block_maxima cimport CHUNK
from fastsoftmax._kernels.block_select cimport select_k
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.packed_row cimport (
    PackedRow,
    begin_row,
    is_moved,
    part_length,
    row_part,
)
from fastsoftmax._kernels.partition cimport Nucleus
from fastsoftmax._kernels.reserve cimport borrow, give_back
from fastsoftmax._kernels.row_maximum cimport max_and_block_maxima
from fastsoftmax._kernels.signals cimport stopped
from fastsoftmax._kernels.sums cimport BLOCK
from fastsoftmax._kernels.truncation cimport (
    apply_filters,
    has_filters,
    initial_room,
    max_selected_of,
)
from fastsoftmax._kernels.types cimport infinity, largest_finite, real
from fastsoftmax._kernels.weights cimport Prefix
from fastsoftmax._kernels.workspace cimport (
    Workspace,
    enlarge_workspace,
    free_workspace,
    place_workspace,
    workspace_bytes,
)

cdef struct Quotient:
    # y = (x - shift) * inverse, held at `least`
    double shift
    double inverse
    double least


cdef inline double overflow_bound(double largest) noexcept nogil:
    """Return the smallest number that rounds to infinity in a type whose largest is given."""
    cdef int exponent
    frexp(largest, &exponent)
    return largest / 2 + ldexp(0.5, exponent)  # half of a unit above it


cdef inline double lowest_above_threshold(
    const real *x, Py_ssize_t n, real threshold
) noexcept nogil:
    """Return the smallest of n elements that is above `threshold`, and of -inf; else +inf."""
    cdef real lane[32]
    cdef real v
    cdef Py_ssize_t j, l
    for l in range(32):
        lane[l] = infinity(<real>0)
    for j from 0 <= j <= n - 32 by 32:
        for l in range(32):
            v = x[j + l]
            v = v if v > threshold else infinity(<real>0)
            lane[l] = v if v < lane[l] else lane[l]
    for j in range(n & ~31, n):
        if x[j] > threshold and x[j] < lane[0]:
            lane[0] = x[j]
    for l in range(1, 32):
        lane[0] = lane[l] if lane[l] < lane[0] else lane[0]
    return lane[0]


cdef inline Quotient quotient_for(
    const real *x, Py_ssize_t n, double highest, double inverse, double largest, real threshold,
    PackedRow *packed,
) noexcept nogil:
    """Return how a row is divided by its temperature, so that nothing overflows.

    What counts are the n elements of x that are above `threshold`. `highest` is the row's maximum,
    `largest` the largest finite number of the result's type.
    """
    cdef Quotient q
    cdef double bound = overflow_bound(largest)
    cdef Py_ssize_t step = part_length(n, packed)
    cdef real least = infinity(<real>0)
    cdef Py_ssize_t start, size
    q.shift = 0
    q.inverse = inverse
    q.least = -largest
    if inverse <= 1 and largest >= largest_finite(<real>0):
        return q
    if <real>(highest * inverse) >= bound:
        q.shift = highest
        return q
    for start from 0 <= start < n by step:
        size = min(step, n - start)
        least = min(
            least, lowest_above_threshold(row_part(x, start, size, packed), size, threshold)
        )
    if <real>(least * inverse) <= -bound:
        q.shift = highest
    return q


cdef inline void divide_block(
    const real *x, real *y, Py_ssize_t n, const Quotient *q
) noexcept nogil:
    """y = the quotients of x; -inf stays. They don't overlap."""
    cdef double shift = q.shift
    cdef double inverse = q.inverse
    cdef double least = q.least
    cdef double z
    cdef Py_ssize_t j
    if inverse == 1 and shift == 0:
        memcpy(y, x, n * sizeof(real))
        return
    for j in range(n):
        z = (<double>x[j] - shift) * inverse
        z = z if z > least else least
        y[j] = <real>z if x[j] > -infinity(<real>0) else x[j]


cdef inline void write_part(
    real *y, Py_ssize_t start, const real *part, Py_ssize_t n, PackedRow *packed
) noexcept nogil:
    """Write n elements of the result y of a row, from `start` on."""
    if not is_moved(packed):
        memcpy(y + start, part, n * sizeof(real))
    elif not packed.over:
        packed.rows.store(packed.rows, packed.index, start, n, <void *>part)


cdef inline void divide_row(
    const real *x, real *y, Py_ssize_t n, const Quotient *q, PackedRow *packed
) noexcept nogil:
    """y = the quotients of x; y is x or does not overlap it."""
    cdef real part[BLOCK]
    cdef Py_ssize_t start, m
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        divide_block(row_part(x, start, m, packed), part, m, q)
        write_part(y, start, <const real *>part, m, packed)


cdef inline void select_above(
    const real *x, const real *scaled, real *y, Py_ssize_t n, real threshold
) noexcept nogil:
    """y = scaled where x is above `threshold`, else -inf; y overlaps neither."""
    cdef real z
    cdef Py_ssize_t j
    for j in range(n):
        z = scaled[j]
        y[j] = z if x[j] > threshold else -infinity(<real>0)


cdef inline void write_prefix(
    const real *x, real *y, Py_ssize_t n, const Quotient *q, const Prefix *kept,
    PackedRow *packed,
) noexcept nogil:
    """y = the quotients of what is kept of x, else -inf; y is x or does not overlap it."""
    cdef real scaled[BLOCK]
    cdef real part[BLOCK]
    cdef real threshold = <real>kept.threshold
    cdef const real *block
    cdef Py_ssize_t start, j, m, ties = kept.ties
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        block = row_part(x, start, m, packed)
        divide_block(block, scaled, m, q)
        select_above(block, <const real *>scaled, part, m, threshold)
        if ties > 0:
            for j in range(m):
                if block[j] == threshold and ties > 0:
                    part[j] = scaled[j]
                    ties -= 1
        write_part(y, start, <const real *>part, m, packed)


cdef inline void write_list(
    real *y, Py_ssize_t n, Py_ssize_t count, real other, Workspace *work
) noexcept nogil:
    """Write `count` values of `work`, in index order, to their places in y; `other` elsewhere."""
    cdef const real *value = <const real *>work.value
    cdef real part[BLOCK]
    cdef Py_ssize_t start, m, i = 0, j
    if not is_moved(work.packed):
        for j in range(n):
            y[j] = other
        for j in range(count):
            y[work.index[j]] = value[j]
        return
    for start from 0 <= start < n by BLOCK:
        m = min(<Py_ssize_t>BLOCK, n - start)
        for j in range(m):
            part[j] = other
        while i < count and work.index[i] < start + m:
            if work.index[i] >= start:  # always, unless another thread writes the row
                part[work.index[i] - start] = value[i]
            i += 1
        write_part(y, start, <const real *>part, m, work.packed)


cdef inline Py_ssize_t count_with_ties(
    const real *x, Py_ssize_t n, Py_ssize_t k, Workspace *work
) noexcept nogil:
    """Return how many elements are at least the k-th."""
    cdef real *value = <real *>work.value
    cdef Py_ssize_t step = part_length(n, work.packed)
    cdef const real *part
    cdef real t
    cdef Py_ssize_t start, i, m = 0
    k = select_k(x, n, k, <real *>work.maxima, True, work)
    t = value[0]
    for i in range(k):
        t = min(t, value[i])
    for start from 0 <= start < n by step:
        part = row_part(x, start, min(step, n - start), work.packed)
        for i in range(min(step, n - start)):
            m += part[i] >= t
    return m


cdef inline void filter_row(
    const real *x, real *y, Py_ssize_t n, Filters f, bint every_tie, double largest,
    Workspace *work,
) noexcept nogil:
    """y = x / T, -inf where the filters `f` remove; y is x or does not overlap it.

    Nothing is written if the workspace is full.

    Where a survivor would be infinite in the type whose largest number is `largest` (0: that of y),
    y = (x - max) / T instead, held at -largest.
    """
    cdef double highest = max_and_block_maxima(
        x, n, CHUNK, <real *>work.maxima, work.packed
    )
    cdef double inverse = inverse_temperature(f.temperature, <double>0) if f.temperature > 0 else 0
    cdef real *value = <real *>work.value
    cdef real threshold = -infinity(<real>0)
    cdef Nucleus left
    cdef Quotient q
    cdef Py_ssize_t count = 0
    if largest == 0:
        largest = largest_finite(<real>0)
    if highest != highest:
        write_list(y, n, 0, <real>NAN, work)
        return
    if f.temperature > 0 and not has_filters(&f, n):
        q = quotient_for(x, n, highest, inverse, largest, threshold, work.packed)
        divide_row(x, y, n, &q, work.packed)
        return
    if every_tie and 0 < f.top_k < n and f.temperature > 0:
        f.top_k = count_with_ties(x, n, min(n, max(f.top_k, f.min_keep)), work)
    if stopped(n):
        return
    if not work.is_full:
        count = apply_filters(x, n, highest, &f, work, &left)
    if work.is_full or stopped(n):
        return
    if count < 0:
        threshold = <real>left.prefix.threshold
        q = quotient_for(x, n, highest, inverse, largest, threshold, work.packed)
        if left.prefix.ties > 0 and <real>(threshold * inverse) <= -overflow_bound(largest):
            q.shift = highest
        write_prefix(x, y, n, &q, &left.prefix, work.packed)
        return
    if f.temperature == 0:
        value[0] = 0  # never -0
    else:
        q = quotient_for(<const real *>value, count, highest, inverse, largest, threshold, NULL)
        divide_row(<const real *>value, value, count, &q, NULL)
    if stopped(n):
        return
    write_list(y, n, count, -infinity(<real>0), work)


cdef inline Py_ssize_t max_filtered(
    const FilterLogitsCall *call, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Return for how many elements of a row there is to be room, in any of some rows."""
    cdef Py_ssize_t most = max_selected_of(
        call.n, call.filters + first * call.filter_stride, rows if call.filter_stride else 1, 0
    )
    if call.every_tie:  # with its ties, top_k may remove nothing
        most = max(most, initial_room(call.n))
    return most


cdef inline void filter_logits_bytes(
    const FilterLogitsCall *call, Py_ssize_t rows, Py_ssize_t *bytes, Py_ssize_t *spare
) noexcept nogil:
    """Set the bytes that rows are worked on in; a `filter_logits_bytes_fn`."""
    cdef Py_ssize_t most = max_filtered(call, 0, rows)
    bytes[0] = workspace_bytes(call.n, most, call.packed)
    spare[0] = 0
    # Others are written already when a row turns out to need all the room. Unused it costs nothing.
    if rows > 1 and initial_room(call.n) <= most < call.n:
        spare[0] = workspace_bytes(call.n, call.n, call.packed)


cdef inline bint filter_some(
    FilterLogitsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, real *y,
) noexcept nogil:
    """Write the filtered logits of rows; return False if there is no memory for one alone."""
    cdef const Filters *f = call.filters + first * call.filter_stride
    cdef Py_ssize_t i = 0, n = call.n
    cdef Workspace work
    cdef char *memory = borrow(call.workspace)
    cdef char *spare = NULL
    place_workspace(&work, memory, n, max_filtered(call, first, rows), call.packed)
    while i < rows:
        begin_row(work.packed, first + i, n)
        filter_row(
            x + i * n, y + i * n, n, f[i * call.filter_stride], call.every_tie, call.largest,
            &work,
        )
        if work.is_full and work.most < n:  # once more
            if call.spare.bytes > 0:
                spare = borrow(call.spare)
                place_workspace(&work, spare, n, n, call.packed)
            elif not enlarge_workspace(&work, n):
                break
            continue
        i += 1
    free_workspace(&work)
    if spare != NULL:
        give_back(call.spare, spare)
    give_back(call.workspace, memory)
    return i == rows
