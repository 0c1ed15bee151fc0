"""What the softmax family gives for special values, masks and temperatures."""

import math

import numpy as np
import pytest

INF = np.inf
NAN = np.nan
LENGTHS = (5, 33, 5000)  # one padded step; one step and a rest; several blocks


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def ordinary(n, dtype):
    """Return a row of n finite numbers from -3 to 3, exact in every dtype."""
    return ((np.arange(n) * 5) % 13 - 6).astype(dtype) / 2


def with_entries(n, dtype, value, places):
    """Return an ordinary row with `value` put at `places` (fractions of the row)."""
    x = ordinary(n, dtype)
    for place in places:
        x[int(place * (n - 1))] = value
    return x


def outputs(impl, x, **kwargs):
    """Return softmax and log_softmax of x, and check that they kept its shape and dtype."""
    pair = impl.softmax(x, **kwargs), impl.log_softmax(x, **kwargs)
    for y in pair:
        assert y.shape == x.shape
        assert y.dtype == x.dtype
    return pair


def near(dtype):
    return {"rtol": 100 * np.finfo(dtype).eps, "atol": 100 * np.finfo(dtype).eps}


PLACES = [(0,), (0.5,), (1,), (0, 0.5, 1)]


# ---- special entries -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("places", PLACES)
def test_minus_inf_is_as_if_absent(impl, dtype, n, places):
    x = with_entries(n, dtype, -INF, places)
    gone = np.isneginf(x)
    p, log_p = outputs(impl, x)
    assert (p[gone] == 0).all()
    assert not np.signbit(p).any()
    assert np.isneginf(log_p[gone]).all()
    p_rest, log_p_rest = outputs(impl, x[~gone])
    np.testing.assert_allclose(p[~gone], p_rest, **near(dtype))
    np.testing.assert_allclose(log_p[~gone], log_p_rest, **near(dtype))
    np.testing.assert_allclose(impl.logsumexp(x), impl.logsumexp(x[~gone]), **near(dtype))


@pytest.mark.parametrize("n", [1, *LENGTHS])
def test_nothing_but_minus_inf(impl, dtype, n):
    x = np.full(n, -INF, dtype)
    for y in outputs(impl, x):
        assert np.isnan(y).all()
    assert impl.logsumexp(x) == -INF


@pytest.mark.parametrize("n", [1, *LENGTHS])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("others", ["finite", "-inf"])
def test_plus_inf_makes_the_row_nan(impl, dtype, n, places, others):
    x = with_entries(n, dtype, INF, places)
    if others == "-inf":
        x[np.isfinite(x)] = -INF
    for y in outputs(impl, x):
        assert np.isnan(y).all()
    assert impl.logsumexp(x) == INF


@pytest.mark.parametrize("n", [1, *LENGTHS])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("others", ["finite", "-inf", "+inf"])
def test_nan_makes_the_row_nan(impl, dtype, n, places, others):
    x = with_entries(n, dtype, NAN, places)
    if others != "finite":
        x[np.isfinite(x)] = float(others)
    for y in outputs(impl, x):
        assert np.isnan(y).all()
    assert np.isnan(impl.logsumexp(x))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0, INF])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_bad_row_spoils_no_other(impl, dtype, n, temperature, bad):
    x = np.stack([ordinary(n, dtype), np.full(n, bad, dtype), ordinary(n, dtype)[::-1]])
    for f in (impl.softmax, impl.log_softmax):
        y = f(x, temperature=temperature)
        assert np.isnan(y[1]).all()
        for i in (0, 2):
            np.testing.assert_array_equal(y[i], f(x[i], temperature=temperature))
            assert not np.isnan(y[i]).any()
    assert np.isfinite(impl.logsumexp(x)[[0, 2]]).all()


@pytest.mark.parametrize("temperature", [0, 1e-310, 0.5, 1e300, INF])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("bad", [NAN, INF])
def test_nan_and_plus_inf_at_other_temperatures(impl, dtype, temperature, places, bad):
    for n in LENGTHS:
        for y in outputs(impl, with_entries(n, dtype, bad, places), temperature=temperature):
            assert np.isnan(y).all()


@pytest.mark.parametrize("temperature", [0, 1e-310, 0.5, 1e300, INF])
def test_nothing_but_minus_inf_at_other_temperatures(impl, dtype, temperature):
    for y in outputs(impl, np.full(40, -INF, dtype), temperature=temperature):
        assert np.isnan(y).all()


def test_differences_that_overflow(impl, dtype):
    top = np.finfo(dtype).max
    p, log_p = outputs(impl, np.array([top, -top, top], dtype))
    assert p.tolist() == [0.5, 0, 0.5]
    np.testing.assert_allclose(log_p[[0, 2]], -math.log(2), **near(dtype))
    assert log_p[1] <= -top
    assert impl.logsumexp(np.array([top, -top], dtype)) == top


def test_a_row_of_one(impl, dtype):
    x = np.array([[3], [-1e30], [0]], dtype)
    p, log_p = outputs(impl, x)
    assert (p == 1).all()
    assert (log_p == 0).all()
    np.testing.assert_array_equal(impl.logsumexp(x), x[:, 0])


# ---- where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("hidden", [NAN, INF, -INF, 1e30])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0, INF])
def test_where_false_is_as_if_absent(impl, dtype, n, hidden, temperature):
    where = np.arange(n) % 3 != 1
    x = np.where(where, ordinary(n, dtype), dtype(hidden))
    p, log_p = outputs(impl, x, where=where, temperature=temperature)
    assert (p[~where] == 0).all()
    assert np.isneginf(log_p[~where]).all()
    p_rest, log_p_rest = outputs(impl, x[where], temperature=temperature)
    np.testing.assert_allclose(p[where], p_rest, **near(dtype))
    np.testing.assert_allclose(log_p[where], log_p_rest, **near(dtype))
    lse = impl.logsumexp(x, where=where)
    np.testing.assert_allclose(lse, impl.logsumexp(x[where]), **near(dtype))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0, INF])
def test_where_false_is_zero_in_a_nan_row_too(impl, dtype, bad, temperature):
    x = np.array([bad, 1, bad, 2], dtype)
    where = np.array([True, False, True, False])
    p, log_p = outputs(impl, x, where=where, temperature=temperature)
    np.testing.assert_array_equal(p, [NAN, 0, NAN, 0])
    np.testing.assert_array_equal(log_p, [NAN, -INF, NAN, -INF])


@pytest.mark.parametrize("n", [1, *LENGTHS])
@pytest.mark.parametrize("hidden", [NAN, INF, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0, INF])
def test_every_where_false(impl, dtype, n, hidden, temperature):
    x = np.full((2, n), hidden, dtype)
    x[0] = ordinary(n, dtype)
    where = np.array([[True], [False]])
    p, log_p = outputs(impl, x, where=where, temperature=temperature)
    assert (p[1] == 0).all()
    assert np.isneginf(log_p[1]).all()
    np.testing.assert_array_equal(p[0], impl.softmax(x[0], temperature=temperature))
    assert impl.logsumexp(x, where=where)[1] == -INF


def test_every_where_true_changes_no_bit(impl, dtype):
    x = ordinary(100, dtype)
    for a, b in zip(outputs(impl, x, where=True), outputs(impl, x), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- no entries, no rows -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 0, 0)])
def test_empty_axis(impl, dtype, shape):
    x = np.empty(shape, dtype)
    outputs(impl, x)
    outputs(impl, x, where=True, temperature=0.5)
    lse = impl.logsumexp(x)
    assert lse.shape == shape[:-1]
    assert lse.dtype == dtype
    assert np.isneginf(lse).all()


@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (2, 0, 5)])
def test_no_rows(impl, dtype, shape):
    x = np.empty(shape, dtype)
    outputs(impl, x)
    outputs(impl, x, temperature=np.ones(shape[:-1]))
    assert impl.logsumexp(x).shape == shape[:-1]
    assert impl.logsumexp(x).dtype == dtype
    assert impl.logsumexp(x, keepdims=True).shape == (*shape[:-1], 1)


# ---- temperature ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", LENGTHS)
def test_temperature_one_changes_no_bit(impl, dtype, n):
    x = ordinary(n, dtype) * dtype(1.1)
    for one in (1, 1.0, np.float32(1), np.ones(())):
        for a, b in zip(outputs(impl, x, temperature=one), outputs(impl, x), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("places", [(0,), (0.5,), (1,), (0.5, 1)])
@pytest.mark.parametrize("top", [9.0, 1e30])
def test_temperature_zero_takes_the_first_maximum(impl, dtype, n, places, top):
    x = with_entries(n, dtype, top, places)
    x[int(0.25 * (n - 1))] = -INF
    p, log_p = outputs(impl, x, temperature=0)
    expected = np.arange(n) == int(places[0] * (n - 1))
    np.testing.assert_array_equal(p, expected)
    np.testing.assert_array_equal(log_p, np.where(expected, 0, -INF))


def test_temperature_zero_has_one_zero(impl, dtype):
    x = np.array([-0.0, 0.0, -1.0], dtype)
    assert impl.softmax(x, temperature=0).tolist() == [1, 0, 0]
    assert impl.softmax(x[::-1], temperature=0).tolist() == [0, 1, 0]


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("temperature", [INF, 1e300])
def test_infinite_temperature_is_uniform(impl, dtype, n, temperature):
    x = with_entries(n, dtype, -INF, (0.5,))
    p, log_p = outputs(impl, x, temperature=temperature)
    expected = np.where(np.isneginf(x), 0, 1 / (n - 1))
    np.testing.assert_allclose(p, expected, rtol=np.finfo(dtype).eps, atol=0)
    expected = np.where(np.isneginf(x), -INF, -math.log(n - 1))
    np.testing.assert_allclose(log_p, expected, rtol=np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("temperature", [1e-30, 1e-310, 5e-324])
def test_tiny_temperature_overflows_nowhere(impl, dtype, temperature):
    x = np.array([1.0, 3.0, -1e30, 3.0, 2.5, -INF], dtype)
    p, log_p = outputs(impl, x, temperature=temperature)
    assert p.tolist() == [0, 0.5, 0, 0.5, 0, 0]
    np.testing.assert_allclose(log_p[[1, 3]], -math.log(2), rtol=np.finfo(dtype).eps)
    assert (np.delete(log_p, [1, 3]) < -1e29).all()


def test_inverse_temperature_is_held_at_the_largest_number(impl):
    x = np.array([0.0, -(2.0**-1023)])  # times the largest number: -2
    for temperature in (1e-310, 5e-324):
        p = impl.softmax(x, temperature=temperature)
        np.testing.assert_allclose(p[1] / p[0], math.exp(-2), rtol=1e-14)


def test_temperature_for_each_row(impl, dtype):
    t = np.array([[1.0, 0.5, 0.0], [INF, 3.0, 1e-310]])
    x = np.stack([ordinary(40, dtype) + dtype(i) for i in range(6)]).reshape(2, 3, 40)
    for f in (impl.softmax, impl.log_softmax):
        y = f(x, temperature=t)
        for i in np.ndindex(t.shape):
            np.testing.assert_array_equal(y[i], f(x[i], temperature=t[i]))
        rows = f(x, temperature=t[1])  # broadcasts over the first axis
        np.testing.assert_array_equal(rows, f(x, temperature=np.stack([t[1], t[1]])))
        columns = f(np.moveaxis(x, 2, 0), axis=0, temperature=t)
        np.testing.assert_array_equal(columns, np.moveaxis(y, 2, 0))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    ("temperature", "error", "message"),
    [
        (-1, ValueError, r"temperature is -1\.0; allowed is 0 to inf"),
        (-INF, ValueError, r"temperature is -inf; allowed is 0 to inf"),
        (NAN, ValueError, r"temperature is nan; allowed is 0 to inf"),
        ([1, -0.5], ValueError, r"temperature is -0\.5; allowed is 0 to inf"),
        ([1, NAN], ValueError, r"temperature is nan; allowed is 0 to inf"),
        ([1, 1, 1], ValueError, r"temperature has shape \(3,\).* rows' shape \(2,\)"),
        ([[1, 1]] * 2, ValueError, r"temperature has shape \(2, 2\).* rows' shape \(2,\)"),
        (1j, TypeError, r"temperature is 1j; allowed are real numbers"),
        ("1", TypeError, r"temperature is '1'; allowed are real numbers"),
        (None, TypeError, r"temperature is None; allowed are real numbers"),
    ],
)
def test_wrong_temperatures(impl, name, temperature, error, message):
    x = np.zeros((2, 4))
    out = np.full((2, 4), 7.0)
    with pytest.raises(error, match=message):
        getattr(impl, name)(x, temperature=temperature, out=out)
    assert (out == 7).all()


# ---- log1p ---------------------------------------------------------------------------------------


def test_logsumexp_keeps_what_the_maximum_would_hide(impl):
    assert impl.logsumexp([0.0, -40.0]) == 4.248354255291589e-18
    assert impl.logsumexp([-700.0, 0.0]) == pytest.approx(math.exp(-700), rel=1e-14)


@pytest.mark.parametrize("place", [0, 1, 40, 4999])
def test_log_softmax_is_not_zero_while_another_entry_counts(impl, dtype, place):
    x = np.full(5000, -INF, dtype)
    x[place] = 2
    x[(place + 2500) % 5000] = -38
    top = impl.log_softmax(x)[place]
    assert top == pytest.approx(-math.exp(-40), rel=40 * float(np.finfo(dtype).eps))
    x[place] = 0
    x[(place + 2500) % 5000] = -40
    assert impl.logsumexp(x) == pytest.approx(math.exp(-40), rel=40 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("n", LENGTHS)
def test_only_one_of_equal_maxima_is_left_out(impl, dtype, n):
    x = np.zeros(n, dtype)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(impl.logsumexp(x), math.log(n), rtol=eps)
    np.testing.assert_allclose(impl.log_softmax(x), -math.log(n), rtol=eps)


# ---- sums and warnings ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 32, 33, 1000, 2049, 5000, 30_003])
def test_rows_sum_to_one(impl, dtype, n):
    for spread in (0, 1e-3, 1, 20, 200):
        x = np.cos(np.arange(n) * 1.3).astype(dtype) * dtype(spread)
        for temperature in (1.0, 0.7):
            p = impl.softmax(x, temperature=temperature)
            excess = math.fsum([*p.tolist(), -1.0])  # exact, then rounded once
            assert abs(excess) <= 4 * np.finfo(dtype).eps  # 8 u


def test_no_floating_point_error_is_signalled(impl, dtype):
    """The suite turns warnings into errors; here NumPy is told to raise as well."""
    big = np.finfo(dtype).max
    rows = [[NAN, INF, -INF], [-INF] * 3, [INF] * 3, [big, -big, 0], [0, -90, -800], [0, -103, 1]]
    x = np.array(rows, dtype)
    with np.errstate(all="ignore"):
        arrays = x, x.T, x.astype(np.float16), x.astype(x.dtype.newbyteorder())
    with np.errstate(all="raise"):
        for a in arrays:
            for temperature in (1, 0, 1e-310, 0.3, 1e300, INF):
                impl.softmax(a, temperature=temperature)
                where = np.arange(a.shape[-1]) % 2 == 0
                impl.log_softmax(a, temperature=temperature, where=where)
            impl.logsumexp(a)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 5, 40, 1000, 5000])
def test_rows_without_probabilities_are_all_of_one_nan(impl, dtype, n):
    """Which of several NaN comes out of an operation is no one's promise."""
    if impl.NAME == "reference":
        pytest.skip("NumPy chooses there")
    x = np.zeros((8, n), dtype)
    for row, value in enumerate((np.nan, -np.nan, np.inf, -np.inf)):
        x[row, n // 2] = value
    x[3] = -np.inf
    x[4], x[4, 0], x[4, -1] = 1, -np.nan, np.nan
    x[5] = np.nan
    one = np.array(np.nan, dtype).tobytes()
    for f in (impl.softmax, impl.log_softmax):
        for y in (f(x), f(x, temperature=0.7), f(x.T.copy(), axis=0).T):
            assert np.ascontiguousarray(y[:6]).tobytes() == one * (6 * n)
            assert np.isfinite(y[6:]).all()
    y = impl.logsumexp(x)
    assert y[[0, 1, 4, 5]].tobytes() == one * 4
    assert y[2] == -y[3] == np.inf
