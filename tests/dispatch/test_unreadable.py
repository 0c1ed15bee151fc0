"""What NumPy can make no array of: the error names the argument, and the way out."""

import re

import pytest


class Tensor:
    """As torch's of bfloat16, which NumPy can't read."""

    dtype = "torch.bfloat16"

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Got unsupported ScalarType BFloat16")


@pytest.mark.parametrize(
    ("name", "argument", "rest"),
    [
        ("softmax", "x", ()), ("logsumexp", "x", ()), ("top_k", "x", (2,)),
        ("rank", "logits", (0,)), ("sample", "logits", ()), ("support", "logits", ()),
        ("token_logprobs", "logits", (0,)),
        ("cross_entropy", "logits", (0,)), ("log_softmax_backward", "grad_output", ([0.0],)),
    ],
)  # fmt: skip
def test_what_numpy_cannot_read_is_named(impl, name, argument, rest):
    said = (
        f"{argument} is a Tensor; NumPy makes no array of it: Got unsupported ScalarType BFloat16; "
        f"its bits are {argument}.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(said)}$"):
        getattr(impl, name)(Tensor(), *rest)
