"""What fuzzing found, or writing it: a test for each kind, over all functions it may befall."""


import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import Sampler, set_workers, show_config, steps

from .world import Bad, array, over, spoils

X = np.array([[0.5, 2.0, 1.0], [1.0, -1.0, 0.0]], dtype=np.float32)


def written(f, x):
    """Return each function that writes to `out`, called on `x`, as one of `out`."""
    ids = np.zeros(x.shape[:-1], np.int64)
    p = np.full(x.shape, 1 / x.shape[-1]).astype(x.dtype)
    return {
        "softmax": lambda out: f.softmax(x, out=out),
        "softmax where": lambda out: f.softmax(x, where=np.arange(x.shape[-1]) > 0, out=out),
        "softmax columns": lambda out: f.softmax(x, 0, out=out),
        "log_softmax": lambda out: f.log_softmax(x, temperature=0.01, out=out),
        "filter_logits": lambda out: f.filter_logits(x, top_k=4, temperature=0.1, out=out),
        "gradient": lambda out: f.cross_entropy_with_grad(x, ids, out=out).grad,
        "gradient weighed": lambda out: (
            f.cross_entropy_with_grad(x, ids, weight=np.ones(x.shape[-1]), out=out).grad
        ),
        "softmax_backward": lambda out: f.softmax_backward(x, p, out=out),
        "log_softmax_backward": lambda out: f.log_softmax_backward(x, -p, out=out),
    }


NAMES = list(written(fastsoftmax, X))


# ---- more than memory has ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sample", "sample_with_logprobs"])
@pytest.mark.parametrize("size", [2**51, 2**52, 2**59, 2**62, 2**63, 10**30])
@pytest.mark.parametrize("source", [{"seed": 1, "position": 2}, {"rng": 0}, {}])
def test_more_draws_than_memory_has(impl, name, size, source):
    """4096 * 2**52 is 0 in 64 bits: it was written behind an empty array."""
    for rows in (4096, 2048, 3, 0):
        if rows == 0 and size < 2**60:
            continue
        with pytest.raises(MemoryError) as caught:
            getattr(impl, name)(np.zeros((rows, 3), np.float32), size=size, **source)
        if max(rows, 1) * size * 8 >= 2**63:
            assert str(caught.value).startswith("size is ")


def test_more_rows_than_memory_has_losses(compiled):
    """(2**61 + 1) * 8 is 8 in 64 bits."""
    rows = 2**61
    x = np.broadcast_to(np.int8(1), (rows, 1))
    labels = np.broadcast_to(np.float16(1), (rows, 1))
    with pytest.raises(MemoryError):
        compiled.cross_entropy(x, labels)


def test_more_rows_than_memory_has_temperatures(compiled):
    x = np.broadcast_to(np.float16(1), (2**61, 1))
    each = np.broadcast_to(np.float16(1), (2**61,))
    for call in (compiled.top_logprobs, lambda x, n, **t: compiled.softmax(x, **t)):
        with pytest.raises((MemoryError, ValueError)):
            call(x, 0, temperature=each)


# ---- out -----------------------------------------------------------------------------------------


@pytest.mark.slow_reference
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["f2", "f4", "bfloat16"])
@pytest.mark.parametrize("wide", ["f4", "f8", "f2"])
def test_what_overlaps_is_as_exact_as_what_does_not(impl, name, dtype, wide):
    """It was computed in the type of the logits, and then copied to the wider `out`."""
    if not np.can_cast(array((1,), dtype).dtype, wide, "same_kind"):
        pytest.skip("NumPy does not cast float16 and bfloat16 into each other")
    x = array((6, 5), dtype, "normal", 3)
    apart = np.zeros(x.shape, wide)
    written(impl, x)[name](apart)
    for shift in (0, 8, -8):
        x = array((6, 5), dtype, "normal", 3)
        out = over(x, shift, wide, x.shape, "F")
        written(impl, x)[name](out)
        np.testing.assert_array_equal(out, apart)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_narrower_out_cannot_hold_is_no_error(impl, name):
    """NumPy warns, or raises where the caller asks it to, with half of `out` written."""
    x = np.array([[3e5, 1e-30, 0, -1e5], [1e30, 2.0, 1.0, 0.0]])
    apart = np.zeros(x.shape, np.float16)
    with np.errstate(all="raise"):
        written(impl, x)[name](apart)
        shared = x.copy()
        out = shared.view(np.float16).reshape(-1)[4 : 4 + x.size].reshape(x.shape)
        written(impl, shared)[name](out)
    np.testing.assert_array_equal(out, apart)


def test_a_nan_that_signals_is_a_nan(impl):
    """NumPy warns of an invalid value where it converts one."""
    for dtype in ("f2", "bfloat16", "f4", "f8"):
        x = array((4, 6), dtype, "signaling", 1)
        ids = np.zeros(4, np.int64)
        with np.errstate(all="raise"):
            results = [
                impl.softmax(x), impl.log_softmax(x, 0), impl.logsumexp(x),
                impl.filter_logits(x, top_k=2), impl.token_logprobs(x, ids),
                impl.cross_entropy(x, ids), impl.cross_entropy(x, x),
                impl.softmax_backward(x, x), impl.log_softmax_backward(x, x),
            ]  # fmt: skip
            assert (impl.sample(x, on_invalid="flag") == -1).all()
            impl.top_k(x, 6)
            impl.rank(x, ids)
            for function in (impl.sample, Sampler()):
                with pytest.raises(ValueError, match="logits has NaN in row"):
                    function(x)
            with pytest.raises(ValueError, match=r"weight\[0\] is nan"):
                impl.cross_entropy(x, ids, weight=array((6,), dtype, "signaling", 1))
        assert all(np.isnan(np.asarray(r, np.float64)).any() for r in results)


# ---- integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "targets",
    [[True, 2], [0, True], (np.True_, 1), [True, False], [[True, 0, 0], [0, 1, 0]],
     [[0.5, 0.5, True], [0, 1, 0]], np.array([True, False])],
)  # fmt: skip
def test_bools_are_no_targets(impl, targets):
    for function in (impl.cross_entropy, impl.cross_entropy_with_grad):
        with pytest.raises(TypeError, match="targets has dtype bool; allowed are integers"):
            function(X, targets)


HUGE = r"(-?\d+|an integer of 400 digits)"


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**63) - 1, 10**400])
def test_integers_beyond_64_bits_are_out_of_range(impl, value):
    for function in (impl.cross_entropy, impl.cross_entropy_with_grad):
        for other in (0, -1):
            with pytest.raises(IndexError, match=rf"^targets\[0\] is {HUGE};"):
                function(X, [value, other])
    for function in (impl.rank, impl.token_logprobs):
        for other in (0, -1):
            with pytest.raises(IndexError, match=rf"^ids has {HUGE};"):
                function(X, [value, other])


def test_an_empty_list_of_targets(impl):
    assert impl.cross_entropy(X[:0], [], reduction="none").shape == (0,)


@pytest.mark.parametrize("dtype", ["c8", "f4", "S3", "?"])
def test_no_ids_of_any_type(impl, dtype):
    """Casting no complex numbers to integers warned all the same."""
    for function in (impl.rank, impl.token_logprobs):
        if dtype == "?":
            with pytest.raises(TypeError, match="ids has dtype bool"):
                function(X[:0], np.zeros(0, dtype))
        else:
            assert function(X[:0], np.zeros(0, dtype)).shape == (0,)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 4), (2, 4, 0), (2, 4)])
@pytest.mark.parametrize("value", [np.array(np.nan), np.array([-1.0]), [np.nan], np.float32(-1)])
def test_temperatures_of_nothing_are_checked(impl, shape, value):
    x = np.zeros(shape, np.float32)
    ids = np.zeros((*shape[:-1], 0), np.int64)
    for call in (
        lambda t: impl.softmax(x, temperature=t),
        lambda t: impl.log_softmax(x, 0, temperature=t),
        lambda t: impl.token_logprobs(x, ids, temperature=t),
        lambda t: impl.top_logprobs(x, 0, temperature=t),
        lambda t: impl.softmax_backward(x, x, temperature=t),
        lambda t: impl.log_softmax_backward(x, x, temperature=t),
        lambda t: impl.filter_logits(x, temperature=t),
        lambda t: impl.support(x, temperature=t),
        lambda t: impl.sample(x, temperature=t, on_invalid="flag"),
    ):
        with pytest.raises(ValueError, match=r"temperature is (nan|-1)"):
            call(value)


# ---- arrays of no axes ---------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [(), -1, 0, None, (0,)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_logsumexp_of_a_number(impl, axis, keepdims):
    """With the axes () it had one axis."""
    result = impl.logsumexp(np.float32(3), axis, keepdims=keepdims)
    assert type(result) is np.float32
    assert result == 3


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("farther", [0, 200])
def test_weights_below_the_normal_numbers(impl, dtype, farther):
    """What counts as 0 is the same in every implementation: exp below -1022.5 log(2)."""
    x = np.array([0, -700, -708, -708.7, -708.8, -720, -745] + [-np.inf] * farther, dtype)
    assert impl.support(x).indices.tolist() == [0, 1, 2, 3]
    assert impl.sample(x[1:], size=4, replace=False, rng=0).shape == (4,)


@pytest.mark.parametrize("temperature", [1e-308, 5e-309, 1e-309, 1e-310, 5e-324])
def test_a_sampler_draws_what_sample_draws_of_denormal_numbers(temperature):
    x = np.array([1e-310, 0, -1e-310, 3e-309, 2e-309])
    sampler = Sampler(steps.Temperature(temperature))
    for seed in range(20):
        want = fastsoftmax.sample(x, temperature=temperature, rng=seed)
        assert sampler(x, rng=seed) == want


# ---- errors on one line --------------------------------------------------------------------------

LONG = [10**400, [1] * 10_000, "a" * 10_000, 10**5000, np.zeros((50, 50)), [10**400]]
LONG += [[[[np.longdouble(1) / 3] * 9] * 9] * 9]


@pytest.mark.parametrize("value", LONG, ids=lambda value: f"{type(value).__name__}")
def test_an_error_is_short(impl, value):
    def enter():
        with set_workers(value):
            pass

    negative = -value if type(value) is int else value
    calls = {
        "workers": lambda: impl.softmax(X, workers=negative),
        "mode": lambda: show_config(value),
        "temperature": lambda: steps.Temperature([value]),
        "steps": lambda: Sampler(value),
        "ids": lambda: Sampler()(X[0], ids=value if type(value) is not list else [value]),
        "prompt": lambda: Sampler()(X[0], ids=[1], prompt=value),
    }
    if type(value) is not int:
        calls["workers "] = enter
    for name, call in calls.items():
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        said = str(caught.value)
        assert name.strip() in said
        assert len(said) < 300
        assert "\n" not in said


@pytest.mark.parametrize("ids", [True, 5, None, [[1], 2], [[1.5], [2.5]], np.True_])
def test_tokens_that_are_none(ids):
    with pytest.raises(TypeError, match="ids "):
        Sampler()(X, ids=ids)


@pytest.mark.parametrize("value", [None, "a", 1.5, True])
def test_objects_are_no_ids(impl, value):
    for ids in (np.array(value, object), np.array([value, 1], object)):
        for function in (impl.rank, impl.token_logprobs):
            with pytest.raises(TypeError, match=r"ids is .*; allowed are integers"):
                function(X[0] if ids.ndim == 0 else X, ids)


def test_logits_whose_shape_an_argument_changes():
    x = np.zeros((1, 1))
    prompt = spoils(0, "shape", x)
    assert Sampler(steps.Temperature(0.7)).filter(x, prompt=prompt).shape == (1, 1)
    assert x.shape == (1,)


def test_an_array_whose_shape_an_argument_changes_is_named(compiled):
    for function, name in (
        (compiled.softmax, "x"),
        (compiled.log_softmax, "x"),
        (compiled.filter_logits, "logits"),
        (lambda x, **kw: compiled.softmax_backward(x.copy(), x, **kw), "probs"),
        (lambda x, **kw: compiled.log_softmax_backward(x.copy(), x, **kw), "log_probs"),
    ):
        x = np.zeros((1, 1, 2), np.float16)[..., ::-1]
        with pytest.raises(ValueError, match=f"the shape of {name} changed during the call"):
            function(x, temperature=spoils(0.7, "shape", x))


# ---- steps of users ------------------------------------------------------------------------------

WRONG = {
    "none": (TypeError, "allowed are Candidates"),
    "array": (TypeError, "allowed are Candidates"),
    "nan": (ValueError, "a score of nan"),
    "some nan": (ValueError, "a score of nan"),
    "-inf": (ValueError, "a score of -inf"),
    "short": (ValueError, "a score for each"),
    "text": (TypeError, "an array of float64"),
    "float32": (TypeError, "an array of float64"),
    "list": (TypeError, "an array of float64"),
    "unsorted": (ValueError, "ascending"),
    "twice": (ValueError, "ascending"),
    "foreign": (ValueError, "some of those that were left"),
    "negative": (ValueError, "some of those that were left"),
    "float ids": (TypeError, "an array of int64"),
    "two axes": (TypeError, "of one axis"),
    "fewer ids": (ValueError, "a score for each"),
    "uniforms": (ValueError, "more random numbers than its `uniforms` says"),
    "inf": (ValueError, "overflow"),
    "empty": (ValueError, "leaves nothing"),
}


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("before", [(), (steps.TopK(5),), (steps.AllowedTokens([1, 3, 4]),)])
def test_a_step_that_returns_what_it_must_not(how, before):
    error, says = WRONG[how]
    sampler = Sampler(*before, Bad(how), steps.TopK(3))
    x = np.random.default_rng(0).normal(size=300)
    for call in (sampler, sampler.candidates, sampler.trace, sampler.filter):
        with pytest.raises(error, match=says):
            call(x, rng=0)
