"""Uniforms that depend on a seed and a position alone, by Philox4x64-10.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011, https://doi.org/10.1145/2063384.2063405
"""

import numpy as np

_MULTIPLIERS = np.array([[[0xD2E7470EE14C6C93]], [[0xCA5A826395121157]]], dtype=np.uint64)
_STEPS = np.array([[[0x9E3779B97F4A7C15]], [[0xBB67AE8584CAA73B]]], dtype=np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def uniforms(seed: np.ndarray, position: np.ndarray, m: int) -> np.ndarray:
    """Return ``Generator(Philox(key=seed, counter=position)).random(m)`` for each pair of uint64.

    NumPy's Philox counts before it makes a block of four words: the first block is that of
    `position` + 1. A word's upper 53 bits make a uniform.
    """
    first = position[:, None] + np.arange(1, m // 4 + 2, dtype=np.uint64)
    zero = np.zeros_like(first)
    even = np.stack([first, zero])  # words 0 and 2 of the counter
    odd = np.stack([(first <= position[:, None]).astype(np.uint64), zero])  # words 1 and 3
    key = np.stack([seed, np.zeros_like(seed)])[..., None]
    for _ in range(10):
        high, low = _product(even)
        even, odd = high[::-1] ^ odd ^ key, low[::-1]
        key = key + _STEPS
    words = np.stack([even[0], odd[0], even[1], odd[1]], axis=-1)
    return (words.reshape(len(seed), 4 * first.shape[1])[:, :m] >> np.uint64(11)) * 2.0**-53


def _product(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the upper and the lower half of the 128-bit products with the multipliers."""
    a0, a1 = a & _LOW, a >> _32
    m0, m1 = _MULTIPLIERS & _LOW, _MULTIPLIERS >> _32
    middle = a1 * m0 + (a0 * m0 >> _32)
    other = a0 * m1 + (middle & _LOW)
    return a1 * m1 + (middle >> _32) + (other >> _32), a * _MULTIPLIERS
