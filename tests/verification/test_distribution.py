"""What `verify` emits has exactly the target's distribution: summed up over all that can happen."""

import numpy as np
import pytest

from fastsoftmax._reference import verification as oracle
from tests.verification.enumeration import Case, probabilities, rows

FILTERS = {
    "none": {},
    "temperature": {"temperature": 0.6},
    "infinite temperature": {"temperature": np.inf, "top_k": 3, "top_p": 0.6},
    "greedy": {"temperature": 0},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.7, "temperature": 1.3},
    "min_p": {"min_p": 0.3},
    "all": {"top_k": 3, "top_p": 0.9, "min_p": 0.1, "min_keep": 2},
}
QUICK = ("none", "all")
filters_of = pytest.mark.parametrize(
    "filters", [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in FILTERS]
)
EXACT = 1e-13
BIASED = 1e-3


def case(verify, method, length, filters, kind="normal", n=4, draft="normal"):
    from_draft = draft and rows(n, 7, draft)
    return Case(verify, n, length, rows(n, 3, kind), from_draft, method, filters)


def off(case, **arguments):
    """Return how far what is emitted is from the target's distribution."""
    found, wanted = case.distribution(**arguments), case.joint()
    assert abs(wanted.sum() - 1) < EXACT
    assert not found[wanted == 0].any()  # what was removed is never emitted
    return abs(found - wanted).max()


@pytest.mark.best_alone
@pytest.mark.parametrize("method", ["chain", "block"])
@filters_of
def test_the_emitted_sequence_has_the_target_s_distribution(compiled, method, filters):
    for kind in ("normal", "ties", "holes"):
        one = case(compiled.verify, method, 2, FILTERS[filters], kind, n=3, draft=kind)
        assert off(one) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chain", "block"])
@pytest.mark.parametrize("length", [0, 1])
def test_drafts_of_other_lengths(impl, method, length):
    for filters in ({}, {"top_p": 0.7}):
        assert off(case(impl.verify, method, length, filters, n=3)) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chain", "block"])
def test_longer_drafts(compiled, method):
    for filters in ({}, {"top_p": 0.7}):
        assert off(case(compiled.verify, method, 3, filters, n=3)) < EXACT


@pytest.mark.best_alone
@pytest.mark.parametrize("method", ["chain", "block"])
@filters_of
def test_a_draft_that_is_certain(compiled, method, filters):
    """Whatever is drafted: what is emitted is the same."""
    one = case(compiled.verify, method, 2, FILTERS[filters], "holes", draft=None)
    for x in ((0, 0), (1, 3), (3, 2)):
        certain = lambda prefix, x=x: np.eye(4)[x[len(prefix)]]  # noqa: E731
        assert off(one, drafts_from=certain) < EXACT


@pytest.mark.parametrize("method", ["chain", "block"])
def test_a_draft_that_is_the_target_is_accepted(compiled, method):
    one = case(compiled.verify, method, 2, {"top_p": 0.8})
    one.draft = one.target
    assert off(one) < EXACT
    assert one.mean_count() == pytest.approx(3, abs=1e-12)


def test_blocks_accept_more(compiled):
    counts = {m: case(compiled.verify, m, 2, {}, n=3).mean_count() for m in ("chain", "block")}
    assert counts["block"] > counts["chain"] + 0.01


@pytest.mark.parametrize("method", ["chain", "block"])
def test_uniforms_mean_what_is_documented(compiled, method):
    """Thresholds that are found one by one tell what any uniforms give."""
    one = case(compiled.verify, method, 2, {"top_k": 3})
    drafts = [(i, j) for i in range(4) for j in range(4)] * 20
    u = np.random.default_rng(0).random((len(drafts), 3))
    ids, counts = one.emitted(drafts, u)
    for x, v, id, count in zip(drafts, u, ids, counts, strict=True):
        p = [probabilities(one.target(x[:j]), top_k=3) for j in range(3)]
        q = [probabilities(one.draft(x[:j]), top_k=3) for j in range(2)]
        j = accept(method, x, p, q, v)
        f = j[1]
        j = j[0]
        left = np.maximum(f * p[j] - q[j], 0) if j < 2 else p[j]
        last = np.searchsorted(np.cumsum(left), v[0] * left.sum(), side="right")
        assert id.tolist() == [*x[:j], last, *[-1] * (2 - j)]
        assert count == j + 1


def accept(method, x, p, q, u):
    """Return how many drafts are accepted by the documented rule, and the factor there."""
    if method == "chain":
        for j, id in enumerate(x):
            if not (q[j][id] > 0 and u[1 + j] * q[j][id] < p[j][id]):
                return j, 1
        return len(x), 1
    f, best = 1, (0, 1)
    for j, id in enumerate(x):
        left = np.maximum(f * p[j] - q[j], 0).sum()
        if j and u[j] * (left + 1 - f) < left:
            best = j, f
        f = min(1, f * p[j][id] / q[j][id]) if q[j][id] else 0
    return (len(x), f) if u[len(x)] < f else best


# ---- verifiers with a bias: the sum must reject them ---------------------------------------------


def from_p(w, v, factor, u):
    """Draw from p, not from what p has more than q."""
    return int(oracle.first_above(w[0], u))


def always(w, v, draft, u):
    """Accept what is at least as likely as not, whatever u is."""
    return w[0][draft] * v[1] * 2 > w[1] * v[0][draft]


def unnormalised(w, v, draft, u):
    """Compare weights, not probabilities."""
    return u * v[0][draft] < w[0][draft]


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("draw_residual", from_p),
        pytest.param("accepted", always, marks=pytest.mark.slow),
        pytest.param("accepted", unnormalised, marks=pytest.mark.slow),
    ],
)
def test_a_biased_verifier_is_noticed(reference, monkeypatch, name, twin):
    one = case(reference.verify, "chain", 1, {"top_k": 3}, n=3)
    assert off(one) < EXACT
    monkeypatch.setattr(oracle, name, twin)
    assert off(one) > BIASED


@pytest.mark.parametrize("method", ["chain", "block"])
def test_drafts_from_elsewhere_are_noticed(compiled, method):
    """Drafts of another temperature than the one that q is taken at."""
    one = case(compiled.verify, method, 2, {"temperature": 0.8})
    other = lambda prefix: probabilities(one.draft(prefix), temperature=1.2)  # noqa: E731
    assert off(one, drafts_from=other) > BIASED
