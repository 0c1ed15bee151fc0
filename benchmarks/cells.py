"""What is compared: the cells, and how each library does the work of one.

A *side* is a library. For each operation it knows, it prepares a call on given rows: everything
that can be done beforehand (conversion, session, binding) is done there and stays out of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks.errors import ordinary_rows

K = 50
TEMPERATURE, TOP_P = 0.8, 0.9
SOFTMAX_FAMILY = ("softmax", "log_softmax", "logsumexp")


# --- Cells --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One line of a cell: a side doing an operation, on rows in some order."""

    label: str
    side: str
    op: str
    order: str = "random"


@dataclass(frozen=True)
class Cell:
    """Runs to be timed side by side; the first is the base of every ratio.

    `family` names the softmax function that all runs compute, and whose error is measured.
    """

    name: str
    shape: tuple[int, ...]
    runs: tuple[Run, ...]
    dtype: str = "float32"
    family: str | None = None

    def rows(self, order, shape=None):
        """The input in the given order; `shape` stands in for the cell's own in tests."""
        rows = ordinary_rows(shape or self.shape, self.dtype, seed=1)
        return np.sort(rows, axis=-1) if order == "ascending" else rows


def _name(what, shape, dtype="float32"):
    return f"{what} {dtype} ({','.join(map(str, shape))})"


def _softmax_family(op, shape, dtype="float32"):
    sides = ("fastsoftmax", "torch", "onnxruntime", "scipy", "numpy")
    runs = tuple(Run(side, side, op) for side in sides)
    return Cell(_name(op, shape, dtype), shape, runs, dtype, family=op)


def _top_k(shape, order):
    runs = [Run(side, side, "top_k", order) for side in ("fastsoftmax", "torch", "onnxruntime")]
    runs.append(Run("numpy argpartition", "numpy", "top_k", order))
    runs.append(Run("numpy partition", "numpy", "top_k partition", order))
    return Cell(f"{_name(f'top_k k={K}', shape)} {order}", shape, tuple(runs))


def _cross_entropy(shape):
    runs = tuple(Run(side, side, "cross_entropy") for side in ("fastsoftmax", "torch", "numpy"))
    return Cell(_name("cross_entropy with gradient", shape), shape, runs)


_ROW = (1, 128256)

CELLS = (
    _softmax_family("softmax", (64, 1000)),
    _softmax_family("softmax", (1024, 1024)),
    Cell(
        # Fresh output of some MB costs page faults; this is what is left without them.
        f"{_name('softmax', (1024, 1024))} out=",
        (1024, 1024),
        (
            Run("fastsoftmax out=", "fastsoftmax", "softmax out"),
            Run("fastsoftmax fresh output", "fastsoftmax", "softmax"),
            Run("torch", "torch", "softmax out"),
            Run("onnxruntime", "onnxruntime", "softmax out"),
            Run("numpy", "numpy", "softmax out"),
        ),
        family="softmax",
    ),
    _softmax_family("softmax", _ROW),
    _softmax_family("softmax", (1, 10)),
    _softmax_family("softmax", (1000, 100)),
    _softmax_family("softmax", (5000, 32)),
    _softmax_family("softmax", (10000, 10)),
    _softmax_family("softmax", (1000000, 3)),
    _softmax_family("log_softmax", (64, 1000)),
    _softmax_family("logsumexp", (64, 1000)),
    _softmax_family("softmax", (64, 1000), "float64"),
    _cross_entropy((512, 32000)),
    _cross_entropy((4096, 1000)),
    _top_k(_ROW, "random"),
    _top_k(_ROW, "ascending"),
    Cell(
        f"{_name(f'top_k k={K}', _ROW)} ascending against random",
        _ROW,
        (
            Run("fastsoftmax random", "fastsoftmax", "top_k", "random"),
            Run("fastsoftmax ascending", "fastsoftmax", "top_k", "ascending"),
        ),
    ),
    Cell(
        _name(f"sample T={TEMPERATURE} top_k={K} top_p={TOP_P}", _ROW),
        _ROW,
        (
            Run("fastsoftmax", "fastsoftmax", "sample top_k top_p"),
            Run("numpy argpartition", "numpy", "sample top_k top_p"),
            Run("numpy partition", "numpy", "sample partition top_p"),
        ),
    ),
    Cell(
        _name(f"sample T={TEMPERATURE} top_p={TOP_P}", _ROW),
        _ROW,
        (
            Run("fastsoftmax", "fastsoftmax", "sample top_p"),
            Run("numpy", "numpy", "sample top_p"),
        ),
    ),
    Cell(
        _name(f"sample T={TEMPERATURE}", _ROW),
        _ROW,
        (Run("fastsoftmax", "fastsoftmax", "sample"), Run("numpy", "numpy", "sample")),
    ),
)


def targets(x):
    """A class for each row."""
    return np.random.default_rng(2).integers(x.shape[-1], size=x.shape[:-1])


# --- Sides --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """A library: ``ops[op](x)`` is a call without arguments, its result read by `as_numpy`."""

    version: str
    ops: dict[str, Callable[[np.ndarray], Callable[[], Any]]] = field(repr=False)
    as_numpy: Callable[[Any], np.ndarray] = field(default=np.asarray, repr=False)


def load_sides():
    """Import every library that is installed.

    Returns
    -------
    sides : dict of str to Side
    absent : list of str
        Names of the peers that could not be imported.
    """
    sides, absent = {"fastsoftmax": _fastsoftmax(), "numpy": _numpy()}, []
    for name, load in (("torch", _torch), ("onnxruntime", _onnxruntime), ("scipy", _scipy)):
        try:
            sides[name] = load()
        except ImportError:
            absent.append(name)
    return sides, absent


def _fastsoftmax():
    import fastsoftmax as fs

    def last_axis(function, x):
        return partial(function, x)

    def softmax_out(x):
        return partial(fs.softmax, x, out=np.empty_like(x))

    def sample(x, **filters):
        rng = np.random.default_rng(0)
        return partial(fs.sample, x, temperature=TEMPERATURE, rng=rng, **filters)

    ops = {op: partial(last_axis, getattr(fs, op)) for op in SOFTMAX_FAMILY}
    ops |= {"softmax out": softmax_out, "top_k": lambda x: partial(fs.top_k, x, K)}
    ops["cross_entropy"] = lambda x: partial(fs.cross_entropy_with_grad, x, targets(x))
    ops |= {
        "sample": sample,
        "sample top_p": partial(sample, top_p=TOP_P),
        "sample top_k top_p": partial(sample, top_k=K, top_p=TOP_P),
    }
    return Side(fs.__version__, ops)


def _torch():
    import torch

    torch.set_num_threads(1)

    def tensor(x):
        # torch's own memory is better aligned than NumPy's; an inference tensor skips autograd.
        with torch.inference_mode():
            return torch.from_numpy(x).clone()

    def last_axis(function, x):
        return partial(function, tensor(x), -1)

    def softmax_out(x):
        return partial(torch.softmax, tensor(x), -1, out=torch.empty(x.shape))

    def cross_entropy(x):
        logits, classes = torch.from_numpy(x).clone().requires_grad_(), torch.from_numpy(targets(x))

        def call():
            logits.grad = None
            loss = torch.nn.functional.cross_entropy(logits, classes)
            loss.backward()
            return loss.detach(), logits.grad

        return call

    ops = {op: partial(last_axis, getattr(torch, op)) for op in SOFTMAX_FAMILY}
    ops |= {"softmax out": softmax_out, "top_k": lambda x: partial(torch.topk, tensor(x), K)}
    ops["cross_entropy"] = cross_entropy
    return Side(torch.__version__, ops)


def _scipy():
    import scipy
    from scipy import special

    def last_axis(function, x):
        return partial(function, x, axis=-1)

    ops = {op: partial(last_axis, getattr(special, op)) for op in SOFTMAX_FAMILY}
    return Side(scipy.__version__, ops)


def _onnxruntime():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL

    def prepare(op, reuse_output, x):
        session = onnxruntime.InferenceSession(
            onnx_model(op, x.dtype), options, providers=["CPUExecutionProvider"]
        )
        # A bound call costs half of session.run, which looks up names and wraps arrays each time.
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
        if reuse_output:
            out = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty_like(x))
            binding.bind_ortvalue_output("y", out)
        else:
            for output in session.get_outputs():
                binding.bind_output(output.name, "cpu")

        def call():
            session.run_with_iobinding(binding)
            return binding

        return call

    def as_numpy(binding):
        arrays = binding.copy_outputs_to_cpu()
        return arrays[0] if len(arrays) == 1 else arrays

    ops = {op: partial(prepare, op, False) for op in (*SOFTMAX_FAMILY, "top_k")}
    ops["softmax out"] = partial(prepare, "softmax", True)
    return Side(onnxruntime.__version__, ops, as_numpy)


def _numpy():
    def softmax_out(x):
        return partial(_numpy_softmax, x, np.empty_like(x))

    def sample(choose, x):
        return partial(_numpy_sample, x[0], np.random.default_rng(0), choose)

    ops = {
        "softmax": lambda x: partial(_numpy_softmax, x),
        "softmax out": softmax_out,
        "log_softmax": lambda x: partial(_numpy_log_softmax, x),
        "logsumexp": lambda x: partial(_numpy_logsumexp, x),
        "cross_entropy": lambda x: partial(_numpy_cross_entropy, x, targets(x)),
        # The idioms are for one row: on a batch, take_along_axis would slow them down.
        "top_k": lambda x: partial(_numpy_top_k_argpartition, x[0]),
        "top_k partition": lambda x: partial(_numpy_top_k_partition, x[0]),
        "sample": lambda x: partial(_numpy_draw, x[0], np.random.default_rng(0)),
        "sample top_p": partial(sample, _numpy_sort),
        "sample top_k top_p": partial(sample, _numpy_top_k_argpartition),
        "sample partition top_p": partial(sample, _numpy_top_k_partition),
    }
    return Side(np.__version__, ops)


# --- NumPy by hand ------------------------------------------------------------------------------


def _numpy_softmax(x, out=None):
    out = np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)
    return out


def _numpy_log_softmax(x):
    shifted = x - x.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _numpy_logsumexp(x):
    largest = x.max(axis=-1, keepdims=True)
    terms = x - largest
    np.exp(terms, out=terms)
    return largest[..., 0] + np.log(terms.sum(axis=-1))


def _numpy_cross_entropy(x, classes):
    """Mean loss and gradient."""
    place = (np.arange(len(x)), classes)
    grad = x - x.max(axis=-1, keepdims=True)
    at_target = grad[place]
    np.exp(grad, out=grad)
    total = grad.sum(axis=-1, keepdims=True)
    grad /= total * len(x)
    grad[place] -= 1 / len(x)
    return (np.log(total[:, 0]) - at_target).mean(), grad


def _numpy_top_k_argpartition(row):
    """The k largest of a row, largest first: the usual idiom."""
    found = np.argpartition(row, row.size - K)[row.size - K :]
    values = row[found]
    order = values.argsort()[::-1]
    return values[order], found[order]


def _numpy_top_k_partition(row):
    """The same by a threshold: np.partition is twice as fast as np.argpartition."""
    threshold = np.partition(row, row.size - K)[row.size - K]
    found = np.flatnonzero(row >= threshold)
    values = row[found]
    order = values.argsort()[: -K - 1 : -1]
    return values[order], found[order]


def _numpy_sort(row):
    """The whole row, largest first: what top-p without top-k takes."""
    order = row.argsort()[::-1]
    return row[order], order


def _numpy_sample(row, rng, choose):
    """Draw one id by temperature and top-p from what `choose` leaves, largest first."""
    values, ids = choose(row)
    weights = np.exp((values - values[0]) / TEMPERATURE)
    mass = weights.cumsum(dtype=np.float64)
    kept = mass[mass.searchsorted(TOP_P * mass[-1])]
    return ids[mass.searchsorted(rng.random() * kept, side="right")]


def _numpy_draw(row, rng):
    """Draw one id by temperature alone."""
    mass = np.exp((row - row.max()) / TEMPERATURE).cumsum(dtype=np.float64)
    return mass.searchsorted(rng.random() * mass[-1], side="right")


# --- ONNX models, encoded by hand ---------------------------------------------------------------
# A model of one node is some sixty bytes of protobuf: not worth a dependency on `onnx`.
# Field numbers are those of onnx.proto (ModelProto 1, 7, 8; GraphProto 1, 2, 5, 11, 12; ...).

_ONNX_TYPES = {np.dtype("float32"): 1, np.dtype("int64"): 7, np.dtype("float64"): 11}
_ONNX_OPS = {  # name, attributes, whether an attribute is a list of ints
    "softmax": ("Softmax", {"axis": -1}),
    "log_softmax": ("LogSoftmax", {"axis": -1}),
    "logsumexp": ("ReduceLogSumExp", {"axes": [-1], "keepdims": 0}),
    "top_k": ("TopK", {"axis": -1}),
}


def onnx_model(op, dtype):
    """Serialize a model with one node, from input ``x`` to ``y`` (and ``ids`` for top_k)."""
    name, attributes = _ONNX_OPS[op]
    kind = _ONNX_TYPES[np.dtype(dtype)]
    outputs = {"y": kind} | ({"ids": _ONNX_TYPES[np.dtype("int64")]} if op == "top_k" else {})
    inputs = ["x", "k"] if op == "top_k" else ["x"]
    node = _fields(
        *((1, i) for i in inputs),
        *((2, o) for o in outputs),
        (4, name),
        *((5, _attribute(*item)) for item in attributes.items()),
    )
    graph = [(1, node), (2, "one node")]
    if op == "top_k":
        graph.append((5, _fields((1, 1), (2, 7), (8, "k"), (9, K.to_bytes(8, "little")))))
    graph.append((11, _value_info("x", kind)))
    graph += [(12, _value_info(*output)) for output in outputs.items()]
    # IR version 8 with opset 17, the last in which ReduceLogSumExp has its axes as an attribute
    return _fields((1, 8), (7, _fields(*graph)), (8, _fields((2, 17))))


def _attribute(name, value):
    if isinstance(value, list):
        return _fields((1, name), (20, 7), *((8, v) for v in value))
    return _fields((1, name), (20, 2), (3, value))


def _value_info(name, kind):
    # no shape: any will do
    return _fields((1, name), (2, _fields((1, _fields((1, kind))))))


def _fields(*fields):
    """Encode (field number, int or str or bytes) as a protobuf message."""
    message = b""
    for number, value in fields:
        if isinstance(value, int):
            message += _varint(number << 3) + _varint(value % 2**64)
        else:
            value = value.encode() if isinstance(value, str) else value
            message += _varint(number << 3 | 2) + _varint(len(value)) + value
    return message


def _varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])
