# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is reported of a token that a chain has drawn: what `token_logprobs` and others say."""

from libc.math cimport NAN
from libc.stdint cimport int64_t

from fastsoftmax._kernels.block_maxima cimport CHUNK, block_maxima_of_row
from fastsoftmax._kernels.chain_abi cimport ChainReport
from fastsoftmax._kernels.chain_list cimport Candidates
from fastsoftmax._kernels.chain_names cimport Names
from fastsoftmax._kernels.chain_row cimport allow_selection
from fastsoftmax._kernels.chain_whole cimport Scores, sum_weights
from fastsoftmax._kernels.packed_row cimport is_listed, row_element
from fastsoftmax._kernels.radix cimport Descending
from fastsoftmax._kernels.row_maximum cimport first_max, max_and_block_maxima
from fastsoftmax._kernels.token_logprobs cimport (
    log1p_of_others,
    logprob,
    rank_in_row,
    select_in_order,
    write_logprobs,
)
from fastsoftmax._kernels.types cimport real
from fastsoftmax._kernels.workspace cimport Workspace


cdef inline void report_nothing(const ChainReport *report, Py_ssize_t at, real like) noexcept nogil:
    """Write NaN and -1 for a row without an id."""
    cdef Py_ssize_t j
    (<real *>report.logprobs)[at] = (<real *>report.filtered)[at] = <real>NAN
    (<real *>report.entropy)[at] = <real>NAN
    report.rank[at] = -1
    for j in range(at * report.n_top, (at + 1) * report.n_top):
        (<real *>report.top_logprobs)[j] = <real>NAN
        report.top_ids[j] = -1


cdef inline bint report_row(
    const real *x, Py_ssize_t n, int64_t id, const ChainReport *report, Py_ssize_t at,
    Workspace *work, Candidates *c,
) noexcept nogil:
    """Write what is reported of an id of a valid row, that row being `at` of the call.

    What the steps have left of the row is lost. Return False if there is no memory.
    """
    cdef Names none
    cdef Scores s
    cdef double highest, log_others
    cdef Py_ssize_t j, k = report.n_top
    if not allow_selection(x, n, max(<Py_ssize_t>1, k), work):
        return False
    highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima, work.packed)
    if is_listed(work.packed):
        block_maxima_of_row(
            x, <Descending>0, n, CHUNK, <real *>work.maxima, <real *>NULL, work.packed
        )
    report.rank[at] = rank_in_row(x, id, n, <const real *>work.maxima, work.packed)
    log_others = log1p_of_others(
        x, n, first_max(x, n, CHUNK, <real>highest, <const real *>work.maxima, work.packed),
        highest, 1, <double *>work.keys, work.packed,
    )
    write_logprobs(x, n, &id, 1, highest, 1, log_others, <real *>report.logprobs + at, work.packed)
    none.count = 0
    s.map.n_steps = 0
    s.error = 0
    s.names = &none
    s.packed = work.packed
    c.highest = highest
    sum_weights(&s, x, n, True, NULL, c)
    (<real *>report.entropy)[at] = <real>(log_others - c.weighted / c.total)
    if k == 0:
        return True
    select_in_order(x, n, k, work)
    for j in range(k):
        report.top_ids[at * k + j] = work.index[j]
        (<real *>report.top_logprobs)[at * k + j] = <real>logprob(
            row_element(x, work.index[j], work.packed), highest, 1, log_others
        )
    return True
