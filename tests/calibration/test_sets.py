"""Prediction sets: those of a full sort, the coverage that is promised, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastsoftmax
from fastsoftmax.calibration import SetCalibration, calibrate_sets, prediction_sets, sets
from tests.calibration.test_temperature import rows

RAPS = {"method": "raps", "k_reg": 2, "lam": 0.05}


class Given:
    """A generator of the uniforms it was made of."""

    def __init__(self, u):
        self.u = u


@pytest.fixture(autouse=True)
def _uniforms(monkeypatch):
    """Take the uniforms of `Given`, whose last and first numbers no generator would hit upon."""
    real = sets.generator

    def generator(rng):
        if not isinstance(rng, Given):
            return real(rng)
        rng.random = lambda n: np.resize(rng.u, n)
        return rng

    monkeypatch.setattr(sets, "generator", generator)


def class_scores(x, temperature, k_reg, lam, u):
    """Return each class's score by a full sort, without and with its random part."""
    x = np.asarray(x, np.float64) / temperature
    order = np.argsort(-x, axis=-1, kind="stable")
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    p = np.take_along_axis(p / p.sum(axis=-1, keepdims=True), order, axis=-1)
    place = np.arange(1, x.shape[-1] + 1)
    plain = p.cumsum(axis=-1) + lam * np.maximum(place - k_reg, 0)
    back = np.argsort(order, axis=-1)
    return (np.take_along_axis(s, back, axis=-1) for s in (plain, plain - u[:, np.newaxis] * p))


def oracle(x, calibration, u):
    """Return the sets, and those with the last class, by a full sort."""
    plain, random = class_scores(x, calibration.temperature, calibration.k_reg, calibration.lam, u)
    below = plain < calibration.threshold
    order = np.argsort(np.where(below, np.inf, plain), axis=-1, kind="stable")  # the next one first
    last = below.copy()
    np.put_along_axis(last, order[:, :1], True, axis=-1)
    return random <= calibration.threshold, last


@pytest.mark.parametrize("keywords", [{}, RAPS, {"temperature": 2.5}, RAPS | {"lam": 0.0}])
@pytest.mark.parametrize(("classes", "scale"), [(3, 2), (40, 1), (70, 3), (700, 1), (700, 6)])
def test_sets_of_a_full_sort(classes, scale, keywords):
    x, y = rows(150, classes, 1.0, scale=scale)
    u = np.random.default_rng(5).random(150)
    calibration = calibrate_sets(x, y, 0.15, rng=Given(u), **keywords)
    new, _ = rows(120, classes, 1.0, seed=7, scale=scale)
    u = np.random.default_rng(6).random(120)
    random, last = oracle(new, calibration, u)
    np.testing.assert_array_equal(prediction_sets(new, calibration, rng=Given(u)), random)
    np.testing.assert_array_equal(prediction_sets(new, calibration, include_last=True), last)
    assert 0 < random.mean() < 1


@pytest.mark.parametrize("randomized", [True, False])
@pytest.mark.parametrize("keywords", [{}, RAPS, {"temperature": 0.5}])
def test_the_threshold_is_that_of_sorted_scores(keywords, randomized):
    x, y = rows(99, 20, 1.0, scale=2)
    u = np.random.default_rng(5).random(99) if randomized else np.zeros(99)
    got = calibrate_sets(x, y, 0.2, randomized=randomized, rng=Given(u), **keywords)
    _, scores = class_scores(x, got.temperature, got.k_reg, got.lam, u)
    own = np.sort(scores[np.arange(99), y])
    assert got.threshold == pytest.approx(own[79], abs=1e-14)  # the 80th of 100 (1 - 0.2)
    assert got.randomized is randomized


@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, 1.5, -np.inf]), min_size=5, max_size=5),
             min_size=9, max_size=20),
    st.sampled_from([0.0, 0.3, 1 - 2**-53]),
    st.sampled_from([0.1, 0.5, 0.9]),
)  # fmt: skip
def test_equal_classes_and_hard_uniforms(x, u, alpha):
    x = np.array(x)
    x[:, 2] = 1.0  # something finite
    y = np.arange(len(x)) % 5
    u = np.full(len(x), u)
    calibration = calibrate_sets(x, y, alpha, rng=Given(u))
    _, scores = class_scores(x, 1.0, 0, 0.0, u)
    assert np.abs(scores[np.arange(len(x)), y] - calibration.threshold).min() < 1e-12
    # Scores that are the threshold but for their rounding may be on either side of it.
    got = prediction_sets(x, calibration, rng=Given(u))
    clear = np.abs(scores - calibration.threshold) > 1e-12
    np.testing.assert_array_equal(got[clear], (scores <= calibration.threshold)[clear])


@pytest.mark.parametrize("alpha", [0.05, 0.3])
@pytest.mark.parametrize("keywords", [{}, RAPS])
def test_coverage(alpha, keywords):
    """Of 20,000 rows 1 - alpha have their class in the set, within what 5000 labels can tell."""
    x, y = rows(25000, 12, 1.7, scale=2)  # a classifier too sure of itself
    calibration = calibrate_sets(x[:5000], y[:5000], alpha, rng=1, **keywords)
    own = np.arange(20000), y[5000:]
    random = prediction_sets(x[5000:], calibration, rng=2)
    assert random[own].mean() == pytest.approx(1 - alpha, abs=5 * np.sqrt(alpha / 5000))
    last = prediction_sets(x[5000:], calibration, include_last=True)
    assert (last >= random).all()
    assert last.any(axis=-1).all()
    plain = calibrate_sets(x[:5000], y[:5000], alpha, randomized=False, **keywords)
    covered = prediction_sets(x[5000:], plain)[own].mean()
    assert covered == pytest.approx(1 - alpha, abs=5 * np.sqrt(alpha / 5000))
    # The softmax itself is too sure: its nuclei of that mass miss more often.
    naive = prediction_sets(x[5000:], plain._replace(threshold=1 - alpha), rng=2)
    assert naive[own].mean() < 1 - alpha - 5 * np.sqrt(alpha / 5000)


def test_penalties_bound_the_sizes():
    x, y = rows(2000, 300, 1.0, scale=1)
    large = prediction_sets(x, calibrate_sets(x, y, 0.1, rng=1), rng=2).sum(axis=-1)
    raps = calibrate_sets(x, y, 0.1, rng=1, method="raps", k_reg=50, lam=0.1)
    small = prediction_sets(x, raps, rng=2).sum(axis=-1)
    assert small.max() - small.min() < (large.max() - large.min()) / 2


def test_shapes_types_and_seeds():
    x, y = rows(60, 9, 1.0, dtype=np.float32)
    calibration = calibrate_sets(x.reshape(3, 20, 9), y.reshape(3, 20), 0.2, rng=1)
    assert calibration == calibrate_sets(x.astype(np.float64), y, 0.2, rng=1)
    assert calibration == calibrate_sets(x.tolist(), y.tolist(), 0.2, rng=np.random.default_rng(1))
    got = prediction_sets(x, calibration, rng=3)
    assert got.dtype == bool
    np.testing.assert_array_equal(
        prediction_sets(x.reshape(3, 20, 9), calibration, rng=3)[1, 4], got[24]
    )
    np.testing.assert_array_equal(prediction_sets(np.asfortranarray(x), calibration, rng=3), got)
    last = prediction_sets(x, calibration, include_last=True)
    np.testing.assert_array_equal(prediction_sets(x[0], calibration, include_last=True), last[0])
    assert prediction_sets(x[:0], calibration).shape == (0, 9)
    half = prediction_sets(x.astype(np.float16), calibration, rng=3)
    np.testing.assert_array_equal(
        half, prediction_sets(x.astype(np.float16).astype("f8"), calibration, rng=3)
    )


def test_the_fewest_rows_for_an_alpha():
    x, y = rows(9, 4, 1.0)
    calibrate_sets(x, y, 0.1)
    with pytest.raises(ValueError, match=r"alpha is 0\.1; allowed with 8 rows is 0\.111"):
        calibrate_sets(x[:8], y[:8], 0.1)


def test_a_whole_number_of_rows_is_not_rounded_up():
    x, y = rows(99, 4, 1.0)
    assert 100 * (1 - 0.58) > 42  # the 42nd is meant
    own = np.sort(next(class_scores(x, 1.0, 0, 0.0, np.zeros(99)))[np.arange(99), y])
    assert calibrate_sets(x, y, 0.58, randomized=False).threshold == pytest.approx(own[41])
    assert own[42] > own[41] + 1e-6


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"alpha": 0}, ValueError, "alpha is 0; allowed are numbers above 0 and below 1"),
        ({"alpha": 1}, ValueError, "alpha is 1; allowed"),
        ({"alpha": np.nan}, ValueError, "alpha is nan"),
        ({"alpha": "x"}, TypeError, "alpha is 'x'"),
        ({"method": "lac"}, ValueError, "method is 'lac'; allowed are 'aps', 'raps'"),
        ({"k_reg": 1}, ValueError, "k_reg is 1; allowed is None with method='aps'"),
        ({"lam": 1}, ValueError, "lam is 1; allowed is None with method='aps'"),
        ({"method": "raps", "lam": 0.1}, TypeError, "k_reg is None; allowed are integers"),
        ({"method": "raps", "k_reg": 1}, TypeError, "lam is None; allowed is a number"),
        (RAPS | {"k_reg": -1}, ValueError, "k_reg is -1"),
        (RAPS | {"lam": -1}, ValueError, "lam is -1"),
        ({"temperature": 0}, ValueError, "temperature is 0; allowed are numbers above 0"),
        ({"temperature": np.inf}, ValueError, "temperature is inf"),
        ({"randomized": 1}, TypeError, "randomized is 1; allowed are True and False"),
        ({"rng": "x"}, TypeError, "rng is 'x'"),
        ({"labels": [0] * 29}, ValueError, r"labels has shape \(29,\); allowed is \(30,\)"),
        ({"labels": [0] * 29 + [4]}, IndexError, r"labels\[29\] is 4; allowed is 0 to 3"),
        ({"logits": [[1.0, np.nan, 2, 3]] * 30}, ValueError, "logits has NaN in row 0"),
        ({"logits": [[1.0, 2, 3, 4]] * 29 + [[np.inf] * 4]}, ValueError, r"\+inf in row 29"),
        ({"logits": [[-np.inf] * 4] * 30}, ValueError, "nothing above -inf in row 0"),
    ],
)
def test_errors_of_calibrate_sets(keywords, error, words):
    x, y = rows(30, 4, 1.0)
    with pytest.raises(error, match=words):
        calibrate_sets(**{"logits": x, "labels": y, "alpha": 0.2} | keywords)


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"logits": np.zeros((2, 5))}, ValueError, "allowed are 4 classes, as calibrated"),
        ({"logits": [[0, 1, 2, np.nan]]}, ValueError, "logits has NaN in row 0"),
        ({"logits": [[[0] * 4], [[0, 1, 2, np.inf]]]}, ValueError, r"\+inf in row 1, 0"),
        ({"logits": 1.0}, ValueError, r"logits has shape \(\)"),
        ({"calibration": 0.9}, TypeError, "calibration is 0.9; allowed is what calibrate_sets"),
        ({"include_last": None}, TypeError, "include_last is None"),
        ({"rng": -1}, ValueError, "rng is -1"),
    ],
)
def test_errors_of_prediction_sets(keywords, error, words):
    calibration = SetCalibration(0.9, 4, 0, 0.0, 1.0, True)
    with pytest.raises(error, match=words):
        prediction_sets(**{"logits": np.zeros((2, 4)), "calibration": calibration} | keywords)


def test_labels_are_ranked_as_in_top_k():
    x = np.array([[1.0, 1.0, 0.0]] * 9)
    first, second = (
        calibrate_sets(x, [label] * 9, 0.5, randomized=False).threshold for label in (0, 1)
    )
    p = fastsoftmax.softmax(x[0])
    assert (first, second) == (pytest.approx(p[0]), pytest.approx(2 * p[0]))
