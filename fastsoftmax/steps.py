"""The steps of a `Sampler`: each changes the scores of the tokens that are left, or removes some.

A step is a small immutable object with its parameters, checked when it is made; the order in which
steps run is that in which a `Sampler` gets them. Probabilities are always those of the tokens that
are left: every step sees them renormalised. A step of one's own is a frozen dataclass that
inherits from `Step` and defines ``__call__``.
"""

from ._candidates import Candidates, History
from ._filters import XTC, Epsilon, Eta, MinP, TopK, TopNSigma, TopP, TypicalP
from ._scores import (
    Allowed,
    Banned,
    FrequencyPenalty,
    LogitBias,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
)
from ._step import Step

__all__ = [
    "XTC",
    "Allowed",
    "Banned",
    "Candidates",
    "Epsilon",
    "Eta",
    "FrequencyPenalty",
    "History",
    "LogitBias",
    "MinP",
    "PresencePenalty",
    "RepetitionPenalty",
    "Step",
    "Temperature",
    "TopK",
    "TopNSigma",
    "TopP",
    "TypicalP",
]
