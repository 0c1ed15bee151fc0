"""Signatures and docstrings of the verification of drafts, and of a step of beam search."""

from typing import Any


def verify(
    draft_ids: Any,
    logits: Any,
    draft_logits: Any = None,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    mask: Any = None,
    mask_rows: Any = None,
    rng: Any = None,
    seed: Any = None,
    position: Any = None,
    method: str = "chain",
    on_invalid: str = "raise",
    workers: Any = None,
) -> Any:
    """Accept drafted ids as far as the target allows, and draw one more: speculative decoding.

    What is emitted has exactly the distribution that `sample` draws one after the other from the
    target's logits with these filters, whatever was drafted.

    Parameters
    ----------
    draft_ids : array_like of int, shape (..., K)
        The ids that were drafted for each request. -1 ends a draft that is shorter than K; what
        comes behind it does not count.
    logits : array_like, shape (..., K + 1, n)
        The target's scores: in row j those of the id in place j, after the drafts before it; in the
        last row those of the id behind all drafts. float16, bfloat16, float32, float64, or anything
        that becomes float64. Any strides.
    draft_logits : array_like, shape (..., K, n), optional
        The scores that the drafts were drawn from, through the same filters. None stands for a
        draft that is certain of its ids: greedy, n-grams, a tree's path.
    temperature, top_k, top_p, min_p, min_keep
        What `sample` filters by, in the target's and in the draft's rows: one value, or one a
        request (they broadcast to ``logits.shape[:-2]``); `min_keep` is one int.
    mask, mask_rows
        Which ids the target allows in each place, as in `sample`: of the width of `logits` or
        packed, the other axes as those of `logits`. The draft's rows have none: a draft that is not
        allowed is rejected.
    rng : None, int or numpy.random.Generator
        Where the randomness comes from: ``rng.random((requests, K + 1))``.
    seed, position : int or array_like of int, optional
        From -2**63 to 2**64 - 1, both or none, instead of `rng`: the uniforms of a request are a
        function of its seed and position alone. They are independent at all positions, so that the
        position is that of the first id emitted. Block b of four is
        ``Generator(Philox(key=seed, counter=position + (b << 64))).random(4)`` of numpy.random.
    method : {"chain", "block", "race"}
        How drafts are accepted: one after the other [1]_, [2]_; as a block [3]_, which on average
        accepts more of a draft with `draft_logits`, and as much of one without; or as far as they
        are what the target draws by `sample`'s races [4]_, which need `seed` and `position`.
    on_invalid : {"raise", "flag"}
        What a row with NaN, with +inf or with nothing above -inf does, among those that are read:
        an error, or no ids for its request.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. It changes no id.
        `softmax` says which numbers are allowed.

    Returns
    -------
    Verified
        Named tuple of ``ids`` (int64, shape ``(..., K + 1)``): of each request the drafts that were
        accepted and the id that was drawn behind them, padded with -1; and ``counts`` (int64, shape
        ``(...)``), how many ids these are, 1 to K + 1 (0 where an invalid row is flagged).

    Raises
    ------
    ValueError
        A parameter out of range or NaN, shapes that do not belong together, `rng` beside `seed`, or
        a row that cannot be drawn from (it is named).
    TypeError
        A dtype without probabilities, a masked array, a parameter that is no number, ids that are
        no integers.
    IndexError
        A drafted id that is neither -1 nor from 0 to n - 1.

    Notes
    -----
    p and q are the probabilities that the filters leave in a target's and in a draft's row, and u
    the uniforms of a request. By the chain, draft j, of id t, is accepted if
    ``u[1 + j] * q(t) < p(t)``; at the first that is not, u[0] draws from the positive part of
    p - q, and that is all. By blocks, with f = 1 before the first draft and
    ``f = min(1, f * p(t) / q(t))`` from each to the next, the j drafts of the largest j are
    accepted for which ``u[j] * (s + 1 - f) < s``, s the sum of the positive part of f p - q in row
    j (for all K of them, if ``u[K] < f``); u[0] draws from that part. Behind a whole draft u[0]
    draws from the last row, as `sample` does: with K = 0 ids are those of `sample`. Without
    `draft_logits` q is one at the drafted id. An id that the target's filters removed is never
    emitted; a draft that q has no part of is not accepted. At T = 0 a draft is accepted if it is
    the largest entry, and the draft's logits are not read.

    By races, the id in place j is what ``sample(logits[j], seed=seed, position=position + j,
    method="race")`` draws; ids are emitted as long as that is the draft's, and the first that is
    not. So the text is the one that the target alone would write with this seed, whatever is
    drafted; the draft's logits are not read. Drafts that are drawn by races of the same seed and
    positions (draft j at ``position + j``) have the same noise, and mostly agree where the models
    do: an id that both give the probabilities p and q is drawn by both with a probability of at
    least ``p q / (p + q - p q)``. The position of the next call is further by `counts`.

    Where one of the logits is float64, both are computed with in float64.

    A request's ids depend on its own rows, parameters and uniforms alone; also on those of its own
    drafts alone, where a shorter draft is padded with -1 (with `seed` and `position`).

    Cost: for each row that is read that of a draw by `sample`, and where a draft is rejected passes
    in float64 over what the filters left, if that is no short list. By the chain, rows behind the
    first rejection are not read. By blocks all rows are, and with `draft_logits` those passes are
    made for each place. Nothing of the vocabulary's size is allocated.

    References
    ----------
    .. [1] Y. Leviathan, M. Kalman, Y. Matias, "Fast Inference from Transformers via Speculative
       Decoding", ICML 2023, https://arxiv.org/abs/2211.17192
    .. [2] C. Chen et al., "Accelerating Large Language Model Decoding with Speculative Sampling",
       2023, https://arxiv.org/abs/2302.01318
    .. [3] Z. Sun et al., "Block Verification Accelerates Speculative Decoding", ICLR 2025,
       https://arxiv.org/abs/2403.10444
    .. [4] M. Daliri, C. Musco, A. T. Suresh, "Coupling without Communication and Drafter-Invariant
       Speculative Decoding", 2024, https://arxiv.org/abs/2408.07978

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import verify
    >>> target = np.log([[[0.1, 0.8, 0.1], [0.1, 0.4, 0.5], [0.9, 0.05, 0.05]]] * 2)
    >>> verify([[1, 2], [1, 0]], target, seed=[10, 2], position=17)
    Verified(ids=array([[ 1,  2,  0],
           [ 1,  2, -1]]), counts=array([3, 2]))
    >>> verify([[1, 2], [1, 0]], target, seed=[6, 3], position=17, method="race")
    Verified(ids=array([[ 1,  2,  0],
           [ 1,  1, -1]]), counts=array([3, 2]))
    >>> verify([[1, -1], [2, 2]], target, temperature=0)
    Verified(ids=array([[ 1,  2, -1],
           [ 1, -1, -1]]), counts=array([2, 1]))
    """


def beam_step(
    logits: Any,
    scores: Any,
    beams: int,
    *,
    length: Any = None,
    length_penalty: float = 0.0,
    on_invalid: str = "raise",
    workers: Any = None,
) -> Any:
    """Return the best continuations of each group of beams, by the sum of log-probabilities.

    Parameters
    ----------
    logits : array_like, shape (..., m, n)
        Scores of the next id of each of the m beams of a group; float16, bfloat16, float32,
        float64, or anything that becomes float64. Any strides. Beams that lie in one long axis are
        ``logits.reshape(groups, m, n)``, which copies nothing.
    scores : array_like, shape (..., m)
        The sum of log-probabilities of each beam so far. A beam of -inf does not count, and its
        logits are not read: so a group begins with ``[0, -inf, ...]``, or with one beam.
    beams : int
        How many continuations to return of each group, up to m n: as many as there are to be beams,
        or twice as many, so that enough are left where those that end are taken out.
    length : int or array_like, optional
        How long the continuations of each beam are, from 1 (broadcasts to ``logits.shape[:-1]``).
        Needed with a `length_penalty`.
    length_penalty : float, default 0
        Continuations are ranked by ``score / length**length_penalty``. Where all of a group are of
        one length that changes nothing.
    on_invalid : {"raise", "flag"}
        What a row with NaN, with +inf or with nothing above -inf does, if its beam counts: an
        error, or its beam has no continuations.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. It changes no bit.

    Returns
    -------
    BeamStep
        Named tuple of three arrays of shape ``(..., beams)``, best first: ``scores`` (float64), the
        sums with the new id's log-probability, without penalty; ``parents`` (int64), the beam that
        goes on, 0 to m - 1; and ``ids`` (int64), the id that it goes on with. Where there are fewer
        continuations above -inf, they are padded with -inf, -1 and -1.

    Raises
    ------
    ValueError
        A parameter out of range or NaN, shapes that do not belong together, a score of NaN or +inf,
        or a row without probabilities (it is named).
    TypeError
        A dtype without probabilities, a masked array, a parameter that is no number, a penalty
        without a length.

    Notes
    -----
    What ``np.add`` of `scores` to the `log_softmax` of the logits, and `top_k` of each group's m n
    sums, give; without the matrix of log-probabilities. Log-probabilities are accurate as those of
    `top_logprobs`, and not rounded to the logits' dtype. Among equal scores the lower beam wins,
    within a beam the larger logit, then the lower id.

    Cost: that of `top_logprobs` of n = `beams`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import beam_step
    >>> logits = np.log([[[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]])
    >>> scores, parents, ids = beam_step(logits, np.log([[0.6, 0.4]]), 3)
    >>> np.exp(scores).round(3)
    array([[0.32, 0.3 , 0.18]])
    >>> parents, ids
    (array([[1, 0, 0]]), array([[0, 0, 1]]))
    """
