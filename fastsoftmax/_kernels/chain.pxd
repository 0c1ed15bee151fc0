# cython: language_level=3, cdivision=True
"""Draws from rows through chains: the steps of a `Sampler`.

Formula
    Those of ``fastsoftmax.steps``, one step after the other, each on what the one before has left.
    The id drawn is the first, walking in index order, whose cumulative weight exceeds u * total.

Passes over memory
    One read for the block maxima and the checks. Where a step that removes all but few comes early,
    nothing else of the row's size: the best are selected by the block maxima, and the tokens that
    penalties and biases name are looked up. Otherwise the row is listed as a whole.

Precision policy
    Scores are float64, whatever the logits' type, and divided by a temperature, as the readable
    chain has them: what is cut by them is the same to the bit. Weights and their sums are float64.

Source
    ``fastsoftmax.steps`` names those of each step.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free

from fastsoftmax._kernels.abi cimport FLOAT32
from fastsoftmax._kernels.chain_abi cimport ChainCall, ChainStep
from fastsoftmax._kernels.chain_list cimport (
    Candidates,
    draw_candidate,
    keep_left,
    logprob_of,
    write_scores,
)
from fastsoftmax._kernels.chain_names cimport Names
from fastsoftmax._kernels.chain_race cimport race_among
from fastsoftmax._kernels.chain_report cimport report_nothing, report_row
from fastsoftmax._kernels.chain_resolve cimport (
    Resolved,
    begin_resolved,
    free_resolved,
    resolve,
)
from fastsoftmax._kernels.chain_row cimport (
    INVALID,
    NO_MEMORY,
    Chain,
    initial_selection,
    set_chain,
)
from fastsoftmax._kernels.chain_run cimport Draw, run_chain
from fastsoftmax._kernels.chain_state cimport write_next_state
from fastsoftmax._kernels.packed_row cimport begin_row, is_moved
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.workspace cimport Workspace, allocate_workspace, free_workspace

cdef enum:
    FEW_KEPT = 64  # of a row, that there is room for where each has steps of its own


cdef inline bint run_some(
    const ChainCall *call, Py_ssize_t first, Py_ssize_t rows, const real *x, real *y
) noexcept nogil:
    """Draw from a few rows, or filter them; return False if there is no memory."""
    cdef double eps = 1.1920928955078125e-07 if real is float else 2.220446049250313e-16
    cdef Workspace work
    cdef Chain chain
    cdef Names names
    cdef Candidates c
    cdef const ChainStep *steps = call.steps
    cdef Py_ssize_t n_steps = call.n_steps
    cdef Resolved resolved
    cdef const double *u
    cdef Draw draw
    cdef Py_ssize_t r, at, base, n = call.n, kept = FEW_KEPT
    cdef int64_t count = 0
    c.score = NULL
    c.room = 0
    names.id = NULL
    names.room = 0
    begin_resolved(&resolved)
    set_chain(&chain, steps, n_steps if call.starts == NULL else 0, eps)
    if call.starts == NULL and not call.resolves:
        kept = chain.kept
    if not allocate_workspace(&work, n, min(n, initial_selection(kept, n)), call.packed):
        return False
    base = 0 if is_moved(work.packed) else first  # where x and y begin
    draw.race = call.race
    draw.weighed = call.reports or call.states != NULL
    for r in range(first, first + rows):
        at = (r - base) * n
        work.row.index = r
        begin_row(work.packed, r, n)
        if call.starts != NULL:
            steps = call.steps + call.starts[r]
            n_steps = call.starts[r + 1] - call.starts[r]
        if call.resolves:
            resolve(&resolved, steps, n_steps, call.history + r, n)
            if not resolved.complete:
                count = NO_MEMORY
                break
            set_chain(&chain, resolved.steps, n_steps, eps)
        elif call.starts != NULL:
            set_chain(&chain, steps, n_steps, eps)
        u = call.uniforms
        u += call.first_uniforms[r] if call.first_uniforms != NULL else r * call.m
        draw.row = r
        count = run_chain(
            x + at, n, &chain, call.history + r, &u, &work, &names, &c,
            NULL if call.filters else &draw,
        )
        if count == NO_MEMORY:
            break
        call.ids[r] = count
        if count != INVALID and call.left != NULL:
            if not keep_left(&c, call.left):
                count = NO_MEMORY
                break
        elif count != INVALID and call.filters:
            write_scores(&c, y + at, n)
        elif count != INVALID:
            if draw.id == INVALID and call.race != NULL:
                race_among(call.race, r, &c, n, draw.weighed, &work, &draw.id)
            elif draw.id == INVALID:
                draw.id = draw_candidate(&c, u[0])
            call.ids[r] = draw.id
        if call.states != NULL:
            write_next_state(
                steps, n_steps, call.history + r, &c, call.ids[r], call.states + r
            )
        if call.reports and call.ids[r] == INVALID:
            report_nothing(&call.report, r, <real>0)
        elif call.reports:
            (<real *>call.report.filtered)[r] = <real>logprob_of(&c, call.ids[r])
            if not report_row(x + at, n, call.ids[r], &call.report, r, &work, &c):
                count = NO_MEMORY
                break
    free(c.score)
    free(names.id)
    free_resolved(&resolved)
    free_workspace(&work)
    return count != NO_MEMORY


cdef inline int chain_entry(
    const void *_call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil:
    """Write the ids drawn from rows through a chain, or what it leaves of them; a `rows_fn`."""
    cdef const ChainCall *call = <const ChainCall *>_call
    if call.dtype == FLOAT32:
        return 0 if run_some(call, first, rows, <const float *>x, <float *>y) else -1
    return 0 if run_some(call, first, rows, <const double *>x, <double *>y) else -1
