"""Files of JSON lines that a person names on the command line: read line by line, refused with their line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from sage.errors import DecodeFailure, NotFound, SageError

_EXIT_USAGE: Final = 2
_MARK: Final = b"\xef\xbb\xbf"


class JsonLine(NamedTuple):
    """One line that is not blank: its number, from 1 on, its value, and its place for messages."""

    number: int
    value: Any
    where: str


def json_lines(path: Path, *, wants: str) -> Iterator[JsonLine]:
    """The values of a file, one a line; blank lines are left out.

    Args:
        path: the file.
        wants: what it should hold, for the message where it is missing: ``--input wants records``.

    Raises:
        NotFound: there is no such file.
        DecodeFailure: a line is not UTF-8 or not JSON; exit code 2.
        SageError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            # By its own line ends: a text may hold others.
            for number, line in enumerate(file, 1):
                data = line.removeprefix(_MARK) if number == 1 else line
                if data.strip():
                    yield JsonLine(number, _decoded(data, f"{path}:{number}"), f"{path}:{number}")
    except FileNotFoundError as error:
        raise NotFound(f"no such file; {wants}, one JSON value a line", where=str(path)) from error
    except OSError as error:
        raise SageError(f"can't be read: {error.strerror or error}", where=str(path)) from error


def refused(message: str, where: str) -> DecodeFailure:
    """The error for what a person gave and can't be used."""
    return DecodeFailure(message, where=where, exit_code=_EXIT_USAGE)


def _decoded(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise refused(f"not UTF-8: {error}", where) from error
    except ValueError as error:
        raise refused(f"not JSON: {error}", where) from error
