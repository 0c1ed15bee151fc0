"""sample(size=, replace=): each draw is a single draw, from all or from what is left."""

from functools import partial

import numpy as np
import pytest

from tests.oracles import PARAMETERS, Uniforms, rows_of, survivors

LAST = 1 - 2**-53
INF = np.inf


def successive(row, uniforms, **parameters):
    """Return ids drawn one after the other from what is left."""
    ids, weights = survivors(row, **parameters)
    left = dict(zip(ids.tolist(), weights.tolist(), strict=True))
    drawn = []
    for u in uniforms:
        cumulative = np.cumsum([*left.values()])
        place = np.searchsorted(cumulative, u * cumulative[-1], side="right")
        drawn.append([*left][place])
        del left[drawn[-1]]
    return drawn


def generated(x, m, seed):
    return np.random.default_rng(seed).random((*x.shape[:-1], m))


# ---- with replacement ----------------------------------------------------------------------------


@pytest.mark.slow_reference
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_each_draw_is_a_single_draw(impl, dtype, parameters):
    for n in (1, 33, 2049, 6000):
        x = rows_of(n, dtype)
        u = generated(x, 7, n)
        u[:, 0], u[:, 3] = 0, LAST
        many = impl.sample(x, size=7, rng=Uniforms(u), **parameters)
        assert many.shape == (4, 7)
        assert many.dtype == np.int64
        for j in range(7):
            one = impl.sample(x, rng=Uniforms(u[:, j]), **parameters)
            np.testing.assert_array_equal(many[:, j], one, err_msg=f"n = {n}, draw {j}")


@pytest.mark.slow_reference
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_size_of_one_is_the_single_draw(impl, parameters, replace):
    x = rows_of(5000, "float32")
    want = impl.sample(x, rng=3, **parameters)
    got = impl.sample(x, size=1, replace=replace, rng=3, **parameters)
    np.testing.assert_array_equal(got, want[:, None])
    np.testing.assert_array_equal(impl.sample(x, replace=replace, rng=3, **parameters), want)


@pytest.mark.parametrize("n", [2, 30, 1024, 5000])
def test_boundaries_belong_to_the_next_id(impl, n):
    """Equal weights of 1: the sums are exact, and so is ``u * n`` for n a power of two."""
    row = np.zeros(n, dtype=np.float32)
    i = np.arange(n)
    assert (impl.sample(row, size=n, rng=Uniforms((i + 0.5) / n)) == i).all()
    if n & (n - 1) == 0:
        assert (impl.sample(row, size=n, rng=Uniforms(i / n)) == i).all()


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [3, 64, 2049, 5000])
def test_weight_zero_is_never_drawn(impl, n, dtype):
    """Also where rounding makes ``u * total``, sums of blocks and sums in order disagree."""
    rng = np.random.default_rng(n)
    ends = [0.0, 2**-53, 0.5, 1 - 2**-52, LAST]
    for _ in range(20):
        row = rng.normal(size=n) * 3
        first, last = np.sort(rng.integers(0, n, 2))
        row[:first] = rng.choice([-INF, -2000])
        row[last + 1 :] = rng.choice([-INF, -2000])
        row = row.astype(dtype)
        for parameters in ({}, {"temperature": 0.9}, {"top_p": 0.9}, {"min_p": 1e-9}):
            ids = impl.sample(row, size=5, rng=Uniforms(ends), **parameters)
            assert (np.exp(row[ids].astype(float) - row.max()) > 0).all()
            single = [impl.sample(row, rng=Uniforms([u]), **parameters) for u in ends]
            assert ids.tolist() == single


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("n", [7, 1025, pytest.param(151936, marks=pytest.mark.slow)])
def test_ids_are_those_of_the_reference(compiled, reference, n, replace):
    x = rows_of(n, "float32")[: 4 if n < 10_000 else 2]
    for i, parameters in enumerate(PARAMETERS):
        want = reference.sample(x, size=9, replace=replace, rng=i, on_invalid="flag", **parameters)
        got = compiled.sample(x, size=9, replace=replace, rng=i, on_invalid="flag", **parameters)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("replace", [True, False])
def test_one_parameter_a_row(impl, replace):
    x = np.random.default_rng(1).normal(size=(3, 4, 40)).astype(np.float32)
    parameters = {"top_k": [[6], [20], [0]], "temperature": [0.5, 1, 2, INF], "min_keep": 6}
    rng = np.random.default_rng(2)
    ids = impl.sample(x, size=6, replace=replace, rng=2, **parameters)
    assert ids.shape == (3, 4, 6)
    for place in np.ndindex(3, 4):
        own = {k: np.broadcast_to(v, (3, 4))[place].item() for k, v in parameters.items()}
        one = impl.sample(x[place], size=6, replace=replace, rng=rng, **own)
        np.testing.assert_array_equal(ids[place], one)


@pytest.mark.parametrize("size", [0, 1, 5, np.int64(3)])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (0, 5), (2, 0, 5), ()])
def test_shape_of_the_ids(impl, shape, size):
    for dtype in (np.float32, np.int8):
        ids = impl.sample(np.zeros(shape, dtype=dtype), size=size, rng=0)
        assert ids.shape == (*shape[:-1], size)
        assert ids.dtype == np.int64


def test_no_draws_look_at_nothing(impl):
    rng = np.random.default_rng(0)
    for x in (np.full((2, 3), np.nan), np.zeros((2, 0)), np.zeros((2, 5000), dtype=np.float16)):
        assert impl.sample(x, size=0, rng=rng).shape == (2, 0)
        assert impl.sample(x, size=0, replace=False, rng=rng).shape == (2, 0)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_more_draws_than_fit_one_call(impl):
    """Two million and more take the road that looks for Ctrl-C."""
    m = (1 << 21) + 5 if impl.NAME != "reference" else 1000
    row = np.log([0.2, 0.3, 0.5]).astype(np.float32)
    ids = impl.sample(row, size=m, rng=0)
    u = np.random.default_rng(0).random(m)
    np.testing.assert_array_equal(ids[:1000], impl.sample(row, size=1000, rng=Uniforms(u[:1000])))
    np.testing.assert_allclose(np.bincount(ids) / m, [0.2, 0.3, 0.5], atol=5 / np.sqrt(m))


# ---- without replacement -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [5, 40, 4100])
def test_each_draw_is_from_what_is_left(impl, n, dtype):
    row = np.random.default_rng(n).normal(size=n).astype(dtype)
    for parameters in ({}, {"top_k": 5}, {"top_p": 0.8, "min_keep": 5}, {"temperature": 3.0}):
        u = np.random.default_rng(1).random(5)
        ids = impl.sample(row, size=5, replace=False, rng=Uniforms(u), **parameters)
        assert ids.tolist() == successive(row, u, **parameters)


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("heavy", [0, 2, 3, 20_000])
def test_few_of_a_long_row_are_the_first_of_more(impl, heavy, dtype):
    """For few, the row is not listed; what is drawn, or missing, is the same."""
    row = np.random.default_rng(heavy).normal(size=20_000).astype(dtype)
    row[heavy * 7 :] = -INF  # most of them neighbours, so that they come of one block
    row[[5, 9_000]] = 1, 6
    x = np.stack([row, row[::-1]])
    draw = partial(impl.sample, x, replace=False, temperature=0.7, on_invalid="flag")
    for seed in range(3):
        more = draw(size=9, rng=Uniforms(np.random.default_rng(seed).random((2, 9))))
        few = draw(size=4, rng=Uniforms(np.random.default_rng(seed).random((2, 9))[:, :4]))
        assert few.tolist() == more[:, :4].tolist()


@pytest.mark.parametrize("n", [1, 6, 300, 2500])
def test_all_of_them_come_once(impl, n):
    row = np.random.default_rng(n).normal(size=n).astype(np.float32) * 4
    row[n // 3] = 200 if n > 1 else 0  # the others weigh next to nothing beside it
    for u in (np.zeros(n), np.full(n, LAST), np.random.default_rng(0).random(n)):
        ids = impl.sample(row, size=n, replace=False, rng=Uniforms(u))
        assert sorted(ids) == list(range(n))


@pytest.mark.parametrize("big", [0.0, 40.0, 600.0])
def test_what_is_drawn_second_does_not_depend_on_the_first(impl, big):
    """Nothing is left of a large weight: the sums are not found by subtraction."""
    row = np.array([big, 0, -1, 0, -2])
    left = np.exp(row[1:])
    middles = (np.cumsum(left) - left / 2) / left.sum()
    for i, u in enumerate(middles):
        ids = impl.sample(row, size=2, replace=False, rng=Uniforms([0, u]))
        assert ids.tolist() == [0, i + 1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 7)])
def test_too_few_to_draw(impl, shape, dtype):
    x = np.zeros(shape, dtype=dtype)
    x[..., 5] = -INF  # no weight, and two of the rest at most
    for size in (3, 9):
        with pytest.raises(ValueError, match=r"^size is \d; allowed without repl.* 0 to 2") as got:
            impl.sample(x, size=size, replace=False, top_k=2, rng=1)
        row = f"row {(0,) * (len(shape) - 1)}" if len(shape) > 1 else "the row"
        assert f"drawn from {row} " in str(got.value)
        ids = impl.sample(x, size=size, replace=False, top_k=2, rng=1, on_invalid="flag")
        assert (np.sort(ids[..., :2]) == [0, 1]).all()
        assert (ids[..., 2:] == -1).all()
    with pytest.raises(ValueError, match="0 to 6"):
        impl.sample(x, size=7, replace=False)
    with pytest.raises(ValueError, match="0 to 1"):
        impl.sample(x, size=2, replace=False, temperature=0)
    assert (impl.sample(x, size=9, temperature=0) == 0).all()


def test_the_row_with_too_few_is_named(impl):
    x = np.zeros((2, 3, 4))
    x[1, 1, 1:] = -INF
    with pytest.raises(ValueError, match=r"^size is 2; .*row \(1, 1\)"):
        impl.sample(x, size=2, replace=False)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("bad", [np.nan, INF, -INF])
def test_invalid_rows(impl, bad, replace):
    x = np.zeros((2, 2, 40), dtype=np.float32)
    want = impl.sample(x, size=3, replace=replace, rng=1)
    x[1, 0] = bad
    with pytest.raises(ValueError, match=r"^logits has .*\(1, 0\)"):
        impl.sample(x, size=3, replace=replace)
    want[1, 0] = -1
    got = impl.sample(x, size=3, replace=replace, rng=1, on_invalid="flag")
    np.testing.assert_array_equal(got, want)


# ---- arguments and randomness --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "error", "says"),
    [
        ("size", -1, ValueError, "size is -1; allowed is 0 and above"),
        ("size", 2.0, TypeError, "size is 2.0; allowed are integers, 0 and above"),
        ("size", (2, 3), TypeError, "size is (2, 3); allowed are integers"),
        ("size", True, TypeError, "size is True; allowed are integers"),
        ("replace", None, TypeError, "replace is None; allowed are True and False"),
        ("replace", 1, TypeError, "replace is 1; allowed are True and False"),
        ("replace", "no", TypeError, "replace is 'no'; allowed are True and False"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_wrong_arguments(impl, dtype, name, value, error, says):
    rng = np.random.default_rng(0)
    with pytest.raises(error) as caught:
        impl.sample(np.zeros((2, 3), dtype=dtype), rng=rng, **{name: value})
    assert str(caught.value).startswith(says)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize("replace", [True, False, np.True_, np.False_])
def test_uniforms_in_row_order(impl, replace):
    x = np.random.default_rng(0).normal(size=(3, 2, 50)).astype(np.float32)
    rng, same = np.random.default_rng(1), np.random.default_rng(1)
    ids = impl.sample(x, size=5, replace=replace, rng=rng)
    uniforms = same.random((6, 5))
    assert rng.bit_generator.state == same.bit_generator.state
    for i, row in enumerate(x.reshape(6, 50)):
        one = impl.sample(row, size=5, replace=replace, rng=Uniforms(uniforms[i]))
        np.testing.assert_array_equal(ids.reshape(6, 5)[i], one)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4, 5, 23])
def test_seed_and_position_are_a_philox_of_numpy(impl, size, replace):
    rng = np.random.default_rng(0)
    seed = rng.integers(0, 2**64, (3, 4), dtype=np.uint64)
    position = rng.integers(0, 2**64, 4, dtype=np.uint64)
    position[:3] = 2**64 - 1, 2**64 - 3, 0
    x = rng.normal(size=(3, 4, 1000)).astype(np.float32)
    u = [
        np.random.Generator(np.random.Philox(key=int(s), counter=int(p))).random(size)
        for s, p in np.broadcast(seed, position)
    ]
    want = impl.sample(x, size=size, replace=replace, rng=Uniforms(u))
    got = impl.sample(x, size=size, replace=replace, seed=seed, position=position)
    np.testing.assert_array_equal(got, want)
