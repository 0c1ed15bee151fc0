"""The error bounds of the softmax family, and its monotony."""

import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.conftest import FUSED

# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import errors, exact

U = {np.float32: 2.0**-24, np.float64: 2.0**-53}
LONG = [pytest.param(n, marks=pytest.mark.slow) for n in (1000, 5000)]
SLOW_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("two levels", "constant")]
TEMPERATURES = [1.0, 0.7, 0.1, 3.0, 100.0]

#: Rows of n numbers; each is there for something that a simpler kernel gets wrong.
ROWS = {
    "ordinary": lambda n: 4 * np.cos(np.arange(n) ** 2 * 0.7),
    "wide": lambda n: -((np.arange(n) * 37) % n) * (120 / n),
    "constant": lambda n: np.full(n, -3.3),
    "two levels": lambda n: np.where(np.arange(n) % 3 == 0, 0.3, -8.9),
    "one large": lambda n: np.where(np.arange(n) == n // 3, 14.3, -0.3),
    "200 above 0": lambda n: 200 + 40 * np.cos(np.arange(n) * 1.7),
    "200 below 0": lambda n: -200 + 40 * np.cos(np.arange(n) * 1.7),
    "far from 0": lambda n: 1e4 + np.sin(np.arange(n) * 1.1),
}


def exact_mp(values, temperature):
    """Return p, log p and the logarithm of the sum as numbers of 40 digits."""
    with mpmath.workdps(40):
        x = [mpmath.mpf(v) / mpmath.mpf(temperature) for v in values]
        top = x.index(max(x))
        e = [mpmath.exp(v - x[top]) for v in x]
        rest = mpmath.fsum(e[:top] + e[top + 1 :])
        log_sum = mpmath.log1p(rest)
        p = [v / (1 + rest) for v in e]
        return p, [v - x[top] - log_sum for v in x], [x[top] + log_sum], [rest / (1 + rest)]


def bound(impl, d, temperature, u):
    """Return the relative error that is allowed for a probability."""
    d = np.abs(d).astype(np.float64)
    if temperature != 1 and not (impl.NAME in FUSED and 1e-30 <= temperature <= 1e30):
        return (4 + 3.1 * d / temperature) * u
    # The reference's rounding of x - max counts where its float64 is no better than the result.
    return (4 + (1.1 if impl.NAME == "reference" and u < 1e-10 else 0.1) * d / temperature) * u


def check(impl, x, temperature):
    """Assert the bounds of the three functions for a row."""
    dtype = x.dtype.type
    u = U[dtype]
    tiny = float(np.finfo(dtype).tiny)
    true = exact.rows(x, temperature)
    p, top = true.softmax.high, int(x.argmax())
    allowed = bound(impl, x.astype(np.float64) - float(x[top]), temperature, u)

    error = errors.absolute_error(impl.softmax(x, temperature=temperature), true.softmax)
    assert (error <= np.where(p < tiny, tiny, allowed * p)).all()

    result = impl.log_softmax(x, temperature=temperature)
    error = errors.absolute_error(result, true.log_softmax)
    mean = (allowed * p).sum()  # of the bound over the row: what the sum may be wrong by
    factor = 2 if temperature == 1 else 3
    assert (error <= mean + factor * u * np.abs(result)).all()

    if temperature == 1:
        result = impl.logsumexp(x)
        error = errors.absolute_error(result, true.logsumexp)
        others = np.delete(allowed * p, top).sum()
        log_total = float(-true.log_softmax.high[top])
        assert error <= others + 2 * u * log_total + 2 * u * abs(float(result))


# ---- float32 -------------------------------------------------------------------------------------


@pytest.mark.slow_reference
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_float32(impl, kind, temperature):
    for n in (1, 2, 7, 33, 1000, 4097, *([50_000] if impl.NAME != "reference" else [])):
        x = ROWS[kind](n).astype(np.float32)
        check(impl, x, temperature)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one large", *SLOW_KINDS])
def test_float32_rows_of_a_million(impl, kind):
    x = ROWS[kind](1 << 20).astype(np.float32)
    check(impl, x, 1.0)


@pytest.mark.best_alone
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [0.8, 0.3, 2.7, 1.001, 1e-20, 1e20, 1e-30, 1e30])
@pytest.mark.parametrize("n", [3, 40, *LONG])
def test_a_temperature_is_not_rounded(fused, dtype, temperature, n):
    for centre in (0, 30, -100, 3000) if n < 100 else (-100,):
        x = np.random.default_rng(n).normal(centre, 5, n) * temperature
        x = x.astype(dtype)
        with mpmath.workdps(40):
            d = [mpmath.mpf(v) - mpmath.mpf(float(x.max())) for v in x.tolist()]
            e = np.array([mpmath.exp(v / mpmath.mpf(temperature)) for v in d])
            result = np.frompyfunc(mpmath.mpf, 1, 1)(fused.softmax(x, temperature=temperature))
            error = np.abs(result * e.sum() / e - 1)
        allowed = (4 + 0.1 * np.abs(np.array(d, float)) / temperature) * U[dtype]
        normal = np.array(e / e.sum(), float) > np.finfo(dtype).tiny
        assert (error.astype(float) <= allowed)[normal].all()


@pytest.mark.parametrize("temperature", [3e37, 1e38, 3e38, 1e39, 3e40, 1e300])
def test_float32_at_huge_temperatures(impl, temperature):
    x = np.array([0, -1e30, -1e38, -2e38, -3.4e38], np.float32)
    check(impl, x, temperature)


# ---- the oracle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1e-3, 1e30])
def test_the_oracle_against_mpmath(kind, temperature):
    for n in (1, 2, 40):
        x = ROWS[kind](n)
        for true, want in zip(exact.rows(x, temperature), exact_mp(x, temperature), strict=True):
            with mpmath.workdps(40):
                got = [mpmath.mpf(h) + mpmath.mpf(v) for h, v in zip(*true, strict=True)]
                wrong = [
                    abs(g - w) / abs(w) for g, w in zip(got, want, strict=True) if abs(w) > 1e-280
                ]  # smaller pairs have not all of their bits
            assert max(wrong, default=0) <= 2.0**-90


# ---- float64 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_float64(impl, kind, temperature):
    for n in (2, 33, 150):
        x = ROWS[kind](n)
        check(impl, x, temperature)


def test_float64_reaches_the_smallest_numbers(impl):
    x = np.linspace(-760, 0, 200)
    check(impl, x, 1.0)
    check(impl, x / 8, 0.125)


@pytest.mark.parametrize(("low", "high"), [(-0.3, 14.3), (-30.0, 0.25)])
def test_float64_one_large_among_a_million(impl, low, high):
    """A plain sum of float64 loses some hundred u here; the sum in closed form is exact."""
    n = 1 << 20
    x = np.full(n, low)
    x[n // 3] = high
    with mpmath.workdps(40):
        small = mpmath.exp(mpmath.mpf(low) - mpmath.mpf(high))
        total = 1 + (n - 1) * small
        allowed = float(bound(impl, np.float64(high - low), 1.0, U[np.float64]))
        p = impl.softmax(x)
        assert abs(float(mpmath.mpf(p[0]) * total / small - 1)) <= allowed
        assert abs(float(mpmath.mpf(p[n // 3]) * total - 1)) <= 4 * U[np.float64]
        assert (np.delete(p, n // 3) == p[0]).all()


# ---- monotone ------------------------------------------------------------------------------------


@given(
    x=arrays(np.float32, st.integers(1, 70), elements=st.floats(-120, 120, width=32)),
    temperature=st.sampled_from([1.0, 0.3, 0.999, 7.0]),
)
def test_monotone(impl, x, temperature):
    x.sort()
    for dtype in (np.float32, np.float64):
        for f in (impl.softmax, impl.log_softmax):
            assert (np.diff(f(x.astype(dtype), temperature=temperature)) >= 0).all()


@pytest.mark.parametrize("start", [1e-30, 1e-4, 0.3465, 0.35, 1.0397, 3.0, 17.3, 64.0, 87.0, 103.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 5.0])
def test_monotone_over_neighbours(impl, start, temperature):
    """Thousands of consecutive numbers below a maximum, where a kernel has its seams."""
    for dtype, bits in ((np.float32, np.uint32), (np.float64, np.uint64)):
        first = np.array([start], dtype).view(bits)[0]
        x = -(first + np.arange(20_000, dtype=bits)).view(dtype)
        assert x[1] == np.nextafter(x[0], dtype(-np.inf))
        x = np.append(dtype(0), x)
        for f in (impl.softmax, impl.log_softmax):
            assert (np.diff(f(x, temperature=temperature)) <= 0).all()
