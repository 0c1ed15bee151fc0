"""The one place where an implementation is chosen.

An implementation is an object with the public functions as attributes: an `Implementation`, made of
the classes in ``_front`` over the kernels of one instruction set, or the module ``_reference``.
Modules of an instruction set are imported here alone, and only once ``cpu`` has said that they can
run: importing one elsewhere can end the process with SIGILL, which no ``except`` catches.
"""

import copyreg
import importlib
import os
import platform
import warnings
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from .. import _docs
from .._arguments.values import choice
from .isa import FAMILIES, FRONT, ISAS, KERNELS, PACKAGE, PARTS, SHARED, Isa, isas_for

ENVIRONMENT = "FASTSOFTMAX_IMPL"
REFERENCE = "reference"
NAMES = (REFERENCE, *(isa.name for isa in ISAS))


def _reference() -> Any:
    """Return the oracle, which most programs need not import."""
    return importlib.import_module(f"{PACKAGE}._reference")


def _missing(isa: Isa) -> str:
    """Say why `isa` cannot run here, or return an empty string if it can."""
    if isa not in isas_for(platform.machine()):
        return f"this machine is {platform.machine()}"
    needed = (*_modules(isa), *(f"_front.{m}" for m in FRONT), "_dispatch.cpu", SHARED)
    absent = [m for m in needed if find_spec(f"{PACKAGE}.{m}") is None]
    if absent:
        return f"not built: no {', '.join(absent)}"
    from . import cpu

    lacking = [f for f in isa.features if f not in cpu.features()]
    return f"this CPU or operating system lacks {', '.join(lacking)}" if lacking else ""


def _modules(isa: Isa) -> list[str]:
    return [f"_kernels.{kernel}_{isa.name}" for kernel in KERNELS]


def runnable() -> tuple[str, ...]:
    """Return the names of the implementations that can run here, the best one last."""
    return (REFERENCE, *(isa.name for isa in ISAS if not _missing(isa)))


def load(name: str) -> Any:
    """Return the implementation called `name`.

    Raises
    ------
    ImportError
        If there is none of that name, or it was not built, or it cannot run here.
    """
    if name == REFERENCE:
        return _reference()
    if name not in NAMES:
        raise ImportError(f"no implementation is called {name!r}; allowed are {', '.join(NAMES)}")
    isa = next(isa for isa in ISAS if isa.name == name)
    why = _missing(isa)
    if why:
        raise ImportError(f"implementation {name!r} cannot run here: {why}")
    return Implementation(name)


class Implementation:
    """The public functions over the kernels of the instruction set called `name`."""

    def __init__(self, name: str) -> None:
        self.NAME = name
        self.History = importlib.import_module(f"{PACKAGE}._front.history").History
        for _, family, _ in FAMILIES:
            functions = _functions(family, name)
            for function in _docs.FUNCTIONS:
                if hasattr(functions, function):
                    setattr(self, function, getattr(functions, function))
        self.exp_digits = _functions("StatisticsFunctions", name).exp_digits  # for `LogSumExp`
        self.chains = _functions("ChainFunctions", name)  # for `Sampler`; the reference has none

    def quantized(self) -> Any:
        """Return the kernel of ``fastsoftmax.quantized``, which is imported when asked for."""
        return importlib.import_module(f"{PACKAGE}._kernels.quantized_{self.NAME}").softmax

    @property
    def parts(self) -> Any:
        """The functions of parts of rows, for `fastsoftmax.dask`: as the reference's module."""
        functions = _functions("PartFunctions", self.NAME)
        return SimpleNamespace(
            part_sums=functions.part_sums,
            part_result=functions.part_result,
            race_part=_functions("SamplingFunctions", self.NAME).race_part,
        )


@cache
def _functions(family: str, name: str) -> Any:
    """Return the object whose methods are a family's functions, for an instruction set."""
    module, kernels = next((m, k) for m, cls, k in (*FAMILIES, PARTS) if cls == family)
    modules = [importlib.import_module(f"{PACKAGE}._kernels.{k}_{name}") for k in kernels]
    cls = getattr(importlib.import_module(f"{PACKAGE}._front.{module}"), family)
    for function, stub in _docs.FUNCTIONS.items():
        if hasattr(cls, function):
            getattr(cls, function).__doc__ = stub.__doc__
    # A pickle of a function travels by the names of its family and instruction set.
    copyreg.pickle(cls, lambda functions: (_functions, (family, functions.NAME)))
    return cls(name, *modules)


def kernels(source: str) -> Any:
    """Return the capsule with the kernels of a source, of the implementation in use.

    Raises
    ------
    ImportError
        If that is the reference, which has none.
    """
    if active.NAME == REFERENCE:
        raise ImportError(
            f"{PACKAGE}.capi needs compiled kernels; the implementation in use is the reference: "
            f"{reason}"
        )
    return importlib.import_module(f"{PACKAGE}._kernels.{source}_{active.NAME}").kernels


def histories() -> tuple[type, ...]:
    """Return the class `History` of the reference and, where it was built, the compiled one."""
    if find_spec(f"{PACKAGE}._front.history") is None:
        return (_reference().History,)
    return _reference().History, importlib.import_module(f"{PACKAGE}._front.history").History


def choose() -> tuple[Any, str]:
    """Return the implementation to use, and why it is that one.

    ``FASTSOFTMAX_IMPL`` names one. Otherwise it is the best one that was built and can run here;
    falling back to the reference that way gives a RuntimeWarning.
    """
    asked = os.environ.get(ENVIRONMENT)
    if asked:
        return load(asked), f"{ENVIRONMENT}={asked}"
    best = runnable()[-1]
    if best == REFERENCE:
        if find_spec(f"{PACKAGE}.{SHARED}") is None:
            reasons = (
                "it was installed without; where there is a C compiler, "
                f"'pip install --force-reinstall --no-binary {PACKAGE} {PACKAGE}' builds it"
            )
        else:
            isas = isas_for(platform.machine())
            reasons = "; ".join(f"{isa.name}: {_missing(isa)}" for isa in isas)
        warnings.warn(
            f"fastsoftmax runs its slow pure-Python reference, nothing compiled can be loaded "
            f"({reasons})",
            RuntimeWarning,
            stacklevel=2,
        )
        return _reference(), f"nothing compiled can be loaded ({reasons})"
    return load(best), "the best one built that this CPU and operating system can run"


active, reason = choose()


def show_config(mode: str = "text") -> dict[str, Any] | None:
    """Print, or return, which implementation is in use and why.

    Parameters
    ----------
    mode : {"text", "dicts"}
        Print lines of text, or return a dictionary.

    Returns
    -------
    dict or None
        With the keys ``version``, ``implementation``, ``why``, ``built`` (names), ``runnable``
        (names) and ``cpu`` (``machine`` and ``features``).

    Raises
    ------
    ValueError
        If `mode` is another word.

    Examples
    --------
    >>> import fastsoftmax
    >>> sorted(fastsoftmax.show_config(mode="dicts"))
    ['built', 'cpu', 'implementation', 'runnable', 'version', 'why']
    """
    choice(mode, "mode", ("text", "dicts"))
    built = [i.name for i in ISAS if all(find_spec(f"{PACKAGE}.{m}") for m in _modules(i))]
    features: list[str] = []
    if find_spec(f"{PACKAGE}._dispatch.cpu"):
        from . import cpu

        features = sorted(cpu.features())
    config = {
        "version": importlib.import_module(PACKAGE).__version__,
        "implementation": active.NAME,
        "why": reason,
        "built": built,
        "runnable": list(runnable()),
        "cpu": {"machine": platform.machine(), "features": features},
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        print(f"{key:>14}: {_plain(value)}")
    return None


def _plain(value: Any) -> str:
    """Return a configuration value as a reader wants it."""
    if isinstance(value, dict):
        return " ".join(_plain(v) for v in value.values())
    return " ".join(value) or "none" if isinstance(value, list) else str(value)
