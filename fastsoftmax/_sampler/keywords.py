"""What other systems call a preset's parameters, and what of theirs no preset takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from .._arguments.values import shown
from ..steps.ids import biases

Method = TypeVar("Method", bound=Callable[..., Any])


#: What others give with these parameters, and is an argument of each call here.
OF_CALLS = {
    "seed": "allowed is seed=, with position=, in calls of the sampler",
    "logprobs": "allowed is logprobs= in calls of the sampler",
}


def also_called(names: Mapping[str, str]) -> Callable[[Method], Method]:
    """Let a preset take parameters by other `names`, each with ours; what is unknown is an error.

    The preset has ``**others`` in its signature and never gets any.
    """

    def decorate(preset: Method) -> Method:
        own = _keywords(preset)

        @wraps(preset)
        def renamed(cls: Any, **given: Any) -> Any:
            parameters: dict[str, Any] = {}
            for name, value in given.items():
                ours = names.get(name, name)
                if ours not in own:
                    if name in OF_CALLS:
                        raise TypeError(f"{name} is {shown(value)}; {OF_CALLS[name]}")
                    raise TypeError(
                        f"{name} is {shown(value)}; {preset.__name__} has no such parameter, "
                        f"allowed are {', '.join([*own, *names])}"
                    )
                if ours in parameters:
                    raise TypeError(
                        f"{name} is {shown(value)}, and by another name {shown(parameters[ours])}; "
                        "allowed is one of the two"
                    )
                parameters[ours] = value
            return preset(cls, **parameters)

        return cast(Method, renamed)

    return decorate


def from_config(silent: str, neutral: Mapping[str, Any]) -> Callable[[Method], Method]:
    """Let a preset take a configuration: an object with ``to_dict``, or its dict by keywords.

    The preset has ``**others`` in its signature and never gets any.

    Parameters
    ----------
    silent : str
        The parameters, with blanks between, that say nothing of the preset's: they are passed over.
    neutral : mapping of str to object
        Parameters that the preset does not support, and the values, None apart, at which they do
        nothing; any other is an error.
    """
    passed_over = frozenset(silent.split())

    def decorate(preset: Method) -> Method:
        own = _keywords(preset)

        @wraps(preset)
        def read(cls: Any, config: Any = None, /, **given: Any) -> Any:
            if config is not None:
                if not hasattr(config, "to_dict"):
                    raise TypeError(f"config is {shown(config)}; allowed is a GenerationConfig")
                given = config.to_dict() | given
            parameters = {}
            for name, value in given.items():
                if name in own:
                    parameters[name] = value
                elif name in neutral:
                    if value is not None and value != neutral[name]:
                        no_op = "" if neutral[name] is None else f" and {neutral[name]}"
                        raise ValueError(
                            f"{name} is {shown(value)}, which {preset.__name__} does not support; "
                            f"allowed is None{no_op}"
                        )
                elif name not in passed_over:
                    raise TypeError(
                        f"{name} is {shown(value)}; {preset.__name__} has no such parameter, "
                        f"allowed are {', '.join(own)}"
                    )
            return preset(cls, **parameters)

        return cast(Method, read)

    return decorate


def _keywords(preset: Callable[..., Any]) -> list[str]:
    """Return the names of a preset's keywords."""
    parameters = inspect.signature(preset).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def json_biases(bias: Any, name: str) -> tuple[tuple[int, float], ...]:
    """Return ids and their biases, as `biases` does; an id may be text, as in OpenAI's JSON."""
    if bias is None:
        return ()
    if not isinstance(bias, Mapping):
        return biases(bias, name)
    given = {}
    for token, value in bias.items():
        if isinstance(token, str):
            if not (token.isascii() and token.isdigit()):
                raise TypeError(
                    f"{name} has {shown(token)}; allowed are token ids, integers or their digits"
                )
            token = int(token)
        if token in given:
            raise ValueError(f"{name} has {shown(token)} twice, as an integer and as text")
        given[token] = value
    return biases(given, name)
