"""A row's bits depend on its values, its temperature and its dtype, and on nothing else."""

import hashlib

import numpy as np
import pytest

from fastsoftmax import _dispatch

LENGTHS = [*range(1, 71), 1000, 2047, 2048, 2049, 4095, 4096, 4097, 10_000]
DTYPES = [np.float32, np.float64]

#: sha256 of `results` and of `loss_results`, the same for every instruction set that has a fused
#: multiply-add.
DIGEST = "48d0a3dbfd6d6eddd401da4ba8c81441b0159e7abf6a7e800ec50baf9539bcf7"
LOSS_DIGEST = "28137682571a4ddbd0d5177106bde0adc4ad2cb53bc1a25e4071d3bc17e1c9d9"


def numbers(n, dtype, seed=0):
    """Return n numbers from -16 to 16 made of integers alone, exact in every dtype (splitmix64)."""
    z = (np.arange(n, dtype=np.uint64) + np.uint64(seed * 1_000_003 + 1)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(dtype) * dtype(2.0**-19)


def placed(x, offset):
    """Return a copy of `x` that starts `offset` bytes after a multiple of 64."""
    memory = np.empty(x.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    view = memory[start : start + x.nbytes].view(x.dtype)
    view[...] = x
    return view


def results(impl):
    """Yield results of the softmax family over a fixed set of rows."""
    for dtype in DTYPES:
        for n in LENGTHS:
            x = numbers(n, dtype, seed=n)
            for temperature in (1.0, 0.7, 3.0):
                yield impl.softmax(x, temperature=temperature)
                yield impl.log_softmax(x, temperature=temperature)
            yield impl.logsumexp(x)


def loss_results(impl):
    """Yield results of the losses and gradients over the same rows."""
    for dtype in DTYPES:
        for n in LENGTHS:
            x = np.stack([numbers(n, dtype, seed=n + i) for i in range(3)])
            t = np.array([0, n // 2, n - 1])
            q = abs(x[::-1]) / 16
            w = np.abs(numbers(n, np.float64, seed=7))
            for options in ({}, {"weight": w, "reduction": "none"}, {"label_smoothing": 0.1}):
                yield from impl.cross_entropy_with_grad(x, t, **options)
                yield impl.cross_entropy(x, q, **options)
            yield impl.cross_entropy_with_grad(x, q, weight=w, reduction="sum").grad
            for temperature in (1.0, 0.7):
                yield impl.softmax_backward(x, q, temperature=temperature)
                yield impl.log_softmax_backward(x, -16 * q, temperature=temperature)


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_maps(impl, dtype, name, temperature):
    f = getattr(impl, name)
    for n in LENGTHS:
        x = numbers(n, dtype)
        alone = f(x, temperature=temperature)

        def check(y, what, alone=alone, n=n):
            assert np.array_equal(y, alone), f"length {n}: {what}"

        others = numbers(n, dtype, seed=7)
        for place in range(3):
            batch = np.stack([others, others[::-1], others])
            batch[place] = x
            check(f(batch, temperature=temperature)[place], f"row {place} of a batch")
            check(f(batch, temperature=[temperature] * 3)[place], "one temperature a row")
            mixed = [0.5, 2.0, 1.0]
            mixed[place] = temperature
            check(f(batch, temperature=mixed)[place], "different temperatures")
            columns = f(np.ascontiguousarray(batch.T), axis=0, temperature=temperature)
            check(columns[:, place], f"column {place}")
        check(f(x[::-1].copy()[::-1], temperature=temperature), "a negative stride")
        check(f(np.repeat(x, 3)[::3], temperature=temperature), "a stride of 3")
        for offset in (0, x.itemsize, 1, 32 + x.itemsize, 33):
            view = placed(x, offset)
            check(f(view, temperature=temperature), f"offset {offset}")
            f(x, temperature=temperature, out=view)
            check(view, f"out at offset {offset}")
            view[...] = x
            f(view, temperature=temperature, out=view)
            check(view, f"in place at offset {offset}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_into_any_place_of_a_line(impl, dtype):
    # Long rows are written line by line: what lies before the first line goes another way.
    for n in (2047, 2048, 2049, 2079, 2080, 4095, 4096, 4097, 4128, 8191, 8223, 10240, 10272):
        x = numbers(n, dtype)
        alone = impl.softmax(x, out=placed(x, 0))
        for offset in range(x.itemsize, 64, x.itemsize):
            y = placed(np.full_like(x, 7), offset)
            assert np.array_equal(impl.softmax(x, out=y), alone), (n, offset)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logsumexp(impl, dtype):
    for n in LENGTHS:
        x = numbers(n, dtype)
        alone = impl.logsumexp(x)
        batch = np.stack([numbers(n, dtype, seed=7), x, x])
        assert (impl.logsumexp(batch)[1:] == alone).all(), n
        assert (impl.logsumexp(np.ascontiguousarray(batch.T), axis=0)[1:] == alone).all(), n
        assert impl.logsumexp(np.repeat(x, 3)[::3]) == alone, n
        for offset in (x.itemsize, 1, 33):
            assert impl.logsumexp(placed(x, offset)) == alone, n


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["classes", "smoothed", "probabilities"])
def test_losses(impl, dtype, kind):
    def pair(x, t, axis=-1, out=None):
        e = 0.1 if kind == "smoothed" else 0.0
        loss, grad = impl.cross_entropy_with_grad(
            x, t, axis=axis, label_smoothing=e, reduction="none", out=out
        )
        return np.append(grad, np.expand_dims(loss, axis), axis)

    for n in LENGTHS:
        x = numbers(n, dtype)
        t = abs(numbers(n, dtype, seed=3)) if kind == "probabilities" else n // 3
        alone = pair(x, t)
        batch = np.stack([numbers(n, dtype, seed=7), x, x])
        ts = np.stack([t] * 3)
        assert (pair(batch, ts)[1:] == alone).all(), n
        columns = np.ascontiguousarray(batch.T)
        assert (pair(columns, ts.T, axis=0)[:, 1:].T == alone).all(), n
        assert (pair(np.repeat(x, 3)[::3], t) == alone).all(), n
        for offset in (x.itemsize, 1, 33):
            view = placed(x, offset)
            assert (pair(view, t) == alone).all(), n
            assert (pair(view, t, out=view) == alone).all(), n


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax_backward", "log_softmax_backward"])
def test_backward(impl, dtype, name):
    f = getattr(impl, name)
    for n in LENGTHS:
        g, q = numbers(n, dtype), -abs(numbers(n, dtype, seed=3))
        alone = f(g, q)
        both = [np.stack([a[::-1], a, a]) for a in (g, q)]
        assert (f(*both)[1:] == alone).all(), n
        assert (f(both[0].T.copy(), both[1].T.copy(), axis=0)[:, 1:].T == alone).all(), n
        for offset in (g.itemsize, 1, 33):
            view = placed(g, offset)
            assert (f(view, placed(q, offset)) == alone).all(), n
            assert (f(view, q, out=view) == alone).all(), n


@pytest.mark.parametrize("of", [results, loss_results])
def test_avx2_and_avx512_give_the_same_bits(of):
    if not {"avx2", "avx512"} <= set(_dispatch.runnable()):
        pytest.skip("needs a CPU with both")
    for a, b in zip(of(_dispatch.load("avx2")), of(_dispatch.load("avx512")), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("of", [results, loss_results])
def test_close_to_the_reference(compiled, of):
    for a, b in zip(of(compiled), of(_dispatch.load("reference")), strict=True):
        eps = np.finfo(a.dtype).eps
        atol = 100 * eps * abs(b).max() if of == loss_results else 0  # differences of others
        np.testing.assert_allclose(a, b, rtol=100 * eps, atol=atol)


@pytest.mark.parametrize(("of", "recorded"), [(results, DIGEST), (loss_results, LOSS_DIGEST)])
def test_recorded_digest(fused, of, recorded):
    digest = hashlib.sha256()
    for y in of(fused):
        digest.update(y.astype(y.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == recorded
