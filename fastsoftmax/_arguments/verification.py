"""Arguments of `verify` and `beam_step`: drafted ids, the shapes that belong together, scores."""

from typing import Any

import numpy as np

from .masks import allowed
from .results import NOTHING, VALID_ROWS, why_invalid
from .values import for_rows, id_array, number, reals, require, shown


def check_blocks(logits: np.ndarray, draft_logits: np.ndarray | None) -> None:
    """Check the shapes of the target's and of the draft's logits.

    Raises
    ------
    ValueError
        If there is no row for the token behind the drafts, or not one for each draft.
    """
    if logits.ndim < 2 or logits.shape[-2] < 1:
        raise ValueError(
            f"logits has shape {logits.shape}; allowed is (..., K + 1, n): a row for each draft "
            "and one more"
        )
    wanted = (*logits.shape[:-2], logits.shape[-2] - 1, logits.shape[-1])
    if draft_logits is not None and draft_logits.shape != wanted:
        raise ValueError(
            f"draft_logits has shape {draft_logits.shape}; allowed is {wanted}, a row less than "
            f"logits of shape {logits.shape}"
        )


def drafted_ids(ids: Any, shape: tuple[int, ...], n: int) -> np.ndarray:
    """Return drafted ids as int64, C-contiguous, of exactly this `shape`: 0 to n - 1, or -1.

    Raises
    ------
    TypeError
        If they are no integers; bools are none.
    ValueError
        If their shape is another.
    IndexError
        If one is neither an id nor -1.
    """
    array = id_array(ids, "draft_ids")
    if array.shape != shape:
        raise ValueError(
            f"draft_ids has shape {array.shape}; allowed is {shape}, one less than logits has rows"
        )
    bad = (array < -1) | (array >= n)
    if bad.any():
        raise IndexError(
            f"draft_ids has {shown(array[bad][0])}; allowed is 0 to {n - 1}, and -1 behind the "
            "last draft"
        )
    return np.require(array, np.int64, ["C", "A"])


def finish_verify(
    counts: np.ndarray,
    logits: np.ndarray,
    draft_logits: np.ndarray | None,
    flag: bool,
    mask: Any = None,
    mask_rows: Any = None,
) -> None:
    """Make the counts of requests that could not be verified 0, if `flag`; else raise.

    Such a count is -1 - (2 j + d): row j of the target (d = 0) or of the draft (d = 1) has no
    probabilities, under `mask` and `mask_rows` as `verify` takes them.
    """
    if flag:
        counts[counts < 0] = 0
        return
    for place in np.argwhere(counts < 0)[:1]:
        j, of_draft = divmod(-1 - int(counts[tuple(place)]), 2)
        row = (*map(int, place), j)
        name, array = "logits", logits
        if of_draft and draft_logits is not None:
            name, array = "draft_logits", draft_logits
        is_open = None if of_draft else allowed(mask, mask_rows, logits.shape)
        if is_open is None:
            why = why_invalid(array[row])
        else:
            why = why_invalid(np.where(is_open[row], array[row].astype(float), -np.inf))
            why += " that its mask allows" if why == NOTHING else ""
        raise ValueError(f"{name} has {why} in row {row}; {VALID_ROWS}")


# ---- beams ---------------------------------------------------------------------------------------


def check_groups(logits: np.ndarray) -> None:
    """Raise a ValueError where there is not a row of logits for each beam of a group."""
    if logits.ndim < 2 or logits.shape[-2] < 1:
        raise ValueError(
            f"logits has shape {logits.shape}; allowed is (..., m, n): a row for each of the m "
            "beams of a group"
        )


def beam_scores(scores: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the scores of beams as float64, C-contiguous, of exactly this `shape`.

    Raises
    ------
    TypeError
        If they are no real numbers.
    ValueError
        If their shape is another, or one is NaN or +inf.
    """
    array = reals(scores, "scores", "are real numbers and -inf")
    if array.shape != shape:
        raise ValueError(f"scores has shape {array.shape}; allowed is {shape}, one for each beam")
    require(array < np.inf, array, "scores", "a number or -inf")
    return np.require(array, requirements=["C", "A"])


def length_factors(length: Any, penalty: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return ``length ** -penalty`` of each of the beams of `shape`; None if there is no penalty.

    Raises
    ------
    TypeError
        If one of them is no number, or the length is missing where there is a penalty.
    ValueError
        If one of them is out of range, the factor included.
    """
    exponent = number(penalty, "length_penalty", -100, 100)
    if length is None:
        if exponent == 0:
            return None
        raise TypeError("length is None; allowed beside a length_penalty are numbers from 1")
    lengths = reals(length, "length", "are numbers from 1")
    require((lengths >= 1) & (lengths < np.inf), lengths, "length", "1 and above")
    each = for_rows(lengths, "length", shape, each=True)
    if exponent == 0:
        return None
    with np.errstate(all="ignore"):
        factors = each**-exponent
    fits = (factors > 1e-300) & (factors < 1e300)
    require(fits, each, "length", "what length_penalty leaves within the range of a float64")
    return factors


def fail_beam(logits: np.ndarray, bad: np.ndarray) -> None:
    """Raise the error for the first group with a beam without probabilities: not -1 in `bad`."""
    place = tuple(map(int, np.argwhere(bad >= 0)[0]))
    row = (*place, int(bad[place]))
    raise ValueError(f"logits has {why_invalid(logits[row])} in row {row}; {VALID_ROWS}")
