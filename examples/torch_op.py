"""fastsoftmax in torch: CPU tensors in and out without a copy, and softmax as an operator.

`as_numpy` and `as_tensor` share memory, bfloat16 too, by its 16-bit view. `softmax` is registered
with torch, so that autograd, `torch.compile` and `torch.export` know it, and writes to memory that
torch allocates::

    pip install fastsoftmax torch ml_dtypes
    python examples/torch_op.py
"""

import ml_dtypes
import numpy as np
import torch

import fastsoftmax


def as_numpy(tensor):
    """Return a CPU tensor's memory as an array."""
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # NumPy has no such type: its bits, seen as ml_dtypes' type
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def as_tensor(array):
    """Return an array's memory as a CPU tensor."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


@torch.library.custom_op("fastsoftmax::softmax", mutates_args=(), device_types="cpu")
def softmax(x: torch.Tensor, dim: int = -1, temperature: float = 1.0) -> torch.Tensor:
    """Return the probabilities along a dimension."""
    out = torch.empty_like(x)
    fastsoftmax.softmax(as_numpy(x), axis=dim, temperature=temperature, out=as_numpy(out))
    return out


@softmax.register_fake
def _(x, dim=-1, temperature=1.0):
    return torch.empty_like(x)


@torch.library.custom_op("fastsoftmax::softmax_backward", mutates_args=(), device_types="cpu")
def softmax_backward(
    gradient: torch.Tensor, probs: torch.Tensor, dim: int, temperature: float
) -> torch.Tensor:
    """Return the gradient by the scores."""
    out = torch.empty_like(probs)
    given = as_numpy(gradient), as_numpy(probs)
    fastsoftmax.softmax_backward(*given, dim, temperature=temperature, out=as_numpy(out))
    return out


@softmax_backward.register_fake
def _(gradient, probs, dim, temperature):
    return torch.empty_like(probs)


def _keep(ctx, inputs, output):
    _, ctx.dim, ctx.temperature = inputs
    ctx.save_for_backward(output)


def _backward(ctx, gradient):
    (probs,) = ctx.saved_tensors
    return softmax_backward(gradient, probs, ctx.dim, ctx.temperature), None, None


softmax.register_autograd(_backward, setup_context=_keep)


def main():
    """Hold the operator against torch's own."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        x = (torch.randn(8, 1000) * 3).to(dtype)
        ours, theirs = softmax(x, temperature=0.7), torch.softmax(x.double() / 0.7, -1)
        print(f"{dtype}: largest difference to float64 {(ours - theirs).abs().max():.1e}")
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    print("gradients:", torch.autograd.gradcheck(lambda x: softmax(x, 0, 0.5), x))
    print("opcheck:", torch.library.opcheck(softmax, (x, -1, 0.7)))


if __name__ == "__main__":
    main()
