"""cross_entropy on dask arrays: what one array gives."""

import dask.array as da
import numpy as np
import pytest

pytestmark = pytest.mark.best_alone

RNG = np.random.default_rng(8)
LOGITS = RNG.standard_normal((6, 90)) * 4
CLASSES = RNG.integers(0, 90, 6)
CLASSES[2] = -100
LABELS = RNG.random((6, 90)) * (RNG.random((6, 90)) < 0.5)
ARGUMENTS = [
    {},
    {"weight": RNG.random(90)},
    {"label_smoothing": 0.1},
    {"weight": RNG.random(90), "label_smoothing": 0.3, "temperature": 0.7},
    {"temperature": 3, "ignore_index": 5},
]


REDUCTIONS = ("none", "mean", "sum")


@pytest.mark.parametrize("dtype", ["f4", "f8", pytest.param("f2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, 4])
def test_any_chunks(on_chunks, impl, dtype, count, pieces):
    x = LOGITS.astype(dtype)
    d = da.from_array(x, chunks=((2, 4), pieces(90, count, count)))
    for i, arguments in enumerate(ARGUMENTS):
        targets = np.where(CLASSES == -100, arguments.get("ignore_index", -100), CLASSES)
        given = {**arguments, "reduction": REDUCTIONS[i % 3]}
        same(on_chunks.cross_entropy(d, targets, **given),
             impl.cross_entropy(x, targets, **given))  # fmt: skip
    for reduction in REDUCTIONS[:2]:
        given = {"reduction": reduction, "weight": ARGUMENTS[1]["weight"]}
        y = da.from_array(LABELS, chunks=25)
        same(on_chunks.cross_entropy(d, y, **given), impl.cross_entropy(x, LABELS, **given))
    same(on_chunks.cross_entropy(d.T, da.asarray(targets), axis=0, ignore_index=5),
         impl.cross_entropy(x.T, targets, axis=0, ignore_index=5))  # fmt: skip


def same(lazy, wanted):
    got = lazy.compute()
    wanted = np.asarray(wanted)
    assert got.dtype == lazy.dtype == wanted.dtype
    assert got.shape == lazy.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, 8 * np.finfo(wanted.dtype).eps)


def test_special_rows(on_chunks, impl):
    """Rows without probabilities, classes of -inf, a nearly sure answer, none that count."""
    x = np.array(
        [
            [0, 70, -1, 2],
            [-np.inf, 3, 4, -np.inf],
            [1, np.nan, 2, 3],
            [np.inf, 1, 2, 3],
            [-np.inf, -np.inf, -np.inf, -np.inf],
            [-np.inf, 3, 4, 5],
        ]
    )
    targets = np.array([1, 3, 0, 1, 1, 2])
    labels = np.array([[0, 0.5, 0.5, 0]] * 6)
    for size in (1, 4):
        d = da.from_array(x, chunks=(4, size))
        for y in (targets, labels, np.full(6, -100)):
            got = on_chunks.cross_entropy(d, y, reduction="none").compute()
            np.testing.assert_allclose(got, impl.cross_entropy(x, y, reduction="none"), 1e-14)
        assert np.isnan(on_chunks.cross_entropy(d, np.full(6, -100)).compute())


def test_a_target_that_is_no_class_is_named_where_it_stands(on_chunks):
    for size in (3, 6):
        lazy = on_chunks.cross_entropy(da.zeros((5, 6), chunks=(2, size)), [0, 1, 2, 6, 0])
        with pytest.raises(IndexError, match=r"targets\[3\] is 6; allowed are 0 to 5"):
            lazy.compute()
