"""Calls whose work threads share."""

import numpy as np

CALLS = {
    "softmax": lambda f, x, **w: f.softmax(x, **w),
    "log_softmax": lambda f, x, **w: f.log_softmax(x, temperature=0.7, **w),
    "logsumexp": lambda f, x, **w: f.logsumexp(x, **w),
    "logsumexp weights": lambda f, x, **w: f.logsumexp(x, b=x, return_sign=True, **w),
    "logmeanexp": lambda f, x, **w: f.logmeanexp(x, **w),
    "entropy": lambda f, x, **w: f.entropy(x, temperature=0.7, **w),
    "kl_divergence": lambda f, x, **w: f.kl_divergence(x, x[..., ::-1], **w),
    "row_stats": lambda f, x, **w: f.row_stats(
        x, ("max", "entropy"), top=min(7, x.shape[-1]), ids=targets(x) if x.shape[-1] else None, **w
    ),
    "top_k": lambda f, x, **w: f.top_k(x, min(7, x.shape[-1]), **w),
    "cross_entropy": lambda f, x, **w: f.cross_entropy(x, targets(x), reduction="none", **w),
    "cross_entropy_with_grad": lambda f, x, **w: f.cross_entropy_with_grad(
        x, targets(x), weight=np.linspace(0, 2, x.shape[-1]), label_smoothing=0.1, **w
    ),
    "filter_logits": lambda f, x, **w: f.filter_logits(x, top_p=0.9, **w),
    "sample": lambda f, x, **w: f.sample(x, temperature=2.0, rng=1, on_invalid="flag", **w),
    "sample of few": lambda f, x, **w: f.sample(
        x, top_k=50, size=3, replace=False, seed=1, position=2, on_invalid="flag", **w
    ),
    "sample_with_logprobs": lambda f, x, **w: f.sample_with_logprobs(
        x, min_p=np.full(x.shape[:-1], 0.01), rng=1, on_invalid="flag", **w
    ),
    "verify": lambda f, x, **w: f.verify(
        np.full((*x.shape[:-1], 1), min(1, x.shape[-1]) - 1), np.stack([x, x], -2), top_p=0.9,
        seed=1, position=2, on_invalid="flag", **w,
    ),
    "beam_step": lambda f, x, **w: f.beam_step(
        np.stack([x, x[..., ::-1]], -2), np.zeros((*x.shape[:-1], 2)), min(4, x.shape[-1]),
        on_invalid="flag", **w,
    ),
}


def targets(x):
    return np.arange(x[..., 0].size).reshape(x.shape[:-1]) % x.shape[-1]


def bits(result):
    parts = result if isinstance(result, tuple) else (result,)
    parts = [part for part in parts if part is not None]
    return [(np.shape(part), part.dtype, part.tobytes()) for part in parts]
