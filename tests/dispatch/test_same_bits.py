"""A row's bits depend on no other row, nor on its place, strides, alignment, threads or `out`."""

from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import fastsoftmax
from fastsoftmax import _docs
from tests import modules
from tests.arrays import dtype_of
from tests.calls import CALLS, FILTERS, arrays, classes, codes, even, other
from tests.modules import public_names

DRAW = {"seed": 5, "position": 2, "on_invalid": "flag"}

#: Calls in which the row alone decides: no stream of uniforms, no mask that goes on over rows, no
#: number for all rows.
ROWS = {
    name: call
    for name, call in CALLS.items()
    if not (name.endswith(("where", "mask")) or name.startswith("calibration."))
} | {
    "softmax where": lambda f, x: f.softmax(x, where=columns_mask(x)),
    "log_softmax where": lambda f, x: f.log_softmax(x, where=columns_mask(x), temperature=2),
    "logsumexp where": lambda f, x: f.logsumexp(x, where=columns_mask(x)),
    "logsumexp weights": lambda f, x: f.logsumexp(
        x, b=np.where(columns_mask(x), 1.5, -0.25), return_sign=True
    ),
    "scipy.logsumexp weights": lambda f, x: modules.of(f).scipy.logsumexp(
        x, -1, np.where(columns_mask(x), 1.5, -0.25)
    ),
    "Sampler": lambda f, x: modules.sampled(f, x, **DRAW),
    "quantized.sample": lambda f, x: modules.of(f).quantized.sample(
        codes(x), 0.1, **FILTERS, **DRAW
    ),
    "entropy where": lambda f, x: f.entropy(x, where=columns_mask(x), temperature=2),
    "kl_divergence where": lambda f, x: f.kl_divergence(other(x), x, where=columns_mask(x)),
    "sample": lambda f, x: f.sample(x, **DRAW),
    "sample many": lambda f, x: f.sample(x, size=4, **DRAW),
    "sample without": lambda f, x: f.sample(x, size=2, replace=False, **DRAW),
    "sample_with_logprobs": lambda f, x: f.sample_with_logprobs(x, **FILTERS, **DRAW),
    "sample accept": lambda f, x: f.sample(x, accept=even, **DRAW),
    "sample mask": lambda f, x: f.sample(x, mask=columns_mask(x), **DRAW),
    "support mask": lambda f, x: f.support(x, min_p=0.01, mask=columns_mask(x)),
    "filter_logits mask": lambda f, x: f.filter_logits(x, top_p=0.9, mask=columns_mask(x)),
    "top_logprobs mask": lambda f, x: f.top_logprobs(
        x, min(3, x.shape[-1]), mask=columns_mask(x)
    ),
}

#: Calls that write into an array of the shape of x, and which of their results it is.
WITH_OUT = {
    "softmax": lambda f, x, out: f.softmax(x, temperature=0.7, out=out),
    "log_softmax": lambda f, x, out: f.log_softmax(x, out=out),
    "softmax columns": lambda f, x, out: f.softmax(x, 0, out=out),
    "filter_logits": lambda f, x, out: f.filter_logits(x, **FILTERS, out=out),
    "cross_entropy_with_grad": lambda f, x, out: f.cross_entropy_with_grad(x, classes(x), out=out),
    "softmax_backward": lambda f, x, out: f.softmax_backward(x, other(x), out=out),
    "log_softmax_backward": lambda f, x, out: f.log_softmax_backward(x, other(x), out=out),
}


def columns_mask(x):
    """Return a mask that is the same in each row."""
    return np.broadcast_to(np.arange(x.shape[-1]) % 3 != 1, x.shape)


def row_of(name, result, place):
    """Return the bytes of a row's part of a result; what `support` pads with is no part of it."""
    parts = [np.moveaxis(a, -1, 0) if "columns" in name else a for a in arrays(result)]
    parts = [a[place] for a in parts]
    if name.startswith("support"):
        indices, probs, count = parts
        parts = [indices[:count], probs[:count], count]
    return [np.asarray(a).tobytes() for a in parts]


# ---- where an array lies -------------------------------------------------------------------------


def laid_out(x, offset, steps, order):
    """Return x at `offset` bytes from a line, with an order of axes and steps along them."""
    backwards = tuple(slice(None, None, 1 if s > 0 else -1) for s in steps)
    x = x[backwards].transpose(order)
    steps = [abs(steps[a]) for a in order]
    shape = [n * s for n, s in zip(x.shape, steps, strict=True)]
    memory = np.full(int(np.prod(shape)) * x.itemsize + 128, 0x3C, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    whole = memory[start : start + int(np.prod(shape)) * x.itemsize].view(x.dtype).reshape(shape)
    view = whole[tuple(slice(None, None, s) for s in steps)]
    view[...] = x
    return view.transpose(np.argsort(order))[backwards]


@st.composite
def batches(draw):
    """Draw rows of one type and length, and functions that lay them out in another way each."""
    dtype = dtype_of(draw(st.sampled_from(["float32", "float64", "float16", "bfloat16"])))
    n = draw(st.integers(2, 70) | st.sampled_from([127, 128, 300, 1000, 1025, 4100]))
    m = draw(st.integers(1, 6) | st.just(40))
    seed = draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((m, n)) * draw(st.sampled_from([0.1, 3, 30]))).astype(dtype)
    if draw(st.booleans()):
        x[rng.random((m, n)) < 0.3] = -np.inf
        x[:, 0] = 1
    if draw(st.booleans()):
        x = x.astype(np.float32).round().astype(dtype)
    step = st.sampled_from([1, 1, 2, 3, -1, -2])
    offset = draw(st.sampled_from([0, 0, x.itemsize, 32, 64 - x.itemsize, 1, 33]))
    steps, order = (draw(step), draw(step)), draw(st.permutations([0, 1]))
    return x, lambda a: laid_out(a, offset, steps, order)


def check_rows(impl, name, x, lay, place, workers):
    """Check that row `place` of `x` gives, in this batch and layout, what it gives alone."""
    columns = "columns" in name

    def result(rows):
        rows = rows.T if columns else rows
        return ROWS[name](impl, rows)

    alone = row_of(name, result(laid_out(x[place : place + 1], 0, (1, 1), (0, 1))), 0)
    with fastsoftmax.set_workers(workers):
        together = row_of(name, result(lay(x)), place)
    assert together == alone


def check_out(impl, name, x, lay, way):
    """Check that what is written into `out` is what comes back without it."""
    want = arrays(WITH_OUT[name](impl, x.copy(), None))[-1]
    if way == "in place":
        given = out = lay(x)
    elif way == "overlap":  # a row lower than x
        memory = np.zeros((len(x) + 1, x.shape[1]), x.dtype)
        given, out = memory[:-1], memory[1:]
        given[...] = x
    else:
        given, out = x, lay(np.zeros_like(x))
    arrays(WITH_OUT[name](impl, given, out))
    assert out.tobytes() == want.tobytes()


#: There are many functions.
few = hypothesis.settings(max_examples=hypothesis.settings().max_examples // 4)

# ---- tests ---------------------------------------------------------------------------------------


def test_no_function_is_forgotten():
    names = {name for name in public_names() if not name.startswith("calibration.")}
    assert names == {name.split()[0] for name in ROWS} - {"parts"}
    takes_out = {n for n, f in vars(_docs).items() if "out" in getattr(f, "__annotations__", {})}
    assert takes_out <= {name.split()[0] for name in WITH_OUT}


@pytest.mark.best_alone
@pytest.mark.parametrize("name", ROWS)
@few
@hypothesis.given(batch=batches(), data=st.data())
def test_rows(compiled, divided, name, batch, data):
    x, lay = batch
    place = data.draw(st.integers(0, len(x) - 1), "place")
    workers = data.draw(st.sampled_from([1, 2, 3, len(x) + 1]), "workers")
    check_rows(compiled, name, x, lay, place, workers)


@pytest.mark.parametrize("name", WITH_OUT)
@few
@hypothesis.given(batch=batches(), way=st.sampled_from(["out", "in place", "overlap"]))
def test_out(compiled, name, batch, way):
    check_out(compiled, name, *batch, way)


# ---- what the tests would miss, they must not ----------------------------------------------------


def one_ulp(y, where):
    """Return y with its first number one ulp larger, where a condition holds."""
    y = y.copy()
    if where:
        y[:1, :1] = np.nextafter(y[:1, :1], 2).astype(y.dtype)
    return y


PLANTED = {
    "batch": lambda x: len(x) > 1,
    "alignment": lambda x: x.ctypes.data % 64 != 0,
    "stride": lambda x: x.strides[-1] != x.itemsize,
    "threads": lambda x: fastsoftmax.get_workers() == 3,
}


@pytest.mark.parametrize("condition", PLANTED)
def test_a_planted_fault_is_seen(compiled, condition):
    fault = PLANTED[condition]
    planted = SimpleNamespace(softmax=lambda x: one_ulp(compiled.softmax(x), fault(x)))
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)

    def lay(a):
        return laid_out(a, 4, (1, 2), (0, 1))

    check_rows(compiled, "softmax", x, lay, 0, 3)
    with pytest.raises(AssertionError):
        check_rows(planted, "softmax", x, lay, 0, 3)
