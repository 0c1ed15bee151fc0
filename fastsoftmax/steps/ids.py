"""Token ids, sequences of them and biases as arguments of steps: checked, and as tuples."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from operator import index
from typing import Any

import numpy as np

from .._arguments.values import shown
from .base import as_float

_ALLOWED = "allowed are token ids, integers from 0 to 2**63 - 1"


def ids_in_order(ids: Any, name: str) -> list[int]:
    """Return token ids as integers in the order given, or raise.

    Parameters
    ----------
    ids : iterable of int
        What was given; a bool is no id.
    name : str
        What an error calls it.
    """
    found = []
    token = ids
    try:
        for token in ids:
            if isinstance(token, (bool, np.bool_)):
                raise TypeError
            found.append(index(token))
    except TypeError:
        verb = "is" if token is ids else "has"
        raise TypeError(f"{name} {verb} {shown(token)}; {_ALLOWED}") from None
    for i in (min(found, default=0), max(found, default=0)):
        if not 0 <= i < 1 << 63:
            raise ValueError(f"{name} has {shown(i)}; {_ALLOWED}")
    return found


def token_ids(ids: Any, name: str) -> tuple[int, ...]:
    """Return token ids as distinct integers in ascending order, or raise; `name` is theirs."""
    return tuple(sorted(set(ids_in_order(ids, name))))


def ids_of_mask(ids: Any, name: str) -> tuple[tuple[int, ...], int | None]:
    """Return the ids that are True in a mask of the vocabulary, and its size; else ids and None.

    A mask is an array of bool; a list of bools is neither.
    """
    if not isinstance(ids, np.ndarray) or ids.dtype != bool:
        return token_ids(ids, name), None
    if ids.ndim != 1:
        raise ValueError(
            f"{name} has shape {ids.shape}; allowed are ids, or a bool mask of one axis"
        )
    return tuple(np.flatnonzero(ids).tolist()), ids.size


def sequence(ids: Any, name: str) -> tuple[int, ...]:
    """Return a sequence of one and more token ids, or raise; `name` is what an error calls it."""
    found = tuple(ids_in_order(ids, name))
    if not found:
        raise ValueError(f"{name} has {shown(ids)}; allowed are sequences of one id and more")
    return found


def sequences(given: Any, name: str) -> tuple[tuple[int, ...], ...]:
    """Return sequences of token ids as distinct tuples in ascending order, or raise.

    Parameters
    ----------
    given : iterable of sequences of int
        What was given; an id stands for the sequence of it alone.
    name : str
        What an error calls it.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is {shown(given)}; allowed are sequences of token ids")
    found = set()
    for each in given:
        if isinstance(each, str):
            raise TypeError(
                f"{name} has {shown(each)}; allowed are sequences of token ids, no text"
            )
        found.add(sequence(each if isinstance(each, Iterable) else [each], name))
    return tuple(sorted(found))


def bias_of(value: Any, token: Any, name: str) -> float:
    """Return a bias as a float below inf, or raise; an error says whose, `token`, it is."""
    wrong = f"{name} has {shown(value)} for {shown(token)}; allowed are finite numbers and -inf"
    try:
        bias = as_float(value)
    except TypeError:
        raise TypeError(wrong) from None
    except OverflowError:
        raise ValueError(wrong) from None
    if not bias < inf:
        raise ValueError(wrong)
    return bias


def biases(bias: Any, name: str) -> tuple[tuple[int, float], ...]:
    """Return pairs of a token id and a bias in ascending order of the ids, or raise.

    Parameters
    ----------
    bias : mapping of int to float
        What was given, or pairs that ``dict`` takes.
    name : str
        What an error calls it.
    """
    try:
        given = dict(bias)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is {shown(bias)}; allowed is a mapping of ids to numbers"
        ) from None
    ids = ids_in_order(given, name)
    return tuple(sorted((i, bias_of(given[i], i, name)) for i in ids))


def sequence_biases(bias: Any, name: str) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Return pairs of a sequence of ids and its bias in ascending order, or raise.

    Parameters
    ----------
    bias : mapping of tuples of int to float
        What was given, or pairs of a sequence and a number.
    name : str
        What an error calls it.
    """
    try:
        given = [(ids, value) for ids, value in getattr(bias, "items", lambda: bias)()]
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is {shown(bias)}; allowed is a mapping of tuples of ids to numbers"
        ) from None
    pairs = {sequence(ids, name): value for ids, value in given}
    return tuple(sorted((ids, bias_of(value, ids, name)) for ids, value in pairs.items()))
