"""Error bounds of entropies, divergences, means and log-sums, against 40 digits."""

import math
from functools import cache

import mpmath
import numpy as np
import pytest

from tests.conftest import FUSED

U = {np.float32: 2.0**-24, np.float64: 2.0**-53}

#: Rows of n numbers; each is there for something that a simpler way gets wrong.
ROWS = {
    "ordinary": lambda n: 4 * np.cos(np.arange(n) ** 2 * 0.7),
    "wide": lambda n: -((np.arange(n) * 37) % n) * (120 / n),
    "constant": lambda n: np.full(n, -3.3),
    "nearly certain": lambda n: np.where(np.arange(n) == n // 3, 20.3, -19.9),
    "far from 0": lambda n: 1e4 + np.sin(np.arange(n) * 1.1),
    "200 below 0": lambda n: -200 + 40 * np.cos(np.arange(n) * 1.7),
}
rows = pytest.mark.parametrize("kind", ROWS)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
temperatures = pytest.mark.parametrize("temperature", [1.0, 0.7, 1e-32])


def numbers(kind, dtype, n=130):
    return ROWS[kind](n).astype(dtype)


@cache
def exact(kind, dtype, temperature):
    """Return max/T, the log-sum without it, distances from the maximum, and probabilities."""
    t = mpmath.mpf(temperature)
    x = [mpmath.mpf(float(v)) / t for v in numbers(kind, dtype)]
    top = max(x)
    e = [mpmath.exp(v - top) for v in x]
    e[x.index(top)] = mpmath.mpf(0)
    rest = mpmath.fsum(e)
    e[x.index(top)] = mpmath.mpf(1)
    return top, mpmath.log1p(rest), [top - v for v in x], [v / (1 + rest) for v in e]


def per_distance(impl, dtype, temperature):
    """Return the units of error for each unit of distance."""
    if temperature != 1 and impl.NAME not in FUSED:
        return 3.1
    return 1.1 if dtype == np.float64 or not 1e-30 <= temperature <= 1e30 else 0.2


@rows
@dtypes
@temperatures
def test_entropy(impl, kind, dtype, temperature):
    with mpmath.workdps(40):
        _, log_sum, d, p = exact(kind, dtype, temperature)
        want = log_sum + mpmath.fsum(a * b for a, b in zip(d, p, strict=True))
        got = impl.entropy(numbers(kind, dtype), temperature=temperature)
        total = mpmath.fsum(a * b for a, b in zip(d, p, strict=True))
        far = max(float(a) for a, b in zip(d, p, strict=True) if a * b >= total * 2.0**-24)
        bound = (12 + per_distance(impl, dtype, temperature) * far) * U[dtype]
        assert got.dtype == dtype
        smallest = float(np.finfo(dtype).tiny)
        assert abs(mpmath.mpf(float(got)) - want) <= bound * want + smallest


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", ["rises", "falls", "steps", "nearly certain", "far from 0"])
def test_entropy_of_rows_read_block_by_block(impl, kind, temperature):
    """Distances of blocks are from the maximum so far, which may rise with each of them."""
    n = 7000
    x = {
        "rises": np.linspace(-25, 12, n),
        "falls": np.linspace(12, -25, n),
        "steps": np.cos(np.arange(n) * 0.7) + 9 * (np.arange(n) // 2048),
        "nearly certain": np.where(np.arange(n) == 6500, 9.3, -15 + np.sin(np.arange(n) * 1.1)),
        "far from 0": 1e4 + np.arange(n) / 700,
    }[kind].astype(np.float32)
    d = (float(x.max()) - x.astype(np.float64)) / temperature
    e = np.exp(-d)
    e[d.argmin()] = 0
    rest = math.fsum(e)
    terms = e * d
    want = math.log1p(rest) + math.fsum(terms) / (1 + rest)
    far = d[terms >= math.fsum(terms) * 2.0**-24].max()
    bound = (12 + per_distance(impl, np.float32, temperature) * far) * U[np.float32]
    np.testing.assert_allclose(impl.entropy(x, temperature=temperature), want, rtol=bound)


@rows
@dtypes
@temperatures
def test_log_sum_of_softmax(impl, kind, dtype, temperature):
    with mpmath.workdps(40):
        top, log_sum, _, _ = exact(kind, dtype, temperature)
        want = top + log_sum
        got = impl.softmax(numbers(kind, dtype), temperature=temperature, return_lse=True).lse
        if abs(want) > np.finfo(dtype).max:
            assert got == np.inf * np.sign(float(want))
            return
        allowed = (8 * log_sum + 2 * abs(want) + 2 * abs(top)) * U[dtype]
        allowed += float(np.finfo(dtype).tiny)
        assert abs(mpmath.mpf(float(got)) - want) <= allowed


@rows
@dtypes
def test_logmeanexp(impl, kind, dtype):
    with mpmath.workdps(40):
        top, log_sum, d, _ = exact(kind, dtype, 1.0)
        want = top + log_sum - mpmath.log(len(d))
        got = impl.logmeanexp(numbers(kind, dtype))
        allowed = 8 * log_sum * U[dtype] + (abs(want) + 2 * abs(top)) * U[dtype]
        assert abs(mpmath.mpf(float(got)) - want) <= allowed


@rows
@dtypes
@temperatures
def test_divergence(impl, kind, dtype, temperature):
    with mpmath.workdps(40):
        _, log_p, d, p = exact(kind, dtype, temperature)
        _, log_q, d_q, _ = exact("ordinary", dtype, temperature)
        odds = [(b - a) - (log_p - log_q) for a, b in zip(d, d_q, strict=True)]
        want = mpmath.fsum(a * b for a, b in zip(p, odds, strict=True))
        mean = mpmath.fsum(a * abs(b) for a, b in zip(p, odds, strict=True))
        far = max(
            max(float(a), float(b)) for a, b, c in zip(d, d_q, p, strict=True) if c > 2.0**-53
        )
        got = impl.kl_divergence(
            numbers(kind, dtype), numbers("ordinary", dtype), temperature=temperature
        )
        if want > np.finfo(dtype).max:
            assert got == np.inf
            return
        allowed = (16 + far) * (mean + max(log_p, log_q)) * 2.0**-53 + want * U[dtype]
        allowed += float(np.finfo(dtype).tiny)
        assert abs(mpmath.mpf(float(got)) - want) <= allowed
        assert got >= 0


@dtypes
def test_a_small_divergence_has_its_digits(impl, dtype):
    """Of float32 logits, too: all of it is float64."""
    x = numbers("ordinary", dtype)
    step = np.where(np.arange(x.size) % 2, 2.0**-10, -(2.0**-10)).astype(dtype)
    y = x + step
    with mpmath.workdps(40):

        def log_softmax(x):
            x = [mpmath.mpf(float(v)) for v in x]
            log_sum = mpmath.log(mpmath.fsum(map(mpmath.exp, x)))
            return [v - log_sum for v in x]

        p, q = log_softmax(x), log_softmax(y)
        want = float(mpmath.fsum(mpmath.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
    assert 0 < want < 1e-6
    np.testing.assert_allclose(impl.kl_divergence(x, y), want, rtol=1e-7)


def test_an_entropy_that_probabilities_would_hide(impl):
    """1 + 4e-18 is 1 in float64, and its logarithm 0."""
    np.testing.assert_allclose(impl.entropy([0.0, -40.0]), 41 * np.exp(-40), rtol=1e-14)
    np.testing.assert_allclose(
        impl.kl_divergence([0.0, -40.0], [0.0, -50.0]), 9 * np.exp(-40), rtol=1e-3
    )
