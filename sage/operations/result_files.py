"""Results in files of JSON, for a later run to be compared with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sage.errors import InvalidTopology, NotFound, SageError

FORMAT: Final = 1

_EXIT_USAGE: Final = 2


@contextmanager
def writing(path: Path) -> Iterator[Callable[[str], None]]:
    """What writes text to a file that a person names on the command line.

    Raises:
        SageError: it can't be written; what else fails in the block is raised as it is.
    """
    with _told(path):
        file = path.open("w", encoding="utf-8")

    def write(text: str) -> None:
        with _told(path):
            file.write(text)

    try:
        yield write
    finally:
        with _told(path):
            file.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SageError(f"cannot be written: {error.strerror or error}", where=str(path)) from error


def write_json(path: Path, document: Any) -> None:
    """Write a document to a file. Raises SageError where it can't be written."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    with writing(path) as write:
        write(text)


def write_result(path: Path, kind: str, fields: Mapping[str, Any]) -> None:
    """Write a result of some kind. Raises SageError where the file can't be written."""
    write_json(path, {"format": FORMAT, "kind": kind, **fields})


def read_result(path: Path, kind: str, *, made_by: str) -> dict[str, Any]:
    """The fields of a result.

    Args:
        path: the file.
        kind: what it has to hold.
        made_by: the command that makes one, for messages.

    Raises:
        NotFound: there is no such file.
        InvalidTopology: it holds something else (exit code 2).
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"no such file; `{made_by}` makes one", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise no_result(path, str(error), made_by=made_by) from error
    if not isinstance(document, dict) or document.pop("kind", "") != kind or document.pop("format", 0) != FORMAT:
        raise no_result(path, "it has another kind or format", made_by=made_by)
    return document


def no_result(path: Path, why: str, *, made_by: str) -> SageError:
    """The error for a file that holds something else."""
    return InvalidTopology(
        f"is not what `{made_by}` of this version writes: {why}", where=str(path), exit_code=_EXIT_USAGE
    )
