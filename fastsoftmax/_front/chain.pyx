# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Chains of a `Sampler`'s steps over one instruction set's kernels.

What is ordinary is done here, in C: arrays of logits, lists and arrays of token ids. Anything else,
and rows for which the kernel has no id, are for the readable chain of ``_sampler``.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

cimport numpy as cnp

from .._arguments import values
from .._arguments.results import SamplerResult, TopLogprobs

from fastsoftmax._front.arrays cimport as_input, is_narrow_float
from fastsoftmax._front.chain_arguments cimport (
    ANY_SIZE,
    Histories,
    Program,
    Uniforms,
    join_programs,
    parse_histories,
)
from fastsoftmax._front.cost cimport cost_draw, cost_exp
from fastsoftmax._front.execute cimport parse_workers, run_rows
from fastsoftmax._front.masks cimport MaskArgs, masks_of, parse_mask
from fastsoftmax._front.packed_rows cimport masked_rows, packing_for
from fastsoftmax._front.plan cimport Plan, allocate, begin_plan, finish_plan, set_array
from fastsoftmax._front.race cimport RaceArgs, race_args
from fastsoftmax._front.results cimport as_result, empty_draws, new_tuple, number_of
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._front.values cimport scalar_or_array
from fastsoftmax._kernels.abi cimport PackedRows, PackingKernels, SamplingKernels
from fastsoftmax._kernels.chain_abi cimport ChainCall, ChainReport, Left, NextState

cnp.import_array()


cdef enum:
    MORE = 8  # draws from a row, the first of which may be refused


cdef Histories begin(Plan *p, cnp.ndarray x, Program program, object ids, object prompt):
    """Begin the plan of a call; return the tokens so far, None where something is not ordinary."""
    if not 1 <= cnp.PyArray_NDIM(x) <= 2:
        return None
    begin_plan(p, x, -1)
    if program.highest_id >= p.n or program.size != ANY_SIZE and program.size != p.n:
        return None
    if program.rows >= 0 and (p.ndim == 1 or program.rows != p.rows):
        return None
    return parse_histories(p, ids, prompt)


cdef list empty_report(const Plan *p, ChainReport *report, object n):
    """Return arrays for what is reported of the rows, with the n most likely of each."""
    cdef cnp.ndarray logprobs, filtered, rank, entropy, top, top_ids
    report.n_top = values.count(n, "logprobs", 0, p.n)
    logprobs = empty_draws(p, 1, False, number_of(p))
    filtered = empty_draws(p, 1, False, number_of(p))
    rank = empty_draws(p, 1, False, cnp.NPY_INT64)
    entropy = empty_draws(p, 1, False, number_of(p))
    top = empty_draws(p, report.n_top, True, number_of(p))
    top_ids = empty_draws(p, report.n_top, True, cnp.NPY_INT64)
    report.logprobs = cnp.PyArray_DATA(logprobs)
    report.filtered = cnp.PyArray_DATA(filtered)
    report.rank = <int64_t *>cnp.PyArray_DATA(rank)
    report.entropy = cnp.PyArray_DATA(entropy)
    report.top_logprobs = cnp.PyArray_DATA(top)
    report.top_ids = <int64_t *>cnp.PyArray_DATA(top_ids)
    return [logprobs, filtered, rank, entropy, top, top_ids]


cdef class ChainFunctions:
    """What `Sampler` runs its steps by: the kernels of one instruction set.

    Parameters
    ----------
    name : str
        That of the instruction set.
    sample, packing : module
        Its kernels, named after their sources.
    """

    cdef readonly str NAME
    cdef SamplingKernels kernels
    cdef PackingKernels packing

    def __cinit__(self, str name, sample, packing):
        self.NAME = name
        copy_table(sample.kernels, &self.kernels)
        copy_table(packing.kernels, &self.packing)

    def compile(self, list steps, rows):
        """Return the program of a sampler's steps: see `Program`."""
        return Program(steps, rows)

    def join(self, list programs):
        """Return a program that runs one of some programs on each row."""
        return join_programs(programs)

    def draw(
        self, Program program not None, logits, ids, prompt, mask, mask_rows, rng, seed, position,
        method, workers, logprobs, bint asks,
    ):
        """Draw from the rows of `logits` through a program; return the ids.

        Or, where `logprobs` is not None, a SamplerResult. Return None where an argument is not
        ordinary, or wrong: nothing is drawn from `rng` then. Where some rows are for the readable
        chain, or the caller `asks` for all, return the ids, with -1 for these, the uniforms of
        each row, and the arrays of what is reported. A caller that `asks` may draw again: of a seed
        there are uniforms for MORE draws then.
        """
        cdef Plan p
        cdef ChainCall call
        cdef Uniforms u = Uniforms.__new__(Uniforms)
        cdef cnp.ndarray given = as_input(logits, "logits")
        cdef cnp.ndarray drawn
        cdef Histories histories = begin(&p, given, program, ids, prompt)
        cdef MaskArgs masks
        cdef RaceArgs race = None
        workers = parse_workers(workers)
        if histories is None or program.stateful and histories.history is None:
            return None
        masks = parse_mask(&p, mask, mask_rows)
        report = None
        call.race = NULL
        if not (type(method) is str and method == "inverse"):
            values.choice(method, "method", ("inverse", "race"))
            if method == "race":
                race = race_args(&p, 1, rng, seed, position)
                call.race = &race.race
        call.reports = logprobs is not None
        if call.reports:
            report = empty_report(&p, &call.report, logprobs)
        u.draw(
            &p, program,
            0 if race is not None else 1 if not asks or seed is None else MORE, rng, seed, position,
        )
        drawn = empty_draws(&p, 1, False, cnp.NPY_INT64)
        call.filters = False
        call.left = NULL
        if self.run(&p, &call, program, histories, masks, u, drawn, workers) and not asks:
            return scalar_or_array(drawn) if report is None else self.finish(
                &p, given, drawn, report
            )
        return drawn, u, report

    def filter(
        self, Program program not None, logits, ids, prompt, mask, mask_rows, rng, seed, position,
        workers,
    ):
        """Return the scores that a program leaves, else what `draw` does.

        But in place of ids a number for each row, -1 as there; behind the uniforms the scores.
        """
        cdef Plan p
        cdef ChainCall call
        cdef Uniforms u = Uniforms.__new__(Uniforms)
        cdef cnp.ndarray given = as_input(logits, "logits")
        cdef cnp.ndarray good, y
        cdef Histories histories = begin(&p, given, program, ids, prompt)
        cdef MaskArgs masks
        workers = parse_workers(workers)
        if histories is None or is_narrow_float(p.x.element):
            return None
        masks = parse_mask(&p, mask, mask_rows)
        u.draw(&p, program, 0, rng, seed, position)
        good = empty_draws(&p, 1, False, cnp.NPY_INT64)
        y = cnp.PyArray_EMPTY(p.ndim, <cnp.npy_intp *>p.shape, number_of(&p), 0)
        set_array(&p.y, y, "scores", &p)
        call.filters = True
        call.reports = False
        call.race = NULL
        call.left = NULL
        if self.run(&p, &call, program, histories, masks, u, good, workers):
            return y
        return good, u, y

    def left(self, Program program not None, row, ids, prompt, mask, list numbers):
        """Return the ids and scores that a program leaves of a row; None if it is for another.

        `numbers` are those that its steps take, and others behind them.
        """
        cdef Plan p
        cdef ChainCall call
        cdef Left left
        cdef cnp.npy_intp count
        cdef Uniforms u = Uniforms.__new__(Uniforms)
        cdef cnp.ndarray good, kept, scores
        cdef Histories histories = begin(&p, as_input(row, "logits"), program, ids, prompt)
        cdef MaskArgs masks
        if histories is None or p.ndim != 1:
            return None
        masks = parse_mask(&p, mask, None)
        u.take(numbers)
        good = empty_draws(&p, 1, False, cnp.NPY_INT64)
        left.ids = NULL
        call.filters = True
        call.reports = False
        call.race = NULL
        call.left = &left
        try:
            if not self.run(&p, &call, program, histories, masks, u, good, 1):
                return None
            count = left.count
            kept = cnp.PyArray_EMPTY(1, &count, cnp.NPY_INT64, 0)
            scores = cnp.PyArray_EMPTY(1, &count, cnp.NPY_FLOAT64, 0)
            memcpy(cnp.PyArray_DATA(kept), left.ids, 8 * left.count)
            memcpy(cnp.PyArray_DATA(scores), left.scores, 8 * left.count)
            return kept, scores
        finally:
            free(left.ids)

    cdef bint run(
        self, Plan *p, ChainCall *call, Program program, Histories histories, MaskArgs masks,
        Uniforms u, cnp.ndarray ids, workers,
    ) except -1:
        """Run the kernel on the rows of a plan; return whether it has done all of them."""
        cdef PackedRows rows
        cdef NextState *states = NULL
        cdef int64_t *id = <int64_t *>cnp.PyArray_DATA(ids)
        cdef Py_ssize_t i
        cdef bint valid = True
        cdef double size = <double>p.rows * p.n
        if p.n == 0:
            for i in range(p.rows):
                id[i] = -1
        elif p.rows > 0:
            finish_plan(p, False)
            call.dtype = p.dtype
            call.n = p.n
            call.packed = masked_rows(&rows, &self.packing, p, masks_of(masks))
            call.steps = program.steps
            call.n_steps = program.n_steps
            call.starts = program.starts
            call.history = histories.rows
            call.uniforms = u.data
            call.first_uniforms = u.first
            call.m = u.m
            call.ids = id
            call.resolves = program.resolves
            if program.stateful and not call.filters:
                states = <NextState *>allocate(p.rows, sizeof(NextState))
                if states == NULL:
                    raise MemoryError(f"no memory for the states of {p.rows} rows")
            call.states = states
            p.effort = p.n
            histories.borrow()
            try:
                run_rows(
                    packing_for(call.packed, &self.packing), self.kernels.chain, call, p,
                    cost_draw(size, <double>program.fewest * p.rows, p.rows)
                    + (cost_exp(2 * size, False) if call.reports else 0),
                    workers,
                )
                if states != NULL:
                    histories.foresee(states)
            finally:
                histories.give_back()
                free(states)
        for i in range(p.rows):
            valid &= id[i] >= 0
        return valid

    cdef object finish(self, const Plan *p, cnp.ndarray x, cnp.ndarray ids, list report):
        """Return a SamplerResult of ids and of the arrays that `empty_report` has made."""
        logprobs, filtered, rank, entropy, top, top_ids = report
        return new_tuple(SamplerResult, (
            scalar_or_array(ids), as_result(&self.packing, p, x, logprobs),
            as_result(&self.packing, p, x, filtered), scalar_or_array(rank),
            new_tuple(TopLogprobs, (as_result(&self.packing, p, x, top), top_ids)),
            as_result(&self.packing, p, x, entropy),
        ))
