"""Selection where comparisons contradict the order of bits, or ids change: no address outside.

The kernels are called by pointer, past the front, which sets the floating-point environment and
checks ids before them.
"""

import ctypes
import importlib
import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

INDEX = ctypes.c_ssize_t
ROWS_FN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, INDEX, INDEX, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)
DTYPES = {"float32": 0, "float64": 1, "int64": 2}  # the agreement's DType
#: Machine code of ``void set(const uint64_t *)``, and what makes denormals 0.
FLUSH = {
    "x86_64": (bytes.fromhex("0fae17c3"), 0x1F80 | 0x8040),  # ldmxcsr [rdi]; ret
    "aarch64": (bytes.fromhex("000040f900441bd5c0035fd6"), 1 << 24),  # ldr; msr fpcr; ret
}


class TopKCall(ctypes.Structure):
    _fields_ = (
        ("dtype", ctypes.c_int), ("n", INDEX), ("k", INDEX), ("largest", ctypes.c_int),
        ("sorted", ctypes.c_int), ("values", ctypes.c_void_p), ("indices", ctypes.c_void_p),
    )  # fmt: skip


class RankCall(ctypes.Structure):
    _fields_ = (
        ("dtype", ctypes.c_int), ("n", INDEX), ("m", INDEX), ("ids", ctypes.c_void_p),
        ("ranks", ctypes.c_void_p), ("packed", ctypes.c_void_p),
    )  # fmt: skip


def kernels_of(name):
    """Return top_k and rank of an instruction set, as they are called by the front."""
    module = importlib.import_module(f"fastsoftmax._kernels.select_{name}")
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = ctypes.py_object, ctypes.c_char_p
    table = pointer(module.kernels, b"fastsoftmax.SelectionKernels")
    return [ROWS_FN(address) for address in (ctypes.c_void_p * 2).from_address(table)]


def top_k(name, x, k, largest=True, in_order=True):
    """Return values and indices of the first k entries of each row of `x`, by the kernel."""
    values = np.empty((len(x), k), x.dtype)
    indices = np.full((len(x), k), -1)
    call = TopKCall(
        DTYPES[x.dtype.name], x.shape[1], k, largest, in_order,
        values.ctypes.data, indices.ctypes.data,
    )  # fmt: skip
    assert kernels_of(name)[0](ctypes.byref(call), 0, len(x), x.ctypes.data, None, None) == 0
    return values, indices


def flush_denormals():
    """Let this thread read and write denormal numbers as 0."""
    code, state = FLUSH[platform.machine()]
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.byref(ctypes.c_uint64(state)))
    return page


def select_among_denormals(name):
    """Run the kernel on rows of zeros and denormal numbers, for `test_denormals_flushed`."""
    page = flush_denormals()
    assert np.float32(1e-40) + np.float32(1e-40) == 0, "denormals are not flushed"
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        bits = np.dtype(f"u{dtype().itemsize}")
        for n in (10, 40, 300, 1100, 5000, 40000):
            for k in {2, 5, n // 70, n // 20, n // 4, n - 1} - {0}:
                for fill in ("one", "some", "all"):
                    x = np.zeros((2, n), dtype)
                    if fill == "one":
                        x.view(bits)[:, 5] = 71362
                    else:
                        x.view(bits)[:] = rng.integers(0, 2**20, x.shape)
                        x[rng.random(x.shape) < (0.9 if fill == "some" else 0)] = 0
                    for largest in (True, False):
                        for in_order in (True, False):
                            _, indices = top_k(name, x, k, largest, in_order)
                            assert indices.min() >= 0
                            assert indices.max() < n
    del page


@pytest.mark.skipif(platform.machine() not in FLUSH, reason="no code that sets the environment")
@pytest.mark.skipif(sys.platform != "linux", reason="needs a page of code")
def test_denormals_flushed(compiled):
    """Counting by comparison finds more than bisection by bits expects: more than was allocated."""
    code = f"from test_selection_bounds import *; select_among_denormals({compiled.NAME!r})"
    command = [sys.executable, "-c", code]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | {"PYTHONPATH": path}
    run = subprocess.run(command, env=env, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()[-1000:]


@pytest.mark.parametrize("dtype", DTYPES)
def test_ids_outside(compiled, dtype):
    """An id that has changed since it was checked gets the rank -1, the others theirs."""
    rng = np.random.default_rng(1)
    for n in (5, 300, 40000):
        x = rng.integers(-1000, 1000, (2, n)).astype(dtype)
        ids = rng.integers(0, n, (2, 700))
        bad = rng.random(ids.shape) < 0.5
        ids[bad] = rng.choice([-1, n, 2**62, -(2**63), 2**63 - 1], bad.sum())
        ranks = np.full(ids.shape, -7)
        call = RankCall(DTYPES[dtype], n, ids.shape[1], ids.ctypes.data, ranks.ctypes.data)
        rank = kernels_of(compiled.NAME)[1]
        assert rank(ctypes.byref(call), 0, 2, x.ctypes.data, None, None) == 0
        order = np.argsort(np.argsort(-x, axis=1, kind="stable"), axis=1)
        want = np.take_along_axis(order, np.where(bad, 0, ids), 1)
        np.testing.assert_array_equal(ranks, np.where(bad, -1, want))
