"""The steps of a `Sampler`: each changes the scores of the tokens that are left, or removes some.

A step is a small immutable object with its parameters, checked when it is made; the order in which
steps run is that in which a `Sampler` gets them. Probabilities are always those of the tokens that
are left: every step sees them renormalised. (`steps.TopK` is a step; `fastsoftmax.TopK` is what the
function `top_k` returns.)

A parameter that is a number, a switch or a choice may have a value for each row of the calls, as an
array of one axis or a sequence. Each row is then as if its sampler had that value alone. (Ids are
those of all rows; `Sampler.batch` calls samplers of different ids, or of different steps.)

>>> import numpy as np
>>> from fastsoftmax import Sampler
>>> from fastsoftmax.steps import Temperature
>>> Sampler(Temperature([1.0, 0.5])).filter(np.array([[1.0, 2.0], [1.0, 2.0]]))
array([[1., 2.],
       [2., 4.]])

A step of one's own is a frozen dataclass that inherits from `Step` and returns `Candidates`:

>>> from dataclasses import dataclass
>>> from fastsoftmax.steps import Candidates, Step
>>> @dataclass(frozen=True, repr=False)
... class TopA(Step):
...     '''Keep what is at least `a` times the square of the highest probability.'''
...
...     a: float
...
...     def __call__(self, left: Candidates) -> Candidates:
...         return left.keep(left.probs >= self.a * left.probs.max() ** 2)
>>> sampler = Sampler(Temperature(0.5), TopA(0.5))
>>> sampler.candidates([1.0, 3.0, 2.0, 2.5])
TokenProbs(indices=array([1, 3]), probs=array([0.73105858, 0.26894142]))
"""

# This folder is public. `candidates` holds what a step sees, `base` what it is, `ids` the checks of
# ids; the steps are in `scores` (temperatures), `penalties` (of what has been said), `given` (ids),
# `sequences` (of ids), `truncation` (of the unlikely) and `targeting` (those with a state). Each
# imports only those before it, the checks of arguments, and from `_dispatch` the implementation in
# use.

from .base import Step
from .candidates import Candidates, Tokens
from .given import AllowedTokens, LogitBias, MinLength, SuppressTokens
from .penalties import DRY, FrequencyPenalty, PresencePenalty, RepetitionPenalty
from .scores import DynamicTemperature, SoftCap, Temperature
from .sequences import BadWords, NoRepeatNGram, SequenceBias
from .targeting import AdaptiveP, Mirostat
from .truncation import XTC, Epsilon, Eta, MinP, TopK, TopNSigma, TopP, TypicalP

__all__ = [
    "DRY",
    "XTC",
    "AdaptiveP",
    "AllowedTokens",
    "BadWords",
    "Candidates",
    "DynamicTemperature",
    "Epsilon",
    "Eta",
    "FrequencyPenalty",
    "LogitBias",
    "MinLength",
    "MinP",
    "Mirostat",
    "NoRepeatNGram",
    "PresencePenalty",
    "RepetitionPenalty",
    "SequenceBias",
    "SoftCap",
    "Step",
    "SuppressTokens",
    "Temperature",
    "Tokens",
    "TopK",
    "TopNSigma",
    "TopP",
    "TypicalP",
]
