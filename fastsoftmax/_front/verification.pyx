# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Verification of drafts, and steps of beam search, over one instruction set's kernels.

Here a plan has two kinds of rows: those of logits, and the requests (or groups of beams) that have
some of them each, in which parameters and results are counted. Kernels find the logits' rows one by
one, as they need them.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t

cimport numpy as cnp

from .._arguments import values
from .._arguments import verification as arguments
from .._arguments.results import BeamStep, Verified

from fastsoftmax._front.arrays cimport as_input, as_int64, numbers_as_array
from fastsoftmax._front.cost cimport cost_draw, cost_exp
from fastsoftmax._front.execute cimport parse_workers, run_rows
from fastsoftmax._front.filters cimport FilterArgs, parse_filters
from fastsoftmax._front.masks cimport MaskArgs, masks_of, parse_mask
from fastsoftmax._front.packed_rows cimport row_source
from fastsoftmax._front.plan cimport Plan, batch_shape_of, begin_plan, finish_plan
from fastsoftmax._front.race cimport RaceArgs, race_args
from fastsoftmax._front.results cimport empty_draws, new_tuple
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._front.uniforms cimport independent_uniforms
from fastsoftmax._front.values cimport is_behaved_c, scalar_or_array, whole_number
from fastsoftmax._kernels.abi cimport FLOAT32, FLOAT64, PackingKernels, SamplingKernels
from fastsoftmax._kernels.verify_abi cimport (
    BLOCKS,
    CHAIN,
    RACES,
    BeamCall,
    RowSource,
    VerifyCall,
)

cnp.import_array()


cdef cnp.ndarray checked_drafts(object ids, const Plan *requests, Py_ssize_t length):
    """Return the argument `draft_ids` as int64, C-contiguous: `length` ids for each request.

    Raise where one is neither that of an element of a row nor -1.
    """
    cdef cnp.ndarray a
    cdef const int64_t *id
    cdef int d, ndim = requests.ndim - 1
    cdef Py_ssize_t i
    cdef bint good
    ids = as_int64(numbers_as_array(ids))
    good = (
        is_behaved_c(ids) and cnp.PyArray_TYPE(ids) == cnp.NPY_INT64
        and cnp.PyArray_NDIM(ids) == ndim + 1
    )
    if good:
        a = ids
        good = cnp.PyArray_DIM(a, ndim) == length
        for d in range(ndim):
            good = good and cnp.PyArray_DIM(a, d) == requests.shape[d]
        id = <const int64_t *>cnp.PyArray_DATA(a)
        for i in range(cnp.PyArray_SIZE(a) if good else 0):
            good &= -1 <= id[i] < requests.n
    if not good:
        a = arguments.drafted_ids(ids, (*batch_shape_of(requests), length), requests.n)
    return a


cdef bint has_shape(cnp.ndarray a, cnp.ndarray logits) noexcept:
    """Return whether an array has a row less than logits, for each request."""
    cdef int d, ndim = cnp.PyArray_NDIM(logits)
    if cnp.PyArray_NDIM(a) != ndim:
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(logits, d) - (d == ndim - 2):
            return False
    return True


cdef cnp.ndarray checked_scores(object scores, const Plan *p):
    """Return the argument `scores` as float64, C-contiguous: one for each row of the plan.

    Raise where one is NaN or +inf.
    """
    cdef cnp.ndarray a
    cdef const double *score
    cdef int d, ndim = p.ndim - 1
    cdef Py_ssize_t i
    cdef bint good = (
        is_behaved_c(scores) and cnp.PyArray_TYPE(scores) == cnp.NPY_FLOAT64
        and cnp.PyArray_NDIM(scores) == ndim
    )
    if good:
        a = scores
        for d in range(ndim):
            good = good and cnp.PyArray_DIM(a, d) == p.shape[d]
        score = <const double *>cnp.PyArray_DATA(a)
        for i in range(cnp.PyArray_SIZE(a) if good else 0):
            good &= score[i] < INFINITY
    return scores if good else arguments.beam_scores(scores, batch_shape_of(p))


cdef bint is_flag(object on_invalid) except -1:
    """Return whether invalid rows are to be flagged."""
    if type(on_invalid) is str and on_invalid == "raise":
        return False
    return values.choice(on_invalid, "on_invalid", ("raise", "flag")) == "flag"


cdef class VerificationFunctions:
    """The functions that verify drafts and search by beams, by the kernels of one instruction set.

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

    def verify(
        self,
        draft_ids,
        logits,
        draft_logits=None,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        min_p=None,
        min_keep=1,
        mask=None,
        mask_rows=None,
        rng=None,
        seed=None,
        position=None,
        method="chain",
        on_invalid="raise",
        workers=None,
    ):
        cdef Plan p, q, requests
        cdef VerifyCall call
        cdef RowSource target, draft
        cdef FilterArgs args
        cdef RaceArgs race
        cdef MaskArgs masks
        cdef cnp.ndarray given, drafted = None, checked, ids, counts
        cdef Py_ssize_t i, length
        cdef double one = 0
        cdef bint flag, valid = True
        cdef int64_t *count
        workers = parse_workers(workers)
        call.method = CHAIN
        if not (type(method) is str and method == "chain"):
            values.choice(method, "method", ("chain", "block", "race"))
            call.method = BLOCKS if method == "block" else RACES
        flag = is_flag(on_invalid)
        given = as_input(logits, "logits")
        if draft_logits is not None:
            drafted = as_input(draft_logits, "draft_logits")
        if (
            cnp.PyArray_NDIM(given) < 2
            or cnp.PyArray_DIM(given, cnp.PyArray_NDIM(given) - 2) < 1
            or drafted is not None and not has_shape(drafted, given)
        ):
            arguments.check_blocks(given, drafted)
        length = cnp.PyArray_DIM(given, cnp.PyArray_NDIM(given) - 2) - 1
        begin_plan(&requests, given[..., 0, :], -1)
        begin_plan(&p, given, -1)
        args = parse_filters(&requests, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        masks = parse_mask(&p, mask, mask_rows)
        checked = checked_drafts(draft_ids, &requests, length)
        call.race = NULL
        uniforms = None
        if call.method == RACES:
            race = race_args(&requests, 1, rng, seed, position)
            call.race = &race.race
        else:
            uniforms = independent_uniforms(&requests, length + 1, rng, seed, position, &one)
        ids = empty_draws(&requests, length + 1, True, cnp.NPY_INT64)
        counts = empty_draws(&requests, 0, False, cnp.NPY_INT64)
        count = <int64_t *>cnp.PyArray_DATA(counts)
        if requests.n == 0:
            ids.fill(-1)
            counts.fill(-1)
        elif requests.rows > 0:
            call.draft = NULL
            if drafted is not None and call.race == NULL:
                begin_plan(&q, drafted, -1)
                if q.dtype == FLOAT64 or p.dtype == FLOAT64:
                    p.dtype = q.dtype = FLOAT64
                finish_plan(&q, False)
                call.draft = row_source(&draft, &self.packing, &q, NULL)
            finish_plan(&p, False)
            call.dtype = p.dtype
            call.n = p.n
            call.length = length
            call.target = row_source(&target, &self.packing, &p, masks_of(masks))
            call.filters = args.data()
            call.filter_stride = args.stride()
            call.uniforms = &one
            if uniforms is not None:
                call.uniforms = <const double *>cnp.PyArray_DATA(uniforms)
            call.drafts = <const int64_t *>cnp.PyArray_DATA(checked)
            call.ids = <int64_t *>cnp.PyArray_DATA(ids)
            call.counts = count
            requests.effort = p.n * (length + 1) * (1 if call.draft == NULL else 2)
            run_rows(
                NULL, self.kernels.verify, &call, &requests,
                cost_draw(
                    <double>requests.rows * requests.effort, args.fewest() * p.rows,
                    <double>requests.rows,
                ),
                workers,
            )
        for i in range(requests.rows):
            valid &= count[i] > 0
        if not valid:
            arguments.finish_verify(counts, given, drafted, flag, mask, mask_rows)
        return new_tuple(Verified, (ids, scalar_or_array(counts)))

    def beam_step(
        self,
        logits,
        scores,
        beams,
        *,
        length=None,
        length_penalty=0.0,
        on_invalid="raise",
        workers=None,
    ):
        cdef Plan p, groups
        cdef BeamCall call
        cdef RowSource source
        cdef cnp.ndarray given, running, factors, kept, parents, ids, bad
        cdef Py_ssize_t i
        cdef bint flag, valid = True
        workers = parse_workers(workers)
        flag = is_flag(on_invalid)
        given = as_input(logits, "logits")
        if (
            cnp.PyArray_NDIM(given) < 2
            or cnp.PyArray_DIM(given, cnp.PyArray_NDIM(given) - 2) < 1
        ):
            arguments.check_groups(given)
        begin_plan(&groups, given[..., 0, :], -1)
        begin_plan(&p, given, -1)
        call.beams = cnp.PyArray_DIM(given, cnp.PyArray_NDIM(given) - 2)
        if not (whole_number(beams, &call.width) and call.width <= call.beams * p.n):
            call.width = values.count(beams, "beams", 0, call.beams * p.n)
        running = checked_scores(scores, &p)
        factors = None
        if not (length is None and type(length_penalty) is float and length_penalty == 0):
            factors = arguments.length_factors(length, length_penalty, batch_shape_of(&p))
        kept = empty_draws(&groups, call.width, True, cnp.NPY_FLOAT64)
        parents = empty_draws(&groups, call.width, True, cnp.NPY_INT64)
        ids = empty_draws(&groups, call.width, True, cnp.NPY_INT64)
        if cnp.PyArray_SIZE(ids) > 0:
            finish_plan(&p, False)
            bad = empty_draws(&groups, 0, False, cnp.NPY_INT64)
            call.bad = <int64_t *>cnp.PyArray_DATA(bad)
            call.dtype = p.dtype
            call.n = p.n
            call.source = row_source(&source, &self.packing, &p, NULL)
            call.running = <const double *>cnp.PyArray_DATA(running)
            call.factors = NULL
            if factors is not None:
                call.factors = <const double *>cnp.PyArray_DATA(factors)
            call.scores = <double *>cnp.PyArray_DATA(kept)
            call.parents = <int64_t *>cnp.PyArray_DATA(parents)
            call.ids = <int64_t *>cnp.PyArray_DATA(ids)
            groups.effort = p.n * call.beams
            run_rows(
                NULL, self.kernels.beam_step, &call, &groups,
                cost_exp(<double>p.rows * p.n, p.dtype == FLOAT32), workers,
            )
            for i in range(groups.rows):
                valid &= call.bad[i] < 0
            if not (valid or flag):
                arguments.fail_beam(given, bad)
        return new_tuple(BeamStep, (kept, parents, ids))
