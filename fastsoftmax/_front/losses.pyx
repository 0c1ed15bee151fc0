# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cross entropy and the gradients over one instruction set's kernels.

Targets are checked in a pass of their own, before anything is written; a kernel reads them once
more and takes what is out of range by then for one that does not count.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free

cimport numpy as cnp

import numpy as np

from .._arguments import arrays as arguments
from .._arguments import losses as checks
from .._arguments import values
from .._arguments.results import LossAndGrad

from fastsoftmax._front.arrays cimport (
    as_input,
    as_int64,
    numbers_as_array,
    overlap,
    same_memory,
)
from fastsoftmax._front.columns cimport columns_of_arrays
from fastsoftmax._front.cost cimport cost_exp
from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.execute cimport parse_workers, run_rows
from fastsoftmax._front.packed_rows cimport packed_rows, packing_for
from fastsoftmax._front.plan cimport (
    Operand,
    Plan,
    allocate,
    batch_shape_of,
    begin_plan,
    empty_for,
    empty_result,
    finish_plan,
    set_array,
    shape_of,
    writable_result,
)
from fastsoftmax._front.results cimport given_to, new_tuple
from fastsoftmax._front.row_arguments cimport row_temperatures, set_temperature
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._front.values cimport is_behaved_c, number_within, scalar_or_array
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    LOG_SOFTMAX,
    SOFTMAX,
    BackwardCall,
    BackwardKernels,
    CrossEntropyCall,
    LossKernels,
    Op,
    PackedRows,
    PackingKernels,
    rows_fn,
    temperature_in_range,
)

cnp.import_array()

cdef object float32 = np.float32
cdef object float64 = np.float64

cdef enum:
    MAX_CACHED = 32000000  # bytes of a call's arrays: of more, caches keep no result to be read


cdef object as_targets(targets, const Plan *p, cnp.ndarray logits, int64_t ignore):
    """Return `targets` as classes, int64 and C-contiguous, or as probabilities in their own dtype.

    Raise where they are neither, or not of the shape that fits the logits'.
    """
    cdef int d, i = 0
    cdef bint good
    targets = as_int64(numbers_as_array(targets))
    good = is_behaved_c(targets) and cnp.PyArray_TYPE(targets) == cnp.NPY_INT64
    if good:
        good = cnp.PyArray_NDIM(targets) == p.ndim - 1
        for d in range(p.ndim):
            if good and not p.reduced[d]:
                good = cnp.PyArray_DIM(targets, i) == p.shape[d]
                i += 1
    if good:
        return targets
    axis = [d for d in range(p.ndim) if p.reduced[d]][0]
    return checks.check_targets(targets, shape_of(p, logits), axis, p.n, ignore)


cdef bint are_weights(weight, Py_ssize_t n) noexcept:
    """Return whether `weight` can serve as it is: float64, n finite numbers from 0."""
    cdef const double *w
    cdef Py_ssize_t i
    cdef bint good = True
    if not (
        is_behaved_c(weight) and cnp.PyArray_TYPE(weight) == cnp.NPY_FLOAT64
        and cnp.PyArray_NDIM(weight) == 1 and cnp.PyArray_DIM(weight, 0) == n
    ):
        return False
    w = <const double *>cnp.PyArray_DATA(weight)
    for i in range(n):
        good &= 0 <= w[i] < INFINITY
    return good


cdef object narrowed(double value, const Plan *p):
    """Return a loss as a scalar of the type that is computed in."""
    return float32(<float>value) if p.dtype == FLOAT32 else float64(value)


cdef class LossFunctions:
    """Cross entropy, and the gradients of it and of softmax, by one instruction set's kernels.

    Parameters
    ----------
    name : str
        That of the instruction set.
    cross_entropy, backward, packing : module
        Its kernels, named after their sources.
    """

    cdef readonly str NAME
    cdef LossKernels kernels
    cdef BackwardKernels vjp
    cdef PackingKernels packing

    def __cinit__(self, str name, cross_entropy, backward, packing):
        self.NAME = name
        copy_table(cross_entropy.kernels, &self.kernels)
        copy_table(backward.kernels, &self.vjp)
        copy_table(packing.kernels, &self.packing)

    def cross_entropy(
        self,
        logits,
        targets,
        *,
        axis=-1,
        temperature=1.0,
        weight=None,
        ignore_index=-100,
        label_smoothing=0.0,
        reduction="mean",
        workers=None,
    ):
        return self.loss(
            logits, targets, axis, temperature, weight, ignore_index, label_smoothing, reduction,
            None, workers, False,
        )

    def cross_entropy_with_grad(
        self,
        logits,
        targets,
        *,
        axis=-1,
        temperature=1.0,
        weight=None,
        ignore_index=-100,
        label_smoothing=0.0,
        reduction="mean",
        out=None,
        workers=None,
    ):
        return self.loss(
            logits, targets, axis, temperature, weight, ignore_index, label_smoothing, reduction,
            out, workers, True,
        )

    cdef object loss(
        self, logits, targets, axis, temperature, weight, ignore_index, smoothing, reduction, out,
        workers, bint with_grad,
    ):
        """Return the loss; with the gradient, as a LossAndGrad, if that is asked for."""
        cdef Plan p
        cdef CrossEntropyCall call
        cdef cnp.ndarray given, classes, grad = None
        cdef double total
        cdef Py_ssize_t bad
        cdef uint64_t environment
        # What has code of its own comes before anything is measured.
        workers = parse_workers(workers)
        given = as_input(logits, "logits")
        if type(axis) is not int:
            axis = arguments.one_axis(axis, max(1, cnp.PyArray_NDIM(given)))
        if not number_within(temperature, INFINITY, &call.temperature):
            call.temperature = values.number(temperature, "temperature", 0, INFINITY)
        if not number_within(smoothing, 1, &call.smoothing):
            call.smoothing = checks.smoothing(smoothing)
        if type(ignore_index) is not int or not -(1 << 63) <= ignore_index < 1 << 63:
            ignore_index = values.count(
                ignore_index, "ignore_index", checks.INT64.min, checks.INT64.max
            )
        call.ignore_index = ignore_index
        if type(reduction) is not str or reduction not in ("mean", "sum", "none"):
            values.choice(reduction, "reduction", ("none", "mean", "sum"))
        begin_plan(&p, given, axis)
        if weight is not None:
            environment = enter_environment()
            try:
                if not are_weights(weight, p.n):
                    weight = checks.class_weight(weight, p.n)
            finally:
                leave_environment(environment)
        targets = as_targets(targets, &p, given, call.ignore_index)
        call.n = p.n
        call.dtype = p.dtype
        call.weight = NULL
        call.targets = NULL
        if weight is not None:
            call.weight = <const double *>cnp.PyArray_DATA(weight)
        total = p.rows
        if cnp.PyArray_TYPE(targets) == cnp.NPY_INT64:
            classes = targets
            call.targets = <const int64_t *>cnp.PyArray_DATA(classes)
            environment = enter_environment()
            bad = self.kernels.weigh_targets(
                call.targets, p.rows, p.n, call.ignore_index, call.weight, &total
            )
            leave_environment(environment)
            if bad >= 0:
                raise checks.out_of_range(
                    call.targets[bad], bad, batch_shape_of(&p), p.n, ignore_index
                )
        else:
            set_array(&p.x2, targets, "targets", &p)
        if with_grad:
            if out is None:
                grad = empty_result(&p, given, "logits")
            else:
                grad = writable_result(out, &p, given, "logits", targets)
                if weight is not None and overlap(grad, weight):
                    grad = empty_for(&p, given, "logits", grad)
            set_array(&p.y, grad, "out", &p)
        loss = self.reduce(&p, &call, reduction, total, workers)
        if not with_grad:
            return loss
        if out is None:
            return new_tuple(LossAndGrad, (loss, grad))
        return new_tuple(LossAndGrad, (loss, given_to(out, grad)))

    cdef object reduce(
        self, Plan *p, CrossEntropyCall *call, reduction, double total, workers
    ):
        """Run a plan; return the losses, or their sum, or that divided by `total`."""
        cdef cnp.ndarray each = None  # before anything is written
        cdef double *losses
        cdef Py_ssize_t i
        cdef bint mean = reduction == "mean"
        cdef uint64_t environment
        cdef rows_fn kernel = self.kernels.cross_entropy
        cdef const PackingKernels *packing = &self.packing
        cdef PackedRows rows
        cdef Py_ssize_t most = (
            self.kernels.max_column_float32 if p.dtype == FLOAT32
            else self.kernels.max_column_float64
        )
        cdef double loss
        finish_plan(p, False)
        # Where scores are rewritten, no long row is worked on as a whole.
        call.packed = packed_rows(&rows, packing, p, not temperature_in_range(call.temperature))
        packing = packing_for(call.packed, packing)
        call.inner = 0
        if 0 < p.n <= most and temperature_in_range(call.temperature):
            call.inner = columns_of_arrays(p)
        if call.inner > 0:  # it gets at the columns itself
            kernel = self.kernels.cross_entropy_columns
            packing = NULL
            p.workspace.bytes = self.kernels.cross_entropy_columns_bytes(call)
        else:
            p.workspace.bytes = self.kernels.cross_entropy_bytes(call)
        call.workspace = &p.workspace
        if reduction == "none":
            each = np.empty(batch_shape_of(p), np.float32 if p.dtype == FLOAT32 else np.float64)
        losses = <double *>allocate(p.rows, sizeof(double))
        if losses == NULL:
            raise MemoryError(f"no memory for {p.rows} losses")
        try:
            call.losses = losses
            environment = enter_environment()
            call.factor = (1 / total if total != 0 else INFINITY) if mean else 1
            leave_environment(environment)
            run_rows(
                packing, kernel, call, p,
                cost_exp(<double>p.rows * p.n, p.dtype == FLOAT32), workers,
            )
            if each is not None:
                if p.dtype == FLOAT32:
                    environment = enter_environment()
                    for i in range(p.rows):
                        (<float *>cnp.PyArray_DATA(each))[i] = <float>losses[i]
                    leave_environment(environment)
                else:
                    for i in range(p.rows):
                        (<double *>cnp.PyArray_DATA(each))[i] = losses[i]
                return scalar_or_array(each)
            environment = enter_environment()
            loss = self.kernels.sum_losses(losses, p.rows)
            if mean:
                loss /= total
            result = narrowed(loss, p)
            leave_environment(environment)
            return result
        finally:
            free(losses)

    def softmax_backward(self, grad_output, probs, axis=-1, *, temperature=1.0, out=None):
        return self.backward(grad_output, probs, "probs", axis, temperature, out, SOFTMAX)

    def log_softmax_backward(self, grad_output, log_probs, axis=-1, *, temperature=1.0, out=None):
        return self.backward(
            grad_output, log_probs, "log_probs", axis, temperature, out, LOG_SOFTMAX
        )

    cdef object backward(self, grad_output, result, name, axis, temperature, out, Op op):
        """Return the gradient of softmax or log_softmax, by what it gave and that of its result."""
        cdef Plan p
        cdef BackwardCall call
        cdef PackedRows rows
        cdef Operand operand
        cdef double one = 1
        cdef double *each
        cdef int d
        cdef cnp.ndarray g = as_input(grad_output, "grad_output")
        cdef cnp.ndarray given = as_input(result, name)
        cdef cnp.ndarray y
        cdef bint same = cnp.PyArray_NDIM(g) == cnp.PyArray_NDIM(given)
        begin_plan(&p, given, axis)
        for d in range(cnp.PyArray_NDIM(g) if same else 0):
            same = same and cnp.PyArray_DIM(g, d) == p.shape[d]
        if not same:
            checks.gradient_pair(g, given, name)
        set_array(&p.x2, g, "grad_output", &p)
        temperature = set_temperature(&p, temperature, &one)
        y = writable_result(out, &p, given, name, None)
        if out is not None and overlap(y, g) and not same_memory(y, g):
            y = empty_for(&p, given, name, y)
        if p.rows > 0 and p.n > 0:
            set_array(&p.y, y, "out", &p)
            finish_plan(&p, True)
            operand = p.x
            p.x = p.x2
            p.x2 = operand
            each = row_temperatures(&p, &self.packing)
            call.dtype = p.dtype
            call.op = op
            call.n = p.n
            call.temperature = each if each != NULL else &one
            call.temperature_stride = each != NULL
            call.streams = 3 * cnp.PyArray_NBYTES(y) > MAX_CACHED
            call.packed = packed_rows(&rows, &self.packing, &p)
            p.workspace.bytes = self.vjp.packed_bytes if call.packed != NULL else 0
            try:
                run_rows(
                    packing_for(call.packed, &self.packing), self.vjp.backward, &call, &p,
                    cost_exp(<double>p.rows * p.n, p.dtype == FLOAT32), 1,
                )
            finally:
                free(each)
        if out is None:
            return scalar_or_array(y)
        return given_to(out, y)
