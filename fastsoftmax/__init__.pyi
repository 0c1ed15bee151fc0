from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Self, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import capi as capi
from . import steps as steps
from ._merging import LogSumExp as LogSumExp
from ._merging import RunningTopK as RunningTopK
from ._sampler import Sampler as Sampler

__version__: str
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

class SampleResult(NamedTuple):
    ids: Any
    logprobs: Any
    filtered_logprobs: Any
    ranks: Any

class Verified(NamedTuple):
    ids: NDArray[np.int64]
    counts: Any

class BeamStep(NamedTuple):
    scores: NDArray[np.float64]
    parents: NDArray[np.int64]
    ids: NDArray[np.int64]

class LossAndGrad(NamedTuple):
    loss: Any
    grad: NDArray[Any]

class SoftmaxAndLse(NamedTuple):
    probs: Any
    lse: Any

class RowStats(NamedTuple):
    max: Any = None
    argmax: Any = None
    logsumexp: Any = None
    entropy: Any = None
    margin: Any = None
    top_values: Any = None
    top_indices: Any = None
    ranks: Any = None

class TopK(NamedTuple):
    values: NDArray[Any]
    indices: NDArray[np.int64]

class Support(NamedTuple):
    indices: NDArray[np.int64]
    probs: NDArray[Any]
    counts: NDArray[np.int64]

class TopLogprobs(NamedTuple):
    logprobs: NDArray[Any]
    indices: NDArray[np.int64]

class SamplerResult(NamedTuple):
    ids: Any
    logprobs: Any
    filtered_logprobs: Any
    rank: Any
    top: TopLogprobs
    entropy: Any

@final
class History:
    @property
    def rows(self) -> int: ...
    def __new__(cls, prompts: Iterable[ArrayLike]) -> Self: ...
    def __len__(self) -> int: ...
    def append(self, ids: ArrayLike) -> None: ...
    def reset(self, row: int, prompt: ArrayLike = ()) -> None: ...
    def tokens(self, row: int) -> NDArray[np.int64]: ...
    def prompt(self, row: int) -> int: ...
    def state(self, row: int) -> tuple[float, ...]: ...
    def counts(
        self, row: int, last: int | None = None, prompt: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

_Axis = int | Sequence[int] | None

@overload
def softmax(
    x: ArrayLike,
    axis: _Axis = -1,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    return_lse: Literal[False] = False,
    workers: int | None = None,
) -> Any: ...
@overload
def softmax(
    x: ArrayLike,
    axis: _Axis = -1,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    return_lse: Literal[True],
    workers: int | None = None,
) -> SoftmaxAndLse: ...
def log_softmax(
    x: ArrayLike,
    axis: _Axis = -1,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    workers: int | None = None,
) -> Any: ...
def logsumexp(
    x: ArrayLike,
    axis: _Axis = -1,
    *,
    b: ArrayLike | None = None,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
    workers: int | None = None,
) -> Any: ...
def logmeanexp(
    x: ArrayLike,
    axis: _Axis = -1,
    *,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    workers: int | None = None,
) -> Any: ...
def entropy(
    logits: ArrayLike,
    axis: _Axis = -1,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    workers: int | None = None,
) -> Any: ...
def kl_divergence(
    logits: ArrayLike,
    other: ArrayLike,
    axis: _Axis = -1,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    workers: int | None = None,
) -> Any: ...
def row_stats(
    logits: ArrayLike,
    want: str | Iterable[str] = ("max", "argmax", "logsumexp", "entropy", "margin"),
    *,
    axis: int = -1,
    top: int = 0,
    ids: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    workers: int | None = None,
) -> RowStats: ...
def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Literal["none", "mean", "sum"] = "mean",
    workers: int | None = None,
) -> Any: ...
def cross_entropy_with_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Literal["none", "mean", "sum"] = "mean",
    out: NDArray[Any] | None = None,
    workers: int | None = None,
) -> LossAndGrad: ...
def softmax_backward(
    grad_output: ArrayLike,
    probs: ArrayLike,
    axis: _Axis = -1,
    *,
    temperature: ArrayLike = 1.0,
    out: NDArray[Any] | None = None,
) -> Any: ...
def log_softmax_backward(
    grad_output: ArrayLike,
    log_probs: ArrayLike,
    axis: _Axis = -1,
    *,
    temperature: ArrayLike = 1.0,
    out: NDArray[Any] | None = None,
) -> Any: ...
def top_k(
    x: ArrayLike,
    k: int,
    *,
    axis: int = -1,
    mode: Literal["largest", "smallest"] = "largest",
    sorted: bool = True,
    workers: int | None = None,
) -> TopK: ...
def filter_logits(
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    top_k: ArrayLike | None = None,
    top_p: ArrayLike | None = None,
    min_p: ArrayLike | None = None,
    min_keep: int = 1,
    mask: ArrayLike | None = None,
    mask_rows: ArrayLike | None = None,
    ties: Literal["index", "all"] = "index",
    out: NDArray[Any] | None = None,
    workers: int | None = None,
) -> Any: ...
def support(
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    top_k: ArrayLike | None = None,
    top_p: ArrayLike | None = None,
    min_p: ArrayLike | None = None,
    min_keep: int = 1,
    mask: ArrayLike | None = None,
    mask_rows: ArrayLike | None = None,
) -> Support: ...
def sample(
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    top_k: ArrayLike | None = None,
    top_p: ArrayLike | None = None,
    min_p: ArrayLike | None = None,
    min_keep: int = 1,
    mask: ArrayLike | None = None,
    mask_rows: ArrayLike | None = None,
    accept: Callable[[int, int], Any] | None = None,
    max_tries: int = 1000,
    size: int | None = None,
    replace: bool = True,
    rng: int | np.random.Generator | None = None,
    seed: ArrayLike | None = None,
    position: ArrayLike | None = None,
    method: Literal["inverse", "race"] = "inverse",
    on_invalid: Literal["raise", "flag"] = "raise",
    workers: int | None = None,
) -> Any: ...
def sample_with_logprobs(
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    top_k: ArrayLike | None = None,
    top_p: ArrayLike | None = None,
    min_p: ArrayLike | None = None,
    min_keep: int = 1,
    mask: ArrayLike | None = None,
    mask_rows: ArrayLike | None = None,
    size: int | None = None,
    replace: bool = True,
    rng: int | np.random.Generator | None = None,
    seed: ArrayLike | None = None,
    position: ArrayLike | None = None,
    method: Literal["inverse", "race"] = "inverse",
    on_invalid: Literal["raise", "flag"] = "raise",
    workers: int | None = None,
) -> SampleResult: ...
def token_logprobs(
    logits: ArrayLike,
    ids: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
    mask_rows: ArrayLike | None = None,
) -> Any: ...
def top_logprobs(
    logits: ArrayLike,
    n: int,
    *,
    temperature: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
    mask_rows: ArrayLike | None = None,
) -> TopLogprobs: ...
def rank(logits: ArrayLike, ids: ArrayLike) -> Any: ...
def verify(
    draft_ids: ArrayLike,
    logits: ArrayLike,
    draft_logits: ArrayLike | None = None,
    *,
    temperature: ArrayLike = 1.0,
    top_k: ArrayLike | None = None,
    top_p: ArrayLike | None = None,
    min_p: ArrayLike | None = None,
    min_keep: int = 1,
    mask: ArrayLike | None = None,
    mask_rows: ArrayLike | None = None,
    rng: int | np.random.Generator | None = None,
    seed: ArrayLike | None = None,
    position: ArrayLike | None = None,
    method: Literal["chain", "block", "race"] = "chain",
    on_invalid: Literal["raise", "flag"] = "raise",
    workers: int | None = None,
) -> Verified: ...
def beam_step(
    logits: ArrayLike,
    scores: ArrayLike,
    beams: int,
    *,
    length: ArrayLike | None = None,
    length_penalty: float = 0.0,
    on_invalid: Literal["raise", "flag"] = "raise",
    workers: int | None = None,
) -> BeamStep: ...
def set_workers(workers: int) -> AbstractContextManager[object]: ...
def get_include() -> str: ...
def get_workers() -> int: ...
@overload
def show_config(mode: Literal["text"] = "text") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
