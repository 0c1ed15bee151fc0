"""A `History` in place of lists of tokens: what the steps see of its rows, and their states."""

from __future__ import annotations

from typing import Any

from .._arguments.values import shown
from .._dispatch import histories
from ..steps.base import Step
from ..steps.candidates import Candidates, Tokens


def is_history(ids: Any) -> bool:
    """Return whether the tokens so far are given as a `History`, of any implementation."""
    return isinstance(ids, histories())


def tokens_of(history: Any, rows: int, size: int, prompt: Any) -> list[Tokens]:
    """Return what steps see of each row of a `History`, or raise.

    Parameters
    ----------
    history : History
        What was given in place of the tokens so far.
    rows, size : int
        How many rows of logits there are, and how many tokens the vocabulary has.
    prompt : int or sequence of int
        As given to the call: the history knows how long the prompts are.
    """
    if history.rows != rows:
        raise ValueError(f"ids is a history of {history.rows} rows; logits has {rows}")
    if not isinstance(prompt, int) or prompt:
        raise ValueError(f"prompt is {shown(prompt)}; allowed with a History is 0")
    found = []
    for i in range(rows):
        ids = history.tokens(i)
        if ids.max(initial=-1) >= size:
            raise ValueError(f"ids has {ids.max()} in row {(i,)}; allowed are ids below {size}")
        found.append(Tokens(ids, history.prompt(i), history.state(i)))
    return found


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
