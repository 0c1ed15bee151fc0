# cython: language_level=3, boundscheck=False
"""The public functions over one instruction set's kernels: two roads in, one kernel.

Fast road: an exact, aligned, C-contiguous float32 or float64 ndarray in native byte order, along
its last axis and without extras, goes straight to the row functions: by pointer if it is small,
through the typed-memoryview loops if it is large. Slow road: everything else, through ``_arrays``.
Both end in the same row functions, so they give the same bits.
"""

import numpy as np

from cpython.pycapsule cimport PyCapsule_GetPointer

cimport cython
cimport numpy as cnp

from . import _arrays, _reference, _targets

from fastsoftmax._kernels cimport RowFunctions

cnp.import_array()

cdef enum:
    SMALL = 16384  # elements; below, acquiring memoryviews and the GIL's release would be felt

cdef object ONE = np.ones(1)
_SELECT = {"f": "float", "d": "double"}


cdef inline bint plain(object x) noexcept:
    """Tell whether x can take the fast road."""
    cdef int kind
    if not cnp.PyArray_CheckExact(x):
        return False
    kind = cnp.PyArray_TYPE(x)
    return (
        (kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64)
        and cnp.PyArray_NDIM(x) > 0
        and cnp.PyArray_IS_C_CONTIGUOUS(x)
        and cnp.PyArray_ISALIGNED(x)
        and cnp.PyArray_ISNOTSWAPPED(x)
    )


cdef inline bint last(object axis, object x) except -1:
    """Tell whether `axis`, an int, is the last one of x."""
    return type(axis) is int and (axis == -1 or axis == cnp.PyArray_NDIM(x) - 1)


cdef inline double scalar(object temperature) except? -1:
    """Return an ordinary temperature, or -1 for one that takes the slow road."""
    cdef double t
    if type(temperature) is not float:
        return -1
    t = temperature
    return t if t >= 0 else -1


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
    cdef RowFunctions row
    cdef object map_rows, reduce_rows, top_k_rows, draw_rows
    cdef object loss_rows, weigh_targets, add_losses, backward_rows

    def __init__(self, str name, softmax, select, sample, loss, backward):
        self.NAME = name
        self.row = (
            <RowFunctions *>PyCapsule_GetPointer(
                softmax.row_functions, "fastsoftmax.RowFunctions"
            )
        )[0]
        kinds = ("float", "double")
        self.map_rows = {k: softmax.map_rows[k] for k in kinds}
        self.reduce_rows = {k: softmax.reduce_rows[k] for k in kinds}
        self.top_k_rows = {k: select.top_k_rows[k] for k in (*kinds, "int64_t")}
        self.draw_rows = {k: sample.draw_rows[k] for k in kinds}
        self.loss_rows = {k: loss.loss_rows[k] for k in kinds}
        self.weigh_targets = loss.weigh_targets
        self.add_losses = loss.add_losses
        self.backward_rows = {k: backward.backward_rows[k] for k in kinds}

    def __reduce__(self):
        from ._dispatch import load

        return load, (self.NAME,)

    def softmax(self, x, axis=-1, *, temperature=1.0, where=None, out=None):
        return self.map(x, axis, temperature, where, out, False)

    def log_softmax(self, x, axis=-1, *, temperature=1.0, where=None, out=None):
        return self.map(x, axis, temperature, where, out, True)

    cdef object map(self, x, axis, temperature, where, out, bint log):
        cdef double t
        cdef Py_ssize_t n, size
        cdef cnp.ndarray y
        if where is None and plain(x) and last(axis, x):
            t = scalar(temperature)
            if t >= 0 and (
                out is None
                or out is x and cnp.PyArray_ISWRITEABLE(x)
                or plain(out)
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
                if size <= SMALL:
                    self.map_small(x, y, size, n, t, log)
                else:
                    self.map_rows[_SELECT[x.dtype.char]](
                        x.reshape(-1, n), y.reshape(-1, n), ONE if t == 1 else np.array([t]), log
                    )
                return y
        rows = _arrays.Rows(x, axis, where)
        ts = _arrays.temperatures(temperature, rows.shape)
        target = rows.target(out)
        self.map_rows[_SELECT[target.dtype.char]](rows.data, target, ts, log)
        return rows.spread(target, -np.inf if log else 0.0, out)

    cdef void map_small(
        self, cnp.ndarray x, cnp.ndarray y, Py_ssize_t size, Py_ssize_t n, double t, bint log
    ) noexcept:
        """Map the rows of a small array by pointer, holding the GIL."""
        cdef Py_ssize_t i
        cdef float *x32 = <float *>cnp.PyArray_DATA(x)
        cdef float *y32 = <float *>cnp.PyArray_DATA(y)
        cdef double *x64 = <double *>cnp.PyArray_DATA(x)
        cdef double *y64 = <double *>cnp.PyArray_DATA(y)
        if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
            f32 = self.row.log_softmax32 if log else self.row.softmax32
            for i in range(size // n):
                f32(x32 + i * n, y32 + i * n, n, t)
        else:
            f64 = self.row.log_softmax64 if log else self.row.softmax64
            for i in range(size // n):
                f64(x64 + i * n, y64 + i * n, n, t)

    def logsumexp(self, x, axis=-1, *, where=None, keepdims=False):
        cdef Py_ssize_t n
        if (
            where is None
            and not keepdims
            and plain(x)
            and last(axis, x)
            and cnp.PyArray_NDIM(x) == 1
            and 0 < cnp.PyArray_SIZE(x) <= SMALL
        ):
            n = cnp.PyArray_SIZE(x)
            if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
                return np.float32(self.row.logsumexp32(<float *>cnp.PyArray_DATA(x), n))
            return np.float64(self.row.logsumexp64(<double *>cnp.PyArray_DATA(x), n))
        rows = _arrays.Rows(x, axis, where)
        y = np.empty(rows.data.shape[0], dtype=rows.data.dtype)
        self.reduce_rows[_SELECT[y.dtype.char]](rows.data, y)
        return rows.reduce(y, keepdims)

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
    ):
        return self.loss(
            logits, targets, axis, weight, ignore_index, label_smoothing, reduction, None, False
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
    ):
        return self.loss(
            logits, targets, axis, weight, ignore_index, label_smoothing, reduction, out, True
        )

    cdef object loss(
        self, logits, targets, axis, weight, ignore, smoothing, reduction, out, bint with_grad
    ):
        cdef Py_ssize_t n, rows
        plan = grad = None
        if (
            weight is None
            and type(smoothing) is float
            and 0 <= smoothing <= 1
            and type(ignore) is int
            and -(1 << 62) < ignore < 1 << 62
            and type(reduction) is str
            and reduction in ("none", "mean", "sum")
            and plain(logits)
            and last(axis, logits)
            and classes_for(targets, logits)
            and (out is None or out is logits or like(out, logits) and not overlap(out, logits))
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
            self.loss_rows[_SELECT[dtype.char]](
                logits.reshape(rows, n),
                None if grad is None else grad.reshape(rows, n),
                targets,
                None,
                None,
                smoothing,
                ignore,
                factor,
                losses,
            )
        else:
            kernel = self.loss_rows[_SELECT[plan.work.char]]
            for part, x, y, labels in plan.pieces(grad):
                kernel(
                    x,
                    y,
                    None if targets is None else targets[part],
                    labels,
                    weight,
                    smoothing,
                    ignore,
                    factor,
                    losses[part],
                )
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
            plain(p)
            and last(axis, p)
            and like(grad_output, p)
            and scalar(temperature) >= 0
            and (
                out is None
                or like(out, p)
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
        return rows.spread(target, 0.0, out)

    def top_k(self, x, k, /, *, axis=-1, mode="largest", sorted=True):
        if (
            plain(x)
            and last(axis, x)
            and mode == "largest"
            and type(k) is int
            and 0 <= k <= x.shape[-1]
            and cnp.PyArray_SIZE(x) > 0
        ):
            n = x.shape[-1]
            shape = (*x.shape[:-1], k)
            count = cnp.PyArray_SIZE(x) // n
            values = np.empty((count, k), dtype=x.dtype)
            indices = np.empty((count, k), dtype=np.int64)
            self.top_k_rows[_SELECT[x.dtype.char]](
                x.reshape(count, n), values, indices, sorted
            )
            return _arrays.TopK(values.reshape(shape), indices.reshape(shape))
        x = _arrays.as_array(x, "x")
        _arrays.choice(mode, "mode", ("largest", "smallest"))
        wide = x.reshape(1) if x.ndim == 0 else x
        axis = _arrays.one_axis(axis, wide.ndim)
        k = _arrays.count(k, "k", 0, wide.shape[axis])
        n = wide.shape[axis]
        moved = wide if axis == wide.ndim - 1 else np.moveaxis(wide, axis, -1)
        rows = np.require(ordered(moved, mode == "smallest"), requirements=["C", "A"])
        shape = moved.shape[:-1]
        count = rows.size // n if n else 0
        values = np.empty((count, k), dtype=rows.dtype)
        indices = np.empty((count, k), dtype=np.int64)
        kind = _SELECT.get(rows.dtype.char, "int64_t")
        self.top_k_rows[kind](rows.reshape(count, n), values, indices, sorted)
        indices = indices.reshape(*shape, k)
        if rows.dtype == x.dtype and mode == "largest":
            values = values.reshape(*shape, k)
        else:
            values = np.take_along_axis(moved, indices, -1)
        if axis != wide.ndim - 1:
            values = np.ascontiguousarray(np.moveaxis(values, -1, axis))
            indices = np.ascontiguousarray(np.moveaxis(indices, -1, axis))
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
        rng=None,
        on_invalid="raise",
    ):
        if plain(logits) and cnp.PyArray_SIZE(logits) > 0:
            shape = logits.shape[:-1]
            data = logits.reshape(-1, logits.shape[-1])
        else:
            rows = _arrays.Rows(_arrays.as_array(logits, "logits"), -1)
            shape, data = rows.shape, rows.data
        plan = _arrays.SamplingPlan(
            shape, temperature, top_k, top_p, min_p, min_keep, rng, on_invalid
        )
        self.draw_rows[_SELECT[data.dtype.char]](
            data,
            plan.uniforms,
            plan.temperature,
            plan.top_k,
            plan.top_p,
            plan.log_min_p,
            plan.min_keep,
            plan.ids,
        )
        return plan.finish()


cdef inline bint like(object a, object x) noexcept:
    """Tell whether `a` can take the fast road beside x, which does."""
    return (
        plain(a)
        and cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(x)
        and cnp.PyArray_SAMESHAPE(a, x)
    )


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


cdef inline bint classes_for(object targets, object logits) noexcept:
    """Tell whether `targets` can take the fast road: int64, a class for each row of the logits."""
    cdef int d, ndim = cnp.PyArray_NDIM(logits) - 1
    if not (
        cnp.PyArray_CheckExact(targets)
        and cnp.PyArray_TYPE(targets) == cnp.NPY_INT64
        and cnp.PyArray_NDIM(targets) == ndim
        and cnp.PyArray_IS_C_CONTIGUOUS(targets)
        and cnp.PyArray_ISALIGNED(targets)
        and cnp.PyArray_ISNOTSWAPPED(targets)
    ):
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(targets, d) != cnp.PyArray_DIM(logits, d):
            return False
    return True


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Tell whether two C-contiguous arrays share memory."""
    cdef char *p = <char *>cnp.PyArray_DATA(a)
    cdef char *q = <char *>cnp.PyArray_DATA(b)
    return p < q + cnp.PyArray_NBYTES(b) and q < p + cnp.PyArray_NBYTES(a)


cdef object ordered(object x, bint reverse):
    """Return x as float32, float64 or int64 of the same order, or of the reverse one.

    NaN stays NaN.
    """
    kind = x.dtype.kind
    if kind in "iub":
        if x.dtype == np.uint64:
            x = (x ^ np.uint64(1 << 63)).view(np.int64)
        else:
            x = x.astype(np.int64, copy=False)
        return ~x if reverse else x
    with np.errstate(all="ignore"):
        x = x.astype(_arrays.work_dtype(x.dtype), copy=False)
    return -x if reverse else x


# The docstrings stand once, in the reference.
for _name in (
    "softmax",
    "log_softmax",
    "logsumexp",
    "cross_entropy",
    "cross_entropy_with_grad",
    "softmax_backward",
    "log_softmax_backward",
    "top_k",
    "sample",
):
    getattr(Implementation, _name).__doc__ = getattr(_reference, _name).__doc__
