"""What is compared: the cells, each some runs of an operation on the same rows."""

from benchmarks import limits
from benchmarks.cell import Cell, Run, shape_text
from benchmarks.chains import CHAINS
from benchmarks.sides import SOFTMAX_FAMILY
from benchmarks.uses import USES

# Who does what; one that is absent, or lacks the dtype, is left out when a cell is measured.
_SOFTMAX_PEERS = ("torch", "onnxruntime", "scipy", "jax", "numpy")
_OUT_PEERS = ("torch", "onnxruntime", "numpy")
_LOSS_PEERS = ("torch", "jax", "numpy")
_TOP_K_PEERS = ("torch", "onnxruntime", "jax", "numpy", "numpy threshold")
_SAMPLE_PEERS = ("numpy", "transformers", "llama.cpp")
_TOP_K_SAMPLE_PEERS = ("numpy", "numpy threshold", "transformers", "llama.cpp")
_GREEDY_PEERS = ("torch", "jax", "numpy", "llama.cpp")
_PER_ROW_PEERS = ("numpy", "numpy threshold", "llama.cpp")


def _beside(name, table, shape, op, peers, rows="random", also=(), parameters=None, floors=None,
            **about):  # fmt: skip
    """A cell of fastsoftmax and its peers; `floors` by peer."""
    runs = [
        Run(side, side, op, rows, parameters or {}, floor=(floors or {}).get(side))
        for side in ("fastsoftmax", *peers)
    ]
    return Cell(name, table, shape, (*runs, *also), **about)


def _softmax(
    op, shape, dtype="float32", rows="random", mean=None, pictured=None, floors=None, **parameters
):
    notes = "".join(f" {name}={value}" for name, value in parameters.items())
    notes += " real logits" if rows == "real" else ""
    passes = {
        "softmax": limits.GUESSED, "log_softmax": limits.FULL, "logsumexp": limits.SUMMED,
    }[op]  # fmt: skip
    return _beside(
        f"{op} {dtype} {shape_text(shape)}{notes}", "softmax", shape, op, _SOFTMAX_PEERS, rows,
        parameters=parameters, floors=floors, passes=passes, written=op != "logsumexp",
        dtype=dtype, family=op, mean=mean, pictured=pictured,
    )  # fmt: skip


def _softmax_out(shape):
    # Fresh output of some MB costs page faults; this is what is left without them.
    fresh = Run("fastsoftmax fresh output", "fastsoftmax", "softmax")
    return _beside(
        f"softmax float32 {shape_text(shape)} out=", "softmax", shape, "softmax out", _OUT_PEERS,
        also=(fresh,), passes=limits.GUESSED, written=True, family="softmax",
    )  # fmt: skip


def _cross_entropy(shape, pictured=None):
    return _beside(
        f"cross_entropy with gradient float32 {shape_text(shape)}", "loss", shape, "cross_entropy",
        _LOSS_PEERS, passes=limits.FULL, written=True, pictured=pictured,
    )  # fmt: skip


def _top_k(shape, k, rows="random", pictured=None):
    return _beside(
        f"top_k k={k} float32 {shape_text(shape)} {rows}", "top_k", shape, "top_k", _TOP_K_PEERS,
        rows, parameters={"k": k}, passes=limits.FOUND, pictured=pictured,
    )  # fmt: skip


def _top_k_orders(shape, k):
    runs = [Run(kind, "fastsoftmax", "top_k", kind, {"k": k}) for kind in ("random", *_ORDERS)]
    name = f"top_k k={k} float32 {shape_text(shape)} in other orders"
    return Cell(name, "itself", shape, tuple(runs), passes=limits.FOUND)


def _workers(shape):
    runs = (
        Run("one worker", "fastsoftmax", "softmax"),
        Run("two workers", "fastsoftmax", "softmax", parameters={"workers": 2}),
    )
    name = f"softmax float32 {shape_text(shape)} workers"
    return Cell(name, "itself", shape, runs, limits.GUESSED, written=True, family="softmax", cpus=2)


def _sample(shape, rows="random", pictured=None, **filters):
    notes = " ".join(f"{_SHORT.get(name, name)}={value}" for name, value in filters.items())
    notes += f" float32 {shape_text(shape)}{' real logits' if rows == 'real' else ''}"
    few = "top_k" in filters
    return _beside(
        f"sample {notes}", "sample", shape, "sample",
        _TOP_K_SAMPLE_PEERS if few else _SAMPLE_PEERS, rows, parameters=filters,
        passes=limits.FOUND if few else limits.SUMMED, pictured=pictured,
    )  # fmt: skip


_ORDERS = ("ascending", "descending", "constant", "all -inf", "organ pipe", "few values")
_SHORT = {"temperature": "T"}
_ROW, _BATCH, _REAL = (1, 128256), (8, 128256), (3, 49152)
_FIVE = ((64, 1000), (1024, 1024), (1, 32000), _ROW, (32, 128256))
_PICTURED = {(64, 1000): "64 × 1000", (1, 32000): "1 × 32,000", _ROW: "1 × 128,256"}
_PER_ROW = {
    "temperature": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2],
    "top_k": [20, 30, 40, 50, 60, 70, 80, 100],
    "top_p": [0.8, 0.85, 0.9, 0.9, 0.92, 0.95, 0.95, 0.98],
}

CELLS = (
    *(
        _softmax(
            op, shape, mean=f"{op}, geometric mean of {len(_FIVE)}",
            pictured=f"{op} {_PICTURED[shape]}" if shape in _PICTURED else None,
        )
        for op in SOFTMAX_FAMILY for shape in _FIVE
    ),
    _softmax("softmax", (1, 10), pictured="softmax 1 × 10"),
    _softmax("softmax", (1000000, 3)),
    _softmax("softmax", (10000, 10)),
    _softmax("softmax", (5000, 17)),
    _softmax("softmax", (5000, 32), pictured="softmax 5000 × 32"),
    _softmax("softmax", (2000, 50)),
    _softmax("softmax", (1000, 100)),
    _softmax("softmax", (500, 200)),
    _softmax("softmax", (1, 2**24), pictured="softmax 1 × 16,777,216",
             floors={"onnxruntime": 1.25}),
    _softmax("softmax", (1000, 4096), axis=0, pictured="softmax axis 0 of 1000 × 4096"),
    _softmax("softmax", (8, 21, 256, 256), axis=1, pictured="softmax axis 1 of 8 × 21 × 256 × 256"),
    _softmax("softmax", (64, 1000), "float64", pictured="softmax float64 64 × 1000"),
    _softmax("softmax", (64, 1000), temperature=0.8),
    _softmax("softmax", _REAL, rows="real"),
    _softmax_out((1024, 1024)),
    _softmax_out((1, 2**24)),
    _workers((32, 128256)),
    _workers((1, 2**24)),
    _cross_entropy((512, 32000), pictured="loss and gradient 512 × 32,000"),
    _cross_entropy((4096, 1000)),
    _top_k(_ROW, 50, pictured="top 50 of 128,256"),
    _top_k(_ROW, 50, "ascending"),
    _top_k(_ROW, 1000),
    _top_k(_BATCH, 50),
    _top_k((64, 1000), 5),
    _top_k(_REAL, 50, "real"),
    _top_k_orders(_ROW, 50),
    _sample(_ROW, temperature=0.8, top_k=50, top_p=0.9, pictured="draw: top-k 50, top-p .9"),
    _sample(_ROW, temperature=0.8, top_p=0.9, pictured="draw: top-p .9"),
    _sample(_REAL, "real", temperature=0.8, top_p=0.9, pictured="draw: top-p .9, real logits"),
    _sample(_ROW, temperature=0.8, pictured="draw: temperature alone"),
    _beside(f"sample greedy float32 {shape_text(_ROW)}", "sample", _ROW, "greedy", _GREEDY_PEERS,
        passes=limits.FOUND),
    _beside(
        f"sample T, top_k, top_p per row float32 {shape_text(_BATCH)}", "sample", _BATCH,
        "sample per row", _PER_ROW_PEERS, parameters=_PER_ROW, passes=limits.FOUND,
    ),
    *CHAINS,
    *USES,
)  # fmt: skip
