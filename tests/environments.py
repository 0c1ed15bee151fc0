"""Floating-point environments: rounding modes, flush-to-zero, denormals-are-zero, traps."""

import ctypes
import platform
import struct
from typing import NamedTuple

import numpy as np

from tests.arrays import dtype_of

libm = ctypes.CDLL(None)


class Machine(NamedTuple):
    """Where glibc's fenv_t has its control words, and what to set in the last of them.

    Each word is its offset, its format, and the bits that are control, not status.
    """

    words: tuple[tuple[int, str, int], ...]
    modes: dict[str, int]
    traps: dict[str, int]  # bits to turn over


MACHINES = {
    "x86_64": Machine(
        words=((0, "<H", 0xFFFF), (28, "<I", 0xFFC0)),  # x87, MXCSR
        modes={
            "down": 0x2000,
            "up": 0x4000,
            "zero": 0x6000,
            "flush to zero": 0x8000,
            "denormals are zero": 0x0040,
            "flush, denormals, up": 0xC040,
        },
        traps={"invalid": 0x80, "division": 0x200, "overflow": 0x400, "underflow": 0x800}
        | {"denormal": 0x100},
    ),
    "aarch64": Machine(
        words=((0, "<I", 0xFFFFFFFF),),  # FPCR
        modes={
            "down": 2 << 22,
            "up": 1 << 22,
            "zero": 3 << 22,
            "flush to zero": 1 << 24,
            "flush halves": 1 << 19,
            "flush, up": 1 << 24 | 1 << 22,
        },
        traps={"all": 0x9F00},  # which few machines have
    ),
}

#: None where the tests don't know how to set an environment.
MACHINE = MACHINES.get(platform.machine()) if hasattr(libm, "fesetenv") else None
MODES = MACHINE.modes if MACHINE else {}
TRAPS = MACHINE.traps if MACHINE else {}


def read():
    """Return the calling thread's environment as glibc gives it, status included."""
    now = ctypes.create_string_buffer(64)
    assert libm.fegetenv(now) == 0
    return now.raw


def control(environment):
    """Return the control bits of an environment."""
    return [
        struct.unpack_from(word, environment, offset)[0] & bits
        for offset, word, bits in MACHINE.words
    ]


def turn(bits):
    """Turn over bits of the calling thread's environment, for good; return it as it was."""
    before = read()
    changed = ctypes.create_string_buffer(before, 64)
    offset, word, _ = MACHINE.words[-1]
    (value,) = struct.unpack_from(word, before, offset)
    struct.pack_into(word, changed, offset, value ^ bits)
    assert libm.fesetenv(changed) == 0
    return before


class Environment:
    """The calling thread's floating-point environment, with some bits turned over inside."""

    def __init__(self, bits):
        self.bits = bits

    def __enter__(self):
        self.before = turn(self.bits)
        return self

    def __exit__(self, *error):
        assert libm.fesetenv(ctypes.create_string_buffer(self.before, 64)) == 0


#: The least exponent of e that is no zero, and the smallest normal number, of each type.
ENDS = {
    "float16": (-17.3, 2.0**-14),
    "bfloat16": (-93.0, 2.0**-126),
    "float32": (-103.9, 2.0**-126),
    "float64": (-745.1, 2.0**-1022),
}


def rows(n, dtype):
    """Return logits with ties; numbers, differences and exponents are subnormal, or results are."""
    lowest, smallest = ENDS[dtype]
    rng = np.random.default_rng(n)
    x = rng.normal(size=(7, n)) * 3
    x[1] *= smallest / 8
    x[2] = rng.uniform(lowest, lowest * 0.7, n)
    x[2, n // 3] = 0
    x[3] = x[3].round()
    x[4, ::2] = -np.inf
    x[5] *= float(-lowest) / 9
    x[6] = np.linspace(lowest * 1.1, 0, n)
    return x.astype(dtype_of(dtype))
