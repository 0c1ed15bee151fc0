"""Calls of samplers with rows, and what is here in place of other libraries' keywords."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from .._arguments.accept import most_tries
from .._arguments.values import choice, generator
from ..steps.base import Step
from . import program
from .calls import Options, draw, filter_scores
from .execution import SamplerCall
from .rows import StepsOfRows

Method = TypeVar("Method", bound=Callable[..., Any])

_RNG = "rng= (an int or a numpy.random.Generator)"
TRIES = 1000
_MASK = "mask="
#: What is here in place of other libraries' keywords.
OURS = {
    "generator": _RNG,
    "random_state": _RNG,
    "key": _RNG,
    "where": _MASK,
    "bitmask": _MASK,
    "top_logprobs": "logprobs=",
    "input_ids": "ids=",
    "scores": "logits=",
    "temperature": "steps.Temperature in the sampler",
    "top_k": "steps.TopK in the sampler",
    "top_p": "steps.TopP in the sampler",
    "min_p": "steps.MinP in the sampler",
}


def check_keywords(method: Method) -> Method:
    """Return `method`, which then answers an unknown keyword with what is here in its place."""
    _, logits, *others = inspect.signature(method).parameters
    keywords = {logits, *others}
    listed = f"{', '.join([logits, *(f'{name}=' for name in others[:-1])])} and {others[-1]}="

    @wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except TypeError:
            name = next((name for name in kwargs if name not in keywords), None)
            if name is None:
                raise
            message = f"Sampler() calls take {OURS.get(name, listed)}, not {name}="
            raise TypeError(message) from None

    return cast(Method, checked)


class Caller:
    """What can be called with the logits of rows: a `Sampler`, or one for each row."""

    _program: ClassVar[Any] = None  # each instance has its own, which is no field: None in Python

    def _steps(self) -> tuple[Step, ...] | StepsOfRows:
        """Return the steps of all rows, or a list of those of each row."""
        raise NotImplementedError

    def _started(self, row: int) -> tuple[Any, int]:
        """Return the program of a row's first steps, None if there is none, and how many."""
        raise NotImplementedError

    @check_keywords
    def __call__(
        self,
        logits: ArrayLike,
        ids: Any = (),
        rng: int | np.random.Generator | None = None,
        *,
        prompt: int | Sequence[int] = 0,
        mask: Any = None,
        mask_rows: Any = None,
        accept: Callable[[int, int], Any] | None = None,
        max_tries: int = TRIES,
        seed: Any = None,
        position: Any = None,
        method: str = "inverse",
        logprobs: int | None = None,
        on_invalid: str = "raise",
        workers: int | None = None,
    ) -> Any:
        """Draw the next token of one row, or of each row.

        Parameters
        ----------
        logits : array_like, shape (n,) or (rows, n)
            Scores; dtypes as in `sample`.
        ids : sequence of int, or one for each row, or History
            The tokens so far, the oldest first: what the penalties look at. A step that remembers
            what was drawn (`Mirostat`, `AdaptiveP`) needs a `History`.
        rng : None, int or numpy.random.Generator
            Where the randomness comes from: a float64 uniform a row, after one for each `XTC`.
        prompt : int, or one for each row
            How many of `ids`, from the first, are the prompt; the others have been generated.
        mask, mask_rows
            Which ids are allowed, as `sample` describes it; the others are -inf before the steps.
        accept : callable, optional
            Asked as ``accept(row, id)`` for the id drawn, then for the next one that would be drawn
            of what the steps left, without replacement, until it says yes, as in `sample`.
        max_tries : int, default 1000
            How many ids of a row `accept` may refuse before that is an error (or -1).
        seed, position : int, or one for each row, optional
            In place of `rng`, as in `sample`: a row's randomness depends on nothing else.
        method : {"inverse", "race"}
            How an id is drawn, as in `sample`; a race needs `seed` and `position`.
        logprobs : int, optional
            Report log-probabilities, and those of so many most likely tokens of each row.
        on_invalid : {"raise", "flag"}
            What to do with a row with NaN, with +inf, with nothing above -inf, of which the steps
            leave nothing, or `accept` takes nothing: raise, or give it the id -1.
        workers : int, optional
            Threads that share the rows, as in `sample`.

        Returns
        -------
        ndarray of int64, shape ``logits.shape[:-1]``
            A NumPy scalar for one row. With `logprobs`, a SamplerResult: named tuple of ``ids``,
            their ``logprobs`` before the steps (at a temperature of 1) and ``filtered_logprobs``
            after them, their ``rank`` before the steps, ``top`` (``logprobs`` and ``indices`` of
            the most likely tokens before the steps) and the row's ``entropy``, in nats. A flagged
            row has NaN, and -1 for ids and ranks.

        Raises
        ------
        ValueError
            A row as for `on_invalid` (row and step are named), an id outside the vocabulary.
        TypeError
            A dtype without probabilities, ids that are no integers.
        """
        if on_invalid != "raise":
            choice(on_invalid, "on_invalid", ("raise", "flag"))
        if accept is not None or max_tries is not TRIES:
            most_tries(accept, max_tries)
            if seed is None and position is None:
                rng = generator(rng)
        chains, done = program.chains, None
        if chains is not None and self._program is not None:
            done = chains.draw(
                self._program, logits, ids, prompt, mask, mask_rows, rng, seed, position, method,
                workers, logprobs, accept is not None,
            )  # fmt: skip
            if done is not None and type(done) is not tuple:
                return done
        call = SamplerCall(
            self._steps(), logits, ids, prompt, mask, mask_rows, self._started,
            checked=done is not None,
        )  # fmt: skip
        flag = on_invalid == "flag"
        options = Options(rng, seed, position, method, workers, logprobs, flag, accept, max_tries)
        return draw(call, self._program, options, done)

    @check_keywords
    def filter(
        self,
        logits: ArrayLike,
        ids: Any = (),
        rng: int | np.random.Generator | None = None,
        *,
        prompt: int | Sequence[int] = 0,
        mask: Any = None,
        mask_rows: Any = None,
        seed: Any = None,
        position: Any = None,
        workers: int | None = None,
    ) -> Any:
        """Return the scores as the steps leave them, with -inf for what they removed.

        This is what other libraries call a logits processor.

        Parameters
        ----------
        logits : array_like, shape (n,) or (rows, n)
            Scores; dtypes as in `sample`.
        ids : sequence of int, or one for each row, or History
            The tokens so far, the oldest first: what the penalties look at.
        rng : None, int or numpy.random.Generator
            Where the randomness of `XTC` comes from; without that step, none is taken.
        prompt : int, or one for each row
            How many of `ids`, from the first, are the prompt; the others have been generated.
        mask, mask_rows
            Which ids are allowed, as `sample` describes it; the others are -inf before the steps.
        seed, position : int, or one for each row, optional
            In place of `rng`, as in `sample`.
        workers : int, optional
            Threads that share the rows, as in `sample`.

        Returns
        -------
        ndarray
            A new array of the logits' shape; dtypes as in `softmax`.

        Raises
        ------
        ValueError, TypeError
            Where a call of the sampler raises.
        """
        chains, done = program.chains, None
        if chains is not None and self._program is not None:
            done = chains.filter(
                self._program, logits, ids, prompt, mask, mask_rows, rng, seed, position, workers
            )
            if done is not None and type(done) is not tuple:
                return done
        call = SamplerCall(
            self._steps(), logits, ids, prompt, mask, mask_rows, self._started,
            checked=done is not None,
        )  # fmt: skip
        options = Options(rng, seed, position, workers=workers)
        return filter_scores(call, self._program, options, done)
