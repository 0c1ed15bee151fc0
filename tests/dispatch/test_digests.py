"""A digest of what every function gives, the same for every compiler and instruction set with fma.

Where a change of bits is meant, or a call is new: ``python -m tests.dispatch.test_digests`` prints
the digests as they stand in ``digests.txt``.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax import _dispatch
from tests.calls import OWN, arrays

FILE = Path(__file__).with_name("digests.txt")
RECORDED = dict(line.rsplit(" ", 1) for line in FILE.read_text().splitlines())


def logits(rows, n, dtype):
    """Return numbers from -8 to 8 by integers alone, with ties, one at both ends, and a -inf."""
    i = np.arange(rows * n, dtype=np.uint64) + np.uint64(n)
    z = (i * np.uint64(0x9E3779B97F4A7C15)) ^ (i >> np.uint64(2))
    x = ((z >> np.uint64(32)) % np.uint64(4096)).astype(np.float64) / 256 - 8
    x = x.reshape(rows, n).astype(dtype)
    x[1, n // 2] = -np.inf
    x[2, n // 3] = 60
    return x


def digest(impl, call):
    """Return the first digits of a sha256 of a call's results, little-endian."""
    found = hashlib.sha256()
    for dtype in (np.float32, np.float64, np.float16):
        for n in (2, 9, 33, 257, 5000):
            for a in map(np.array, arrays(call(impl, logits(4, n, dtype)))):
                a[a != a] = -1  # a NaN: its sign is the machine's
                found.update(f"{a.dtype.str} {a.shape}".encode() + a.tobytes())
    return found.hexdigest()[:24]


@pytest.mark.parametrize("name", OWN)
def test_digest(fused, name):
    assert digest(fused, OWN[name]) == RECORDED.get(name), "see the top of this file"


def test_no_digest_is_left_over():
    assert set(RECORDED) == set(OWN)


if __name__ == "__main__":
    for name, call in OWN.items():
        print(name, digest(_dispatch.active, call))
