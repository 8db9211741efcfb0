"""Lines as values: one function a format. They block; ``in_threads`` drives them from a coroutine."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import orjson

from sage.errors import DecodeFailure
from sage.model.json import Json
from sage_connectors.files.blocks import LONGEST_LINE, Reading, lines

RowFormat = Literal["lines", "jsonl", "csv"]

ROWS_AT_ONCE = 4096
BYTES_AT_ONCE = 1024 * 1024


class Row(NamedTuple):
    """A value, the byte after it, and the number of its last line."""

    value: Json
    byte: int
    line: int


def line_rows(reading: Reading, delimiter: str) -> Iterator[Row]:
    """Each line that is not blank, as text."""
    del delimiter
    for text, byte, number in lines(reading):
        if text and not text.isspace():
            yield Row(text, byte, number)


def jsonl_rows(reading: Reading, delimiter: str) -> Iterator[Row]:
    """Each line that is not blank, as the JSON value it holds.

    Raises:
        DecodeFailure: a line is not JSON.
    """
    del delimiter
    loads = orjson.loads
    for text, byte, number in lines(reading):
        if not text or text.isspace():
            continue
        try:
            value = loads(text)
        except orjson.JSONDecodeError as error:
            raise DecodeFailure(
                f"not JSON at column {error.colno}: {error.msg}; found {_excerpt(text)}; correct this line",
                where=f"{reading.name}:{number}",
            ) from None
        yield Row(value, byte, number)


def csv_rows(reading: Reading, delimiter: str) -> Iterator[Row]:
    """Each row as an object with the names of the first row; quoted fields may hold line ends.

    Raises:
        DecodeFailure: a row has more or fewer fields than the first one, or a quote is never closed.
    """
    csv.field_size_limit(LONGEST_LINE)
    if reading.byte == 0:
        table = _Table(reading, delimiter)
        header = _header(table)
    else:
        header = _header(_Table(replace(reading, byte=0, line=0, limit=None), delimiter))
        table = _Table(reading, delimiter)
    names = _names(header, reading)
    while (fields := table.next()) is not None:
        if not fields:
            continue  # a blank line
        if len(fields) != len(names):
            raise DecodeFailure(
                f"{len(fields)} fields, but the first row names {len(names)}: {', '.join(names)}; correct this row",
                where=f"{reading.name}:{table.first}",
            )
        yield Row(dict(zip(names, fields, strict=True)), table.byte, table.number)


class _Table:
    """A csv reader that knows how far in the file it is."""

    def __init__(self, reading: Reading, delimiter: str) -> None:
        self._reading = reading
        self._rows = csv.reader(self._texts(), delimiter=delimiter, strict=True)
        self._ended = False
        self.byte = reading.byte
        self.number = reading.line
        self.first = reading.line + 1

    def next(self) -> list[str] | None:
        """The next row's fields; ``None`` at the end, and before a row whose writer is still at it."""
        self.first = self.number + 1
        try:
            return next(self._rows, None)
        except csv.Error as error:
            if self._ended and not self._reading.partial:
                return None
            raise DecodeFailure(
                f"not CSV: {error}; is a quote left open, or the delimiter another?",
                where=f"{self._reading.name}:{self.first}",
            ) from None

    def _texts(self) -> Iterator[str]:
        for text, byte, number in lines(self._reading):
            self.byte, self.number = byte, number
            yield text + "\n"
        self._ended = True


def _header(table: _Table) -> list[str] | None:
    """The first row that is not a blank line."""
    while (fields := table.next()) == []:
        pass
    return fields


def _names(header: list[str] | None, reading: Reading) -> list[str]:
    names = header or []
    doubles = sorted({name or "''" for name in names if names.count(name) > 1})
    if doubles:
        raise DecodeFailure(f"the first row names {', '.join(doubles)} twice; rename one", where=f"{reading.name}:1")
    return names


def _excerpt(text: str, length: int = 40) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")


ROWS: Mapping[RowFormat, Callable[[Reading, str], Iterator[Row]]] = {
    "lines": line_rows,
    "jsonl": jsonl_rows,
    "csv": csv_rows,
}


async def in_threads(rows: Iterator[Row]) -> AsyncIterator[list[Row]]:
    """Drive a blocking iterator in threads, some thousand rows a time, so that the event loop stays free.

    Rows before a failure are given before it is raised.
    """
    while True:
        taken, failure, more = await asyncio.to_thread(_take, rows)
        if taken:
            yield taken
        if failure is not None:
            raise failure
        if not more:
            return


def _take(rows: Iterator[Row]) -> tuple[list[Row], Exception | None, bool]:
    taken: list[Row] = []
    start = 0
    try:
        for row in rows:
            taken.append(row)
            start = start or row.byte
            if len(taken) >= ROWS_AT_ONCE or row.byte - start >= BYTES_AT_ONCE:
                return taken, None, True
    except Exception as error:  # handed over, to be raised after the rows before it
        return taken, error, False
    return taken, None, False
