"""The race: logit / T plus a Gumbel number of seed, position and id alone; the largest score wins.

The numbers of a draw are words of three of NumPy's Philox streams, whose key is the seed and whose
counter is (0, position, draw, stream). A word w is u = (w + 1/2) / 2**64, and -log(u) is
exponential. The least of the 128 exponentials of a block of ids is that of its word of stream 1,
divided by 128; its place is the upper seven bits of its word of stream 2; and, as exponentials have
no memory, each of the others is the least one plus that of its own word of stream 3.
A Gumbel number is -log of an exponential one.

Only +, -, *, / and bits of float64 are used, in the order of the kernels: scores have their bits.
"""

from typing import Any

import numpy as np
from numpy.random import Philox

BLOCK = 128
#: |max / T| up to which scores are absolute; beyond, where they would lose bits, of logits - max
ABSOLUTE = 256.0
LEAST, PLACE, OTHERS = 1, 2, 3  # the streams


def words(seed: int, position: int, draw: int, stream: int, count: int) -> np.ndarray:
    counter = position << 64 | draw << 128 | stream << 192
    return Philox(key=seed, counter=counter).random_raw(count)


def log_of_parts(f: Any, k: Any) -> Any:
    """k ln 2 + log(1 + f), by the series of the kernels"""
    t = f / (2.0 + f)
    z = t * t
    h = 0.5 * f * f
    p = 0.14797465750741423 * z + 0.15313907169147561
    for c in (0.1818356959787981, 0.2222219847848389, 0.28571428743240684, 0.3999999999941118):
        p = p * z + c
    p = (p * z + 0.6666666666666735) * z
    return k * 0.693147180559663 + (f - (h - (t * (h + p) + k * 2.8235290563031577e-13)))


def parts(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m and k, y = m * 2**k, m from sqrt(1/2) to sqrt(2)"""
    m, k = np.frexp(y)
    low = m < np.sqrt(0.5)
    return np.where(low, 2 * m, m), k - low.astype(float)


def middles(w: np.ndarray) -> np.ndarray:
    """(w + 1/2) / 2**64, rounded once"""
    high, low = w >> np.uint64(32), w & np.uint64(0xFFFFFFFF)
    return (high.astype(float) * 2.0**32 + (low.astype(float) + 0.5)) * 2.0**-64


def exponentials(w: np.ndarray) -> np.ndarray:
    """-log(u), near u = 1 of 1 - u"""
    m, k = parts(middles(w))
    return -log_of_parts(np.where(k == 0, -middles(~w), m - 1), k)


def gumbels(seed: int, position: int, draw: int, n: int) -> np.ndarray:
    """the numbers of ids 0 to n - 1"""
    blocks = -(-n // BLOCK)
    least = exponentials(words(seed, position, draw, LEAST, blocks)) / BLOCK
    place = words(seed, position, draw, PLACE, blocks) >> np.uint64(57)
    others = exponentials(words(seed, position, draw, OTHERS, blocks * BLOCK))
    t = least[:, None] + others.reshape(blocks, BLOCK)
    t[np.arange(blocks), place] = least
    m, k = parts(t)
    g = -log_of_parts(m - 1, k)
    return np.minimum(g, g[np.arange(blocks), place, None]).reshape(-1)[:n]


def race(x: np.ndarray, highest: float, rate: float, g: np.ndarray, m: int) -> tuple[Any, Any]:
    """the places of the m largest of x * rate + g, the lower one among equals, and their scores"""
    pivot = 0.0 if abs(highest * rate) <= ABSOLUTE else highest
    scores = np.where(x > -np.inf, (x - pivot) * rate + g, -np.inf)
    places = np.lexsort((np.arange(x.size), -scores))[:m]
    places = places[scores[places] > -np.inf]
    return places, scores[places]
