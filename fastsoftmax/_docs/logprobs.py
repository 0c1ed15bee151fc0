"""Signatures and docstrings of the log-probabilities of tokens, drawn or given."""

from typing import Any


def sample_with_logprobs(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    mask: Any = None,
    mask_rows: Any = None,
    size: int | None = None,
    replace: bool = True,
    rng: Any = None,
    seed: Any = None,
    position: Any = None,
    method: str = "inverse",
    on_invalid: str = "raise",
    workers: Any = None,
) -> Any:
    """Draw as `sample`, and return with each index its log-probabilities and its rank.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Scores; float16, bfloat16, float32, float64, or anything that becomes float64. Any strides.
    temperature, top_k, top_p, min_p, min_keep
        What `sample` filters by: one value, or one a row (they broadcast to ``logits.shape[:-1]``);
        `min_keep` is one int.
    mask, mask_rows
        Which ids are allowed, as `sample` describes it; in every figure the others are -inf.
    size, replace, rng, seed, position, method, on_invalid, workers
        How many to draw, from which randomness and how, what an invalid row does, and how many
        threads may share the work, as `sample` describes them.

    Returns
    -------
    SampleResult
        Named tuple of four arrays of one shape, that of what `sample` returns: ``ids``, what
        `sample` draws; ``logprobs``, their `token_logprobs` at this temperature, over the whole
        row; ``filtered_logprobs``, their log-probability among what the filters left, renormalised;
        and ``ranks``, their `rank`. Log-probabilities are in the dtype of the logits, float64 for
        integers. For an index that is missing (-1) they are NaN, and the rank is -1.

    Raises
    ------
    ValueError
        A parameter out of range or NaN, a `mask` whose shape does not fit, `rng` beside `seed` or
        in a race, or a row that cannot be drawn from, or not `size` times without replacement (it
        is named).
    TypeError
        A dtype without probabilities, a masked array, a parameter that is no number, a `top_k`,
        `min_keep`, `size`, `seed` or `position` that is no integer (in a race, or None), a
        `replace` that is no bool.

    Notes
    -----
    ``filtered_logprobs`` is ``(x_i - max)/T - log1p(rest)`` in float64, rounded once; `rest` is the
    float64 sum of the survivors' weights without the largest one's own. Where the filters remove
    nothing it is ``logprobs``, whose accuracy `token_logprobs` states. Without replacement, too, it
    is that of the first draw: what was drawn before is not taken out of it. T = 0 gives 0. Integers
    count as float64 in the ranks, too.

    Cost: that of `sample`, and one exponential an entry for ``logprobs`` where `top_k` or `min_p`
    spares `sample` that. The ranks are found among what the filters left.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import sample_with_logprobs
    >>> drawn = sample_with_logprobs(np.log([0.1, 0.6, 0.3]), top_k=2, rng=0)
    >>> drawn.ids, drawn.ranks
    (np.int64(1), np.int64(0))
    >>> np.exp([drawn.logprobs, drawn.filtered_logprobs]).round(4)
    array([0.6   , 0.6667])
    """


def token_logprobs(
    logits: Any, ids: Any, *, temperature: Any = 1.0, mask: Any = None, mask_rows: Any = None
) -> Any:
    """Return the log-probability of given tokens, the entries of `log_softmax` at `ids`.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Scores; float16, bfloat16, float32, float64, or anything that becomes float64. Any strides.
    ids : array_like of int, shape (...) or (..., m)
        One token for each row of logits, or m of them.
    temperature : float or array_like, default 1.0
        T, from 0 to inf: one value, or one a row (it broadcasts to ``logits.shape[:-1]``).
    mask, mask_rows
        Which ids are allowed, as `sample` describes it; the others are -inf.

    Returns
    -------
    ndarray, shape of `ids`
        In the dtype of the logits, float64 for integers. NaN where the row has no probabilities
        (NaN, +inf or nothing above -inf in it).

    Raises
    ------
    IndexError
        An id that is not from 0 to n - 1 (it is named).
    ValueError
        A temperature out of range or NaN, an `ids` or `mask` whose shape does not fit.
    TypeError
        A dtype without probabilities, a masked array, ids that are no integers (bools are none).

    Notes
    -----
    It is ``(x_i - max)/T - log1p(rest)``, rounded once; `rest` is the sum of the weights without
    the largest one's own. T = 0 gives 0 for the largest entry (the lowest index among equals), else
    -inf.

    Accuracy: the weights of float64 and of what becomes float64 are float64, and so is their sum.
    Those of float32, float16 and bfloat16 are float32, added up in float64: with u = 2**-24,
    ``log1p(rest)`` is within about ``8 u`` relative of the exact one, and the difference is made in
    float64. Where a temperature would make the error larger, the weights are float64.

    Cost: two reads of the row, an exponential an entry, for any number of ids; nothing of the row's
    size is allocated, unless another layout or type has to be packed, a row at a time.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import token_logprobs
    >>> logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    >>> token_logprobs(logits, [0, 2]).round(4)
    array([-0.6931, -0.2231])
    """


def top_logprobs(
    logits: Any, n: int, *, temperature: Any = 1.0, mask: Any = None, mask_rows: Any = None
) -> Any:
    """Return the `n` largest log-probabilities of each row, and whose they are.

    Parameters
    ----------
    logits : array_like, shape (..., vocabulary)
        Scores; float16, bfloat16, float32, float64, or anything that becomes float64. Any strides.
    n : int
        How many, from 0 to the size of the vocabulary.
    temperature : float or array_like, default 1.0
        T, from 0 to inf: one value, or one a row (it broadcasts to ``logits.shape[:-1]``).
    mask, mask_rows
        Which ids are allowed, as `sample` describes it; the others are -inf.

    Returns
    -------
    TopLogprobs
        Named tuple of ``logprobs``, in the dtype of the logits (float64 for integers), and
        ``indices`` (int64), both of shape ``(..., n)``: what `token_logprobs` gives for the indices
        of `top_k`, in the order of `top_k`.

    Raises
    ------
    ValueError
        `n` or a temperature out of range or NaN, a `mask` whose shape does not fit.
    TypeError
        A dtype without probabilities, a masked array, an `n` that is no integer.

    Notes
    -----
    Accuracy: that of `token_logprobs`: float32 weights, but for float64 logits, added up in
    float64, are within about ``8 u`` of ``log1p`` of the exact sum, u = 2**-24; else float64.

    Cost: two reads of the row, one of them with an exponential an entry, and the selection, which
    looks at what the first one found.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import top_logprobs
    >>> logprobs, indices = top_logprobs(np.log([0.1, 0.6, 0.3]), 2)
    >>> logprobs.round(4), indices
    (array([-0.5108, -1.204 ]), array([1, 2]))
    """
