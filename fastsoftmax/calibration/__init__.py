"""Calibrated confidence for classifiers: temperatures fitted to labels, and prediction sets.

``temperature`` fits, ``sets`` builds prediction sets by APS and RAPS, ``labelled`` checks and walks
rows with labels for both. May import the package and ``_arguments``.
"""

from .sets import SetCalibration, calibrate_sets, prediction_sets
from .temperature import TemperatureFit, fit_temperature

__all__ = [
    "SetCalibration",
    "TemperatureFit",
    "calibrate_sets",
    "fit_temperature",
    "prediction_sets",
]
