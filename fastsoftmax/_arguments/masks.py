"""Masks of ids as arguments: bools, or 32 of them as the bits of a word."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from .arrays import plain_array
from .values import id_array, shown

_WORDS = (np.dtype(np.int32), np.dtype(np.uint32))


def as_mask(mask: Any) -> np.ndarray:
    """Return `mask` as an array in native byte order; raise unless it has bools or words."""
    array = plain_array(mask, "mask")
    if array.dtype != np.bool_ and array.dtype not in _WORDS:
        raise TypeError(
            f"mask has dtype {array.dtype}; allowed are bool, and int32 and uint32 for packed bits "
            "(of bytes np.frombuffer(mask, np.uint32))"
        )
    return array


def check(mask: np.ndarray | None, mask_rows: Any, shape: tuple[int, ...]) -> None:
    """Raise unless `mask` fits logits of `shape`, with `mask_rows` or without.

    Raises
    ------
    ValueError
        If it has another width than the logits, which is allowed for words alone, or does not
        broadcast to their rows, or is not of two dimensions beside `mask_rows`.
    """
    if mask is None:
        raise ValueError(f"mask_rows is {shown(mask_rows)}; allowed is None where mask is None")
    words = mask.dtype != np.bool_
    if words and mask.ndim == 0:
        raise ValueError("mask has shape (); allowed are words of 32 ids along the last axis")
    given = mask.shape or (1,)
    if not words and given[-1] != shape[-1]:
        raise ValueError(
            f"mask has shape {mask.shape}; allowed is a last axis of {shape[-1]}, as of the logits"
        )
    if mask_rows is not None:
        if len(given) != 2:
            raise ValueError(
                f"mask has shape {mask.shape}; allowed with mask_rows are two dimensions"
            )
        return
    try:
        fits = np.broadcast_shapes(given[:-1], shape[:-1]) == shape[:-1]
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"mask has shape {mask.shape}, which does not broadcast to the rows' shape {shape[:-1]}"
        )


def numbers_of(mask_rows: Any, masks: int, rows: int) -> np.ndarray:
    """Return for each row the number of its mask, -1 for none, as int64.

    Parameters
    ----------
    mask_rows : array_like of int
        The row of each mask, none of them twice.
    masks, rows : int
        How many there are.
    """
    each = id_array(mask_rows, "mask_rows")
    if each.shape != (masks,):
        raise ValueError(
            f"mask_rows has shape {each.shape}; allowed is ({masks},), a row for each mask"
        )
    bad = (each < 0) | (each >= rows)
    if bad.any():
        raise IndexError(f"mask_rows has {shown(each[bad][0])}; allowed is 0 to {rows - 1}")
    numbers = np.full(rows, -1, np.int64)
    numbers[each.astype(np.int64)] = np.arange(masks)
    again = numbers[each.astype(np.int64)] != np.arange(masks)
    if again.any():
        raise ValueError(f"mask_rows has {shown(each[again][0])} twice; allowed is each row once")
    return numbers


def allowed(mask: Any, mask_rows: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the mask of logits of `shape` as bools of that shape, None for none."""
    if mask is None and mask_rows is None:
        return None
    mask = None if mask is None else as_mask(mask)
    check(mask, mask_rows, shape)
    assert mask is not None
    mask = np.atleast_1d(mask)
    if mask.dtype != np.bool_:
        mask = unpacked(mask, shape[-1])
    if mask_rows is None:
        return np.broadcast_to(mask, shape)
    numbers = numbers_of(mask_rows, len(mask), prod(shape[:-1]))
    result = np.ones((numbers.size, shape[-1]), bool)
    result[numbers >= 0] = mask[numbers[numbers >= 0]]
    return result.reshape(shape)


def mask_of_row(
    mask: np.ndarray, numbers: np.ndarray | None, shape: tuple[int, ...], i: int
) -> np.ndarray | None:
    """Return the mask of row `i` of logits of `shape` as bools, None if it has none.

    `mask` fits, and `numbers` are those that `numbers_of` has returned, or None.
    """
    row = row_of(np.atleast_1d(mask), numbers, shape[:-1], i)
    return row if row is None or row.dtype == np.bool_ else unpacked(row, shape[-1])


def masks_of_rows(
    mask: Any, mask_rows: Any, shape: tuple[int, ...]
) -> Callable[[int], np.ndarray | None]:
    """Return a function that returns the mask of a row, as it is given; of rows of `shape`."""
    mask = np.atleast_1d(as_mask(mask))
    numbers = None if mask_rows is None else numbers_of(mask_rows, len(mask), prod(shape))
    return lambda i: row_of(mask, numbers, shape, i)


def row_of(
    mask: np.ndarray, numbers: np.ndarray | None, shape: tuple[int, ...], i: int
) -> np.ndarray | None:
    """Return the mask of row `i` of rows of `shape`, as it is given, None if it has none."""
    if numbers is not None:
        return mask[numbers[i]] if numbers[i] >= 0 else None
    place = np.unravel_index(i, shape) if shape else ()
    return np.broadcast_to(mask, (*shape, mask.shape[-1]))[place]


def unpacked(words: np.ndarray, n: int) -> np.ndarray:
    """Return the first n bits of words along the last axis, False beyond their end."""
    bytes_ = np.ascontiguousarray(words.astype("<u4" if words.dtype.kind == "u" else "<i4"))
    bits = np.unpackbits(bytes_.view(np.uint8), axis=-1, count=n, bitorder="little")
    return bits.astype(bool)
