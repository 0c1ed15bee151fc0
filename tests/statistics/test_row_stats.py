"""row_stats: each figure is that of the function that gives it alone, in every regime."""

import numpy as np
import pytest

INF, NAN = np.inf, np.nan
NAMES = ("max", "argmax", "logsumexp", "entropy", "margin")
LENGTHS = [1, 2, 7, 33, 255, 256, 257, 2049, 5000, pytest.param(70_001, marks=pytest.mark.slow)]


def rows_of(n, dtype):
    """Return rows in orders that a selection may find hard, and with NaN and infinities."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((11, n)) * 3
    x[1] = 0.5  # constant
    x[2] = np.arange(n) / n
    x[3] = -x[2]
    x[4] = np.round(x[4])  # ties
    x[5, ::8] += 20  # all of the best in one lane
    x[6, n // 2 :] = NAN
    x[7, n // 2] = INF
    x[8] = -INF
    x[9, : n - 1] = -INF
    x[10, n // 3] = -INF
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("n", LENGTHS)
def test_figures_are_those_of_their_functions(compiled, dtype, n):
    x = rows_of(n, dtype)
    top = min(n, 40)
    ids = np.random.default_rng(1).integers(0, n, (len(x), 3))
    ids[:, 0] = n // 2
    got = compiled.row_stats(x, top=top, ids=ids)
    bad = np.isnan(x).any(-1)
    np.testing.assert_array_equal(got.max, x.max(-1))
    np.testing.assert_array_equal(got.argmax, np.where(bad, -1, x.argmax(-1)))
    assert got.logsumexp.tobytes() == compiled.logsumexp(x).tobytes()
    assert got.entropy.tobytes() == compiled.entropy(x).tobytes()
    best = compiled.top_k(x, top)
    np.testing.assert_array_equal(got.top_indices, best.indices)
    np.testing.assert_array_equal(got.top_values, best.values)
    np.testing.assert_array_equal(got.ranks, compiled.rank(x, ids))
    two = compiled.top_k(x, min(n, 2)).values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        margin = two[:, 0] - two[:, 1] if n > 1 else np.full(len(x), INF)
    margin = np.where(bad | ~np.isfinite(x.max(-1)), NAN, margin)
    np.testing.assert_allclose(got.margin, margin.astype(dtype), rtol=1e-3)


def test_it_is_what_the_reference_says(impl, reference):
    for t in (1.0, 0.3, 0, INF, 1e-34):
        x = rows_of(40, "float32")
        got = impl.row_stats(x, top=5, ids=np.arange(11), temperature=t)
        want = reference.row_stats(x, top=5, ids=np.arange(11), temperature=t)
        for name, a, b in zip(got._fields, got, want, strict=True):
            assert a.dtype == b.dtype, name
            np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-30, err_msg=f"{name} {t}")


@pytest.mark.parametrize("top", [1, 3, 17, 128])
def test_long_lists(compiled, top):
    """As many as there may be, also of equal entries, which fill the list many times over."""
    rng = np.random.default_rng(top)
    for x in (
        rng.standard_normal(4000),
        np.zeros(4000),
        rng.integers(0, 3, 4000).astype(float),
        np.arange(4000.0),
        np.append(np.full(3990, NAN), np.arange(10.0)),
    ):
        for dtype in ("float32", "float64"):
            got = compiled.row_stats(x.astype(dtype), (), top=top)
            want = compiled.top_k(x.astype(dtype), top)
            np.testing.assert_array_equal(got.top_indices, want.indices)
            np.testing.assert_array_equal(got.top_values, want.values)


def test_only_what_is_asked_for(impl):
    x = rows_of(9, "float64")
    every = impl.row_stats(x)
    for name in NAMES:
        one = impl.row_stats(x, name)
        np.testing.assert_array_equal(getattr(one, name), getattr(every, name))
        assert sum(a is not None for a in one) == 1
    assert impl.row_stats(x, ()) == (None,) * 8


def test_axis_and_a_row_alone(impl):
    x = np.random.default_rng(3).standard_normal((4, 5, 6))
    ids = np.arange(24).reshape(4, 6) % 5
    got = impl.row_stats(x, axis=1, top=2, ids=ids)
    want = impl.row_stats(np.moveaxis(x, 1, -1).copy(), top=2, ids=ids)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    one = impl.row_stats(x[0, 0], top=2, ids=3)
    assert isinstance(one.max, np.float64)
    assert one.top_values.shape == (2,)


def test_a_temperature_for_each_row(impl):
    x = np.random.default_rng(3).standard_normal((4, 50))
    t = np.array([0.5, 1.0, 2.0, 0.1])
    got = impl.row_stats(x, temperature=t)
    for i in range(4):
        one = impl.row_stats(x[i], temperature=t[i])
        assert [a[i] for a in got[:5]] == list(one[:5])


def test_wrong_arguments(impl):
    x = np.zeros((3, 9))
    for kwargs, error, says in (
        ({"want": "mean"}, ValueError, "want has 'mean'; allowed are 'max'"),
        ({"want": ["max", 3]}, ValueError, "want has 3"),
        ({"want": 3}, TypeError, "want is 3"),
        ({"top": 10}, ValueError, "top is 10; allowed is 0 to 9"),
        ({"top": -1}, ValueError, "top is -1"),
        ({"top": 1.5}, TypeError, "top is 1.5"),
        ({"axis": (0, 1)}, TypeError, "axis is"),
        ({"axis": 2}, np.exceptions.AxisError, "axis"),
        ({"ids": 9}, ValueError, "ids"),
        ({"ids": [0, 1, 9]}, IndexError, "9"),
        ({"temperature": -1}, ValueError, "temperature is -1"),
    ):
        with pytest.raises(error, match=says):
            impl.row_stats(x, **kwargs)
    with pytest.raises(ValueError, match="allowed is 0 to 128"):
        impl.row_stats(np.zeros(200), top=129)
