"""The functions inside ``@numba.njit``: numba calls `init`, an entry point, before it compiles.

Compiled code calls the functions of the C interface by their names, which LLVM learns here, so that
it can be cached, and gives the same bits as calls from Python. What is allowed is less: float32 and
float64 (softmax and the like: integers, too), the last axis, one temperature for all rows.
"""

import ctypes
from typing import Any

import llvmlite.binding  # type: ignore[import-not-found, import-untyped, unused-ignore]
import numpy as np
from numba import errors, types  # type: ignore[import-not-found, import-untyped, unused-ignore]
from numba.extending import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    overload,
    register_jitable,
)

import fastsoftmax

from ._arguments.results import LossAndGrad, TopK

_FLOATS = {types.float32: "float32", types.float64: "float64"}
_ARRAY, _ROWS, _STATUS = types.uintp, types.intp, types.intc
#: The functions of the struct in ``fastsoftmax.h``, in its order: their results and parameters.
_SIGNATURES = {
    "softmax": _STATUS(_ARRAY, _ARRAY, _ROWS, _ROWS, types.float64),
    "log_softmax": _STATUS(_ARRAY, _ARRAY, _ROWS, _ROWS, types.float64),
    "logsumexp": _STATUS(_ARRAY, _ARRAY, _ROWS, _ROWS),
    "top_k": _STATUS(_ARRAY, _ARRAY, _ARRAY, _ROWS, _ROWS, types.intp, types.intc, types.intc),
    "sample": _STATUS(
        _ARRAY, _ARRAY, _ARRAY, _ROWS, _ROWS, types.float64, types.intp, types.float64,
        types.float64,
    ),
    "uniform": types.float64(types.uint64, types.uint64),
    "cross_entropy": _STATUS(
        _ARRAY, _ARRAY, _ARRAY, _ARRAY, _ARRAY, _ROWS, _ROWS, types.float64, types.float64,
        types.int64, types.intc,
    ),
}  # fmt: skip


def init() -> None:
    """Make the functions known to numba; not where the package runs its reference."""
    try:
        from . import capi
    except ImportError:
        return
    names = []
    for name in _SIGNATURES:
        names += [name] if name == "uniform" else [f"{name}_float32", f"{name}_float64"]

    class Api(ctypes.Structure):
        _fields_ = (
            ("version", ctypes.c_int64),
            ("implementation", ctypes.c_char_p),
            *((name, ctypes.c_void_p) for name in names),
        )

    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    api = Api.from_address(pointer(capi._C_API, b"fastsoftmax.capi._C_API"))
    for name in names:
        llvmlite.binding.add_symbol(f"fastsoftmax_{name}", getattr(api, name))
    overload(fastsoftmax.softmax)(_of_shape("softmax"))
    overload(fastsoftmax.log_softmax)(_of_shape("log_softmax"))
    overload(fastsoftmax.logsumexp)(_logsumexp)
    overload(fastsoftmax.top_k, prefer_literal=True)(_top_k)
    overload(fastsoftmax.sample, prefer_literal=True)(_sample)
    overload(fastsoftmax.cross_entropy, prefer_literal=True)(_cross_entropy)
    overload(fastsoftmax.cross_entropy_with_grad, prefer_literal=True)(_cross_entropy_with_grad)


# ---- arguments -----------------------------------------------------------------------------------


def _function(name: str, dtype: Any = None) -> Any:
    """Return a function of the C interface, for numba."""
    symbol = f"fastsoftmax_{name}" + (f"_{_FLOATS[dtype]}" if dtype else "")
    return types.ExternalFunction(symbol, _SIGNATURES[name])


def _is_none(value: Any) -> bool:
    """Return whether an argument's type is that of None, given or by default."""
    return value is None or isinstance(value, types.NoneType) or getattr(value, "value", 0) is None


def _constant(value: Any, name: str, allowed: tuple[Any, ...]) -> Any:
    """Return an argument that must be known when numba compiles."""
    for attribute in ("literal_value", "value"):
        value = getattr(value, attribute, value)
    if value not in allowed:
        raise errors.TypingError(f"{name} is {value}; allowed is one of {allowed}, as a constant")
    return value


def _number(value: Any, name: str) -> None:
    """Raise unless an argument is one number."""
    value = getattr(value, "value", value)
    if not isinstance(value, int | float | types.Number | types.Boolean):
        raise errors.TypingError(f"{name} is {value}; allowed in numba is one number")


def _rows(x: Any, name: str, *, integers: bool = False) -> tuple[Any, Any]:
    """Return the type that is computed in, and what makes contiguous rows of an argument."""
    if not isinstance(x, types.Array) or x.ndim == 0:
        raise errors.TypingError(f"{name} is {x}; allowed in numba is an array with an axis")
    if integers and isinstance(x.dtype, types.Integer | types.Boolean):
        return types.float64, register_jitable(lambda x: np.ascontiguousarray(x).astype(np.float64))
    if x.dtype not in _FLOATS:
        raise errors.TypingError(f"{name} is of {x.dtype}; allowed in numba: float32, float64")
    if x.layout == "C" and x.aligned:
        return x.dtype, register_jitable(lambda x: x)
    return x.dtype, register_jitable(lambda x: np.ascontiguousarray(x))


@register_jitable
def _check_axis(axis, ndim):  # type: ignore[no-untyped-def]
    if axis != -1 and axis != ndim - 1:
        raise ValueError("allowed in numba is the last axis: give a transposed array")


def _check_of(allowed: str) -> Any:
    """Return what raises for a status; numba's errors can't tell a number that is wrong."""

    @register_jitable
    def check(status):  # type: ignore[no-untyped-def]
        if status == -1:
            raise MemoryError("no memory to work on rows")
        if status != 0:
            raise ValueError(allowed)

    return check


# ---- softmax -------------------------------------------------------------------------------------


def _of_shape(name: str) -> Any:
    """Return the overload of softmax or log_softmax."""

    def overloaded(x, axis=-1, temperature=1.0, out=None):  # type: ignore[no-untyped-def]
        dtype, rows_of = _rows(x, "x", integers=True)
        function = _function(name, dtype)
        check = _check_of("temperature: allowed is 0 to inf")
        _number(temperature, "temperature")
        given = not _is_none(out)
        if given and (_rows(out, "out")[0] != dtype or out.layout != "C" or not out.mutable):
            raise errors.TypingError(f"out is {out}; allowed in numba: {dtype}, C-contiguous")

        def result(x, axis=-1, temperature=1.0, out=None):  # type: ignore[no-untyped-def]
            _check_axis(axis, x.ndim)
            x = rows_of(x)
            y = np.empty(x.shape, dtype)
            n = x.shape[-1]
            check(function(x.ctypes.data, y.ctypes.data, x.size // max(n, 1), n, temperature))
            return y

        def into(x, axis=-1, temperature=1.0, out=None):  # type: ignore[no-untyped-def]
            _check_axis(axis, x.ndim)
            if out.shape != x.shape:
                raise ValueError("out has another shape than x")
            x = rows_of(x)
            n = x.shape[-1]
            check(function(x.ctypes.data, out.ctypes.data, x.size // max(n, 1), n, temperature))
            return out

        return into if given else result

    return overloaded


def _logsumexp(x, axis=-1):  # type: ignore[no-untyped-def]
    dtype, rows_of = _rows(x, "x", integers=True)
    function, check = _function("logsumexp", dtype), _check_of("")
    one = x.ndim == 1

    def result(x, axis=-1):  # type: ignore[no-untyped-def]
        _check_axis(axis, x.ndim)
        x = rows_of(x)
        y = np.empty(x.shape[:-1], dtype)
        check(function(x.ctypes.data, y.ctypes.data, y.size, x.shape[-1]))
        return y[()] if one else y

    return result


# ---- selection and draws -------------------------------------------------------------------------


def _top_k(x, k, axis=-1, mode="largest", sorted=True):  # type: ignore[no-untyped-def]
    dtype, rows_of = _rows(x, "x")
    function, check = _function("top_k", dtype), _check_of("k: allowed is 0 to n")
    largest = _constant(mode, "mode", ("largest", "smallest")) == "largest"

    def result(x, k, axis=-1, mode="largest", sorted=True):  # type: ignore[no-untyped-def]
        _check_axis(axis, x.ndim)
        x = rows_of(x)
        n = x.shape[-1]
        values = np.empty(x.shape[:-1] + (max(k, 0),), dtype)  # noqa: RUF005 (numba has no unpacking)
        indices = np.empty(values.shape, np.int64)
        check(
            function(
                x.ctypes.data, values.ctypes.data, indices.ctypes.data, x.size // max(n, 1), n, k,
                largest, sorted,
            )
        )  # fmt: skip
        return TopK(values, indices)

    return result


def _sample(  # type: ignore[no-untyped-def]
    logits, temperature=1.0, top_k=None, top_p=None, min_p=None, rng=None, seed=None,
    position=None, on_invalid="raise",
):  # fmt: skip
    dtype, rows_of = _rows(logits, "logits")
    function, uniform = _function("sample", dtype), _function("uniform")
    check = _check_of("temperature, top_k: allowed is 0 and above; top_p, min_p: 0 to 1")
    raises = _constant(on_invalid, "on_invalid", ("raise", "flag")) == "raise"
    one = logits.ndim == 1
    for value, name in ((temperature, "temperature"), (top_k, "top_k"), (top_p, "top_p")):
        _number(1 if _is_none(value) else value, name)
    by_rng = isinstance(rng, types.NumPyRandomGeneratorType)
    if (by_rng, not _is_none(seed), not _is_none(position)) not in (
        (True, False, False), (False, True, True),
    ) or not (by_rng or _is_none(rng)):  # fmt: skip
        raise errors.TypingError("allowed in numba is rng, a Generator, or seed and position")
    if not by_rng:
        uniforms = register_jitable(lambda rng, seed, position, u: u.fill(uniform(seed, position)))
    else:

        @register_jitable
        def uniforms(rng, seed, position, u):  # type: ignore[no-untyped-def]
            for i in range(u.size):
                u[i] = rng.random()

    def result(  # type: ignore[no-untyped-def]
        logits, temperature=1.0, top_k=None, top_p=None, min_p=None, rng=None, seed=None,
        position=None, on_invalid="raise",
    ):  # fmt: skip
        x = rows_of(logits)
        ids = np.empty(x.shape[:-1], np.int64).reshape(-1)
        u = np.empty(ids.size)
        uniforms(rng, seed, position, u)
        check(
            function(
                x.ctypes.data, u.ctypes.data, ids.ctypes.data, ids.size, x.shape[-1], temperature,
                0 if top_k is None else top_k, 1.0 if top_p is None else top_p,
                0.0 if min_p is None else min_p,
            )
        )  # fmt: skip
        if raises and (ids < 0).any():
            raise ValueError("a row of logits has NaN, +inf or nothing but -inf")
        return ids[0] if one else ids.reshape(x.shape[:-1])

    return result


# ---- losses --------------------------------------------------------------------------------------


def _losses(logits: Any, targets: Any, reduction: Any) -> Any:
    """Return what computes losses, in float64, their reduction and, unless NULL, the gradient."""
    dtype, rows_of = _rows(logits, "logits")
    function = _function("cross_entropy", dtype)
    check = _check_of(
        "targets: allowed is 0 to n - 1; temperature: 0 to inf; label_smoothing: 0 to 1"
    )
    reduction = _constant(reduction, "reduction", ("mean", "sum", "none"))
    mean, each = reduction == "mean", reduction == "none"
    if logits.ndim == 1 and isinstance(targets, types.Integer):
        classes = register_jitable(lambda targets: np.array(targets, np.int64))
    elif (
        isinstance(targets, types.Array)
        and isinstance(targets.dtype, types.Integer)
        and targets.ndim == logits.ndim - 1
    ):
        classes = register_jitable(lambda targets: np.ascontiguousarray(targets).astype(np.int64))
    else:
        raise errors.TypingError(f"targets are {targets}; allowed in numba: classes, one a row")

    @register_jitable
    def losses_of(  # type: ignore[no-untyped-def]
        logits, targets, grad, axis, temperature, ignore_index, label_smoothing
    ):
        _check_axis(axis, logits.ndim)
        x = rows_of(logits)
        if np.shape(targets) != x.shape[:-1]:
            raise ValueError("targets are not of the logits' shape without its last axis")
        t = classes(targets)
        losses = np.empty(t.shape)
        loss = np.empty(1)
        status = function(
            x.ctypes.data, t.ctypes.data, losses.ctypes.data, grad, loss.ctypes.data, t.size,
            x.shape[-1], temperature, label_smoothing, ignore_index, mean,
        )  # fmt: skip
        check(status)
        return losses.astype(dtype) if each else dtype(loss[0])

    return losses_of


def _cross_entropy(  # type: ignore[no-untyped-def]
    logits, targets, axis=-1, temperature=1.0, ignore_index=-100, label_smoothing=0.0,
    reduction="mean",
):  # fmt: skip
    losses_of = _losses(logits, targets, reduction)

    def result(  # type: ignore[no-untyped-def]
        logits, targets, axis=-1, temperature=1.0, ignore_index=-100, label_smoothing=0.0,
        reduction="mean",
    ):  # fmt: skip
        return losses_of(logits, targets, 0, axis, temperature, ignore_index, label_smoothing)

    return result


def _cross_entropy_with_grad(  # type: ignore[no-untyped-def]
    logits, targets, axis=-1, temperature=1.0, ignore_index=-100, label_smoothing=0.0,
    reduction="mean",
):  # fmt: skip
    losses_of = _losses(logits, targets, reduction)
    dtype = logits.dtype

    def result(  # type: ignore[no-untyped-def]
        logits, targets, axis=-1, temperature=1.0, ignore_index=-100, label_smoothing=0.0,
        reduction="mean",
    ):  # fmt: skip
        grad = np.empty(logits.shape, dtype)
        loss = losses_of(
            logits, targets, grad.ctypes.data, axis, temperature, ignore_index, label_smoothing
        )
        return LossAndGrad(loss, grad)

    return result
