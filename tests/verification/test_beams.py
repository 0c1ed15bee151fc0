"""`beam_step`: against log_softmax, a sum and a stable sort of each group; ties, -inf, lengths."""

import numpy as np
import pytest

from tests.arrays import LAYOUTS


def plain(logits, scores, k, factors=1.0):
    """Return the k best of all of a group's sums, in a matrix of log-probabilities."""
    x = np.asarray(logits, np.float64)
    d = x - x.max(-1, keepdims=True)
    log_p = d - np.log(np.exp(d).sum(-1, keepdims=True))
    total = np.asarray(scores)[..., None] + log_p
    flat = (total * np.reshape(factors, (*np.shape(factors), 1))).reshape(*x.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")[..., :k]
    found = np.take_along_axis(total.reshape(flat.shape), order, -1)
    return found, order // x.shape[-1], order % x.shape[-1]


def groups(shape, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 2).astype(dtype), -rng.random(shape[:-1]) * 3


@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 4, 33), (3, 1, 300), (2, 2, 3, 70), (2, 4, 9000)])
def test_the_best_of_all_sums(impl, shape):
    for dtype in ("float32", "float64"):
        x, scores = groups(shape, dtype)
        for k in (0, 1, 4, min(40, shape[-2] * shape[-1])):
            if impl.NAME == "reference" and shape[-1] > 300:
                continue
            found = impl.beam_step(x, scores, k)
            want = plain(x, scores, k)
            rtol = 1e-6 if dtype == "float32" else 1e-14
            np.testing.assert_allclose(found.scores, want[0], rtol=rtol)
            assert found.parents.tolist() == want[1].tolist()
            assert found.ids.tolist() == want[2].tolist()
            assert found.scores.dtype == np.float64


def test_all_of_a_group(impl):
    x, scores = groups((3, 2, 6), "float64")
    found = impl.beam_step(x, scores, 12)
    flat = np.sort(found.parents * 6 + found.ids, axis=-1)
    assert flat.tolist() == [list(range(12))] * 3


def test_ties_go_to_the_lower_beam_then_id(impl):
    x = np.zeros((1, 3, 40), np.float32)
    x[0, :, 7] = x[0, :, 3] = 2
    scores, parents, ids = impl.beam_step(x, np.zeros((1, 3)), 8)
    assert parents.tolist() == [[0, 0, 1, 1, 2, 2, 0, 0]]
    assert ids.tolist() == [[3, 7, 3, 7, 3, 7, 0, 1]]
    assert len(set(scores[0])) == 2


def test_a_beam_of_minus_infinity_is_not_read(impl):
    x, scores = groups((2, 3, 20))
    scores[:, 1:] = -np.inf
    x[:, 1:] = np.nan
    found = impl.beam_step(x, scores, 4)
    alone = impl.beam_step(x[:, :1], scores[:, :1], 4)
    assert [a.tolist() for a in found] == [a.tolist() for a in alone]


def test_what_is_not_there_is_padded(impl):
    x = np.full((2, 2, 50), -np.inf)
    x[0, 1, [3, 40]] = 0, 1
    x[1, 0, 9] = 5
    scores, parents, ids = impl.beam_step(x, [[-np.inf, -1], [0, -np.inf]], 3)
    assert parents.tolist() == [[1, 1, -1], [0, -1, -1]]
    assert ids.tolist() == [[40, 3, -1], [9, -1, -1]]
    assert np.isneginf(scores).tolist() == [[False, False, True], [False, True, True]]
    scores, parents, ids = impl.beam_step(x, np.full((2, 2), -np.inf), 1)
    assert (parents.tolist(), ids.tolist()) == ([[-1], [-1]], [[-1], [-1]])


def test_length_penalty(impl):
    x, scores = groups((3, 4, 30), "float64", 4)
    scores *= 10
    length = np.array([2.0, 9, 30, 5])
    for penalty in (0.7, -1, 2):
        found = impl.beam_step(x, scores, 20, length=length, length_penalty=penalty)
        want = plain(x, scores, 20, np.broadcast_to(length**-penalty, (3, 4)))
        np.testing.assert_allclose(found.scores, want[0], rtol=1e-14)
        assert found.parents.tolist() == want[1].tolist()
        assert found.ids.tolist() == want[2].tolist()
    same = impl.beam_step(x, scores, 20, length=7, length_penalty=2)
    assert same.ids.tolist() == impl.beam_step(x, scores, 20).ids.tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(compiled, layout):
    for shape in ((2, 3, 40), (2, 2, 5000)):
        x, scores = groups(shape)
        want = compiled.beam_step(x, scores, 6)
        found = compiled.beam_step(LAYOUTS[layout](x), LAYOUTS[layout](scores), 6)
        assert [a.tobytes() for a in found] == [a.tobytes() for a in want]


def test_half_types_and_integers(impl):
    x, scores = groups((2, 3, 40), "float16")
    found, want = impl.beam_step(x, scores, 5), impl.beam_step(x.astype("float32"), scores, 5)
    assert [a.tobytes() for a in found] == [a.tobytes() for a in want]
    x = np.arange(24).reshape(2, 3, 4) % 5
    found, want = impl.beam_step(x, scores[:, :3], 5), impl.beam_step(x * 1.0, scores[:, :3], 5)
    assert [a.tobytes() for a in found] == [a.tobytes() for a in want]


def test_a_search_finds_the_best_sequence(impl):
    """With as many beams as there are sequences a search is exhaustive."""
    rng = np.random.default_rng(2)
    rows = [rng.standard_normal((3,) * i + (3,)) for i in range(3)]
    scores, paths = np.zeros((1, 1)), np.zeros((1, 0), int)
    for i in range(3):
        logits = np.stack([rows[i][tuple(path)] for path in paths])[None]
        scores, parents, ids = impl.beam_step(logits, scores, 3 ** (i + 1))
        paths = np.concatenate([paths[parents[0]], ids[0][:, None]], 1)
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-12)
    assert len({tuple(path) for path in paths}) == 27


@pytest.mark.parametrize(
    ("bad", "says"), [(np.nan, "NaN"), (np.inf, r"\+inf"), (-np.inf, "nothing above -inf")]
)
def test_rows_without_probabilities(impl, bad, says):
    x, scores = groups((2, 3, 40))
    want = impl.beam_step(x[:, [0, 2]], scores[:, [0, 2]], 3)
    x[1, 1] = bad
    with pytest.raises(ValueError, match=rf"^logits has {says} in row \(1, 1\)"):
        impl.beam_step(x, scores, 3)
    found = impl.beam_step(x, scores, 3, on_invalid="flag")
    assert found.scores[1].tolist() == want.scores[1].tolist()
    assert found.ids[1].tolist() == want.ids[1].tolist()


def test_workers(compiled, divided):
    x, scores = groups((9, 3, 30_000))
    one = compiled.beam_step(x, scores, 6, workers=1)
    many = compiled.beam_step(x, scores, 6, workers=3)
    assert [a.tobytes() for a in one] == [a.tobytes() for a in many]
    assert len(divided) > 1


def test_wrong_arguments_are_named(impl):
    x, scores = groups((2, 3, 5))

    def says(error, match, *args, **kwargs):
        with pytest.raises(error, match=match):
            impl.beam_step(*args, **kwargs)

    says(ValueError, r"logits has shape \(5,\); allowed is \(..., m, n\)", x[0, 0], scores, 2)
    says(ValueError, r"scores has shape \(3, 2\); allowed is \(2, 3\)", x, scores.T, 2)
    says(ValueError, "scores is nan; allowed is a number or -inf", x, scores * np.nan, 2)
    says(TypeError, "scores is 'no'; allowed are real numbers and -inf", x, "no", 2)
    says(ValueError, "beams is 16; allowed is 0 to 15", x, scores, 16)
    says(TypeError, "beams is 1.0; allowed are integers", x, scores, 1.0)
    says(TypeError, "length is None; allowed beside a length_penalty", x, scores, 2,
         length_penalty=1)  # fmt: skip
    says(ValueError, "length is 0.0; allowed is 1 and above", x, scores, 2, length=0)
    says(ValueError, "length_penalty is nan", x, scores, 2, length=1, length_penalty=np.nan)
    says(ValueError, "length is 1e\\+50; allowed is what length_penalty leaves", x, scores, 2,
         length=1e50, length_penalty=9)  # fmt: skip
    says(TypeError, "no argument 'num_beams'; it is called beams here", x, scores, num_beams=2)
