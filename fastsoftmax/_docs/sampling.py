"""Signatures and docstrings of the filters and of the draws."""

from typing import Any


def filter_logits(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    mask: Any = None,
    mask_rows: Any = None,
    ties: str = "index",
    out: Any = None,
    workers: Any = None,
) -> Any:
    """Return ``logits / temperature`` with everything that the filters remove set to -inf.

    The order is: temperature, then `top_k`, then `top_p` on the probabilities renormalised over
    what `top_k` left, then `min_p`. So ``softmax(filter_logits(...))`` is what `sample` draws from.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Scores. float32 and float64 are computed in their own precision, float16 and bfloat16 in
        float32, anything else in float64. Any strides.
    temperature : float or array_like, default 1.0
        T, from 0 to inf. 1 changes no bit of what is left.
    top_k : int or array_like of int, optional
        Keep this many; None, 0 and n or more keep all.
    top_p : float or array_like, optional
        Keep the shortest prefix, most likely first, whose mass reaches `top_p`, from 0 to 1; None
        and 1 keep all.
    min_p : float or array_like, optional
        Keep what is at least `min_p` times as likely as the most likely entry, from 0 to 1; None
        and 0 keep all.
    min_keep : int, default 1
        Each filter leaves at least this many.
    mask, mask_rows
        Which ids are allowed, as `sample` describes it; the others are -inf before the filters.
    ties : {"index", "all"}
        What `top_k` does with what equals its last entry: exactly `top_k` stay, the lower index
        wins; or all of it stays (as in Hugging Face transformers and vLLM).
    out : ndarray, optional
        The array to write to, of the result's shape, any strides, and the result's dtype or a float
        dtype that NumPy's ``same_kind`` rule casts it to. ``out=logits`` works in place; an error
        leaves it untouched, except KeyboardInterrupt.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. `softmax` says
        which numbers are allowed.

    Returns
    -------
    ndarray
        The shape of `logits`, and their dtype if that is a float type, else float64; `out` if it
        was given. A row without probabilities (NaN, +inf or nothing above -inf in it) is NaN.
        `temperature`, `top_k`, `top_p` and `min_p` may have one value a row (they broadcast to
        ``logits.shape[:-1]``).

    Raises
    ------
    ValueError
        A parameter out of range or NaN, a shape that does not fit, a read-only `out`.
    TypeError
        A dtype without probabilities, a masked array, a parameter that is no number, an `out` of a
        dtype that is not allowed.

    Notes
    -----
    The quotient is ``logits * (1/T)``, 1/T held at the largest float64, rounded once; T = 1 changes
    no bit. Where that would overflow the dtype of the result for an entry that is left, the row is
    ``(logits - max) * (1/T)`` instead: its softmax is that of the quotient, the order is kept, and
    what still overflows is the dtype's least finite number, so that what is left never is infinite.
    T = 0 leaves the largest entry (the lowest index among equals), as 0: the logarithm of its
    probability. T = inf leaves 0 where there was a number. An entry of -inf stays -inf.

    Cost: that of a draw by `sample`, and one write, with a product for each entry that is left if T
    is not 1.

    Examples
    --------
    >>> from fastsoftmax import filter_logits
    >>> filter_logits([3.0, 1.0, 2.0, 2.0], top_k=2, temperature=0.5)
    array([  6., -inf,   4., -inf])
    >>> filter_logits([3.0, 1.0, 2.0, 2.0], top_k=2, ties="all")
    array([  3., -inf,   2.,   2.])
    """


def support(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    mask: Any = None,
    mask_rows: Any = None,
) -> Any:
    """Return what `sample` can draw from each row, and with which probabilities.

    The order is: temperature, then `top_k`, then `top_p`, then `min_p`, as in `sample`. The
    probabilities are renormalised: those of what is left sum to 1, whatever was removed.
    `top_logprobs` gives those of the most likely entries among all.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Scores; float16, bfloat16, float32, float64, or anything that becomes float64. Any strides.
    temperature, top_k, top_p, min_p, min_keep
        What `sample` filters by: one value, or one a row (they broadcast to ``logits.shape[:-1]``);
        `min_keep` is one int.
    mask, mask_rows
        Which ids are allowed, as `sample` describes it; the others are -inf before the filters.

    Returns
    -------
    Support
        Named tuple of ``indices`` (int64) and ``probs`` (the dtype of the logits, float64 for
        integers; a row sums to 1), both of shape ``(..., most)`` and most likely first, the lower
        index among equals, padded with -1 and 0; and ``counts`` (int64, shape ``(...)``), how many
        there are in each row. A row that `sample` refuses (NaN, +inf or nothing above -inf in it)
        has none.

    Raises
    ------
    ValueError
        A parameter out of range or NaN, a shape that does not fit.
    TypeError
        A dtype without probabilities, a masked array, a parameter that is no number.

    Notes
    -----
    What has a weight of zero (an entry of -inf, or one so far below the largest, 708.7 T, that its
    float64 weight would be subnormal: it is 0) is not part of it, even if `top_k` or `min_keep`
    would keep it: `sample` never draws it.

    Cost: that of a draw by `sample`, and a sort of what survives.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import support
    >>> indices, probs, counts = support(np.log([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]]), top_p=0.7)
    >>> indices, counts
    (array([[ 1,  2],
           [ 0, -1]]), array([2, 1]))
    >>> probs
    array([[0.625, 0.375],
           [1.   , 0.   ]])
    """


def sample(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    min_keep: int = 1,
    mask: Any = None,
    mask_rows: Any = None,
    accept: Any = None,
    max_tries: int = 1000,
    size: int | None = None,
    replace: bool = True,
    rng: Any = None,
    seed: Any = None,
    position: Any = None,
    method: str = "inverse",
    on_invalid: str = "raise",
    workers: Any = None,
) -> Any:
    """Draw one index a row, or many, with the probabilities of its logits after the filters.

    The order is: temperature, then `top_k`, then `top_p` on the probabilities renormalised over
    what `top_k` left, then `min_p`. What survives is renormalised and drawn from.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        Scores; float16, bfloat16, float32, float64, or anything that becomes float64. Any strides.
    temperature : float or array_like, default 1.0
        Scores are divided by it. 0 takes the largest entry, the lowest index among equals.
    top_k : int or array_like of int, optional
        Keep exactly this many; the lower index wins among equals. None, 0 and n or more keep all.
    top_p : float or array_like, optional
        In the order probability descending, index ascending, keep the shortest prefix whose mass
        reaches `top_p`, the crossing entry included. None and 1 keep all.
    min_p : float or array_like, optional
        Keep what is at least `min_p` times as likely as the most likely entry. None and 0 keep all.
    min_keep : int, default 1
        Each filter leaves at least this many.
    mask : array_like of bool, int32 or uint32, optional
        Which ids are allowed. The others are as if their logits were -inf, before the filters and
        in every figure, whatever they are. Bools of the width of the logits, True allowed; or 32
        ids in an integer, as xgrammar and llguidance pack them, shape ``(..., ceil(n / 32))``: bit
        j of word i is id ``32 i + j``, 1 allowed. Ids beyond the words are not allowed, bits beyond
        the vocabulary don't count. Other axes broadcast to ``logits.shape[:-1]``.
    mask_rows : array_like of int, optional
        Where not every row has a mask: the row that each row of `mask`, which has two dimensions
        then, is for, counted in C order; the other rows have none.
    accept : callable, optional
        Called as ``accept(row, id)``, two ints, with the id drawn from a row, then with the next
        one that `size` and ``replace=False`` would draw, until what it returns is true: that id has
        the distribution renormalised over all that it would take, though none but those drawn are
        asked for. Rows are counted in C order, and come in order. `size` is None.
    max_tries : int, default 1000
        How many ids of a row `accept` may refuse before that is an error (or -1, by `on_invalid`).
    size : int, optional
        How many to draw from each row. None draws one and adds no axis; 0 draws nothing and looks
        at nothing.
    replace : bool, default True
        Whether an index can be drawn again. False draws each from what the draws before it left,
        with renormalised probabilities, so that the `size` indices are distinct.
    rng : None, int or numpy.random.Generator
        Where the randomness comes from: one float64 uniform a draw, ``rng.random((rows, size))``;
        None is the system's entropy. An int makes a generator at each call, which takes 20 us.
    seed, position : int or array_like of int, optional
        From -2**63 to 2**64 - 1, a negative one as its two's complement; both or none, instead of
        `rng`: the uniforms of a row are a function of its seed and position alone, whatever else is
        drawn, in which batch and in which order:
        ``Generator(Philox(key=seed, counter=position)).random(size)`` of numpy.random. A position
        provides four; more come from the positions behind it, so that draws of `size` are
        independent at positions ``ceil(size / 4)`` apart.
    method : {"inverse", "race"}
        How an index comes of the randomness, with the same probabilities: by the inverse of the
        cumulative weights, or by a race of scores, which needs `seed` and `position` (see Notes).
    on_invalid : {"raise", "flag"}
        What a row with NaN, with +inf or with nothing to draw does, and one with fewer than `size`
        to draw without replacement: an error, or the index -1 for what is missing.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. The uniforms are
        drawn before, in row order, and so don't depend on it. `softmax` says which are allowed.

    Returns
    -------
    ndarray of int64, shape ``logits.shape[:-1]``, or ``(*logits.shape[:-1], size)``
        In the order drawn. A NumPy scalar for one row of logits without `size`. `temperature`,
        `top_k`, `top_p`, `min_p`, `seed` and `position` may have one value a row (they broadcast to
        ``logits.shape[:-1]``).

    Raises
    ------
    ValueError
        A parameter out of range or NaN, a `mask` whose shape does not fit, `rng` beside `seed` or
        in a race, or a row that cannot be drawn from, or not `size` times without replacement (it
        is named), or of which `accept` takes nothing.
    TypeError
        A dtype without probabilities, a masked array, a parameter that is no number, a `top_k`,
        `min_keep`, `size`, `seed` or `position` that is no integer (in a race, or None), a
        `replace` that is no bool, a `mask` of another dtype.
    IndexError
        A `mask_rows` that is not from 0 to the number of rows - 1.

    Notes
    -----
    The index drawn is the first, walking the survivors in index order, whose cumulative weight
    exceeds ``u * total``, u the uniform number of the draw; without replacement, what was drawn is
    no survivor any more. Weights and sums are float64 for every dtype, so that implementations draw
    the same index unless u is within rounding (some 2**-52) of where two indices meet; an entry of
    weight zero is never drawn. `top_p` counts as reached at ``top_p * (1 - 4 eps)``, eps of the
    dtype that is computed in.
    What a mask shuts in whole words of 32 ids is not read, and where few ids are allowed, little
    more than they is. ``mask=bitmask[indices], mask_rows=indices`` does what xgrammar's
    ``apply_token_bitmask_inplace(logits, bitmask, indices=indices)`` does: its bitmask has a row
    for every row of logits.
    A row of which `accept` refuses an id is drawn from again, 8 times as many each time. From `rng`
    come first a uniform for each row, then, row by row, those for more; by `seed`, those of the
    positions behind it, as for `size`: a position is enough for four tries.
    Nothing sorts the vocabulary. At T = inf all that `top_k` leaves (and that is not -inf) is
    equally likely: the index decides in `top_p`.

    In a race the index with the largest ``logits / T + g`` wins, the lower one among equals; g is a
    Gumbel number of `seed`, `position` and the index alone, of 64 random bits. So the index drawn
    stays when logits change a little or others are filtered out, and winners of parts of a
    vocabulary need only be compared. Draws with replacement have numbers of their own, each, and
    are independent at any two positions; the first of them is the one that `size` None draws, and
    so is the first of those without replacement, which are the largest scores of that one race, in
    order. These end at what is -inf, not at weights that are 0 in float64. The scores are float64,
    the same bits in every implementation: so are the indices, but for filters within rounding.

    Cost: one read of the row with `top_k`; one exponential an entry without. A nucleus (`top_p`
    without `top_k`) of more than some hundred entries takes up to four times as long as a smaller
    one, whatever its size. Further draws look at the survivors alone: with replacement each is a
    bisection, without it a walk over at most 2048 of them and over the sums of the others by 2048.
    A race without filters takes one read and no exponential of an entry: of tens of thousands, a
    half to a third of the time; of a few, twice the time. With filters it takes a fifth longer.
    Each further draw with replacement is a race of its own, some 10 ns for each 128 entries.

    References
    ----------
    .. [1] A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The Curious Case of Neural Text
       Degeneration", ICLR 2020, https://arxiv.org/abs/1904.09751 (top-p)
    .. [2] N. N. Minh et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM
       Outputs", ICLR 2025, https://arxiv.org/abs/2407.01082
    .. [3] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
       1, 2, 3", SC 2011, https://doi.org/10.1145/2063384.2063405 (Philox)
    .. [4] W. Kool, H. van Hoof, M. Welling, "Stochastic Beams and Where to Find Them", ICML 2019,
       https://arxiv.org/abs/1903.06059 (the race, and without replacement)

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import sample
    >>> logits = np.array([[0.0, 1.0, 2.0], [3.0, 3.0, -np.inf]])
    >>> sample(logits, top_k=2, rng=0)
    array([2, 0])
    >>> sample(logits, temperature=0)
    array([2, 0])
    >>> sample(logits, seed=[3, 4], position=17)  # request 3 and request 4, token 17
    array([2, 0])
    >>> sample(logits, seed=[3, 4], position=17, method="race")
    array([2, 1])
    >>> sample(logits, mask=[True, False, True], temperature=0)
    array([2, 0])
    >>> sample(logits, mask=np.array([[0b011]], np.int32), mask_rows=[1], temperature=0)
    array([2, 0])
    >>> sample(logits, accept=lambda row, id: id != 2, rng=0)
    array([0, 0])
    >>> sample(logits, size=4, rng=0)
    array([[2, 1, 0, 0],
           [1, 1, 1, 1]])
    >>> sample(logits, size=2, replace=False, rng=0)
    array([[2, 1],
           [0, 1]])
    """
