"""Which ids can be drawn: what each filter leaves, and the ends of the temperature."""

import numpy as np
import pytest

from tests.oracles import Uniforms, draw, survivors

LAST = 1 - 2**-53  # the largest float64 below 1 that a generator gives
INF = np.inf


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


@pytest.mark.slow_reference
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


@pytest.mark.slow_reference
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


@pytest.mark.slow_reference
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


@pytest.mark.slow_reference
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
