"""LogSumExp and RunningTopK: parts in any order, merged in any way, give the same to the bit."""

import doctest
import functools
import itertools
import pickle

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastsoftmax
from fastsoftmax import _merging

INF, NAN = np.inf, np.nan


@pytest.fixture
def log_sum(impl):
    """LogSumExp over each implementation."""
    return type("LogSumExp", (_merging.LogSumExp,), {"implementation": impl})


@pytest.fixture
def running(impl):
    """RunningTopK over each implementation."""
    return type("RunningTopK", (_merging.RunningTopK,), {"implementation": impl})


def merged_at_random(parts, rng):
    """Return all parts merged, two at a time, some after a journey as a pickle."""
    parts = list(parts)
    while len(parts) > 1:
        a = parts.pop(rng.integers(len(parts)))
        b = parts.pop(rng.integers(len(parts)))
        parts.append(a.merge(b))
    return parts[0]


def state(a):
    return a._highest.tobytes(), a._digits.tobytes(), a._below.tobytes(), a.result().tobytes()


def exact(row):
    """Return the logarithm of the sum of exponentials, and of those beside the largest, exactly."""
    with mpmath.workdps(60):
        x = [mpmath.mpf(float(v)) for v in row if v > -INF]
        top = max(x)
        rest = mpmath.fsum(mpmath.exp(v - top) for v in x) - 1
        return top + mpmath.log1p(rest), mpmath.log1p(rest)


#: Scale and offset: ordinary, wide, around the ends of buckets (512, 1536, ...), far from 0.
KINDS = [
    (1, 0),
    (30, 0),
    (300, 0),
    (3, 512),
    (3, -512),
    (80, 512),
    (3, 1536),
    (100, 1e6),
    (3, -1e30),
]


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("scale", "offset"), KINDS)
def test_no_bit_depends_on_parts_or_order(log_sum, scale, offset, dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 120)) * scale + offset).astype(dtype)
    x[1, ::3] = -INF
    states = set()
    for _ in range(5):
        cuts = np.sort(rng.integers(0, 120, rng.integers(0, 6)))
        parts = [log_sum().update(x[:, c]) for c in np.split(rng.permutation(120), cuts)]
        states.add(state(merged_at_random(parts, rng)))
    one_by_one = log_sum()
    for j in rng.permutation(120):
        one_by_one.update(x[:, [j]])
    states.add(state(one_by_one))
    assert len(states) == 1


@given(
    st.lists(
        st.sampled_from([0.0, 1.5, -3.25, 100.0, -100.0, 511.99, 512.0, -512.0, -512.1, 600.0])
        | st.floats(-1600, 1600),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 99),
)
def test_any_numbers_in_any_order(numbers, seed):
    rng = np.random.default_rng(seed)
    x = np.array(numbers)
    parts = [_merging.LogSumExp().update(x[[j]]) for j in rng.permutation(x.size)]
    whole = _merging.LogSumExp().update(x)
    assert state(merged_at_random(parts, rng)) == state(whole)
    want, _ = exact(x)
    assert abs(mpmath.mpf(float(whole.result())) - want) <= 4 * 2.0**-53 * (abs(want) + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("scale", "offset"), KINDS)
def test_accuracy(log_sum, scale, offset, dtype):
    x = (np.random.default_rng(1).standard_normal(300) * scale + offset).astype(dtype)
    want, log_rest = exact(x)
    got = log_sum().update(x).result()
    u = float(np.finfo(dtype).eps) / 2
    assert abs(mpmath.mpf(float(got)) - want) <= abs(want) * u + 4 * (1 + abs(log_rest)) * 2.0**-53


def test_what_the_maximum_would_hide(log_sum):
    parts = [log_sum().update([v]) for v in (0.0, -40.0)]
    np.testing.assert_allclose(parts[1].merge(parts[0]).result(), np.exp(-40), 1e-15, 2.0**-95)
    near = [log_sum().update([v]) for v in (-512.5, -511.5)]  # in two buckets
    np.testing.assert_allclose(near[0].merge(near[1]).result() + 511.5, np.log1p(np.exp(-1)), 1e-13)


def test_a_sum_of_many_small_terms(log_sum):
    """A million terms, each lost beside the largest if it was added to it alone."""
    small = np.full(1 << 16, -38.0)
    a = log_sum().update([0.0])
    for _ in range(16):
        a.update(small)
    np.testing.assert_allclose(a.result(), np.log1p(2.0**20 * np.exp(-38.0)), 1e-14, 2.0**-75)


@pytest.mark.parametrize("row", [[0.0, -0.0], [NAN, -NAN], [INF, NAN, -NAN]])
def test_equal_maxima_of_other_bits(log_sum, row):
    orders = itertools.permutations(row)
    assert len({state(log_sum().update(x)) for x in orders}) == 1
    parts = [log_sum().update([v]) for v in row]
    assert state(functools.reduce(log_sum.merge, reversed(parts))) == state(log_sum().update(row))


def test_special_values(log_sum):
    x = np.array([[NAN, 1.0], [INF, 1.0], [INF, NAN], [-INF, -INF], [-INF, 2.0]])
    want = [NAN, INF, NAN, -INF, 2.0]
    for order in ([0, 1], [1, 0]):
        a = log_sum()
        for j in order:
            a.update(x[:, [j]])
        np.testing.assert_array_equal(a.result(), want)
    assert log_sum().update(np.zeros((2, 0))).result().tolist() == [-INF, -INF]
    a = log_sum().update([[1.0, 5.0]], where=[[True, False]])
    assert a.result() == 1.0
    assert log_sum().update([[NAN]], where=False).result() == -INF


def test_axes_dtypes_and_rows(log_sum):
    x = np.random.default_rng(2).standard_normal((3, 4, 5))
    for axis in (0, 1, (0, 2), None):
        got = log_sum(axis).update(x).result()
        np.testing.assert_allclose(got, fastsoftmax.logsumexp(x, axis), rtol=1e-14)
        assert np.shape(got) == np.shape(fastsoftmax.logsumexp(x, axis))
    for dtype in (np.float32, np.float16, np.int64):
        got = log_sum().update(x[0].astype(dtype)).result()
        want = fastsoftmax.logsumexp(x[0].astype(dtype))
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-3 if dtype == np.float16 else 1e-6)
    mixed = log_sum().update(x[0]).update(x[0].astype(np.float32))
    assert mixed.result().dtype == np.float64
    with pytest.raises(ValueError, match=r"rows of shape \(2,\); allowed is \(4,\)"):
        log_sum().update(x[0]).update(x[0, :2])
    with pytest.raises(ValueError, match="no chunk has come yet"):
        log_sum().result()
    with pytest.raises(TypeError, match="allowed is a LogSumExp"):
        log_sum().merge(3)


def test_pickles_and_what_is_merged_stays(log_sum):
    x = np.random.default_rng(3).standard_normal((2, 9))
    a, b = _merging.LogSumExp().update(x[:, :4]), _merging.LogSumExp().update(x[:, 4:])
    before = state(b)
    c = pickle.loads(pickle.dumps(a)).merge(pickle.loads(pickle.dumps(b)))
    a.merge(b)
    assert state(a) == state(c) == state(_merging.LogSumExp().update(x))
    assert state(b) == before


def test_an_error_changes_nothing(log_sum):
    a = log_sum().update([[1.0, 2.0]])
    before = state(a)
    for bad in (np.zeros((2, 2)), np.zeros((1, 2), complex)):
        with pytest.raises((ValueError, TypeError)):
            a.update(bad)
    with pytest.raises(ValueError, match="where"):
        a.update([[1.0, 2.0]], where=[True, False, True])
    assert state(a) == before


# ---- best entries --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["largest", "smallest"])
@pytest.mark.parametrize("k", [0, 1, 7, 60])
def test_the_best_of_parts_are_those_of_the_whole(running, mode, k):
    rng = np.random.default_rng(k)
    x = rng.integers(-5, 5, (4, 50)).astype(np.float32)
    x[2, 7:30:5] = NAN
    x[0, 3] = -0.0
    want = fastsoftmax.top_k(x, min(k, 50), mode=mode)
    for _ in range(5):
        cuts = [0, *np.sort(rng.integers(0, 50, 4)), 50]
        parts = [
            running(k, mode=mode).update(x[:, a:b], start=a) for a, b in itertools.pairwise(cuts)
        ]
        rng.shuffle(parts)
        got = merged_at_random(parts, rng).result()
        assert got.values.tobytes() == want.values.tobytes()
        assert got.indices.tobytes() == want.indices.tobytes()


def test_chunks_follow_each_other(running):
    x = np.random.default_rng(0).integers(0, 99, (6, 2, 3))
    best = running(2, axis=0)
    for chunk in np.split(x, 3):
        best.update(chunk)
    want = fastsoftmax.top_k(x, 2, axis=0)
    got = pickle.loads(pickle.dumps(_merging.RunningTopK(2, axis=0).update(x))).result()
    for found in (best.result(), got):
        np.testing.assert_array_equal(found.values, want.values)
        np.testing.assert_array_equal(found.indices, want.indices)


def test_chunks_follow_what_was_merged(running):
    row = np.array([1.0, 9.0, 3.0, 7.0, 5.0])
    best = running(2).update(row[:1]).merge(running(2).update(row[1:4], start=1))
    assert best.update(row[4:] + 9).result().indices.tolist() == [4, 1]


def test_the_last_index_is_that_of_int64(running):
    best = running(2).update([1.0, 2.0], start=2**63 - 2)
    assert best.result().indices.tolist() == [2**63 - 1, 2**63 - 2]
    with pytest.raises(ValueError, match=f"start is {2**63}"):
        best.update([3.0])


def test_wrong_parts(running):
    best = running(2).update([[1.0, 2.0]])
    for call, error, says in (
        (lambda: best.update(np.float32([[1]])), TypeError, "dtype float32; allowed is .* float64"),
        (lambda: best.update([[1.0], [2.0]]), ValueError, r"shape \(2,\); allowed is \(1,\)"),
        (lambda: best.update([[1.0]], start=-1), ValueError, "start is -1"),
        (lambda: best.update([[1.0]], start=2**64), ValueError, "start is 18446744073709551616"),
        (lambda: best.update([[1.0, 2.0]], start=2**63 - 1), ValueError, "start is 92233720368547"),
        (lambda: best.merge(running(3)), ValueError, "k 3 and mode 'largest'; allowed are 2"),
        (lambda: best.merge(3), TypeError, "allowed is a RunningTopK"),
        (lambda: running(-1), ValueError, "k is -1"),
        (lambda: running(2, mode="best"), ValueError, "mode"),
        (lambda: running(2).result(), ValueError, "no chunk has come yet"),
    ):
        with pytest.raises(error, match=says):
            call()
    np.testing.assert_array_equal(best.result().values, [[2.0, 1.0]])


def test_examples():
    failed, tried = doctest.testmod(_merging)
    assert tried > 5
    assert not failed


def test_they_are_imported_when_asked_for():
    assert fastsoftmax.LogSumExp is _merging.LogSumExp
    assert fastsoftmax.RunningTopK is _merging.RunningTopK


def test_a_nan_that_signals_raises_nothing(impl, monkeypatch):
    monkeypatch.setattr(fastsoftmax.LogSumExp, "implementation", impl)
    x = np.array([0x7FA00000, 0], np.uint32).view(np.float32)
    with np.errstate(all="raise"):
        assert np.isnan(fastsoftmax.LogSumExp().update(x).result())
