# cython: language_level=3, boundscheck=False
"""The public functions over one instruction set's kernels: two roads in, one kernel.

Fast road: an exact, aligned, C-contiguous float32 or float64 ndarray in native byte order, along
its last axis and without extras, goes straight to the row functions, by pointer; if it is so large
that a look for Ctrl-C is due on the way, or threads share it, through the typed-memoryview loops.
Other strides and the half types: by blocks, through ``_carry``. Slow road: everything else, through
``_arrays``. All end in the same row functions, so they give the same bits.
"""

from functools import partial

import numpy as np

from cpython.contextvars cimport get_value
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp

cdef extern from "numpy/random/bitgen.h":
    ctypedef struct bitgen_t:
        void *state
        double (*next_double)(void *state) noexcept nogil

from .. import _arrays, _reference, _targets, _threads
from . import long_row

from fastsoftmax._front.fast_path cimport (
    SIGNAL_INTERVAL,
    as_nonneg,
    classes_for,
    draws_that_fit,
    ids_for,
    is_fast_array,
    is_last_axis,
    overlap,
    rows_of,
    same_kind_and_shape,
    scalar,
    words_for,
)
from fastsoftmax._front.strided cimport (
    FLOAT64,
    StridedPlan,
    dtype_of,
    has_zero_stride,
    is_strided_input,
    plan_strided,
    run_strided,
)
from fastsoftmax._kernels.abi cimport (
    LOGSUMEXP,
    LOG_SOFTMAX,
    SOFTMAX,
    Filters,
    LogprobOutput,
    Op,
    temperature_in_range,
)
from fastsoftmax._kernels.legacy_abi cimport OldSampleKernels, OldSelectKernels, OldSoftmaxKernels
from fastsoftmax._kernels.philox cimport philox_rows

cnp.import_array()

cdef enum:
    SMALL = 16384  # elements; below, the GIL's release would be felt
    ROOM = 1024  # survivors a row that are provided for

cdef object ONE = np.ones(1)
cdef object Generator = np.random.Generator
cdef object Int64 = np.int64
cdef object default_workers = _threads.default
cdef double LEAST = _threads.LEAST
cdef double LONG_ROW = 6 * LEAST  # what a row must take for threads to share it, in three phases
_SELECT = {"f": "float", "d": "double"}


cdef inline bint filters(tuple knobs, Filters *f) except -1:
    """Take over ordinary parameters, one for all rows; tell if all of them are that."""
    cdef double k = 0, keep = 0, least = 0
    temperature, top_k, top_p, min_p, min_keep = knobs
    f.top_p = 1
    if not (
        as_nonneg(temperature, INFINITY, &f.temperature)
        and (top_k is None or type(top_k) is int and as_nonneg(top_k, INFINITY, &k))
        and (top_p is None or as_nonneg(top_p, 1, &f.top_p))
        and (min_p is None or as_nonneg(min_p, 1, &least))
        and type(min_keep) is int and as_nonneg(min_keep, INFINITY, &keep) and keep >= 1
    ):
        return False
    f.top_k = <Py_ssize_t>k
    f.min_keep = <Py_ssize_t>keep
    f.log_min_p = np.log(least) if least > 0 else -INFINITY  # NumPy's, as on the slow road
    return True


cdef inline object checked(object workers):
    """Return `workers` as None or a number of threads."""
    return None if workers is None else _threads.count(workers)


cdef Py_ssize_t threads_for(double work, object workers) except -1:
    """Return how many threads some work is for; `workers` is `checked`."""
    # The default is read where it matters alone: small calls don't pay for it.
    if work < 2 * LEAST:
        return 1
    if workers is None:
        workers = get_value(default_workers)
    return min(workers, <Py_ssize_t>(work / LEAST))


cdef object run(object kernel, tuple args, int each, double work, object workers):
    """Call ``kernel(*args)``, by blocks of rows if that pays: ``_threads.share_rows`` says how."""
    cdef Py_ssize_t threads = threads_for(work, workers)
    if threads > 1:
        threads = min(threads, len(args[0]))
    if threads > 1:
        _threads.share_rows(kernel, args, each, work, threads)
    else:
        kernel(*args)


# The estimates of work, in nanoseconds on a core of 3 GHz with AVX2.


cdef inline double exponentials(object x) noexcept:
    """Return what reading rows takes, and an exponential for each element."""
    return cnp.PyArray_SIZE(x) * (0.4 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else 1.5)


cdef Py_ssize_t threads_for_row(cnp.ndarray x, object workers) except -1:
    """Return how many threads share each row of few long ones; 1 if they share out the rows."""
    cdef Py_ssize_t rows, threads
    if exponentials(x) < LONG_ROW:
        return 1
    rows = rows_of(x)
    if exponentials(x) < rows * LONG_ROW:
        return 1
    threads = threads_for(exponentials(x) / rows, workers)
    return threads if rows < 2 * threads else 1


cdef bint ordinary(object ts) except -1:
    """Tell whether columns can be taken side by side: all T are `temperature_in_range`, and 1 or none is."""
    cdef const double[::1] each
    cdef Py_ssize_t i, ones = 0
    if ts is ONE:
        return True
    each = ts
    for i in range(each.shape[0]):
        if not temperature_in_range(each[i]):
            return False
        ones += each[i] == 1
    return ones == 0 or ones == each.shape[0]


cdef object empty_like(cnp.ndarray x, int axis, Op kind):
    """Return an array for the answer along an axis, in the order that `plan_strided` counts in.

    For LOGSUMEXP it is without the axis, and of the type that is computed in.
    """
    dtype = x.dtype
    order = "C" if has_zero_stride(x) else "K"
    if kind == LOGSUMEXP:
        dtype = np.float64 if dtype_of(x) == FLOAT64 else np.float32
        x = x[(*(slice(None),) * axis, 0, ...)]
    return np.empty_like(x, dtype, order)


cdef inline double selection(double size, double k) noexcept:
    """Return what it takes to select k of the elements of rows of together `size`."""
    return 0.08 * size + 22 * k


cdef inline double choosing(cnp.ndarray x, double k, double draws) noexcept:
    """Return what it takes to draw from rows, k of each, or all if that is 0."""
    cdef double size = cnp.PyArray_SIZE(x)
    cdef double each = selection(size, k * rows_of(x)) if k > 0 and size > 0 else 1.3 * size
    return each + 20 * draws


cdef class Implementation:
    """The public functions, computed by the kernels of one instruction set.

    Parameters
    ----------
    name : str
        That of the instruction set.
    softmax, select, sample, loss, backward : module
        Its kernels, named after their sources.
    """

    cdef readonly str NAME
    cdef OldSoftmaxKernels row
    cdef OldSelectKernels select
    cdef OldSampleKernels sampling
    cdef object map_rows, reduce_rows, long_rows, top_k_rows, rank_rows
    cdef object draw_rows, filter_rows, support_rows, logprobs_rows
    cdef object loss_rows, weigh_targets, add_losses, backward_rows

    def __init__(self, str name, softmax, select, sample, loss, backward):
        self.NAME = name
        self.row = (
            <OldSoftmaxKernels *>PyCapsule_GetPointer(
                softmax.row_functions, "fastsoftmax.RowFunctions"
            )
        )[0]
        self.select = (
            <OldSelectKernels *>PyCapsule_GetPointer(
                select.select_functions, "fastsoftmax.SelectFunctions"
            )
        )[0]
        self.sampling = (
            <OldSampleKernels *>PyCapsule_GetPointer(
                sample.sample_functions, "fastsoftmax.SampleFunctions"
            )
        )[0]
        kinds = ("float", "double")
        self.map_rows = {k: softmax.map_rows[k] for k in kinds}
        self.reduce_rows = {k: softmax.reduce_rows[k] for k in kinds}
        self.long_rows = {k: long_row.LongRows(softmax, k) for k in kinds}
        self.top_k_rows = {k: select.top_k_rows[k] for k in (*kinds, "int64_t")}
        self.rank_rows = {k: select.rank_rows[k] for k in (*kinds, "int64_t")}
        self.draw_rows = {k: sample.draw_rows[k] for k in kinds}
        self.loss_rows = {k: loss.loss_rows[k] for k in kinds}
        self.weigh_targets = loss.weigh_targets
        self.add_losses = loss.add_losses
        self.backward_rows = {k: backward.backward_rows[k] for k in kinds}
        self.filter_rows = {k: sample.filter_rows[k] for k in kinds}
        self.support_rows = {k: sample.support_rows[k] for k in kinds}
        self.logprobs_rows = {k: sample.logprobs_rows[k] for k in kinds}

    def __reduce__(self):
        from .._dispatch.choose import load

        return load, (self.NAME,)

    def softmax(self, x, axis=-1, *, temperature=1.0, where=None, out=None, workers=None):
        return self.map(x, axis, temperature, where, out, workers, False)

    def log_softmax(self, x, axis=-1, *, temperature=1.0, where=None, out=None, workers=None):
        return self.map(x, axis, temperature, where, out, workers, True)

    cdef object map(self, x, axis, temperature, where, out, workers, bint log):
        cdef double t
        cdef Py_ssize_t n, size
        cdef cnp.ndarray y
        workers = checked(workers)
        if where is None and is_fast_array(x) and is_last_axis(axis, x):
            t = scalar(temperature)
            if t >= 0 and (
                out is None
                or out is x and cnp.PyArray_ISWRITEABLE(x)
                or is_fast_array(out)
                and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)
                and cnp.PyArray_ISWRITEABLE(out)
                and cnp.PyArray_SAMESHAPE(out, x)
                and not overlap(out, x)
            ):
                if out is None:
                    y = cnp.PyArray_EMPTY(
                        cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0
                    )
                else:
                    y = out
                size = cnp.PyArray_SIZE(x)
                n = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
                if size == 0:
                    return y
                if size > SIGNAL_INTERVAL or size > SMALL and threads_for(exponentials(x), workers) > 1:
                    self.map_all(
                        x.reshape(-1, n), y.reshape(-1, n), ONE if t == 1 else np.array([t]), log,
                        workers,
                    )
                else:
                    self.answer(x, cnp.PyArray_DATA(y), n, t, LOG_SOFTMAX if log else SOFTMAX)
                return y
        kind = LOG_SOFTMAX if log else SOFTMAX
        if where is None:
            y = self.strided(x, axis, scalar(temperature), out, kind, workers)
            if y is not None:
                return y
        layout = _arrays.Layout(x, axis, where)
        ts = _arrays.temperatures(temperature, layout.shape)
        x, target, axis = layout.arrange(out)
        if target is None:
            target = empty_like(x, axis, kind)
        if cnp.PyArray_SIZE(x) > 0:
            self.carry(x, target, axis, ts, kind, workers)
        return layout.spread(target, -np.inf if log else 0.0, out)

    cdef object strided(self, x, axis, double temperature, out, Op kind, workers):
        """Return the answer along one axis of an array of any strides.

        None if it takes more than that, or an argument is wrong.
        """
        cdef int ndim
        cdef Py_ssize_t a
        if not (temperature >= 0 and type(axis) is int and is_strided_input(x)):
            return None
        ndim = cnp.PyArray_NDIM(x)
        if not -ndim <= axis < ndim:
            return None
        a = axis + ndim if axis < 0 else axis
        if out is None:
            out = empty_like(x, a, kind)
        elif not (
            cnp.PyArray_CheckExact(out)
            and cnp.PyArray_ISNOTSWAPPED(out)
            and cnp.PyArray_ISWRITEABLE(out)
            and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)
            and cnp.PyArray_SAMESHAPE(out, x)
            and (out is x or not np.may_share_memory(out, x))
        ):
            return None
        self.carry(x, out, a, ONE if temperature == 1 else np.array([temperature]), kind, workers)
        return out

    cdef object carry(self, x, y, int axis, ts, Op kind, workers):
        """Write the answer along one axis of an array of any strides."""
        cdef Py_ssize_t n = cnp.PyArray_DIM(x, axis)
        cdef Py_ssize_t count = cnp.PyArray_SIZE(x) // n
        cdef bint fit = (
            cnp.PyArray_STRIDE(x, axis) != cnp.PyArray_ITEMSIZE(x) and ordinary(ts)
        )
        cdef Py_ssize_t threads = threads_for(exponentials(x), workers)
        if threads == 1:
            self._carry(x, y, axis, ts, fit, kind, 0, count)
            return
        rows = np.moveaxis(x, axis, -1)
        if dtype_of(x) <= FLOAT64 and threads_for_row(rows, workers) > 1:
            rows = np.require(rows.reshape(count, n), requirements=["C", "A"])
            target = y if kind == LOGSUMEXP else np.moveaxis(y, axis, -1)
            answers = np.empty(target.shape, x.dtype)
            if kind == LOGSUMEXP:
                self.reduce_all(rows, answers.reshape(-1), workers)
            else:
                self.map_all(rows, answers.reshape(-1, n), ts, kind == LOG_SOFTMAX, workers)
            target[...] = answers
            return
        call = partial(self._carry, x, y, axis, ts, fit, kind)
        _threads.share(call, count, exponentials(x), threads)

    def _carry(
        self, cnp.ndarray x, cnp.ndarray y, int axis, cnp.ndarray ts, bint fit, Op kind,
        Py_ssize_t start, Py_ssize_t stop,
    ):
        """Write the answer for rows or columns `start` to `stop`."""
        cdef const double *t = <const double *>cnp.PyArray_DATA(ts)
        cdef Py_ssize_t each = cnp.PyArray_SIZE(ts) > 1
        cdef StridedPlan c = plan_strided(x, y, axis, not each, fit)
        with nogil:
            run_strided(&self.row, &c, t, each, kind, start, stop)

    cdef object map_all(self, x, y, ts, bint log, workers):
        """Write the answer for the rows of a large array, or of any, without the GIL."""
        cdef Py_ssize_t threads = threads_for_row(x, workers)
        kind = _SELECT[x.dtype.char]
        if threads > 1:
            row = self.long_rows[kind]
            work = exponentials(x) / len(x)
            for i in range(len(x)):
                t = ts[i:i + 1] if len(ts) > 1 else ts
                if not (temperature_in_range(t[0]) and row.map(x[i], y[i], t[0], log, work, threads)):
                    self.map_rows[kind](x[i:i + 1], y[i:i + 1], t, log)
            return
        run(
            self.map_rows[kind], (x, y, ts, log), 3 if len(ts) > 1 else 2, exponentials(x), workers
        )

    cdef void answer(
        self, cnp.ndarray x, void *y, Py_ssize_t n, double temperature, Op kind
    ) noexcept:
        """Write the answer for the rows of an array, by pointer."""
        cdef void *p = cnp.PyArray_DATA(x)
        cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
        cdef bint wide = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64
        if size > SMALL:
            with nogil:
                self.answer_rows(p, y, size // n, n, temperature, kind, wide)
        else:
            self.answer_rows(p, y, size // n, n, temperature, kind, wide)

    cdef inline void answer_rows(
        self, void *x, void *y, Py_ssize_t rows, Py_ssize_t n, double temperature, Op kind,
        bint wide,
    ) noexcept nogil:
        """`answer` for float64 if `wide`, else for float32."""
        if wide:
            self.row.rows64(<double *>x, <double *>y, rows, n, &temperature, 0, kind)
        else:
            self.row.rows32(<float *>x, <float *>y, rows, n, &temperature, 0, kind)

    def logsumexp(self, x, axis=-1, *, where=None, keepdims=False, workers=None):
        cdef Py_ssize_t n
        cdef int ndim
        cdef cnp.ndarray y
        workers = checked(workers)
        if (
            where is None
            and not keepdims
            and is_fast_array(x)
            and is_last_axis(axis, x)
            and 0 < cnp.PyArray_SIZE(x) <= SIGNAL_INTERVAL
            and (cnp.PyArray_SIZE(x) <= SMALL or threads_for(exponentials(x), workers) == 1)
        ):
            ndim = cnp.PyArray_NDIM(x)
            n = cnp.PyArray_DIM(x, ndim - 1)
            y = cnp.PyArray_EMPTY(ndim - 1, cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
            self.answer(x, cnp.PyArray_DATA(y), n, 1, LOGSUMEXP)
            return y if ndim > 1 else y[()]
        if where is None:
            result = self.strided(x, axis, 1, None, LOGSUMEXP, workers)
            if result is not None:
                if keepdims:
                    result = np.expand_dims(result, axis)
                with np.errstate(all="ignore"):
                    return result.astype(x.dtype, copy=False)[()]
        layout = _arrays.Layout(x, axis, where)
        x, _, axis = layout.arrange(None)
        if cnp.PyArray_SIZE(x) > 0:
            y = empty_like(x, axis, LOGSUMEXP)
            self.carry(x, y, axis, ONE, LOGSUMEXP, workers)
        else:
            y = np.full(layout.shape, -np.inf)
        return layout.reduce(y, keepdims)

    cdef object reduce_all(self, x, y, workers):
        """Write logsumexp of each row of x into y."""
        kind = _SELECT[y.dtype.char]
        threads = threads_for_row(x, workers)
        if threads > 1:
            row = self.long_rows[kind]
            for i in range(len(x)):
                if not row.logsumexp(x[i], y[i:i + 1], exponentials(x) / len(x), threads):
                    self.reduce_rows[kind](x[i:i + 1], y[i:i + 1])
        else:
            run(self.reduce_rows[kind], (x, y), 2, exponentials(x), workers)

    def cross_entropy(
        self,
        logits,
        targets,
        *,
        axis=-1,
        weight=None,
        ignore_index=-100,
        label_smoothing=0.0,
        reduction="mean",
        workers=None,
    ):
        return self.loss(
            logits, targets, axis, weight, ignore_index, label_smoothing, reduction, None, workers,
            False,
        )[0]

    def cross_entropy_with_grad(
        self,
        logits,
        targets,
        *,
        axis=-1,
        weight=None,
        ignore_index=-100,
        label_smoothing=0.0,
        reduction="mean",
        out=None,
        workers=None,
    ):
        return self.loss(
            logits, targets, axis, weight, ignore_index, label_smoothing, reduction, out, workers,
            True,
        )

    cdef object loss(
        self, logits, targets, axis, weight, ignore, smoothing, reduction, out, workers,
        bint with_grad,
    ):
        cdef Py_ssize_t n, rows
        plan = grad = None
        workers = checked(workers)
        if (
            weight is None
            and type(smoothing) is float
            and 0 <= smoothing <= 1
            and type(ignore) is int
            and -(1 << 62) < ignore < 1 << 62
            and type(reduction) is str
            and reduction in ("none", "mean", "sum")
            and is_fast_array(logits)
            and is_last_axis(axis, logits)
            and classes_for(targets, logits)
            and (out is None or out is logits or same_kind_and_shape(out, logits) and not overlap(out, logits))
            and (out is None or cnp.PyArray_ISWRITEABLE(out) and not overlap(out, targets))
        ):
            n = cnp.PyArray_DIM(logits, cnp.PyArray_NDIM(logits) - 1)
            rows = cnp.PyArray_SIZE(targets)
            shape, dtype = targets.shape, logits.dtype
            if with_grad:
                grad = out
                if out is None:
                    grad = cnp.PyArray_EMPTY(
                        cnp.PyArray_NDIM(logits),
                        cnp.PyArray_DIMS(logits),
                        cnp.PyArray_TYPE(logits),
                        0,
                    )
            targets = targets.reshape(-1)
        else:
            plan = _targets.LossPlan(
                logits, targets, axis, weight, ignore, smoothing, reduction, out
            )
            n, rows = plan.classes, plan.rows
            shape, dtype = plan.shape, plan.dtype
            targets, weight, smoothing, ignore = (
                plan.targets, plan.weight, plan.smoothing, plan.ignore
            )
            if with_grad:
                grad = plan.gradient(out)
        total = rows
        if targets is not None:
            bad, total = self.weigh_targets(targets, n, ignore, weight)
            if bad >= 0:
                raise _targets.out_of_range(targets[bad], bad, shape, n, ignore)
        factor = 1.0
        if reduction == "mean":
            factor = 1 / total if total else np.inf
        losses = np.empty(rows)
        if plan is None:
            args = (
                logits.reshape(rows, n),
                None if grad is None else grad.reshape(rows, n),
                losses,
                targets,
                None,
                None,
                smoothing,
                ignore,
                factor,
            )
            run(self.loss_rows[_SELECT[dtype.char]], args, 5, exponentials(logits), workers)
        else:
            kernel = self.loss_rows[_SELECT[plan.work.char]]
            for part, x, y, labels in plan.pieces(grad):
                args = (
                    x,
                    y,
                    losses[part],
                    None if targets is None else targets[part],
                    labels,
                    weight,
                    smoothing,
                    ignore,
                    factor,
                )
                run(kernel, args, 5, exponentials(x), workers)
            if out is not None and grad is not out and not np.may_share_memory(grad, out):
                out[...] = grad
        if reduction == "none":
            with np.errstate(all="ignore"):
                loss = losses.astype(dtype, copy=False).reshape(shape)[()]
        else:
            loss = rounded(self.add_losses(losses), total if reduction == "mean" else 1.0, dtype)
        return _targets.LossAndGrad(loss, grad if out is None else out)

    def softmax_backward(self, grad_output, probs, axis=-1, *, temperature=1.0, out=None):
        return self.backward(grad_output, probs, "probs", axis, temperature, out, False)

    def log_softmax_backward(self, grad_output, log_probs, axis=-1, *, temperature=1.0, out=None):
        return self.backward(grad_output, log_probs, "log_probs", axis, temperature, out, True)

    cdef object backward(self, grad_output, p, name, axis, temperature, out, bint log):
        if (
            is_fast_array(p)
            and is_last_axis(axis, p)
            and same_kind_and_shape(grad_output, p)
            and scalar(temperature) >= 0
            and (
                out is None
                or same_kind_and_shape(out, p)
                and cnp.PyArray_ISWRITEABLE(out)
                and (out is p or not overlap(out, p))
                and (out is grad_output or not overlap(out, grad_output))
            )
        ):
            y = np.empty_like(p) if out is None else out
            if cnp.PyArray_SIZE(p) > 0:
                n = p.shape[-1]
                self.backward_rows[_SELECT[p.dtype.char]](
                    grad_output.reshape(-1, n),
                    p.reshape(-1, n),
                    y.reshape(-1, n),
                    ONE if temperature == 1 else np.array([temperature]),
                    log,
                )
            return y
        grad_output, p = _targets.gradient_pair(grad_output, p, name)
        rows = _arrays.Rows(p, axis)
        given = _arrays.Rows(grad_output, axis)
        ts = _arrays.temperatures(temperature, rows.shape)
        target = rows.target(out)
        if np.may_share_memory(target, given.data) and target.ctypes.data != given.data.ctypes.data:
            target = np.empty_like(target)
        self.backward_rows[_SELECT[target.dtype.char]](given.data, rows.data, target, ts, log)
        return rows.spread(target, out)

    def top_k(self, x, k, /, *, axis=-1, mode="largest", sorted=True, workers=None):
        cdef Py_ssize_t n, count
        workers = checked(workers)
        if (
            is_fast_array(x)
            and is_last_axis(axis, x)
            and type(k) is int
            and 0 < k <= cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
            and type(mode) is str
            and (mode == "largest" or mode == "smallest")
            and 0 < cnp.PyArray_SIZE(x) <= SIGNAL_INTERVAL
            and (
                cnp.PyArray_SIZE(x) <= ROOM
                or threads_for(selection(cnp.PyArray_SIZE(x), <double>k * rows_of(x)), workers) == 1
            )
        ):
            return self.top_k_plain(x, k, sorted, mode == "largest")
        x = _arrays.as_array(x, "x")
        _arrays.choice(mode, "mode", ("largest", "smallest"))
        wide = x.reshape(1) if x.ndim == 0 else x
        axis = _arrays.one_axis(axis, wide.ndim)
        k = _arrays.count(k, "k", 0, wide.shape[axis])
        n = wide.shape[axis]
        moved = wide if axis == wide.ndim - 1 else np.moveaxis(wide, axis, -1)
        rows = np.require(ordered(moved), requirements=["C", "A"])
        shape = moved.shape[:-1]
        count = rows.size // n if n else 0
        values = np.empty((count, k), dtype=rows.dtype)
        indices = np.empty((count, k), dtype=np.int64)
        kind = _SELECT.get(rows.dtype.char, "int64_t")
        args = rows.reshape(count, n), values, indices, sorted, mode == "largest"
        run(self.top_k_rows[kind], args, 3, selection(rows.size, indices.size), workers)
        indices = indices.reshape(*shape, k)
        if rows.dtype == x.dtype:
            values = values.reshape(*shape, k)
        else:
            values = np.take_along_axis(moved, indices, -1)
        if axis != wide.ndim - 1:
            values = np.ascontiguousarray(np.moveaxis(values, -1, axis))
            indices = np.ascontiguousarray(np.moveaxis(indices, -1, axis))
        return _arrays.TopK(values, indices)

    cdef object top_k_plain(self, cnp.ndarray x, Py_ssize_t k, bint sort, bint largest):
        """Select from ordinary rows, by pointer and without the GIL."""
        cdef int ndim = cnp.PyArray_NDIM(x)
        cdef cnp.npy_intp n = cnp.PyArray_DIM(x, ndim - 1)
        cdef Py_ssize_t rows = cnp.PyArray_SIZE(x) // n
        cdef cnp.npy_intp shape[64]  # NumPy's limit
        cdef cnp.ndarray values, indices
        cdef const void *p = cnp.PyArray_DATA(x)
        cdef void *q
        cdef int64_t *places
        cdef bint done
        memcpy(shape, cnp.PyArray_DIMS(x), ndim * sizeof(cnp.npy_intp))
        shape[ndim - 1] = k
        values = cnp.PyArray_EMPTY(ndim, shape, cnp.PyArray_TYPE(x), 0)
        indices = cnp.PyArray_EMPTY(ndim, shape, cnp.NPY_INT64, 0)
        q = cnp.PyArray_DATA(values)
        places = <int64_t *>cnp.PyArray_DATA(indices)
        if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
            with nogil:
                done = self.select.top_k32(<const float *>p, rows, n, k, sort, largest, <float *>q, places)
        else:
            with nogil:
                done = self.select.top_k64(<const double *>p, rows, n, k, sort, largest, <double *>q, places)
        if not done:
            raise MemoryError(f"no memory to select from rows of {n} elements")
        return _arrays.TopK(values, indices)

    def sample(
        self,
        logits,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        min_p=None,
        min_keep=1,
        size=None,
        replace=True,
        rng=None,
        seed=None,
        position=None,
        on_invalid="raise",
        workers=None,
    ):
        knobs = temperature, top_k, top_p, min_p, min_keep
        chance = rng, seed, position
        return self.draw(logits, knobs, size, replace, chance, on_invalid, workers, False)

    def sample_with_logprobs(
        self,
        logits,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        min_p=None,
        min_keep=1,
        size=None,
        replace=True,
        rng=None,
        seed=None,
        position=None,
        on_invalid="raise",
        workers=None,
    ):
        knobs = temperature, top_k, top_p, min_p, min_keep
        chance = rng, seed, position
        return self.draw(logits, knobs, size, replace, chance, on_invalid, workers, True)

    cdef object draw(
        self, logits, tuple knobs, size, replace, tuple chance, on_invalid, workers, bint report
    ):
        """Draw; return the ids, or a Drawn if a report is asked for."""
        cdef Filters f
        cdef double m = 1
        workers = checked(workers)
        if (
            is_fast_array(logits)
            and 0 < cnp.PyArray_SIZE(logits) <= SIGNAL_INTERVAL
            and (size is None or type(size) is int and as_nonneg(size, draws_that_fit(logits), &m))
            and type(replace) is bool
            and filters(knobs, &f)
            and threads_for(choosing(logits, f.top_k, m * rows_of(logits)), workers) == 1
            and type(on_invalid) is str
            and (on_invalid == "raise" or on_invalid == "flag")
        ):
            return self.draw_plain(
                logits, <Py_ssize_t>m, size, replace, &f, chance, on_invalid == "flag", report
            )
        rows = _arrays.Rows(_arrays.as_array(logits, "logits"), -1)
        given = _arrays.filters(rows.shape, *knobs)
        flag = _arrays.choice(on_invalid, "on_invalid", ("raise", "flag")) == "flag"
        again = _arrays.switch(replace, "replace")
        uniforms = _arrays.uniforms(*chance, rows.shape, _arrays.draws(size), philox)
        ids = np.empty(uniforms.shape, dtype=np.int64)
        told = ids.shape if report else (0, 0)
        logs = np.empty((2, *told), dtype=rows.data.dtype)
        ranks = np.empty(told, dtype=np.int64)
        run(
            self.draw_rows[_SELECT[logs.dtype.char]],
            (rows.data, uniforms, ids, logs[0], logs[1], ranks, given, again),
            7 if len(given) > 1 else 6,
            choosing(rows.data, given["top_k"].min(initial=0), ids.size),
            workers,
        )
        ids = _arrays.drawn(ids, rows.data, rows.shape, size, flag)
        if not report:
            return ids
        with np.errstate(all="ignore"):
            logs = logs.astype(rows.dtype, copy=False).reshape(2, *ids.shape)
        return _arrays.Drawn(ids, logs[0], logs[1], ranks.reshape(ids.shape)[()])

    cdef object draw_plain(
        self, cnp.ndarray x, Py_ssize_t m, object size, bint replace, Filters *f, tuple chance,
        bint flag, bint report,
    ):
        """Draw from ordinary rows, by pointer and without the GIL."""
        cdef int ndim = cnp.PyArray_NDIM(x)
        cdef int kind = cnp.PyArray_TYPE(x)
        cdef Py_ssize_t n = cnp.PyArray_DIM(x, ndim - 1)
        cdef Py_ssize_t rows = cnp.PyArray_SIZE(x) // n
        cdef cnp.npy_intp shape[64]  # NumPy's limit
        cdef const void *p = cnp.PyArray_DATA(x)
        cdef cnp.ndarray ids, logprobs, filtered, ranks
        cdef double one
        cdef const double *u = &one
        cdef int64_t *id
        cdef LogprobOutput told
        cdef const LogprobOutput *asked = NULL
        cdef Py_ssize_t i
        cdef bint done, valid = True
        memcpy(shape, cnp.PyArray_DIMS(x), ndim * sizeof(cnp.npy_intp))
        shape[ndim - 1] = m
        uniforms = uniforms_for(shape, ndim, rows, m, chance, &one)
        if uniforms is not None:
            u = <const double *>cnp.PyArray_DATA(uniforms)
        ndim -= size is None
        ids = cnp.PyArray_EMPTY(ndim, shape, cnp.NPY_INT64, 0)
        id = <int64_t *>cnp.PyArray_DATA(ids)
        if report:
            logprobs = cnp.PyArray_EMPTY(ndim, shape, kind, 0)
            filtered = cnp.PyArray_EMPTY(ndim, shape, kind, 0)
            ranks = cnp.PyArray_EMPTY(ndim, shape, cnp.NPY_INT64, 0)
            told.logprobs = cnp.PyArray_DATA(logprobs)
            told.filtered = cnp.PyArray_DATA(filtered)
            told.ranks = <int64_t *>cnp.PyArray_DATA(ranks)
            asked = &told
        if m == 0:
            done = True
        else:
            with nogil:
                done = self.sampling.draw(
                    p, kind == cnp.NPY_FLOAT64, rows, n, u, m, replace, f, 0, id, asked
                )
        if not done:
            raise MemoryError(f"no memory to draw from rows of {n} elements")
        for i in range(rows * m):
            valid &= id[i] >= 0
        if not valid and not flag:
            given = (<object>x).shape[:-1]
            _arrays.drawn(ids.reshape(rows, m), x.reshape(rows, n), given, size, False)
        if not report:
            return scalar_or_array(ids)
        return _arrays.Drawn(
            scalar_or_array(ids),
            scalar_or_array(logprobs),
            scalar_or_array(filtered),
            scalar_or_array(ranks),
        )

    def filter_logits(
        self,
        logits,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        min_p=None,
        min_keep=1,
        ties="index",
        out=None,
        workers=None,
    ):
        workers = checked(workers)
        rows = _arrays.Rows(_arrays.as_array(logits, "logits"), -1)
        given = _arrays.filters(rows.shape, temperature, top_k, top_p, min_p, min_keep)
        every_tie = _arrays.choice(ties, "ties", ("index", "all")) == "all"
        target = rows.target(out)
        run(
            self.filter_rows[_SELECT[target.dtype.char]], (rows.data, target, given, every_tie),
            3 if len(given) > 1 else 2, choosing(rows.data, given["top_k"].min(initial=0), 0),
            workers,
        )
        if target.dtype != rows.dtype:
            target = _arrays.held(target, rows.dtype)
        return rows.spread(target, out)

    def support(
        self, logits, *, temperature=1.0, top_k=None, top_p=None, min_p=None, min_keep=1
    ):
        rows = _arrays.Rows(_arrays.as_array(logits, "logits"), -1)
        given = _arrays.filters(rows.shape, temperature, top_k, top_p, min_p, min_keep)
        count, n = rows.data.shape
        counts = np.empty(count, dtype=np.int64)
        most = min(n, ROOM)
        width = -1
        while most > width:  # a second time if the room did not suffice
            width = most
            indices = np.empty((count, width), dtype=np.int64)
            probs = np.empty((count, width), dtype=rows.data.dtype)
            self.support_rows[_SELECT[probs.dtype.char]](rows.data, given, indices, probs, counts)
            most = int(counts.max(initial=0))
        shape = (*rows.shape, most)
        with np.errstate(all="ignore"):
            probs = probs[:, :most].astype(rows.dtype)
        return _arrays.Support(
            indices[:, :most].copy().reshape(shape),
            probs.reshape(shape),
            counts.reshape(rows.shape)[()],
        )

    def token_logprobs(self, logits, ids, *, temperature=1.0):
        cdef double one
        if is_fast_array(logits) and as_nonneg(temperature, INFINITY, &one):
            y = self.look_up(logits, ids, &one)
            if y is not None:
                return y
        rows = _arrays.Rows(_arrays.as_array(logits, "logits"), -1)
        count, n = rows.data.shape
        t = _arrays.temperatures(temperature, rows.shape)
        ids = _arrays.token_ids(ids, rows.shape, n)
        wide = ids.reshape(count, ids.size // max(count, 1))
        y = np.empty(wide.shape, dtype=rows.data.dtype)
        self.logprobs_rows[_SELECT[y.dtype.char]](rows.data, t, wide, y)
        with np.errstate(all="ignore"):
            return y.astype(rows.dtype, copy=False).reshape(ids.shape)[()]

    def top_logprobs(self, logits, n, *, temperature=1.0):
        logits = np.atleast_1d(_arrays.as_array(logits, "logits"))
        n = _arrays.count(n, "n", 0, logits.shape[-1])
        indices = self.top_k(logits, n).indices
        logprobs = self.token_logprobs(logits, indices, temperature=temperature)
        return _arrays.TopLogprobs(logprobs, indices)

    def rank(self, logits, ids):
        if is_fast_array(logits):
            ranks = self.look_up(logits, ids, NULL)
            if ranks is not None:
                return ranks
        x = np.atleast_1d(_arrays.as_array(logits, "logits"))
        ids = _arrays.token_ids(ids, x.shape[:-1], x.shape[-1])
        rows = np.require(ordered(x), requirements=["C", "A"])
        count = ids.size // (ids.shape[-1] if ids.ndim == x.ndim else 1) if ids.size else 0
        ranks = np.empty_like(ids)
        if ids.size:
            kind = _SELECT.get(rows.dtype.char, "int64_t")
            self.rank_rows[kind](
                rows.reshape(count, -1), ids.reshape(count, -1), ranks.reshape(count, -1)
            )
        return ranks[()]

    cdef object look_up(self, cnp.ndarray x, object ids, const double *temperature):
        """Return log-probabilities, or ranks if there is no temperature; None if it is no little
        work on ordinary ids, or one of them is wrong.
        """
        cdef int ndim = cnp.PyArray_NDIM(x)
        cdef Py_ssize_t n = cnp.PyArray_DIM(x, ndim - 1)
        cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
        cdef const void *p = cnp.PyArray_DATA(x)
        cdef int kind = cnp.PyArray_TYPE(x)
        cdef cnp.npy_intp *shape = NULL
        cdef int64_t one
        cdef const int64_t *id = &one
        cdef Py_ssize_t rows, count, m, i
        cdef cnp.ndarray y
        cdef void *q
        cdef bint done = True
        if not 0 < size <= SIGNAL_INTERVAL:
            return None
        rows = size // n
        if ndim == 1 and (type(ids) is int or type(ids) is Int64):
            if not 0 <= ids < n:
                return None
            one = ids
            ndim = 0
            count = 1
        elif ids_for(ids, x):
            id = <const int64_t *>cnp.PyArray_DATA(ids)
            ndim = cnp.PyArray_NDIM(ids)
            shape = cnp.PyArray_DIMS(ids)
            count = cnp.PyArray_SIZE(ids)
        else:
            return None
        m = count // rows
        if not 0 < size * m <= 64 * SIGNAL_INTERVAL:
            return None
        for i in range(count):
            if not 0 <= id[i] < n:
                return None
        y = cnp.PyArray_EMPTY(ndim, shape, kind if temperature != NULL else cnp.NPY_INT64, 0)
        q = cnp.PyArray_DATA(y)
        with nogil:
            if temperature == NULL and kind == cnp.NPY_FLOAT32:
                self.select.rank32(<const float *>p, rows, n, id, m, <int64_t *>q)
            elif temperature == NULL:
                self.select.rank64(<const double *>p, rows, n, id, m, <int64_t *>q)
            else:
                done = self.sampling.logprobs(
                    p, kind == cnp.NPY_FLOAT64, rows, n, temperature, 0, id, m, q
                )
        if not done:
            raise MemoryError(f"no memory to weigh rows of {n} elements")
        return scalar_or_array(y)


cdef inline object scalar_or_array(cnp.ndarray y):
    """Return y, or its scalar if it has no axes."""
    return y if cnp.PyArray_NDIM(y) > 0 else y[()]


@cython.cdivision(True)
cdef object rounded(double a, double b, object dtype):
    """Return a / b as a scalar of a float dtype, without a warning."""
    cdef int kind = dtype.num
    if kind == cnp.NPY_FLOAT64:
        return np.float64(a / b)
    if kind == cnp.NPY_FLOAT32:
        return np.float32(<float>(a / b))
    with np.errstate(all="ignore"):
        return dtype.type(a / b)


def philox(const uint64_t[::1] seed, const uint64_t[::1] position, Py_ssize_t m):
    """Return the same, for a seed and a position for each row."""
    u = np.empty((seed.shape[0], m))
    cdef double[:, ::1] target = u
    if u.size:
        philox_rows(&seed[0], 1, &position[0], 1, seed.shape[0], m, &target[0, 0])
    return u


cdef bint words(
    object value, const cnp.npy_intp *shape, int ndim, uint64_t *one, const uint64_t **word,
    Py_ssize_t *each,
) except -1:
    """Take over an ordinary seed or position, or one for each row; tell if it is that.

    An int (no subclass) of 64 bits goes into `one`, an array of the rows' shape stays where it is.
    """
    cdef Py_ssize_t i
    word[0] = one
    each[0] = 0
    if type(value) is int:
        if not 0 <= value < 1 << 64:
            return False
        one[0] = value
        return True
    if not words_for(value, ndim, shape):
        return False
    word[0] = <const uint64_t *>cnp.PyArray_DATA(value)
    each[0] = 1
    if cnp.PyArray_TYPE(value) == cnp.NPY_INT64:
        for i in range(cnp.PyArray_SIZE(value)):
            if <int64_t>word[0][i] < 0:
                return False
    return True


cdef object uniforms_for(
    const cnp.npy_intp *shape, int ndim, Py_ssize_t rows, Py_ssize_t m, tuple chance, double *one
):
    """Return m uniforms for each row, in an array or, if it is a single one, in `one`."""
    cdef uint64_t s, p
    cdef const uint64_t *seeds
    cdef const uint64_t *positions
    cdef Py_ssize_t each_seed, each_position
    cdef bitgen_t *bits
    cdef cnp.ndarray u
    cdef int d
    rng, seed, position = chance
    if type(rng) is Generator and seed is None and position is None:
        if rows * m != 1:
            return rng.random(rows * m)
        source = rng.bit_generator  # as `random` does it, in half the time
        with source.lock:
            bits = <bitgen_t *>PyCapsule_GetPointer(source.capsule, "BitGenerator")
            one[0] = bits.next_double(bits.state)
        return None
    if (
        rng is None
        and words(seed, shape, ndim - 1, &s, &seeds, &each_seed)
        and words(position, shape, ndim - 1, &p, &positions, &each_position)
    ):
        if rows * m == 1:
            philox_rows(seeds, each_seed, positions, each_position, 1, 1, one)
            return None
        u = np.empty(rows * m)
        philox_rows(
            seeds, each_seed, positions, each_position, rows, m, <double *>cnp.PyArray_DATA(u)
        )
        return u
    given = _arrays.uniforms(
        rng, seed, position, tuple([shape[d] for d in range(ndim - 1)]), m, philox
    )
    return np.require(given, dtype=np.float64, requirements=["C", "A"])


cdef object ordered(object x):
    """Return x as float32, float64 or int64 of the same order; NaN stays NaN."""
    if x.dtype.kind in "iub":
        if x.dtype == np.uint64:
            return (x ^ np.uint64(1 << 63)).view(np.int64)
        return x.astype(np.int64, copy=False)
    with np.errstate(all="ignore"):
        return x.astype(_arrays.work_dtype(x.dtype), copy=False)


# The docstrings stand once, in the reference.
for _name in _reference.__all__:
    getattr(Implementation, _name).__doc__ = getattr(_reference, _name).__doc__
