"""Every public function as calls of one array: what is promised of all of them is tested of all."""

from functools import lru_cache, partial

import numpy as np

from tests import modules


def classes(x):
    """Return one class for each row of x."""
    return np.zeros(x.shape[:-1], np.int64)


def mask(x):
    """Return a mask for x in which every third entry is False."""
    return _mask(x.shape)


@lru_cache
def _mask(shape):
    allowed = np.ones(shape, bool)
    allowed.reshape(-1)[1::3] = False
    return allowed


def words(x):
    """Return that mask in words of 32 bits, as xgrammar and llguidance pack it."""
    return _words(x.shape)


@lru_cache
def _words(shape):
    bits = np.packbits(np.atleast_1d(_mask(shape)), axis=-1, bitorder="little")
    room = -bits.shape[-1] % 4
    bits = np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, room)])
    return bits.view("<i4").astype(np.int32)


def other(x):
    """Return probabilities of the shape and type of x, which are those of no x in particular."""
    return equal(x.shape, x.dtype.newbyteorder("=") if x.dtype.kind in "fV" else np.dtype("d"))


@lru_cache
def equal(shape, dtype):
    """Return probabilities; the same array again, whatever the floating-point environment is."""
    return np.full(shape, 1 / max(1, shape[-1] if shape else 1)).astype(dtype)


def signed(x):
    """Return weights of both signs, of the shape and type of x."""
    return _signed(x.shape, other(x).dtype)


@lru_cache
def _signed(shape, dtype):
    return np.where(_mask(shape), 1.5, -0.25).astype(dtype)


def few(x):
    """Return how many of a row of x to select: three, or all of fewer."""
    return min(3, x.shape[-1] if x.ndim else 1)


def blocks(x, rows):
    """Return a view of x with so many times the same row in place of each."""
    if isinstance(x, np.matrix):
        return x
    x = x if x.ndim else x.reshape(1)
    return np.broadcast_to(x[..., None, :], (*x.shape[:-1], rows, x.shape[-1]), subok=True)


def drafts(x):
    """Return two drafted ids for each row of x."""
    return np.zeros((*x.shape[:-1], 2), np.int64)


def running(x):
    """Return the scores of three beams for each row of x."""
    return _running(x.shape[:-1])


@lru_cache
def _running(shape):
    return np.full((*shape, 3), [-1.0, -0.5, -0.75])


def even(row, id_):
    """Take every other id."""
    return id_ % 2 == 0


def rows(x):
    """Return x with an axis at least, which scores of classes must have."""
    return x if x.ndim or isinstance(x, np.matrix) else x.reshape(1)


def pairs(x):
    """Return rows of x with two classes at least, of which there may be one twice."""
    x = rows(x)
    return np.repeat(x, 2, -1) if x.shape[-1] == 1 and not isinstance(x, np.matrix) else x


def labels(x):
    """Return a class for each row of x, from the first to the last again and again."""
    return np.arange(x[..., 0].size).reshape(x.shape[:-1]) % max(1, x.shape[-1])


#: Bits of a fraction, by the character of a dtype; those of bfloat16 otherwise.
FRACTION = {"e": 10, "f": 23, "d": 52, "h": 6}


def codes(x):
    """Return codes of 8 bits of the shape of x, in the layout that x has; no floats as they are.

    They are some bits of x: in any floating-point environment the same.
    """
    is_plain = isinstance(x, np.ndarray) and not isinstance(x, (np.ma.MaskedArray, np.matrix))
    if not is_plain or x.dtype.kind not in "fVi":
        return x
    native = np.asarray(x, x.dtype.newbyteorder("=") if x.dtype.kind != "V" else None)
    bits_of_x = native.copy().view(f"u{x.itemsize}") >> (FRACTION.get(x.dtype.char, 7) - 6)
    strides = [s // x.itemsize for s in x.strides]
    size = [(n - 1) * s for n, s in zip(x.shape, strides, strict=True)] if x.size else []
    memory = np.zeros(sum(map(abs, size)) + 1, np.uint8)
    start = -sum(s for s in size if s < 0)
    q = np.ndarray(x.shape, np.uint8, memory, start, strides) if x.size else np.zeros(x.shape, "B")
    q[...] = bits_of_x & 0xFF
    q.flags.writeable = x.flags.writeable
    return q.view(type(x))


def calibration(f, x):
    """Return the calibration of prediction sets for rows like those of x."""
    return modules.of(f).calibration(0.9, x.shape[-1], 1, 0.01, 0.7, True)


def mass_parts(f, x, any_pivot=False):
    """Return the sums of a row's first half, without its maximum, and the softmax of it by those.
    """
    first = rows(x)[..., : 1 + x.shape[-1] // 2 if x.ndim else 1]
    sums = f.parts.part_sums(first, -1, 0.7, None, any_pivot)
    whole = sums.copy()
    whole[..., 2:] = sums[..., 1:3]  # as a pair: kernels add it, in their own environment
    return sums, f.parts.part_result(first, whole, -1, 0.7, None, False)


def merged(make, x, **parameters):
    """Return what an accumulator of both halves of each row gives."""
    x = rows(x)
    half = x.shape[-1] // 2
    right = make().update(x[..., half:], **parameters)
    return make().update(x[..., :half]).merge(right).result()


SCALE = np.float32(0.1)
FILTERS = {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "min_p": 0.01}

#: The first word of a key is the function's name.
CALLS = {
    "softmax": lambda f, x: f.softmax(x),
    "softmax temperature": lambda f, x: f.softmax(x, temperature=0.7),
    "softmax where": lambda f, x: f.softmax(x, where=mask(x)),
    "softmax columns": lambda f, x: f.softmax(x, 0),
    "softmax lse": lambda f, x: f.softmax(x, temperature=0.7, return_lse=True),
    "log_softmax": lambda f, x: f.log_softmax(x),
    "log_softmax where": lambda f, x: f.log_softmax(x, where=mask(x), temperature=2),
    "log_softmax columns": lambda f, x: f.log_softmax(x, 0),
    "logsumexp": lambda f, x: f.logsumexp(x),
    "logsumexp where": lambda f, x: f.logsumexp(x, where=mask(x), keepdims=True),
    "logsumexp columns": lambda f, x: f.logsumexp(x, 0),
    "logsumexp weights": lambda f, x: f.logsumexp(x, b=signed(x), return_sign=True),
    "logmeanexp": lambda f, x: f.logmeanexp(x),
    "logmeanexp where": lambda f, x: f.logmeanexp(x, where=mask(x), keepdims=True),
    "entropy": lambda f, x: f.entropy(x),
    "entropy where": lambda f, x: f.entropy(x, where=mask(x), temperature=0.7),
    "entropy columns": lambda f, x: f.entropy(x, 0),
    "kl_divergence": lambda f, x: f.kl_divergence(x, other(x)),
    "kl_divergence where": lambda f, x: f.kl_divergence(other(x), x, where=mask(x)),
    "row_stats": lambda f, x: f.row_stats(x, top=few(x), ids=classes(x), temperature=0.7),
    "row_stats columns": lambda f, x: f.row_stats(x, axis=0),
    "top_k": lambda f, x: f.top_k(x, few(x)),
    "top_k smallest": lambda f, x: f.top_k(x, few(x), mode="smallest", sorted=False),
    "top_k columns": lambda f, x: f.top_k(x, min(2, x.shape[0] if x.ndim else 1), axis=0),
    "rank": lambda f, x: f.rank(x, classes(x)),
    "filter_logits": lambda f, x: f.filter_logits(x, **FILTERS),
    "filter_logits min_p": lambda f, x: f.filter_logits(x, min_p=0.1),
    "filter_logits mask": lambda f, x: f.filter_logits(x, top_p=0.9, mask=mask(x)),
    "support": lambda f, x: f.support(x, **FILTERS),
    "support mask": lambda f, x: f.support(x, min_p=0.01, mask=words(x)),
    "sample": lambda f, x: f.sample(x, rng=0, on_invalid="flag"),
    "sample filters": lambda f, x: f.sample(x, **FILTERS, seed=-1, position=3, on_invalid="flag"),
    "sample many": lambda f, x: f.sample(x, size=4, rng=0, on_invalid="flag"),
    "sample race": lambda f, x: f.sample(
        x, size=2, seed=7, position=3, method="race", on_invalid="flag"
    ),
    "sample race filters": lambda f, x: f.sample(
        x, **FILTERS, seed=7, position=3, method="race", on_invalid="flag"
    ),
    "sample accept": lambda f, x: f.sample(x, accept=even, rng=0, on_invalid="flag"),
    "sample mask": lambda f, x: f.sample(x, mask=words(x), rng=0, on_invalid="flag"),
    "sample_with_logprobs": lambda f, x: f.sample_with_logprobs(
        x, **FILTERS, rng=0, on_invalid="flag"
    ),
    "sample_with_logprobs mask": lambda f, x: f.sample_with_logprobs(
        x, **FILTERS, mask=mask(x), rng=0, on_invalid="flag"
    ),
    "token_logprobs": lambda f, x: f.token_logprobs(x, classes(x)),
    "token_logprobs mask": lambda f, x: f.token_logprobs(x, classes(x), mask=words(x)),
    "top_logprobs": lambda f, x: f.top_logprobs(x, few(x)),
    "top_logprobs mask": lambda f, x: f.top_logprobs(x, few(x), mask=mask(x)),
    "verify": lambda f, x: f.verify(
        drafts(x), blocks(x, 3), seed=3, position=4, on_invalid="flag"
    ),
    "verify filters": lambda f, x: f.verify(
        drafts(x), blocks(other(x), 3), blocks(x, 2), **FILTERS, seed=3, position=4,
        on_invalid="flag",
    ),
    "verify blocks": lambda f, x: f.verify(
        drafts(x), blocks(x, 3), blocks(other(x), 2), method="block", top_p=0.9, seed=3,
        position=4, on_invalid="flag",
    ),
    "verify mask": lambda f, x: f.verify(
        drafts(x), blocks(x, 3), blocks(other(x), 2), **FILTERS, mask=mask(blocks(x, 3)), seed=3,
        position=4, on_invalid="flag",
    ),
    "verify race": lambda f, x: f.verify(
        drafts(x), blocks(x, 3), method="race", top_p=0.9, seed=3, position=4, on_invalid="flag"
    ),
    "beam_step": lambda f, x: f.beam_step(
        blocks(x, 3), running(x), few(x), length=9, length_penalty=0.5, on_invalid="flag"
    ),
    "cross_entropy": lambda f, x: f.cross_entropy(x, classes(x), reduction="none"),
    "cross_entropy labels": lambda f, x: f.cross_entropy(
        x, other(x), reduction="none", label_smoothing=0.1
    ),
    "cross_entropy_with_grad": lambda f, x: f.cross_entropy_with_grad(
        x, classes(x), reduction="none", temperature=0.7
    ),
    "softmax_backward": lambda f, x: f.softmax_backward(x, other(x)),
    "softmax_backward probs": lambda f, x: f.softmax_backward(other(x), x),
    "log_softmax_backward": lambda f, x: f.log_softmax_backward(x, other(x), temperature=2),
    "log_softmax_backward columns": lambda f, x: f.log_softmax_backward(x, other(x), 0),
    "Sampler": lambda f, x: modules.sampled(f, rows(x), rng=0, on_invalid="flag"),
    "LogSumExp": lambda f, x: merged(modules.of(f).LogSumExp, x),
    "RunningTopK": lambda f, x: merged(partial(modules.of(f).RunningTopK, few(x)), x),
    "parts": mass_parts,
    "parts pivot": partial(mass_parts, any_pivot=True),
    "parts race": lambda f, x: f.parts.race_part(
        rows(x), first_id=128, highest=3.0, seed=7, position=3, temperature=0.7
    ),
    "quantized.softmax": lambda f, x: modules.of(f).quantized.softmax(codes(x), 0.1),
    "quantized.log_softmax": lambda f, x: modules.of(f).quantized.log_softmax(codes(x), 0.1),
    "quantized.softmax columns": lambda f, x: modules.of(f).quantized.softmax(
        codes(x), SCALE, axis=0, temperature=2
    ),
    "quantized.top_k": lambda f, x: modules.of(f).quantized.top_k(codes(x), few(x), 0.1, 99),
    "quantized.sample": lambda f, x: modules.of(f).quantized.sample(
        codes(x), 0.1, **FILTERS, rng=0
    ),
    "scipy.softmax": lambda f, x: modules.of(f).scipy.softmax(x, -1),
    "scipy.log_softmax": lambda f, x: modules.of(f).scipy.log_softmax(x, -1),
    "scipy.logsumexp": lambda f, x: modules.of(f).scipy.logsumexp(x, -1, return_sign=True),
    "scipy.logsumexp weights": lambda f, x: modules.of(f).scipy.logsumexp(x, -1, signed(x)),
    "calibration.fit_temperature": lambda f, x: np.array(
        modules.of(f).fit_temperature(pairs(x), labels(pairs(x)), bounds=(0.1, 10))[:3]
    ),
    "calibration.calibrate_sets": lambda f, x: np.array(
        modules.of(f).calibrate_sets(rows(x), labels(rows(x)), 0.6, rng=0)[:1]
    ),
    "calibration.prediction_sets": lambda f, x: modules.of(f).prediction_sets(
        rows(x), calibration(f, rows(x)), rng=0
    ),
}

#: Calls whose numbers are NumPy's in part: its bits, in the caller's floating-point environment.
NUMPYS = ("calibration.", "LogSumExp", "scipy.logsumexp weights", "quantized.top_k")
OWN = {name: call for name, call in CALLS.items() if not name.startswith(NUMPYS)}


def arrays(result):
    """Return the arrays of a result, which is one or a tuple of them, or of None."""
    return [a for a in result if a is not None] if isinstance(result, tuple) else [result]


def bits(result):
    """Return the dtype, shape and bytes of each array of a result."""
    return [(np.asarray(a).dtype, np.shape(a), np.asarray(a).tobytes()) for a in arrays(result)]
