# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Filters, draws and log-probabilities of contiguous rows. Built once per instruction set.

With them are compiled the chains of a `Sampler`, ``verify`` and ``beam_step``, which share the most
of it: each is in a .pxd of its own, which says the following of it.

Formula
    weight_i = exp((x_i - max) / T). Temperature, then top_k, then top_p, then min_p leave a prefix
    of the order (larger logit, lower index): the survivors. The index drawn is the first, walking
    them in index order, whose cumulative weight exceeds u * total. The log-probability is
    (x_i - max) / T - log1p(sum of the other weights). The survivors being a prefix, the rank of one
    of them is its rank among them.

Passes over memory
    One read for the block maxima and the checks. With top_k nothing else of the row's size; without
    it a second one for the weights. min_p is a threshold in logit space: few elements that reach it
    are listed, many are drawn from in the one pass that weighs them. Where few elements have the
    mass of top_p, one pass adds coarse weights up, and they are listed (``peaked_row.pxd``); else
    one finds the threshold (``nucleus.pxd``), the same for any size of the nucleus, but of rows
    below 5,120 elements by all their weights (``mass_prefix.pxd``). Nothing is sorted but what
    `support` returns. However many are drawn, the row is filtered and weighed once. One draw from
    each of many short rows reads them once (``short_draws.pxd``).
    Log-probabilities: one read for the maxima, one for the weights; the next row's maximum is found
    while a row is weighed. `top_logprobs` selects by the block maxima of the first read.

Precision policy
    Draws and filters decide by weights and sums in float64, whatever the logits' type: the same
    ids from every implementation, and from the reference. Over a whole row of float32, float32
    weights come first: with a bound of their sums' error (``weights_f32.pxd``) they mostly tell
    what those in float64 would, four times as fast. Log-probabilities of float32 rows are summed up
    as `log_softmax` does.

Source
    See ``block_select.pxd``; A. Holtzman et al., ICLR 2020, https://arxiv.org/abs/1904.09751
    (top-p); N. N. Minh et al., ICLR 2025, https://arxiv.org/abs/2407.01082 (min-p).
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    FilterLogitsCall,
    Filters,
    SampleCall,
    SamplingKernels,
    SupportCall,
    TokenLogprobsCall,
    TopLogprobsCall,
)
from fastsoftmax._kernels.beams cimport beam_step_entry
from fastsoftmax._kernels.block_maxima cimport CHUNK, block_maxima_of_row
from fastsoftmax._kernels.chain cimport chain_entry
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.filter_logits cimport filter_logits_bytes, filter_some
from fastsoftmax._kernels.inverse_cdf cimport (
    are_few,
    draw_few_without_replacement,
    draw_from_row,
    draw_with_replacement,
    draw_without_replacement,
)
from fastsoftmax._kernels.maxima cimport RowMax, row_max
from fastsoftmax._kernels.nucleus cimport draw_from_nucleus
from fastsoftmax._kernels.packed_row cimport begin_row, is_listed
from fastsoftmax._kernels.partition cimport Nucleus
from fastsoftmax._kernels.race cimport all_ties_are_left, race_for_draws
from fastsoftmax._kernels.race_blocks cimport RACE_BLOCK, max_for_race
from fastsoftmax._kernels.radix cimport Descending
from fastsoftmax._kernels.row_maximum cimport argmax, first_max, max_and_block_maxima
from fastsoftmax._kernels.short_draws cimport draw_short_rows, draws_in_batch
from fastsoftmax._kernels.short_logprobs cimport (
    logprobs_in_batch,
    logprobs_of_short_rows,
    report_short_rows,
    reports_in_batch,
    top_logprobs_of_short_rows,
)
from fastsoftmax._kernels.signals cimport look
from fastsoftmax._kernels.support cimport support_row
from fastsoftmax._kernels.token_logprobs cimport (
    log1p_excluding_max,
    log1p_of_others,
    logprobs_row,
    ranks_among,
    top_logprobs_row,
    write_logprobs,
)
from fastsoftmax._kernels.truncation cimport (
    apply_filters,
    has_filters,
    list_prefix,
    max_selected_of,
)
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.verify cimport verify_entry
from fastsoftmax._kernels.workspace cimport (
    Workspace,
    allocate_workspace,
    enlarge_workspace,
    free_workspace,
)


cdef inline bint draws_few(const SampleCall *call) noexcept nogil:
    """Return whether draws without replacement from a whole row need no list of it."""
    return (
        call.m > 1 and not call.replace and call.race == NULL and not call.has_output
        and call.packed == NULL and are_few(call.m, call.n)
    )


cdef void draw_row(
    const SampleCall *call, Py_ssize_t row, const real *x, const Filters *f, Workspace *work
) noexcept nogil:
    """Write the ids drawn from a row: -1 where it has no probabilities, or is used up.

    And what is to be reported of them. Nothing that counts is written if the workspace is full.
    """
    cdef real *value = <real *>work.value
    cdef double highest
    cdef double inverse = inverse_temperature(f.temperature, <double>0) if f.temperature > 0 else 0
    cdef double *sums = <double *>work.keys  # free once the survivors are known
    cdef double log_others = 0, log_others_kept = 0
    cdef Py_ssize_t n = call.n, m = call.m, at = row * m
    cdef const double *u = call.uniforms + at if call.race == NULL else NULL
    cdef int64_t *ids = call.ids + at
    cdef bint whole = f.temperature > 0 and not has_filters(f, n)
    cdef bint by_blocks = whole and call.race != NULL
    cdef bint report = call.has_output
    cdef bint single = m == 1 and not report
    cdef double least = -infinity(<double>0)
    cdef const uint64_t *words = NULL
    cdef Nucleus left
    cdef bint is_prefix = False  # whether the survivors come first in the order, as ranked
    cdef Py_ssize_t i, count
    if f.temperature == 0 and m == 1 and not report:
        ids[0] = argmax(x, n, <real *>work.maxima, work.packed)
        return
    if by_blocks:
        highest = max_for_race(call.race, row, x, n, work, &words)
        if is_listed(work.packed):
            block_maxima_of_row(
                x, <Descending>0, n, RACE_BLOCK, <real *>work.maxima, <real *>NULL, work.packed
            )
    else:
        highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima, work.packed)
    if highest != highest:
        for i in range(m):
            ids[i] = -1
    else:
        if report and f.temperature > 0:
            i = first_max(
                x, n, RACE_BLOCK if by_blocks else CHUNK, <real>highest, <real *>work.maxima,
                work.packed,
            )
            log_others = log1p_of_others(x, n, i, highest, f.temperature, sums, work.packed)
            log_others_kept = log_others
        if by_blocks:
            race_for_draws(call, row, x, n, NULL, highest, inverse, least, words, work, ids)
        elif whole and inverse > 0 and draws_few(call):
            draw_few_without_replacement(x, n, highest, inverse, u, m, sums, ids)
        elif whole and m == 1:
            ids[0] = draw_from_row(x, n, u[0], highest, inverse, NULL, sums, work.packed)
        else:
            count = apply_filters(x, n, highest, f, work, &left if single else NULL)
            if work.is_full:
                return
            if count < 0 and call.race != NULL:
                if all_ties_are_left(x, n, &left.prefix, work.packed):
                    block_maxima_of_row(
                        x, <Descending>0, n, RACE_BLOCK, <real *>work.maxima, <real *>NULL,
                        work.packed,
                    )
                    least = left.prefix.threshold
                    race_for_draws(call, row, x, n, NULL, highest, inverse, least, words, work, ids)
                    return
                count = list_prefix(x, n, &left.prefix, work)
                if work.is_full:
                    return
            elif count < 0:
                ids[0] = draw_from_nucleus(x, n, u[0], highest, inverse, &left, work)
                return
            if report and not whole:
                log_others_kept = log1p_excluding_max(value, work.weight, count, highest, sums)
            if call.race != NULL:
                race_for_draws(
                    call, row, <const real *>value, count, work.index, highest, inverse, least,
                    NULL, work, ids,
                )
            elif m == 1 or not call.replace:
                draw_without_replacement(work.weight, count, u, m, sums, ids)
            else:
                draw_with_replacement(work.weight, count, u, m, work.masses, sums, ids)
            is_prefix = f.temperature < infinity(<double>0)
            if report and is_prefix:
                ranks_among(
                    <const real *>value, count, ids, m, work, call.output.ranks + at, NULL
                )
            for i in range(m):
                if ids[i] >= 0:
                    ids[i] = work.index[ids[i]]
    if report:
        if not is_prefix:
            ranks_among(x, n, ids, m, work, call.output.ranks + at, work.packed)
        write_logprobs(
            x, n, ids, m, highest, inverse, log_others, <real *>call.output.logprobs + at,
            work.packed,
        )
        write_logprobs(
            x, n, ids, m, highest, inverse, log_others_kept, <real *>call.output.filtered + at,
            work.packed,
        )


cdef bint draw(
    const SampleCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x
) noexcept nogil:
    """Write what is drawn from each of a few rows; return whether memory sufficed."""
    cdef const Filters *f = call.filters + first * call.filter_stride
    cdef Py_ssize_t i = 0, n = call.n
    cdef bint listed = call.m > 1 and call.race == NULL and not draws_few(call)
    cdef Py_ssize_t unfiltered = n if listed else 0
    cdef Workspace work
    if draws_in_batch(call, rows, f) and reports_in_batch(call, rows, f.temperature):
        draw_short_rows(x, rows, n, f.temperature, call.uniforms + first, call.ids + first)
        i = rows
        if real is float:
            if call.has_output:
                i = report_short_rows(call, first, rows, x, f.temperature)
        if i == rows:
            return True
    if not allocate_workspace(
        &work, n, max_selected_of(n, f, rows if call.filter_stride else 1, unfiltered), call.packed
    ):
        return False
    while i < rows:
        begin_row(work.packed, first + i, n)
        draw_row(call, first + i, x + i * n, f + i * call.filter_stride, &work)
        if work.is_full and work.most < n:  # once more
            if not enlarge_workspace(&work, n):
                return False
            continue
        i += 1
    free_workspace(&work)
    return True


cdef bint logprobs(
    TokenLogprobsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x
) noexcept nogil:
    """Write the log-probabilities of entries of rows; return False if there is no memory."""
    cdef const double *temperature = call.temperature + first * call.temperature_stride
    cdef const int64_t *ids = call.ids + first * call.m
    cdef real *y = <real *>call.logprobs + first * call.m
    cdef Py_ssize_t i, done = 0, n = call.n, m = call.m
    cdef Workspace work
    cdef RowMax top
    if real is float:
        if call.packed == NULL and logprobs_in_batch(
            rows, n, temperature[0], call.temperature_stride
        ):
            done = logprobs_of_short_rows(x, rows, n, temperature[0], ids, m, y)
            if done == rows:
                return True
    if not allocate_workspace(&work, n, 0, call.packed):
        return False
    if real is float:
        if call.packed == NULL:
            top = row_max(x + done * n, n)
    for i in range(done, rows):
        begin_row(work.packed, first + i, n)
        logprobs_row(
            x + i * n, n, temperature[i * call.temperature_stride], ids + i * m, m, &work, &top,
            x + (i + 1) * n if i + 1 < rows and call.packed == NULL else NULL, y + i * m,
        )
    free_workspace(&work)
    return True


# ---- the table of this instruction set -----------------------------------------------------------


cdef int sample_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write the ids drawn from rows, and what is asked for of them; a `rows_fn`."""
    cdef const SampleCall *call = <const SampleCall *>_call
    if call.dtype == FLOAT32:
        return 0 if draw(call, first, rows, <const float *>x) else -1
    return 0 if draw(call, first, rows, <const double *>x) else -1


cdef int filter_logits_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write the filtered logits of rows; a `rows_fn`."""
    cdef FilterLogitsCall *call = <FilterLogitsCall *>_call
    if call.dtype == FLOAT32:
        return 0 if filter_some(call, first, rows, <const float *>x, <float *>y) else -1
    return 0 if filter_some(call, first, rows, <const double *>x, <double *>y) else -1


cdef bint support_some(
    SupportCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x,
) noexcept nogil:
    """Write what can be drawn from rows; return False if there is no memory."""
    cdef const Filters *f = call.filters + first * call.filter_stride
    cdef Py_ssize_t i = 0, at, n = call.n
    cdef Workspace work
    if not allocate_workspace(
        &work, n, max_selected_of(n, f, rows if call.filter_stride else 1, n), call.packed
    ):
        return False
    while i < rows:
        begin_row(work.packed, first + i, n)
        at = (first + i) * call.width
        call.counts[first + i] = support_row(
            x + i * n, n, f + i * call.filter_stride, &work, call.indices + at,
            <real *>call.probs + at, call.width,
        )
        if work.is_full and work.most < n:  # once more
            if not enlarge_workspace(&work, n):
                return False
            continue
        i += 1
    free_workspace(&work)
    return True


cdef int support_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write what can be drawn from rows, most likely first; a `rows_fn`."""
    cdef SupportCall *call = <SupportCall *>_call
    if call.dtype == FLOAT32:
        return 0 if support_some(call, first, rows, <const float *>x) else -1
    return 0 if support_some(call, first, rows, <const double *>x) else -1


cdef int token_logprobs_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write log-probabilities of entries of rows; a `rows_fn`."""
    cdef TokenLogprobsCall *call = <TokenLogprobsCall *>_call
    if call.dtype == FLOAT32:
        return 0 if logprobs(call, first, rows, <const float *>x) else -1
    return 0 if logprobs(call, first, rows, <const double *>x) else -1


cdef bint top_logprobs_some(
    TopLogprobsCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x,
) noexcept nogil:
    """Write the k most likely entries of rows; return False if there is no memory."""
    cdef Py_ssize_t i, done = 0, n = call.n, k = call.k
    cdef Workspace work
    if k == 0:
        return True
    if real is float:
        done = top_logprobs_of_short_rows(call, first, rows, x)
        if done == rows:
            return True
    if not allocate_workspace(&work, n, k, call.packed):
        return False
    for i in range(done, rows):
        begin_row(work.packed, first + i, n)
        top_logprobs_row(
            x + i * n, n, k, call.temperature[(first + i) * call.temperature_stride], &work,
            call.indices + (first + i) * k, <real *>call.logprobs + (first + i) * k,
        )
    free_workspace(&work)
    return True


cdef int top_logprobs_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write the k most likely entries of rows and their log-probabilities; a `rows_fn`."""
    cdef TopLogprobsCall *call = <TopLogprobsCall *>_call
    if call.dtype == FLOAT32:
        return 0 if top_logprobs_some(call, first, rows, <const float *>x) else -1
    return 0 if top_logprobs_some(call, first, rows, <const double *>x) else -1


cdef SamplingKernels table
table.sample = sample_entry
table.filter_logits = filter_logits_entry
table.filter_logits_bytes = filter_logits_bytes
table.support = support_entry
table.token_logprobs = token_logprobs_entry
table.top_logprobs = top_logprobs_entry
table.chain = chain_entry
table.verify = verify_entry
table.beam_step = beam_step_entry
table.look = &look

#: The kernels of this module for `_front`.
kernels = PyCapsule_New(&table, "fastsoftmax.SamplingKernels", NULL)
