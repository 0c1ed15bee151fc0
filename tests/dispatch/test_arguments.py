"""Wrong arguments and unusual right ones: errors name the argument, its value, what is allowed."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from fastsoftmax import _docs
from fastsoftmax._arguments import history, values, verification
from tests.arrays import bfloat16, misaligned

FLOATS = np.array([[0.5, 2.0, 1.0], [1.0, -1.0, 0.0]], dtype=np.float32)
INF, NAN = np.inf, np.nan


def message(error, call, *args, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# ---- numbers -------------------------------------------------------------------------------------

HUGE = 10**400
with np.errstate(over="ignore"):
    LONG = np.longdouble(10) ** 4000
WRONG_NUMBERS = {
    "none": (None, TypeError, "None"),
    "text": ("hot", TypeError, "'hot'"),
    "bytes": (b"1", TypeError, "b'1'"),
    "bool": (True, TypeError, "True"),
    "NumPy bool": (np.True_, TypeError, "np.True_"),
    "complex": (1j, TypeError, "1j"),
    "ragged": ([1.0, [2.0]], TypeError, "[1.0, [2.0]]"),
    "bool in a list": ([1.0, True], TypeError, "[1.0, True]"),
    "huge": (HUGE, ValueError, "an integer of 400 digits"),
    "huger than Python prints": (10**5000, ValueError, "an integer of 5000 digits"),
    "huge fraction": (Fraction(HUGE), ValueError, "Fraction"),
    "huge in a list": ([1.0, HUGE], ValueError, "[1.0, an integer of 400 digits]"),
    "long double": (LONG, ValueError, str(LONG)),
    "negative": (-1, ValueError, "-1.0"),
    "negative infinity": (-INF, ValueError, "-inf"),
    "nan": (NAN, ValueError, "nan"),
    "nan of one row": ([1.0, NAN], ValueError, "nan"),
}


@pytest.mark.parametrize("wrong", WRONG_NUMBERS)
def test_wrong_temperatures(impl, wrong):
    value, error, shown = WRONG_NUMBERS[wrong]
    if wrong == "long double" and np.isinf(value):
        pytest.skip("a long double is a double here")
    targets = [0, 1]
    calls = [
        (impl.softmax, FLOATS),
        (impl.log_softmax, FLOATS),
        (impl.sample, FLOATS),
        (impl.filter_logits, FLOATS),
        (impl.support, FLOATS),
        (impl.token_logprobs, FLOATS, [0, 1]),
        (impl.softmax_backward, FLOATS, FLOATS),
        (impl.top_logprobs, FLOATS, 1),
        (impl.verify, [[0]] * 2, FLOATS[:, None].repeat(2, 1)),
    ]
    if not isinstance(value, list):  # one for all rows
        calls.append((impl.cross_entropy, FLOATS, targets))
        calls.append((impl.cross_entropy_with_grad, FLOATS, targets))
    for function, *args in calls:
        says = message(error, function, *args, temperature=value)
        assert says.startswith(f"temperature is {shown}"), says
        assert "; allowed " in says


@pytest.mark.parametrize("name", ["top_p", "min_p"])
@pytest.mark.parametrize("value", [1.0000001, -1e-300, NAN, INF, HUGE, "all", True, 2, [0.5, NAN]])
def test_wrong_probabilities(impl, name, value):
    for function in (impl.sample, impl.filter_logits, impl.support):
        says = message((TypeError, ValueError), function, FLOATS, **{name: value})
        assert says.startswith(f"{name} is "), says
        assert "0 to 1, or None" in says


@pytest.mark.parametrize("value", [-1, -HUGE, 1.0, "2", True, [1, True], [1, -2], np.float32(1)])
def test_wrong_counts(impl, value):
    for function in (impl.sample, impl.filter_logits, impl.support):
        says = message((TypeError, ValueError), function, FLOATS, top_k=value)
        assert says.startswith("top_k is "), says
        assert "or None" in says


@pytest.mark.parametrize(
    "value", [2**70, Fraction(1, 2), np.float16(0.5), np.array(2), [2**70, 0.5], np.uint8(3)]
)
def test_real_numbers_of_any_type(impl, value):
    t = np.array(value, dtype=object).astype(np.float64)
    np.testing.assert_array_equal(
        impl.softmax(FLOATS, temperature=value), impl.softmax(FLOATS, temperature=t)
    )
    half = np.array(0.5, dtype=bfloat16())
    np.testing.assert_array_equal(
        impl.softmax(FLOATS, temperature=half), impl.softmax(FLOATS, temperature=0.5)
    )


@pytest.mark.parametrize("axis", [HUGE, -HUGE])
def test_a_huge_axis(impl, axis):
    for call in ((impl.softmax, FLOATS, axis), (impl.logsumexp, FLOATS, axis)):
        says = message(np.exceptions.AxisError, *call)
        assert says == "axis is an integer of 400 digits; allowed is -2 to 1"
    message(np.exceptions.AxisError, impl.top_k, FLOATS, 1, axis=axis)
    message(np.exceptions.AxisError, impl.cross_entropy, FLOATS, [0, 1], axis=axis)


def test_ragged_lists(impl):
    ragged = [[1.0, 2.0], [3.0]]
    for name, call in (("x", impl.softmax), ("x", impl.logsumexp), ("logits", impl.support)):
        assert message(ValueError, call, ragged).startswith(f"{name} is [[1.0, 2.0], [3.0]]; NumPy")
    assert message(ValueError, impl.softmax, FLOATS, where=[[True], [0, 1]]).startswith("where is")


# ---- switches ------------------------------------------------------------------------------------

NO_SWITCHES = [np.array(True), np.ones(3, bool), [True], 1, 0, None, "yes", np.int64(1)]


class Raises:
    def __bool__(self):
        raise AssertionError("no switch is asked what it is")

    def __repr__(self):  # without an address: tests have the same names in every process
        return "Raises()"


@pytest.mark.parametrize("value", [*NO_SWITCHES, Raises()], ids=repr)
def test_switches_are_bools(impl, value):
    for name, function, *args in (
        ("sorted", impl.top_k, FLOATS, 1),
        ("sorted", impl.top_k, FLOATS.T, 1),
        ("keepdims", impl.logsumexp, FLOATS),
        ("keepdims", impl.logsumexp, FLOATS, 0),
        ("replace", impl.sample, FLOATS),
    ):
        says = message(TypeError, function, *args, **{name: value})
        assert says.startswith(f"{name} is "), says
        assert says.endswith("allowed are True and False")


def test_switches_of_numpy(impl):
    for yes in (True, np.True_):
        assert impl.logsumexp(FLOATS, keepdims=yes).shape == (2, 1)
        assert impl.top_k(FLOATS, 2, sorted=yes).indices.tolist() == [[1, 2], [0, 2]]
        assert impl.sample(FLOATS, replace=yes, rng=0).shape == (2,)
    for no in (False, np.False_):
        assert impl.logsumexp(FLOATS, keepdims=no).shape == (2,)
        assert impl.top_k(FLOATS, 2, sorted=no).indices.tolist() == [[1, 2], [0, 2]]


# ---- token ids -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids", [[False, True], [0, True], np.array([True, False]), [[0, 1], [True, 2]], [np.True_, 1]]
)
def test_bools_are_no_token_ids(impl, ids):
    for function in (impl.rank, impl.token_logprobs):
        assert message(TypeError, function, FLOATS, ids).startswith("ids has dtype bool; allowed")


def test_one_bool_is_no_token_id(impl):
    for function in (impl.rank, impl.token_logprobs):
        for ids in (True, np.True_):
            assert message(TypeError, function, FLOATS[0], ids).startswith("ids has dtype bool")


def test_what_kernels_read_is_aligned():
    ids, numbers = misaligned(np.array([1, 0])), misaligned(np.array([1.0, 0.5]))
    for array in (
        values.token_ids(ids, (2,), 3),
        values.for_rows(numbers, "temperature", (2,)),
        verification.drafted_ids(ids, (2,), 3),
        verification.beam_scores(numbers, (2,)),
        history.appended(ids, 2),
    ):
        assert array.flags.aligned
        assert array.reshape(-1).tolist() in ([1, 0], [1.0, 0.5])


def test_huge_token_ids(impl):
    for ids, shown in (([0, HUGE], "an integer of 400 digits"), ([2**64, 0], str(2**64))):
        for function in (impl.rank, impl.token_logprobs):
            says = message(IndexError, function, FLOATS, ids)
            assert says == f"ids has {shown}; allowed is 0 to 2"


# ---- seeds and positions -------------------------------------------------------------------------


def uniform(seed, position):
    return np.random.Generator(np.random.Philox(key=seed, counter=position)).random()


@pytest.mark.parametrize("value", [-1, -(2**63), -5, 2**63, 2**64 - 1])
def test_seeds_and_positions_of_64_bits(impl, value):
    x = np.zeros(10_000, dtype=np.float32)
    word = value % 2**64
    want = int(uniform(word, word) * x.size)
    forms = [value, np.array(value), [value], np.array([value], dtype=object)]
    if value < 0:
        forms += [np.int64(value), np.array([value, 0])[:1], np.array([[value]])[0]]
    for seed, position in itertools.product(forms, forms):
        got = impl.sample(np.atleast_2d(x), seed=seed, position=position)
        assert abs(got[0] - want) <= 1


def test_seeds_beside_each_other_in_a_list(impl):
    x = np.zeros((3, 100_000), dtype=np.float32)
    seeds = [-1, 2**64 - 1, 2**63]  # NumPy would make floats of these
    got = impl.sample(x, seed=seeds, position=-2)
    assert got[0] == got[1]
    for i, seed in enumerate(seeds):
        assert abs(got[i] - uniform(seed % 2**64, 2**64 - 2) * x.shape[1]) <= 1


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**64, HUGE, [0, -HUGE], 0.5, True, [1, True]])
def test_wrong_seeds_and_positions(impl, value):
    for name, other in (("seed", "position"), ("position", "seed")):
        says = message((TypeError, ValueError), impl.sample, FLOATS, **{name: value, other: 1})
        assert says.startswith(f"{name} is "), says
        assert "-2**63 to 2**64 - 1" in says


# ---- keywords ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "keyword", "says"),
    [
        ("softmax", (FLOATS,), "dim", "it is called axis here"),
        ("log_softmax", (FLOATS,), "mask", "it is called where here"),
        ("softmax", (FLOATS,), "dtype", "cast the array with astype, or give out= of that dtype"),
        ("logsumexp", (FLOATS,), "keepdim", "it is called keepdims here"),
        ("top_k", (FLOATS, 1), "dim", "it is called axis here"),
        ("top_k", (FLOATS, 1), "largest", "pass mode='largest' or 'smallest'"),
        ("sample", (FLOATS,), "where", "it is called mask here"),
        ("rank", (FLOATS, [0]), "where", "set what does not count to -inf in the logits"),
        ("sample", (FLOATS,), "num_samples", "it is called size here"),
        ("sample", (FLOATS,), "generator", "it is called rng here"),
        ("filter_logits", (FLOATS,), "k", "it is called top_k here"),
        ("cross_entropy", (FLOATS, [0, 1]), "dim", "it is called axis here"),
        ("cross_entropy", (FLOATS, [0, 1]), "reduce", "pass reduction='none', 'mean' or 'sum'"),
        ("rank", (FLOATS,), "tokens", "allowed are logits, ids"),
        (
            "softmax",
            (FLOATS,),
            "spam",
            "allowed are x, axis, temperature, where, out, return_lse, workers",
        ),
    ],
)
def test_a_keyword_of_another_library(impl, name, args, keyword, says):
    want = f"{name}() has no argument {keyword!r}; {says}"
    assert message(TypeError, getattr(impl, name), *args, **{keyword: 1}) == want


@pytest.mark.parametrize("name", _docs.FUNCTIONS)
def test_no_function_takes_an_unknown_keyword(impl, name):
    assert f"{name}() has no argument 'spam'" in message(
        TypeError, getattr(impl, name), FLOATS, spam=1
    )


def test_other_wrong_calls(impl):
    message(TypeError, impl.softmax)
    message(TypeError, impl.softmax, FLOATS, -1, 1.0)
    message(TypeError, impl.softmax, FLOATS, x=FLOATS)


# ---- the temperature of a loss -------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 3, 1e-3, np.float32(2), np.array(0.25)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"reduction": "none"}], ids=str)
def test_the_loss_of_logits_over_temperature(impl, dtype, temperature, options):
    t = float(temperature)
    x = np.random.default_rng(1).integers(-8, 8, (6, 7)).astype(dtype) / np.array(4, dtype)
    targets = [0, 1, 2, 3, -100, 6]
    want = impl.cross_entropy_with_grad(x.astype(np.float64) / t, targets, **options)
    got = impl.cross_entropy_with_grad(x, targets, temperature=temperature, **options)
    loss = impl.cross_entropy(x, targets, temperature=temperature, **options)
    rtol = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(got.loss, want.loss, rtol=rtol)
    np.testing.assert_array_equal(got.loss, loss)
    assert got.loss.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert got.grad.dtype == dtype
    scale = np.abs(want.grad).max() / t
    np.testing.assert_allclose(
        got.grad, want.grad / t, rtol=2e-3 if dtype == "float16" else rtol, atol=scale * rtol
    )


def test_temperatures_at_the_ends(impl):
    x = np.array([[1.0, 3.0, 2.0], [1.0, 1.0, 0.0], [0.0, 1.0, -INF]])
    none = {"reduction": "none"}
    loss, grad = impl.cross_entropy_with_grad(x, [1, 0, 0], temperature=0, **none)
    np.testing.assert_array_equal(loss, [0, 0, INF])
    np.testing.assert_array_equal(grad, np.zeros((3, 3)))
    loss, grad = impl.cross_entropy_with_grad(x, [1, 0, 0], temperature=INF, **none)
    np.testing.assert_allclose(loss, np.log([3, 3, 2]), rtol=1e-15)
    np.testing.assert_array_equal(grad, np.zeros((3, 3)))
    tiny = impl.cross_entropy(x, [1, 0, 1], temperature=5e-324, **none)
    np.testing.assert_allclose(tiny, [0, np.log(2), 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [0, INF])
def test_a_label_where_probability_is_zero_costs_all_at_every_end(impl, dtype, temperature):
    x = np.array([[3, 3, -INF]] * 3, dtype)
    for target, smoothing, want in ((0, 0.0, 1), (2, 0.0, INF), (0, 0.1, INF)):
        loss, grad = impl.cross_entropy_with_grad(
            x, [target] * 3, temperature=temperature, label_smoothing=smoothing, reduction="none"
        )
        want = want * np.log(2) if temperature or want == INF else 0
        np.testing.assert_allclose(loss, [want] * 3, rtol=1e-6)
        np.testing.assert_array_equal(grad, np.zeros((3, 3)))


def test_the_temperature_of_a_loss_is_one_number(impl):
    says = message(TypeError, impl.cross_entropy, FLOATS, [0, 1], temperature=[1.0, 2.0])
    assert says == "temperature is [1.0, 2.0]; allowed is a number from 0 to inf"


@pytest.mark.slow_reference
def test_a_sum_of_half_losses_does_not_overflow(impl):
    x = np.zeros((20_000, 40), dtype=np.float16)
    loss = impl.cross_entropy(x, np.zeros(20_000, dtype=int), reduction="sum")
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, 20_000 * np.log(40), rtol=1e-6)  # 73,778
