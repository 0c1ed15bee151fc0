"""One call by two implementations: the same result or the same error, and nothing spoilt."""

import re
from contextlib import contextmanager
from functools import partial

import numpy as np

import fastsoftmax
from fastsoftmax import _dispatch
from fastsoftmax.steps import candidates
from tests import modules

from .bounds import Bounds
from .world import NAMES, Mine, root

reference = _dispatch.load("reference")

#: What a call may raise; what users' objects raise goes through.
ERRORS = (TypeError, ValueError, IndexError, MemoryError, Mine)


class FindingError(Exception):
    """What no call may do."""


class UnbuiltError(Exception):
    """Arguments that NumPy itself refuses to make."""


# ---- running -------------------------------------------------------------------------------------


def build(call, live):
    """Return the arguments of a call as objects, made anew."""
    given = {}
    names = {**NAMES, **live, "given": given}
    with np.errstate(all="ignore"):
        for name, text in call.arguments.items():
            try:
                given[name] = eval(text, {**names, **given})
            except Exception as error:
                raise UnbuiltError(f"{name}={text}: {error!r}") from None
    return given


def run(impl, function, given):
    """Return the result and the error of a call, one of them None; a warning is an error."""
    with np.errstate(all="raise"):
        try:
            return _function(impl, function)(**given), None
        except Exception as error:
            return None, error


def _function(impl, name):
    if name == "set_workers":
        return _workers
    if name == "show_config":
        return fastsoftmax.show_config
    if name == "History":
        return partial(_history, impl)
    if name in ("LogSumExp", "RunningTopK"):
        return partial(_merged, impl, name)
    if name.startswith("calibration."):
        return partial(_calibration, impl, name.split(".")[1])
    if name.startswith(("quantized.", "scipy.")):
        module, name = name.split(".")
        return getattr(getattr(modules.of(impl), module), name)
    if not name.startswith("Sampler"):
        return getattr(impl, name)

    def call(steps, logits, **given):
        method = getattr(fastsoftmax.Sampler(*steps), name.split(".")[1])
        with _fast(impl):
            return method(logits, **given)

    return call


def _merged(impl, name, chunk, axis, k=None, mode="largest", **given):
    """Return what two parts that are the same give, merged."""
    kind = getattr(fastsoftmax, name)
    if impl is not fastsoftmax:
        kind = type(name, (kind,), {"implementation": impl})
    make = partial(kind, axis) if k is None else partial(kind, k, axis=axis, mode=mode)
    return make().update(chunk, **given).merge(make().update(chunk)).result()


def _calibration(impl, name, **given):
    """Return what a function of the module gives, but the temperature where the loss is flat."""
    own = modules.of(impl)
    if name == "prediction_sets" and type(given["calibration"]) is tuple:
        given["calibration"] = own.calibration(*given["calibration"])
    result = getattr(own, name)(**given)
    if name == "fit_temperature":
        return result[1:3]
    return tuple(result) if name == "calibrate_sets" else result


def _workers(workers):
    with fastsoftmax.set_workers(workers):
        return min(8, fastsoftmax.get_workers())


def _history(impl, prompts, ids, row, last, prompt):
    history = impl.History(prompts)
    history.append(ids)
    return [history.tokens(row), *history.counts(row, last, prompt), history.prompt(row)]


@contextmanager
def _fast(impl):
    before, candidates.fast = candidates.fast, impl
    try:
        yield
    finally:
        candidates.fast = before


# ---- memory --------------------------------------------------------------------------------------


class Memory:
    """The bytes of all arrays of a call, padding included, to be compared with after the call."""

    def __init__(self, given):
        self.arrays = {name: v for name, v in given.items() if issubclass(type(v), np.ndarray)}
        owners = {id(r): r for r in map(root, self.arrays.values()) if r.dtype != object}
        self.before = [(r, _bytes(r).copy()) for r in owners.values()]
        self.marks = {name: self._mark(x) for name, x in self.arrays.items()}

    def _mark(self, x):
        """Return the owner of an array's memory, and a mask of the bytes that are the array's."""
        owner = root(x)
        if owner.dtype != np.uint8 or not x.size:
            return owner, slice(None)
        where = np.zeros(owner.size, np.uint8)
        start = x.ctypes.data - owner.ctypes.data
        shape, strides = (*x.shape, x.dtype.itemsize), (*x.strides, 1)
        np.ndarray(shape, np.uint8, where, start, strides)[...] = 1
        return owner, where.astype(bool)

    def check(self, may_change):
        """Raise a FindingError if other bytes have changed than those of the arrays named."""
        for owner, before in self.before:
            changed = _bytes(owner) != before
            if not changed.any():
                continue
            for name in may_change:
                if name in self.marks and self.marks[name][0] is owner:
                    changed[self.marks[name][1]] = False
            if changed.any():
                count = np.count_nonzero(changed)
                raise FindingError(f"{count} bytes changed outside {may_change}")


def _bytes(owner):
    return owner.reshape(-1).view(np.uint8) if owner.flags.c_contiguous else np.zeros(0, np.uint8)


# ---- judging -------------------------------------------------------------------------------------


def judge(call, impl, live=None):
    """Make a call by `impl` and by the reference, and raise a FindingError where they differ.

    `live` are arrays by name that the call's text may use, and that live on.
    """
    live = live or {}
    shadows = copies(live)
    given = build(call, live)
    memory = Memory({**live, **given})
    got, error = run(impl, call.function, given)
    memory.check(list(memory.arrays) if call.spoils() else ["out"] if error is None else [])
    _check_error(call, error)
    _check_out(given, got, error)
    if call.is_huge() and (error is None or isinstance(error, MemoryError)):
        return  # the reference would take years
    given = build(call, shadows)
    bounds = Bounds(call.function, given)
    want, expected = run(reference, call.function, given)
    if call.spoils() or isinstance(expected, MemoryError):
        return
    if "rng" in given and given["rng"] is None:
        return
    _check_error(call, expected)
    _check_out(given, want, expected)
    _same_error(call, error, expected)
    if error is None:
        with np.errstate(all="ignore"):
            _same_result(call, bounds, got, want)


def copies(live):
    """Return arrays in copies of their memory, which overlap as the arrays do."""
    owners = {id(r): r.copy() for r in map(root, live.values())}
    made = {}
    for name, x in live.items():
        start = x.ctypes.data - root(x).ctypes.data
        copy = np.ndarray(x.shape, x.dtype, owners[id(root(x))], start, x.strides)
        copy.flags.writeable = x.flags.writeable
        made[name] = copy.view(type(x))
    return made


def _check_out(given, result, error):
    """Raise a FindingError if a result is not the array `out` that was given for it."""
    out = given.get("out")
    if error is not None or not issubclass(type(out), np.ndarray):
        return
    if isinstance(result, tuple):
        result = result.grad if hasattr(result, "grad") else result.probs
    if result is not out:
        raise FindingError("the result is not out")


def _check_error(call, error):
    if error is None:
        return
    if not isinstance(error, ERRORS) or isinstance(error, UnicodeError):
        raise FindingError(f"{type(error).__name__}: {error}") from error
    if isinstance(error, (Mine, MemoryError)):
        return
    if not named(call, error):
        raise FindingError(f"names no argument: {type(error).__name__}: {error}") from error
    if "\n" in str(error) or len(str(error)) > 400:
        raise FindingError(f"a long error: {type(error).__name__}: {str(error)[:500]}") from error


def named(call, error):
    """Return the argument that an error names first."""
    own = [*call.arguments, "axis", "steps", "workers", "mode"]
    if call.function.startswith("Sampler"):
        own += ["Sampler", *(n for n in dir(fastsoftmax.steps) if n[0] != "_"), "Bad", "step"]
    found = re.search(rf"\b({'|'.join(map(re.escape, own))})\b", str(error))
    return found and found.group()


def _same_error(call, error, expected):
    if type(error) is type(expected):
        if error is None or str(error) == str(expected):
            return
        if named(call, error) == named(call, expected):
            return
    # Of two wrong arguments either may be found first.
    if error is not None and expected is not None:
        first, second = (_culprits(call, e) for e in (error, expected))
        if first - second or second - first:
            return
    raise FindingError(f"{error!r}; the reference: {expected!r}") from error


def _culprits(call, error):
    """Return the arguments that may be what an error is about."""
    if isinstance(error, Mine):
        return {name for name, text in call.arguments.items() if "broken(" in text}
    return set() if isinstance(error, MemoryError) else {named(call, error)}


def _same_result(call, bounds, got, want):
    if type(got) is not type(want) and not isinstance(got, (float, int)):
        raise FindingError(f"{type(got)}; the reference: {type(want)}")
    if isinstance(got, tuple) and got and hasattr(got[0], "left"):  # a trace
        got = [a for stage in got for a in (stage.left, *stage.candidates)]
        want = [a for stage in want for a in (stage.left, *stage.candidates)]
    if call.function == "beam_step":  # which of two equal scores is larger, rounding may say
        got, want = got[:1], want[:1]
    got = got if isinstance(got, (tuple, list)) else [got]
    want = want if isinstance(want, (tuple, list)) else [want]
    got, want = [a for a in got if a is not None], [a for a in want if a is not None]
    if not all(isinstance(a, (np.ndarray, np.generic, float, int)) for a in got):
        return
    if len(got) != len(want):
        raise FindingError(f"{len(got)} arrays; the reference: {len(want)}")
    for a, b in zip(got, want, strict=True):
        _same_array(call, bounds, np.asarray(a), np.asarray(b))


def _same_array(call, bounds, got, want):
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        shapes = f"{got.dtype} {got.shape}; the reference: {want.dtype} {want.shape}"
        raise FindingError(shapes)
    if got.dtype.kind in "iub" or call.function == "top_k":
        if got.tobytes() != want.tobytes() and not np.array_equal(got, want, equal_nan=True):
            raise FindingError(f"{_cut(got)}; the reference: {_cut(want)}")
        return
    bound = bounds.of(got.dtype)
    if bound is None:
        return
    relative, of_largest, absolute = bound
    a, b = got.astype(np.float64), want.astype(np.float64)
    absolute += of_largest * np.abs(b[np.isfinite(b)]).max(initial=0)
    near = np.abs(a - b) <= relative * np.abs(b) + absolute
    if not (near | (a == b) | (np.isnan(a) & np.isnan(b))).all():
        worst = np.flatnonzero(~(near | (a == b) | (np.isnan(a) & np.isnan(b))))[0]
        raise FindingError(
            f"{a.flat[worst]!r} at {worst}, bound {relative:.2g}; the reference: {b.flat[worst]!r}"
        )


def _cut(x):
    text = repr(x.tolist())
    return text if len(text) < 300 else text[:300] + "..."
