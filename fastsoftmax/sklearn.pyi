# ruff: noqa: N803 (the names of scikit-learn)
from typing import Any, Self

import numpy as np

__all__ = ["TemperatureScaler"]

class TemperatureScaler:
    estimator: Any
    cv: Any
    bounds: tuple[float, float]
    estimator_: Any
    classes_: np.ndarray
    temperature_: float
    loss_before_: float
    loss_after_: float
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self, estimator: Any = None, *, cv: Any = 5, bounds: tuple[float, float] = ...
    ) -> None: ...
    def fit(self, X: Any, y: Any) -> Self: ...
    def predict_proba(self, X: Any) -> np.ndarray: ...
    def predict(self, X: Any) -> np.ndarray: ...
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...
    def get_params(self, deep: bool = True) -> dict[str, Any]: ...
    def set_params(self, **params: Any) -> Self: ...
