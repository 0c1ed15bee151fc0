"""top_k and sample of dask arrays."""

from functools import partial
from typing import Any

import numpy as np

from .._arguments.arrays import one_axis
from .._arguments.results import TopK
from .._arguments.values import choice, count, draws, switch, temperatures, words
from . import chunks
from .graph import (
    apply,
    array,
    field,
    is_split,
    is_unknown,
    ones,
    per_row,
    require_known,
    row_starts,
    starts,
    tree,
)


def top_k(
    x: Any,
    k: int,
    *,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    split_every: Any = None,
) -> TopK:
    """Return the `k` largest (or smallest) entries along an axis, and their indices.

    Parameters
    ----------
    x : dask.array.Array
        In chunks of any shape; of sizes that are known along `axis`, if they split it.
    k, axis, mode, sorted
        As in `fastsoftmax.top_k`: among equal entries the lower index wins, NaN comes last.
    split_every : int, optional
        As in `softmax`.

    Returns
    -------
    TopK
        Named tuple of two dask arrays, ``values`` and ``indices`` (int64, of the whole axis), one
        chunk of length `k` along `axis`. ``dask.compute(result)`` computes both at once.

    Examples
    --------
    >>> import dask, dask.array as da
    >>> import fastsoftmax.dask
    >>> x = da.from_array([3, 9, 4, 9], chunks=1)
    >>> dask.compute(*fastsoftmax.dask.top_k(x, 3))
    (array([9, 9, 4]), array([1, 3, 2]))
    """
    x = array(x, "x")
    x = x.reshape(1) if x.ndim == 0 else x
    axis = one_axis(axis, x.ndim)
    choice(mode, "mode", ("largest", "smallest"))
    in_order = switch(sorted, "sorted")
    split = is_split(x, (axis,))
    if split:
        require_known(x, "x", axis)
    k = count(k, "k", 0, None if is_unknown(x, (axis,)) else x.shape[axis])
    if k == 0:
        empty = x[tuple(slice(0) if i == axis else slice(None) for i in range(x.ndim))]
        return TopK(empty, empty.astype(np.int64))
    dtype = chunks.selection(x.dtype)
    found = apply(
        chunks.candidates, x, (starts(x, axis), (axis,)), dtype=dtype,
        sizes={axis: lambda n: min(n, k)}, k=k, axis=axis, mode=mode, sorted=in_order and not split,
    )  # fmt: skip
    if split:
        merged = partial(chunks.best, k=k, mode=mode)
        found = tree(
            found, partial(merged, sorted=False), (axis,), split_every,
            partial(merged, sorted=in_order), size=k,
        )  # fmt: skip
    return TopK(field(found, "values"), field(found, "indices"))


def sample(
    logits: Any,
    *,
    seed: Any,
    position: Any,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    size: int | None = None,
    replace: bool = True,
    method: str = "race",
    on_invalid: str = "raise",
    split_every: Any = None,
) -> Any:
    """Draw one index a row, or many, with the probabilities of its logits after the filters.

    The ids are those that ``fastsoftmax.sample(..., method="race")`` draws from one array.

    Parameters
    ----------
    logits : dask.array.Array, shape (..., n)
        Scores, in chunks of any shape; the size of n is known where they split the rows.
    seed, position : int, array_like of int or dask array
        What the draw of a row depends on, beside its logits, as in `fastsoftmax.sample`. Rows of
        one seed and position draw with the same noise: give each row a position.
    temperature : float, array_like or dask array, default 1.0
        Scores are divided by it. 0 takes the largest entry.
    top_k, top_p, min_p, min_keep, size, replace
        As in `fastsoftmax.sample`, for chunks that hold whole rows.
    method : {"race", "inverse"}
        Where chunks split the rows, the race: its winners of parts need only be compared.
    on_invalid : {"raise", "flag"}
        What a row with NaN, with +inf or with nothing to draw does when it is computed.
    split_every : int, optional
        As in `softmax`.

    Returns
    -------
    dask.array.Array of int64
        Of shape ``logits.shape[:-1]``, with one more axis of length `size` if that is given.

    Notes
    -----
    Where chunks split the rows they are read twice: for the maximum and for the race. What is not
    allowed there (a filter) takes ``logits.rechunk({-1: -1})``; ids that are not to be drawn are
    shut by ``da.where(mask, logits, -np.inf)``.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import fastsoftmax.dask
    >>> logits = da.zeros((4, 1000), chunks=(2, 300))
    >>> fastsoftmax.dask.sample(logits, seed=7, position=np.arange(4)).compute()
    array([864, 502,  86, 334])
    """
    x = array(logits, "logits")
    x = x.reshape(1) if x.ndim == 0 else x
    axis = x.ndim - 1
    choice(method, "method", ("race", "inverse"))
    raises = choice(on_invalid, "on_invalid", ("raise", "flag")) == "raise"
    switch(replace, "replace")
    row = partial(per_row, x=x, axes=(axis,))
    seed = row(seed, "seed", check=lambda v, rows: words(v, "seed", rows))
    position = row(position, "position", check=lambda v, rows: words(v, "position", rows))
    t = row(temperature, "temperature", check=temperatures)
    given = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    if not is_split(x, (axis,)):
        m = None if size is None else draws(size, 1)
        # The values of filters are checked by `sample`, of each chunk.
        filters = [row(v, name, check=_any) for name, v in given.items()]
        return apply(
            chunks.draw, x, seed, position, t, *filters, *row_starts(x, (axis,)), dtype=np.int64,
            out=tuple(range(axis)) if m is None else None, sizes=None if m is None else {axis: m},
            names=("temperature", *given), raises=raises, size=m, replace=replace, method=method,
            min_keep=min_keep,
        )  # fmt: skip
    _require_plain(given | {"size": size}, method)
    require_known(x, "logits", axis)
    highest = tree(
        apply(chunks.highest, x, dtype=float, sizes=ones((axis,)), axis=(axis,), keepdims=True),
        chunks.highest, (axis,), split_every,
    )  # fmt: skip
    parts = apply(
        chunks.race, x, highest, (starts(x, axis), (axis,)), t, seed, position,
        dtype=chunks.WINNER, sizes=ones((axis,)),
    )  # fmt: skip
    winners = tree(parts, chunks.first_best, (axis,), split_every)
    return apply(
        chunks.ids_of, winners, highest, *row_starts(x, (axis,)), dtype=np.int64,
        out=tuple(range(axis)), raises=raises,
    )  # fmt: skip


def _require_plain(given: dict[str, Any], method: str) -> None:
    """Raise for an argument that draws from parts of rows do not have."""
    how = "where chunks split the rows, or chunks of whole rows: logits.rechunk({-1: -1})"
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} is {value}; allowed is None {how}")
    if method != "race":
        raise ValueError(f"method is {method!r}; allowed is 'race' {how}")


def _any(value: Any, shape: tuple[int, ...]) -> None:
    """Allow any value."""
