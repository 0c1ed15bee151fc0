"""method="race": exact, the same bits everywhere, a function of seed, position and id alone."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from fastsoftmax._reference.race import exponentials, gumbels, log_of_parts, parts, race
from tests.calls import CALLS
from tests.dispatch.test_digests import RECORDED, digest
from tests.oracles import PARAMETERS, rows_of, survivors

INF = np.inf
WORDS = np.concatenate(
    [
        np.random.default_rng(0).integers(0, 2**64, 300, dtype=np.uint64),
        np.arange(4, dtype=np.uint64),
        ~np.arange(4, dtype=np.uint64),
        np.uint64(0xB504F333F9DE6000) + np.arange(0, 4096, 512, dtype=np.uint64),  # sqrt(1/2)
        np.uint64(1) << np.arange(64, dtype=np.uint64),
        ~(np.uint64(1) << np.arange(64, dtype=np.uint64)),
    ]
)


def draw(impl, x, position=0, seed=5, **parameters):
    return impl.sample(x, seed=seed, position=position, method="race", **parameters)


def part(impl, x, **parameters):
    """Return what wins in a part of a vocabulary, and its score."""
    return impl.sample.__self__.race_part(x, **parameters)


def scores(row, position, temperature=1.0, seed=5):
    """Return the score of each id of a row, of moderate numbers."""
    return row.astype(float) * (1 / temperature) + gumbels(seed, position, 0, row.size)


# ---- the numbers ---------------------------------------------------------------------------------


def errors(found, exact):
    """Return the largest relative error in units of 2**-53."""
    with localcontext(prec=60):
        pairs = zip(found.tolist(), exact, strict=True)
        return max(abs((Decimal(f) - e) / e) for f, e in pairs) * 2**53


def test_exponential_numbers_are_exact_in_both_tails():
    with localcontext(prec=60):
        exact = [-((w + Decimal("0.5")) / 2**64).ln() for w in map(Decimal, WORDS.tolist())]
    assert errors(exponentials(WORDS), exact) < 3
    assert exponentials(np.array([2**64 - 1], np.uint64)) == 2.0**-65
    assert errors(np.log1p(-WORDS.astype(float)[:300] * 2.0**-64), exact[:300]) > 3  # it can fail


def test_gumbel_numbers_are_exact():
    rng = np.random.default_rng(1)
    near = 1 + rng.uniform(-1, 1, 200) * 2.0 ** -rng.integers(1, 50, 200)
    t = np.concatenate([exponentials(WORDS), exponentials(WORDS) / 128, near])
    with localcontext(prec=60):
        exact = [-Decimal(v).ln() for v in t.tolist()]
    m, k = parts(t)
    assert errors(-log_of_parts(m - 1, k), exact) < 2


def test_the_largest_of_a_block_bounds_the_others():
    g = np.reshape([gumbels(s, 3, 0, 256) for s in range(40)], (-1, 128))
    assert (np.sort(g)[:, -2] < g.max(axis=1)).all()
    assert np.unique(g.argmax(axis=1)).size > 40


def test_numbers_depend_on_seed_position_draw_and_id():
    keys = ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (2**64 - 1, 0, 0))
    g = [gumbels(*key, 300) for key in keys]
    assert np.unique(g).size == 1500
    np.testing.assert_array_equal(gumbels(1, 2, 3, 1000)[:300], g[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_scores_have_the_bits_of_the_reference(compiled, dtype):
    """Of rows, by the winner's score of parts: kernels of all instruction sets and NumPy agree."""
    for n in (1, 5, 128, 129, 1000, 7000):
        x = rows_of(n, dtype)[:3]
        for position, temperature in enumerate((1.0, 0.7, 1e-4, 30.0, INF)):
            arguments = {"temperature": temperature, "seed": 9, "position": position}
            highest = x.max(axis=-1).astype(float)
            ids, found = part(compiled, x, first_id=0, highest=highest, **arguments)
            for row, i, s in zip(x.astype(float), ids, found, strict=True):
                g = gumbels(9, position, 0, n)
                want = race(row, row.max(), 1 / temperature, g, 1)
                assert (i, s) == (want[0][0], want[1][0])


def test_the_digest_is_that_of_every_instruction_set(compiled):
    """Also of those without a fused multiply-add."""
    assert digest(compiled, CALLS["sample race"]) == RECORDED["sample race"]


# ---- the ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 128, 1025, pytest.param(30_000, marks=pytest.mark.slow)])
def test_ids_are_those_of_the_reference(compiled, reference, n):
    x = rows_of(n, "float32")[: 4 if n < 10_000 else 2]
    for i, parameters in enumerate(PARAMETERS):
        for more in ({}, {"size": 3}, {"size": 9, "replace": False}):
            want = draw(reference, x, i, on_invalid="flag", **more, **parameters)
            got = draw(compiled, x, i, on_invalid="flag", **more, **parameters)
            np.testing.assert_array_equal(got, want, err_msg=f"{parameters} {more}")


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_the_largest_score_of_the_survivors_wins(impl, parameters):
    """Filters don't change what an id scores: of the survivors, those of the whole row."""
    row = rows_of(700, "float64")[0]
    temperature = parameters.get("temperature", 1.0)
    for position in range(8):
        if 0 < temperature < INF:
            ids, _ = survivors(row, **parameters)
            want = ids[scores(row, position, temperature)[ids].argmax()]
            assert draw(impl, row, position, **parameters) == want


@pytest.mark.parametrize(
    "parameters",
    [
        {"top_p": 0.9},
        {"top_p": 0.97, "temperature": 2.0},
        {"top_p": 0.9, "min_p": 0.001},
        {"min_p": 0.001},
    ],
    ids=str,
)
def test_many_survivors_are_not_listed_unless_some_of_equals_are(compiled, reference, parameters):
    x = rows_of(6000, "float32")
    for position in range(3):
        want = draw(reference, x, position, **parameters)
        np.testing.assert_array_equal(draw(compiled, x, position, **parameters), want)


@pytest.mark.parametrize("n", [3, 128, 3000])
def test_without_replacement_it_is_the_order_of_the_scores(impl, n):
    row = rows_of(n, "float32")[0]
    order = np.argsort(-scores(row, 4, 1.3))
    for size in (1, 2, 3, n):
        ids = draw(impl, row, 4, temperature=1.3, size=size, replace=False)
        np.testing.assert_array_equal(ids, order[:size])


def test_draws_with_replacement_have_numbers_of_their_own(impl):
    row = np.zeros(1000, np.float32)
    ids = draw(impl, row, 2, size=100)
    assert ids[0] == draw(impl, row, 2) == draw(impl, row, 2, size=1, replace=False)[0]
    np.testing.assert_array_equal(draw(impl, row, 2, size=40), ids[:40])
    assert np.unique(ids).size > 80
    assert (ids != draw(impl, row, 3, size=100)).sum() > 90


@pytest.mark.parametrize("parameters", [{}, {"top_p": 0.9}, {"top_k": 40}], ids=str)
def test_nothing_but_values_seed_and_position_counts(impl, parameters):
    """Not the batch, the number of workers, strides, byte order, or a wider type."""
    x = np.random.default_rng(3).normal(size=(6, 2000)).astype(np.float16) * 3
    seed, position = np.arange(6) - 3, np.arange(6)[::-1] * 7
    want = draw(impl, x, position, seed, **parameters)
    assert np.unique(want).size > 3
    for i in range(6):
        assert draw(impl, x[i], int(position[i]), int(seed[i]), **parameters) == want[i]
    wide = np.repeat(x.astype(np.float32), 2, axis=1)[:, ::2]
    forms = [x.astype(np.float32), wide, np.asfortranarray(x), x.astype(">f8")]
    if parameters.get("top_p"):  # whose eps is that of the type
        forms.pop()
    for form in forms:
        np.testing.assert_array_equal(draw(impl, form, position, seed, **parameters), want)
        got = draw(impl, form, position, seed, workers=2, **parameters)
        np.testing.assert_array_equal(got, want)


def test_ids_are_stable_under_tiny_changes(impl):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(50, 500)) * 2
    position = np.arange(50)
    ids = draw(impl, x, position)
    assert (draw(impl, x + 1e-9 * rng.normal(size=x.shape), position) == ids).all()
    assert (draw(impl, x + 3, position) == ids).all()
    lower = np.where(rng.random(x.shape) < 0.3, -1, 0)
    assert 0.6 < (draw(impl, x + lower, position) == ids).mean() < 1


def test_a_row_that_is_packed_by_parts(compiled):
    x = np.random.default_rng(5).normal(size=(1 << 20) + 300).astype(np.float16) * 4
    for parameters in ({}, {"top_k": 1000}, {"size": 5, "replace": False}):
        want = draw(compiled, x.astype(np.float32), 1, **parameters)
        np.testing.assert_array_equal(draw(compiled, x, 1, **parameters), want)


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_parts_of_a_vocabulary_merge_by_a_maximum(compiled, scale, temperature):
    """The id and the score of whole rows, to the bit, however they are cut at multiples of 128."""
    rng = np.random.default_rng(6)
    x = (rng.normal(size=(50, 3000)) * scale).astype(np.float32)
    x[:, 1280:1408] = -INF
    highest, position = x.max(axis=1).astype(float), np.arange(50)
    arguments = {"highest": highest, "temperature": temperature, "seed": 5, "position": position}
    whole = part(compiled, x, first_id=0, **arguments)
    np.testing.assert_array_equal(whole[0], draw(compiled, x, position, temperature=temperature))
    for cuts in ([1536], [128, 256, 2048], [*range(128, 3000, 128)]):
        parts = [
            part(compiled, some, first_id=first, **arguments)
            for first, some in zip([0, *cuts], np.split(x, cuts, axis=1), strict=True)
        ]
        ids, found = (np.stack(p) for p in zip(*parts, strict=True))
        best = found.argmax(axis=0)  # of equal scores the first part
        np.testing.assert_array_equal(ids[best, position], whole[0])
        np.testing.assert_array_equal(found[best, position], whole[1])


# ---- values at the edges -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_temperature_0_and_inf(impl, dtype):
    x = np.array([[1, 5, 5, -INF], [-2, -3, -INF, -1]], dtype)
    np.testing.assert_array_equal(draw(impl, x, temperature=0), [1, 3])
    np.testing.assert_array_equal(draw(impl, x, temperature=0, size=2), [[1, 1], [3, 3]])
    np.testing.assert_array_equal(draw(impl, x, temperature=1e-320)[1], 3)
    assert {draw(impl, x[0], p, temperature=1e-320) for p in range(20)} == {1, 2}
    wide = np.broadcast_to(x[:, None], (2, 80, 4))
    ids = draw(impl, wide, np.arange(80), temperature=INF)
    counts = [np.bincount(row, minlength=4) for row in ids]
    assert (np.array(counts)[:, [0, 1, 3]][1] > 12).all()
    assert [c.min() for c in counts] == [0, 0]
    assert counts[0][3] == counts[1][2] == 0


@pytest.mark.slow_reference
@pytest.mark.parametrize("level", [0, 200, -300, 1e9, -1e30, 3e38, 1e300, -1.7e308], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 1e-3, 1e300, 1e-308])
def test_equal_logits_are_equally_likely_at_any_level(impl, level, temperature):
    """Scores keep the bits of g where logits / T is large, or overflows."""
    row = np.full(300, level, np.float64)
    ids = [draw(impl, row, p, temperature=temperature) for p in range(12)]
    zeros = [draw(impl, row * 0, p) for p in range(12)]
    assert ids == zeros  # as -1e30 masks leave them
    assert len(set(ids)) > 6


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("bad", [np.nan, INF, -INF])
def test_invalid_rows(impl, bad, replace):
    x = np.zeros((2, 2, 400), np.float32)
    want = draw(impl, x, size=3, replace=replace)
    x[1, 0] = bad
    with pytest.raises(ValueError, match=r"^logits has .*\(1, 0\)"):
        draw(impl, x, size=3, replace=replace)
    want[1, 0] = -1
    got = draw(impl, x, size=3, replace=replace, on_invalid="flag")
    np.testing.assert_array_equal(got, want)
    if bad != -INF:  # one among finite ones
        x[1, 0], x[1, 0, 333] = 0, bad
        np.testing.assert_array_equal(draw(impl, x, size=3, on_invalid="flag")[1, 0], [-1] * 3)


def test_minus_infinity_is_never_drawn_and_all_else_is_in_the_end(impl):
    row = np.full(500, -INF, np.float32)
    row[[3, 200, 201, 499]] = 0, -5000, -1, -2
    ids = draw(impl, row, size=6, replace=False, on_invalid="flag")
    assert sorted(ids) == [-1, -1, 3, 200, 201, 499]
    assert ids[3] == 200  # its weight in float64 is 0
    with pytest.raises(ValueError, match=r"^size is 6; allowed without replacement is 0 to 4"):
        draw(impl, row, size=6, replace=False)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (0, 5), (2, 0, 5), ()])
def test_shape_of_the_ids(impl, shape):
    for size in (None, 0, 1, 4):
        ids = draw(impl, np.zeros(shape), size=size)
        assert ids.shape == shape[:-1] + (() if size is None else (size,))
        assert ids.dtype == np.int64


# ---- arguments, and what is reported -------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"method": "Race"}, ValueError, "method is 'Race'; allowed are 'inverse', 'race'"),
        ({"method": None}, ValueError, "method is None; allowed are 'inverse', 'race'"),
        ({"rng": 3, "seed": None, "position": None}, ValueError, "rng is 3; allowed is None with"),
        ({"rng": 3}, ValueError, "rng is 3; allowed is None with method='race'"),
        ({"seed": None}, TypeError, "seed is None; allowed with method='race' are integers, -2"),
        ({"position": None}, TypeError, "position is None; allowed with method='race' are"),
        ({"seed": 1.5}, TypeError, "seed is 1.5; allowed are integers"),
        ({"position": 2**64}, ValueError, "position is 18446744073709551616; allowed is -2"),
        ({"seed": [1, 2, 3]}, ValueError, "seed has shape (3,), which does not broadcast"),
    ],
)
def test_wrong_arguments(impl, arguments, error, says):
    for function in (impl.sample, impl.sample_with_logprobs):
        with pytest.raises(error) as caught:
            function(np.zeros((2, 3)), **{"method": "race", "seed": 1, "position": 2, **arguments})
        assert str(caught.value).startswith(says)


@pytest.mark.slow_reference
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("size", [None, 4])
def test_log_probabilities_are_of_the_ids_of_sample(impl, parameters, size):
    x = rows_of(1000, "float32")
    arguments = {"seed": 3, "position": np.arange(4), "method": "race", "size": size, **parameters}
    got = impl.sample_with_logprobs(x, **arguments)
    np.testing.assert_array_equal(got.ids, impl.sample(x, **arguments))
    temperature = parameters.get("temperature", 1.0)
    want = impl.token_logprobs(x, got.ids, temperature=temperature)
    np.testing.assert_array_equal(got.logprobs, want)
    np.testing.assert_array_equal(got.ranks, impl.rank(x, got.ids))
    filtered = impl.filter_logits(x, **parameters)
    want = impl.token_logprobs(filtered, got.ids)
    np.testing.assert_allclose(got.filtered_logprobs, want, rtol=1e-5, atol=1e-6)
