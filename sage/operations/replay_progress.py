"""Which dead letters of a partition were replayed already: an offset, and a text committed with it.

A filter or a limit leaves letters out in the middle, so an offset alone can't say it: the text is a bitmap of the
letters after it, compressed. Most of a bitmap is runs, so 4,096 bytes, what Kafka takes with an offset, are enough
for hundreds of thousands of letters, and for 24,000 in the worst case.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass, field

from sage.errors import SageError
from sage.ports import Commit

MAX_TEXT = 4_096
"""Bytes that Kafka takes with a committed offset (``offset.metadata.max.bytes``)."""

_MARK = "1:"
"""The text's version."""


@dataclass(slots=True)
class Progress:
    """One partition of the dead-letter topic.

    Attributes:
        first: every letter before this offset was replayed, or is gone.
        done: offsets from there on that were replayed, or hold no record.
    """

    first: int = 0
    done: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, commit: Commit, start: int) -> Progress:
        """What the group has committed; ``start`` is the log's first offset.

        Raises:
            SageError: the text was not written by this program.
        """
        first = commit.offset or 0
        progress = cls(first, _decoded(commit.metadata, first))
        if start > first:
            progress.first = start
            progress.done = {offset for offset in progress.done if offset >= start}
        progress._advance()
        return progress

    def has(self, offset: int) -> bool:
        """Whether the letter there was replayed."""
        return offset < self.first or offset in self.done

    def add(self, *offsets: int) -> None:
        """These were replayed, or hold nothing to replay."""
        self.done.update(offset for offset in offsets if offset >= self.first)
        self._advance()

    def copy(self) -> Progress:
        """Another with the same letters."""
        return Progress(self.first, set(self.done))

    def text(self) -> str:
        """What is committed beside ``first``.

        Raises:
            SageError: it is longer than Kafka takes.
        """
        if not self.done:
            return ""
        bits = bytearray((max(self.done) - self.first) // 8 + 1)
        for offset in self.done:
            place = offset - self.first
            bits[place // 8] |= 1 << place % 8
        text = _MARK + base64.b85encode(zlib.compress(bytes(bits), 9)).decode()
        if len(text) > MAX_TEXT:
            raise SageError(
                f"too many letters lie between those that were replayed to keep account of ({len(self.done)}); "
                "replay without --filter, or purge what is not wanted"
            )
        return text

    def _advance(self) -> None:
        while self.first in self.done:
            self.done.remove(self.first)
            self.first += 1


def _decoded(text: str, first: int) -> set[int]:
    if not text:
        return set()
    try:
        if not text.startswith(_MARK):
            raise ValueError(f"begins with {text[:2]!r}")
        bits = zlib.decompress(base64.b85decode(text[len(_MARK) :]))
    except (ValueError, binascii.Error, zlib.error) as error:
        raise SageError(f"the replay group's commit holds a text of another program: {error}") from error
    return {first + 8 * place + bit for place, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1}
