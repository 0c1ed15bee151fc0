"""The C interface is frozen: signatures and places in the struct are those once recorded.

What is added comes behind, with a higher version; then `signatures.txt` gets more lines, and those
that it has stay.
"""

import ctypes
import os
import re
from pathlib import Path

import fastsoftmax
from tests.capi.header import (
    HEADER,
    USED,
    Api,
    Function,
    compiled_alone,
    fields,
    from_capsule,
)

RECORDED = Path(__file__).parent / "signatures.txt"


def lines():
    """Yield each field of the struct with its offset, and the version."""
    yield f"version {re.search('API_VERSION ([0-9]+)', HEADER.read_text())[1]}"
    for name, field in fields().items():
        said = field
        if isinstance(field, Function):
            said = f"{field.result} ({', '.join(f'{t} {n}' for t, n in field.parameters)})"
        yield f"{getattr(Api, name).offset} {name}: {said}"


def test_the_struct_is_as_recorded():
    assert list(lines()) == RECORDED.read_text().splitlines()


@compiled_alone
def test_the_capsule_holds_it():
    capsule = fastsoftmax.capi._C_API
    api = Api.from_address(from_capsule(capsule, b"fastsoftmax.capi._C_API"))
    assert f"version {api.version}" == next(lines())
    assert api.implementation == USED.encode()
    addresses = [
        ctypes.cast(getattr(api, name), ctypes.c_void_p).value
        for name, field in fields().items()
        if isinstance(field, Function)
    ]
    assert None not in addresses
    assert len(set(addresses)) == len(addresses)


@compiled_alone
def test_cython_sees_the_same_functions():
    declared = fastsoftmax.capi.__pyx_capi__
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    api = Api.from_address(from_capsule(fastsoftmax.capi._C_API, b"fastsoftmax.capi._C_API"))
    functions = {n: f for n, f in fields().items() if isinstance(f, Function)}
    for name, field in functions.items():
        said = name_of(declared[name])
        assert said.decode() == field.signature(), name
        assert from_capsule(declared[name], said) == ctypes.cast(
            getattr(api, name), ctypes.c_void_p
        ).value  # fmt: skip
    assert set(declared) - set(functions) == {"logsumexp_of_window"}


def test_the_parameters_of_cython_have_the_headers_names():
    text = (HEADER.parents[1] / "capi.pxd").read_text()
    for name, field in fields().items():
        if isinstance(field, Function):
            found = re.search(rf"cdef {field.result} {name}\((.*?)\)", text, re.S)[1]
            assert re.findall(r"(\w+)(?:,|\s*$)", found) == [n for _, n in field.parameters]


def test_what_is_included_is_there():
    assert os.listdir(fastsoftmax.get_include()) == ["fastsoftmax.h"]
