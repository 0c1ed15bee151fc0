"""Every function beyond its first chunk of rows: parameters and results.

Work goes by chunks of a few million elements. A row's result is that of the row alone, with the
parameters of its own, wherever a chunk begins.
"""

import numpy as np
import pytest

from fastsoftmax import _docs
from tests.calls import arrays

#: Nine rows of three chunks or more.
SHAPE = (9, (1 << 19) + 3)


def of_row(x, low, high):
    """Return a number from `low` to `high` for each row, made of the row's first element."""
    return low + (high - low) * np.abs(np.sin(x[..., 0].astype(np.float64)))


def whole(x, low, high):
    return of_row(x, low, high).astype(np.int64)


def filters(x):
    return {"temperature": of_row(x, 0.5, 2), "top_k": whole(x, 2, 4000)}


#: Every parameter that may be one a row, one a row: each made of the row alone.
PER_ROW = {
    "softmax": lambda f, x: f.softmax(x, temperature=of_row(x, 0.5, 2)),
    "log_softmax": lambda f, x: f.log_softmax(x, temperature=of_row(x, 0.5, 2)),
    "rank": lambda f, x: f.rank(x, whole(x, 0, 99)),
    "filter_logits": lambda f, x: f.filter_logits(x, **filters(x)),
    "filter_logits min_p": lambda f, x: f.filter_logits(x, min_p=of_row(x, 0.01, 0.2)),
    "support": lambda f, x: f.support(x, **filters(x)).counts,
    "sample": lambda f, x: f.sample(
        x, temperature=of_row(x, 0.5, 2), seed=whole(x, 0, 9), position=whole(x, 0, 99)
    ),
    "sample top_p": lambda f, x: f.sample(x, top_p=of_row(x, 0.1, 1), seed=1, position=2, size=3),
    "sample_with_logprobs": lambda f, x: f.sample_with_logprobs(
        x, **filters(x), seed=whole(x, 0, 9), position=1
    ),
    "token_logprobs": lambda f, x: f.token_logprobs(
        x, whole(x, 0, 99), temperature=of_row(x, 0.5, 2)
    ),
    "top_logprobs": lambda f, x: f.top_logprobs(x, 3, temperature=of_row(x, 0.5, 2)),
    "cross_entropy": lambda f, x: f.cross_entropy(x, whole(x, 0, 99), reduction="none"),
    "cross_entropy_with_grad": lambda f, x: f.cross_entropy_with_grad(
        x, whole(x, 0, 99), reduction="none"
    ),
    "softmax_backward": lambda f, x: f.softmax_backward(
        x, np.abs(x), temperature=of_row(x, 0.5, 2)
    ),
    "log_softmax_backward": lambda f, x: f.log_softmax_backward(
        x, x, temperature=of_row(x, 0.5, 2)
    ),
    "verify": lambda f, x: f.verify(
        whole(x, 0, 99)[:, None], np.stack([x, x], 1), **filters(x), seed=whole(x, 0, 9), position=1
    ),
    "beam_step": lambda f, x: f.beam_step(
        x[:, None], of_row(x, -9, 0)[:, None], 3, length=whole(x, 1, 9)[:, None], length_penalty=1
    ),
    "top_k": lambda f, x: f.top_k(x, 3),
    "logsumexp": lambda f, x: f.logsumexp(x),
    "logsumexp weights": lambda f, x: f.logsumexp(x, b=np.sin(x), return_sign=True),
    "logmeanexp": lambda f, x: f.logmeanexp(x, where=x > -8),
    "entropy": lambda f, x: f.entropy(x, temperature=of_row(x, 0.5, 2)),
    "kl_divergence": lambda f, x: f.kl_divergence(x, -x, temperature=of_row(x, 0.5, 2)),
    "row_stats": lambda f, x: f.row_stats(
        x, top=3, ids=whole(x, 0, 99), temperature=of_row(x, 0.5, 2)
    ),
}


@pytest.fixture(scope="module")
def rows():
    """Few large numbers among equal ones: what is slow in `sample` or in `support` is not."""
    g = np.random.default_rng(0)
    few = g.standard_normal((SHAPE[0], 4096), dtype=np.float32)
    x = np.full(SHAPE, -9, np.float32)
    x[:, :4096] = few
    return x


def test_no_function_is_forgotten():
    assert {name.split()[0] for name in PER_ROW} == set(_docs.FUNCTIONS)


@pytest.mark.parametrize("name", PER_ROW)
def test_a_row_beyond_the_first_chunk(compiled, rows, name):
    call = PER_ROW[name]
    together = arrays(call(compiled, rows))
    for i in (1, 4, 8):
        alone = arrays(call(compiled, rows[i : i + 1]))
        for a, b in zip(together, alone, strict=True):
            assert np.asarray(a)[i].tobytes() == np.asarray(b)[0].tobytes(), i


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_column_beyond_the_first_block(compiled, name, dtype):
    """Columns have temperatures of their own, however they are divided; packed, if float16."""
    x = np.random.default_rng(1).standard_normal((40, 20_000)).astype(dtype)
    t = np.linspace(0.5, 2, x.shape[1])
    function = getattr(compiled, name)
    together = function(x, 0, temperature=t)
    for i in (0, 1, 999, 5000, 12_345, 19_999):
        assert together[:, i].tobytes() == function(x[:, i], temperature=t[i]).tobytes(), i
