# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is reported of a token that a chain has drawn: what `token_logprobs` and others say."""

from libc.math cimport NAN
from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.block_maxima cimport CHUNK, block_maxima_of_row
from fastsoftmax._kernels.block_select cimport select_superset
from fastsoftmax._kernels.chain_abi cimport ChainReport
from fastsoftmax._kernels.chain_list cimport Candidates
from fastsoftmax._kernels.chain_names cimport Names
from fastsoftmax._kernels.chain_row cimport allow_selection
from fastsoftmax._kernels.chain_whole cimport Scores, sum_weights
from fastsoftmax._kernels.packed_row cimport is_listed, row_element, row_part
from fastsoftmax._kernels.radix cimport Descending, radix_sort_pairs, sortable_key
from fastsoftmax._kernels.row_maximum cimport first_max, max_and_block_maxima
from fastsoftmax._kernels.token_logprobs cimport (
    log1p_of_others,
    logprob,
    rank_in_row,
    write_logprobs,
)
from fastsoftmax._kernels.truncation cimport SMALL_ROW
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
    cdef const real *part
    cdef double highest, log_others
    cdef Py_ssize_t j, m = n, k = report.n_top
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
    s.n_steps = 0
    s.names = &none
    s.packed = work.packed
    c.highest = highest
    sum_weights(&s, x, n, True, NULL, c)
    (<real *>report.entropy)[at] = <real>(log_others - c.weighted / c.total)
    if k == 0:
        return True
    if n <= SMALL_ROW:
        part = row_part(x, 0, n, work.packed)
        for j in range(n):
            work.keys[j] = sortable_key(part[j])
            work.index[j] = j
    else:
        m = select_superset(x, n, k, k, <real *>work.maxima, True, work)
        for j in range(m):
            work.keys[j] = sortable_key((<real *>work.value)[j])
    radix_sort_pairs(
        work.keys, work.index, m, <uint64_t *>work.masses, <Py_ssize_t *>work.weight
    )
    for j in range(k):
        report.top_ids[at * k + j] = work.index[j]
        (<real *>report.top_logprobs)[at * k + j] = <real>logprob(
            row_element(x, work.index[j], work.packed), highest, 1, log_others
        )
    return True
