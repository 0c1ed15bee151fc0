"""The tokens so far of each row, as they are given, or by a `History` with the steps' states."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments.values import count, has_bool, shown
from .._dispatch import histories
from ..steps.base import Step
from ..steps.candidates import Candidates, Tokens


def given_tokens(ids: Any, prompt: Any, rows: int, single: bool) -> tuple[list[Any], list[Any]]:
    """Return the tokens so far of each row, and how many of them are its prompt, as they are given.

    For a `single` row they are no list of rows. Raise if they are for another number of rows.
    """
    given = [ids]
    if not single:
        try:
            given = list(ids) or [()] * rows
        except TypeError:
            raise TypeError(
                f"ids is {shown(ids)}; allowed are sequences of token ids, one a row"
            ) from None
    prompts = [prompt] * rows
    if isinstance(prompt, (list, tuple)) or (isinstance(prompt, np.ndarray) and prompt.ndim):
        prompts = list(prompt)
    for name, value in (("ids", given), ("prompt", prompts)):
        if len(value) != rows:
            raise ValueError(f"{name} is for {len(value)} rows; logits has {rows}")
    return given, prompts


def checked_tokens(tokens: Any, prompt: Any, name: str, size: int) -> Tokens:
    """Return the tokens so far of the row called `name`, of a vocabulary of `size`, or raise."""
    try:
        asked = np.asarray(tokens)
    except ValueError:  # ragged
        asked = None
    if (
        asked is None
        or asked.ndim != 1
        or (asked.size and asked.dtype.kind not in "iu")
        or has_bool(tokens)  # NumPy makes [1, 5] of [True, 5]
    ):
        raise TypeError(f"ids has {shown(tokens)} for {name}; allowed is a sequence of token ids")
    array = asked.astype(np.int64, copy=False)
    if array.view(np.uint64).max(initial=0) >= max(size, 1):  # negative ones are large
        outside = asked[(array < 0) | (array >= size)][0]
        raise ValueError(f"ids has {outside} in {name}; allowed are ids from 0 to {size - 1}")
    return Tokens(array, count(prompt, "prompt", 0, array.size))


def is_history(ids: Any) -> bool:
    """Return whether the tokens so far are given as a `History`, of any implementation."""
    return isinstance(ids, histories())


def check_history(history: Any, rows: int, prompt: Any) -> None:
    """Raise unless a `History` is for so many `rows` of logits.

    Parameters
    ----------
    history : History
        What was given in place of the tokens so far.
    rows : int
        How many rows of logits there are.
    prompt : int or sequence of int
        As given to the call: the history knows how long the prompts are.
    """
    if history.rows != rows:
        raise ValueError(f"ids is a history of {history.rows} rows; logits has {rows}")
    if not isinstance(prompt, int) or prompt:
        raise ValueError(f"prompt is {shown(prompt)}; allowed with a History is 0")


def tokens_of(history: Any, i: int, size: int) -> Tokens:
    """Return what steps see of a row of a `History`, or raise if it has ids beyond `size`."""
    ids = history.tokens(i)
    if ids.max(initial=-1) >= size:
        raise ValueError(f"ids has {ids.max()} in row {(i,)}; allowed are ids below {size}")
    return Tokens(ids, history.prompt(i), history.state(i))


def stateful(steps: tuple[Step, ...]) -> Step | None:
    """Return the step that remembers something from token to token, if there is one."""
    return next((step for step in steps if step.states), None)


def check_steps(steps: tuple[Step, ...]) -> None:
    """Raise a ValueError if more than one of a sampler's steps has a state."""
    found = [step.short_repr() for step in steps if step.states]
    if len(found) > 1:
        raise ValueError(f"steps has {' and '.join(found)}; allowed is one step with a state")


def foresee(history: Any, row: int, step: Step, left: Candidates, token: int) -> None:
    """Let a row's state after `token` be what `step`, which was called with `left`, says."""
    state = step.next_state(left, token)
    if len(state) != step.states:
        raise ValueError(
            f"{step.short_repr()} has {len(state)} numbers; `states` says {step.states}"
        )
    history._pend(row, token, state)
