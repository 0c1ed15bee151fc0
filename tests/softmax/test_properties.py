"""Properties of the softmax family over generated inputs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

U = {"f4": 2.0**-24, "f8": 2.0**-53}
entries = st.floats(-60, 60, width=32) | st.sampled_from([-np.inf, 0.0, -0.0])


@st.composite
def cases(draw):
    """Draw an array of any layout, an axis, a mask and temperatures."""
    dtype = draw(st.sampled_from(["f4", "f8"]))
    shape = draw(array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=40))
    x = draw(arrays(dtype, shape, elements=entries, fill=st.floats(-5, 5, width=32)))
    for axis in range(x.ndim):
        x = np.flip(x, axis) if draw(st.booleans()) else x
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    axes = draw(st.sets(st.integers(0, x.ndim - 1), min_size=1))
    axis = draw(st.sampled_from([tuple(axes), min(axes), min(axes) - x.ndim, None]))
    where = draw(st.none() | arrays(bool, x.shape) | arrays(bool, x.shape[-1:]))
    reduced = range(x.ndim) if axis is None else np.atleast_1d(axis) % x.ndim
    rows = tuple(n for a, n in enumerate(x.shape) if a not in reduced)
    one = st.sampled_from([1.0, 0.25, 0.7, 3.0])
    temperature = draw(one | arrays("f8", rows, elements=one))
    return x, axis, where, temperature, tuple(reduced)


def assert_near(y, expected, allowed):
    """Assert equal shapes, equal NaN and infinities, and errors within `allowed`."""
    assert y.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(y[~finite], expected[~finite])
    assert (np.abs(y[finite].astype("f8") - expected[finite]) <= allowed[finite]).all()


@given(case=cases())
def test_against_the_reference(compiled, reference, case):
    """The reference works in float64, so for float64 it may be as wrong itself."""
    x, axis, where, temperature, reduced = case
    options = {"axis": axis, "where": where}
    u = U[x.dtype.str[1:]]
    wide = x.astype("f8")
    t = np.expand_dims(temperature, reduced) if np.ndim(temperature) else temperature
    hidden = np.full(x.shape, -np.inf)
    np.copyto(hidden, wide, where=True if where is None else where)
    with np.errstate(invalid="ignore"):
        d = hidden - np.max(hidden, axis=reduced, keepdims=True, initial=-np.inf)
    relative = 2 * (4 + 3.1 * np.where(np.isfinite(d), -d, 0) / t) * u

    p = reference.softmax(wide, temperature=temperature, **options)
    y = compiled.softmax(x, temperature=temperature, **options)
    assert y.dtype == x.dtype
    assert_near(y, p, np.maximum(relative * p, np.finfo(x.dtype).tiny))

    log_p = reference.log_softmax(wide, temperature=temperature, **options)
    y = compiled.log_softmax(x, temperature=temperature, **options)
    assert y.dtype == x.dtype
    with np.errstate(invalid="ignore"):
        assert_near(y, log_p, relative + 4 * u * np.abs(log_p))

    lse = np.asarray(reference.logsumexp(wide, keepdims=True, **options))
    y = np.asarray(compiled.logsumexp(x, keepdims=True, **options))
    assert y.dtype == x.dtype
    assert_near(y, lse, 16 * u + 4 * u * np.abs(lse))


@given(
    x=arrays(
        "f4", st.integers(1, 200), elements=st.integers(-(2**10), 2**10).map(lambda i: i / 32)
    ),
    shift=st.integers(-(2**10), 2**10),
)
def test_a_shift_without_rounding_changes_little(impl, x, shift):
    """Numbers with few bits: x + shift is exact, and so is all that is made of the differences."""
    for dtype in ("f4", "f8"):
        a = x.astype(dtype)
        b = a + np.dtype(dtype).type(shift)
        u = U[dtype]
        p = impl.softmax(a)
        d = np.abs(a - a.max())
        tiny = np.finfo(dtype).tiny
        assert (np.abs(impl.softmax(b) - p) <= tiny + (8 + 0.2 * d) * u * p).all()
        p = impl.log_softmax(a)
        assert (np.abs(impl.log_softmax(b) - p) <= (8 + 0.2 * d) * u + 4 * u * np.abs(p)).all()
        a, b = impl.logsumexp(a), impl.logsumexp(b)
        assert abs(float(b) - float(a) - shift) <= 2 * u * (abs(float(a)) + abs(float(b)) + 8)


@given(
    x=arrays("f4", st.integers(1, 200), elements=st.floats(-30, 30, width=32)),
    shift=st.floats(-100, 100, width=32),
)
def test_a_shift_with_rounding_changes_little(impl, x, shift):
    """Adding the shift moves each entry, and the maximum, by up to half a unit in its place."""
    for dtype in ("f4", "f8"):
        a = x.astype(dtype)
        b = a + np.dtype(dtype).type(shift)
        d = (a.max() - a).astype("f8")
        p = impl.softmax(a).astype("f8")
        moved = 4 * 130 * U[dtype]
        allowed = (2 * (4 + 1.1 * (d + 1)) * U[dtype] + moved) * p
        error = np.abs(impl.softmax(b) - p)
        assert (error <= np.maximum(allowed, np.finfo(dtype).tiny)).all()


@given(x=arrays("f4", st.integers(1, 200), elements=entries), temperature=st.floats(0.05, 20))
def test_log_softmax_is_the_logarithm_of_softmax(impl, x, temperature):
    p = impl.softmax(x, temperature=temperature)
    log_p = impl.log_softmax(x, temperature=temperature)
    assert np.array_equal(np.isnan(p), np.isnan(log_p))
    assert not (log_p > 0).any()
    normal = p > np.finfo("f4").tiny
    error = np.abs(np.exp(log_p[normal].astype("f8")) / p[normal] - 1)
    assert (error <= (16 + 8 * np.abs(log_p[normal])) * U["f4"]).all()
