# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows of which a part is here: sums that merge, and results by the sums of all parts.

For `fastsoftmax.dask`, whose chunks may split rows. A part goes through the phases of a long row
(``long_row.pyx``), with the whole row's maximum and sum put in between, so that its results have
the bits that the whole row would have, but for the last rounding of the sum.
"""

from libc.math cimport INFINITY, NAN
from libc.stdlib cimport free

cimport numpy as cnp

import numpy as np

from fastsoftmax._front.arrays cimport as_input
from fastsoftmax._front.execute cimport run_rows
from fastsoftmax._front.plan cimport (
    SIGNAL_INTERVAL,
    Plan,
    batch_shape_of,
    begin_plan,
    finish_plan,
    is_nan,
    set_array,
    size_of,
    writable_result,
)
from fastsoftmax._front.row_arguments cimport row_temperatures, set_mask, set_temperature
from fastsoftmax._front.signals cimport look
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    LOGSUMEXP,
    LOG_SOFTMAX,
    ROW_MAXIMA,
    ROW_MAXIMUM,
    ROW_PIVOT,
    ROW_RESULT,
    ROW_SUM,
    ROW_SUMS,
    SOFTMAX,
    LongRow,
    PackingKernels,
    SoftmaxKernels,
    temperature_in_range,
)
from fastsoftmax._kernels.reserve cimport borrow, give_back

cnp.import_array()

cdef enum:
    SUMS = 4  # numbers of a part: its maximum, that one's exponential, the others' sum as a pair


cdef struct PartsCall:
    const SoftmaxKernels *kernels
    const Plan *plan
    int op  # Op
    bint any_pivot  # sums may be in units of another entry than the maximum: a pass less
    const double *temperature
    Py_ssize_t temperature_stride
    double *sums


cdef inline Py_ssize_t block_count(const PartsCall *call) noexcept nogil:
    """Return how many blocks a row has."""
    return (call.plan.n + call.kernels.row_block - 1) // call.kernels.row_block


cdef void do_phase(const PartsCall *call, LongRow *row, int phase) noexcept nogil:
    """Do a phase whose blocks are independent, with looks for Ctrl-C on the way."""
    cdef Py_ssize_t blocks = block_count(call)
    cdef Py_ssize_t step = max(<Py_ssize_t>1, SIGNAL_INTERVAL // call.kernels.row_block)
    cdef Py_ssize_t start
    for start from 0 <= start < blocks by step:
        if start > 0 and look():
            return
        call.kernels.long_row(row, phase, start, min(start + step, blocks))


cdef LongRow row_of(
    const PartsCall *call, Py_ssize_t index, const char *x, char *y, char *lanes
) noexcept nogil:
    """Return row `index` with its sums; `x` and `y` are where it lies, and its result."""
    cdef const double *sums = call.sums + SUMS * index
    cdef LongRow row
    row.dtype = call.plan.dtype
    row.op = call.op
    row.n = call.plan.n
    row.temperature = call.temperature[index * call.temperature_stride]
    row.x, row.y, row.next_part = x, y, NULL
    row.lanes = <double *>lanes
    row.is_max = True
    row.pivot = sums[0]
    row.max_block = -1
    row.log_sum = row.sum_high = sums[2]
    row.sum_low = sums[3]
    return row


cdef double max_term(const PartsCall *call, const LongRow *row) noexcept nogil:
    """Return the exponential of a row's maximum, in the units of its sum: it is a row of its own.
    """
    cdef LongRow one = row[0]
    cdef float highest32 = <float>row.pivot, e32 = 0
    cdef double e = 0
    one.n = 1
    one.op = SOFTMAX
    one.x, one.y = &row.pivot, &e
    if row.dtype == FLOAT32:
        one.x, one.y = &highest32, &e32
    call.kernels.long_row(&one, ROW_SUMS, 0, 1)
    return e32 if row.dtype == FLOAT32 else e


cdef bint sum_from_pivot(const PartsCall *call, LongRow *row, double *sums) noexcept nogil:
    """Write the sum of a row in units of a pivot, one of its entries; return whether one served."""
    cdef double term
    row.op = SOFTMAX
    if not call.kernels.long_row(row, ROW_PIVOT, 0, 1):
        return False
    row.op = LOGSUMEXP
    do_phase(call, row, ROW_SUMS)
    row.op = SOFTMAX
    if not call.kernels.long_row(row, ROW_SUM, 0, block_count(call)):
        return False
    term = max_term(call, row)
    sums[0], sums[1] = row.pivot, term
    sums[2] = row.sum_high - term
    sums[3] = row.sum_low + ((row.sum_high - sums[2]) - term)
    return True


cdef int sum_rows(
    const void *context, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *_x2,
    void *_y,
) noexcept nogil:
    """Write the sums of rows; a `rows_fn`."""
    cdef const PartsCall *call = <const PartsCall *>context
    cdef Py_ssize_t n = call.plan.n
    cdef Py_ssize_t size = size_of(call.plan.dtype)
    cdef char *lanes = borrow(&call.plan.workspace)
    cdef const char *part = <const char *>x
    cdef Py_ssize_t i, j
    cdef double *sums
    cdef LongRow row
    for i in range(rows):
        row = row_of(call, first + i, part, NULL, lanes)
        sums = call.sums + SUMS * (first + i)
        part += n * size
        if call.any_pivot and sum_from_pivot(call, &row, sums):
            continue
        row.op, row.is_max = LOGSUMEXP, True
        sums[1], sums[2], sums[3] = 1, 0, 0
        do_phase(call, &row, ROW_MAXIMA)
        if call.kernels.long_row(&row, ROW_MAXIMUM, 0, block_count(call)):
            do_phase(call, &row, ROW_SUMS)
            call.kernels.long_row(&row, ROW_SUM, 0, block_count(call))
            sums[1], sums[2], sums[3] = max_term(call, &row), row.sum_high, row.sum_low
        else:
            for j in range(n):
                if is_nan(<const char *>row.x + j * size, row.dtype):
                    sums[2] = NAN
        sums[0] = row.pivot
    give_back(&call.plan.workspace, lanes)
    return 0


cdef int write_rows(
    const void *context, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *_x2, void *y,
) noexcept nogil:
    """Write the results of rows by their sums; a `rows_fn`."""
    cdef const PartsCall *call = <const PartsCall *>context
    cdef Py_ssize_t n = call.plan.n
    cdef Py_ssize_t size = size_of(call.plan.dtype)
    cdef char *lanes = borrow(&call.plan.workspace)
    cdef const char *part = <const char *>x
    cdef char *result = <char *>y
    cdef Py_ssize_t i, j
    cdef LongRow row
    for i in range(rows):
        row = row_of(call, first + i, part, result, lanes)
        if -INFINITY < row.pivot < INFINITY and row.sum_high == row.sum_high:
            if call.op == SOFTMAX:
                do_phase(call, &row, ROW_SUMS)
            do_phase(call, &row, ROW_RESULT)
        else:
            for j in range(n):
                if row.dtype == FLOAT32:
                    (<float *>result)[j] = NAN
                else:
                    (<double *>result)[j] = NAN
        part += n * size
        result += n * size
    give_back(&call.plan.workspace, lanes)
    return 0


cdef class PartFunctions:
    """Sums and results of parts of rows, by the kernels of one instruction set.

    Parameters
    ----------
    name : str
        That of the instruction set.
    softmax, packing : module
        Its kernels, named after their sources.
    """

    cdef readonly str NAME
    cdef SoftmaxKernels kernels
    cdef PackingKernels packing

    def __cinit__(self, str name, softmax, packing):
        self.NAME = name
        copy_table(softmax.kernels, &self.kernels)
        copy_table(packing.kernels, &self.packing)

    def part_sums(self, x, axis, temperature, where, any_pivot=False):
        cdef Plan p
        cdef double t
        cdef cnp.ndarray sums, given = as_input(x, "x")
        begin_plan(&p, given, axis)
        where = set_mask(&p, given, where)
        temperature = set_temperature(&p, temperature, &t)
        sums = np.empty((*batch_shape_of(&p), SUMS))
        if p.n == 0:
            sums[...] = -np.inf, 1, 0, 0
        elif p.rows > 0:
            self.run(&p, t, LOGSUMEXP, any_pivot, sums)
        return sums

    def part_result(self, x, sums, axis, temperature, where, log):
        cdef Plan p
        cdef double t
        cdef cnp.ndarray y, numbers, given = as_input(x, "x")
        begin_plan(&p, given, axis)
        where = set_mask(&p, given, where)
        temperature = set_temperature(&p, temperature, &t)
        numbers = np.ascontiguousarray(
            np.broadcast_to(sums, (*batch_shape_of(&p), SUMS)), np.float64
        )
        y = writable_result(None, &p, given, "x", where)
        if p.rows > 0 and p.n > 0:
            set_array(&p.y, y, "out", &p)
            p.masked = -INFINITY if log else 0
            self.run(&p, t, LOG_SOFTMAX if log else SOFTMAX, False, numbers)
        return y

    cdef int run(
        self, Plan *p, double temperature, int op, bint any_pivot, cnp.ndarray sums
    ) except -1:
        """Run a plan whose arrays are set, at one `temperature` unless it has some."""
        cdef PartsCall call
        cdef double *each = NULL
        cdef Py_ssize_t i
        call.kernels = &self.kernels
        call.plan = p
        call.op = op
        call.any_pivot = any_pivot
        call.sums = <double *>cnp.PyArray_DATA(sums)
        call.temperature_stride = 0
        call.temperature = &temperature
        finish_plan(p, False)
        p.workspace.bytes = block_count(&call) * 16 * sizeof(double)
        each = row_temperatures(p, &self.packing)
        if each != NULL:
            call.temperature = each
            call.temperature_stride = 1
        try:
            for i in range(p.rows if each != NULL else 1):
                if not temperature_in_range(call.temperature[i]):
                    raise ValueError(
                        f"temperature is {call.temperature[i]}; allowed where chunks split the "
                        "rows are 1e-30 to 1e30"
                    )
            run_rows(
                &self.packing, write_rows if op != LOGSUMEXP else sum_rows, &call, p, 0, 1
            )
        finally:
            free(each)
        return 0
