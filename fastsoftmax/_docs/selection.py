"""Signatures and docstrings of top_k and rank."""

from typing import Any


def top_k(
    x: Any,
    k: int,
    *,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    workers: Any = None,
) -> Any:
    """Return the `k` largest (or smallest) entries along an axis, and their indices.

    Parameters
    ----------
    x : array_like
        float16, bfloat16, float32, float64, integers or bools. Any strides.
    k : int
        How many, from 0 to the length of the axis.
    axis : int, default -1
        The axis to select along.
    mode : {"largest", "smallest"}
        Which end of the order.
    sorted : bool, default True
        True: best first. False: in index order.
    workers : int, optional
        How many threads may share the work; None is what `set_workers` has set. `softmax` says
        which numbers are allowed.

    Returns
    -------
    TopK
        Named tuple of ``values``, in the dtype of `x`, and ``indices`` (int64), both with length
        `k` along `axis`.

    Raises
    ------
    ValueError
        `k` out of range, an unknown `mode`, `workers` out of range.
    TypeError
        A dtype without an order or a masked array; a `k`, `axis` or `workers` that is no integer; a
        `sorted` that is no bool.
    numpy.exceptions.AxisError
        `axis` out of range.

    Notes
    -----
    Among equal entries the lower index wins, both in what is selected and in the order; +0 and -0
    are equal. NaN comes last in both modes. The result is exact.

    Cost: one read of the row for k up to a sixteenth of it (block maxima give a lower bound of the
    k-th entry), and another of what is near the candidates; a dozen reads above. No order of the
    input takes much longer. What is sorted is the `k` and half as many others at most.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import top_k
    >>> top_k(np.array([3, 9, 4, 9]), 3)
    TopK(values=array([9, 9, 4]), indices=array([1, 3, 2]))
    >>> top_k([0.5, 0.25, 2.0], k=2, mode="smallest").indices
    array([1, 0])
    """


def rank(logits: Any, ids: Any) -> Any:
    """Return how many entries come before each given token in the order of `top_k`.

    Parameters
    ----------
    logits : array_like, shape (..., n)
        float16, bfloat16, float32, float64, integers or bools. Any strides.
    ids : array_like of int, shape (...) or (..., m)
        One token for each row of logits, or m of them.

    Returns
    -------
    ndarray of int64, shape of `ids`
        0 for the token that comes first.

    Raises
    ------
    IndexError
        An id that is not from 0 to n - 1 (it is named).
    ValueError
        An `ids` whose shape does not fit.
    TypeError
        A dtype without an order or a masked array, ids that are no integers (bools are none).

    Notes
    -----
    Before a token come the larger entries, and the equal ones of lower index; NaN comes last. So
    ``top_k(logits, n).indices[..., rank(logits, ids)]`` is `ids`.

    Cost: one read of the row for any number of ids, and for each a look at the pieces of 256 that
    hold what comes before it; nothing of the row's size is allocated.

    Examples
    --------
    >>> from fastsoftmax import rank
    >>> rank([0.5, 2.0, 1.0, 2.0], [0, 1, 2, 3])
    array([3, 0, 2, 1])
    """
