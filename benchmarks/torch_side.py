"""PyTorch's side, held to the instruction set that fastsoftmax runs with."""

import os
from functools import partial

import numpy as np

from benchmarks import inputs, limits

#: What torch calls the instruction sets of the implementations that have less than AVX-512.
CAPABILITY = {"baseline": "default", "avx2": "avx2"}


def side():
    """Return version, operations, the reader of results and the dtypes."""
    if (ours := limits.implementation()) in CAPABILITY:  # read when torch is imported
        os.environ.setdefault("ATEN_CPU_CAPABILITY", CAPABILITY[ours])
    import torch

    from benchmarks import verifiers

    torch.set_num_threads(1)
    functional = torch.nn.functional

    def copied(x):
        # torch's own memory is better aligned than NumPy's.
        if x.dtype.name == "bfloat16":
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16).clone()
        return torch.from_numpy(x).clone()

    def tensor(x):
        with torch.inference_mode():  # its tensors skip autograd
            return copied(x)

    def family(function, x, axis=-1, temperature=None):
        x = tensor(x)
        if temperature:
            return lambda: function(x / temperature, axis)
        return partial(function, x, axis)

    def masked(function, x, mask):
        x, absent = tensor(x), tensor(~inputs.mask(mask, x))
        return lambda: function(x.masked_fill(absent, -torch.inf), -1)

    def softmax_axes(x, axes):
        x = tensor(x)  # axes are the last ones
        return lambda: torch.softmax(x.flatten(axes[0]), -1).view(x.shape)

    def softmax_out(x):
        return partial(torch.softmax, tensor(x), -1, out=torch.empty(x.shape))

    def labels(x, axis, soft):
        return torch.from_numpy(inputs.probabilities(x) if soft else inputs.targets(x, axis))

    def loss(x, axis=-1):
        return partial(functional.cross_entropy, tensor(x), labels(x, axis, False))

    def cross_entropy(x, axis=-1, soft=False, smoothing=0.0):
        logits, target = copied(x).requires_grad_(), labels(x, axis, soft)

        def call():
            logits.grad = None
            loss = functional.cross_entropy(logits, target, label_smoothing=smoothing)
            loss.backward()
            return loss.detach(), logits.grad

        return call

    def softmax_backward(x):
        grad, probs = tensor(inputs.gradient(x)), tensor(inputs.probabilities(x))
        return lambda: torch._softmax_backward_data(grad, probs, -1, probs.dtype)

    def top_logprobs(x, n):
        x = tensor(x)
        return lambda: torch.topk(torch.log_softmax(x, -1), n)

    def token_logprobs(x):
        x, ids = tensor(x), torch.from_numpy(inputs.targets(x))[..., None]
        return lambda: torch.log_softmax(x, -1).gather(-1, ids)[..., 0]

    def verify(x, certain, top_p):
        ids, y = inputs.drafts(x, top_p)
        draft = None if certain else tensor(y)
        return partial(verifiers.verify, torch.from_numpy(ids), tensor(x), draft, top_p)

    def beam_step(x, beams):
        return partial(verifiers.beam_step, tensor(x), tensor(inputs.scores(x)), beams)

    ops = {
        op: partial(family, getattr(torch, op)) for op in ("softmax", "log_softmax", "logsumexp")
    }
    ops |= {
        "softmax where": partial(masked, torch.softmax),
        "log_softmax where": partial(masked, torch.log_softmax),
        "softmax axes": softmax_axes,
        "softmax out": softmax_out,
        "loss": loss,
        "cross_entropy": cross_entropy,
        "softmax_backward": softmax_backward,
        "top_k": lambda x, k, axis=-1: partial(torch.topk, tensor(x), k, axis),
        "top_logprobs": top_logprobs,
        "token_logprobs": token_logprobs,
        "greedy": lambda x: partial(torch.argmax, tensor(x), -1),
        "verify": verify,
        "beam_step": beam_step,
    }
    version = f"{torch.__version__} (at {torch.backends.cpu.get_cpu_capability()})"
    return version, ops, _as_numpy, ("float32", "float64", "float16", "bfloat16", "int8")


def _as_numpy(result):
    return np.asarray(result.float() if result.dtype.itemsize == 2 else result)
