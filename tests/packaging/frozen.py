"""The program that is frozen: says what runs, uses what is imported late, and has the command."""

import sys

import numpy as np

import fastsoftmax
from fastsoftmax._command import cli

config = fastsoftmax.show_config(mode="dicts")
print(config["implementation"], config["built"], config["runnable"])
logits = np.linspace(-3, 3, 5000, dtype=np.float32).reshape(2, -1)
for name in sorted(set(fastsoftmax.__all__) & {"softmax", "logsumexp", "rank", "cross_entropy"}):
    wants_ids = name in ("rank", "cross_entropy")
    print(name, getattr(fastsoftmax, name)(logits, *([[1, 2]] if wants_ids else [])).ravel()[:3])
sampler = fastsoftmax.Sampler(fastsoftmax.steps.TopK(3))
print(sampler(logits, seed=1, position=2), sampler.compiled, fastsoftmax.capi.__name__)
print(fastsoftmax.sample(logits, top_p=0.5, seed=1, position=2, workers=2))
sys.exit(cli.main(["demo"]))
