"""Many short sequences drawn from a table of scores, compiled by numba, on all cores."""

import numba
import numpy as np

import fastsoftmax


@numba.njit(nogil=True, parallel=True, cache=True)
def chains(logits, first, steps, seed):
    """Return chains of states: from each state the next is drawn by softmax(logits[state])."""
    states = np.empty((len(first), steps + 1), np.int64)
    for chain in numba.prange(len(first)):
        states[chain, 0] = first[chain]
        for step in range(steps):
            states[chain, step + 1] = fastsoftmax.sample(
                logits[states[chain, step]], seed=seed, position=chain * steps + step
            )
    return states


@numba.njit(nogil=True)
def stationary(logits, rounds):
    """Return the shares in which such chains are in each state, after so many rounds."""
    transition = fastsoftmax.softmax(logits)
    shares = np.full(len(logits), 1 / len(logits))
    for _ in range(rounds):
        shares = shares @ transition
    return shares
