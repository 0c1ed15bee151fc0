"""C that tests compile for themselves."""

import os
import shlex
import shutil
import subprocess

import pytest


def shared_object(source, folder, *flags):
    """Compile a C file to a shared object in `folder`; skip where there is no compiler."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no C compiler: {compiler[0]}")
    target = folder / f"{source.stem}.so"
    command = [*compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", *flags]
    subprocess.run([*command, str(source), "-o", str(target)], check=True)
    return target
