"""The arguments of `History`: prompts, and the tokens that are appended."""

from typing import Any

import numpy as np

from .values import id_array, shown


def prompt(ids: Any, name: str) -> np.ndarray:
    """Return the token ids of one prompt, the argument called `name`, as int64."""
    allowed = "allowed is a sequence of token ids"
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"{name} is {shown(ids)}; {allowed}")
    array = id_array(ids, name)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; {allowed}")
    return _int64(array, name, 0, "token ids from 0")


def prompts(value: Any) -> list[np.ndarray]:
    """Return the token ids of each row's prompt as int64."""
    try:
        rows = list(value)
    except TypeError:
        raise TypeError(
            f"prompts is {shown(value)}; allowed are sequences of token ids, one a row"
        ) from None
    return [prompt(ids, f"prompts[{i}]") for i, ids in enumerate(rows)]


def appended(ids: Any, rows: int) -> np.ndarray:
    """Return the token ids that each of the `rows` takes as int64 of shape (rows, m)."""
    array = id_array(ids, "ids")
    if array.ndim == 0 and rows == 1:
        array = array.reshape(1)
    if array.ndim not in (1, 2) or array.shape[0] != rows:
        raise ValueError(f"ids has shape {array.shape}; allowed are ({rows},) and ({rows}, m)")
    array = _int64(array, "ids", -1, "token ids from 0, and -1 for none")
    return array if array.ndim == 2 else array[:, np.newaxis]


def _int64(array: np.ndarray, name: str, low: int, allowed: str) -> np.ndarray:
    """Return integers as contiguous int64, from `low`, or raise."""
    bad = (array < low) | (array > np.iinfo(np.int64).max)
    if bad.any():
        raise ValueError(f"{name} has {shown(array[bad][0])}; allowed are {allowed}")
    return np.require(array, np.int64, ["C", "A"])
