# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sums over rows, entropies, divergences, and all at once, over one instruction set's kernels.

Kernels write a number for each row, in the order of rows and the type that is computed in.
"""

from libc.math cimport INFINITY, NAN
from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memset

cimport numpy as cnp

from .._arguments import arrays as axes
from .._arguments import statistics as arguments
from .._arguments import values
from .._arguments.results import RowStats

from fastsoftmax._front.arrays cimport as_input
from fastsoftmax._front.cost cimport cost_exp
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
from fastsoftmax._front.results cimport (
    as_result,
    empty_draws,
    empty_reduced,
    new_tuple,
    number_of,
)
from fastsoftmax._front.row_arguments cimport (
    checked_ids,
    row_counts,
    row_temperatures,
    set_mask,
    set_temperature,
)
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._front.values cimport is_last_axis, scalar_or_array
from fastsoftmax._kernels.abi cimport FLOAT32, FLOAT64, PackedRows, rows_fn
from fastsoftmax._kernels.statistics_abi cimport (
    DIGITS,
    DIVERGENCE,
    MAX_BEST,
    WEIGHTED_SUM,
    ExpDigitsCall,
    PairCall,
    RowStatsCall,
    StatisticRows,
)

cnp.import_array()

cdef object STATISTICS = arguments.STATISTICS


cdef void *data_of(cnp.ndarray a) noexcept:
    """Return where the elements of an array are, NULL for None."""
    return NULL if a is None else cnp.PyArray_DATA(a)


cdef object scalar_of(cnp.ndarray a):
    """Return an array, a scalar if it has no axes; None stays."""
    return None if a is None else scalar_or_array(a)


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
        copy_table(statistics.kernels, &self.kernels)
        copy_table(packing.kernels, &self.packing)

    def logmeanexp(self, x, axis=-1, *, where=None, keepdims=False, workers=None):
        return self.sums(LOG_MEAN_EXP, x, "x", axis, 1.0, where, keepdims, workers)

    def entropy(
        self, logits, axis=-1, *, temperature=1.0, where=None, keepdims=False, workers=None
    ):
        return self.sums(ENTROPY, logits, "logits", axis, temperature, where, keepdims, workers)

    def kl_divergence(
        self, logits, other, axis=-1, *, temperature=1.0, where=None, keepdims=False, workers=None
    ):
        if other is None:  # which is no second array, elsewhere
            as_input(None, "other")
        return self.pair(
            DIVERGENCE, logits, "logits", other, "other", axis, temperature, where, keepdims,
            False, workers,
        )

    cdef object sums(
        self, RowSum wanted, x, str name, axis, temperature, where, keepdims, workers
    ):
        """Return a number for each row of the argument `name`."""
        cdef Plan p
        cdef RowStatsCall call
        cdef cnp.ndarray given, results
        cdef double one = 1
        cdef double length
        workers = parse_workers(workers)
        if keepdims is not False:
            keepdims = values.switch(keepdims, "keepdims")
        given = as_input(x, name)
        begin_plan(&p, given, axis)
        where = set_mask(&p, given, where)
        temperature = set_temperature(&p, temperature, &one)
        results = empty_reduced(
            &p, given, keepdims, cnp.PyArray_DescrFromType(number_of(&p))
        )
        memset(&call, 0, sizeof(call))
        if wanted == ENTROPY:
            call.entropies = cnp.PyArray_DATA(results)
        else:
            call.logsumexps = cnp.PyArray_DATA(results)
        if wanted == LOG_MEAN_EXP:
            length = p.n
            call.counts = &length
        if p.n == 0:
            results.fill(-INFINITY if wanted == LOG_SUM_EXP else NAN)
        self.run(
            &p, self.kernels.row_stats, &call, &call.rows, one, p.dtype == FLOAT32, workers,
            &call if wanted == LOG_MEAN_EXP and where is not None else NULL,
        )
        return as_result(&self.packing, &p, given, results)

    cdef object pair(
        self, int statistic, x, str name, x2, str name2, axis, temperature, where, keepdims,
        bint with_sign, workers,
    ):
        """Return a number for each row of the argument `name` with that of `name2`.

        And the signs of the sums if `with_sign`.
        """
        cdef Plan p, second
        cdef PairCall call
        cdef cnp.ndarray given, other, results, signs
        cdef cnp.dtype dtype
        cdef double one = 1
        workers = parse_workers(workers)
        if keepdims is not False:
            keepdims = values.switch(keepdims, "keepdims")
        given = as_input(x, name)
        begin_plan(&p, given, axis)
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
        dtype = cnp.PyArray_DescrFromType(number_of(&p))
        results = empty_reduced(&p, given, keepdims, dtype)
        call.statistic = statistic
        call.results = cnp.PyArray_DATA(results)
        call.signs = NULL
        if with_sign:
            signs = empty_reduced(&p, given, keepdims, dtype)
            call.signs = cnp.PyArray_DATA(signs)
        if p.n == 0:
            results.fill(-INFINITY if statistic == WEIGHTED_SUM else NAN)
            if with_sign:
                signs.fill(0)
        self.run(&p, self.kernels.pair, &call, &call.rows, one, False, workers)
        if with_sign:
            return self.finished(&p, given, results), self.finished(&p, given, signs)
        return self.finished(&p, given, results)

    cdef int run(
        self, Plan *p, rows_fn kernel, void *call, StatisticRows *rows, double temperature,
        bint narrow, workers, RowStatsCall *means=NULL,
    ) except -1:
        """Run a plan whose arrays are set, at one `temperature` unless it has some.

        `rows` are those of `call`; exponentials are float32 if `narrow`. `means` is the call if it
        is for means of what a mask leaves.
        """
        cdef PackedRows packed
        cdef double *each
        cdef double *counts = NULL
        if p.rows == 0 or p.n == 0:
            return 0
        finish_plan(p, False)
        each = row_temperatures(p, &self.packing)
        rows.dtype = p.dtype
        rows.n = p.n
        rows.temperature = each if each != NULL else &temperature
        rows.temperature_stride = each != NULL
        rows.packed = packed_rows(&packed, &self.packing, p)
        try:
            if means != NULL:
                means.counts = counts = row_counts(p, &self.packing)
                means.count_stride = 1
            run_rows(
                packing_for(rows.packed, &self.packing), kernel, call, p,
                cost_exp(<double>p.rows * p.n, narrow), workers,
            )
        finally:
            free(counts)
            free(each)
        return 0

    cdef object finished(self, const Plan *p, cnp.ndarray x, cnp.ndarray y):
        """Return results in the type that they are computed in, or that of x if it is narrower."""
        return as_result(&self.packing, p, x, y) if p.dtype == FLOAT32 else scalar_or_array(y)

    cdef cnp.ndarray of_rows(self, const Plan *p, bint asked, int number, double absent):
        """Return an array for a number of each row, `absent` where rows are empty, if `asked`."""
        cdef cnp.ndarray y
        if not asked:
            return None
        y = empty_draws(p, 0, False, number)
        if p.n == 0:
            y.fill(absent)
        return y

    def row_stats(
        self, logits, want=STATISTICS, *, axis=-1, top=0, ids=None, temperature=1.0,
        workers=None,
    ):
        cdef Plan p
        cdef RowStatsCall call
        cdef cnp.ndarray given, checked, best
        cdef cnp.ndarray maxima, places, sums, entropies, margins, best_places, ranks
        cdef double one = 1
        cdef int number
        workers = parse_workers(workers)
        if want is STATISTICS:
            names = want
        elif type(want) is str and want in STATISTICS:
            names = (want,)
        else:
            names = arguments.wanted(want)
        given = as_input(logits, "logits")
        if not is_last_axis(axis, given) or cnp.PyArray_NDIM(given) == 0:
            axis = axes.one_axis(axis, max(1, cnp.PyArray_NDIM(given)))
            if cnp.PyArray_NDIM(given) > 1:
                given = given.transpose(
                    *[d for d in range(cnp.PyArray_NDIM(given)) if d != axis], axis
                )
        begin_plan(&p, given, -1)
        memset(&call, 0, sizeof(call))
        if top is not 0:
            call.k = values.count(top, "top", 0, min(p.n, <Py_ssize_t>MAX_BEST))
        temperature = set_temperature(&p, temperature, &one)
        number = number_of(&p)
        maxima = self.of_rows(&p, "max" in names, number, -INFINITY)
        places = self.of_rows(&p, "argmax" in names, cnp.NPY_INT64, -1)
        sums = self.of_rows(&p, "logsumexp" in names, number, -INFINITY)
        entropies = self.of_rows(&p, "entropy" in names, number, NAN)
        margins = self.of_rows(&p, "margin" in names, number, NAN)
        call.maxima = data_of(maxima)
        call.argmax = <int64_t *>data_of(places)
        call.logsumexps = data_of(sums)
        call.entropies = data_of(entropies)
        call.margins = data_of(margins)
        best = best_places = ranks = None
        if call.k > 0:
            best = empty_draws(&p, call.k, True, number)
            best_places = empty_draws(&p, call.k, True, cnp.NPY_INT64)
            call.best = data_of(best)
            call.best_indices = <int64_t *>data_of(best_places)
        if ids is not None:
            checked = checked_ids(ids, &p)
            ranks = cnp.PyArray_EMPTY(
                cnp.PyArray_NDIM(checked), cnp.PyArray_DIMS(checked), cnp.NPY_INT64, 0
            )
            call.m = cnp.PyArray_SIZE(checked) // max(p.rows, <Py_ssize_t>1)
            call.ids = <const int64_t *>cnp.PyArray_DATA(checked)
            call.ranks = <int64_t *>data_of(ranks)
        p.effort = p.n * (1 + call.m)
        self.run(
            &p, self.kernels.row_stats, &call, &call.rows, one, p.dtype == FLOAT32, workers
        )
        return new_tuple(
            RowStats,
            (
                self.result(&p, given, maxima), scalar_of(places), self.result(&p, given, sums),
                self.result(&p, given, entropies), self.result(&p, given, margins),
                self.result(&p, given, best), best_places, scalar_of(ranks),
            ),
        )

    cdef object result(self, const Plan *p, cnp.ndarray x, cnp.ndarray y):
        """Return numbers of rows of x in its type; None stays."""
        return None if y is None else as_result(&self.packing, p, x, y)

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
        call.origin = <const double *>cnp.PyArray_DATA(origin)
        call.top = <const int64_t *>cnp.PyArray_DATA(top)
        call.digits = <int64_t *>cnp.PyArray_DATA(digits)
        if cnp.PyArray_SIZE(digits) != p.rows * DIGITS:
            raise ValueError(f"digits has {digits.size} elements; allowed is 4 for each row")
        run_rows(
            packing_for(call.packed, &self.packing), self.kernels.exp_digits, &call, &p,
            cost_exp(<double>p.rows * p.n, False), 1,
        )
