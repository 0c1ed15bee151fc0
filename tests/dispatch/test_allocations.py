"""No call allocates anything of its input's size beside its result, whatever the array's form.

Peaks of resident memory, in a process of its own: what kernels take from malloc counts as well.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _dispatch
from tests.arrays import byte_swapped, misaligned

ROOTS = [str(Path(fastsoftmax.__file__).parents[1]), str(Path(__file__).resolve().parents[2])]
SPARE = 2_500_000  # bytes that a call may take beside its result: blocks, threads, noise
SUPPORT = 1024 * 16  # bytes a row: the room that `support` begins with
PANELS = 2 * 64 * 4  # bytes an element of a transposed row: two panels of 64 of them
SIZE = 1 << 21  # elements: 8 MB in float32
OUT = [None]  # the array that the calls write to


FORMS = {
    "plain": lambda x: x,
    "strided": lambda x: np.repeat(x, 2, -1)[:, ::2],
    "reversed": lambda x: x[:, ::-1],
    "transposed": np.asfortranarray,
    "byte-swapped": byte_swapped,
    "misaligned": misaligned,
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
    "int32": lambda x: (x * 3).astype(np.int32),
    "int64": lambda x: (x * 3).astype(np.int64),
}


AS_IT_STANDS = ("plain", "transposed", "float64")  # one row of these needs no packing
SLOW = dict.fromkeys(  # packed as the strided ones are, or not at all
    ("reversed", "misaligned", "int32", "int64", "float64", "byte-swapped"), pytest.mark.slow
)
MANY = {"transposed": pytest.mark.slow}  # of many rows: by panels, in twice the time
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/clear_refs")


def calls(f, x):
    """Yield each public function as (name, call), for logits x; `out` is never counted."""
    n = x.shape[1]
    real = x if x.dtype.kind == "f" else x.astype(np.float64)
    kind = real.dtype.newbyteorder("=")
    ids, of_columns = np.zeros(len(x), np.int64), np.zeros(n, np.int64)
    mask = np.broadcast_to(np.arange(n) % 3 != 1, x.shape)
    OUT[0] = out = np.ones(x.shape, kind)
    for name in ("softmax", "log_softmax"):
        function = getattr(f, name)
        yield name, lambda g=function: g(x)
        yield f"{name} where out", lambda g=function: g(x, where=mask, out=out)
        yield f"{name} out T", lambda g=function: g(x, out=out, temperature=0.7)
        yield f"{name} columns", lambda g=function: g(x, 0, out=out)
    yield "logsumexp", lambda: f.logsumexp(x)
    yield "logsumexp where", lambda: f.logsumexp(x, where=mask)
    yield "logsumexp columns", lambda: f.logsumexp(x, 0)
    yield "softmax lse out", lambda: f.softmax(x, out=out, return_lse=True)
    weights = np.broadcast_to(np.float32(0.5), x.shape)
    yield "logsumexp weights", lambda: f.logsumexp(x, b=weights)
    yield "logmeanexp where", lambda: f.logmeanexp(x, where=mask)
    yield "entropy where", lambda: f.entropy(x, where=mask)
    yield "entropy columns", lambda: f.entropy(x, 0)
    yield "kl_divergence where", lambda: f.kl_divergence(x, x, where=mask)
    yield "row_stats", lambda: f.row_stats(x, top=5, ids=ids)
    yield "top_k", lambda: f.top_k(x, 20)
    yield "top_k smallest", lambda: f.top_k(x, 20, mode="smallest")
    yield "top_k columns", lambda: f.top_k(x, 1, axis=0)
    yield "rank", lambda: f.rank(x, ids)
    filters = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
    yield "filter_logits", lambda: f.filter_logits(x, **filters)
    yield "filter_logits out", lambda: f.filter_logits(x, **filters, out=out)
    yield "support", lambda: f.support(x, **filters)
    yield "sample", lambda: f.sample(x, rng=0)
    yield "sample filters", lambda: f.sample(x, **filters, rng=0)
    yield "sample min_p", lambda: f.sample(x, min_p=0.5, rng=0)
    yield "sample_with_logprobs", lambda: f.sample_with_logprobs(x, **filters, rng=0)
    yield "token_logprobs", lambda: f.token_logprobs(x, ids)
    yield "top_logprobs", lambda: f.top_logprobs(x, 5)
    drafts = ids[:, None]
    two = np.broadcast_to(x[:, None], (len(x), 2, n))
    for m in ("chain", "block"):
        yield f"verify {m}", lambda m=m: f.verify(drafts, two, x[:, None], method=m, rng=0)
    yield "verify filters", lambda: f.verify(drafts, two, **filters, rng=0)
    yield "beam_step", lambda: f.beam_step(two, np.zeros((len(x), 2)), 5)
    yield "cross_entropy", lambda: f.cross_entropy(x, ids)
    yield "cross_entropy columns", lambda: f.cross_entropy(x, of_columns, axis=0)
    p = np.full(x.shape, 1 / n).astype(kind)
    yield "cross_entropy labels", lambda: f.cross_entropy(x, p)
    yield "cross_entropy T", lambda: f.cross_entropy(x, ids, temperature=1e-33)
    yield "cross_entropy_with_grad", lambda: f.cross_entropy_with_grad(x, ids, out=out)
    yield "cross_entropy_with_grad labels", lambda: f.cross_entropy_with_grad(x, p, out=out)
    yield "softmax_backward", lambda: f.softmax_backward(real, p, out=out)
    yield "softmax_backward columns", lambda: f.softmax_backward(real, p, 0, out=out)
    yield "log_softmax_backward", lambda: f.log_softmax_backward(real, p, out=out)


def peak(call):
    """Return by how many bytes resident memory rose above what was there before and the result."""

    def resident(which):
        status = Path("/proc/self/status").read_text()
        return int(status.split(which)[1].split()[0]) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is resident now
    before = resident("VmRSS:")
    result = call()
    top = resident("VmHWM:")
    results = result if isinstance(result, tuple) else (result,)
    return top - before - sum(a.nbytes for a in results if a is not OUT[0])


def too_much(f, rows, form, words):
    """Return the calls whose names match `words` that allocate more than their result and SPARE."""
    x = np.random.default_rng(0).standard_normal((rows, SIZE // rows), dtype=np.float32)
    x = FORMS[form](x)
    found = []
    for name, call in calls(f, x):
        if not re.search(words, name) or (rows == 1 and "columns" in name):  # of one entry each
            continue
        most = SPARE + rows * SUPPORT if name == "support" else SPARE
        most += PANELS * x.shape[1] if form == "transposed" and rows > 1 else 0
        if peak(call) > most and (taken := peak(call)) > most:  # the first may grow the heap
            found.append(f"{name}: {taken / 1e6:.1f} MB")
    return found


def check(name, rows, form, words=""):
    """Run `too_much` in a process of its own: nothing must be found."""
    # Chunks of more than 128 KiB go back to the system at once: what was used shows up again.
    env = {"MALLOC_MMAP_THRESHOLD_": str(1 << 17), "PYTHONPATH": ":".join(ROOTS)}
    command = [sys.executable, __file__, name, str(rows), form, words]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


@pytest.mark.best_alone
@linux
@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=(SLOW | MANY).get(f, ())) for f in FORMS]
)
def test_many_rows(compiled, form):
    check(compiled.NAME, 256, form)


@pytest.mark.best_alone
@pytest.mark.slow
@linux
@pytest.mark.parametrize("form", ["plain", "float64"])
@pytest.mark.parametrize(
    "words", [" out T|logprobs|top_k|sample", "entropy|backward", "verify", "beam"]
)
def test_one_row_that_is_read_as_it_stands(compiled, form, words):
    check(compiled.NAME, 1, form, words)


PACKED = [f for f in FORMS if f not in AS_IT_STANDS]


@pytest.mark.best_alone
@linux
@pytest.mark.parametrize(
    ("form", "words"),
    [("plain", "where"), *(pytest.param(f, "", marks=SLOW.get(f, ())) for f in PACKED)],
)
def test_one_row_that_is_packed(compiled, form, words):
    check(compiled.NAME, 1, form, words)


if __name__ == "__main__":
    _, implementation, count, kind, words = sys.argv
    sys.exit("\n".join(too_much(_dispatch.load(implementation), int(count), kind, words)) or 0)
