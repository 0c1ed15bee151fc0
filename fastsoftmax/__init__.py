"""Softmax, top-k and token sampling on the CPU: fast, exact, from NumPy.

The functions below are those of one implementation, chosen at import (``show_config()`` says which
one and why): compiled for this CPU's instruction set, or the pure-Python reference.
"""

from importlib import import_module
from os.path import dirname, join
from typing import Any

from ._arguments.results import (
    BeamStep,
    LossAndGrad,
    RowStats,
    SampleResult,
    SamplerResult,
    SoftmaxAndLse,
    Support,
    TopK,
    TopLogprobs,
    Verified,
)
from ._dispatch import active as _active
from ._dispatch import show_config
from ._threads import set_workers
from ._workers import get_workers

__version__ = "0.1.0"

History = _active.History
softmax = _active.softmax
log_softmax = _active.log_softmax
logsumexp = _active.logsumexp
logmeanexp = _active.logmeanexp
entropy = _active.entropy
kl_divergence = _active.kl_divergence
row_stats = _active.row_stats
cross_entropy = _active.cross_entropy
cross_entropy_with_grad = _active.cross_entropy_with_grad
softmax_backward = _active.softmax_backward
log_softmax_backward = _active.log_softmax_backward
top_k = _active.top_k
filter_logits = _active.filter_logits
support = _active.support
sample = _active.sample
sample_with_logprobs = _active.sample_with_logprobs
token_logprobs = _active.token_logprobs
top_logprobs = _active.top_logprobs
rank = _active.rank
verify = _active.verify
beam_step = _active.beam_step

__all__ = [
    "BeamStep",
    "History",
    "LogSumExp",
    "LossAndGrad",
    "RowStats",
    "RunningTopK",
    "SampleResult",
    "Sampler",
    "SamplerResult",
    "SoftmaxAndLse",
    "Support",
    "TopK",
    "TopLogprobs",
    "Verified",
    "beam_step",
    "cross_entropy",
    "cross_entropy_with_grad",
    "entropy",
    "filter_logits",
    "get_include",
    "get_workers",
    "kl_divergence",
    "log_softmax",
    "log_softmax_backward",
    "logmeanexp",
    "logsumexp",
    "rank",
    "row_stats",
    "sample",
    "sample_with_logprobs",
    "set_workers",
    "show_config",
    "softmax",
    "softmax_backward",
    "support",
    "token_logprobs",
    "top_k",
    "top_logprobs",
    "verify",
]


def get_include() -> str:
    """Return the folder with ``fastsoftmax.h``, the C interface, for a compiler's ``-I``.

    Returns
    -------
    str

    Examples
    --------
    >>> import fastsoftmax, os
    >>> os.listdir(fastsoftmax.get_include())
    ['fastsoftmax.h']
    """
    return join(dirname(__file__), "include")


#: Where the classes are that are imported when first asked for.
LATER = {"Sampler": "._sampler", "LogSumExp": "._merging", "RunningTopK": "._merging"}


def __getattr__(name: str) -> Any:
    """Import what is in LATER, `steps` and `capi` when asked for: it takes as long as the rest."""
    if name in ("capi", "steps"):
        return import_module(f".{name}", __name__)
    if name in LATER:
        globals()[name] = found = getattr(import_module(LATER[name], __name__), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    special = {name for name in globals() if name.startswith("__")}
    return sorted({*__all__, "capi", "steps", *special})
