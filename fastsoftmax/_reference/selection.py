"""top_k and rank: a full sort of each row."""

from typing import Any

import numpy as np

from .._arguments.arrays import as_array, one_axis
from .._arguments.results import TopK
from .._arguments.values import choice, count, is_extension_float, switch, token_ids
from .rows import over_rows, public


@public
def top_k(x: Any, k: Any, axis: Any, mode: Any, sorted: Any) -> TopK:
    x = np.atleast_1d(as_array(x, "x"))
    choice(mode, "mode", ("largest", "smallest"))
    axis = one_axis(axis, x.ndim)
    k = count(k, "k", 0, x.shape[axis])
    in_order = switch(sorted, "sorted")
    rows = over_rows(lambda row: best_first(row, mode)[:k], x, (axis,))
    indices = np.array(rows, np.int64).reshape(*x.shape[:axis], *x.shape[axis + 1 :], k)
    if not in_order:
        indices.sort(axis=-1)
    indices = np.ascontiguousarray(np.moveaxis(indices, -1, axis))
    return TopK(np.take_along_axis(x, indices, axis), indices)


@public
def rank(logits: Any, ids: Any) -> Any:
    x = np.atleast_1d(as_array(logits, "logits"))
    ids = token_ids(ids, x.shape[:-1], x.shape[-1])
    ranks = over_rows(
        lambda row, i: np.argsort(best_first(row))[i], x, (x.ndim - 1,), ids_of_rows(ids, x)
    )
    return np.array(ranks, np.int64).reshape(ids.shape)[()]


def best_first(x: np.ndarray, mode: str = "largest") -> np.ndarray:
    """all indices, best first: NaN last, the lower index first among equals"""
    if is_extension_float(x.dtype):
        x = x.astype(np.float32)
    _, place = np.unique(x, return_inverse=True)  # places can be negated in every dtype
    return np.lexsort((np.arange(x.size), -place if mode == "largest" else place, x != x))


def ids_of_rows(ids: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return checked token ids in two dimensions: a row for each row of `x`."""
    rows = int(np.prod(x.shape[:-1]))
    return ids.reshape(rows, ids.size // max(rows, 1))
