"""The total of all references stays the same over 1,000 of each call (run by a debug interpreter).

Prints what grows. NumPy, too, must be built by that interpreter: a release counts for itself alone.
"""

import contextlib
import gc
import sys
from itertools import pairwise

import numpy as np

from fastsoftmax import _dispatch
from tests.calls import CALLS

TIMES = 1000
#: More than what caches of the interpreter take up now and then.
NOISE = 100
#: Of NumPy 2.4 each `np.empty(3)` that names no dtype keeps a reference to the one it takes.
KEPT = np.dtype(np.float64)
#: What refusals are; where there is no SciPy, ImportError for what it would be asked for.
REFUSALS = (TypeError, ValueError, IndexError, AttributeError, ImportError)

X = np.random.default_rng(0).standard_normal((5, 30)).astype(np.float32)
FORMS = (X, X.astype(np.float16), X[:, ::2], np.asfortranarray(X), X.astype(np.int16))
#: What every function refuses.
BAD = (np.array(["no"]), None, np.zeros((2, 3), complex), np.ma.array(X))

#: Errors of arguments and of rows.
ERRORS = {
    "out": lambda f, x: f.softmax(x, out=np.empty(3, np.float32)),
    "temperature": lambda f, x: f.softmax(x, temperature=-np.ones(5)),
    "k": lambda f, x: f.top_k(x, 31),
    "ids": lambda f, x: f.token_logprobs(x, [99, 0, 0, 0, 0]),
    "targets": lambda f, x: f.cross_entropy(x, [0, 0, 0, 0, 99]),
    "row": lambda f, x: f.sample(x * np.nan, rng=0),
    "row of chain": lambda f, x: f.sample_with_logprobs(x * np.nan, rng=0),
    "top_p": lambda f, x: f.filter_logits(x, top_p=2),
    "mask": lambda f, x: f.support(x, mask=np.ones(3, bool)),
    "scores": lambda f, x: f.beam_step(x[None], np.zeros(3), 2),
    "drafts": lambda f, x: f.verify([[99]], x[None, :2]),
}


def grown(call, f, inputs):
    """Return by how much the total of references grows over TIMES of a call, at the least."""

    def again(times):
        for _ in range(times):
            for x in inputs:
                with contextlib.suppress(*REFUSALS):
                    call(f, x)
        gc.collect()
        return sys.gettotalrefcount() - sys.getrefcount(KEPT)

    again(50)
    totals = [again(1), *(again(TIMES) for _ in range(3))]
    # Caches fill up now and then; what is lost is lost each time.
    return min((b - a for a, b in pairwise(totals)), key=abs)


def main():
    """Print the calls that make the total grow, and end with 1 if there are any."""
    f = _dispatch.load(_dispatch.runnable()[-1])
    kept = []
    tried = {"planted": (lambda f, x: kept.append([]), [X])}
    tried |= {name: (call, FORMS) for name, call in CALLS.items()}
    tried |= {f"{name}, refused": (call, BAD) for name, call in CALLS.items()}
    tried |= {f"error of {name}": (call, [X]) for name, call in ERRORS.items()}
    growth = {name: grown(call, f, inputs) for name, (call, inputs) in tried.items()}
    found = {name: n for name, n in growth.items() if abs(n) > NOISE}
    assert found.pop("planted", 0) >= TIMES, "not seen: a list kept a call"
    print(len(tried), "calls;", *(f"{name}: {n}" for name, n in found.items()))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
