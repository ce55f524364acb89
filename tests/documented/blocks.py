"""Code in Markdown pages: which blocks there are, and which say why no test runs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SHOWN = {"bibtex", "toml", "yaml", "text", ""}
"""Languages of blocks that show something instead of being run."""

_FENCE = re.compile(
    r"((?:^<!-- not run.*? -->\n+)*)^(?P<indent> *)(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- not run(?: \((?P<start>[^)]+)\))?: (?P<why>.+?) -->")


class Block(NamedTuple):
    """One block of code.

    Attributes:
        page: the file, relative to the checkout.
        line: where its fence stands.
        language: of the fence.
        code: the text between the fences.
        left_out: start of a line -> why no test runs it; the empty start leaves the whole block out.
    """

    page: str
    line: int
    language: str
    code: str
    left_out: dict[str, str]

    def why_not(self, line: str) -> str | None:
        """Why a line is not run, or None."""
        return next((why for start, why in self.left_out.items() if line.startswith(start)), None)


def blocks_of(page: Path, text: str | None = None) -> list[Block]:
    """All blocks of a page that are code to be run."""
    content = page.read_text(encoding="utf-8") if text is None else text
    name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
    found = []
    for match in _FENCE.finditer(content):
        if match["language"] not in SHOWN:
            marks = {m["start"] or "": m["why"] for m in _MARK.finditer(match[1])}
            line = content[: match.start("fence")].count("\n") + 1
            found.append(Block(name, line, match["language"], match["code"], marks))
    return found


def commands(code: str) -> list[str]:
    """The command lines of a shell block, continued ones joined, without comments and empty lines."""
    joined = re.sub(r"\\\n\s*", "", code)
    lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line]


def pages() -> list[Path]:
    """The pages with instructions for users."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "model_cards").glob("*/*.md"))]
