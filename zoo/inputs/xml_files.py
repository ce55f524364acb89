"""XML files of any origin as trees: bounded in size and depth, without entities, in the encodings that people use."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from zoo.inputs import UnreadableError
from zoo.inputs.text_files import decoded, read_bytes

__all__ = ["read_xml"]

_HARMLESS = 32 << 10  # bytes within which no nesting costs anything worth counting
_DEEPEST = 64
_CODINGS = re.compile(
    rb"windows-|cp\d|iso-?8859-|gb|hz|big5|euc|shift|s?jis|iso-?2022-|koi8|tis|ks_c|johab", re.IGNORECASE
)
_DECLARED = re.compile(rb"""\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["'][^>]{0,100}\?>""")


class _Bounded(ElementTree.TreeBuilder):
    """Builds a tree until it nests too deep."""

    depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:  # type: ignore[override]
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ElementTree.ParseError(f"elements nested deeper than {_DEEPEST}")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)


def read_xml(path: Path, most: int = 16 << 20) -> ElementTree.Element:
    """The root element of a file.

    Args:
        path: of the file.
        most: bytes that it may have; the tree takes up to thirty times as many.

    Raises:
        UnreadableError: if it is no XML, nests or swells without need, or is in an encoding unknown to Python.
    """
    try:
        raw = read_bytes(path, most)
        if not raw:
            raise UnreadableError("XML", "an empty file")
        content = _as_text(raw)
        if "<!ENTITY" in content if isinstance(content, str) else b"<!ENTITY" in content:
            # entities can swell a small file to gigabytes; data never need them
            raise UnreadableError("XML", "entity declarations, which are not accepted")
        if len(raw) <= _HARMLESS:
            return ElementTree.fromstring(content)
        return ElementTree.fromstring(content, parser=ElementTree.XMLParser(target=_Bounded()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UnreadableError("XML", str(error)) from None


def _as_text(raw: bytes) -> bytes | str:
    """Content for the parser: decoded here in the encodings of several bytes a character, which it does not know."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return re.sub(r"\A\ufeff?\s*<\?xml.*?\?>", "", decoded(raw), count=1, flags=re.DOTALL)
    declared = _DECLARED.match(raw)
    if declared is None or not _CODINGS.match(declared[1]):
        return raw
    return raw[declared.end() :].decode(declared[1].decode("ascii"))
