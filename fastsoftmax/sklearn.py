"""A scikit-learn classifier with calibrated probabilities: any other one, and a temperature.

Needs scikit-learn: ``pip install fastsoftmax[sklearn]``.
"""

from typing import Any

import numpy as np

import fastsoftmax

from .calibration import fit_temperature

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.utils import get_tags
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d
except ImportError as error:
    raise ImportError(
        "fastsoftmax.sklearn needs scikit-learn 1.6 or later: pip install 'fastsoftmax[sklearn]'"
    ) from error

__all__ = ["TemperatureScaler"]


class TemperatureScaler(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier whose scores are divided by a temperature, so that probabilities fit labels.

    The scores that the temperature is fitted to come from cross-validation: those of each part of
    the data from a classifier fitted to the others. Then the classifier is fitted to all. To keep
    one that is fitted already, pass ``FrozenEstimator(classifier)``, and data it has not seen.

    Parameters
    ----------
    estimator : classifier, optional
        It has `decision_function` or `predict_proba`. None is a `LogisticRegression`.
    cv : int, cross-validation generator or iterable, default 5
        How the data are divided, as in ``sklearn.model_selection.cross_val_predict``.
    bounds : (float, float), default (exp(-10), exp(10))
        The lowest and the highest temperature. One of them is taken where all labels are predicted,
        or the scores say nothing of them.

    Attributes
    ----------
    estimator_ : classifier
        The one fitted to all data.
    temperature_ : float
        By which scores are divided.
    loss_before_, loss_after_ : float
        The mean cross entropy of the labels by cross-validation at a temperature of 1, and at
        `temperature_`.
    classes_ : ndarray
        The classes.
    n_features_in_, feature_names_in_
        What `estimator_` was fitted to, if it has them.

    Notes
    -----
    Scores of a binary classifier are the logits of its second class, that of the first being 0; so
    1 leaves the probabilities of a `LogisticRegression` as they are. scikit-learn's own calibration
    takes the negative score for the first class, which makes its temperature twice this one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.svm import LinearSVC
    >>> from fastsoftmax.sklearn import TemperatureScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> model = TemperatureScaler(LinearSVC(random_state=0)).fit(X, y)
    >>> model.predict_proba(X[77:78]).round(1)
    array([[0. , 0.6, 0.4]])
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        cv: Any = 5,
        bounds: tuple[float, float] = (4.5399929762484854e-05, 22026.465794806718),
    ) -> None:
        self.estimator = estimator
        self.cv = cv
        self.bounds = bounds

    def fit(self, X: Any, y: Any) -> "TemperatureScaler":  # noqa: N803 (scikit-learn's names)
        """Fit the classifier to `X` and `y`, and the temperature to its scores of parts left out.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (rows, features)
            Whatever the classifier takes.
        y : array_like, shape (rows,)
            The class of each row.

        Returns
        -------
        self
        """
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        estimator = LogisticRegression() if self.estimator is None else self.estimator
        self.estimator_ = clone(estimator).fit(X, y)
        self.classes_ = self.estimator_.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class, {self.classes_[0]!r}; allowed are two classes and more"
            )
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        method = _method(self.estimator_)
        scores = cross_val_predict(estimator, X, y, cv=self.cv, method=method)
        labels = np.searchsorted(self.classes_, y)
        fit = fit_temperature(_logits(scores, method), labels, bounds=self.bounds)
        self.temperature_, self.loss_before_, self.loss_after_ = fit[:3]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the calibrated probabilities of each class, in the order of `classes_`."""
        check_is_fitted(self)
        method = _method(self.estimator_)
        scores = _logits(getattr(self.estimator_, method)(X), method)
        return fastsoftmax.softmax(scores, temperature=self.temperature_)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the most likely class of each row."""
        places = self.predict_proba(X).argmax(axis=1)
        return self.classes_[places]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = LogisticRegression() if self.estimator is None else self.estimator
        tags.input_tags = get_tags(inner).input_tags
        return tags


def _method(estimator: Any) -> str:
    """Return the name of the method whose scores are used."""
    for name in ("decision_function", "predict_proba"):
        if hasattr(estimator, name):
            return name
    raise TypeError(
        f"estimator is {estimator!r}; allowed are classifiers with decision_function or "
        "predict_proba"
    )


def _logits(scores: np.ndarray, method: str) -> np.ndarray:
    """Return scores as logits, one column for each class."""
    scores = np.asarray(scores, np.float64)
    if method == "predict_proba":
        return np.log(scores + 1e-12)  # as scikit-learn does
    return scores if scores.ndim == 2 else np.stack([np.zeros_like(scores), scores], axis=1)
