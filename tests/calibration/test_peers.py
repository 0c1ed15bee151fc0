"""TemperatureScaler as scikit-learn wants it, and the values and sets of scikit-learn and MAPIE.

Weekly: they need ``pip install scikit-learn mapie``.
"""

import doctest
import sys

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax.calibration import calibrate_sets, fit_temperature, prediction_sets
from tests.calibration.test_temperature import rows

weekly = [pytest.mark.weekly, pytest.mark.filterwarnings("ignore")]


def weekly_test(function):
    """Mark a test that needs the peers."""
    for mark in weekly:
        function = mark(function)
    return function


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "fastsoftmax.sklearn", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'fastsoftmax\[sklearn\]'"):
        import fastsoftmax.sklearn  # noqa: F401


# ---- scikit-learn --------------------------------------------------------------------------------


@weekly_test
def test_scikit_learns_checks_of_an_estimator():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.utils.estimator_checks import check_estimator

    from fastsoftmax.sklearn import TemperatureScaler

    for estimator in (
        TemperatureScaler(),
        TemperatureScaler(RandomForestClassifier(5, random_state=0)),
    ):
        results = check_estimator(estimator)
        assert sum(result["status"] == "passed" for result in results) > 45


@weekly_test
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_temperature_of_scikit_learn(classes, dtype):
    from sklearn.calibration import _TemperatureScaling

    x, y = rows(2000, classes, 1.7, dtype=dtype)
    theirs = 1 / _TemperatureScaling().fit(x.astype(np.float64), y).beta_
    assert fit_temperature(x, y).temperature == pytest.approx(theirs, rel=1e-6)


@weekly_test
@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
@pytest.mark.parametrize("kind", ["decision_function", "predict_proba"])
def test_the_probabilities_of_scikit_learn(name, kind):
    from sklearn import datasets
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB

    from fastsoftmax.sklearn import TemperatureScaler

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)  # noqa: N806
    inner = LogisticRegression(max_iter=200) if kind == "decision_function" else GaussianNB()
    ours = TemperatureScaler(inner).fit(X, y)
    theirs = CalibratedClassifierCV(inner, method="temperature", ensemble=False).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(ours.predict(X), inner.fit(X, y).predict(X))
    beta = theirs.calibrated_classifiers_[0].calibrators[0].beta_
    half = 2 if (name, kind) == ("breast_cancer", "decision_function") else 1
    assert ours.temperature_ * half == pytest.approx(1 / beta, rel=1e-5)
    assert ours.loss_after_ < ours.loss_before_


@weekly_test
def test_a_classifier_that_is_fitted_already():
    from sklearn.datasets import load_digits
    from sklearn.frozen import FrozenEstimator
    from sklearn.svm import LinearSVC

    from fastsoftmax.sklearn import TemperatureScaler

    X, y = load_digits(return_X_y=True)  # noqa: N806
    inner = LinearSVC(random_state=0).fit(X[:900], y[:900])
    ours = TemperatureScaler(FrozenEstimator(inner)).fit(X[900:], y[900:])
    fit = fit_temperature(inner.decision_function(X[900:]), y[900:])
    assert ours.temperature_ == pytest.approx(fit.temperature)
    assert (ours.loss_before_, ours.loss_after_) == pytest.approx(fit[1:3])


@weekly_test
def test_errors_of_the_estimator():
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.neighbors import NearestCentroid

    from fastsoftmax.sklearn import TemperatureScaler

    X = np.arange(40.0).reshape(20, 2) + 1000 * np.repeat([[0], [1]], 10, axis=0)  # noqa: N806
    separable = TemperatureScaler(RidgeClassifier()).fit(X, [0] * 10 + [1] * 10)
    assert separable.temperature_ == separable.bounds[0]
    with pytest.raises(ValueError, match="one class"):
        TemperatureScaler().fit(X, [1] * 20)
    with pytest.raises(ValueError, match="bounds is"):
        TemperatureScaler(LogisticRegression(), bounds=(0, 1)).fit(X, [0, 1] * 10)
    no_scores = type(
        "NoScores",
        (NearestCentroid,),
        {"decision_function": property(), "predict_proba": property()},
    )
    with pytest.raises(TypeError, match="allowed are classifiers with decision_function or"):
        TemperatureScaler(no_scores()).fit(X, [0, 1] * 10)


@weekly_test
def test_the_example_of_the_estimator():
    from fastsoftmax import sklearn

    assert doctest.testmod(sklearn).failed == 0


# ---- MAPIE ---------------------------------------------------------------------------------------


def mapie(method, x, y, new, last):
    """Return MAPIE's sets of new rows, and its score object, for a classifier that gives logits."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Logits(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):  # noqa: N803
            self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
            return self

        def predict_proba(self, X):  # noqa: N803
            return fastsoftmax.softmax(X)

        def predict(self, X):  # noqa: N803
            return X.argmax(axis=-1)

    model = SplitConformalClassifier(
        Logits().fit(x, y), confidence_level=0.9, conformity_score=method, random_state=1
    ).conformalize(x, y)
    parameters = {"include_last_label": last}
    _, sets = model.predict_set(new, conformity_score_params=parameters)
    return sets[..., 0], model._conformity_score


def uniforms():
    """Return a generator of the uniforms that MAPIE takes from the seed 1."""
    return np.random.Generator(np.random.RandomState(1)._bit_generator)


@weekly_test
@pytest.mark.parametrize("last", ["randomized", True])
@pytest.mark.parametrize("classes", [10, 300])
def test_the_sets_of_mapie_by_aps(classes, last):
    x, y = rows(3000, classes, 1.3)
    new, _ = rows(3000, classes, 1.3, seed=9)
    theirs, score = mapie("aps", x, y, new, last)
    calibration = calibrate_sets(x, y, 0.1, rng=uniforms())
    assert calibration.threshold == pytest.approx(score.quantiles_[0], rel=1e-12)
    ours = prediction_sets(new, calibration, include_last=last is True, rng=uniforms())
    # MAPIE takes what is within 1e-8 for equal.
    assert (ours != theirs).sum() <= 2
    assert not (ours & ~theirs).any()


@weekly_test
def test_the_sets_of_mapie_by_raps(monkeypatch):
    x, y = rows(3000, 30, 1.3)
    new, _ = rows(3000, 30, 1.3, seed=9)
    theirs, score = mapie("raps", x, y, new, True)
    k_reg, lam = int(score.k_star[0]), float(score.lambda_star)
    assert lam > 0
    # It keeps a fifth of the labels to choose these by; its threshold is of the others.
    from fastsoftmax.calibration import SetCalibration

    calibration = SetCalibration(float(score.quantiles_[0]), 30, k_reg, lam, 1.0, True)
    ours = prediction_sets(new, calibration, include_last=True)
    assert (ours != theirs).sum() <= 2
    assert ours.sum(axis=-1).max() > k_reg  # where the penalty counts
