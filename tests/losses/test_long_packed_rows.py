"""Losses and gradients of long rows that are packed by parts, against the rows as they stand."""

import numpy as np
import pytest

from tests.arrays import byte_swapped, dtype_of, misaligned, spaced

LONG = 1 << 20  # elements from which on rows go by parts
BLOCK = 2048  # elements of a part
FORMS = {
    "strided": spaced,
    "reversed": lambda x: x[..., ::-1].copy()[..., ::-1],
    "misaligned": misaligned,
    "byte-swapped": byte_swapped,
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(dtype_of("bfloat16")),
    "int16": lambda x: (np.nan_to_num(x, neginf=-9, posinf=9) * 100).astype(np.int16),
    "float64": lambda x: spaced(x.astype(np.float64)),
}
SPECIAL = ("ordinary", "nan", "inf", "some -inf", "all -inf", "one far", "huge")


def each(name, values, quick=(), slow=()):
    """Return a parameter for each value; those that are neither `quick` nor `slow` are weekly."""
    marks = dict.fromkeys(quick, ()) | dict.fromkeys(slow, pytest.mark.slow)
    each = [pytest.param(v, marks=marks.get(v, pytest.mark.weekly)) for v in values]
    return pytest.mark.parametrize(name, each)


def row(n, kind="ordinary"):
    """Return a row of n numbers with what `kind` says."""
    x = np.random.default_rng(n).standard_normal(n, dtype=np.float32)
    if kind == "nan":
        x[n - 1] = np.nan
    elif kind == "inf":
        x[n // 2] = np.inf
    elif kind == "some -inf":
        x[::3] = -np.inf
    elif kind == "all -inf":
        x[:] = -np.inf
    elif kind == "one far":
        x[n - 7] = 300
    elif kind == "huge":
        x *= 1000
    return x


def probabilities(n):
    """Return labels of n classes."""
    return np.random.default_rng(0).random(n, dtype=np.float32) / n


def plain(x):
    """Return a copy of `x` that is computed with as it stands."""
    wide = np.float32 if x.dtype.kind in "fV" and x.dtype.itemsize < 8 else np.float64
    return x.astype(wide, order="C")


def assert_same(got, want):
    """Assert that arrays have the same numbers, NaN for NaN, in the dtype of the first."""
    got = np.asarray(got)
    with np.errstate(over="ignore"):
        want = np.asarray(want).astype(got.dtype)
    if got.dtype.kind == "V":
        got, want = got.astype(np.float32), want.astype(np.float32)
    np.testing.assert_array_equal(got, want)


def check_loss(f, x, targets, labels=None, **arguments):
    """Assert that loss and gradient of `x` are those of the same numbers as they stand."""
    wide = plain(labels).astype(plain(x).dtype) if labels is not None else targets
    given = labels if labels is not None else targets
    want = f.cross_entropy_with_grad(plain(x), wide, **arguments)
    got = f.cross_entropy_with_grad(x, given, **arguments)
    assert_same(got.loss, want.loss)
    assert_same(got.grad, want.grad)
    assert_same(f.cross_entropy(x, given, **arguments), want.loss)


@each("form", FORMS, quick=["strided"], slow=["float16"])
def test_targets(compiled, form):
    n = LONG + BLOCK + 33
    x = FORMS[form](row(n))
    check_loss(compiled, x, np.int64(n - 1), temperature=0.7, label_smoothing=0.1)
    for target in (0, BLOCK, n // 2) if form != "strided" else ():
        check_loss(compiled, x, np.int64(target))


@each("kind", SPECIAL)
@pytest.mark.parametrize("form", ["strided", "float16", "float64"])
def test_special_rows(compiled, form, kind):
    n = LONG + 5001
    x = FORMS[form](row(n, kind))
    labels = FORMS[form](probabilities(n))
    for temperature in (1, 0, 1e-33, 1e33):
        check_loss(compiled, x, np.int64(n - 7), temperature=temperature)
        check_loss(compiled, x, None, labels, temperature=temperature)


@each("n", [LONG - 1, LONG, LONG + 1, 2 * LONG + BLOCK - 1], slow=[LONG])
@each("form", ["strided", "float16"], quick=["strided"])
def test_lengths_and_arguments(compiled, form, n):
    x = FORMS[form](row(n))
    weight = np.random.default_rng(1).random(n)
    weight[::5] = 0
    labels = FORMS[form](probabilities(n))
    for arguments in (
        {"temperature": 0.5},
        {"temperature": 1e-40, "label_smoothing": 0.2},
        {"temperature": np.inf, "weight": weight},
        {"weight": weight, "label_smoothing": 0.2, "temperature": 3},
        {"reduction": "none"},
    ):
        check_loss(compiled, x, np.int64(n - 1), **arguments)
        check_loss(compiled, x, None, labels, **arguments)
    # Only one of the arrays must be packed.
    check_loss(compiled, plain(x), None, labels)
    check_loss(compiled, x, None, plain(labels))


@each("kind", SPECIAL, slow=["ordinary"])
@pytest.mark.parametrize("temperature", [1e-33, 1e33, 0, np.inf])
def test_temperatures_that_need_other_scores(compiled, kind, temperature):
    # Long rows go by parts then, whatever their form. A class that cannot be adds exact zeros.
    whole = row(LONG - 1, kind)
    x = np.append(whole, np.float32(-np.inf))
    labels = probabilities(LONG - 1)
    for targets, longer in (
        (np.int64(17), np.int64(17)),
        (labels, np.append(labels, np.float32(0))),
    ):
        want = compiled.cross_entropy_with_grad(whole, targets, temperature=temperature)
        got = compiled.cross_entropy_with_grad(x, longer, temperature=temperature)
        assert_same(got.loss, want.loss)
        assert_same(got.grad[:-1], want.grad)


@each("form", FORMS, slow=["strided"])
def test_several_rows_in_place_and_shared(compiled, form):
    n = LONG + 100
    x = FORMS[form](np.stack([row(n), row(n, "nan"), -row(n)]))
    targets = np.array([7, 8, -100])
    want = compiled.cross_entropy_with_grad(plain(x), targets, reduction="sum")
    for workers in (1, 2):
        got = compiled.cross_entropy_with_grad(x, targets, reduction="sum", workers=workers)
        assert_same(got.loss, want.loss)
        assert_same(got.grad, want.grad)
    if x.dtype.kind == "f":
        got = compiled.cross_entropy_with_grad(x, targets, reduction="sum", out=x)
        assert got.grad is x
        assert_same(x, want.grad)


@pytest.mark.slow
def test_in_place_in_the_other_byte_order(compiled):
    # The same memory, in which the logits must be packed and the gradient need not.
    n = LONG + 9
    for labels in (np.int64(5), probabilities(n).astype(np.float16)):
        x = byte_swapped(row(n))
        out = x.view(x.dtype.newbyteorder())
        want = compiled.cross_entropy_with_grad(plain(x), plain(labels) if labels.ndim else labels)
        assert compiled.cross_entropy_with_grad(x, labels, out=out).loss == want.loss
        assert_same(out, want.grad)


@pytest.mark.parametrize("name", ["softmax_backward", "log_softmax_backward"])
@each("form", FORMS, slow=["strided", "float16"])
def test_backward(compiled, form, name):
    n = LONG + BLOCK + 33
    f = getattr(compiled, name)
    g = FORMS[form](np.stack([row(n), -row(n)]))
    p = np.stack([row(n) / n, row(n, "nan")])
    p = FORMS[form](p if name == "softmax_backward" else p - 14)
    wide_g, wide_p = plain(g), plain(p)
    for temperature in (1.0, [0.5, 0.0]):
        want = f(wide_g, wide_p, temperature=temperature)
        assert_same(f(g, p, temperature=temperature), want)
        if wide_g.dtype == g.dtype.newbyteorder("="):  # else a result is rounded
            assert_same(f(wide_g, p, temperature=temperature), want)
            assert_same(f(g, wide_p, temperature=temperature), want)
            assert_same(f(g, wide_p, temperature=temperature, out=wide_p), want)
            wide_p = plain(p)
    if g.dtype.kind == "f":
        assert_same(f(g, p, temperature=temperature, out=p), want)
