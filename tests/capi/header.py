"""``fastsoftmax.h`` as ctypes reads it: the struct, parsed, and the one of the running package."""

import ctypes
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import fastsoftmax

HEADER = Path(fastsoftmax.get_include()) / "fastsoftmax.h"
USED = fastsoftmax.show_config(mode="dicts")["implementation"]
compiled_alone = pytest.mark.skipif(USED == "reference", reason="the reference has no C interface")
TYPES = {
    "int": ctypes.c_int,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "intptr_t": ctypes.c_ssize_t,
    "double": ctypes.c_double,
}
FIELD = re.compile(r"(\w+) \(\*(\w+)\)\(([^)]*)\);|((?:const )?\w+) \*?(\w+);")


class Function(NamedTuple):
    """A function of the struct: its result and parameters, as C has them."""

    result: str
    parameters: tuple[tuple[str, str], ...]  # type and name

    def signature(self):
        """Return it without the names, as Cython writes it."""
        types = [re.sub(r"const (\w+)", r"\1 const", t) for t, _ in self.parameters]
        return f"{self.result} ({', '.join(types)})"


def fields():
    """Return the struct's fields in their order: a `Function`, or the type of what is none."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    body = re.search(r"typedef struct \{(.*?)\} fastsoftmax_api;", text, re.S)[1]
    found, rest = {}, FIELD.sub("", body)
    assert not rest.strip(), rest
    for result, name, parameters, kind, plain in FIELD.findall(body):
        if name:
            each = [" ".join(p.split()).replace(" *", " * ") for p in parameters.split(",")]
            parts = [p.rpartition(" ") for p in each]
            found[name] = Function(result, tuple((kind.rstrip(), n) for kind, _, n in parts))
        else:
            found[plain] = kind
    return found


def ctype(field):
    """Return the type of a field."""
    if not isinstance(field, Function):
        return ctypes.c_char_p if "char" in field else TYPES[field]
    parameters = [
        ctypes.c_void_p if kind.endswith("*") else TYPES[kind] for kind, _ in field.parameters
    ]
    return ctypes.CFUNCTYPE(TYPES[field.result], *parameters)  # without the GIL


class Api(ctypes.Structure):
    """The struct, as the header has it."""

    _fields_ = tuple((name, ctype(field)) for name, field in fields().items())


def from_capsule(capsule, name):
    """Return the pointer in a capsule."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return get(capsule, name)
