# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A row through a whole chain, by the shortest way."""

from libc.stdint cimport int64_t, uint64_t

from fastsoftmax._kernels.block_maxima cimport CHUNK
from fastsoftmax._kernels.block_select cimport select_k
from fastsoftmax._kernels.abi cimport Race
from fastsoftmax._kernels.chain_abi cimport ALLOWED_TOKENS, TEMPERATURE, TOP_P, PastTokens
from fastsoftmax._kernels.chain_list cimport Candidates, highest_score, make_room
from fastsoftmax._kernels.chain_mass cimport (
    FIRST_SELECTION,
    LONG_ENOUGH,
    cut_by_sums,
    cut_nucleus,
    cuts_by_sums,
    is_cut_deeper,
)
from fastsoftmax._kernels.chain_names cimport Names, name_tokens
from fastsoftmax._kernels.chain_race cimport RACE_LIMIT, race_beside_names, race_in_row
from fastsoftmax._kernels.chain_row cimport (
    INVALID,
    NO_MEMORY,
    Chain,
    allow_selection,
    list_all,
    list_few,
    list_given,
    run_on_few,
)
from fastsoftmax._kernels.chain_steps cimport run_step
from fastsoftmax._kernels.chain_whole cimport (
    Scores,
    draw_from_scores,
    order_names,
    sum_weights,
)
from fastsoftmax._kernels.exp_scale cimport inverse_temperature
from fastsoftmax._kernels.inverse_cdf cimport draw_from_row
from fastsoftmax._kernels.packed_row cimport row_element
from fastsoftmax._kernels.race_blocks cimport RACE_BLOCK, max_for_race
from fastsoftmax._kernels.row_maximum cimport first_max, max_and_block_maxima
from fastsoftmax._kernels.score_map cimport divide_scores, map_error, map_scores
from fastsoftmax._kernels.signals cimport stopped
from fastsoftmax._kernels.token_logprobs cimport log1p_of_others
from fastsoftmax._kernels.types cimport infinity, real
from fastsoftmax._kernels.workspace cimport Workspace

cdef struct Draw:  # of a row, while its chain runs
    const Race *race  # NULL: by the uniform
    Py_ssize_t row
    const uint64_t *words  # of a race in the whole row, or NULL
    bint weighed  # whether what is drawn is to be left as a candidate that is weighed
    Py_ssize_t id  # INVALID if the candidates that are left are still to be drawn from


cdef inline bint only_divides(const Chain *chain) noexcept nogil:
    """Return whether the first steps are one temperature, or none."""
    return chain.n_first == 0 or chain.n_first == 1 and chain.steps[0].op == TEMPERATURE


cdef inline bint races_in_row(const Chain *chain, Py_ssize_t n, const Draw *draw) noexcept nogil:
    """Return whether a race is drawn from all of a row of n, by block maxima of RACE_BLOCK."""
    return (
        draw != NULL and draw.race != NULL and n >= LONG_ENOUGH
        and chain.n_first == chain.n_steps and chain.kept == 0 and only_divides(chain)
    )


cdef inline Py_ssize_t draw_whole(
    const real *x, Py_ssize_t n, double highest, const Chain *chain, Names *names,
    const double **u, Workspace *work, Candidates *c, const Draw *draw,
) noexcept nogil:
    """Return the id drawn from a row whose scores the chain changes and of which it removes none.

    INVALID if all of it must be listed, or NO_MEMORY. `work` has the block maxima of CHUNK, or for
    `races_in_row` of RACE_BLOCK.
    """
    cdef double temperature = chain.steps[0].a if chain.n_first else 1
    cdef double inverse
    cdef Scores s
    cdef Py_ssize_t i, worst = 0, others = 0, k = FIRST_SELECTION
    if only_divides(chain):
        c.highest = highest
        divide_scores(&c.highest, 1, temperature)
        if not -infinity(<double>0) < c.highest < infinity(<double>0):
            return INVALID
        if not make_room(c, 1):
            return NO_MEMORY
        if draw.weighed:
            i = first_max(
                x, n, CHUNK if draw.race == NULL else RACE_BLOCK, <real>highest,
                <const real *>work.maxima, work.packed,
            )
            c.log_total = log1p_of_others(
                x, n, i, highest, temperature, <double *>work.keys, work.packed
            )
        inverse = inverse_temperature(temperature, <double>0)
        if draw.race != NULL:
            c.id[0] = race_in_row(
                draw.race, draw.row, x, n, highest, inverse, draw.words, work
            )
            if c.id[0] < 0:
                return INVALID
        else:
            c.id[0] = draw_from_row(
                x, n, u[0][0], highest, inverse, NULL, <double *>work.keys, work.packed
            )
        if draw.weighed:
            c.count = 1
            c.score[0] = row_element(x, c.id[0], work.packed)
            divide_scores(c.score, 1, temperature)
        return c.id[0]
    while others == 0:  # until the best of those that no step names is there
        if k * 8 >= n:
            return INVALID
        if not allow_selection(x, n, k, work) or not make_room(c, k + names.count):
            return NO_MEMORY
        others = min(k, select_k(x, n, k, <real *>work.maxima, True, work))
        others = list_few(x, names, others, work, c, &worst)
        k *= 8
    for i in range(chain.n_steps):
        if c.count == 0 or not run_step(c, chain.steps + i, names, chain.eps, u):
            return INVALID
    c.highest = highest_score(c)
    if not -infinity(<double>0) < c.highest < infinity(<double>0):
        return INVALID
    order_names(names, c)
    s.map.steps = chain.steps
    s.map.n_steps = chain.n_steps
    s.error = 0 if draw.weighed else map_error(&s.map)
    if s.error == infinity(<double>0):
        s.error = 0
    s.names = names
    s.packed = work.packed
    if draw.race == NULL:
        return draw_from_scores(&s, x, n, u[0][0], <double *>work.keys, c)
    if not -RACE_LIMIT <= c.highest <= RACE_LIMIT:
        return INVALID
    if draw.weighed:
        sum_weights(&s, x, n, False, NULL, c)
    inverse = 1
    for i in range(chain.n_steps):
        if chain.steps[i].op == TEMPERATURE and not chain.caps:
            inverse *= inverse_temperature(chain.steps[i].a, <double>0)
    race_beside_names(
        draw.race, draw.row, x, n, highest, inverse, &s.map if chain.caps else NULL, names, work, c
    )
    if c.id[0] < 0:
        return INVALID
    if c.name[0] < 0:
        c.score[0] = row_element(x, c.id[0], work.packed)
        map_scores(&s.map, c.score, 1)
    return c.id[0]


cdef inline int64_t run_chain(
    const real *x, Py_ssize_t n, const Chain *chain, const PastTokens *history, const double **u,
    Workspace *work, Names *names, Candidates *c, Draw *draw,
) noexcept nogil:
    """Leave in `c` what a chain leaves of a row; return how many, INVALID or NO_MEMORY.

    `u` becomes where the next random number is. Where `draw` is not NULL, an id may be drawn by it
    and written there: then nothing is in `c`, or that id alone.
    """
    cdef double highest
    cdef bint is_long = n >= LONG_ENOUGH
    cdef Py_ssize_t done
    if draw != NULL:
        draw.id = INVALID
    if races_in_row(chain, n, draw):
        highest = max_for_race(draw.race, draw.row, x, n, work, &draw.words)
    else:
        highest = max_and_block_maxima(x, n, CHUNK, <real *>work.maxima, work.packed)
    if highest != highest:
        return INVALID
    if not name_tokens(names, chain.steps, chain.n_steps, history, n):
        return NO_MEMORY
    done = run_on_few(x, n, chain, names, u, work, c)
    if done == INVALID and is_long and chain.kept == 0:
        if chain.n_first == chain.n_steps:
            if draw != NULL:
                draw.id = draw_whole(x, n, highest, chain, names, u, work, c, draw)
                if draw.id != INVALID:
                    return draw.id if draw.id == NO_MEMORY else n
        elif real is float and cuts_by_sums(chain.steps + chain.n_first):
            if chain.steps[chain.n_first].op == TOP_P and only_divides(chain) and not (
                chain.n_first + 1 < chain.n_steps
                and is_cut_deeper(chain.steps + chain.n_first + 1)
            ):
                done = cut_nucleus(x, n, highest, chain, names, u, work, c)
            else:
                done = cut_by_sums(x, n, chain, names, u, work, c)
    if done == NO_MEMORY:
        return NO_MEMORY
    if done < 0:
        done = 0
        if chain.n_steps > 0 and chain.steps[0].op == ALLOWED_TOKENS:
            if not list_given(
                x, chain.steps[0].ids, chain.steps[0].n_ids, names, work, c
            ):
                return NO_MEMORY
        elif not list_all(x, n, names, work, c):
            return NO_MEMORY
    while done < chain.n_steps:
        if c.count == 0 or stopped(c.count):
            return INVALID
        if not run_step(c, chain.steps + done, names, chain.eps, u):
            return INVALID
        done += 1
    if c.count == 0 or not highest_score(c) < infinity(<double>0):
        return INVALID
    return c.count
