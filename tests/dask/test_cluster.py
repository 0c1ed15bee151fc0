"""On a cluster of processes with data larger than what a worker may hold. Needs distributed."""

import dask
import dask.array as da
import numpy as np
import pytest

import fastsoftmax
from benchmarks import dask_arrays
from fastsoftmax import dask as functions

pytestmark = [
    pytest.mark.weekly,
    # Of distributed, where workers are short of memory on purpose.
    pytest.mark.filterwarnings("ignore"),
]

ROWS, N = 4, 1 << 26  # 1 GiB of float32
LIMIT = 400 << 20  # bytes of a worker's process, of which some 150 MiB are modules


def logits(size, n=N):
    """Return scores that are a function of their place alone, made when they are needed."""
    index = da.arange(n, chunks=size, dtype=np.uint32)
    rows = da.arange(ROWS, chunks=ROWS, dtype=np.uint32)
    return da.blockwise(scores, "ij", rows, "i", index, "j", dtype=np.float32)


def scores(row, index):
    x = index * np.uint32(2654435761) + row[:, None] * np.uint32(40503)
    x ^= x >> 15
    x *= np.uint32(2246822519)
    return ((x >> 8) * np.float32(2**-20)).astype(np.float32)  # 0 to 16


@pytest.fixture(scope="module")
def client():
    import distributed

    with (
        dask.config.set({"distributed.worker.memory.terminate": 0.98}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, memory_limit=LIMIT,
            dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        yield client


def test_data_larger_than_a_worker(client):
    """Rows whole in no worker's memory: sums are 1, and all else does not depend on the chunks."""
    assert ROWS * N * 4 > 2 * LIMIT
    found = []
    for size in (1_000_000, 1_234_567):
        x = logits(size)
        results = {
            "mass": functions.softmax(x).sum(axis=-1, dtype=float),
            "log_mass": functions.logsumexp(functions.log_softmax(x)),
            "sum": functions.logsumexp(x),
            "best": functions.top_k(x, 5),
            "ids": functions.sample(x, seed=7, position=np.arange(ROWS)),
            "loss": functions.cross_entropy(x, np.arange(ROWS) * 1000, reduction="none"),
        }
        found.append(client.compute(results).result(timeout=900))
    one, other = found
    np.testing.assert_allclose(one["mass"], 1, rtol=1e-6)
    np.testing.assert_allclose(one["log_mass"], 0, atol=1e-6)
    np.testing.assert_array_equal(one["ids"], other["ids"])
    np.testing.assert_array_equal(one["best"].indices, other["best"].indices)
    np.testing.assert_array_equal(one["best"].values, other["best"].values)
    np.testing.assert_allclose(one["sum"], other["sum"], rtol=1e-7)
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-7)


def test_the_benchmark(capsys):
    """A line of each function, of wall and of CPU time, from a cluster of its own."""
    dask_arrays.main(["--chunks", "2", "--mib", "1", "--rounds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [
        [name, unit] for name in ("softmax", "log_softmax", "logsumexp") for unit in ("wall", "CPU")
    ]


def test_workers_give_what_one_array_gives(client):
    x = logits(50_000, 1 << 20)
    whole = x.compute()
    y = functions.softmax(x).compute()
    np.testing.assert_allclose(y, fastsoftmax.softmax(whole), rtol=1e-6)
    drawn = functions.sample(x, seed=[1, 2, 3, 4], position=5).compute()
    assert (drawn == fastsoftmax.sample(whole, seed=[1, 2, 3, 4], position=5, method="race")).all()
