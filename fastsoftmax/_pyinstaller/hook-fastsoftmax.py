"""What PyInstaller does not see: modules found by computed names, and what compiled ones import."""

from PyInstaller.utils.hooks import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    collect_submodules,
)

#: Has what a program must name itself, or an extra.
_LEFT_OUT = ("__main__", "_command", "_numba", "_pyinstaller")


def _needed(module: str) -> bool:
    _, _, inside = module.partition(".")
    room = inside.partition(".")[0]
    return room in ("capi", "steps") or (room.startswith("_") and room not in _LEFT_OUT)


hiddenimports = collect_submodules("fastsoftmax", filter=_needed)
