"""What git knows of, copied to a folder of its own: where a build leaves nothing behind."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def sources():
    """Return the paths of what git knows of and is there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if (ROOT / path).exists()]


def is_executable(path):
    """Return whether a source is to be run."""
    return os.access(ROOT / path, os.X_OK)


def copy_sources(folder, *, umask=0o022):
    """Copy the sources to a folder, as if under a umask; return the folder."""
    for path in sources():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)
        (folder / path).chmod((0o777 if is_executable(path) else 0o666) & ~umask)
    return folder
