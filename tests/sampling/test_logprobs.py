"""sample_with_logprobs: the ids of sample, and about each what the other functions say."""

import ml_dtypes
import numpy as np
import pytest

from fastsoftmax import SampleResult
from tests.oracles import PARAMETERS, rows_of, survivors

INF = np.inf
REPORTS = ("logprobs", "filtered_logprobs")


@pytest.mark.slow_reference
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("draws", [{}, {"size": 5}, {"size": 2, "replace": False}], ids=str)
def test_ids_logprobs_and_ranks_are_those_of_the_other_functions(impl, parameters, draws):
    for n, dtype in ((1, "float64"), (33, "float32"), (5000, "float32"), (2049, "float16")):
        x = rows_of(n, dtype)
        options = {"rng": 3, "on_invalid": "flag"} | draws | parameters
        drawn = impl.sample_with_logprobs(x, **options)
        assert type(drawn) is SampleResult
        ids = impl.sample(x, **options)
        np.testing.assert_array_equal(drawn.ids, ids)
        some, missing = np.maximum(ids, 0), ids < 0
        t = parameters.get("temperature", 1.0)
        logprobs = impl.token_logprobs(x, some, temperature=t)
        np.testing.assert_array_equal(drawn.logprobs[~missing], logprobs[~missing])
        np.testing.assert_array_equal(drawn.ranks[~missing], impl.rank(x, some)[~missing])
        for values in drawn[1:3]:
            assert values.dtype == x.dtype
            assert values.shape == ids.shape
            assert np.isnan(values[missing]).all()
        assert drawn.ranks.dtype == np.int64
        assert (drawn.ranks[missing] == -1).all()


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 33, 64])
def test_a_row_among_many_is_reported_as_alone(compiled, n):
    rng = np.random.default_rng(n)
    for rows in (17, 70):
        x = np.round(4 * rng.standard_normal((rows, n)), 1).astype("f4")
        x[rng.integers(rows), rng.integers(n)] = np.nan
        x[rng.integers(rows)] = -INF
        x[rng.integers(rows), n // 2] = INF
        at = {"seed": 3, "on_invalid": "flag"}
        for t in (1, 0.7, 1e-20):
            got = compiled.sample_with_logprobs(x, position=np.arange(rows), temperature=t, **at)
            for i in range(rows):
                alone = compiled.sample_with_logprobs(x[i], position=i, temperature=t, **at)
                for field, want in zip(got, alone, strict=True):
                    np.testing.assert_array_equal(field[i], want)


@pytest.mark.slow_reference
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filtered_logprobs_are_those_of_the_survivors(impl, dtype, parameters, replace):
    if parameters.get("temperature") in (0, INF):
        pytest.skip("have a test of their own")
    for n in (2, 33, 2500):
        x = rows_of(n, dtype)[:3]
        drawn = impl.sample_with_logprobs(
            x, size=6, replace=replace, rng=1, on_invalid="flag", **parameters
        )
        for i, row in enumerate(x):
            ids, weights = survivors(row, **parameters)
            weight = np.full(n, np.nan)
            weight[ids] = weights
            there = drawn.ids[i] >= 0
            got = drawn.filtered_logprobs[i][there]
            want = np.log(weight[drawn.ids[i][there]] / weights.sum())
            eps = np.finfo(dtype).eps
            np.testing.assert_allclose(got, want, rtol=8 * eps, atol=8 * 2.0**-52)


def test_filtered_logprobs_at_the_ends_of_the_temperature(impl):
    x = np.array([3.0, -INF, 9, 9, 1])
    zero = impl.sample_with_logprobs(x, size=3, temperature=0)
    assert zero.ids.tolist() == [2, 2, 2]
    assert not np.any(zero[1:])  # probability 1, the first in the order
    for k, left in ((None, 4), (3, 3), (1, 1)):
        drawn = impl.sample_with_logprobs(x, size=9, temperature=INF, top_k=k, rng=0)
        np.testing.assert_allclose(drawn.filtered_logprobs, -np.log(left), rtol=1e-15)
        np.testing.assert_allclose(drawn.logprobs, -np.log(4), rtol=1e-15)


def test_a_survivor_almost_alone_keeps_its_digits(impl):
    """The largest one's own term stays out of the sum: -exp(-40), not 0."""
    for row in ([0.0, -40, -900], [-900.0, -40, 0]):
        drawn = impl.sample_with_logprobs(row, top_k=2, rng=0)
        assert drawn.filtered_logprobs == pytest.approx(-np.exp(-40), rel=1e-12)
        assert impl.sample_with_logprobs(row, top_k=1, rng=0).filtered_logprobs == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_as_the_reference(compiled, reference, dtype):
    x = rows_of(1025, "float64").clip(-20).astype(dtype)
    for i, parameters in enumerate(PARAMETERS):
        want = reference.sample_with_logprobs(x, size=4, rng=i, **parameters)
        got = compiled.sample_with_logprobs(x, size=4, rng=i, **parameters)
        np.testing.assert_array_equal(got.ids, want.ids)
        np.testing.assert_array_equal(got.ranks, want.ranks)
        for name in REPORTS:
            a, b = getattr(got, name), getattr(want, name)
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=8 * np.finfo(a.dtype).eps, atol=1e-300)


def test_bfloat16(impl):
    x = rows_of(40, "float32").astype(ml_dtypes.bfloat16)
    x[1] = np.nan
    drawn = impl.sample_with_logprobs(x, top_k=5, rng=0, on_invalid="flag")
    assert all(getattr(drawn, name).dtype == x.dtype for name in REPORTS)
    assert np.isnan(drawn.logprobs.astype(float)).tolist() == [False, True, False, False]


@pytest.mark.parametrize("size", [None, 0, 1, 3])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 5), (0, 5), (2, 0)])
def test_shapes(impl, shape, size):
    x = np.zeros(shape, dtype=np.float32)
    drawn = impl.sample_with_logprobs(x, size=size, rng=0, on_invalid="flag")
    want = impl.sample(x, size=size, rng=0, on_invalid="flag")
    for part in drawn:
        assert part.shape == want.shape
        assert isinstance(part, np.ndarray) == isinstance(want, np.ndarray)


def test_missing_ones(impl):
    x = np.zeros((4, 3), dtype=np.float32)
    x[1, 1], x[2], x[3, 1:] = np.nan, -INF, -INF
    drawn = impl.sample_with_logprobs(x, size=2, replace=False, rng=0, on_invalid="flag")
    assert (drawn.ids < 0).tolist() == [[False] * 2, [True] * 2, [True] * 2, [False, True]]
    for values in drawn[1:3]:
        np.testing.assert_array_equal(np.isnan(values), drawn.ids < 0)
    np.testing.assert_array_equal(drawn.ranks < 0, drawn.ids < 0)
    with pytest.raises(ValueError, match=r"NaN in row \(1,\)"):
        impl.sample_with_logprobs(x)
    with pytest.raises(ValueError, match=r"size is 2; .*row \(0,\)"):
        impl.sample_with_logprobs(x[3:], size=2, replace=False)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"size": -1}, {"top_k": 0.5}, {"rng": "a"}])
def test_wrong_arguments_are_those_of_sample(impl, wrong):
    with pytest.raises((TypeError, ValueError)) as want:
        impl.sample(np.zeros(3), **wrong)
    with pytest.raises(want.type) as got:
        impl.sample_with_logprobs(np.zeros(3), **wrong)
    assert str(got.value) == str(want.value)


def test_one_temperature_a_row_and_seeds(impl):
    x = np.random.default_rng(0).normal(size=(2, 3, 50)).astype(np.float32)
    options = {"temperature": [0.5, 1, 2], "top_p": [[0.5], [1]], "seed": 5, "position": [1, 2, 3]}
    drawn = impl.sample_with_logprobs(x, **options)
    np.testing.assert_array_equal(drawn.ids, impl.sample(x, **options))
    for i, j in np.ndindex(2, 3):
        own = {k: np.broadcast_to(v, (2, 3))[i, j].item() for k, v in options.items()}
        for part, whole in zip(impl.sample_with_logprobs(x[i, j], **own), drawn, strict=True):
            assert part == whole[i, j]
    np.testing.assert_array_equal(drawn.filtered_logprobs[1], drawn.logprobs[1])


@pytest.mark.slow
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_many_draws_are_reported_as_each_alone(impl, dtype, parameters):
    """From some hundreds of draws on, ranks are found in another way."""
    n, size = (300, 700) if impl.NAME == "reference" else (5000, 3000)
    x = rows_of(n, "float32").astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    for replace in (True, False):
        drawn = impl.sample_with_logprobs(
            x, size=size, replace=replace, rng=0, on_invalid="flag", **parameters
        )
        there = drawn.ids >= 0
        assert there[:, 0].all()
        some = np.maximum(drawn.ids, 0)
        t = parameters.get("temperature", 1.0)
        logprobs = impl.token_logprobs(x, some, temperature=t)
        np.testing.assert_array_equal(drawn.logprobs[there], logprobs[there])
        np.testing.assert_array_equal(drawn.ranks[there], impl.rank(x, some)[there])
        assert (drawn.ranks[~there] == -1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ranks_among_ties(impl, dtype):
    """Equal entries come in the order of their indices, in the same chunk and in others."""
    x = np.zeros(1025, dtype=dtype)
    x[3::100] = 1
    x[::2] *= -1  # -0 equals 0
    for options in ({"size": 60}, {"size": 600}, {"size": 9, "top_k": 40}, {"temperature": INF}):
        drawn = impl.sample_with_logprobs(x, rng=1, **options)
        want = np.argsort(np.argsort(-x, kind="stable"))[drawn.ids]
        np.testing.assert_array_equal(drawn.ranks, want)


def test_integers_count_as_float64(impl):
    x = np.array([2**62, 2**62 + 1, 0], dtype=np.int64)
    drawn = impl.sample_with_logprobs(x, size=20, rng=0)
    assert {*drawn.ids} == {0, 1}
    np.testing.assert_array_equal(drawn.ranks, drawn.ids)
    np.testing.assert_array_equal(drawn.logprobs, np.full(20, -np.log(2)))


@pytest.mark.slow_reference
@pytest.mark.parametrize("parameters", [{}, {"top_k": 40}, {"top_p": 0.8}, {"temperature": 0}])
@pytest.mark.parametrize("draws", [{}, {"size": 3}, {"size": 3, "replace": False}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_layout_gives_the_bits_of_the_plain_array(impl, dtype, draws, parameters):
    x = rows_of(3000, dtype).copy()
    x[1, 7], x[2] = np.nan, -INF
    options = {"seed": [1, 2, 3, 4], "position": 9, "on_invalid": "flag"} | draws | parameters
    want = impl.sample_with_logprobs(x, **options)
    for same in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        for a, b in zip(impl.sample_with_logprobs(same, **options), want, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_a_report_takes_no_second_pass(impl, parameters, monkeypatch):
    """What is reported comes from the draw: the functions that look it up are not asked."""
    if impl.NAME == "reference":
        pytest.skip("asks its own functions")
    from fastsoftmax._arguments import values

    monkeypatch.setattr(values, "token_ids", None)
    x = rows_of(300, "float16")
    assert impl.sample_with_logprobs(x, rng=0, **parameters).ids.shape == (4,)
