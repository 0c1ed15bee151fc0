"""`verify` under masks: as if what they shut were -inf in the target's rows, bit for bit."""

import numpy as np
import pytest

from tests.verification.test_verify import drafted, requests, same

INF = np.inf
WHERE = {"seed": [5, -7, 3], "position": [9, 0, 2]}


def opened(shape):
    """Return a mask of this shape, without a row that is all shut."""
    mask = np.random.default_rng(1).random(shape) < 0.6
    mask[..., 2] = True
    return mask


def packed(mask):
    """Return the mask in words of 32 bits."""
    bits = np.packbits(mask, axis=-1, bitorder="little")
    bits = np.concatenate([bits, np.zeros((*bits.shape[:-1], -bits.shape[-1] % 4), np.uint8)], -1)
    return np.ascontiguousarray(bits).view(np.int32)


@pytest.mark.slow_reference
@pytest.mark.parametrize("method", ["chain", "block", "race"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("n", [9, 300, pytest.param(5000, marks=pytest.mark.slow)])
def test_it_is_that_of_minus_infinity(impl, method, dtype, n):
    x, y = requests(n, 2, "float32", 3, 4)
    x, y = x.astype(dtype), y.astype(dtype)
    mask = opened(x.shape)
    drafts = drafted(impl, y, top_p=0.8)
    for filters in ({}, {"top_p": 0.8}, {"top_k": 5, "temperature": [0, 0.7, INF]}):
        given = {**WHERE, "method": method, **filters}
        want = impl.verify(drafts, np.where(mask, x, x.dtype.type(-INF)), y, **given)
        for form in (mask, packed(mask), np.repeat(packed(mask), 2, axis=-1)[..., ::2]):
            same(impl.verify(drafts, x, y, mask=form, **given), want)
        shut = impl.verify(drafts, np.asfortranarray(x), y, mask=mask[0, 0], **given)
        same(shut, impl.verify(drafts, np.where(mask[0, 0], x, x.dtype.type(-INF)), y, **given))


def test_rows_without_a_mask(impl):
    x, y = requests(40, 2, "float32", 3, 4)
    drafts = drafted(impl, y)
    masks, numbers = opened((2, 40)), np.array([7, 3])
    want = x.copy()
    want.reshape(9, 40)[numbers] = np.where(masks, want.reshape(9, 40)[numbers], -INF)
    found = impl.verify(drafts, x, y, mask=masks, mask_rows=numbers, **WHERE)
    same(found, impl.verify(drafts, want, y, **WHERE))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("share", [0.5, 1e-5])
def test_rows_that_are_read_by_parts(compiled, dtype, share):
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(1, 3, (1 << 20) + 77)) * 4).astype(dtype)
    y = np.ascontiguousarray(x[:, ::-1][:, :2])
    mask = rng.random(x.shape) < share
    want = np.where(mask, x, x.dtype.type(-INF))
    drafts = want[:, :2].argmax(-1)
    for given in ({}, {"top_p": 0.9}, {"method": "block"}, {"method": "race"}, {"top_k": 50}):
        given = {"seed": 4, "position": 5, **given}
        for draft in (None, y):
            found = compiled.verify(drafts, x, draft, mask=packed(mask), **given)
            same(found, compiled.verify(drafts, want, draft, **given))


def test_a_draft_that_is_not_allowed_is_rejected(impl):
    x = np.array([[[0.0, 9.0, 1.0], [2.0, 0.0, 1.0]]])
    found = impl.verify([[1]], x, mask=[True, False, True], temperature=0)
    np.testing.assert_array_equal(found.ids, [[2, -1]])
    np.testing.assert_array_equal(found.counts, [1])


def test_errors(impl):
    x = np.zeros((2, 2, 5))
    mask = np.ones((2, 2, 5), bool)
    mask[1, 0] = False
    with pytest.raises(ValueError, match=r"above -inf that its mask allows in row \(1, 0\)"):
        impl.verify([[0], [0]], x, mask=mask)
    assert impl.verify([[0], [0]], x, mask=mask, on_invalid="flag").counts[1] == 0
    with pytest.raises(ValueError, match=r"mask has shape \(2, 5\)"):
        impl.verify([[0], [0], [0]], np.zeros((3, 3, 5)), mask=mask[:, 0])
    with pytest.raises(ValueError, match="mask_rows"):
        impl.verify([[0], [0]], x, mask_rows=[0])
