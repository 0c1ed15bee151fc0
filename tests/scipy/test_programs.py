"""Programs of others with ours in place: their own tests, and the example that does it."""

import subprocess
import sys
from pathlib import Path

import pytest

import fastsoftmax

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUITES = {
    "scikit-learn": [
        "sklearn.mixture",
        "sklearn.neural_network",
        "sklearn.tests.test_naive_bayes",
        "sklearn.tests.test_calibration",
        "sklearn.tests.test_discriminant_analysis",
        "sklearn.linear_model.tests.test_logistic",
        "sklearn.linear_model.tests.test_linear_loss",
        "sklearn.ensemble.tests.test_weight_boosting",
        "sklearn.decomposition.tests.test_online_lda",
        "sklearn._loss",
    ],
    "hmmlearn": ["hmmlearn"],
    "statsmodels": [
        "statsmodels.tsa.regime_switching",
        "statsmodels.discrete.tests.test_conditional",
    ],
}
CALLED = {"scikit-learn": ["softmax", "inplace_softmax", "logsumexp", "loss_gradient"]}


def run(arguments, folder, **environment):
    """Return what a child of Python prints, with the package and the plugin on its path."""
    path = f"{HERE}:{Path(fastsoftmax.__file__).parents[1]}"
    ran = subprocess.run(
        [sys.executable, *arguments],
        env={
            "PYTHONPATH": path,
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-5000:]
    return ran.stdout


@pytest.mark.weekly
@pytest.mark.parametrize("package", SUITES)
def test_their_own_tests(package, tmp_path):
    (tmp_path / "none.ini").touch()
    printed = run(
        ["-m", "pytest", "-q", "-p", "ours_in_programs", "-p", "no:cacheprovider", "-c",
         "none.ini", "--rootdir", tmp_path, "-W", "ignore", "--pyargs", *SUITES[package]],
        tmp_path,
    )  # fmt: skip
    calls = printed.split("calls of ours: ")[1]
    for function in CALLED.get(package, ["logsumexp"]):
        assert f"'{function}'" in calls


@pytest.mark.weekly
def test_the_example_tells_the_same(tmp_path):
    printed = run([ROOT / "examples" / "scipy_in_place.py"], tmp_path).splitlines()
    for theirs, ours in zip(printed[::2], printed[1::2], strict=True):
        value, other = (float(line.split(": ")[1].split()[0]) for line in (theirs, ours))
        assert value == pytest.approx(other, rel=1e-9)


@pytest.mark.weekly
def test_the_benchmark(tmp_path):
    printed = run(["-m", "benchmarks.programs", "1"], ROOT)
    assert printed.count("\n") == 5
