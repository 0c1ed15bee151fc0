"""`verify`: the reference's ids in every regime, each request as if alone; shapes and errors."""

import numpy as np
import pytest

from tests.arrays import LAYOUTS, dtype_of
from tests.oracles import PARAMETERS, Uniforms, rows_of

METHODS = pytest.mark.parametrize("method", ["chain", "block"])


def drafted(impl, y, seed=0, **filters):
    """Return ids drawn from the draft's logits."""
    return impl.sample(y, rng=seed, **filters)


def requests(n, length, dtype="float32", size=4, seed=0):
    """Return target and draft logits that are like each other: half of the drafts are accepted."""
    x = rows_of(n, dtype)
    rng = np.random.default_rng([n, length, seed])
    x = x[rng.integers(len(x), size=(size, length + 1))]
    with np.errstate(invalid="ignore"):
        y = (x[:, :length] + rng.standard_normal((size, length, n)) * 0.7).astype(dtype)
    return x, y


def same(found, wanted):
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.counts, wanted.counts)


# ---- against the reference -----------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize(
    "n", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 33, 5000))]
)
def test_the_reference_s_ids(compiled, reference, method, n):
    for i, filters in enumerate(PARAMETERS):
        for dtype in ("float32", "float64", "float16") if n <= 33 else ("float32",):
            x, y = requests(n, 3, dtype, 3, i)
            ids = drafted(compiled, y, **filters)
            for draft in (y, None):
                arguments = {"seed": [i, 7, 3], "position": n, "method": method, **filters}
                same(
                    compiled.verify(ids, x, draft, **arguments),
                    reference.verify(ids, x, draft, **arguments),
                )


@METHODS
@pytest.mark.slow
@pytest.mark.parametrize("deviation", [0.3, 1, 3])
def test_the_reference_s_ids_of_long_rows(compiled, reference, method, deviation):
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((3, 3, 9000)) * deviation).astype(np.float32)
    x[1] = x[1].round(1)
    y = (x[:, :2] + rng.standard_normal((3, 2, 9000), np.float32) * 0.2).astype(np.float32)
    for filters in ({}, {"top_p": 0.9}, {"min_p": 0.01}, {"top_k": 3000, "temperature": 0.8}):
        ids = drafted(compiled, y, **filters)
        for draft in (y, None):
            arguments = {"seed": 3, "position": [1, 2, 3], "method": method, **filters}
            same(
                compiled.verify(ids, x, draft, **arguments),
                reference.verify(ids, x, draft, **arguments),
            )


@METHODS
def test_uniforms_at_the_thresholds(compiled, reference, method):
    """Sums in float32 don't decide where they might be wrong."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((1, 2, 6000)).astype(np.float32)
    y = x[:, :1] + rng.standard_normal((1, 1, 6000), np.float32)
    for filters in ({}, {"top_p": 0.95}, {"min_p": 0.001}):
        id = drafted(compiled, y, **filters)
        for draft in (y, None):

            def accepts(impl, u, id=id, draft=draft, filters=filters):
                uniforms = Uniforms([0.5, u])
                return impl.verify(id, x, draft, rng=uniforms, method=method, **filters).counts[0]

            low, high = 0.0, 1.0
            for _ in range(50):
                middle = (low + high) / 2
                low, high = (middle, high) if accepts(compiled, middle) == 2 else (low, middle)
            for u in (low * (1 - 1e-12), min(high * (1 + 1e-12), 1 - 2**-53)):
                assert accepts(compiled, u) == accepts(reference, u)


# ---- promises ------------------------------------------------------------------------------------


@METHODS
def test_without_drafts_it_is_sample(impl, method):
    for filters in PARAMETERS:
        x = rows_of(300, "float32")
        chance = {"seed": [1, 2, 3, 4], "position": 5}
        ids, counts = impl.verify(
            np.zeros((4, 0), int), x[:, None], method=method, **chance, **filters
        )
        assert ids[:, 0].tolist() == impl.sample(x, **chance, **filters).tolist()
        assert counts.tolist() == [1] * 4


@METHODS
def test_a_request_is_verified_as_if_alone(impl, method):
    x, y = requests(60, 4, size=6)
    t, p, seed = np.linspace(0.5, 2, 6), np.linspace(0.5, 1, 6), np.arange(6) + 2**60
    k = np.arange(6) * 7
    ids = drafted(impl, y)
    all_of = impl.verify(
        ids, x, y, temperature=t, top_p=p, top_k=k, seed=seed, position=-seed, method=method
    )
    for i in range(6):
        one = impl.verify(
            ids[i], x[i], y[i], temperature=t[i], top_p=p[i], top_k=k[i], seed=seed[i],
            position=-seed[i], method=method,
        )  # fmt: skip
        assert one.ids.tolist() == all_of.ids[i].tolist()
        assert one.counts == all_of.counts[i]
        assert np.ndim(one.counts) == 0


@METHODS
def test_a_padded_draft_is_a_shorter_one(impl, method):
    x, y = requests(30, 6)
    ids = drafted(impl, y)
    for length in range(6):
        short = ids.copy()
        short[:, length] = -1  # what comes behind it does not count
        padded = impl.verify(short, x, y, seed=3, position=np.arange(4), method=method)
        wanted = impl.verify(
            ids[:, :length], x[:, : length + 1], y[:, :length], seed=3, position=np.arange(4),
            method=method,
        )  # fmt: skip
        assert padded.ids[:, : length + 1].tolist() == wanted.ids.tolist()
        assert np.all(padded.ids[:, length + 1 :] == -1)
        assert padded.counts.tolist() == wanted.counts.tolist()


def test_uniforms_of_all_positions_are_apart(impl):
    """More than four uniforms of a position are none of the next position's, nor the first four."""
    positions = [2**64 - 1, *range(40)]
    generators = [
        np.random.Generator(np.random.Philox(key=9, counter=p + (b << 64)))
        for p in positions
        for b in range(3)
    ]
    u = np.array([g.random(4) for g in generators]).reshape(len(positions), 12)
    assert len(set(u.ravel())) == u.size
    ids = np.zeros((len(positions), 11), int)
    x = np.broadcast_to(np.array([2.0, 0]), (len(positions), 12, 2))  # most drafts are accepted
    wanted = impl.verify(ids, x, rng=Uniforms(u))
    assert wanted.counts.max() == 12
    same(impl.verify(ids, x, seed=9, position=positions), wanted)


@METHODS
def test_greedy(impl, method):
    x, y = requests(40, 3, size=5)
    best = x.argmax(-1)
    ids = best[:, :3].copy()
    ids[1, 2] += 1
    ids[2, 0] -= 1
    found = impl.verify(ids % 40, x, np.full_like(y, np.nan), temperature=0, method=method)
    assert found.counts.tolist() == [4, 3, 1, 4, 4]
    for i, count in enumerate(found.counts):
        assert found.ids[i].tolist() == [*best[i, :count], *[-1] * (4 - count)]


@METHODS
def test_what_is_removed_is_never_emitted(impl, method):
    x, _ = requests(50, 2, size=40)
    kept = impl.filter_logits(x, top_k=5) > -np.inf
    for seed in range(10):
        ids = np.random.default_rng(seed).integers(0, 50, (40, 2))
        found = impl.verify(ids, x, top_k=5, rng=seed, method=method)
        for i, j in np.argwhere(found.ids >= 0):
            assert kept[i, j, found.ids[i, j]]


@METHODS
def test_equal_weights_and_uniforms_at_the_ends(impl, method):
    """Whatever rounds, an id is drawn that can be."""
    for n in (2, 3, 5000):
        x = np.zeros((4, 3, n), np.float32)
        for u in (0.0, 1 - 2**-53):
            found = impl.verify(
                np.zeros((4, 2), int), x, x[:, :2], rng=Uniforms(np.full((4, 3), u)), method=method
            )
            assert found.ids.min(where=found.ids != -1, initial=0) >= 0
            assert found.counts.min() >= 1


@METHODS
def test_types_of_logits(impl, reference, method):
    x, y = requests(300, 3)
    ids = drafted(impl, y)
    for a, b in (("float16", "float32"), ("float32", "float64"), ("int16", "float16")):
        p, q = x.clip(-100, 100).astype(dtype_of(a)), y.clip(-100, 100).astype(dtype_of(b))
        arguments = {"top_p": 0.9, "seed": 1, "position": 1, "method": method}
        same(impl.verify(ids, p, q, **arguments), reference.verify(ids, p, q, **arguments))


@METHODS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_both(compiled, method, layout):
    for n in (40, 5000):
        x, y = requests(n, 3)
        ids = drafted(compiled, y)
        arguments = {"top_p": 0.9, "seed": 1, "position": 1, "method": method}
        other = LAYOUTS[layout]
        wanted = compiled.verify(ids, x, y, **arguments)
        same(compiled.verify(other(ids), other(x), other(y), **arguments), wanted)
        same(compiled.verify(ids, x, other(y), **arguments), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chain", "block"])
def test_rows_that_are_packed_by_parts(compiled, method):
    n = (1 << 20) + 77
    x = np.random.default_rng(4).standard_normal((2, 2, n), np.float32).astype(np.float16)
    y = x[:, :1] + np.float16(0.1) * np.cos(np.arange(n)).astype(np.float16)
    wide = x.astype(np.float32), y.astype(np.float32)
    for filters in ({}, {"top_p": 0.9}, {"top_k": 50}, {"min_p": 0.01}, {"temperature": 0}):
        ids = drafted(compiled, y, **filters)
        arguments = {"seed": [1, 2], "position": 3, "method": method, **filters}
        wanted = compiled.verify(ids, *wide, **arguments)
        same(compiled.verify(ids, x, y, **arguments), wanted)
        same(compiled.verify(ids, x, wide[1], **arguments), wanted)
        same(compiled.verify(ids, wide[0], y, **arguments), wanted)
        same(compiled.verify(ids, x, **arguments), compiled.verify(ids, wide[0], **arguments))
    found = compiled.beam_step(x, np.zeros((2, 2)), 5)
    wanted = compiled.beam_step(wide[0], np.zeros((2, 2)), 5)
    assert [a.tobytes() for a in found] == [a.tobytes() for a in wanted]


def test_workers(compiled, divided):
    x, y = requests(3000, 3, size=16)
    ids = drafted(compiled, y)
    wanted = compiled.verify(ids, x, y, top_p=0.9, seed=1, position=1, workers=1)
    same(compiled.verify(ids, x, y, top_p=0.9, seed=1, position=1, workers=3), wanted)
    assert len(divided) > 1


def test_no_requests_and_no_vocabulary(impl):
    found = impl.verify(np.zeros((0, 2), int), np.zeros((0, 3, 5)), rng=0)
    assert found.ids.shape == (0, 3)
    assert found.counts.shape == (0,)
    found = impl.verify([[-1]], np.zeros((1, 2, 0)), rng=0, on_invalid="flag")
    assert found.ids.tolist() == [[-1, -1]]
    assert found.counts.tolist() == [0]
    with pytest.raises(ValueError, match=r"logits has nothing above -inf in row \(0, 0\)"):
        impl.verify([[-1]], np.zeros((1, 2, 0)), rng=0)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"), [(np.nan, "NaN"), (np.inf, r"\+inf"), (-np.inf, "nothing above -inf")]
)
def test_invalid_rows_are_named(impl, bad, says):
    x, y = requests(40, 2)
    x[1:] = y[1:, :1] = 1
    ids = drafted(impl, y)
    x[2, 1], y[3, 0] = bad, bad
    ids[2] = -1
    with pytest.raises(ValueError, match=rf"^draft_logits has {says} in row \(3, 0\)"):
        impl.verify(ids, x, y, rng=0)
    found = impl.verify(ids, x, y, rng=0, on_invalid="flag")
    assert found.counts[[2, 3]].tolist() == [1, 0]  # the bad row of request 2 was not read
    assert found.ids[3].tolist() == [-1] * 3
    x[2, 0] = bad
    for arguments in ({}, {"temperature": 0}):
        with pytest.raises(ValueError, match=rf"^logits has {says} in row \(2, 0\)"):
            impl.verify(ids, x, y, rng=0, **arguments)


def test_wrong_arguments_are_named(impl):
    x, ids = np.zeros((2, 3, 5)), np.zeros((2, 2), int)

    def says(error, match, *args, **kwargs):
        with pytest.raises(error, match=match):
            impl.verify(*args, **kwargs)

    says(ValueError, r"logits has shape \(5,\); allowed is \(..., K \+ 1, n\)", ids, x[0, 0])
    says(ValueError, r"logits has shape \(2, 0, 5\)", ids, x[:, :0])
    says(ValueError, r"draft_logits has shape \(2, 3, 5\); allowed is \(2, 2, 5\)", ids, x, x)
    says(ValueError, r"draft_ids has shape \(2, 1\); allowed is \(2, 2\)", ids[:, :1], x)
    says(IndexError, "draft_ids has 5; allowed is 0 to 4, and -1", ids + 5, x)
    says(IndexError, "draft_ids has -2; allowed is 0 to 4, and -1", ids - 2, x)
    says(TypeError, "draft_ids has dtype float64; allowed are integers", ids + 0.0, x)
    says(TypeError, "draft_ids has dtype bool", ids > 0, x)
    says(ValueError, "method is 'all'; allowed are 'chain', 'block', 'race'$", ids, x, method="all")
    says(ValueError, "on_invalid is 'skip'; allowed are 'raise', 'flag'", ids, x, on_invalid="skip")
    says(ValueError, "top_p is 2.0; allowed is 0 to 1", ids, x, top_p=2)
    says(ValueError, r"temperature has shape \(3,\), which does not broadcast", ids, x,
         temperature=np.ones(3))  # fmt: skip
    says(ValueError, "rng is 0; allowed is None where seed", ids, x, rng=0, seed=1, position=1)
    says(TypeError, "no argument 'draft_probs'; it is called draft_logits here", ids, x,
         draft_probs=x)  # fmt: skip
