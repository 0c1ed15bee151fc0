"""Results: the named tuples that functions return, and the last steps from a kernel's answer."""

from typing import Any, NamedTuple

import numpy as np

from .values import EXTENSION_FLOATS


class TopK(NamedTuple):
    """What `top_k` returns: the values and their indices, along the axis it selects from."""

    values: np.ndarray
    indices: np.ndarray


class Support(NamedTuple):
    """What `support` returns: the survivors, most likely first, padded with -1 and 0."""

    indices: np.ndarray
    probs: np.ndarray
    counts: np.ndarray


class SoftmaxAndLse(NamedTuple):
    """What `softmax` returns with ``return_lse=True``: probabilities and the rows' log-sum-exp."""

    probs: Any
    lse: Any


class RowStats(NamedTuple):
    """What `row_stats` returns of each row: None for what it was not asked for."""

    max: Any = None
    argmax: Any = None
    logsumexp: Any = None
    entropy: Any = None
    margin: Any = None
    top_values: Any = None
    top_indices: Any = None
    ranks: Any = None


class TopLogprobs(NamedTuple):
    """What `top_logprobs` returns: log-probabilities, largest first, and their indices."""

    logprobs: np.ndarray
    indices: np.ndarray


class SampleResult(NamedTuple):
    """What `sample_with_logprobs` returns, one element for each draw."""

    ids: Any
    logprobs: Any
    filtered_logprobs: Any
    ranks: Any


class Verified(NamedTuple):
    """What `verify` returns: the ids of each request, padded with -1, and how many there are."""

    ids: np.ndarray
    counts: Any


class BeamStep(NamedTuple):
    """What `beam_step` returns of each group, best first: scores, beams that go on, their ids."""

    scores: np.ndarray
    parents: np.ndarray
    ids: np.ndarray


class SamplerResult(NamedTuple):
    """What a `Sampler` returns where it is asked for log-probabilities: one element for each row.

    Attributes
    ----------
    ids : ndarray of int64
        The tokens drawn.
    logprobs : ndarray
        Their log-probabilities before the steps, at a temperature of 1.
    filtered_logprobs : ndarray
        Their log-probabilities after the steps.
    rank : ndarray of int64
        How many tokens come before them, before the steps.
    top : TopLogprobs
        The most likely tokens before the steps: ``logprobs`` and ``indices``, most likely first.
    entropy : ndarray
        The entropy of the row before the steps, in nats.
    """

    ids: Any
    logprobs: Any
    filtered_logprobs: Any
    rank: Any
    top: TopLogprobs
    entropy: Any


class LossAndGrad(NamedTuple):
    """What `cross_entropy_with_grad` returns: the loss, and its gradient by the logits."""

    loss: Any
    grad: np.ndarray


#: What a row of logits must be where an error says so.
VALID_ROWS = (
    "allowed are rows of finite numbers and -inf, one of them finite (or pass on_invalid='flag')"
)

NOTHING = "nothing above -inf"


def finish_draw(
    ids: np.ndarray,
    rows: np.ndarray,
    shape: tuple[int, ...],
    size: int | None,
    flag: bool,
    masked: bool = False,
) -> Any:
    """Return the indices drawn from `rows` in the shape that `size` asks for, -1 for the missing.

    Parameters
    ----------
    ids : ndarray of int64, shape (rows, draws)
        What was drawn from each row.
    rows : ndarray, shape (rows, n)
        The logits.
    shape : tuple of int
        How the rows are arranged: ``logits.shape[:-1]``.
    size : int or None
        As given to `sample`.
    flag : bool
        Whether missing indices stay -1.
    masked : bool, default False
        Whether there were masks: what they shut is -inf in `rows`.

    Raises
    ------
    ValueError
        Unless `flag`, for the first row that is invalid or had too few to draw.
    """
    if not flag and ids.min(initial=0) < 0:
        i = int(ids.min(axis=1).argmin())
        place = tuple(map(int, np.unravel_index(i, shape))) if shape else ()
        if ids[i, 0] >= 0:
            raise ValueError(
                f"size is {size}; allowed without replacement is 0 to {(ids[i] >= 0).sum()}, what "
                f"can be drawn from {row_name(place)} (or pass on_invalid='flag')"
            )
        why = why_invalid(rows[i])
        if masked and why == NOTHING:
            why += " that its mask allows"
        raise ValueError(f"logits has {why} in {row_name(place)}; {VALID_ROWS}")
    return ids.reshape(shape if size is None else (*shape, size))[()]


def row_name(place: tuple[int, ...]) -> str:
    """Return the row at `place` as an error names it: one-dimensional logits are "the row"."""
    return f"row {place}" if place else "the row"


def why_invalid(row: Any) -> str:
    """Say what is wrong with a row of logits that has no probabilities."""
    with np.errstate(all="ignore"):  # of a NaN that signals
        row = np.asarray(row).astype(np.float64)
    if np.isnan(row).any():
        return "NaN"
    return "+inf" if np.isposinf(row).any() else NOTHING


def clip_to_dtype(y: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return `y` in `dtype`, a float type; what overflows becomes its largest number, -inf stays.

    NaN stays, too.
    """
    largest = EXTENSION_FLOATS.get(dtype.name) or float(np.finfo(dtype).max)
    with np.errstate(all="ignore"):
        return np.where(np.isneginf(y), y, np.clip(y, -largest, largest)).astype(dtype)
