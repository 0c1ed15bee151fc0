"""Input and out= of any strides: the bits and the memory order, without a copy of the whole."""

import tracemalloc
import warnings

import numpy as np
import pytest

SIZES = [(3, 5), (50, 3), (9000, 7), (700, 100), (40, 600), (5, 30_000)]  # blocks begin and end


def numbers(shape, dtype=np.float32, seed=0):
    """Return numbers with NaN, infinities and a row of nothing but -inf among them."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 4
    x[0, -1], x[1, 0], x[2] = np.nan, np.inf, -np.inf
    return x.astype(dtype)


def inside(x, before, after, step=1):
    """Return `x` as a view of a larger array with so much around it, and that array."""
    shape = [b + n * step + a for b, n, a in zip(before, x.shape, after, strict=True)]
    big = np.full(shape, 7, x.dtype)
    view = big[tuple(slice(b, b + n * step, step) for b, n in zip(before, x.shape, strict=True))]
    view[...] = x
    return view, big


LAYOUTS = {
    "contiguous": lambda x: (x.copy(), None),
    "x[:, :n]": lambda x: inside(x, (0, 0), (0, 3)),
    "x[:, k:]": lambda x: inside(x, (2, 3), (1, 0)),
    "x[::2]": lambda x: (np.repeat(x, 2, 0)[::2], None),
    "x[:, ::2]": lambda x: inside(x, (0, 0), (0, 0), 2),
    "x[::-1]": lambda x: (x[::-1].copy()[::-1], None),
    "x[:, ::-1]": lambda x: (x[:, ::-1].copy()[:, ::-1], None),
    "x.T": lambda x: (x.T.copy().T, None),
    "x[:m].T": lambda x: tuple(a.T for a in inside(x.T, (1, 2), (3, 4))),
    "x[::-1].T": lambda x: (x.T[::-1].copy()[::-1].T, None),
}


def half(name):
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 is ml_dtypes'").bfloat16)
    return np.dtype(name)


def assert_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_a_layout_changes_no_bit(compiled, layout, dtype):
    for shape in SIZES:
        x = numbers(shape, half(dtype))
        view, _ = LAYOUTS[layout](x)
        for axis in (0, 1):
            rows = np.ascontiguousarray(np.moveaxis(x, axis, -1)).astype(
                np.float64 if dtype == "float64" else np.float32
            )
            with np.errstate(all="ignore"):
                expected = compiled.logsumexp(rows).astype(x.dtype)
                assert_bits(compiled.logsumexp(view, axis=axis), expected)
            for function in (compiled.softmax, compiled.log_softmax):
                for t in (1.0, 0.7, 0.0) if x.itemsize > 2 else (0.7,):
                    with np.errstate(all="ignore"):
                        expected = function(rows, temperature=t).astype(x.dtype)
                    expected = np.moveaxis(expected, -1, axis)
                    assert_bits(function(view, axis=axis, temperature=t), expected)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_out_of_any_layout(compiled, layout, dtype):
    for shape in SIZES:
        x = numbers(shape, dtype)
        for axis in (0, 1):
            for function in (compiled.softmax, compiled.log_softmax):
                expected = function(x, axis=axis)
                out, big = LAYOUTS[layout](np.full_like(x, 3))
                assert function(x, axis=axis, out=out) is out
                assert_bits(out, expected)
                view, _ = LAYOUTS[layout](x)
                function(view, axis=axis, out=out)
                assert_bits(out, expected)
                function(view, axis=axis, out=view)
                assert_bits(view, expected)
                if big is not None:
                    out[...] = 7
                    assert (big == 7).all()


@pytest.mark.slow_reference
def test_axes_that_are_not_one(g):
    """Three axes in every order, cut on every side, with a row's temperature each."""
    x = np.random.default_rng(1).standard_normal((6, 9, 11)).astype(np.float32)
    big = np.zeros((12, 10, 14), np.float32)
    for cut in (np.s_[::2, :9, 2:13], np.s_[6:, 1:, :11], np.s_[11:5:-1, 9:0:-1, 13:2:-1]):
        big[cut] = x
        for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
            view, same = big[cut].transpose(order), x.transpose(order).copy()
            for axis in (0, 1, 2):
                np.testing.assert_array_equal(g(view, axis=axis), g(same, axis=axis))
                if g.__name__ != "logsumexp":
                    each = np.arange(0, same.size // same.shape[axis]) / 9
                    each = each.reshape(*same.shape[:axis], *same.shape[axis + 1 :])
                    np.testing.assert_array_equal(
                        g(view, axis=axis, temperature=each), g(same, axis=axis, temperature=each)
                    )


@pytest.mark.slow_reference
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_that_repeat(g, axis):
    for n in (5, 700):
        row = np.random.default_rng(2).standard_normal(n).astype(np.float32)
        for x in (np.broadcast_to(row, (300, n)), np.broadcast_to(row[:, None], (n, 300))):
            y = g(x, axis=axis)
            np.testing.assert_array_equal(y, g(x.copy(), axis=axis))
            assert y.flags.c_contiguous


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_threads_share_any_layout(compiled, workers):
    x = numbers((3000, 1000))
    for layout in LAYOUTS.values():
        for a in (x, x.astype(np.float16), x[:2].repeat(400, 1)):
            a, _ = layout(a)
            for axis in (0, 1):
                for name in ("softmax", "log_softmax", "logsumexp"):
                    g = getattr(compiled, name)
                    with np.errstate(all="ignore"):
                        assert_bits(g(a, axis=axis, workers=workers), g(a, axis=axis))


# ---- half types ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_is_read_and_written_as_numpy_does(compiled, dtype):
    every = np.arange(1 << 16, dtype=np.uint16).view(half(dtype))
    with np.errstate(all="ignore"):
        wide = every.astype(np.float32)
        pairs = np.stack([np.zeros(1 << 16, dtype=every.dtype), every], axis=1)
        expected = compiled.softmax(pairs.astype(np.float32)).astype(every.dtype)
        logs = compiled.log_softmax(pairs.astype(np.float32)).astype(every.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_bits(compiled.softmax(pairs), expected)
        assert_bits(compiled.log_softmax(pairs), logs)
        read = compiled.logsumexp(every[:, None])
    np.testing.assert_array_equal(read.astype(np.float32), wide)


def test_small_probabilities_are_rounded_once(compiled):
    x = np.linspace(0, 40, 100_000, dtype=np.float16)
    wide = compiled.softmax(x.astype(np.float32))
    y = compiled.softmax(x)
    assert len(np.unique(y[y < 2**-14])) > 100, "subnormal numbers"
    with np.errstate(all="ignore"):
        assert_bits(y, wide.astype(np.float16))


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_lie_as_the_input(f, layout):
    x, _ = LAYOUTS[layout](np.random.default_rng(3).standard_normal((20, 30)).astype(np.float32))
    for dtype in (np.float32, np.float16, np.int32):
        x = x.astype(dtype) if dtype != np.float32 else x
        for axis in (0, 1):
            y = f(x, axis=axis)
            assert y.strides == np.empty_like(x, dtype=y.dtype).strides
    cube = np.random.default_rng(3).standard_normal((4, 5, 6)).transpose(2, 0, 1)
    for axis in range(3):
        assert f(cube, axis=axis).strides == np.exp(cube).strides


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_copy_of_the_whole(compiled, layout, dtype):
    x, _ = LAYOUTS[layout](np.zeros((2000, 1000), dtype))
    out = np.zeros_like(x)

    def peak(call):
        tracemalloc.start()
        call()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    for axis in (0, 1):
        assert peak(lambda a=axis: compiled.softmax(x, axis=a)) < 1.1 * x.size * x.itemsize
        assert peak(lambda a=axis: compiled.log_softmax(x, axis=a, out=out)) < 50_000
        assert peak(lambda a=axis: compiled.logsumexp(x, axis=a)) < 50_000
