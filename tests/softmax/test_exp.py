"""The bare exponential of each instruction set: its bound and its order, over every float32."""

import importlib
import math
from functools import partial

import numpy as np
import pytest

from fastsoftmax import _dispatch
from tests.conftest import COMPILED, FUSED

U = {np.float32: 2.0**-24, np.float64: 2.0**-53}


def exp_of(isa):
    """Return the exponential kernel of an instruction set, as a function of an array.

    Its result is exp(x / T) / 2**k, k = `k_of` the reference.
    """
    if isa not in _dispatch.runnable():
        pytest.skip(f"{isa} is not built or cannot run here")
    rows = importlib.import_module(f"fastsoftmax._kernels.softmax_{isa}").exp_rows

    def exp(x, reference=0.0, sure=True, temperature=1.0):
        y = np.empty_like(x)
        rows["float" if x.dtype == np.float32 else "double"](x, y, reference, sure, temperature)
        return y

    return exp


def k_of(reference, temperature=1.0):
    return 2 * round(reference / temperature / math.log(4))


#: The temperature at which x / T is a power of 2 without any product.
POWER = 1.4426950408889634

#: From a float to another, where exponentials are made of x itself and results count. At any other
#: T they are those of the powers of 2 from -1/2 to 1/2, times a power of 2.
RANGES = [
    (1.0, 2.0**-27, 256.0), (1.0, -0.0, -362.0), (POWER, 2.0**-27, 1.0), (POWER, -0.0, -1.0)
]  # fmt: skip


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize(("temperature", "first", "last"), RANGES)
def test_exp_over_every_float32(isa, temperature, first, last):
    """Rises with x, from one chunk to the next too, and keeps its bound (a look at every 997th)."""
    exp = exp_of(isa)
    first, last = np.array([first, last], np.float32).view(np.uint32).tolist()
    sign = -1 if first >> 31 else 1
    chunk = 1 << 18  # fits L2
    before = 1.0
    for start in range(first, last + 1, chunk):
        bits = np.arange(start, min(start + chunk, last + 1), dtype=np.uint32)
        x = bits.view(np.float32)
        reference = float(x[0]) + 40.3  # far from the ends of what float32 holds
        k = k_of(reference, temperature)
        y = exp(x, reference, reference < 0, temperature)
        rises = y[1:] >= y[:-1] if sign > 0 else y[1:] <= y[:-1]
        assert rises.all(), x[1:][~rises]
        assert (math.ldexp(y[0], k) - before) * sign >= 0, x[0]
        before = math.ldexp(y[-1], k)
        d = x[::997].astype(np.float64)
        e = np.exp(d) if temperature == 1 else np.exp2(d)
        error = np.abs(np.ldexp(y[::997].astype(np.float64), k) - e)
        allowed = (1.3 + 0.05 * np.abs(d) if temperature == 1 else 1.6) * U[np.float32] * e
        assert (error <= allowed).all(), d[error > allowed]


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("temperature", [1.0, 1.1])
def test_exp_has_the_same_bits_at_any_reference(isa, temperature):
    exp = exp_of(isa)
    x = np.linspace(-30, 20, 100_000, dtype=np.float32)
    y = exp(x, 20.0, True, temperature)
    for reference in (20.0, 20.4, 33.3, 50.0, -40.0):
        for sure in (True, False):
            factor = 2.0 ** (k_of(20, temperature) - k_of(reference, temperature))
            got = exp(x, reference, sure, temperature)
            np.testing.assert_array_equal(got, y * np.float32(factor))


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("temperature", [1.0, 0.9, 0.7, 3.1, 6.4])
def test_exp_at_the_ends(isa, temperature):
    exp = partial(exp_of(isa), temperature=temperature)
    x = np.array(
        [0.0, -0.0, -1e-45, -89 * temperature, -1e30, -np.inf, np.nan, -np.nan], np.float32
    )
    for sure in (True, False):
        y = exp(x, 0.0, sure)
        np.testing.assert_array_equal(y[:6], [1, 1, 1, 0, 0, 0])
        assert not np.signbit(y[:6]).any()
        assert not np.isfinite(y[6:]).any()
    large = np.array([89.5 * temperature, 2000, 1e30, np.inf], np.float32)
    # What is too large must not look like a number.
    assert not np.isfinite(exp(large, 0.0, False)).any()
    assert np.isnan(exp(np.array([np.inf, np.nan], np.float32), 0.0)).all()


# ---- at temperatures other than 1 ----------------------------------------------------------------

#: Of the second part of log2(e) / T next to nothing, and next to the most there can be.
SPLIT = [POWER, math.nextafter(POWER, 0), math.nextafter(POWER, 2)]
TEMPERATURES = [
    *(0.7, 0.8, 1.5, 1e-30, 1e-20, 1e20, 1e30, math.nextafter(1, 0), math.nextafter(1, 2)), *SPLIT
]  # fmt: skip


def seams(temperature, dtype, reach):
    """Return all numbers within `reach` of where the power of 2 changes, for exp up to 2**126."""
    if dtype == np.float64:
        n = np.append(np.arange(-1021, -900), np.arange(-40, 1022))
    else:
        n = np.arange(-125, 126)
    bits = np.uint32 if dtype == np.float32 else np.uint64
    centre = ((n + 0.5) * (math.log(2) * temperature)).astype(dtype).view(bits)
    # Magnitudes from the smallest on: those below 0 are turned round.
    x = (centre[:, None] + np.arange(-reach, reach + 1).astype(bits)).view(dtype)
    return np.concatenate([row if row[0] > 0 else row[::-1] for row in x])


def check_order(exp, temperature, dtype, reach, fused):
    """Assert that exp rises over all seams, and keeps its bound."""
    x = seams(temperature, dtype, reach)
    assert (np.diff(x) > 0).all()
    y = exp(x, 0.0, False, temperature)
    falls = np.diff(y) < 0
    assert not falls.any(), (temperature, x[:-1][falls])
    if fused and dtype == np.float32:
        e = np.exp(x.astype(np.float64) / temperature)
        error = np.abs(y / e - 1) / U[dtype]
        assert error.max() <= 1.6, (temperature, x[error.argmax()])


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_exp_rises_from_one_power_of_2_to_the_next(isa, dtype, temperature):
    check_order(exp_of(isa), temperature, dtype, 10, isa in FUSED)


@pytest.mark.slow
@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_rises_at_any_temperature(isa, dtype):
    exp = exp_of(isa)
    for t in 10 ** np.random.default_rng(7).uniform(-30, 30, 300):
        check_order(exp, t, dtype, 12, isa in FUSED)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("isa", FUSED)
def test_exp_rises_over_every_float32_at_another_temperature(isa):
    """From 2**-24 to 87 T, and from 0 to -87 T."""
    exp = exp_of(isa)
    for sign in (0, 1 << 31):
        first, last = np.array([2.0**-24 if not sign else 0, 87 * 0.7], np.float32).view(np.uint32)
        before = np.float32(1)
        for start in range(int(first), int(last) + 1, 1 << 18):  # fits L2
            x = np.arange(start, min(start + (1 << 18), int(last) + 1), dtype=np.uint32)
            y = exp((x | np.uint32(sign)).view(np.float32), 0.0, False, 0.7)
            y = np.append(before, y)
            assert ((y[1:] <= y[:-1]) if sign else (y[1:] >= y[:-1])).all(), start
            before = y[-1]


@pytest.mark.weekly
def test_exp_rises_around_one_half_at_every_rate():
    """Where neighbours are closest: log2(e) / T has each of 2**23 roundings, and any rest."""
    exp = exp_of(next(isa for isa in reversed(FUSED) if isa in _dispatch.runnable()))
    rng = np.random.default_rng(3)
    near = np.arange(-5, 6)
    chunk = 1 << 14
    for start in range(0, 1 << 23, chunk):
        rate = 1 + (start + np.arange(chunk) + rng.random(chunk)) * 2.0**-23
        bits = (0.5 / rate).astype(np.float32).view(np.uint32)[:, None] + near.astype(np.uint32)
        up = bits.view(np.float32)
        x = np.concatenate([-up[:, ::-1], up], axis=1)
        y = np.stack([exp(a, 0.0, False, POWER / r) for a, r in zip(x, rate, strict=True)])
        falls = np.diff(y) < 0
        assert not falls.any(), rate[falls.any(axis=1)]
