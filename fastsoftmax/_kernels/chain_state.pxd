# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What the step with a state, the last of a chain, will remember of the token that is drawn."""

from libc.math cimport log
from libc.stdint cimport int64_t

from fastsoftmax._kernels.chain_abi cimport (
    ADAPTIVE_P,
    MIROSTAT,
    ChainStep,
    NextState,
    PastTokens,
)
from fastsoftmax._kernels.chain_list cimport Candidates, logprob_of
from fastsoftmax._kernels.chain_resolve cimport surprise_limit
from fastsoftmax._kernels.chain_steps cimport adaptive_sums


cdef inline double value_of(const Candidates *c, int64_t id) noexcept nogil:
    """Return the value of an id among candidates; it is one of them."""
    cdef Py_ssize_t i = 0
    while i < c.count - 1 and c.id[i] != id:
        i += 1
    return c.value[i]


cdef inline void write_next_state(
    const ChainStep *steps, Py_ssize_t n_steps, const PastTokens *past, const Candidates *c,
    int64_t id, NextState *state,
) noexcept nogil:
    """Write the state after `id`, which is drawn from candidates that are weighed, if any."""
    cdef const ChainStep *step = steps + n_steps - 1
    cdef double sums[2]
    cdef double mu
    state.count = 0
    state.id = id
    if n_steps == 0 or id < 0:
        return
    if step.op == MIROSTAT:
        mu = surprise_limit(step, past)
        state.numbers[0] = mu - step.b * (-logprob_of(c, id) / log(<double>2) - step.a)
        state.count = 1
    elif step.op == ADAPTIVE_P:
        adaptive_sums(step, past, sums)
        state.numbers[0] = value_of(c, id) + step.b * sums[0]
        state.numbers[1] = 1 + step.b * sums[1]
        state.count = 2
