"""sample: which ids can be drawn, which one a given uniform draws, errors, randomness used."""

from functools import cache, partial

import ml_dtypes
import numpy as np
import pytest

from fastsoftmax import _dispatch
from tests.oracles import PARAMETERS, Uniforms, draw, rows_of

LAST = 1 - 2**-53  # the largest float64 below 1 that a generator gives
INF = np.inf
SIZES = (1, 2, 7, 31, 32, 33, 1023, 1024, 1025, 4097, 65537, 151936)


#: By default float64 has no rows beyond 10,000 here: half of the time is the reference's on those.
DTYPES = ("float32", "float64", pytest.param("float64 long", marks=pytest.mark.slow))


def sizes_of(dtype):
    """Return a dtype and the lengths it is tested with, by an entry of DTYPES."""
    dtype, _, long = dtype.partition(" ")
    return dtype, [n for n in SIZES if dtype == "float32" or (n > 10_000) == bool(long)]


@cache
def expected(n, dtype, which):
    """Return what the reference draws from the first rows of `rows_of`."""
    x = rows_of(n, dtype)[: 4 if n < 10_000 else 2]
    reference = _dispatch.load("reference")
    return x, reference.sample(x, rng=which, **PARAMETERS[which])


# ---- the same ids as the reference ---------------------------------------------------------------


@pytest.mark.parametrize("which", range(len(PARAMETERS)), ids=lambda i: str(PARAMETERS[i]))
@pytest.mark.parametrize("dtype", DTYPES)
def test_ids_are_those_of_the_reference(compiled, dtype, which):
    dtype, sizes = sizes_of(dtype)
    for n in sizes:
        x, want = expected(n, dtype, which)
        got = compiled.sample(x, rng=which, **PARAMETERS[which])
        np.testing.assert_array_equal(got, want, err_msg=f"n = {n}")
        assert got.dtype == np.int64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 33, 1025])
def test_one_parameter_a_row(impl, reference, n, dtype):
    rng = np.random.default_rng(3)
    x = np.tile(rows_of(n, dtype), (8, 1)).reshape(4, 8, n)
    parameters = {
        "temperature": rng.choice([0, 0.5, 1, 2, INF], (4, 8)),
        "top_k": rng.integers(0, n + 3, (1, 8)),
        "top_p": rng.choice([0, 0.3, 0.9, 1], (4, 1)),
        "min_p": rng.choice([0, 0.1, 1], 8),
        "min_keep": 2,
    }
    want = reference.sample(x, rng=5, **parameters)
    got = impl.sample(x, rng=5, **parameters)
    np.testing.assert_array_equal(got, want)
    one_by_one = np.random.default_rng(5)
    for place in np.ndindex(4, 8):
        own = {k: np.broadcast_to(v, (4, 8))[place].item() for k, v in parameters.items()}
        assert impl.sample(x[place], rng=one_by_one, **own) == want[place]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int64", "uint8", "bool"])
def test_other_dtypes_are_widened(impl, dtype):
    narrow = rows_of(1025, "float32")[:3]
    if dtype not in ("float16", "bfloat16"):
        narrow = narrow.clip(0, 25)
    narrow = narrow.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    wide = narrow.astype(np.float32 if narrow.dtype.kind in "fV" else np.float64)
    for parameters in PARAMETERS:
        np.testing.assert_array_equal(
            impl.sample(narrow, rng=1, **parameters), impl.sample(wide, rng=1, **parameters)
        )


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (2, 1, 3, 1, 5), (0, 5), (2, 0, 5)])
def test_shape_of_the_ids(impl, shape):
    ids = impl.sample(np.zeros(shape, dtype=np.float32), rng=0)
    assert ids.shape == shape[:-1]
    assert ids.dtype == np.int64
    assert isinstance(ids, np.ndarray if len(shape) > 1 else np.int64)


def test_no_rows_of_nothing(impl):
    assert impl.sample(np.zeros((0, 0)), top_k=3, top_p=0.5).shape == (0,)


def test_a_scalar_is_a_row_of_one(impl):
    for x in (3.0, np.float32(-2), [1.0], 4):
        assert impl.sample(x, top_k=1, top_p=0.5, rng=0) == 0


# ---- rows that cannot be drawn from --------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{}, {"temperature": 0}, {"top_k": 2, "top_p": 0.5}])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("bad", "word"), [(np.nan, "NaN"), (-np.nan, "NaN"), (INF, r"\+inf"), (-INF, "nothing")]
)
def test_invalid_rows(impl, bad, word, dtype, parameters):
    for n in (3, 40, 2500) if impl.NAME != "reference" else (3,):
        check_invalid_rows(impl, bad, word, n, dtype, parameters)


def check_invalid_rows(impl, bad, word, n, dtype, parameters):
    x = np.random.default_rng(0).normal(size=(2, 3, n)).astype(dtype)
    valid = impl.sample(x, rng=4, **parameters)
    for place in (0, n // 2, n - 1):
        y = x.copy()
        for row in (y[0, 2], y[1, 1]):
            if bad == -INF:
                row[:] = bad
            else:
                row[place] = bad
        with pytest.raises(ValueError, match=rf"{word}.*\(0, 2\)"):
            impl.sample(y, rng=4, **parameters)
        y[0, 2] = 0
        with pytest.raises(ValueError, match=rf"{word}.*\(1, 1\)"):
            impl.sample(y, rng=4, on_invalid="raise", **parameters)
        y[0, 2] = bad
        want = valid.copy()
        want[0, 2] = want[1, 1] = -1
        flagged = impl.sample(y, rng=4, on_invalid="flag", **parameters)
        np.testing.assert_array_equal(flagged, want)


def test_one_invalid_row(impl):
    with pytest.raises(ValueError, match="NaN"):
        impl.sample([1.0, np.nan])
    assert impl.sample([1.0, np.nan], on_invalid="flag") == -1
    assert impl.sample([np.nan, INF], on_invalid="flag") == -1


def test_rows_without_entries(impl):
    with pytest.raises(ValueError, match=r"nothing.*\(0,\)"):
        impl.sample(np.zeros((2, 0)))
    assert impl.sample(np.zeros((2, 0)), on_invalid="flag").tolist() == [-1, -1]


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "error", "says"),
    [
        ("temperature", -1, ValueError, "-1.0; allowed is 0 to inf"),
        ("temperature", -1e-300, ValueError, "-1e-300; allowed is 0 to inf"),
        ("temperature", np.nan, ValueError, "nan; allowed is 0 to inf"),
        ("temperature", [1, -2], ValueError, "-2.0; allowed is 0 to inf"),
        ("temperature", "hot", TypeError, "'hot'; allowed are real numbers"),
        ("temperature", 1j, TypeError, "1j; allowed are real numbers"),
        ("temperature", None, TypeError, "None; allowed are real numbers"),
        ("temperature", [1, 2, 3], ValueError, "(3,), which does not broadcast"),
        ("temperature", np.ones((2, 1)), ValueError, "(2, 1), which does not broadcast"),
        ("top_k", -1, ValueError, "-1; allowed is 0"),
        ("top_k", [3, -2], ValueError, "-2; allowed is 0"),
        ("top_k", 2.0, TypeError, "2.0; allowed are integers"),
        ("top_k", True, TypeError, "True; allowed are integers"),
        ("top_k", -(10**30), ValueError, f"-{10**30}; allowed is 0"),
        ("top_k", "2", TypeError, "'2'; allowed are integers"),
        ("top_k", [1, 2, 3], ValueError, "(3,), which does not broadcast"),
        ("top_p", -0.1, ValueError, "-0.1; allowed is 0 to 1"),
        ("top_p", 1.5, ValueError, "1.5; allowed is 0 to 1"),
        ("top_p", np.nextafter(1, 2), ValueError, "1.0000000000000002; allowed is 0 to 1"),
        ("top_p", np.nan, ValueError, "nan; allowed is 0 to 1"),
        ("top_p", [0.5, 2], ValueError, "2.0; allowed is 0 to 1"),
        ("temperature", True, TypeError, "True; allowed are real numbers"),
        ("temperature", [True, False], TypeError, "[True, False]; allowed are real numbers"),
        ("top_p", True, TypeError, "True; allowed are real numbers"),
        ("top_p", "all", TypeError, "'all'; allowed are real numbers"),
        ("top_p", [1, 1, 1], ValueError, "(3,), which does not broadcast"),
        ("min_p", -0.1, ValueError, "-0.1; allowed is 0 to 1"),
        ("min_p", 1.5, ValueError, "1.5; allowed is 0 to 1"),
        ("min_p", np.nan, ValueError, "nan; allowed is 0 to 1"),
        ("min_p", np.True_, TypeError, "np.True_; allowed are real numbers"),
        ("min_p", "none", TypeError, "'none'; allowed are real numbers"),
        ("min_p", [0, 0, 0], ValueError, "(3,), which does not broadcast"),
        ("min_keep", 0, ValueError, "0; allowed is 1 and above"),
        ("min_keep", -3, ValueError, "-3; allowed is 1 and above"),
        ("min_keep", 1.0, TypeError, "1.0; allowed are integers"),
        ("min_keep", True, TypeError, "True; allowed are integers"),
        ("min_keep", None, TypeError, "None; allowed are integers"),
        ("on_invalid", "ignore", ValueError, "'ignore'; allowed are 'raise', 'flag'"),
        ("on_invalid", None, ValueError, "None; allowed are 'raise', 'flag'"),
        ("rng", -1, ValueError, "-1; allowed are seeds from 0"),
        ("rng", 1.5, TypeError, "1.5; allowed are None, an int and"),
        ("rng", "seed", TypeError, "'seed'; allowed are None, an int and"),
        ("rng", True, TypeError, "True; allowed are None, an int and"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_wrong_arguments(impl, dtype, name, value, error, says):
    """The message names argument, value and what is allowed, and no randomness is used up."""
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises(error) as caught:
        impl.sample(np.zeros((2, 3), dtype=dtype), **({"rng": rng} | {name: value}))
    assert str(caught.value).startswith(name)
    assert says in str(caught.value)
    assert rng.bit_generator.state == before


def test_old_generators_are_refused(impl):
    with pytest.raises(TypeError, match="rng"):
        impl.sample(np.zeros(3), rng=np.random.RandomState(0))


@pytest.mark.parametrize("dtype", ["complex64", "object", "U1", "M8[s]"])
def test_wrong_logits(impl, dtype):
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises(TypeError, match=r"^logits has dtype"):
        impl.sample(np.zeros((2, 3), dtype=dtype), rng=rng)
    with pytest.raises(TypeError, match="logits is a masked array"):
        impl.sample(np.ma.masked_array([1.0, 2.0], [True, False]), rng=rng)
    assert rng.bit_generator.state == before


def test_all_but_the_logits_go_by_keyword(impl):
    with pytest.raises(TypeError):
        impl.sample(np.zeros(3), 1.0)


@pytest.mark.parametrize(
    "k", [3, 4, 2**31, 2**62, 2**63 + 1, 10**30, np.uint64(2**64 - 1), np.int8(3)]
)
def test_top_k_of_all_and_more_keeps_all(impl, k):
    ids = draw(impl, np.zeros(3, dtype=np.float32), [0, 0.5, LAST], top_k=k)
    assert ids.tolist() == [0, 1, 2]


# ---- randomness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_one_uniform_a_row_in_row_order(impl, bits, parameters):
    x = np.random.default_rng(0).normal(size=(3, 2, 50)).astype(np.float32)
    rng, same, known = (np.random.Generator(bits(1)) for _ in range(3))
    ids = impl.sample(x, rng=rng, **parameters)
    uniforms = same.random(6)
    assert str(rng.bit_generator.state) == str(same.bit_generator.state)
    np.testing.assert_array_equal(ids, impl.sample(x, rng=Uniforms(uniforms), **parameters))
    one_by_one = [impl.sample(row, rng=known, **parameters) for row in x.reshape(6, 50)]
    assert ids.ravel().tolist() == one_by_one


def test_no_rows_use_no_randomness(impl):
    rng = np.random.default_rng(0)
    impl.sample(np.zeros((0, 5)), rng=rng)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize("seed", [0, 5, 2**70, np.int64(5), np.uint8(5)])
def test_a_seed_stands_for_its_generator(impl, seed):
    x = np.zeros((9, 1000), dtype=np.float32)
    want = impl.sample(x, rng=np.random.default_rng(seed))
    for _ in range(2):
        np.testing.assert_array_equal(impl.sample(x, rng=seed), want)


def test_without_rng_every_call_differs(impl):
    x = np.zeros((20, 1000), dtype=np.float32)
    first, second = impl.sample(x), impl.sample(x, rng=None)
    assert (first != second).any()
    assert len({*first}) > 5


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 15, 16, 31, 33, 64, 65])
def test_many_short_rows_are_drawn_from_as_each_alone(impl, n, dtype):
    """Also without probabilities, without weights at the end, and where sums differ by rounding."""
    rng = np.random.default_rng(n)
    x = rng.normal(0, 3, (45, n)).astype(dtype)
    x[rng.random(x.shape) < 0.1] = -INF
    x[3:6, -1] = -INF, INF, np.nan
    x[7] = -INF
    x[9:21] = np.log(rng.random((12, n))).astype(dtype)
    for temperature in (1, 0.05, 1e-30, 1e30, 1e-310, INF, 0):
        for u in (rng.random(45), np.zeros(45), np.full(45, LAST)):
            drawn = partial(impl.sample, temperature=temperature, on_invalid="flag")
            want = [drawn(row, rng=Uniforms([v])) for row, v in zip(x, u, strict=True)]
            np.testing.assert_array_equal(drawn(x, rng=Uniforms(u)), want)


@pytest.mark.parametrize("shape", [(1000,), (200, 1000), (256, 1000), (257, 1000)])
def test_without_rng_draws_are_uniform(impl, shape):
    """They come from the system's entropy: each tenth of the row gets its share (7 deviations)."""
    x = np.zeros(shape, np.float32)
    calls = 600 if len(shape) == 1 else 3
    ids = np.concatenate([np.ravel(impl.sample(x)) for _ in range(calls)])
    share = np.bincount(ids // 100, minlength=10) / len(ids)
    assert np.abs(share - 0.1).max() < 7 * np.sqrt(0.09 / len(ids))


@pytest.mark.parametrize("parameters", [{}, {"top_k": 40, "top_p": 0.9}])
def test_seed_and_position_are_a_philox_of_numpy(impl, parameters):
    rng = np.random.default_rng(0)
    seed = rng.integers(0, 2**64, (3, 4), dtype=np.uint64)
    position = rng.integers(0, 2**64, 4, dtype=np.uint64)
    seed[0, :3] = 0, 1, 2**64 - 1
    position[:3] = 2**64 - 1, 0, 2**64 - 2
    x = rng.normal(size=(3, 4, 1000)).astype(np.float32)
    both = np.broadcast(seed, position)
    uniforms = [
        np.random.Generator(np.random.Philox(key=int(s), counter=int(p))).random() for s, p in both
    ]
    want = impl.sample(x, rng=Uniforms(uniforms), **parameters)
    got = impl.sample(x, seed=seed, position=position, **parameters)
    np.testing.assert_array_equal(got, want)
    for i, j in ((0, 2), (2, 0)):  # in no batch, as plain ints
        alone = {"seed": int(seed[i, j]), "position": int(position[j])}
        assert impl.sample(x[i, j], **alone, **parameters) == want[i, j]
    assert impl.sample(x[:0], seed=1, position=2).shape == (0, 4)


@pytest.mark.parametrize("size", [None, 0, 1, 4, 5])
def test_seeds_and_positions_in_any_form(impl, size):
    """Plain ints, NumPy's and arrays of each kind mean the same, in every layout of the logits."""
    x = np.random.default_rng(0).normal(size=(3, 200)).astype(np.float32)
    want = impl.sample(x.tolist(), seed=[5] * 3, position=[2**63 + 1] * 3, size=size)
    for seed in (5, np.int64(5), np.uint8(5), np.full(3, 5), np.full(1, 5, np.uint64), [5, 5, 5]):
        for position in (2**63 + 1, np.uint64(2**63 + 1), np.full(3, 2**63 + 1, np.uint64)):
            for logits in (x, np.asfortranarray(x), x.astype(np.float64)):
                got = impl.sample(logits, seed=seed, position=position, size=size)
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"seed": 1}, TypeError, "position is None; allowed are integers"),
        ({"position": 1}, TypeError, "seed is None; allowed are integers"),
        ({"seed": 1, "position": 1, "rng": 5}, ValueError, "rng is 5; allowed is None"),
        ({"seed": -(2**63) - 1, "position": 1}, ValueError, f"seed is {-(2**63) - 1}; allow"),
        ({"seed": 1, "position": 2**64}, ValueError, f"position is {2**64}; allowed is -2**63 to"),
        ({"seed": [1, 2**64], "position": 1}, ValueError, f"seed is {2**64}; allowed is -2**63"),
        ({"seed": 1.0, "position": 1}, TypeError, "seed is 1.0; allowed are integers"),
        ({"seed": 1, "position": True}, TypeError, "position is True; allowed are integers"),
        ({"seed": 1, "position": [1, 2, 3]}, ValueError, "(3,), which does not broadcast"),
    ],
)
def test_wrong_seeds_and_positions(impl, wrong, error, says):
    with pytest.raises(error) as caught:
        impl.sample(np.zeros((2, 3), dtype=np.float32), **wrong)
    assert says in str(caught.value)
