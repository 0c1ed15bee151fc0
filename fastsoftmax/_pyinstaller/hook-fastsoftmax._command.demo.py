"""The scores that ``fastsoftmax demo`` shows, for programs that have the command."""

from PyInstaller.utils.hooks import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    collect_data_files,
)

datas = collect_data_files("fastsoftmax", includes=["_command/demo.npz"])
