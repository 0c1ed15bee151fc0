"""`fastsoftmax.scipy` beside SciPy: same signatures, shapes, dtypes and values; errors of `b=`."""

import inspect
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import mpmath
import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_array_equal

import fastsoftmax.scipy

NAMES = fastsoftmax.scipy.__all__
RNG = np.random.default_rng(0)
X = RNG.normal(0, 5, (2, 3, 4))
AXES = [None, 0, -1, 1, (0, 2), (-1, 0, 1), (), np.int64(1)]


@pytest.fixture
def ours(impl, monkeypatch):
    """`fastsoftmax.scipy` on each implementation."""
    monkeypatch.setattr(fastsoftmax.scipy, "active", impl)
    return fastsoftmax.scipy


def assert_same(got, want, factor=8):
    """Compare types, shapes, dtypes, and values within some units of the last place."""
    assert type(got) is type(want)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    eps = float(ml_dtypes.finfo(got.dtype).eps)
    got, want = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=factor * eps, atol=factor * eps)


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name):
    ours, theirs = (
        inspect.signature(getattr(module, name)) for module in (fastsoftmax.scipy, scipy.special)
    )
    assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.default, p.kind) for p in theirs.parameters.values()
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int64"])
def test_as_scipy(ours, name, dtype):
    x = X.astype(dtype)
    for axis in AXES:
        want = getattr(scipy.special, name)(x, axis=axis)
        got = getattr(ours, name)(x, axis=axis)
        # SciPy's softmax of float16 is computed in float16.
        factor = 64 if dtype == "float16" else 16
        assert_same(got, want.astype(want.dtype.newbyteorder("=")), factor)


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("dtypes", ["fff", "fdd", "dfd", "fid", "eee", "lld"])
def test_factors_as_scipy(ours, axis, dtypes):
    keepdims = axis in (0, None)
    b = np.random.default_rng(0).lognormal(0, 1, (3, 1)) * [[1], [-1], [3]] + (dtypes[1] in "il")
    arguments = {"axis": axis, "b": b.astype(dtypes[1]), "keepdims": keepdims, "return_sign": True}
    x = X.astype(dtypes[0])
    got = ours.logsumexp(x, **arguments)
    want = scipy.special.logsumexp(x, **arguments)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtypes[2]
        assert_same(a, b, 256 if dtypes[2] == "e" else 64)
    without_sign = ours.logsumexp(x, **{**arguments, "return_sign": False})
    assert_same(without_sign, np.where(got[1] < 0, np.nan, got[0]).astype(got[0].dtype)[()])


NAN, INF = np.nan, np.inf
EDGES = [
    ([1.0, 2.0], None),
    ([-INF, -INF], None),
    ([INF, 1.0], None),
    ([NAN, 1.0], None),
    ([-INF, 1.0], [1, 2]),
    ([INF, 1.0], [1, 1]),
    ([INF, 1.0], [-1, 1]),
    ([INF, INF], [1, -1]),
    ([INF, 1.0], [0, 1]),
    ([NAN, 1.0], [0, 1]),
    ([NAN, 1.0], [1, 1]),
    ([-INF, -INF], [1, 2]),
    ([1.0, 1.0], [1, -1]),
    ([1.0, 2.0], [0, 0]),
    ([1.0, 2.0], [NAN, 1]),
    ([1.0, 2.0], [INF, 1]),
    ([1.0, 2.0], [-INF, 1]),
    ([1.0, 2.0], [INF, -INF]),
    ([-INF, 2.0], [INF, 1]),
    ([1e300, 1e300], [2, 3]),
    ([0.0, -40.0], [1, 2]),
    ([0.0, -40.0], [1, -2]),
    (1.0, 2.0),
    (1.0, [2.0, 3.0]),
    ([1.0, 2.0], -2.0),
]


@pytest.mark.parametrize("return_sign", [False, True])
@pytest.mark.parametrize(("a", "b"), EDGES, ids=str)
def test_edges_as_scipy(ours, a, b, return_sign):
    with np.errstate(all="ignore"):
        want = scipy.special.logsumexp(a, b=b, return_sign=return_sign)
    got = ours.logsumexp(a, b=b, return_sign=return_sign)
    assert np.shape(got) == np.shape(want)
    np.testing.assert_allclose(got, want, rtol=1e-15, atol=0)


def test_what_is_0_by_its_factor_does_not_count(ours):
    """Where all factors are 0 SciPy has NaN if an exponential overflows."""
    result, sign = ours.logsumexp([1e4, NAN], b=[0, 0], return_sign=True)
    assert (result, sign) == (-INF, 0)


def test_empty(ours):
    assert ours.softmax([]).shape == ours.log_softmax([]).shape == (0,)
    for b in (None, np.empty((2, 0))):
        result, sign = ours.logsumexp(np.empty((2, 0)), axis=1, b=b, return_sign=True)
        assert_array_equal(result, [-INF, -INF])
        assert_array_equal(sign, [0, 0])
    assert ours.logsumexp(np.empty((0, 3)), axis=1, b=2.0).shape == (0,)


def test_a_number_keeps_an_axis_as_in_scipy(ours):
    for b in (None, 2.0):
        got = ours.logsumexp(1.0, b=b, keepdims=True)
        assert_same(got, scipy.special.logsumexp(1.0, b=b, keepdims=True))


def test_numbers_beside_arrays_are_weak(ours):
    x = X.astype(np.float32)
    assert ours.logsumexp(x, b=2.0).dtype == np.float32
    assert ours.logsumexp(x, b=[2.0]).shape == ()
    assert ours.logsumexp(x, b=[2.0]).dtype == np.float64
    half = X.astype(ml_dtypes.bfloat16)
    assert ours.logsumexp(half, b=half).dtype == half.dtype
    assert ours.softmax(half).dtype == half.dtype


def test_small_integers_do_not_wrap_around(ours):
    x = np.array([-100, 100], np.int8)
    want = scipy.special.softmax([-100.0, 100.0])
    for got in (ours.softmax(x), ours.softmax(np.array([0, 200], np.uint8))):
        assert_same(got, want)


@pytest.mark.parametrize("bad", [3, (0, 0), -4, 1.5], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_axis(ours, name, bad):
    with pytest.raises((ValueError, TypeError)) as theirs:
        getattr(scipy.special, name)(X, axis=bad)
    with pytest.raises(type(theirs.value)):
        getattr(ours, name)(X, axis=bad)


def test_factors_that_do_not_broadcast(ours):
    with pytest.raises(ValueError, match="shape"):
        ours.logsumexp(X, b=[1.0, 2.0])


# ---- exactness of sums with factors --------------------------------------------------------------


def rows(kind, dtype):
    """Yield exponents and factors of a kind."""
    rng = np.random.default_rng(1)
    for _ in range(8):
        a = rng.normal(0, 5, 30).astype(dtype)
        b = rng.lognormal(0, 1, 30).astype(dtype)
        if kind == "one large":
            a[1:] -= 40
            a[0], b[0] = 0, 1
        elif kind == "signs":
            b *= rng.choice([-1, 1], 30).astype(dtype)
        elif kind == "cancel":
            a[1::2] = a[::2] + (rng.random(15) * 1e-3).astype(dtype)
            b = np.tile([1, -1], 15).astype(dtype)
        elif kind == "far from 0":
            a += dtype(70000)  # where half an ulp is about u |a|
        yield a, b


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["positive", "one large", "signs", "cancel", "far from 0"])
def test_error_with_factors(ours, kind, dtype):
    """Errors in u, over 1 for the sum, times what cancels, and 1 for the result's own rounding."""
    u = float(np.finfo(dtype).eps) / 2
    with mpmath.workdps(50):
        for a, b in rows(kind, dtype):
            terms = [mpmath.mpf(float(y)) * mpmath.exp(float(x)) for x, y in zip(a, b, strict=True)]
            total = mpmath.fsum(terms)
            cancelled = float(mpmath.fsum(map(abs, terms)) / abs(total))
            result, sign = ours.logsumexp(a, b=b, return_sign=True)
            assert sign == mpmath.sign(total)
            want = mpmath.log(abs(total))
            error = float(abs(float(result) - want)) / u
            if kind == "one large":
                assert error <= 10 * abs(want)  # no digit of it is lost
            elif dtype == np.float32:
                assert error <= 1.01 * abs(want) + 1e-6 * cancelled
            else:
                assert error <= 1.01 * abs(want) + 5 * cancelled


# ---- what is SciPy's -----------------------------------------------------------------------------


class Subclass(np.ndarray):
    """A subclass of arrays."""


SCIPYS = {
    "complex": X + 1j,
    "complex64": (X + 1j).astype(np.complex64),
    "longdouble": X.astype(np.longdouble),
    "complex number": 1j,
    "masked": np.ma.array(X, mask=X > 0),
    "matrix": X[0].view(np.matrix),
    "subclass": X.view(Subclass),
    "other": memoryview(X[0, 0]),
}


def outcome(function, x):
    """Return a result, or the text of SciPy's TypeError (logsumexp of a matrix)."""
    try:
        return function(x)
    except TypeError as error:
        return str(error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", SCIPYS)
def test_what_is_handed_to_scipy(name, kind, monkeypatch):
    x = SCIPYS[kind]
    want = outcome(getattr(scipy.special, name), x)
    monkeypatch.setattr(scipy.special, name, getattr(fastsoftmax.scipy, name))  # not to itself
    got = outcome(getattr(scipy.special, name), x)
    assert type(got) is type(want)
    assert_array_equal(got, want)


@pytest.mark.parametrize("argument", ["a", "b"])
def test_one_argument_is_scipys(argument):
    arguments = {"a": X, "b": X, argument: X + 1j}
    got = fastsoftmax.scipy.logsumexp(**arguments, axis=1, keepdims=True, return_sign=True)
    want = scipy.special.logsumexp(**arguments, axis=1, keepdims=True, return_sign=True)
    assert_array_equal(got, want)


def test_scipys_errors():
    with pytest.raises(TypeError):
        fastsoftmax.scipy.softmax(["a", "b"])


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special._logsumexp", None)
    assert fastsoftmax.scipy.softmax([0.0]) == [1]
    with pytest.raises(ImportError, match=r"pip install fastsoftmax\[scipy\]"):
        fastsoftmax.scipy.softmax(1j)


def test_scipy_is_imported_when_it_is_needed():
    code = (
        "import sys, fastsoftmax.scipy as s; s.logsumexp([1.0], b=2.0); s.softmax([1])\n"
        "assert 'scipy' not in sys.modules; s.softmax(1j); assert 'scipy' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.slow
def test_scipys_own_tests(tmp_path):
    """Run SciPy's test_logsumexp.py with ours in place, which is called all the time."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "ours_in_place", "-p", "no:cacheprovider",
        "-c", str(tmp_path / "none.ini"), "--rootdir", str(tmp_path),
        "--pyargs", "scipy.special.tests.test_logsumexp",
    ]  # fmt: skip
    (tmp_path / "none.ini").touch()
    path = f"{Path(__file__).parent}:{Path(fastsoftmax.__file__).parents[1]}"
    ran = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert "407 passed" in ran.stdout or scipy.__version__ != "1.17.1", ran.stdout[-500:]
    calls = int(ran.stdout.split("calls of ours: ")[1].split()[0])
    assert calls > 400


# ---- docs ----------------------------------------------------------------------------------------


def test_examples():
    import doctest

    failed, tried = doctest.testmod(fastsoftmax.scipy)
    assert (failed, tried > 0) == (0, True)
