"""The samplers of other systems as steps: their parameters' names, defaults and order."""

from __future__ import annotations

from .hf import HuggingFace
from .llama_cpp import LlamaCpp
from .mlx_lm import MLXLM
from .vllm import VLLM


class Presets(HuggingFace, VLLM, LlamaCpp, MLXLM):
    """`Sampler`'s constructors that follow another system."""
