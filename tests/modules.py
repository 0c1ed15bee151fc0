"""The public names of all modules, and what is public beside functions, bound to an implementation.

Modules call the implementation that was chosen at import. A copy of each calls another one, from
any thread.
"""

import ast
import importlib.util
import pkgutil
import threading
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import fastsoftmax
from fastsoftmax import Sampler, _dispatch, _merging
from fastsoftmax._sampler import program
from fastsoftmax.steps import candidates

#: Public modules and names that are no calls of an array, and what holds the promises for them.
ELSEWHERE = {
    "capi": "tests/capi/test_functions.py",
    "dask": "tests/dask",  # its chunks call what is here, and "parts"
    "sklearn": "tests/calibration/test_peers.py",  # calls `fit_temperature` and `softmax`
    "steps": "tests/sampler",
    "History": "tests/sampler/test_history.py",
    "get_include": "tests/capi/test_header.py",
    "get_workers": "tests/concurrency/test_threads.py",
    "set_workers": "tests/concurrency/test_threads.py",
    "show_config": "tests/dispatch/test_choose.py",
}


def public_names():
    """Return every name of each public module's `__all__`: "softmax", "quantized.softmax", ...

    Named tuples, which calls return, are left out, and the modules that ELSEWHERE names.
    """
    names = set(fastsoftmax.__all__)
    for module in pkgutil.iter_modules(fastsoftmax.__path__):
        if not module.name.startswith("_") and module.name not in ELSEWHERE:
            names |= {f"{module.name}.{name}" for name in _all(module)}
    return {name for name in names - set(ELSEWHERE) if not _is_tuple(name)}


def _all(module):
    """Return `__all__` of a module, which need not be importable here."""
    path = Path(importlib.util.find_spec(f"fastsoftmax.{module.name}").origin)
    for line in ast.parse(path.read_text()).body:
        if isinstance(line, ast.Assign) and line.targets[0].id == "__all__":
            return ast.literal_eval(line.value)
    raise AssertionError(f"{path} has no __all__")


def _is_tuple(name):
    """Return whether a public name is a class of tuples."""
    *module, name = name.split(".")
    owner = importlib.import_module(".".join(("fastsoftmax", *module)))
    found = getattr(owner, name)
    return isinstance(found, type) and issubclass(found, tuple)


# ---- an implementation's -------------------------------------------------------------------------

_lock = threading.Lock()


def of(implementation):
    """Return the modules and classes that call `implementation`, or, without a NAME, the best."""
    with _lock:
        return _of(getattr(implementation, "NAME", _dispatch.active.NAME))


@lru_cache
def _of(name):
    f = _dispatch.load(name)
    sets = _copy("calibration.sets", fastsoftmax=f)
    return SimpleNamespace(
        quantized=_copy("quantized", fastsoftmax=f, _kernel=f.quantized()),
        scipy=_copy("scipy", active=f),
        fit_temperature=_copy("calibration.temperature", fastsoftmax=f).fit_temperature,
        calibrate_sets=sets.calibrate_sets,
        prediction_sets=sets.prediction_sets,
        calibration=sets.SetCalibration,
        LogSumExp=type("LogSumExp", (_merging.LogSumExp,), {"implementation": f}),
        RunningTopK=type("RunningTopK", (_merging.RunningTopK,), {"implementation": f}),
    )


def _copy(name, **others):
    """Return a module of its own made of the source of `name`, with some of its names others."""
    spec = importlib.util.find_spec(f"fastsoftmax.{name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(others)
    return module


SAMPLER = Sampler.llama_cpp(temperature=0.7)


def sampled(f, x, **parameters):
    """Return what a sampler draws over an implementation: one at a time, unless it is the best."""
    if f.NAME == _dispatch.active.NAME:
        return SAMPLER(x, **parameters)
    with _lock:
        before = program.chains, candidates.fast
        program.chains, candidates.fast = getattr(f, "chains", None), f
        try:
            return SAMPLER(x, **parameters)
        finally:
            program.chains, candidates.fast = before
