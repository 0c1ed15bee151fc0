"""Logits of 8 bits: each kernel against the numbers they stand for, order, layouts and errors."""

import doctest

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import fastsoftmax
from fastsoftmax import _dispatch, quantized
from tests.conftest import COMPILED, FUSED, loaded, marked

U = 2.0**-24
CODES = [np.uint8, np.int8]


@pytest.fixture(params=marked(_dispatch.NAMES))
def kernel(request, monkeypatch):
    """Let each implementation's kernel be the one in use, in turn; yield its name."""
    monkeypatch.setattr(quantized, "_kernel", loaded(request.param).quantized())
    return request.param


def codes(shape, dtype=np.uint8, seed=0, low=0, high=256):
    """Return random codes; of int8 they are as far from the lowest."""
    q = np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)
    return q if dtype == np.uint8 else (q ^ 0x80).view(np.int8)


def exact(q, step, axis=-1):
    """Return softmax and log_softmax in float64."""
    d = q.astype(np.float64)
    d = (d - d.max(axis=axis, keepdims=True)) * step
    top = d == 0
    rest = np.exp(np.where(top, -np.inf, d)).sum(axis=axis, keepdims=True)
    log = d - np.log1p(rest + (top.sum(axis=axis, keepdims=True) - 1))
    return np.exp(log), log


def error(got, want):
    """Return the largest error in u, relative, or of what is below float32's smallest normal."""
    return (np.abs(got - want) / np.maximum(np.abs(want), 2.0**-126)).max(initial=0) / U


@pytest.mark.parametrize(("largest", "step"), [(39, 7 / 3), (15, 6), (240, 0.375)])
def test_logarithms_closest_to_0(kernel, largest, step):
    for n in (30, 64, 150):  # sums of weights that float32 alone could not hold
        q = np.zeros((1, n), np.uint8)
        q[0, 0] = largest
        assert error(quantized.log_softmax(q, step), exact(q, step)[1]) <= 8


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("step", [1e-6, 0.003, 0.05, 0.7, 20.0])
@pytest.mark.parametrize("n", [1, 2, 15, 63, 64, 65, 200, 1000, 1024, 1089, 3000])
def test_within_the_bound(kernel, n, step, dtype):
    for low, high in ((0, 256), (0, 3), (100, 110)):
        q = codes((5, n), dtype, n, low, high)
        p, log = exact(q, step)
        assert error(quantized.softmax(q, step), p) <= 8
        assert error(quantized.log_softmax(q, step), log) <= 8


@pytest.mark.parametrize("n", [2, 1000, 100_000])
def test_rows_of_one_large_code_and_equal_small_ones(kernel, n):
    q = np.full((1, n), 7, np.uint8)
    q[0, n // 3] = 255
    for step in (0.01, 0.05, 0.2):
        p, log = exact(q, step)
        assert error(quantized.softmax(q, step), p) <= 8
        assert error(quantized.log_softmax(q, step), log) <= 8


def test_a_logarithm_close_to_0(kernel):
    got = quantized.log_softmax(np.array([-128, 127], np.int8), 0.3)
    with mpmath.workdps(40):
        want = -mpmath.log1p(mpmath.exp(-255 * mpmath.mpf(0.3)))
        assert abs(got[1] / want - 1) < 3 * U


def test_a_larger_code_never_has_a_smaller_probability(kernel):
    q = np.arange(256, dtype=np.uint8)
    for step in np.exp2(np.arange(-21, 6, 0.37)):
        for function in (quantized.softmax, quantized.log_softmax):
            assert (np.diff(function(q, step)) >= 0).all(), step


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 150))),
    st.floats(1e-5, 30),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_the_reference_is_the_same(q, scale, temperature):
    for function in (quantized.softmax, quantized.log_softmax):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantized, "_kernel", loaded("reference").quantized())
            want = function(q, scale, temperature=temperature)
        assert error(function(q, scale, temperature=temperature), want.astype(np.float64)) <= 9


@pytest.mark.skipif(len(FUSED) < 2, reason="one instruction set with a fused multiply-add")
def test_the_bits_of_avx2_and_avx512(monkeypatch):
    found = []
    for name in FUSED:
        monkeypatch.setattr(quantized, "_kernel", loaded(name).quantized())
        found.append([quantized.softmax(codes((7, n)), 0.05) for n in (5, 64, 1000, 5000)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("dtype", CODES)
def test_layouts(kernel, dtype):
    q = codes((6, 70, 4), dtype)
    want = quantized.softmax(np.moveaxis(q, 1, -1), 0.05)
    np.testing.assert_array_equal(np.moveaxis(quantized.softmax(q, 0.05, axis=1), 1, -1), want)
    wide = np.zeros((6, 141, 5), dtype)
    wide[:, 1:141:2, 1:] = q
    strided = wide[:, 1:141:2, 1:]
    got = quantized.softmax(strided, 0.05, axis=-2)
    np.testing.assert_array_equal(np.moveaxis(got, 1, -1), want)
    one = quantized.softmax(q[0, :, 0], 0.05)
    np.testing.assert_array_equal(one, want[0, 0])
    assert quantized.softmax(q[0, 0, 0], 0.05).tolist() == [1.0]
    for shape in ((0, 5), (5, 0)):
        assert quantized.log_softmax(np.zeros(shape, dtype), 0.05).shape == shape


def test_a_row_depends_on_nothing_else(kernel, monkeypatch):
    q = codes((20, 333))
    want = quantized.softmax(q, 0.05)
    for i in (0, 7, 19):
        np.testing.assert_array_equal(quantized.softmax(q[i], 0.05), want[i])
    monkeypatch.setattr(quantized, "_CALL", 1000)  # three rows at once
    np.testing.assert_array_equal(quantized.softmax(q, 0.05), want)
    steps = np.full(20, 0.05)
    np.testing.assert_array_equal(quantized.softmax(q, steps), want)


def test_parameters_of_each_row(kernel):
    q = codes((3, 4, 50))
    scale = np.array([0.01, 0.05, 0.2])[:, np.newaxis]
    temperature = np.array([1.0, 2.0, 0.5, 1.5])
    for function in (quantized.softmax, quantized.log_softmax):
        got = function(q, scale, np.zeros((3, 4), int), temperature=temperature)
        for i in range(3):
            for j in range(4):
                want = function(q[i, j], float(scale[i, 0]), temperature=float(temperature[j]))
                np.testing.assert_array_equal(got[i, j], want)


@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
@pytest.mark.parametrize("temperature", [0.0, np.inf, 1e-300, 1e300, 1e7])
def test_temperatures_without_tables(kernel, function, temperature):
    q = codes((4, 30), low=10, high=20)
    got = getattr(quantized, function)(q, 1.0, temperature=temperature)
    want = getattr(fastsoftmax, function)(q, temperature=temperature)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, want.astype(np.float32))
    assert got.dtype == np.float32
    some = getattr(quantized, function)(q, 1.0, temperature=[temperature, 1, 1, 1])
    np.testing.assert_array_equal(some[0], got[0])
    np.testing.assert_allclose(some[1], getattr(quantized, function)(q, 1.0)[1], rtol=1e-6)


@pytest.mark.parametrize("dtype", CODES)
def test_top_k(dtype):
    q = codes((3, 40, 2), dtype)
    x = (q.astype(np.float64) - 3) * 0.3
    got = quantized.top_k(q, 4, 0.3, 3, axis=1)
    want = fastsoftmax.top_k(x, 4, axis=1)
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_array_equal(got.values, want.values.astype(np.float32))
    scale, zero = np.array([[1.0, 2], [3, 4], [5, 6]]), np.arange(6).reshape(3, 2)
    each = quantized.top_k(q, 4, scale, zero, axis=1).values
    x = fastsoftmax.top_k(q, 4, axis=1).values.astype(np.float64)
    np.testing.assert_array_equal(each, ((x - zero[:, None]) * scale[:, None]).astype(np.float32))


@pytest.mark.parametrize("dtype", CODES)
def test_sample(dtype):
    q = codes((50, 40), dtype)
    filters = {"top_k": 20, "top_p": 0.9, "seed": 3, "position": 4}
    got = quantized.sample(q, 0.03, -7, temperature=0.8, **filters)
    np.testing.assert_array_equal(got, fastsoftmax.sample(q, temperature=0.8 / 0.03, **filters))
    x = q.astype(np.float64) * 0.03
    assert (got == fastsoftmax.sample(x, temperature=0.8, **filters)).mean() > 0.9
    scale = np.linspace(0.01, 0.05, 50)
    each = quantized.sample(q, scale, **filters)
    for i in (0, 20, 49):
        assert each[i] == quantized.sample(q[i], scale[i], **filters)


def test_frequencies_of_draws():
    q = np.array([0, 40, 90, 100, 100], np.uint8)
    ids = quantized.sample(q, 0.02, temperature=0.7, size=20000, rng=1)
    p = quantized.softmax(q, 0.02, temperature=0.7)
    seen = np.bincount(ids, minlength=5)
    assert ((seen - 20000 * p) ** 2 / (20000 * p)).sum() < 30  # 4 degrees: 5e-6


@pytest.mark.parametrize(
    ("arguments", "error_type", "words"),
    [
        ({"q": np.zeros(3)}, TypeError, "q has dtype float64; allowed are uint8 and int8"),
        ({"q": np.zeros(3, np.uint16)}, TypeError, "q has dtype uint16"),
        ({"q": np.zeros(3, bool)}, TypeError, "q has dtype bool"),
        ({"q": [1, 2]}, TypeError, "q has dtype int64"),
        ({"q": np.ma.zeros(3, np.uint8)}, TypeError, "q is a masked array; pass q.filled"),
        ({"scale": 0}, ValueError, "scale is 0.0; allowed is above 0, and finite"),
        ({"scale": -1.0}, ValueError, "scale is -1.0"),
        ({"scale": np.nan}, ValueError, "scale is nan"),
        ({"scale": np.inf}, ValueError, "scale is inf"),
        ({"scale": [1.0, np.nan]}, ValueError, "scale is nan"),
        ({"scale": [1.0, 2, 3]}, ValueError, r"scale has shape \(3,\), which does not broadcast"),
        ({"scale": "1"}, TypeError, "scale is '1'"),
        ({"scale": None}, TypeError, "scale is None"),
        ({"scale": True}, TypeError, "scale is True"),
        ({"zero_point": 1.5}, TypeError, "zero_point has dtype float64"),
        ({"zero_point": True}, TypeError, "zero_point has dtype bool"),
        ({"zero_point": 2**70}, ValueError, "zero_point is"),
        ({"zero_point": [1, 2, 3]}, ValueError, "zero_point has shape"),
        ({"temperature": -1}, ValueError, "temperature is -1"),
        ({"temperature": -1.0}, ValueError, "temperature is -1"),
        ({"temperature": np.nan}, ValueError, "temperature is nan"),
        ({"axis": 2}, np.exceptions.AxisError, "axis"),
        ({"axis": None}, TypeError, "axis is None"),
    ],
)
def test_errors(arguments, error_type, words):
    given_q = {"q": np.zeros((2, 3), np.uint8), "scale": 0.1} | arguments
    for function in (quantized.softmax, quantized.log_softmax):
        with pytest.raises(error_type, match=words):
            function(**given_q)
    if "temperature" not in arguments:
        with pytest.raises(error_type, match=words):
            quantized.top_k(**given_q, k=1)
    if "axis" not in arguments:
        with pytest.raises(error_type, match=words):
            quantized.sample(**given_q)


def test_rows_without_codes_are_named():
    q = np.zeros((2, 0), np.uint8)
    with pytest.raises(ValueError, match=r"^q has nothing above -inf in row \(0,\)"):
        quantized.sample(q, 0.1, rng=0)
    assert quantized.sample(q, 0.1, rng=0, on_invalid="flag").tolist() == [-1, -1]


def test_no_trap_of_numpy_is_sprung(kernel):
    q = np.array([[0, 255, 3]], np.uint8)
    with np.errstate(all="raise"):
        for function in (quantized.softmax, quantized.log_softmax):
            for scale in (20.0, 1e-300, 5e-324, 1e300):
                function(q, scale)
                function(q, scale, temperature=[1e-3])
        quantized.top_k(q, 2, 5e-324)
        quantized.top_k(q, 2, 1e308)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("log", [False, True])
def test_nothing_beside_the_result_is_written(kernel, n, log):
    around = np.full(5 * n + 200, 7, np.float32)
    result = around[100:-100].reshape(5, n)
    quantized._kernel(codes((5, n)), result, np.array([[0.05, 1.0]]), n, False, log)
    assert (around[:100] == 7).all()
    assert (around[-100:] == 7).all()
    assert not (result == 7).any()


def test_arrays_of_the_kernels_are_only_read():
    q = codes((4, 100))
    q.flags.writeable = False
    before = q.copy()
    quantized.softmax(q, 0.05)
    np.testing.assert_array_equal(q, before)


def test_examples():
    failed, attempted = doctest.testmod(quantized)
    assert failed == 0
    assert attempted > 8


def test_every_kernel_is_among_those_tested():
    assert set(_dispatch.NAMES) == {"reference", *COMPILED}
