"""Classifiers beside scikit-learn and MAPIE: ``python -m benchmarks.classifiers [--rows ROWS]``.

Prints the tables of ``docs/classifiers.md``. Peers that are not installed are left out. Each works
in one thread, on the same rows, in turns with ours; times are of the CPU, the best of three or
more.
"""

import argparse
import warnings
from time import perf_counter, process_time_ns

import numpy as np

import fastsoftmax
from benchmarks.measure import on_cpus
from fastsoftmax import quantized
from fastsoftmax.calibration import calibrate_sets, fit_temperature, prediction_sets

CLASSES = 1000
SCALE, STEP = 5.0, 0.05
ALPHA = 0.1


def scores(rows, classes=CLASSES):
    """Return logits, labels drawn from them at a temperature of 1.3, and other logits."""
    rng = np.random.default_rng(0)
    x, new = (rng.standard_normal((rows, classes)) * SCALE for _ in range(2))
    return x, fastsoftmax.sample(x, temperature=1.3, rng=1), new


def cpu_ns(call):
    """Return the CPU time of a call, or the mean of so many that they last 2 ms."""
    loops, start = 0, process_time_ns()
    while loops == 0 or process_time_ns() - start < 2_000_000:
        call()
        loops += 1
    return (process_time_ns() - start) / loops


def compare(name, ours, peer, budget_s):
    """Return a line of a table: ours, the peer, and how many times as long that takes."""
    best, rounds, start = [np.inf, np.inf], 0, perf_counter()
    while rounds < 3 or perf_counter() - start < budget_s:
        best = [min(ns, cpu_ns(call)) for ns, call in zip(best, (ours, peer), strict=True)]
        rounds += 1
    own, others = (ns / 1e6 for ns in best)
    return f"| {name} | {own:.3g} ms | {others:.3g} ms | {others / own:.3g} |"


def of_temperature(x, labels, budget_s):
    """Yield lines of `fit_temperature` beside scikit-learn's temperature calibration."""
    from sklearn.calibration import _TemperatureScaling  # of CalibratedClassifierCV

    for dtype in (np.float32, np.float64):
        rows = x.astype(dtype)
        name = f"fit_temperature {rows.dtype} {x.shape}"
        yield compare(
            name,
            lambda rows=rows: fit_temperature(rows, labels),
            lambda rows=rows: _TemperatureScaling().fit(rows, labels),
            budget_s,
        )


def of_sets(x, labels, new, budget_s):
    """Yield lines of prediction sets beside MAPIE's, by APS with a random last class."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Logits(ClassifierMixin, BaseEstimator):
        """A classifier whose features are its logits."""

        def fit(self, x, y=None):
            self.classes_, self.n_features_in_ = np.arange(x.shape[1]), x.shape[1]
            return self

        def predict_proba(self, x):
            return fastsoftmax.softmax(x)

        def predict(self, x):
            return x.argmax(axis=-1)

    def conformalize():
        return SplitConformalClassifier(
            Logits().fit(x), confidence_level=1 - ALPHA, conformity_score="aps", random_state=1
        ).conformalize(x, labels)

    model = conformalize()
    random = {"conformity_score_params": {"include_last_label": "randomized"}}
    calibration = calibrate_sets(x, labels, ALPHA, rng=1)
    mean = prediction_sets(new, calibration, rng=1).sum(axis=-1).mean()
    yield compare(
        f"calibrate_sets float64 {x.shape}",
        lambda: calibrate_sets(x, labels, ALPHA, rng=1),
        conformalize,
        budget_s,
    )
    yield compare(
        f"prediction_sets float64 {x.shape}, {mean:.0f} classes on average",
        lambda: prediction_sets(new, calibration, rng=1),
        lambda: model.predict_set(new, **random),
        budget_s,
    )


def of_bytes(budget_s):
    """Yield lines of quantized logits: beside ours of float32, and with the conversion to it."""
    q = np.random.default_rng(0).integers(0, 256, (64, CLASSES), dtype=np.uint8)
    x = q.astype(np.float32) * np.float32(STEP)
    for name in ("softmax", "log_softmax"):
        ours, plain = getattr(quantized, name), getattr(fastsoftmax, name)
        text = f"quantized.{name} uint8 {q.shape}"

        def converted(plain=plain):
            logits = q.astype(np.float32)
            logits *= np.float32(STEP)
            return plain(logits)

        for label, peer in (("float32", lambda plain=plain: plain(x)), ("converted", converted)):
            yield compare(f"{text} / {label}", lambda ours=ours: ours(q, STEP), peer, budget_s)


def main(argv=None):
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.classifiers", description=__doc__)
    parser.add_argument("--rows", type=int, default=50000, help="of (rows, 1000)")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for each line")
    parsed = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # MAPIE's, of labels that are missing
    x, labels, new = scores(parsed.rows)
    parts = {
        "scikit-learn": lambda: of_temperature(x, labels, parsed.budget),
        "MAPIE": lambda: of_sets(x, labels, new, parsed.budget),
        "fastsoftmax": lambda: of_bytes(parsed.budget / 5),
    }
    with on_cpus(1):
        for peer, lines in parts.items():
            try:
                found = list(lines())
            except ImportError as error:
                print(f"{peer} is absent: {error}")
                continue
            print(f"\n| | ours | {peer} | ratio |\n| --- | ---: | ---: | ---: |")
            print(*found, sep="\n")


if __name__ == "__main__":
    main()
