"""Text for terminals: widths of Chinese and of colours, columns, durations, moments."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def width(text: str) -> int:
    """The columns that ``text`` takes on a terminal: Chinese takes two a character, colours none."""
    plain = _COLOUR.sub("", text)
    if plain.isascii():
        return len(plain)
    return sum(_columns(character) for character in plain)


def cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` columns, with ``…`` where something was left out."""
    if width(text) <= limit:
        return text
    taken, used = [], 1
    for character in text:
        used += _columns(character)
        if used > limit:
            break
        taken.append(character)
    return "".join(taken) + "…"


def one_line(text: str) -> str:
    """``text`` with every run of white space, line ends included, made one blank."""
    return " ".join(text.split())


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[bool] = (), limit: int | None = None) -> list[str]:
    """Aligned lines; ``right`` says which columns stand to the right.

    With ``limit`` the widest column is cut so that a line fits that many terminal columns.
    """
    if not rows:
        return []
    widths = [max(width(row[index]) for row in rows) for index in range(len(rows[0]))]
    gaps = 2 * (len(widths) - 1)
    if limit is not None and sum(widths) + gaps > limit:
        widest = widths.index(max(widths))
        widths[widest] = max(12, limit - gaps - (sum(widths) - widths[widest]))
    lines = []
    for row in rows:
        cells = [_cell(text, widths[i], right=bool(right) and right[i]) for i, text in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return lines


def milliseconds(seconds: float) -> str:
    """A duration as people read it: ``18 ms``, ``3.1 s``, ``2 m 05 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} m {int(seconds % 60):02d} s"


def day_and_time(epoch_milliseconds: int) -> str:
    """A moment in this machine's time zone, ``2026-11-25 16:42:51``; ``-`` for 0."""
    if not epoch_milliseconds:
        return "-"
    return datetime.fromtimestamp(epoch_milliseconds / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _cell(text: str, columns_wide: int, *, right: bool) -> str:
    shown = cut(text, columns_wide)
    space = " " * (columns_wide - width(shown))
    return space + shown if right else shown + space


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
