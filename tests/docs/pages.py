"""What the pages for readers hold: their blocks of code and their tables, by line."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
#: Every page, by its name from the root; a page that comes in through an include is its own.
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *(ROOT / room / "README.md" for room in ("benchmarks", "examples")),
    )
}
FENCE = re.compile(r"^( *)(```+|:::+)(.*)$")
COMMENT = re.compile(r"<!-- (needs|run by): (.*) -->")


class Block(NamedTuple):
    """A fenced block: its line, what stands behind the fence, and its text.

    A comment right before it, `<!-- needs: a, b -->`, names packages that the tests do not have;
    `<!-- run by: tests/... -->` the test that runs it.
    """

    line: int
    kind: str
    text: str
    needs: tuple[str, ...] = ()
    run_by: tuple[str, ...] = ()


#: The examples' sources: what a page quotes of them is run where they are.
EXAMPLES = [
    path.read_text("utf-8")
    for path in sorted((ROOT / "examples").rglob("*"))
    if path.suffix in {".py", ".pyx", ".c", ".cpp", ".h", ".rs"}
]


def quoted(block):
    """Return whether a block is a part of an example, word for word."""
    return block.text.count("\n") > 3 and any(block.text.strip() in text for text in EXAMPLES)


class Row(NamedTuple):
    """A row of a table: its line, its cells by the head of their column, packages it needs."""

    line: int
    cells: dict[str, str]
    needs: tuple[str, ...] = ()


def blocks(page):
    """Return the fenced blocks of a page."""
    found, said, lines = [], {}, page.read_text("utf-8").split("\n")
    i = 0
    while i < len(lines):
        if fence := FENCE.match(lines[i]):
            indent, marks, kind = fence.groups()
            end = lines.index(indent + marks, i + 1)
            text = "\n".join(line[len(indent) :] for line in lines[i + 1 : end])
            found.append(Block(i + 1, kind.strip(), text + "\n", **said))
            i = end
        if lines[i].strip():
            said = comment(lines[i])
        i += 1
    return found


def rows(page, first):
    """Return the rows of a page's tables whose first column has this head."""
    found, head, said = [], None, {}
    for i, line in enumerate(page.read_text("utf-8").split("\n"), 1):
        if not line.startswith("|"):
            head = None
            if line.strip():
                said = comment(line)
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if head is None:
            head = cells
        elif head[0] == first and not set(cells[0]) <= set("-: "):
            found.append(Row(i, dict(zip(head, cells, strict=True)), **said))
    return found


def comment(line):
    """Return what a comment says, by its word; nothing if the line is none."""
    said = COMMENT.match(line.strip())
    return {said[1].replace(" ", "_"): tuple(said[2].split(", "))} if said else {}
