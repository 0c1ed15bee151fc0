"""A program that calls SciPy's softmax or logsumexp, or has its own, with fastsoftmax in its place.

    pip install scikit-learn
    python examples/scipy_in_place.py

In your own code it is one line: ``from fastsoftmax.scipy import log_softmax, logsumexp, softmax``.
For code of others, `in_place` puts these where SciPy's are, and where scikit-learn keeps its own.
"""

import contextlib
import sys
import time
import warnings
from types import FunctionType
from unittest.mock import patch

import numpy as np
import scipy.special
import sklearn.neural_network._base as networks
from sklearn._loss import HalfMultinomialLoss
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neural_network import MLPClassifier
from sklearn.utils import _array_api, extmath

import fastsoftmax
import fastsoftmax.scipy

# ---- scikit-learn's own functions ----------------------------------------------------------------


def softmax(X, copy=True):  # noqa: N803 (scikit-learn's name)
    """Return the probabilities of each row; if not `copy`, X may be overwritten."""
    return fastsoftmax.scipy.softmax(X, axis=1)


def inplace_softmax(X):  # noqa: N803
    """Overwrite the rows of X with their probabilities."""
    fastsoftmax.softmax(X, out=X)


def logsumexp(array, axis=None, xp=None):
    """Return what SciPy's does; `xp` is where the array is from."""
    return fastsoftmax.scipy.logsumexp(array, axis=axis)


def loss_gradient(
    self, y_true, raw_prediction, sample_weight=None, loss_out=None, gradient_out=None, n_threads=1
):
    """Return the cross entropy of each sample, and its gradient."""
    loss, gradient = fastsoftmax.cross_entropy_with_grad(
        raw_prediction, y_true.astype(np.int64), reduction="none", out=gradient_out
    )
    if sample_weight is not None:
        loss *= sample_weight
        gradient *= sample_weight[:, None]
    if loss_out is not None:
        loss_out[:] = loss
        loss = loss_out
    return loss, gradient


# ---- in place ------------------------------------------------------------------------------------

REPLACEMENTS = {
    scipy.special.softmax: fastsoftmax.scipy.softmax,
    scipy.special.log_softmax: fastsoftmax.scipy.log_softmax,
    scipy.special.logsumexp: fastsoftmax.scipy.logsumexp,
    extmath.softmax: softmax,
    _array_api._logsumexp: logsumexp,
    networks.inplace_softmax: inplace_softmax,
}


@contextlib.contextmanager
def in_place():
    """Have ours wherever these functions have been imported to, until the block ends."""
    with contextlib.ExitStack() as stack:
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "") == "scipy.special._logsumexp":
                continue  # where fastsoftmax.scipy finds SciPy's, for complex numbers
            for name, function in list(getattr(module, "__dict__", {}).items()):
                if isinstance(function, FunctionType) and function in REPLACEMENTS:
                    stack.enter_context(patch.object(module, name, REPLACEMENTS[function]))
        ours = REPLACEMENTS[networks.ACTIVATIONS["softmax"]]
        stack.enter_context(patch.dict(networks.ACTIVATIONS, softmax=ours))
        stack.enter_context(patch.object(HalfMultinomialLoss, "loss_gradient", loss_gradient))
        yield


# ---- whole programs ------------------------------------------------------------------------------


def mixture(rng):
    """Return a call that fits a mixture of 100 Gaussians, and tells the likelihood."""
    x, _ = make_blobs(20000, 10, centers=100, random_state=rng)
    model = GaussianMixture(
        100, covariance_type="diag", init_params="random_from_data", max_iter=20, tol=0,
        random_state=0,
    )  # fmt: skip
    return lambda: model.fit(x).score(x)


def logistic(rng):
    """Return a call that fits a logistic regression with 100 classes, and tells the score."""
    x, y = make_blobs(10000, 50, centers=100, cluster_std=25.0, random_state=rng)
    model = LogisticRegression(max_iter=40, tol=0)
    return lambda: model.fit(x, y).score(x, y)


def network(rng):
    """Return a call that fits a small network with 1000 classes, and tells the loss."""
    x, y = make_blobs(20000, 20, centers=1000, random_state=rng)
    model = MLPClassifier((32,), max_iter=2, random_state=0)
    return lambda: model.fit(x, y).loss_


PROGRAMS = {
    "GaussianMixture, 100 components": mixture,
    "LogisticRegression, 100 classes": logistic,
    "MLPClassifier, 1000 classes": network,
}


def main():
    """Run each program as it is and with ours in place; print what it tells, and the times."""
    for name, make in PROGRAMS.items():
        program = make(0)
        start = time.perf_counter()
        theirs = program()
        middle = time.perf_counter()
        with in_place():
            ours = program()
        end = time.perf_counter()
        print(f"{name}: {theirs:.12g} in {middle - start:.2f} s")
        print(f"{'with fastsoftmax':>{len(name)}}: {ours:.12g} in {end - middle:.2f} s")


if __name__ == "__main__":
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        main()
