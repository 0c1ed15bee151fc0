"""Data that change during a call make the answer wrong, never the address that is written."""

import ctypes
import importlib
import threading

import numpy as np
import pytest

GUARD = 77.0
SOFTMAX = 0  # of the enum Op
ROWS_FN = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ssize_t,
    ctypes.c_ssize_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
)


class SoftmaxCall(ctypes.Structure):
    """The struct of that name in ``_kernels/abi.pxd``."""

    _fields_ = (
        ("dtype", ctypes.c_int),
        ("op", ctypes.c_int),
        ("n", ctypes.c_ssize_t),
        ("temperature", ctypes.c_void_p),
        ("temperature_stride", ctypes.c_ssize_t),
        ("workspace", ctypes.c_void_p),
    )


def softmax_rows(impl):
    """Return the first function of the table of kernels, which checks nothing."""
    kernels = importlib.import_module(f"fastsoftmax._kernels.softmax_{impl.NAME}").kernels
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = pointer(kernels, b"fastsoftmax.SoftmaxKernels")
    return ROWS_FN(ctypes.c_void_p.from_address(table).value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 5000])
def test_a_maximum_that_is_gone(compiled, dtype, n):
    # The results of the first row land on the second one after its maximum was found, as from
    # another thread: at T = 0 nothing there equals that maximum any more.
    memory = np.full(3 * n + 16, GUARD, dtype)
    x = memory[8 : 8 + 2 * n]
    x[:] = 0
    x[n - 1] = 3
    temperature = np.zeros(1)
    call = SoftmaxCall(dtype == np.float64, SOFTMAX, n, temperature.ctypes.data, 0, None)
    first = x[n : 2 * n]
    softmax_rows(compiled)(ctypes.byref(call), 0, 2, x.ctypes.data, None, first.ctypes.data)
    assert (memory[:8] == GUARD).all()
    assert (memory[-8:] == GUARD).all()
    assert first[-1] == 1, "the second row has written before its beginning"


@pytest.mark.parametrize("temperature", [0, np.inf, 0.5])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_rows_that_another_thread_writes(compiled, name, temperature):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3000), dtype=np.float32)
    others = [np.roll(x, 1), np.full_like(x, np.nan), np.where(x > 0, -np.inf, x), x + 1000]
    memory = np.full(x.size + 128, GUARD, np.float32)
    y = memory[64 : 64 + x.size].reshape(x.shape)
    done = threading.Event()

    def write():
        while not done.is_set():
            for other in others:
                x[:] = other

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            getattr(compiled, name)(x, temperature=temperature, out=y)
    finally:
        done.set()
        thread.join()
    assert (memory[:64] == GUARD).all()
    assert (memory[-64:] == GUARD).all()
