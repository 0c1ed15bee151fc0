"""`verify` by races: what is emitted is what the target alone would draw, whatever is drafted."""

import numpy as np
import pytest

from tests.arrays import LAYOUTS
from tests.oracles import PARAMETERS
from tests.verification.enumeration import probabilities, rows
from tests.verification.test_verify import drafted, requests, same

SEEDS = {"seed": [5, -7, 3, 2**64 - 1], "position": [9, 0, 2**63, 2**64 - 2]}


def alone(impl, x, seed, position, **filters):
    """Return what the target draws in each place, and at the next position in the next."""
    places = np.arange(x.shape[1], dtype=np.uint64)
    seeds = np.array([s % 2**64 for s in seed], np.uint64)
    positions = np.array([p % 2**64 for p in position], np.uint64)
    filters = {
        k: np.asarray(v)[..., None] if k != "min_keep" and np.ndim(v) else v
        for k, v in filters.items()
    }
    return impl.sample(
        x, seed=seeds[:, None], position=positions[:, None] + places, method="race", **filters
    )


def emitted(drawn, drafts):
    """Return the ids that are drawn, up to the first that is not the draft's, and their numbers."""
    agree = drawn[:, :-1] == drafts
    counts = 1 + np.cumprod(agree, axis=1).sum(axis=1)
    return np.where(np.arange(drawn.shape[1]) < counts[:, None], drawn, -1), counts


@pytest.mark.parametrize(
    "n", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 33, 300, 5000))]
)
def test_it_is_what_sample_draws(compiled, n):
    for i, filters in enumerate(PARAMETERS):
        for dtype in ("float32", "float64", "float16"):
            x, y = requests(n, 3, dtype, 4, i)
            drawn = alone(compiled, x, **SEEDS, **filters)
            for drafts in (
                alone(compiled, y, **SEEDS, **filters),
                drafted(compiled, y, **filters),
                drawn[:, :-1],
                np.where(np.arange(3) < i % 4, drawn[:, :-1], -1),
            ):
                found = compiled.verify(drafts, x, y, **SEEDS, method="race", **filters)
                ids, counts = emitted(drawn, drafts)
                np.testing.assert_array_equal(found.ids, ids)
                np.testing.assert_array_equal(found.counts, counts)


@pytest.mark.parametrize("n", [9, pytest.param(300, marks=pytest.mark.slow)])
def test_the_reference_s_ids(compiled, reference, n):
    for i, filters in enumerate(PARAMETERS):
        x, y = requests(n, 3, "float32" if i % 2 else "float64", 2, i)
        where = {"seed": [i, 3], "position": [7, -1], "method": "race", **filters}
        ids = alone(reference, y, [i, 3], [7, -1], **filters)
        same(compiled.verify(ids, x, **where), reference.verify(ids, x, **where))


def test_parameters_of_each_request_and_no_others_matter(impl):
    x, y = requests(60, 3)
    ids = alone(impl, y, **SEEDS)
    filters = {"temperature": [0.5, 0, 2, 1], "top_k": [5, 0, 60, 9], "top_p": [1, 0.5, 0.9, 0.2]}
    found = impl.verify(ids, x, **SEEDS, method="race", **filters)
    for i in range(4):
        own = {k: v[i] for k, v in {**SEEDS, **filters}.items()}
        one = impl.verify(ids[i], x[i], **own, method="race")
        assert one.ids.tolist() == found.ids[i].tolist()
        assert one.counts == found.counts[i]


def test_rows_behind_the_first_that_differs_are_not_read(impl):
    x, _ = requests(20, 2)
    drawn = alone(impl, x, **SEEDS)
    drafts = drawn[:, :-1].copy()
    drafts[:, 1] = (drafts[:, 1] + 1) % 20
    x[:, 2] = np.nan
    found = impl.verify(drafts, x, **SEEDS, method="race")
    assert found.counts.tolist() == [2] * 4
    x[1, 1] = np.nan
    with pytest.raises(ValueError, match=r"^logits has NaN in row \(1, 1\)"):
        impl.verify(drafts, x, **SEEDS, method="race")
    found = impl.verify(drafts, x, **SEEDS, method="race", on_invalid="flag")
    assert found.counts.tolist() == [2, 0, 2, 2]
    assert found.ids[1].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(compiled, layout):
    x, y = requests(40, 2)
    ids = alone(compiled, y, **SEEDS)
    arguments = {"top_p": 0.9, **SEEDS, "method": "race"}
    same(
        compiled.verify(ids, LAYOUTS[layout](x), **arguments), compiled.verify(ids, x, **arguments)
    )


@pytest.mark.slow
@pytest.mark.parametrize("filters", [{}, {"top_p": 0.2}, {"top_k": 40}, {"min_p": 0.001}], ids=str)
def test_rows_that_are_packed_by_parts(compiled, filters):
    x = np.random.default_rng(1).normal(0, 2, (2, 2, 2**20 + 9)).astype(np.float16)
    where = {"seed": [3, 4], "position": 5, "method": "race", **filters}
    ids = alone(compiled, x[:, :1].astype(np.float32), [3, 4], [5, 5], **filters)
    found = compiled.verify(ids, x, **where)
    same(found, compiled.verify(ids, x.astype(np.float32), **where))
    assert found.counts.tolist() == [2, 2]


def test_errors(impl):
    x, ids = np.zeros((2, 3, 4)), np.zeros((2, 2), int)
    for arguments, error, message in (
        ({}, TypeError, "seed is None; allowed with method='race' are integers"),
        ({"seed": 3}, TypeError, "position is None; allowed with method='race'"),
        ({"rng": 3}, ValueError, "rng is 3; allowed is None with method='race'"),
        ({"seed": [1, 2, 3], "position": 0}, ValueError, "seed has shape"),
    ):
        with pytest.raises(error, match=message):
            impl.verify(ids, x, method="race", **arguments)


# ---- the distribution ----------------------------------------------------------------------------

N, REQUESTS = 4, 8000
DRAFT = np.array(rows(N, 3, "ties")(())) * 0.7 + rows(N, 7, "normal")(()) * 0.3


def texts(impl, verify, filters, coupled=True):
    """Return the first two ids that each of many requests emits, drafts being drawn by races."""
    target, seeds = rows(N, 3, "ties"), np.arange(REQUESTS)
    x, y = np.array([target(())]), np.array([DRAFT])
    first = impl.sample(
        np.repeat(y, REQUESTS, 0), seed=seeds if coupled else seeds + REQUESTS, position=10,
        method="race", **filters,
    )  # fmt: skip
    logits = np.stack([np.repeat(x, REQUESTS, 0), np.array([target((int(t),)) for t in first])], 1)
    ids, counts = verify(first[:, None], logits, seed=seeds, position=10, method="race", **filters)
    behind = np.array([target((int(t),)) for t in ids[:, 0]])
    second = impl.sample(behind, seed=seeds, position=11, method="race", **filters)
    return ids[:, 0], np.where(counts == 2, ids[:, 1], second), counts


def statistic(ids, filters):
    """Return the chi-square statistic of pairs of ids against the target's distribution."""
    target = rows(N, 3, "ties")
    p = probabilities(np.array(target(())), **filters)[:, None] * [
        probabilities(np.array(target((t,))), **filters) for t in range(N)
    ]
    counts = np.bincount(ids[0] * N + ids[1], minlength=N * N)
    p = p.reshape(-1)
    assert not counts[p == 0].any()
    return float(((counts - REQUESTS * p)[p > 0] ** 2 / (REQUESTS * p[p > 0])).sum())


@pytest.mark.parametrize("filters", [{}, {"top_k": 3, "temperature": 0.8}], ids=str)
def test_what_is_emitted_has_the_target_s_distribution(compiled, filters):
    *ids, counts = texts(compiled, compiled.verify, filters)
    assert statistic(ids, filters) < 44  # 15 degrees of freedom: one in 10,000
    *others, fewer = texts(compiled, compiled.verify, filters, coupled=False)
    assert statistic(others, filters) < 44
    p = probabilities(np.array(rows(N, 3, "ties")(())), **filters)
    q = probabilities(DRAFT, **filters)
    least = np.sum(p * q / np.maximum(p + q - p * q, 1e-300))  # what the docstring promises
    assert counts.mean() - 1 > least - 0.02
    assert fewer.mean() - 1 == pytest.approx(p @ q, abs=0.02)
    assert counts.mean() > fewer.mean() + 0.05  # what the same noise is for


def test_a_biased_verifier_is_seen(compiled):
    """It takes the draft in place of what the target draws where that differs, now and then."""

    def twin(drafts, logits, **arguments):
        ids, counts = compiled.verify(drafts, logits, **arguments)
        lazy = (counts == 1) & (np.arange(len(ids)) % 3 == 0)
        ids[lazy, 0] = drafts[lazy, 0]
        return ids, counts

    *ids, _ = texts(compiled, twin, {})
    assert statistic(ids, {}) > 44


def test_noise_that_is_used_again_is_seen(compiled):
    """The second place has the noise of the first."""

    def twin(drafts, logits, seed, position, **arguments):
        ids, counts = compiled.verify(drafts, logits, seed=seed, position=position, **arguments)
        again = compiled.sample(logits[:, 1], seed=seed, position=position, method="race")
        ids[:, 1] = np.where(counts == 2, again, -1)
        return ids, counts

    *ids, _ = texts(compiled, twin, {})
    assert statistic(ids, {}) > 44
