"""The oracle: every public function in plain Python on NumPy, one row at a time, in float64.

`softmax`, `selection`, `sampling`, `race`, `verification` and `losses` hold the formulas, `rows`
how an array is taken as rows and put together again. The compiled ones are tested against these
functions, and where nothing compiled can be loaded they are what runs. May import `_arguments` and
`_docs`: the checks of arguments, the signatures and the docstrings are shared, the arithmetic is
not. `quantized` is the kernel of `fastsoftmax.quantized` as one prints it on a page.
"""

from . import parts as parts
from .history import History as History
from .losses import (
    cross_entropy,
    cross_entropy_with_grad,
    log_softmax_backward,
    softmax_backward,
)
from .quantized import quantized as quantized
from .sampling import (
    filter_logits,
    sample,
    sample_with_logprobs,
    support,
    token_logprobs,
    top_logprobs,
)
from .selection import rank, top_k
from .softmax import log_softmax, logsumexp, softmax
from .statistics import entropy, kl_divergence, logmeanexp, row_stats
from .statistics import exp_digits as exp_digits
from .verification import beam_step, verify

NAME = "reference"

__all__ = [
    "beam_step",
    "cross_entropy",
    "cross_entropy_with_grad",
    "entropy",
    "filter_logits",
    "kl_divergence",
    "log_softmax",
    "log_softmax_backward",
    "logmeanexp",
    "logsumexp",
    "rank",
    "row_stats",
    "sample",
    "sample_with_logprobs",
    "softmax",
    "softmax_backward",
    "support",
    "token_logprobs",
    "top_k",
    "top_logprobs",
    "verify",
]
