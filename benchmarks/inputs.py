"""The arrays that cells are measured on: rows of several kinds, masks, targets, gradients."""

import numpy as np

from benchmarks.errors import ordinary


def dtype_of(name):
    """The NumPy dtype called `name`; bfloat16 is that of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def has_dtype(name):
    """Whether there is a dtype called `name` here: bfloat16 needs ml_dtypes."""
    try:
        return dtype_of(name) is not None
    except ImportError:
        return False


def make_rows(kind, shape, dtype="float32"):
    """Rows of the kind that a `Run` names; of integers, their whole range."""
    dtype = dtype_of(dtype)
    if kind == "real":
        from fastsoftmax._command import demo

        return demo.load().logits[tuple(slice(n) for n in shape)].astype(dtype)
    rng = np.random.default_rng(1)
    if kind.startswith("deviation "):
        return (float(kind.split()[1]) * rng.standard_normal(shape, "float32")).astype(dtype)
    if dtype.kind == "i":
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    rows = ordinary(shape, dtype, seed=1)
    n = shape[-1]
    if kind == "zipf":  # probabilities as 1 / id, as if ids went by frequency
        return np.broadcast_to(-np.log(np.arange(1, n + 1)), shape).astype(dtype)
    if kind == "ascending":
        rows.sort(axis=-1)
    elif kind == "descending":
        rows = np.sort(rows, axis=-1)[..., ::-1].copy()
    elif kind == "organ pipe":
        rows.sort(axis=-1)
        rows = np.concatenate([rows[..., ::2], rows[..., 1::2][..., ::-1]], axis=-1)
    elif kind == "few values":
        rows = (rows.round() % 4).astype(dtype)
    elif kind in ("constant", "all -inf"):
        rows = np.full((*shape[:-1], n), 1.5 if kind == "constant" else -np.inf, dtype)
    elif kind != "random":
        raise ValueError(f"no rows are called {kind!r}")
    return rows


def mask(kind, x):
    """The entries that count: a "random" half of `x`, or what is not ahead, "causal"."""
    if kind == "causal":
        return np.tril(np.ones(x.shape[-2:], bool))
    return np.random.default_rng(3).random(x.shape) < 0.5


def allowed(amount, x):
    """A mask of ids for `x`: a share of them below 1, else so many in each row."""
    rng = np.random.default_rng(6)
    if amount < 1:
        return rng.random(x.shape) < amount
    mask = np.zeros(x.shape, bool)
    np.put_along_axis(mask, rng.random(x.shape).argsort(-1)[..., :amount], True, -1)
    return mask


def packed(mask):
    """A mask as words of 32 bits."""
    room = [(0, 0)] * (mask.ndim - 1) + [(0, -mask.shape[-1] % 32)]
    return np.packbits(np.pad(mask, room), axis=-1, bitorder="little").view(np.int32)


def targets(x, axis=-1):
    """A class, or a token, for each row."""
    rows = tuple(np.delete(x.shape, axis))
    return np.random.default_rng(2).integers(x.shape[axis], size=rows)


def probabilities(x):
    """Probabilities of the shape of `x`, of its dtype: soft targets, or what softmax gave."""
    e = np.exp(np.random.default_rng(4).standard_normal(x.shape, x.dtype))
    return e / e.sum(axis=-1, keepdims=True)


def gradient(x):
    """A gradient of the shape of `x`."""
    return np.random.default_rng(5).standard_normal(x.shape, x.dtype)


def drafts(x, top_p):
    """Drafted ids for logits of shape (requests, K + 1, n), and the logits they were drawn from.

    These are the target's with noise: some two of three drafts are accepted.
    """
    from fastsoftmax import sample

    y = x[:, :-1] + 0.3 * np.random.default_rng(6).standard_normal(x[:, :-1].shape, "float32")
    return sample(y, top_p=top_p, rng=0), y


def scores(x):
    """A score for each beam."""
    return -5 * np.random.default_rng(7).random(x.shape[:-1])


def tokens(x, count, text=False):
    """So many tokens for each row of `x`, as what has been said already; as in a text, Zipf's."""
    rng = np.random.default_rng(4)
    if text:
        return rng.zipf(1.2, (len(x), count)) % x.shape[-1]
    return rng.integers(0, x.shape[-1], (len(x), count))


def chains(x, kinds):
    """The parameters of each row of `x`, which are of these kinds in turns."""
    return [kinds[i % len(kinds)] for i in range(len(x))]
