"""Cells of samplers in other systems' orders, beside `sample` and beside those systems."""

from benchmarks import limits
from benchmarks.cell import Cell, Run, shape_text

_ROW, _BATCH = (1, 128256), (32, 128256)
_LLAMA_CPP = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
_KINDS = (
    {},
    {"penalty_repeat": 1.1},
    {"top_k": 0, "top_p": 1.0, "min_p": 0.1, "temp": 1.2},
    {"top_k": 0, "top_p": 0.9, "min_p": 0.0, "temp": 0.7},
)


def _chain(shape, preset, tokens, *others, peer=None, floor=None, what=None, **parameters):
    """A cell of `Sampler`'s `preset` with so many tokens so far, and of a `peer` with a `floor`."""
    given = {"preset": preset, "tokens": tokens} | parameters
    runs = [Run("fastsoftmax", "fastsoftmax", "sampler", parameters=given), *others]
    if peer:
        runs.append(Run(peer, peer, "sampler", parameters=given, floor=floor))
    notes = ", ".join(f"{name}={value}" for name, value in parameters.items() if name != "text")
    name = what or f"Sampler.{preset}({notes})"
    name = f"{name} float32 {shape_text(shape)}, {tokens} tokens so far"
    return Cell(name, "sample", shape, tuple(runs), limits.FOUND)


def _filled(floor, tokens, **parameters):
    """llama.cpp's chain, and what filling its array costs."""
    given = {"preset": "llama_cpp", "tokens": tokens, "filling": True} | parameters
    return Run("llama.cpp, array filled", "llama.cpp", "sampler", parameters=given, floor=floor)


def _sample(floor):
    return Run("sample", "fastsoftmax", "sample", parameters=_LLAMA_CPP, floor=floor)


CHAINS = (
    _chain(_ROW, "llama_cpp", 0, _sample(0.8), peer="llama.cpp"),
    _chain(_BATCH, "llama_cpp", 0, _sample(0.9)),
    _chain(_ROW, "llama_cpp", 64, _filled(12, 64, penalty_repeat=1.1), peer="llama.cpp", floor=5,
           penalty_repeat=1.1),
    _chain((64, 128256), "llama_cpp", 64, _filled(None, 64, kinds=_KINDS), peer="llama.cpp",
           floor=8, what="Sampler.batch of four kinds of llama_cpp", kinds=_KINDS),
    _chain(_ROW, "llama_cpp", 32768, peer="llama.cpp", floor=10, text=True, dry_multiplier=0.8,
           dry_penalty_last_n=32768),
    _chain(_ROW, "hf", 500, peer="transformers", floor=250, repetition_penalty=1.1, top_k=50,
           top_p=0.9),
    _chain(_ROW, "hf", 500, peer="transformers", floor=20, typical_p=0.9),
)  # fmt: skip
