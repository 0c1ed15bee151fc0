"""How each library does the work of a cell.

A *side* is a library. For each operation it knows, it prepares a call on given rows: everything
that can be done beforehand (conversion, session, binding, compilation) is done there and stays out
of the time.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from benchmarks import inputs, limits, numpy_idioms, onnx_models, samplers, torch_side

SOFTMAX_FAMILY = ("softmax", "log_softmax", "logsumexp")


@dataclass(frozen=True)
class Side:
    """A library: ``ops[op](x, **parameters)`` is a call, its result read by `as_numpy`."""

    version: str
    ops: dict[str, Callable[..., Callable[[], Any]]] = field(repr=False)
    as_numpy: Callable[[Any], np.ndarray] = field(default=np.asarray, repr=False)
    dtypes: tuple[str, ...] = ("float32", "float64")


def load_sides():
    """Import every library that is installed.

    Returns
    -------
    sides : dict of str to Side
    absent : list of str
        Names of the peers that could not be imported.
    """
    sides, absent = {}, []
    for name, load in _LOADERS.items():
        try:
            sides[name] = Side(*load())
        except ImportError:
            absent.append(name)
    return sides, absent


def _fastsoftmax():
    import fastsoftmax as fs

    def family(function, x, **options):
        return partial(function, x, **options)

    def masked(function, x, mask):
        return partial(function, x, where=inputs.mask(mask, x))

    def sample(x, allowed=None, **filters):
        if allowed is not None:
            filters["mask"] = inputs.packed(inputs.allowed(allowed, x))
        return partial(fs.sample, x, rng=np.random.default_rng(0), **filters)

    def race(x, **filters):
        position = count()
        draw = partial(fs.sample, x, seed=1, method="race", **filters)
        return lambda: draw(position=next(position))  # what it costs depends on it

    def sampler(x, preset, tokens, text=False, kinds=None, **parameters):
        make, ids = getattr(fs.Sampler, preset), inputs.tokens(x, tokens, text)
        if kinds:
            made = fs.Sampler.batch([make(**each) for each in inputs.chains(x, kinds)])
        else:
            made = make(**parameters)
        if text:
            return partial(made, x, fs.History(ids), np.random.default_rng(0))
        if len(x) == 1:
            x, ids = x[0], ids[0]
        return partial(made, x, ids, np.random.default_rng(0))

    def cross_entropy(x, axis=-1, soft=False, smoothing=0.0):
        labels = inputs.probabilities(x) if soft else inputs.targets(x, axis)
        return partial(fs.cross_entropy_with_grad, x, labels, axis=axis, label_smoothing=smoothing)

    def softmax_backward(x):
        return partial(fs.softmax_backward, inputs.gradient(x), inputs.probabilities(x))

    def verify(x, certain, top_p):
        ids, y = inputs.drafts(x, top_p)
        draft, rng = None if certain else y, np.random.default_rng(0)
        return partial(fs.verify, ids, x, draft, top_p=top_p, rng=rng)

    def row_stats(x, axis=-1):
        ids = inputs.targets(x, axis)
        return partial(fs.row_stats, x, axis=axis, top=min(5, x.shape[axis]), ids=ids)

    ops = {op: partial(family, getattr(fs, op)) for op in SOFTMAX_FAMILY}
    ops |= {
        "row_stats": lambda x, **options: partial(fs.row_stats, x, **options),
        "row_stats, top 5, rank": row_stats,
        "entropy": lambda x, **options: partial(fs.entropy, x, **options),
        "logmeanexp": lambda x, **options: partial(fs.logmeanexp, x, **options),
        "kl_divergence": lambda x, **options: partial(fs.kl_divergence, x, -x, **options),
        "logsumexp b=": lambda x, **options: partial(fs.logsumexp, x, b=x, **options),
        "softmax where": partial(masked, fs.softmax),
        "log_softmax where": partial(masked, fs.log_softmax),
        "softmax axes": lambda x, axes: partial(fs.softmax, x, axes),
        "softmax out": lambda x: partial(fs.softmax, x, out=np.empty_like(x)),
        "loss": lambda x: partial(fs.cross_entropy, x, inputs.targets(x)),
        "cross_entropy": cross_entropy,
        "softmax_backward": softmax_backward,
        "top_k": lambda x, **options: partial(fs.top_k, x, **options),
        "top_logprobs": lambda x, n: partial(fs.top_logprobs, x, n),
        "token_logprobs": lambda x: partial(fs.token_logprobs, x, inputs.targets(x)),
        "greedy": partial(sample, temperature=0),
        "verify": verify,
        "beam_step": lambda x, beams: partial(fs.beam_step, x, inputs.scores(x), beams),
        "sample": sample,
        "sample race": race,
        "sampler": sampler,
        # One value a row comes as a list; an array is what a server holds.
        "sample per row": lambda x, **lists: sample(
            x, **{name: np.array(values) for name, values in lists.items()}
        ),
    }
    return fs.__version__, ops, np.asarray, ("float32", "float64", "float16", "bfloat16", "int8")


def _scipy():
    import scipy
    from scipy import special

    def last_axis(function, x, axis):
        return function(x, axis=axis)

    def family(function, x, **options):
        return _divided(partial(last_axis, function), x, **options)

    ops = {op: partial(family, getattr(special, op)) for op in SOFTMAX_FAMILY}
    return scipy.__version__, ops


def _numpy():
    def family(function, x, **options):
        return partial(function, x, **options)

    choose = numpy_idioms.by_argpartition
    ops = {op: partial(family, getattr(numpy_idioms, op)) for op in SOFTMAX_FAMILY}
    ops |= {
        "softmax out": lambda x: partial(numpy_idioms.softmax, x, out=np.empty_like(x)),
        "cross_entropy": lambda x: partial(numpy_idioms.cross_entropy, x, inputs.targets(x)),
        "top_k": lambda x, k: partial(numpy_idioms.top_k, choose, x, k),
        "greedy": lambda x: partial(np.argmax, x, -1),
        "sample": partial(numpy_idioms.sampler, choose),
        "sample per row": partial(numpy_idioms.sampler, choose),
    }
    return np.__version__, ops


def _numpy_threshold():
    choose = numpy_idioms.by_threshold
    ops = {
        "top_k": lambda x, k: partial(numpy_idioms.top_k, choose, x, k),
        "sample": partial(numpy_idioms.sampler, choose),
        "sample per row": partial(numpy_idioms.sampler, choose),
    }
    return np.__version__, ops


def _jax():
    # Read when JAX is imported: one thread, as everybody.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if limits.implementation() == "avx2":
        flags += " --xla_cpu_max_isa=AVX2"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    import jax

    # Handing each call to another thread and back costs more than a small softmax.
    jax.config.update("jax_cpu_enable_async_dispatch", False)

    def compiled(function, x, *others):
        function, x = jax.jit(function), jax.device_put(x)
        return lambda: jax.block_until_ready(function(x, *others))

    def family(function, x, axis=-1, temperature=None):
        if temperature:
            return compiled(lambda x: function(x / temperature, axis), x)
        return compiled(lambda x: function(x, axis), x)

    def cross_entropy(x):
        def loss(x, classes):
            log_p = jax.nn.log_softmax(x, -1)
            return -jax.numpy.take_along_axis(log_p, classes[:, None], -1).mean()

        return compiled(jax.value_and_grad(loss), x, jax.device_put(inputs.targets(x)))

    ops = {op: partial(family, getattr(jax.nn, op)) for op in SOFTMAX_FAMILY}
    ops |= {
        "cross_entropy": cross_entropy,
        "top_k": lambda x, k: compiled(lambda x: jax.lax.top_k(x, k), x),
        "greedy": lambda x: compiled(lambda x: x.argmax(-1), x),
    }
    return jax.__version__, ops, np.asarray, ("float32",)  # float64 is off by default


def _divided(function, x, axis=-1, temperature=None):
    """A softmax without a temperature: what it is given has been divided by one."""
    if temperature:
        return lambda: function(x / temperature, axis)
    return partial(function, x, axis)


_LOADERS = {
    "fastsoftmax": _fastsoftmax,
    "torch": torch_side.side,
    "onnxruntime": onnx_models.side,
    "scipy": _scipy,
    "jax": _jax,
    "numpy": _numpy,
    "numpy threshold": _numpy_threshold,
    "transformers": samplers.transformers,
    "llama.cpp": samplers.llama_cpp,
}
