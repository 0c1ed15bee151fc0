"""Long rows that are packed by pieces, against the same rows as they stand."""

import itertools

import numpy as np
import pytest

from tests.arrays import byte_swapped, dtype_of, misaligned, spaced

N = 20_000  # more than one piece, and more than a row that is packed as a whole
HUGE = (1 << 20) + 5000  # whose exponentials are made twice where they must be packed
FORMS = {
    "strided": spaced,
    "reversed": lambda x: x[..., ::-1].copy()[..., ::-1],
    "misaligned": misaligned,
    "byte-swapped": byte_swapped,
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(dtype_of("bfloat16")),
    "int16": lambda x: (np.nan_to_num(x, neginf=-9, posinf=9) * 100).astype(np.int16),
}
OPS = ("softmax", "log_softmax", "logsumexp")


def rows(n):
    """Return rows of each kind: ordinary, NaN, infinities, far entries, no probabilities."""
    x = np.random.default_rng(n).normal(size=(7, n)).astype(np.float32)
    x[1, n - 1] = np.nan
    x[2, n // 2] = np.inf
    x[3, ::3] = -np.inf
    x[4, n - 7] = 300  # no pivot from the first block serves
    x[5] = -np.inf
    x[6] *= 1000
    return x


def plain(x):
    """Return `x` as an array that is computed with as it stands."""
    wide = np.float32 if x.dtype.kind in "fV" and x.dtype.itemsize < 8 else np.float64
    return np.ascontiguousarray(x, wide)


def assert_same(got, want):
    """Assert that arrays have the same numbers, NaN for NaN, in the dtype of the first."""
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got.astype(float), want.astype(got.dtype).astype(float))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0, [1.0, 2, 0.5, 1, 0, 1e-40, 3]])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("op", OPS)
def test_forms(compiled, op, form, temperature):
    x = FORMS[form](rows(N))
    function = getattr(compiled, op)
    if op == "logsumexp":
        if temperature != 1:
            return
        assert_same(function(x), function(plain(x)))
        return
    want = function(plain(x), temperature=temperature)
    assert_same(function(x, temperature=temperature), want)
    if x.dtype.kind == "f":
        assert_same(function(x, temperature=temperature, out=x), want)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("form", ["float16", "strided"])
@pytest.mark.parametrize("workers", [1, 2])
def test_rows_too_long_for_scratch(compiled, op, form, workers):
    x = FORMS[form](rows(HUGE)[[0, 1, 4]])
    function = getattr(compiled, op)
    want = function(plain(x))
    for row, result in zip(x, want, strict=True):
        assert_same(np.asarray(function(row, workers=workers)), np.asarray(result))
    if op == "softmax":
        assert_same(function(x, out=x, workers=workers), want)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", OPS)
def test_where(compiled, op, dtype, temperature):
    if op == "logsumexp" and temperature != 1:
        return
    x = rows(N).astype(dtype)
    where = np.random.default_rng(0).random(x.shape) < 0.7
    where[4, -7] = True
    function = getattr(compiled, op)
    arguments = {} if op == "logsumexp" else {"temperature": temperature}
    want = function(np.where(where, x, -np.inf).astype(dtype), **arguments)
    if op != "logsumexp":
        want = np.where(where, want, 0 if op == "softmax" else -np.inf).astype(dtype)
    assert_same(function(x, where=where, **arguments), want)
    assert_same(function(spaced(x), where=spaced(where), **arguments), want)
    if op != "logsumexp":
        assert_same(function(x, where=where, out=x, **arguments), want)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(7, 300, 50), (40, 5, 30, 7), (3, 5, 900, 1, 2)])
def test_rows_of_several_axes(compiled, shape, dtype):
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape).astype(dtype).transpose(rng.permutation(len(shape)))
    where = rng.random(x.shape) < 0.7
    for axes in itertools.combinations(range(x.ndim), 2):
        moved = np.moveaxis(x, axes, (-2, -1))
        flat = plain(moved).reshape(*moved.shape[:-2], -1)
        mask = np.moveaxis(where, axes, (-2, -1)).reshape(flat.shape)
        for op in OPS:
            function = getattr(compiled, op)
            for given, expected in (({}, {}), ({"where": where}, {"where": mask})):
                want = function(flat, **expected)
                if op != "logsumexp":
                    want = np.moveaxis(want.reshape(moved.shape), (-2, -1), axes)
                assert_same(np.asarray(function(x, axes, **given)), want)
