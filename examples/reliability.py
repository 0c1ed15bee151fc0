"""Draw how far confidence can be trusted, before and after a temperature is fitted.

The data are scikit-learn's own digits; a third is learned by naive Bayes, a third calibrates. Each
point is a tenth of the rest, by confidence: how sure the classifier says it is, and how often it is
right::

    pip install '.[examples,sklearn]'
    python examples/reliability.py
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # writes files, needs no screen

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.naive_bayes import MultinomialNB

from fastsoftmax import softmax
from fastsoftmax.calibration import calibrate_sets, fit_temperature, prediction_sets

BEFORE, AFTER = "#a4473e", "#2a6f97"


def split_scores(seed=0):
    """Return scores and classes of digits that were not learned: for calibration, and to test."""
    data, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(data))
    learned, kept, tested = np.split(order, [600, 1200])
    model = MultinomialNB().fit(data[learned], classes[learned])
    return tuple((model.predict_joint_log_proba(data[i]), classes[i]) for i in (kept, tested))


def reliability(probs, classes, bins=10):
    """Return the mean confidence and the share of right predictions of rows by confidence."""
    confidence, right = probs.max(axis=-1), probs.argmax(axis=-1) == classes
    parts = np.array_split(np.argsort(confidence), bins)
    return np.array([(confidence[part].mean(), right[part].mean()) for part in parts]).T


def calibration_error(probs, classes):
    """Return how far confidence is from the share of right predictions, on average."""
    confidence, right = reliability(probs, classes)
    return np.abs(confidence - right).mean()


def main(argv=None):
    """Print the figures and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", nargs="?", type=Path, default=Path("reliability.png"))
    path = parser.parse_args(argv).picture
    (scores, classes), (new, truth) = split_scores()

    fit = fit_temperature(scores, classes)
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for temperature, color in ((1.0, BEFORE), (fit.temperature, AFTER)):
        probs = softmax(new, temperature=temperature)
        label = f"T = {temperature:.3g}, off by {calibration_error(probs, truth):.1%}"
        axes.plot(*reliability(probs, truth), "o-", color=color, label=label)
        print(label)
    axes.set(xlabel="how sure it says it is", ylabel="how often it is right", aspect="equal")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)

    losses = f"{fit.loss_before:.3f} before, {fit.loss_after:.3f} after"
    print(f"loss {losses}, in {fit.iterations} readings")
    sets = prediction_sets(new, calibrate_sets(scores, classes, alpha=0.05, rng=0), rng=1)
    covered = sets[np.arange(len(truth)), truth].mean()
    print(
        f"sets that may miss 5 %: {covered:.1%} hold the class, {sets.sum(axis=-1).mean():.2f} each"
    )


if __name__ == "__main__":
    main()
