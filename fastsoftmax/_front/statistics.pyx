# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sums over rows, entropies, divergences, and all at once, over one instruction set's kernels.

Kernels write float64 for each row, in the order of rows, which is rounded here once.
"""

from libc.math cimport INFINITY, NAN
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer

import numpy as np

from .._arguments import arrays as axes
from .._arguments import statistics as arguments
from .._arguments import values
from .._arguments.results import RowStats

from fastsoftmax._front.arrays cimport as_input
from fastsoftmax._front.cost cimport cost_exp
from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.execute cimport parse_workers, run_rows
from fastsoftmax._front.packed_rows cimport packed_rows, packing_for
from fastsoftmax._front.plan cimport (
    Plan,
    begin_plan,
    broadcast,
    finish_plan,
    set_operand,
    shape_of,
)
from fastsoftmax._front.results cimport as_result, empty_draws, empty_reduced
from fastsoftmax._front.row_arguments cimport (
    checked_ids,
    row_temperatures,
    set_mask,
    set_temperature,
)
from fastsoftmax._front.values cimport scalar_or_array
from fastsoftmax._kernels.abi cimport FLOAT32, FLOAT64, PackedRows, PackingKernels
from fastsoftmax._kernels.statistics_abi cimport (
    DIGITS,
    DIVERGENCE,
    ENTROPY,
    LOG_MEAN_EXP,
    LOG_SUM_EXP,
    MAX_BEST,
    WEIGHTED_SUM,
    ExpDigitsCall,
    RowStatsCall,
    StatisticCall,
    StatisticsKernels,
)

cnp.import_array()


cdef double *doubles_of(cnp.ndarray a) noexcept:
    """Return where the elements of an array of float64 are."""
    return <double *>cnp.PyArray_DATA(a)


cdef class StatisticsFunctions:
    """Sums over rows and what goes with them, by the kernels of one instruction set.

    Parameters
    ----------
    name : str
        That of the instruction set.
    statistics, packing : module
        Its kernels, named after their sources.
    """

    def __cinit__(self, str name, statistics, packing):
        self.NAME = name
        self.kernels = (
            <StatisticsKernels *>PyCapsule_GetPointer(
                statistics.kernels, "fastsoftmax.StatisticsKernels"
            )
        )[0]
        self.packing = (
            <PackingKernels *>PyCapsule_GetPointer(packing.kernels, "fastsoftmax.PackingKernels")
        )[0]

    def logmeanexp(self, x, axis=-1, *, where=None, keepdims=False, workers=None):
        return self.reduce(
            LOG_MEAN_EXP, x, "x", None, "", axis, 1.0, where, keepdims, False, workers
        )

    def entropy(
        self, logits, axis=-1, *, temperature=1.0, where=None, keepdims=False, workers=None
    ):
        return self.reduce(
            ENTROPY, logits, "logits", None, "", axis, temperature, where, keepdims, False, workers
        )

    def kl_divergence(
        self, logits, other, axis=-1, *, temperature=1.0, where=None, keepdims=False, workers=None
    ):
        if other is None:  # which is no second array, elsewhere
            as_input(None, "other")
        return self.reduce(
            DIVERGENCE, logits, "logits", other, "other", axis, temperature, where, keepdims,
            False, workers,
        )

    cdef object reduce(
        self, int statistic, x, str name, x2, str name2, axis, temperature, where, keepdims,
        bint with_sign, workers,
    ):
        """Return a statistic of the rows of the argument `name`, `name2` beside it unless None.

        And the signs of the sums if `with_sign`.
        """
        cdef Plan p, second
        cdef StatisticCall call
        cdef cnp.ndarray given, other, results, signs
        cdef double one = 1
        cdef double length
        workers = parse_workers(workers)
        if keepdims is not False:
            keepdims = values.switch(keepdims, "keepdims")
        given = as_input(x, name)
        begin_plan(&p, given, axis)
        if x2 is not None:
            other = as_input(x2, name2)
            if not broadcast(&p.x2, other, &p, False) or (
                cnp.PyArray_NDIM(given) < cnp.PyArray_NDIM(other)
            ):
                arguments.check_fits(other, name2, name, shape_of(&p, given))
            set_operand(&p.x2, other)
            begin_plan(&second, other, None)
            if second.dtype == FLOAT64:
                p.dtype = FLOAT64
            p.masks_x2 = statistic == DIVERGENCE
        where = set_mask(&p, given, where)
        temperature = set_temperature(&p, temperature, &one)
        results = empty_reduced(
            &p, given, keepdims, cnp.PyArray_DescrFromType(cnp.NPY_FLOAT64)
        )
        signs = empty_reduced(&p, given, keepdims, cnp.PyArray_DescrFromType(cnp.NPY_FLOAT64))
        call.results, call.signs = doubles_of(results), doubles_of(signs)
        length = p.n
        call.counts = &length
        call.count_stride = 0
        if statistic == LOG_MEAN_EXP and where is not None:
            counts = arguments.entries_that_count(
                where, tuple([p.shape[d] for d in range(p.ndim)]),
                tuple([d for d in range(p.ndim) if p.reduced[d]]),
            )
            call.counts = doubles_of(counts)
            call.count_stride = 1
        call.statistic = statistic
        if p.n == 0:
            signs.fill(0)
            results.fill(
                -INFINITY if statistic == LOG_SUM_EXP or statistic == WEIGHTED_SUM else NAN
            )
        elif p.rows > 0:
            self.run(&p, &call, one, workers)
        if with_sign:
            return self.rounded(&p, given, results), self.rounded(&p, given, signs)
        if statistic == WEIGHTED_SUM:
            results[signs < 0] = NAN
        return self.rounded(&p, given, results)

    cdef int run(self, Plan *p, StatisticCall *call, double temperature, workers) except -1:
        """Run a plan whose arrays are set, at one `temperature` unless it has some."""
        cdef PackedRows rows
        cdef double *each
        cdef double work = cost_exp(<double>p.rows * p.n, p.dtype == FLOAT32 and p.x2.data == NULL)
        finish_plan(p, False)
        each = row_temperatures(p, &self.packing)
        call.dtype = p.dtype
        call.n = p.n
        call.temperature = each if each != NULL else &temperature
        call.temperature_stride = each != NULL
        call.packed = packed_rows(&rows, &self.packing, p)
        try:
            run_rows(
                packing_for(call.packed, &self.packing), self.kernels.statistic, call, p, work,
                workers,
            )
        finally:
            free(each)
        return 0

    cdef object rounded(self, const Plan *p, cnp.ndarray x, cnp.ndarray results):
        """Return results of rows of x in the type that they are computed in, or that of x."""
        cdef cnp.ndarray y = results
        cdef Py_ssize_t i
        cdef uint64_t environment
        if p.dtype != FLOAT32:
            return scalar_or_array(results)
        y = cnp.PyArray_EMPTY(
            cnp.PyArray_NDIM(results), cnp.PyArray_DIMS(results), cnp.NPY_FLOAT32, 0
        )
        environment = enter_environment()
        for i in range(cnp.PyArray_SIZE(results)):
            (<float *>cnp.PyArray_DATA(y))[i] = <float>doubles_of(results)[i]
        leave_environment(environment)
        return as_result(&self.packing, p, x, y)

    def row_stats(
        self, logits, want=arguments.STATISTICS, *, axis=-1, top=0, ids=None, temperature=1.0,
        workers=None,
    ):
        cdef Plan p
        cdef RowStatsCall call
        cdef PackedRows rows
        cdef cnp.ndarray given, checked, of_row, best
        cdef double one = 1
        cdef double *each
        cdef dict found = {}
        workers = parse_workers(workers)
        names = arguments.wanted(want)
        given = as_input(logits, "logits")
        axis = axes.one_axis(axis, max(1, cnp.PyArray_NDIM(given)))
        if cnp.PyArray_NDIM(given) > 1:
            given = np.moveaxis(given, axis, -1)
        begin_plan(&p, given, -1)
        call.k = values.count(top, "top", 0, min(p.n, <Py_ssize_t>MAX_BEST))
        temperature = set_temperature(&p, temperature, &one)
        call.maxima = call.logsumexps = call.entropies = call.margins = NULL
        call.argmax = call.ranks = NULL
        for name in names:
            of_row = empty_draws(
                &p, 0, False, cnp.NPY_INT64 if name == "argmax" else cnp.NPY_FLOAT64
            )
            found[name] = of_row
            if name == "max":
                call.maxima = doubles_of(of_row)
                of_row.fill(-INFINITY)
            elif name == "argmax":
                call.argmax = <int64_t *>cnp.PyArray_DATA(of_row)
                of_row.fill(-1)
            elif name == "logsumexp":
                call.logsumexps = doubles_of(of_row)
                of_row.fill(-INFINITY)
            elif name == "entropy":
                call.entropies = doubles_of(of_row)
                of_row.fill(NAN)
            else:
                call.margins = doubles_of(of_row)
                of_row.fill(NAN)
        if top:
            best = found["top_indices"] = empty_draws(&p, call.k, True, cnp.NPY_INT64)
            call.best_indices = <int64_t *>cnp.PyArray_DATA(best)
            best = found["top_values"] = empty_draws(&p, call.k, True, cnp.NPY_FLOAT64)
            call.best = doubles_of(best)
        call.m = 0
        if ids is not None:
            checked = checked_ids(ids, &p)
            of_row = found["ranks"] = cnp.PyArray_EMPTY(
                cnp.PyArray_NDIM(checked), cnp.PyArray_DIMS(checked), cnp.NPY_INT64, 0
            )
            call.m = cnp.PyArray_SIZE(checked) // max(p.rows, <Py_ssize_t>1)
            call.ids = <const int64_t *>cnp.PyArray_DATA(checked)
            call.ranks = <int64_t *>cnp.PyArray_DATA(of_row)
        if p.rows > 0 and p.n > 0:
            finish_plan(&p, False)
            each = row_temperatures(&p, &self.packing)
            call.dtype = p.dtype
            call.n = p.n
            call.temperature = each if each != NULL else &one
            call.temperature_stride = each != NULL
            call.packed = packed_rows(&rows, &self.packing, &p)
            p.effort = p.n * (1 + call.m)
            try:
                run_rows(
                    packing_for(call.packed, &self.packing), self.kernels.row_stats, &call, &p,
                    cost_exp(<double>p.rows * p.n, p.dtype == FLOAT32), workers,
                )
            finally:
                free(each)
        for name in found:
            of_row = found[name]
            if name in ("argmax", "top_indices", "ranks"):
                found[name] = scalar_or_array(of_row)
            else:
                found[name] = self.rounded(&p, given, of_row)
        return RowStats(**found)

    def exp_digits(self, x, axis, where, cnp.ndarray origin, cnp.ndarray top, cnp.ndarray digits):
        """Add the digits of exp(x - `origin`) of each row of x to `digits` (``exp_digits.pxd``).

        `origin` (float64), `top` and `digits` (int64) are contiguous, in row order; `digits` has
        4 a row.
        """
        cdef Plan p
        cdef ExpDigitsCall call
        cdef PackedRows rows
        cdef cnp.ndarray given = as_input(x, "x")
        begin_plan(&p, given, axis)
        where = set_mask(&p, given, where)
        if p.rows == 0 or p.n == 0:
            return
        finish_plan(&p, False)
        call.dtype = p.dtype
        call.n = p.n
        call.packed = packed_rows(&rows, &self.packing, &p)
        call.origin = doubles_of(origin)
        call.top = <const int64_t *>cnp.PyArray_DATA(top)
        call.digits = <int64_t *>cnp.PyArray_DATA(digits)
        if cnp.PyArray_SIZE(digits) != p.rows * DIGITS:
            raise ValueError(f"digits has {digits.size} elements; allowed is 4 for each row")
        run_rows(
            packing_for(call.packed, &self.packing), self.kernels.exp_digits, &call, &p,
            cost_exp(<double>p.rows * p.n, False), 1,
        )
