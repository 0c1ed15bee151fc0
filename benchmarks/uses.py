"""Cells of ordinary uses beside the plainest: each with the ratio to a peer that it must reach.

Masks, half types, few classes, other axes, losses, selection of many rows or from other types, and
draws from flat rows. Where the work of another call is a measure, that call is a run too.
"""

from benchmarks import limits
from benchmarks.cell import Cell, Run, shape_text

_ROW = (1, 128256)


def _use(name, table, shape, op, *others, torch=None, rows="random", dtype="float32",
         parameters=None, passes=limits.FULL, written=False):  # fmt: skip
    """A cell of fastsoftmax, of torch if it has a floor, and of `others`."""
    parameters = parameters or {}
    runs = [Run("fastsoftmax", "fastsoftmax", op, rows, parameters)]
    if torch:
        runs.append(Run("torch", "torch", op, rows, parameters, floor=torch))
    return Cell(name, table, shape, (*runs, *others), passes, written, dtype)


def _own(label, op, floor, rows="random", dtype=None, **parameters):
    """Another call of fastsoftmax, to be held against."""
    return Run(label, "fastsoftmax", op, rows, parameters, dtype, floor)


def _masked(op, shape, kind, torch, *others):
    name = f"{op} float32 {shape_text(shape)} where= {kind} mask"
    return _use(name, "softmax", shape, f"{op} where", *others, torch=torch,
                parameters={"mask": kind}, written=True)  # fmt: skip


def _half(dtype, shape):
    return _use(
        f"softmax {dtype} {shape_text(shape)}", "softmax", shape, "softmax",
        _own("fastsoftmax float32", "softmax", 1 / 1.5, dtype="float32"),
        torch=1.8, dtype=dtype, passes=limits.GUESSED, written=True,
    )  # fmt: skip


def _family(op, shape, torch, dtype="float32", **parameters):
    notes = "".join(f" {name}={str(v).replace(' ', '')}" for name, v in parameters.items())
    return _use(
        f"{op} {dtype} {shape_text(shape)}{notes}", "softmax", shape,
        "softmax axes" if "axes" in parameters else op, torch=torch, dtype=dtype,
        parameters=parameters, written=op != "logsumexp",
    )  # fmt: skip


def _loss(shape, torch, gradient, *others, rows="random", **parameters):
    notes = "".join(f" {name}={value}" for name, value in parameters.items())
    notes += f" {rows}" * (rows != "random")
    name = f"cross_entropy{' with gradient' * gradient} float32 {shape_text(shape)}{notes}"
    op = "cross_entropy" if gradient else "loss"
    return _use(name, "loss", shape, op, *others, torch=torch, rows=rows, parameters=parameters,
                written=gradient)  # fmt: skip


def _top_k(shape, k, torch, dtype="float32", **parameters):
    notes = "".join(f" {name}={value}" for name, value in parameters.items())
    return _use(
        f"top_k k={k} {dtype} {shape_text(shape)}{notes}",
        "top_k", shape, "top_k", torch=torch, dtype=dtype, parameters={"k": k} | parameters,
        passes=limits.FOUND,
    )  # fmt: skip


def _largest(shape):
    return _use(
        f"top_k k=1 float32 {shape_text(shape)}", "top_k", shape, "top_k",
        Run("np.argmax", "numpy", "greedy", floor=0.9), torch=3, parameters={"k": 1},
        passes=limits.FOUND,
    )  # fmt: skip


def _smallest(shape, k):
    return _use(
        f"top_k k={k} float32 {shape_text(shape)} mode=smallest", "itself", shape, "top_k",
        _own("largest", "top_k", 0.9, k=k), parameters={"k": k, "mode": "smallest"},
        passes=limits.FOUND,
    )  # fmt: skip


def _sample(notes, other, rows="random", dtype="float32", shape=_ROW, **parameters):
    return _use(
        f"sample {notes} {dtype} {shape_text(shape)} {rows}", "itself", shape, "sample", other,
        rows=rows, dtype=dtype, parameters=parameters, passes=limits.SUMMED,
    )  # fmt: skip


def _race(shape, rows, floor):
    return _use(
        f"sample race T=0.8 float32 {shape_text(shape)} {rows}", "itself", shape, "sample race",
        _own("inverse", "sample", floor, rows, temperature=0.8), rows=rows,
        parameters={"temperature": 0.8}, passes=limits.FOUND,
    )  # fmt: skip


def _allowed(amount, floor, notes, **filters):
    """A draw under a packed mask, of a share of the ids or of so many."""
    return _sample(f"{notes} mask of {amount}", _own("without a mask", "sample", floor, **filters),
                   allowed=amount, **filters)  # fmt: skip


def _plain(deviation, floor):
    return _own("plain draw", "sample", floor, f"deviation {deviation}")


def _statistics(op, shape, floor, **parameters):
    notes = "".join(f" {name}={value}" for name, value in parameters.items())
    return _use(
        f"{op} float32 {shape_text(shape)}{notes}", "itself", shape, op,
        _own("logsumexp", "logsumexp", floor, **parameters), parameters=parameters,
        passes=limits.SUMMED,
    )  # fmt: skip


def _verify(torch, certain):
    shape = (16, 5, 128256)
    kind = "certain drafts" if certain else "drafts with logits"
    return _use(
        f"verify top_p=0.95 float32 {shape_text(shape)} {kind}", "sample", shape, "verify",
        torch=torch, parameters={"certain": certain, "top_p": 0.95}, passes=limits.SUMMED,
    )  # fmt: skip


USES = (
    *(
        _masked(op, (32, 50257), "random", 4, _own("without where=", op, 1 / 1.4))
        for op in ("softmax", "log_softmax")
    ),
    _masked("softmax", (8, 12, 128, 128), "causal", 3),
    *(_half(dtype, shape) for dtype in ("float16", "bfloat16") for shape in ((64, 1000), _ROW)),
    *(  # of probabilities below 1e-31
        _use(f"softmax float32 {shape_text(shape)} deviation 20", "softmax", shape, "softmax",
             _own("deviation 1", "softmax", 0.7, "deviation 1"), torch=2, rows="deviation 20",
             written=True)
        for shape in ((64, 1000), (4, 128256))
    ),
    _use(
        "softmax float32 (1,128256) deviation 3 temperature=0.1", "softmax", _ROW, "softmax",
        _own("deviation 1", "softmax", 0.7, "deviation 1", temperature=0.1), torch=2,
        rows="deviation 3", parameters={"temperature": 0.1}, written=True,
    ),
    _family("softmax", (4, 3, 224, 224), 2.5, axis=1),
    _family("log_softmax", (4, 3, 224, 224), 2, axis=1),
    _family("logsumexp", (4, 3, 224, 224), 2.5, axis=1),
    _use(
        "log_softmax float32 (4,3,224,224) axis=1 deviation 8", "softmax", (4, 3, 224, 224),
        "log_softmax", _own("deviation 1", "log_softmax", 0.9, "deviation 1", axis=1), torch=2,
        rows="deviation 8", parameters={"axis": 1}, written=True,
    ),
    _family("log_softmax", (8, 21, 65, 65), 2.2, axis=1),
    _family("log_softmax", (256, 64, 32), 2.2, axis=1),
    _family("log_softmax", (64, 32, 100), 2.2, axis=0),
    _family("softmax", (20, 30, 40), 2, axes=(1, 2)),
    _family("softmax", (1000, 1000), 1.6, "float64"),
    _family("log_softmax", (1000, 1000), 1.6, "float64"),
    _loss((8192, 2), 6, True),
    _loss((8192, 10), 3.5, True),
    _loss((4096, 100), 2.5, True),
    _loss((8, 21, 128, 128), 3, True, axis=1),
    _loss((4096, 100), 2.5, True, soft=True, smoothing=0.1),
    *(  # of probabilities below 1e-31
        _loss(shape, 2, True, _own("deviation 1", "cross_entropy", 0.5, "deviation 1"),
              rows="deviation 20")
        for shape in ((4096, 10), (64, 1000))
    ),
    _loss((8192, 2), 5, False),
    _loss((8192, 10), 3, False),
    _loss((4096, 100), 2, False),
    _use("softmax_backward float32 (4096,1000)", "loss", (4096, 1000), "softmax_backward",
         torch=1.05, passes=("scale", "scale"), written=True),
    _top_k(_ROW, 50, 8, "float16"),
    _top_k(_ROW, 50, 12, "bfloat16"),
    _top_k((100000, 10), 3, 2.5),
    _largest((10000, 100)),
    _largest((1000, 1000)),
    _top_k((10000, 100), 3, 4),
    _top_k((64, 1000), 5, 4, "int8"),
    _top_k((1000, 512), 10, 2.5, axis=0),
    _smallest(_ROW, 50),
    _smallest((64, 1000), 5),
    _use("top_logprobs n=20 float32 (32,128256)", "sample", (32, 128256), "top_logprobs", torch=4,
         parameters={"n": 20}, passes=limits.SUMMED),
    *(
        _use(f"top_logprobs n={n} float32 ({rows},{length})", "sample", (rows, length),
             "top_logprobs", torch=floor, parameters={"n": n}, passes=limits.SUMMED)
        for n, rows, length, floor in ((3, 10000, 3, 2.5), (5, 10000, 30, 2.5))
    ),
    _use("token_logprobs float32 (512,32000)", "sample", (512, 32000), "token_logprobs", torch=3,
         passes=limits.SUMMED),
    *(
        _use(f"token_logprobs float32 ({rows},{n})", "sample", (rows, n), "token_logprobs",
             torch=floor, passes=limits.SUMMED)
        for rows, n, floor in ((10000, 3, 2.5), (4000, 30, 1.2), (4000, 100, 1.4))
    ),
    _verify(20, certain=True),
    _verify(20, certain=False),
    _use("beam_step beams=8 float32 (8,4,128256)", "sample", (8, 4, 128256), "beam_step", torch=4,
         parameters={"beams": 8}, passes=limits.SUMMED),
    *(
        _sample("top_p=0.9", _own("fastsoftmax float32", "sample", 0.8, dtype="float32", top_p=0.9),
                dtype=dtype, top_p=0.9)
        for dtype in ("float16", "bfloat16")
    ),
    _sample("min_p=0.05", _plain(0.3, 0.9), "deviation 0.3", min_p=0.05),
    *(
        _sample("top_p=0.9", _plain(deviation, 0.5), f"deviation {deviation}", top_p=0.9)
        for deviation in (1, 1.5, 2, 3)
    ),
    _sample("top_p=0.9", _own("plain draw", "sample", 0.5, "zipf"), "zipf", top_p=0.9),
    *(
        _sample("top_p=0.9", _own("plain draw", "sample", floor), shape=shape, top_p=0.9)
        for shape, floor in (((64, 1000), 0.3), ((8, 5000), 0.2))
    ),
    *(
        _sample("of short rows", _own("softmax", "softmax", floor), shape=shape)
        for shape, floor in (((10000, 3), 0.25), ((10000, 10), 0.3), ((10000, 50), 0.4))
    ),
    *(
        _allowed(amount, floor, notes, temperature=0.8, **filters)
        for amount, floor in ((0.3, 0.8), (50, 4))
        for notes, filters in (
            ("T", {}),
            ("T, top_p", {"top_p": 0.9}),
            ("T, top_k, top_p", {"top_k": 50, "top_p": 0.9}),
        )
    ),
    *(
        _sample(f"T={t} top_p=0.9", _own("plain draw", "sample", 1.3, "real", temperature=t),
                "real", shape=(3, 49152), temperature=t, top_p=0.9)
        for t in (0.8, 1)
    ),
    *(
        _sample("plain", _own("deviation 3", "sample", 0.9, "deviation 3"),
                f"deviation {deviation}")
        for deviation in (0.3, 1)
    ),
    _race((3, 49152), "real", 2.5),
    _race(_ROW, "deviation 3", 2),
    *(
        _statistics(op, shape, 1 / 1.5)
        for op in ("row_stats", "row_stats, top 5, rank")
        for shape in ((64, 1000), (8, 32000), _ROW)
    ),
    *(
        _statistics(op, shape, floor)
        for shape in ((10000, 10), (8192, 3), (4096, 100))
        for op, floor in (
            ("row_stats", 1 / 2.5), ("row_stats, top 5, rank", 1 / 7), ("entropy", 1 / 2.2),
            ("logmeanexp", 0.5), ("kl_divergence", 0.1), ("logsumexp b=", 0.1),
        )
    ),
    _statistics("row_stats", (10, 10000), 0.25, axis=0),
    _statistics("entropy", (8, 3, 64, 64), 1 / 3, axis=1),
)  # fmt: skip
