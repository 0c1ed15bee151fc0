"""What tests call kernels with has all fields of the structs in ``_kernels``, in their order."""

import ctypes
import importlib
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
STRUCT = re.compile(r"^cdef struct (\w+):.*\n((?: +.*\n|\n)+)", re.M)
FIELD = re.compile(r"^    (?:const )?(\w+) (\*?)(\w+)", re.M)


def structs():
    """Return the fields of each struct as (name, bytes); enumerations and bools have four."""
    sizes = {"Py_ssize_t": 8, "double": 8, "int64_t": 8}
    found = {}
    for file in (TESTS.parent / "fastsoftmax" / "_kernels").glob("*.pxd"):
        for name, body in STRUCT.findall(file.read_text()):
            fields = FIELD.findall(body)
            found[name] = [(f, 8 if pointer else sizes.get(t, 4)) for t, pointer, f in fields]
    return found


def twins():
    """Return the ctypes structures of tests, by name."""
    found = {}
    for file in sorted(TESTS.glob("*/test_*.py")):
        if "_kernels." in (text := file.read_text()):
            names = re.findall(r"^class (\w+)\(ctypes\.Structure\)", text, re.M)
            module = f"tests.{file.parent.name}.{file.stem}"
            found |= {n: getattr(importlib.import_module(module), n) for n in names}
    return found


def test_the_twins_of_structs_have_all_fields():
    there, here = structs(), twins()
    assert {"SoftmaxCall", "TopKCall", "RankCall", "FilterLogitsCall", "Reserve"} <= here.keys()
    for name, twin in here.items():
        fields = [(f, ctypes.sizeof(t)) for f, t in twin._fields_]
        assert fields == there[name], name
