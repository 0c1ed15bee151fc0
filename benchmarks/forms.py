"""Small calls: every public function in every form of argument, so that none is slow unseen.

A call of a few elements costs what the way to the kernel costs. It is timed beside NumPy's
``np.add(x, x, out=o)`` of (3, 5), and held against what it may take: a time where that takes
`ADD_US`, on top of that of another call where the form is a variation of it, and of np.asarray
where the array is a list.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from benchmarks.inputs import dtype_of, has_dtype, packed
from benchmarks.timing import shortest

ADD_US = 0.45


@dataclass(frozen=True)
class Form:
    """A call of the public `function`.

    `most` is the microseconds that it may take where np.add takes `ADD_US`, beside the time of the
    form called `over`; None is no bound.
    """

    function: str
    form: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    most: float | None = None
    over: str = ""
    target: Callable[..., Any] | None = None  # what is called, if it is not a function of that name

    @property
    def name(self):
        """As ``--only`` sees it."""
        return f"small {self.function} {self.form}"


def _array(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape, "float32").astype(dtype_of(dtype))


def _temperatures(rows):
    """A temperature in each form: what is passed, and what it may cost."""
    return {
        "temperature=0.5": (0.5, 0.4),
        "temperature=2": (2, 0.4),
        "temperature=np.float32": (np.float32(0.5), 0.4),
        "temperature 0-d": (np.array(0.5), 0.4),
        "temperature a row": (np.full(rows, 0.5), 1),
        "temperature a list": ([0.5] * rows, 2.5),
    }


def _layouts(shape):
    """An array in each form: what is passed, and what it may cost."""
    x = _array(*shape)
    halves = [dtype for dtype in ("float16", "bfloat16") if has_dtype(dtype)]
    return {
        "float64": (x.astype("float64"), 0.2),
        **{dtype: (_array(*shape, dtype=dtype), 0.5) for dtype in halves},
        "transposed": (np.asfortranarray(x), 0.5),
        "every other column": (_array(shape[0], 2 * shape[1])[:, ::2], 0.5),
        "read-only": (np.broadcast_to(x, x.shape), 0.5),
        "other byte order": (x.astype(x.dtype.newbyteorder()), 0.5),
        "int64": (np.arange(x.size).reshape(shape), 1),
        "a list": (x.tolist(), 0.5),
    }


def _over(function, base, forms, keyword=None, rest=()):
    """Forms of one argument: the first, or the one called `keyword`; `rest` are the others."""
    for form, (value, most) in forms.items():
        args, kwargs = (rest, {keyword: value}) if keyword else ((value, *rest), {})
        yield Form(function, form, args, kwargs, most, base)


def _softmax():
    x, o = _array(3, 5), np.empty((3, 5), np.float32)
    row, full = np.arange(5) > 1, _array(3, 5) < 1
    for f in ("softmax", "log_softmax"):
        yield Form(f, "(3,5)", (x,), {}, 0.3)
        over = partial(_over, f, "(3,5)")
        yield from over(_temperatures(3), "temperature", (x,))
        yield from over({"where= a row": (row, 1), "where= full": (full, 1)}, "where", (x,))
        axes = {"axis=1": (1, 0.5), "axis=None": (None, 0.5), "axis=(0,1)": ((0, 1), 0.5),
                "axis=0": (0, 0.5), "axis=np.int64": (np.int64(-1), 0.5)}  # fmt: skip
        yield from over(axes, "axis", (x,))
        yield from over({"out=": (o, 0.5), "out= float64": (np.empty((3, 5)), 1)}, "out", (x,))
        yield from over({"workers=1": (1, 0.5)}, "workers", (x,))
        yield from over(_layouts((3, 5)))
    f, over = "logsumexp", partial(_over, "logsumexp", "(3,5)")
    yield Form(f, "(3,5)", (x,), {}, 0.5)
    yield from over({"where= a row": (row, 1), "where= full": (full, 1)}, "where", (x,))
    axes = {"axis=None": (None, 0.4), "axis=(0,1)": ((0, 1), 0.5), "axis=0": (0, 0.5),
            "axis=np.int64": (np.int64(-1), 0.5)}  # fmt: skip
    yield from over(axes, "axis", (x,))
    yield from over({"keepdims=True": (True, 0.4)}, "keepdims", (x,))
    yield from over({"workers=1": (1, 0.5)}, "workers", (x,))
    yield from over({"b=": (x, 1.5)}, "b", (x,))
    yield from over({"return_sign=True": (True, 1.5)}, "return_sign", (x,))
    yield from over(_layouts((3, 5)))
    yield from _over("softmax", "(3,5)", {"return_lse=True": (True, 2)}, "return_lse", (x,))


def _statistics():
    x, row = _array(3, 5), np.arange(5) > 1
    for f, args, most in (
        ("logmeanexp", (x,), 2), ("entropy", (x,), 1.5), ("kl_divergence", (x, -x), 2)
    ):  # fmt: skip
        yield Form(f, "(3,5)", args, {}, most)
        over = partial(_over, f, "(3,5)", rest=args)
        yield from over({"where= a row": (row, 2)}, "where")
        yield from over({"axis=0": (0, 0.5)}, "axis")
        yield from over({"keepdims=True": (True, 0.5)}, "keepdims")
        yield from over({"workers=1": (1, 0.5)}, "workers")
        if f != "logmeanexp":
            yield from over(_temperatures(3), "temperature")
    yield Form("row_stats", "(3,5)", (x,), {}, 4)
    over = partial(_over, "row_stats", "(3,5)", rest=(x,))
    yield from over({"want='max'": ("max", 0.5)}, "want")
    yield from over({"axis=0": (0, 1.5)}, "axis")
    yield from over({"top=2": (2, 1.5)}, "top")
    yield from over({"ids=": (np.arange(3), 1.5)}, "ids")
    yield from over(_temperatures(3), "temperature")
    yield from over({"workers=1": (1, 0.5)}, "workers")


def _selection():
    x, ids = _array(8, 10), np.arange(8)
    yield Form("top_k", "(8,10) k=3", (x, 3), {}, 1.5)
    for name, value in (
        ("axis", 0), ("mode", "smallest"), ("sorted", False), ("workers", 1), ("k", np.int64(3)),
    ):  # fmt: skip
        args = (x,) if name == "k" else (x, 3)
        yield Form("top_k", f"{name}={value}", args, {name: value}, 1.5)
    for form, (value, most) in _layouts((8, 10)).items():
        yield Form("top_k", form, (value, 3), {}, most and 1.5)
    yield Form("rank", "(8,10)", (x, ids), {}, 1.5)
    yield Form("rank", "ids= (8,2)", (x,), {"ids": np.stack([ids, ids], -1)}, 2)
    yield Form("rank", "ids a list", (x, ids.tolist()), {}, 2)
    for form, (value, most) in _layouts((8, 10)).items():
        yield Form("rank", form, (value, ids), {}, most and 1.5)


def _filters(function, base, x, rows):
    """The forms of the arguments that filter."""
    over = partial(_over, function, base)
    yield from over(_temperatures(rows), "temperature", (x,))
    yield from over({"top_k=3": (3, 1), "top_k=np.int64": (np.int64(3), 1),
                     "top_k a row": (np.full(rows, 3), 3)}, "top_k", (x,))  # fmt: skip
    yield from over({"top_p=0.9": (0.9, 2), "top_p=np.float32": (np.float32(0.9), 2),
                     "top_p a row": (np.full(rows, 0.9), 3)}, "top_p", (x,))  # fmt: skip
    yield from over({"min_p=0.1": (0.1, 1), "min_p a row": (np.full(rows, 0.1), 3)},
                    "min_p", (x,))  # fmt: skip
    yield from over({"min_keep=2": (2, 1)}, "min_keep", (x,))


def _masks(function, base, *rest):
    """The forms of a mask; `rest` are the other arguments, logits first."""
    mask = rest[0] > -1
    masks = {"mask=": (mask, 1), "mask= a row": (mask[0], 1), "mask= bits": (packed(mask), 1)}
    yield from _over(function, base, masks, "mask", rest)
    some = {"mask": mask[:2], "mask_rows": np.array([1, 3])}
    yield Form(function, "mask_rows=", rest, some, 3, base)


def _sampling():
    x, row, rng = _array(8, 10), _array(100), np.random.default_rng(0)
    for function, base, most in (("filter_logits", "(8,10)", 3), ("support", "(8,10)", 4)):
        yield Form(function, base, (x,), {}, most)
        yield from _filters(function, base, x, 8)
        yield from _masks(function, base, x)
        yield from _over(function, base, _layouts((8, 10)))
    over = partial(_over, "filter_logits", "(8,10)")
    yield Form("filter_logits", "ties='all'", (x,), {"top_k": 3, "ties": "all"}, 3)
    yield from over({"out=": (np.empty_like(x), 0.5)}, "out", (x,))
    yield from over({"workers=1": (1, 0.5)}, "workers", (x,))
    for function, most in (("sample", 1.5), ("sample_with_logprobs", 3)):
        yield Form(function, "(100,)", (row,), {"rng": rng}, most)
        yield Form(function, "top_k=5, top_p=0.9", (row,), {"rng": rng, "top_k": 5, "top_p": 0.9},
                   most + 0.5)  # fmt: skip
        yield Form(function, "(8,10)", (x,), {"rng": rng}, most + 1)
        for form in chain(_filters(function, "(8,10)", x, 8), _masks(function, "(8,10)", x)):
            yield Form(function, f"(8,10) {form.form}", (x,), form.kwargs | {"rng": rng}, form.most,
                       form.over)  # fmt: skip
        for name, value in (("size", 4), ("on_invalid", "flag"), ("workers", 1)):
            yield Form(function, f"{name}={value}", (row,), {"rng": rng, name: value}, most + 0.5)
        distinct = {"rng": rng, "size": 4, "replace": False}
        yield Form(function, "replace=False", (row,), distinct, most + 1)
        yield Form(function, "rng=1", (row,), {"rng": 1})  # a Generator is made: some 10 us
        yield Form(function, "rng=None", (row,), {}, most + 1.5)  # the system makes a number
        yield Form(function, "seed=, position=", (row,), {"seed": 3, "position": 4}, most + 0.5)
        each = {"seed": np.arange(8), "position": np.arange(8)}
        yield Form(function, "(8,10) seed, position a row", (x,), each, most + 2.5)
        yield Form(function, "(8,10) method='race'", (x,), each | {"method": "race"}, most + 4)
        for form, (value, bound) in _layouts((8, 10)).items():
            yield Form(function, f"(8,10) {form}", (value,), {"rng": rng}, bound, "(8,10)")
    taken = {"rng": rng, "accept": lambda _row, _id: True, "max_tries": 10}
    yield Form("sample", "accept=, max_tries=", (row,), taken, 10)
    ids = np.arange(8)
    yield Form("token_logprobs", "(8,10)", (x, ids), {}, 2)
    over = partial(_over, "token_logprobs", "(8,10)")
    yield from over(_temperatures(8), "temperature", (x, ids))
    several = {"ids= (8,2)": (np.stack([ids, ids], -1), 1), "ids a list": (ids.tolist(), 1)}
    yield from over(several, "ids", (x,))
    yield from _masks("token_logprobs", "(8,10)", x, ids)
    yield from over(_layouts((8, 10)), None, (ids,))
    yield Form("top_logprobs", "(8,10) n=3", (x, 3), {}, 2)
    over = partial(_over, "top_logprobs", "(8,10) n=3")
    yield from over(_temperatures(8), "temperature", (x, 3))
    yield from over({"n=np.int64": (np.int64(3), 0.5)}, "n", (x,))
    yield from _masks("top_logprobs", "(8,10) n=3", x, 3)
    yield from over(_layouts((8, 10)), None, (3,))


def _verification():
    x, y, rng = _array(4, 3, 10), _array(4, 2, 10, seed=1), np.random.default_rng(0)
    ids, scores, f, base = np.arange(8).reshape(4, 2), np.zeros((4, 3)), "verify", "(4,3,10)"
    yield Form(f, base, (ids, x, y), {"rng": rng}, 6)
    yield Form(f, "without draft_logits", (ids, x), {"rng": rng}, 5)
    for form in _filters(f, base, x, 4):
        yield Form(f, form.form, (ids, x, y), form.kwargs | {"rng": rng}, form.most, form.over)
    for name, value, most in (("method", "block", 4), ("on_invalid", "flag", 2), ("workers", 1, 2)):
        yield Form(f, f"{name}={value}", (ids, x, y), {"rng": rng, name: value}, most, base)
    mask = x > -1
    some = {"mask": mask[0, :2], "mask_rows": np.array([1, 3])}
    for form, masks, most in (
        ("mask=", {"mask": mask}, 1), ("mask= bits", {"mask": packed(mask)}, 1),
        ("mask_rows=", some, 12),
    ):  # fmt: skip
        yield Form(f, form, (ids, x, y), masks | {"rng": rng}, most, base)
    yield Form(f, "draft_ids a list", (ids.tolist(), x, y), {"rng": rng}, 14, base)
    yield Form(f, "rng=1", (ids, x, y), {"rng": 1})  # a Generator is made: some 10 us
    each = {"seed": np.arange(4), "position": np.arange(4)}
    yield Form(f, "seed, position a row", (ids, x, y), each, 2, base)
    f = "beam_step"
    yield Form(f, base, (x, scores, 4), {}, 5)
    yield Form(f, "scores a list", (x, scores.tolist(), 4), {}, 14, base)
    penalty = {"length": 3, "length_penalty": 1}
    yield Form(f, "length=, length_penalty=", (x, scores, 4), penalty, 40)
    for name, value in (("on_invalid", "flag"), ("workers", 1)):
        yield Form(f, f"{name}={value}", (x, scores, 4), {name: value}, 1, base)
    for form, (value, most) in _layouts((12, 10)).items():
        if form != "a list":
            value = value.reshape(4, 3, 10)
            yield Form("verify", form, (ids, value, y), {"rng": rng}, most and most + 2, base)
            yield Form(f, form, (value, scores, 4), {}, most and most + 2, base)


def _losses():
    x, y, out = _array(8, 10), np.arange(8), np.empty((8, 10), np.float32)
    soft = np.full((8, 10), 0.1, np.float32)
    weight = np.linspace(1, 2, 10)
    arguments = (
        ("temperature=2", {"temperature": 2}, 0.4), ("weight=", {"weight": weight}, 1),
        ("weight= a list", {"weight": weight.tolist()}, None),
        ("weight= float32", {"weight": weight.astype("float32")}, 1),
        ("ignore_index=3", {"ignore_index": 3}, 0.4),
        ("label_smoothing=0.1", {"label_smoothing": 0.1}, 0.6),
        ("reduction='none'", {"reduction": "none"}, 0.5),
        ("reduction='sum'", {"reduction": "sum"}, 0.4), ("workers=1", {"workers": 1}, 0.5),
    )  # fmt: skip
    for f, most in (("cross_entropy", 1.5), ("cross_entropy_with_grad", 2)):
        yield Form(f, "(8,10)", (x, y), {}, most)
        for form, kwargs, bound in arguments:
            yield Form(f, form, (x, y), kwargs, bound, "(8,10)")
        yield Form(f, "axis=0", (x.T, y), {"axis": 0}, 0.5, "(8,10)")
        yield Form(f, "targets probabilities", (x, soft), {}, 1, "(8,10)")
        yield Form(f, "targets int32", (x, y.astype("int32")), {}, 0.5, "(8,10)")
        yield Form(f, "targets a list", (x, y.tolist()), {}, 1, "(8,10)")
        yield from _over(f, "(8,10)", _layouts((8, 10)), None, (y,))
    yield Form("cross_entropy_with_grad", "out=", (x, y), {"out": out}, 0.5, "(8,10)")
    x, out = _array(3, 5), np.empty((3, 5), np.float32)
    for f in ("softmax_backward", "log_softmax_backward"):
        yield Form(f, "(3,5)", (x, x), {}, 1)
        over = partial(_over, f, "(3,5)")
        yield from over(_temperatures(3), "temperature", (x, x))
        yield from over({"axis=0": (0, 0.5), "axis=None": (None, 0.5)}, "axis", (x, x))
        yield from over({"out=": (out, 0.5)}, "out", (x, x))
        for form, (value, most) in _layouts((3, 5)).items():
            yield Form(f, form, (value, value), {}, most and most + 0.5, "(3,5)")


def _samplers():
    from fastsoftmax import Sampler
    from fastsoftmax.steps import MinP, RepetitionPenalty, Temperature, TopK, TopP

    row, rng = _array(1000), np.random.default_rng(0)
    plain, ids = {"rng": rng}, {"rng": rng, "ids": [1, 2, 3]}
    for form, steps, kwargs in (
        ("Temperature", (Temperature(0.8),), plain),
        ("Temperature, TopK", (Temperature(0.8), TopK(50)), plain),
        ("Temperature, TopP", (Temperature(0.8), TopP(0.9)), plain),
        ("RepetitionPenalty, TopK, MinP", (RepetitionPenalty(1.1), TopK(50), MinP(0.05)), ids),
    ):
        yield Form("Sampler", f"(1000,) {form}", (row,), kwargs, target=Sampler(*steps))
    base, sampler = "(1000,) Temperature, TopK", Sampler(Temperature(0.8), TopK(50))
    mask, seeds = row > -1, {"seed": 3, "position": 4}
    for form, kwargs, most in (
        ("mask=", {"mask": mask}, 1), ("mask= bits", {"mask": packed(mask)}, 1),
        ("mask_rows=", {"mask": mask[None], "mask_rows": [0]}, 15),
        ("accept=", {"accept": lambda row, i: True, "max_tries": 9}, 30),
    ):  # fmt: skip
        yield Form("Sampler", form, (row,), {**plain, **kwargs}, most, base, target=sampler)
    yield Form("Sampler", "seed=", (row,), seeds, 1, base, target=sampler)
    yield Form("Sampler", "method=race", (row,), {**seeds, "method": "race"}, 4, base, sampler)


def all_forms():
    """Return every form, those of a function one after the other; bfloat16 where it is there."""
    made = (*_softmax(), *_statistics(), *_selection(), *_sampling(), *_verification(), *_losses(),
            *_samplers())  # fmt: skip
    return sorted(made, key=lambda form: form.function)


def call(form):
    """Return a form as a callable without arguments."""
    import fastsoftmax

    target = form.target or getattr(fastsoftmax, form.function)
    return partial(target, *form.args, **form.kwargs)


def measure_forms(forms, samples):
    """Time forms, each by the shortest of so many samples.

    Returns
    -------
    list of dict
        ``function``, ``form``, ``us``, ``adds`` (times np.add) and ``most_us`` (None is no bound).
    """
    x = _array(3, 5)
    add_us = shortest(partial(np.add, x, x, out=np.empty_like(x)), samples=2 * samples) / 1e3
    found = {}
    for form in forms:
        found[form.function, form.form] = shortest(call(form), samples=samples) / 1e3
    results = []
    for form in forms:
        us = found[form.function, form.form]
        base = found.get((form.function, form.over))
        most = form.most
        if most is not None:
            # A form alone, without the one that it is a variation of, has no bound.
            most = None if form.over and base is None else most * add_us / ADD_US + (base or 0)
        if most is not None and isinstance(form.args[0], list):
            most += shortest(partial(np.asarray, form.args[0]), samples=samples) / 1e3
        results.append({
            "function": form.function, "form": form.form, "us": us, "adds": us / add_us,
            "most_us": most,
        })  # fmt: skip
    return results
