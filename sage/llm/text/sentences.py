"""Sentences of mixed English and Chinese text, Markdown included."""

from __future__ import annotations

import re

# A full stop ends a sentence only before white space and something that can begin one: not in 3.5, not in e.g. this.
_END = re.compile(
    r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\ba\.m\.)(?<!\bp\.m\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bNo\.)"
    r"[\"'”’)]*\s+(?=[\"'“‘(]?[A-Z0-9\u4e00-\u9fff])"
    r"|(?<=[。！？；])[”’」』）]*\s*"
)
_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_MARKS = re.compile(r"^\s*(?:[-*+]\s+|\d+[.)]\s+|>\s*|\|\s*)|\*\*|__|`|\s*\|\s*$")


def sentences(text: str, *, headings: bool = False) -> list[str]:
    """The sentences of a text, in order, without Markdown marks.

    Lines that were only wrapped belong together; a blank line, a list item, a table row or a heading ends a sentence.

    Args:
        headings: whether headings are given too; they answer nothing by themselves.
    """
    found: list[str] = []
    for block in _blocks(text):
        if _HEADING.match(block):
            if headings:
                found.append(block.lstrip("# ").strip())
            continue
        plain = _MARKS.sub("", block).strip()
        found.extend(part.strip() for part in _END.split(plain) if part and part.strip())
    return found


def _blocks(text: str) -> list[str]:
    blocks: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        starts_anew = not stripped or _HEADING.match(line) or re.match(r"\s*(?:[-*+]\s|\d+[.)]\s|\||>)", line)
        if starts_anew or not blocks or not blocks[-1] or _HEADING.match(blocks[-1]):
            blocks.append(stripped)
        else:
            blocks[-1] += _joint(blocks[-1], stripped) + stripped
    return [block for block in blocks if block]


def _joint(before: str, after: str) -> str:
    """Wrapped Chinese lines join without a space."""
    return "" if ord(before[-1]) > 0x2E7F or ord(after[0]) > 0x2E7F else " "
