"""What lay on the stack before changes no result: every field of a call's structs is set.

A C function writes a byte to all of the stack that a call takes next. (`uninitialised`, in this
folder, has the compiler fill what each function leaves unset, for all tests.)
"""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tests.calls import CALLS, bits
from tests.memory.compiled import shared_object

FILL = """
#include <string.h>
void fill(int byte) {
    char room[80000];
    memset(room, byte, sizeof room);
    __asm__ volatile("" : : "r"(room) : "memory");  /* it is not left out as never read */
}
int unset(int set) {
    volatile int fields[10000];
    if (set) fields[5000] = 0;
    return fields[5000];
}
"""
BYTES = (0x00, 0x01, 0x7F, 0xFE)  # as counts: none, many, too many, negative ones

#: Rows that are short, of a batch, long, and packed.
ROWS = {
    "short": ((3, 7), lambda x: x),
    "batch": ((70, 9), lambda x: x.astype(np.float64)),
    "long": ((2, 9000), lambda x: x),
    "packed": ((3, 700), lambda x: x.astype(np.float16)[:, ::2]),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return the C functions."""
    folder = tmp_path_factory.mktemp("fill")
    source = Path(folder / "fill.c")
    source.write_text(FILL)
    return ctypes.CDLL(shared_object(source, folder))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_lay_there_changes_no_bit(compiled, call, library):
    for shape, form in ROWS.values():
        x = form(np.random.default_rng(0).standard_normal(shape, np.float32))
        want = bits(call(compiled, x))
        for byte in BYTES:
            library.fill(byte)
            assert bits(call(compiled, x)) == want, (shape, byte)


def test_it_reaches_what_a_function_leaves_unset(library):
    for byte in BYTES:
        library.fill(byte)
        assert library.unset(0) & 0xFF == byte
    assert library.unset(1) == 0
