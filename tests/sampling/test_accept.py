"""`accept`: the first id that a callable takes, of the draws without replacement."""

import re

import numpy as np
import pytest

FILTERS = {"temperature": 0.8, "top_k": 12, "top_p": 0.95}
X = np.random.default_rng(2).standard_normal((4, 30)).astype(np.float32) * 2


def taken(ids, accept):
    """Return the first of each row's ids that `accept` takes, -1 where there is none."""
    return [
        next((int(i) for i in of_row if i >= 0 and accept(r, int(i))), -1)
        for r, of_row in enumerate(ids)
    ]


def third(row, id_):
    """Take ids of every third, another third in each row."""
    return id_ % 3 == row % 3


# ---- which id ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["inverse", "race"])
@pytest.mark.parametrize("filters", [{}, FILTERS, {"min_p": 0.02}, {"temperature": np.inf}])
def test_it_is_the_first_of_the_draws_without_replacement(impl, filters, method):
    for seed in range(20 if method == "inverse" else 5):
        where = {"seed": seed, "position": [0, 50, 100, 150], "on_invalid": "flag"}
        where["method"] = method
        ids = impl.sample(X, **filters, size=30, replace=False, **where)
        got = impl.sample(X, **filters, accept=third, **where)
        assert got.tolist() == taken(ids, third)
        assert got.dtype == np.int64


def test_of_a_generator_too(impl):
    for seed in range(20):
        ids = impl.sample(X[:1], size=30, replace=False, rng=seed)
        got = impl.sample(X[0], accept=lambda row, i: i % 7 == 3, rng=seed)
        assert got == taken(ids, lambda row, i: i % 7 == 3)[0]
        rng = np.random.default_rng(seed)
        assert got == impl.sample(X[0], accept=lambda row, i: i % 7 == 3, rng=rng)


def test_implementations_draw_the_same(impl, reference):
    for seed in range(10):
        for arguments in ({}, FILTERS, {"temperature": [0.5, 1, 2, 0.1], "top_k": [3, 9, 30, 4]}):
            want = reference.sample(X, **arguments, accept=third, rng=seed, on_invalid="flag")
            got = impl.sample(X, **arguments, accept=third, rng=seed, on_invalid="flag")
            np.testing.assert_array_equal(got, want)


def test_all_taken_is_no_accept(impl):
    want = impl.sample(X, **FILTERS, rng=5)
    np.testing.assert_array_equal(
        impl.sample(X, **FILTERS, accept=lambda row, i: True, rng=5), want
    )


def test_what_it_is_asked(impl):
    asked = []

    def accept(row, id_):
        asked.append((row, id_))
        return sum(r == row for r, _ in asked) == 4

    got = impl.sample(X.reshape(2, 2, 30), accept=accept, seed=1, position=[[0, 9], [18, 27]])
    ids = impl.sample(X, size=4, replace=False, seed=1, position=[0, 9, 18, 27])
    assert got.shape == (2, 2)
    assert asked == [(r, i) for r, of_row in enumerate(ids.tolist()) for i in of_row]
    assert {type(v) for pair in asked for v in pair} == {int}


def test_parameters_and_masks_of_each_row(impl):
    mask = np.random.default_rng(1).random((4, 30)) < 0.6
    arguments = {"temperature": [0.5, 1, 2, 3], "top_p": 0.99}
    words = np.packbits(np.pad(mask, [(0, 0), (0, 2)]), axis=-1, bitorder="little").view("<i4")
    for seed in range(10):
        where = {"seed": seed, "position": np.arange(4) * 20}
        ids = impl.sample(X, **arguments, mask=mask, size=3, replace=False, **where)

        def accept(row, id_, ids=ids):
            return id_ == ids[row, -1]

        for given in ({"mask": mask}, {"mask": words}):
            got = impl.sample(X, **arguments, **given, accept=accept, **where)
            assert got.tolist() == ids[:, -1].tolist()
        rows = {"mask": words[[3, 1]], "mask_rows": [3, 1]}
        some = impl.sample(X, **arguments, **rows, size=3, replace=False, **where)
        got = impl.sample(X, **arguments, **rows, accept=lambda r, i: i == some[r, -1], **where)  # noqa: B023
        assert got.tolist() == some[:, -1].tolist()


# ---- the distribution ----------------------------------------------------------------------------

ROW = np.array([3.0, 2.5, 2.5, 1.0, 0.5, 0.0, -1.0, 2.0], np.float32)
ALLOWED = np.array([0, 1, 0, 1, 1, 0, 1, 0], bool)
DRAWS = 6000


def chi_square(ids, p):
    """Return the statistic of ids against probabilities."""
    counts = np.bincount(ids, minlength=p.size)[p > 0]
    return float(((counts - ids.size * p[p > 0]) ** 2 / (ids.size * p[p > 0])).sum())


def expected(filtered):
    p = np.where(ALLOWED, np.exp(filtered - filtered.max()), 0)
    return p / p.sum()


def test_it_has_the_distribution_renormalised_over_what_is_taken(compiled):
    x = np.broadcast_to(ROW, (DRAWS, ROW.size))
    for filters in ({}, {"temperature": 1.3, "top_k": 5}):
        filtered = compiled.filter_logits(ROW, **filters).astype(float)
        ids = compiled.sample(x, **filters, accept=lambda row, i: ALLOWED[i], rng=8)
        p = expected(filtered)
        assert ALLOWED[ids].all()
        assert chi_square(ids, p) < 27  # 3 degrees of freedom: one in 150,000


def test_a_sampler_that_draws_anew_is_seen():
    """The twin with a bias: refused ids make way for their neighbour."""
    p = np.exp(ROW - ROW.max()) / np.exp(ROW - ROW.max()).sum()
    ids = np.random.default_rng(0).choice(ROW.size, DRAWS, p=p)
    while not ALLOWED[ids].all():
        ids = np.where(ALLOWED[ids], ids, (ids + 1) % ROW.size)
    assert chi_square(ids, expected(ROW.astype(float))) > 27


# ---- limits and errors ---------------------------------------------------------------------------


def refuses(row, id_):
    return row != 2 and id_ >= 0


def test_a_limit_on_tries(impl):
    for tries, shown in ((1, "1 id"), (5, "5 ids"), (20, "20 ids")):
        asked = []
        with pytest.raises(ValueError, match=rf"refuses {shown} of row \(2,\), and max_tries"):
            impl.sample(
                X, accept=lambda r, i: refuses(r, i) or asked.append(i),  # noqa: B023
                max_tries=tries, rng=0,
            )  # fmt: skip
        assert len(asked) == tries
        got = impl.sample(X, accept=refuses, max_tries=tries, rng=0, on_invalid="flag")
        assert (got == -1).tolist() == [False, False, True, False]


def test_nothing_left_to_draw(impl):
    text = r"refuses 12 ids of row \(2,\), and that is all that can be drawn"
    with pytest.raises(ValueError, match=text):
        impl.sample(X, top_k=12, accept=refuses, rng=0)
    got = impl.sample(X, top_k=12, accept=refuses, rng=0, on_invalid="flag")
    assert (got == -1).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match=r"refuses 1 id of the row, and that is all"):
        impl.sample(X[0], temperature=0, accept=lambda row, i: False, rng=0)


def test_invalid_rows_are_not_asked_about(impl):
    x = X.copy()
    x[1] = np.nan
    asked = set()
    got = impl.sample(x, accept=lambda row, i: asked.add(row) or True, rng=0, on_invalid="flag")
    assert asked == {0, 2, 3}
    assert got[1] == -1
    with pytest.raises(ValueError, match=r"NaN in row \(1,\)"):
        impl.sample(x, accept=lambda row, i: asked.clear(), rng=0)
    assert asked


def test_its_errors_are_the_caller_s(impl):
    class MineError(Exception):
        pass

    def accept(row, id_):
        if row == 1:
            raise MineError
        return True

    with pytest.raises(MineError):
        impl.sample(X, accept=accept, rng=0)
    with pytest.raises(ValueError, match="truth value"):
        impl.sample(X, accept=lambda row, i: np.zeros(2), rng=0)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"accept": 3}, TypeError, "accept is 3; allowed is a callable of a row and an id"),
        ({"accept": third, "size": 2}, ValueError, "size is 2; allowed is None where accept is"),
        ({"accept": third, "max_tries": 0}, ValueError, "max_tries is 0; allowed is 1 and above"),
        ({"max_tries": 0}, ValueError, "max_tries is 0; allowed is 1 and above"),
        ({"accept": third, "max_tries": 2.5}, TypeError, "max_tries is 2.5; allowed are integers"),
        ({"accept": third, "rng": 1, "seed": 1}, ValueError, "rng is 1; allowed is None"),
        ({"accept": third, "top_p": 2}, ValueError, "top_p is 2"),
        ({"accept": third, "on_invalid": "no"}, ValueError, "on_invalid is 'no'"),
        ({"accept": third, "workers": 0}, ValueError, "workers is 0"),
    ],
)
def test_errors(impl, arguments, error, text):
    with pytest.raises(error, match=re.escape(text)):
        impl.sample(X, **arguments)


def test_no_rows(impl):
    assert impl.sample(X[:0], accept=third, rng=0).shape == (0,)
