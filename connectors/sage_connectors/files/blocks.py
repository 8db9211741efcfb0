"""Bytes of a file as blocks of whole lines, and blocks as lines of text with their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO, NamedTuple

from sage.errors import DecodeFailure, RecordTooLarge

BLOCK_BYTES = 256 * 1024
LONGEST_LINE = 64 * 1024 * 1024
"""A line beyond this is taken for a file that has no lines, before it fills the memory. In bytes."""


class Line(NamedTuple):
    """A line without its end, the byte after it, and its number from 1."""

    text: str
    byte: int
    number: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One pass over one open file.

    Attributes:
        handle: open for reading bytes.
        name: the file's name, for messages.
        byte, line: where to start: so many bytes and lines are done.
        limit: the byte to stop at, so that a file that grows faster than it is read ends; ``None`` is its end.
        encoding: of the text.
        partial: whether a last line without a line end counts. Not while its writer may still be at it.
    """

    handle: BinaryIO
    name: str
    byte: int = 0
    line: int = 0
    limit: int | None = None
    encoding: str = "utf-8"
    partial: bool = True


class _Block(NamedTuple):
    data: bytes
    byte: int
    line: int


def lines(reading: Reading) -> Iterator[Line]:
    """All lines from the reading's start on, blank ones too.

    Raises:
        DecodeFailure: at the first line that is not text in the encoding, after all lines before it.
        RecordTooLarge: a line is longer than ``LONGEST_LINE``.
    """
    for block in _blocks(reading):
        try:
            yield from _cut(block, block.data.decode(reading.encoding))
        except UnicodeDecodeError as error:
            start = block.data.rfind(b"\n", 0, error.start) + 1
            good = block._replace(data=block.data[:start])
            if start:
                yield from _cut(good, good.data.decode(reading.encoding))
            raise _not_text(reading, block, error) from None


def _blocks(reading: Reading) -> Iterator[_Block]:
    byte, line, parts, held = reading.byte, reading.line, [b""], 0
    reading.handle.seek(byte)
    position = byte
    while chunk := reading.handle.read(_wanted(reading, position)):
        position += len(chunk)
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            parts.append(chunk)
            held += len(chunk)
            if held > LONGEST_LINE:
                raise RecordTooLarge(
                    f"a line of over {LONGEST_LINE >> 20} MiB; is this a text file?", where=f"{reading.name}:{line + 1}"
                )
            continue
        data = b"".join((*parts, chunk[:cut]))
        parts, held = [chunk[cut:]], len(chunk) - cut
        yield _Block(data, byte, line)
        byte += len(data)
        line += data.count(b"\n")
    rest = b"".join(parts)
    if rest and reading.partial:
        yield _Block(rest, byte, line)


def _wanted(reading: Reading, position: int) -> int:
    return BLOCK_BYTES if reading.limit is None else max(0, min(BLOCK_BYTES, reading.limit - position))


def _cut(block: _Block, text: str) -> Iterator[Line]:
    if block.byte == 0:
        text = text.removeprefix("\ufeff")  # a byte order mark is no part of the first line
    pieces = block.data.split(b"\n")
    texts = text.split("\n")  # not splitlines(): form feeds and U+2028 are no line ends in a file of lines
    if not pieces[-1]:  # what follows the last line end is not a line
        pieces.pop()
        texts.pop()
    if "\r" in text:
        texts = [each.removesuffix("\r") for each in texts]
    ends = accumulate((len(piece) + 1 for piece in pieces), initial=block.byte)
    next(ends)
    last = block.byte + len(block.data)
    for number, (each, end) in enumerate(zip(texts, ends, strict=True), block.line + 1):
        yield Line(each, min(end, last), number)  # a last line without a line end is a byte shorter


def _not_text(reading: Reading, block: _Block, error: UnicodeDecodeError) -> DecodeFailure:
    number = block.line + block.data.count(b"\n", 0, error.start) + 1
    found = block.data[error.start]
    line = block.data[block.data.rfind(b"\n", 0, error.start) + 1 :].split(b"\n", 1)[0]
    guess = _likely_encoding(block, line)
    return DecodeFailure(
        f"not {reading.encoding.upper()}: byte 0x{found:02x} at byte {block.byte + error.start} of the file;"
        f" convert it with `iconv -f {guess} -t UTF-8 {reading.name}`{_or_set(guess)}",
        where=f"{reading.name}:{number}",
    )


def _or_set(guess: str) -> str:
    return "" if guess == "UTF-16" else f", or set encoding: {guess.lower()}"  # UTF-16 can't be cut into lines


def _likely_encoding(block: _Block, line: bytes) -> str:
    """A guess for the message: UTF-16 by its mark, Chinese where the line reads as such, else Western."""
    if block.byte == 0 and block.data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "UTF-16"
    try:
        text = line.decode("gb18030")
    except UnicodeDecodeError:
        return "WINDOWS-1252"
    foreign = [character for character in text if character >= "\x80"]
    chinese = sum("\u3000" <= character <= "\u9fff" or character >= "\uff00" for character in foreign)
    return "GB18030" if chinese * 2 > len(foreign) else "WINDOWS-1252"
