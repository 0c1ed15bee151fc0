"""Chains of a sampler read nothing beside the logits and the tokens so far."""

import ctypes
from pathlib import Path

import pytest

from fastsoftmax import show_config
from tests.processes import python

ROOT = str(Path(__file__).parents[2])
BEST = show_config(mode="dicts")["implementation"]

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="needs mprotect")

CHILD = f"""
sys.path.append({ROOT!r})
import faulthandler
import numpy as np
from fastsoftmax import Sampler, _dispatch
from fastsoftmax._sampler import program
from fastsoftmax.steps import *
from tests.memory.guard_pages import ENDS, Room

faulthandler.enable()
program.chains = _dispatch.load(NAME).chains
room, said = Room(), Room()
samplers = [
    Sampler(), Sampler(Temperature(0)), Sampler.llama_cpp(penalty_repeat=1.1),
    Sampler(RepetitionPenalty(1.2), Temperature(0.7)), Sampler(Temperature(0.7), TopP(0.5)),
    Sampler(FrequencyPenalty(0.2), TopP(0.5)), Sampler(TopP(0.9), TopK(5)), Sampler(TypicalP(0.3)),
    Sampler(TopNSigma(0.5)), Sampler(Epsilon(0.01)), Sampler(Eta(0.01)), Sampler(MinP(0.2)),
    Sampler(AllowedTokens([0])), Sampler(XTC(1.0, 0.01, exempt=[0]), TopK(30, "all")),
    Sampler(DRY(0.5, allowed_length=1, breakers=[[0, 0]]), SequenceBias({{(0,): 1.0}}), TopK(9)),
    Sampler(MinLength(1, [0]), SequenceBias({{(0, 0, 0): 1.0}}), SoftCap(5.0), TopP(0.9)),
]
batch, done = Sampler.batch(samplers), 0
for n in LENGTHS:
    rng = np.random.default_rng(n)
    for dtype in ("float32", "float64"):
        rows = rng.normal(0, 3, (min(len(samplers), 16384 // (8 * n)) or 1, n)).astype(dtype)
        for end in ENDS:
            x = room.place(rows, 1, end)
            ids = said.place(np.tile([n - 1, 0, n // 2], (len(rows), 5)), 1, end)
            print(n, dtype, end, flush=True)
            for sampler in samplers:
                assert sampler.compiled == (True,) * len(sampler.steps)
                sampler(x, ids, 1, prompt=1, logprobs=min(n, 3))
                sampler.filter(x, ids, 1)
                race = dict(seed=1, position=2, method="race", on_invalid="flag")
                sampler(x, ids, prompt=1, mask=np.arange(n) % 5 < 2, **race)
                done += sampler(x[-1], ids[-1], 1) >= 0
            if len(rows) == len(samplers):
                batch(x, ids, 2)
print("survived", done)
"""


def survive(name, lengths):
    """Fail with the last call and the traceback where the child does not come to its end."""
    code = CHILD.replace("NAME", repr(name)).replace("LENGTHS", repr(lengths))
    result = python(code, impl="reference")
    last = result.stdout.splitlines()[-1:]
    assert result.returncode == 0, (last, result.stderr)
    assert last == [f"survived {len(lengths) * 4 * 16}"]


@pytest.mark.skipif(BEST == "reference", reason="is NumPy")
def test_a_sample_of_lengths():
    survive(BEST, [1, 7, 33, 65, 100, 145])


@pytest.mark.slow
def test_more_lengths(compiled):
    survive(compiled.NAME, [*range(1, 40), 63, 64, 65, 255, 256, 257, 600, 1000, 2000])
