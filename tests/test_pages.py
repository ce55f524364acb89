"""Pages that are linked have content; relative links and their anchors lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
LEAST = 300
"""Bytes besides headings below which a page is a title and nothing else."""

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def pages() -> list[Path]:
    """Every page that people read: at the root, and below docs, cards, tests, data and changelog."""
    folders = ("docs", "model_cards", "tests", "datamodules", "changelog.d", "benchmarks", "examples", ".github")
    found = {p for folder in folders for p in (ROOT / folder).rglob("*.md")}
    return sorted({*ROOT.glob("*.md"), *found})


def prose(text: str) -> str:
    """A page without its code."""
    return _CODE.sub("", _FENCE.sub("", text))


def links(text: str) -> list[str]:
    """Relative targets of links and pictures."""
    return [t for t in _LINK.findall(prose(text)) if not re.match(r"[a-z][a-z0-9+.-]*:|//", t)]


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them: lower case, hyphens, no punctuation, counted if equal."""
    made: dict[str, int] = {}
    result = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        count = made[slug] = made.get(slug, -1) + 1
        result.add(f"{slug}-{count}" if count else slug)
    return result | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def content(text: str) -> int:
    """Bytes of a page besides its header, its headings and its comments."""
    text = re.sub(r"\A---\n.*?^---$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return len(_HEADING.sub("", text).strip().encode())


def base_of(page: Path) -> Path:
    """The folder from which the links of a page start; fragments of the changelog are read in CHANGELOG.md."""
    return ROOT if page.parent == ROOT / "changelog.d" and page.name != "README.md" else page.parent


def problems_of(page: Path) -> list[str]:
    """What is wrong with the links of a page."""
    wrong = []
    for link in links(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (base_of(page) / unquote(name)).resolve() if name else page
        if not target.exists():
            wrong.append(f"{link}: there is no such file")
        elif target.suffix == ".md":
            text = target.read_text(encoding="utf-8")
            if content(text) < LEAST:
                wrong.append(f"{link}: the page has no content")
            if anchor and anchor not in anchors(text):
                wrong.append(f"{link}: the page has no such heading")
    return wrong


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_pages_with_content(page: Path) -> None:
    assert not problems_of(page)


def test_every_guide_is_linked() -> None:
    linked = set()
    for page in pages():
        for link in links(page.read_text(encoding="utf-8")):
            linked.add((base_of(page) / unquote(link.partition("#")[0])).resolve())
    alone = [p.name for p in (ROOT / "docs").glob("*.md") if p.resolve() not in linked]
    assert not alone


def test_a_broken_page_is_noticed(tmp_path: Path) -> None:
    """The checks above can fail."""
    (tmp_path / "title.md").write_text("# A title that promises much\n\n## And another one\n")
    (tmp_path / "full.md").write_text("# Full\n\n## Known limits, and `more`\n\n" + "Words. " * 60)
    page = tmp_path / "page.md"
    right = "[a](full.md) [b](full.md#known-limits-and-more) [c](#here) [d](https://example.org/x) `[e](nothing.md)`"
    page.write_text(f"# Here\n\n{right}\n\n```\n[f](nothing.md)\n```\n" + "Words. " * 60)
    assert problems_of(page) == []
    page.write_text("[a](title.md) [b](nothing.md) ![c](none.png) [d](full.md#unknown)")
    assert [p.partition(": ")[2] for p in problems_of(page)] == [
        "the page has no content",
        "there is no such file",
        "there is no such file",
        "the page has no such heading",
    ]
