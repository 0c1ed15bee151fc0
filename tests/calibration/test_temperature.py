"""fit_temperature: the minimum of the exact loss, its limits, and what is refused."""

import doctest

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import fastsoftmax
from fastsoftmax.calibration import fit_temperature, sets
from fastsoftmax.calibration import temperature as module

WRONG = [[4.0, 0.0], [3.0, 0.0], [0.0, 4.0], [2.0, 0.0]], [0, 0, 1, 1]  # the last one


def rows(n, classes, temperature, seed=0, scale=3.0, dtype=np.float64):
    """Return logits, and labels drawn from them at a temperature."""
    x = (np.random.default_rng(seed).standard_normal((n, classes)) * scale).astype(dtype)
    return x, fastsoftmax.sample(x.astype(np.float64), temperature=temperature, rng=seed + 1)


def mean_loss(x, y, temperature):
    """Return the mean cross entropy, by NumPy alone."""
    d = np.asarray(x, np.float64)
    d = (d - d.max(axis=-1, keepdims=True)) / np.expand_dims(temperature, -1)
    own = np.take_along_axis(d, np.asarray(y)[..., np.newaxis], axis=-1)[..., 0]
    return (np.log(np.exp(d).sum(axis=-1)) - own).mean()


@pytest.mark.parametrize("true", [0.05, 0.4, 1.0, 1.7, 30.0])
@pytest.mark.parametrize("classes", [2, 10, 300])
def test_the_minimum_of_the_loss(true, classes):
    x, y = rows(400, classes, true, scale=3 * min(true, 1))
    fit = fit_temperature(x, y)
    best = minimize_scalar(
        lambda s: mean_loss(x, y, np.exp(s)), bounds=(-8, 8), options={"xatol": 1e-10}
    )
    assert np.log(fit.temperature) == pytest.approx(best.x, abs=1e-6)
    assert fit.loss_before == pytest.approx(mean_loss(x, y, 1.0), rel=1e-12)
    assert fit.loss_after == pytest.approx(best.fun, rel=1e-8)
    assert fit.iterations <= 9


def test_the_slope_at_the_minimum_by_60_digits():
    x, y = rows(20, 5, 1.3)
    with mpmath.workdps(60):
        b = 1 / mpmath.mpf(fit_temperature(x, y).temperature)
        slope, curvature = 0, 0
        for row, label in zip(x, y, strict=True):
            z = [mpmath.mpf(float(v)) for v in row]
            e = [mpmath.exp(b * v) for v in z]
            mean = sum(v * w for v, w in zip(z, e, strict=True)) / sum(e)
            square = sum(v * v * w for v, w in zip(z, e, strict=True)) / sum(e)
            slope += mean - z[label]
            curvature += square - mean**2
        assert abs(slope / curvature / b) < 1e-8  # how far log(T) is from the minimum


@given(st.integers(2, 40), st.integers(1, 60), st.floats(-2, 2), st.integers(0, 999))
def test_no_other_temperature_is_better(classes, n, log_scale, seed):
    x, y = rows(n, classes, 2.0, seed, 10**log_scale)
    fit = fit_temperature(x, y, bounds=(1e-3, 1e3))
    for factor in (0.99, 1.01):
        other = np.clip(fit.temperature * factor, 1e-3, 1e3)
        assert mean_loss(x, y, fit.temperature) <= mean_loss(x, y, other) * (1 + 1e-13) + 1e-13


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ">f4", np.int16])
def test_types_are_computed_in_float64(dtype):
    x, y = rows(200, 7, 1.5)
    x = x.astype(dtype)
    fit, wide = fit_temperature(x, y), fit_temperature(x.astype(np.float64), y)
    assert fit[:3] == pytest.approx(wide[:3], rel=1e-9)  # steps of float32 lead there, too


def test_layouts_and_lists():
    x, y = rows(60, 7, 1.5)
    fit = fit_temperature(x, y)
    assert fit_temperature(np.asfortranarray(x)[:, ::-1][:, ::-1], y) == fit
    assert fit_temperature(x.reshape(3, 20, 7), y.reshape(3, 20)) == fit
    assert fit_temperature(x.tolist(), y.tolist()) == fit


def test_blocks_are_all_of_the_rows(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 30000)
    x, y = rows(700, 100, 1.5)  # two blocks and a part
    many = fit_temperature(x, y)
    assert np.log(many.temperature) == pytest.approx(
        minimize_scalar(lambda s: mean_loss(x, y, np.exp(s)), bounds=(-2, 2)).x, abs=1e-5
    )


def test_a_group_is_as_if_alone():
    x, y = rows(300, 9, 1.5)
    groups = np.arange(300) % 3
    x[groups == 1] *= 5
    fit = fit_temperature(x, y, groups=groups)
    alone = [fit_temperature(x[groups == g], y[groups == g]).temperature for g in range(3)]
    np.testing.assert_allclose(fit.temperature, alone, rtol=1e-9)
    assert fit.loss_after == pytest.approx(mean_loss(x, y, fit.temperature[groups]))
    p = fastsoftmax.softmax(x, temperature=fit.temperature[groups])
    assert -np.log(p[np.arange(300), y]).mean() == pytest.approx(fit.loss_after)


def test_masked_classes_have_no_part():
    x, y = rows(100, 6, 1.5)
    wide = np.full((100, 9), -np.inf)
    wide[:, [0, 2, 3, 5, 6, 8]] = x
    places = np.array([0, 2, 3, 5, 6, 8])[y]
    for masked in (-np.inf, -1e300):
        wide[np.isinf(wide)] = masked
        fit = fit_temperature(wide, places)
        assert fit.temperature == pytest.approx(fit_temperature(x, y).temperature, rel=1e-9)


def test_constants_added_to_rows_change_nothing():
    x, y = rows(100, 6, 1.5)
    fit = fit_temperature(x + 1e6 * np.arange(100)[:, np.newaxis], y)
    assert fit.temperature == pytest.approx(fit_temperature(x, y).temperature, rel=1e-7)


# ---- limits --------------------------------------------------------------------------------------

SEPARABLE = [[4.0, 0.0], [0.0, 3.0]], [0, 1]
MISLEADING = [[4.0, 0.0], [0.0, 3.0]], [1, 0]
SILENT = [[4.0, 0.0], [4.0, 0.0]], [0, 1]
CONSTANT = [[2.0, 2.0], [1.0, 1.0]], [0, 1]


@pytest.mark.parametrize(
    ("data", "limit", "words"),
    [
        (SEPARABLE, 0, "labels are the largest logits of all rows: the loss falls down to"),
        (CONSTANT, 0, "labels are the largest logits of all rows"),
        (MISLEADING, np.inf, "labels have no larger logits than the mean of their rows: the loss"),
        (SILENT, np.inf, "labels have no larger logits"),
    ],
)
def test_where_the_loss_has_no_minimum(data, limit, words):
    with pytest.raises(ValueError, match=words):
        fit_temperature(*data)
    fit = fit_temperature(*data, bounds=(0.25, 8))
    assert fit.temperature == (0.25 if limit == 0 else 8)
    assert fit.loss_after == pytest.approx(mean_loss(*data, fit.temperature))
    with pytest.raises(ValueError, match="in group 1"):
        fit_temperature(*(a + b for a, b in zip(WRONG, data, strict=True)), groups=[0] * 4 + [1, 1])


@pytest.mark.parametrize("bounds", [(0.1, 0.5), (3, 9), (2, 2)])
def test_a_minimum_beyond_the_bounds(bounds):
    best = fit_temperature(*WRONG).temperature  # 1.97
    fit = fit_temperature(*WRONG, bounds=bounds)
    assert fit.temperature == np.clip(best, *bounds)
    assert fit.loss_after == pytest.approx(mean_loss(*WRONG, fit.temperature))
    assert fit.loss_before == pytest.approx(mean_loss(*WRONG, 1.0))


def test_bounds_around_the_minimum_change_nothing():
    wide = fit_temperature(*WRONG, bounds=(1e-3, 1e3))
    assert wide.temperature == pytest.approx(fit_temperature(*WRONG).temperature, rel=1e-12)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            ([[1.0], [2.0]], [0, 0]),
            ValueError,
            r"logits has shape \(2, 1\); allowed is .*2 classes",
        ),
        ((1.0, 0), ValueError, r"logits has shape \(\)"),
        (([1.0, 2.0, 3.0], [0, 1, 1]), ValueError, r"labels has shape \(3,\); allowed is \(\)"),
        ((np.zeros((0, 3)), []), ValueError, "at least one row"),
        (([[1.0, np.nan], [2, 1]], [0, 0]), ValueError, "logits has NaN in row 0"),
        (([[1.0, 0.0], [np.inf, 1]], [0, 0]), ValueError, r"logits has \+inf in row 1"),
        (([[-np.inf, -np.inf]], [0]), ValueError, "logits has nothing above -inf in row 0"),
        (([[1.0, -np.inf]], [1]), ValueError, r"labels\[0\] is 1, whose logit is -inf"),
        (([[1.0, 2.0]], [2]), IndexError, r"labels\[0\] is 2; allowed is 0 to 1"),
        (([[[1.0, 2.0]]], [[-1]]), IndexError, r"labels\[0, 0\] is -1"),
        (([[1.0, 2.0]], [0.0]), TypeError, "labels has dtype float64; allowed are integers"),
        (([[1.0, 2.0]], ["a"]), TypeError, "labels has dtype <U1; allowed are integers"),
        (([[1.0, 2.0]], [True]), TypeError, "labels has dtype bool"),
        (([[1j, 2.0]], [0]), TypeError, "logits has dtype complex128"),
        ((np.ma.masked_array([[1.0, 2.0]]), [0]), TypeError, "masked array"),
    ],
)
def test_errors_of_rows_and_labels(arguments, error, words):
    with pytest.raises(error, match=words):
        fit_temperature(*arguments)


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"groups": [0, 1]}, ValueError, r"groups has shape \(2,\); allowed is \(4,\)"),
        ({"groups": [0, 0, 2, 2]}, ValueError, "groups has no 1 but 2"),
        ({"groups": [0, 0, -1, 0]}, ValueError, "groups is -1; allowed is 0 to 3"),
        ({"groups": [0, 0, 9, 0]}, ValueError, "groups is 9; allowed is 0 to 3"),
        ({"groups": [0.0] * 4}, TypeError, "groups has dtype float64"),
        ({"bounds": (0, 1)}, ValueError, r"bounds is \(0, 1\); allowed are two finite numbers"),
        ({"bounds": (2, 1)}, ValueError, "bounds is"),
        ({"bounds": (1, np.inf)}, ValueError, "bounds is"),
        ({"bounds": (np.nan, 1)}, ValueError, "bounds is"),
        ({"bounds": 1}, ValueError, "bounds is 1"),
        ({"bounds": "ab"}, TypeError, "bounds is 'ab'"),
    ],
)
def test_errors_of_groups_and_bounds(keywords, error, words):
    with pytest.raises(error, match=words):
        fit_temperature(*WRONG, **keywords)


@pytest.mark.parametrize("module", [module, sets])
def test_examples(module):
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted > 3


def test_nothing_is_written():
    x, y = rows(50, 4, 1.5)
    x.flags.writeable = y.flags.writeable = False
    fit_temperature(x, y, groups=np.arange(50) % 2)
