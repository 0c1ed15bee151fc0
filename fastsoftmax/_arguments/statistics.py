"""Arguments of what is found of rows: which statistics, and a second array beside the first."""

from typing import Any

import numpy as np

from .values import shown

#: What `row_stats` can be asked for by name.
STATISTICS = ("max", "argmax", "logsumexp", "entropy", "margin")


def wanted(want: Any) -> frozenset[str]:
    """Return the names in `want`, which is one of STATISTICS or some of them."""
    allowed = ", ".join(map(repr, STATISTICS))
    names = (want,) if isinstance(want, str) else want
    try:
        names = tuple(names)
    except TypeError:
        raise TypeError(f"want is {shown(want)}; allowed are {allowed}, or some of them") from None
    for name in names:
        if not isinstance(name, str) or name not in STATISTICS:
            raise ValueError(f"want has {shown(name)}; allowed are {allowed}")
    return frozenset(names)


def check_fits(array: np.ndarray, name: str, other: str, shape: tuple[int, ...]) -> None:
    """Raise unless the argument `name` broadcasts to `shape`, that of the argument `other`."""
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"{name} has shape {array.shape}, which does not broadcast to that of {other}, {shape}"
        ) from None
