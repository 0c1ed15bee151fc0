# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What a race is drawn by: a seed and a position for each row, and no generator."""

from libc.stdint cimport uint64_t

cimport numpy as cnp

import numpy as np

from .._arguments import values

from fastsoftmax._front.plan cimport Plan, batch_shape_of
from fastsoftmax._front.uniforms cimport parse_words
from fastsoftmax._kernels.abi cimport Race

cnp.import_array()


cdef class RaceArgs:
    """The seeds and positions of a call, and room for the scores of what is drawn."""

    cdef int set_part(self, const Plan *p, object first_id, object highest) except -1:
        """Make the rows parts of longer ones: `first_id` and `highest` as in `race_part`."""
        self.race.first_id = values.count(first_id, "first_id", 0) // 128 * 128
        if self.race.first_id != first_id:
            raise ValueError(f"first_id is {first_id}; allowed are multiples of 128")
        highest = np.ascontiguousarray(np.broadcast_to(highest, batch_shape_of(p)), np.float64)
        self.race.highest = <const double *>cnp.PyArray_DATA(highest)
        self.highest = highest
        self.scores = np.full(batch_shape_of(p), -np.inf)  # a part with nothing to draw keeps it
        self.race.scores = <double *>cnp.PyArray_DATA(self.scores)
        return 0


cdef RaceArgs race_args(const Plan *p, Py_ssize_t m, rng, seed, position):
    """Return the checked arguments of races with m draws a row; raise where one is wrong."""
    cdef RaceArgs args = RaceArgs.__new__(RaceArgs)
    cdef Race *race = &args.race
    if rng is not None or not (
        parse_words(seed, p, &args.one_seed, &race.seeds, &race.seed_stride)
        and parse_words(
            position, p, &args.one_position, &race.positions, &race.position_stride
        )
    ):
        seed, position = values.race_words(rng, seed, position, batch_shape_of(p))
        race.seeds = <const uint64_t *>cnp.PyArray_DATA(seed)
        race.positions = <const uint64_t *>cnp.PyArray_DATA(position)
        race.seed_stride = race.position_stride = 1
    args.seed, args.position = seed, position
    race.scores = &args.one_score
    if p.rows * m != 1:
        args.scores = np.empty(p.rows * m)
        race.scores = <double *>cnp.PyArray_DATA(args.scores)
    race.first_id = 0
    race.highest = NULL
    race.map = NULL
    return args
