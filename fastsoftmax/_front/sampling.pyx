# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sampling, its filters and log-probabilities over one instruction set's kernels.

Rows are logits along the last axis. Randomness is an argument of the kernels: the uniforms are
drawn before, in row order, so no lock is held and no number of threads changes them.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memset

cimport numpy as cnp

import numpy as np

from .._arguments import values
from .._arguments.accept import first_accepted
from .._arguments.results import SampleResult, Support, TopLogprobs

from fastsoftmax._front.arrays cimport as_input
from fastsoftmax._front.cost cimport cost_draw, cost_exp, cost_race
from fastsoftmax._front.execute cimport parse_workers, run_rows
from fastsoftmax._front.filters cimport FilterArgs, parse_filters
from fastsoftmax._front.masks cimport MaskArgs, masks_of, parse_mask
from fastsoftmax._front.packed_rows cimport masked_rows, packing_for
from fastsoftmax._front.plan cimport Plan, begin_plan, finish_plan, set_array, writable_result
from fastsoftmax._front.race cimport RaceArgs, race_args
from fastsoftmax._front.results cimport (
    as_result,
    empty_draws,
    first_columns,
    given_to,
    largest_of,
    new_tuple,
    number_of,
    raise_for_missing,
)
from fastsoftmax._front.row_arguments cimport checked_ids, row_temperatures, set_temperature
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._front.uniforms cimport uniforms_for
from fastsoftmax._front.values cimport scalar_or_array, whole_number
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    FilterLogitsCall,
    PackedRows,
    PackingKernels,
    SampleCall,
    SamplingKernels,
    SupportCall,
    TokenLogprobsCall,
    TopLogprobsCall,
)

cnp.import_array()

cdef enum:
    INITIAL_SUPPORT_WIDTH = 1024  # survivors a row that are provided for
    MOST_DRAWS = 1 << 30  # of all rows: for more it is asked whether memory can hold them


cdef class SamplingFunctions:
    """The functions that choose tokens, by the kernels of one instruction set.

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

    def sample(
        self,
        logits,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        min_p=None,
        min_keep=1,
        mask=None,
        mask_rows=None,
        accept=None,
        max_tries=1000,
        size=None,
        replace=True,
        rng=None,
        seed=None,
        position=None,
        method="inverse",
        on_invalid="raise",
        workers=None,
    ):
        cdef Plan p
        cdef cnp.ndarray given
        if accept is not None:
            return first_accepted(
                self.sample, logits, accept, max_tries, temperature=temperature, top_k=top_k,
                top_p=top_p, min_p=min_p, min_keep=min_keep, mask=mask, mask_rows=mask_rows,
                size=size, replace=replace, rng=rng, seed=seed, position=position, method=method,
                on_invalid=on_invalid, workers=workers,
            )
        if type(max_tries) is not int or max_tries < 1:
            values.count(max_tries, "max_tries", 1)
        given = as_input(logits, "logits")
        begin_plan(&p, given, -1)
        args = parse_filters(&p, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        masks = parse_mask(&p, mask, mask_rows)
        return self.draw(
            &p, given, args, masks, size, replace, rng, seed, position, method, None, on_invalid,
            workers, False,
        )

    def sample_with_logprobs(
        self, logits, *, temperature=1.0, top_k=None, top_p=None, min_p=None, min_keep=1,
        mask=None, mask_rows=None, size=None, replace=True, rng=None, seed=None, position=None,
        method="inverse", on_invalid="raise", workers=None,
    ):
        cdef Plan p
        cdef cnp.ndarray given = as_input(logits, "logits")
        begin_plan(&p, given, -1)
        args = parse_filters(&p, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        masks = parse_mask(&p, mask, mask_rows)
        return self.draw(
            &p, given, args, masks, size, replace, rng, seed, position, method, None, on_invalid,
            workers, True,
        )

    def race_part(self, logits, *, first_id, highest, temperature=1.0, seed=None, position=None):
        """Return the ids that win in a part of a vocabulary, and their scores: -1 and -inf if none.

        The part begins at `first_id`, a multiple of 128; `highest` is the maximum of each whole
        row. Of all parts the largest score wins, of equal ones the lowest id.
        """
        cdef Plan p
        cdef RaceArgs race
        cdef cnp.ndarray given = as_input(logits, "logits")
        begin_plan(&p, given, -1)
        race = race_args(&p, 1, None, seed, position)
        race.set_part(&p, first_id, highest)
        args = parse_filters(&p, &self.packing, temperature, None, None, None, 1)
        ids = self.draw(
            &p, given, args, None, None, True, None, seed, position, "race", race, "flag", None,
            False,
        )
        return np.where(ids >= 0, ids + first_id, -1), race.scores

    cdef object draw(
        self, Plan *p, cnp.ndarray x, FilterArgs args, MaskArgs masks, size, replace, rng, seed,
        position, method, RaceArgs race, on_invalid, workers, bint report,
    ):
        """Draw from the rows of a begun plan; return the ids, or a SampleResult if `report`."""
        cdef SampleCall call
        cdef PackedRows rows
        cdef const PackingKernels *packing
        cdef cnp.ndarray ids, logprobs, filtered, ranks
        cdef Py_ssize_t m = 1, i
        cdef double one = 0, cost
        cdef bint flag, valid = True
        cdef int64_t *id
        workers = parse_workers(workers)
        if size is not None and not (whole_number(size, &m) and m <= MOST_DRAWS // (p.rows + 1)):
            m = values.draws(size, p.rows)
        call.replace = replace if type(replace) is bool else values.switch(replace, "replace")
        flag = not (type(on_invalid) is str and on_invalid == "raise")
        if flag:
            values.choice(on_invalid, "on_invalid", ("raise", "flag"))
        call.race = NULL
        call.uniforms = &one
        if type(method) is str and method == "inverse":
            uniforms = uniforms_for(p, m, rng, seed, position, &one)
            if uniforms is not None:
                call.uniforms = <const double *>cnp.PyArray_DATA(uniforms)
        else:
            if not (type(method) is str and method == "race"):
                values.choice(method, "method", ("inverse", "race"))
            race = race_args(p, m, rng, seed, position) if race is None else race
            call.race = &race.race
        ids = empty_draws(p, m, size is not None, cnp.NPY_INT64)
        call.has_output = report
        if report:
            logprobs = empty_draws(p, m, size is not None, number_of(p))
            filtered = empty_draws(p, m, size is not None, number_of(p))
            ranks = empty_draws(p, m, size is not None, cnp.NPY_INT64)
            call.output.logprobs = cnp.PyArray_DATA(logprobs)
            call.output.filtered = cnp.PyArray_DATA(filtered)
            call.output.ranks = <int64_t *>cnp.PyArray_DATA(ranks)
        id = <int64_t *>cnp.PyArray_DATA(ids)
        if p.n == 0:
            ids.fill(-1)
            if report:
                logprobs.fill(np.nan)
                filtered.fill(np.nan)
                ranks.fill(-1)
        elif p.rows * m > 0:
            finish_plan(p, False)
            call.dtype = p.dtype
            call.n = p.n
            call.packed = masked_rows(&rows, &self.packing, p, masks_of(masks))
            call.filters = args.data()
            call.filter_stride = args.stride()
            call.m = m
            call.ids = id
            if call.race != NULL:
                p.effort = p.n + m * (8 + p.n // 8)
                cost = cost_race(<double>p.rows * p.n, <double>p.rows * m * p.n)
            else:
                p.effort = p.n + m
                cost = cost_draw(<double>p.rows * p.n, args.fewest() * p.rows, <double>p.rows * m)
            packing = packing_for(call.packed, &self.packing)
            run_rows(packing, self.kernels.sample, &call, p, cost, workers)
        for i in range(p.rows * m):
            valid &= id[i] >= 0
        if not valid and not flag:
            raise_for_missing(p, x, masks, ids, m, size)
        if not report:
            return scalar_or_array(ids)
        return new_tuple(SampleResult, (
            scalar_or_array(ids), as_result(&self.packing, p, x, logprobs),
            as_result(&self.packing, p, x, filtered),
            scalar_or_array(ranks),
        ))

    def filter_logits(
        self, logits, *, temperature=1.0, top_k=None, top_p=None, min_p=None, min_keep=1,
        mask=None, mask_rows=None, ties="index", out=None, workers=None,
    ):
        cdef Plan p
        cdef FilterLogitsCall call
        cdef PackedRows rows
        cdef FilterArgs args
        cdef MaskArgs masks
        cdef cnp.ndarray given, y
        workers = parse_workers(workers)
        call.every_tie = not (type(ties) is str and ties == "index")
        if call.every_tie:
            values.choice(ties, "ties", ("index", "all"))
        given = as_input(logits, "logits")
        begin_plan(&p, given, -1)
        args = parse_filters(&p, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        masks = parse_mask(&p, mask, mask_rows)
        other = None if masks is None else masks.array
        y = writable_result(out, &p, given, "logits", other)
        if p.rows > 0 and p.n > 0:
            set_array(&p.y, y, "out", &p)
            finish_plan(&p, False)
            call.dtype = p.dtype
            call.n = p.n
            call.packed = masked_rows(&rows, &self.packing, &p, masks_of(masks))
            call.filters = args.data()
            call.filter_stride = args.stride()
            call.largest = largest_of(y)
            if p.dtype == FLOAT32:
                call.largest = min(call.largest, 3.4028234663852886e+38)
            call.workspace, call.spare = &p.workspace, &p.spare
            self.kernels.filter_logits_bytes(&call, p.rows, &p.workspace.bytes, &p.spare.bytes)
            run_rows(
                packing_for(call.packed, &self.packing), self.kernels.filter_logits, &call, &p,
                cost_draw(<double>p.rows * p.n, args.fewest() * p.rows, 0), workers,
            )
        if out is None:
            return scalar_or_array(y)
        return given_to(out, y)

    def support(
        self, logits, *, temperature=1.0, top_k=None, top_p=None, min_p=None, min_keep=1,
        mask=None, mask_rows=None,
    ):
        cdef Plan p
        cdef SupportCall call
        cdef PackedRows rows
        cdef FilterArgs args
        cdef cnp.ndarray given = as_input(logits, "logits")
        cdef cnp.ndarray indices, probs, counts, kept, shares
        cdef Py_ssize_t most, width = -1, r
        cdef int64_t *count
        begin_plan(&p, given, -1)
        args = parse_filters(&p, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        masks = parse_mask(&p, mask, mask_rows)
        counts = empty_draws(&p, 0, False, cnp.NPY_INT64)
        count = <int64_t *>cnp.PyArray_DATA(counts)
        most = min(p.n, INITIAL_SUPPORT_WIDTH)
        memset(count, 0, p.rows * sizeof(int64_t))
        finish_plan(&p, False)
        while most > width:  # a second time if the room did not suffice
            width = most
            indices = empty_draws(&p, width, True, cnp.NPY_INT64)
            probs = empty_draws(&p, width, True, number_of(&p))
            if p.rows > 0 and p.n > 0:
                call.dtype = p.dtype
                call.n = p.n
                call.packed = masked_rows(&rows, &self.packing, &p, masks_of(masks))
                call.filters = args.data()
                call.filter_stride = args.stride()
                call.width = width
                call.indices = <int64_t *>cnp.PyArray_DATA(indices)
                call.probs = cnp.PyArray_DATA(probs)
                call.counts = count
                run_rows(
                    packing_for(call.packed, &self.packing), self.kernels.support, &call, &p, 0, 1
                )
            most = 0
            for r in range(p.rows):
                most = max(most, count[r])
        kept = first_columns(indices, width, most)
        shares = first_columns(probs, width, most)
        return new_tuple(
            Support, (kept, as_result(&self.packing, &p, given, shares), scalar_or_array(counts))
        )

    def token_logprobs(self, logits, ids, *, temperature=1.0, mask=None, mask_rows=None):
        cdef Plan p
        cdef TokenLogprobsCall call
        cdef PackedRows rows
        cdef double one = 1
        cdef double *each
        cdef cnp.ndarray given = as_input(logits, "logits")
        cdef cnp.ndarray checked, y
        begin_plan(&p, given, -1)
        temperature = set_temperature(&p, temperature, &one)
        checked = checked_ids(ids, &p)
        masks = parse_mask(&p, mask, mask_rows)
        y = cnp.PyArray_EMPTY(checked.ndim, cnp.PyArray_DIMS(checked), number_of(&p), 0)
        finish_plan(&p, False)
        each = row_temperatures(&p, &self.packing)  # wrong ones are told if no one looks, too
        if cnp.PyArray_SIZE(checked) == 0:
            free(each)
        else:
            call.dtype = p.dtype
            call.n = p.n
            call.packed = masked_rows(&rows, &self.packing, &p, masks_of(masks))
            call.temperature = each if each != NULL else &one
            call.temperature_stride = each != NULL
            call.m = cnp.PyArray_SIZE(checked) // p.rows
            call.ids = <const int64_t *>cnp.PyArray_DATA(checked)
            call.logprobs = cnp.PyArray_DATA(y)
            p.effort = p.n + call.m
            try:
                run_rows(
                    packing_for(call.packed, &self.packing), self.kernels.token_logprobs, &call, &p,
                    cost_exp(<double>p.rows * p.n, False), 1,
                )
            finally:
                free(each)
        return as_result(&self.packing, &p, given, y)

    def top_logprobs(self, logits, n, *, temperature=1.0, mask=None, mask_rows=None):
        cdef Plan p
        cdef TopLogprobsCall call
        cdef PackedRows rows
        cdef double one = 1
        cdef double *each
        cdef cnp.ndarray given = as_input(logits, "logits")
        cdef cnp.ndarray indices, y
        if type(n) is not int:
            n = values.count(n, "n", 0)
        begin_plan(&p, given, -1)
        if not 0 <= n <= p.n:
            values.count(n, "n", 0, p.n)
        temperature = set_temperature(&p, temperature, &one)
        masks = parse_mask(&p, mask, mask_rows)
        indices = empty_draws(&p, n, True, cnp.NPY_INT64)
        y = empty_draws(&p, n, True, number_of(&p))
        finish_plan(&p, False)
        each = row_temperatures(&p, &self.packing)  # wrong ones are told if no one looks, too
        if cnp.PyArray_SIZE(indices) == 0:
            free(each)
        else:
            call.dtype = p.dtype
            call.n = p.n
            call.packed = masked_rows(&rows, &self.packing, &p, masks_of(masks))
            call.temperature = each if each != NULL else &one
            call.temperature_stride = each != NULL
            call.k = n
            call.indices = <int64_t *>cnp.PyArray_DATA(indices)
            call.logprobs = cnp.PyArray_DATA(y)
            try:
                run_rows(
                    packing_for(call.packed, &self.packing), self.kernels.top_logprobs, &call, &p,
                    cost_exp(<double>p.rows * p.n, False), 1,
                )
            finally:
                free(each)
        return new_tuple(TopLogprobs, (as_result(&self.packing, &p, given, y), indices))
