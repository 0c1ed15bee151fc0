"""Entropies, divergences, means and weighted sums: special values, arguments, SciPy's figures."""

import warnings

import numpy as np
import pytest
import scipy.special

INF, NAN = np.inf, np.nan

#: A row, its logmeanexp and its entropy.
SPECIAL = [
    ([NAN, 1.0], NAN, NAN),
    ([INF, 1.0], INF, NAN),
    ([INF, -INF], INF, NAN),
    ([NAN, INF], NAN, NAN),
    ([-INF, -INF], -INF, NAN),
    ([-INF, NAN], NAN, NAN),
    ([-INF, 3.0], 3 - np.log(2), 0.0),
    ([3.0], 3.0, 0.0),
    ([], NAN, NAN),
]
LENGTHS = (1, 700, 5000)


def long(row, n):
    """Return a row with its numbers again and again, and the number that it is n times of."""
    return np.repeat(np.array(row, np.float64), n)


@pytest.mark.parametrize(("row", "mean", "entropy"), SPECIAL)
def test_rows_without_a_distribution(impl, row, mean, entropy):
    for n in LENGTHS:
        x = long(row, n)
        np.testing.assert_allclose(impl.logmeanexp(x), mean)
        for t in (1.0, 0.7, 1e-35, INF):
            if np.isnan(entropy):
                assert np.isnan(impl.entropy(x, temperature=t))
            finite = np.isfinite(x).sum() if x.size else 0
            if not np.isnan(entropy):
                np.testing.assert_allclose(impl.entropy(x, temperature=t), np.log(finite))


def test_a_bad_row_spoils_no_other(impl):
    x = np.array([[0.0, 1.0], [NAN, 0.0], [INF, 0.0], [1.0, 0.0]])
    for function in (impl.entropy, impl.logmeanexp, lambda x: impl.kl_divergence(x, x)):
        got = function(x)
        assert np.isfinite(got[[0, 3]]).all()
        assert got[0] == got[3]
        assert not np.isfinite(got[[1, 2]]).any()


def test_temperature_zero(impl):
    x = np.array([[1.0, 3.0, 3.0], [3.0, -INF, 1.0], [NAN, 1.0, 0.0]])
    np.testing.assert_array_equal(impl.entropy(x, temperature=0), [0, 0, NAN])
    y = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(impl.kl_divergence(x, y, temperature=0), [0, INF, NAN])
    np.testing.assert_array_equal(impl.kl_divergence(y, x, temperature=0), [0, INF, NAN])
    lse = impl.softmax(np.array([[-1.0, 0.0], [2.0, 1.0]]), temperature=0, return_lse=True).lse
    np.testing.assert_array_equal(lse, [0, INF])


def test_infinite_temperature(impl):
    x, y = [5.0, -INF, 1.0, 2.0], [5.0, 0.0, 1.0, 2.0]
    np.testing.assert_allclose(impl.entropy(x, temperature=INF), np.log(3))
    np.testing.assert_allclose(impl.kl_divergence(x, y, temperature=INF), np.log(4 / 3))
    assert impl.kl_divergence(y, x, temperature=INF) == INF
    assert np.isnan(impl.kl_divergence([1.0, NAN], [0.0, 0.0], temperature=INF))
    assert np.isnan(impl.kl_divergence([0.0, 0.0], [1.0, NAN], temperature=INF))


def test_divergence_of_what_has_no_weight(impl):
    for n in LENGTHS:
        x, y = long([0.0, -INF], n), long([1.0, 0.5], n)
        np.testing.assert_allclose(impl.kl_divergence(x, y), np.log1p(np.exp(-0.5)))
        assert impl.kl_divergence(y, x) == INF
        assert impl.kl_divergence(x, x) == 0
        assert np.isnan(impl.kl_divergence(x, np.full(x.size, -INF)))


def test_divergence_is_not_below_zero(impl):
    x = np.random.default_rng(0).standard_normal((200, 50))
    assert (impl.kl_divergence(x, x + 3.3) >= 0).all()
    assert (impl.kl_divergence(x, x) == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(3, 7), (4, 700), (2, 3000)])
def test_where_is_as_if_absent(impl, dtype, shape):
    rng = np.random.default_rng(shape[1])
    x, y = rng.standard_normal((2, *shape)).astype(dtype)
    where = rng.random(shape) < 0.6
    where[0] = False
    calls = (
        lambda x, y, **w: impl.entropy(x, temperature=0.7, **w),
        lambda x, y, **w: impl.kl_divergence(x, y, **w),
        lambda x, y, **w: impl.logmeanexp(x, **w),
        lambda x, y, **w: impl.logsumexp(x, b=y, return_sign=True, **w)[0],
    )
    for call in calls:
        bad = np.where(where, x, np.asarray(NAN, dtype))
        bad_y = np.where(where, y, np.asarray(NAN, dtype))
        got = call(bad, bad_y, where=where)
        want = [call(x[i][where[i]], y[i][where[i]]) for i in range(1, len(x))]
        np.testing.assert_allclose(got[1:], want, rtol=2e-3 if dtype == "float16" else 2e-6)
        assert not np.isfinite(got[0])  # nothing that counts


def test_axes_and_keepdims(impl):
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    y = x[..., ::-1]
    for call in (impl.entropy, impl.logmeanexp, lambda x, a, **k: impl.kl_divergence(x, y, a, **k)):
        for axis in (0, 1, (0, 2), None):
            got = call(x, axis)
            kept = call(x, axis, keepdims=True)
            assert kept.shape == np.sum(x, axis, keepdims=True).shape
            np.testing.assert_array_equal(np.squeeze(kept), got)
    p = scipy.special.softmax(x, (0, 2))
    np.testing.assert_allclose(impl.entropy(x, (0, 2)), scipy.special.entr(p).sum((0, 2)))


def test_the_second_array_broadcasts(impl):
    x, y = np.random.default_rng(0).standard_normal((2, 4, 9))
    one = y[:1]
    whole = np.broadcast_to(one, x.shape)
    np.testing.assert_array_equal(impl.kl_divergence(x, one), impl.kl_divergence(x, whole))
    np.testing.assert_array_equal(impl.logsumexp(x, b=2.0), impl.logsumexp(x, b=np.full((4, 9), 2)))
    for call, name, first in (
        (impl.kl_divergence, "other", "logits"),
        (lambda x, b: impl.logsumexp(x, b=b), "b", "x"),
    ):
        with pytest.raises(ValueError, match=rf"{name} has shape \(3,\), .* {first}, \(4, 9\)"):
            call(x, np.ones(3))
        with pytest.raises(ValueError, match=rf"{name} has shape \(4, 9\), .* \(9,\)"):
            call(x[0], y)


def test_dtypes(impl):
    x = np.ones((2, 3), np.float16)
    assert impl.entropy(x).dtype == np.float16
    assert impl.kl_divergence(x, x.astype(np.float32)).dtype == np.float16
    assert impl.kl_divergence(x, x.astype(np.float64)).dtype == np.float64
    assert impl.logsumexp(x, b=np.ones(3, int)).dtype == np.float64
    assert impl.entropy([1, 2]).dtype == np.float64
    assert type(impl.logmeanexp(np.float32(2))) is np.float32


# ---- weighted sums -------------------------------------------------------------------------------

WEIGHTED = [
    ([1.0, 2.0], [1.0, -1.0]),
    ([2.0, 1.0], [1.0, -1.0]),
    ([1.0, 1.0], [1.0, -1.0]),
    ([0.0, -40.0], [1.0, 1.0]),
    ([1.0, NAN], [1.0, 0.0]),
    ([1.0, NAN], [1.0, 1.0]),
    ([1.0, INF], [1.0, 0.0]),
    ([1.0, INF], [1.0, 2.0]),
    ([1.0, INF], [1.0, -2.0]),
    ([INF, INF], [1.0, -2.0]),
    ([-INF, -INF], [1.0, -2.0]),
    ([-INF, 2.0], [1.0, -2.0]),
    ([3.0, 2.0], [0.0, 0.0]),
    ([1e300, 1e300], [1.0, 2.0]),
    ([5.0, 5.0, 4.0], [-1.0, -1.0, 3.0]),
    ([0.0, -40.0], [1.0, -2.0]),
    ([0.0, -0.5], [1.0, -1.5]),
    ([0.0, -0.1, -0.1], [1.0, -1.0, -1.0]),  # the others weigh more than the largest
    ([0.0, 1.0], [INF, 1.0]),
    ([0.0, 1.0], [INF, INF]),
    ([0.0, 1.0], [INF, -INF]),
    ([0.0, 1.0], [-INF, 1.0]),
    ([0.0, -1.0], [1e-320, 1e-318]),
    ([0.0, -1.0], [1e-300, 1e300]),
]


def scipy_sum(x, b):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            return scipy.special.logsumexp(x, b=b, axis=-1, return_sign=True)


@pytest.mark.parametrize(("x", "b"), WEIGHTED)
def test_weighted_sums_are_scipy_s(impl, x, b):
    for n in LENGTHS:
        xs, bs = long(x, n), long(b, n)
        got, sign = impl.logsumexp(xs, b=bs, return_sign=True)
        want, want_sign = scipy_sum(xs, bs)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-300)
        np.testing.assert_array_equal(sign, want_sign if want != -INF else 0)
        plain = impl.logsumexp(xs, b=bs)
        np.testing.assert_allclose(plain, NAN if sign < 0 else want, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_both_signs(impl, dtype):
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((6, 900)) * 5 + 300).astype(dtype)
    b = rng.standard_normal(x.shape).astype(dtype)
    got, sign = impl.logsumexp(x, b=b, return_sign=True)
    want, want_sign = scipy_sum(x.astype(float), b.astype(float))
    np.testing.assert_allclose(got, want, rtol=2e-7 if dtype == "float32" else 1e-14)
    np.testing.assert_array_equal(sign, want_sign)
    assert got.dtype == sign.dtype == x.dtype


def test_signs_without_weights(impl):
    x = np.array([[1.0, 2.0], [-INF, -INF], [NAN, 1.0], [INF, 1.0]])
    got, sign = impl.logsumexp(x, return_sign=True)
    np.testing.assert_allclose(got, impl.logsumexp(x), rtol=1e-15)
    np.testing.assert_array_equal(sign, [1, 0, NAN, 1])


# ---- log-sums beside probabilities ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(3, 7), (70, 30), (4, 700), (2, 5000)])
def test_probabilities_and_log_sum_are_those_of_both_functions(impl, dtype, shape):
    x = (np.random.default_rng(1).standard_normal(shape) * 3).astype(dtype)
    x[0, 1] = -INF
    both = impl.softmax(x, return_lse=True)
    assert both.probs.tobytes() == impl.softmax(x).tobytes()
    assert both.lse.tobytes() == impl.logsumexp(x).tobytes()
    place = x.copy()
    again = impl.softmax(place, out=place, return_lse=True)
    assert again.probs is place
    assert place.tobytes() == both.probs.tobytes()
    assert again.lse.tobytes() == both.lse.tobytes()


def test_parts_of_attention_merge(impl):
    """softmax(x) @ v of two parts of the keys, by their log-sums, is that of all."""
    rng = np.random.default_rng(2)
    x, v = rng.standard_normal((5, 64)), rng.standard_normal((64, 3))
    parts = [impl.softmax(x[:, s], temperature=0.5, return_lse=True) for s in np.s_[:20, 20:]]
    lse = impl.logsumexp(np.stack([part.lse for part in parts]), 0)
    merged = sum(
        np.exp(part.lse - lse)[:, None] * (part.probs @ v[s])
        for part, s in zip(parts, np.s_[:20, 20:], strict=True)
    )
    np.testing.assert_allclose(merged, impl.softmax(x, temperature=0.5) @ v, rtol=1e-13)


def test_a_second_array_of_none_is_named(impl):
    with pytest.raises(TypeError, match=r"^other has dtype object"):
        impl.kl_divergence(np.zeros((2, 3)), None)
    with pytest.raises(TypeError, match=r"^logits has dtype object"):
        impl.kl_divergence(None, np.zeros((2, 3)))
