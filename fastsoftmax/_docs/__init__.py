"""The public functions as users see them: one stub each, with its signature and its docstring.

Every implementation takes its docstrings from here, the reference its signatures as well; a test
holds the compiled signatures against them. To add a function, write its stub and name it in
`FUNCTIONS`. May import nothing of the package; `_reference` and `_dispatch` import it.
"""

from .keywords import unknown_keyword
from .logprobs import sample_with_logprobs, token_logprobs, top_logprobs
from .losses import (
    cross_entropy,
    cross_entropy_with_grad,
    log_softmax_backward,
    softmax_backward,
)
from .sampling import filter_logits, sample, support
from .selection import rank, top_k
from .softmax import log_softmax, logsumexp, softmax
from .statistics import entropy, kl_divergence, logmeanexp, row_stats
from .verification import beam_step, verify

#: The stub of each public function of an implementation, by its name.
FUNCTIONS = {
    stub.__name__: stub
    for stub in (
        softmax,
        log_softmax,
        logsumexp,
        logmeanexp,
        entropy,
        kl_divergence,
        row_stats,
        top_k,
        rank,
        filter_logits,
        support,
        sample,
        sample_with_logprobs,
        token_logprobs,
        top_logprobs,
        verify,
        beam_step,
        cross_entropy,
        cross_entropy_with_grad,
        softmax_backward,
        log_softmax_backward,
    )
}


def keyword_text(function: str, keyword: str) -> str | None:
    """Return the text of the TypeError for a `keyword` that the public `function` does not have.

    None if there is no public function of that name. Compiled code calls this (``_keywords.h``).
    """
    from inspect import signature  # only for an error: importing it takes milliseconds

    stub = FUNCTIONS.get(function)
    return None if stub is None else unknown_keyword(function, keyword, signature(stub).parameters)
