# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A row through a chain: on the few candidates that can be left in the end, or on all of them.

Order-preserving steps change the rank of the tokens that they name only; of the others they remove
the worst. So the named and the best of the others are enough as soon as a step removes the worst of
these: all that is absent would be gone by now, too.
"""

from libc.math cimport fabs
from libc.stdint cimport int64_t

from fastsoftmax._kernels.block_maxima cimport CHUNK
from fastsoftmax._kernels.block_select cimport select_k
from fastsoftmax._kernels.chain_abi cimport SOFT_CAP, TOP_K, ChainStep
from fastsoftmax._kernels.chain_list cimport (
    Candidates,
    drop_lowest,
    keep_above,
    make_room,
)
from fastsoftmax._kernels.chain_names cimport Names, name_of
from fastsoftmax._kernels.chain_steps cimport max_kept, preserves_order, run_step
from fastsoftmax._kernels.packed_row cimport (
    begin_row,
    is_listed,
    part_length,
    row_element,
    row_part,
)
from fastsoftmax._kernels.row_maximum cimport max_and_block_maxima
from fastsoftmax._kernels.signals cimport stopped
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.workspace cimport Workspace, allocate_workspace, free_workspace

cdef enum:
    SHORT_ROW = 64  # elements of a row that are all listed rather than selected from
    INVALID = -1  # what is no id: of a row that is for the readable chain,
    NO_MEMORY = -2

cdef struct Chain:
    const ChainStep *steps
    Py_ssize_t n_steps
    Py_ssize_t n_first  # steps that preserve the order, from the first on
    Py_ssize_t kept  # about how many the first of them keeps that removes the worst, 0 if none does
    bint caps  # whether one of the first caps scores, so that they lose some of their order
    double eps  # of the type of the logits


cdef inline void set_chain(
    Chain *chain, const ChainStep *steps, Py_ssize_t n_steps, double eps
) noexcept nogil:
    """Describe a chain of steps."""
    chain.steps = steps
    chain.n_steps = n_steps
    chain.n_first = chain.kept = chain.caps = 0
    chain.eps = eps
    while chain.n_first < n_steps and preserves_order(steps + chain.n_first):
        if chain.kept == 0:
            chain.kept = max_kept(steps + chain.n_first)
        chain.caps |= steps[chain.n_first].op == SOFT_CAP
        chain.n_first += 1


cdef inline Py_ssize_t initial_selection(Py_ssize_t kept, Py_ssize_t named) noexcept nogil:
    """Return how many are selected where about `kept` will be: few of the best are named."""
    return kept + 1 + min(kept // 5 + 2, named)


cdef inline bint list_given(
    const real *x, const int64_t *ids, Py_ssize_t m, const Names *names, Workspace *work,
    Candidates *c,
) noexcept nogil:
    """Make candidates of m tokens, which ascend; return whether there was memory."""
    cdef Py_ssize_t i
    if not make_room(c, m):
        return False
    for i in range(m):
        c.id[i] = ids[i]
        c.score[i] = row_element(x, ids[i], work.packed)
        c.name[i] = name_of(names, ids[i])
    c.count = m
    c.ascending = True
    drop_lowest(c)
    return True


cdef inline bint list_all(
    const real *x, Py_ssize_t n, const Names *names, Workspace *work, Candidates *c
) noexcept nogil:
    """Make candidates of all of a row; return whether there was memory."""
    cdef Py_ssize_t step = part_length(n, work.packed)
    cdef const real *part
    cdef Py_ssize_t start, i
    if is_listed(work.packed):  # few
        return list_given(x, <const int64_t *>work.packed.ids, work.packed.count, names, work, c)
    if not make_room(c, n):
        return False
    for start from 0 <= start < n by step:
        part = row_part(x, start, min(step, n - start), work.packed)
        for i in range(min(step, n - start)):
            c.score[start + i] = part[i]
    for i in range(n):
        c.id[i] = i
        c.name[i] = -1
    for i in range(names.count):
        c.name[names.id[i]] = i
    c.count = n
    c.ascending = True
    drop_lowest(c)
    return True


cdef inline Py_ssize_t list_few(
    const real *x, const Names *names, Py_ssize_t selected, Workspace *work, Candidates *c,
    Py_ssize_t *worst,
) noexcept nogil:
    """Make candidates of what is selected of a row and of what is named; there is room for them.

    Return how many of them are not named, and write which of these is the worst.
    """
    cdef const real *value = <const real *>work.value
    cdef Py_ssize_t i, m = 0, others
    cdef real lowest = infinity(<real>0)
    for i in range(selected):
        c.id[m] = work.index[i]
        c.score[m] = value[i]
        c.name[m] = -1
        if names.count == 0 or name_of(names, work.index[i]) < 0:
            if value[i] <= lowest:
                lowest = value[i]
                worst[0] = work.index[i]
            m += 1
    others = m
    for i in range(names.count):
        c.id[m] = names.id[i]
        c.score[m] = row_element(x, names.id[i], work.packed)
        c.name[m] = i
        m += 1
    c.count = m
    c.ascending = names.count == 0
    drop_lowest(c)
    return others


cdef inline double score_of(const Candidates *c, Py_ssize_t id) noexcept nogil:
    """Return the score of an id, -inf if it is not left."""
    cdef Py_ssize_t i
    for i in range(c.count):
        if c.id[i] == id:
            return c.score[i]
    return -infinity(<double>0)


cdef inline void raise_capped(Candidates *c, Py_ssize_t id) noexcept nogil:
    """Raise the score of an id above that of all that was lower before it was capped.

    The C library's tanh errs by 2 units in the last place, and what follows by one each.
    """
    cdef Py_ssize_t i
    for i in range(c.count):
        if c.id[i] == id:
            c.score[i] += fabs(c.score[i]) * 8.8817841970012523e-16 * 4


cdef inline Py_ssize_t run_until_gone(
    const Chain *chain, Names *names, Py_ssize_t worst, Py_ssize_t others, bint is_float64,
    const double **u, Candidates *c,
) noexcept nogil:
    """Run the first steps until one removes the token `worst`; return how many have run.

    -1 if none removes it. It is the last of so many `others`, the tokens that no step names.
    """
    cdef const ChainStep *step
    cdef double score = score_of(c, worst), least
    cdef Py_ssize_t done, i, kept
    if score == -infinity(<double>0) and c.count > 0:
        return 0
    for done in range(chain.n_first):
        step = chain.steps + done
        kept = max_kept(step)
        if c.count == 0 or others < kept:
            return -1
        if kept > 0:
            if chain.caps:
                raise_capped(c, worst)
            score = score_of(c, worst)
            if step.op == TOP_K and not c.ascending:  # what scores less is gone, named or not
                keep_above(c, score, 1)
        run_step(c, step, names, chain.eps, u)
        if kept > 0 and c.count > 0 and score_of(c, worst) == -infinity(<double>0):
            # In float64, a division can round two scores to one, and then the lower id wins.
            least = c.score[0]
            for i in range(c.count):
                least = min(least, c.score[i])
            return -1 if is_float64 and score >= least else done + 1
    return -1


cdef inline bint allow_selection(
    const real *x, Py_ssize_t n, Py_ssize_t k, Workspace *work
) noexcept nogil:
    """Make room for the selection of k elements of a row; return False if there is no memory."""
    cdef Py_ssize_t row = work.row.index
    if k <= work.most:
        return True
    free_workspace(work)
    if not allocate_workspace(work, n, k, work.row.rows):
        return False
    work.row.index = row
    begin_row(work.packed, row, n)
    max_and_block_maxima(x, n, CHUNK, <real *>work.maxima, work.packed)
    return True


cdef inline Py_ssize_t run_on_few(
    const real *x, Py_ssize_t n, const Chain *chain, Names *names, const double **u,
    Workspace *work, Candidates *c,
) noexcept nogil:
    """Run the first steps on the few candidates that they can leave; return how many have run.

    INVALID if that takes many, or NO_MEMORY. `work` has the block maxima of CHUNK.
    """
    cdef Py_ssize_t k = initial_selection(chain.kept, names.count)
    cdef Py_ssize_t others, done, worst = 0
    while chain.kept > 0 and k * 8 < n and n > SHORT_ROW:
        if not allow_selection(x, n, k, work) or not make_room(c, k + names.count):
            return NO_MEMORY
        # Of a row that another thread writes into there may be more.
        others = min(k, select_k(x, n, k, <real *>work.maxima, True, work))
        others = list_few(x, names, others, work, c, &worst)
        if others > 0:
            done = run_until_gone(
                chain, names, worst, others, real is double, u, c
            )
            if done >= 0:
                return done
        if stopped(n):
            return INVALID
        k *= 8
    return INVALID
