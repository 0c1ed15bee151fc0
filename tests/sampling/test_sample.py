"""sample: which ids can be drawn, which one a given uniform draws, errors, randomness used."""

from functools import cache

import ml_dtypes
import numpy as np
import pytest

from fastsoftmax import _dispatch
from tests.oracles import PARAMETERS, Uniforms, rows_of, survivors

LAST = 1 - 2**-53  # the largest float64 below 1 that a generator gives
INF = np.inf
SIZES = (1, 2, 7, 31, 32, 33, 1023, 1024, 1025, 4097, 65537, 151936)


def draw(impl, row, uniforms, **parameters):
    """Return the id that each of the uniforms draws from one row."""
    rows = np.tile(row, (len(uniforms), 1))
    return impl.sample(rows, rng=Uniforms(uniforms), **parameters)


def assert_drawn(impl, row, **parameters):
    """Assert that the survivors, all of them and no others, are drawn, each by its own uniforms."""
    ids, weights = survivors(row, **parameters)
    ends = np.cumsum(weights) / weights.sum()
    starts = np.concatenate([[0], ends[:-1]])
    wide = ends - starts > 1e-12
    drawn = draw(impl, row, ((starts + ends) / 2)[wide], **parameters)
    np.testing.assert_array_equal(drawn, ids[wide])
    edges = np.concatenate([[0, LAST], ends[:-1], np.nextafter(ends[:-1], 0)])[:200]
    assert set(draw(impl, row, np.minimum(edges, LAST), **parameters)) <= set(ids)


@cache
def expected(n, dtype, which):
    """Return what the reference draws from the first rows of `rows_of`."""
    x = rows_of(n, dtype)[: 4 if n < 10_000 else 2]
    reference = _dispatch.load("reference")
    return x, reference.sample(x, rng=which, **PARAMETERS[which])


# ---- the same ids as the reference ---------------------------------------------------------------


@pytest.mark.parametrize("which", range(len(PARAMETERS)), ids=lambda i: str(PARAMETERS[i]))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ids_are_those_of_the_reference(impl, dtype, which):
    if impl.NAME == "reference":
        pytest.skip("is the reference")
    for n in SIZES:
        x, want = expected(n, dtype, which)
        got = impl.sample(x, rng=which, **PARAMETERS[which])
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layouts(impl, dtype):
    x = rows_of(33, dtype)[:, None, :]
    misaligned = np.empty(x.nbytes + 1, dtype=np.uint8)[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x
    spaced = np.repeat(x, 2, axis=-1)[..., ::2]
    read_only = x.copy()
    read_only.flags.writeable = False
    swapped = x.astype(x.dtype.newbyteorder())
    for parameters in PARAMETERS:
        want = impl.sample(x, rng=2, **parameters)
        assert want.shape == (4, 1)
        for same in (misaligned, spaced, np.asfortranarray(x), read_only, swapped, x.tolist()):
            np.testing.assert_array_equal(impl.sample(same, rng=2, **parameters), want)
        for same in (x[::-1].copy()[::-1], x[..., ::-1].copy()[..., ::-1]):
            np.testing.assert_array_equal(impl.sample(same, rng=2, **parameters), want)


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


# ---- which ids can be drawn ----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.4, 1.0])
@pytest.mark.parametrize("top_k", [None, 0, 1, 3, 12, 1000])
@pytest.mark.parametrize("top_p", [None, 0, 0.3, 0.8, 0.97, 1])
def test_exactly_the_survivors_are_drawn(impl, top_p, top_k, temperature):
    for n, scale, dtype in ((7, 1, "float32"), (40, 3, "float64"), (120, 2, "float32")):
        row = (np.random.default_rng(n).normal(size=n) * scale).round(0 if n > 40 else 3)
        for min_p, min_keep in ((None, 1), (0.1, 1), (0.6, 4)):
            assert_drawn(
                impl,
                row.astype(dtype),
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                min_keep=min_keep,
            )


@pytest.mark.parametrize("n", [1100, 4100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exactly_the_survivors_of_a_longer_row_are_drawn(impl, dtype, n):
    row = np.random.default_rng(n).normal(size=n).round(2).astype(dtype)
    k = {"top_k": 90}
    for parameters in (k, k | {"top_p": 0.3}, {"min_p": 0.4}, {"top_p": 0.05}):
        assert_drawn(impl, row, **parameters)


@pytest.mark.parametrize("k", [1, 2, 5, 20, 64, 65])
def test_top_k_keeps_exactly_k_and_the_lower_index_among_ties(impl, k):
    row = np.tile(np.array([1.0, 0.0], dtype=np.float32), 33)[:65]  # 33 times 1 on even ids
    order = [*range(0, 65, 2), *range(1, 65, 2)][:k]
    grid = np.linspace(0, LAST, 1000)
    assert set(draw(impl, row, grid, top_k=k)) == set(order)


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 33, 100, 257])
def test_top_p_of_a_uniform_row_keeps_exactly_its_share(impl, n, dtype):
    middles = (np.arange(n) + 0.5) / n
    shares = np.unique([1, 2, 3, n // 3, n // 2, n - 1, n])
    for j in shares[(shares >= 1) & (shares <= n)]:
        for value in (0.0, -7.3):
            ids = draw(impl, np.full(n, value, dtype=dtype), [*middles, 0, LAST], top_p=j / n)
            assert set(ids) == set(range(j)), f"p = {j}/{n}"


def test_top_p_keeps_the_crossing_token(impl):
    row = np.log([0.15, 0.5, 0.05, 0.3])
    grid = [*np.linspace(0, LAST, 200)]
    kept = {0.49: {1}, 0.51: {1, 3}, 0.79: {1, 3}, 0.81: {0, 1, 3}, 0.96: {0, 1, 2, 3}}
    for p, want in kept.items():
        assert set(draw(impl, row, grid, top_p=p)) == want


@pytest.mark.slow_reference
def test_top_p_tolerates_the_rounding_of_logits(impl):
    """Logits of the probabilities w/100, rounded to float32: p = (w1 + w2 + ...)/100 is reached."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, LAST, 60)
    for _ in range(30):
        w = np.sort(rng.multinomial(85, np.full(5, 0.2)) + 3)[::-1]
        row = np.log(w / 100).astype(np.float32)
        for j in range(1, 5):
            p = w[:j].sum() / 100
            assert set(draw(impl, row, grid, top_p=p)) == set(range(j))
            assert set(draw(impl, row, grid, top_p=p * 1.00001)) == set(range(j + 1))


def test_top_p_counts_on_what_top_k_left(impl):
    row = np.log([0.4, 0.3, 0.2, 0.1])  # of the first two: 4/7 and 3/7
    grid = np.linspace(0, LAST, 200)
    assert set(draw(impl, row, grid, top_k=2, top_p=0.56)) == {0}
    assert set(draw(impl, row, grid, top_k=2, top_p=0.58)) == {0, 1}
    assert set(draw(impl, row, grid, top_p=0.56)) == {0, 1}


@pytest.mark.parametrize("no_op", [{"top_p": 1}, {"top_p": None}, {"top_k": 0}, {"top_k": None}])
@pytest.mark.parametrize("other", [{"min_p": 0}, {"min_p": None}, {"temperature": 1}])
def test_no_ops_change_nothing(impl, no_op, other):
    row = np.concatenate([np.zeros(1), np.full(299, -36.0)])  # the sum is 1 to the last bit or so
    uniforms = [*np.linspace(0, 1e-12, 50), *(1 - np.linspace(2**-53, 1e-12, 50))]
    want = draw(impl, row, uniforms)
    assert want.max() > 250
    np.testing.assert_array_equal(draw(impl, row, uniforms, **(other | no_op)), want)
    less_than_the_tolerance = np.array([0, -16, -16, -16], dtype=np.float32)
    assert draw(impl, less_than_the_tolerance, [LAST], **(other | no_op)) == 3


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_min_p_is_inclusive(impl, temperature):
    assert np.log(np.exp(-1.0)) == -1
    row = np.array([-1.001, 0, -1, -3], dtype=np.float64) * temperature
    grid = np.linspace(0, LAST, 500)
    if temperature == 1:
        assert set(draw(impl, row, grid, min_p=np.exp(-1.0))) == {1, 2}
    assert set(draw(impl, row, grid, min_p=np.exp(-0.99), temperature=temperature)) == {1}
    assert set(draw(impl, row, grid, min_p=np.exp(-1.1), temperature=temperature)) == {0, 1, 2}


@pytest.mark.parametrize("temperature", [0.1, 1, 3, 1e9, INF])
@pytest.mark.parametrize("n", [40, 1100])
def test_min_p_of_one_keeps_exactly_the_maxima(impl, n, temperature):
    row = np.random.default_rng(n).integers(0, 4, n).astype(np.float32)
    want = np.flatnonzero(row == row.max()) if temperature < INF else np.arange(n)
    uniforms = (np.arange(want.size) + 0.5) / want.size
    got = draw(impl, row, uniforms, min_p=1, temperature=temperature)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("keep", [1, 2, 3, 6, 10**6])
@pytest.mark.parametrize("strict", [{"top_k": 1}, {"top_p": 0}, {"top_p": 1e-9}, {"min_p": 1}])
def test_min_keep_holds_for_every_filter(impl, strict, keep):
    row = np.array([0.3, 0.9, 0.1, 0.9, 0.5, 0.7], dtype=np.float32)
    best = [1, 3, 5, 4, 0, 2][:keep]
    if strict == {"min_p": 1}:
        best = [1, 3, 5, 4, 0, 2][: max(keep, 2)]  # two maxima
    grid = np.linspace(0, LAST, 300)
    assert set(draw(impl, row, grid, min_keep=keep, **strict)) == set(best)


def test_min_keep_holds_for_all_filters_together(impl):
    row = np.arange(10, dtype=np.float64) / 10
    grid = np.linspace(0, LAST, 300)
    ids = draw(impl, row, grid, top_k=2, top_p=0, min_p=1, min_keep=4)
    assert set(ids) == {6, 7, 8, 9}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [3, 8, 31, 64, 1000, 2049, 5000])
def test_weight_zero_is_never_drawn(impl, n, dtype):
    """Also where rounding makes ``u * total`` and the walk disagree by a bit."""
    rng = np.random.default_rng(n)
    count = 60 if impl.NAME != "reference" else 12
    rows = rng.normal(size=(count, n)) * 3
    for row in rows:
        first, last = np.sort(rng.integers(0, n, 2))
        row[:first] = rng.choice([-INF, -2000])
        row[last + 1 :] = rng.choice([-INF, -2000])
    rows = rows.astype(dtype)
    allowed = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True)) > 0
    for parameters in ({}, {"temperature": 0.9}, {"top_p": 0.9}, {"top_k": n - 1}, {"min_p": 1e-9}):
        for u in (0.0, 2**-53, 0.5, 1 - 2**-52, LAST):
            ids = impl.sample(rows, rng=Uniforms(np.full(count, u)), **parameters)
            assert allowed[np.arange(count), ids].all()


@pytest.mark.parametrize("n", [5, 33, 2050])
def test_removed_by_minus_infinity_and_kept_by_a_filter(impl, n):
    row = np.full(n, -INF, dtype=np.float32)
    row[[1, n - 2]] = 0
    for parameters in ({"top_k": 4}, {"min_keep": 4, "top_p": 0}, {"min_keep": n, "min_p": 1}, {}):
        for temperature in (0.5, 1, INF):
            ids = draw(impl, row, [0, 0.25, 0.75, LAST], temperature=temperature, **parameters)
            assert ids.tolist() == [1, 1, n - 2, n - 2]


@pytest.mark.parametrize("n", [2, 30, 1024, 5000])
def test_first_id_whose_cumulative_weight_exceeds(impl, n):
    """Equal weights of 1: the sums are exact, and so is ``u * n`` for n a power of two."""
    row = np.zeros(n, dtype=np.float32)
    i = np.linspace(0, n - 1, 50).astype(int)
    assert draw(impl, row, np.minimum((i + 0.5) / n, LAST)).tolist() == i.tolist()
    if n & (n - 1) == 0:
        assert draw(impl, row, i / n).tolist() == i.tolist()  # reached is not exceeded
        assert draw(impl, row, np.nextafter((i + 1) / n, 0)).tolist() == i.tolist()


# ---- the ends of the temperature -----------------------------------------------------------------


@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.5}])
@pytest.mark.parametrize("n", [1, 5, 40, 3000])
def test_temperature_zero_takes_the_first_maximum(impl, n, filters):
    x = np.random.default_rng(n).integers(-3, 3, (20, n)).astype(np.float32)
    rng = np.random.default_rng(7)
    ids = impl.sample(x, temperature=0, rng=rng, **filters)
    np.testing.assert_array_equal(ids, x.argmax(axis=1))
    same = np.random.default_rng(7)
    same.random(20)
    assert rng.bit_generator.state == same.bit_generator.state, "consumes its uniforms"
    for u in (0, LAST):
        assert (impl.sample(x, temperature=0, rng=Uniforms([u] * 20), **filters) == ids).all()


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-300, 1e-40])
def test_tiny_temperatures_do_not_overflow(impl, temperature):
    x = np.array([1, 3, -INF, 3, -3e38, 2.9], dtype=np.float32)
    ids = draw(impl, x, [0, 0.25, 0.75, LAST], temperature=temperature)
    assert ids.tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("n", [5, 64, 1101])
def test_temperature_inf_is_uniform_over_what_is_finite(impl, n):
    row = np.random.default_rng(n).normal(size=n).astype(np.float32) * 1000
    row[1::3] = -INF
    finite = np.flatnonzero(row > -INF)
    uniforms = (np.arange(finite.size) + 0.5) / finite.size
    np.testing.assert_array_equal(draw(impl, row, uniforms, temperature=INF), finite)


@pytest.mark.parametrize("n", [6, 70, 5000])
def test_temperature_inf_makes_the_index_decide_in_top_p(impl, n):
    """top_k still goes by the logits; what it leaves is equally likely."""
    row = np.arange(n, dtype=np.float32)  # the best ones last
    row[-2] = -INF
    best = [n - 5, n - 4, n - 3, n - 1]
    grid = np.linspace(0, LAST, 50)
    for p, want in ((0.5, best[:2]), (0.51, best[:3]), (0, best[:1])):
        ids = draw(impl, row, grid, temperature=INF, top_k=4, top_p=p)
        assert sorted(set(ids)) == want
    ids = draw(impl, row, grid, temperature=INF, top_p=3 / (n - 1))
    assert sorted(set(ids)) == [0, 1, 2]
    ids = draw(impl, row, grid, temperature=INF, top_k=4, top_p=0, min_keep=3)
    assert sorted(set(ids)) == best[:3]


# ---- rows that cannot be drawn from --------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{}, {"temperature": 0}, {"top_k": 2, "top_p": 0.5}])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n", [3, 40, 2500])
@pytest.mark.parametrize(
    ("bad", "word"), [(np.nan, "NaN"), (-np.nan, "NaN"), (INF, r"\+inf"), (-INF, "nothing")]
)
def test_invalid_rows(impl, bad, word, n, dtype, parameters):
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


def test_the_logits_are_never_written(impl):
    x = rows_of(1025, "float32").copy()
    for parameters in PARAMETERS:
        impl.sample(x, rng=0, **parameters)
    np.testing.assert_array_equal(x, rows_of(1025, "float32"))
