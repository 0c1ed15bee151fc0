# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""softmax, log_softmax and logsumexp over one instruction set's kernels.

A call fills a plan and a struct of parameters, and runs it: rows as they stand, columns, or packed
blocks (``execute.pyx``). Large arrays of contiguous rows go through typed memoryviews, without the
GIL; so do all rows of small ones, by pointer, without a plan: there is nothing to plan.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.stdlib cimport free

cimport numpy as cnp

from .. import _threads
from .._arguments import values
from .._arguments.results import SoftmaxAndLse

from fastsoftmax._front.arrays cimport as_input, result_dtype
from fastsoftmax._front.columns cimport is_by_columns, run_columns
from fastsoftmax._front.cost cimport cost_exp
from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.execute cimport parse_workers, run_rows, threads_for
from fastsoftmax._front.long_row cimport run_by_pieces, run_long_rows
from fastsoftmax._front.plan cimport (
    CONTIGUOUS,
    SIGNAL_INTERVAL,
    WITH_GIL,
    Plan,
    begin_plan,
    finish_plan,
    set_array,
    set_operand,
    writable_result,
)
from fastsoftmax._front.results cimport empty_reduced, given_to, new_tuple
from fastsoftmax._front.row_arguments cimport row_temperatures, set_mask, set_temperature
from fastsoftmax._front.statistics cimport LOG_SUM_EXP, StatisticsFunctions
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._front.values cimport is_last_axis, is_plain, number_within, scalar_or_array
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    FLOAT64,
    LOGSUMEXP,
    LOG_SOFTMAX,
    SOFTMAX,
    Op,
    PackingKernels,
    SoftmaxCall,
    SoftmaxKernels,
    rows_fn,
    temperature_in_range,
)
from fastsoftmax._kernels.statistics_abi cimport WEIGHTED_SUM

cnp.import_array()

ctypedef fused real:
    float
    double

cdef enum:
    MAX_WHOLE_ROW = 1 << 26  # elements from which on a kernel might not look for Ctrl-C in time

cdef double LONG_ROW_NS = 6 * _threads.LEAST  # what a row must take for threads to share it


cdef bint are_ordinary(const double *temperature, Py_ssize_t count) noexcept:
    """Return whether columns can go side by side: temperatures in range, and 1 for all or none."""
    cdef Py_ssize_t i, ones = 0
    for i in range(count):
        if not temperature_in_range(temperature[i]):
            return False
        ones += temperature[i] == 1
    return ones == 0 or ones == count


cdef bint are_large_and_plain(const Plan *p) noexcept:
    """Return whether rows of a plan can be walked through as they stand, with looks for Ctrl-C."""
    return (
        p.rows * p.n > SIGNAL_INTERVAL and p.y.n == p.n and p.mask.data == NULL
        and p.x.access == CONTIGUOUS and p.y.access == CONTIGUOUS
    )


cdef int softmax_views(
    rows_fn kernel, SoftmaxCall *call, const real[:, ::1] x, real[:, ::1] y
) except -1:
    """Write softmax, or log_softmax, of each row of x into y, without the GIL."""
    cdef Py_ssize_t step = max(<Py_ssize_t>1, SIGNAL_INTERVAL // x.shape[1])
    cdef Py_ssize_t start
    cdef uint64_t environment
    for start from 0 <= start < x.shape[0] by step:
        with nogil:
            environment = enter_environment()
            kernel(call, start, min(step, x.shape[0] - start), &x[start, 0], NULL, &y[start, 0])
            leave_environment(environment)
        PyErr_CheckSignals()
    return 0


cdef class SoftmaxFunctions:
    """softmax, log_softmax and logsumexp, by the kernels of one instruction set.

    Parameters
    ----------
    name : str
        That of the instruction set.
    softmax, packing, statistics : module
        Its kernels, named after their sources.
    """

    cdef readonly str NAME
    cdef SoftmaxKernels kernels
    cdef PackingKernels packing
    cdef StatisticsFunctions statistics

    def __cinit__(self, str name, softmax, packing, statistics):
        self.NAME = name
        self.statistics = StatisticsFunctions(name, statistics, packing)
        copy_table(softmax.kernels, &self.kernels)
        copy_table(packing.kernels, &self.packing)

    def softmax(
        self, x, axis=-1, *, temperature=1.0, where=None, out=None, return_lse=False, workers=None
    ):
        if return_lse is not False and values.switch(return_lse, "return_lse"):
            # The result may be written where x is.
            lse = self.statistics.sums(
                LOG_SUM_EXP, x, "x", axis, temperature, where, False, workers
            )
            return new_tuple(
                SoftmaxAndLse, (self.map(x, axis, temperature, where, out, workers, SOFTMAX), lse)
            )
        return self.map(x, axis, temperature, where, out, workers, SOFTMAX)

    def log_softmax(self, x, axis=-1, *, temperature=1.0, where=None, out=None, workers=None):
        return self.map(x, axis, temperature, where, out, workers, LOG_SOFTMAX)

    def logsumexp(
        self, x, axis=-1, *, b=None, where=None, keepdims=False, return_sign=False, workers=None
    ):
        cdef Plan p
        cdef cnp.ndarray given, y
        if (
            b is None and where is None and keepdims is False and return_sign is False
            and workers is None and is_plain(x) and is_last_axis(axis, x)
            and 0 < cnp.PyArray_SIZE(x) <= WITH_GIL
        ):
            y = cnp.PyArray_EMPTY(
                cnp.PyArray_NDIM(x) - 1, cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0
            )
            self.run_small(x, cnp.PyArray_DATA(y), 1, LOGSUMEXP)
            return scalar_or_array(y)
        if b is not None or return_sign is not False:
            return_sign = values.switch(return_sign, "return_sign")
            return self.statistics.pair(
                WEIGHTED_SUM, x, "x", 1.0 if b is None else b, "b", axis, 1.0, where, keepdims,
                return_sign, workers,
            )
        workers = parse_workers(workers)
        if keepdims is not False:
            keepdims = values.switch(keepdims, "keepdims")
        given = as_input(x, "x")
        begin_plan(&p, given, axis)
        where = set_mask(&p, given, where)
        y = empty_reduced(&p, given, keepdims, result_dtype(given))
        if p.n == 0:
            y.fill(-INFINITY)
        elif p.rows > 0:
            set_operand(&p.y, y)
            self.set_reduced(&p, y, keepdims)
            self.run(&p, 1, LOGSUMEXP, workers)
        return scalar_or_array(y)

    cdef void set_reduced(self, Plan *p, cnp.ndarray y, bint keepdims) noexcept:
        """Plan an array that has one result a row."""
        cdef int d, axis = 0
        p.y.n = 1
        for d in range(p.ndim):
            p.y.axes[d] = 0
            if not p.reduced[d] and axis < cnp.PyArray_NDIM(y):
                p.y.axes[d] = cnp.PyArray_STRIDE(y, axis)
            axis += keepdims or not p.reduced[d]

    cdef object map(self, x, axis, temperature, where, out, workers, Op op):
        """Return softmax or log_softmax of the arguments of the public functions."""
        cdef Plan p
        cdef double t
        cdef cnp.ndarray given, y
        if (
            where is None and out is None and workers is None and is_plain(x)
            and is_last_axis(axis, x) and 0 < cnp.PyArray_SIZE(x) <= WITH_GIL
            and number_within(temperature, INFINITY, &t)
        ):
            y = cnp.PyArray_EMPTY(
                cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0
            )
            self.run_small(x, cnp.PyArray_DATA(y), t, op)
            return y
        workers = parse_workers(workers)
        given = as_input(x, "x")
        begin_plan(&p, given, axis)
        where = set_mask(&p, given, where)
        temperature = set_temperature(&p, temperature, &t)
        y = writable_result(out, &p, given, "x", where)
        if p.rows > 0 and p.n > 0:
            set_array(&p.y, y, "out", &p)
            p.masked = 0 if op == SOFTMAX else -INFINITY
            self.run(&p, t, op, workers)
        if out is None:
            return scalar_or_array(y)
        return given_to(out, y)

    cdef int run(self, Plan *p, double temperature, Op op, workers) except -1:
        """Run a plan whose arrays are set, at one `temperature` unless it has some."""
        cdef SoftmaxCall call
        cdef double *each = NULL
        cdef bint ordinary
        cdef double work = cost_exp(<double>p.rows * p.n, p.dtype == FLOAT32)
        call.op = op
        call.n = p.n
        call.dtype = p.dtype
        call.temperature_stride = 0
        call.temperature = &temperature
        finish_plan(p, True)
        each = row_temperatures(p, &self.packing)
        if each != NULL:
            call.temperature = each
            call.temperature_stride = 1
        try:
            ordinary = are_ordinary(call.temperature, p.rows if each != NULL else 1)
            if ordinary and is_by_columns(p):
                run_columns(
                    &self.packing, self.kernels.softmax_columns,
                    self.kernels.softmax_columns_bytes, &call, p, work, workers,
                )
            elif self.run_long(p, &call, work, workers):
                pass
            elif are_large_and_plain(p) and threads_for(work, workers) == 1:
                if p.dtype == FLOAT32:
                    softmax_views[float](
                        self.kernels.softmax_rows, &call,
                        <float[:p.rows, :p.n:1]><float *>p.x.data,
                        <float[:p.rows, :p.n:1]><float *>p.y.data,
                    )
                else:
                    softmax_views[double](
                        self.kernels.softmax_rows, &call,
                        <double[:p.rows, :p.n:1]><double *>p.x.data,
                        <double[:p.rows, :p.n:1]><double *>p.y.data,
                    )
            elif not run_by_pieces(&self.packing, &self.kernels, &call, p, work, workers):
                run_rows(&self.packing, self.kernels.softmax_rows, &call, p, work, workers)
        finally:
            free(each)
        return 0

    cdef bint run_long(self, Plan *p, SoftmaxCall *call, double work, workers) except -1:
        """Run a few long rows one by one, each shared by threads, or very long ones by parts.

        Return False for other ones.
        """
        cdef Py_ssize_t threads
        if work < LONG_ROW_NS or work / p.rows < LONG_ROW_NS:
            return False
        threads = threads_for(work / p.rows, workers)
        if p.n < MAX_WHOLE_ROW and (threads < 2 or p.rows >= 2 * threads):
            return False
        return run_long_rows(&self.packing, &self.kernels, call, p, work / p.rows, threads)

    cdef void run_small(self, x, void *y, double temperature, Op op) noexcept:
        """Run the rows of a small plain array."""
        cdef SoftmaxCall call
        cdef uint64_t environment
        call.dtype = FLOAT32 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else FLOAT64
        call.op = op
        call.n = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
        call.temperature = &temperature
        call.temperature_stride = 0
        environment = enter_environment()
        self.kernels.softmax_rows(
            &call, 0, cnp.PyArray_SIZE(x) // call.n, cnp.PyArray_DATA(x), NULL, y
        )
        leave_environment(environment)
