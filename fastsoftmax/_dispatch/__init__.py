"""Chooses, once, at import: which implementation runs on this CPU.

``isa`` is the data (instruction sets, their flags), ``cpu`` asks the processor, ``choose`` loads.
May import ``_front``, ``_reference`` and ``_docs``; nothing of them imports this folder.
"""

from .choose import NAMES, active, histories, kernels, load, reason, runnable, show_config

__all__ = ["NAMES", "active", "histories", "kernels", "load", "reason", "runnable", "show_config"]
