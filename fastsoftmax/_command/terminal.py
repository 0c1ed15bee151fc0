"""What the command prints: plain text in a pipe, colours and bars on a terminal."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

GREEN, RED, DIM, BOLD, CYAN = "32", "31", "2", "1", "36"


class Screen:
    """A text stream, and what it can show: colours and bars on a terminal, plain text elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self.color = (
            self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
        self.encoding = stream.encoding or "ascii"
        self.blocks = " ▏▎▍▌▋▊▉█" if self.showable("▏█") == "▏█" else " #"
        self.width = shutil.get_terminal_size().columns

    def showable(self, text: str) -> str:
        """Return `text` with everything that the stream's encoding lacks written as an escape."""
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def say(self, text: str = "") -> None:
        """Print `text` as one line."""
        print(self.showable(text).rstrip(), file=self.stream)

    def paint(self, text: str, code: str) -> str:
        """Return `text` in the colour of the ANSI `code`, where colours are wanted."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def bar(self, fraction: float, width: int) -> str:
        """Return a bar of `fraction` of `width` cells; nothing, where there is no terminal."""
        if not self.terminal:
            return ""
        steps = len(self.blocks) - 1
        full, rest = divmod(round(fraction * max(width, 0) * steps), steps)
        return self.paint(self.blocks[-1] * full + (self.blocks[rest] if rest else ""), CYAN)

    def verdict(self, good: bool) -> str:
        """Return ``ok`` or ``FAILED``, as a check was `good` or not."""
        return self.paint("ok", GREEN) if good else self.paint("FAILED", RED)
