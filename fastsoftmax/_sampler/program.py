"""A sampler's steps as a program for the compiled chain: what each says in its fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from math import inf, log
from typing import Any

from .. import _dispatch, steps
from ..steps.base import Step

PENALTY = {"penalty": "a", "last": "last", "prompt": "prompt", "exempt": "ids"}
#: What a step's fields are called in a program. A step with another field is not compiled.
FIELDS: dict[type[Step], dict[str, str]] = {
    steps.Temperature: {"temperature": "a"},
    steps.RepetitionPenalty: PENALTY,
    steps.FrequencyPenalty: PENALTY,
    steps.PresencePenalty: PENALTY,
    steps.LogitBias: {"bias": "bias"},
    steps.SuppressTokens: {"ids": "ids"},
    steps.AllowedTokens: {"ids": "ids"},
    steps.TopK: {"k": "k", "ties": "ties", "min_keep": "min_keep"},
    steps.TopP: {"p": "a", "min_keep": "min_keep"},
    steps.MinP: {"p": "a", "min_keep": "min_keep"},
    steps.TypicalP: {"p": "a", "ties": "ties", "min_keep": "min_keep"},
    steps.TopNSigma: {"n": "a"},
    steps.Epsilon: {"epsilon": "a", "min_keep": "min_keep"},
    steps.Eta: {"epsilon": "a", "min_keep": "min_keep"},
    steps.XTC: {"probability": "b", "threshold": "a", "min_keep": "min_keep"},
}


def is_compiled(step: Step) -> bool:
    """Return whether a step, with its parameters, has a compiled form."""
    known = FIELDS.get(type(step))
    if known is None:
        return False
    others = [f for f in fields(step) if f.name not in known]  # type: ignore[arg-type]
    return all(getattr(step, f.name) == f.default for f in others)


def described(step: Step) -> tuple[str, dict[str, Any]]:
    """Return a step's name and what it sets of a ``ChainStep``."""
    given = {ours: getattr(step, name) for name, ours in FIELDS[type(step)].items()}
    given["size"] = getattr(step, "_mask_size", None)
    if "ties" in given:
        given["every_tie"] = of_each(given.pop("ties"), lambda ties: ties == "all")
    if "bias" in given:
        pairs = given.pop("bias")
        given |= {"ids": [i for i, _ in pairs], "values": [x for _, x in pairs]}
    if "a" in given:
        given["log_a"] = of_each(given["a"], lambda a: log(a) if a > 0 else -inf)
    return type(step).__name__, given


def of_each(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return a function of a value, or of each where there is one for each row."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def compiled(chain: tuple[Step, ...], rows: int | None = None) -> Any:
    """Return the program of a chain; None where a step is not compiled, or nothing can be.

    Its parameters may have a value for each of so many `rows`.
    """
    if chains is None or not all(map(is_compiled, chain)):
        return None
    return chains.compile([described(step) for step in chain], rows)


def joined(programs: list[Any]) -> Any:
    """Return a program that runs one of some programs on each row; None where one is None."""
    if chains is None or any(one is None for one in programs):
        return None
    return chains.join(programs)


#: What runs a program: the class of ``_front/chain.pyx``; None in the reference.
chains = getattr(_dispatch.active, "chains", None)
