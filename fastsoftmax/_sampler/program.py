"""A sampler's steps as a program for the compiled chain: what each says in its fields."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log
from typing import Any

from .. import _dispatch, steps
from ..steps.base import Step

PENALTY = {"penalty": "a", "last": "last", "prompt": "prompt", "exempt": "ids"}
#: What a step's fields are called in a program.
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
    steps.XTC: {"probability": "b", "threshold": "a", "min_keep": "min_keep", "exempt": "ids"},
    steps.SoftCap: {"cap": "a"},
    steps.DynamicTemperature: {"temperature": "a", "range": "b", "exponent": "c"},
    steps.AdaptiveP: {"target": "a", "decay": "b"},
    steps.MinLength: {"length": "k", "ids": "ids", "prompt": "prompt"},
    steps.BadWords: {"words": "words", "prompt": "prompt"},
    steps.SequenceBias: {"bias": "sequence_bias", "prompt": "prompt"},
    steps.NoRepeatNGram: {"n": "k"},
    steps.DRY: {
        "multiplier": "a", "base": "b", "allowed_length": "k", "last": "last",
        "breakers": "breakers", "exempt": "ids",
    },
    steps.Mirostat: {"tau": "a", "eta": "b"},
}  # fmt: skip


def is_compiled(step: Step, last: bool) -> bool:
    """Return whether a step has a compiled form: one with a state, if it is the `last`."""
    return type(step) in FIELDS and (last or not step.states)


def removes(step: Step) -> bool:
    """Return whether a step removes tokens that it has not been given, of a row at least."""
    rows = len(getattr(step, step.each_row[0])) if step.each_row else 1
    return isinstance(step, CUTS) or any(step.of_row(row).max_kept for row in range(rows))


def described(step: Step) -> tuple[str, dict[str, Any]]:
    """Return a step's name and what it sets of a ``ChainStep``."""
    given = {ours: getattr(step, name) for name, ours in FIELDS[type(step)].items()}
    given["size"] = getattr(step, "_mask_size", None)
    if "ties" in given:
        given["every_tie"] = of_each(given.pop("ties"), lambda ties: ties == "all")
    if isinstance(step, steps.Epsilon):  # and Eta
        given["every_tie"] = True
    if "bias" in given:
        pairs = given.pop("bias")
        given |= {"ids": [i for i, _ in pairs], "values": [x for _, x in pairs]}
    if "words" in given:
        given["sequence_bias"] = [(ids, 0.0) for ids in given.pop("words")]
    if "sequence_bias" in given:  # in the order of the ids that they name
        pairs = sorted(given.pop("sequence_bias"), key=lambda pair: pair[0][-1])
        given |= {"sequences": [ids for ids, _ in pairs], "values": [x for _, x in pairs]}
    if "breakers" in given:
        given["sequences"] = given.pop("breakers")
        alone = {ids[0] for ids in given["sequences"] if len(ids) == 1}
        given["ids"] = sorted(alone.union(given["ids"]))
    if "a" in given:
        given["log_a"] = of_each(given["a"], lambda a: log(a) if a > 0 else -inf)
    return type(step).__name__, given


def of_each(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return a function of a value, or of each where there is one for each row."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def compiled(chain: tuple[Step, ...], rows: int | None = None) -> tuple[Any, int]:
    """Return the program of the first steps of a chain, and how many these are: all, or some.

    None, and 0, where nothing can be compiled. Some are compiled where that saves a look at the
    whole row in Python, as they remove tokens. Parameters may have a value for each of so many
    `rows`: then some are counted, and each row's are compiled when they are wanted.
    """
    size = len(chain)
    first = next((i for i in range(size) if not is_compiled(chain[i], i == size - 1)), size)
    if chains is None or (first < size and not any(map(removes, chain[:first]))):
        return None, 0
    if rows and first < size:
        return None, first
    return chains.compile([described(step) for step in chain[:first]], rows), first


def compiled_before_state(chain: tuple[Step, ...]) -> tuple[Any, int]:
    """Return what `compiled` does, but without a step with a state, which Python is to see."""
    size = next((i for i, step in enumerate(chain) if step.states), len(chain))
    if size < len(chain) and not any(map(removes, chain[:size])):
        return None, 0
    return compiled(chain[:size])


def joined(programs: list[Any]) -> Any:
    """Return a program that runs one of some programs on each row; None where one is None."""
    if chains is None or any(one is None for one in programs):
        return None
    return chains.join(programs)


#: Steps that keep few as a rule.
CUTS = (
    steps.TopK, steps.TopP, steps.TypicalP, steps.TopNSigma, steps.Epsilon, steps.AllowedTokens,
    steps.Mirostat,
)  # fmt: skip
#: What runs a program: the class of ``_front/chain.pyx``; None in the reference.
chains = getattr(_dispatch.active, "chains", None)
