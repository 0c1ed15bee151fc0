"""PyInstaller's hooks, which it finds by the entry point ``pyinstaller40``. May import nothing."""


def hook_dirs() -> list[str]:
    """Return the folders with hooks: this one."""
    return list(__path__)
