"""`accept`: a callable takes or refuses the ids drawn from a row, one after the other.

An implementation draws one id from each row, and from a row whose id is refused more, without
replacement, by the same uniforms and others behind them: the same ones come first again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .arrays import as_array
from .masks import masks_of_rows
from .results import row_name
from .values import count, generator, shown, switch

#: How many times as many ids are drawn from a row when all before were refused.
_MORE = 8


def first_accepted(
    sample: Callable[..., Any],
    logits: Any,
    accept: Any,
    max_tries: Any,
    *,
    size: Any,
    rng: Any,
    seed: Any,
    position: Any,
    mask: Any,
    mask_rows: Any,
    on_invalid: Any,
    workers: Any = None,
    **arguments: Any,
) -> Any:
    """Return of each row the first id that `accept` takes, of its draws without replacement.

    Parameters
    ----------
    sample : callable
        That of an implementation, which gets no `accept`.
    logits, accept, max_tries, ...
        As given to it; `arguments` may have one value a row.
    """
    from .known_uniforms import Uniforms  # imports numpy.random

    most = most_tries(accept, max_tries)
    if size is not None:
        raise ValueError(f"size is {shown(size)}; allowed is None where accept is given")
    switch(arguments["replace"], "replace")
    arguments["replace"] = False
    if seed is None and position is None:
        rng = Uniforms(generator(rng), np.array([]))
    drawn = sample(
        logits, size=None, rng=rng, seed=seed, position=position, mask=mask, mask_rows=mask_rows,
        on_invalid=on_invalid, workers=workers, **arguments,
    )  # fmt: skip
    x = np.atleast_1d(as_array(logits, "logits"))
    shape = x.shape[:-1]
    ids = np.array(drawn).reshape(-1)
    firsts = rng.known if seed is None else None
    masks = None if mask is None else masks_of_rows(mask, mask_rows, shape)
    for row, first in enumerate(ids.tolist()):
        if first < 0 or accept(row, first):
            continue
        place = tuple(map(int, np.unravel_index(row, shape))) if shape else ()
        own = {name: _at(value, shape, place) for name, value in arguments.items()}
        if firsts is None:
            own |= {"seed": _at(seed, shape, place), "position": _at(position, shape, place)}
        else:
            own["rng"] = Uniforms(rng.source, firsts[row : row + 1])
        if masks is not None:
            own["mask"] = masks(row)
        draw = partial(sample, x[place], on_invalid="flag", **own)
        ids[row] = next_accepted(draw, partial(accept, row), most, place, on_invalid == "flag")
    return ids.reshape(shape)[()]


def most_tries(accept: Any, max_tries: Any) -> int:
    """Return how many ids of a row `accept` may refuse, or raise where an argument is wrong."""
    if accept is not None and not callable(accept):
        raise TypeError(f"accept is {shown(accept)}; allowed is a callable of a row and an id")
    return count(max_tries, "max_tries", 1)


def next_accepted(
    draw: Callable[..., np.ndarray],
    accept: Callable[[int], Any],
    most: int,
    place: tuple[int, ...],
    flag: bool,
) -> int:
    """Return the first id but the first that `accept` takes of those that `draw` gives of a row.

    Raise where it takes none, or none of the first `most`; or if `flag`, return -1.
    """
    tried, more = 1, True
    while more and tried < most:
        for id_ in draw(size=min(_MORE * tried, most))[tried:].tolist():
            if id_ < 0:
                more = False
                break
            tried += 1
            if accept(id_):
                return id_
    if flag:
        return -1
    left = "max_tries allows no more" if more else "that is all that can be drawn"
    raise ValueError(
        f"accept refuses {tried} id{'s' * (tried > 1)} of {row_name(place)}, and {left} (or pass "
        "on_invalid='flag')"
    )


def _at(value: Any, shape: tuple[int, ...], place: tuple[int, ...]) -> Any:
    """Return the value of a parameter for the row at `place`."""
    if value is None or np.ndim(value) == 0:
        return value
    return np.broadcast_to(np.asarray(value), shape)[place]
