"""Every function on more than 2**31 elements, in one row and in many: indices have 64 bits."""

import numpy as np
import pytest

from tests import modules
from tests.calls import arrays, codes
from tests.modules import public_names

pytestmark = pytest.mark.weekly

LENGTH = 2**31 + 33
LAST = LENGTH - 2  # where the large element of a row is
SHAPE = (2**17 + 5, 2**14 + 3)

#: Functions whose result of one row is small, as calls of a row of zeros with 30 at `LAST`, and
#: what they give. (`size`, `top_p` and `min_p` list the row: 41 bytes an element, 88 GB here.)
OF_A_ROW = {
    "logsumexp": (lambda f, x: f.logsumexp(x), [30.0]),
    "top_k": (lambda f, x: f.top_k(x, 2).indices, [LAST, 0]),
    "top_k smallest": (lambda f, x: f.top_k(x[::-1], 1, mode="smallest").indices, [0]),
    "rank": (lambda f, x: f.rank(x, [LAST, LAST + 1, 7]), [0, LAST + 1, 8]),
    "sample": (lambda f, x: f.sample(x, rng=0), [LAST]),
    "sample_with_logprobs": (lambda f, x: f.sample_with_logprobs(x, top_k=3, rng=0).ids, [LAST]),
    "support": (lambda f, x: f.support(x, top_k=2).indices, [LAST, 0]),
    "token_logprobs": (lambda f, x: f.token_logprobs(x, [LAST, 3]), [-2.009e-4, -30.0002]),
    "top_logprobs": (lambda f, x: f.top_logprobs(x, 2).indices, [LAST, 0]),
    "LogSumExp": (lambda f, x: modules.of(f).LogSumExp().update(x).result(), [30.0]),
    "RunningTopK": (
        lambda f, x: modules.of(f).RunningTopK(2).update(x).result().indices,
        [LAST, 0],
    ),
    "verify": (lambda f, x: f.verify([LAST], np.broadcast_to(x, (2, LENGTH)), rng=0).counts, 2),
    "beam_step": (lambda f, x: f.beam_step(x[None], [0], 2).ids, [LAST, 0]),
    "cross_entropy": (lambda f, x: f.cross_entropy(x[None], [LAST]), [2.009e-4]),
}


def outs(x):
    """Return an array of the shape of x whose rows are one and the same in memory."""
    row = np.empty(x.shape[1], x.dtype)
    return np.lib.stride_tricks.as_strided(row, x.shape, (0, row.itemsize))


def classes(x):
    return np.zeros(len(x), np.int64)


#: Each function as a call of many rows, all the same.
OF_ROWS = {
    "softmax": lambda f, x: f.softmax(x, out=outs(x)),
    "log_softmax": lambda f, x: f.log_softmax(x, out=outs(x)),
    "logsumexp": lambda f, x: f.logsumexp(x),
    "logmeanexp": lambda f, x: f.logmeanexp(x),
    "entropy": lambda f, x: f.entropy(x),
    "kl_divergence": lambda f, x: f.kl_divergence(x, x),
    "row_stats": lambda f, x: f.row_stats(x, top=3, ids=classes(x)),
    "LogSumExp": lambda f, x: modules.of(f).LogSumExp().update(x).result(),
    "scipy.logsumexp": lambda f, x: modules.of(f).scipy.logsumexp(x, -1),
    "quantized.top_k": lambda f, x: modules.of(f).quantized.top_k(codes(x), 3, 0.1),
    "quantized.sample": lambda f, x: modules.of(f).quantized.sample(
        codes(x), 0.1, seed=1, position=2
    ),
    "top_k": lambda f, x: f.top_k(x, 3),
    "rank": lambda f, x: f.rank(x, classes(x)),
    "filter_logits": lambda f, x: f.filter_logits(x, top_k=30, out=outs(x)),
    "support": lambda f, x: f.support(x, top_k=3),
    "sample": lambda f, x: f.sample(x, seed=1, position=2),
    "sample_with_logprobs": lambda f, x: f.sample_with_logprobs(x, top_k=9, seed=1, position=2),
    "token_logprobs": lambda f, x: f.token_logprobs(x, classes(x)),
    "top_logprobs": lambda f, x: f.top_logprobs(x, 3),
    "verify": lambda f, x: f.verify(
        np.zeros((len(x), 0), np.int64), x[:, None], seed=1, position=2
    ),
    "beam_step": lambda f, x: f.beam_step(x[:, None], np.zeros((len(x), 1)), 3),
    "cross_entropy": lambda f, x: f.cross_entropy(x, classes(x), reduction="none"),
    "cross_entropy_with_grad": lambda f, x: f.cross_entropy_with_grad(
        x, classes(x), reduction="none", out=outs(x)
    ),
    "softmax_backward": lambda f, x: f.softmax_backward(x, x, out=outs(x)),
    "log_softmax_backward": lambda f, x: f.log_softmax_backward(x, x, out=outs(x)),
}


@pytest.fixture(scope="module")
def row():
    """A row of zeros that nobody has written, which take no memory, but for one."""
    x = np.zeros(LENGTH, np.float32)
    x[LAST] = 30
    return x


#: What gives results of the size of the rows, and has no `out`: these would take 8 GB and more;
#: or calls what is here.
LEFT_OUT = (
    *("quantized.softmax", "quantized.log_softmax", "scipy.softmax", "scipy.log_softmax"),
    *("calibration.fit_temperature", "calibration.calibrate_sets", "calibration.prediction_sets"),
    *("RunningTopK", "Sampler"),
)


def test_no_function_is_forgotten():
    assert {name.split()[0] for name in OF_ROWS} == public_names() - set(LEFT_OUT)


@pytest.mark.parametrize("name", OF_A_ROW)
def test_a_row(compiled, row, name):
    call, want = OF_A_ROW[name]
    np.testing.assert_allclose(np.ravel(call(compiled, row)), want, rtol=1e-3)


@pytest.mark.parametrize("name", OF_ROWS)
def test_rows(compiled, name):
    row = np.random.default_rng(0).standard_normal((1, SHAPE[1]), dtype=np.float32)
    alone = arrays(OF_ROWS[name](compiled, row))
    row = codes(row) if name.startswith("quantized.") else row
    together = arrays(OF_ROWS[name](compiled, np.broadcast_to(row, SHAPE)))
    for a, b in zip(together, alone, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert len(a) == SHAPE[0]
        assert a[0].tobytes() == a[-1].tobytes() == b[0].tobytes()
        if a.strides[0]:
            assert (a == b).all()
