"""The second oracle of sampling, known uniforms, and the rows and filters that tests share."""

import math
from functools import lru_cache

import numpy as np

#: Filters of each kind, alone and together.
PARAMETERS = (
    {},
    {"temperature": 0},
    {"temperature": 0.3},
    {"temperature": 1.7},
    {"temperature": np.inf},
    {"top_k": 1},
    {"top_k": 40},
    {"top_p": 0.9},
    {"top_p": 0.5, "temperature": 3.0},
    {"min_p": 0.05},
    {"min_p": 1.0, "min_keep": 3},
    {"top_k": 50, "top_p": 0.9},
    {"top_k": 1000, "min_p": 0.02, "temperature": 1.3},
    {"top_p": 0.95, "min_p": 0.1},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.05, "temperature": 0.8},
    {"top_k": 2, "top_p": 0.01, "min_p": 1.0, "min_keep": 5},
)


class Uniforms(np.random.Generator):
    """A generator the uniforms of which are known beforehand."""

    def __init__(self, uniforms):
        super().__init__(np.random.PCG64(0))
        self.uniforms = np.asarray(uniforms, dtype=np.float64)

    def random(self, size=None, *args, **kwargs):
        assert np.prod(size) == self.uniforms.size, "one uniform a row"
        return self.uniforms.reshape(size).copy()


def draw(impl, row, uniforms, **parameters):
    """Return the id that each of the uniforms draws from one row."""
    rows = np.tile(row, (len(uniforms), 1))
    return impl.sample(rows, rng=Uniforms(uniforms), **parameters)


def survivors(row, temperature=1.0, top_k=None, top_p=None, min_p=None, min_keep=1):
    """Return the ids that the filters leave and their weights, by a full sort and plain loops."""
    x = [float(v) for v in row]
    highest = max(x)
    d = [(v - highest) / temperature for v in x]
    w = [math.exp(v) for v in d]
    kept = sorted(range(len(x)), key=lambda i: (-x[i], i))
    if top_k:
        kept = kept[: max(top_k, min_keep)]
    if top_p is not None and top_p < 1:
        eps = float(np.finfo(row.dtype).eps)
        goal = top_p * math.fsum(w[i] for i in kept) * (1 - 4 * eps)
        cumulative, size = 0.0, 0
        while size == 0 or cumulative < goal:
            cumulative += w[kept[size]]
            size += 1
        kept = kept[: max(size, min_keep)]
    if min_p:
        size = sum(d[i] >= math.log(min_p) for i in kept)
        kept = kept[: max(size, min_keep)]
    kept = [i for i in sorted(kept) if w[i] > 0]
    return np.array(kept), np.array([w[i] for i in kept])


@lru_cache(maxsize=4)
def rows_of(n, dtype):
    """Return four rows of n logits: bell-shaped, full of ties, peaked, half of it -inf."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((4, n)) * 3
    x[1] = x[1].round()
    x[2, n // 2] = 25
    x[3, rng.random(n) < 0.5] = -np.inf
    x[3, -1] = 1
    return x.astype(dtype)
