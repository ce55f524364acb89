"""Texts that a reader meets use the field's words: no jargon of this project, one wording for errors."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [p for top in ("zoo", "datamodules", "benchmarks", "examples") for p in sorted((ROOT / top).rglob("*.py"))]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "checkpoints.yaml")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("changelog.d/*.md")),
    *sorted(ROOT.glob("model_cards/*/README.md")),
    *sorted(ROOT.glob("model_cards/*/claims.yaml")),
    *sorted(ROOT.glob("zoo/**/*.yaml")),
    *sorted(ROOT.glob("zoo/**/*.md")),
]

WORDS = {
    r"expected\b[^.]*[,;:] found\b": "expected X, got Y",
    r"\banew\b": "again; for weights: re-initialised; for pictures: redrawn",
    r"\blikewise\b": "say it once more: each line of a help text is read alone",
    r"\bwhat people have\b": "user inputs",
    r"\bnobody\b": "name who: no client, no sample, not used",
    r"\bthe present (?:batch|epoch|run|training|use|state)": "current",
    r"\btold\b": "name the act: listed, reported, given",
    r"\bbelongs? into\b": "belongs in",
    r"\b(?:tell|tells|told) (?:\w+ ){0,3}apart\b": "distinguish; a classifier has classes",
    r"\bwhoever\b": "name who: the caller, a client",
    r"\bgo(?:es)? on from\b": "resume, continue",
    r"\bhostages?\b": "say what fails",
    r"\bworth nothing\b": "discarded",
    r"\bforget everything\b": "reset",
    r"\bgive weights to\b": "load weights into",
    r"\btake in one batch\b": "accumulate",
}
"""Pattern -> what to write instead."""

_ANY = re.compile("|".join(WORDS), re.IGNORECASE)

JARGON_NAMES = {"found", "told"}
"""Names of variables and arguments that say nothing about the value."""


def refused(text: str) -> Iterator[str]:
    """Each refused word of a text with what to write instead; a word in quotes is spoken about."""
    plain = re.sub(r"[\"`]\w+[\"`]", "", re.sub(r"\s+", " ", text))
    for pattern, better in WORDS.items() if _ANY.search(plain) else ():
        for match in re.finditer(pattern, plain, re.IGNORECASE):
            around = plain[max(0, match.start() - 30) : match.end() + 30]
            yield f"...{around}... (better: {better})"


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of all strings (docstrings, help texts, messages) and comments of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def names_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a module assigns or takes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("root: expected a folder, found a file.", 1),
        ("root: expected a folder, got a file.", 0),
        ("The best checkpoint is found by its metric.", 0),
        ("std   likewise (default: null)", 1),
        ('Write no "likewise" and no `anew`.', 0),
        ("The teacher tells 10 classes apart.", 1),
        ("made\nanew, what people\nhave", 2),
        ("as told above; nobody reads it; it belongs into a file; whoever asks", 4),
    ],
)
def test_what_is_refused(text: str, count: int) -> None:
    assert len(list(refused(text))) == count


def test_all_texts_of_a_module_are_seen() -> None:
    source = '"""One."""\n\ndef f(found):  # two\n    told = f"three {found} four"\n    self.told = told\n'
    assert {text for _, text in texts_of(source)} >= {"One.", "# two", "three {} four"}
    assert [name for _, name in names_of(source) if name in JARGON_NAMES] == ["found", "told", "told"]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_use_plain_words(path: Path) -> None:
    assert list(refused(path.read_text(encoding="utf-8"))) == []


def test_docstrings_help_texts_messages_and_comments_use_plain_words() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {problem}"
        for path in CODE
        for line, text in texts_of(path.read_text(encoding="utf-8"))
        for problem in refused(text)
    ]
    assert not wrong, "\n".join(dict.fromkeys(wrong))


def test_variables_are_named_after_what_they_hold() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in CODE
        if path.relative_to(ROOT).parts[0] in ("zoo", "datamodules", "examples")
        for line, name in names_of(path.read_text(encoding="utf-8"))
        if name in JARGON_NAMES
    ]
    assert not wrong, "\n".join(wrong)
