"""Masks of ids: what they shut is as if its logit were -inf, bit for bit, and is not read."""

import ctypes
import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from tests.arrays import byte_swapped, dtype_of, misaligned, spaced
from tests.calls import arrays, bits
from tests.processes import python

ROOT = str(Path(__file__).parents[2])
KNOBS = {
    "plain": {},
    "T": {"temperature": 0.7},
    "T = 0": {"temperature": 0},
    "T tiny": {"temperature": 1e-35},
    "T inf": {"temperature": np.inf},
    "T inf top_p": {"temperature": np.inf, "top_p": 0.5},
    "top_k": {"top_k": 40},
    "top_k = 1": {"top_k": 1},
    "top_k of many": {"top_k": 700},
    "top_k of most": {"top_k": 4000},
    "top_p": {"top_p": 0.5},
    "top_p of nearly all": {"top_p": 1 - 1e-6, "min_p": 1e-4},
    "min_p": {"min_p": 0.3},
    "min_p of much": {"min_p": 0.001},
    "min_keep": {"top_p": 0.01, "min_p": 0.9, "min_keep": 300},
    "all": {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.01},
}
FORMS = {
    "sample": lambda f, x, k, **m: f.sample(x, **k, **m, rng=3, on_invalid="flag"),
    "race": lambda f, x, k, **m: f.sample(
        x, **k, **m, method="race", seed=3, position=np.arange(len(x)), on_invalid="flag"
    ),
    "many": lambda f, x, k, **m: f.sample(x, **k, **m, size=5, rng=3, on_invalid="flag"),
    "distinct": lambda f, x, k, **m: f.sample(
        x, **k, **m, size=9, replace=False, rng=3, on_invalid="flag"
    ),
    "sample_with_logprobs": lambda f, x, k, **m: f.sample_with_logprobs(
        x, **k, **m, size=3, rng=3, on_invalid="flag"
    ),
    "filter_logits": lambda f, x, k, **m: f.filter_logits(x, **k, **m),
    "ties": lambda f, x, k, **m: f.filter_logits(x, **k, **m, ties="all"),
    "support": lambda f, x, k, **m: f.support(x, **k, **m),
}
LOGPROBS = {
    "token_logprobs": lambda f, x, t, **m: f.token_logprobs(
        x, np.broadcast_to([0, x.shape[-1] // 2, x.shape[-1] - 1], (len(x), 3)), temperature=t, **m
    ),
    "top_logprobs": lambda f, x, t, **m: f.top_logprobs(
        x, min(20, x.shape[-1]), temperature=t, **m
    ),
}


def packed(mask, width=None):
    """Return bools as words of 32 bits, int32."""
    n = mask.shape[-1]
    full = np.zeros((*mask.shape[:-1], -(-n // 32) * 32), bool)
    full[..., :n] = mask
    return np.packbits(full, axis=-1, bitorder="little").view("<i4")[..., :width]


def some(rng, n, count):
    """Return a mask of `count` ids."""
    mask = np.zeros(n, bool)
    mask[rng.choice(n, min(n, count), replace=False)] = True
    return mask


def masks(n, seed=0):
    """Return masks of n ids: few, many, all, by words, by long runs, none."""
    rng = np.random.default_rng(seed)
    i = np.arange(n)
    return np.stack([
        some(rng, n, 1), some(rng, n, 7), some(rng, n, n // 300), some(rng, n, n // 250 + 1),
        rng.random(n) < 0.3, rng.random(n) < 0.98, i >= 0, i % 64 < 32, i % 700 < 90,
        (i > n // 3) & (i % 3 > 0), i == n - 1, i < 0,
    ])  # fmt: skip


def logits(rows, n, dtype, seed=0):
    """Return numbers with ties and a -inf, and, where no id of the mask is, NaN and +inf."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, n)) * 3).round(2)
    x[rng.random((rows, n)) < 0.01] = -np.inf
    return x.astype(dtype_of(dtype))


def shut(x, mask):
    """Return logits with -inf put in, and such with what must not matter put there."""
    other = np.resize(np.array([np.nan, np.inf, 9e4, -np.inf, 7, -1]), x.shape)
    with np.errstate(all="ignore"):
        there, junk = np.where(mask, x, -np.inf), np.where(mask, x, other)
        return there.astype(x.dtype), junk.astype(x.dtype)


SHAPES = (1, 5, 31, 32, 33, 65, 300, 2049, 9000)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_minus_infinity(compiled, form, dtype):
    call = FORMS[form]
    for n in SHAPES:
        mask = masks(n)
        inf, x = shut(logits(len(mask), n, dtype), mask)
        words = packed(mask)
        for knobs in KNOBS.values() if n in (33, 9000) else (KNOBS["plain"], KNOBS["all"]):
            want = bits(call(compiled, inf, knobs))
            assert bits(call(compiled, x, knobs, mask=mask)) == want, (n, knobs)
            assert bits(call(compiled, x, knobs, mask=words)) == want, (n, knobs)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("form", LOGPROBS)
def test_log_probabilities_are_those_of_minus_infinity(compiled, form, dtype):
    call = LOGPROBS[form]
    for n in SHAPES:
        mask = masks(n)
        inf, x = shut(logits(len(mask), n, dtype), mask)
        for t in (1, 0.7, 0, 1e-35, np.inf):
            want = bits(call(compiled, inf, t))
            assert bits(call(compiled, x, t, mask=mask)) == want, (n, t)
            assert bits(call(compiled, x, t, mask=packed(mask))) == want, (n, t)


@pytest.mark.best_alone
@pytest.mark.slow
def test_it_is_minus_infinity_in_a_vocabulary(compiled):
    n = 128_256
    mask = masks(n)
    for deviation in (0.5, 3, 8):
        x = np.random.default_rng(1).standard_normal((len(mask), n)) * deviation
        for dtype in ("float32", "float64"):
            inf, x = shut(x.astype(dtype), mask)
            for knobs in KNOBS.values():
                for form in ("sample", "sample_with_logprobs", "support"):
                    want = bits(FORMS[form](compiled, inf, knobs))
                    assert bits(FORMS[form](compiled, x, knobs, mask=packed(mask))) == want


def test_it_is_what_the_reference_says(impl, reference):
    mask = masks(500)
    _, x = shut(logits(len(mask), 500, "float64"), mask)
    for form in ("sample", "distinct", "support", "filter_logits"):
        for knobs in (KNOBS["plain"], KNOBS["all"], KNOBS["T = 0"], KNOBS["min_keep"]):
            got = FORMS[form](impl, x, knobs, mask=packed(mask))
            want = FORMS[form](reference, x, knobs, mask=mask)
            for a, b in zip(arrays(got), arrays(want), strict=True):
                np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=1e-12)


# ---- forms of masks ------------------------------------------------------------------------------


def test_layouts_of_masks(impl):
    mask = masks(75)
    inf, x = shut(logits(len(mask), 75, "float32"), mask)
    want = bits(impl.filter_logits(inf, top_k=20))
    words = packed(mask)
    backwards = np.ascontiguousarray(mask[:, ::-1])[:, ::-1]
    for same in (
        words.view("u4"), byte_swapped(words), misaligned(words), spaced(words), words.tolist(),
        mask.tolist(), spaced(mask), np.asfortranarray(mask), backwards,
        np.asarray(memoryview(words)),
    ):  # fmt: skip
        same = np.asarray(same)
        same = same.astype(np.int32) if same.dtype == np.int64 else same
        assert bits(impl.filter_logits(x, top_k=20, mask=same)) == want


def test_any_byte_but_zero_is_true(impl):
    mask = masks(100)[4]
    inf, x = shut(logits(1, 100, "float32"), mask)
    odd = (mask * np.resize([1, 2, 128, 255], 100)).astype(np.uint8).view(bool)
    assert bits(impl.filter_logits(x, mask=odd)) == bits(impl.filter_logits(inf))


@pytest.mark.parametrize("words", [0, 1, 2, 3, 4, 6])
def test_words_may_be_fewer_or_more(impl, words):
    n = 100
    x = logits(3, n, "float32")
    given = np.full((3, words), -1, np.int32)
    mask = np.arange(n) < 32 * words
    want = impl.filter_logits(np.where(mask, x, np.float32(-np.inf)))
    assert bits(impl.filter_logits(x, mask=given)) == bits(want)


def test_bits_beyond_the_vocabulary_do_not_count(impl):
    x = logits(1, 40, "float32")
    given = np.array([[0, -1 << 8]], np.int32)  # none of the 40 ids
    assert np.isnan(impl.filter_logits(x, mask=given)).all()
    assert impl.sample(x, mask=given, rng=0, on_invalid="flag") == [-1]


def test_masks_broadcast(impl):
    x = logits(6, 50, "float32").reshape(2, 3, 50)
    mask = masks(50)[:6].reshape(2, 3, 50)
    for part in (mask, mask[0], mask[:, :1], mask[1, 2], mask[:1, :1]):
        want = bits(impl.support(np.where(part, x, np.float32(-np.inf)), top_k=9))
        assert bits(impl.support(x, top_k=9, mask=part)) == want
        assert bits(impl.support(x, top_k=9, mask=packed(part))) == want


def test_one_row(impl):
    x, mask = logits(1, 70, "float32")[0], masks(70)[4]
    want = impl.sample(np.where(mask, x, -np.inf), rng=1)
    assert impl.sample(x, mask=mask, rng=1) == want == impl.sample(x, mask=packed(mask), rng=1)
    assert impl.sample(np.float32(2), mask=True, rng=1) == 0


def test_some_rows(impl):
    x = logits(6, 90, "float32")
    mask = masks(90)[3:6]
    for rows in ([4, 0, 2], np.array([5, 1, 3], np.uint8), (0, 1, 2)):
        inf = x.copy()
        inf[list(rows)] = np.where(mask, x[list(rows)], -np.inf)
        for given in (mask, packed(mask)):
            for form in FORMS:
                got = FORMS[form](impl, x, KNOBS["all"], mask=given, mask_rows=rows)
                assert bits(got) == bits(FORMS[form](impl, inf, KNOBS["all"]))
    got = impl.sample(x.reshape(2, 3, 90), mask=packed(mask), mask_rows=[4, 0, 2], rng=1)
    inf = x.copy()
    inf[[4, 0, 2]] = np.where(mask, x[[4, 0, 2]], -np.inf)
    np.testing.assert_array_equal(got.ravel(), impl.sample(inf, rng=1))


def test_no_row_has_one(impl):
    x = logits(4, 50, "float32")
    none = np.zeros((0, 2), np.int32)
    assert bits(impl.support(x, mask=none, mask_rows=[])) == bits(impl.support(x))


def test_xgrammar_s_indices(impl):
    """As its documentation says of them: logits[i] by bitmask[i], for each i."""
    x = logits(5, 64, "float32")
    bitmask = packed(masks(64)[4:9])
    indices = [1, 3]
    inf = x.copy()
    for i in indices:
        allowed = np.unpackbits(bitmask[i].view(np.uint8), bitorder="little").astype(bool)
        inf[i, ~allowed] = -np.inf
    got = impl.filter_logits(x, mask=bitmask[indices], mask_rows=indices)
    assert bits(got) == bits(impl.filter_logits(inf))


def test_the_mask_is_not_written_and_out_may_be_the_logits(impl):
    mask = masks(3000)
    inf, x = shut(logits(len(mask), 3000, "float32"), mask)
    before, words = mask.copy(), packed(mask)
    want = bits(impl.filter_logits(inf, top_p=0.9))
    assert bits(impl.filter_logits(x, top_p=0.9, mask=words, out=x)) == want
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_array_equal(words, packed(before))


def test_out_may_lie_where_the_mask_does(impl):
    memory = logits(40, 640, "float32")  # rows that are written one by one
    mask = memory.view(np.int32)[:, 2:22]
    x = logits(40, 640, "float32", seed=1)
    want = bits(impl.filter_logits(x, mask=mask.copy()))
    assert bits(impl.filter_logits(x, mask=mask, out=memory[::-1])) == want


@pytest.mark.parametrize("workers", [1, 2])
def test_workers(divided, compiled, workers):
    x = np.tile(logits(12, 3000, "float32"), (4, 1))
    mask = np.tile(masks(3000), (4, 1))
    inf, x = shut(x, mask)
    want = compiled.sample(inf, **KNOBS["all"], rng=0, on_invalid="flag")
    got = compiled.sample(
        x, **KNOBS["all"], mask=packed(mask), rng=0, on_invalid="flag", workers=workers
    )
    np.testing.assert_array_equal(got, want)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"mask": np.ones((3, 9), bool)}, ValueError,
         "mask has shape (3, 9); allowed is a last axis of 10"),
        ({"mask": np.ones((3, 1), bool)}, ValueError, "allowed is a last axis of 10"),
        ({"mask": True}, ValueError, "mask has shape (); allowed is a last axis of 10"),
        ({"mask": np.ones((2, 10), bool)}, ValueError, "not broadcast to the rows' shape (3,)"),
        ({"mask": np.ones((2, 3, 10), bool)}, ValueError, "does not broadcast"),
        ({"mask": np.ones((2, 1), np.int32)}, ValueError, "does not broadcast"),
        ({"mask": np.int32(1)}, ValueError, "mask has shape (); allowed are words"),
        ({"mask": np.ones((3, 1))}, TypeError, "mask has dtype float64; allowed are bool, and"),
        ({"mask": np.ones((3, 1), np.int64)}, TypeError, "mask has dtype int64"),
        ({"mask": np.ones((3, 10), np.uint8)}, TypeError, "mask has dtype uint8"),
        ({"mask": "x"}, TypeError, "mask has dtype <U1; allowed are bool, and int32 and uint32"),
        ({"mask": bytes(4)}, TypeError, "packed bits (of bytes np.frombuffer(mask, np.uint32))"),
        ({"mask": np.ma.ones((3, 10), bool)}, TypeError, "mask is a masked array"),
        ({"mask_rows": [0]}, ValueError, "mask_rows is [0]; allowed is None where mask is None"),
        ({"mask": np.ones(10, bool), "mask_rows": [0]}, ValueError, "are two dimensions"),
        ({"mask": np.ones((2, 9), bool), "mask_rows": [0, 1]}, ValueError, "last axis of 10"),
        ({"mask": np.ones((2, 1), "i4"), "mask_rows": [0]}, ValueError,
         "mask_rows has shape (1,); allowed is (2,)"),
        ({"mask": np.ones((2, 1), "i4"), "mask_rows": [0, 3]}, IndexError,
         "mask_rows has 3; allowed is 0 to 2"),
        ({"mask": np.ones((2, 1), "i4"), "mask_rows": [-1, 0]}, IndexError, "mask_rows has -1"),
        ({"mask": np.ones((2, 1), "i4"), "mask_rows": [1, 1]}, ValueError, "mask_rows has 1 twice"),
        ({"mask": np.ones((2, 1), "i4"), "mask_rows": [0.0, 1]}, TypeError, "allowed are integers"),
        ({"mask": np.ones((2, 1), "i4"), "mask_rows": [True, False]}, TypeError, "dtype bool"),
    ],
)  # fmt: skip
def test_errors(impl, arguments, error, text):
    x = np.zeros((3, 10), np.float32)
    for call in (
        lambda: impl.sample(x, **arguments), lambda: impl.sample_with_logprobs(x, **arguments),
        lambda: impl.filter_logits(x, **arguments), lambda: impl.support(x, **arguments),
        lambda: impl.token_logprobs(x, [0, 1, 2], **arguments),
        lambda: impl.top_logprobs(x, 2, **arguments),
    ):  # fmt: skip
        with pytest.raises(error, match=re.escape(text)):
            call()


def test_an_invalid_row_is_named(impl):
    x = np.zeros((3, 40), np.float32)
    mask = np.ones((3, 40), bool)
    mask[1] = False
    for given in (mask, packed(mask)):
        with pytest.raises(ValueError, match=r"-inf that its mask allows in row \(1,\)"):
            impl.sample(x, mask=given, rng=0)
    with pytest.raises(ValueError, match=r"-inf that its mask allows in row \(2,\)"):
        impl.sample(x, mask=mask[1:2], mask_rows=[2], rng=0)
    x[0, 3] = np.nan
    mask[1], mask[0, 3] = True, False
    assert (impl.sample(x, mask=mask, rng=0) >= 0).all()  # a NaN that is shut does not matter
    with pytest.raises(ValueError, match=r"NaN in row \(0,\)"):
        impl.sample(x, mask=mask[1:2], mask_rows=[1], rng=0)


# ---- what is read --------------------------------------------------------------------------------


def guarded(dtype, impl):
    """Use a row whose ids all lie in its first and its last page; nobody may touch the others."""
    from fastsoftmax import _dispatch

    f = _dispatch.load(impl)
    page, pages = mmap.PAGESIZE, 64
    memory = mmap.mmap(-1, pages * page)
    row = np.frombuffer(memory, dtype)
    row[:] = np.arange(row.size) % 7
    mask = np.zeros(row.size, bool)
    each = page // row.itemsize
    mask[:each] = mask[-each:] = True
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(start + page, (pages - 2) * page, 0) == 0
    sparse = mask & (np.arange(mask.size) % each == 3)
    ids = np.flatnonzero(sparse)
    for allowed in (mask, sparse):
        for knobs in KNOBS.values():
            f.sample(row, **knobs, mask=packed(allowed), rng=0)
            f.sample_with_logprobs(row, **knobs, mask=allowed, rng=0)
            f.support(row, **knobs, mask=packed(allowed))
            f.filter_logits(row, **knobs, mask=allowed)
        f.token_logprobs(row, ids, mask=allowed)
        f.top_logprobs(row, 20, mask=allowed)
    print("survived")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="needs mprotect")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_shut_is_not_read(compiled, dtype):
    code = f"sys.path.append({ROOT!r})\nfrom tests.sampling.test_masks import guarded\n"
    result = python(code + f"guarded({dtype!r}, {compiled.NAME!r})", impl="reference")
    assert result.stdout == "survived\n", result.stderr
